import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import hgat.data
from hgat.data import planetoid
from hgat.errors import DataError

# A graph like Citeseer: nodes 0 to 6 in allx, test nodes 9, 7, 11 in this order, and 8 and 10 missing.
KNOWN, TEST, NODES, WIDTH = 7, [9, 7, 11], 12, 5


SHARED = list(range(1_000_000))


def parts():
    rng = np.random.RandomState(0)
    dense = sp.csr_matrix(rng.randint(1, 4, (KNOWN - 1, WIDTH)).astype(np.float32))
    # Node 0 has no words, and its only entry is a zero that is stored.
    allx = sp.vstack([sp.csr_matrix(([0.0], [0], [0, 1]), shape=(1, WIDTH)), dense], format="csr")
    tx = sp.csr_matrix(rng.randint(1, 4, (len(TEST), WIDTH)).astype(np.float32))
    return {
        "allx": allx,
        "ally": np.eye(3, dtype=np.int32)[[0, 1, 2, 0, 1, 2, 0]],
        "tx": tx,
        "ty": np.eye(3, dtype=np.int32)[[2, 1, 0]],
        "y": np.eye(3, dtype=np.int32)[[0, 1, 2]],
        "graph": {0: [1, 1, 0], 1: [0, 9], 9: [11], 2: []},
        "test.index": "".join(f"{node}\n" for node in TEST).encode(),
    }


@pytest.fixture
def load(small, tmp_path):
    def run(changes=(), **options):
        for part, value in {**parts(), **dict(changes)}.items():
            content = value if isinstance(value, bytes) else pickle.dumps(value, protocol=4)
            (tmp_path / f"ind.citeseer.{part}").write_bytes(content)
        return planetoid.load(small("citeseer", val=2), tmp_path, **options)

    return run


def test_missing_test_ids_are_unlabelled_nodes_of_zeros(load):
    task = load(normalize="none")
    assert task.graph.num_nodes() == NODES
    assert task.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, -1, 2, -1, 0]
    assert (task.train.tolist(), task.val.tolist(), task.test.tolist()) == ([0, 1, 2], [3, 4], TEST)
    files = parts()
    for row, node in enumerate(TEST):
        assert task.feat["_N"][node].tolist() == files["tx"][row].toarray()[0].tolist()
    assert task.feat["_N"][:KNOWN].tolist() == files["allx"].toarray().tolist()
    assert task.feat["_N"][[8, 10]].abs().sum() == 0
    assert task.class_names == ("class 0", "class 1", "class 2")


def test_links_appear_once_in_each_direction_without_self_loops(load):
    source, target = load().graph.edges()
    links = set(zip(source.tolist(), target.tolist(), strict=True))
    assert links == {(0, 1), (1, 0), (1, 9), (9, 1), (9, 11), (11, 9)} and len(source) == len(links)


def test_rows_of_features_sum_to_one_or_stay_zero(load):
    total = load().feat["_N"].sum(1)
    assert torch.allclose(total, torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1]))


@pytest.mark.parametrize(
    "part, value, sentence",
    [
        ("test.index", b"9\n7\n", "as many test ids as rows in tx, 3, got 2"),
        ("test.index", b"9\n7\n7\n", "test.index: expected distinct ids, got 3 lines with 2 ids"),
        ("test.index", b"9\n7\nx\n", "test.index: line 3: expected an integer, got 'x'"),
        ("test.index", b"9\n7\n6\n", "test.index: expected ids from 7 on, as allx holds the others, got 6"),
        ("test.index", b"", "test.index: expected distinct ids, got 0 lines"),
        ("ally", np.eye(3)[[0, 1]], "as many rows in allx as in ally, 2, got 7"),
        ("ally", np.ones((7, 3)), "ally: expected one class a row, got 3 in row 0"),
        ("ally", np.full((7, 3), 2), "ally: expected one-hot labels"),
        ("ty", np.eye(4)[[2, 1, 0]], "as many classes in ty as in ally"),
        ("tx", sp.csr_matrix(np.ones((3, 4))), "as many features in tx as in allx, 5, got 4"),
        ("tx", np.ones((3, 5)), "tx: expected a pickled csr_matrix, got ndarray"),
        ("graph", {0: [12]}, "graph: expected node ids from 0 to 11, got 0 to 12"),
        ("graph", {0: ["a"]}, "graph: expected a dict from node to list of nodes"),
        ("graph", {0: 5}, "graph: expected a dict from node to list of nodes"),
        ("y", np.eye(3)[[0] * 6], "y: expected at most 5 rows, got 6"),
        ("test.index", b"9\n7\n99999999999999999999\n", "test.index: line 3: expected an integer"),
        ("test.index", b"9\n7\n999999999999\n", "test.index: expected ids of 10 nodes, got 999999999999"),
        ("graph", {key: SHARED for key in range(200)}, "expected a dict from node to list of nodes, got 200,000,000 n"),
    ],
)
def test_files_at_odds_with_each_other_are_refused(load, part, value, sentence):
    with pytest.raises(DataError, match=sentence):
        load({part: value})


