"""One projection per relation, applied to rows that are sorted by relation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hgat import transforms
from hgat.errors import ShapeError, check_shape
from hgat.kernels import cpu

__all__ = ["typed_projection"]

STEP = 4096  # rows of a product on the CPU: what is gathered for it stays in the cache


def typed_projection(
    rows: Tensor, weight: Tensor | Sequence[Tensor], count: Tensor, index: Tensor | None = None
) -> Any:
    """Rows of relation r times weight[r].

        out_k = rows_k @ weight[r(k)], or, with index, rows_index(k) @ weight[r(k)]

    Shapes: rows [K, F] sorted by relation, or, with index [K] int64, [N, F] in any order; weight [R, F, O], or a list
    of several, [R, F, O_1], [R, F, O_2], ..., for the same rows; count [R] int64 on the CPU with sum K -> out [K, O],
    or a list [K, O_1], [K, O_2], ... Raises ShapeError if they do not fit.

    On the CPU in float32 and float64 the rows of an index are gathered a few thousand at a time, and not at all where
    they are neighbours, so that nothing of size K * F is made, forward or backward. Otherwise they are gathered whole,
    for one product per relation: under autocast, in half types, inside torch.func's transforms, and on other devices.
    """
    several = isinstance(weight, list | tuple)
    weights: list[Any] = list(weight) if several else [weight]
    relations = _check(rows, weights, count, index)
    dtype = weights[0].dtype
    for tensor in (rows, *weights):
        dtype = torch.promote_types(dtype, tensor.dtype)
    rows, weights = rows.to(dtype), [one.to(dtype) for one in weights]
    if relations and _pieces_run(rows):
        out = _Pieces.apply(rows, index, count.tolist(), *weights)
    else:
        out = _by_segment(rows, weights, count.tolist(), index)
    return list(out) if several else out[0]


def _pieces_run(rows: Tensor) -> bool:
    """Whether products into given memory serve: autocast does not see them, and half types would sum in half."""
    served = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)
    return served and not _autocast() and not transforms.active()


def _autocast() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


class _Pieces(torch.autograd.Function):
    """One product per piece of a relation's rows, written where its result belongs."""

    @staticmethod
    def forward(ctx, rows, index, count, *weights):
        ctx.save_for_backward(rows, index, *weights)
        ctx.pieces = _pieces(count, index)
        outs = tuple(cpu.empty(rows, sum(count), weight.shape[2]) for weight in weights)
        for relation, start, end, first in ctx.pieces:
            part = _part(rows, index, start, end, first)
            for out, weight in zip(outs, weights, strict=True):
                torch.mm(part, weight[relation], out=out[start:end])
        return outs

    @staticmethod
    def backward(ctx, *d_outs):
        rows, index, *weights = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3:]]

        def gradients(*d_outs):
            return _gradients(rows, index, weights, ctx.pieces, wanted, d_outs)

        run = transforms.one_by_one(gradients) if transforms.has_batch(*d_outs) else gradients
        d_rows, *d_weights = run(*d_outs)
        return d_rows, None, None, *d_weights


def _gradients(rows, index, weights, pieces, wanted, d_outs):
    """[d_rows, *d_weights], None where it is not wanted."""
    d_rows = cpu.empty(rows, *rows.shape).zero_() if wanted[0] else None
    d_weights = [torch.zeros_like(one) if want else None for one, want in zip(weights, wanted[1:], strict=True)]
    for relation, start, end, first in pieces:
        part = _part(rows, index, start, end, first) if any(wanted[1:]) else None
        scattered = first is None and d_rows is not None
        if scattered:
            d_part = rows.new_zeros(end - start, rows.shape[1])
        elif d_rows is not None:
            d_part = _part(d_rows, None, start, end, first)  # neighbours take their sums where they stand
        for d_out, weight, d_weight in zip(d_outs, weights, d_weights, strict=True):
            if d_weight is not None:
                d_weight[relation].addmm_(part.T, d_out[start:end])
            if d_rows is not None:
                d_part.addmm_(d_out[start:end], weight[relation].T)
        if scattered:
            d_rows.index_add_(0, index[start:end], d_part)
    return [d_rows, *d_weights]


