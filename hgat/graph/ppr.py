"""Personalised PageRank: how much of a walk that keeps coming back to a node is spent at every other one."""

from collections.abc import Iterator
from functools import cached_property
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
from hgat.kernels import cpu

__all__ = ["ppr_graph", "ppr_values"]

FORMS = ("row", "sym", "col")
METHODS = ("push", "exact")
LARGEST = 10_000  # nodes of a table that is inverted: 800 MB, a minute
ENTRIES = 2**25  # what the rows that are pushed at once may come to
SMALLEST = float(np.finfo(np.float64).tiny)  # below it multiplying by 1 - alpha may leave a number as it is
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
    threshold at once, so that the order of the nodes says nothing; a walk's own node is always pushed.
    """
    walk = _Walk(graph, alpha, form, method, epsilon, edge_weight)
    return _finite(walk.at(*(ends.numpy() for ends in csr.edges(graph, csr.CPU)))).to(graph.device)


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
    walk = _Walk(graph, alpha, form, method, epsilon, edge_weight)
    check_whole(1, k=k)
    if k is not None and k > walk.nodes:
        raise GraphError(f"k: expected at most the {walk.nodes} nodes of the graph, got {k}")
    parts = [(np.zeros(0, np.int64),) * 2 + (np.zeros(0, np.float32),)]
    parts += [walk.nearest(*block, k or walk.nodes) for block in walk.blocks()]
    dst, src, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    ends = torch.from_numpy(src), torch.from_numpy(dst)
    found = dgl.graph(ends, num_nodes=walk.nodes, idtype=graph.idtype)
    found.edata["ppr"] = _finite(value)
    return found.to(graph.device)


def _finite(value):
    """Values as a tensor; the sym form of a graph whose edges go one way knows no bound."""
    if not np.isfinite(value).all():
        raise GraphError("edge_weight: expected degrees whose roots' ratio float32 holds, got a larger one")
    return torch.from_numpy(value)


def _row_numbers(rows):
    """The row of every entry of a CSR matrix, in its order."""
    return np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))


class _Walk:
    """One step of the walk as a matrix, and rows of Pi, by the compiled core or by SciPy."""

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
        self.nodes, self.method, self.alpha, self.epsilon = graph.num_nodes(), method, float(alpha), float(epsilon)
        if method == "exact" and self.nodes > LARGEST:
            raise GraphError(
                f"method: expected 'push' for a graph of more than {LARGEST:,} nodes, got 'exact' for {self.nodes:,}"
            )
        weight = normalized(graph, "none", edge_weight).cpu().double().numpy()
        if not np.isfinite(weight).all():
            raise GraphError("edge_weight: expected numbers that float32 holds, got a larger one")
        src, dst = (ends.numpy() for ends in csr.edges(graph, csr.CPU))
        axis = 0 if form == "col" else 1
        table = sp.csr_matrix((weight, (dst, src)), shape=(self.nodes, self.nodes))
        table = sp.csr_matrix(table + sp.diags((_sums(table, axis) == 0).astype(float)))
        degree = _sums(table, axis)
        table.data /= degree[table.indices if form == "col" else _row_numbers(table)]
        # A product of small numbers may be 0, a threshold that ends nothing.
        self.threshold = np.maximum(self.epsilon * (np.ones(self.nodes) if form == "col" else degree), SMALLEST)
        self.step, self.root = table, np.sqrt(degree) if form == "sym" else None
        self.compiled = method == "push" and cpu.available() and self.nodes < 2**31 - 1

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of the rows that are found at once, until they were all."""
        size = 1024
        if self.compiled:
            size = max(4096, self.nodes // 16)  # between two of them Python hears of an interrupt
        elif self.method == "push":
            reached = max(1, min(self.nodes, 1 / max(self.alpha * self.epsilon, SMALLEST)))
            size = int(max(1, min(4096, ENTRIES // reached)))
        for first in range(0, self.nodes, size):
            yield first, min(first + size, self.nodes)

    def nearest(self, first: int, last: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, column, float32 value) of the k largest entries of Pi above 0 in each of some rows, sorted by both."""
        if self.compiled:
            return cpu.nearest_by_ppr(self._core, first, last, k)
        rows = self._pushed(first, last) if self.method == "push" else sp.csr_matrix(self._inverse[first:last])
        rows.sort_indices()
        row, column, value = _row_numbers(rows), rows.indices.astype(np.int64), rows.data
        if self.root is not None:
            value = value * (self.root[first + row] / self.root[column])
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        order = np.lexsort((column, -value, row))
        kept = value > 0
        kept[order] &= np.arange(len(row)) - rows.indptr[row] < k
        return row[kept] + first, column[kept], value[kept]

    def at(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """float32 [E], Pi_vu of pairs u, v."""
        order = np.argsort(dst, kind="stable")
        src, dst, found = src[order], dst[order], np.zeros(len(src), np.float32)
        asked = np.searchsorted(dst, np.arange(self.nodes + 1))
        for first, last in self.blocks():
            here = slice(asked[first], asked[last])
            if self.compiled:
                found[here] = cpu.ppr_at(self._core, first, asked[first : last + 1] - here.start, src[here])
                continue
            row, column, value = self.nearest(first, last, self.nodes)
            known = row * self.nodes + column
            place = np.searchsorted(known, dst[here] * self.nodes + src[here])
            known, value = np.append(known, -1), np.append(value, np.float32(0))
            found[here] = np.where(known[place] == dst[here] * self.nodes + src[here], value[place], 0)
        given = np.empty_like(found)
        given[order] = found
        return given

    @cached_property
    def _core(self):
        """The walk as the compiled core takes it."""
        step = self.step
        return (
            step.indptr.astype(np.int64),
            step.indices.astype(np.int32),
            step.data,
            self.threshold,
            self.root,
            self.alpha,
        )

    @cached_property
    def _inverse(self):
        table = self.alpha * np.linalg.inv(np.eye(self.nodes) - (1 - self.alpha) * self.step.toarray())
        table[table < ROUNDING] = 0.0
        return table

    @cached_property
    def _round(self):
        """[(1 - alpha) step; I]: an entry that is pushed meets the upper half, one that waits the lower."""
        return sp.vstack([(1 - self.alpha) * self.step, sp.identity(self.nodes)], format="csr")

    def _pushed(self, first, last):
        """What the walks from some nodes left where they were pushed: what the compiled core does, and defines it.

        All rows in a round are one product of matrices.
        """
        own = np.arange(first, last, dtype=self._round.indices.dtype)
        walk = sp.csr_matrix((np.ones(len(own)), own, np.arange(len(own) + 1)), shape=(len(own), self.nodes))
        row, pushed = np.arange(len(own)), np.ones(len(own), bool)
        left = []
        while pushed.any():
            of = _row_numbers(walk)
            left.append((self.alpha * walk.data[pushed], row[of[pushed]], walk.indices[pushed]))
            # A row in which nothing is pushed is done and leaves.
            moves = np.diff(np.append(0, pushed.cumsum())[walk.indptr]) > 0
            pushed = pushed[moves[of]]
            walk, row = walk[moves], row[moves]
            place = np.where(pushed, walk.indices, walk.indices + self.nodes)
            walk = sp.csr_matrix((walk.data, place, walk.indptr), shape=(len(row), 2 * self.nodes)) @ self._round
            pushed = walk.data > self.threshold[walk.indices]
        value, of, column = (np.concatenate(part) for part in zip(*left, strict=True))
        found = sp.csr_matrix((value, (of, column)), shape=(len(own), self.nodes))
        found.sum_duplicates()
        return found


def _sums(table, axis):
    return np.asarray(table.sum(axis)).ravel()
