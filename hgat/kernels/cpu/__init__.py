"""The compiled CPU core: loads it, says what it offers, says once when it is missing, and hands tensors to it.

Arithmetic only: arguments are checked by hgat.ops, and once more, by size, in the core. Every function writes into
memory that its caller has made. `structure` is what `build_structure` gives: a list of one tensor.
"""

import importlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

_core: Any  # the compiled module, or None
try:
    _core = importlib.import_module("hgat.kernels.cpu._core")
except ImportError as error:
    _core = None
    _why_missing = str(error)
    warnings.warn(
        "hgat runs without its compiled core, so attention takes DGL's slower operators: "
        f"{error}. Reinstall hgat with a C++17 compiler to build it.",
        stacklevel=2,
    )

__all__ = [
    "additive",
    "available",
    "build_structure",
    "dot",
    "dropout_scale",
    "edge_softmax",
    "edge_sum",
    "empty",
    "gated",
    "gatv2",
    "info",
    "nearest_by_ppr",
    "ppr_at",
    "recent",
    "softmax_backward",
    "use_instruction_set",
    "weighted_sum",
    "weighted_sum_backward",
    "why_missing",
]

Structure = Sequence[torch.Tensor]
# (indptr int64 [N + 1], other int32, weight float64, threshold float64 [N], root float64 [N] or None, alpha): ppr.h.
Walk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, float]
VARIABLE = "HGAT_CPU"  # forces an instruction set: baseline, avx2, avx512


def available() -> bool:
    """True if the compiled core was loaded."""
    return _core is not None


def why_missing() -> str | None:
    """One sentence that says why the compiled core was not loaded, or None."""
    return None if available() else f"the compiled core could not be loaded ({_why_missing})"


def use_instruction_set(name: str) -> None:
    """Take the kernels of one instruction set, or of the best one for "auto"; ValueError if it is not here."""
    return _core.use_instruction_set(name)


if available() and os.environ.get(VARIABLE):
    try:
        use_instruction_set(os.environ[VARIABLE])
    except ValueError as error:
        raise ImportError(f"{VARIABLE}: {error}") from None


def info() -> dict[str, Any]:
    """What the compiled core was built for, what this processor offers, and how many threads it may use."""
    if not available():
        return {
            "available": False,
            "reason": why_missing(),
            "instruction_sets": [],
            "processor": [],
            "in_use": None,
            "threads": 1,
            "path": None,
        }
    return {
        "available": True,
        "reason": None,
        "instruction_sets": _core.built_for(),
        "processor": _core.cpu_instruction_sets(),
        "in_use": _core.instruction_set(),
        "threads": _core.max_threads(),
        "path": _core.__file__,
    }


_SHOWN_AS = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}


def _array(tensor):
    """The tensor's memory as a NumPy array; bfloat16 and bool as whole numbers of their size."""
    if tensor is None:
        return None
    tensor = tensor.detach().contiguous()
    if tensor.dtype in _SHOWN_AS:
        tensor = tensor.view(_SHOWN_AS[tensor.dtype])
    return tensor.numpy()


def _memory(tensor):
    """The same for a result: never a copy."""
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f"a result needs contiguous memory, got strides {tensor.stride()}")
    return _array(tensor)


def _name(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor):
    return tensor.shape[1], tensor.shape[2]


NO_DROPOUT = (0, 0, 1.0)


def dropout_scale(scale: torch.Tensor, seed: int, threshold: int, keep_scale: float, threads: int) -> None:
    """Fill `scale` [E, H] with 0 where (seed, edge, head) is dropped and `keep_scale` elsewhere."""
    _core.dropout_scale(scale.numpy(), seed, threshold, keep_scale, threads)


