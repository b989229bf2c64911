"""RGAT as a whole: shapes, permutations, gradients, and a task that needs the relation and the neighbour."""

import io

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import models
from hgat.errors import HgatError, RecipeError, ShapeError
from hgat.models.rgat import RGAT
from zoo import typed_graph

IN, CLASSES = 7, 5
FORMS = [
    {},
    {"softmax": "within"},
    {"score": "multiplicative", "attn_feats": 3},
    {"softmax": "within", "score": "multiplicative", "attn_feats": 2, "residual": True},
    {"num_bases": 2, "num_attn_bases": 3},
    {"num_blocks": 2, "heads": [2, 2], "hidden": 3, "embed": 6, "residual": True},
]


def _with_inverse():
    return hgraph.relations.prepare(typed_graph())


def _feat(kind="some"):
    """Features of both node types, of one, or of none."""
    film = None if kind == "none" else torch.randn(11, IN)
    return {"film": film, "user": torch.randn(13, 3) if kind == "all" else None}


def typed_task():
    """(joined, feat, labels): a film's label is the class of the one tag that sends "decides" to it.

    Tags of every class reach every film, under "decides" or under "says": without the relation all films look
    alike, and films have no features of their own.
    """
    films, tags = 23, CLASSES
    label = torch.arange(films) % CLASSES
    decides, says = ([], []), ([], [])
    for film in range(films):
        for tag in range(tags):
            src, dst = decides if tag == label[film] else says
            src.append(tag)
            dst.append(film)
    graph = dgl.heterograph(
        {("tag", "decides", "film"): decides, ("tag", "says", "film"): says},
        num_nodes_dict={"tag": tags, "film": films},
    )
    return hgraph.relations.prepare(graph), {"tag": torch.eye(tags), "film": torch.zeros(films, 1)}, label


def _accuracy(model, joined, feat, label, epochs=150, lr=0.02):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(model(joined, feat), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(joined, feat).argmax(1) == label).double().mean().item()


@pytest.mark.parametrize("kind", ["all", "some", "none"])
@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_shape_for_either_node_type(settings, kind):
    joined, feat = _with_inverse(), _feat(kind)
    for target, count in (("film", 11), ("user", 13)):
        model = RGAT.for_graph(joined, feat, CLASSES, target, **settings).eval()
        assert model(joined, feat).shape == (count, CLASSES)
        alpha = model.attention(joined, feat)
        assert len(alpha) == len(model.layers)
        assert [a.shape[0] for a in alpha[0].values()] == list(joined.num_edges)
    assert models.find("rgat") is RGAT and RGAT.graph_kind == "relations"


@pytest.mark.parametrize("settings", [{}, {"residual": True}, {"heads": [3]}, {"num_bases": 2}], ids=str)
def test_one_hot_input(settings):
    joined, feat = _with_inverse(), _feat("none")
    model = RGAT.for_graph(joined, feat, CLASSES, "user", one_hot=True, **settings).eval()
    assert model(joined, feat).shape == (13, CLASSES)
    assert not model.inputs


def test_joined_graph_and_graph_are_the_same_input():
    graph = hgraph.add_inverse(typed_graph(), self_relation=True)
    feat = _feat()
    model = RGAT.for_graph(graph, feat, CLASSES, "film").eval()
    assert torch.equal(model(graph, feat), model(hgraph.join(graph), feat))


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_permuted_nodes_give_permuted_rows(settings):
    graph = hgraph.add_inverse(typed_graph(), self_relation=True)
    feat = _feat("all")
    model = RGAT.for_graph(graph, feat, CLASSES, "film", **settings).eval()
    order = {"film": torch.randperm(11), "user": torch.randperm(13)}
    place = {t: torch.argsort(o) for t, o in order.items()}
    data = {}
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        edges = torch.randperm(len(src))
        data[etype] = (place[etype[0]][src][edges], place[etype[2]][dst][edges])
    moved = dgl.heterograph(data, num_nodes_dict={"film": 11, "user": 13})
    expected = model(graph, feat)[order["film"]]
    got = model(moved, {t: feat[t][order[t]] for t in feat})
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["some", "none"])
@pytest.mark.parametrize("settings", [*FORMS, {"one_hot": True}], ids=str)
def test_every_parameter_gets_a_finite_gradient(settings, kind):
    if settings.get("one_hot"):
        kind = "none"
    joined, feat = _with_inverse(), _feat(kind)
    model = RGAT.for_graph(joined, feat, CLASSES, "film", feat_drop=0.1, attn_drop=0.1, **settings).train()
    out = model(joined, feat)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"softmax": "within"},
        {"heads": [4]},
        {"score": "multiplicative", "attn_feats": 3},
        {"num_bases": 2},
    ],
    ids=str,
)
def test_learns_what_only_the_relation_tells(settings):
    joined, feat, label = typed_task()
    settings = {"heads": [4, 4], **settings}  # one head alone may start where its softmax hides the answer
    assert _accuracy(RGAT.for_graph(joined, feat, CLASSES, "film", **settings), joined, feat, label) == 1.0


