"""Features in memory-mapped files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from hgat.data import mapped, ogb, ogb_samples
from hgat.errors import DataError, OutputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_rows_come_from_the_file(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("hgat.data.memmap.ROWS", 7)
    feat = (100 * torch.randn(31, 5)).to(dtype)
    path = tmp_path / "deep" / "feat.npy"
    found = mapped(path, feat)
    assert torch.equal(found, feat) and found.dtype == dtype
    assert torch.equal(mapped(path)[torch.tensor([3, 30])], feat[[3, 30]])
    assert np.array_equal(np.load(path), feat.numpy())
    assert str(path) in Path("/proc/self/maps").read_text()
    assert [p.name for p in path.parent.iterdir()] == ["feat.npy"]


def test_what_is_assigned_stays_in_memory(tmp_path):
    path = tmp_path / "feat.npy"
    found = mapped(path, torch.zeros(4, 2))
    found[1] = 7
    assert float(found[1].sum()) == 14 and float(mapped(path).sum()) == 0


def test_a_file_is_written_again_only_for_another_tensor(tmp_path):
    path, feat = tmp_path / "feat.npy", torch.randn(31, 5)
    mapped(path, feat)
    first = path.stat().st_mtime_ns, path.stat().st_ino
    mapped(path, feat.clone())
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == first
    for other in (feat + 1, feat[:30], feat.double()):
        assert torch.equal(mapped(path, other), other)


def test_wrong_files_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"mapped: expected a NumPy file of numbers, got .*none.npy: No such file"):
        mapped(tmp_path / "none.npy")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("a,b")
    np.save(tmp_path / "whole.npy", np.zeros((100, 9)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:500])
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "text.npy", "cut.npy", "many.npz", "empty.npy"):
        with pytest.raises(DataError, match="mapped: expected a NumPy file of numbers"):
            mapped(tmp_path / name)
    with pytest.raises(OutputError, match="mapped: expected a type that NumPy has, got torch.bfloat16"):
        mapped(tmp_path / "half.npy", torch.zeros(3, 2, dtype=torch.bfloat16))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="mapped: expected to write"):
        mapped(tmp_path / "file" / "feat.npy", torch.zeros(3))


def test_ogb_features_on_disk_are_those_in_memory(tmp_path):
    ogb_samples.write_sample("ogbn-proteins", tmp_path, nodes=130)
    ogb_samples.write_sample("ogbn-mag", tmp_path, nodes=130)
    for name in ("ogbn-proteins", "ogbn-mag"):
        here, there = ogb.load(name, tmp_path), ogb.load(name, tmp_path, mapped=True)
        assert here.feat.keys() == there.feat.keys()
        for ntype, feat in here.feat.items():
            assert feat is there.feat[ntype] is None or torch.equal(feat, there.feat[ntype])
        assert (here.edge_feat is None) == (there.edge_feat is None)
    proteins = ogb.load("ogbn-proteins", tmp_path, mapped=True)
    assert torch.equal(proteins.edge_feat, ogb.load("ogbn-proteins", tmp_path).edge_feat)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/mapped/*"))
    assert files == ["ogbn_mag/mapped/paper.npy", "ogbn_proteins/mapped/edge.npy"]
    assert all(str(tmp_path / file) in Path("/proc/self/maps").read_text() for file in files[1:])


def header(text, version=b"\x01\x00"):
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text.encode("latin1")


SHAPES = [
    "-1,",
    "1 << 3,",
    "1099511627776,",
    "4294967296, 4294967296",
    "18446744073709551616,",
    "'a',",
    "None,",
    "True,",
]
HEADERS = [
    *(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n" for shape in SHAPES),
    *(
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n"
        for descr in ("'O'", "'|V8'", "'<U2'", "[('a', 'O')]", "[('a', '<f4')]", "'<M8[s]'", "None", "'x' * 9", "()")
    ),
    "{'descr': '<f4', 'fortran_order': None, 'shape': (2,), }\n",
    "{'descr': '<f4'}\n",
    "__import__('os').getcwd()\n",
    "[" * 9000 + "]" * 900,
    "{'a': " * 3000,
    "-" * 9999 + "1",
    "(" * 200 + "1,\n",
    "'unclosed\n",
    "\x00",
    "",
]


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"])
@pytest.mark.parametrize("text", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_is_none(tmp_path, text, version):
    path = tmp_path / "x.npy"
    for rest in (b"", b"\0" * 64):
        path.write_bytes(header(text, version) + rest)
        with pytest.raises(DataError, match="mapped: expected a NumPy file of numbers, got") as error:
            mapped(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
