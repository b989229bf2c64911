"""Every layer with a small call of it: what holds for all of them is tested over this list."""

from collections import namedtuple

import dgl
import torch
from batches import batch

from hgat import graph as hgraph
from hgat import nn as hnn
from zoo import build, typed_graph

__all__ = [
    "EDGE",
    "HEADS",
    "IN",
    "LAYERS",
    "ON_ONE_GRAPH",
    "OUT",
    "inputs",
    "one_relation",
    "stack_of_snapshots",
    "tensors",
]

IN, OUT, HEADS, EDGE = 7, 5, 3, 2

# build: keywords -> the layer. call: (layer, keywords) -> what it gives. sizes, rates, names: the constructor's
# arguments that are sizes, rates of dropout, and names of a form, for `build`.
Layer = namedtuple("Layer", "build call sizes rates names", defaults=((), (), ()))


def inputs(graph, name, width=IN, pair=False):
    """What a layer on one relation takes behind the graph."""
    feat = torch.randn(graph.num_src_nodes(), width)
    if pair:
        feat = feat, torch.randn(graph.num_dst_nodes(), width)
    beside = {
        "EdgeGATConv": (graph.num_edges(), EDGE),
        "EGATConv": (graph.num_edges(), EDGE),
        "FAConv": (graph.num_dst_nodes(), width),
        "PPRGATConv": (graph.num_edges(),),
    }
    return (feat, torch.randn(beside[name])) if name in beside else (feat,)


def one_relation(name, **defaults):
    """A layer on one relation, on the homogeneous graph."""

    def make(**options):
        options = {**defaults, **options}
        return getattr(hnn, name)(**options)

    def call(layer, **options):
        graph = build("homogeneous")
        return layer(graph, *inputs(graph, name), **options)

    return make, call


def _uncertain(layer, **options):
    graph = build("homogeneous")
    of_node, of_edge = torch.rand(graph.num_nodes()) / 9, torch.rand(graph.num_edges())
    return layer(graph, *inputs(graph, "UAGConv"), of_node, of_edge, **options)


def stack_of_snapshots():
    graph = dgl.graph(([0, 1, 2, 3, 0, 4], [1, 2, 3, 4, 2, 1]), num_nodes=6)
    graph.edata["time"] = torch.tensor([0, 0, 1, 1, 2, 2])
    return hgraph.snapshots(graph, windows=3)


def _typed():
    graph = hgraph.add_inverse(typed_graph(), self_relation=True)
    return graph, {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}


def _views():
    paths = {"film-film": ["follows"], "co-liked": ["liked by", "likes"]}
    return hgraph.metapaths(typed_graph(), paths), torch.randn(11, IN)


def _hgt(layer, **options):
    graph = build("homogeneous")
    ntype, etype = torch.arange(graph.num_nodes()) % 3, torch.arange(graph.num_edges()) % 4
    return layer(graph, torch.randn(graph.num_nodes(), IN), ntype, etype, **options)


def _simple_hgn(layer, **options):
    graph = build("homogeneous")
    return layer(graph, torch.randn(graph.num_nodes(), IN), torch.arange(graph.num_edges()) % 4, **options)


def _tgat(layer, **options):
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False], [True, True, True]])
    return layer(torch.randn(4, IN), torch.randn(4, 3, IN), torch.rand(4, 3), mask, **options)


def _rtgat(layer, **options):
    mask = torch.tensor([[[True, True], [True, False]], [[False, False], [True, True]], [[False, False]] * 2])
    return layer(torch.randn(3, IN), torch.randn(3, 2, 2, IN), torch.rand(3, 2, 2), mask, **options)


def _triples():
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randint(0, size, (41,), generator=generator) for size in (11, 3, 11)], 1)
    return hgraph.relation_groups(*hgraph.message_graph(hgraph.triple_graph(rows, 11, ("a", "b", "c"))))


def _paths(layer, **options):
    graph = build("homogeneous")
    paths = hgraph.cheapest_paths(graph, torch.rand(graph.num_edges()))
    return layer(paths, torch.randn(graph.num_nodes(), IN), **options)


def _hyperedges(layer, **options):
    return layer(hgraph.hypergraph([[0, 1, 2], [2, 3], [], [4], [1, 3, 4, 2]], 6), torch.randn(6, IN), **options)


def _typed_graphs(layer, **options):
    graph = dgl.batch([typed_graph(), typed_graph()])
    return layer(graph, {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}, **options)


def _sets(layer, **options):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    return layer(torch.randn(2, 4, IN), torch.randn(2, 3, IN), mask=mask, **options)


