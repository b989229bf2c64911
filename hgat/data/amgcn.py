"""AM-GCN's form: ACM and UAI2010, and any folder or zip of the same form, with 20, 40 and 60 labels a class.

Format: text files in one folder, or in a zip that may hold it: `X.feature`, a row of numbers for each node between
blanks; `X.label`, a class from 0 for each node, a line each; one `.edge` file with a pair of nodes a line, each link
once; and `trainL.txt` and `testL.txt` for some L, ids of nodes. What else lies there is not read, the authors' lists of
nearest neighbours, `knn/cK.txt`, neither: `hgat.graph.knn_graph` makes them from the features.

Traps:
- There is no validation part, and the authors' code keeps the best epoch of the test. Here `val` nodes are drawn from
  those outside train and test, and a note under every table says so.
- UAI2010's L labels a class are so many on average: class by class they are 3 to 171 for L = 60, and 1,140 in all.
- The test nodes are the same for every L.
- ACM is HAN's: its links are HAN's PAP, papers that share an author, without the diagonal, 13,128 pairs.
- The lists of neighbours hold only pairs whose first id is the lower, of lists that are not symmetric: see `knn_graph`.
"""

import re
import warnings
import zipfile
import zlib
from pathlib import Path

import dgl
import numpy as np
import torch

from hgat.data import labels, tables
from hgat.data.card import Card
from hgat.data.files import find
from hgat.data.sets import NodeData
from hgat.data.split import class_counts, shuffled
from hgat.errors import DataError

LARGEST = 1 << 30  # bytes of a file, and elements of the features; UAI2010 has 15 million


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    path: str | None = None,
    label_rate: int = 60,
    val: int = 500,
    val_seed: int = 0,
) -> NodeData:
    """Load a graph in AM-GCN's form: NodeData with features [N, F] as the file states them, links in both directions.

    path: another folder or zip of this form in the place of the card's, whose name the data then have. label_rate: L,
    the labels a class, of which there is a file. val: validation nodes, drawn by val_seed among those that are in
    neither file.
    Raises DataError for a split that is not there and for files that are missing, damaged or at odds.
    """
    where = find(card, card.file("archive"), folder, verify) if path is None else Path(path).expanduser()
    files = _Files(where)
    feat = _features(files, files.named(r".+\.feature", "feature"))
    nodes = len(feat)
    label = _whole(files, files.named(r".+\.label", "label"), 1, nodes)[:, 0]
    if len(label) != nodes:
        raise DataError(f"{where}: expected a label for each of the {nodes} rows of features, got {len(label)}")
    ends = _whole(files, files.named(r".+\.edge", "edge"), 2, nodes)
    ends = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
    rates = sorted(int(name[5:-4]) for name in files.names if re.fullmatch(r"train\d+\.txt", name))
    if label_rate not in rates:
        have = ", ".join(map(str, rates)) or "none"
        raise DataError(f"{card.name}.label_rate: expected one of those in {where}, {have}, got {label_rate}")
    train, test = (torch.from_numpy(_whole(files, f"{p}{label_rate}.txt", 1, nodes)[:, 0]) for p in ("train", "test"))
    left = torch.ones(nodes, dtype=torch.bool)
    left[train] = left[test] = False
    rest = left.nonzero().flatten()
    if not 1 <= val <= len(rest):
        raise DataError(f"{card.name}.val: expected 1 to {len(rest)} nodes outside train and test, got {val}")
    classes = int(label.max()) + 1
    split = {"train": train, "val": shuffled(rest, val_seed)[:val].sort().values, "test": test}
    return NodeData(
        name=card.name if path is None else where.resolve().stem,
        graph=dgl.graph((ends[:, 0].copy(), ends[:, 1].copy()), num_nodes=nodes),
        feat={"_N": torch.from_numpy(feat)},
        target="_N",
        label=torch.from_numpy(label),
        train=train,
        val=split["val"],
        test=test,
        num_classes=classes,
        class_names=labels.class_names(card, classes) if path is None else (),
        notes=(
            *(card.notes if path is None else ()),
            f"The files have no validation part: {val} of the {len(rest)} nodes outside train and test were drawn.",
            class_counts(torch.from_numpy(label), [split], classes),
        ),
    )


