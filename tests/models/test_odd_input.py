"""What data may bring to the systems that attend over depths: odd features, classes and graphs."""

import dataclasses

import dgl
import pytest
import torch
from toys import CASES

from hgat import tasks
from hgat.errors import HgatError, TrainingError
from hgat.train.fit import Training
from hgat.train.recipe import Train

DEPTHS = [case for case in CASES if case.system in ("dagnn", "fagcn", "gamlp", "tdgnn")]


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


@pytest.mark.parametrize("case", DEPTHS, ids=str)
def test_a_feature_that_is_no_number_is_one_sentence(case):
    data = case.toy.data(0)
    feat = data.feat["_N"].clone()
    feat[data.train[0], 2] = torch.nan
    with pytest.raises(TrainingError, match="loss.*features"):
        trained(case, dataclasses.replace(data, feat={"_N": feat}))


@pytest.mark.parametrize("case", DEPTHS, ids=str)
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
@pytest.mark.parametrize("case", DEPTHS, ids=str)
def test_odd_data_are_trained_on(case, change):
    result, training = trained(case, change(case.toy.data(0)))
    out = training.model.whole(training.inputs["test"])
    assert torch.isfinite(out).all() and out.shape == (180, 3) and 0 <= result["test"] <= 100


@pytest.mark.parametrize("case", [case for case in DEPTHS if case.system in ("fagcn", "tdgnn")], ids=str)
def test_double_edges_count_once_where_a_graph_is_made_to_go_both_ways(case):
    data = case.toy.data(0)
    one, two = (trained(case, d, epochs=1)[1] for d in (data, doubled(data)))
    outs = [t.model.eval().whole(t.inputs["test"]) for t in (one, two)]
    torch.testing.assert_close(*outs)
