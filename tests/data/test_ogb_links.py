"""OGB's sets of links by the names of their cards, through OGB's own files: the split and the pairs are OGB's."""

import dataclasses

import numpy as np
import pytest
import torch

import hgat.data
from hgat.data import PairData, ogb, ogb_samples
from hgat.errors import DataError
from hgat.tasks.links import Links, _measures
from hgat.tasks.nodes import NoGraph

NAMES = {"ogbl-collab": "hits@50", "ogbl-ddi": "hits@20", "ogbl-ppa": "hits@100", "ogbl-citation2": "mrr"}
NODES = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ogbl")
    for name in NAMES:
        ogb_samples.write_sample(name, folder, nodes=NODES)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_split_and_pairs_are_what_ogbs_loader_gives(root, name):
    data, found = hgat.data.load(name, root), ogb.load(name, root)
    assert isinstance(data, PairData) and (data.name, data.metric) == (name, NAMES[name]) and data.stands_in
    assert data.directed == (name == "ogbl-citation2")
    assert data.counts()["nodes"] == NODES and set(data.feat) == {"_N"}
    if found.feat["_N"] is None:
        assert data.feat["_N"] is None and name == "ogbl-ddi"
    else:
        assert data.feat["_N"].equal(found.feat["_N"])
    for part in ("train", "val", "test"):
        src, dst = data.links[part]
        of = found.split[part]
        if name == "ogbl-citation2":
            assert src.equal(of["source_node"]) and dst.equal(of["target_node"])
        else:
            assert torch.stack([src, dst], 1).equal(of["edge"])
        if part == "train":
            continue
        src, dst = data.negatives[part]
        if name == "ogbl-citation2":
            assert src.equal(of["source_node"].unsqueeze(1)) and dst.equal(of["target_node_neg"])
            assert dst.shape == (len(of["source_node"]), 1000)
        else:
            assert torch.stack([src, dst], 1).equal(of["edge_neg"])
    # The message graph holds the training links and no other.
    edges = {tuple(sorted(pair)) for pair in zip(*(end.tolist() for end in data.graph.edges()), strict=True)}
    parts = {p: {tuple(sorted(x)) for x in zip(*(e.tolist() for e in data.links[p]), strict=True)} for p in data.links}
    assert edges == parts["train"] and not edges & (parts["val"] | parts["test"])


@pytest.mark.parametrize("name", NAMES)
def test_the_task_scores_them_as_ogb_does(root, name):
    data = hgat.data.load(name, root)
    task = Links(data)
    task.check(data.metric, [])
    assert task.for_seed(3).shown() is task.shown(), "the split is OGB's, whatever the seed"
    control = task.controls["adamic_adar"]
    inputs = control.prepare(task.shown())
    model = control.build(task.shown(), inputs)
    right, wrong = task._scores(model, inputs, "test")
    assert right.shape == data.links["test"][0].shape and wrong.shape == data.negatives["test"][1].shape
    theirs = ogb.load(name, root).evaluate(torch.from_numpy(right), torch.from_numpy(wrong))
    ours = _measures(right, wrong)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=1e-5)
    assert task.evaluate(model, inputs, "test", data.metric)[0] == pytest.approx(theirs[data.metric], rel=1e-5)
    assert ours["auc"] > 60, "what is planted is there"
    assert np.isfinite(task.evaluate(model, inputs, "train", "auc")[0])


def test_a_directed_set_tells_both_directions_apart(root):
    data = hgat.data.load("ogbl-citation2", root)
    task = Links(data, out_feats=4)
    rows = torch.randn(NODES, 4)
    src, dst = data.links["train"]
    assert not torch.allclose(task._products(rows, src, dst), task._products(rows, dst, src))


def test_nodes_without_features_train_nothing_without_a_graph(root):
    task = Links(hgat.data.load("ogbl-ddi", root))
    model = NoGraph.build(task.shown(), NoGraph.prepare(task.shown()))
    assert task.evaluate(model, (), "val", "auc")[0] == 50.0


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("ogbl-ddi", {"edge_neg": None}, "split: expected edge, edge_neg of val, got no edge_neg"),
        ("ogbl-ddi", {"edge": torch.zeros(3, 3)}, r"split: edge: expected \[M, 2\], got \[3, 3\]"),
        ("ogbl-ddi", {"edge": torch.full((3, 2), NODES)}, f"links of val: expected ids of nodes from 0 to {NODES - 1}"),
        (
            "ogbl-citation2",
            {"target_node": None},
            "expected source_node, target_node, target_node_neg of val, got no",
        ),
    ],
)
def test_a_split_of_another_form_is_one_sentence(root, monkeypatch, name, change, sentence):
    real = ogb.load

    def changed(*args, **kwargs):
        found = real(*args, **kwargs)
        part = {key: value for key, value in {**found.split["val"], **change}.items() if value is not None}
        return dataclasses.replace(found, split={**dict(found.split), "val": part})

    monkeypatch.setattr(ogb, "load", changed)
    with pytest.raises(DataError, match=sentence) as error:
        hgat.data.load(name, root)
    assert "\n" not in str(error.value)
