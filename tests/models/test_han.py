"""HAN as a whole: shapes, permutations, gradients, and a task that needs the right meta-path."""

import io

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import models, ops
from hgat.errors import GraphError, HgatError, RecipeError, ShapeError
from hgat.models.han import HAN
from zoo import typed_graph

IN, CLASSES = 7, 5
PATHS = {"film-film": ["follows"], "co-liked": ["liked by", "likes"]}
STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}


def _views(graph=None):
    return hgraph.metapath.prepare(typed_graph() if graph is None else graph, paths=PATHS)


def partners():
    """(graph, feat, labels): a paper's label is the class that its partner along one meta-path wears.

    Papers are in pairs by author and in other pairs by venue; a paper's own class says nothing about its
    label, and the pairs by venue lead elsewhere.
    """
    count = 46
    generator = torch.Generator().manual_seed(3)
    worn = torch.randint(0, CLASSES, (count,), generator=generator)
    links, partner = {}, {}
    for name in ("author", "venue"):
        order = torch.randperm(count, generator=generator)
        group = torch.empty(count, dtype=torch.int64)
        group[order] = torch.arange(count) // 2
        links["paper", f"by {name}", name] = (torch.arange(count), group)
        links[name, f"{name} of", "paper"] = (group, torch.arange(count))
        partner[name] = torch.empty(count, dtype=torch.int64)
        partner[name][order] = order.view(-1, 2).flip(1).flatten()
    return dgl.heterograph(links), F.one_hot(worn, CLASSES).float(), worn[partner["author"]]


def _accuracy(model, views, feat, label, epochs=150, lr=0.02):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(model(views, feat), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(views, feat).argmax(1) == label).double().mean().item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": [3, 2], "hidden": 11},
        {"semantic": "per_node", "semantic_feats": 3},
        {"share_projection": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_shape_and_features_as_a_dict(settings, idtype):
    graph = typed_graph()
    views = _views(graph.int() if idtype == torch.int32 else graph)
    feat = {"film": torch.randn(11, IN), "user": None}
    model = HAN.for_graph(views, feat, CLASSES, "film", **settings).eval()
    assert model(views, feat).shape == (11, CLASSES)
    assert torch.equal(model(views, feat["film"]), model(views, feat))
    attention = model.attention(views, feat)
    assert len(attention) == len(model.layers)
    for alpha, beta in attention:
        assert alpha.shape[0] == views.graph.num_edges()
        torch.testing.assert_close(beta.sum(-1), torch.ones(beta.shape[:-1]))
    assert models.find("han") is HAN and HAN.graph_kind == "metapath"


def test_classifier_reads_the_embedding():
    views, feat = _views(), torch.randn(11, IN)
    model = HAN(IN, CLASSES, 2, hidden=3, heads=[4]).eval()
    z = model.embed(views, feat)
    assert z.shape == (11, 12)
    torch.testing.assert_close(model(views, feat), z @ model.classify.weight.T + model.classify.bias)


@pytest.mark.parametrize("semantic", ["global", "per_node"])
def test_permuted_nodes_give_permuted_rows(semantic):
    graph, feat = typed_graph(), torch.randn(11, IN)
    model = HAN.for_graph(_views(graph), {"film": feat}, CLASSES, "film", semantic=semantic).eval()
    order = {"film": torch.randperm(11), "user": torch.randperm(13)}
    place = {t: torch.argsort(o) for t, o in order.items()}
    data = {}
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        edges = torch.randperm(len(src))
        data[etype] = (place[etype[0]][src][edges], place[etype[2]][dst][edges])
    moved = dgl.heterograph(data, num_nodes_dict={"film": 11, "user": 13})
    got = model(_views(moved), feat[order["film"]])
    torch.testing.assert_close(got, model(_views(graph), feat)[order["film"]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"semantic": "per_node"}, {"share_projection": False, "heads": [3, 2]}], ids=str
)
def test_every_parameter_gets_a_finite_gradient(settings):
    views, feat = _views(), torch.randn(11, IN)
    options = {"feat_drop": 0.2, "attn_drop": 0.2, "value_drop": 0.2, **settings}
    model = HAN(IN, CLASSES, 2, **options).train()
    out = model(views, feat)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize("settings", [{}, {"semantic": "per_node"}, {"share_projection": False}], ids=str)
