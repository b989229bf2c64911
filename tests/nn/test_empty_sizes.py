"""Layers and models where a size is zero: no destinations, no sources, no edges, types without nodes."""

import inspect

import dgl
import pytest
import torch
from catalogue import EDGE, HEADS, IN, ON_ONE_GRAPH, OUT, inputs, tensors
from dgl.nn import HeteroGraphConv

from hgat import graph as hgraph
from hgat import nn as hnn
from hgat.models.dysat import DySAT
from hgat.models.gat import GAT
from hgat.models.gatv2 import GATv2
from hgat.models.han import HAN
from hgat.models.rgat import RGAT
from hgat.models.tgat import TGAT
from zoo import build


def _bipartite(num_src, num_dst):
    return dgl.heterograph({("a", "to", "b"): ([], [])}, num_nodes_dict={"a": num_src, "b": num_dst})


def _block():
    whole = dgl.graph(([0, 1], [1, 2]), num_nodes=4)
    return dgl.to_block(dgl.in_subgraph(whole, torch.zeros(0, dtype=torch.int64)), torch.zeros(0, dtype=torch.int64))


GRAPHS = {
    "no edges": lambda: build("empty"),
    "no nodes": lambda: build("no_nodes"),
    "no destinations": lambda: _bipartite(5, 0),
    "no sources": lambda: _bipartite(0, 5),
    "a block of nothing": _block,
}
OPTIONS = {
    "GATConv": [
        {},
        {"residual": True},
        {"use_symmetric_norm": True, "edge_drop": 0.5, "residual": True},
        {"edge_feats": EDGE},
    ],
    "GATv2Conv": [{}, {"residual": True}, {"edge_feats": EDGE, "share_weights": True, "edge_drop": 0.5}],
    "DotGatConv": [{}, {"key_feats": 2}],
    "GeneralAttentionConv": [{}, {"score": "additive", "alignment": "local", "top_k": 2}, {"alignment": "hard"}],
    "EdgeGATConv": [{"edge_feats": EDGE}, {"edge_feats": EDGE, "residual": False}],
    "EGATConv": [{}],
    "AGNNConv": [{}],
    "SuperGATConv": [{}, {"score": "sd", "residual": True}],
    "FAConv": [{}, {"form": "two_channel"}],
    "ACMConv": [{}, {"form": "acmii", "score_norm": True}],
    "UAGConv": [{}, {"value_drop": 0.5}],
}
# What a row of the output is, and of alpha, where it is not H heads of width D.
ROWS = {
    "AGNNConv": lambda width, options: ((width,), None),
    "FAConv": lambda width, options: ((width,), (0, 1 + ("form" in options))),
    "ACMConv": lambda width, options: ((OUT,), ("N_dst", 3)),
}
CASES = [(name, options, width) for name in ON_ONE_GRAPH for options in OPTIONS[name] for width in (IN, OUT * HEADS)]


def _layer(name, width, options, graph):
    pair = not graph.is_block and graph.num_src_nodes() != graph.num_dst_nodes()
    widths = (width, width) if pair else width
    if name == "EGATConv":
        return hnn.EGATConv(widths, EDGE, OUT, 4, HEADS), pair
    if name == "FAConv":  # both ends are of one width
        return hnn.FAConv(width, **options), pair
    known = inspect.signature(getattr(hnn, name).__init__).parameters
    given = {"out_feats": OUT, "num_heads": HEADS, "allow_zero_in_degree": True}
    given = {key: value for key, value in given.items() if key in known}
    if name == "AGNNConv":
        return hnn.AGNNConv(**given), pair
    widths = width if name in ("ACMConv", "UAGConv") else widths
    return getattr(hnn, name)(widths, **given, **options), pair


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize(("name", "options", "width"), CASES, ids=str)
def test_layers_on_one_relation(name, options, width, kind):
    graph = GRAPHS[kind]()
    layer, pair = _layer(name, width, options, graph)
    arguments = inputs(graph, name, width, pair)
    given = (
        {"edge_feat": torch.randn(graph.num_edges(), EDGE)} if "edge_feats" in options and len(arguments) == 1 else {}
    )
    if name == "EGATConv" and graph.num_dst_nodes():
        with pytest.raises(dgl.DGLError, match="0-in-degree"):
            layer(graph, *arguments)
        return
    outs = tensors(layer(graph, *arguments, **given))
    last, weights = ROWS.get(name, lambda *_: ((HEADS, OUT), (0, HEADS, 1)))(width, options)
    assert outs[0].shape == (graph.num_dst_nodes(), *last)
    sum(out.sum() for out in outs).backward()
    for parameter in layer.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    if weights is not None:
        weights = tuple(graph.num_dst_nodes() if size == "N_dst" else size for size in weights)
        assert tensors(layer(graph, *arguments, **given, get_attention=True))[-1].shape == weights


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "EdgeGATConv"])
def test_extra_axes_without_destinations(name):
    graph = _bipartite(5, 0)
    layer, _ = _layer(name, IN, {"residual": True, **({"edge_feats": EDGE} if name == "EdgeGATConv" else {})}, graph)
    if name == "GATv2Conv":
        return
    feat = torch.randn(5, 2, IN), torch.randn(0, 2, IN)
    edge = (torch.randn(0, EDGE),) if name == "EdgeGATConv" else ()
    assert layer(graph, feat, *edge).shape == (0, 2, HEADS, OUT)


