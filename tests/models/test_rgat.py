"""RGAT as a whole: its inputs, wrong settings, and a task that needs the relation and the neighbour."""

import dgl
import pytest
import torch
from systems import CLASSES, IN, SYSTEMS, accuracy, stage

from hgat import graph as hgraph
from hgat.errors import HgatError, RecipeError, ShapeError
from hgat.models.rgat import RGAT
from zoo import typed_graph

EFFORT = {"epochs": 150, "lr": 0.02}


def _with_inverse():
    return hgraph.relations.prepare(typed_graph())


def _feat(kind="some"):
    """Features of both node types, of one, or of none."""
    return stage("rgat", kind)[1]


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


@pytest.mark.parametrize("kind", ["all", "some", "none"])
@pytest.mark.parametrize("settings", SYSTEMS["rgat"].forms, ids=str)
def test_shape_for_either_node_type(settings, kind):
    joined, feat = _with_inverse(), _feat(kind)
    for target, count in (("film", 11), ("user", 13)):
        model = RGAT.for_graph(joined, feat, CLASSES, target, **settings).eval()
        assert model(joined, feat).shape == (count, CLASSES)
        alpha = model.attention(joined, feat)
        assert len(alpha) == len(model.layers)
        assert [a.shape[0] for a in alpha[0].values()] == list(joined.num_edges)


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
    assert torch.equal(model(graph, feat), model(hgraph.join_relations(graph), feat))


@pytest.mark.slow
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
    model = RGAT.for_graph(joined, feat, CLASSES, "film", **settings)
    assert accuracy(model, joined, feat, label, **EFFORT) == 1.0


def test_one_hot_input_learns_the_task_too():
    joined, feat, label = typed_task()
    nothing = dict.fromkeys(feat)
    model = RGAT.for_graph(joined, nothing, CLASSES, "film", one_hot=True, heads=[4, 4])
    assert accuracy(model, joined, nothing, label, **EFFORT) == 1.0


def test_without_relations_the_task_cannot_be_learned():
    """The task is what its name says: with one relation for all edges every film looks alike."""
    joined, feat, label = typed_task()
    films, tags = len(label), CLASSES
    every = (torch.arange(tags).repeat(films), torch.arange(films).repeat_interleave(tags))
    blind = hgraph.relations.prepare(
        dgl.heterograph({("tag", "says", "film"): every}, num_nodes_dict={"tag": tags, "film": films})
    )
    model = RGAT.for_graph(blind, feat, CLASSES, "film")
    assert accuracy(model, blind, feat, label, epochs=20, lr=0.02) < 0.5


@pytest.mark.parametrize(
    ("target", "settings", "error", "sentence"),
    [
        ("shop", {}, RecipeError, r"target: expected a node type among \['film', 'user'\], got 'shop'"),
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
