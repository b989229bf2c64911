"""Pickles and PyTorch's archives of plain values, read without running what they ask for.

A pickle is a program: it names functions and classes, calls them with arguments of its choice and sets their state. A
list of harmless names is not enough, since numpy.ndarray itself, called with a foreign type and buffer, makes objects
at any address. Here a name stands for a function of this file's own and nothing else. Arrays and tensors are built from
bytes whose number fits the type, booleans or numbers, and the shape; every other name is refused, and so is whatever
asks for more memory than the file has bytes.

This file imports nothing of hgat, because hgat.compat loads it by path where the start-up hook runs alone.
"""

import io
import math
import os
import pickle
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

__all__ = ["Instance", "load", "load_archive"]

# Type and byte order as NumPy writes them; longdouble differs between machines, yet is a number.
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32))|\?")
_PLAIN = (str, bytes, int, float, bool, type(None))


class Instance:
    """What a pickle says of an object of some class: its attributes, as a dict in `state`."""

    state: Any

    def __init__(self) -> None:
        self.state = None


def load(stream: IO[bytes], size: int, classes: Mapping[tuple[str, str], type[Instance]] | tuple[()] = ()) -> Any:
    """The value in a pickle of at most `size` bytes; of any protocol, text of Python 2 read as Latin-1.

    classes: {(module, name): subclass of Instance}, of which the pickle may hold objects.
    Raises pickle.UnpicklingError for everything that is not plain values, containers, arrays, scalars and these.
    """
    return _run(_Unpickler(_Bounded(stream, size), classes))


def _run(unpickler):
    try:
        value = unpickler.load()
    except Exception as error:  # the pickle module promises no list of what a damaged file raises
        if isinstance(error, pickle.UnpicklingError) and str(error).startswith("expected "):
            raise
        got = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise pickle.UnpicklingError(f"expected a whole pickle, got one that cannot be read ({got})") from error
    if unpickler.unfinished:
        raise pickle.UnpicklingError("expected whole arrays and objects, got one without content")
    return _value(value)


class _Bounded:
    """A stream that refuses to read more than it has, before the memory for it is asked for."""

    def __init__(self, stream, size):
        self.stream, self.left = stream, size

    def read(self, size):
        if not 0 <= size <= self.left:
            got = f"{self.left:,} bytes where {size:,} should follow"
            raise pickle.UnpicklingError(f"expected a whole pickle, got one that cannot be read ({got})")
        self.left -= size
        found = self.stream.read(size)
        if len(found) != size:
            raise pickle.UnpicklingError("expected a whole pickle, got one that is cut short")
        return found

    def readline(self):
        found = self.stream.readline(self.left)
        self.left -= len(found)
        return found


class _Inert:
    """What only `_Unpickler` knows what to do with."""


class _Name(_Inert):
    """A name in a pickle that may be called: inert, and known to `_Unpickler` alone."""

    def __init__(self, make=None):
        self.make = make


class _Unfinished(_Inert):
    """What a pickle has made and still has to fill: an array, a type or an object; `made` when it has."""

    def __init__(self, fill):
        self.fill, self.made = fill, None


