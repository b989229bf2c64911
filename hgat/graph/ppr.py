"""Personalised PageRank: how much of a walk that keeps coming back to a node is spent at every other one."""

from collections.abc import Iterator
from numbers import Real
from typing import Literal

import dgl
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from hgat.errors import GraphError, ShapeError, brief, check_whole
from hgat.graph import csr
from hgat.graph.memory import within_memory
from hgat.graph.normalized import normalized

__all__ = ["ppr_graph", "ppr_values"]

FORMS = ("row", "sym", "col")
METHODS = ("push", "exact")
LARGEST = 10_000  # nodes of a table that is inverted: 800 MB, a minute
ENTRIES = 2**25  # what the rows that are pushed at once may come to
ROUNDING = 1e-15  # below it an inverse in float64 says nothing, not even that a node can be reached


@within_memory
def ppr_values(
    graph: dgl.DGLGraph,
    alpha: float = 0.25,
    *,
    form: Literal["row", "sym", "col"] = "sym",
    method: Literal["push", "exact"] = "push",
    epsilon: float = 1e-4,
    edge_weight: Tensor | None = None,
) -> Tensor:
    """The personalised PageRank that every edge u -> v stands for, Pi_vu: what sender u is to receiver v.

        row: Pi = alpha (I - (1 - alpha) D^-1 A)^-1;     A_vu: the weight of the edges u -> v, D: the sums of A's rows
        sym: D^1/2 Pi D^-1/2;                            col: alpha (I - (1 - alpha) A D'^-1)^-1, D': of its columns

    row: the share of its time that a walk spends at u which goes back along edges and, at every step, to v with
    probability alpha; rows sum to 1. col: the share at v of a walk from u that goes along the edges; columns sum to 1.
    Where edges go both ways col is the transpose of row, and sym is alpha (I - (1 - alpha) D^-1/2 A D^-1/2)^-1, which
    is symmetric.

    method: "exact" inverts the table, for graphs of up to 10,000 nodes. "push" follows the walk from every node for as
    long as more than epsilon * d_u of it is under way at some node u, and looks at few nodes of a large graph: what it
    gives is never above Pi and, d being D's diagonal, below it by at most

        row: epsilon d_u,  sym: epsilon sqrt(d_v d_u), where edges go both ways;   col: epsilon, on every graph.

    On a graph whose edges go one way the row and sym forms end at the same rule, and what a row lacks is what was still
    under way. Where push came to nothing worth telling the value is 0.

    Results that need no care: nodes of different components have 0; a node at which the walk could not go on, without
    in-edges (row, sym), without out-edges (col), gets a self-loop of weight 1 for this, so that an isolated node is all
    its own, Pi_vv = 1. Edges that the graph has twice count twice, and both get the value. Self-loops get Pi_vv.

    Shapes: edge_weight [E] of numbers not below zero, or None for ones -> [E] float32 in the graph's edge order, on the
    graph's device.
    Raises GraphError for a graph of several relations or of two node types, for an exact form of too many nodes, and
    for weights that are none; ShapeError for alpha and epsilon that are not between 0 and 1 and for another form.
    Paper: Andersen et al. 2006 (push); Choi 2022 (PPRGAT), arXiv:2205.14259. Differs: rounds push all nodes above the
    threshold at once, as products of sparse matrices; a walk's own node is always pushed.
    """
    matrix = _Walk(graph, alpha, form, method, epsilon, edge_weight)
    src, dst = (ends.numpy() for ends in csr.edges(graph, csr.CPU))
    found = np.zeros(len(src), np.float32)
    order = np.argsort(dst, kind="stable")
    for first, rows in matrix.blocks():
        low, high = np.searchsorted(dst, (first, first + rows.shape[0]), sorter=order)
        edges = order[low:high]
        wanted = (dst[edges] - first) * matrix.nodes + src[edges]
        known = _row_numbers(rows) * matrix.nodes + rows.indices
        place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        found[edges] = np.where(known[place] == wanted, rows.data[place], 0)
    return torch.from_numpy(found).to(graph.device)


@within_memory
def ppr_graph(
    graph: dgl.DGLGraph,
    k: int | None = 32,
    alpha: float = 0.25,
    *,
    form: Literal["row", "sym", "col"] = "sym",
    method: Literal["push", "exact"] = "push",
    epsilon: float = 1e-4,
    edge_weight: Tensor | None = None,
) -> dgl.DGLGraph:
    """The graph from every node's k nearest by personalised PageRank to the node, itself among them.

        u -> v for the k largest Pi_vu of row v;   the other arguments and Pi: hgat.graph.ppr_values

    k: None for all that are above 0. A node gets fewer where fewer can be reached, or are worth a push: an isolated one
    has its self-loop alone. Among equal values the lower number is taken.

    Shapes: edge_weight [E] or None -> a DGLGraph of N nodes with edata["ppr"] [E'] float32, E' at most N k, a
    receiver's edges side by side. Nothing is N x N unless `method` is "exact".
    Raises as ppr_values, and GraphError for k above N.
    Paper: Choi 2022 (PPRGAT), arXiv:2205.14259. Differs: the k largest are those of the form asked for; the authors'
    code takes those of the row form and rescales them afterwards.
    """
    matrix = _Walk(graph, alpha, form, method, epsilon, edge_weight)
    check_whole(1, k=k)
    if k is not None and k > matrix.nodes:
        raise GraphError(f"k: expected at most the {matrix.nodes} nodes of the graph, got {k}")
    parts = [(np.zeros(0, np.int64),) * 2 + (np.zeros(0, np.float32),)]
    for first, rows in matrix.blocks():
        row, kept = _row_numbers(rows), rows.data > 0
        if k is not None:
            order = np.lexsort((rows.indices, -rows.data, row))
            among = row[order]
            rank = np.arange(len(among)) - np.searchsorted(among, among)
            kept[order] &= rank < k
        parts.append((rows.indices[kept].astype(np.int64), row[kept] + first, rows.data[kept].astype(np.float32)))
    src, dst, value = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    found = dgl.graph((src, dst), num_nodes=matrix.nodes, idtype=graph.idtype)
    found.edata["ppr"] = value
    return found.to(graph.device)


