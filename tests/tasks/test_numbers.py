"""Numbers of nodes: scores are scikit-learn's, the scale is that of the training nodes, nothing held out is shown."""

import dataclasses

import dgl
import numpy as np
import pytest
import torch
from sklearn import metrics
from toys import heights

from hgat.data import NodeData
from hgat.errors import DataError, RecipeError
from hgat.models import RGAT, Facts
from hgat.tasks._kernel import BoostedKernel, Kernel
from hgat.tasks.nodes import Nodes
from hgat.tasks.numbers import Numbers
from hgat.train import checkpoint
from hgat.train.fit import Fit
from hgat.train.recipe import Train

NAN = float("nan")


class Says(RGAT):
    """Answers with what it is told."""

    def __init__(self, answer):
        torch.nn.Module.__init__(self)
        self.said = answer

    def whole(self, inputs, batch_size=None):
        return self.said


def test_scores_are_those_of_scikit_learn_in_the_numbers_own_unit():
    data = heights()
    data = dataclasses.replace(data, label=data.label - 7.0)
    task = Numbers(data)
    answer = torch.randn(len(data.label), 1, generator=torch.Generator().manual_seed(1)) + task._label[:, None]
    model, known = Says(answer), data.label[data.train]
    said, truth = (answer.squeeze(1) * known.std() + known.mean())[data.test], data.label[data.test]
    found, _ = task.results(model, (), "r2")
    assert found["test"] == found["more"]["r2"] == pytest.approx(100 * metrics.r2_score(truth, said), abs=1e-3)
    assert found["more"]["auc"] == pytest.approx(100 * metrics.roc_auc_score(truth > 0, said))
    assert found["more"]["mean absolute error, metres"] == pytest.approx(
        metrics.mean_absolute_error(truth, said), abs=1e-4
    )
    assert task.results(model, (), "auc")[0]["test"] == found["more"]["auc"]
    score, loss = task.evaluate(model, (), "val", "r2")
    wrong = (answer.squeeze(1) - task._label)[data.val]
    assert loss == pytest.approx(float((wrong**2).mean())) and score < 100


def test_numbers_of_one_sign_have_no_auc():
    data = heights()
    task = Numbers(dataclasses.replace(data, label=data.label + 1000.0))
    found, _ = task.results(Says(task._label[:, None]), (), "r2")
    assert set(found["more"]) == {"r2", "mean absolute error, metres"} and found["test"] > 99.9
    with pytest.raises(RecipeError, match="train.metric: auc: expected numbers above 0 and others in every part"):
        task.check("auc", [])


def test_only_the_training_nodes_are_shown_and_scale_the_rest():
    data = heights()
    label = data.label.clone()
    label[torch.cat([data.val, data.test])] += 1000.0
    for task in (Numbers(data), Numbers(dataclasses.replace(data, label=label))):
        shown = task.for_seed(0).shown()
        known = data.label[data.train]
        torch.testing.assert_close(shown.label[data.train], (known - known.mean()) / known.std())
        assert shown.label.isnan().sum() == len(data.label) - len(data.train) and shown.numeric
        (batch,) = task.batches(None, ())
        torch.testing.assert_close(batch.label, shown.label[data.train])


def test_what_is_fitted_is_fitted_to_the_training_nodes_of_each_split():
    """The mean of the training nodes is taken from labels and written into features; no number of another counts."""
    data = heights()
    raw, asked = data.label, []

    def fitted(train):
        asked.append(train)
        mean = raw[train].mean()
        return raw - mean, {**data.feat, "node": mean.expand(len(raw), 1).clone()}

    splits = [{"train": data.split[a], "val": data.split[b], "test": data.split[c]} for a, b, c in (
        ("train", "val", "test"), ("val", "train", "test"),
    )]  # fmt: skip
    label, feat = fitted(splits[0]["train"])
    both = dataclasses.replace(data, label=label, feat=feat, splits=tuple(splits), fitted=fitted)
    task = Numbers(both)
    for seed in (0, 1, 2):
        own, split = task.for_seed(seed), splits[seed % 2]
        expected = raw[split["train"]].mean()
        assert (own.data.feat["node"] == expected).all() and (own.shown().feat["node"] == expected).all()
        torch.testing.assert_close(own.data.label, raw - expected)
        assert torch.equal(own.shown().train, split["train"])
    assert all(any(torch.equal(train, split["train"]) for split in splits) for train in asked)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"label": "inf"}, "heights: label: expected finite numbers, or NaN for a node without one, got inf"),
        ({"label": "int"}, "heights: label: expected torch.float32, got torch.int64"),
        ({"label": "nan"}, "heights: train: expected only labelled nodes, got node .* with label nan"),
        ({"num_classes": 2}, "heights: numeric: expected one number a node, num_classes = 1, got num_classes = 2"),
        ({"multilabel": True}, "heights: numeric: expected one number a node, num_classes = 1, got several labels"),
        ({"columns": {"node": ("a",)}}, "heights: columns of node: expected 2 names, got 1"),
    ],
)
def test_data_that_do_not_fit_are_one_sentence(changes, sentence):
    data = heights()
    if "label" in changes:
        label = data.label.clone()
        label[data.train[0]] = {"inf": float("-inf"), "nan": NAN, "int": 0.0}[changes["label"]]
        changes = {"label": label.long() if changes["label"] == "int" else label}
        sentence = sentence.replace("got inf", "got -inf")
    with pytest.raises(DataError, match=sentence):
        dataclasses.replace(data, **changes)


