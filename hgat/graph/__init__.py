"""Structure, built once before training and never inside forward."""

from hgat.graph import csr, homogeneous, metapath, relations
from hgat.graph.events import event_times, from_events, from_frame
from hgat.graph.metapath import Views, metapath_graph, metapaths, union, views
from hgat.graph.recent import RecentNeighbours, recent_neighbours
from hgat.graph.relations import JoinedRelations, JoinedTypes, add_inverse, join, join_types
from hgat.graph.snapshots import Snapshots, snapshots
from hgat.graph.walks import Walks, walks

__all__ = [
    "JoinedRelations",
    "JoinedTypes",
    "RecentNeighbours",
    "Snapshots",
    "Views",
    "Walks",
    "add_inverse",
    "csr",
    "event_times",
    "from_events",
    "from_frame",
    "homogeneous",
    "join",
    "join_types",
    "metapath",
    "metapath_graph",
    "metapaths",
    "recent_neighbours",
    "relations",
    "snapshots",
    "union",
    "views",
    "walks",
]
