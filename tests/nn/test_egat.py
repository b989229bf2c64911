"""EGATConv and AGNNConv: DGL's parameters, results, gradients and habits, and more than DGL serves."""

import inspect

import dgl
import dgl.nn as dglnn
import pytest
import torch
import torch.nn.functional as F
from catalogue import EDGE, HEADS, IN, OUT

import hgat
from hgat import nn as hnn
from hgat.errors import ShapeError
from zoo import build

EGAT = (IN, EDGE, OUT, 4, HEADS)


def _compare(theirs, ours, call, leaves):
    got, want = call(ours), call(theirs)
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    cotangents = [torch.randn_like(w) for w in want]
    parameters = [dict(layer.named_parameters()) for layer in (ours, theirs)]
    assert set(parameters[0]) == set(parameters[1])
    names = list(parameters[0])
    found = [
        torch.autograd.grad(outs, [*leaves, *(p[n] for n in names)], cotangents, allow_unused=True)
        for outs, p in zip((got, want), parameters, strict=True)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "hub", "bipartite"])
def test_egat_equals_dgl(name, weights, idtype):
    graph, pair = build(name, idtype), name == "bipartite"
    widths = ((IN, 4), *EGAT[1:]) if pair else EGAT
    theirs, ours = dglnn.EGATConv(*widths), hnn.EGATConv(*widths)
    with torch.no_grad():
        theirs.bias.normal_()
    ours.load_state_dict(theirs.state_dict())
    feat = torch.randn(graph.num_src_nodes(), IN, requires_grad=True)
    edge = torch.randn(graph.num_edges(), EDGE, requires_grad=True)
    leaves, given = [feat, edge], feat
    if pair:
        given = feat, torch.randn(graph.num_dst_nodes(), 4, requires_grad=True)
        leaves.append(given[1])
    weight = torch.rand(graph.num_edges()) if weights else None
    _compare(theirs, ours, lambda layer: layer(graph, given, edge, weight, get_attention=True), leaves)
    assert len(ours(graph, given, edge)) == 2
    theirs.load_state_dict(ours.state_dict())


def test_egat_serves_what_dgls_layer_cannot():
    layer = hnn.EGATConv(*EGAT, bias=False)
    assert layer.bias is None
    layer.reset_parameters()
    graph, block = build("homogeneous"), build("block")
    feat, edge = torch.randn(block.num_src_nodes(), IN), torch.randn(block.num_edges(), EDGE)
    out, f = layer(block, feat, edge)
    want, _ = layer(block, (feat, feat[: block.num_dst_nodes()]), edge)
    torch.testing.assert_close(out, want)
    assert f.shape == (block.num_edges(), HEADS, 4)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(build("zero_in_degree"), torch.randn(29, IN), torch.randn(61, EDGE))
    with pytest.raises(ShapeError, match=r"efeats: expected \[E, F_e\]"):
        layer(graph, torch.randn(23, IN), edge)


@pytest.mark.parametrize("options", [{}, {"learn_beta": False}, {"init_beta": -0.7}], ids=str)
@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "hub", "bipartite", "block"])
@pytest.mark.parametrize("axes", [(), (2,), (2, 3)], ids=str)
def test_agnn_equals_dgl(name, axes, options):
    graph = build(name)
    theirs, ours = dglnn.AGNNConv(**options), hnn.AGNNConv(**options)
    assert torch.equal(theirs.beta, ours.beta)
    ours.load_state_dict(theirs.state_dict())
    feat = torch.randn(graph.num_src_nodes(), *axes, IN, requires_grad=True)
    leaves, given = [feat], feat
    if name == "bipartite":
        given = feat, torch.randn(graph.num_dst_nodes(), *axes, IN, requires_grad=True)
        leaves.append(given[1])
    _compare(theirs, ours, lambda layer: [layer(graph, given)], leaves)


def test_agnn_of_rows_of_zeros_and_nodes_without_in_edges():
    graph = build("zero_in_degree")
    ours, theirs = hnn.AGNNConv(), dglnn.AGNNConv(allow_zero_in_degree=True)
    feat = torch.randn(29, IN)
    feat[3] = 0
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        ours(graph, feat)
    ours.set_allow_zero_in_degree(True)
    torch.testing.assert_close(ours(graph, feat), theirs(graph, feat), atol=1e-5, rtol=1e-5)


def test_agnn_keeps_both_ends_of_a_pair_apart():
    graph = build("homogeneous")
    feat = torch.randn(23, IN), torch.randn(23, IN)
    src, dst = graph.edges(order="eid")
    cosine = F.cosine_similarity(feat[0][src], feat[1][dst])
    alpha = dgl.nn.functional.edge_softmax(graph, cosine.unsqueeze(1))
    want = torch.zeros(23, IN).index_add(0, dst, alpha * feat[0][src])
    torch.testing.assert_close(hnn.AGNNConv()(graph, feat), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["EGATConv", "AGNNConv"])
def test_constructor_and_forward_take_dgls_positions(name):
    def names(function):
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values() if p.kind in kinds]

    theirs, ours = getattr(dglnn, name), getattr(hnn, name)
    assert names(ours.__init__) == names(theirs.__init__)
    assert names(ours.forward) == names(theirs.forward)


def test_egat_draws_dgls_initialisation():
    sizes = (64, 16, 64, 32, 8)
    torch.manual_seed(0)
    theirs = dglnn.EGATConv(*sizes)
    torch.manual_seed(0)
    ours = hnn.EGATConv(*sizes)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name], parameter)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_graphs_of_one_sparse_format(form):
    graph = build("homogeneous")
    feat, edge = torch.randn(23, IN), torch.randn(graph.num_edges(), EDGE)
    egat, agnn = hnn.EGATConv(*EGAT), hnn.AGNNConv()
    thin = graph.formats(form)
    torch.testing.assert_close(egat(thin, feat, edge)[0], egat(graph, feat, edge)[0])
    torch.testing.assert_close(agnn(thin, feat), agnn(graph, feat))


def test_accelerated():
    graph = build("homogeneous")
    feat, edge = torch.randn(23, IN), torch.randn(graph.num_edges(), EDGE)
    model = torch.nn.ModuleDict({"egat": dglnn.EGATConv(*EGAT), "agnn": dglnn.AGNNConv(0.5, False)})
    want = [*model["egat"](graph, feat, edge, get_attention=True), model["agnn"](graph, feat)]
    report = hgat.accelerate(model)
    assert report.replaced == {"egat": hnn.EGATConv, "agnn": hnn.AGNNConv} and not report.kept
    for one, other in zip(
        [*model["egat"](graph, feat, edge, get_attention=True), model["agnn"](graph, feat)], want, strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
