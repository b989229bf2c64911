"""Sums over the edges of a row, what turns the gradient of a softmax into one of its logits, and GAT's scores."""

import triton
import triton.language as tl

from hgat.kernels.triton._common import (
    head_mask,
    lanes,
    of_row,
    rows,
    scores,
    store_row,
    task_of,
    wide,
)

__all__: list[str] = []  # kernels: what is launched, and by what, says _host


@triton.jit
def merge(
    heavy, part, out, H: tl.constexpr, D: tl.constexpr, ONE: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out of a long row = the sum of its parts [H, D], or, if ONE, also over the heads: out [rows, 1, D]."""
    pid = tl.program_id(0)
    row = tl.load(heavy + 3 * pid)
    begin = tl.load(heavy + 3 * pid + 1)
    end = tl.load(heavy + 3 * pid + 2)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for start in range(begin, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        acc += tl.sum(rows(part, p, p < end, h, d, inside, H, D, True), 0)
    store_rows(out, row, acc, h, d, inside, H, D, ONE, WIDE)


@triton.jit
def store_rows(out, row, acc, h, d, inside, H: tl.constexpr, D: tl.constexpr, ONE: tl.constexpr, WIDE: tl.constexpr):
    if ONE:
        tl.store(out + wide(row, WIDE) * D + d, tl.sum(acc, 0).to(out.dtype.element_ty), mask=d < D)
    else:
        store_row(out, row, acc, h, d, inside, H, D, WIDE)


@triton.jit
def value_rows(
    value, index, live, h, d, inside, H: tl.constexpr, D: tl.constexpr, ONE: tl.constexpr, WIDE: tl.constexpr
):
    """Rows [E, BLOCK_H, BLOCK_D] of value [N, H, D], or, if ONE, [E, 1, BLOCK_D] of value [N, 1, D]."""
    if ONE:
        at = wide(index, WIDE)[:, None] * D + d[None, :]
        return tl.load(value + at, mask=live[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)[:, None, :]
    else:
        return rows(value, index, live, h, d, inside, H, D, WIDE)


@triton.jit(do_not_specialize=["num_tasks"])
def sum_rows(
    indptr, other, edge, tasks, num_tasks, value, weight, out, part, factor,
    H: tl.constexpr, D: tl.constexpr, ONE: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out_row = factor * sum of weight * value; of a chunk its part."""
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        u = tl.load(other + p, mask=live, other=0)
        e = tl.load(edge + p, mask=live, other=0)
        w = scores(weight, e, live, h, on, H, WIDE)
        acc += tl.sum(w[:, :, None] * value_rows(value, u, live, h, d, inside, H, D, ONE, WIDE), 0)
    acc *= factor
    if part is not None:
        if pid < num_tasks:
            store_row(part, pid, acc, h, d, inside, H, D, True)
    if pid >= num_tasks:
        store_row(out, row, acc, h, d, inside, H, D, WIDE)


@triton.jit(do_not_specialize=["num_tasks"])
def sum_rows_back(
    indptr, other, edge, tasks, num_tasks, value, weight, d_out, d_value, d_weight, part,
    H: tl.constexpr, D: tl.constexpr, ONE: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """By source: d_value = sum of weight * d_out, of a chunk its part, and d_weight = value . d_out."""
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    if d_weight is not None:
        if ONE:
            own = tl.load(value + wide(row, WIDE) * D + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        else:
            own = of_row(value, row, h, d, inside, H, D, WIDE)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        v = tl.load(other + p, mask=live, other=0)
        e = tl.load(edge + p, mask=live, other=0)
        far = rows(d_out, v, live, h, d, inside, H, D, WIDE)
        if d_value is not None:
            acc += tl.sum(scores(weight, e, live, h, on, H, WIDE)[:, :, None] * far, 0)
        if d_weight is not None:
            at = wide(e, WIDE)[:, None] * H + h[None, :]
            tl.store(d_weight + at, tl.sum(own[None, :, :] * far, 2), mask=live[:, None] & on[None, :])
    if d_value is not None:
        if part is not None:
            if pid < num_tasks:
                store_row(part, pid, acc, h, d, inside, H, D, True)
        if pid >= num_tasks:
            store_rows(d_value, row, acc, h, d, inside, H, D, ONE, WIDE)


@triton.jit(do_not_specialize=["num_tasks"])
def sum_numbers(
    indptr, edge, tasks, num_tasks, numbers, out, part,
    H: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """out_row = the sum of numbers [E, H] over the row's edges; of a chunk its part."""
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    on = head_mask(h, H, BLOCK_H)
    total = tl.zeros([BLOCK_H], tl.float32)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        e = tl.load(edge + p, mask=live, other=0)
        total += tl.sum(scores(numbers, e, live, h, on, H, WIDE), 0)
    if part is not None:
        if pid < num_tasks:
            tl.store(part + pid.to(tl.int64) * H + h, total, mask=on)
    if pid >= num_tasks:
        tl.store(out + wide(row, WIDE) * H + h, total, mask=on)


@triton.jit(do_not_specialize=["num_tasks"])
def softmax_rows(
    indptr, edge, tasks, num_tasks, alpha, d_alpha, d_logits, part,
    H: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """d_logits of short rows; of a chunk the sum of alpha d_alpha in part."""
    pid = tl.program_id(0)
    row, first, end = task_of(pid, indptr, tasks, num_tasks)
    if (end - first > CHUNK) & (pid >= num_tasks):
        return
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    on = head_mask(h, H, BLOCK_H)
    total = tl.zeros([BLOCK_H], tl.float32)
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        e = tl.load(edge + p, mask=live, other=0)
        total += tl.sum(scores(alpha, e, live, h, on, H, WIDE) * scores(d_alpha, e, live, h, on, H, WIDE), 0)
    if part is not None:
        if pid < num_tasks:
            tl.store(part + pid.to(tl.int64) * H + h, total, mask=on)
    if pid >= num_tasks:
        write_gradients(edge, first, end, alpha, d_alpha, d_logits, total, h, on, H, WIDE, BLOCK_E)


@triton.jit
def softmax_rest(
    edge, tasks, alpha, d_alpha, d_logits, total,
    H: tl.constexpr, WIDE: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """d_logits of a chunk, given total [rows, H]."""
    pid = tl.program_id(0)
    row = tl.load(tasks + 3 * pid)
    first = tl.load(tasks + 3 * pid + 1)
    end = tl.load(tasks + 3 * pid + 2)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    on = head_mask(h, H, BLOCK_H)
    of = tl.load(total + wide(row, WIDE) * H + h, mask=on, other=0.0)
    write_gradients(edge, first, end, alpha, d_alpha, d_logits, of, h, on, H, WIDE, BLOCK_E)


@triton.jit
def write_gradients(
    edge, first, end, alpha, d_alpha, d_logits, total, h, on, H: tl.constexpr, WIDE: tl.constexpr, BLOCK_E: tl.constexpr
):
    for start in range(first, end, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        live = p < end
        e = tl.load(edge + p, mask=live, other=0)
        g = scores(alpha, e, live, h, on, H, WIDE) * (scores(d_alpha, e, live, h, on, H, WIDE) - total[None, :])
        tl.store(d_logits + wide(e, WIDE)[:, None] * H + h[None, :], g, mask=live[:, None] & on[None, :])


@triton.jit
def vector(attn, h, d, inside, D: tl.constexpr):
    """attn [H, D] as [1, BLOCK_H, BLOCK_D]."""
    return tl.load(attn + h[:, None] * D + d[None, :], mask=inside, other=0.0)[None, :, :]


@triton.jit
def store_scores(out, n, x, mask, h, on, H: tl.constexpr, WIDE: tl.constexpr):
    tl.store(out + wide(n, WIDE)[:, None] * H + h[None, :], x, mask=mask[:, None] & on[None, :])


@triton.jit(do_not_specialize=["sources", "targets"])
def end_scores(
    value, attn_src, attn_dst, score_src, score_dst, sources, targets,
    H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """score_src = attn_src . value of every source, score_dst = attn_dst . value of the first, the targets."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    x = rows(value, n, n < sources, h, d, inside, H, D, WIDE)
    store_scores(score_src, n, tl.sum(x * vector(attn_src, h, d, inside, D), 2), n < sources, h, on, H, WIDE)
    store_scores(score_dst, n, tl.sum(x * vector(attn_dst, h, d, inside, D), 2), n < targets, h, on, H, WIDE)


@triton.jit(do_not_specialize=["sources", "targets", "steps"])
def end_scores_back(
    value, attn_src, attn_dst, d_src, d_dst, d_value, part, sources, targets, steps,
    H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """d_value += d_src attn_src + d_dst attn_dst, and of `steps` blocks of nodes the parts [2, H, D] of both d_attn."""
    pid = tl.program_id(0)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    on = head_mask(h, H, BLOCK_H)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    left, right = vector(attn_src, h, d, inside, D), vector(attn_dst, h, d, inside, D)
    acc_left = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    acc_right = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for step in range(steps):
        n = (pid * steps + step) * BLOCK_N + tl.arange(0, BLOCK_N)
        live = n < sources
        g_left = scores(d_src, n, live, h, on, H, WIDE)[:, :, None]
        g_right = scores(d_dst, n, n < targets, h, on, H, WIDE)[:, :, None]
        if part is not None:
            x = rows(value, n, live, h, d, inside, H, D, WIDE)
            acc_left += tl.sum(g_left * x, 0)
            acc_right += tl.sum(g_right * x, 0)
        if d_value is not None:
            at = wide(n, WIDE)[:, None, None] * (H * D) + h[None, :, None] * D + d[None, None, :]
            mask = live[:, None, None] & inside[None, :, :]
            before = tl.load(d_value + at, mask=mask, other=0.0).to(tl.float32)
            total = before + g_left * left + g_right * right
            tl.store(d_value + at, total.to(d_value.dtype.element_ty), mask=mask)
    if part is not None:
        store_row(part, 2 * pid, acc_left, h, d, inside, H, D, True)
        store_row(part, 2 * pid + 1, acc_right, h, d, inside, H, D, True)


@triton.jit(do_not_specialize=["count"])
def end_scores_merge(
    part, d_left, d_right, count,
    H: tl.constexpr, D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Both d_attn [H, D] from their `count` parts."""
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    inside = lanes(h, d, H, D, BLOCK_H, BLOCK_D)
    acc_left = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    acc_right = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for start in range(0, count, BLOCK_E):
        p = start + tl.arange(0, BLOCK_E)
        acc_left += tl.sum(rows(part, 2 * p, p < count, h, d, inside, H, D, True), 0)
        acc_right += tl.sum(rows(part, 2 * p + 1, p < count, h, d, inside, H, D, True), 0)
    if d_left is not None:
        store_row(d_left, 0, acc_left, h, d, inside, H, D, False)
    if d_right is not None:
        store_row(d_right, 0, acc_right, h, d, inside, H, D, False)
