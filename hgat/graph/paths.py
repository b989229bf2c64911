"""Cheapest paths between nodes, as graphs whose edges are paths."""

import dgl
import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_range, check_shape, check_whole
from hgat.graph import csr
from hgat.graph.memory import within_memory

__all__ = ["cheapest_paths"]

BLOCK = 1 << 23  # entries of the distances that are computed at once
TIE = 1e-9  # of the largest cost: what an edge costs beside, so that of paths that cost the same the shortest is taken


@within_memory
def cheapest_paths(
    graph: dgl.DGLGraph, cost: Tensor, max_length: int = 2, *, share: float | None = 0.5
) -> list[dgl.DGLGraph]:
    """SPAGAN's paths: for every pair of nodes the cheapest path from u to v along the edges, if it is short enough.

        path graph l: an edge u -> v for every pair whose cheapest path of all has l edges, l = 1 .. max_length

    A pair is in one of the graphs, that of its path's length, or in none: a direct edge that is dearer than a detour is
    no path, and where the detour has more than max_length edges the pair is left out. share: of the paths of two edges
    and more, each node keeps the cheapest, int(share * d) of them, d the number of its paths of one edge; None keeps
    all. Every node has the path that stays at it, u, ..., u, in each graph beside these, so that one that nothing
    reaches has itself.
    Of several edges between the same nodes the cheapest counts, an edge from a node to itself never. Of paths that cost
    the same, to 10^-9 of the largest cost, those of the fewest edges are taken, and of these the one that SciPy finds.

    Shapes: cost [E], finite and 0 or more -> a list of max_length graphs of N nodes, whose edata are path [P, l + 1],
    the nodes from u to v, in the graph's own id type, and cost [P] float32, that of the whole path.
    Time: one search of Dijkstra's for each node by SciPy, which begins with a row of N distances and goes on to all
    nodes that are nearer than max_length times the largest cost. Memory: of the N x N distances a block at a time.
    Raises GraphError for anything but a graph of one relation from nodes to the same nodes and for costs that are
    negative or not finite, ShapeError for a cost that is no such tensor, for lengths below 1 and a share below 0.

    Paper: Yang et al. 2019 (SPAGAN), arXiv:2101.03464. Differs: its lengths count nodes, ours edges. The path that
    stays, and share = 0.5, are the authors' code's.
    """
    csr.single_relation(graph)
    nodes = graph.num_dst_nodes()
    if graph.is_block or graph.num_src_nodes() != nodes:
        ends = "a block" if graph.is_block else f"{graph.num_src_nodes()} sources and {nodes} destinations"
        raise GraphError(f"graph: expected one whose destinations are its sources, got {ends}")
    check_whole(1, max_length=max_length)
    check_range(0, share=share)
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        got = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
        raise ShapeError(f"cost: expected a floating-point tensor [E], got {got}")
    check_shape("cost", cost, ("E", graph.num_edges()))
    price = cost.detach().cpu().double().numpy()
    if not (np.isfinite(price) & (price >= 0)).all():
        wrong = price[~(np.isfinite(price) & (price >= 0))][0]
        raise GraphError(f"cost: expected finite numbers of 0 or more, got {wrong:g}")
    src, dst = (end.numpy() for end in csr.edges(graph, torch.device("cpu")))
    src, dst, price = _cheapest(src, dst, price)
    most = price.max(initial=0.0)
    tie = TIE * (most or 1.0)
    # What a receiver is told comes back along the edges.
    back = sp.csr_matrix((price + tie, (dst, src)), shape=(nodes, nodes))
    parts: list[list[tuple]] = [[] for _ in range(max_length)]
    step = max(1, BLOCK // max(nodes, 1))
    for first in range(0, nodes, step):
        ids = np.arange(first, min(first + step, nodes))
        distance, before = dijkstra(
            back, indices=ids, return_predecessors=True, limit=max_length * (most + tie) * (1 + TIE)
        )
        found = _walked(ids, distance, before, max_length)
        degree = np.bincount(found[0][0][:, -1] - first, minlength=len(ids)) if len(ids) else None
        for length, (path, total) in enumerate(found, 1):
            total = np.maximum(total - length * tie, 0.0)
            # No node has more than all others, and an infinite share of none is none.
            keep = None if share is None or length == 1 else (min(share, nodes) * degree).astype(np.int64)
            parts[length - 1].append(_kept(path, total, keep, first))
    return [_path_graph(part, nodes, length, graph.idtype) for length, part in enumerate(parts, 1)]


def _cheapest(src, dst, price):
    """The edges between two nodes, once each, of the lowest price."""
    order = np.lexsort((price, src, dst))
    src, dst, price = src[order], dst[order], price[order]
    first = np.ones(len(src), dtype=bool)
    first[1:] = (src[1:] != src[:-1]) | (dst[1:] != dst[:-1])
    first &= src != dst
    return src[first], dst[first], price[first]


def _walked(ids, distance, before, max_length):
    """For each length (paths [P, length + 1] from the far end to the receiver, their distances)."""
    row, end = np.nonzero(np.isfinite(distance))
    other = end != ids[row]
    row, end = row[other], end[other]
    nodes, found = [end], []
    for _ in range(max_length):
        nodes.append(before[row, nodes[-1]])
        arrived = nodes[-1] == ids[row]
        path = np.stack([at[arrived] for at in nodes], 1)
        found.append((path, distance[row[arrived], path[:, 0]]))
        row, nodes = row[~arrived], [at[~arrived] for at in nodes]
    return found


def _kept(path, total, keep, first):
    """The cheapest paths of every receiver, keep [receivers] of them or all, those of one receiver side by side."""
    order = np.lexsort((path[:, 0], total, path[:, -1]))
    path, total = path[order], total[order]
    if keep is not None:
        rank = np.arange(len(path)) - np.searchsorted(path[:, -1], path[:, -1])
        path, total = (some[rank < keep[path[:, -1] - first]] for some in (path, total))
    return path, total


def _path_graph(parts, nodes, length, idtype):
    stay = np.repeat(np.arange(nodes)[:, None], length + 1, 1)
    path = torch.from_numpy(np.concatenate([*(path for path, _ in parts), stay]).astype(np.int64)).to(idtype)
    total = np.concatenate([*(total for _, total in parts), np.zeros(nodes)])
    found = dgl.graph((path[:, 0], path[:, -1]), num_nodes=nodes, idtype=idtype)
    found.edata["path"], found.edata["cost"] = path, torch.from_numpy(total).float()
    return found
