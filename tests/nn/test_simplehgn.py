"""SimpleHGNConv against its equations written with one loop over nodes, on graphs and blocks."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import ops
from hgat.errors import HgatError
from hgat.nn import GATConv, SimpleHGNConv
from zoo import build, typed_graph

IN, OUT, HEADS, TYPES, EDGE = 7, 5, 3, 4, 6


def expected(layer, graph, x, etype, past=None):
    """(out, alpha) by the equations, node after node."""
    src, dst = (end.long() for end in graph.edges(order="eid"))
    heads, shape = layer._num_heads, (layer._num_heads, -1)
    wh = (x @ layer.fc.weight.T).unflatten(-1, shape)
    wr = (layer.edge_emb.weight @ layer.fc_e.weight.T).unflatten(-1, shape)
    vector = torch.cat([layer.attn_r[0], layer.attn_l[0], layer.attn_e[0]], 1)
    out, alpha = [], torch.zeros(len(src), heads)
    for v in range(graph.num_dst_nodes()):
        edges = (dst == v).nonzero().flatten()
        own = wh[v].expand(len(edges), -1, -1)
        both = torch.cat([own, wh[src[edges]], wr[etype[edges].long()]], 2)
        a = torch.softmax(F.leaky_relu((vector * both).sum(-1), layer.leaky_relu.negative_slope), 0)
        a = a if past is None else (1 - layer.beta) * a + layer.beta * past[edges]
        alpha[edges] = a.detach()
        out.append((a.unsqueeze(-1) * wh[src[edges]]).sum(0))
    out = torch.stack(out)
    if layer.res_fc is not None:
        out = out + layer.res_fc(x[: len(out)]).unflatten(-1, shape)
    return (torch.tanh(out) if layer.activation else out), alpha


def call(name, is_past):
    graph = build(name)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(graph.num_src_nodes(), IN, generator=generator)
    etype = torch.randint(TYPES, (graph.num_edges(),), generator=generator)
    return graph, x, etype, torch.rand(graph.num_edges(), HEADS, generator=generator) if is_past else None


@pytest.mark.parametrize(
    "options", [{}, {"residual": True, "activation": torch.tanh, "beta": 0.4}], ids=["plain", "all"]
)
@pytest.mark.parametrize("is_past", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "block", "multi_edges", "zero_in_degree", "empty"])
def test_outputs_and_gradients_are_those_of_the_equations(name, is_past, options):
    graph, x, etype, past = call(name, is_past)
    layer = SimpleHGNConv(IN, OUT, HEADS, TYPES, EDGE, allow_zero_in_degree=True, **options)
    given = x.clone().requires_grad_()
    out, alpha = layer(graph, given, etype, past, get_attention=True)
    theirs = x.clone().requires_grad_()
    want, want_alpha = expected(layer, graph, theirs, etype, past)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha.detach(), want_alpha, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(want), list(layer.parameters())
    found = [
        torch.autograd.grad(o, [g, *leaves], cotangent, allow_unused=True) for o, g in ((out, given), (want, theirs))
    ]
    for ours, gradient, leaf in zip(*found, [x, *leaves], strict=True):
        ours, gradient = (torch.zeros_like(leaf) if g is None else g for g in (ours, gradient))
        torch.testing.assert_close(ours, gradient, atol=2e-5, rtol=1e-4)


def test_one_type_of_edges_and_no_past_is_gat():
    """One type adds the same to every score of a head; on the right side of the slope's bend that is nothing."""
    graph, x, _, _ = call("homogeneous", False)
    ours, gat = SimpleHGNConv(IN, OUT, HEADS, 1, EDGE, negative_slope=1.0), GATConv(IN, OUT, HEADS, negative_slope=1.0)
    gat.load_state_dict({name: ours.state_dict().get(name, torch.zeros(HEADS * OUT)) for name in gat.state_dict()})
    torch.testing.assert_close(ours(graph, x, torch.zeros(graph.num_edges(), dtype=torch.long)), gat(graph, x))


def test_one_operator_call_without_a_past(monkeypatch):
    calls = []
    for name in ("additive_attention", "additive_weights", "weighted_sum", "edge_softmax"):
        run = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, _run=run, _name=name, **k: (calls.append(_name), _run(*a, **k))[1])
    graph, x, etype, past = call("homogeneous", True)
    layer = SimpleHGNConv(IN, OUT, HEADS, TYPES)
    layer(graph, x, etype)
    assert calls == ["additive_attention"]
    layer(graph, x, etype, past)
    assert calls[1:] == ["additive_attention", "weighted_sum"]


def test_no_gradient_goes_to_the_past():
    graph, x, etype, past = call("homogeneous", True)
    past.requires_grad_()
    out, alpha = SimpleHGNConv(IN, OUT, HEADS, TYPES)(graph, x, etype, past, get_attention=True)
    out.sum().backward()
    assert past.grad is None and not alpha.requires_grad


def test_both_parts_are_dropped_and_alpha_is_before_it():
    graph, x, etype, past = call("homogeneous", True)
    layer = SimpleHGNConv(IN, OUT, HEADS, TYPES, attn_drop=1.0, beta=0.4)
    out, alpha = layer(graph, x, etype, past, get_attention=True)
    assert not out.any() and torch.allclose(alpha, layer.eval()(graph, x, etype, past, get_attention=True)[1])


def test_uniform_attention_leaves_the_past_as_it_is():
    graph, x, etype, past = call("multi_edges", True)
    layer = SimpleHGNConv(IN, OUT, HEADS, TYPES, beta=0.25)
    with ops.uniform_attention():
        _, alpha = layer(graph, x, etype, past, get_attention=True)
    even = 1 / graph.in_degrees()[graph.edges()[1]].float().unsqueeze(1)
    torch.testing.assert_close(alpha, 0.75 * even + 0.25 * past)


def test_wrong_arguments_are_one_sentence():
    graph, x, etype, past = call("homogeneous", True)
    layer = SimpleHGNConv(IN, OUT, HEADS, TYPES)
    for arguments, sentence in (
        ((graph, x[:, :-1], etype), r"feat: expected \[N, \*, F\]"),
        ((graph, x, etype[:-1]), r"etype: expected \[E\] = \[120\], got \[119\]"),
        ((graph, x, etype + 1), "etype: expected numbers from 0 to 3, got"),
        ((graph, x, etype.float()), "etype: expected a tensor of whole numbers"),
        ((graph, x, etype, past[:, :-1]), r"res_attn: expected \[E, H\] = \[120, 3\], got \[120, 2\]"),
        ((graph, x, etype, past.long()), "res_attn: expected a floating-point tensor"),
        ((typed_graph(), x, etype), "graph: expected one relation, got 4"),
    ):
        with pytest.raises(HgatError, match=sentence):
            layer(*arguments)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(*call("zero_in_degree", False)[:3])
    for wrong in ({"beta": 1.5}, {"num_etypes": 0}, {"edge_feats": 0}, {"attn_drop": 2.0}):
        with pytest.raises(HgatError, match="expected"):
            SimpleHGNConv(**{"in_feats": IN, "out_feats": OUT, "num_heads": HEADS, "num_etypes": TYPES} | wrong)
