"""One projection per relation, applied to rows that are sorted by relation."""

import dgl
import torch

from hgat.errors import check_shape

__all__ = ["typed_projection"]


def typed_projection(rows, weight, count):
    """rows of relation r times weight[r], without a loop over relations.

        out_k = rows_k @ weight[r(k)]

    Shapes: rows [K, F] sorted by relation, weight [R, F, O], count [R] int64 on the CPU with sum K -> out [K, O].
    Raises ShapeError if they do not fit. DGL's segmented product on the CPU; elsewhere one batched product over
    rows padded to the largest relation.
    """
    relations, width, out_width = weight.shape
    check_shape("count", count, ("R", relations))
    check_shape("rows", rows, ("K", int(count.sum())), ("F", width))
    if rows.device.type == "cpu" and rows.numel() and weight.numel():
        dtype = torch.promote_types(rows.dtype, weight.dtype)
        return dgl.ops.segment_mm(rows.to(dtype), weight.to(dtype), count)
    most = int(count.max()) if relations else 0
    number = count.to(rows.device)
    start = torch.cumsum(number, 0) - number
    relation = torch.repeat_interleave(torch.arange(relations, device=rows.device), number)
    place = relation * most + torch.arange(rows.shape[0], device=rows.device) - start[relation]
    padded = rows.new_zeros((relations * most, width)).index_copy(0, place, rows)
    return torch.bmm(padded.view(relations, most, width), weight).view(-1, out_width)[place]
