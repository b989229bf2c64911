"""What is not what a layer or a model takes is one sentence that says what was expected: graphs, features, settings."""

import inspect
import re

import dgl
import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from catalogue import EDGE, HEADS, IN, LAYERS, ON_ONE_GRAPH, OUT, inputs, stack_of_snapshots

import hgat
from hgat import graph as hgraph
from hgat import nn as hnn
from hgat.errors import GraphError, HgatError, RecipeError, ShapeError
from hgat.models.dysat import DySAT
from hgat.models.gat import GAT
from hgat.models.gatv2 import GATv2
from hgat.models.han import HAN
from hgat.models.rgat import RGAT
from hgat.models.tgat import TGAT
from zoo import build, typed_graph

EDGES = torch.tensor([[0, 1], [1, 2]])
NO_GRAPHS = {
    "a tensor": (EDGES, "dgl.graph((src, dst)) makes one of edges"),
    "a pair of tensors": ((EDGES[0], EDGES[1]), "dgl.graph((src, dst)) makes one of edges"),
    "an array": (np.zeros((3, 3)), "dgl.graph((src, dst)) makes one of edges"),
    "networkx": (networkx.path_graph(3), "make one with dgl.from_networkx(graph)"),
    "scipy": (scipy.sparse.eye(3).tocsr(), "make one with dgl.from_scipy(matrix)"),
    "none": (None, "expected a DGLGraph"),
    "a list": ([1, 2, 3], "expected a DGLGraph"),
    "a dict": ({"a": 1}, "expected a DGLGraph"),
    "a string": ("graph", "expected a DGLGraph"),
}
OF_RELATIONS = ("RGATConv", "RGATConv, within", "FeaturelessRGATConv")


def _allowing(name, allow):
    """A layer that accepts nodes without in-edges or not, where it has the choice."""
    known = inspect.signature(getattr(hnn, name).__init__).parameters
    return LAYERS[name].build(**({"allow_zero_in_degree": allow} if "allow_zero_in_degree" in known else {}))


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("what", NO_GRAPHS)
@pytest.mark.parametrize("name", ON_ONE_GRAPH)
def test_no_graph_to_a_layer_of_one_relation(name, what, allow):
    wrong, advice = NO_GRAPHS[what]
    layer = _allowing(name, allow)
    with pytest.raises(GraphError, match="graph: expected a DGLGraph, got") as error:
        layer(wrong, *inputs(build("homogeneous"), name))
    assert advice in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("name", ON_ONE_GRAPH)
def test_several_relations_to_a_layer_of_one(name, allow):
    layer = _allowing(name, allow)
    graph = typed_graph()
    with pytest.raises(GraphError, match=r"graph: expected one relation, got 4; take one with graph\[etype\]"):
        layer(graph, *inputs(build("homogeneous"), name))
    with pytest.raises(GraphError, match="graph: expected one relation, got 4"):
        layer(dgl.to_block(graph), *inputs(build("homogeneous"), name))


@pytest.mark.parametrize("what", NO_GRAPHS)
def test_no_graph_to_the_other_layers(what):
    wrong, feat = NO_GRAPHS[what][0], torch.randn(3, IN)
    types = torch.zeros(3, dtype=torch.int64)
    calls = [lambda: LAYERS["HGTConv"].build()(wrong, feat, types, types)]
    calls += [lambda n=name: LAYERS[n].build()(wrong, {"u": feat}) for name in OF_RELATIONS]
    calls += [lambda: LAYERS["HANConv"].build()(wrong, feat), lambda: LAYERS["SnapshotGATConv"].build()(wrong, feat)]
    calls += [lambda: hnn.FeaturelessRGATConv(wrong, OUT, HEADS)]
    for call in calls:
        with pytest.raises(GraphError, match="graph"):
            call()


