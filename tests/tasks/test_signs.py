"""The task of signs: its loss and scores by hand, its parts, and that no held-out sign is seen."""

import dataclasses

import dgl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from toys import camps

import hgat.data
from hgat import models, tasks
from hgat.data import NodeData, SignedData
from hgat.errors import RecipeError
from hgat.models import Batch
from hgat.tasks.signs import Signs
from hgat.train import run
from hgat.train.recipe import Recipe, Train

SPLIT = {"val_share": 0.2, "test_share": 0.2}


def small():
    """Nodes 0 to 3: 0 likes 1 and 2 and hates 3; 1 and 0 are of two minds about each other."""
    src, dst = torch.tensor([0, 0, 0, 1, 2, 3, 1]), torch.tensor([1, 2, 3, 0, 0, 1, 1])
    sign = torch.tensor([1, 1, -1, -1, 1, -1, 1])
    return SignedData("small", dgl.graph((src, dst), num_nodes=5), sign, torch.empty(0, dtype=torch.int64))


class Whole(Signs):
    """Every edge is of every part: for sums by hand."""

    def _draw(self, seed):
        every = torch.arange(self.data.graph.num_edges())
        self.parts = dict.fromkeys(("train", "val", "test"), every)
        self._facts = self._pairs = self._refitted = None


def asked(data, **settings):
    return Signs(data, **{**SPLIT, **settings}).for_seed(0)