def _operation(table, code):
    """Enter a function into a table of operations, under the code that asks for it in a pickle."""

    def add(function):
        table[code[0]] = function
        return function

    return add


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, written in Python, without the parts that call, look up or set what the file names.

    The one written in C keeps its memo in an array as long as the highest number that a file says.
    """

    def __init__(self, stream, classes=()):
        super().__init__(stream, fix_imports=False, encoding="latin1")
        self.names = {**_NAMES, **{key: _Name(_class(kind)) for key, kind in dict(classes).items()}}
        self.unfinished = 0

    def find_class(self, module, name):
        if (module, name) not in self.names:
            got = " ".join(f"{module}.{name}".split())[:120]
            error = pickle.UnpicklingError(
                f"expected only arrays, tensors, plain values and containers, got the name {got}"
            )
            error.foreign = True  # as well the file of a class that another reader knows
            raise error
        return self.names[module, name]

    def call(self, name, arguments):
        if type(name) is not _Name or name.make is None or type(arguments) is not tuple:
            raise pickle.UnpicklingError("expected a call of a known name, got another")
        made = name.make(*arguments)
        self.unfinished += type(made) is _Unfinished
        return made

    # A list, a dict and what is a key are what they say: NumPy's arrays take items too, and the hash of a deep tuple
    # overflows the stack of the process.
    dispatch = {
        ord(getattr(pickle, name)): pickle._Unpickler.dispatch[ord(getattr(pickle, name))]
        for name in """PROTO FRAME NONE NEWFALSE NEWTRUE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
            STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE
            BINUNICODE8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST EMPTY_DICT GLOBAL STACK_GLOBAL POP
            POP_MARK PUT BINPUT LONG_BINPUT MEMOIZE MARK PERSID BINPERSID STOP""".split()
    }

    @_operation(dispatch, pickle.REDUCE)
    def _reduce(self):
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    @_operation(dispatch, pickle.NEWOBJ)
    def _new(self):
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    @_operation(dispatch, pickle.BUILD)
    def _build(self):
        state, thing = self.stack.pop(), self.stack[-1]
        if type(thing) is not _Unfinished or thing.made is not None:
            raise pickle.UnpicklingError("expected the state of an array or an object, got another's")
        thing.made = self.stack[-1] = thing.fill(state)
        self.unfinished -= 1

    def _again(self, value):
        """What is used a second time; an array's first appearance in the memo is without content."""
        if type(value) is _Unfinished:
            if value.made is None:
                raise pickle.UnpicklingError("expected whole arrays and objects, got one without content")
            value = value.made
        self.append(value)

    @_operation(dispatch, pickle.GET)
    def _get(self):
        self._again(self.memo[int(self.readline()[:-1])])

    @_operation(dispatch, pickle.BINGET)
    def _binget(self):
        self._again(self.memo[self.read(1)[0]])

    @_operation(dispatch, pickle.LONG_BINGET)
    def _long_binget(self):
        self._again(self.memo[int.from_bytes(self.read(4), "little")])

    @_operation(dispatch, pickle.DUP)
    def _dup(self):
        self._again(self.stack[-1])

    @_operation(dispatch, pickle.APPEND)
    def _append(self):
        value = self.stack.pop()
        _only(list, self.stack[-1]).append(_value(value))

    @_operation(dispatch, pickle.APPENDS)
    def _appends(self):
        values = self.pop_mark()
        _only(list, self.stack[-1]).extend(map(_value, values))

    @_operation(dispatch, pickle.LIST)
    def _list(self):
        values = self.pop_mark()
        self.append([_value(value) for value in values])

    @_operation(dispatch, pickle.SETITEM)
    def _setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        _only(dict, self.stack[-1])[_key(key)] = _value(value)

    @_operation(dispatch, pickle.SETITEMS)
    def _setitems(self):
        values = self.pop_mark()
        _fill(_only(dict, self.stack[-1]), values)

    @_operation(dispatch, pickle.DICT)
    def _dict(self):
        values = self.pop_mark()
        self.append(_fill({}, values))

    @_operation(dispatch, pickle.BYTEARRAY8)
    def _bytearray(self):
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))


def _only(kind, value):
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value


def _key(value):
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return value
    if type(value) is tuple and all(type(part) in _PLAIN for part in value):
        return value
    raise pickle.UnpicklingError(f"expected text, numbers or tuples of them as keys, got {type(value).__name__}")


def _fill(target, values):
    for place in range(0, len(values), 2):
        target[_key(values[place])] = _value(values[place + 1])
    return target


def _value(value):
    """What a container may hold: no name, and nothing that is still without content."""
    if isinstance(value, _Inert):
        raise pickle.UnpicklingError("expected plain values, arrays and containers, got a name or a part of an array")
    return value


