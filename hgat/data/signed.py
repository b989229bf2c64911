"""Signed edges in text files: Bitcoin-Alpha as SiGAT's authors split it, or any list of one's own.

Format: one edge a line, `source target sign`, separated by blanks or tabs, the sign 1 or -1; plain or gzipped. Lines
that are empty or begin with # are passed over. Names of nodes are whole numbers from 0 on, which are numbered anew in
their order.

Traps:
- Of the 4,838 test edges of Bitcoin-Alpha 3,135 have their reverse among the training edges, whose sign is the same for
  nearly all: a split of directed edges leaves it visible. The published split is kept.
- Calling every edge positive is right for 94 % of them; see macro-F1 and AUC, which such an answer does not gain.
"""

from pathlib import Path

import dgl
import numpy as np
import torch

from hgat.data import files
from hgat.data.card import Card
from hgat.data.sets import SignedData
from hgat.data.tables import integer, lines, refuse
from hgat.errors import DataError

__all__ = ["load"]


def load(card: Card, folder: Path, *, verify: bool = True, path: str | None = None) -> SignedData:
    """Load signed edges, with the test edges of the card's files; `path` reads one file of one's own, without a split.

    A line that says again what one before said is passed over; where a pair is there with both signs, both are edges.
    Raises DataError for a sign that is neither 1 nor -1, an edge that is in both files, and for files that are missing
    or damaged.
    """
    if path is None:
        found = files.find_all(card, folder, verify)
        parts, name, notes = [_read(found["train"]), _read(found["test"])], card.name, card.notes
        where = found["test"]
    else:
        where = Path(path).expanduser()
        if not where.is_file():
            raise DataError(f"data.path: expected a file of signed edges, got {where}, which is none")
        parts, name, notes = [_read(where)], f"signed edges of {where.name}", ()
    rows = np.array([row for part in parts for row in part], dtype=np.int64)
    ids, ends = np.unique(rows[:, :2], return_inverse=True)
    src, dst = torch.from_numpy(ends.reshape(-1, 2)).unbind(1)
    train = {row[:2] for row in parts[0]}
    both = [row for part in parts[1:] for row in part if row[:2] in train]
    if both:
        raise DataError(f"{where}: expected edges that are not for training, got {both[0][0]} {both[0][1]}")
    graph = dgl.graph((src, dst), num_nodes=len(ids))
    sign, test = torch.from_numpy(rows[:, 2].copy()), torch.arange(len(parts[0]), len(rows))
    return SignedData(name, graph, sign, test, tuple(ids.tolist()), notes)


def _read(path: Path) -> list[tuple[int, int, int]]:
    """(source, target, sign) of the lines, each once."""
    found: dict[tuple[int, int, int], None] = {}
    for number, text in lines(path):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        fields = text.split()
        if len(fields) != 3:
            refuse(path, number, "source, target and sign", repr(text))
        if fields[2] not in ("1", "+1", "-1"):
            refuse(path, number, "a sign, 1 or -1", repr(fields[2]))
        source, target = (integer(field, path, number) for field in fields[:2])
        found[source, target, int(fields[2])] = None
    if not found:
        raise DataError(f"{path}: expected at least one signed edge, got none")
    return list(found)
