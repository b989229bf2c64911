"""Plain graphs: self-loops and both directions."""

import dgl

from hgat.errors import GraphError

__all__ = ["prepare"]


def prepare(graph, *, self_loops: bool = True, undirected: bool = False):
    """The structure that attention over one relation trains on.

    self_loops: every node attends to itself once. undirected: every edge in both directions, once.
    """
    if len(graph.canonical_etypes) != 1:
        raise GraphError(f"graph: expected one relation, got {len(graph.canonical_etypes)}")
    if graph.num_edges() == 0:
        raise GraphError("graph: expected at least one edge, got none")
    if undirected:
        graph = dgl.to_bidirected(graph)
    if self_loops:
        graph = dgl.add_self_loop(dgl.remove_self_loop(graph))
    return graph
