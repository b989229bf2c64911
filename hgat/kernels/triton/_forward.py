"""Forward of every attention operator: logits of a block of edges, online softmax, sum of values. One program takes one
task and one group of heads; what differs between the operators is how the logits are computed.

Arguments of all: left and right are what source and destination bring to the logit (scores, features, keys and
queries), on_edge what the edge brings (scores, features, a bias).
"""

import triton
import triton.language as tl

from hgat.kernels.triton._common import (
    dropped,
    head_mask,
    kept,
    lanes,
    logits,
    of_row,
    own_side,
    rows,
    scaled,
    scores,
    store_row,
    task_of,
    wide,
)

__all__: list[str] = []  # kernels: what is launched, and by what, says _host


@triton.jit(do_not_specialize=["num_tasks", "key", "threshold"])
def attend(
    indptr, other, edge, tasks, num_tasks,
    value, left, right, on_edge, attn, weight, mask,
    out, top, inverse, part, part_top, part_sum,
    factor, key, threshold, keep_scale,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, DL: tl.constexpr,
    WEIGHT_HEADS: tl.constexpr, MASK_HEADS: tl.constexpr, DROPS: tl.constexpr, NEEDS_EDGE: tl.constexpr,
    WIDE: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """out, top and inverse of short rows; of a chunk its sums in part, part_top and part_sum.

    value and out may be None.
    """
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    dl = tl.arange(0, BLOCK_L)
    inside_l = lanes(h, dl, H, DL, BLOCK_H, BLOCK_L)
    own = own_side(right, row, h, dl, on, inside_l, KIND, H, DL, WIDE, BLOCK_H)
    a = own
    if KIND == "gatv2":
        a = of_row(attn, 0, h, dl, inside_l, H, DL, False)

    highest = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    if value is not None:
        acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        u = tl.load(other + p, mask=live, other=0)
        e = u
        if NEEDS_EDGE:
            e = tl.load(edge + p, mask=live, other=0)
        x, _, far = logits(
            left, own, a, on_edge, u, e, live, h, dl, on, inside_l, factor, KIND, H, DL, H, WIDE
        )  # fmt: skip
        if KIND != "gatv2" and value is not None:
            far = rows(value, u, live, h, d, inside, H, D, WIDE)
        x = kept(x, mask, e, live, h, on, MASK_HEADS, H, WIDE)
        now = tl.maximum(highest, tl.max(x, 0))
        shift = tl.where(now == float("-inf"), 0.0, now)
        before = tl.exp(highest - shift)
        x = tl.exp(x - shift[None, :])
        total = total * before + tl.sum(x, 0)
        highest = now
        if value is not None:
            if DROPS:
                x *= dropped(e, h, key, threshold, keep_scale)
            if weight is not None:
                x = scaled(weight, e, live, h, on, x, WEIGHT_HEADS, H, WIDE)
            acc = acc * before[:, None] + tl.sum(x[:, :, None] * far, 0)

    if part_top is not None:
        if pid < num_tasks:
            at = wide(pid, True) * H + h
            tl.store(part_top + at, highest, mask=on)
            tl.store(part_sum + at, total, mask=on)
            if value is not None:
                store_row(part, pid, acc, h, d, inside, H, D, True)
    if pid >= num_tasks:
        over = tl.where(total == 0, 0.0, 1.0 / total)
        at = wide(row, WIDE) * H + h
        tl.store(top + at, tl.where(highest == float("-inf"), 0.0, highest), mask=on)
        tl.store(inverse + at, over, mask=on)
        if value is not None:
            store_row(out, row, acc * over[:, None], h, d, inside, H, D, WIDE)


@triton.jit
def attend_merge(
    heavy, part, part_top, part_sum, out, top, inverse,
    H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The chunks of a long row were taken relative to their own highest logits: bring them to the row's."""
    pid = tl.program_id(0)
    row = tl.load(heavy + 3 * pid)
    begin = tl.load(heavy + 3 * pid + 1)
    end = tl.load(heavy + 3 * pid + 2)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    highest = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    if out is not None:
        acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for start in range(begin, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        tops = tl.where(live[:, None], scores(part_top, p, live, h, on, H, True), float("-inf"))
        now = tl.maximum(highest, tl.max(tops, 0))
        shift = tl.where(now == float("-inf"), 0.0, now)
        before = tl.exp(highest - shift)
        x = tl.exp(tops - shift[None, :])
        total = total * before + tl.sum(x * scores(part_sum, p, live, h, on, H, True), 0)
        highest = now
        if out is not None:
            acc = acc * before[:, None] + tl.sum(x[:, :, None] * rows(part, p, live, h, d, inside, H, D, True), 0)
    over = tl.where(total == 0, 0.0, 1.0 / total)
    at = wide(row, WIDE) * H + h
    tl.store(top + at, tl.where(highest == float("-inf"), 0.0, highest), mask=on)
    tl.store(inverse + at, over, mask=on)
    if out is not None:
        store_row(out, row, acc * over[:, None], h, d, inside, H, D, WIDE)


@triton.jit(do_not_specialize=["num_tasks"])
def edge_logits(
    indptr, other, edge, tasks, num_tasks,
    left, right, on_edge, attn, mask, top, inverse, result,
    factor,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, MASK_HEADS: tl.constexpr, WIDE: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """result [E, H]: the logits, those of GAT before the leaky ReLU, or, given top and inverse, their softmax."""
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    on = head_mask(h, H, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    own = own_side(right, row, h, d, on, inside, KIND, H, D, WIDE, BLOCK_H)
    a = own
    if KIND == "gatv2":
        a = of_row(attn, 0, h, d, inside, H, D, False)
    if top is not None:
        at = wide(row, WIDE) * H + h
        highest = tl.load(top + at, mask=on, other=0.0)
        over = tl.load(inverse + at, mask=on, other=0.0)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        u = tl.load(other + p, mask=live, other=0)
        e = tl.load(edge + p, mask=live, other=0)
        x, inner, _ = logits(left, own, a, on_edge, u, e, live, h, d, on, inside, factor, KIND, H, D, H, WIDE)
        if KIND == "additive" and top is None:
            x = inner
        if top is not None:
            x = tl.exp(kept(x, mask, e, live, h, on, MASK_HEADS, H, WIDE) - highest[None, :]) * over[None, :]
        tl.store(result + wide(e, WIDE)[:, None] * H + h[None, :], x, mask=live[:, None] & on[None, :])
