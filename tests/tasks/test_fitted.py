"""Controls solved on a table: each is scikit-learn's own answer, validation chooses, and a state brings it back."""

import dgl
import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from toys import neighbours

from hgat.data import NodeData
from hgat.models import Facts
from hgat.tasks import _fitted
from hgat.tasks._fitted import STRENGTHS, TREES, Boosted, BoostedMeans, Linear, LinearMeans
from hgat.tasks.nodes import Nodes
from hgat.train import checkpoint
from hgat.train.fit import Fit
from hgat.train.recipe import Train

ALL = (Boosted, BoostedMeans, Linear, LinearMeans)


def fit_of(cls, data, metric="accuracy", change=lambda table: table):
    task = Nodes(data)
    shown = task.shown()
    inputs = tuple(map(change, cls.prepare(shown)))
    return Fit(
        cls.build(shown, inputs), task, dict.fromkeys(data.split, inputs), Train(metric=metric, epochs=1, lr=1.0)
    )


def to_the_end(fit):
    while fit.step():
        pass
    return fit.finish()[0]


def of_two(seed=0, classes=2, multilabel=False):
    """Classes that a product of two features decides: trees see it, lines do not."""
    random = torch.Generator().manual_seed(seed)
    feat = torch.randn(300, 3, generator=random)
    label = (feat[:, 0] * feat[:, 1] > 0).long()
    if multilabel:
        label = torch.stack([label, 1 - label, torch.ones_like(label)], 1).float()
    split = {"train": torch.arange(150), "val": torch.arange(150, 220), "test": torch.arange(220, 300)}
    graph = dgl.graph(([0], [1]), num_nodes=300)
    classes = 3 if multilabel else classes
    return NodeData("t", graph, {"_N": feat}, "_N", label, num_classes=classes, multilabel=multilabel, **split)


def test_trees_are_those_of_scikit_learn_and_validation_chooses():
    data = of_two()
    fit, table, label = fit_of(Boosted, data), data.feat["_N"].numpy(), data.label[data.train].numpy()
    found = []
    for number, settings in enumerate(TREES):
        more = fit.step()
        tree = HistGradientBoostingClassifier(early_stopping=False, random_state=0, **settings)
        expected = tree.fit(table[data.train], label).decision_function(table)
        np.testing.assert_allclose(fit.model(*fit.inputs["val"])[:, 1], expected, rtol=1e-5)
        assert (fit.model(*fit.inputs["val"])[:, 0] == 0).all() and more == (number < len(TREES) - 1)
        found.append(fit.val_metric)
    best = fit.finish()[0]
    assert best["val"] == max(found) and best["epochs"] == len(TREES) and best["test"] > 85


def test_lines_are_those_of_scikit_learn_on_standardised_columns():
    data = neighbours()
    fit, table = fit_of(Linear, data), data.feat["_N"].double().numpy()
    scaler = StandardScaler().fit(table[data.train])
    for strength in STRENGTHS:
        fit.step()
        for k in range(3):
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(scaler.transform(table[data.train]), (data.label[data.train] == k).numpy())
            expected = model.decision_function(scaler.transform(table))
            np.testing.assert_allclose(fit.model(*fit.inputs["val"])[:, k], expected, rtol=1e-4, atol=1e-5)


def test_trees_see_what_lines_do_not():
    data = of_two()
    assert to_the_end(fit_of(Boosted, data))["test"] > to_the_end(fit_of(Linear, data))["test"] + 20


def test_neighbours_means_tell_what_a_node_alone_does_not():
    random = torch.Generator().manual_seed(0)
    feat, src = torch.randn(300, 2, generator=random), torch.randint(300, (900,), generator=random)
    label = (feat[src.view(300, 3), 0].mean(1) > 0).long()
    graph = dgl.graph((src, torch.arange(300).repeat_interleave(3)))
    data = NodeData("t", graph, {"_N": feat}, "_N", label, num_classes=2, **of_two().split)
    for alone, beside in ((Linear, LinearMeans), (Boosted, BoostedMeans)):
        assert to_the_end(fit_of(beside, data))["test"] > to_the_end(fit_of(alone, data))["test"] + 25


def test_means_are_means_over_the_in_edges_of_each_relation():
    edges = {
        ("a", "r", "b"): ([0, 1, 1, 2], [0, 0, 0, 2]),
        ("b", "s", "b"): ([0, 1], [1, 1]),
        ("b", "not read", "a"): ([0], [0]),
        ("c", "bare", "b"): ([0], [1]),
    }
    graph = dgl.heterograph(edges, num_nodes_dict={"a": 3, "b": 3, "c": 1})
    feat = {
        "a": torch.tensor([[1.0, 0.0], [4.0, 6.0], [5.0, 7.0]]),
        "b": torch.tensor([[1.0], [2.0], [3.0]]),
        "c": None,
    }
    found = _fitted.means(Facts(graph, feat, target="b"))
    log = np.log1p
    expected = {
        "bare": [[log(0)], [log(1)], [log(0)]],
        "r": [[3.0, 4.0, log(3)], [0.0, 0.0, log(0)], [5.0, 7.0, log(1)]],
        "s": [[0.0, log(0)], [1.5, log(2)], [0.0, log(0)]],
    }
    order = [name for _, name, dst in graph.canonical_etypes if dst == "b"]
    columns = np.concatenate([np.array(expected[name]) for name in order], 1)
    np.testing.assert_allclose(found.numpy(), columns, rtol=1e-6)