class _Files:
    """The files of a folder, or of a zip, by their names without folders: nothing is unpacked to the disk."""

    def __init__(self, where):
        self.where, self.archive, self.names = where, None, {}
        if where.is_dir():
            self.names = {file.name: file for file in sorted(where.iterdir()) if file.is_file()}
            return
        try:
            self.archive = zipfile.ZipFile(where)
        except FileNotFoundError:
            raise DataError(f"{where}: expected a folder or a zip of AM-GCN's form, got no such file") from None
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{where}: expected a folder or a zip of AM-GCN's form, got {error}") from None
        members = {member.filename: member for member in self.archive.infolist() if not member.is_dir()}
        # What lies in further folders, such as knn/, is none of the files.
        folder = next((name.rpartition("/")[0] for name in sorted(members) if name.endswith(".feature")), "")
        for name, member in members.items():
            parent, _, base = name.rpartition("/")
            if parent == folder:
                self.names[base] = member

    def named(self, pattern, what):
        """The name of the one file like this; DataError where there is none or more than one."""
        found = [name for name in self.names if re.fullmatch(pattern, name)]
        if len(found) != 1:
            got = ", ".join(sorted(found)) or "none"
            raise DataError(f"{self.where}: expected one file whose name ends in .{what}, got {got}")
        return found[0]

    def lines(self, name):
        """[(number, bytes)] of the lines of a file that are not empty, counted from 1."""
        place = self.names.get(name)
        if place is None:
            raise DataError(f"{self.where}: expected the file {name}, got none")
        size = place.stat().st_size if self.archive is None else place.file_size
        if size > LARGEST:
            raise DataError(f"{self.where}: {name}: expected at most {LARGEST:,} bytes, got {size:,}")
        try:
            # No more than the archive says of itself is ever unpacked.
            content = place.read_bytes() if self.archive is None else self.archive.open(place).read(size)
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise DataError(f"{self.where}: {name}: expected readable data, got {error}") from None
        return [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]

    def path(self, name):
        """What errors call a file."""
        return f"{self.where}: {name}"


def _features(files, name):
    """float32 [N, F] of rows of numbers."""
    lines, rows = files.lines(name), []
    for number, line in lines:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy stops at the first word that is no number, and warns of it
            try:
                row = np.fromstring(line, dtype=np.float32, sep=" ")
            except (DeprecationWarning, ValueError):
                tables.refuse(files.path(name), number, "numbers between blanks", repr(line[:60]))
        if rows and len(row) != len(rows[0]):
            tables.refuse(files.path(name), number, f"{len(rows[0])} numbers as in the first row", str(len(row)))
        if len(row) * len(lines) > LARGEST:
            tables.refuse(files.path(name), number, f"at most {LARGEST:,} of all nodes", f"{len(row)} * {len(lines)}")
        rows.append(row)
    if not rows:
        raise DataError(f"{files.path(name)}: expected a row for each node, got none")
    return np.stack(rows)


def _whole(files, name, columns, nodes):
    """int64 [rows, columns] of whole numbers from 0, each below the number of nodes."""
    path, found = files.path(name), []
    for number, line in files.lines(name):
        fields = line.decode("latin-1").split()
        if len(fields) != columns:
            tables.refuse(path, number, f"{columns} whole number{'s' * (columns > 1)}", repr(line[:60]))
        for field in fields:
            value = tables.integer(field, path, number)
            if value >= nodes:
                tables.refuse(path, number, f"numbers from 0 to {nodes - 1}, as there are nodes", field)
            found.append(value)
    if not found:
        raise DataError(f"{path}: expected at least one line, got none")
    return np.array(found, dtype=np.int64).reshape(-1, columns)
