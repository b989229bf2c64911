"""Hop shells: for every node the nodes at each distance, weighed by all walks that lead there."""

from collections.abc import Iterator, Sequence
from typing import Literal

import dgl
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_whole, is_whole
from hgat.graph import csr, homogeneous
from hgat.graph.memory import available, within_memory
from hgat.graph.normalized import normalized

__all__ = ["hop_shells"]

BLOCK = 1 << 23  # entries of the dense columns that are spread at once
PAIR = 24  # bytes of a pair while shells are put together


@within_memory
def hop_shells(
    graph: dgl.DGLGraph,
    hops: int | Sequence[int] = 4,
    horizon: int = 10,
    *,
    self_loop: Literal["every", "first"] = "every",
    undirected: bool = True,
    keep: int | None = None,
) -> list[tuple[dgl.DGLGraph, Tensor]]:
    """TDGNN's tree decomposition: one graph for each hop, whose edges join a node to those at just that distance.

        A = D^(-1/2) (adjacency + I) D^(-1/2);   E^k = sum_{i=k..horizon} A^i;   T^k = [distance is k] + I
        shell k: an edge u -> v for every T^k_vu = 1, of weight E^k_vu

    Each pair of nodes is in the shell of its distance alone, and its weight counts the walks of that length and of all
    longer ones up to `horizon`.

    hops: 1 to so many, or the hops themselves, rising. self_loop: "every", I is part of each T^k as the paper has it;
    "first", of hop 1 alone, as the authors' code has it. undirected: every edge in both directions, once; with False an
    edge u -> v tells v of u and nothing back, and distances and walks follow the edges. Edges that the graph has twice
    count once, and a node's own count as those that A adds. An isolated node has itself alone, of weight 1 for each
    power in E^k. keep: of each shell only so many nodes of the largest weights, and the node itself; all by default.

    Shapes: a list of (graph of N nodes, weight [E_k] float32), one for each hop.
    Memory and time: nothing of N x N is made; N x horizon x E sums of products are computed, a block of receivers after
    the other. What grows is the result: on a power-law graph of ogbn-arxiv's size, 169,343 nodes and 2.4 million edges,
    one hop has 2.4 million pairs, two 340 million and three 5.8 billion, a fifth of all pairs there are: these fit into
    no 4 GiB, while 32 a hop, by `keep`, are 17 million.
    Raises GraphError for a graph without edges or with several relations and where the pairs, whose number the first
    block tells, do not fit the free memory; ShapeError for hops that do not rise from 1 to `horizon`.

    Paper: Wang and Derr 2021 (TDGNN), arXiv:2108.11022, section 3. Differs: the authors' code keeps a table of walks
    by (receiver, sender) and reads it by (sender, receiver). On an undirected graph that is the same. On the directed
    ones that it is run on too, Texas, Cornell, Wisconsin and Actor, an edge so gets the weight of the walks that go
    back, which for most edges is zero: their published numbers are those of a model that hardly reads its shells. Here
    the weight is that of the walks from sender to receiver, whether or not edges are made to go both ways.
    """
    hops = _checked(hops, horizon)
    if self_loop not in ("every", "first"):
        raise ShapeError(f"self_loop: expected 'every' or 'first', got {csr.shown(self_loop)}")
    check_whole(1, keep=keep)
    graph = homogeneous.prepare(graph, undirected=undirected)
    if not undirected:
        graph = dgl.to_simple(graph)
    nodes = graph.num_nodes()
    src, dst = (ends.numpy() for ends in csr.edges(graph, torch.device("cpu")))
    # What a receiver is told goes back along the edges.
    back = sp.csr_matrix((normalized(graph).cpu().double().numpy(), (src, dst)), shape=(nodes, nodes))
    parts: list[list[tuple]] = [[] for _ in hops]
    count = -(-nodes // max(1, BLOCK // nodes))
    for number in range(count):
        ids = np.arange(number, nodes, count)  # spread over all nodes, so that the first block is like the others
        for place, found in enumerate(_block(back, ids, hops, horizon, self_loop)):
            parts[place].append(_strongest(found, keep))
        if number == 0:
            _check_size(sum(len(part[0][0]) for part in parts) * nodes // len(ids), hops)
    return [_shell(part, nodes) for part in parts]


def _checked(hops, horizon):
    """The hops as a list."""
    check_whole(1, horizon=horizon)
    if not isinstance(hops, Sequence):
        check_whole(1, hops=hops)
        hops = range(1, int(hops) + 1)
    rising = all(is_whole(k, 1) for k in hops) and all(a < b for a, b in zip(hops, hops[1:], strict=False))
    if not len(hops) or not rising or hops[-1] > horizon:
        raise ShapeError(f"hops: expected whole numbers that rise from 1 to a horizon of {horizon}, got {list(hops)}")
    return [int(k) for k in hops]


def _block(back, ids, hops, horizon, self_loop) -> Iterator[tuple]:
    """Of each hop (sender, receiver, weight), arrays of all pairs in its shell whose receivers are `ids`."""
    nodes, width = back.shape[0], len(ids)
    own = np.arange(width)
    walks = np.zeros((nodes, width))
    walks[ids, own] = 1.0
    near = walks > 0
    place, weight = {}, {}
    back_again = {k: np.zeros(width) for k in hops}
    for step in range(1, horizon + 1):
        walks = back @ walks  # [N, B], column r: the walks of `step` steps that end at receiver r, by where they start
        if step <= hops[-1]:
            reached = walks > 0
            if step in hops:
                place[step] = np.flatnonzero(reached > near)
                weight[step] = np.zeros(len(place[step]))
            near = reached
        for k in place:
            weight[k] += walks.ravel()[place[k]]
            back_again[k] += walks[ids, own]
    for k in hops:
        sender, receiver = np.divmod(place[k], width)
        if self_loop == "every" or k == 1:
            yield sender, ids[receiver], weight[k], ids, back_again[k]
        else:
            yield sender, ids[receiver], weight[k], ids[:0], back_again[k][:0]


def _strongest(found, keep):
    """(sender, receiver, weight) with the `keep` largest weights of each receiver, and the receivers themselves."""
    sender, receiver, weight, ids, own = found
    if keep is not None and len(weight):
        order = np.lexsort((-weight, receiver))
        among = receiver[order]
        rank = np.arange(len(among)) - np.searchsorted(among, among)
        order = order[rank < keep]
        sender, receiver, weight = sender[order], receiver[order], weight[order]
    pairs = (sender, ids), (receiver, ids), (weight, own)
    types = np.int32, np.int32, np.float32
    return [np.concatenate(pair).astype(kind) for pair, kind in zip(pairs, types, strict=True)]


def _check_size(pairs, hops):
    free = available()
    if pairs * PAIR > free:
        raise GraphError(
            f"hop_shells: expected shells that the free memory holds, {free / 2**30:.1f} GiB, got about {pairs:.1e} "
            f"pairs of nodes in hops {', '.join(map(str, hops))}, {pairs * PAIR / 2**30:.1f} GiB; take fewer hops, or "
            "keep the strongest alone"
        )


def _shell(parts, nodes):
    src, dst, weight = (np.concatenate(some) for some in zip(*parts, strict=True))
    order = np.lexsort((src, dst))  # a receiver's edges side by side, where sums over them find them sooner
    src, dst, weight = (torch.from_numpy(some[order]) for some in (src, dst, weight))
    return dgl.graph((src, dst), num_nodes=nodes), weight
