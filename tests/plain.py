"""Attention in plain PyTorch, from edge lists: what the Triton kernels are held against, in float64."""

import torch

__all__ = ["attention", "drops", "graphs", "logits_of", "softmax", "weighted_sum"]


def drops(num_edges, num_heads, dropout, device="cpu"):
    """[E, H] 0 or the scale of what is kept, from (seed, threshold, scale), as the kernels' hash says."""
    seed, threshold, scale = dropout
    low = 0xFFFFFFFF

    def mix(x):
        x = x ^ (x >> 16)
        x = (x * 0x7FEB352D) & low
        x = x ^ (x >> 15)
        x = (x * 0x846CA68B) & low
        return x ^ (x >> 16)

    key = mix(mix(torch.tensor(seed & low, device=device)) ^ ((seed >> 32) & low))
    edge = torch.arange(num_edges, device=device)
    row = mix(mix((edge & low) ^ key) ^ (edge >> 32))
    head = (torch.arange(num_heads, device=device) * 0x9E3779B9) & low
    return (mix(row[:, None] ^ head) >= threshold).double() * scale


def softmax(dst, logits, num_dst):
    """(alpha, what was subtracted, sum of the exponentials); alpha is zero where every edge of a row is left out."""
    index = dst[:, None].expand_as(logits)
    highest = logits.detach().new_full((num_dst, logits.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
    shift = highest.masked_fill(highest == -torch.inf, 0.0)
    power = torch.exp(logits - shift[dst])
    total = torch.zeros_like(shift).index_add(0, dst, power)
    return power / total.masked_fill(highest == -torch.inf, 1.0)[dst], shift, total


def weighted_sum(src, dst, value, weight, num_dst):
    messages = value[src] * weight[:, :, None]
    return messages.new_zeros((num_dst, *messages.shape[1:])).index_add(0, dst, messages)


def logits_of(kind, src, dst, factor, left, right, on_edge, attn):
    """(logits, logits before the leaky ReLU of GAT)."""
    if kind == "dot":
        x = factor * (left[src] * right[dst]).sum(-1)
        x = x if on_edge is None else x + on_edge
        return x, x
    x = left[src] + right[dst]
    x = x if on_edge is None else x + on_edge
    y = torch.where((x > 0) | (x == -torch.inf), x, x * factor)
    return (y if kind == "additive" else (y * attn).sum(-1)), x


def attention(kind, src, dst, num_dst, factor, dropout, weight, mask, value, left, right, on_edge, attn=None):
    """(out, alpha, logits before the leaky ReLU, top, sum)."""
    x, before = logits_of(kind, src, dst, factor, left, right, on_edge, attn)
    if mask is not None:
        x = x.masked_fill(~mask, -torch.inf)
    alpha, top, total = softmax(dst, x, num_dst)
    used = alpha
    if dropout is not None:
        used = used * drops(*alpha.shape, dropout, alpha.device)
    if weight is not None:
        used = used * weight
    return weighted_sum(src, dst, value, used, num_dst), alpha, before, top, total


def graphs():
    """name -> (src, dst, num_src, num_dst): small ones, with empty rows, hubs of several chunks, and none at all."""
    draw = torch.Generator().manual_seed(5)

    def random(num_src, num_dst, count):
        return (
            torch.randint(0, num_src, (count,), generator=draw),
            torch.randint(0, num_dst, (count,), generator=draw),
            num_src,
            num_dst,
        )

    ring = torch.arange(7)
    nothing = torch.zeros(0, dtype=torch.int64)
    return {
        "random": random(6, 5, 17),
        "hubs": (
            torch.cat([ring, torch.full((11,), 3), random(7, 7, 13)[0]]),
            torch.cat([(ring + 1) % 7, ring.repeat(2)[:11], torch.zeros(13, dtype=torch.int64)]),
            7,
            7,
        ),
        "empty rows": (torch.tensor([2, 2, 5]), torch.tensor([4, 4, 0]), 7, 5),
        "no edges": (nothing, nothing, 3, 2),
        "no nodes": (nothing, nothing, 0, 0),
        "one node": (nothing.new_zeros(2), nothing.new_zeros(2), 1, 1),
    }