def test_nodes_without_a_number_are_in_no_part():
    data = heights()
    label = torch.cat([data.label, torch.tensor([NAN])])
    graph = dgl.add_nodes(data.graph, 1, ntype="node")
    feat = {**data.feat, "node": torch.cat([data.feat["node"], torch.zeros(1, 2)])}
    assert Numbers(dataclasses.replace(data, graph=graph, feat=feat, label=label)).sizes()["train"] == len(data.train)


def test_classes_and_numbers_are_asked_for_by_their_own_tasks():
    data = heights()
    classes = dataclasses.replace(data, label=(data.label > 7).long(), numeric=False, num_classes=2, class_names=())
    with pytest.raises(RecipeError, match="task.name: expected labels that are classes for nodes, got numbers of heig"):
        Nodes(data)
    with pytest.raises(
        RecipeError, match="task.name: expected labels that are numbers for numbers, got classes of hei"
    ):
        Numbers(classes)
    alike = dataclasses.replace(data, label=torch.ones_like(data.label))
    with pytest.raises(RecipeError, match="train.metric: expected train nodes with numbers that differ, got 80 alike"):
        Numbers(alike).check("r2", [])


# The kernel

KERNEL = {
    "value": "x",
    "near": {
        "place": {"columns": ["east", "north"], "bandwidths": [0.3, 1.0]},
        "hour": {"columns": ["clock"], "bandwidths": [2]},
    },
}


def near(seed=0, nodes=240, senders=300, each=20):
    """A node's number is that of the senders near it."""
    random = torch.Generator().manual_seed(seed)
    place = torch.rand(senders, 2, generator=random) * 6
    feat = torch.cat([torch.sin(place[:, :1]) + place[:, 1:].cos(), place, torch.rand(senders, 1, generator=random)], 1)
    own = torch.cat([torch.rand(nodes, 1, generator=random), torch.rand(nodes, 2, generator=random) * 6], 1)
    label = torch.sin(own[:, 1]) + own[:, 2].cos()
    edges = {}
    for name in ("a", "b"):
        src = torch.randint(0, senders, (nodes * each,), generator=random)
        edges["sender", name, "node"] = src, torch.arange(nodes).repeat_interleave(each)
    graph = dgl.heterograph(edges, num_nodes_dict={"sender": senders, "node": nodes + 1})
    own, label = torch.cat([own, torch.zeros(1, 3)]), torch.cat([label, torch.zeros(1)])
    split = {"train": torch.arange(120), "val": torch.arange(120, 180), "test": torch.arange(180, nodes + 1)}
    columns = {"sender": ("x", "east", "north", "clock"), "node": ("clock", "east", "north")}
    facts = {"columns": columns, "class_names": ("x",), "numeric": True, "num_classes": 1}
    return NodeData("near", graph, {"sender": feat, "node": own}, "node", label, **split, **facts)


def fit_of(cls, kernel=KERNEL):
    task = Numbers(near(), kernel=kernel)
    inputs = cls.prepare(task.shown(), **task.control_settings(cls))
    model = cls.build(task.shown(), inputs)
    return Fit(model, task, dict.fromkeys(task.sizes(), inputs), Train(metric="r2", epochs=1, lr=1.0))


def by_hand(data, place, hour):
    """[N] node by node, from the equation."""
    found = []
    for v in range(data.graph.num_nodes("node")):
        here = [data.graph.predecessors(v, etype=e) for e in ("a", "b")]
        src = torch.cat(here)
        x, east, north, clock = data.feat["sender"][src].double().T
        own = data.feat["node"][v].double()
        weight = torch.exp(
            -((east - own[1]) ** 2 + (north - own[2]) ** 2) / (2 * place**2) - (clock - own[0]) ** 2 / (2 * hour**2)
        )
        found.append(float((weight * x).sum() / weight.sum()))
    return np.array(found)


