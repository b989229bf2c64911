"""Events in a CSV file: one line an event, with columns for its two ends and its time.

Format: a header line with the names of the columns, then one event a line; plain or gzipped, fields without line ends.
Names of nodes are whole numbers or any other text (numbers with leading zeros are text); they are sorted (numbers by
value) and numbered from 0. Times are whole numbers or decimals in any unit. Columns that are not named are not read,
empty lines are passed over.

Traps:
- Enron's self-mails (1,584 of 22,784 events) are kept in the graph; whether they count as links is the task's to
  say.
- Enron's steps are given in a column: two months each, the first and the last wider, as the authors cut them.
"""

import csv
import math
from pathlib import Path

import numpy as np
import torch

from hgat.data import files
from hgat.data.card import Card
from hgat.data.sets import EventData
from hgat.data.tables import lines, refuse
from hgat.errors import DataError, GraphError
from hgat.graph.events import from_frame

STEP = "step"
SNAPSHOT = "snapshot"  # the column of steps in Enron's file


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    path: str | None = None,
    src: str = "u",
    dst: str = "v",
    time: str = "unix_time",
    step: str | None = SNAPSHOT,
    delimiter: str = ",",
) -> EventData:
    """Load events of one node type; `path` reads another file than the card's, of the same form, unchecked.

    src, dst, time: the columns of an event's ends and time. step: the column of its snapshot, whole numbers from 0,
    which becomes edata["step"]; where it is not given, the column "snapshot" of a file that has one; None, or "" in a
    recipe, for no such column.
    """
    if path is None:
        file, name, notes = files.find_all(card, folder, verify)["events"], card.name, card.notes
    else:
        file = Path(path).expanduser()
        name, notes = f"events of {file.name}", ()  # no card's name, whose counts are not this file's
        if not file.is_file():
            raise DataError(f"data.path: expected a CSV file, got {file}, which is none")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f"data.delimiter: expected one character, got {delimiter!r}")
    own = name != card.name
    columns = _read(file, {"src": src, "dst": dst, "time": time, "step": step or None}, delimiter, own)
    try:
        graph, ids = from_frame(columns, "src", "dst", "time")
    except GraphError as error:
        raise DataError(f"{file}: {error}") from None
    if "step" in columns:
        # from_frame has sorted the events by time, and kept the order of those at one time.
        order = np.argsort(columns["time"], kind="stable")
        graph.edata[STEP] = torch.from_numpy(columns["step"][order])
    return EventData(name=name, graph=graph, feat={"_N": None}, ids={"_N": tuple(ids.tolist())}, notes=notes)


def _read(path, names, delimiter, own):
    """{role: array of one column}, every field checked; a file of one's own may lack the column of steps."""
    rows = _rows(path, delimiter)
    try:
        header = [field.strip() for field in next(rows)[1]]
    except StopIteration:
        raise DataError(f"{path}: expected a line with the names of the columns, got an empty file") from None
    place = {}
    for role, name in names.items():
        if name is None or (own and (role, name) == ("step", SNAPSHOT) and name not in header):
            continue
        if header.count(name) != 1:
            raise DataError(f"{path}: expected one column {name!r} (data.{role}), got the columns {', '.join(header)}")
        place[role] = header.index(name)
    found = {role: [] for role in place}
    for number, row in rows:
        if len(row) != len(header):
            refuse(path, number, f"{len(header)} fields", f"{len(row)} in {delimiter.join(row)!r}")
        for role, column in place.items():
            found[role].append(_field(role, row[column].strip(), names[role], path, number))
    if not found["time"]:
        raise DataError(f"{path}: expected at least one event, got none")
    ends = found["src"] + found["dst"]
    # As numbers 7 and 007 would be one name.
    if all(_is_whole(end) and (end == "0" or not end.startswith("0")) for end in ends):
        found["src"], found["dst"] = (np.array([int(end) for end in found[role]]) for role in ("src", "dst"))
    whole = all(isinstance(moment, int) for moment in found["time"])
    found["time"] = np.array(found["time"], dtype=np.int64 if whole else np.float64)
    return {role: np.asarray(values) for role, values in found.items()}


def _rows(path, delimiter):
    """Yield (line number, fields) of every line that is not empty, each read alone: no quote swallows the rest."""
    for number, text in lines(path):
        try:
            # A byte order mark, which spreadsheets write, is no part of a name.
            fields = next(csv.reader([text.removeprefix("\ufeff")], delimiter=delimiter, strict=True))
        except csv.Error as error:
            refuse(path, number, "fields without line ends or unclosed quotes", str(error))
        if fields:
            yield number, fields


def _is_whole(text):
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**63


def _field(role, text, name, path, number):
    """A node's name as it stands; a time as int or float; a step as int."""
    if role in ("src", "dst"):
        return text if text else refuse(path, number, f"a name in the column {name!r}", "an empty field")
    whole = text.removeprefix("-") if role == "time" else text
    if _is_whole(whole):
        return int(text)
    if role == "step":
        refuse(path, number, f"a whole number from 0 in the column {name!r}", repr(text))
    try:
        moment = float(text)
    except ValueError:
        moment = math.nan
    return moment if math.isfinite(moment) else refuse(path, number, f"a time in the column {name!r}", repr(text))
