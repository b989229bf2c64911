"""What has a name is matched by its name, in graphs and in state dicts, or refused."""

import copy
import io
import itertools

import dgl
import pytest
import torch

import hgat
from hgat import graph as hgraph
from hgat.errors import GraphError, HgatError
from hgat.models import layerwise
from hgat.models.dysat import DySAT
from hgat.models.han import HAN
from hgat.models.rgat import RGAT
from hgat.nn import FeaturelessRGATConv, GATv2Conv, HANConv, RGATConv
from zoo import typed_graph

IN, OUT, HEADS = 7, 5, 3
PATHS = {"follows": ["follows"], "co-liked": ["liked by", "likes"], "far": ["follows", "follows"]}
SHARED = [True, False]


def _views(*names):
    return hgraph.metapaths(typed_graph(), {name: PATHS[name] for name in names})


def _as_relations(*names):
    graph = typed_graph()
    ends = {("film", name, "film"): hgraph.metapath_graph(graph, PATHS[name]).edges() for name in names}
    return dgl.heterograph(ends, {"film": 11})


def _save(module):
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def _without_names(state):
    return {key: value for key, value in state.items() if not key.endswith("_extra_state")}


def _randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("share_projection", SHARED)
@pytest.mark.parametrize("given", [3, ("follows", "co-liked", "far")], ids=["number", "names"])
def test_han_takes_its_metapaths_in_any_order(given, share_projection):
    names = ("follows", "co-liked", "far")
    layer = _randomised(HANConv(IN, OUT, HEADS, given, semantic="per_node", share_projection=share_projection))
    feat = torch.randn(11, IN)
    want, (_, beta) = layer(_views(*names), feat, get_attention=True)
    for order in itertools.permutations(names):
        out, (_, found) = layer(_views(*order), feat, get_attention=True)
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(found, beta[:, [names.index(name) for name in order]])
    torch.testing.assert_close(layer(_as_relations(*names), feat), want)
    # Each view with sources of its own.
    views = _views(*names[::-1])
    torch.testing.assert_close(layer(views, [feat] * 3), want)


@pytest.mark.parametrize("given", [2, ("follows", "co-liked")], ids=["number", "names"])
def test_han_refuses_other_names_and_takes_none_by_position(given):
    layer, feat = HANConv(IN, OUT, HEADS, given).eval(), torch.randn(11, IN)
    out = layer(_views("follows", "co-liked"), feat)
    with pytest.raises(
        GraphError, match=r"views: expected the meta-paths \['follows', 'co-liked'\], got \['follows', 'far'\]"
    ):
        layer(_views("follows", "far"), feat)
    graphs = [hgraph.metapath_graph(typed_graph(), PATHS[name]) for name in ("follows", "co-liked")]
    torch.testing.assert_close(layer(hgraph.disjoint_union(graphs), feat), out)


@pytest.mark.parametrize("names", [("a", "a"), [], "ab", (1, 2), None, {"a": 1}], ids=str)
def test_wrong_names_of_metapaths(names):
    with pytest.raises(GraphError, match="num_metapaths: expected"):
        HANConv(IN, OUT, HEADS, names)


@pytest.mark.parametrize("share_projection", SHARED)
@pytest.mark.parametrize("trained", ["used", "named"])
@pytest.mark.parametrize("fresh", ["number", "same", "other", "used"])
def test_state_dict_of_han_in_another_order(trained, fresh, share_projection):
    options = {"share_projection": share_projection, "semantic": "per_node"}
    names, turned, feat = ("follows", "co-liked"), ("co-liked", "follows"), torch.randn(11, IN)
    layer = _randomised(HANConv(IN, OUT, HEADS, names if trained == "named" else 2, **options))
    want = layer(_views(*names), feat)
    other = HANConv(IN, OUT, HEADS, {"same": names, "other": turned}.get(fresh, 2), **options).eval()
    if fresh == "used":
        other(_views(*turned), feat)
    other.load_state_dict(_save(layer))
    for order in (names, turned):
        torch.testing.assert_close(other(_views(*order), feat), want)


def test_state_dict_of_han_with_other_names_or_none():
    layer = HANConv(IN, OUT, HEADS, ("follows", "co-liked"))
    other = HANConv(IN, OUT, HEADS, ("follows", "far"))
    with pytest.raises(GraphError, match="state dict: expected meta-paths") as error:
        other.load_state_dict(layer.state_dict())
    assert isinstance(error.value, RuntimeError)  # as load_state_dict raises what does not fit
    other.load_state_dict(_without_names(layer.state_dict()))
    assert torch.equal(other.attn_l, layer.attn_l)