@pytest.mark.parametrize("what", NO_GRAPHS)
def test_no_graph_to_a_model(what):
    wrong = NO_GRAPHS[what][0]
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    typed = typed_graph()
    features = {t: torch.randn(typed.num_nodes(t), IN) for t in typed.ntypes}
    snapshots = stack_of_snapshots()
    views = hgraph.metapaths(typed, {"a": ["follows"]})
    models = [
        (GAT(IN, 3), feat),
        (GATv2(IN, 3), feat),
        (HAN.for_graph(views, features, 3, "film"), features),
        (RGAT.for_graph(typed, features, 3, "film"), features),
        (DySAT.for_graph(snapshots, {"_N": None}), None),
    ]
    for model, given in models:
        with pytest.raises(GraphError, match="graph"):
            model(wrong, given)
    with pytest.raises(GraphError, match="graph"):
        TGAT(23)(wrong, [0], [1], [2])
    for model in (HAN, RGAT, DySAT, TGAT):
        with pytest.raises(GraphError, match="graph"):
            model.for_graph(wrong, features, 3, "film")
    with pytest.raises(GraphError, match="graph"):
        DySAT(wrong, {"_N": None})
    with pytest.raises(GraphError, match="graph"):
        hgat.models.layerwise(GAT(IN, 3), wrong, feat)
    assert GAT(IN, 3)(graph, feat).shape == (23, 3)


WRONG_SIZES = [0, -1, 2.0, "4", True, float("nan")]
SIZES = [(name, size) for name, layer in LAYERS.items() for size in layer.sizes]


@pytest.mark.parametrize("wrong", WRONG_SIZES, ids=repr)
@pytest.mark.parametrize(("name", "size"), SIZES)
def test_sizes_out_of_form(name, size, wrong):
    with pytest.raises(HgatError, match=f"{size}: expected") as error:
        LAYERS[name].build(**{size: wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "0.5", None, float("nan"), [0.1], True], ids=repr)
@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name, layer in LAYERS.items() for rate in layer.rates])
def test_rates_of_dropout_out_of_form(name, rate, wrong):
    with pytest.raises(ShapeError, match=f"{rate}: expected a number from 0 to 1"):
        LAYERS[name].build(**{rate: wrong})


@pytest.mark.parametrize("wrong", ["unknown", None, 1, ["global"]], ids=repr)
@pytest.mark.parametrize(("name", "form"), [(name, form) for name, layer in LAYERS.items() for form in layer.names])
def test_names_of_forms(name, form, wrong):
    with pytest.raises(ShapeError, match=f"(form|{form}): expected '"):
        LAYERS[name].build(**{form: wrong})


SLOPED = ("GATConv", "GATv2Conv", "EdgeGATConv", "SuperGATConv", "RGATConv", "HANConv", "SnapshotGATConv")


@pytest.mark.parametrize("name", SLOPED)
def test_slopes_and_activations_out_of_form(name):
    for wrong in ("0.2", None, float("inf"), float("nan"), [0.2]):
        with pytest.raises(ShapeError, match="negative_slope: expected a finite number"):
            LAYERS[name].build(negative_slope=wrong)
    for wrong in ("relu", 1):
        with pytest.raises(ShapeError, match="activation: expected a function or None"):
            LAYERS[name].build(activation=wrong)


@pytest.mark.parametrize("wrong", [(IN,), (IN, IN, IN), (IN, 0), ("a", IN), (IN, None), ()], ids=repr)
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "DotGatConv", "EdgeGATConv"])
def test_pairs_of_widths_out_of_form(name, wrong):
    with pytest.raises(ShapeError, match="in_feats"):
        LAYERS[name].build(in_feats=wrong)
    assert LAYERS[name].build(in_feats=[IN, IN])._in_dst_feats == IN  # a list of two serves as a pair


@pytest.mark.parametrize(
    "wrong", ["follows", ["follows", "likes"], [("a", "b")], [("a", "r", 1)], 3, None, [("a", "r", "b")] * 2], ids=repr
)
def test_relations_out_of_form(wrong):
    with pytest.raises(GraphError, match="etypes: expected"):
        hnn.RGATConv(IN, OUT, HEADS, wrong)


FEATURES = {
    "a dict": lambda x: {"a": x},
    "a list of lists": lambda x: [[0.0]],
    "none": lambda x: None,
    "a list of three": lambda x: [x, x, x],
    "an array": lambda x: x.numpy(),
    "whole numbers": lambda x: x.long(),
    "bools": lambda x: x > 0,
    "another type": lambda x: x.double(),
    "half": lambda x: x.half(),
    "another device": lambda x: x.to("meta"),
    "a column": lambda x: x[:, 0],
    "another width": lambda x: x[..., 1:],
    "another number of rows": lambda x: x[1:],
}
ANY_WIDTH = ("another width",)


