"""Batches of graphs as `dgl.batch` makes them: which node is whose, and parts of them that are batches again."""

from typing import Any, cast

import dgl
import torch
from torch import Tensor

from hgat.errors import GraphError, check_shape
from hgat.graph.csr import cached, check_graph, device_of, in_order, single_relation

__all__ = ["members", "members_by_type", "padded", "ranges", "sub_batch", "take_graphs"]


def members(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """The bipartite graph from every node to the graph of the batch that it belongs to: what a readout attends over.

    graph: of one node type, a batch of B graphs, or one graph, which is a batch of one -> N sources, B destinations and
    N edges; edge v starts at node v. A graph without nodes is a destination without in-edges. Kept with the graph.
    Raises GraphError for several node types, a block, and sizes that are not those of the nodes.
    """
    sizes = _sizes(graph)

    def build():
        return _owned(torch.arange(len(sizes), dtype=graph.idtype).repeat_interleave(sizes), len(sizes))

    # The sizes are no part of what DGL keeps with the index, so they are part of the key.
    return cached(graph, ("members", tuple(sizes.tolist())), build)


def members_by_type(graph: dgl.DGLGraph, device: torch.device | str | None = None) -> tuple[dgl.DGLGraph, Tensor]:
    """The bipartite graph from every node to its graph and type, for readouts in two levels, and which of them occur.

    graph: of T node types, a batch of B graphs or one -> (N sources, the nodes of all types in the order of
    graph.ntypes, B * T destinations, type t of graph b the number b * T + t, and N edges; there [B, T] bool, True where
    a graph has nodes of a type, on a device, by default the graph's). Kept with the graph.
    Raises GraphError for a block, and for sizes that are not those of the nodes.
    """
    check_graph(graph, blocks=False)
    device = device_of(graph, device)
    sizes = torch.stack([_sizes_of(graph, ntype) for ntype in graph.ntypes], 1)  # [B, T]

    def build():
        groups = torch.arange(sizes.numel(), dtype=graph.idtype).view(sizes.shape).t()
        owner = groups.flatten().repeat_interleave(sizes.t().flatten())
        return _owned(owner, sizes.numel()), (sizes > 0).to(device)

    return cached(graph, ("members by type", tuple(sizes.flatten().tolist()), str(device)), build)


def padded(graph: dgl.DGLGraph, feat: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of a batch as padded sets, one for each graph: what attention over dense sets takes.

    graph: as of `members`; feat [N, F] -> (rows [B, K, F] with zeros behind a graph's own, mask [B, K] bool, True where
    a node stands), K the nodes of the largest graph. rows[mask] is feat again. What of it is structure is kept with
    the graph.
    Raises GraphError for another graph, ShapeError for features that are not [N, F].
    """
    sizes = _sizes(graph)
    check_shape("feat", feat, ("N", graph.num_nodes()), ("F", None))
    count, longest = len(sizes), int(sizes.max()) if len(sizes) else 0

    def build():
        mask = torch.arange(longest) < sizes.unsqueeze(1)
        return mask.flatten().nonzero().flatten().to(feat.device), mask.to(feat.device)

    place, mask = cached(graph, ("padded", tuple(sizes.tolist()), str(feat.device)), build)
    rows = feat.new_zeros(count * longest, feat.shape[1]).index_copy(0, place, feat)
    return rows.view(count, longest, feat.shape[1]), mask.clone()


def take_graphs(graph: dgl.DGLGraph, ids: Tensor) -> tuple[dgl.DGLGraph, Tensor, Tensor]:
    """The graphs of a batch with these numbers, in this order, as a batch, and which nodes and edges these are.

    graph: what dgl.batch gives, of one relation among nodes of one type, on the CPU; ids [K] int64 -> (batch of K
    graphs, nodes [N'], edges [E']), int64 numbers in `graph` of the batch's nodes and edges. The same as
    dgl.batch([dgl.unbatch(graph)[k] for k in ids]), without its data.
    Raises GraphError for another graph and for ids that are not there.
    """
    single_relation(graph)
    sizes = _sizes(graph)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(sizes):
        wrong = ids[(ids < 0) | (ids >= len(sizes))]
        raise GraphError(f"ids: expected numbers from 0 to {len(sizes) - 1} of graphs, got {int(wrong[0])}")
    counts = graph.batch_num_edges().cpu().long()
    src, dst = (end.long() for end in in_order(graph))

    def build():
        owner = torch.arange(len(sizes)).repeat_interleave(sizes)
        of_edge = torch.arange(len(counts)).repeat_interleave(counts)
        fits = len(counts) == len(sizes) and len(of_edge) == len(src)
        return fits and bool((owner[src] == of_edge).all() and (owner[dst] == of_edge).all())

    if not cached(graph, ("batch", tuple(sizes.tolist()), tuple(counts.tolist())), build):
        raise GraphError(
            "graph: expected the edges of one graph behind those of another, as dgl.batch has them, got others"
        )
    ids = ids.long()
    first, first_edge = sizes.cumsum(0) - sizes, counts.cumsum(0) - counts
    nodes, edges = ranges(first[ids], sizes[ids]), ranges(first_edge[ids], counts[ids])
    # What the nodes of each graph are moved by.
    moved = (sizes[ids].cumsum(0) - sizes[ids] - first[ids]).repeat_interleave(counts[ids])
    found = dgl.graph((src[edges] + moved, dst[edges] + moved), num_nodes=len(nodes), idtype=graph.idtype)
    return _with_sizes(found, sizes[ids], counts[ids]), nodes, edges


def sub_batch(graph: dgl.DGLGraph, nodes: Tensor) -> dgl.DGLGraph:
    """The graphs of a batch with these nodes alone, and the edges among them: a batch of as many graphs.

    graph: of one relation among nodes of one type; nodes [K] int64, distinct, in rising order. ndata[dgl.NID] and
    edata[dgl.EID] say which nodes and edges they are in `graph`. Raises GraphError for another graph.
    """
    single_relation(graph)
    sizes, device = _sizes(graph), graph.device
    nodes = nodes.to(device)
    src, dst = (end.long() for end in in_order(graph))
    place = torch.full((graph.num_nodes(),), -1, dtype=torch.int64, device=device)
    place[nodes] = torch.arange(len(nodes), device=device)
    edges = ((place[src] >= 0) & (place[dst] >= 0)).nonzero().flatten()
    owner = torch.arange(len(sizes)).repeat_interleave(sizes).to(device)
    found = dgl.graph((place[src[edges]], place[dst[edges]]), num_nodes=len(nodes), idtype=graph.idtype)
    found.ndata[dgl.NID], found.edata[dgl.EID] = nodes, edges
    kept, left = owner[nodes], owner[src[edges]]
    return _with_sizes(found, *(torch.bincount(x, minlength=len(sizes)) for x in (kept, left)))


def ranges(first: Tensor, count: Tensor) -> Tensor:
    """first_k, first_k + 1, ..., `count_k` of them, one k after the other: int64 [sum of count]."""
    start = (first - (count.cumsum(0) - count)).repeat_interleave(count)
    return start + torch.arange(len(start), device=start.device)


def _owned(owner: Tensor, count: int) -> dgl.DGLGraph:
    """The bipartite graph from node v to owner[v], one of `count`."""
    return dgl.heterograph(
        {("node", "of", "graph"): (torch.arange(len(owner), dtype=owner.dtype), owner)},
        num_nodes_dict={"node": len(owner), "graph": count},
        idtype=owner.dtype,
    )


def _with_sizes(graph, nodes, edges):
    graph.set_batch_num_nodes(nodes.to(graph.device))
    graph.set_batch_num_edges(edges.to(graph.device))
    return graph


def _sizes(graph: Any) -> Tensor:
    """[B] int64 on the CPU: the nodes of every graph of a batch."""
    check_graph(graph, blocks=False)
    if len(graph.ntypes) != 1 or graph.num_src_nodes() != graph.num_dst_nodes():
        raise GraphError(f"graph: expected nodes of one type, got {', '.join(graph.ntypes)}")
    return _sizes_of(graph, graph.ntypes[0])


def _sizes_of(graph: Any, ntype: str) -> Tensor:
    sizes = cast(Tensor, graph.batch_num_nodes(ntype)).cpu().long()
    if int(sizes.sum()) != graph.num_nodes(ntype):
        raise GraphError(
            f"graph: expected a batch whose graphs have {graph.num_nodes(ntype)} nodes together, got "
            f"{int(sizes.sum())}; after a change of nodes call graph.set_batch_num_nodes"
        )
    return sizes
