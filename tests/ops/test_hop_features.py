"""Hops of features in memory and on disk: the same numbers, whole or absent, and never those of something else."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dgl
import numpy as np
import pytest
import torch

from hgat import ops
from hgat.errors import DataError, GraphError, HgatError, OutputError, ShapeError
from hgat.graph import hops, normalized
from zoo import build


@pytest.fixture
def given():
    graph = build("homogeneous")
    return graph, torch.randn(graph.num_nodes(), 5, generator=torch.Generator().manual_seed(0)), normalized(graph)


def test_in_memory_they_are_powers_of_the_adjacency_times_the_features(given):
    graph, feat, weight = given
    src, dst = (ends.long() for ends in graph.edges())
    a = torch.zeros(23, 23).index_put((dst, src), weight, accumulate=True)
    found = ops.hop_features(graph, feat, 4, weight)
    for k, x in enumerate(found):
        torch.testing.assert_close(x, torch.linalg.matrix_power(a, k) @ feat, atol=1e-5, rtol=1e-5)
    assert found[0] is feat and len(ops.hop_features(graph, feat, 0, weight)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ones", [True, False], ids=["ones", "weights"])
def test_on_disk_they_are_the_same_bits(given, tmp_path, dtype, ones, monkeypatch):
    monkeypatch.setattr(hops, "PART", 7)
    graph, feat, weight = given[0], given[1].to(dtype), None if ones else given[2].to(dtype)
    folder = tmp_path / "deep" / "hops"
    for _ in range(2):  # computed, and read again
        found = ops.hop_features(graph, feat, 3, weight, folder=folder)
        for x, y in zip(found, ops.hop_features(graph, feat, 3, weight), strict=True):
            assert torch.equal(x, y) and x.dtype == dtype
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", "hop1.npy", "hop2.npy", "hop3.npy"]
    assert [path.name for path in folder.parent.iterdir()] == ["hops"]
    assert str(folder / "hop3.npy") in Path("/proc/self/maps").read_text()
    assert np.array_equal(np.load(folder / "hop2.npy"), found[2].numpy())
    found[1][0] = 7.0  # stays with who assigned it
    assert not (ops.hop_features(graph, feat, 3, weight, folder=str(folder))[1][0] == 7.0).any()


def test_what_is_there_is_read_and_not_computed(given, tmp_path, monkeypatch):
    graph, feat, weight = given
    (tmp_path / "hops").mkdir()  # an empty folder is there to be filled
    ops.hop_features(graph, feat, 2, weight, folder=tmp_path / "hops")
    monkeypatch.setattr(hops, "_write", None)
    again = dgl.graph(graph.edges(order="eid"), num_nodes=23)  # another object, the same edges
    assert len(ops.hop_features(again, feat.clone(), 2, weight.clone(), folder=tmp_path / "hops")) == 3


def test_hops_of_something_else_are_refused(given, tmp_path):
    graph, feat, weight = given
    folder = tmp_path / "hops"
    before = ops.hop_features(graph, feat, 2, weight, folder=folder)
    fewer, more = dgl.remove_edges(graph, [0]), dgl.add_nodes(graph, 1)
    changed = feat.clone()
    changed[22, 4] += 1e-6
    for other, asked in {
        "edges, edge_weight": (fewer, feat, 2, weight[1:]),
        "edges, features": (more, torch.cat([feat, feat[:1]]), 2, weight),
        "features": (graph, changed, 2, weight),
        "edge_weight": (graph, feat, 2, None),
        "hops": (graph, feat, 1, weight),
    }.items():
        sentence = f"expected a folder of hops of this graph and these features, got .*hops of other {other}; take"
        with pytest.raises(DataError, match=sentence):
            ops.hop_features(*asked, folder=folder)
    for x, y in zip(before, ops.hop_features(graph, feat, 2, weight, folder=folder), strict=True):
        assert torch.equal(x, y)


def _cut(folder):
    path = folder / "hop2.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _narrow(folder):
    np.save(folder / "hop1.npy", np.zeros((23, 4), np.float32))


DAMAGE = {
    "hop2.npy is cut": _cut,
    "hop1.npy is missing": lambda folder: (folder / "hop1.npy").unlink(),
    "hop1.npy has another shape": _narrow,
    "no about.json": lambda folder: (folder / "about.json").unlink(),
    "about.json is no JSON": lambda folder: (folder / "about.json").write_text("{"),
    "about.json is a list": lambda folder: (folder / "about.json").write_text("[1]"),
    "about.json says less": lambda folder: (folder / "about.json").write_text("{}"),
    "objects": lambda folder: np.save(folder / "hop1.npy", np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_one_sentence(given, tmp_path, what):
    graph, feat, weight = given
    folder = tmp_path / "hops"
    ops.hop_features(graph, feat, 2, weight, folder=folder)
    DAMAGE[what](folder)
    with pytest.raises(DataError, match=r"hop_features: expected a new folder, or one that it made, got .*remove it$"):
        ops.hop_features(graph, feat, 2, weight, folder=folder)


def test_nothing_is_left_where_it_breaks_off(given, tmp_path, monkeypatch):
    graph, feat, weight = given
    save, calls = np.save, []

    def break_off(file, array):
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(file, array)

    monkeypatch.setattr(np, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        ops.hop_features(graph, feat, 3, weight, folder=tmp_path / "hops")
    assert list(tmp_path.iterdir()) == []
    assert len(ops.hop_features(graph, feat, 3, weight, folder=tmp_path / "hops")) == 4


def test_a_killed_process_leaves_no_folder(tmp_path):
    """Killed between two hops: nothing of the folder's name is there, and the next process begins anew."""
    code = f"""
        import os, hgat, torch, dgl, numpy
        save = numpy.save
        numpy.save = lambda file, array: save(file, array) if "hop1" in file.name else os._exit(9)
        graph = dgl.graph(([0, 1], [1, 0]))
        hgat.ops.hop_features(graph, torch.ones(2, 3), 2, folder={str(tmp_path / "hops")!r})
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ).returncode == 9
    assert not (tmp_path / "hops").exists()
    graph = dgl.graph(([0, 1], [1, 0]))
    assert len(ops.hop_features(graph, torch.ones(2, 3), 2, folder=tmp_path / "hops")) == 3


def test_two_at_once_are_served_by_the_first(given, tmp_path, monkeypatch):
    graph, feat, weight = given
    folder, rename = tmp_path / "hops", os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        ops.hop_features(graph, feat, 2, weight, folder=folder)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    found = ops.hop_features(graph, feat, 2, weight, folder=folder)
    assert torch.equal(found[2], ops.hop_features(graph, feat, 2, weight)[2])
    assert [path.name for path in tmp_path.iterdir()] == ["hops"]


WRONG = {
    "hops: expected a whole number, 0 or more, got 1.5": lambda g, x, w, f: ops.hop_features(g, x, 1.5, w),
    "x: expected": lambda g, x, w, f: ops.hop_features(g, x[:3], 2, w, folder=f),
    "weight: expected": lambda g, x, w, f: ops.hop_features(g, x, 2, w[:3], folder=f),
    "without gradients for a folder, got what gradients are asked of": lambda g, x, w, f: ops.hop_features(
        g, x.requires_grad_(), 2, w, folder=f
    ),
    "expected float32 or float64": lambda g, x, w, f: ops.hop_features(g, x.bfloat16(), 2, folder=f),
    "graph: expected one whose destinations are its sources": lambda g, x, w, f: ops.hop_features(
        build("block"), x, 2, folder=f
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence_and_write_nothing(given, tmp_path, sentence):
    with pytest.raises((ShapeError, GraphError), match=sentence):
        WRONG[sentence](*given, tmp_path / "hops")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(given, tmp_path):
    graph, feat, weight = given
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="hop_features: expected to keep hops in .*file/hops, got: Not a directory"):
        ops.hop_features(graph, feat, 2, weight, folder=tmp_path / "file" / "hops")
    with pytest.raises(HgatError, match=r"got .*file: Not a directory"):
        ops.hop_features(graph, feat, 2, weight, folder=tmp_path / "file")


def test_nothing_to_spread(tmp_path):
    for number, (nodes, width) in enumerate([(0, 3), (3, 0)]):
        graph = dgl.graph(([], []), num_nodes=nodes)
        found = ops.hop_features(graph, torch.zeros(nodes, width), 2, folder=tmp_path / str(number))
        assert [list(x.shape) for x in found] == [[nodes, width]] * 3
    lonely = dgl.graph(([0], [1]), num_nodes=3)
    found = ops.hop_features(lonely, torch.ones(3, 2), 1, folder=tmp_path / "lonely")
    assert found[1].tolist() == [[0, 0], [1, 1], [0, 0]]
