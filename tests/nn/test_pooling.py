"""Pooling of the best nodes: loops over the graphs, PyTorch Geometric's layers, permutations, graphs without nodes."""

import math

import dgl
import pytest
import torch
from batches import SIZES, batch, reordered
from catalogue import IN

import hgat
from hgat import nn as hnn
from hgat.errors import GraphError, ShapeError


def layers(ratio=0.5):
    torch.manual_seed(1)
    return {
        "topk": hnn.TopKPooling(IN, ratio),
        "sag": hnn.SAGPooling(IN, ratio),
        "sag by a convolution": hnn.SAGPooling(IN, ratio, dgl.nn.GraphConv(IN, 1, allow_zero_in_degree=True)),
    }


def scores(layer, graph, feat):
    if isinstance(layer, hnn.SAGPooling):
        return layer.score_layer(graph, feat).flatten()
    return (feat * layer.weight).sum(1) / layer.weight.square().sum().sqrt()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 0.1, 3, 1])
@pytest.mark.parametrize("name", layers())
def test_the_best_of_every_graph_are_kept(name, ratio):
    (graph, feat), layer = batch(IN), layers(ratio)[name]
    small, rows, weight = layer(graph, feat, get_attention=True)
    score = scores(layer, graph, feat)
    torch.testing.assert_close(weight, score.tanh().unsqueeze(1))
    kept, first, counts = [], 0, []
    for part in score.split(SIZES):
        k = ratio if isinstance(ratio, int) else math.ceil(ratio * len(part) - 1e-9)
        best = sorted(range(len(part)), key=lambda v, s=part: -s[v])[:k]
        kept += sorted(first + v for v in best)
        counts.append(len(best))
        first += len(part)
    assert small.ndata[dgl.NID].tolist() == kept and small.batch_num_nodes().tolist() == counts
    torch.testing.assert_close(rows, feat[kept] * score[kept].tanh().unsqueeze(1))
    wanted = dgl.node_subgraph(graph, kept)
    assert small.edata[dgl.EID].equal(wanted.edata[dgl.EID].sort().values)
    assert int(small.batch_num_edges().sum()) == small.num_edges()
    out = hnn.GlobalAttentionPooling(torch.nn.Linear(IN, 1))(small, rows)
    assert (out[[1, 4]] == 0).all() and torch.isfinite(out).all()  # graphs without nodes stay so


@pytest.mark.parametrize("name", layers())
def test_nodes_in_another_order_are_kept_alike(name):
    (graph, feat), layer = batch(IN), layers()[name]
    moved, order = reordered(graph)
    one, other = layer(graph, feat), layer(moved, feat[order])
    assert order[other[0].ndata[dgl.NID]].sort().values.equal(one[0].ndata[dgl.NID])
    mean = hnn.GlobalAttentionPooling(torch.nn.Linear(IN, 1))
    torch.testing.assert_close(mean(*other), mean(*one))


def test_they_are_pytorch_geometrics():
    geometric = pytest.importorskip("torch_geometric.nn")
    graph, feat = batch(IN)
    owner = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    layer, theirs = layers()["topk"], geometric.TopKPooling(IN, 0.5)
    theirs.select.weight.data.copy_(layer.weight.data)
    small, rows = layer(graph, feat)
    x, edge_index, _, _, perm, _ = theirs(feat, torch.stack(graph.edges(order="eid")), batch=owner)
    order = perm.argsort()
    assert perm[order].equal(small.ndata[dgl.NID])
    torch.testing.assert_close(rows, x[order])
    assert torch.stack(small.edges(order="eid")).equal(order.argsort()[edge_index])


def test_great_scores_are_told_apart_and_equal_ones_by_number():
    graph, layer = dgl.graph(([], []), num_nodes=4), hnn.TopKPooling(1, 1)
    layer.weight.data.fill_(1.0)
    small, rows = layer(graph, torch.tensor([[30.0], [40.0], [50.0], [20.0]]))
    assert small.ndata[dgl.NID].tolist() == [2] and rows.tolist() == [[50.0]]
    assert layer(graph, torch.ones(4, 1))[0].ndata[dgl.NID].tolist() == [0]


@pytest.mark.parametrize("name", layers())
def test_gradients_reach_the_scores_and_uniform_attention_closes_that_way(name):
    graph, feat = batch(IN)
    for uniform in (False, True):
        layer = layers()[name]
        with hgat.ops.uniform_attention() if uniform else torch.enable_grad():
            _, rows, weight = layer(graph, feat.clone().requires_grad_(), get_attention=True)
        (rows * torch.randn_like(rows)).sum().backward()
        grads = [p.grad is not None and bool((p.grad != 0).any()) for p in layer.parameters()]
        assert not any(grads) and (weight == 1).all() if uniform else all(grads)


@pytest.mark.parametrize("ratio", [0, -1, 0.0, 1.5, -0.5, float("nan"), "half", None, True], ids=repr)
def test_ratios_out_of_form(ratio):
    with pytest.raises(ShapeError, match="ratio: expected"):
        hnn.TopKPooling(IN, ratio)


@pytest.mark.parametrize("size", [0, -1, 2.5, None], ids=repr)
def test_sizes_out_of_form(size):
    for layer in (hnn.TopKPooling, hnn.SAGPooling):
        with pytest.raises(ShapeError, match="in_feats: expected"):
            layer(size)


def test_what_does_not_fit_is_one_sentence():
    graph, feat = batch(IN)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[any, 7\], got \[24, 6\]"):
        layers()["topk"](graph, feat[:, 1:])
    with pytest.raises(ShapeError, match=r"score_layer: expected scores \[N, 1\] = \[24, 1\], got \[24, 2\]"):
        hnn.SAGPooling(IN, 0.5, dgl.nn.GraphConv(IN, 2, allow_zero_in_degree=True))(graph, feat)
    typed = dgl.heterograph({("a", "x", "a"): ([0], [0]), ("a", "y", "a"): ([0], [0])})
    with pytest.raises(GraphError, match="graph: expected one relation, got 2"):
        layers()["topk"](typed, torch.randn(1, IN))