def empty(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Memory of the type of `like` for a result, with large pages behind it where the system has them."""
    result = like.new_empty(shape)
    if available() and result.numel() and type(result) is torch.Tensor:  # not PyTorch's fake ones
        _core.prepare(_memory(result), torch.get_num_threads())
    return result


def build_structure(src: torch.Tensor, dst: torch.Tensor, num_src: int, num_dst: int) -> list[torch.Tensor]:
    """The edges sorted by destination and by source, one int32 [n]; ValueError for a node number out of range."""
    return [torch.from_numpy(_core.build_structure(_array(src), _array(dst), num_src, num_dst))]


def recent(
    events: Sequence[torch.Tensor],
    nodes: torch.Tensor,
    times: torch.Tensor,
    found: Sequence[torch.Tensor | None] = (None,) * 4,
    end: torch.Tensor | None = None,
) -> None:
    """The last events of each node before a time.

    events: (indptr, neighbour, time, edge). found: memory for (neighbour, time, edge, mask), [B, count] each, the mask
    uint8, or none. end: memory for where each node's events before the time end.
    """
    count = 0 if found[0] is None else found[0].shape[1]
    _core.recent(
        *map(_array, events), _array(nodes), _array(times), count, *map(_memory, found), _memory(end),
        torch.get_num_threads(),
    )  # fmt: skip


def nearest_by_ppr(walk: Walk, first: int, last: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k largest entries above 0 of rows `first` to `last` - 1: (row, column, value), columns rising in a row."""
    column, value, indptr = _core.nearest_by_ppr(*walk, first, last, k, torch.get_num_threads())
    return np.repeat(np.arange(first, last), np.diff(indptr)), column, value


def ppr_at(walk: Walk, first: int, asked: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float32 values of row first + r at column[asked[r]] to column[asked[r + 1] - 1], for every r."""
    value = np.empty(len(column), np.float32)
    _core.ppr_at(*walk, first, asked, column.astype(np.int32), value, torch.get_num_threads())
    return value


def additive(
    structure: Structure,
    slope: float,
    dropout: tuple[int, int, float] | None,
    edge_weight: torch.Tensor | None,
    edge_mask: torch.Tensor | None,
    value: torch.Tensor | None,
    score_src: torch.Tensor,
    score_dst: torch.Tensor,
    score_edge: torch.Tensor | None,
    *,
    out: torch.Tensor | None = None,
    alpha: torch.Tensor | None = None,
    logits: torch.Tensor | None = None,
    top: torch.Tensor | None = None,
    inverse: torch.Tensor | None = None,
    d_out: torch.Tensor | None = None,
    gradients: Sequence[torch.Tensor | None] = (None,) * 5,
) -> None:
    """GAT forward, or, given d_out, backward.

    dropout: (seed, threshold, scale of what is kept) or None. edge_mask: bool [E, 1] or [E, H] or None. Backward reads
    top and inverse of forward, and not out. gradients: of value, score_src, score_dst, score_edge,
    edge_weight.
    """
    heads, width = _shape(value) if value is not None else (score_src.shape[1], 1)
    _core.additive(
        d_out is not None, _array(structure[0]), _name(value if value is not None else score_src), heads, width,
        torch.get_num_threads(), slope, *(dropout or NO_DROPOUT),
        *map(_array, (edge_weight, edge_mask, value, score_src, score_dst, score_edge)),
        *map(_memory, (out, alpha, logits, top, inverse)), _array(d_out), *map(_memory, gradients),
    )  # fmt: skip


def edge_softmax(structure: Structure, logits: torch.Tensor, alpha: torch.Tensor) -> None:
    """Softmax over in-edges: GAT's forward with the logits as scores of the edges, and no values."""
    _core.additive(
        False, _array(structure[0]), _name(logits), logits.shape[1], 1, torch.get_num_threads(), 1.0, *NO_DROPOUT,
        None, None, None, None, None, _array(logits), None, _memory(alpha), *(None,) * 9,
    )  # fmt: skip


def gated(
    structure: Structure,
    form: str,
    dropout: tuple[int, int, float] | None,
    edge_weight: torch.Tensor | None,
    edge_mask: torch.Tensor | None,
    value: torch.Tensor,
    score_src: torch.Tensor,
    score_dst: torch.Tensor,
    score_edge: torch.Tensor | None,
    *,
    out: torch.Tensor | None = None,
    d_out: torch.Tensor | None = None,
    gradients: Sequence[torch.Tensor | None] = (None,) * 5,
) -> None:
    """Weights by tanh or sigmoid, the `form`, forward, or, given d_out, backward.

    gradients: of value, score_src, score_dst, score_edge, edge_weight.
    """
    _core.gated(
        d_out is not None, _array(structure[0]), _name(value), *_shape(value), torch.get_num_threads(), form == "tanh",
        *(dropout or NO_DROPOUT), *map(_array, (edge_weight, edge_mask, value, score_src, score_dst, score_edge)),
        _memory(out), _array(d_out), *map(_memory, gradients),
    )  # fmt: skip


def gatv2(
    structure: Structure,
    slope: float,
    dropout: tuple[int, int, float] | None,
    edge_weight: torch.Tensor | None,
    edge_mask: torch.Tensor | None,
    feat_src: torch.Tensor,
    feat_dst: torch.Tensor,
    feat_edge: torch.Tensor | None,
    attn: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    alpha: torch.Tensor | None = None,
    top: torch.Tensor | None = None,
    inverse: torch.Tensor | None = None,
    d_out: torch.Tensor | None = None,
    d_logits: torch.Tensor | None = None,
    gradients: Sequence[torch.Tensor | None] = (None,) * 5,
) -> None:
    """GATv2 forward, or, given d_out or d_logits, backward.

    gradients: of feat_src, feat_dst, feat_edge, attn, edge_weight.
    """
    _core.gatv2(
        d_out is not None or d_logits is not None, _array(structure[0]), _name(feat_src), *_shape(feat_src),
        torch.get_num_threads(), slope, *(dropout or NO_DROPOUT),
        *map(_array, (edge_weight, edge_mask, feat_src, feat_dst, feat_edge, attn)),
        *map(_memory, (out, alpha, top, inverse)),
        *map(_array, (d_out, d_logits)), *map(_memory, gradients),
    )  # fmt: skip


def dot(
    structure: Structure,
    scale: float,
    dropout: tuple[int, int, float] | None,
    edge_weight: torch.Tensor | None,
    edge_mask: torch.Tensor | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor | None,
    bias: torch.Tensor | None,
    *,
    out: torch.Tensor | None = None,
    alpha: torch.Tensor | None = None,
    logits: torch.Tensor | None = None,
    top: torch.Tensor | None = None,
    inverse: torch.Tensor | None = None,
    d_out: torch.Tensor | None = None,
    gradients: Sequence[torch.Tensor | None] = (None,) * 5,
) -> None:
    """Dot-product attention forward, or, given d_out, backward. gradients: of query, key, value, bias, edge_weight."""
    _core.dot(
        d_out is not None, _array(structure[0]), _name(query), *_shape(query),
        query.shape[2] if value is None else value.shape[2], torch.get_num_threads(), scale,
        *(dropout or NO_DROPOUT),
        *map(_array, (edge_weight, edge_mask, query, key, value, bias)),
        *map(_memory, (out, alpha, logits, top, inverse)), _array(d_out), *map(_memory, gradients),
    )  # fmt: skip


def weighted_sum(
    structure: Structure,
    value: torch.Tensor,
    weight: torch.Tensor,
    factor: float,
    by_source: bool,
    out: torch.Tensor,
) -> None:
    """out_row = factor * sum over the row's edges of weight * value; rows are sources or destinations."""
    _core.weighted_sum(
        _array(structure[0]), by_source, _name(value), weight.shape[1], *_shape(value), torch.get_num_threads(), factor,
        _array(value), _array(weight), _memory(out),
    )  # fmt: skip


def weighted_sum_backward(
    structure: Structure,
    value: torch.Tensor,
    weight: torch.Tensor,
    d_out: torch.Tensor,
    d_value: torch.Tensor | None,
    d_weight: torch.Tensor | None,
) -> None:
    """Backward of `weighted_sum` by destination with factor 1."""
    _core.weighted_sum_backward(
        _array(structure[0]), _name(value), weight.shape[1], *_shape(value), torch.get_num_threads(),
        *map(_array, (value, weight, d_out)), *map(_memory, (d_value, d_weight)),
    )  # fmt: skip


def softmax_backward(structure: Structure, alpha: torch.Tensor, d_alpha: torch.Tensor, d_logits: torch.Tensor) -> None:
    """d_logit = alpha (d_alpha - sum over the in-edges of alpha d_alpha)."""
    _core.softmax_backward(
        _array(structure[0]), _name(alpha), alpha.shape[1], torch.get_num_threads(),
        _array(alpha), _array(d_alpha), _memory(d_logits),
    )  # fmt: skip


def edge_sum(structure: Structure, edge_value: torch.Tensor, by_source: bool, out: torch.Tensor) -> None:
    """out_row = sum over the row's edges of edge_value; rows are sources or destinations."""
    _core.edge_sum(
        _array(structure[0]), by_source, _name(edge_value), edge_value.shape[1], torch.get_num_threads(),
        _array(edge_value), _memory(out),
    )  # fmt: skip
