import dataclasses
import json
from typing import NamedTuple

import dgl
import pytest
import torch
from torch import nn

import citations
from hgat import ops
from hgat.data import NodeData
from hgat.errors import GraphError, TrainingError
from hgat.graph import relations
from hgat.models import Facts, System, find
from hgat.tasks import nodes
from hgat.tasks._metrics import names
from hgat.tasks.nodes import Nodes
from hgat.train import checkpoint, run, state, train
from hgat.train.fit import Fit
from hgat.train.recipe import Train

NODES, WIDTH, CLASSES = 43, 7, 3


PARTS = ("train", "val", "test")


def some_data(multilabel=False, **changes):
    generator = torch.Generator().manual_seed(1)
    ends = torch.randint(0, NODES, (2, 211), generator=generator)
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.graph(tuple(ends), num_nodes=NODES)))
    label = torch.arange(NODES) % CLASSES
    feat = torch.randn(NODES, WIDTH, generator=generator) + torch.eye(CLASSES, WIDTH)[label]
    if multilabel:
        label = torch.eye(CLASSES)[label] + torch.eye(CLASSES)[(label + 1) % CLASSES]
    order = torch.randperm(NODES, generator=generator)
    parts = {"train": order[:17], "val": order[17:30], "test": order[30:]}
    names = tuple("abc")
    fields = {"name": "t", "graph": graph, "feat": {"_N": feat}, "target": "_N", "label": label, **parts}
    return NodeData(**{**fields, "num_classes": CLASSES, "class_names": names, "multilabel": multilabel, **changes})


def settings(**changes):
    return Train(**{"metric": "accuracy", "epochs": 50, "lr": 0.01, **changes})


def fit_of(model, inputs, data, **changes):
    return Fit(model, Nodes(data), dict.fromkeys(PARTS, inputs), settings(**changes))


def gat_fit(data=None, seed=0, **changes):
    data = data or some_data()
    torch.manual_seed(seed)
    model = find("gat").for_graph(data.graph, data.feat, CLASSES, "_N", hidden=5, heads=[2, 1])
    return fit_of(model, (data.graph, data.feat), data, **changes)


