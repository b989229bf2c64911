"""Operators in parts by destination: the results of the whole call, with never more edges at a time than asked."""

import dgl
import pytest
import torch

from cases import OPERATORS, UNUSED
from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import EdgeGATConv
from hgat.ops.reference import Reference
from zoo import ZOO, build


def _everything(operator, graph, arguments, **options):
    """Output, weights and all gradients on DGL's operators, with fixed random cotangents."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in arguments.items()}
    scores = {k: v for k, v in leaves.items() if k != UNUSED.get(operator)}
    scores.pop("edge_weight", None)
    with ops.use_backend("dgl"):
        out = getattr(ops, f"{operator}_attention")(graph, **leaves, **options)
        alpha = getattr(ops, f"{operator}_weights")(graph, **scores)
    torch.manual_seed(3)
    cotangents = [torch.randn_like(out), torch.randn_like(alpha)]
    grads = torch.autograd.grad([out, alpha], leaves.values(), cotangents, allow_unused=True, materialize_grads=True)
    return out, alpha, *grads


@pytest.mark.parametrize("edges", [1, 7, 60])
@pytest.mark.parametrize("name", [name for name in ZOO if build(name).num_edges()])
@pytest.mark.parametrize("operator", OPERATORS)
def test_chunks_give_the_results_of_the_whole(operator, name, edges):
    graph = build(name)
    arguments = OPERATORS[operator][0](graph, torch.float64, True)
    arguments["edge_weight"] = torch.rand(graph.num_edges(), dtype=torch.float64)
    options = {"dropout": 0.4, "seed": 5}
    expected = _everything(operator, graph, arguments, **options)
    with ops.in_chunks(edges):
        got = _everything(operator, graph, arguments, **options)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


def test_scores_made_of_the_values_are_those_of_the_whole():
    graph = build("hub")
    leaves = [torch.randn(s, requires_grad=True) for s in ((graph.num_nodes(), 2, 3), (2, 3), (2, 3))]

    def everything():
        with ops.use_backend("dgl"):
            out = ops.gat_attention(graph, *leaves, dropout=0.4, seed=5)
        return [out, *torch.autograd.grad(out.sin().sum(), leaves)]

    wanted = everything()
    with ops.in_chunks(10):
        torch.testing.assert_close(everything(), wanted)


def test_no_more_edges_than_asked_for_except_the_in_edges_of_one_node(monkeypatch):
    graph = build("hub")
    seen = []
    real = Reference.gatv2_logits

    def logits(self, part, *arguments):
        seen.append((part.num_edges(), part.num_dst_nodes()))
        return real(self, part, *arguments)

    monkeypatch.setattr(Reference, "gatv2_logits", logits)
    arguments = OPERATORS["gatv2"][0](graph, torch.float32, False)
    leaves = {name: t.requires_grad_() for name, t in arguments.items()}
    with ops.use_backend("dgl"), ops.in_chunks(10):
        ops.gatv2_attention(graph, **leaves).sum().backward()
    assert len(seen) > 4 and all(edges <= 10 or nodes == 1 for edges, nodes in seen)
    assert sum(edges for edges, _ in seen) == 2 * graph.num_edges()  # once forward, once again backward


def test_a_layer_in_chunks_and_half_precision():
    graph = build("homogeneous")
    torch.manual_seed(0)
    layer = EdgeGATConv(7, 3, 5, 2).double()
    feat, edge = torch.randn(graph.num_nodes(), 7).double(), torch.randn(graph.num_edges(), 3).double()
    with ops.use_backend("dgl"):
        expected = layer(graph, feat, edge)
        with ops.in_chunks(20):
            torch.testing.assert_close(layer(graph, feat, edge), expected, atol=1e-12, rtol=0)
        # Node 0 sends thousands of edges: in bfloat16 a sum of as many parts would stop growing.
        graph = dgl.graph((torch.zeros(4000, dtype=torch.int64), torch.arange(4000)))
        value = torch.randn(graph.num_nodes(), 2, 5, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.rand(graph.num_edges(), 2, dtype=torch.bfloat16)
        (whole,) = torch.autograd.grad(ops.weighted_sum(graph, value, weight).sum(), value)
        with ops.in_chunks(4):
            out = ops.weighted_sum(graph, value, weight)
            (grad,) = torch.autograd.grad(out.sum(), value)
    assert out.dtype == grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad, whole)


def test_wrong_limits_and_second_derivatives():
    for edges in (0, -1, 2.5, "7"):
        with pytest.raises(ShapeError, match="edges: expected a whole number of 1 or more, got"), ops.in_chunks(edges):
            pass
    graph = build("homogeneous")
    leaves = {k: v.requires_grad_() for k, v in OPERATORS["additive"][0](graph, torch.float64, False).items()}
    with ops.use_backend("dgl"), ops.in_chunks(20):
        out = ops.additive_attention(graph, **leaves)
    (grad,) = torch.autograd.grad(out.pow(2).sum(), leaves["value"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