@pytest.mark.parametrize("what", FEATURES)
@pytest.mark.parametrize("name", ON_ONE_GRAPH)
def test_features_of_layers_on_one_relation(name, what):
    if name == "AGNNConv" and what in ANY_WIDTH:
        return
    graph, layer = build("homogeneous"), LAYERS[name].build()
    feat, *rest = inputs(graph, name)
    with pytest.raises(ShapeError, match=r"feat.*: expected") as error:
        layer(graph, FEATURES[what](feat), *rest)
    assert "\n" not in str(error.value)
    if what in ("a dict", "none", "a list of three"):
        return
    with pytest.raises(ShapeError, match=r"feat.*: expected"):
        layer(graph, (feat, FEATURES[what](feat)), *rest)


@pytest.mark.parametrize(
    "name", ["GATv2Conv", "DotGatConv", "EGATConv", "SuperGATConv", "FAConv", "ACMConv", "UAGConv"]
)
def test_more_axes_than_a_layer_takes(name):
    graph, layer = build("homogeneous"), LAYERS[name].build()
    with pytest.raises(ShapeError, match=r"feats?: expected \[N, F\], got \[23, 2, 7\]"):
        layer(graph, torch.randn(23, 2, IN), *inputs(graph, name)[1:])


@pytest.mark.parametrize("what", [w for w in FEATURES if w != "a list of three"])
def test_features_of_the_other_layers(what):
    change = FEATURES[what]
    graph, x = build("homogeneous"), torch.randn(23, IN)
    types = torch.zeros(23, dtype=torch.int64), torch.zeros(graph.num_edges(), dtype=torch.int64)
    typed = typed_graph()
    feat = {t: torch.randn(typed.num_nodes(t), IN) for t in typed.ntypes}
    etypes = typed.canonical_etypes
    views = hgraph.metapaths(typed, {"a": ["follows"], "b": ["liked by", "likes"]})
    calls = [
        lambda: LAYERS["HGTConv"].build()(graph, change(x), *types),
        lambda: hnn.RGATConv(IN, OUT, HEADS, etypes)(typed, {**feat, "film": change(feat["film"])}),
        lambda: LAYERS["HANConv"].build()(views, change(feat["film"])),
        lambda: LAYERS["HANConv"].build()(views, [feat["film"], change(feat["film"])]),
        lambda: RGAT.for_graph(typed, feat, 3, "film")(typed, {**feat, "film": change(feat["film"])}),
    ]
    if what != "none":  # there it stands for one-hot rows
        calls.append(lambda: LAYERS["SnapshotGATConv"].build()(stack_of_snapshots(), change(torch.randn(6, IN))))
    for call in calls:
        with pytest.raises(ShapeError, match="expected"):
            call()


@pytest.mark.parametrize("wrong", [torch.randn(11, IN), None, [1, 2, 3], "film"], ids=lambda x: type(x).__name__)
def test_features_in_another_form_for_typed_layers(wrong):
    typed = typed_graph()
    feat = {t: torch.randn(typed.num_nodes(t), IN) for t in typed.ntypes}
    for layer in (hnn.RGATConv(IN, OUT, HEADS, typed.canonical_etypes), RGAT.for_graph(typed, feat, 3, "film")):
        with pytest.raises(ShapeError, match="feat: expected a dict"):
            layer(typed, wrong)


@pytest.mark.parametrize("what", [w for w in FEATURES if w != "a list of three"])
@pytest.mark.parametrize("name", ["EdgeGATConv", "EGATConv", "GATConv", "GATv2Conv"])
def test_features_of_edges(name, what):
    graph = build("homogeneous")
    if name in ("EdgeGATConv", "EGATConv"):
        layer, (feat, edge) = LAYERS[name].build(), inputs(graph, name)
        call = lambda: layer(graph, feat, FEATURES[what](edge))  # noqa: E731
    else:
        layer, (feat,) = LAYERS[name].build(edge_feats=EDGE), inputs(graph, name)
        call = lambda: layer(graph, feat, edge_feat=FEATURES[what](torch.randn(graph.num_edges(), EDGE)))  # noqa: E731
    with pytest.raises(ShapeError, match=r"(edge_feat|efeats): expected"):
        call()


