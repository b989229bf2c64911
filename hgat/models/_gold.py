"""Attention beside a gold standard: edges of which is known whether they decide."""

from typing import Any

import dgl
import torch
from torch import Tensor

from hgat.errors import ShapeError
from hgat.graph import csr

__all__ = ["checked", "correctness"]


def checked(
    weights: Any, gold: Any, graph: dgl.DGLGraph | Tensor, name: str = "gold", dtype: torch.dtype | None = torch.bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights [E, H] in 64 bits, gold [E], where each edge ends [E]); ShapeError for what does not fit."""
    for what, tensor in (("weights", weights), (name, gold)):
        if not isinstance(tensor, Tensor):
            raise ShapeError(f"{what}: expected a tensor with a row for each edge, got {type(tensor).__name__}")
    if isinstance(graph, Tensor):
        dst = graph.cpu()
    else:
        csr.single_relation(graph)
        dst = csr.edges(graph, "cpu")[1]
    edges = len(dst)
    if dst.dim() != 1 or dst.is_floating_point():
        raise ShapeError(f"graph: expected a DGLGraph, or where each edge ends, [E], got {list(dst.shape)} {dst.dtype}")
    if len(weights) != edges or weights.dim() == 0 or not weights.is_floating_point():
        raise ShapeError(f"weights: expected floats [E, H] with E = {edges}, got {weights.dtype} {list(weights.shape)}")
    if list(gold.shape) != [edges] or (dtype is not None and gold.dtype != dtype):
        expected = "" if dtype is None else f"{dtype} "
        raise ShapeError(f"{name}: expected {expected}[E] with E = {edges}, got {gold.dtype} {list(gold.shape)}")
    weights = weights.detach().cpu().double().reshape(edges, weights[0].numel() if edges else 1)
    return weights, gold.detach().cpu(), dst.long()


def correctness(weights: Tensor, gold: Tensor, graph: dgl.DGLGraph | Tensor, nodes: Tensor | None = None) -> float:
    """Attention correctness: the share of a node's attention that is on gold edges, the mean over nodes and heads.

        AC_v = sum over gold u -> v of |w_uv| / sum over all u -> v of |w_uv|

    weights [E, H] or [E]; gold [E] bool; graph: of these edges, in order, or where each ends, [E]. Counted are the
    nodes that a gold edge enters, of those in `nodes` (all if None). A node whose weights are all zero has 0. Weights
    of a softmax need no absolute value and are divided by 1.
    Raises ShapeError for tensors that do not fit, and where no gold edge enters any of the nodes.
    Paper: Liu et al. 2017, arXiv:1605.09553, for attention over regions of an image; edges are of this project.
    """
    weights, gold, dst = checked(weights, gold, graph)
    if nodes is not None:
        here = torch.isin(dst, nodes.cpu())
        weights, gold, dst = weights[here], gold[here], dst[here]
    if not gold.any():
        raise ShapeError("gold: expected a gold edge into one of the nodes or more, got none")
    _, place = dst.unique(return_inverse=True)
    count = int(place.max()) + 1
    total, right = (
        torch.zeros(count, weights.shape[1], dtype=torch.float64).index_add_(0, place, part)
        for part in (weights.abs(), weights.abs() * gold.unsqueeze(1))
    )
    asked = torch.zeros(count, dtype=torch.bool).index_fill_(0, place[gold], True)
    return float((right / total.clamp_min(1e-30))[asked].mean())