def _pieces(count, index):
    """[(relation, start, end, first)]: the rows from start to end, which stand from row `first` on, or None."""
    found, start = [], 0
    for relation, number in enumerate(count):
        found += [(relation, s, min(s + STEP, start + number)) for s in range(start, start + number, STEP)]
        start += number
    if index is None:
        return [(*piece, piece[1]) for piece in found]
    first = index[[start for _, start, _ in found]].tolist()
    last = index[[end - 1 for _, _, end in found]].tolist()
    pieces = []
    for (relation, start, end), low, high in zip(found, first, last, strict=True):
        neighbours = high - low == end - start - 1 and bool((torch.diff(index[start:end]) == 1).all())
        pieces.append((relation, start, end, low if neighbours else None))
    return pieces


def _part(rows, index, start, end, first):
    return rows.index_select(0, index[start:end]) if first is None else rows[first : first + end - start]


def _by_segment(rows, weights, count, index):
    """One product per relation, in steps that autograd and autocast follow; none waits for a device."""
    rows = rows if index is None else rows.index_select(0, index)
    if not count:
        return [rows @ one.sum(0) for one in weights]  # no rows, no relations
    parts = rows.split(count)  # a slice each would fill a gradient of all rows with zeros
    return [torch.cat([part @ matrix for part, matrix in zip(parts, one.unbind(0), strict=True)]) for one in weights]


def _check(rows, weights, count, index):
    """The number of relations of a call whose arguments fit."""
    if not weights:
        raise ShapeError("weight: expected a tensor [R, F, O] or several, got none")
    for name, tensor, letters in (("rows", rows, "[K, F]"), *(("weight", one, "[R, F, O]") for one in weights)):
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            got = getattr(tensor, "dtype", type(tensor).__name__)
            raise ShapeError(f"{name}: expected a floating-point tensor {letters}, got {got}")
    tensor = isinstance(count, torch.Tensor)
    if not tensor or count.dtype not in (torch.int64, torch.int32) or count.device.type != "cpu":
        got = f"{count.dtype} on {count.device}" if tensor else type(count).__name__
        raise ShapeError(f"count: expected an int64 tensor [R] on the CPU, got {got}")
    if weights[0].dim() != 3:
        raise ShapeError(f"weight: expected [R, F, O], got {list(weights[0].shape)}")
    for one in weights:
        check_shape("weight", one, ("R", weights[0].shape[0]), ("F", weights[0].shape[1]), ("O", None))
        if one.device != rows.device:
            raise ShapeError(f"weight: expected device {rows.device} like rows, got {one.device}")
    relations, width = weights[0].shape[:2]
    check_shape("count", count, ("R", relations))
    if (count < 0).any():
        raise ShapeError(f"count: expected 0 or more rows per relation, got {int(count.min())}")
    total = int(count.sum())
    if index is None:
        check_shape("rows", rows, ("K", total), ("F", width))
        return relations
    check_shape("rows", rows, ("N", None), ("F", width))
    if not isinstance(index, torch.Tensor) or index.dtype != torch.int64 or index.device != rows.device:
        got = f"{index.dtype} on {index.device}" if isinstance(index, torch.Tensor) else type(index).__name__
        raise ShapeError(f"index: expected an int64 tensor [K] on {rows.device}, got {got}")
    check_shape("index", index, ("K", total))
    if index.device.type == "cpu" and total and not 0 <= int(index.min()) <= int(index.max()) < rows.shape[0]:
        got = f"{int(index.min())} to {int(index.max())}"
        raise ShapeError(f"index: expected rows from 0 to {rows.shape[0] - 1}, got {got}")
    return relations
