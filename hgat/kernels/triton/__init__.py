"""The Triton kernels: one source for every device that Triton compiles for. The same names and arguments as in
hgat.kernels.cpu.

Arithmetic only: arguments are checked by hgat.ops. Every function writes into memory that its caller has made, on the
current stream of the tensors' device, and waits for nothing. Rows of value, feat_*, query, key, d_out are float32,
bfloat16 or float16, everything else float32; sums are float32. `structure` is what `build_structure` gives. Triton is
imported at the first use.
"""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from torch import Tensor

from hgat.kernels.triton.structure import build_structure

__all__ = [
    "additive",
    "available",
    "build_structure",
    "dot",
    "edge_softmax",
    "edge_sum",
    "gat",
    "gatv2",
    "info",
    "interpreted",
    "softmax_backward",
    "weighted_sum",
    "weighted_sum_backward",
    "why_missing",
]

Dropout = tuple[int, int, float] | None
OLDEST = (3, 6)  # the oldest version that the kernels were run with; it comes with PyTorch 2.11


@lru_cache(maxsize=1)
def _triton() -> ModuleType | str:
    """Triton, or why it cannot be used."""
    try:
        found = importlib.import_module("triton")
    except Exception as error:  # a broken driver or an old libstdc++ raises anything
        return f"Triton could not be imported ({error})"
    if tuple(int(part) for part in found.__version__.split(".")[:2]) < OLDEST:
        return f"Triton {'.'.join(map(str, OLDEST))} or later is needed, and {found.__version__} is installed"
    return found


@lru_cache(maxsize=1)
def _calls() -> ModuleType:
    return importlib.import_module("hgat.kernels.triton._host")


def available() -> bool:
    """True if Triton can be imported."""
    return why_missing() is None


def why_missing() -> str | None:
    """One sentence that says why the kernels cannot be used, or None."""
    found = _triton()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def interpreted() -> bool:
    """True if Triton's interpreter runs the kernels, on tensors of the CPU (TRITON_INTERPRET=1 before the import)."""
    found = _triton()
    if isinstance(found, str):
        return False
    return not isinstance(importlib.import_module("hgat.kernels.triton._forward").attend, found.JITFunction)


def info() -> dict[str, Any]:
    """Whether the kernels can be used, with which Triton, and whether its interpreter runs them."""
    found = _triton()
    if isinstance(found, str):
        return {"available": False, "reason": found, "version": None, "interpreted": False}
    return {"available": True, "reason": None, "version": found.__version__, "interpreted": interpreted()}


def additive(
    structure: list[Tensor],
    slope: float,
    dropout: Dropout,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    value: Tensor | None,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None,
    *,
    out: Tensor | None = None,
    alpha: Tensor | None = None,
    logits: Tensor | None = None,
    top: Tensor | None = None,
    inverse: Tensor | None = None,
    d_out: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None,) * 5,
) -> None:
    """GAT forward, or, given d_out, backward, which reads top and inverse of forward, and not out.

    dropout: (seed, threshold, scale of what is kept) or None. edge_mask: bool [E, 1] or [E, H] or None. gradients: of
    value, score_src, score_dst, score_edge, edge_weight.
    """
    call = _calls().Call(
        "additive", structure, slope, dropout, edge_weight, edge_mask, value, score_src, score_dst, score_edge
    )
    if d_out is None:
        call.forward(out, alpha, logits, top, inverse)
    else:
        call.backward(top, inverse, d_out, *gradients)


def gat(
    structure: list[Tensor],
    slope: float,
    dropout: Dropout,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    value: Tensor,
    attn_src: Tensor,
    attn_dst: Tensor,
    score_edge: Tensor | None,
    *,
    out: Tensor | None = None,
    top: Tensor | None = None,
    inverse: Tensor | None = None,
    d_out: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None,) * 5,
) -> None:
    """`additive` with the scores attn . value of both ends, the destinations the first rows of value.

    Backward makes the scores again. gradients: of value, attn_src, attn_dst, score_edge, edge_weight.
    """
    calls = _calls()
    scores = calls.end_scores(structure, value, attn_src, attn_dst)
    call = calls.Call("additive", structure, slope, dropout, edge_weight, edge_mask, value, *scores, score_edge)
    if d_out is None:
        call.forward(out, None, None, top, inverse)
        return
    d_value, d_attn_src, d_attn_dst, d_edge, d_weight = gradients
    of_scores = any(d is not None for d in (d_value, d_attn_src, d_attn_dst))
    d_scores = [score.new_empty(score.shape) if of_scores else None for score in scores]
    call.backward(top, inverse, d_out, d_value, *d_scores, d_edge, d_weight)
    if of_scores:
        calls.end_scores_backward(value, attn_src, attn_dst, *d_scores, d_value, d_attn_src, d_attn_dst)


