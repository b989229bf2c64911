"""Classification of nodes: what is shown, splits by seed, training in batches with exact scores."""

import dataclasses

import dgl
import pytest
import torch
import torch.nn.functional as F
from toys import films, neighbours

from hgat.errors import RecipeError
from hgat.models import find, layerwise
from hgat.tasks import find as find_task
from hgat.train.fit import Fit, Training
from hgat.train.recipe import Train

NODES = find_task("nodes")
SYSTEMS = [("gat", neighbours, {"heads": [2, 1]}), ("gatv2", neighbours, {"heads": [2, 1]}), ("rgat", films, {})]


def settings(**changes):
    return Train(**{"metric": "accuracy", "epochs": 4, "lr": 0.01, "stop": "last", **changes})


@pytest.fixture
def one_thread():
    """DGL's sampler draws in several threads, so that what it draws repeats on one alone."""
    before = dgl.utils.get_num_threads()
    dgl.utils.set_num_threads(1)
    yield
    dgl.utils.set_num_threads(before)


def trained(system, data, model, changes=None, steps=4, fit=None, **task):
    """The Fit behind so many epochs."""
    task, cls = NODES(data, **task), find(system)
    inputs = cls.prepare(task.shown())
    torch.manual_seed(0)
    given = cls.build(task.shown(), inputs, **model)
    fit = Fit(given, task, dict.fromkeys(("train", "val", "test"), inputs), settings(**(changes or {})))
    for _ in range(steps):
        fit.step()
    return fit


def test_only_training_labels_are_shown():
    data = neighbours()
    shown = NODES(data).shown()
    assert torch.equal(shown.label[data.train], data.label[data.train])
    rest = torch.ones(len(data.label), dtype=torch.bool)
    rest[data.train] = False
    assert (shown.label[rest] == -1).all() and torch.equal(shown.train, data.train)
    sets = dataclasses.replace(data, label=F.one_hot(data.label, 3).float(), multilabel=True)
    shown = NODES(sets).shown()
    assert torch.equal(shown.label[data.train], sets.label[data.train]) and shown.label[rest].isnan().all()


def test_nothing_that_is_written_on_nodes_is_shown():
    """As DGL's own data sets have it: the label and the masks of the split stand in ndata."""
    for data, ntype in ((neighbours(), "_N"), (films(), "film")):
        data.graph.nodes[ntype].data["label"] = data.label
        data.graph.nodes[ntype].data["test_mask"] = torch.zeros(len(data.label), dtype=torch.bool)
        shown = NODES(data).shown().graph
        assert not any(shown.nodes[t].data for t in shown.ntypes)
        assert torch.equal(data.graph.nodes[ntype].data["label"], data.label)  # the data set keeps them
        assert shown.num_edges() == data.graph.num_edges()


def test_a_refit_shows_validation_labels_and_no_test_labels():
    data = neighbours()
    shown = NODES(data).refitted().shown()
    assert sorted(shown.train.tolist()) == sorted([*data.train.tolist(), *data.val.tolist()])
    assert torch.equal(shown.label[data.val], data.label[data.val]) and (shown.label[data.test] == -1).all()
    assert (NODES(data).shown().label[data.val] == -1).all()  # the task itself is as it was


def test_every_seed_has_its_split_in_turn():
    data = neighbours()
    splits = tuple({"train": data.split[a], "val": data.split[b], "test": data.split[c]} for a, b, c in (
        ("train", "val", "test"), ("val", "test", "train"), ("test", "train", "val")
    ))  # fmt: skip
    task = NODES(dataclasses.replace(data, splits=splits))
    for seed in range(7):
        found = task.for_seed(seed)
        assert found.seed == seed and task.seed == 0
        assert all(torch.equal(found.data.split[part], splits[seed % 3][part]) for part in ("train", "val", "test"))
        hidden = torch.cat([splits[seed % 3]["val"], splits[seed % 3]["test"]])
        assert (found.shown().label[hidden] == -1).all()
        assert found.shown() is task.for_seed(seed + 3).shown()  # prepared once per split
    alone = NODES(data)
    assert alone.for_seed(5).shown() is alone.for_seed(0).shown()


@pytest.mark.parametrize(("system", "data", "model"), SYSTEMS, ids=lambda x: str(x) if isinstance(x, str) else "")
def test_batches_with_all_neighbours_are_the_whole_graph(system, data, model):
    """One batch of all training nodes with every neighbour: the same loss, gradients and answers as on the graph."""
    data, rest = data(), {"feat_drop": 0.0, "attn_drop": 0.0}
    task, cls = NODES(data, batch=len(data.train), fanout=[-1, -1]), find(system)
    inputs = cls.prepare(task.shown())
    torch.manual_seed(0)
    net = cls.build(task.shown(), inputs, **{**model, **rest, **({"value_drop": 0.0} if system == "gat" else {})})
    (batch,) = task.batches(net, inputs)
    net.objective(task.loss, inputs, batch).backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    whole = NODES(data)
    (batch,) = whole.batches(net, inputs)
    loss = whole.loss(net.answer(inputs, batch), batch)
    loss.backward()
    for got, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, atol=1e-5, rtol=1e-4)
    exact = task.evaluate(net, inputs, "test", "accuracy")
    assert exact == pytest.approx(whole.evaluate(net, inputs, "test", "accuracy"), abs=1e-4)
    torch.testing.assert_close(net.whole(inputs, 17), layerwise(net.eval(), *inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "data", "model"), SYSTEMS, ids=lambda x: str(x) if isinstance(x, str) else "")