SIZES = ("in_feats", "out_feats", "num_heads")
DROPS = ("feat_drop", "attn_drop")
PLAIN = {"in_feats": IN, "out_feats": OUT, "num_heads": HEADS}
LAYERS = {
    "GATConv": Layer(*one_relation("GATConv", **PLAIN), SIZES, (*DROPS, "value_drop", "edge_drop")),
    "GATConv, bare": Layer(*one_relation("GATConv", **PLAIN, bias=False)),
    "GATConv, identity": Layer(*one_relation("GATConv", in_feats=IN, out_feats=IN, num_heads=1, residual=True)),
    "GATConv, sym": Layer(
        *one_relation("GATConv", **PLAIN, residual=True, use_symmetric_norm=True, use_attn_dst=False)
    ),
    "GATv2Conv": Layer(*one_relation("GATv2Conv", **PLAIN), SIZES, (*DROPS, "edge_drop")),
    "GATv2Conv, identity": Layer(*one_relation("GATv2Conv", in_feats=IN, out_feats=IN, num_heads=1, residual=True)),
    "DotGatConv": Layer(*one_relation("DotGatConv", **PLAIN), SIZES, ("attn_drop", "edge_drop")),
    "DotGatConv, keys": Layer(*one_relation("DotGatConv", **PLAIN, key_feats=2, bias=True), (*SIZES, "key_feats")),
    "EdgeGATConv": Layer(
        *one_relation("EdgeGATConv", **PLAIN, edge_feats=EDGE), (*SIZES, "edge_feats"), (*DROPS, "edge_drop")
    ),
    "EGATConv": Layer(
        *one_relation(
            "EGATConv", in_node_feats=IN, in_edge_feats=EDGE, out_node_feats=OUT, out_edge_feats=4, num_heads=3
        ),
        ("in_node_feats", "in_edge_feats", "out_node_feats", "out_edge_feats", "num_heads"),
    ),
    "GeneralAttentionConv": Layer(
        *one_relation("GeneralAttentionConv", **PLAIN),
        (*SIZES, "key_feats", "output_feats"),
        DROPS,
        ("score", "alignment", "keys", "values", "query"),
    ),
    "GeneralAttentionConv, best": Layer(
        *one_relation("GeneralAttentionConv", **PLAIN, score="additive", alignment="local", top_k=2, query="none")
    ),
    "GeneralAttentionConv, hard": Layer(
        *one_relation("GeneralAttentionConv", **PLAIN, score="euclidean", alignment="hard", residual=True, bias=True)
    ),
    "GeneralAttentionConv, features": Layer(
        *one_relation("GeneralAttentionConv", **PLAIN, score="additive", multi_dimensional=True, output_feats=4)
    ),
    "GeneralAttention": Layer(
        lambda **o: hnn.GeneralAttention(**PLAIN | o), _sets, (*SIZES, "value_feats"), DROPS, ("score", "alignment")
    ),
    "GeneralAttention, window": Layer(
        lambda **o: hnn.GeneralAttention(
            **PLAIN, score="linear", alignment="local", window=1.5, centre="predictive", **o
        ),
        _sets,
    ),
    "PPRGATConv": Layer(*one_relation("PPRGATConv", **PLAIN), SIZES, (*DROPS, "value_drop"), ("score",)),
    "PPRGATConv, v2": Layer(*one_relation("PPRGATConv", **PLAIN, score="v2", residual=True)),
    "AGNNConv": Layer(*one_relation("AGNNConv")),
    "HGTConv": Layer(
        lambda **o: hnn.HGTConv(
            **{"in_size": IN, "head_size": OUT, "num_heads": HEADS, "num_ntypes": 3, "num_etypes": 4} | o
        ),
        _hgt,
        ("in_size", "head_size", "num_heads", "num_ntypes", "num_etypes"),
        ("dropout",),
    ),
    "RGATConv": Layer(
        lambda **o: hnn.RGATConv(**PLAIN | {"etypes": _typed()[0].canonical_etypes} | o),
        lambda layer, **o: layer(*_typed(), **o),
        (*SIZES, "num_bases", "num_attn_bases", "num_blocks"),
        DROPS,
        ("softmax", "score"),
    ),
    "RGATConv, within": Layer(
        lambda **o: hnn.RGATConv(**PLAIN, etypes=_typed()[0].canonical_etypes, softmax="within"),
        lambda layer, **o: layer(*_typed(), **o),
    ),
    "RGATConv, activation": Layer(
        lambda **o: hnn.RGATConv(**PLAIN, etypes=_typed()[0].canonical_etypes, activation=torch.tanh, bias=True),
        lambda layer, **o: layer(*_typed(), **o),
    ),
    "FeaturelessRGATConv": Layer(
        lambda **o: hnn.FeaturelessRGATConv(
            hgraph.join_relations(_typed()[0]), **{"out_feats": OUT, "num_heads": HEADS} | o
        ),
        lambda layer, **o: layer(_typed()[0], None, **o),
        SIZES[1:],
        DROPS,
        ("softmax", "score"),
    ),
    "HANConv": Layer(
        lambda **o: hnn.HANConv(**PLAIN | {"num_metapaths": 2} | o),
        lambda layer, **o: layer(*_views(), **o),
        (*SIZES, "num_metapaths", "semantic_feats"),
        (*DROPS, "value_drop"),
        ("semantic",),
    ),
    "ViewGATConv": Layer(
        lambda **o: hnn.ViewGATConv(**PLAIN | {"num_views": 2, "activation": None} | o),
        lambda layer, **o: layer(*_views(), **o),
        (*SIZES, "num_views"),
        (*DROPS, "value_drop"),
    ),
    "SnapshotGATConv": Layer(
        lambda **o: hnn.SnapshotGATConv(**PLAIN | {"activation": None} | o),
        lambda layer, **o: layer(stack_of_snapshots(), torch.randn(6, IN), **o),
        SIZES,
        DROPS,
        ("score",),
    ),
    "SnapshotGATConv, dot": Layer(
        lambda **o: hnn.SnapshotGATConv(**PLAIN, score="dot", activation=None),
        lambda layer, **o: layer(stack_of_snapshots(), torch.randn(6, IN), **o),
    ),
    "TemporalAttention": Layer(
        lambda **o: hnn.TemporalAttention(**{"feats": 6, "num_heads": 3, "num_steps": 4} | o),
        lambda layer, **o: layer(torch.randn(5, 4, 6), **o),
        ("feats", "num_heads", "num_steps"),
        ("attn_drop",),
        ("position", "scale"),
    ),
    "TemporalAttention, bare": Layer(
        lambda **o: hnn.TemporalAttention(6, 1, position="none", feed_forward=False),
        lambda layer, **o: layer(torch.randn(5, 4, 6), **o),
    ),
    "TGATConv": Layer(
        lambda **o: hnn.TGATConv(**PLAIN | {"time_feats": 4} | o),
        _tgat,
        (*SIZES, "time_feats"),
        ("attn_drop", "out_drop"),
        ("time_encoding",),
    ),
    "RTGATConv": Layer(
        lambda **o: hnn.RTGATConv(**PLAIN | {"time_feats": 4, "etypes": [("e", "of", "x"), ("e", "by", "y")]} | o),
        _rtgat,
        (*SIZES, "time_feats"),
        ("attn_drop", "out_drop"),
        ("time_encoding", "softmax"),
    ),
    "SemanticAttention": Layer(
        lambda **o: hnn.SemanticAttention(**{"in_feats": IN} | o),
        lambda layer: layer(torch.randn(5, 3, IN)),
        ("in_feats", "hidden_feats"),
        (),
        ("form",),
    ),
    "Fusion": Layer(
        lambda **o: hnn.Fusion(**{"in_feats": IN, "num_views": 3, "mix": True, "temperature": 3.0} | o),
        lambda layer: layer(torch.randn(5, 3, IN)),
        ("in_feats", "num_views", "hidden_feats"),
        ("attn_drop",),
        ("score", "form", "gate"),
    ),
    "Fusion, hops": Layer(
        lambda **o: hnn.Fusion(IN, score="linear", score_bias=True, gate="sigmoid", attn_drop=0.3, **o),
        lambda layer: layer([torch.randn(5, IN) for _ in range(3)]),
    ),
    "Fusion, channels": Layer(
        lambda **o: hnn.Fusion(
            IN, 3, score="linear", reference_feats=4, shared=False, activation=torch.sigmoid, gate="tanh", **o
        ),
        lambda layer: layer(torch.randn(5, 3, IN), torch.randn(5, 4)),
    ),
    "Fusion, one view": Layer(
        lambda **o: hnn.Fusion(IN, gate="none", form="global", **o), lambda layer: layer([torch.randn(5, IN)])
    ),
    "DAGNNConv": Layer(*one_relation("DAGNNConv", in_feats=IN, hops=2), ("in_feats",), (), ("propagation",)),
    "DAGNNConv, popular": Layer(*one_relation("DAGNNConv", in_feats=IN, hops=2, propagation="gat")),
    "MAGNAConv": Layer(*one_relation("MAGNAConv", **PLAIN), (*SIZES, "hops"), (*DROPS, "alpha"), ("diffusion",)),
    "MAGNABlock": Layer(
        *one_relation("MAGNABlock", **PLAIN | {"out_feats": 12}), (*SIZES, "hops"), (*DROPS, "ff_drop"), ("diffusion",)
    ),
    "SPAGANConv": Layer(
        lambda **o: hnn.SPAGANConv(**PLAIN | o), _paths, (*SIZES, "max_length"), DROPS, ("path_encoder", "score")
    ),
    "SPAGANConv, lstm": Layer(lambda **o: hnn.SPAGANConv(**PLAIN, path_encoder="lstm", score="path", **o), _paths),
    "FAConv": Layer(*one_relation("FAConv", in_feats=IN), ("in_feats",), ("attn_drop",), ("form",)),
    "FAConv, two channels": Layer(*one_relation("FAConv", in_feats=IN, form="two_channel", bias=False, attn_drop=0.2)),
    "ACMConv": Layer(*one_relation("ACMConv", in_feats=IN, out_feats=OUT), SIZES[:2], (), ("form",)),
    "ACMConv, everything": Layer(
        *one_relation(
            "ACMConv", in_feats=IN, out_feats=OUT, form="acmii", score_norm=True, scale_by_channels=True, num_nodes=23
        ),
        ("in_feats", "out_feats", "num_nodes"),
    ),
    "ACMConv, low": Layer(*one_relation("ACMConv", in_feats=IN, out_feats=OUT, channels=("low",))),
    "UAGConv": Layer(*one_relation("UAGConv", **PLAIN), SIZES, (*DROPS, "value_drop")),
    "UAGConv, uncertain": Layer(lambda **o: hnn.UAGConv(**PLAIN | o), _uncertain),
    "SuperGATConv": Layer(*one_relation("SuperGATConv", **PLAIN), SIZES, DROPS),
    "SuperGATConv, sd": Layer(*one_relation("SuperGATConv", **PLAIN, score="sd")),
    "SimpleHGNConv": Layer(
        lambda **o: hnn.SimpleHGNConv(**PLAIN | {"num_etypes": 4, "residual": True} | o),
        _simple_hgn,
        (*SIZES, "num_etypes", "edge_feats"),
        DROPS,
    ),
    "GraphHAMConv": Layer(
        *one_relation("GraphHAMConv", **PLAIN, num_groups=4),
        (*SIZES, "num_groups"),
        (*DROPS, "value_drop"),
        ("variant",),
    ),
    "GraphHAMConv, grains": Layer(*one_relation("GraphHAMConv", **PLAIN, num_groups=4, variant="grains")),
    "GlobalAttentionPooling": Layer(
        lambda **o: hnn.GlobalAttentionPooling(torch.nn.Linear(IN, 1), torch.nn.Linear(IN, OUT), **o),
        lambda layer, **o: layer(*batch(IN), **o),
    ),
    "Set2Set": Layer(
        lambda **o: hnn.Set2Set(**{"input_dim": IN, "n_iters": 2, "n_layers": 1} | o),
        lambda layer, **o: layer(*batch(IN), **o),
        ("input_dim", "n_iters", "n_layers"),
    ),
    "HypergraphAttentionConv": Layer(lambda **o: hnn.HypergraphAttentionConv(**PLAIN | o), _hyperedges, SIZES, DROPS),
    "HypergraphAttentionConv, others": Layer(
        lambda **o: hnn.HypergraphAttentionConv(**PLAIN, include_self=False, residual=True, **o), _hyperedges
    ),
    "RGHATConv": Layer(
        lambda **o: hnn.RGHATConv(**{"in_feats": 6, "rel_feats": 4, "out_feats": OUT, "num_heads": HEADS} | o),
        lambda layer, **o: layer(_triples(), torch.randn(11, 6), torch.randn(6, 4), **o),
        (*SIZES, "rel_feats"),
        DROPS,
        ("order", "combine"),
    ),
    "HierarchicalPooling": Layer(
        lambda **o: hnn.HierarchicalPooling(**{"in_feats": IN} | o), _typed_graphs, ("in_feats", "hidden_feats")
    ),
    "MultiHopPooling": Layer(
        lambda **o: hnn.MultiHopPooling(**{"in_feats": IN, "query_feats": 4, "num_hops": 2} | o),
        lambda layer, **o: layer(*batch(IN), **o),
        ("in_feats", "query_feats", "num_hops"),
    ),
    "CapsulePooling": Layer(
        lambda **o: hnn.CapsulePooling(**{"in_feats": IN, "num_classes": 3} | o),
        lambda layer, **o: layer(*batch(IN), **o),
        ("in_feats", "num_classes"),
    ),
    "TimeEncoding": Layer(
        lambda **o: hnn.TimeEncoding(**{"width": 4} | o), lambda layer: layer(torch.rand(5)), ("width",), (), ("form",)
    ),
}
# Those that take one relation, or a block, and behind it features and what `inputs` gives besides.
ON_ONE_GRAPH = (
    "GATConv",
    "GATv2Conv",
    "DotGatConv",
    "GeneralAttentionConv",
    "EdgeGATConv",
    "EGATConv",
    "AGNNConv",
    "SuperGATConv",
    "FAConv",
    "ACMConv",
    "UAGConv",
)


def tensors(result):
    """Every tensor of what a layer gave, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in tensors(part)]
