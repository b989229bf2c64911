"""DAGNN's layer: its equations once more on a dense matrix, both forms, and hops that were computed before."""

import pytest
import torch
import torch.nn.functional as F
from catalogue import IN

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, HgatError, ShapeError
from hgat.nn import DAGNNConv
from zoo import build

GRAPHS = ["homogeneous", "multi_edges", "zero_in_degree", "hub"]


def dense(graph, weight):
    """[N, N] of the weights of edges, the destination first."""
    src, dst = (ends.long() for ends in graph.edges(order="eid"))
    return torch.zeros(graph.num_nodes(), graph.num_nodes()).index_put((dst, src), weight, accumulate=True)


def restated(layer, graph, z, weight=None):
    """The layer's equations: (out, the gates)."""
    a = dense(graph, hgraph.normalized(graph) if weight is None else weight)
    count = dense(graph, torch.ones(graph.num_edges()))
    hops = [z]
    for k in range(layer.hops):
        if layer.propagation == "gat":
            h = hops[-1]
            score = F.leaky_relu((h @ layer.attn_dst[k])[:, None] + (h @ layer.attn_src[k])[None], 0.2)
            e = count * (score - score.max()).exp()
            a = e / e.sum(1, keepdim=True).clamp_min(1e-30)
        hops.append(a @ hops[-1])
    h = torch.stack(hops, 1)  # [N, K + 1, F]
    project = layer.fuse.project
    s = h @ project.weight[0]
    s = s.softmax(1) if layer.fuse.gate == "softmax" else torch.sigmoid(s + project.bias)
    return (s[..., None] * h).sum(1), s


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"hops": 1}, {"gate": "softmax"}, {"propagation": "gat"}, {"propagation": "gat", "gate": "sigmoid"}],
)
def test_equations(name, settings):
    graph = build(name)
    layer = DAGNNConv(IN, **{"hops": 3, **settings})
    z = torch.randn(graph.num_nodes(), IN, requires_grad=True)
    out, s = layer(graph, z, get_attention=True)
    want, gates = restated(layer, graph, z)
    torch.testing.assert_close(s, gates, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(want), [z, *layer.parameters()]
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    for got, due in zip(*(torch.autograd.grad(x, leaves, cotangent) for x in (out, want)), strict=True):
        torch.testing.assert_close(got, due, atol=1e-4, rtol=1e-4)


def test_weights_of_edges_take_the_place_of_the_normalised_ones():
    graph, layer = build("homogeneous"), DAGNNConv(IN, 2)
    z, weight = torch.randn(23, IN), torch.rand(graph.num_edges())
    torch.testing.assert_close(layer(graph, z, weight), restated(layer, graph, z, weight)[0], atol=1e-5, rtol=1e-5)


def test_without_hops_it_gives_what_came_in_and_has_no_parameters():
    for settings in ({}, {"gate": "softmax"}, {"propagation": "gat"}):
        layer, z = DAGNNConv(IN, 0, **settings), torch.randn(23, IN)
        out, s = layer(build("homogeneous"), z, get_attention=True)
        assert torch.equal(out, z) and torch.equal(s, torch.ones(23, 1)) and not list(layer.parameters())
        out.zero_()
        assert (z != 0).any()


def test_the_popular_form_is_one_keyword():
    graph, z = build("homogeneous"), torch.randn(23, IN)
    s = DAGNNConv(IN, 4, propagation="gat")(graph, z, get_attention=True)[1]
    torch.testing.assert_close(s.sum(1), torch.ones(23))
    s = DAGNNConv(IN, 4)(graph, z, get_attention=True)[1]
    assert ((s > 0) & (s < 1)).all() and (s.sum(1) - 1).abs().min() > 1e-3


@pytest.mark.parametrize(("settings", "share"), [({}, 1.0), ({"propagation": "gat"}, 0.2)])
def test_uniform_attention_is_equal_hops(settings, share):
    graph, z, layer = build("homogeneous"), torch.randn(23, IN), DAGNNConv(IN, 4, **settings)
    norm = "right" if settings else "both"
    hops = ops.propagate(graph, z, hgraph.normalized(graph, norm), 4, every=True)
    with ops.uniform_attention():
        torch.testing.assert_close(layer(graph, z), share * sum(hops), atol=1e-5, rtol=1e-5)


def test_gates_of_hops_that_were_computed_before_need_no_graph():
    graph, layer, z = build("homogeneous"), DAGNNConv(IN, 3), torch.randn(23, IN)
    whole, block = layer(graph, z), build("block")
    rows = [h[[3, 5, 7, 11, 17]] for h in layer.spread(graph, z)]
    for given in (None, block):
        torch.testing.assert_close(layer(given, rows), whole[[3, 5, 7, 11, 17]])
    with pytest.raises(ShapeError, match=r"feat\[0\]: expected \[N, \*, F\] = \[5, \*, 7\], got \[23, 7\]"):
        layer(block, layer.spread(graph, z))


WRONG = {
    "propagation: expected 'fixed' or 'gat', got 'gcn'": lambda: DAGNNConv(IN, propagation="gcn"),
    "gate: expected 'sigmoid' or 'softmax' or None, got 'tanh'": lambda: DAGNNConv(IN, gate="tanh"),
    "hops: expected 1 or more, got -1": lambda: DAGNNConv(IN, -1),
    "feat: expected 4 hops, got 2": lambda: DAGNNConv(IN, 3)(None, [torch.ones(2, IN)] * 2),
    "graph: expected the whole graph, or a list of hops": lambda: DAGNNConv(IN)(build("block"), torch.ones(23, IN)),
    r"feat: expected \[N, \*, F\] = \[23, \*, 7\]": lambda: DAGNNConv(IN)(build("homogeneous"), torch.ones(23, 5)),
    "edge_weight|weight: expected": lambda: DAGNNConv(IN)(build("homogeneous"), torch.ones(23, IN), torch.ones(3)),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()
    assert issubclass(GraphError, HgatError)