def test_training_in_batches_learns_and_goes_on_from_a_state(system, data, model, one_thread):
    options = {"batch": 20, "fanout": [5, 5]}
    data = data()
    straight = trained(system, data, model, steps=4, **options)
    assert straight.optimizer.state_dict()["state"][0]["step"] == 4 * -(-len(data.train) // 20)
    first = trained(system, data, model, steps=2, **options)
    tensors, numbers = first.state()
    again = trained(system, data, model, steps=0, **options)
    torch.manual_seed(77)
    dgl.seed(5)
    again.restore(tensors, numbers)
    again.step(), again.step()
    for a, b in zip(again.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(a, b)
    learned = trained(system, data, model, {"epochs": 30, "lr": 0.02}, steps=30, **options)
    assert learned.evaluate("test")[0] > 75


@pytest.mark.parametrize(("system", "data", "model"), SYSTEMS, ids=lambda x: str(x) if isinstance(x, str) else "")
def test_graphs_of_32_bits_are_sampled_alike(system, data, model):
    data = data()
    small = dataclasses.replace(data, graph=data.graph.int())
    long, short = (trained(system, d, model, steps=2, batch=20, fanout=[-1, -1]) for d in (data, small))
    assert short.inputs["train"][0].idtype == torch.int32
    for a, b in zip(long.model.parameters(), short.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert short.evaluate("test") == pytest.approx(long.evaluate("test"), abs=1e-4)


def test_a_whole_training_in_batches_has_controls_in_batches():
    data = neighbours()
    task = NODES(data, batch=20, fanout=[5, 5])
    for name, cls in task.controls.items():

        def prepared(task, cls=cls):
            return dict.fromkeys(("train", "val", "test"), cls.prepare(task.shown()))

        def build(task, inputs, cls=cls):
            return cls.build(task.shown(), inputs["train"])

        training = Training(task, settings(), prepared, build)
        while training.step():
            pass
        assert 0 <= training.finish()["test"] <= 100, name


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"batch": 0, "fanout": [1]}, "task.batch: expected 1 or more, got 0"),
        ({"fanout": [5]}, r"task.fanout: expected it beside batch, got \[5\] without"),
        ({"batch": 5, "fanout": []}, "task.fanout: expected numbers from 1 on"),
        ({"batch": 5, "fanout": [5, 0]}, "task.fanout: expected numbers from 1 on"),
        ({"batch": 5, "fanout": [5]}, "task.fanout: expected 2 numbers, one for each layer, got 1"),
        ({"batch": 5}, "task.fanout: expected 2 numbers, one for each layer, got none"),
    ],
    ids=str,
)
def test_wrong_batches_are_one_sentence(task, sentence):
    with pytest.raises(RecipeError, match=sentence):
        trained("gat", neighbours(), {"heads": [2, 1]}, steps=1, **task)


def test_a_system_that_needs_the_whole_graph_says_so():
    data, cls = films(), find("han")
    paths = {"liked": ["liked by", "likes"]}
    task = NODES(data, batch=5, fanout=[5])
    inputs = cls.prepare(task.shown(), paths=paths)
    model = cls.build(task.shown(), inputs)
    with pytest.raises(RecipeError, match="task.batch: expected a system on a DGLGraph, got one on Views"):
        next(task.batches(model, inputs))


def test_several_relations_of_one_node_type_without_features_train_in_batches(one_thread):
    """As AIFB has them: rows are learned, and go from layer to layer by the one type's name."""
    found = neighbours()
    src, dst = found.graph.edges()
    half = len(src) // 2
    edges = {("n", "a", "n"): (src[:half], dst[:half]), ("n", "b", "n"): (src[half:], dst[half:])}
    graph = dgl.heterograph(edges, num_nodes_dict={"n": len(found.label)})
    data = dataclasses.replace(found, graph=graph, feat={"n": None}, target="n")
    fit = trained("rgat", data, {"heads": [2, 1]}, steps=2, batch=20, fanout=[-1, -1])
    exact = NODES(data).evaluate(fit.model, fit.inputs["test"], "test", "accuracy")
    assert fit.evaluate("test") == pytest.approx(exact, abs=1e-4)