def gatv2(
    structure: list[Tensor],
    slope: float,
    dropout: Dropout,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    feat_src: Tensor,
    feat_dst: Tensor,
    feat_edge: Tensor | None,
    attn: Tensor,
    *,
    out: Tensor | None = None,
    alpha: Tensor | None = None,
    top: Tensor | None = None,
    inverse: Tensor | None = None,
    d_out: Tensor | None = None,
    d_logits: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None,) * 5,
) -> None:
    """GATv2 forward, or, given d_out or d_logits, backward.

    gradients: of feat_src, feat_dst, feat_edge, attn, edge_weight.
    """
    call = _calls().Call(
        "gatv2", structure, slope, dropout, edge_weight, edge_mask, feat_src, feat_src, feat_dst, feat_edge, attn
    )
    if d_out is None and d_logits is None:
        call.forward(out, alpha, None, top, inverse)
    else:
        d_src, d_dst, d_edge, d_attn, d_weight = gradients
        call.backward(top, inverse, d_out, None, d_src, d_dst, d_edge, d_weight, d_attn, d_logits)


def dot(
    structure: list[Tensor],
    scale: float,
    dropout: Dropout,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    bias: Tensor | None,
    *,
    out: Tensor | None = None,
    alpha: Tensor | None = None,
    logits: Tensor | None = None,
    top: Tensor | None = None,
    inverse: Tensor | None = None,
    d_out: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None,) * 5,
) -> None:
    """Dot-product attention forward, or, given d_out, backward. gradients: of query, key, value, bias, edge_weight."""
    call = _calls().Call("dot", structure, scale, dropout, edge_weight, edge_mask, value, key, query, bias)
    if d_out is None:
        call.forward(out, alpha, logits, top, inverse)
    else:
        d_query, d_key, d_value, d_bias, d_weight = gradients
        call.backward(top, inverse, d_out, d_value, d_key, d_query, d_bias, d_weight)


def edge_softmax(structure: list[Tensor], logits: Tensor, alpha: Tensor) -> None:
    """Softmax over in-edges: GAT's forward with the logits as scores of the edges, and no values."""
    _calls().Call("additive", structure, 1.0, None, None, None, None, None, None, logits).forward(
        None, alpha, None, None, None
    )


def softmax_backward(structure: list[Tensor], alpha: Tensor, d_alpha: Tensor, d_logits: Tensor) -> None:
    """d_logit = alpha (d_alpha - sum over the in-edges of alpha d_alpha)."""
    _calls().softmax_backward(structure, alpha, d_alpha, d_logits)


def weighted_sum(
    structure: list[Tensor], value: Tensor, weight: Tensor, factor: float, by_source: bool, out: Tensor
) -> None:
    """out_row = factor * sum over the row's edges of weight * value; rows are sources or destinations."""
    _calls().weighted_sum(structure, value, weight, factor, by_source, out)


def weighted_sum_backward(
    structure: list[Tensor],
    value: Tensor,
    weight: Tensor,
    d_out: Tensor,
    d_value: Tensor | None,
    d_weight: Tensor | None,
) -> None:
    """Backward of `weighted_sum` by destination with factor 1."""
    _calls().weighted_sum_backward(structure, value, weight, d_out, d_value, d_weight)


def edge_sum(structure: list[Tensor], edge_value: Tensor, by_source: bool, out: Tensor) -> None:
    """out_row = sum over the row's edges of edge_value; rows are sources or destinations."""
    _calls().edge_sum(structure, edge_value, by_source, out)