def test_the_kernel_is_nadaraya_and_watsons_and_its_line_that_of_the_training_nodes():
    fit, data = fit_of(Kernel), near()
    for bandwidth in (0.3, 1.0):
        fit.step()
        estimate, train = by_hand(data, bandwidth, 2.0), data.train.numpy()
        slope, shift = np.polyfit(estimate[train], fit.task.shown().label[data.train].double(), 1)
        expected = shift + slope * np.where(np.isnan(estimate), np.nanmean(estimate[train]), estimate)
        np.testing.assert_allclose(fit.model(*fit.inputs["val"]).squeeze(1), expected, atol=2e-4)
    found = fit.finish()[0]
    assert found["best_epoch"] == 1 and found["epochs"] == 2 and found["test"] > 80
    other = Kernel.build(fit.task.shown(), fit.inputs["val"])
    other.load_state_dict(fit.model.state_dict())
    assert torch.equal(other(*fit.inputs["val"]), fit.model(*fit.inputs["val"]))


def test_a_kernel_goes_on_where_it_was_killed(tmp_path):
    begun = fit_of(Kernel)
    begun.step()
    checkpoint.save_tensors(tmp_path / "state", *begun.state())
    again = fit_of(Kernel)
    again.restore(*checkpoint.load_tensors(tmp_path / "state"))
    for fit in (begun, again):
        fit.step()
    assert {**begun.finish()[0], "seconds": 0} == {**again.finish()[0], "seconds": 0}


def test_trees_are_given_the_kernel_that_fits_the_training_nodes_best():
    (table,) = BoostedKernel.prepare(Numbers(near()).shown(), kernel=KERNEL)
    expected = by_hand(near(), 0.3, 2.0)
    np.testing.assert_allclose(table[:-1, -1], expected[:-1], atol=2e-5)
    assert table[-1, -1].isnan(), "a node without in-neighbours has no estimate, and trees know that"
    fit = fit_of(BoostedKernel)
    fit.step()
    assert fit.evaluate("test")[0] > 80


@pytest.mark.parametrize("cls", [Kernel, BoostedKernel])
@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"value": "y"}, "task.kernel: expected columns of sender among x, east, north, clock, got 'y'"),
        ({"near": {"g": {"columns": ["x"], "bandwidths": [1]}}}, "expected columns of node among .*, got 'x'"),
        ({"near": {}}, "task.kernel: expected value and near, a table of columns and bandwidths, got "),
        ({"near": {"g": {"columns": ["clock"]}}}, "task.kernel: expected columns and bandwidths of g, got "),
        ({"near": {"g": {"columns": ["clock"], "bandwidths": [0]}}}, "task.kernel: expected bandwidths above 0, got 0"),
        (
            {"near": {"g": {"columns": [], "bandwidths": [1]}}},
            "task.kernel: expected columns and bandwidths of g, got ",
        ),
    ],
)
def test_a_kernel_of_what_is_not_there_is_one_sentence(cls, change, sentence):
    with pytest.raises(RecipeError, match=sentence):
        cls.prepare(Numbers(near()).shown(), kernel={**KERNEL, **change})


def test_a_kernel_has_to_be_said_and_to_end_at_the_target():
    for name in ("kernel", "boosted_kernel"):
        with pytest.raises(RecipeError, match=f"task.kernel: expected it for the control '{name}', got none"):
            Numbers(near()).check("r2", [name])
        Numbers(near(), kernel=KERNEL).check("r2", [name])
    graph = dgl.heterograph({("node", "r", "sender"): ([0], [0])})
    shown = Facts(graph, {"node": None, "sender": None}, target="node")
    with pytest.raises(RecipeError, match="task.kernel: expected relations that end at 'node', got none"):
        Kernel.prepare(shown, kernel=KERNEL)


@pytest.mark.parametrize("name", Numbers.controls)
def test_a_control_answers_beside_another_device(name):
    """PyTorch's device without numbers stands for a GPU: what is made on the CPU by the way does not fit there."""
    cls, task = Numbers.controls[name], Numbers(near(), kernel=KERNEL)
    inputs = cls.prepare(task.shown(), **task.control_settings(cls))
    model = cls.build(task.shown(), inputs).to("meta").eval()
    there = [part.to("meta") if isinstance(part, torch.Tensor) else part for part in inputs]
    assert model(*there).shape == (241, 1) and model(*there).device.type == "meta"