def _whole(value):
    """A size: a whole number that is not negative, and no bool."""
    if type(value) is not int or value < 0:
        raise pickle.UnpicklingError(f"expected sizes that are whole numbers, got {str(value)[:40]!r}")
    return value


def _bytes(value):
    """Bytes, which Python 2 and the oldest protocols write as text."""
    value = value.encode("latin1") if type(value) is str else value
    if type(value) not in (bytes, bytearray):
        raise pickle.UnpicklingError(f"expected an array's bytes, got {type(value).__name__}")
    return value


def _array(dtype, shape, data, order="C"):
    """A new array of booleans or numbers; the number of bytes must be the type's and the shape's."""
    if not isinstance(dtype, np.dtype) or not _DTYPE.fullmatch(dtype.str):
        raise pickle.UnpicklingError(f"expected an array's type, got {type(dtype).__name__}")
    if type(shape) is not tuple:
        raise pickle.UnpicklingError(f"expected an array's shape, got {type(shape).__name__}")
    count, data = math.prod(map(_whole, shape)), _bytes(data)
    if count * dtype.itemsize != len(data):
        expected = count * dtype.itemsize
        raise pickle.UnpicklingError(f"expected {expected:,} bytes for an array of {dtype}, got {len(data):,}")
    if dtype.kind == "b":
        _check_booleans(data)
    return np.frombuffer(data, dtype, count).reshape(shape, order=order).copy(order)


def _check_booleans(data):
    if len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise pickle.UnpicklingError("expected bytes of 0 and 1 for booleans, got others")


# ---- what stands for the names in a pickle ----


def _dtype(text, align=False, copy=True):
    if type(text) is not str or not _DTYPE.fullmatch(text):
        raise pickle.UnpicklingError(f"expected an array of numbers or booleans, got the type {str(text)[:40]!r}")

    def fill(state):
        # version, byte order, subarray, names, fields, size, alignment, flags
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise pickle.UnpicklingError("expected the type of an array of numbers or booleans, got another")
        found = np.dtype(text)
        return found if state[1] == "|" else found.newbyteorder(state[1])

    return _Unfinished(fill)


def _reconstruct(kind, shape=(0,), code=b"b"):
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("expected an array of NumPy's own class, got another")

    def fill(state):
        # version, which the oldest left out, shape, type, whether the columns come first, bytes
        if type(state) is not tuple or len(state) not in (4, 5):
            raise pickle.UnpicklingError("expected the content of an array, got another object's")
        shape, dtype, columns_first, data = state[-4:]
        return _array(dtype, shape, data, "F" if columns_first is True or columns_first == 1 else "C")

    return _Unfinished(fill)


def _frombuffer(data, dtype, shape, order, axes=None):
    if order not in ("C", "F") or axes is not None:
        raise pickle.UnpicklingError("expected an array with its rows or its columns first, got another order")
    return _array(dtype, shape, data, order)


def _scalar(dtype, data):
    return _array(dtype, (), data)[()]


def _encode(text, encoding="utf-8"):
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("expected bytes written as Latin-1 text, got another encoding")
    return text.encode("latin1")


def _empty_bytes(*content):
    if content:
        raise pickle.UnpicklingError("expected no bytes, got some made by a call")
    return b""


def _bytearray(*content):
    return bytearray(_bytes(*content)) if content else bytearray()


def _mapping(kind, first):
    """A dict or an OrderedDict of pairs; a defaultdict's pickle names its factory first, which is left out."""

    def make(*arguments):
        pairs = arguments[first:]
        if len(pairs) > 1 or (pairs and type(pairs[0]) not in (list, tuple)):
            raise pickle.UnpicklingError("expected the pairs of a dict, got another object")
        found = kind()
        for pair in pairs[0] if pairs else ():
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise pickle.UnpicklingError("expected the pairs of a dict, got another object")
            found[_key(pair[0])] = _value(pair[1])
        return found

    return make


