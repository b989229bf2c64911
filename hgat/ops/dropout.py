"""Dropout on attention as a pure function of (seed, edge, head).

Backward, another backend and another number of threads drop the same edges, and no mask is stored. The seed is
drawn from PyTorch's CPU generator, so `torch.manual_seed` decides.
"""

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from hgat.errors import ShapeError
from hgat.kernels import cpu
from hgat.ops.contexts import chosen_backend

__all__ = ["attention_dropout", "check_probability", "draw_seed", "dropout_numbers", "dropout_scale"]

_LOW = 0xFFFFFFFF


def check_probability(dropout: Any) -> None:
    if not isinstance(dropout, Real) or not 0.0 <= float(dropout) <= 1.0:
        raise ShapeError(f"dropout: expected a probability from 0 to 1, got {dropout!r}")


def draw_seed() -> int:
    """A seed from PyTorch's CPU generator."""
    return int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64))


def _mix(x: Any) -> Any:
    """The 32-bit finaliser of kernels/cpu/dropout.h; only the low half of an int64 is used, so products may wrap."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def _composed(num_edges: int, num_heads: int, seed: int, threshold: int, device: torch.device) -> Tensor:
    """True where (seed, edge, head) is kept: the definition that every kernel repeats."""
    key = _mix(_mix(seed & _LOW) ^ ((seed >> 32) & _LOW))  # a number of Python: a device need not be waited for
    edge = torch.arange(num_edges, device=device)
    row = _mix(_mix((edge & _LOW) ^ key) ^ (edge >> 32))
    head = (torch.arange(num_heads, device=device) * 0x9E3779B9) & _LOW
    return _mix(row[:, None] ^ head) >= threshold


def dropout_numbers(dropout: float, seed: int) -> tuple[int, int, float]:
    """(64 bits of the seed, threshold of 2^32 below which an entry is dropped, scale of what is kept)."""
    keep_scale = 0.0 if dropout == 1.0 else 1.0 / (1.0 - dropout)
    return int(seed) & 0xFFFFFFFFFFFFFFFF, int(dropout * 2**32), keep_scale


def dropout_scale(num_edges: int, num_heads: int, dropout: float, seed: int, like: Tensor) -> Tensor:
    """[E, H]: 0 where (seed, edge, head) is dropped, else 1 / (1 - dropout); type and device of `like`."""
    seed, threshold, keep_scale = dropout_numbers(dropout, seed)
    compiled = cpu.available() and chosen_backend.get() in ("auto", "native", "dgl")
    if compiled and like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        scale = torch.empty((num_edges, num_heads), dtype=like.dtype)
        cpu.dropout_scale(scale, seed, threshold, keep_scale, torch.get_num_threads())
        return scale
    return _composed(num_edges, num_heads, seed, threshold, like.device).to(like.dtype) * keep_scale


def attention_dropout(alpha: Tensor, dropout: float, seed: int | None = None) -> Tensor:
    """Drop entries of alpha [E, H] and scale the rest by 1 / (1 - dropout), as the attention operators do inside.

    For layers that need the weights themselves. seed: the number that fixes what is dropped; drawn if None.
    Raises ShapeError for an alpha that is not [E, H] of a floating-point type.
    """
    check_probability(dropout)
    if not isinstance(alpha, torch.Tensor) or not alpha.is_floating_point():
        got = getattr(alpha, "dtype", type(alpha).__name__)
        raise ShapeError(f"alpha: expected a floating-point tensor [E, H], got {got}")
    if alpha.dim() != 2:
        raise ShapeError(f"alpha: expected [E, H], got {list(alpha.shape)}")
    if dropout == 0.0:
        return alpha
    seed = draw_seed() if seed is None else seed
    return alpha * dropout_scale(alpha.shape[0], alpha.shape[1], dropout, seed, alpha.detach())
