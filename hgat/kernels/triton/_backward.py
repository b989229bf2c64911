"""Backward of every attention operator, in two sweeps that keep nothing of the size of the edges. alpha is formed again
from the logits; with alpha' = alpha * scale (dropout, edge weight) and t_uv = scale_uv (d_out_v . value_u),

    d_logit_uv = alpha_uv (t_uv - s_v),   s_v = sum_u alpha_uv t_uv

By destination: s_v and the gradient of what the destination brings to the logits, in one sweep: sums of
alpha (t - r) f are carried with a running mean r, for f the derivative of the logit, and corrected as r moves towards
s_v (Welford's scheme), so that no difference of two large sums is taken, and where alpha is 1 it is exactly zero.
By source: everything else.
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


@triton.jit(do_not_specialize=["num_tasks", "num_all", "key", "threshold"])
def by_destination(
    indptr, other, edge, tasks, num_tasks, num_all,
    value, left, right, on_edge, attn, weight, mask, top, inverse, d_out, d_logits,
    info, d_right, part_mean, part_sums, part_attn,
    factor, key, threshold, keep_scale,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, DL: tl.constexpr, STRIDE: tl.constexpr,
    WEIGHT_HEADS: tl.constexpr, MASK_HEADS: tl.constexpr, DROPS: tl.constexpr, NEEDS_EDGE: tl.constexpr,
    WIDE: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """info [N, 3 or 4, H] = top, inverse, s and, of GAT, right; d_right; of a chunk part_mean [2, H] and part_sums.

    part_attn: [programs, H, DL], each program's part of d_attn (GATv2), or None. d_logits: the gradient of the logits,
    if it is given (GATv2 alone): then there is no s.
    """
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    dl = tl.arange(0, BLOCK_L)
    inside_l = lanes(h, dl, H, DL, BLOCK_H, BLOCK_L)
    if KIND == "gatv2":
        a = of_row(attn, 0, h, dl, inside_l, H, DL, False)
        d_attn = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
    for task in range(tl.program_id(0), num_all, tl.num_programs(0)):
        pid = tl.full([], task, tl.int32)
        row, first, end = task_of(pid, indptr, tasks, num_tasks)
        short = (end - first <= CHUNK) | (pid < num_tasks)
        end = tl.where(short, end, first)
        own = own_side(right, row, h, dl, on, inside_l, KIND, H, DL, WIDE, BLOCK_H)
        if KIND != "gatv2":
            a = own
        at = wide(row, WIDE) * H + h
        if d_logits is None:
            own_out = of_row(d_out, row, h, d, inside, H, D, WIDE)
            highest = tl.load(top + at, mask=on, other=0.0)
            over = tl.load(inverse + at, mask=on, other=0.0)
        mass = tl.zeros([BLOCK_H], tl.float32)
        mean = tl.zeros([BLOCK_H], tl.float32)
        if KIND == "additive":
            grad = tl.zeros([BLOCK_H], tl.float32)
            slopes = tl.zeros([BLOCK_H], tl.float32)
        else:
            grad = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
            slopes = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
        if KIND == "gatv2":
            along = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
            alongs = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
        for start in range(first, end, BLOCK_E):
            p = start + tl.arange(0, BLOCK_E)
            live = p < end
            u = tl.load(other + p, mask=live, other=0)
            e = u
            if NEEDS_EDGE:
                e = tl.load(edge + p, mask=live, other=0)
            x, inner, far = logits(
                left, own, a, on_edge, u, e, live, h, dl, on, inside_l, factor, KIND, H, DL, H, WIDE
            )  # fmt: skip
            if d_logits is None:
                x = kept(x, mask, e, live, h, on, MASK_HEADS, H, WIDE)
                alpha = tl.exp(x - highest[None, :]) * over[None, :]
                if KIND == "gatv2":
                    t = tl.sum(own_out[None, :, :] * far, 2)
                else:
                    t = tl.sum(own_out[None, :, :] * rows(value, u, live, h, d, inside, H, D, WIDE), 2)
                if DROPS:
                    t *= dropped(e, h, key, threshold, keep_scale)
                if weight is not None:
                    t = scaled(weight, e, live, h, on, t, WEIGHT_HEADS, H, WIDE)
                mass += tl.sum(alpha, 0)
                moved = tl.sum(alpha * (t - mean[None, :]), 0) / tl.where(mass == 0, 1.0, mass)
                mean += moved
                g = alpha * (t - mean[None, :])
            else:
                g = scores(d_logits, e, live, h, on, H, WIDE)
                alpha = g
                moved = mean
            if KIND == "additive":
                slope = tl.where(inner > 0, 1.0, factor)
                grad += tl.sum(g * slope, 0) - slopes * moved
                slopes += tl.sum(alpha * slope, 0)
            else:
                f = far
                if KIND == "gatv2":
                    f = tl.where(inner > 0, 1.0, factor)
                grad += tl.sum(g[:, :, None] * f, 0)
                if d_logits is None:
                    grad -= slopes * moved[:, None]
                    slopes += tl.sum(alpha[:, :, None] * f, 0)
                if KIND == "gatv2" and part_attn is not None:
                    f *= inner
                    along += tl.sum(g[:, :, None] * f, 0)
                    if d_logits is None:
                        along -= alongs * moved[:, None]
                        alongs += tl.sum(alpha[:, :, None] * f, 0)

        if part_mean is not None:
            if pid < num_tasks:
                if KIND == "additive":
                    part = part_sums + (pid.to(tl.int64) * 2) * H + h
                    tl.store(part, grad, mask=on)
                    tl.store(part + H, slopes, mask=on)
                else:
                    SUMS: tl.constexpr = 4 if KIND == "gatv2" else 2
                    slot = pid.to(tl.int64) * SUMS
                    store_row(part_sums, slot, grad, h, dl, inside_l, H, DL, True)
                    store_row(part_sums, slot + 1, slopes, h, dl, inside_l, H, DL, True)
                    if KIND == "gatv2":
                        store_row(part_sums, slot + 2, along, h, dl, inside_l, H, DL, True)
                        store_row(part_sums, slot + 3, alongs, h, dl, inside_l, H, DL, True)
                tl.store(part_mean + pid.to(tl.int64) * (2 * H) + h, mass, mask=on)
                tl.store(part_mean + pid.to(tl.int64) * (2 * H) + H + h, mean, mask=on)
        if short & (pid >= num_tasks):
            if info is not None:
                at = wide(row, WIDE) * STRIDE + h
                tl.store(info + at, highest, mask=on)
                tl.store(info + at + H, over, mask=on)
                tl.store(info + at + 2 * H, mean, mask=on)
                if KIND == "additive":
                    tl.store(info + at + 3 * H, own, mask=on)
            if d_right is not None:
                if KIND == "additive":
                    tl.store(d_right + wide(row, WIDE) * H + h, grad, mask=on)
                elif KIND == "gatv2":  # a NaN in attn reaches no node without edges
                    grad = tl.where(end > first, grad * a, 0.0)
                    store_row(d_right, row, grad, h, dl, inside_l, H, DL, WIDE)
                else:
                    store_row(d_right, row, grad * factor, h, dl, inside_l, H, DL, WIDE)
        if KIND == "gatv2":
            d_attn += tl.where(pid < num_tasks, 0.0, along)
    if KIND == "gatv2" and part_attn is not None:
        store_row(part_attn, tl.program_id(0), d_attn, h, dl, inside_l, H, DL, True)


@triton.jit
def by_destination_merge(
    heavy, part_mean, part_sums, right, attn, top, inverse, info, d_right, part_attn,
    factor, KIND: tl.constexpr, H: tl.constexpr, DL: tl.constexpr, STRIDE: tl.constexpr, GIVEN: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """The chunks of a long row, each corrected to the mean of the row, added up."""
    pid = tl.program_id(0)
    row = tl.load(heavy + 3 * pid)
    begin = tl.load(heavy + 3 * pid + 1)
    end = tl.load(heavy + 3 * pid + 2)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    on = head_mask(h, H, BLOCK_H)
    dl = tl.arange(0, BLOCK_L)
    inside_l = lanes(h, dl, H, DL, BLOCK_H, BLOCK_L)
    mass = tl.zeros([BLOCK_H], tl.float32)
    mean = tl.zeros([BLOCK_H], tl.float32)
    for start in range(begin, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        masses = scores(part_mean, p, live, h, on, 2 * H, True)
        means = scores(part_mean + H, p, live, h, on, 2 * H, True)
        mass += tl.sum(masses, 0)
        mean += tl.sum(masses * (means - mean[None, :]), 0) / tl.where(mass == 0, 1.0, mass)
    if KIND == "additive":
        grad = tl.zeros([BLOCK_H], tl.float32)
    else:
        grad = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
        along = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
    for start in range(begin, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        moved = scores(part_mean + H, p, live, h, on, 2 * H, True) - mean[None, :]
        if KIND == "additive":
            part = scores(part_sums, p, live, h, on, 2 * H, True)
            grad += tl.sum(part + moved * scores(part_sums + H, p, live, h, on, 2 * H, True), 0)
        else:
            SUMS: tl.constexpr = 4 if KIND == "gatv2" else 2
            slot = p.to(tl.int64) * SUMS
            part = rows(part_sums, slot, live, h, dl, inside_l, H, DL, True)
            if not GIVEN:
                part += moved[:, :, None] * rows(part_sums, slot + 1, live, h, dl, inside_l, H, DL, True)
            grad += tl.sum(part, 0)
            if KIND == "gatv2" and part_attn is not None:
                part = rows(part_sums, slot + 2, live, h, dl, inside_l, H, DL, True)
                if not GIVEN:
                    part += moved[:, :, None] * rows(part_sums, slot + 3, live, h, dl, inside_l, H, DL, True)
                along += tl.sum(part, 0)
    if info is not None:
        of = wide(row, WIDE) * H + h
        at = wide(row, WIDE) * STRIDE + h
        tl.store(info + at, tl.load(top + of, mask=on, other=0.0), mask=on)
        tl.store(info + at + H, tl.load(inverse + of, mask=on, other=0.0), mask=on)
        tl.store(info + at + 2 * H, mean, mask=on)
        if KIND == "additive":
            tl.store(info + at + 3 * H, own_side(right, row, h, dl, on, inside_l, KIND, H, DL, WIDE, BLOCK_H), mask=on)
    if d_right is not None:
        if KIND == "additive":
            tl.store(d_right + wide(row, WIDE) * H + h, grad, mask=on)
        elif KIND == "gatv2":
            a = of_row(attn, 0, h, dl, inside_l, H, DL, False)
            store_row(d_right, row, grad * a, h, dl, inside_l, H, DL, WIDE)
        else:
            store_row(d_right, row, grad * factor, h, dl, inside_l, H, DL, WIDE)
    if KIND == "gatv2" and part_attn is not None:
        store_row(part_attn, pid, along, h, dl, inside_l, H, DL, True)


@triton.jit(do_not_specialize=["num_tasks", "key", "threshold"])
def by_source(
    indptr, other, edge, tasks, num_tasks,
    value, left, right, on_edge, attn, weight, mask, top, inverse, mean, d_out, d_logits,
    d_value, d_left, d_edge, d_weight, part_value, part_left,
    factor, key, threshold, keep_scale,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, DL: tl.constexpr, STRIDE: tl.constexpr,
    RIGHT_STRIDE: tl.constexpr, WEIGHT_HEADS: tl.constexpr, MASK_HEADS: tl.constexpr, DROPS: tl.constexpr,
    NEEDS_EDGE: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Gradients of value, left, on_edge and weight; of a chunk its parts of the first two. GATv2 has no d_value.

    top, inverse, mean: of the destinations, rows STRIDE apart. Each result may be None, and mean, if no gradient of the
    logits is wanted.
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
    own = own_side(left, row, h, dl, on, inside_l, KIND, H, DL, WIDE, BLOCK_H)
    a = own
    own_value = own
    if KIND == "gatv2":
        a = of_row(attn, 0, h, dl, inside_l, H, DL, False)
    elif mean is not None or d_weight is not None:
        own_value = of_row(value, row, h, d, inside, H, D, WIDE)
    if KIND == "gatv2" or d_value is not None:
        acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    if KIND == "additive":
        grad = tl.zeros([BLOCK_H], tl.float32)
    else:
        grad = tl.zeros([BLOCK_H, BLOCK_L], tl.float32)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        v = tl.load(other + p, mask=live, other=0)
        e = v
        if NEEDS_EDGE:
            e = tl.load(edge + p, mask=live, other=0)
        x, inner, far = logits(
            right, own, a, on_edge, v, e, live, h, dl, on, inside_l, factor, KIND, H, DL, RIGHT_STRIDE, WIDE
        )  # fmt: skip
        if d_logits is None:
            x = kept(x, mask, e, live, h, on, MASK_HEADS, H, WIDE)
            alpha = tl.exp(x - scores(top, v, live, h, on, STRIDE, WIDE)) * scores(
                inverse, v, live, h, on, STRIDE, WIDE
            )
            far_out = rows(d_out, v, live, h, d, inside, H, D, WIDE)
            drop = tl.full([BLOCK_E, BLOCK_H], 1.0, tl.float32)
            if DROPS:
                drop = dropped(e, h, key, threshold, keep_scale)
            scale = drop
            if weight is not None:
                scale = scaled(weight, e, live, h, on, drop, WEIGHT_HEADS, H, WIDE)
            if KIND == "gatv2" or d_value is not None:
                acc += tl.sum((alpha * scale)[:, :, None] * far_out, 0)
            if mean is not None or d_weight is not None:
                t = tl.sum(own_value[None, :, :] * far_out, 2)
                at = wide(e, WIDE)[:, None] * H + h[None, :]
                if d_weight is not None:
                    tl.store(d_weight + at, alpha * drop * t, mask=live[:, None] & on[None, :])
            if mean is not None:
                g = alpha * (scale * t - scores(mean, v, live, h, on, STRIDE, WIDE))
        else:
            g = scores(d_logits, e, live, h, on, H, WIDE)
        if mean is not None or d_logits is not None:
            if KIND == "additive":
                g *= tl.where(inner > 0, 1.0, factor)
                grad += tl.sum(g, 0)
            else:
                f = far
                if KIND == "gatv2":
                    f = tl.where(inner > 0, 1.0, factor)
                grad += tl.sum(g[:, :, None] * f, 0)
            if d_edge is not None:
                if KIND == "gatv2":
                    at = wide(e, WIDE)[:, None, None] * (H * DL) + (h[:, None] * DL + dl[None, :])[None, :, :]
                    f = g[:, :, None] * f * a[None, :, :]
                    tl.store(
                        d_edge + at, f.to(d_edge.dtype.element_ty), mask=live[:, None, None] & inside_l[None, :, :]
                    )
                else:
                    at = wide(e, WIDE)[:, None] * H + h[None, :]
                    tl.store(d_edge + at, g, mask=live[:, None] & on[None, :])

    if KIND == "gatv2":
        grad = acc + tl.where(end > first, grad * a, 0.0)
    elif KIND == "dot":
        grad *= factor
    if part_value is not None or part_left is not None:
        if pid < num_tasks:
            if part_value is not None:
                store_row(part_value, pid, acc, h, d, inside, H, D, True)
            if part_left is not None:
                if KIND == "additive":
                    tl.store(part_left + pid.to(tl.int64) * H + h, grad, mask=on)
                else:
                    store_row(part_left, pid, grad, h, dl, inside_l, H, DL, True)
    if pid >= num_tasks:
        if d_value is not None:
            store_row(d_value, row, acc, h, d, inside, H, D, WIDE)
        if d_left is not None:
            if KIND == "additive":
                tl.store(d_left + wide(row, WIDE) * H + h, grad, mask=on)
            else:
                store_row(d_left, row, grad, h, dl, inside_l, H, DL, WIDE)
