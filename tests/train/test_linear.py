"""The solved linear control: each step is scikit-learn's solution, validation chooses, a refit ends where it chose."""

import types

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hgat.train import checkpoint, controls, linear
from hgat.train.linear import STRENGTHS, LogisticPath
from hgat.train.recipe import Train

NODES, WIDTH, CLASSES = 67, 11, 4


def fit_of(multilabel=False, label=None, refit=False, **changes):
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(NODES, WIDTH, generator=generator) < 0.3).float()
    noise = torch.randn(NODES, CLASSES, generator=generator)
    score = dense @ torch.randn(WIDTH, CLASSES, generator=generator) + 0.5 * noise
    score = (score - score.mean(0)) / score.std(0)
    if label is None:
        label = (score > 0).float() if multilabel else score.argmax(1)
    order = torch.randperm(NODES, generator=generator)
    task = types.SimpleNamespace(label=label, multilabel=multilabel, num_classes=CLASSES, feat={})
    task.train, task.val, task.test = order[:31], order[31:50], order[50:]
    settings = Train(**{"metric": "average_precision" if multilabel else "accuracy", "epochs": 3, "lr": 0.1, **changes})
    model = controls._Neighbours(WIDTH, CLASSES)
    return LogisticPath(model, [dense.to_sparse()], task, settings, refit=refit), dense


def solved(dense, task, strength):
    """Logits of scikit-learn alone, one class after the other."""
    columns = []
    for number in range(CLASSES):
        has = task.label[task.train][:, number] if task.multilabel else task.label[task.train] == number
        one = LogisticRegression(C=strength, max_iter=1000).fit(dense[task.train].numpy(), has.numpy())
        columns.append(one.decision_function(dense.numpy()))
    return torch.from_numpy(np.stack(columns, 1)).float()


@pytest.mark.parametrize("stop", ["metric", "last"])  # of the recipe, which does not choose here
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_step_is_the_solution_and_validation_chooses(multilabel, stop):
    fit, dense = fit_of(multilabel, stop=stop)
    for strength in STRENGTHS:
        more = fit.step()
        torch.testing.assert_close(fit.model(*fit.inputs), solved(dense, fit.task, strength), atol=2e-3, rtol=2e-3)
        assert more == (strength != STRENGTHS[-1])
    found = fit.finish()
    assert 0 < found["best_epoch"] < len(STRENGTHS) and found["epochs"] == len(STRENGTHS)
    best = solved(dense, fit.task, STRENGTHS[found["best_epoch"] - 1])
    torch.testing.assert_close(fit.model(*fit.inputs), best, atol=2e-3, rtol=2e-3)


def test_a_refit_ends_with_the_strength_that_was_chosen():
    fit, dense = fit_of(refit=True, epochs=4, stop="last")
    steps = 1
    while fit.step():
        steps += 1
    assert steps == 4
    fit.finish()
    torch.testing.assert_close(fit.model(*fit.inputs), solved(dense, fit.task, STRENGTHS[3]), atol=2e-3, rtol=2e-3)


def test_a_class_that_all_or_none_have_keeps_its_frequency():
    label = torch.zeros(NODES, CLASSES)
    label[:, 1], label[::2, 2], label[::3, 3] = 1, 1, 1
    fit, _ = fit_of(True, label)
    fit.step()
    logits = fit.model(*fit.inputs)
    torch.testing.assert_close(logits[:, 0], torch.full((NODES,), float(np.log(0.5 / 31.5))))
    torch.testing.assert_close(logits[:, 1], torch.full((NODES,), float(np.log(31.5 / 0.5))))
    assert logits[:, 2].std() > 0


def test_a_path_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    whole, _ = fit_of(True)
    while whole.step():
        pass
    expected = whole.finish()
    begun, _ = fit_of(True)
    for _ in range(4):
        begun.step()
    checkpoint.save_tensors(tmp_path / "state", *begun.state())
    left = []
    real = LogisticRegression.fit
    monkeypatch.setattr(linear.LogisticRegression, "fit", lambda self, *a: left.append(self.C) or real(self, *a))
    fit, _ = fit_of(True)
    fit.restore(*checkpoint.load_tensors(tmp_path / "state"))
    while fit.step():
        pass
    assert sorted(set(left)) == list(STRENGTHS[4:])
    found = fit.finish()
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


def test_the_recipes_control_is_solved():
    assert controls._Neighbours.fitted_by is LogisticPath
