"""Meta-path graphs, and many graphs as one.

A meta-path is a list of relations, each ending where the next begins; two nodes are its neighbours if a walk
along it joins them. Attention over several meta-paths is attention over the disjoint union of their graphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dgl
import torch

from hgat.errors import GraphError
from hgat.graph.csr import cached, in_order, single_relation

__all__ = ["Views", "metapath_graph", "metapaths", "prepare", "union", "views"]


@dataclass(frozen=True)
class Views:
    """The disjoint union of P graphs over the same destination nodes.

    graph: DGLGraph of one relation; view p owns the sources source_start[p] to source_start[p + 1] and the
    destinations p * num_dst to (p + 1) * num_dst. names: P names. shared_source: the views have the same source
    nodes in the same order, so that one feature matrix [N_src, F] serves all. destinations_first: the destinations are
    the first sources of every view, as on blocks and on graphs from a node type to itself.
    """

    graph: dgl.DGLGraph
    names: tuple
    num_dst: int
    source_start: tuple
    shared_source: bool
    destinations_first: bool

    @property
    def num_views(self):
        return len(self.names)

    @property
    def num_src(self):
        """Source nodes of one view; only where all views share them."""
        return self.source_start[1]


def _relation(graph, etype):
    found = [e for e in graph.canonical_etypes if etype in (e, e[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise GraphError(f"meta-path: expected one of the relations {found}, got the name {etype!r}")
    known = sorted(e[1] for e in graph.canonical_etypes)
    raise GraphError(f"meta-path: expected relations of the graph, {known}, got {etype!r}")


def metapath_graph(graph, metapath, self_loops=True):
    """The graph of pairs that a walk along `metapath` joins, each pair once, and by default of every node with itself.

    metapath: relation names or canonical triples; it must end at the node type where it starts. Raises GraphError
    for an unknown relation, for relations that do not follow one another, and for a path that has no pairs.
    """
    if getattr(graph, "canonical_etypes", None) is None:
        raise GraphError(f"graph: expected a DGLGraph, got {type(graph).__name__}")
    if isinstance(metapath, str) or not isinstance(metapath, Sequence):
        raise GraphError(f"meta-path: expected a list of relations, got {metapath!r}")
    steps = [_relation(graph, tuple(etype) if isinstance(etype, list) else etype) for etype in metapath]
    if not steps:
        raise GraphError("meta-path: expected at least one relation, got none")
    for here, there in zip(steps, steps[1:], strict=False):
        if here[2] != there[0]:
            raise GraphError(f"meta-path: expected a relation that starts at {here[2]!r} after {here}, got {there}")
    if steps[0][0] != steps[-1][2]:
        raise GraphError(f"meta-path: expected an end at its start {steps[0][0]!r}, got an end at {steps[-1][2]!r}")
    found = dgl.metapath_reachable_graph(graph, steps)
    if found.num_edges() == 0:
        raise GraphError(f"meta-path: expected at least one pair along {list(metapath)}, got none")
    if self_loops:
        found = dgl.add_self_loop(dgl.remove_self_loop(found))
    return found


def union(graphs, names=None):
    """Views over several graphs (or blocks) that have the same destination nodes in the same order.

    Raises GraphError when there is no graph, one has several relations, or the numbers of destinations differ.
    """
    graphs = list(graphs)
    if not graphs:
        raise GraphError("union: expected at least one graph, got none")
    names = tuple(names) if names is not None else tuple(str(p) for p in range(len(graphs)))
    if len(names) != len(graphs):
        raise GraphError(f"union: expected {len(graphs)} names, got {len(names)}")
    for graph in graphs:
        single_relation(graph)
    sizes = {g.num_dst_nodes() for g in graphs}
    if len(sizes) != 1:
        raise GraphError(f"union: expected the same destination nodes in every graph, got {sorted(sizes)}")
    num_dst = sizes.pop()
    starts, sources, targets = [0], [], []
    for view, graph in enumerate(graphs):
        src, dst = in_order(graph)
        sources.append(src + starts[-1])
        targets.append(dst + view * num_dst)
        starts.append(starts[-1] + graph.num_src_nodes())
    joined = dgl.heterograph(
        {("source", "to", "target"): (torch.cat(sources), torch.cat(targets))},
        num_nodes_dict={"source": starts[-1], "target": num_dst * len(graphs)},
        idtype=graphs[0].idtype,
    )
    same_size = len({g.num_src_nodes() for g in graphs}) == 1
    blocks = any(g.is_block for g in graphs)
    first = all(g.is_block or g.is_homogeneous for g in graphs)
    return Views(joined, names, num_dst, tuple(starts), same_size and not blocks, first)


def views(graph):
    """The relations of a typed DGLGraph or block, all from one node type to one, as Views; built once per graph.

    For blocks of a graph with one relation per meta-path, as a sampler gives them: its relations share their sources.
    Views are returned as they are. Raises GraphError for relations between several pairs of node types.
    """
    if isinstance(graph, Views):
        return graph
    etypes = getattr(graph, "canonical_etypes", None)
    if etypes is None:
        raise GraphError(
            "views: expected what hgat.graph.metapaths or hgat.graph.union gives, or a DGLGraph, "
            f"got {type(graph).__name__}"
        )
    if len({(src, dst) for src, _, dst in etypes}) != 1:
        raise GraphError(
            "views: expected what hgat.graph.metapaths or hgat.graph.union gives, or relations between one pair of "
            f"node types, got {etypes}"
        )

    def build():
        found = union([graph[etype] for etype in etypes], [etype[1] for etype in etypes])
        return replace(found, shared_source=True, destinations_first=etypes[0][0] == etypes[0][2])

    return cached(graph, ("views", tuple(etypes), graph.is_block), build)


def _name(path):
    return "-".join(etype if isinstance(etype, str) else etype[1] for etype in path)


def metapaths(graph, paths, self_loops=True):
    """Views over the graphs of several meta-paths, all of one node type.

    paths: a dict from name to meta-path, or a list of meta-paths, named by their relations.
    """
    named = isinstance(paths, dict)
    found = [metapath_graph(graph, path, self_loops) for path in (paths.values() if named else paths)]
    names = list(paths) if named else [_name(path) for path in paths]
    if len(set(names)) != len(names):
        raise GraphError(f"meta-paths: expected different names, got {names}; a dict can name them")
    ntypes = sorted({g.ntypes[0] for g in found})
    if len(ntypes) > 1:
        raise GraphError(f"meta-paths: expected all of one node type, got {ntypes}")
    return union(found, names)


def prepare(graph, *, paths: dict, self_loops: bool = True):
    """The structure that HAN trains on: one view per named meta-path."""
    return metapaths(graph, paths, self_loops)
