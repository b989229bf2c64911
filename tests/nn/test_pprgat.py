"""PPRGATConv against its equations, against the layers that it is without PageRank, and that PageRank matters."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from backends import ON_CPU

from hgat import nn as hnn
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.graph import ppr_values
from hgat.nn.pprgat import PPRGATConv
from zoo import build

IN, OUT, HEADS = 7, 5, 3
SCORES = ["v1", "v2"]
GRAPHS = ["homogeneous", "bipartite", "block", "multi_edges", "hub"]
PLAIN = {"v1": hnn.GATConv, "v2": hnn.GATv2Conv}


def with_b(layer, seed=0):
    """The layer with numbers at what multiplies Pi, which begin as zeros."""
    with torch.no_grad():
        layer.attn_ppr.copy_(torch.randn(1, HEADS, generator=torch.Generator().manual_seed(seed)) * 3)
    return layer


def feats_of(graph, name, dtype=torch.float64):
    feat = torch.randn(graph.num_src_nodes(), IN, dtype=dtype, requires_grad=True)
    if name != "bipartite":
        return feat
    return feat, torch.randn(graph.num_dst_nodes(), IN, dtype=dtype, requires_grad=True)


def near(graph, dtype=torch.float64):
    return torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def oracle(layer, graph, feat, ppr):
    """(out, alpha) edge by edge."""
    p = dict(layer.named_parameters())
    src, dst = graph.edges(order="eid")
    h = feat if isinstance(feat, tuple) else (feat, feat[: graph.num_dst_nodes()])
    names = ("fc_src", "fc_dst") if "fc_src.weight" in p else ("fc", "fc")
    z_src, z_dst = (
        F.linear(x, p[f"{n}.weight"], p.get(f"{n}.bias")).view(len(x), HEADS, OUT)
        for x, n in zip(h, names, strict=True)
    )
    term = ppr[:, None] * p["attn_ppr"]
    if layer.score == "v1":
        e = F.leaky_relu((p["attn_l"] * z_src).sum(-1)[src] + (p["attn_r"] * z_dst).sum(-1)[dst] + term, 0.2)
    else:
        e = (p["attn"] * F.leaky_relu(z_src[src] + z_dst[dst], 0.2)).sum(-1) + term
    total = torch.zeros(len(z_dst), HEADS, dtype=e.dtype).index_add(0, dst, e.exp())
    alpha = e.exp() / total[dst]
    out = torch.zeros(len(z_dst), HEADS, OUT, dtype=e.dtype).index_add(0, dst, alpha[..., None] * z_src[src])
    return out + (p["bias"].view(HEADS, OUT) if "bias" in p else 0), alpha


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", GRAPHS)
def test_equations(name, score, backend):
    graph = build(name)
    widths = (IN, IN) if name == "bipartite" else IN
    layer = with_b(PPRGATConv(widths, OUT, HEADS, score=score, allow_zero_in_degree=True)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    feat, ppr = feats_of(graph, name), near(graph).requires_grad_()
    leaves = [*(feat if isinstance(feat, tuple) else (feat,)), ppr, *layer.parameters()]
    with ops.use_backend(backend):
        out, alpha = layer(graph, feat, ppr, get_attention=True)
        toward = torch.randn_like(out)
        found = torch.autograd.grad((out * toward).sum(), leaves)
    expected, weights = oracle(layer, graph, feat, ppr)
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(alpha.squeeze(-1), weights, atol=1e-9, rtol=1e-9)
    for one, other in zip(found, torch.autograd.grad((expected * toward).sum(), leaves), strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)
        assert one.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", SCORES)
def test_with_zero_weight_of_pagerank_it_is_gat(score, dtype):
    graph = build("homogeneous")
    layer = PPRGATConv(IN, OUT, HEADS, score=score, residual=True).to(dtype)
    plain = PLAIN[score](IN, OUT, HEADS, residual=True).to(dtype)
    missing, more = plain.load_state_dict(layer.state_dict(), strict=False)
    assert not missing and more == ["attn_ppr"]
    assert (layer.attn_ppr == 0).all()  # which is how it begins
    feat = feats_of(graph, "homogeneous", dtype)
    expected, weights = plain(graph, feat, get_attention=True)
    for what in (layer(graph, feat, near(graph, dtype), get_attention=True),):
        torch.testing.assert_close(what[0], expected)
        torch.testing.assert_close(what[1], weights)
    without = PPRGATConv(IN, OUT, HEADS, score=score, residual=True, use_ppr=False).to(dtype)
    without.load_state_dict(plain.state_dict())
    torch.testing.assert_close(without(graph, feat, None), expected)


@pytest.mark.parametrize("score", SCORES)
def test_the_term_is_of_the_edge_and_of_the_head(score):
    """In the released layers it is one number for all edges, which changes no weight."""
    graph = build("homogeneous")
    layer, feat, ppr = with_b(PPRGATConv(IN, OUT, HEADS, score=score)), torch.randn(23, IN), near(graph, torch.float32)
    out, alpha = layer(graph, feat, ppr, get_attention=True)
    _, dst = graph.edges()
    row = int(graph.in_degrees().argmax())
    edge = int((dst == row).nonzero()[0])
    changed = ppr.clone()
    changed[edge] += 0.5
    other, others = layer(graph, feat, changed, get_attention=True)
    elsewhere = torch.arange(23) != row
    assert torch.equal(other[elsewhere], out[elsewhere]) and torch.equal(others[dst != row], alpha[dst != row])
    moved = (others - alpha)[dst == row].squeeze(-1)
    assert (moved != 0).all()  # every weight in the row, in every head
    assert not torch.allclose(moved[:, 0], moved[:, 1], atol=1e-3)
    with torch.no_grad():  # a larger b gives more to who is nearer
        layer.attn_ppr.fill_(60.0)
    _, sharp = layer(graph, feat, changed + torch.where(torch.arange(len(ppr)) == edge, 2.0, 0.0), get_attention=True)
    assert (sharp[edge] > 0.99).all()


def test_a_constant_takes_part_in_v1_alone():
    """What the released code adds: the softmax of v2 takes it away."""
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    for score in SCORES:
        layer = with_b(PPRGATConv(IN, OUT, HEADS, score=score))
        zero, one = (layer(graph, feat, torch.full((graph.num_edges(),), c)) for c in (0.0, 1.0))
        assert torch.allclose(zero, one, atol=1e-5) == (score == "v2")


@pytest.mark.parametrize("score", SCORES)
def test_scores_far_apart_have_finite_gradients(score):
    graph = build("homogeneous")
    layer = with_b(PPRGATConv(IN, OUT, HEADS, score=score))
    feat = (torch.randn(23, IN) * 1e3).requires_grad_()
    layer(graph, feat, near(graph, torch.float32)).square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (feat, *layer.parameters()))


@pytest.mark.parametrize("score", SCORES)
def test_masked_edges_uniform_attention_and_weights(score):
    graph = build("homogeneous")
    layer, feat, ppr = with_b(PPRGATConv(IN, OUT, HEADS, score=score)), torch.randn(23, IN), near(graph, torch.float32)
    src, dst = graph.edges()
    mask = (src == dst) | (torch.arange(graph.num_edges()) % 3 > 0)
    _, alpha = layer(graph, feat, ppr, get_attention=True, edge_mask=mask)
    fewer = dgl.graph((src[mask], dst[mask]), num_nodes=23)
    _, expected = layer(fewer, feat, ppr[mask], get_attention=True)
    torch.testing.assert_close(alpha[mask], expected)
    assert (alpha[~mask] == 0).all()
    twice = layer(graph, feat, ppr, torch.full((graph.num_edges(),), 2.0)) - 2 * layer(graph, feat, ppr)
    bias = 0 if layer.bias is None else layer.bias.view(HEADS, OUT)
    torch.testing.assert_close(twice, torch.zeros_like(twice) - bias, atol=1e-5, rtol=1e-5)
    with ops.uniform_attention():
        _, even = layer(graph, feat, ppr, get_attention=True)
    torch.testing.assert_close(even[:, :, 0], (1 / graph.in_degrees()[dst].float())[:, None].expand(-1, HEADS))


def test_wrong_calls_are_one_sentence():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    layer, ppr = PPRGATConv(IN, OUT, HEADS), ppr_values(build("homogeneous"))
    for wrong in (ppr[:-1], ppr[:, None], ppr.double(), ppr.long(), None, 3):
        with pytest.raises(ShapeError, match="^ppr: expected"):
            layer(graph, feat, wrong)
    for wrong in ("v3", 1, None):
        with pytest.raises(ShapeError, match="^score: expected 'v1' or 'v2'"):
            PPRGATConv(IN, OUT, HEADS, score=wrong)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(build("zero_in_degree"), torch.randn(29, IN), torch.rand(61))
    with pytest.raises(GraphError, match="graph: expected"):
        layer(None, feat, ppr)
