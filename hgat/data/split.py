"""Seeded splits, the same for a seed on every machine and with every release."""

import numpy as np
import torch

from hgat.errors import DataError

__all__ = ["per_class", "shuffled"]


def shuffled(ids: torch.Tensor, seed: int) -> torch.Tensor:
    """A permutation of the int64 tensor `ids`, decided by `seed`."""
    if not 0 <= seed < 2**32:
        raise DataError(f"split_seed: expected a number from 0 to 2**32 - 1, got {seed}")
    # RandomState and not default_rng: NumPy promises that its stream never changes.
    order = np.random.RandomState(seed).permutation(len(ids))
    return ids[torch.from_numpy(order)]


def per_class(
    label: torch.Tensor, train: int, val: int, seed: int, what: str = "nodes"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of train, val and test, decided by `seed`: `train` and `val` of every class, the rest for test.

    label: [N], -1 for nodes in no part. Raises DataError where a class has no node left for test; `what` names them.
    """
    order = shuffled(torch.arange(len(label)), seed)
    parts: tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]] = [], [], []
    for number in label[label >= 0].unique():
        ids = order[label[order] == number]
        if len(ids) <= train + val:
            raise DataError(f"labels: expected more than {train + val} {what} of class {number}, got {len(ids)}")
        for part, found in zip(parts, ids.split([train, val, len(ids) - train - val]), strict=True):
            part.append(found)
    of_train, of_val, of_test = (torch.cat(part).sort().values for part in parts)
    return of_train, of_val, of_test