def test_features_of_edges_without_a_place():
    graph = build("homogeneous")
    for name in ("GATConv", "GATv2Conv"):
        with pytest.raises(ShapeError, match="edge_feat: expected none without edge_feats"):
            LAYERS[name].build()(graph, torch.randn(23, IN), edge_feat=torch.randn(graph.num_edges(), EDGE))


def test_another_type_of_features_is_autocasts_business():
    graph = build("homogeneous")
    layer = LAYERS["GATConv"].build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(layer(graph, torch.randn(23, IN).bfloat16())).all()


def test_scores_with_another_activation_than_the_operators_know():
    layer = LAYERS["GATConv"].build()
    layer.leaky_relu = torch.nn.ELU()
    with pytest.raises(
        ShapeError, match="leaky_relu: expected a torch.nn.LeakyReLU, ReLU or Identity on the scores, got ELU"
    ):
        layer(build("homogeneous"), torch.randn(23, IN))


@pytest.mark.parametrize("heads", [8, "88", None, [2.0], ["2"], [True], {2: 1}, [[2]], [None]], ids=repr)
def test_heads_of_models(heads):
    for model in (GAT, GATv2):
        with pytest.raises(RecipeError, match="model.heads: expected a number of heads per layer"):
            model(IN, 3, heads=heads)
    with pytest.raises(RecipeError, match="model.heads"):
        HAN(IN, 3, 2, heads=heads)
    with pytest.raises(RecipeError, match="model.heads"):
        RGAT.for_graph(typed_graph(), {}, 3, "film", heads=heads)
    for setting in ("heads", "temporal_heads"):
        with pytest.raises(RecipeError, match=f"model.{setting}"):
            DySAT.for_graph(stack_of_snapshots(), {"_N": None}, **{setting: heads})


@pytest.mark.parametrize(
    "feat",
    [torch.randn(11, IN), None, [1], {"film": [1]}, {"film": torch.ones(11)}],
    ids=["tensor", "none", "list", "list of film", "one axis"],
)
def test_features_that_a_model_is_built_for(feat):
    calls = [
        lambda: RGAT.for_graph(typed_graph(), feat, 3, "film"),
        lambda: DySAT.for_graph(stack_of_snapshots(), {"_N": feat["film"]} if isinstance(feat, dict) else feat),
        lambda: GAT.for_graph(None, {"film": None} if isinstance(feat, dict) else feat, 3, "film"),
    ]
    for call in calls:
        with pytest.raises(HgatError, match="feat.*: expected"):
            call()


@pytest.mark.parametrize("wrong", [0, 2.5, "3", True], ids=repr)
def test_sizes_of_models(wrong):
    typed = typed_graph()
    calls = [
        *(lambda m=model: m(IN, wrong) for model in (GAT, GATv2)),
        *(lambda m=model: m(IN, 3, hidden=wrong) for model in (GAT, GATv2)),
        lambda: HAN(IN, wrong, 2),
        lambda: HAN(IN, 3, wrong),
        lambda: HAN(IN, 3, 2, semantic_feats=wrong),
        lambda: RGAT.for_graph(typed, {}, wrong, "film"),
        *(lambda k=key: RGAT.for_graph(typed, {}, 3, "film", **{k: wrong}) for key in ("embed", "hidden", "num_bases")),
        *(lambda k=key: TGAT(7, **{k: wrong}) for key in ("hidden", "heads", "layers", "neighbours", "time_feats")),
        lambda: TGAT(7, time_unit=wrong) if wrong in (0, "3") else TGAT(7, hidden=wrong),
        *(
            lambda k=key: DySAT.for_graph(stack_of_snapshots(), {"_N": None}, **{k: wrong})
            for key in ("hidden", "embed")
        ),
    ]
    for call in calls:
        with pytest.raises(HgatError, match="expected"):
            call()


