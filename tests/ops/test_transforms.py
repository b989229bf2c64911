"""torch.func's transforms, forward-mode derivatives and batched gradients: the results of plain autograd."""

import dgl
import pytest
import torch
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from hgat import ops
from hgat.errors import BackendError
from hgat.kernels import cpu
from hgat.nn import DotGatConv, EdgeGATConv, GATConv, GATv2Conv, HANConv, HGTConv, RGATConv

GRAPH = dgl.add_self_loop(dgl.graph(([0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]), num_nodes=6))
EDGES = GRAPH.num_edges()


def _typed():
    return dgl.heterograph({("a", "r", "a"): GRAPH.edges(), ("a", "s", "a"): ([0, 1], [2, 3])}, {"a": 6})


def _layers():
    typed = _typed()
    edge_feat = torch.randn(EDGES, 3)
    ntype, etype = torch.arange(6) % 2, torch.arange(EDGES) % 3
    return {
        "GATConv": (GATConv(4, 2, 3), lambda layer, x: layer(GRAPH, x)),
        "GATv2Conv": (GATv2Conv(4, 2, 3), lambda layer, x: layer(GRAPH, x)),
        "DotGatConv": (DotGatConv(4, 2, 3), lambda layer, x: layer(GRAPH, x)),
        "EdgeGATConv": (EdgeGATConv(4, 3, 2, 3), lambda layer, x: layer(GRAPH, x, edge_feat)),
        "HGTConv": (HGTConv(4, 2, 2, 2, 3, dropout=0.0), lambda layer, x: layer(GRAPH, x, ntype, etype)),
        "RGATConv": (RGATConv(4, 2, 3, typed.canonical_etypes), lambda layer, x: layer(typed, {"a": x})["a"]),
        "HANConv": (HANConv(4, 2, 3, 2, allow_zero_in_degree=True), lambda layer, x: layer(typed, x)),
    }


@pytest.fixture(params=["GATConv", "GATv2Conv", "DotGatConv", "EdgeGATConv", "HGTConv", "RGATConv", "HANConv"])
def case(request):
    layer, run = _layers()[request.param]
    return layer.double(), run, torch.randn(6, 4, dtype=torch.float64)


@pytest.fixture(autouse=True)
def edge_features_in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.slow
def test_every_transform_gives_what_autograd_gives(case):
    layer, run, x = case
    parameters = dict(layer.named_parameters())

    def of_input(x):
        return run(layer, x).flatten(1).sum(0)

    def of_parameters(p):
        return functional_call(_Call(layer, run), {f"layer.{k}": v for k, v in p.items()}, (x,)).square().sum()

    want = torch.autograd.functional.jacobian(of_input, x)
    direction = torch.randn_like(x)
    close = {"atol": 1e-10, "rtol": 1e-8}
    torch.testing.assert_close(jacrev(of_input)(x), want, **close)
    torch.testing.assert_close(jacfwd(of_input)(x), want, **close)
    torch.testing.assert_close(jvp(of_input, (x,), (direction,))[1], (want * direction).sum((-1, -2)), **close)
    torch.testing.assert_close(vjp(of_input, x)[1](torch.ones(want.shape[0]))[0], want.sum(0), **close)
    torch.testing.assert_close(torch.autograd.functional.jacobian(of_input, x, vectorize=True), want, **close)
    several = torch.stack([x, x * 2, x - 1])
    torch.testing.assert_close(
        vmap(lambda z: run(layer, z))(several), torch.stack([run(layer, z) for z in several]), **close
    )
    plain = torch.autograd.grad(run(layer, x).square().sum(), list(parameters.values()), allow_unused=True)
    for got, right in zip(grad(of_parameters)(parameters).values(), plain, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if right is None else right, **close)
    # And the layer is as it was, with the structure that it kept.
    torch.testing.assert_close(torch.autograd.functional.jacobian(of_input, x), want, **close)


class _Call(torch.nn.Module):
    def __init__(self, layer, run):
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, x):
        return self.run(self.layer, x)


def test_structure_that_is_first_built_inside_a_transform_serves_later():
    layer, x = GATConv(4, 2, 3), torch.randn(6, 4)
    want = layer(GRAPH, x)
    for transform in (lambda f: vmap(f)(x[None]), lambda f: grad(lambda z: f(z).sum())(x), lambda f: jacfwd(f)(x)):
        new = dgl.add_self_loop(dgl.remove_self_loop(GRAPH))
        transform(lambda z, new=new: layer(new, z))
        torch.testing.assert_close(layer(new, x), layer(new, x))
        with ops.use_backend("dgl"):
            layer(new, x.requires_grad_()).sum().backward()
        x.requires_grad_(False)
    torch.testing.assert_close(layer(GRAPH, x), want)


def test_per_sample_gradients():
    layer, graphs = GATConv(4, 2, 1), torch.randn(5, 6, 4)
    parameters = dict(layer.named_parameters())

    def loss(p, x):
        return functional_call(layer, p, (GRAPH, x)).square().mean()

    each = vmap(grad(loss), (None, 0))(parameters, graphs)
    for k, x in enumerate(graphs):
        want = torch.autograd.grad(layer(GRAPH, x).square().mean(), list(parameters.values()))
        for got, right in zip(each.values(), want, strict=True):
            torch.testing.assert_close(got[k], right)


@pytest.mark.parametrize("operator", ["additive", "gated", "gatv2", "dot_product"])
def test_forward_mode(operator):
    x = torch.randn(6, 3, 2)

    def run(x):
        scores = x.sum(-1)
        if operator == "additive":
            return ops.additive_attention(GRAPH, x, scores, scores)
        if operator == "gated":
            return ops.gated_attention(GRAPH, x, scores, scores)
        if operator == "gatv2":
            return ops.gatv2_attention(GRAPH, x, x, torch.ones(3, 2))
        return ops.dot_product_attention(GRAPH, x, x, x)

    tangent = torch.randn_like(x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        got = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
    step = 1e-6
    torch.testing.assert_close(got, (run(x + step * tangent) - run(x - step * tangent)) / (2 * step), atol=1e-6, rtol=0)


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_the_compiled_core_by_name_says_that_it_cannot():
    x = torch.randn(2, 6, 3, 2)
    with ops.use_backend("native"), pytest.raises(BackendError, match="torch.func's transforms"):
        vmap(lambda v: ops.additive_attention(GRAPH, v, v.sum(-1), v.sum(-1)))(x)


def test_batched_gradients():
    for layer in (GATConv(4, 2, 3), GATv2Conv(4, 2, 3), DotGatConv(4, 2, 3)):
        x = torch.randn(6, 4, requires_grad=True)
        out = layer(GRAPH, x)
        cotangents = torch.randn(5, *out.shape)
        (got,) = torch.autograd.grad(out, x, cotangents, is_grads_batched=True, retain_graph=True)
        want = torch.stack([torch.autograd.grad(out, x, c, retain_graph=True)[0] for c in cotangents])
        torch.testing.assert_close(got, want)
    logits = torch.randn(EDGES, 2, requires_grad=True)
    alpha = ops.edge_softmax(GRAPH, logits)
    (got,) = torch.autograd.grad(alpha, logits, torch.eye(EDGES * 2).view(-1, EDGES, 2), is_grads_batched=True)
    want = torch.autograd.functional.jacobian(lambda z: ops.edge_softmax(GRAPH, z), logits)
    torch.testing.assert_close(got, want.view(-1, EDGES, 2))