@pytest.mark.parametrize("names", [("same author", "same venue"), ("same venue", "same author")], ids=str)
def test_han_layer_by_layer_on_a_graph_whose_relations_are_sorted(names):
    walks = {"same author": ["follows"], "same venue": ["liked by", "likes"]}
    graph, feat = typed_graph(), torch.randn(11, IN)
    views = hgraph.metapaths(graph, {name: walks[name] for name in names})
    ends = {("film", name, "film"): hgraph.metapath_graph(graph, walks[name]).edges() for name in names}
    model = HAN.for_graph(views, {"film": feat}, 4, "film", heads=[2, 2], hidden=3, semantic="per_node").eval()
    torch.testing.assert_close(layerwise(model, dgl.heterograph(ends, {"film": 11}), feat), model(views, feat))


FORMS = [
    {},
    {"num_bases": 2, "num_attn_bases": 2},
    {"score": "multiplicative", "attn_feats": 2, "softmax": "within"},
    {"num_blocks": 1},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_state_dict_of_rgat_under_permuted_relations(form):
    graph = hgraph.add_inverse(typed_graph(), self_relation=True)
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    etypes = graph.canonical_etypes
    layer = _randomised(RGATConv(IN, OUT, HEADS, etypes, **form, bias=True))
    other = RGATConv(IN, OUT, HEADS, etypes[3:] + etypes[:3], **form, bias=True).eval()
    state = _save(layer)
    before = {key: value.clone() for key, value in state.items()}
    other.load_state_dict(state)
    assert all(torch.equal(state[key], value) for key, value in before.items())  # the given dict is left as it was
    for ntype, want in layer(graph, feat).items():
        torch.testing.assert_close(other(graph, feat)[ntype], want)
    # Without names, as they were written before: by position.
    other.load_state_dict(_without_names(state))
    name = "weight" if "weight" in state else "coefficient"
    assert torch.equal(other.state_dict()[name], state[name])


def test_state_dict_of_rgat_with_other_relations():
    etypes = typed_graph().canonical_etypes
    layer = RGATConv(IN, OUT, HEADS, etypes)
    renamed = [("film", "cites", "film"), *etypes[1:]]
    with pytest.raises(GraphError, match="state dict: expected relations .*cites.*, got .*follows"):
        RGATConv(IN, OUT, HEADS, renamed).load_state_dict(layer.state_dict())
    for wrong in (torch.zeros(3), torch.tensor([1, 2], dtype=torch.uint8), "etypes", torch.tensor(list(b"[1]"))):
        with pytest.raises(GraphError, match="state dict: expected"):
            layer.load_state_dict(layer.state_dict() | {"_extra_state": wrong})


def _pairs(src, dst, users=4):
    return dgl.heterograph({("u", "r", "u"): (src, dst)}, {"u": users})


def test_featureless_layer_knows_its_pairs():
    own = _pairs([0, 2], [1, 3])
    layer = FeaturelessRGATConv(hgraph.join_relations(own), OUT, 1)
    out = layer(own, None)["u"]
    # Another graph with the same pairs serves, whatever its edges are.
    assert torch.equal(layer(_pairs([2, 0], [3, 1]), None)["u"], out)
    for other in (_pairs([1, 3], [0, 2]), _pairs([0, 2], [3, 0]), _pairs([0, 2], [1, 3], users=5)):
        with pytest.raises(GraphError, match="the one that the layer was built for"):
            layer(other, None)
    renamed = dgl.heterograph({("u", "s", "u"): ([0, 2], [1, 3])}, {"u": 4})
    with pytest.raises(GraphError, match="the one that the layer was built for"):
        layer(renamed, None)
    # And its table's rows are nobody else's.
    with pytest.raises(GraphError, match="state dict: expected that of a layer for the same"):
        FeaturelessRGATConv(hgraph.join_relations(_pairs([1, 3], [0, 2])), OUT, 1).load_state_dict(layer.state_dict())
    again = FeaturelessRGATConv(hgraph.join_relations(_pairs([2, 0], [3, 1])), OUT, 1)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(own, None)["u"], out)
    again.load_state_dict(_without_names(layer.state_dict()))


