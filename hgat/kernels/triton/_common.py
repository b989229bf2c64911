"""What the kernels share: tasks, loads of rows and of tiles [edges, heads, width], dropout, the leaky ReLU.

A task is a row of at most CHUNK edges, or one chunk of a longer row. Names: p positions among the rows' edges, e
numbers of edges in the graph, h heads, d columns; `inside` says which heads and columns of a tile exist.
"""

import triton
import triton.language as tl

__all__: list[str] = []  # kernels: what is launched, and by what, says _host


@triton.jit
def wide(x, WIDE: tl.constexpr):
    """x, as int64 if offsets may pass 2^31."""
    return x.to(tl.int64) if WIDE else x


@triton.jit
def task_of(pid, indptr, tasks, num_tasks):
    """(row, first position, end) of a task: the chunks of long rows come first, then every row."""
    heavy = pid < num_tasks
    row = tl.load(tasks + 3 * pid, mask=heavy, other=0)
    first = tl.load(tasks + 3 * pid + 1, mask=heavy, other=0)
    end = tl.load(tasks + 3 * pid + 2, mask=heavy, other=0)
    if not heavy:
        row = (pid - num_tasks).to(row.dtype)
        first = tl.load(indptr + row)
        end = tl.load(indptr + row + 1)
    return row, first, end


@triton.jit
def head_mask(h, H: tl.constexpr, BLOCK_H: tl.constexpr):
    """[BLOCK_H] true where the head exists."""
    if H % BLOCK_H == 0:
        return tl.full([BLOCK_H], True, tl.int1)
    else:
        return h < H


@triton.jit
def lanes(h, d, H: tl.constexpr, D: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr):
    """[BLOCK_H, BLOCK_D] true where head and column exist."""
    if D == BLOCK_D:
        return tl.broadcast_to(head_mask(h, H, BLOCK_H)[:, None], [BLOCK_H, BLOCK_D])
    else:
        return head_mask(h, H, BLOCK_H)[:, None] & (d < D)[None, :]


