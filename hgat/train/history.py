"""history.csv of a run: a line for every epoch, written as it ends."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hgat.errors import OutputError
from hgat.files import reason

__all__ = ["COLUMNS", "History"]

COLUMNS = ("variant", "seed", "stage", "epoch", "loss", "val", "val_loss")


class History:
    """The file `path` with a line for every epoch of every fit: its numbers, in full precision.

    variant: "ours" or a control. stage: "select" or "refit". epoch: counted from 1 through all rounds and stages of the
    fit; 0 of a control without anything to learn. loss: the mean of the epoch's steps. val: the metric on validation,
    in percent. resume: keep what is there, of which `begin` drops what will be trained again.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path, self._rows = path, _read(path) if resume else []

    def begin(self, key: Mapping[str, Any], upto: int) -> None:
        """A fit goes on behind epoch `upto`: what a killed run wrote of later epochs is dropped. key: variant, seed and
        stage. Raises OutputError where the file cannot be written."""
        mine = [str(key[name]) for name in COLUMNS[:3]]
        kept = [row for row in self._rows if row[:3] != mine or int(row[3]) <= upto]
        if kept != self._rows or not self.path.exists():
            self._write("w", [list(COLUMNS), *kept])
        self._rows = kept

    def add(self, row: Mapping[str, Any]) -> None:
        """Append the numbers of an epoch. Raises OutputError where the file cannot be written."""
        self._rows.append([str(row[name]) for name in COLUMNS])
        self._write("a", self._rows[-1:])

    def _write(self, mode, rows):
        try:
            with open(self.path, mode, encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise OutputError(
                f"{self.path.name}: expected to write to {self.path.parent}, got: {reason(error)}"
            ) from None


def _read(path):
    """The lines of an earlier run that are whole; the last one may have been torn."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [row for row in csv.reader(whole) if len(row) == len(COLUMNS) and _fits(row)]


def _fits(row):
    try:
        return int(row[3]) >= 0 and not any(math.isinf(float(value)) for value in row[4:])
    except ValueError:
        return False
