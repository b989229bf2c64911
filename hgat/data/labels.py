"""Class labels from one-hot rows, and the names of the classes."""

import os

import numpy as np
import torch

from hgat.data.card import Card
from hgat.errors import DataError

__all__ = ["class_names", "from_one_hot"]


def from_one_hot(rows: np.ndarray, path: str | os.PathLike[str]) -> torch.Tensor:
    """[N] int64 labels of an [N, C] array of zeros and ones; a row of zeros is -1, unlabelled."""
    if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "biuf" or not np.isin(rows, (0, 1)).all():
        raise DataError(f"{path}: expected one-hot labels [N, C], got {rows.dtype} {list(rows.shape)} of other values")
    ones = rows.sum(axis=1)
    if (ones > 1).any():
        raise DataError(f"{path}: expected one class a row, got {int(ones.max())} in row {int(ones.argmax())}")
    return torch.from_numpy(np.where(ones == 1, rows.argmax(axis=1), -1).astype(np.int64))


def class_names(card: Card, count: int) -> tuple[str, ...]:
    """The card's names of the classes, or `class 0`, `class 1`, ... where their order is not documented."""
    return tuple(card.layout.get("classes", (f"class {number}" for number in range(count))))
