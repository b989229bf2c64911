"""Hypergraphs as bipartite graphs from nodes to hyperedges, one edge for every node of every hyperedge."""

from collections.abc import Sequence
from typing import Any

import dgl
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from hgat.errors import GraphError, is_whole
from hgat.graph.batches import ranges
from hgat.graph.csr import cached, in_order, in_rows, shown, single_relation
from hgat.graph.memory import within_memory

__all__ = ["clique_expansion", "hypergraph", "others"]


@within_memory
def hypergraph(
    incidence: dgl.DGLGraph | tuple[Tensor, Tensor] | Sequence[Sequence[int]],
    num_nodes: int | None = None,
    num_hyperedges: int | None = None,
) -> dgl.DGLGraph:
    """The bipartite graph ("node", "in", "hyperedge") of a hypergraph, each pair once, sorted by hyperedge.

    incidence: (nodes [I], hyperedges [I]), int64 numbers of what belongs together; or the nodes of each hyperedge,
    [[0, 1, 2], [2, 3]]; or a graph of one relation, whose sources are nodes and whose destinations are hyperedges: of
    a typed graph graph["film", "liked by", "user"], users as sets of films; of a plain graph each node's in-neighbours.
    num_nodes, num_hyperedges: by default the graph's, or one more than the greatest number.
    A hyperedge without nodes, and a node in none, stay. Raises GraphError for numbers that do not fit.
    """
    if isinstance(incidence, dgl.DGLGraph):
        single_relation(incidence)
        nodes, hyperedges = (end.long().cpu() for end in in_order(incidence))
        num_nodes = incidence.num_src_nodes() if num_nodes is None else num_nodes
        num_hyperedges = incidence.num_dst_nodes() if num_hyperedges is None else num_hyperedges
    elif isinstance(incidence, tuple) and len(incidence) == 2 and all(isinstance(end, Tensor) for end in incidence):
        nodes, hyperedges = (_whole(end) for end in incidence)
        if nodes.shape != hyperedges.shape:
            raise GraphError(f"incidence: expected [I] and [I], got {list(nodes.shape)} and {list(hyperedges.shape)}")
    else:
        nodes, hyperedges = _listed(incidence)
        num_hyperedges = len(incidence) if num_hyperedges is None else num_hyperedges
    sizes = []
    for what, ids, given in (("num_nodes", nodes, num_nodes), ("num_hyperedges", hyperedges, num_hyperedges)):
        least = int(ids.max()) + 1 if len(ids) else 0
        if len(ids) and int(ids.min()) < 0:
            raise GraphError(f"incidence: expected numbers from 0 on, got {int(ids.min())}")
        if given is not None and not is_whole(given, least):
            raise GraphError(f"{what}: expected a whole number, {least} or more, got {shown(given)}")
        sizes.append(least if given is None else int(given))
    keys = torch.unique(hyperedges * sizes[0] + nodes)
    ends = keys % max(sizes[0], 1), keys // max(sizes[0], 1)
    counts = {"node": sizes[0], "hyperedge": sizes[1]}
    return dgl.heterograph({("node", "in", "hyperedge"): ends}, num_nodes_dict=counts)


@within_memory
def clique_expansion(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """Every two nodes that share a hyperedge, joined in both directions, once, without loops: what is lost is which.

    graph: a hypergraph -> a graph of one node type. Its edges are up to the sum of the hyperedges' sizes squared.
    Raises GraphError for anything but a bipartite graph.
    """
    check_hypergraph(graph)
    nodes, hyperedges = (end.long().numpy() for end in in_order(graph))
    shape = graph.num_src_nodes(), graph.num_dst_nodes()
    incidence = scipy.sparse.csr_matrix((np.ones(len(nodes), dtype=np.float32), (nodes, hyperedges)), shape=shape)
    joined = (incidence @ incidence.T).tocoo()
    apart = joined.row != joined.col
    ends = (torch.from_numpy(end[apart].astype(np.int64)) for end in (joined.row, joined.col))
    return dgl.graph(tuple(ends), num_nodes=graph.num_src_nodes(), idtype=graph.idtype)


def others(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """The bipartite graph from nodes to pairs of a node and its hyperedge: to each pair the hyperedge's other nodes.

    graph: a hypergraph of I pairs -> N sources, I destinations, as many edges as the sum of |e| (|e| - 1) over the
    hyperedges e; of a hyperedge of one node that node itself, as of a self-loop. Kept with the graph.
    """
    single_relation(graph)

    def build():
        rows = in_rows(graph, "cpu")
        sizes = torch.diff(rows.indptr)
        _, hyperedge = (end.long().cpu() for end in in_order(graph))
        count = sizes[hyperedge]
        pair = torch.arange(len(hyperedge)).repeat_interleave(count)
        at = ranges(rows.indptr[:-1][hyperedge], count)
        keep = (rows.edge_id[at] != pair) | (count[pair] == 1)
        return dgl.heterograph(
            {("node", "to", "pair"): (rows.other[at[keep]].to(graph.idtype), pair[keep].to(graph.idtype))},
            num_nodes_dict={"node": graph.num_src_nodes(), "pair": len(hyperedge)},
            idtype=graph.idtype,
        )

    return cached(graph, ("others",), build)


def check_hypergraph(graph: Any) -> None:
    """Raise GraphError unless `graph` is a bipartite graph of one relation, from nodes to hyperedges."""
    single_relation(graph)
    if graph.is_block or graph.srctypes == graph.dsttypes:
        got = "a block" if graph.is_block else f"one among {graph.srctypes[0]!r} nodes"
        raise GraphError(f"graph: expected a bipartite one from nodes to hyperedges (hgat.graph.hypergraph), got {got}")


def _whole(ids: Any) -> Tensor:
    if ids.dim() != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise GraphError(f"incidence: expected whole numbers [I], got {ids.dtype} {list(ids.shape)}")
    return ids.long().cpu()


def _listed(incidence: Any) -> tuple[Tensor, Tensor]:
    """(nodes [I], hyperedges [I]) of the nodes of each hyperedge."""
    found = None
    if isinstance(incidence, Sequence) and not isinstance(incidence, str):
        try:
            found = [torch.as_tensor(members) if len(members) else torch.empty(0).long() for members in incidence]
        except (TypeError, ValueError, RuntimeError):
            found = None
    if found is None:
        raise GraphError(
            "incidence: expected a graph, a tuple of two tensors, or the nodes of each hyperedge, got "
            f"{shown(incidence)}"
        )
    counts = torch.tensor([len(members) for members in found], dtype=torch.int64)
    nodes = torch.cat([_whole(members) for members in found]) if found else torch.empty(0).long()
    return nodes, torch.arange(len(found)).repeat_interleave(counts)