def test_learns_which_metapath_leads_to_the_label(settings):
    graph, feat, label = partners()
    paths = {"author": ["by author", "author of"], "venue": ["by venue", "venue of"]}
    views = hgraph.metapath.prepare(graph, paths=paths, self_loops=False)
    model = HAN.for_graph(views, {"paper": feat}, CLASSES, "paper", **STILL, **settings)
    assert _accuracy(model, views, feat, label) == 1.0
    # The wrong meta-path alone cannot tell.
    wrong = hgraph.metapath.prepare(graph, paths={"itself": paths["venue"]})
    blind = HAN.for_graph(wrong, {"paper": feat}, CLASSES, "paper", **STILL, **settings)
    assert _accuracy(blind, wrong, feat, label) < 1.0


def test_semantic_attention_finds_the_metapath():
    """beta of the meta-path that decides grows in training, and uniform attention keeps both at a half."""
    graph, feat, label = partners()
    views = hgraph.metapath.prepare(
        graph, paths={"author": ["by author", "author of"], "venue": ["by venue", "venue of"]}
    )
    model = HAN.for_graph(views, {"paper": feat}, CLASSES, "paper", **STILL)
    _accuracy(model, views, feat, label)
    ((_, beta),) = model.attention(views, feat)
    assert beta[0] > 0.6
    with ops.uniform_attention():
        ((_, beta),) = model.attention(views, feat)
    torch.testing.assert_close(beta, torch.full((2,), 0.5))


def test_state_dict_round_trip():
    views, feat = _views(), torch.randn(11, IN)
    model, other = (HAN(IN, CLASSES, 2, share_projection=False).eval() for _ in range(2))
    assert not torch.equal(model(views, feat), other(views, feat))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(model(views, feat), other(views, feat))


@pytest.mark.parametrize("rate", ["feat_drop", "attn_drop", "value_drop"])
def test_dropout_acts_in_training_only(rate):
    views, feat = _views(), torch.randn(11, IN)
    model = HAN(IN, CLASSES, 2, **{**STILL, rate: 0.5})
    assert not torch.equal(model.train()(views, feat), model(views, feat))
    assert torch.equal(model.eval()(views, feat), model(views, feat))


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"heads": []}, RecipeError, r"model.heads: expected a number of heads per layer.* got \[\]"),
        ({"heads": [8, 0]}, RecipeError, r"model.heads: expected a number of heads per layer.* got \[8, 0\]"),
        ({"semantic": "local"}, ShapeError, "form: expected 'global' or 'per_node', got 'local'"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, error, sentence):
    with pytest.raises(error, match=sentence):
        HAN.for_graph(_views(), {"film": torch.randn(11, IN)}, CLASSES, "film", **settings)


def test_nodes_without_features_are_refused():
    with pytest.raises(HgatError, match="expected features"):
        HAN.for_graph(_views(), {"film": None, "user": None}, CLASSES, "film")


def test_views_with_other_nodes_at_the_destination_are_refused():
    """Five users rate three films: the first three users are not the films."""
    graph = dgl.heterograph({("user", "rates", "film"): ([0, 1, 2, 3, 4], [0, 1, 2, 2, 1])})
    with pytest.raises(HgatError, match="expected"):
        HAN(IN, CLASSES, 1)(hgraph.union([graph]), torch.randn(5, IN))


def test_wrong_calls_are_one_sentence():
    views, feat = _views(), torch.randn(11, IN)
    model = HAN(IN, CLASSES, 2)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[11, 7\], got \[11, 6\]"):
        model(views, feat[:, 1:])
    with pytest.raises(GraphError, match="expected 2 meta-paths, got 1"):
        model(hgraph.metapaths(typed_graph(), [PATHS["co-liked"]]), feat)
    with pytest.raises(GraphError, match="expected what hgat.graph.metapaths or hgat.graph.union gives"):
        model(typed_graph(), feat)
    with pytest.raises(TypeError, match="unknown"):
        HAN.for_graph(views, {"film": feat}, CLASSES, "film", unknown=1)
