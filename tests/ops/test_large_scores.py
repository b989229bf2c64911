"""Scores of any magnitude: backward's alpha is forward's, to the bit, in every instruction set."""

import dgl
import pytest
import torch

from hgat import ops
from hgat.kernels import cpu
from hgat.nn import GATConv

pytestmark = pytest.mark.skipif(not cpu.available(), reason="no compiled core")
SETS = [s for s in cpu.info()["instruction_sets"] if s in cpu.info()["processor"]]
HEADS = range(1, 18)


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = cpu.info()["in_use"]
    cpu.use_instruction_set(request.param)
    yield request.param
    cpu.use_instruction_set(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e5, 1e7, 1e9, 1e15, 1e30])
def test_with_one_in_edge_the_gradient_of_the_value_is_the_cotangent(instruction_set, size, dtype):
    """Alpha is 1 there, whatever the scores are; a second edge far below adds nothing but work for the vectors."""
    n = 41
    graph = dgl.graph((torch.arange(n), torch.arange(n)))
    for heads in HEADS:
        value = torch.randn(n, heads, 3, dtype=dtype, requires_grad=True)
        cotangent = torch.randn(n, heads, 3, dtype=dtype)
        src, dst, edge = (torch.randn(n, heads, dtype=dtype) * size for _ in range(3))
        for score_edge in (None, edge):
            leaves = [value, src.requires_grad_(), dst.requires_grad_()]
            out = ops.additive_attention(graph, *leaves, score_edge)
            d_value, d_src, d_dst = torch.autograd.grad(out, leaves, cotangent)
            assert torch.equal(out, value) and torch.equal(d_value, cotangent), heads
            # The softmax of one edge is constant.
            assert (d_src == 0).all() and (d_dst == 0).all(), heads
        query, key = (torch.randn(n, heads, 4, dtype=dtype) * size**0.5 for _ in range(2))
        out = ops.dot_product_attention(graph, query.requires_grad_(), key.requires_grad_(), value, edge.detach())
        d = torch.autograd.grad(out, [value, query, key], cotangent)
        assert torch.equal(d[0], cotangent) and (d[1] == 0).all() and (d[2] == 0).all(), heads
        feat = torch.randn(2, n, heads, 3, dtype=dtype) * size
        attn = torch.randn(heads, 3, dtype=dtype)
        leaves = [feat[0].clone().requires_grad_(), feat[1].clone().requires_grad_(), attn.requires_grad_()]
        out = ops.gatv2_attention(graph, *leaves)
        d = torch.autograd.grad(out, leaves, cotangent)
        if size < 1e16:  # d_out . feat is infinite beyond
            assert torch.equal(d[0], cotangent) and (d[1] == 0).all() and (d[2] == 0).all(), heads


@pytest.mark.parametrize("size", [1e5, 1e9])
def test_gradients_of_large_scores_equal_the_reference(instruction_set, size):
    """Every row has edges within reach of its highest logit, so that alpha is neither 0 nor 1."""
    n, edges = 60, 400
    graph = dgl.graph((torch.randint(0, n, (edges,)), torch.randint(0, n, (edges,))), num_nodes=n)
    for heads in HEADS:
        value, cotangent = torch.randn(n, heads, 4), torch.randn(n, heads, 4)
        base = torch.randint(-4, 4, (n, heads)) * float(2**30 if size > 1e8 else 2**16)
        leaves = [value, torch.zeros(n, heads), base, torch.randint(-2, 3, (edges, heads)) * size / 2**23]
        found = {}
        for backend in ("native", "dgl"):
            here = [t.clone().requires_grad_() for t in leaves]
            with ops.use_backend(backend):
                out = ops.additive_attention(graph, *here, negative_slope=0.25)
            found[backend] = [out, *torch.autograd.grad(out, here, cotangent)]
        for mine, theirs in zip(found["native"], found["dgl"], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_raw_column_of_seconds_into_gatconv(instruction_set):
    """Unix times beside features: the gradient of the projection is that of float64, as PyTorch's own is."""
    for heads in (1, 3, 4, 6, 12):
        torch.manual_seed(0)
        n = 200
        graph = dgl.add_self_loop(dgl.graph((torch.randint(0, n, (800,)), torch.randint(0, n, (800,))), num_nodes=n))
        x = torch.randn(n, 8)
        x[:, 0] = 1.2e9 + 4e8 * torch.rand(n)
        layer, cotangent = GATConv(8, 8, heads), torch.randn(n, heads, 8)
        wide = GATConv(8, 8, heads).double()
        wide.load_state_dict(layer.state_dict())
        (got,) = torch.autograd.grad((layer(graph, x) * cotangent).sum(), layer.fc.weight)
        with ops.use_backend("dgl"):
            (plain,) = torch.autograd.grad((layer(graph, x) * cotangent).sum(), layer.fc.weight)
            (want,) = torch.autograd.grad((wide(graph, x.double()) * cotangent.double()).sum(), wide.fc.weight)
        error = float((got.double() - want).norm() / want.norm())
        base = float((plain.double() - want).norm() / want.norm())
        assert error < 1e-4 or error < 3 * base, (heads, error, base)


@pytest.mark.parametrize("mean", [0.0, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("operator", ["additive", "gatv2", "dot_product"])
def test_score_gradients_of_bfloat16_are_those_of_its_inputs(instruction_set, operator, mean):
    """They come from sums in float32, not from an output that was rounded: values with a common part show it."""
    n, edges, heads, width = 300, 6000, 4, 32
    graph = dgl.graph((torch.randint(0, n, (edges,)), torch.randint(0, n, (edges,))), num_nodes=n)
    value = (torch.randn(n, heads, width).abs() * 0.5 + mean).bfloat16()
    cotangent = torch.randn(n, heads, width).bfloat16()
    scores = {
        "additive": {"score_src": torch.randn(n, heads), "score_dst": torch.randn(n, heads)},
        "gatv2": {"feat_dst": torch.randn(n, heads, width).bfloat16(), "attn": torch.randn(heads, width)},
        "dot_product": {
            "query": torch.randn(n, heads, 8).bfloat16(), "key": torch.randn(n, heads, 8).bfloat16(),
            "bias": torch.randn(edges, heads),
        },
    }[operator]  # fmt: skip
    value_name = "feat_src" if operator == "gatv2" else "value"
    wanted = ["attn"] if operator == "gatv2" else ["bias"] if operator == "dot_product" else ["score_src", "score_dst"]

    def gradients(backend, dtype):
        given = {value_name: value, **scores}
        leaves = {k: (v.to(dtype) if dtype else v).clone().requires_grad_() for k, v in given.items()}
        with ops.use_backend(backend):
            out = getattr(ops, f"{operator}_attention")(graph, **leaves)
        found = torch.autograd.grad(out, [leaves[k] for k in wanted], cotangent.to(out.dtype))
        return [g.double() for g in found]

    want = gradients("dgl", torch.float64)
    for got, plain, right in zip(gradients("native", None), gradients("dgl", None), want, strict=True):
        error, base = (float((g - right).norm() / right.norm()) for g in (got, plain))
        assert error < 20 * base and error < 0.01
