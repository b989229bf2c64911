"""SuperGATConv against its equations in plain PyTorch, every score; and the loss of edges."""

import io
import math
import re

import dgl
import pytest
import torch
import torch.nn.functional as F
from backends import ON_CPU

from hgat import nn as hnn
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.nn.supergat import SuperGATConv, edge_loss
from zoo import build

IN, OUT, HEADS = 7, 5, 3
SCORES = ["go", "dp", "sd", "mx"]
GRAPHS = ["homogeneous", "bipartite", "block", "multi_edges", "hub"]


def pairs_of(graph, count=17, seed=3):
    """Any pairs of a source and a destination."""
    generator = torch.Generator().manual_seed(seed)
    ends = [torch.randint(n, (count,), generator=generator) for n in (graph.num_src_nodes(), graph.num_dst_nodes())]
    sizes = {"a": graph.num_src_nodes(), "b": graph.num_dst_nodes()}
    return dgl.heterograph({("a", "to", "b"): tuple(ends)}, sizes, idtype=graph.idtype)


def feats_of(graph, name, dtype=torch.float64):
    """What forward takes; leaves that have a gradient."""
    feat = torch.randn(graph.num_src_nodes(), IN, dtype=dtype, requires_grad=True)
    if name != "bipartite":
        return feat
    return feat, torch.randn(graph.num_dst_nodes(), IN, dtype=dtype, requires_grad=True)


def oracle(layer, graph, feat, pairs):
    """(out, alpha, phi of edges, phi of pairs) from what the authors' code computes, edge by edge."""
    p, score = dict(layer.named_parameters()), layer.score
    src, dst = graph.edges(order="eid")
    h = feat if isinstance(feat, tuple) else (feat, feat[: graph.num_dst_nodes()])
    weights = [p[k] for k in (("fc_src.weight", "fc_dst.weight") if "fc_src.weight" in p else ["fc.weight"] * 2)]
    z_src, z_dst = ((x @ w.t()).view(len(x), HEADS, OUT) for x, w in zip(h, weights, strict=True))

    def scores(u, v):
        x_j, x_i = z_src[u], z_dst[v]
        dp = (x_i * x_j).sum(-1)
        if score in ("dp", "sd"):
            e = dp / (math.sqrt(OUT) if score == "sd" else 1)
            return e, e
        go = (torch.cat([p["attn_r"], p["attn_l"]], -1) * torch.cat([x_i, x_j], -1)).sum(-1)
        return (go, go) if score == "go" else (go / (1 + torch.exp(-dp)), dp)

    e, phi = scores(src, dst)
    e = torch.where(e > 0, e, 0.2 * e)
    total = torch.zeros(len(z_dst), HEADS, dtype=e.dtype).index_add(0, dst, e.exp())
    alpha = e.exp() / total[dst]
    out = torch.zeros_like(z_dst).index_add(0, dst, alpha.unsqueeze(-1) * z_src[src])
    return out + p["bias"].view(HEADS, OUT), alpha, phi, scores(*pairs.edges(order="eid"))[1]


def layer_of(score, **options):
    layer = SuperGATConv(IN, OUT, HEADS, score=score, **options).double()
    with torch.no_grad():
        layer.bias.normal_()
    return layer


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("score", SCORES)
def test_equals_the_equations_and_their_gradients(score, name, backend):
    graph = build(name)
    layer, feat, pairs = layer_of(score), feats_of(graph, name), pairs_of(graph)
    with ops.use_backend(backend):
        out, alpha, phis = layer(graph, feat, get_attention=True, pairs=pairs)
        got = [out, alpha.squeeze(-1), *phis]
        expected = oracle(layer, graph, feat, pairs)
        assert alpha.shape == (graph.num_edges(), HEADS, 1)
        leaves = [*(feat if isinstance(feat, tuple) else (feat,)), *layer.parameters()]
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)
        for k, (one, other) in enumerate(zip(got, expected, strict=True)):
            cotangent = torch.randn_like(other)
            options = {"retain_graph": True, "allow_unused": True}
            found, wanted = (torch.autograd.grad(x, leaves, cotangent, **options) for x in (one, other))
            for a, b in zip(found, wanted, strict=True):
                assert (a is None) == (b is None), k
                if a is not None:
                    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("score", SCORES)