ODD = {
    "a number": 3,
    "a list": [[1, 0, 0]] * 7,
    "a scalar": np.array(1),
    "an array of three dimensions": np.ones((7, 3, 1)),
    "complex numbers": np.ones((7, 3), dtype=complex),
    "not numbers": np.full((7, 3), np.nan),
    "no columns": np.ones((7, 0)),
    "no rows": np.ones((0, 3)),
    "a matrix of another type": sp.csc_matrix(np.ones((7, 5))),
    "a matrix of complex numbers": sp.csr_matrix(np.ones((7, 5), dtype=complex)),
    "a matrix without columns": sp.csr_matrix((7, 0)),
    "a matrix without end": sp.csr_matrix((7, 1 << 40)),
    "text": {"0": ["1"]},
    "nested lists": {0: [[[1]]]},
    "a list in itself": {0: (lambda x: x.append(x) or x)([1])},
    "large numbers": {0: [1 << 70]},
    "nothing": None,
}


@pytest.mark.parametrize("part", ["allx", "ally", "tx", "ty", "y", "graph"])
@pytest.mark.parametrize("what", ODD)
def test_whole_pickles_of_something_else_are_refused(load, part, what):
    with pytest.raises(DataError, match=r"expected .*, got") as error:
        load({part: ODD[what]})
    assert "\n" not in str(error.value)


def test_cora_is_what_the_card_says(real):
    task = hgat.data.load("cora", real("cora"))
    assert (task.graph.num_nodes(), task.graph.num_edges(), task.num_classes) == (2708, 10556, 7)
    assert task.feat["_N"].shape == (2708, 1433)
    assert (len(task.train), len(task.val), len(task.test)) == (140, 500, 1000)
    assert torch.bincount(task.label[task.train]).tolist() == [20] * 7
    assert torch.bincount(task.label).tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert task.class_names[3] == "neural networks"
    # A wrong order of the test rows would leave every count as it is, but citations stay in a field.
    source, target = task.graph.edges()
    tested = torch.isin(source, task.test)
    assert (task.label[source] == task.label[target])[tested].float().mean() > 0.75
    assert torch.allclose(task.feat["_N"].sum(1), torch.ones(2708))
    assert set(hgat.data.load("cora", real("cora"), normalize="none").feat["_N"].unique().tolist()) == {
        0.0,
        1.0,
    }


def test_random_splits_in_the_place_of_the_public_one(load, real):
    small = load(split="uag", draws=4)
    assert len(small.splits) == 4 and small.notes[-2].startswith("Splits drawn at random with the sizes of uag, 4")
    for split in small.splits:  # of ten nodes with a label
        assert [len(ids) for ids in split.values()] == [1, 1, 8]
        assert (small.label[torch.cat(list(split.values()))] >= 0).all()
    root = real("cora")
    public, drawn = hgat.data.load("cora", root), hgat.data.load("cora", root, split="planetoid")
    assert public.splits == () and public.notes == hgat.data.card.read("cora").notes
    assert len(drawn.splits) == 10 and torch.equal(drawn.feat["_N"], public.feat["_N"])
    for split in drawn.splits:
        assert [len(ids) for ids in split.values()] == [140, 500, 1000]
        assert torch.bincount(drawn.label[split["train"]]).tolist() == [20] * 7
        assert not torch.equal(split["train"], public.train)
    assert drawn.notes[-1].startswith("Nodes of each class in the 10 splits: train 20, 20, 20, 20, 20, 20, 20; val ")
