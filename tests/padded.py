"""Sets of different sizes, one of them empty, as padded tensors, and the same with other padding or another order."""

import torch

__all__ = ["SIZES", "padded_sets", "repadded", "shuffled"]

SIZES = (5, 0, 7, 1)


def padded_sets(width, sizes=SIZES, seed=0, dtype=torch.float64):
    """(x [B, N, width] with zeros behind a set's items, mask [B, N])."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes).unsqueeze(1)
    x = torch.randn(len(sizes), max(sizes), width, generator=generator, dtype=dtype)
    return x.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def repadded(x, mask, more=3):
    """The same sets with `more` places behind, and what is no number in all the padding."""
    wide = x.new_full((len(x), x.shape[1] + more, x.shape[2]), float("nan"))
    wide[:, : x.shape[1]][mask] = x[mask]
    return wide, torch.cat([mask, mask.new_zeros(len(x), more)], 1)


def shuffled(x, mask, seed=1):
    """(x, mask) of the same sets with their items in another order, and the order [N] of all of them."""
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    return x[:, order], mask[:, order], order