@pytest.mark.parametrize("cls", ALL)
def test_a_class_that_all_or_none_have_keeps_its_frequency(cls):
    fit = fit_of(cls, of_two(multilabel=True), "micro_f1")
    fit.step()
    answers = fit.model(*fit.inputs["val"])
    torch.testing.assert_close(answers[:, 2], torch.full((300,), float(np.log(150.5 / 0.5))))
    assert answers[:, 0].std() > 0 and torch.isfinite(answers).all()


@pytest.mark.parametrize("cls", ALL)
def test_nodes_without_features_or_neighbours_get_the_frequencies(cls):
    graph = dgl.graph(([0], [1]), num_nodes=300)
    data = of_two()
    bare = NodeData("t", graph, {"_N": None}, "_N", data.label, num_classes=2, **data.split)
    fit = fit_of(cls, bare)
    fit.step()
    answers = fit.model(*fit.inputs["val"])[2:, 1]
    assert answers.max() - answers.min() < 1e-6 and torch.isfinite(answers).all()


@pytest.mark.parametrize("cls", [Boosted, Linear])
def test_values_that_are_not_known_are_taken(cls):
    gone = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) < 0.1
    fit = fit_of(cls, of_two(), change=lambda table: table.masked_fill(gone, float("nan")))
    assert np.isfinite(to_the_end(fit)["test"]) and torch.isfinite(fit.model(*fit.inputs["val"])).all()


@pytest.mark.parametrize("cls", ALL)
def test_numbers_are_answered_by_regressors(cls):
    random = torch.Generator().manual_seed(0)
    feat, noise = torch.randn(200, 3, generator=random), torch.randn(200, generator=random)
    label = feat[:, 0] - feat[:, 1] + 0.1 * noise
    label[150:] = float("nan")
    graph = dgl.graph(([0], [1]), num_nodes=200)
    facts = {"target": "_N", "label": label, "train": torch.arange(150), "num_classes": 1, "numeric": True}
    shown = Facts(graph, {"_N": feat}, **facts)
    inputs = cls.prepare(shown)
    model = cls.build(shown, inputs)
    model.solve(shown, inputs, 3)
    table = inputs[0].double().numpy()
    if issubclass(cls, Boosted):
        own = HistGradientBoostingRegressor(early_stopping=False, random_state=0, **TREES[3])
        expected = own.fit(table[:150], label[:150]).predict(table)
    else:
        scaler = StandardScaler().fit(table[:150])
        own = Ridge(1 / STRENGTHS[3]).fit(scaler.transform(table[:150]), label[:150])
        expected = own.predict(scaler.transform(table))
    np.testing.assert_allclose(model(*inputs)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_columns_that_depend_on_one_another_are_solved_without_a_warning(recwarn):
    nodes = 200_000
    column = torch.randn(nodes, 1, generator=torch.Generator().manual_seed(0))
    facts = {"target": "_N", "label": column[:, 0], "train": torch.arange(nodes), "num_classes": 1, "numeric": True}
    shown = Facts(dgl.graph(([0], [1]), num_nodes=nodes), {"_N": column.repeat(1, 3)}, **facts)
    model = Linear.build(shown, Linear.prepare(shown))
    model.solve(shown, Linear.prepare(shown), len(STRENGTHS) - 1)
    assert not recwarn.list and (model.answers[:, 0] - column[:, 0]).abs().max() < 0.01


@pytest.mark.parametrize("cls", ALL)
def test_a_state_brings_the_answers_back(cls, tmp_path):
    whole = fit_of(cls, neighbours())
    expected = to_the_end(whole)
    begun = fit_of(cls, neighbours())
    begun.step()
    begun.step()
    checkpoint.save_tensors(tmp_path / "state", *begun.state())
    again = fit_of(cls, neighbours())
    again.restore(*checkpoint.load_tensors(tmp_path / "state"))
    assert torch.equal(again.model(*again.inputs["val"]), begun.model(*begun.inputs["val"]))
    found = to_the_end(again)
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    other = cls.build(again.task.shown(), again.inputs["val"])
    other.load_state_dict(again.model.state_dict())
    assert torch.equal(other(*again.inputs["val"]), whole.model(*whole.inputs["val"]))