class Alone(System):
    """A linear layer that looks at each node alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, CLASSES)

    def forward(self, feat):
        return self.layer(feat)


def alone_fit(data, **changes):
    return fit_of(Alone(), (data.feat["_N"],), data, **changes)


def to_the_end(fit):
    while fit.step():
        pass
    return fit


def finished(fit):
    """What a fit says of the weights that it chose."""
    numbers, tensors = fit.finish()
    assert tensors == {}
    return numbers


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


# Each rule with patience 2: what validation gives, as (metric, loss), the epoch that is kept, the last epoch.
SCRIPTS = {
    "metric: the highest, then patience": ("metric", [(5, 1), (7, 2), (6, 0.1), (6, 0.1), (9, 0)], 2, 4),
    "metric: a tie goes to the lower loss": (
        "metric",
        [(5, 1), (7, 0.9), (7, 0.8), (7, 0.8), (7, 0.9)],
        3,
        5,
    ),
    "metric: a tie with a higher loss is none": ("metric", [(7, 0.8), (7, 0.9), (7, 0.8)], 1, 3),
    "metric: each new best starts the wait again": (
        "metric",
        [(1, 9), (0, 9), (2, 9), (0, 9), (3, 9), (0, 9), (0, 9)],
        5,
        7,
    ),
    "loss: the lowest, whatever the metric": (
        "loss",
        [(5, 1), (9, 0.9), (9, 1), (1, 0.8), (9, 0.9), (9, 2)],
        4,
        6,
    ),
    "loss: a tie is none": ("loss", [(5, 0.5), (9, 0.5), (9, 0.5)], 1, 3),
    "either: one of the two goes on, both keep": (
        "either",
        [(50, 1), (60, 1.1), (55, 0.9), (59, 1), (60, 0.9), (59, 1), (60, 2), (1, 9), (1, 9), (99, 0)],
        5,
        9,
    ),
    "either: bests of different epochs": (
        "either",
        [(50, 1), (70, 2), (1, 0.5), (60, 0.6), (69, 0.51)],
        1,
        5,
    ),
    "either: ties count": ("either", [(50, 1), (50, 1), (50, 1), (40, 2), (40, 2)], 3, 5),
    "mean: above the mean of the last two": ("mean", [(9, 4), (9, 2), (0, 3), (0, 2.4), (9, 2.8), (9, 0)], 2, 5),
    "mean: of the last two and no more": ("mean", [(9, 10), (9, 1), (9, 1.5), (9, 1.2), (9, 1.4), (9, 0)], 2, 5),
    "mean: never before there are two": ("mean", [(9, 1), (9, 5), (9, 2), (9, 9), (9, 0)], 1, 4),
    "mean: the lowest loss is kept, the first of equal ones": (
        "mean",
        [(1, 2), (9, 1), (99, 1), (50, 1), (9, 3), (9, 0)],
        2,
        5,
    ),
    "mean: no more epochs": ("mean", [(1, 3), (1, 2), (1, 1)], 3, 3),
    "last: all epochs": ("last", [(9, 0.1), (1, 1), (1, 2), (1, 3), (1, 4), (0, 5)], 6, 6),
    "metric: no more epochs": ("metric", [(1, 9), (2, 9), (3, 9), (1, 9)], 3, 4),
    "loss: no more epochs": ("loss", [(1, 9), (1, 8), (1, 7)], 3, 3),
    "either: no more epochs": ("either", [(1, 9)], 1, 1),
}


# The same with least 4.
LATER = {
    "metric: nothing better ends at the least": ("metric", [(5, 1), (4, 1), (4, 1), (4, 1), (9, 1)], 1, 4),
    "metric: a best on the way is waited for": (
        "metric",
        [(5, 1), (4, 1), (4, 1), (6, 1), (4, 1), (4, 1), (9, 1)],
        4,
        6,
    ),
    "loss: nothing better ends at the least": ("loss", [(5, 1), (5, 2), (5, 2), (5, 2), (5, 0)], 1, 4),
    "either: nothing better ends at the least": ("either", [(5, 1), (4, 2), (4, 2), (4, 2), (5, 0)], 1, 4),
    "mean: above the mean too early": ("mean", [(5, 1), (5, 3), (5, 4), (5, 2), (5, 3), (5, 4), (5, 0)], 1, 6),
    "mean: above the mean at the least": ("mean", [(5, 1), (5, 3), (5, 1), (5, 9), (5, 0)], 1, 4),
}


def scripted(rule, values, monkeypatch, killed, **changes):
    """(a fit to which validation says these, its weights after every epoch); killed: as one that is begun anew."""
    given = iter([(float(metric), float(loss)) for metric, loss in values])
    monkeypatch.setattr(Nodes, "evaluate", lambda task, model, inputs, part, metric: next(given))

    def fresh():
        return gat_fit(stop=rule, patience=2, epochs=len(values), **changes)

    fit, after, more = fresh(), {}, True
    while more:
        more = fit.step()
        after[fit.epoch] = weights(fit.model)
        if killed:
            saved = fit.state()
            fit = fresh()
            fit.restore(*saved)
            assert fit.more == more
    monkeypatch.undo()
    return fit, after


def check_script(script, monkeypatch, killed, **changes):
    rule, values, kept, last = script
    fit, after = scripted(rule, values, monkeypatch, killed, **changes)
    assert (fit.best_epoch, fit.epoch) == (kept, last)
    assert not torch.equal(after[1]["layers.0.fc.weight"], after[last]["layers.0.fc.weight"]) or last == 1
    result = finished(fit)
    assert (result["best_epoch"], result["epochs"]) == (kept, last)
    same(weights(fit.model), after[kept])


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("script", SCRIPTS)
def test_stopping_rules(script, killed, monkeypatch):
    check_script(SCRIPTS[script], monkeypatch, killed)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("script", LATER)
def test_no_rule_ends_a_training_before_the_least_of_epochs(script, killed, monkeypatch):
    check_script(LATER[script], monkeypatch, killed, least=4)


def test_the_losses_that_are_compared_are_saved(monkeypatch):
    fit, _ = scripted("mean", [(9, 4), (9, 2), (9, 2.5), (9, 1)], monkeypatch, False)
    tensors, numbers = fit.state()
    assert numbers["val_losses"] == [2.5, 1.0]
    json.dumps(numbers, allow_nan=False)
    for wrong, sentence in (
        ([], "val_losses: expected a list of 2, got a list of 0"),
        ([1.0], "val_losses: expected a list of 2, got a list of 1"),
        ([2.5, 1.0, 1.0], "val_losses: expected a list of 2, got a list of 3"),
        ([2.5, "1.0"], "val_losses: expected a finite number with a point, got 1.0"),
        ([2.5, float("nan")], "val_losses: expected a finite number with a point, got nan"),
        ([2.5, -1.0], "val_losses: expected a number from 0 to inf, got -1.0"),
        (None, "val_losses: expected a list of 2, got None"),
    ):
        with pytest.raises(state.Unfit, match=sentence):
            fit.restore(tensors, {**numbers, "val_losses": wrong})
    other, _ = scripted("loss", [(9, 4), (9, 2)], monkeypatch, False)
    tensors, numbers = other.state()
    assert numbers["val_losses"] == []
    with pytest.raises(state.Unfit, match="val_losses: expected a list of 0, got a list of 2"):
        other.restore(tensors, {**numbers, "val_losses": [4.0, 2.0]})


@pytest.mark.parametrize("stop", ["loss", "mean"])
def test_losses_and_metrics_below_zero_go_on_where_the_task_has_such(stop, monkeypatch):
    """As a log-likelihood of densities is, and R2."""
    script = [(-900.0, 4.0), (-20.0, -2.0), (-30.0, -1.0)]
    fit, _ = scripted(stop, script, monkeypatch, False)
    tensors, numbers = fit.state()
    with pytest.raises(state.Unfit, match="best_metric: expected a number from 0.0 to 100.0, got -20.0"):
        fit.restore(tensors, numbers)
    monkeypatch.setattr(nodes.Nodes, "bounds", (-float("inf"), 100.0))
    with pytest.raises(state.Unfit, match="best_loss: expected a number from 0 to inf, got -2.0"):
        fit.restore(tensors, numbers)
    monkeypatch.setattr(nodes.Nodes, "least_loss", -float("inf"))
    fit.restore(tensors, numbers)
    assert (fit.best_metric, fit.best_loss, fit.best_epoch) == (-20.0, -2.0, 2)


def test_the_result_is_that_of_the_kept_weights():
    fit = to_the_end(gat_fit(patience=5))
    result = finished(fit)
    assert result["best_epoch"] < result["epochs"] <= 50
    model, data = fit.model.eval(), fit.task.data
    logits = model(data.graph, data.feat["_N"])
    for part in ("val", "test"):
        ids = getattr(data, part)
        right = (logits[ids].argmax(1) == data.label[ids]).double().mean()
        assert result[part] == pytest.approx(100 * float(right))
    loss = nn.functional.cross_entropy(logits[data.val], data.label[data.val])
    assert result["val_loss"] == pytest.approx(loss.item())


MEAN = {"stop": "mean", "patience": 3, "least": 11}


@pytest.mark.parametrize("at", [1, 4, 8])
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adamw", "clip": 0.1}, {"stop": "either"}, {"stop": "last"}, MEAN]
)
def test_state_and_restore_change_no_bit(changes, at, tmp_path):
    changes = {"epochs": 11, "weight_decay": 0.01, **changes}
    whole = to_the_end(gat_fit(**changes))
    generator = torch.get_rng_state()

    first = gat_fit(**changes)
    for _ in range(at):
        assert first.step()
    tensors, numbers = first.state()
    checkpoint.save_tensors(tmp_path / "state", tensors, numbers)
    to_the_end(first)  # what happens after the state was saved must not reach it
    second = gat_fit(seed=99, **changes)
    second.step()
    second.restore(*checkpoint.load_tensors(tmp_path / "state"))
    assert second.epoch == at
    to_the_end(second)

    assert torch.equal(torch.get_rng_state(), generator)
    (tensors, numbers), (expected, counts) = second.state(), whole.state()
    same(tensors, expected)
    assert numbers.pop("seconds") > 0 and counts.pop("seconds") > 0
    assert numbers == counts
    assert {k: v for k, v in finished(second).items() if k != "seconds"} == {
        k: v for k, v in finished(whole).items() if k != "seconds"
    }
    same(weights(second.model), weights(whole.model))


def test_dropout_makes_a_difference_to_a_run():
    """Without it the generator's state would not be tested."""
    one, other = gat_fit(), gat_fit()
    one.step()
    torch.rand(1)
    one.step(), other.step(), other.step()
    assert not torch.equal(one.model.layers[0].fc.weight, other.model.layers[0].fc.weight)


