"""What data may bring to the systems that attend over depths, channels and views: odd features, classes and graphs."""

import dataclasses
import inspect

import dgl
import pytest
import torch
from toys import CASES

from hgat import tasks
from hgat.errors import GraphError, HgatError, TrainingError
from hgat.train.fit import Training
from hgat.train.recipe import Train

NAMES = ("acm", "amgcn", "dagnn", "fagcn", "gamlp", "tdgnn", "uag")
SYSTEMS = [case for case in CASES if case.system in NAMES and case.task == "nodes"]
# Those that cannot find a node's neighbours by its features have it before training.
AT_ONCE = {"amgcn": (GraphError, "x: expected finite features to compare, got others in row")}


def trained(case, data, epochs=3):
    """(the result, the model) of a short training on other data than the toy's."""
    task = tasks.find("nodes")(data).for_seed(0)

    def prepared(task):
        return dict.fromkeys(("train", "val", "test"), case.inputs(task.shown()))

    def build(task, inputs):
        return case.build(task.shown(), inputs["train"])

    training = Training(task, Train(metric="accuracy", epochs=epochs, lr=0.01), prepared, build)
    while training.step():
        pass
    return training.finish(), training


def with_graph(data, change):
    return dataclasses.replace(data, graph=change(data.graph))


def test_all_seven_are_here():
    assert [case.system for case in SYSTEMS] == list(NAMES)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_a_feature_that_is_no_number_is_one_sentence(case, wrong):
    data = case.toy.data(0)
    feat = data.feat["_N"].clone()
    feat[data.train[0], 2] = wrong
    kind, sentence = AT_ONCE.get(case.system, (TrainingError, "loss.*features"))
    with pytest.raises(kind, match=sentence) as error:
        trained(case, dataclasses.replace(data, feat={"_N": feat}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_no_edges_are_one_sentence(case):
    def bare(graph):
        return dgl.graph(([], []), num_nodes=graph.num_nodes())

    with pytest.raises(HgatError, match="graph: expected at least one edge, got none"):
        trained(case, with_graph(case.toy.data(0), bare))


def isolated(data):
    """Half of the nodes without an edge."""
    return with_graph(
        data, lambda g: dgl.graph(tuple(x[(g.edges()[0] < 90) & (g.edges()[1] < 90)] for x in g.edges()), num_nodes=180)
    )


def doubled(data):
    return with_graph(data, lambda g: dgl.add_edges(g, *g.edges()))


def one_way(data):
    return with_graph(
        data, lambda g: dgl.graph(tuple(x[g.edges()[0] < g.edges()[1]] for x in g.edges()), num_nodes=180)
    )


def constant(data):
    return dataclasses.replace(data, feat={"_N": torch.ones_like(data.feat["_N"])})


def no_class(data):
    """A class that no training node has."""
    return dataclasses.replace(data, train=data.train[data.label[data.train] != 1])


@pytest.mark.parametrize("change", [isolated, doubled, one_way, constant, no_class], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_odd_data_are_trained_on(case, change):
    data = change(case.toy.data(0))
    if change is constant and case.system == "amgcn":  # any nodes would be the nearest
        with pytest.raises(GraphError, match="x: expected rows of which some differ, got 180 alike"):
            trained(case, data)
        return
    result, training = trained(case, data)
    out = training.model.whole(training.inputs["test"])
    assert torch.isfinite(out).all() and out.shape == (180, 3) and 0 <= result["test"] <= 100


@pytest.mark.parametrize("change", [doubled, one_way], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_undirected_is_the_simple_graph_of_both_directions(case, change):
    """By default of those whose paper assumes it; the others take the edges as they are unless they are asked."""
    data = case.toy.data(0)

    def answer(data, **graph):
        shown = tasks.find("nodes")(data).shown()
        inputs = case.cls.prepare(shown, **graph)
        torch.manual_seed(0)
        with torch.no_grad():
            return case.build(shown, inputs).eval().whole(inputs)

    both = answer(data, undirected=True)
    torch.testing.assert_close(answer(change(data), undirected=True), both, atol=1e-5, rtol=1e-4)
    default = inspect.signature(case.cls.prepare).parameters["undirected"].default
    assert default == (case.system in ("acm", "amgcn", "fagcn", "tdgnn"))
    assert torch.allclose(answer(change(data)), both, atol=1e-5) == default


DEPTHLESS = {
    "dagnn": ({}, {"hops": 0}, None),
    "gamlp": ({"hops": 0}, {}, None),
    "tdgnn": ({"hops": 0}, {}, "hops: expected 1 or more, got 0"),
    "fagcn": ({}, {"layers": 0}, "layers: expected .*1 or more, got 0"),
    "acm": ({}, {"layers": 0}, "layers: expected .*1 or more, got 0"),
    "amgcn": ({"k": 0}, {}, "k: expected .*1 or more, got 0"),
    "uag": ({}, {"heads": []}, "model.heads: expected a number of heads per layer"),
}


@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_no_hops_no_layers_no_neighbours(case):
    """A perceptron, which sees no edge, where the paper has K = 0; one sentence elsewhere."""
    graph, model, sentence = DEPTHLESS[case.system]

    def answer(data):
        shown = tasks.find("nodes")(data).shown()
        inputs = case.cls.prepare(shown, **{**graph, **({"label_hops": 0} if case.system == "gamlp" else {})})
        torch.manual_seed(0)
        with torch.no_grad():
            return case.build(shown, inputs, **model).eval().whole(inputs)

    if sentence is not None:
        with pytest.raises(HgatError, match=sentence):
            answer(case.toy.data(0))
        return
    assert torch.equal(answer(case.toy.data(0)), answer(isolated(case.toy.data(0))))
