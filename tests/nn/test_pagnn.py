"""PaGNN's layer against its equations, node by node; what is reached, and that all of the broadcast learns."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph import enclosing
from hgat.nn import PaGNNConv

D = 5


def setting(hops=2, seed=0):
    """(layer, graph, feat, hops from the sender, receivers) of three pairs, on a path with chords and a far edge."""
    torch.manual_seed(seed)
    src, dst = torch.tensor([[0, 1, 2, 3, 4, 0, 7, 1], [1, 2, 3, 4, 5, 2, 8, 3]])
    whole = dgl.add_self_loop(dgl.to_bidirected(dgl.graph((src, dst), num_nodes=9)))
    around = enclosing(whole, torch.tensor([0, 5, 0]), torch.tensor([1, 2, 7]), hops)
    return PaGNNConv(D, hops), around.graph, torch.randn(around.graph.num_nodes(), D), around.hops_src, around.dst


def attended(conv, graph, rows, edges, v, both=True):
    """GATConv of one head at node v over the edges with these numbers."""
    src = graph.edges(order="eid")[0][edges]
    value = conv.fc(rows)
    score = (value[src] * conv.attn_l[0, 0]).sum(1) + ((value[v] * conv.attn_r[0, 0]).sum() if both else 0.0)
    alpha = torch.softmax(torch.nn.functional.leaky_relu(score, 0.2), 0)
    return (alpha.unsqueeze(1) * value[src]).sum(0) + conv.bias


def by_hand(layer, graph, feat, away, receivers):
    """(what is broadcast, what is collected), one node after the other."""
    src, dst = graph.edges(order="eid")
    sent = [feat[v] if away[v] == 0 else torch.zeros(D) for v in range(len(feat))]
    for hop in range(1, layer.hops + 1):
        before = torch.stack(sent)
        for v in (away == hop).nonzero().flatten().tolist():
            edges = [e for e in range(len(src)) if dst[e] == v and (away[src[e]] == hop - 1 or src[e] == v)]
            seen = torch.tanh(attended(layer.sends[hop - 1], graph, before, edges, v, both=False))
            out, into, new = (layer.gates[hop - 1].weight @ seen).split(D)
            sent[v] = torch.sigmoid(out) * torch.tanh(torch.sigmoid(into) * torch.tanh(new)) + feat[v]
    sent = torch.stack(sent)
    step = torch.cat([feat, sent], 1) @ layer.fc.weight.T + layer.fc.bias
    out = step[receivers]
    hidden, cell = torch.zeros(len(receivers), D), torch.zeros(len(receivers), D)
    for conv in layer.collects:
        every = [[e for e in range(len(src)) if dst[e] == v] for v in range(len(feat))]
        step = torch.tanh(torch.stack([attended(conv, graph, step, every[v], v) for v in range(len(feat))]))
        into, keep, new, shown = (
            torch.cat([step[receivers], out], 1) @ layer.depth.weight_ih.T + hidden @ layer.depth.weight_hh.T
        ).split(D, 1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(into) * torch.tanh(new)
        out = hidden = torch.sigmoid(shown) * torch.tanh(cell)
    return sent, out


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_equations(hops):
    layer, *inputs = setting(hops)
    for conv in [*layer.sends, *layer.collects]:
        torch.nn.init.normal_(conv.bias)
    sent, out = by_hand(layer, *inputs)
    torch.testing.assert_close(layer.broadcast(*inputs[:3]), sent)
    torch.testing.assert_close(layer(*inputs), out)


def test_a_node_beyond_the_hops_has_no_broadcast_and_all_within_have_one():
    layer, graph, feat, away, _ = setting(2)
    sent = layer.broadcast(graph, feat, away)
    assert (away < 0).any() and (away == 2).any()
    assert (sent[away < 0] == 0).all() and (sent[away >= 0] != 0).any(1).all()
    # Two hops away from node 5 ends what it sends: only the receiver's surroundings lie farther.
    assert {int(v) for v in graph.ndata[dgl.NID][away < 0]} >= {0, 1, 7, 8}


def test_gradients_reach_every_weight_of_the_broadcast_and_the_senders_own_row():
    layer, graph, feat, away, receivers = setting(2)
    feat.requires_grad_()
    (layer(graph, feat, away, receivers) * torch.randn(3, D)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name
    assert (feat.grad[away == 0] != 0).any()
    sent = layer.broadcast(graph, feat, away)
    (grad,) = torch.autograd.grad(sent[away == 2].sum(), feat)
    assert (grad[(away == 0) & (graph.ndata[dgl.NID] == 0)] != 0).any(), "two hops carry it"


def test_what_is_broadcast_is_what_the_receiver_sees():
    """Another row of the sender changes that of a receiver that is reached, or that sees who is, and of no other."""
    layer, graph, feat, away, receivers = setting(2)
    other = feat.clone()
    other[away == 0] += 1.0
    assert (away[receivers] >= 0).tolist() == [True, False, False]
    with torch.no_grad():
        moved = (layer(graph, feat, away, receivers) - layer(graph, other, away, receivers)).abs().amax(1) > 1e-6
    assert moved.tolist() == [True, True, False]


def test_the_graph_is_left_as_it_was():
    layer, graph, feat, away, receivers = setting(2)
    before = {key: value.clone() for key, value in graph.ndata.items()}
    layer(graph, feat, away, receivers)
    assert list(graph.ndata) == list(before) and all(graph.ndata[key].equal(before[key]) for key in before)


@pytest.mark.parametrize("settings", [{"feats": 0}, {"hops": 0}, {"feat_drop": 1.5}, {"attn_drop": -0.1}])
def test_settings_out_of_range_are_one_sentence(settings):
    with pytest.raises(ShapeError, match=f"{next(iter(settings))}: expected"):
        PaGNNConv(**{"feats": D, **settings})


def test_tensors_unlike_the_graph_are_one_sentence():
    layer, graph, feat, away, receivers = setting(2)
    with pytest.raises(ShapeError, match="feat: expected"):
        layer(graph, feat[1:], away, receivers)
    with pytest.raises(ShapeError, match="away: expected"):
        layer(graph, feat, away[1:], receivers)
    with pytest.raises(GraphError, match="expected a DGLGraph"):
        layer("graph", feat, away, receivers)