class Parts(System):
    """Three linear layers, one behind the other, each with its own rates, the last with the recipe's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)])

    def forward(self, feat):
        for layer in self.layers:
            feat = layer(feat)
        return feat

    def groups(self):
        first, second, third = (list(layer.parameters()) for layer in self.layers)
        return [
            {"params": first, "weight_decay": 0.5, "lr": 0.03},
            {"params": second, "weight_decay": 0.0},
            {"params": []},
            {"params": third},
        ]


class Penalty(Parts):
    """The task's loss and a term of its own, which reads the answer, too."""

    def objective(self, loss, inputs, batch):
        answer = self.answer(inputs, batch)
        return loss(answer, batch) + 0.3 * answer.square().mean() + 0.1 * self.layers[0].weight.abs().sum()

    def groups(self):
        return System.groups(self)


RATES = {"stop": "last", "epochs": 9, "lr": 0.02, "weight_decay": 0.01}


def parts_fit(cls, data=None, seed=3, **changes):
    data = data or some_data()
    torch.manual_seed(seed)
    return fit_of(cls(), (data.feat["_N"],), data, **{**RATES, **changes})


def by_hand(groups, term, optimizer=torch.optim.Adam, clip=None):
    """(weights, the last epoch's loss) of the same model, trained by PyTorch alone."""
    data = some_data()
    torch.manual_seed(3)
    model = Parts()
    feat, ids = data.feat["_N"], data.train
    optimizer = optimizer(groups(model), lr=RATES["lr"], weight_decay=RATES["weight_decay"])
    for _ in range(RATES["epochs"]):
        answer = model(feat)
        loss = nn.functional.cross_entropy(answer[ids], data.label[ids]) + term(model, answer)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return weights(model), loss.item()


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_groups_of_parameters_train_as_pytorchs_own(optimizer, clip):
    def groups(model):
        first, second, third = (list(layer.parameters()) for layer in model.layers)
        rates = [{"weight_decay": 0.5, "lr": 0.03}, {"weight_decay": 0.0}, {"lr": 0.02, "weight_decay": 0.01}]
        return [{"params": params, **own} for params, own in zip((first, second, third), rates, strict=True)]

    fit = to_the_end(parts_fit(Parts, optimizer=optimizer, clip=clip))
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    expected, loss = by_hand(groups, lambda *_: 0, kinds[optimizer], clip)
    same(weights(fit.model), expected)
    assert fit.loss == loss
    alike, _ = by_hand(lambda model: model.parameters(), lambda *_: 0, kinds[optimizer], clip)
    assert all(not torch.equal(alike[name], expected[name]) for name in expected), "groups make a difference"


