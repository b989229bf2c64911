"""Attention measured against a gold standard: edges that are annotated, or planted, as those that decide.

All are functions of tensors. weights [E, H] or [E] are attention over the edges of a graph, as a model or
`hgat.ops.attention_hook` gives them; the graph of a measure is the one whose edges these are, or where each ends, [E].
"""

import dgl
import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from hgat.errors import GraphError, ShapeError
from hgat.graph import csr
from hgat.models._gold import checked, correctness

__all__ = ["alignment_error_rate", "correctness", "gold_edges", "rank_correlation"]


def gold_edges(
    graph: dgl.DGLGraph, src: Tensor, dst: Tensor, etype: str | tuple[str, str, str] | None = None
) -> Tensor:
    """Which edges of a relation are annotated as gold, bool [E], of pairs src, dst [M].

    etype may be left out where there is one relation. Of parallel edges all are gold. Raises GraphError for a pair that
    is no edge of the graph, ShapeError for pairs of different lengths.
    """
    csr.check_graph(graph)
    src, dst = (torch.as_tensor(ends).long().cpu() for ends in (src, dst))
    if src.dim() != 1 or src.shape != dst.shape:
        raise ShapeError(f"gold: expected pairs src [M] and dst [M], got {list(src.shape)} and {list(dst.shape)}")
    first, last = (ends.long().cpu() for ends in csr.in_order(graph, etype))
    width = int(torch.cat([last, dst]).max()) + 1 if len(last) + len(dst) else 1
    edges, pairs = first * width + last, src * width + dst
    missing = (~torch.isin(pairs, edges)).nonzero().flatten()
    if len(missing):
        pair = f"{int(src[missing[0]])} -> {int(dst[missing[0]])}"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise GraphError(f"gold: expected edges of the graph, got {pair}{more}, which it does not have")
    return torch.isin(edges, pairs)


def alignment_error_rate(
    weights: Tensor, sure: Tensor, graph: dgl.DGLGraph | Tensor, possible: Tensor | None = None
) -> float:
    """Alignment error rate of each node's most attended in-edge, the mean over heads; 0 is best.

        AER = 1 - (|A and S| + |A and P|) / (|A| + |S|)

    A: the in-edge with the largest weight of every node that has a possible edge. Where t of a node's edges are tied
    for it, each counts as 1/t, so that uniform attention does not depend on the order of the edges. S: sure [E] bool.
    P: possible [E] bool, those that are sure among them, by default no others. weights [E, H] or [E].
    Raises ShapeError for tensors that do not fit, a sure edge that is not possible, and no sure edge at all.
    Paper: Och and Ney 2003, Computational Linguistics 29(1), for words; edges are of this project.
    """
    weights, sure, dst = checked(weights, sure, graph, "sure")
    possible = sure if possible is None else checked(weights, possible, graph, "possible")[1]
    if not sure.any():
        raise ShapeError("gold: expected one sure edge or more, got none")
    if (sure & ~possible).any():
        raise ShapeError(
            f"possible: expected all sure edges among them, got edge {int((sure & ~possible).nonzero()[0])} without"
        )
    count, heads = int(dst.max()) + 1, weights.shape[1]
    ends = dst.unsqueeze(1).expand_as(weights)
    most = weights.new_full((count, heads), -torch.inf).scatter_reduce_(0, ends, weights, "amax")
    first = (weights == most[dst]).double()
    first = first / torch.zeros_like(most).index_add_(0, dst, first)[dst]
    asked = torch.zeros(count, dtype=torch.bool).index_fill_(0, dst[possible], True)
    right = first[sure].sum(0) + first[possible].sum(0)
    return float((1 - right / (int(asked.sum()) + int(sure.sum()))).mean())


def rank_correlation(weights: Tensor, annotated: Tensor, graph: dgl.DGLGraph | Tensor) -> float:
    """Kendall's tau-b of a node's attention and its annotated weights, the mean over nodes and heads.

    weights [E, H] or [E]; annotated [E], larger for what matters more. Counted are nodes that have two in-edges or more
    with annotations that differ. A node whose attention is the same for all has 0: it ranks nothing.
    Raises ShapeError for tensors that do not fit, and where no node can be counted.
    """
    weights, annotated, dst = checked(weights, annotated, graph, "annotated", None)
    order = dst.argsort(stable=True)
    found = []
    for rows in order.split(torch.unique_consecutive(dst[order], return_counts=True)[1].tolist()):
        told = annotated[rows].double()
        if len(rows) < 2 or (told == told[0]).all():
            continue
        found += [kendalltau(told.numpy(), weights[rows, head].numpy()).statistic for head in range(weights.shape[1])]
    if not found:
        raise ShapeError("annotated: expected a node with in-edges whose annotations differ, got none")
    return float(np.nan_to_num(found).mean())