def test_sentences_are_one_line_with_what_came():
    with pytest.raises(ShapeError, match=re.escape("num_heads: expected a whole number, 1 or more, got '3'")):
        hnn.GATConv(IN, OUT, "3")
    with pytest.raises(
        ShapeError, match=re.escape("feat: expected torch.float32 like the layer's parameters, got torch.float64")
    ):
        LAYERS["GATConv"].build()(build("homogeneous"), torch.randn(23, IN, dtype=torch.float64))
    with pytest.raises(
        ShapeError, match=re.escape("feat: expected a floating-point tensor, got torch.int64; feat.float() makes one")
    ):
        LAYERS["GATConv"].build()(build("homogeneous"), torch.ones(23, IN, dtype=torch.int64))


def test_what_came_is_named_and_not_printed_whole():
    graph = typed_graph()
    for call in (
        lambda: hnn.RGATConv(IN, OUT, HEADS, graph),
        lambda: hnn.HANConv(IN, OUT, HEADS, graph),
        lambda: hnn.GATConv(torch.randn(23, IN), OUT, HEADS),
        lambda: GAT(IN, 3, heads=torch.ones(50, 50)),
        lambda: hnn.GATConv(IN, OUT, HEADS, feat_drop=torch.randn(23, IN)),
    ):
        with pytest.raises(HgatError) as error:
            call()
        assert "\n" not in str(error.value) and len(str(error.value)) < 250
    for wrong in ("layer", 1, None):
        with pytest.raises(ShapeError, match="norm: expected True or False"):
            hnn.TGATConv(IN, OUT, HEADS, 4, norm=wrong)


def test_layers_in_replicas_whose_parameters_are_attributes():
    """torch.nn.DataParallel hands out modules without a list of parameters."""
    graph = typed_graph()
    layer = hnn.RGATConv(IN, OUT, HEADS, graph.canonical_etypes)
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    want = layer(graph, feat)["film"]
    for name in list(layer._parameters):
        value = layer._parameters.pop(name)
        object.__setattr__(layer, name, value)
    assert torch.equal(layer(graph, feat)["film"], want)


@pytest.mark.parametrize("what", [w for w in FEATURES if w not in ("a list of three", "another number of rows")])
def test_features_of_layers_without_a_graph(what):
    change, feat, mask = FEATURES[what], torch.randn(4, IN), torch.ones(4, 3, dtype=torch.bool)
    neighbour, elapsed, edge = torch.randn(4, 3, IN), torch.rand(4, 3), torch.randn(4, 3, EDGE)
    layer = hnn.TGATConv(IN, OUT, HEADS, 4, EDGE)
    temporal = hnn.TemporalAttention(IN, 1, 3)
    calls = [
        lambda: layer(change(feat), neighbour, elapsed, mask, edge),
        lambda: layer(feat, change(neighbour), elapsed, mask, edge),
        lambda: layer(feat, neighbour, elapsed, mask, change(edge)),
        lambda: temporal(change(neighbour)),
        lambda: temporal.extend(change(feat)),
        lambda: hnn.SemanticAttention(IN)(change(neighbour)),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match="expected"):
            call()


@pytest.mark.parametrize(
    "wrong", [[1.0], None, "now", np.ones(3), torch.ones(3, dtype=torch.complex64)], ids=lambda x: type(x).__name__
)
def test_times_and_masks_of_another_form(wrong):
    calls = [
        lambda: hnn.TimeEncoding(4)(wrong),
        lambda: hnn.TemporalAttention(IN, 1, 3)(torch.randn(3, 3, IN), wrong if wrong is not None else "none"),
        lambda: hnn.TGATConv(IN, OUT, HEADS, 4)(
            torch.randn(3, IN), torch.randn(3, 1, IN), wrong, torch.ones(3, 1).bool()
        ),
        lambda: hnn.TGATConv(IN, OUT, HEADS, 4)(torch.randn(3, IN), torch.randn(3, 1, IN), torch.ones(3, 1), wrong),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match="expected"):
            call()


@pytest.mark.parametrize("wrong", [[1.0], None, {"b": None}, "feat"], ids=repr)
def test_features_for_inference_layer_by_layer(wrong):
    graph = build("homogeneous")
    with pytest.raises(ShapeError, match="feat: expected"):
        hgat.models.layerwise(GAT(IN, 3), graph, wrong)
