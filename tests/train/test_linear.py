"""The solved linear control: each step is scikit-learn's solution, validation chooses, a refit ends where it chose."""

import dgl
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hgat.data import NodeData
from hgat.tasks import nodes
from hgat.tasks.nodes import STRENGTHS, Nodes
from hgat.train import checkpoint
from hgat.train.fit import Fit
from hgat.train.recipe import Train

NODES, WIDTH, CLASSES = 67, 11, 4


def fit_of(multilabel=False, label=None, refit=None, **changes):
    """(a fit of the control on a matrix, the matrix); refit: the number of strengths, on training and validation."""
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(NODES, WIDTH, generator=generator) < 0.3).float()
    noise = torch.randn(NODES, CLASSES, generator=generator)
    score = dense @ torch.randn(WIDTH, CLASSES, generator=generator) + 0.5 * noise
    score = (score - score.mean(0)) / score.std(0)
    if label is None:
        label = (score > 0).float() if multilabel else score.argmax(1)
    order = torch.randperm(NODES, generator=generator)
    split = {"train": order[:31], "val": order[31:50], "test": order[50:]}
    graph = dgl.graph(([0], [1]), num_nodes=NODES)
    facts = {"feat": {"_N": None}, "target": "_N", "label": label, "num_classes": CLASSES, "multilabel": multilabel}
    task = Nodes(NodeData("t", graph, **facts, **split))
    settings = Train(**{"metric": "average_precision" if multilabel else "accuracy", "epochs": 3, "lr": 0.1, **changes})
    model = Nodes.controls["neighbours"](WIDTH, CLASSES)
    task = task if refit is None else task.refitted()
    return Fit(model, task, dict.fromkeys(split, (dense.to_sparse(),)), settings, refit), dense


def solved(dense, data, strength, ids=None):
    """Logits of scikit-learn alone, one class after the other."""
    columns, ids = [], data.train if ids is None else ids
    for number in range(CLASSES):
        has = data.label[ids][:, number] if data.multilabel else data.label[ids] == number
        one = LogisticRegression(C=strength, max_iter=1000).fit(dense[ids].numpy(), has.numpy())
        columns.append(one.decision_function(dense.numpy()))
    return torch.from_numpy(np.stack(columns, 1)).float()


@pytest.mark.parametrize("stop", ["metric", "last"])  # of the recipe, which does not choose here
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_step_is_the_solution_and_validation_chooses(multilabel, stop):
    fit, dense = fit_of(multilabel, stop=stop)
    for strength in STRENGTHS:
        more = fit.step()
        torch.testing.assert_close(
            fit.model(*fit.inputs["train"]), solved(dense, fit.task.data, strength), atol=2e-3, rtol=2e-3
        )
        assert more == (strength != STRENGTHS[-1])
    found, _ = fit.finish()
    assert 0 < found["best_epoch"] < len(STRENGTHS) and found["epochs"] == len(STRENGTHS)
    best = solved(dense, fit.task.data, STRENGTHS[found["best_epoch"] - 1])
    torch.testing.assert_close(fit.model(*fit.inputs["train"]), best, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("stop", ["metric", "last"])
def test_a_refit_ends_with_the_strength_that_was_chosen(stop):
    fit, dense = fit_of(refit=4, stop=stop)
    steps = 1
    while fit.step():
        steps += 1
    assert steps == 4
    found, _ = fit.finish()
    assert found["best_epoch"] == 4
    data = fit.task.data
    expected = solved(dense, data, STRENGTHS[3], torch.cat([data.train, data.val]))
    torch.testing.assert_close(fit.model(*fit.inputs["train"]), expected, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(expected, solved(dense, data, STRENGTHS[3]), atol=2e-2)


def test_a_class_that_all_or_none_have_keeps_its_frequency():
    label = torch.zeros(NODES, CLASSES)
    label[:, 1], label[::2, 2], label[::3, 3] = 1, 1, 1
    fit, _ = fit_of(True, label)
    fit.step()
    logits = fit.model(*fit.inputs["train"])
    torch.testing.assert_close(logits[:, 0], torch.full((NODES,), float(np.log(0.5 / 31.5))))
    torch.testing.assert_close(logits[:, 1], torch.full((NODES,), float(np.log(31.5 / 0.5))))
    assert logits[:, 2].std() > 0


def test_a_path_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    whole, _ = fit_of(True)
    while whole.step():
        pass
    expected, _ = whole.finish()
    begun, _ = fit_of(True)
    for _ in range(4):
        begun.step()
    checkpoint.save_tensors(tmp_path / "state", *begun.state())
    left = []
    real = LogisticRegression.fit
    monkeypatch.setattr(nodes.LogisticRegression, "fit", lambda self, *a: left.append(self.C) or real(self, *a))
    fit, _ = fit_of(True)
    fit.restore(*checkpoint.load_tensors(tmp_path / "state"))
    while fit.step():
        pass
    assert sorted(set(left)) == list(STRENGTHS[4:])
    found, _ = fit.finish()
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


def test_the_recipes_control_is_solved():
    """No optimiser, rate or rule of the recipe reaches it."""
    assert Nodes.controls["neighbours"].solutions == len(STRENGTHS)
    ways = [fit_of(epochs=1, patience=1, lr=1e-9, weight_decay=9.0)[0], fit_of(epochs=300, patience=50, lr=1.0)[0]]
    found = []
    for way in ways:
        while way.step():
            pass
        found.append({key: value for key, value in way.finish()[0].items() if key != "seconds"})
    assert found[0] == found[1] and found[0]["epochs"] == len(STRENGTHS)
