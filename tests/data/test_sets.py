import dataclasses

import dgl
import pytest
import torch

from hgat.data import NodeData
from hgat.errors import DataError

NODES = 7


def task(**changes):
    values = {
        "name": "toy",
        "graph": dgl.graph(([0, 1, 2], [1, 2, 3]), num_nodes=NODES),
        "feat": {"_N": torch.ones(NODES, 5)},
        "target": "_N",
        "label": torch.tensor([0, 1, 2, 0, 1, 2, -1]),
        "train": torch.tensor([0, 1]),
        "val": torch.tensor([2, 3]),
        "test": torch.tensor([4, 5]),
        "num_classes": 3,
        "class_names": ("a", "b", "c"),
    }
    return NodeData(**{**values, **changes})


def test_a_good_task_is_accepted_and_frozen():
    good = task()
    with pytest.raises(dataclasses.FrozenInstanceError):
        good.label = good.label + 1


def test_multilabel_and_featureless_are_accepted():
    assert task(label=torch.eye(NODES)[:, :3], multilabel=True, feat={"_N": None}).multilabel


def test_features_that_are_not_finite_are_left_to_training():
    assert task(feat={"_N": torch.full((NODES, 5), float("nan"))}).feat["_N"].isnan().all()


PARTS = {"train": torch.tensor([0, 1]), "val": torch.tensor([2, 3]), "test": torch.tensor([4, 5])}
TURNED = {"train": torch.tensor([2, 3]), "val": torch.tensor([4, 5]), "test": torch.tensor([0, 1])}


def same(split, expected):
    return list(split) == list(expected) and all(split[part].equal(expected[part]) for part in split)


def test_classes_without_names_are_called_by_their_numbers():
    assert task(class_names=()).class_names == ("0", "1", "2")


def test_the_first_of_several_splits_is_in_force_unless_one_is_given():
    split = {part: torch.empty(0).long() for part in PARTS}
    assert same(task(splits=(TURNED, PARTS), **split).split, TURNED)
    assert same(NodeData(**{**vars(task(splits=(TURNED, PARTS))), **split}).split, TURNED)
    assert same(task(splits=(TURNED, PARTS)).split, PARTS)


def test_every_seed_takes_a_split_of_its_own_counted_on_from_the_first():
    several = task(splits=(PARTS, TURNED))
    for number, expected in enumerate((PARTS, TURNED, PARTS, TURNED)):
        found = several.with_split(number)
        assert same(found.split, expected) and found.val.equal(expected["val"]) and len(found.splits) == 2
        assert found.graph is several.graph and same(several.split, PARTS)
    assert several.with_split(1).with_split(0).train.equal(PARTS["train"])
    one = task()
    assert one.with_split(3) is one and same(one.split, PARTS)


def test_features_of_edges_belong_to_one_relation():
    feat = torch.ones(3, 2)
    assert task(edge_feat=feat).edge_feat is feat


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"target": "film"}, "toy: target: expected one of _N, got 'film'"),
        ({"class_names": ("a",)}, "toy: class_names: expected 3 names, got 1"),
        ({"feat": {}}, "toy: feat: expected the node types _N, got "),
        (
            {"feat": {"_N": torch.ones(6, 5)}},
            r"toy: features of _N: expected \[N, F\] with N = 7, got \[6, 5\]",
        ),
        ({"feat": {"_N": torch.ones(7)}}, r"toy: features of _N: expected \[N, F\] with N = 7, got \[7\]"),
        ({"feat": {"_N": torch.ones(7, 5).double()}}, "expected torch.float32, got torch.float64"),
        ({"label": torch.zeros(6).long()}, r"toy: label: expected \[7\], got \[6\]"),
        ({"label": torch.zeros(7)}, "toy: label: expected torch.int64, got torch.float32"),
        ({"label": torch.tensor([0, 1, 2, 0, 1, 3, -1])}, "toy: label: expected values from -1 to 2, got 3"),
        ({"label": torch.tensor([0, 1, 2, 0, 1, 2, -2])}, "toy: label: expected values from -1 to 2, got -2"),
        (
            {"label": torch.full((7, 3), 0.5), "multilabel": True},
            "toy: label: expected only 0 and 1, got 0.5",
        ),
        ({"label": torch.ones(7, 2), "multilabel": True}, r"toy: label: expected \[7, 3\], got \[7, 2\]"),
        ({"train": torch.tensor([]).long()}, "toy: train: expected a non-empty list of int64 ids"),
        ({"train": torch.tensor([0.0])}, "toy: train: expected a non-empty list of int64 ids"),
        ({"test": torch.tensor([4, 7])}, "toy: test: expected ids from 0 to 6, got 7"),
        ({"test": torch.tensor([4, -1])}, "toy: test: expected ids from 0 to 6, got -1"),
        ({"val": torch.tensor([2, 2])}, "toy: val: expected distinct ids, got 1 repeated"),
        ({"test": torch.tensor([4, 2])}, "toy: test: expected no id of val, got id 2 in both"),
        ({"test": torch.tensor([4, 6])}, "toy: test: expected only labelled nodes, got node 6 with label -1"),
        ({"num_classes": 0, "class_names": ()}, "toy: num_classes: expected 1 or more, got 0"),
        ({"val": torch.tensor([]).long(), "splits": (PARTS,)}, "toy: val: expected a non-empty list of int64 ids"),
        (
            {"splits": (PARTS, {**PARTS, "val": torch.tensor([2, 7])})},
            r"toy: splits\[1\].val: expected ids from 0 to 6, got 7",
        ),
        (
            {"splits": (PARTS, {**PARTS, "test": torch.tensor([3])})},
            r"toy: splits\[1\].test: expected no id of val, got id 3 in both",
        ),
        (
            {"splits": ({"train": torch.tensor([0]), "valid": torch.tensor([1]), "test": torch.tensor([2])},)},
            r"toy: splits\[0\]: expected the parts train, val, test, got train, valid, test",
        ),
        ({"splits": (PARTS,), "test": torch.tensor([4, 2])}, "toy: test: expected no id of val, got id 2 in both"),
        (
            {"edge_feat": torch.ones(2, 4)},
            r"toy: edge_feat: expected \[E, F\] float32 with E = 3, got torch.float32 \[2, 4\]",
        ),
        ({"edge_feat": torch.ones(3, 4).double()}, "toy: edge_feat: expected .*got torch.float64"),
        (
            {
                "graph": dgl.heterograph({("_N", "a", "_N"): ([0], [1]), ("_N", "b", "_N"): ([0], [1])}, {"_N": NODES}),
                "edge_feat": torch.ones(2, 4),
            },
            "toy: edge_feat: expected a graph of one relation, got one of 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        task(**changes)