def test_loss_is_that_of_the_paper():
    task = Whole(small(), test_share=0.3, batch=None)
    (batch,) = task.batches(None, ())
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positive = {0: {1, 2}, 1: {0}, 2: {0}, 3: set(), 4: set()}  # the loop of node 1 joins nobody
    negative = {0: {3, 1}, 1: {0, 3}, 2: set(), 3: {0, 1}, 4: set()}
    expected = 0.0
    for u in range(5):
        factor = max(1, len(positive[u]) // max(1, len(negative[u])))
        expected += sum(-F.logsigmoid(z[u] @ z[v]) for v in positive[u])
        expected += factor * sum(-F.logsigmoid(-z[u] @ z[v]) for v in negative[u])
    torch.testing.assert_close(task.loss(z, batch), torch.as_tensor(expected))


def test_negatives_are_weighed_by_how_rare_they_are():
    src, dst = torch.tensor([0, 0, 0, 0, 0, 5, 5]), torch.tensor([1, 2, 3, 4, 5, 0, 1])
    sign = torch.tensor([1, 1, 1, 1, -1, -1, 1])
    task = Whole(SignedData("s", dgl.graph((src, dst)), sign), test_share=0.3, batch=None)
    (batch,) = task.batches(None, ())
    u, v, weight = (batch.more[name].tolist() for name in ("u", "v", "weight"))
    found = dict(zip(zip(u, v, strict=True), weight, strict=True))
    assert found[0, 5] == -4 and found[5, 0] == -1 and found[0, 1] == 1 and len(found) == 12


def test_batches_have_every_node_once():
    task = asked(camps(), batch=17)
    whole = Batch(more=dict(zip(("u", "v", "weight"), task._joined(), strict=True)))
    z = torch.randn(60, 4).double()
    parts = list(task.batches(None, ()))
    assert len(parts) == 4
    torch.testing.assert_close(sum(task.loss(z, part) for part in parts), task.loss(z, whole))


def test_scores_are_those_of_a_regression_on_both_ends():
    task, rows = asked(camps()), torch.randn(60, 3)
    fixed = torch.nn.Module()
    fixed.whole = lambda inputs: rows
    ends = {part: task._edges(part) for part in ("train", "test")}
    x = {part: torch.cat([rows[src], rows[dst]], 1).double().numpy() for part, (src, dst, _) in ends.items()}
    fitted = LogisticRegression(max_iter=1000).fit(x["train"], ends["train"][2].numpy())
    sign = ends["test"][2].numpy()
    found, _ = task.results(fixed, (), "auc")
    assert found["test"] == found["more"]["auc"]
    assert found["more"]["auc"] == pytest.approx(100 * roc_auc_score(sign, fitted.predict_proba(x["test"])[:, 1]))
    assert found["more"]["macro_f1"] == pytest.approx(
        100 * f1_score(sign, fitted.predict(x["test"]), average="macro", zero_division=0)
    )
    assert task.evaluate(fixed, (), "test", "auc")[0] == found["test"]


def test_signed_degrees_leave_out_the_edge_itself():
    task = Whole(small(), test_share=0.3)
    control = task.controls["signed_degrees"]
    inputs = control.prepare(task.shown())
    read = control.build(task.shown(), inputs)(*inputs)
    src, dst, sign = task._edges("train")
    # Of the edge from 0 to 1: 0 likes one other and hates one, and nobody else likes 1, whom 3 hates.
    ln2, ln3 = np.log(2), np.log(3)
    expected = torch.tensor([ln2, ln2, 0.0, ln2, 0.5, 0.5, 0.0, 1.0])
    torch.testing.assert_close(read(src, dst, sign)[0], expected.float())
    expected = torch.tensor([ln3, ln2, ln2, ln2, 2 / 3, 1 / 3, 0.5, 0.5])
    torch.testing.assert_close(read(src, dst, None)[0], expected.float())


def test_parts_are_apart_and_drawn_by_the_seed():
    data = camps()
    task = Signs(data, **SPLIT)
    one, other = task.for_seed(1), task.for_seed(2)
    for found in (one, other):
        every = torch.cat([found.parts[part] for part in ("train", "val", "test")])
        assert sorted(every.tolist()) == list(range(900))
        assert found.sizes() == {"train": 576, "val": 144, "test": 180}
    assert not torch.equal(one.parts["test"], other.parts["test"])
    assert torch.equal(one.parts["test"], task.for_seed(1).parts["test"])
    named = dataclasses.replace(data, test=torch.arange(700, 900))
    found = Signs(named, val_share=0.1).for_seed(3)
    assert torch.equal(found.parts["test"], torch.arange(700, 900)) and found.sizes()["val"] == 70
    again = found.refitted()
    assert again is found.refitted() and again.sizes() == {"train": 700, "val": 70, "test": 200}
    assert again.shown().graph.num_edges() == 700 and found.shown().graph.num_edges() == 630


def test_what_is_shown_are_the_training_edges():
    task = asked(camps())
    graph, ids = task.shown().graph, task.parts["train"]
    src, dst = task.data.graph.edges(order="eid")
    assert torch.equal(torch.stack(graph.edges(order="eid")), torch.stack([src[ids], dst[ids]]))
    assert torch.equal(graph.edata["sign"], task.data.sign[ids]) and graph.num_nodes() == 60
    assert task.shown() is task.shown_at("test")


def test_a_seed_prepares_once_for_all_variants():
    task = Signs(camps(), **SPLIT)
    assert task.for_seed(4).shown() is task.for_seed(4).shown()
    assert task.for_seed(4).refitted().shown() is task.for_seed(4).refitted().shown()
    assert task.for_seed(4).shown() is not task.for_seed(5).shown()


class _Leaks(Signs):
    """Shows every edge."""

    def shown(self):
        facts = super().shown()
        graph = self.data.graph.local_var()
        graph.edata["sign"] = self.data.sign
        return dataclasses.replace(facts, graph=graph)


def _trained(monkeypatch, data, task, system):
    """The weights after three epochs."""
    monkeypatch.setattr(hgat.data, "load", lambda name, root: data)
    monkeypatch.setattr(tasks, "find", lambda name: task)
    settings = Train(metric="auc", epochs=3, lr=0.01, stop="last")
    sections = {"data": {"name": "t"}, "task": {"name": "signs", **SPLIT}, "graph": {}, "model": {"system": system}}
    training = run.Experiment(Recipe("t", "t", None, **sections, train=settings, expect=None)).training("ours", 0)
    while training.step():
        pass
    return training.weights()[0]


@pytest.mark.parametrize("system", [name for name in models.available() if "signs" in models.find(name).solves])
def test_held_out_signs_change_no_bit(monkeypatch, system):
    data = camps()
    parts = asked(data).parts
    held = torch.cat([parts["test"], parts["val"][: len(parts["val"]) // 2]])
    sign = data.sign.clone()
    sign[held] = -sign[held]
    other = dataclasses.replace(data, sign=sign)
    seen = [_trained(monkeypatch, d, Signs, system) for d in (data, other)]
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
    leaked = [_trained(monkeypatch, d, _Leaks, system) for d in (data, other)]
    assert any(not torch.equal(leaked[0][name], leaked[1][name]) for name in leaked[0])


def test_a_refit_is_scored_in_every_measure(tmp_path):
    data = camps()
    src, dst = data.graph.edges(order="eid")
    rows = zip(src.tolist(), dst.tolist(), data.sign.tolist(), strict=True)
    (tmp_path / "camps.txt").write_text("".join(f"{u} {v} {s}\n" for u, v, s in rows))
    settings = {
        "data.name": "signed", "data.path": tmp_path / "camps.txt", "task.test_share": 0.2, "task.val_share": 0.3,
        "graph.motifs": 2, "train.metric": "auc", "train.epochs": 4, "train.controls": '["signed_degrees"]',
    }  # fmt: skip
    overrides = [f"{key}={value}" for key, value in settings.items()]
    out = tmp_path / "out"
    found = run.train("sigat-bitcoin-alpha", seeds=1, out=out, overrides=overrides, progress=False).metrics
    for row in (found, *found["controls"].values()):
        assert row["more"]["auc"]["mean"] == row["test"]["mean"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"val_share": 0.0}, "task.val_share: expected a share between 0 and 1, got 0.0"),
        ({"test_share": 1.0}, "task.test_share: expected a share between 0 and 1, got 1.0"),
        ({"test_share": None}, "task.test_share: expected a share, as camps names no test edges, got none"),
        ({"batch": 0}, "task.batch: expected 1 or more, got 0"),
        (
            {"val_share": 0.001},
            "expected edges of both signs in every part, got 1 of at most one in val of camps",
        ),
    ],
)
def test_wrong_settings_are_one_sentence(change, match):
    with pytest.raises(RecipeError, match=match):
        asked(camps(), **change)


def test_other_data_are_refused():
    graph = dgl.graph(([0, 1, 2], [1, 2, 0]))
    ids = {part: torch.tensor([k]) for k, part in enumerate(("train", "val", "test"))}
    nodes = NodeData("n", graph, {"_N": None}, "_N", torch.tensor([0, 1, 0]), **ids, num_classes=2)
    with pytest.raises(RecipeError, match="expected data of the kind SignedData for signs, got NodeData of n"):
        Signs(nodes)