def test_groups_of_parameters_go_on_as_they_were(tmp_path):
    whole = to_the_end(parts_fit(Parts))
    begun = parts_fit(Parts)
    for _ in range(4):
        begun.step()
    checkpoint.save_tensors(tmp_path / "state", *begun.state())
    fit = parts_fit(Parts, seed=4)
    fit.restore(*checkpoint.load_tensors(tmp_path / "state"))
    same(weights(to_the_end(fit).model), weights(whole.model))
    rates = [(group["lr"], group["weight_decay"]) for group in fit.optimizer.param_groups]
    assert rates == [(0.03, 0.5), (0.02, 0.0), (0.02, 0.01)]


def test_a_term_of_the_systems_own_is_trained_on_the_sum():
    def term(model, answer):
        return 0.3 * answer.square().mean() + 0.1 * model.layers[0].weight.abs().sum()

    fit = to_the_end(parts_fit(Penalty))
    expected, loss = by_hand(lambda model: model.parameters(), term)
    for name, value in weights(fit.model).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)  # the sum in another order
    assert fit.loss == pytest.approx(loss, rel=1e-5)
    plain, _ = by_hand(lambda model: model.parameters(), lambda *_: 0)
    assert not torch.allclose(plain["layers.0.weight"], expected["layers.0.weight"], atol=1e-2)
    # What chooses the epoch is the task's own loss.
    data = fit.task.data
    alone = nn.functional.cross_entropy(fit.model(data.feat["_N"])[data.val], data.label[data.val])
    assert fit.val_loss == pytest.approx(alone.item()) and abs(fit.loss - fit.val_loss) > 0.1