def _row_numbers(rows):
    """The row of every entry of a CSR matrix, in its order."""
    return np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))


class _Walk:
    """One step of the walk as a matrix, and the rows of Pi, a block after the other."""

    def __init__(self, graph, alpha, form, method, epsilon, edge_weight):
        for name, value, known in (("form", form, FORMS), ("method", method, METHODS)):
            if not isinstance(value, str) or value not in known:
                raise ShapeError(f"{name}: expected one of {list(known)}, got {csr.shown(value)}")
        for name, value in (("alpha", alpha), ("epsilon", epsilon)):
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < 1:
                raise ShapeError(f"{name}: expected a number above 0 and below 1, got {brief(value)}")
        csr.single_relation(graph)
        if graph.is_block or not graph.is_homogeneous:
            raise GraphError(f"graph: expected one node type to walk on, got {'a block' if graph.is_block else 'two'}")
        self.nodes, self.alpha, self.form, self.method, self.epsilon = graph.num_nodes(), alpha, form, method, epsilon
        if method == "exact" and self.nodes > LARGEST:
            raise GraphError(
                f"method: expected 'push' for a graph of more than {LARGEST:,} nodes, got 'exact' for {self.nodes:,}"
            )
        weight = normalized(graph, "none", edge_weight).cpu().double().numpy()
        src, dst = (ends.numpy() for ends in csr.edges(graph, csr.CPU))
        ends, axis = ((dst, src), 0) if form == "col" else ((dst, src), 1)
        table = sp.csr_matrix((weight, ends), shape=(self.nodes, self.nodes))
        table = sp.csr_matrix(table + sp.diags((_sums(table, axis) == 0).astype(float)))
        self.degree = _sums(table, axis)
        scale = sp.diags(1 / self.degree)
        self.step = sp.csr_matrix(table @ scale if form == "col" else scale @ table)

    def blocks(self) -> Iterator[tuple[int, sp.csr_matrix]]:
        """(number of the first row, rows of Pi as a canonical CSR matrix [B, N]) until all N rows were given."""
        size, rows_of = self._exact() if self.method == "exact" else self._pushed()
        root = np.sqrt(self.degree)
        for first in range(0, self.nodes, size):
            rows = rows_of(first, min(first + size, self.nodes))
            if self.form == "sym":
                rows.data *= root[first + _row_numbers(rows)] / root[rows.indices]
            yield first, rows

    def _exact(self):
        """(rows of a block, function of a block's bounds): a part of the inverse."""
        table = self.alpha * np.linalg.inv(np.eye(self.nodes) - (1 - self.alpha) * self.step.toarray())
        table[table < ROUNDING] = 0.0
        return 1024, lambda first, last: sp.csr_matrix(table[first:last])

    def _pushed(self):
        """(rows of a block, function of a block's bounds): what walks from these nodes left where they were pushed.

        All rows in a round are one product with [(1 - alpha) step; I]: an entry that is pushed meets the upper half,
        one that waits the lower.
        """
        nodes, alpha = self.nodes, self.alpha
        threshold = self.epsilon * (np.ones(nodes) if self.form == "col" else self.degree)
        both = sp.vstack([(1 - alpha) * self.step, sp.identity(nodes)], format="csr")

        def rows_of(first, last):
            own = np.arange(first, last, dtype=both.indices.dtype)
            walk = sp.csr_matrix((np.ones(len(own)), own, np.arange(len(own) + 1)), shape=(len(own), nodes))
            row, pushed = np.arange(len(own)), np.ones(len(own), bool)
            left: list[tuple] = []
            while pushed.any():
                of = np.repeat(row, np.diff(walk.indptr))
                left.append((alpha * walk.data[pushed], of[pushed], walk.indices[pushed]))
                # A row in which nothing is pushed is done and leaves.
                moves = np.diff(np.append(0, pushed.cumsum())[walk.indptr]) > 0
                pushed = pushed[np.repeat(moves, np.diff(walk.indptr))]
                walk, row = walk[moves], row[moves]
                place = np.where(pushed, walk.indices, walk.indices + nodes)
                walk = sp.csr_matrix((walk.data, place, walk.indptr), shape=(len(row), 2 * nodes)) @ both
                pushed = walk.data > threshold[walk.indices]
            value, of, column = (np.concatenate(part) for part in zip(*left, strict=True))
            found = sp.csr_matrix((value, (of, column)), shape=(len(own), nodes))
            found.sum_duplicates()
            return found

        reached = max(1, min(nodes, 1 / (alpha * self.epsilon)))
        return int(max(1, min(4096, ENTRIES // reached))), rows_of


def _sums(table, axis):
    return np.asarray(table.sum(axis)).ravel()
