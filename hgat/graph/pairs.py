"""Pairs of nodes: what lies around each of many, in one graph, and those that no edge joins, without listing them."""

from typing import NamedTuple

import dgl
import torch
from torch import Tensor

from hgat.errors import GraphError, check_shape
from hgat.graph.csr import CPU, cached, check_graph, check_product, check_whole, out_rows, single_relation
from hgat.graph.memory import within_memory

__all__ = ["Enclosing", "NonEdges", "Routes", "enclosing", "routes"]

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
    check_whole(0, hops=hops)
    asked = _Pairs(graph, src, dst)
    balls = [asked.ball(ends, hops) for ends in (asked.src, asked.dst)]
    keys = torch.unique(torch.cat([ball.keys for ball in balls]))
    at, other, place = asked.followed(keys)
    row, inside = _within(other, keys)
    inside = inside.nonzero().flatten()
    at, row, place = at.index_select(0, inside), row.index_select(0, inside), place.index_select(0, inside)
    batched = dgl.graph((at, row), num_nodes=len(keys), idtype=graph.idtype)
    batched.ndata[dgl.NID] = (keys % asked.nodes).to(graph.idtype)
    batched.edata[dgl.EID] = asked.rows.edge_id[place].to(graph.idtype)
    if len(asked.src):
        of_node, of_edge = keys // asked.nodes, keys[at] // asked.nodes
        batched.set_batch_num_nodes(torch.bincount(of_node, minlength=len(asked.src)).to(graph.idtype))
        batched.set_batch_num_edges(torch.bincount(of_edge, minlength=len(asked.src)).to(graph.idtype))
    away = []
    for ball in balls:
        hop = torch.bucketize(torch.arange(len(ball.keys)), torch.tensor(ball.upto), right=True)
        away.append(torch.full_like(keys, FAR).index_put((torch.searchsorted(keys, ball.keys),), hop))
    ends = (torch.searchsorted(keys, asked.start + end) for end in (asked.src, asked.dst))
    return Enclosing(batched, *ends, *away)


class Routes(NamedTuple):
    """What goes from one end of each of B pairs, the sender, to the other, the receiver, in K hops, as DGL's blocks.

    sends: K blocks. The destinations of the k-th are the nodes that k edges lead to from the sender, and the edges come
    from those that k - 1 edges lead to, and from each node itself. Its sources are its destinations, then those of the
    block before. Nodes from which nothing leads on to what is around the receiver are left out. senders: [B], their
    numbers in the whole graph; reached: K tensors, those of every block's destinations.
    collects: K blocks, the k-th from the nodes within K - k + 1 edges of the receiver to those within K - k, with which
    its sources begin. around: [R], numbers of the first one's sources, nearest first, the B receivers before all.
    place: [R], the row of each in what was sent: 0 for nothing, then the senders, then every block's destinations.
    num_nodes: N, of the whole graph.
    """

    sends: tuple[dgl.DGLGraph, ...]
    senders: Tensor
    reached: tuple[Tensor, ...]
    collects: tuple[dgl.DGLGraph, ...]
    around: Tensor
    place: Tensor
    num_nodes: int


@within_memory
def routes(graph: dgl.DGLGraph, src: Tensor, dst: Tensor, hops: int) -> tuple[Routes, Routes]:
    """(routes from the source of each pair to its destination, routes back), within what `enclosing` finds.

    The pair's own edge is left out as there. No edge but these can change what K = `hops` layers of attention give the
    receiver of what K hops carry from the sender. graph: both directions of every edge, as often one as the other, and
    the self-loops that attention is to have.
    Raises GraphError as `enclosing` does, for an edge in one direction, and for hops below 1.
    """
    check_whole(1, hops=hops)
    asked = _Pairs(graph, src, dst)
    if not cached(graph, ("both directions",), lambda: _both_directions(graph)):
        raise GraphError("graph: expected both directions of every edge, got one alone")
    source, destination = (asked.ball(ends, hops) for ends in (asked.src, asked.dst))
    return asked.routes(source, destination), asked.routes(destination, source)


class _Ball(NamedTuple):
    """What is within K edges of one end of each pair. keys: [R], nearest first, those of a hop by size; upto: K + 1
    numbers, how many are within k edges. edges: K pairs, (row of a neighbour, row), of all edges that leave the rows of
    a hop. known, row: the keys by size, and the row of each.
    """

    keys: Tensor
    upto: list[int]
    edges: list[tuple[Tensor, Tensor]]
    known: Tensor
    row: Tensor