def spoiled(part, value=float("nan")):
    """Data in which two nodes of one part of the split have features that are not finite."""
    data = some_data()
    feat = data.feat["_N"].clone()
    first, second = sorted(getattr(data, part).tolist())[1:3]
    feat[first, 2] = feat[second, 0] = value
    return dataclasses.replace(data, feat={"_N": feat}), first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite(value):
    # The gradient of a layer's weights sees every node, so a test node's features spoil the first step too.
    for part, where in (("train", "at epoch 1"), ("val", "on the val nodes"), ("test", "on the val nodes")):
        data, first = spoiled(part, value)
        fit = alone_fit(data, epochs=2)
        cause = f"the features of 2 '_N' nodes are not finite, first node {first}$"
        with pytest.raises(TrainingError, match=f"expected a finite loss, got .* {where}: {cause}"):
            to_the_end(fit)
        with pytest.raises(TrainingError, match=f"expected a finite loss, got .* on the {part} nodes: {cause}"):
            fit.task.evaluate(Alone(), fit.inputs[part], part, "accuracy")


def test_the_error_names_the_node_type():
    generator = torch.Generator().manual_seed(1)
    ends = torch.randint(0, 5, (2, 31), generator=generator)
    graph = dgl.heterograph({("user", "likes", "film"): tuple(ends)}, {"user": 5, "film": NODES})
    base = some_data()
    feat = {"user": torch.tensor([[0.0], [1], [2], [float("nan")], [4]]), "film": base.feat["_N"]}
    data = dataclasses.replace(base, graph=graph, feat=feat, target="film")
    joined = relations.prepare(graph)
    model = find("rgat").for_graph(joined, data.feat, CLASSES, "film")
    with pytest.raises(TrainingError, match="the features of 1 'user' nodes are not finite, first node 3"):
        to_the_end(fit_of(model, (joined, data.feat), data, epochs=2))


@pytest.mark.parametrize("metric", names())
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_step_that_is_too_long(metric, multilabel):
    """The metric is not asked about logits that are not finite."""
    with pytest.raises(TrainingError, match="expected a finite loss, got (nan|inf) .*; a smaller train.lr may help"):
        to_the_end(gat_fit(some_data(multilabel), lr=1e30, metric=metric))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite(value, monkeypatch):
    fit = gat_fit()
    monkeypatch.setattr(nodes.Nodes, "_loss", lambda *_: torch.tensor(value))
    with pytest.raises(TrainingError, match=f"got {value} at epoch 1; a smaller train.lr may help"):
        fit.step()
    with pytest.raises(TrainingError, match=f"got {value} on the test nodes; a smaller train.lr may help"):
        fit.evaluate("test")


def test_a_metric_that_is_no_number_is_a_sentence(monkeypatch):
    fit = gat_fit()
    monkeypatch.setattr(nodes.Nodes, "evaluate", lambda *_: (float("nan"), 1.0))
    with pytest.raises(TrainingError, match="training: expected a finite accuracy on the val part, got nan"):
        to_the_end(fit)


@pytest.mark.parametrize("metric", names())
def test_sets_of_labels_are_trained_too(metric):
    fit = alone_fit(some_data(multilabel=True), metric=metric, lr=0.1)
    fit.step()
    before = fit.loss
    to_the_end(fit)
    assert fit.loss < before and 0 < finished(fit)["test"] <= 100


def test_weights_that_are_shared_are_saved_and_restored(tmp_path):
    """GATv2 gives both ends of an edge one weight."""
    data = some_data()
    model = find("gatv2").for_graph(data.graph, data.feat, CLASSES, "_N", hidden=5, heads=[2, 1], share_weights=True)
    fit = fit_of(model, (data.graph, data.feat), data)
    fit.step()
    checkpoint.save_tensors(tmp_path / "state", *fit.state())
    state = weights(fit.model)
    fit.step()
    fit.restore(*checkpoint.load_tensors(tmp_path / "state"))
    same(weights(fit.model), state)
    ends = fit.model.layers[0]
    assert ends.fc_src.weight is ends.fc_dst.weight


def test_test_labels_influence_nothing():
    data = some_data()
    label = data.label.clone()
    label[data.test] = (label[data.test] + 1) % CLASSES
    one, other = to_the_end(gat_fit(data)), to_the_end(gat_fit(dataclasses.replace(data, label=label)))
    one_result, other_result = finished(one), finished(other)
    for key in ("val", "val_loss", "best_epoch", "epochs"):
        assert one_result[key] == other_result[key]
    assert one_result["test"] != other_result["test"]
    same(weights(one.model), weights(other.model))