def test_one_hot_input_learns_the_task_too():
    joined, feat, label = typed_task()
    nothing = dict.fromkeys(feat)
    model = RGAT.for_graph(joined, nothing, CLASSES, "film", one_hot=True, heads=[4, 4])
    assert _accuracy(model, joined, nothing, label) == 1.0


def test_without_relations_the_task_cannot_be_learned():
    """The task is what its name says: with one relation for all edges every film looks alike."""
    joined, feat, label = typed_task()
    films, tags = len(label), CLASSES
    every = (torch.arange(tags).repeat(films), torch.arange(films).repeat_interleave(tags))
    blind = hgraph.relations.prepare(
        dgl.heterograph({("tag", "says", "film"): every}, num_nodes_dict={"tag": tags, "film": films})
    )
    assert _accuracy(RGAT.for_graph(blind, feat, CLASSES, "film"), blind, feat, label, 20) < 0.5


def test_state_dict_round_trip():
    joined = _with_inverse()
    for kind, settings in (("some", {}), ("none", {"one_hot": True}), ("all", FORMS[5])):
        feat = _feat(kind)
        model, other = (RGAT.for_graph(joined, feat, CLASSES, "film", **settings).eval() for _ in range(2))
        assert not torch.equal(model(joined, feat), other(joined, feat))
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer))
        assert torch.equal(model(joined, feat), other(joined, feat))


@pytest.mark.parametrize("rate", ["feat_drop", "attn_drop"])
def test_dropout_acts_in_training_only(rate):
    joined, feat = _with_inverse(), _feat()
    model = RGAT.for_graph(joined, feat, CLASSES, "film", **{rate: 0.5})
    assert not torch.equal(model.train()(joined, feat), model(joined, feat))
    assert torch.equal(model.eval()(joined, feat), model(joined, feat))


@pytest.mark.parametrize(
    ("target", "settings", "error", "sentence"),
    [
        ("shop", {}, RecipeError, r"target: expected a node type among \['film', 'user'\], got 'shop'"),
        ("film", {"heads": []}, RecipeError, r"model.heads: expected a number of heads per layer.* got \[\]"),
        (
            "film",
            {"heads": [4, 0]},
            RecipeError,
            r"model.heads: expected a number of heads per layer.* got \[4, 0\]",
        ),
        (
            "film",
            {"one_hot": True},
            RecipeError,
            r"model.one_hot: expected no node type with features.*\['film'\]",
        ),
        ("film", {"softmax": "both"}, ShapeError, "softmax: expected 'across' or 'within', got 'both'"),
        (
            "film",
            {"score": "cosine"},
            ShapeError,
            "score: expected 'additive' or 'multiplicative', got 'cosine'",
        ),
        ("film", {"attn_feats": 3}, ShapeError, "attn_feats: expected 1 with additive scores, got 3"),
        ("film", {"num_blocks": 3}, ShapeError, "num_blocks: expected a divisor of F = 16"),
        (
            "film",
            {"num_blocks": 2, "num_bases": 2},
            ShapeError,
            "num_blocks: expected None together with num_bases",
        ),
    ],
)
def test_wrong_settings_are_one_sentence(target, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        RGAT.for_graph(_with_inverse(), _feat(), CLASSES, target, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": 0},
        {"embed": 0},
        {"num_bases": 0},
        {"num_bases": -1},
        {"num_attn_bases": 0},
        {"num_blocks": 0},
        {"score": "multiplicative", "attn_feats": 0},
        {"feat_drop": 1.5},
        {"attn_drop": 1.5},
    ],
    ids=str,
)
def test_settings_out_of_range_are_one_sentence(settings):
    with pytest.raises(HgatError, match="expected"):
        RGAT.for_graph(_with_inverse(), _feat(), CLASSES, "film", **settings)


def test_a_node_type_that_only_receives():
    graph = dgl.heterograph({("tag", "marks", "item"): ([0, 1, 1], [1, 2, 0])})
    feat = {"tag": torch.randn(2, 3), "item": torch.randn(3, IN)}
    assert RGAT.for_graph(graph, feat, CLASSES, "item", heads=[3])(graph, feat).shape == (3, CLASSES)


@pytest.mark.parametrize("ntype", ["dc.creator", "keys"])
@pytest.mark.parametrize("width", [3, None])
def test_any_name_of_a_node_type(ntype, width):
    graph = dgl.heterograph({(ntype, "cites", ntype): ([0, 1], [1, 2])})
    feat = {ntype: None if width is None else torch.randn(3, width)}
    assert RGAT.for_graph(graph, feat, CLASSES, ntype)(graph, feat).shape == (3, CLASSES)


def test_missing_features_are_one_sentence():
    joined = _with_inverse()
    model = RGAT.for_graph(joined, _feat(), CLASSES, "film")
    with pytest.raises(HgatError, match="expected features"):
        model(joined, {"user": None})
