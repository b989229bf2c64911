"""One projection per relation, applied to rows that are sorted by relation."""

import torch

from hgat.errors import ShapeError, check_shape

__all__ = ["typed_projection"]


def typed_projection(rows, weight, count):
    """rows of relation r times weight[r].

        out_k = rows_k @ weight[r(k)]

    Shapes: rows [K, F] sorted by relation, weight [R, F, O], count [R] int64 on the CPU with sum K -> out [K, O].
    Raises ShapeError if they do not fit. One product per segment on the CPU, where each is large beside its call;
    elsewhere one batched product over rows padded to the largest relation.
    """
    relations, width, out_width = _check(rows, weight, count)
    dtype = torch.promote_types(rows.dtype, weight.dtype)
    rows, weight = rows.to(dtype), weight.to(dtype)
    if _segments_run(rows) and relations:
        # What dgl.ops.segment_mm does here, but for its slices, of which each fills a gradient of all rows with zeros.
        segments = zip(rows.split(count.tolist()), weight.unbind(0), strict=True)
        return torch.cat([part @ matrix for part, matrix in segments])
    most = int(count.max()) if relations else 0
    number = count.to(rows.device)
    start = torch.cumsum(number, 0) - number
    relation = torch.repeat_interleave(torch.arange(relations, device=rows.device), number, output_size=rows.shape[0])
    place = relation * most + torch.arange(rows.shape[0], device=rows.device) - start[relation]
    padded = rows.new_zeros((relations * most, width)).index_copy(0, place, rows)
    return torch.bmm(padded.view(relations, most, width), weight).reshape(relations * most, out_width)[place]


def _segments_run(rows):
    return rows.device.type == "cpu"


def _check(rows, weight, count):
    """(R, F, O) of a call whose arguments fit."""
    for name, tensor, letters in (("rows", rows, "[K, F]"), ("weight", weight, "[R, F, O]")):
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            got = getattr(tensor, "dtype", type(tensor).__name__)
            raise ShapeError(f"{name}: expected a floating-point tensor {letters}, got {got}")
    tensor = isinstance(count, torch.Tensor)
    if not tensor or count.dtype not in (torch.int64, torch.int32) or count.device.type != "cpu":
        got = f"{count.dtype} on {count.device}" if tensor else type(count).__name__
        raise ShapeError(f"count: expected an int64 tensor [R] on the CPU, got {got}")
    if weight.dim() != 3:
        raise ShapeError(f"weight: expected [R, F, O], got {list(weight.shape)}")
    relations, width, out_width = weight.shape
    check_shape("count", count, ("R", relations))
    if (count < 0).any():
        raise ShapeError(f"count: expected 0 or more rows per relation, got {int(count.min())}")
    check_shape("rows", rows, ("K", int(count.sum())), ("F", width))
    if rows.device != weight.device:
        raise ShapeError(f"weight: expected device {rows.device} like rows, got {weight.device}")
    return relations, width, out_width
