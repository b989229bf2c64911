"""Structure, built once before training and never inside forward."""

from hgat.graph import csr, homogeneous, metapath, relations
from hgat.graph.attack import attacked_edges, flipped_features
from hgat.graph.batches import members, members_by_type, padded, sub_batch, take_graphs
from hgat.graph.csr import to_device
from hgat.graph.events import event_times, from_events, from_frame
from hgat.graph.hypergraph import clique_expansion, hypergraph
from hgat.graph.importance import ImportanceSampler
from hgat.graph.interchange import from_networkx, from_pandas, from_pyg, to_networkx, to_pandas, to_pyg
from hgat.graph.knn import knn_graph
from hgat.graph.metapath import Views, disjoint_union, metapath_graph, metapaths, views
from hgat.graph.motifs import signed_degrees, signed_motifs
from hgat.graph.normalized import normalized
from hgat.graph.pairs import Enclosing, NonEdges, Routes, enclosing, routes
from hgat.graph.paths import cheapest_paths
from hgat.graph.ppr import ppr_graph, ppr_values
from hgat.graph.recent import RecentEvents, RecentNeighbours, recent_events, recent_neighbours
from hgat.graph.relations import JoinedRelations, JoinedTypes, add_inverse, join_relations, join_types
from hgat.graph.shells import hop_shells
from hgat.graph.snapshots import Snapshots, snapshots
from hgat.graph.stacked import StackedTypes, relative_times, stack_types
from hgat.graph.triples import RelationGroups, message_graph, relation_groups, triple_graph
from hgat.graph.walks import Walks, walks
from hgat.renamed import old_names

__all__ = [
    "Enclosing",
    "ImportanceSampler",
    "JoinedRelations",
    "JoinedTypes",
    "NonEdges",
    "RecentEvents",
    "RecentNeighbours",
    "RelationGroups",
    "Routes",
    "Snapshots",
    "StackedTypes",
    "Views",
    "Walks",
    "add_inverse",
    "attacked_edges",
    "cheapest_paths",
    "clique_expansion",
    "csr",
    "disjoint_union",
    "enclosing",
    "event_times",
    "flipped_features",
    "from_events",
    "from_frame",
    "from_networkx",
    "from_pandas",
    "from_pyg",
    "homogeneous",
    "hop_shells",
    "hypergraph",
    "join_relations",
    "join_types",
    "knn_graph",
    "members",
    "members_by_type",
    "message_graph",
    "metapath",
    "metapath_graph",
    "metapaths",
    "normalized",
    "padded",
    "ppr_graph",
    "ppr_values",
    "recent_events",
    "recent_neighbours",
    "relation_groups",
    "relations",
    "relative_times",
    "signed_degrees",
    "signed_motifs",
    "routes",
    "snapshots",
    "stack_types",
    "sub_batch",
    "take_graphs",
    "to_device",
    "to_networkx",
    "to_pandas",
    "to_pyg",
    "triple_graph",
    "views",
    "walks",
]

__getattr__ = old_names(globals(), {"join": "join_relations", "union": "disjoint_union"})