def test_a_type_without_nodes_among_the_relations_of_a_typed_model():
    graph = dgl.heterograph(
        {("user", "buys", "item"): ([0, 1], [1, 2]), ("user", "uses", "tag"): ([], [])},
        {"user": 3, "item": 4, "tag": 0},
    )
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    for name in ("GATConv", "GATv2Conv", "DotGatConv", "AGNNConv"):
        for options in OPTIONS[name][:2]:
            layers = {e: _layer(name, IN, options, _bipartite(1, 0))[0] for e in ("buys", "uses")}
            out = HeteroGraphConv(layers)(graph, (feat, feat))
            assert out["tag"].shape[0] == 0 and out["item"].shape[0] == 4


def _typed(**sizes):
    sizes = {"u": 4, "f": 3, "e": 0} | sizes
    ends = ([0, 1], [0, 1]) if sizes["u"] and sizes["f"] else ([], [])
    relations = {
        ("u", "r", "f"): ends,
        ("f", "s", "u"): ends[::-1],
        ("e", "t", "u"): ([], []),
        ("u", "w", "e"): ([], []),
    }
    return dgl.heterograph(relations, num_nodes_dict=sizes)


SIZES = [{}, {"u": 0}, {"f": 0}, {"u": 0, "f": 0}]


@pytest.mark.parametrize(
    "form", [{}, {"softmax": "within"}, {"score": "multiplicative", "attn_feats": 2}, {"bias": True}], ids=str
)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rgat(sizes, form):
    graph = _typed(**sizes)
    layer = hnn.RGATConv(IN, OUT, HEADS, graph.canonical_etypes, **form)
    out, alpha = layer(graph, {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}, get_attention=True)
    assert {t: z.shape for t, z in out.items()} == {t: (graph.num_nodes(t), HEADS, OUT) for t in graph.dsttypes}
    assert {e: a.shape for e, a in alpha.items()} == {e: (graph.num_edges(e), HEADS) for e in graph.canonical_etypes}
    form = {k: v for k, v in form.items() if k != "bias"}
    free = hnn.FeaturelessRGATConv(hgraph.join_relations(graph), OUT, HEADS, **form)
    assert {t: len(z) for t, z in free(graph, None).items()} == {t: graph.num_nodes(t) for t in graph.dsttypes}
    for settings in ({"one_hot": True}, {}, {"residual": True}):
        model = RGAT.for_graph(graph, dict.fromkeys(graph.ntypes), 2, "u", **form, **settings)
        assert model(graph, dict.fromkeys(graph.ntypes)).shape == (graph.num_nodes("u"), 2)


