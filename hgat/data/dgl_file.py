"""The files of `dgl.save_graphs`, walked through before DGL reads them.

Format, version 2, little endian: a head of 4,096 bytes (magic number, version, kind, number of graphs), the position of
the first graph, labels, graphs, and at the end the positions of all graphs as text and the length of that text. A graph
is its types as a small graph, a sparse matrix for each relation, nodes of each type, columns of nodes and of edges, and
the names of the types. An array says its type, its shape and its bytes.

Traps:
- DGL reads a file that lacks its last bytes without an error: what is missing is empty text and arrays of chance.
- DGL takes sizes and ids as they stand: one that is too large ends the process, or reads beyond an array.
"""

import math
import mmap
import os
import struct

import numpy as np

from hgat.errors import DataError
from hgat.files import reason

__all__ = ["check_graphs"]

_FILE, _ARRAY = 0xDD2E4FF046B4A13F, 0xDD5E40F096B4A13F
_TYPED, _PLAIN, _UNIT = 0xDD589FBE35224ABF, 0xDD3C5FFE20046ABF, 0xDD2E60F0F6B4A127
_CSR, _COO = 0xDD6CD31205DFF127, 0xDD61FFD305DFF127
_HEAD = 4096
_COO_BIT, _CSR_BIT, _CSC_BIT, _AS_BITS = 1, 2, 4, 1 << 32
_OLD_FORMATS = {1: _COO_BIT, 2: _CSR_BIT, 3: _CSC_BIT}

_U64, _TWO = struct.Struct("<Q"), struct.Struct("<QQ")
_ARRAY_HEAD = struct.Struct("<QQiiiBBH")  # magic, reserved, device, its number, dimensions, code, bits, lanes
_IDS = {(0, 32): np.dtype("<i4"), (0, 64): np.dtype("<i8")}


class _Damaged(Exception):
    """One clause that says what was found."""


def check_graphs(path: str | os.PathLike[str]) -> None:
    """Raise DataError unless the file is whole: from its first byte to its last, with ids that its graphs have."""
    got = _damage(path)
    if got is not None:
        raise DataError(f"{path}: expected a whole file of DGL's graphs, got {got}")


def _damage(path):
    """What is wrong with the file, or None. The error itself would keep the file open, with all that looks into it."""
    try:
        with open(path, "rb") as file:
            _Walk(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).file()
    except _Damaged as error:
        return str(error)
    except OSError as error:
        return f"none that can be read: {reason(error)}"
    except ValueError:  # mmap of an empty file
        return "an empty one"
    return None


