import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

import hgat.data
from hgat.data import acm3025
from hgat.errors import DataError


def content():
    return {
        "PAP": np.eye(11, dtype=np.uint8) + np.eye(11, k=1, dtype=np.uint8),
        "PLP": np.ones((11, 11), dtype=np.uint8),
        "feature": np.arange(55, dtype=np.uint8).reshape(11, 5),
        "label": np.eye(3, dtype=np.uint8)[[0, 1, 2] * 3 + [0, 1]],
        "train_idx": np.array([[0, 1, 2]], dtype=np.int32),
        "val_idx": np.array([[3, 4]], dtype=np.int32),
        "test_idx": np.array([[5, 10]], dtype=np.int32),
    }


@pytest.fixture
def load(small, tmp_path):
    def run(drop=None, split_seed=None, **changes):
        values = {**content(), **changes}
        values.pop(drop, None)
        scipy.io.savemat(tmp_path / "ACM3025.mat", values)
        return acm3025.load(small("acm3025"), tmp_path, split_seed=split_seed)

    return run


def test_matrices_become_relations_as_they_are(load):
    task = load()
    source, target = task.graph.edges(etype="PAP")
    assert sorted(zip(source.tolist(), target.tolist(), strict=True)) == sorted(
        [(i, i) for i in range(11)] + [(i, i + 1) for i in range(10)]
    )
    assert task.graph.num_edges("PLP") == 121
    assert task.label.tolist() == [0, 1, 2] * 3 + [0, 1]
    assert (task.train.tolist(), task.val.tolist(), task.test.tolist()) == ([0, 1, 2], [3, 4], [5, 10])
    assert torch.equal(task.feat["paper"], torch.arange(55.0).view(11, 5))


def test_another_split_has_the_sizes_of_the_files(load):
    sizes = {"val_idx": np.array([[3, 4, 5]], dtype=np.int32)}
    task, again, other = (load(split_seed=seed, **sizes) for seed in (0, 0, 1))
    assert torch.equal(task.train, again.train) and not torch.equal(task.train, other.train)
    assert sorted(task.label[task.train].tolist()) == [0, 1, 2]
    assert sorted(task.label[task.val].tolist()) == [0, 1, 2] and len(task.test) == 5


def matrix(**parts):
    """A sparse PAP whose parts are others; SciPy writes them as they are."""
    found = sp.csc_matrix(np.eye(11))
    vars(found).update(parts)
    return found


def test_a_sparse_matrix_is_read(load):
    assert load(PAP=matrix()).graph.num_edges("PAP") == 11


@pytest.mark.parametrize(
    "broken",
    [
        matrix(indices=np.array([0, 1, 2, 100_000_000, *range(4, 11)], dtype=np.int32)),  # SciPy would write there
        matrix(indices=np.array([0, 1, 2, -1, *range(4, 11)], dtype=np.int32)),
        matrix(indptr=np.array([0, 11, 1, *range(3, 11), 11], dtype=np.int32)),
        sp.csc_matrix((1 << 20, 1 << 20)),
    ],
    ids=["beyond", "before", "falling", "large"],
)
def test_a_sparse_matrix_that_is_none_is_refused(load, broken):
    with pytest.raises(DataError, match="PAP: expected .*, got"):
        load(PAP=broken)


def test_a_row_without_a_class_is_unlabelled(load):
    label = content()["label"]
    label[9] = 0
    assert load(label=label).label.tolist() == [0, 1, 2] * 3 + [-1, 1]


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"drop": "PLP"}, "ACM3025.mat: expected the variable PLP, got none"),
        ({"PAP": np.eye(10)}, r"PAP: expected \[11, 11\], got \[10, 10\]"),
        ({"feature": np.ones((10, 5))}, r"features of paper: expected \[N, F\] with N = 11, got \[10, 5\]"),
        ({"feature": {"a": 1}}, "feature: expected a matrix of numbers"),
        ({"feature": np.array([[1, "a"]], dtype=object)}, "feature: expected a matrix of numbers"),
        ({"label": np.ones((11, 3))}, "expected one class a row, got 3 in row 0"),
        ({"test_idx": np.array([[5, 11]])}, "test: expected ids from 0 to 10, got 11"),
        ({"val_idx": np.array([[2, 4]])}, "val: expected no id of train, got id 2 in both"),
    ],
)
def test_a_file_at_odds_with_itself_is_refused(load, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        load(**changes)


def test_a_cut_file_is_refused(load, small, tmp_path):
    load()
    path = tmp_path / "ACM3025.mat"
    for size in (0, 100, 200, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match="ACM3025.mat: expected (a MATLAB file|the variable)"):
            acm3025.load(small("acm3025"), tmp_path)
        load()


def test_acm_is_what_the_card_says(real):
    task = hgat.data.load("acm3025", real("acm3025"))
    assert task.graph.canonical_etypes == [("paper", "PAP", "paper"), ("paper", "PLP", "paper")]
    assert (task.graph.num_edges("PAP"), task.graph.num_edges("PLP")) == (29281, 2210761)
    assert task.feat["paper"].shape == (3025, 1870)
    assert torch.bincount(task.label).tolist() == [1061, 965, 999]
    assert torch.bincount(task.label[task.train]).tolist() == [200] * 3
    assert torch.bincount(task.label[task.val]).tolist() == [100] * 3
    assert len(task.test) == 2125
    source, target = task.graph.edges(etype="PAP")
    alone = 3025 - len(source[source != target].unique())
    assert alone == 561
