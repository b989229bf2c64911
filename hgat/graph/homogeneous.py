"""Plain graphs: self-loops and both directions."""

import dgl

from hgat.errors import GraphError
from hgat.graph.csr import rebuilt, single_relation
from hgat.graph.memory import within_memory

__all__ = ["prepare"]


@within_memory
def prepare(graph: dgl.DGLGraph, *, self_loops: bool = True, undirected: bool = False) -> dgl.DGLGraph:
    """The structure that attention over one relation trains on.

    self_loops: every node attends to itself once. undirected: every edge in both directions, once.
    """
    single_relation(graph)
    if graph.num_edges() == 0:
        raise GraphError("graph: expected at least one edge, got none")
    if (undirected or self_loops) and (graph.is_block or not graph.is_homogeneous):
        ends = f"{graph.srctypes[0]!r} and {graph.dsttypes[0]!r}"
        kind = "a block" if graph.is_block else f"a bipartite one of {ends}"
        raise GraphError(f"graph: expected one node type for self-loops or both directions, got {kind}")
    if undirected or self_loops:
        graph = rebuilt(graph)
    if undirected:
        graph = dgl.to_bidirected(graph)
    if self_loops:
        graph = dgl.add_self_loop(dgl.remove_self_loop(graph))
    return graph