class _Walk:
    """A place in the file, and what may stand there."""

    def __init__(self, content):
        self.content, self.place = memoryview(content), 0
        self.end = len(self.content)
        self.known = {}

    def skip(self, size):
        if size > self.end - self.place:
            raise _Damaged(f"one that ends {size - (self.end - self.place):,} bytes too early")
        self.place += size

    def take(self, form):
        place = self.place
        self.skip(form.size)
        return form.unpack_from(self.content, place)

    def number(self):
        return self.take(_U64)[0]

    def count(self, least):
        """How many parts follow, of `least` bytes or more each."""
        found = self.number()
        if found * least > self.end - self.place:
            raise _Damaged(f"one that ends before {found:,} parts of it")
        return found

    def magic(self, expected):
        if self.number() != expected:
            raise _Damaged(f"other bytes than DGL's at {self.place - 8:,}")

    def text(self):
        size = self.number()
        place = self.place
        self.skip(size)
        return bytes(self.content[place : place + min(size, 1 << 16)])

    # ---- the parts ----

    def file(self):
        magic, version = self.take(_TWO)
        kind, graphs = self.take(_TWO)
        if magic != _FILE:
            raise _Damaged("one of another program")
        if version != 2 or kind != 2:
            raise _Damaged(f"one of DGL's version {version} and kind {kind}")
        size = self.end
        if size < _HEAD + 24 or graphs > size // 8:
            raise _Damaged(f"one of {size:,} bytes for {graphs:,} graphs")
        # From its end: the positions of the graphs.
        tail = 8 + 8 * graphs
        self.place = size - 16 - tail
        if self.place < _HEAD or self.number() != tail or self.number() != graphs:
            raise _Damaged("one without its last bytes")
        starts = np.frombuffer(self.content, "<u8", graphs, self.place)
        if _U64.unpack_from(self.content, size - 8)[0] != tail:
            raise _Damaged("one without its last bytes")
        self.end = size - 16 - tail
        self.place = _HEAD
        first = self.number()
        self.columns()
        if self.place != first:
            raise _Damaged("labels of another size than its head says")
        for start in starts.tolist():
            if self.place != start:
                raise _Damaged("a graph of another size than its end says")
            self.graph()
        if self.place != self.end:
            raise _Damaged(f"{self.end - self.place:,} bytes between its last graph and its end")

    def array(self):
        """(place, number of elements, dimensions, code, bits) of an array, behind which the walk goes on."""
        magic, _, device, _, dims, code, bits, lanes = self.take(_ARRAY_HEAD)
        if magic != _ARRAY:
            raise _Damaged(f"other bytes than an array's at {self.place - _ARRAY_HEAD.size:,}")
        if device != 1 or not 0 <= dims <= 64 or code > 6 or bits not in (1, 8, 16, 32, 64, 128) or lanes != 1:
            raise _Damaged(f"an array of a type that DGL does not write at {self.place - _ARRAY_HEAD.size:,}")
        place = self.place
        self.skip(8 * dims + 8)
        *shape, size = struct.unpack_from(f"<{dims + 1}q", self.content, place)
        count = math.prod(shape)
        if min(shape, default=0) < 0 or size != count * ((bits + 7) // 8):
            raise _Damaged(f"an array of {size:,} bytes for the shape {shape}")
        place = self.place
        self.skip(size)
        return place, count, dims, code, bits

    def ids(self, upper):
        """An array of whole numbers from 0 to `upper` - 1, or of any where `upper` is None."""
        place, count, dims, code, bits = self.array()
        if dims != 1 or (code, bits) not in _IDS:
            raise _Damaged(f"an array of ids that is none at {place:,}")
        found = np.frombuffer(self.content, _IDS[code, bits], count, place)
        if upper is not None and count and not 0 <= found.min() <= found.max() < upper:
            raise _Damaged(f"ids from {found.min()} to {found.max()} where {upper:,} are known")
        return found

    def columns(self):
        for _ in range(self.count(8 + _ARRAY_HEAD.size)):
            self.text()
            self.array()

    def matrix(self, magic):
        """(rows, columns, [pairs]) of a CSR or COO matrix; the pairs as two arrays for a small one."""
        self.magic(magic)
        columns, rows = self.take(_TWO)
        if max(columns, rows) > 1 << 62:
            raise _Damaged(f"a matrix of {rows:,} rows and {columns:,} columns")
        if magic == _CSR:
            pointers = self.ids(None)
            if len(pointers) != rows + 1 or pointers[0] != 0 or (pointers[1:] < pointers[:-1]).any():
                raise _Damaged(f"pointers of a matrix of {rows:,} rows that do not rise")
            second = self.ids(columns)
            if pointers[-1] != len(second):
                raise _Damaged(f"pointers to {pointers[-1]:,} of {len(second):,} entries")
            first = pointers
        else:
            first, second = self.ids(rows), self.ids(columns)
            if len(first) != len(second):
                raise _Damaged(f"{len(first):,} sources for {len(second):,} destinations")
        order = self.ids(len(second))
        if len(order) not in (0, len(second)):
            raise _Damaged(f"{len(order):,} edge ids for {len(second):,} edges")
        self.skip(1 if magic == _CSR else 2)  # whether it is sorted
        return rows, columns, first, second, order

    def types(self):
        """How many types of nodes a small graph has, and [(source, destination)] of its relations, by their number."""
        # Many graphs have the same types, in the same bytes.
        for known, found in self.known.items():
            if self.content[self.place : self.place + len(known)] == known:
                self.place += len(known)
                return found
        start = self.place
        self.magic(_PLAIN)
        rows, columns, pointers, ends, order = self.matrix(_CSR)
        if rows != columns or len(order) != len(ends) or len(np.unique(order)) != len(ends):
            raise _Damaged("types and relations that do not fit")
        begins = np.repeat(np.arange(rows), np.diff(pointers))
        place = np.argsort(order)
        found = rows, list(zip(begins[place].tolist(), ends[place].tolist(), strict=True))
        if len(self.known) < 4:
            self.known[bytes(self.content[start : self.place])] = found
        return found

    def graph(self):
        self.magic(_TYPED)
        ntypes, relations = self.types()
        if self.number() != len(relations):
            raise _Damaged("another number of relations than its types say")
        sizes = [self.relation() for _ in relations]
        nodes = self.number()
        if nodes not in (0, ntypes):
            raise _Damaged(f"sizes of {nodes:,} types of nodes, of {ntypes:,}")
        counts = [self.number() for _ in range(nodes)]
        for (source, target), (rows, columns) in zip(relations, sizes, strict=True):
            if counts and (counts[source], counts[target]) != (rows, columns):
                raise _Damaged("a relation of other sizes than its types of nodes")
        for what in (ntypes, len(relations)):
            if self.number() != what:
                raise _Damaged("columns of another number of types than it has")
            for _ in range(what):
                self.columns()
        for what in (ntypes, len(relations)):
            if self.number() != what:
                raise _Damaged("names of another number of types than it has")
            names = [self.text() for _ in range(what)]
            if not all(names):
                raise _Damaged("a type without a name")

    def relation(self):
        """(sources, destinations) of one relation, how many there are."""
        self.magic(_UNIT)
        saved, _ = self.take(_TWO)
        saved = saved & 0xFFFFFFFF if saved & _AS_BITS else _OLD_FORMATS.get(saved, 0)
        if not 0 < saved <= _COO_BIT | _CSR_BIT | _CSC_BIT:
            raise _Damaged("a relation in a form that DGL does not know")
        found = set()
        for bit, magic in ((_COO_BIT, _COO), (_CSR_BIT, _CSR), (_CSC_BIT, _CSR)):
            if saved & bit:
                ntypes, pairs = self.types()
                if ntypes not in (1, 2) or len(pairs) != 1:
                    raise _Damaged("a relation between other than two types")
                rows, columns, _, ends, _ = self.matrix(magic)
                found.add((columns, rows, len(ends)) if bit == _CSC_BIT else (rows, columns, len(ends)))
        if len(found) != 1:
            raise _Damaged("one relation in two sizes")
        ((rows, columns, _),) = found
        return rows, columns