@pytest.fixture
def small(tmp_path):
    """Trains the small citation recipe; gives the result."""
    (tmp_path / "r.toml").write_text(citations.RECIPE)

    def run(folder, *overrides, seeds=1, **parts):
        root = citations.write(tmp_path / f"data-{folder}", **parts)
        recipe, out = tmp_path / "r.toml", tmp_path / folder
        return train(str(recipe), root, seeds=seeds, out=out, overrides=overrides, progress=False)

    return run


def test_test_labels_influence_no_part_of_a_whole_run(small):
    flipped = citations.contents()["ty"][:, [1, 2, 0]]
    one = small("one", "train.refit=true", "train.epochs=9", seeds=2)
    other = small("other", "train.refit=true", "train.epochs=9", seeds=2, ty=flipped)
    assert (one.out / "model.safetensors").read_bytes() == (other.out / "model.safetensors").read_bytes()
    for key in ("val", "best_epoch", "epochs"):
        assert one.metrics[key] == other.metrics[key]
        assert [c[key] for c in one.metrics["controls"].values()] == [
            c[key] for c in other.metrics["controls"].values()
        ]
    assert one.metrics["test"] != other.metrics["test"]


def test_refit_trains_on_all_but_the_test_nodes_for_the_selected_epochs(small, monkeypatch):
    trained, original = [], nodes.Nodes._loss

    def counted(task, logits, label):
        if torch.is_grad_enabled():
            trained.append(label.tolist())
        return original(task, logits, label)

    monkeypatch.setattr(nodes.Nodes, "_loss", counted)
    budget = ("train.epochs=120", "train.patience=20", "train.controls=[]")
    result = small("run", "train.refit=true", *budget)
    data, epochs, (best,) = result.task.data, result.metrics["epochs"][0], result.metrics["best_epoch"]
    assert 1 < best < epochs < 120
    assert trained[:epochs] == [data.label[data.train].tolist()] * epochs
    both = data.label[data.train].tolist() + data.label[data.val].tolist()
    assert trained[epochs:] == [both] * best
    # The score is the refitted model's, and the validation score is the one that selected.
    score = result.task.evaluate(result.model, result.inputs, "test", "accuracy")[0]
    assert result.metrics["test"]["values"] == [score]
    selected = small("select", *budget).metrics
    assert selected["val"] == result.metrics["val"] and selected["best_epoch"] == [best]


@pytest.mark.parametrize("stop", ["metric", "loss", "either", "mean"])
def test_refit_takes_its_last_epoch_whatever_validation_says(stop, small, monkeypatch):
    """Its validation nodes are trained on: they can select nothing any more."""
    result = small("run", "train.refit=true", "train.patience=2", f"train.stop={stop}", "train.controls=[]")
    experiment = run.Experiment(result.recipe, result.out.parent / "data-run")
    training = experiment.training("ours", 0, epochs=[6])
    worse = iter(range(100))
    monkeypatch.setattr(Nodes, "evaluate", lambda *_: (100 - next(worse), 1.0 + next(worse)))
    result = to_the_end(training).finish()
    assert (result["best_epoch"], result["epochs"]) == (6, 6)


def test_the_weights_are_those_of_the_seed_that_is_best_on_validation(small):
    result = small("run", "train.epochs=20", "train.controls=[]", seeds=4)
    values = result.metrics["val"]["values"]
    _, about = checkpoint.load_tensors(result.out / "model.safetensors")
    assert len(set(values)) > 1
    assert values[about["seed"]] == max(values) == about["val"]
    score = result.task.evaluate(result.model, result.inputs, "test", "accuracy")[0]
    assert result.metrics["test"]["values"][about["seed"]] == score


def test_the_uniform_control_trains_and_tests_with_uniform_attention(small):
    result = small("run", "train.controls=['uniform']")
    fit = gat_fit_on(result)
    before = weights(fit.model)
    with ops.uniform_attention():
        uniform = finished(to_the_end(fit))
    # Score vectors get no gradient and stay as they were drawn.
    assert torch.equal(fit.model.layers[0].attn_l, before["layers.0.attn_l"])
    assert not torch.equal(fit.model.layers[0].fc.weight, before["layers.0.fc.weight"])
    assert result.metrics["controls"]["uniform"]["test"]["values"] == [uniform["test"]]
    assert result.metrics["controls"]["uniform"]["val"]["values"] == [uniform["val"]]


