"""hgat.unpickle: what NumPy, SciPy and torch write is read whole; what asks for anything else is refused."""

import collections
import io
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hostile import arguments, array, dtype, hostile, name, value, whole

from hgat import unpickle

PROTOCOLS = range(6)
LEGACY = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def read(content, classes=()):
    return unpickle.load(io.BytesIO(content), len(content), classes)


def same(one, other):
    if isinstance(other, (np.ndarray, np.generic)):
        return type(one) is type(other) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


VALUES = {
    "arrays": [np.arange(6, dtype=letter).reshape(2, 3) for letter in "bhilqBHILQefdgFD"],
    "booleans": np.array([[True, False]]),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "another byte order": np.arange(5, dtype=">i4"),
    "parts": np.arange(20.0).reshape(4, 5)[1:3, ::2],
    "empty": [np.zeros((0, 3)), np.zeros(0, dtype="i8"), np.array(3.5)],
    "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True)],
    "plain": {"a": [1, 2.5, None, True, "ä\n", b"\xff", b"", (1,), (), -(2**70), {}, 2**33], (1, "b"): {}, 3: ()},
    "containers": [collections.OrderedDict(b=1, a=[2]), bytearray(b"ab")],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("what", VALUES)
def test_what_numpy_and_python_write_is_read(what, protocol):
    found = read(pickle.dumps(VALUES[what], protocol))
    assert same(found, VALUES[what])
    if isinstance(found, np.ndarray):
        assert found.flags.writeable and found.flags.f_contiguous == np.asarray(VALUES[what]).flags.f_contiguous


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_there_once_is_there_once(protocol):
    one = np.arange(3)
    first, second, inner = read(pickle.dumps([one, one, {"a": one}], protocol))
    assert first is second is inner["a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dict_with_a_factory_is_a_plain_one(protocol):
    found = read(pickle.dumps(collections.defaultdict(list, {0: [1, 2]}), protocol))
    assert found == {0: [1, 2]} and type(found) is dict


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_is_its_attributes(protocol):
    class Matrix(unpickle.Instance):
        pass

    matrix = sp.csr_matrix(np.eye(3))
    where = (type(matrix).__module__, "csr_matrix")
    found = read(pickle.dumps(matrix, protocol), {where: Matrix})
    assert type(found) is Matrix and found.state["_shape"] == (3, 3) and same(found.state["data"], matrix.data)
    with pytest.raises(pickle.UnpicklingError, match="got the name scipy.sparse"):
        read(pickle.dumps(matrix, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_pickles_by_hand_are_pickles(protocol):
    """So that what is refused below is refused for what it tries."""
    content = np.arange(4.0)
    assert same(read(whole(array(dtype("f8", protocol), (4,), content.tobytes(), protocol), protocol)), content)
    assert same(pickle.loads(whole(array(dtype("f8", protocol), (4,), content.tobytes(), protocol), protocol),
                             encoding="latin1"), content)  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("what", hostile(0) | hostile(5))
def test_whatever_is_tried_is_refused(what, protocol):
    if what in hostile(protocol):
        with pytest.raises(pickle.UnpicklingError) as error:
            read(hostile(protocol)[what])
        message = str(error.value)
        assert (
            type(error.value) is pickle.UnpicklingError
            and message.startswith("expected ")
            and ", got" in message
            and "\n" not in message
            and len(message) < 300
        )


def test_a_memo_of_billions_takes_no_memory():
    """The unpickler that is written in C makes room for as many values as the number says, 64 GB."""
    assert read(b"\x80\x02K\x01r" + struct.pack("<I", (1 << 32) - 1) + b".") == 1


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_is_cut_or_damaged_anywhere(protocol):
    """Each byte is left out, or another: a value, or one sentence."""
    content = pickle.dumps({"a": np.arange(4.0), "b": [1, (2, "c")]}, protocol)
    for place in range(len(content)):
        with pytest.raises(pickle.UnpicklingError):
            read(content[:place])
        for other in (0, 0x28, 0x52, 0x62, content[place] ^ 0x10):
            try:
                read(content[:place] + bytes([other]) + content[place + 1 :])
            except pickle.UnpicklingError as error:
                assert str(error).startswith("expected ") and "\n" not in str(error)


# ---- archives of torch.save ----


TENSORS = {
    "t": torch.arange(6.0).reshape(2, 3).t(),
    "flags": torch.tensor([True, False]),
    "array": np.arange(3),
    "half": [torch.ones(2).half(), torch.ones(2).bfloat16()],
    "empty": torch.empty(0, 3),
    "part": torch.arange(10)[2:8:2],
    "scalar": torch.tensor(3),
    "complex": torch.ones(2, dtype=torch.complex64),
    "words": ["a", "b"] * 3,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", LEGACY)
def test_what_torch_saves_is_read(tmp_path, form, protocol):
    torch.save(TENSORS, tmp_path / "a", pickle_protocol=protocol, **LEGACY[form])
    assert same(unpickle.load_archive(tmp_path / "a"), TENSORS)
    with open(tmp_path / "a", "rb") as file:
        assert same(unpickle.load_archive(file), TENSORS)


@pytest.mark.parametrize("form", LEGACY)
def test_tensors_that_share_memory_do_so_again(tmp_path, form):
    base = torch.arange(6)
    torch.save([base, base[2:]], tmp_path / "a", **LEGACY[form])
    first, part = unpickle.load_archive(tmp_path / "a")
    first[2] = 9
    assert part[0] == 9


@pytest.mark.parametrize("form", LEGACY)
def test_an_archive_that_is_cut_or_damaged(tmp_path, form):
    torch.save(TENSORS, tmp_path / "a", **LEGACY[form])
    content = (tmp_path / "a").read_bytes()
    for place in range(0, len(content), 37):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :]):
            try:
                unpickle.load_archive(io.BytesIO(damaged))
            except pickle.UnpicklingError as error:
                assert str(error).startswith("expected ") and "\n" not in str(error)
            else:
                assert len(damaged) == len(content)
    with pytest.raises(FileNotFoundError):
        unpickle.load_archive(tmp_path / "none")


def zipped(pickled, entries=(), compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        for key, content in dict(entries).items():
            archive.writestr(f"a/{key}", content)
    stream.seek(0)
    return stream


def legacy(pickled, rest=b""):
    about = {"protocol_version": 1001, "little_endian": sys.byteorder == "little", "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, about)]
    return io.BytesIO(b"".join(head) + pickled + rest)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("form", [zipped, legacy])
def test_an_archive_is_as_strict_as_a_pickle(form, protocol):
    for what, content in hostile(protocol).items():
        with pytest.raises(pickle.UnpicklingError):
            unpickle.load_archive(form(content))
            pytest.fail(what)


def tensor(
    offset=0, size=(4,), stride=(1,), kind="FloatStorage", count=4, key="0", call="_rebuild_tensor_v2", extra=()
):
    pid = arguments(value("storage", 2), name("torch", kind, 2), *(value(part, 2) for part in (key, "cpu", count)),
                    *extra)  # fmt: skip
    rest = [value(part, 2) for part in (offset, size, stride, False)]
    hooks = name("collections", "OrderedDict", 2) + b")R"
    return name("torch._utils", call, 2) + arguments(pid + b"Q", *rest, hooks) + b"R"


BAD_TENSORS = {
    "beyond the storage": tensor(size=(5,)),
    "beyond by its offset": tensor(offset=1),
    "beyond by its strides": tensor(size=(2, 2), stride=(3, 1)),
    "before the storage": tensor(offset=-1),
    "backwards": tensor(offset=3, stride=(-1,)),
    "one element without end": tensor(size=(1 << 40,), stride=(0,)),
    "sizes that overflow": tensor(size=(1 << 32, 1 << 32), stride=(0, 0)),
    "sizes of another number": tensor(size=(2, 2)),
    "sizes that are none": tensor(size=(4.0,)),
    "a storage larger than its entry": tensor(count=5),
    "a storage larger than the file": tensor(count=1 << 60),
    "a storage of no size": tensor(count=-1),
    "a storage of another name": tensor(kind="UntypedStorage"),
    "a storage that is a function": tensor(kind="load"),
    "an entry that is not there": tensor(key="9"),
    "an entry elsewhere": tensor(key="../data.pkl"),
    "a storage of two types": b"(" + tensor() + tensor(kind="IntStorage") + b"t",
    "another function of torch's": tensor(call="_rebuild_parameter_with_state"),
    "a part of another storage": tensor(extra=[value(("1", 0, 4), 2)]),
    "a storage by itself": arguments(value("storage", 2), name("torch", "FloatStorage", 2), value("0", 2),
                                     value("cpu", 2), value(4, 2)) + b"Q",
    "a storage called": name("torch", "FloatStorage", 2) + arguments(value(4, 2)) + b"R",
    "a module": arguments(value("module", 2), name("torch", "FloatStorage", 2), value("", 2), value("", 2),
                          value(0, 2)) + b"Q",
    "booleans that are none": tensor(kind="BoolStorage", count=16, size=(16,)),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_TENSORS)
def test_a_tensor_that_is_none(what):
    data = b"\x02" * 16
    assert same(unpickle.load_archive(zipped(whole(tensor(kind="ByteStorage", count=16, size=(16,)), 2),
                                             {"data/0": data})), torch.full((16,), 2, dtype=torch.uint8))  # fmt: skip
    with pytest.raises(pickle.UnpicklingError):
        unpickle.load_archive(zipped(whole(BAD_TENSORS[what], 2), {"data/0": data}))
    rest = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + data
    assert unpickle.load_archive(legacy(whole(tensor(), 2), rest)).shape == (4,)
    with pytest.raises(pickle.UnpicklingError):
        unpickle.load_archive(legacy(whole(BAD_TENSORS[what], 2), rest))


def test_an_archive_that_unpacks_without_end():
    bomb = zipped(pickle.dumps(b"\0" * (1 << 22), 2), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(pickle.UnpicklingError, match="expected the stored entry"):
        unpickle.load_archive(bomb)


def test_legacy_contents_that_do_not_fit():
    body = whole(tensor(), 2)
    for rest in (
        pickle.dumps([], 2),
        pickle.dumps(["0", "0"], 2) + (struct.pack("<q", 4) + b"\0" * 16) * 2,
        pickle.dumps([["0"]], 2),
        pickle.dumps(["0"], 2) + struct.pack("<q", 5) + b"\0" * 20,
        pickle.dumps(["0"], 2) + struct.pack("<q", 4) + b"\0" * 15,
        pickle.dumps(["1"], 2) + struct.pack("<q", 4) + b"\0" * 16,
    ):
        with pytest.raises(pickle.UnpicklingError):
            unpickle.load_archive(legacy(body, rest))


def test_it_stands_alone():
    """The start-up hook's copy of hgat.compat loads it by path, where hgat itself is not imported."""
    code = f"""
import sys
from importlib.machinery import SourceFileLoader
before = set(sys.modules)
module = type(sys)("alone")
SourceFileLoader("alone", {unpickle.__file__!r}).exec_module(module)
print([name for name in set(sys.modules) - before if name.partition(".")[0] in ("hgat", "torch", "dgl", "scipy")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