@triton.jit
def of_row(base, row, h, d, inside, H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    """Row `row` of base [rows, H, D], as float32 [BLOCK_H, BLOCK_D]."""
    at = wide(row, WIDE) * (H * D) + h[:, None] * D + d[None, :]
    return tl.load(base + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_row(base, row, x, h, d, inside, H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    at = wide(row, WIDE) * (H * D) + h[:, None] * D + d[None, :]
    tl.store(base + at, x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def rows(base, index, live, h, d, inside, H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    """Rows `index` [E] of base [rows, H, D], as float32 [E, BLOCK_H, BLOCK_D]; zeros where not live.

    Loaded as [E, BLOCK_H * BLOCK_D], so that neighbouring threads take neighbouring columns, of the next head, too.
    """
    BLOCK_H: tl.constexpr = h.shape[0]
    BLOCK_D: tl.constexpr = d.shape[0]
    lane = tl.arange(0, BLOCK_H * BLOCK_D)
    begin = tl.program_id(1) * BLOCK_H
    if D == BLOCK_D:
        at = begin * D + lane
    else:
        at = (begin + lane // BLOCK_D) * D + lane % BLOCK_D
    mask = live[:, None]
    if BLOCK_D != D or ((BLOCK_H - 1) & H) != 0:
        mask = mask & ((begin + lane // BLOCK_D < H) & (lane % BLOCK_D < D))[None, :]
    x = tl.load(base + (wide(index, WIDE)[:, None] * (H * D) + at[None, :]), mask=mask, other=0.0)
    return tl.reshape(x, [index.shape[0], BLOCK_H, BLOCK_D]).to(tl.float32)


@triton.jit
def scores(base, index, live, h, on, STRIDE: tl.constexpr, WIDE: tl.constexpr):
    """Numbers [E, BLOCK_H] of base, whose rows lie STRIDE apart; zeros where not live."""
    at = wide(index, WIDE)[:, None] * STRIDE + h[None, :]
    return tl.load(base + at, mask=live[:, None] & on[None, :], other=0.0)


@triton.jit
def leaky(x, slope):
    """Leaky ReLU of sums of scores; minus infinity leaves an edge out, whatever the slope."""
    return tl.where((x > 0) | (x == float("-inf")), x, x * slope)


@triton.jit
def mix(x):
    """The 32-bit finaliser of hgat.ops.dropout."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def dropped(e, h, key, threshold, keep_scale):
    """[E, BLOCK_H] 0 where (seed, edge, head) is dropped, keep_scale elsewhere; key is the seed's."""
    row = mix(e.to(tl.uint32) ^ key.to(tl.uint32))
    if e.dtype == tl.int64:
        row = mix(row ^ (e >> 32).to(tl.uint32))
    else:
        row = mix(row)
    bits = mix(row[:, None] ^ (h.to(tl.uint32) * 0x9E3779B9)[None, :])
    return tl.where(bits >= threshold.to(tl.uint32), keep_scale, 0.0)


@triton.jit
def scaled(weight, e, live, h, on, drop, WEIGHT_HEADS: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr):
    """drop times the weight of the edge; weight [E, 1] or [E, H]."""
    if WEIGHT_HEADS == 1:
        return drop * tl.load(weight + e, mask=live, other=0.0)[:, None]
    else:
        return drop * scores(weight, e, live, h, on, H, WIDE)


@triton.jit
def kept(x, mask, e, live, h, on, MASK_HEADS: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr):
    """x, minus infinity where an edge is left out by mask [E, 1] or [E, H], or is not live; mask may be None."""
    keep = live[:, None]
    if mask is not None:
        if MASK_HEADS == 1:
            keep = keep & (tl.load(mask + e, mask=live, other=0) != 0)[:, None]
        else:
            at = wide(e, WIDE)[:, None] * H + h[None, :]
            keep = keep & (tl.load(mask + at, mask=live[:, None] & on[None, :], other=0) != 0)
    return tl.where(keep, x, float("-inf"))


@triton.jit
def own_side(
    base, row, h, d, on, inside,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """What the row's own node brings to the logits: numbers [BLOCK_H], zeros without any, or [BLOCK_H, BLOCK_D]."""
    if KIND != "additive":
        return of_row(base, row, h, d, inside, H, D, WIDE)
    elif base is not None:
        return tl.load(base + wide(row, WIDE) * H + h, mask=on, other=0.0)
    else:
        return tl.zeros([BLOCK_H], tl.float32)


@triton.jit
def logits(
    base, own, attn, on_edge, u, e, live, h, d, on, inside, factor,
    KIND: tl.constexpr, H: tl.constexpr, D: tl.constexpr, STRIDE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """(logits, inner, far) of a block of edges. base: what the far ends u bring, its rows of numbers STRIDE apart.

    inner: the sum of the scores before the leaky ReLU [E, BLOCK_H], GATv2's z [E, BLOCK_H, BLOCK_D]. far: rows of base.
    """
    if KIND == "additive":
        x = tl.broadcast_to(own[None, :], [live.shape[0], own.shape[0]])
        if base is not None:
            x += scores(base, u, live, h, on, STRIDE, WIDE)
        if on_edge is not None:
            x += scores(on_edge, e, live, h, on, H, WIDE)
        return leaky(x, factor), x, x
    elif KIND == "gatv2":
        far = rows(base, u, live, h, d, inside, H, D, WIDE)
        z = far + own[None, :, :]
        if on_edge is not None:
            z += rows(on_edge, e, live, h, d, inside, H, D, WIDE)
        return tl.sum(attn[None, :, :] * tl.where(z > 0, z, z * factor), 2), z, far
    else:
        far = rows(base, u, live, h, d, inside, H, D, WIDE)
        x = factor * tl.sum(own[None, :, :] * far, 2)
        if on_edge is not None:
            x += scores(on_edge, e, live, h, on, H, WIDE)
        return x, far, far