class _Pairs:
    """B pairs of a graph, whose own edges are not followed. A node of a pair has a key, pair * N + node."""

    def __init__(self, graph, src, dst):
        check_graph(graph, blocks=False)
        single_relation(graph)
        if not graph.is_homogeneous:
            raise GraphError(f"graph: expected one node type, got {graph.srctypes[0]!r} and {graph.dsttypes[0]!r}")
        self.nodes = nodes = graph.num_nodes()
        self.src, self.dst = (node_ids(name, ids, nodes) for name, ids in (("src", src), ("dst", dst)))
        check_shape("dst", self.dst, ("B", len(self.src)))
        check_product(pairs=len(self.src), nodes=nodes)
        self.rows, self.start = out_rows(graph, CPU), torch.arange(len(self.src)) * nodes

    def followed(self, keys):
        """(position among the sorted keys, key of the neighbour, place of the edge) of all that leaves one of them."""
        rows, node = self.rows, keys % self.nodes
        first, base = rows.indptr[node], keys - node
        degree = rows.indptr[node + 1] - first
        at = torch.repeat_interleave(torch.arange(len(keys)), degree)
        place = torch.arange(len(at)) + torch.repeat_interleave(first - degree.cumsum(0) + degree, degree)
        other = rows.other.index_select(0, place) + torch.repeat_interleave(base, degree)
        # The key that the pair's own edge would lead to, of an end; no key of another node.
        facing = torch.full_like(keys, -1)
        for one, two in ((self.src, self.dst), (self.dst, self.src)):
            end, there = _within(self.start + one, keys)
            facing[end[there]] = torch.where(one == two, -1, self.start + two)[there]
        kept = (other != torch.repeat_interleave(facing, degree)).nonzero().flatten()
        return at.index_select(0, kept), other.index_select(0, kept), place.index_select(0, kept)

    def ball(self, ends, hops):
        """What is within `hops` edges of these ends of the pairs."""
        known = last = keys = self.start + ends
        row, upto, edges = torch.arange(len(known)), [len(known)], []
        for _ in range(hops):
            at, other, _ = self.followed(last)
            other, number = torch.unique(other, return_inverse=True)
            place, there = _within(other, known)
            fresh = (~there).nonzero().flatten()
            rows = row[place] if len(known) else place
            rows[fresh] = torch.arange(upto[-1], upto[-1] + len(fresh))
            edges.append((rows[number], at + upto[-1] - len(last)))
            last = other[fresh]
            keys = torch.cat([keys, last])
            known, order = torch.cat([known, last]).sort()
            row = torch.cat([row, rows[fresh]])[order]
            upto.append(upto[-1] + len(last))
        return _Ball(keys, upto, edges, known, row)

    def routes(self, sender, receiver):
        """The Routes between the two balls."""
        hops, count = len(sender.edges), len(self.src)
        collects = []
        for left in reversed(range(hops)):  # edges that are left to go behind this layer
            ends = (torch.cat(found) for found in zip(*receiver.edges[: left + 1], strict=True))
            collects.append(dgl.create_block(tuple(ends), receiver.upto[left + 1], receiver.upto[left]))
        place, there = _within(receiver.keys, sender.known)
        place = sender.row[place] if len(place) else place
        wanted = torch.zeros(sender.upto[-1], dtype=torch.bool)
        wanted[:count] = wanted[place[there]] = True
        steps = []
        for hop in range(hops, 0, -1):
            node, last = sender.edges[hop - 1]
            kept = ((node >= sender.upto[hop - 1]) & wanted[node]).nonzero().flatten()
            steps.append((last[kept], node[kept]))
            wanted[last[kept]] = True
        number = wanted.cumsum(0) - 1
        upto = [0, *(int(number[end - 1]) + 1 if end else 0 for end in sender.upto)]
        ids = sender.keys[wanted] % self.nodes
        sends = []
        for hop, (last, node) in enumerate(reversed(steps), 1):
            first, begin, end = upto[hop - 1 : hop + 2]
            own = torch.arange(end - begin)
            ends = torch.cat([number[last] - first + len(own), own]), torch.cat([number[node] - begin, own])
            sends.append(dgl.create_block(ends, end - first, len(own)))
        return Routes(
            tuple(sends),
            ids[:count],
            tuple(ids[begin:end] for begin, end in zip(upto[1:-1], upto[2:], strict=True)),
            tuple(collects),
            receiver.keys % self.nodes,
            torch.where(there, number[place] + 1, 0),
            self.nodes,
        )


def _both_directions(graph):
    """Whether every edge is there as often as the one back."""
    src, dst = (end.to(CPU, torch.int64) for end in graph.edges(order="eid"))
    nodes = graph.num_nodes()
    return bool((src * nodes + dst).sort().values.equal((dst * nodes + src).sort().values))


def _within(keys, known):
    """(place in the sorted `known`, whether it stands there) of every key; some place where it does not."""
    place = torch.searchsorted(known, keys).clamp(max=max(len(known) - 1, 0))
    return place, known[place] == keys if len(known) else torch.zeros_like(keys, dtype=torch.bool)


def node_ids(name, ids, nodes):
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
        src, dst = (node_ids(name, ids, num_nodes) for name, ids in (("src", src), ("dst", dst)))
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