def _class(kind):
    """What makes an Instance of `kind`, whose attributes follow."""

    def make(*arguments):
        if arguments:
            raise pickle.UnpicklingError(f"expected a {kind.__name__} with its attributes, got one made by a call")

        def fill(state):
            instance = kind()
            instance.state = _only(dict, state)
            return instance

        return _Unfinished(fill)

    return make


def _reconstructor(kind, base, state):
    """How the oldest protocols make an object: of a class, on the base `object`, without content."""
    if type(kind) is not _Name or kind.make is None or base is not _OBJECT or state is not None:
        raise pickle.UnpicklingError("expected an object of a known class, got another")
    return kind.make()


_NDARRAY, _OBJECT = _Name(), _Name()
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(_dtype),
    ("_codecs", "encode"): _Name(_encode),
    ("collections", "OrderedDict"): _Name(_mapping(OrderedDict, 0)),
    ("collections", "defaultdict"): _Name(_mapping(dict, 1)),
}
for _module in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES[f"{_module}.multiarray", "_reconstruct"] = _Name(_reconstruct)
    _NAMES[f"{_module}.multiarray", "scalar"] = _Name(_scalar)
    _NAMES[f"{_module}.numeric", "_frombuffer"] = _Name(_frombuffer)
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    _NAMES[_module, "object"] = _OBJECT
    _NAMES[_module, "list"] = _NAMES[_module, "int"] = _NAMES[_module, "dict"] = _Name()  # factories of a defaultdict
    _NAMES[_module, "bytes"] = _Name(_empty_bytes)
    _NAMES[_module, "bytearray"] = _Name(_bytearray)
for _module in ("copyreg", "copy_reg"):
    _NAMES[_module, "_reconstructor"] = _Name(_reconstructor)


# ---- PyTorch's archives ----

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the archives before torch 1.6, pickles one after the other