def test_the_control_without_a_graph_sees_none(small):
    """Other links, the same result; other features, another."""
    contents = citations.contents()
    graph = {node: [(node + 1) % len(contents["graph"])] for node in contents["graph"]}
    feat = contents["allx"] * 0 + contents["allx"][::-1]
    found = [
        small(name, "train.controls=['no_graph']", **parts).metrics["controls"]["no_graph"]
        for name, parts in (("one", {}), ("links", {"graph": graph}), ("features", {"allx": feat}))
    ]
    assert found[0]["val"] == found[1]["val"] and found[0]["test"] == found[1]["test"]
    assert found[0]["val"] != found[2]["val"]


def test_the_majority_control_gives_the_most_frequent_class_of_the_training_nodes(small):
    result = small("run", "train.controls=['majority']")
    data = result.task.data
    most = data.label[data.train].bincount().argmax()
    expected = 100 * (data.label[data.test] == most).double().mean().item()
    assert result.metrics["controls"]["majority"]["test"]["values"] == [pytest.approx(expected)]


def test_the_control_on_neighbours_has_a_row_of_length_one_per_node():
    graph = dgl.heterograph(
        {
            ("user", "likes", "film"): ([0, 1, 1, 2, 2], [0, 0, 0, 1, 4]),
            ("film", "like", "film"): ([1, 0], [0, 1]),
            ("film", "of", "user"): ([3], [0]),
        },
        num_nodes_dict={"user": 3, "film": 5},
    )
    control = Nodes.controls["neighbours"]
    shown = Facts(graph, {"film": None, "user": None}, target="film", num_classes=CLASSES)
    (bag,) = inputs = control.prepare(shown)
    model = control.build(shown, inputs)
    columns = graph.ntypes.index("film") * 3, graph.ntypes.index("user") * 5
    films, users = columns
    near = {0: [users, users + 1, films + 1], 1: [users + 2, films], 4: [users + 2]}
    expected = torch.zeros(5, 8)
    for film, found in near.items():
        expected[film, found] = len(found) ** -0.5
    torch.testing.assert_close(bag.to_dense(), expected)
    torch.nn.init.normal_(model.weight)
    torch.testing.assert_close(model(bag), expected @ model.weight + model.bias)
    # No relation ends at the target: nothing is left but the frequencies of the classes.
    shown = dataclasses.replace(shown, graph=dgl.edge_type_subgraph(graph, [("user", "likes", "film")]), target="user")
    inputs = control.prepare(shown)
    model = control.build(shown, inputs)
    assert inputs == () and model().shape == (3, CLASSES) and not model().any()


def gat_fit_on(result):
    """The fit of seed 0 that a run must have made."""
    torch.manual_seed(0)
    structure, feat = result.inputs
    recipe, data = result.recipe, result.task.data
    model = find("gat").for_graph(structure, feat, data.num_classes, data.target, **recipe.settings("model"))
    return Fit(model, Nodes(data), dict.fromkeys(PARTS, result.inputs), recipe.train)


def test_seeds_differ_and_repeat(small):
    one, other = small("one", seeds=2), small("other", seeds=2)
    drop = ("seconds", "total_seconds", "controls")
    assert {k: v for k, v in one.metrics.items() if k not in drop} == {
        k: v for k, v in other.metrics.items() if k not in drop
    }
    first, second = one.metrics["val"]["values"]
    assert first != second or one.metrics["test"]["values"][0] != one.metrics["test"]["values"][1]
    json.dumps(one.metrics, allow_nan=False)


def test_nodes_without_neighbours_are_a_sentence(small):
    graph = {node: near for node, near in citations.contents()["graph"].items()}
    graph[3] = []
    graph = {node: [n for n in near if n != 3] for node, near in graph.items()}
    with pytest.raises(GraphError, match="graph: expected one that the model can run on, got: .*0-in-degree"):
        small("run", "graph.self_loops=false", graph=graph)


class Pair(NamedTuple):
    one: torch.Tensor
    two: list


def test_inputs_of_every_form_are_moved():
    experiment = object.__new__(run.Experiment)
    experiment.device = torch.device("meta")
    ones = torch.ones(2)
    pair, rows, name = experiment._moved((Pair(ones, [ones]), {"a": ones}, "b"))
    assert type(pair) is Pair and type(pair.two) is list and name == "b"
    assert {x.device.type for x in (pair.one, *pair.two, rows["a"])} == {"meta"}
