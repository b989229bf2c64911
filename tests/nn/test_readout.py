"""Readouts of batches: loops over the graphs, DGL's layers of the same names, permutations, graphs without nodes."""

import dgl
import pytest
import torch
from batches import SIZES, batch, reordered
from catalogue import IN

import hgat
from hgat import nn as hnn
from hgat.errors import GraphError, ShapeError


def layers():
    torch.manual_seed(1)
    gate, value = torch.nn.Linear(IN, 1), torch.nn.Sequential(torch.nn.Linear(IN, 4), torch.nn.Tanh())
    return {
        "gate": hnn.GlobalAttentionPooling(gate),
        "gate and values": hnn.GlobalAttentionPooling(gate, value),
        "set2set": hnn.Set2Set(IN, 3, 2),
    }


def by_gate(layer, feat):
    """One graph, by the equation."""
    value = feat if layer.feat_nn is None else layer.feat_nn(feat)
    alpha = torch.softmax(layer.gate_nn(feat), 0)
    return (alpha * value).sum(0), alpha


def by_queries(layer, feat):
    width, state, out, weights = layer.input_dim, None, torch.zeros(1, 2 * layer.input_dim), []
    for _ in range(layer.n_iters):
        query, state = layer.lstm(out.unsqueeze(0), state)
        alpha = torch.softmax(feat @ query.view(width), 0)
        weights.append(alpha)
        out = torch.cat([query.view(1, width), (alpha.unsqueeze(1) * feat).sum(0, keepdim=True)], 1)
    return out[0], torch.stack(weights, 1)


@pytest.mark.parametrize("name", layers())
def test_every_graph_is_read_as_the_equation_says(name):
    (graph, feat), layer = batch(IN), layers()[name]
    out, alpha = layer(graph, feat, get_attention=True)
    for k, rows in enumerate(feat.split(SIZES)):
        one, weights = (by_queries if name == "set2set" else by_gate)(layer, rows)
        torch.testing.assert_close(out[k], one)
        torch.testing.assert_close(alpha.split(SIZES)[k], weights)
        if len(rows):
            torch.testing.assert_close(alpha.split(SIZES)[k].sum(0), torch.ones(alpha.shape[1]))
    # A graph without nodes gets zeros, or of Set2Set zeros behind its query.
    assert (out[[1, 4]][:, -IN if name == "set2set" else 0 :] == 0).all()
    assert torch.equal(out, layer(graph, feat))


@pytest.mark.parametrize("name", layers())
def test_results_and_gradients_are_those_of_dgls_layers(name):
    graph, feat = batch(IN)
    layer = layers()[name]
    if name == "set2set":
        theirs = dgl.nn.Set2Set(IN, 3, 2)
        theirs.load_state_dict(layer.state_dict())
    else:
        theirs = dgl.nn.GlobalAttentionPooling(layer.gate_nn, layer.feat_nn)
    found = []
    for one in (layer, theirs):
        x = feat.clone().requires_grad_()
        out = one(graph, x)
        torch.manual_seed(2)
        (out * torch.randn_like(out)).sum().backward()
        found.append((out, x.grad))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", layers())
def test_nodes_in_another_order_give_the_same_rows(name):
    (graph, feat), layer = batch(IN), layers()[name]
    moved, order = reordered(graph)
    torch.testing.assert_close(layer(moved, feat[order]), layer(graph, feat))


def test_uniform_attention_is_the_mean():
    (graph, feat), layer = batch(IN), layers()["gate"]
    with hgat.ops.uniform_attention():
        out, alpha = layer(graph, feat, get_attention=True)
    torch.testing.assert_close(out[2], feat[5:12].mean(0))
    torch.testing.assert_close(alpha[5:12], torch.full((7, 1), 1 / 7))


def test_a_batch_of_nothing():
    nothing = dgl.batch([dgl.graph(([], [])), dgl.graph(([], []))])
    assert layers()["gate"](nothing, torch.zeros(0, IN)).equal(torch.zeros(2, IN))
    assert layers()["set2set"](nothing, torch.zeros(0, IN)).shape == (2, 2 * IN)


def test_what_does_not_fit_is_one_sentence():
    (graph, feat), found = batch(IN), layers()
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[24, any\], got \[23, 7\]"):
        found["gate"](graph, feat[1:])
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[any, 7\], got \[24, 6\]"):
        found["set2set"](graph, feat[:, 1:])
    with pytest.raises(ShapeError, match=r"gate_nn\(feat\): expected \[N, 1\] = \[24, 1\], got \[24, 2\]"):
        hnn.GlobalAttentionPooling(torch.nn.Linear(IN, 2))(graph, feat)
    with pytest.raises(ShapeError, match="gate_nn, feat_nn: expected modules, got int"):
        hnn.GlobalAttentionPooling(3)
    for layer in found.values():
        with pytest.raises(GraphError, match="graph: expected nodes of one type"):
            layer(dgl.heterograph({("a", "to", "b"): ([0], [0])}), feat)