def load_archive(file: str | os.PathLike[str] | IO[bytes]) -> Any:
    """What `torch.save` wrote to a path or a binary file: plain values, containers, arrays, and tensors on the CPU.

    Raises pickle.UnpicklingError for everything else, as torch.load(weights_only=True) does; FileNotFoundError and its
    like where there is no file.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as stream:
            return load_archive(stream)
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    head = file.read(4)
    file.seek(start)
    try:
        return _zipped(file, size) if head == b"PK\x03\x04" else _legacy(file, size)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # zipfile promises no list either
        got = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise pickle.UnpicklingError(f"expected a whole archive of PyTorch's, got a damaged one ({got})") from error


def _zipped(file, size):
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        main = next((name for name in entries if name.endswith("/data.pkl")), None)
        if main is None:
            raise pickle.UnpicklingError("expected an archive of PyTorch's, got another program's")
        root = main[: -len("data.pkl")]

        def content(name):
            entry = entries.get(root + name)
            # torch stores its entries as they are: a compressed one may be small and its content without end.
            if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise pickle.UnpicklingError(f"expected the stored entry {name[:40]!r} in the archive, got another")
            return archive.open(entry), entry.file_size

        if root + "byteorder" in entries:
            stream, length = content("byteorder")
            if length > 10 or stream.read().decode() != sys.byteorder:
                raise pickle.UnpicklingError(f"expected numbers in the order of this machine, {sys.byteorder} endian")

        def storage(key, nbytes):
            stream, length = content(f"data/{key}")
            if length != nbytes:
                raise pickle.UnpicklingError(f"expected {nbytes:,} bytes for a tensor, got {length:,}")
            return bytearray(stream.read())  # checks the entry's sum

        stream, length = content("data.pkl")
        with io.BufferedReader(stream, 1 << 16) as stream:
            value = _run(_TensorUnpickler(_Bounded(stream, length), storage, size))
            while stream.read(1 << 20):  # the sum is checked at the end
                pass
        return value


def _legacy(file, size):
    stream = _Bounded(file, size)
    magic, protocol, about = (_run(_Unpickler(stream)) for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or type(about) is not dict:
        raise pickle.UnpicklingError("expected an archive of PyTorch's, got another program's")
    if about.get("little_endian") is not (sys.byteorder == "little"):
        raise pickle.UnpicklingError(f"expected numbers in the order of this machine, {sys.byteorder} endian")
    # The tensors come first and their content last.
    buffers = {}

    def storage(key, nbytes):
        buffers[key] = bytearray(nbytes)
        return buffers[key]

    unpickler = _TensorUnpickler(stream, storage, size)
    value, keys = _run(unpickler), _run(_Unpickler(stream))
    if type(keys) is not list or len(keys) != len(buffers) or any(key not in buffers for key in map(_key, keys)):
        raise pickle.UnpicklingError("expected the content of every tensor, got another number of them")
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        base, buffer = unpickler.storages[key], buffers.pop(key, None)
        if buffer is None or count != len(base):
            raise pickle.UnpicklingError(f"expected {len(base):,} numbers for a tensor, got {count:,}")
        buffer[:] = stream.read(len(buffer))
        unpickler.check(base, buffer)
    return value


class _TensorUnpickler(_Unpickler):
    """Tensors: a storage by its key and its number of elements, and views of it.

    storage: (key, number of bytes) -> a bytearray that has, or will have, its content. size: of the whole file.
    """

    def __init__(self, stream, storage, size):
        super().__init__(stream)
        import torch

        self.torch, self.storage, self.left, self.storages = torch, storage, size, {}
        self.names["torch._utils", "_rebuild_tensor_v2"] = _Name(self._tensor)
        self.names["torch._utils", "_rebuild_tensor"] = _Name(self._tensor)
        for name in _STORAGES:
            self.names["torch", name] = _StorageName(name)

    def persistent_load(self, pid):
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or (len(pid) == 6 and pid[5]):
            raise pickle.UnpicklingError("expected the storage of a tensor, got another reference")
        _, kind, key, _, count = pid[:5]
        if type(kind) is not _StorageName or type(key) is not str:
            raise pickle.UnpicklingError("expected a storage of numbers, got another")
        dtype = getattr(self.torch, kind.dtype)
        if key not in self.storages:
            nbytes = _whole(count) * dtype.itemsize
            self.left -= nbytes
            if self.left < 0:
                raise pickle.UnpicklingError("expected tensors no larger than their file, got larger ones")
            buffer = self.storage(key, nbytes)
            base = self.torch.frombuffer(buffer, dtype=dtype) if nbytes else self.torch.empty(0, dtype=dtype)
            self.check(base, buffer)
            self.storages[key] = base
        found = self.storages[key]
        if found.dtype != dtype or len(found) != count:
            raise pickle.UnpicklingError("expected a storage to be of one type and size, got two")
        return _Storage(found)

    def check(self, base, buffer):
        if base.dtype == self.torch.bool:
            _check_booleans(buffer)

    def _tensor(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
        if type(storage) is not _Storage or type(size) is not tuple or type(stride) is not tuple or hooks or metadata:
            raise pickle.UnpicklingError("expected a plain tensor, got another object")
        base, offset = storage.base, _whole(offset)
        size, stride = [_whole(n) for n in size], [_whole(n) for n in stride]
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # No more elements than the storage has: a stride of 0 repeats one without end.
        if math.prod(size) > len(base) or (math.prod(size) and last >= len(base)):
            raise pickle.UnpicklingError(f"expected a tensor of at most {len(base):,} elements, got {size}")
        found = base.as_strided(size, stride, offset if math.prod(size) else 0)
        return found.requires_grad_() if requires_grad is True and found.is_floating_point() else found


class _StorageName(_Name):
    """The name of a storage's class, which stands for the type of its elements."""

    def __init__(self, name):
        super().__init__()
        self.dtype = _STORAGES[name]


class _Storage(_Inert):
    """A storage in the hands of a pickle, which may only make tensors of it."""

    def __init__(self, base):
        self.base = base
