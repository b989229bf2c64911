"""The checks that the operators share. Layers and models rely on them and check nothing twice."""

import operator
from numbers import Real
from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import ShapeError, check_shape
from hgat.graph import csr
from hgat.ops.dropout import check_probability, draw_seed

__all__ = [
    "check_call",
    "check_number",
    "check_width",
    "edge_mask_column",
    "edge_weight_column",
    "seed_for",
]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# The only tensors of an operator that may be None.
OPTIONAL = ("score_edge", "feat_edge", "bias")


def check_width(name: str, tensor: Any, *letters: str) -> tuple[int, ...]:
    """The sizes of `tensor` behind its first axis; ShapeError unless it has one axis per letter."""
    if not isinstance(tensor, torch.Tensor):
        raise ShapeError(f"{name}: expected a tensor [{', '.join(letters)}], got {type(tensor).__name__}")
    if tensor.dim() != len(letters):
        raise ShapeError(f"{name}: expected [{', '.join(letters)}], got {list(tensor.shape)}")
    return tensor.shape[1:]


def check_call(graph: DGLGraph, *arguments: tuple) -> None:
    """Check graph, float types, devices and shapes of an operator call.

    arguments: (name, tensor, letter of the first axis among N_src, N_dst, E, or None, *(letter, size)).
    """
    csr.single_relation(graph)
    rows = {"N_src": graph.num_src_nodes(), "N_dst": graph.num_dst_nodes(), "E": graph.num_edges()}
    device = None
    for name, tensor, first, *rest in arguments:
        if tensor is None and name in OPTIONAL:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise ShapeError(f"{name}: expected a floating-point tensor, got {type(tensor).__name__}")
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided:
            got = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise ShapeError(f"{name}: expected a floating-point tensor of 16 bits or more, got {got}")
        expected = [(first, rows[first]), *rest] if first else rest
        check_shape(name, tensor, *expected)
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise ShapeError(f"{name}: expected device {device} like the other tensors, got {tensor.device}")


def check_number(name: str, value: Any) -> float:
    """`value` as a float; ShapeError unless it is a real number."""
    if not isinstance(value, Real):
        raise ShapeError(f"{name}: expected a number, got {value!r}")
    return float(value)


def edge_weight_column(graph: DGLGraph, edge_weight: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """edge_weight [E] or [E, H] as [E, 1] or [E, H], whole numbers as floats; None stays None.

    like: a tensor of the call, whose device edge_weight must share.
    """
    if edge_weight is None:
        return None
    tensor = isinstance(edge_weight, torch.Tensor) and edge_weight.layout == torch.strided
    if not tensor or edge_weight.is_complex():
        got = edge_weight.dtype if tensor else getattr(edge_weight, "layout", type(edge_weight).__name__)
        raise ShapeError(f"edge_weight: expected a tensor of real numbers, got {got}")
    if edge_weight.device != like.device:
        raise ShapeError(f"edge_weight: expected device {like.device} like the other tensors, got {edge_weight.device}")
    if edge_weight.dtype not in FLOATS:
        edge_weight = edge_weight.to(torch.promote_types(like.dtype, torch.float32))
    check_width_of: tuple[tuple[str, int], ...] = (("E", graph.num_edges()),)
    if edge_weight.dim() == 2:
        check_width_of += (("H", heads),)
    check_shape("edge_weight", edge_weight, *check_width_of)
    return edge_weight if edge_weight.dim() == 2 else edge_weight.unsqueeze(-1)


def edge_mask_column(graph: DGLGraph, edge_mask: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """edge_mask [E] or [E, H], True where an edge takes part, as [E, 1] or [E, H]; None stays None."""
    if edge_mask is None:
        return None
    if not isinstance(edge_mask, torch.Tensor) or edge_mask.dtype != torch.bool:
        got = getattr(edge_mask, "dtype", type(edge_mask).__name__)
        raise ShapeError(f"edge_mask: expected a tensor of torch.bool, True where the edge takes part, got {got}")
    if edge_mask.device != like.device:
        raise ShapeError(f"edge_mask: expected device {like.device} like the other tensors, got {edge_mask.device}")
    two = (("H", heads),) if edge_mask.dim() == 2 and edge_mask.shape[1] != 1 else (("1", 1),)
    check_shape("edge_mask", edge_mask, ("E", graph.num_edges()), *(two if edge_mask.dim() != 1 else ()))
    return edge_mask if edge_mask.dim() == 2 else edge_mask.unsqueeze(-1)


def seed_for(dropout: float, seed: Any) -> int:
    """A seed for this call: the given one, a fresh one if edges are dropped, else 0."""
    check_probability(dropout)
    if seed is not None:
        try:
            seed = operator.index(seed)
        except TypeError:
            raise ShapeError(f"seed: expected a whole number, got {seed!r}") from None
    if dropout == 0.0:
        return 0
    # Any whole number is a seed; 64 bits of it count, read as PyTorch's operators read them.
    return draw_seed() if seed is None else (seed + 2**63) % 2**64 - 2**63