@pytest.mark.parametrize("num_nodes", [0, 3])
@pytest.mark.parametrize("semantic", ["global", "per_node"])
def test_han(semantic, num_nodes):
    graph = dgl.heterograph({("p", "a", "p"): ([], []), ("p", "b", "p"): ([], [])}, {"p": num_nodes})
    layer = hnn.HANConv(IN, OUT, HEADS, 2, allow_zero_in_degree=True, semantic=semantic)
    out, (alpha, beta) = layer(graph, torch.randn(num_nodes, IN), get_attention=True)
    assert out.shape == (num_nodes, HEADS * OUT) and alpha.shape == (0, HEADS)
    assert torch.isfinite(beta).all()
    if num_nodes == 0:
        assert HAN(IN, 4, 2, heads=[2], semantic=semantic)(graph, torch.randn(0, IN)).shape == (0, 4)
        block = dgl.to_block(graph, {"p": torch.zeros(0, dtype=torch.int64)})
        assert layer(block, torch.randn(0, IN)).shape == (0, HEADS * OUT)


@pytest.mark.parametrize("num_nodes", [0, 3])
@pytest.mark.parametrize("in_size", [IN, HEADS * OUT])
def test_hgt(in_size, num_nodes):
    graph = dgl.graph(([], []), num_nodes=num_nodes)
    none = torch.zeros(0, dtype=torch.int64)
    layer = hnn.HGTConv(in_size, OUT, HEADS, 2, 3, use_norm=True)
    out = layer(graph, torch.randn(num_nodes, in_size), torch.zeros(num_nodes, dtype=torch.int64), none)
    assert out.shape == (num_nodes, HEADS * OUT)


@pytest.mark.parametrize("model", [GAT, GATv2])
def test_models_of_one_type(model):
    for residual in (False, True):
        out = model(IN, 4, heads=[2, 1], hidden=3, residual=residual)(build("no_nodes"), torch.randn(0, IN))
        assert out.shape == (0, 4)
        block = _block()
        assert model(IN, 4, heads=[1], residual=residual)([block], torch.randn(block.num_src_nodes(), IN)).shape == (
            0,
            4,
        )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_tgat_layer(shape):
    nodes, events = shape
    layer = hnn.TGATConv(IN, OUT, HEADS, 4, EDGE)
    out, alpha = layer(
        torch.randn(nodes, IN), torch.randn(*shape, IN), torch.rand(shape), torch.ones(shape, dtype=torch.bool),
        torch.randn(*shape, EDGE), get_attention=True,
    )  # fmt: skip
    assert out.shape == (nodes, OUT) and alpha.shape == (nodes, HEADS, events) and torch.isfinite(out).all()


def test_tgat_of_no_links():
    graph = dgl.graph(([0, 1], [1, 2]), num_nodes=3)
    graph.edata["time"] = torch.tensor([1, 2])
    recent = hgraph.recent_neighbours(graph)
    none = torch.zeros(0, dtype=torch.int64)
    assert TGAT(3, hidden=4, time_feats=2)(recent, none, none, none).shape == (0,)


@pytest.mark.parametrize("options", [{}, {"position": "none", "feed_forward": False}, {"residual": True}], ids=str)
def test_temporal_attention_of_no_nodes(options):
    layer = hnn.TemporalAttention(6, 3, 4, **options)
    assert layer(torch.randn(0, 4, 6)).shape == (0, 4, 6)
    assert layer(torch.randn(0, 4, 6), torch.ones(4, 0, dtype=torch.bool)).shape == (0, 4, 6)
    assert layer.extend(torch.randn(0, 6))[0].shape == (0, 6)


@pytest.mark.parametrize(
    "settings", [{"structural": "rgat"}, {"structural": "han", "paths": {"f": ["r", "s"]}}], ids=str
)
def test_dysat_with_a_type_without_nodes(settings):
    graph = dgl.heterograph(
        {("u", "r", "f"): ([0, 1, 2], [0, 1, 1]), ("f", "s", "u"): ([0, 1, 1], [0, 1, 2]), ("e", "t", "e"): ([], [])},
        {"u": 4, "f": 3, "e": 0},
    )
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.arange(graph.num_edges(etype))
    snapshots = hgraph.snapshots(graph, windows=2, both_ways=False)
    model = DySAT.for_graph(
        snapshots, {t: None for t in graph.ntypes}, heads=[2], temporal_heads=[2], **settings
    ).eval()
    assert model(snapshots, {}).shape == (7, 2, 16)