def test_what_is_asked_for_changes_nothing_else(score):
    graph = build("homogeneous")
    layer, feat, pairs = layer_of(score), feats_of(graph, ""), pairs_of(graph)
    out = layer(graph, feat)
    assert torch.equal(layer(graph, feat, get_attention=True)[0], out)
    with_pairs = layer(graph, feat, pairs=pairs)
    assert len(with_pairs) == 2 and torch.equal(with_pairs[0], out)
    for given in layer(graph, feat, get_attention=True, pairs=pairs)[2]:
        assert given.shape[1] == HEADS
        with torch.no_grad():
            given.zero_()  # what backward reads is not the caller's
    got = layer(graph, feat, get_attention=True, pairs=pairs)
    expected = torch.autograd.grad(layer(graph, feat).sum(), feat)[0]
    with torch.no_grad():
        got[1].zero_(), got[2][0].zero_(), got[2][1].zero_()
    torch.testing.assert_close(torch.autograd.grad(got[0].sum(), feat)[0], expected)


def test_go_is_gat():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    gat, layer = hnn.GATConv(IN, OUT, HEADS, residual=True), SuperGATConv(IN, OUT, HEADS, residual=True, score="go")
    layer.load_state_dict(gat.state_dict())
    torch.testing.assert_close(layer(graph, feat), gat(graph, feat), atol=1e-6, rtol=1e-6)


def test_parameters_and_their_first_values():
    names = {score: set(dict(SuperGATConv(IN, OUT, HEADS, score=score).named_parameters())) for score in SCORES}
    assert names["dp"] == names["sd"] == {"fc.weight", "bias"}
    assert names["go"] == names["mx"] == {"fc.weight", "bias", "attn_l", "attn_r"}
    layer = SuperGATConv(40, 30, 20)
    bounds = {"fc.weight": math.sqrt(6 / (40 + 600)), "attn_l": math.sqrt(6 / 80), "attn_r": math.sqrt(6 / 80)}
    for name, bound in bounds.items():
        largest = dict(layer.named_parameters())[name].abs().max()
        assert 0.95 * bound < largest <= bound, name
    assert not layer.bias.any()
    assert SuperGATConv(IN, OUT, HEADS, bias=False).bias is None


@pytest.mark.parametrize("score", SCORES)
def test_uniform_attention_is_a_mean_and_phi_stays(score):
    graph = build("homogeneous")
    layer, feat, pairs = layer_of(score), feats_of(graph, ""), pairs_of(graph)
    _, phis = layer(graph, feat, pairs=pairs)
    with ops.uniform_attention():
        out, alpha, uniform_phis = layer(graph, feat, get_attention=True, pairs=pairs)
    dst, degree = graph.edges(order="eid")[1], graph.in_degrees().double()
    torch.testing.assert_close(alpha, (1 / degree[dst]).view(-1, 1, 1).expand(-1, HEADS, 1))
    mean = dgl.ops.copy_u_sum(graph, feat @ layer.fc.weight.t()) / degree.unsqueeze(1) + layer.bias
    torch.testing.assert_close(out.flatten(1), mean)
    assert all(torch.equal(a, b) for a, b in zip(phis, uniform_phis, strict=True))


