"""Seeded splits, the same for a seed on every machine and with every release."""

import numpy as np
import torch

from hgat.errors import DataError

__all__ = ["shuffled"]


def shuffled(ids, seed):
    """A permutation of the int64 tensor `ids`, decided by `seed`."""
    if not 0 <= seed < 2**32:
        raise DataError(f"split_seed: expected a number from 0 to 2**32 - 1, got {seed}")
    # RandomState and not default_rng: NumPy promises that its stream never changes.
    order = np.random.RandomState(seed).permutation(len(ids))
    return ids[torch.from_numpy(order)]
