"""Pairs of nodes: what lies around each of many, in one graph, and those that no edge joins, without listing them."""

from typing import NamedTuple

import dgl
import torch
from torch import Tensor

from hgat.errors import GraphError, check_shape
from hgat.graph.csr import CPU, check_graph, check_product, check_whole, out_rows, single_relation
from hgat.graph.memory import within_memory

__all__ = ["Enclosing", "NonEdges", "enclosing"]

FAR = -1  # of a node that is farther than the hops that are counted


class Enclosing(NamedTuple):
    """What lies around B pairs of nodes: a graph for each, one beside the other as dgl.batch puts them.

    graph: M nodes in all, ndata[dgl.NID] and edata[dgl.EID] their numbers in the whole graph; dgl.unbatch takes it
    apart. src, dst: [B], the rows of both ends. hops_src, hops_dst: [M], how many edges lead from the pair's source, or
    from its destination, to each node, without the pair's own edge; -1 for more than were asked for.
    """

    graph: dgl.DGLGraph
    src: Tensor
    dst: Tensor
    hops_src: Tensor
    hops_dst: Tensor


@within_memory
def enclosing(graph: dgl.DGLGraph, src: Tensor, dst: Tensor, hops: int) -> Enclosing:
    """All nodes within `hops` edges of either end of each pair, and all edges among them but the pair's own.

    The pair's own edge is left out in both directions before hops are counted, so that nothing tells whether it was
    there. Edges are followed forwards: a graph with both directions of every edge is what an undirected one is. A
    self-loop is an edge like others; of a pair of a node with itself nothing is left out. An end without other edges
    stands alone, and two ends in different components have a neighbourhood each.
    graph: of one node type and one relation. src, dst: [B] ids, in any order, as often as one likes.
    Raises GraphError for another graph, for ids that the graph does not have, and for hops below 0.
    """
    check_graph(graph, blocks=False)
    single_relation(graph)
    if not graph.is_homogeneous:
        raise GraphError(f"graph: expected one node type, got {graph.srctypes[0]!r} and {graph.dsttypes[0]!r}")
    check_whole(0, hops=hops)
    nodes = graph.num_nodes()
    src, dst = (_ids(name, ids, nodes) for name, ids in (("src", src), ("dst", dst)))
    check_shape("dst", dst, ("B", len(src)))
    check_product(pairs=len(src), nodes=nodes)
    rows, start = out_rows(graph, CPU), torch.arange(len(src)) * nodes  # a node of a pair is pair * N + node

    def followed(keys):
        """(position among the keys, key of the neighbour, place of the edge) of all that leaves one of `keys`."""
        node = keys % nodes
        first, base = rows.indptr[node], keys - node
        degree = rows.indptr[node + 1] - first
        at = torch.repeat_interleave(torch.arange(len(keys)), degree)
        place = torch.arange(len(at)) + torch.repeat_interleave(first - degree.cumsum(0) + degree, degree)
        other = rows.other.index_select(0, place) + torch.repeat_interleave(base, degree)
        # The key that the pair's own edge would lead to, of an end; no key of another node.
        facing = torch.full_like(keys, -1)
        for one, two in ((src, dst), (dst, src)):
            end, there = _within(start + one, keys)
            facing[end[there]] = torch.where(one == two, -1, start + two)[there]
        kept = (other != torch.repeat_interleave(facing, degree)).nonzero().flatten()
        return at.index_select(0, kept), other.index_select(0, kept), place.index_select(0, kept)

    def reached(ends):
        """(keys, hops) of all that is within reach of one end of each pair, by key."""
        known = last = start + ends
        count = torch.zeros(len(known), dtype=torch.int64)
        for hop in range(1, hops + 1):
            last = torch.unique(followed(last)[1])
            last = last[~_within(last, known)[1]]
            known, order = torch.cat([known, last]).sort()
            count = torch.cat([count, torch.full_like(last, hop)])[order]
        return known, count

    found = [reached(ends) for ends in (src, dst)]
    keys = torch.unique(torch.cat([found[0][0], found[1][0]]))
    at, other, place = followed(keys)
    row, inside = _within(other, keys)
    inside = inside.nonzero().flatten()
    at, row, place = at.index_select(0, inside), row.index_select(0, inside), place.index_select(0, inside)
    batched = dgl.graph((at, row), num_nodes=len(keys), idtype=graph.idtype)
    batched.ndata[dgl.NID] = (keys % nodes).to(graph.idtype)
    batched.edata[dgl.EID] = rows.edge_id[place].to(graph.idtype)
    if len(src):
        batched.set_batch_num_nodes(torch.bincount(keys // nodes, minlength=len(src)).to(graph.idtype))
        batched.set_batch_num_edges(torch.bincount(keys[at] // nodes, minlength=len(src)).to(graph.idtype))
    away = []
    for known, count in found:
        place, there = _within(keys, known)
        away.append(torch.where(there, count[place], FAR) if len(known) else place)
    ends = (torch.searchsorted(keys, start + end) for end in (src, dst))
    return Enclosing(batched, *ends, *away)


def _within(keys, known):
    """(place in the sorted `known`, whether it stands there) of every key; some place where it does not."""
    place = torch.searchsorted(known, keys).clamp(max=max(len(known) - 1, 0))
    return place, known[place] == keys if len(known) else torch.zeros_like(keys, dtype=torch.bool)


def _ids(name, ids, nodes):
    """The ids as int64 on the CPU, or GraphError for those that are none."""
    if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
        got = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise GraphError(f"{name}: expected ids of nodes [B], got {got}")
    ids = ids.to(CPU, torch.int64)
    wrong = ids[(ids < 0) | (ids >= nodes)]
    if len(wrong):
        raise GraphError(f"{name}: expected ids of {nodes} nodes, from 0 to {nodes - 1}, got {int(wrong[0])}")
    return ids


class NonEdges:
    """The pairs of two different nodes that are no links, numbered from 0 on; none of them is written down.

    num_nodes: N. src, dst: [E], the links, in any order; a self-loop is none. directed: u v and v u are two pairs, else
    one, of which the smaller id comes first. `len` says how many there are, and `at` which.
    Raises GraphError for ids that are no nodes.
    """

    def __init__(self, num_nodes: int, src: Tensor, dst: Tensor, *, directed: bool = False) -> None:
        check_whole(0, num_nodes=num_nodes)
        check_product(nodes=num_nodes, others=num_nodes)
        src, dst = (_ids(name, ids, num_nodes) for name, ids in (("src", src), ("dst", dst)))
        self.num_nodes, self.directed = num_nodes, directed
        apart = src != dst
        taken = torch.unique(self._number(src[apart], dst[apart]))
        pairs = num_nodes * max(num_nodes - 1, 0)
        self._count = (pairs if directed else pairs // 2) - len(taken)
        # How many non-edges are numbered below each link.
        self._below = taken - torch.arange(len(taken))

    def __len__(self) -> int:
        return self._count

    def at(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(source, destination), [B] each, of the non-edges with these numbers [B]. Raises GraphError for others."""
        wrong = numbers[(numbers < 0) | (numbers >= self._count)]
        if len(wrong):
            raise GraphError(f"numbers: expected those of {self._count} pairs without a link, got {int(wrong[0])}")
        number = numbers + torch.searchsorted(self._below, numbers, right=True)
        if self.directed:
            src, dst = number // (self.num_nodes - 1), number % (self.num_nodes - 1)
            return src, dst + (dst >= src)
        # v (v - 1) / 2 + u with u < v; the root is rounded, so v may be one too large.
        dst = ((1 + (1 + 8 * number.double()).sqrt()) / 2).long()
        dst = dst - (dst * (dst - 1) // 2 > number).long()
        return number - dst * (dst - 1) // 2, dst

    def _number(self, src, dst):
        """The number of a pair among all pairs, links among them."""
        if self.directed:
            return src * (self.num_nodes - 1) + dst - (dst > src).long()
        low, high = torch.minimum(src, dst), torch.maximum(src, dst)
        return high * (high - 1) // 2 + low