@pytest.mark.parametrize("score", SCORES)
def test_weights_masks_and_dropout_are_those_of_the_operator(score):
    graph = build("homogeneous")
    layer, feat = layer_of(score), feats_of(graph, "")
    weight, mask = torch.rand(graph.num_edges()).double(), torch.rand(graph.num_edges()) < 0.7
    mask[-23:] = True  # the self-loops
    out, alpha = layer(graph, feat, weight, True, edge_mask=mask)
    assert not alpha[~mask].any()
    z = (feat @ layer.fc.weight.t()).view(-1, HEADS, OUT)
    torch.testing.assert_close(out, ops.weighted_sum(graph, z, alpha.squeeze(-1)) + layer.bias.view(HEADS, OUT))
    without = layer(dgl.edge_subgraph(graph, mask, relabel_nodes=False), feat, weight[mask])
    torch.testing.assert_close(out, without)
    for rate in ("feat_drop", "attn_drop"):
        noisy = layer_of(score, **{rate: 0.5})
        assert not torch.equal(noisy(graph, feat), noisy(graph, feat))
        assert torch.equal(noisy.eval()(graph, feat), noisy(graph, feat))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_other_float_types_and_int32(score, dtype):
    graph = build("homogeneous", torch.int32)
    layer, feat, pairs = layer_of(score), feats_of(graph, ""), pairs_of(graph)
    expected, phis = layer(graph, feat, pairs=pairs)
    layer = layer.to(dtype)
    got, got_phis = layer(graph, feat.to(dtype), pairs=pairs)
    assert got.dtype == dtype
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.2, "rtol": 0.1}
    for a, b in ((got, expected), *zip(got_phis, phis, strict=True)):
        torch.testing.assert_close(a.double(), b, **close)


def test_nodes_without_in_edges_saved_layers_and_activations():
    graph, feat = build("zero_in_degree"), torch.randn(29, IN)
    layer = SuperGATConv(IN, OUT, HEADS, activation=torch.tanh, bias=False)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(graph, feat)
    layer.set_allow_zero_in_degree(True)
    out = layer(graph, feat)
    assert not out[graph.in_degrees() == 0].any() and out.abs().max() < 1
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(graph, feat), out)


def test_wrong_calls_are_one_sentence():
    for wrong in ("MX", "", None, ["mx"]):
        with pytest.raises(ShapeError, match=re.escape(f"score: expected one of {SCORES}, got {wrong!r}")):
            SuperGATConv(IN, OUT, HEADS, score=wrong)
    with pytest.raises(ShapeError, match="attn_drop: expected a number from 0 to 1, got 2"):
        SuperGATConv(IN, OUT, HEADS, attn_drop=2)
    graph, layer = build("homogeneous"), SuperGATConv(IN, OUT, HEADS)
    with pytest.raises(GraphError, match="graph: expected a DGLGraph, got list"):
        layer([graph], torch.randn(23, IN))
    with pytest.raises(ShapeError, match=re.escape("feat: expected [N, F], got [23, 2, 7]")):
        layer(graph, torch.randn(23, 2, IN))
    sentence = "pairs: expected a graph of 23 sources and 23 destinations, got 19 and 13"
    with pytest.raises(GraphError, match=sentence):
        layer(graph, torch.randn(23, IN), pairs=build("bipartite"))


def test_edge_loss_is_the_cross_entropy_of_mean_logits():
    edges = torch.randn(11, HEADS, dtype=torch.float64, requires_grad=True)
    others = torch.randn(7, HEADS, dtype=torch.float64, requires_grad=True)
    mean = torch.cat([edges, others]).sum(1) / HEADS
    p = 1 / (1 + torch.exp(-mean))
    y = torch.tensor([1.0] * 11 + [0.0] * 7)
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    got = edge_loss(edges, others)
    torch.testing.assert_close(got, expected)
    for a, b in zip(*(torch.autograd.grad(x, (edges, others)) for x in (got, expected)), strict=True):
        torch.testing.assert_close(a, b)
    none = torch.zeros(0, HEADS)
    assert edge_loss(none, none) == 0
    torch.testing.assert_close(edge_loss(edges, none.double()), F.softplus(-edges.mean(1)).mean())
