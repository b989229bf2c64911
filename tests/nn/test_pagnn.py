"""PaGNN's layer against its equations, node by node; what is reached, and that all of the broadcast learns."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph import enclosing, routes
from hgat.nn import PaGNNConv

D = 5
ENDS = torch.tensor([0, 5, 0]), torch.tensor([1, 2, 7])


def setting(hops=2, seed=0, back=False):
    """(layer, routes, feat of the whole graph) of three pairs, on a path with chords and a far edge."""
    torch.manual_seed(seed)
    return PaGNNConv(D, hops), routes(whole(), *ENDS, hops)[back], torch.randn(9, D)


def whole():
    src, dst = torch.tensor([[0, 1, 2, 3, 4, 0, 7, 1], [1, 2, 3, 4, 5, 2, 8, 3]])
    return dgl.add_self_loop(dgl.to_bidirected(dgl.graph((src, dst), num_nodes=9)))


def around(hops, back=False):
    """(graph, hops from the sender, hops from the receiver, receivers): the same, not cut into blocks."""
    found = enclosing(whole(), *ENDS, hops)
    ends = (found.hops_src, found.hops_dst), (found.src, found.dst)
    (away, near), (_, receivers) = (end[::-1] if back else end for end in ends)
    return found.graph, away, near, receivers


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


def nearest_first(graph, near):
    """The rows of an uncut neighbourhood in the order of routes.around."""
    return torch.cat([(near == hop).nonzero().flatten() for hop in range(int(near.max()) + 1)])


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_equations_on_neighbourhoods_that_are_not_cut(hops, back):
    layer, ways, feat = setting(hops, back=back)
    for conv in [*layer.sends, *layer.collects]:
        torch.nn.init.normal_(conv.bias)
    graph, away, near, receivers = around(hops, back)
    sent, out = by_hand(layer, graph, feat[graph.ndata[dgl.NID]], away, receivers)
    order = nearest_first(graph, near)
    assert ways.around.equal(graph.ndata[dgl.NID][order])
    torch.testing.assert_close(layer.broadcast(ways, feat), sent[order])
    torch.testing.assert_close(layer(ways, feat), out)


def test_a_node_beyond_the_hops_has_no_broadcast_and_all_within_have_one():
    layer, ways, feat = setting(2)
    graph, away, near, _ = around(2)
    order = nearest_first(graph, near)
    sent, away = layer.broadcast(ways, feat), away[order]
    assert (away < 0).any() and (away == 2).any()
    assert (sent[away < 0] == 0).all() and (sent[away >= 0] != 0).any(1).all()
    # Two hops away from node 5 ends what it sends: only the receiver's surroundings lie farther.
    assert {int(v) for v in graph.ndata[dgl.NID][order][away < 0]} >= {0, 1, 7, 8}


def test_gradients_reach_every_weight_of_the_broadcast_and_the_senders_own_row():
    layer, ways, feat = setting(2)
    feat.requires_grad_()
    (layer(ways, feat) * torch.randn(3, D)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name
    graph, away, near, _ = around(2)
    order = nearest_first(graph, near)
    far = (away[order] == 2) & (graph.ndata[dgl.NID][order] != 0)
    (grad,) = torch.autograd.grad(layer.broadcast(ways, feat)[far].sum(), feat)
    assert (grad[0] != 0).any(), "two hops carry what node 0 sends"


def test_what_is_broadcast_is_what_the_receiver_sees():
    """Another row of node 0 changes who is reached by it or sees it, and nobody else."""
    layer, ways, feat = setting(2)
    other = feat.clone()
    other[0] += 1.0
    with torch.no_grad():
        moved = (layer(ways, feat) - layer(ways, other)).abs().amax(1) > 1e-6
    assert moved.tolist() == [True, True, False], "node 2 sees node 0 as its neighbour, node 7 not at all"


def test_the_routes_are_left_as_they_were():
    layer, ways, feat = setting(2)
    before = [block.num_edges() for block in ways.sends + ways.collects]
    one = layer(ways, feat)
    assert [block.num_edges() for block in ways.sends + ways.collects] == before
    assert all(not block.srcdata and not block.edata for block in ways.sends + ways.collects)
    assert layer(ways, feat).equal(one)


def test_no_pairs_give_no_rows():
    layer, _, feat = setting(2)
    none = torch.empty(0, dtype=torch.int64)
    assert layer(routes(whole(), none, none, 2)[0], feat).shape == (0, D)


@pytest.mark.parametrize("settings", [{"feats": 0}, {"hops": 0}, {"feat_drop": 1.5}, {"attn_drop": -0.1}])
def test_settings_out_of_range_are_one_sentence(settings):
    with pytest.raises(ShapeError, match=f"{next(iter(settings))}: expected"):
        PaGNNConv(**{"feats": D, **settings})


def test_what_does_not_fit_the_routes_is_one_sentence():
    layer, ways, feat = setting(2)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, d\] = \[9, 5\], got \[8, 5\]"):
        layer(ways, feat[1:])
    with pytest.raises(GraphError, match="routes: expected 2 hops, got 3"):
        layer(setting(3)[1], feat)
    with pytest.raises(GraphError, match="routes: expected hgat.graph.Routes, got DGLGraph"):
        layer(whole(), feat)
