"""SiGAT's layer against its equations, one node and one motif at a time."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.nn import SiGATConv

NODES, IN, OUT = 9, 4, 3


def _graph(seed=0):
    generator = torch.Generator().manual_seed(seed)
    key = torch.randperm(NODES * (NODES - 1), generator=generator)[:30]
    src, dst = key // NODES, key % NODES
    graph = dgl.graph((src, dst), num_nodes=NODES)
    graph.edata["sign"] = torch.where(torch.rand(30, generator=generator) < 0.4, -1, 1)
    return graph


def _oracle(layer, views, x):
    """[N, M, D] by loops over nodes."""
    src, dst = views.graph.edges(order="eid")
    rows = []
    for m in range(views.num_views):
        t = x @ layer.weight[m] + layer.bias[m]
        for u in range(NODES):
            edges = (dst == m * NODES + u).nonzero().flatten()
            near = src[edges] - m * NODES
            if layer.score == "motif":
                a = torch.cat([layer.attn_dst[m, 0], layer.attn_src[m, 0]])
                e = torch.stack([F.leaky_relu(a @ torch.cat([t[u], t[v]]), 0.1) for v in near])
            else:
                r = layer.kind.weight[views.graph.edata["kind"][edges]]
                e = F.leaky_relu(layer.query(x[u]) + layer.key(x[near]) + r, 0.1) @ layer.attn[0]
            rows.append(torch.softmax(e, 0) @ t[near])
    return torch.stack(rows).view(views.num_views, NODES, OUT).transpose(0, 1)


def _layer(number):
    torch.manual_seed(1)
    layer = SiGATConv(IN, OUT, number, score="edge_type" if number == 1 else "motif").double()
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("number", [38, 6, 2, 1])
def test_output_and_gradients_equal_the_oracle(number):
    views, layer = hgraph.signed_motifs(_graph(), number), _layer(number)
    x = torch.randn(NODES, IN, dtype=torch.float64, requires_grad=True)
    got, expected = layer(views, x), _oracle(layer, views, x)
    torch.testing.assert_close(got, expected)
    leaves, cotangent = [x, *layer.parameters()], torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("number", [6, 1])
def test_attention_sums_to_one(number):
    views, layer = hgraph.signed_motifs(_graph(), number), _layer(number)
    out, alpha = layer(views, torch.randn(NODES, IN).double(), get_attention=True)
    assert out.shape == (NODES, number, OUT) and alpha.shape == (views.graph.num_edges(), 1)
    total = torch.zeros(number * NODES, dtype=alpha.dtype).index_add(0, views.graph.edges(order="eid")[1], alpha[:, 0])
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_node_that_meets_nobody_has_its_own_row():
    graph = dgl.graph(([0], [1]), num_nodes=NODES)
    graph.edata["sign"] = torch.tensor([1])
    layer, x = _layer(38), torch.randn(NODES, IN).double()
    out = layer(hgraph.signed_motifs(graph), x)
    t = (x @ layer.weight + layer.bias).transpose(0, 1)
    torch.testing.assert_close(out[2:], t[2:])
    torch.testing.assert_close(out[:, 3:], t[:, 3:])
    assert not torch.allclose(out[0, 0], t[0, 0])


def test_uniform_attention_is_the_mean():
    views, layer = hgraph.signed_motifs(_graph(), 2), _layer(2)
    x = torch.randn(NODES, IN).double()
    with ops.uniform_attention():
        out, alpha = layer(views, x, get_attention=True)
    degree = views.graph.in_degrees()[views.graph.edges(order="eid")[1]]
    torch.testing.assert_close(alpha[:, 0], 1.0 / degree.double())
    t = x @ layer.weight[0] + layer.bias[0]
    near = torch.cat([views.graph.predecessors(3), torch.tensor([], dtype=torch.int64)])
    torch.testing.assert_close(out[3, 0], t[near].mean(0))


def test_wrong_calls_are_one_sentence():
    layer, graph = SiGATConv(IN, OUT, 6), _graph()
    views, x = hgraph.signed_motifs(graph, 6), torch.randn(NODES, IN)
    with pytest.raises(GraphError, match="for 6, got 2 views"):
        layer(hgraph.signed_motifs(graph, 2), x)
    with pytest.raises(GraphError, match="for 6, got DGLGraph"):
        layer(graph, x)
    with pytest.raises(ShapeError, match="feat: expected"):
        layer(views, x[1:])
    with pytest.raises(ShapeError, match="feat: expected"):
        layer(views, x[:, 1:])
    with pytest.raises(ShapeError, match="score: expected 'motif' or 'edge_type', got 'mean'"):
        SiGATConv(IN, OUT, 6, score="mean")
    with pytest.raises(ShapeError, match="num_channels: expected 1 with score = 'edge_type', got 6"):
        SiGATConv(IN, OUT, 6, score="edge_type")
    one = hgraph.disjoint_union([dgl.graph(([0], [0]), num_nodes=NODES)])
    with pytest.raises(GraphError, match="for score = 'edge_type', got others"):
        SiGATConv(IN, OUT, 1, score="edge_type")(one, x)