def test_a_graph_that_is_changed_in_place_is_looked_at_again():
    graph = _pairs([0, 2], [1, 3])
    layer = FeaturelessRGATConv(hgraph.join_relations(graph), OUT, 1)
    layer(graph, None)
    graph.add_edges([1, 3], [0, 2])
    graph.remove_edges([0, 1])
    with pytest.raises(GraphError, match="as many others"):
        layer(graph, None)


def test_one_hot_rgat_on_another_graph():
    def graph(dst):
        return hgraph.add_inverse(dgl.heterograph({("u", "r", "f"): ([0, 1, 2], dst)}, {"u": 3, "f": 3}), True)

    none = {"u": None, "f": None}
    model = RGAT.for_graph(graph([0, 1, 1]), none, 2, "u", one_hot=True)
    with pytest.raises(GraphError, match="the one that the layer was built for"):
        model(graph([0, 2, 2]), none)


def test_state_dict_of_models_with_node_types_in_another_order():
    graph = typed_graph()
    joined = hgraph.join_relations(hgraph.add_inverse(graph, True))
    feat = {"film": torch.randn(11, IN), "user": torch.randn(13, IN)}
    model = _randomised(RGAT.for_graph(joined, feat, 4, "film"))
    other = RGAT.for_graph(joined, feat, 4, "film").eval()
    other.ntypes, other.inputs = other.ntypes[::-1], other.inputs[::-1]
    other.load_state_dict(_save(model))
    torch.testing.assert_close(other(joined, feat), model(joined, feat))
    other.ntypes = ("film", "person")
    with pytest.raises(GraphError, match="state dict: expected node types"):
        other.load_state_dict(model.state_dict())

    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.arange(graph.num_edges(etype))
    snapshots = hgraph.snapshots(graph, windows=2, both_ways=False)
    model = _randomised(DySAT.for_graph(snapshots, feat, structural="rgat", heads=[2], temporal_heads=[2]))
    other = DySAT.for_graph(snapshots, feat, structural="rgat", heads=[2], temporal_heads=[2]).eval()
    other.structure.ntypes, other.structure.inputs = other.structure.ntypes[::-1], other.structure.inputs[::-1]
    other.load_state_dict(_save(model))
    torch.testing.assert_close(other(snapshots, feat), model(snapshots, feat))


@pytest.mark.parametrize("name", ["HANConv", "RGATConv", "FeaturelessRGATConv"])
def test_names_survive_copies_and_safetensors(name):
    from catalogue import LAYERS
    from safetensors.torch import load, save

    layer = LAYERS[name].build()
    LAYERS[name].call(layer)
    state = load(save({key: value.contiguous() for key, value in layer.state_dict().items()}))
    for other in (LAYERS[name].build(), copy.deepcopy(layer)):
        other.load_state_dict(state)
        assert other._names() == layer._names()


@pytest.mark.parametrize("in_feats", [IN, (IN, IN), (IN, 4)], ids=str)
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("block", [False, True])
def test_shared_weights_of_a_pair_serve_as_in_dgl(in_feats, pair, block):
    from dgl.nn import GATv2Conv as Theirs

    if not isinstance(in_feats, tuple) and pair:
        return
    graph = dgl.add_self_loop(dgl.rand_graph(9, 20))
    graph = dgl.to_block(graph, torch.arange(9)) if block else graph
    feat = torch.randn(graph.num_src_nodes(), IN)
    if pair:
        feat = feat, torch.randn(9, in_feats[1])
    for residual in (False, True):
        if residual and in_feats == (IN, 4) and not pair:
            continue  # the residual reads what stands at the destinations
        theirs = Theirs(in_feats, 4, 2, share_weights=True, residual=residual)
        layer = GATv2Conv(in_feats, 4, 2, share_weights=True, residual=residual)
        layer.load_state_dict(theirs.state_dict())
        want = theirs(graph, feat)
        torch.testing.assert_close(layer(graph, feat), want, atol=1e-5, rtol=0)
        hgat.accelerate(theirs)
        torch.testing.assert_close(theirs(graph, feat), want, atol=1e-5, rtol=0)


def test_features_of_several_types_for_a_model_of_one():
    from hgat.models.gat import GAT

    graph = dgl.add_self_loop(dgl.rand_graph(9, 20))
    feat = {"a": torch.randn(9, IN), "b": torch.randn(9, IN)}
    with pytest.raises(HgatError, match=r"feat: expected features of one node type, got of \['a', 'b'\]"):
        GAT(IN, 3)(graph, feat)
    with pytest.raises(HgatError, match="feat: expected features of 'film' nodes, got of"):
        HAN(IN, 3, 2, "film")(_views("follows", "far"), feat)
