"""The task of whole graphs: its batches, loss and scores by hand, its controls, and that nothing held out is seen."""

import dataclasses

import dgl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from toys import meetings, neighbours

import hgat.data
from hgat import models, tasks
from hgat.data import GraphData
from hgat.errors import RecipeError
from hgat.tasks.graphs import BoostedBag, Graphs, LinearBag, bag
from hgat.train import run
from hgat.train.recipe import Recipe, Train


def several(unknown=True):
    """Six graphs, one of them without nodes and one without edges, of two labels each."""
    graphs = [dgl.graph(([0, 1], [1, 2])), dgl.graph(([], [])), dgl.graph(([], []), num_nodes=2)]
    graph = dgl.batch([*graphs, *graphs])
    label = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    if unknown:
        label[[0, 5, 3], [1, 0, 1]] = float("nan")
    feat = torch.arange(10.0).unsqueeze(1)
    parts = [torch.tensor(ids) for ids in ([0, 1], [2, 3], [4, 5])]
    return GraphData("several", graph, {"_N": feat}, label, *parts, num_classes=2, multilabel=True)


def test_an_epoch_asks_for_every_training_graph_once():
    data = meetings()
    task = Graphs(data, batch=32)
    inputs = models.find("graphgat").prepare(task.shown())
    model = models.find("graphgat").build(task.shown(), inputs)
    found, seen = [], []
    for batch in task.batches(model, inputs):
        graph, rows, _ = batch.inputs
        found.append(batch.label)
        seen.append(rows.view(len(batch.label), -1))
        assert graph.batch_size == len(batch.label) <= 32 and rows.shape == (graph.num_nodes(), 4)
    every = data.feat["_N"].view(200, -1)[data.train]
    pairs = sorted((int(k), *x.tolist()) for k, x in zip(torch.cat(found), torch.cat(seen), strict=True))
    assert pairs == sorted((int(k), *x.tolist()) for k, x in zip(data.label[data.train], every, strict=True))


def test_labels_are_shown_of_training_graphs_alone():
    task = Graphs(meetings())
    shown, data = task.shown(), task.data
    assert shown.label[data.train].equal(data.label[data.train])
    held = torch.cat([data.val, data.test])
    assert (shown.label[held] == -1).all() and task.shown() is shown and task.shown_at("test") is shown
    more = task.refitted().shown()
    assert (more.label[data.val] >= 0).all() and (more.label[data.test] == -1).all()
    assert Graphs(several()).shown().label[2:].isnan().all()
    # What is written on the graph may be a label.
    marked = data.graph.local_var()
    marked.set_batch_num_nodes(data.graph.batch_num_nodes())
    marked.set_batch_num_edges(data.graph.batch_num_edges())
    marked.ndata["y"], marked.edata["y"] = torch.ones(1400), torch.ones(1400)
    bare = Graphs(dataclasses.replace(data, graph=marked)).shown().graph
    assert not bare.ndata and not bare.edata and bare.batch_size == 200


def test_labels_that_are_unknown_have_no_part_in_loss_and_scores():
    task = Graphs(several())
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    label = several().label[[0, 5]]
    loss = task.loss(logits, models.Batch(label=label))
    wanted = [F.softplus(torch.tensor(-2.0)), F.softplus(torch.tensor(-3.0))]  # 1 in column 0, 1 in column 1
    torch.testing.assert_close(loss, sum(wanted) / 2)
    loss.backward()
    assert logits.grad[0, 1] == 0 and logits.grad[1, 0] == 0
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(40, 2, generator=generator), (torch.rand(40, 2, generator=generator) < 0.4).float()
    label[torch.rand(40, 2, generator=generator) < 0.3] = float("nan")
    for metric, of in (("auc", roc_auc_score), ("average_precision", average_precision_score)):
        known = [~label[:, k].isnan() for k in range(2)]
        wanted = np.mean([of(label[known[k], k], logits[known[k], k]) for k in range(2)])
        assert task._score(metric, logits, label) == pytest.approx(100 * wanted)


def test_the_bag_is_what_the_nodes_are():
    data = several(unknown=False)
    (table,) = bag(Graphs(data).shown())
    ln = torch.log1p
    wanted = [[3.0, 1.0, ln(torch.tensor(3.0)), ln(torch.tensor(2.0))], [0.0] * 4]
    wanted.append([7.0, 3.5, ln(torch.tensor(2.0)), 0.0])
    torch.testing.assert_close(table[:3][:, [1, 0, 2, 3]], torch.tensor(wanted))  # sums, means, nodes, edges
    bare = dataclasses.replace(data, feat={"_N": None})
    assert bag(Graphs(bare).shown())[0].shape == (6, 2)


@pytest.mark.parametrize("control", [LinearBag, BoostedBag])
def test_the_bag_tells_what_it_can(control):
    """Classes that a sum of the nodes tells; and where the edges tell them, nothing."""
    data = meetings()
    counts = data.feat["_N"].view(200, 7, 4)[:, :, 0].sum(1)
    told = dataclasses.replace(data, label=(counts > 2).long())
    for given, least, most in ((told, 95, 100), (data, 0, 75)):
        task = Graphs(given)
        inputs = control.prepare(task.shown())
        model = control.build(task.shown(), inputs)
        model.solve(task.shown(), inputs, 3)
        assert least <= task.evaluate(model, inputs, "test", "accuracy")[0] <= most


def experiment(data, monkeypatch):
    monkeypatch.setattr(hgat.data, "load", lambda name, root: data)
    sections = {"data": {"name": "t"}, "task": {"name": "graphs"}, "graph": {}, "model": {"system": "graphgat"}}
    settings = {"epochs": 2, "lr": 0.01, "stop": "last", "metric": "accuracy"}
    return run.Experiment(Recipe("t", "t", None, **sections, train=Train(**settings), expect=None))


@pytest.mark.parametrize("leak", [False, True])
def test_what_is_held_out_changes_no_bit(monkeypatch, leak):
    data = meetings()
    held = torch.ones(200, dtype=torch.bool)
    held[data.train] = False
    rows = held.repeat_interleave(7)
    feat, label = data.feat["_N"].clone(), data.label.clone()
    feat[rows] = torch.randn(int(rows.sum()), 4)
    label[held] = (label[held] + 1) % 3
    other = dataclasses.replace(data, feat={"_N": feat}, label=label)
    if leak:
        monkeypatch.setattr(Graphs, "_show", _all_shown)
    found = []
    for given in (data, other):
        training = experiment(given, monkeypatch).training("ours", 0)
        while training.step():
            pass
        found.append(training.fit.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0]) != leak


show = Graphs._show


def _all_shown(task, train):
    show(task, torch.arange(task.data.graph.batch_size))


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(RecipeError, match="task.batch: expected 1 or more, got 0"):
        Graphs(meetings(), batch=0)
    with pytest.raises(RecipeError, match="expected data of the kind GraphData for graphs"):
        Graphs(neighbours())
    task = tasks.find("graphs")(several())
    with pytest.raises(RecipeError, match="expected auc or average_precision where labels are unknown, as in several"):
        task.check("accuracy", [])
    with pytest.raises(RecipeError, match="train.controls: expected none that is solved where labels are unknown"):
        task.check("auc", ["bag"])
    label = several().label
    label[2:4, 0] = 0.0
    with pytest.raises(RecipeError, match="auc: expected a class with known labels of both kinds, got none"):
        Graphs(dataclasses.replace(several(), label=label)).check("auc", ["majority"])
