"""HAN as a whole: its attention, wrong calls, and a task that needs the right meta-path."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from systems import CLASSES, IN, PATHS, SYSTEMS, accuracy

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, HgatError, ShapeError
from hgat.models.han import HAN
from zoo import typed_graph

STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}
EFFORT = {"epochs": 150, "lr": 0.02}


def _views(graph=None):
    return SYSTEMS["han"].prepare(typed_graph() if graph is None else graph)


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


@pytest.mark.parametrize("settings", SYSTEMS["han"].forms, ids=str)
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_attention_of_every_layer(settings, idtype):
    graph = typed_graph()
    views = _views(graph.int() if idtype == torch.int32 else graph)
    feat = {"film": torch.randn(11, IN), "user": None}
    model = HAN.for_graph(views, feat, CLASSES, "film", **settings).eval()
    attention = model.attention(views, feat)
    assert len(attention) == len(model.layers)
    for alpha, beta in attention:
        assert alpha.shape[0] == views.graph.num_edges()
        torch.testing.assert_close(beta.sum(-1), torch.ones(beta.shape[:-1]))


def test_classifier_reads_the_embedding():
    views, feat = _views(), torch.randn(11, IN)
    model = HAN(IN, CLASSES, 2, hidden=3, heads=[4]).eval()
    z = model.embed(views, feat)
    assert z.shape == (11, 12)
    torch.testing.assert_close(model(views, feat), z @ model.classify.weight.T + model.classify.bias)


@pytest.mark.parametrize("settings", [{}, {"semantic": "per_node"}, {"share_projection": False}], ids=str)
def test_learns_which_metapath_leads_to_the_label(settings):
    graph, feat, label = partners()
    paths = {"author": ["by author", "author of"], "venue": ["by venue", "venue of"]}
    views = hgraph.metapath.prepare(graph, paths=paths, self_loops=False)
    model = HAN.for_graph(views, {"paper": feat}, CLASSES, "paper", **STILL, **settings)
    assert accuracy(model, views, feat, label, **EFFORT) == 1.0
    # The wrong meta-path alone cannot tell.
    wrong = hgraph.metapath.prepare(graph, paths={"itself": paths["venue"]})
    blind = HAN.for_graph(wrong, {"paper": feat}, CLASSES, "paper", **STILL, **settings)
    assert accuracy(blind, wrong, feat, label, **EFFORT) < 1.0


def test_semantic_attention_finds_the_metapath():
    """beta of the meta-path that decides grows in training, and uniform attention keeps both at a half."""
    graph, feat, label = partners()
    views = hgraph.metapath.prepare(
        graph, paths={"author": ["by author", "author of"], "venue": ["by venue", "venue of"]}
    )
    model = HAN.for_graph(views, {"paper": feat}, CLASSES, "paper", **STILL)
    accuracy(model, views, feat, label, **EFFORT)
    ((_, beta),) = model.attention(views, feat)
    assert beta[0] > 0.6
    with ops.uniform_attention():
        ((_, beta),) = model.attention(views, feat)
    torch.testing.assert_close(beta, torch.full((2,), 0.5))


def test_wrong_settings_are_one_sentence():
    with pytest.raises(ShapeError, match="form: expected 'global' or 'per_node', got 'local'"):
        HAN.for_graph(_views(), {"film": torch.randn(11, IN)}, CLASSES, "film", semantic="local")


def test_views_with_other_nodes_at_the_destination_are_refused():
    """Five users rate three films: the first three users are not the films."""
    graph = dgl.heterograph({("user", "rates", "film"): ([0, 1, 2, 3, 4], [0, 1, 2, 2, 1])})
    with pytest.raises(HgatError, match="expected"):
        HAN(IN, CLASSES, 1)(hgraph.disjoint_union([graph]), torch.randn(5, IN))


def test_wrong_calls_are_one_sentence():
    views, feat = _views(), torch.randn(11, IN)
    model = HAN(IN, CLASSES, 2)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[11, 7\], got \[11, 6\]"):
        model(views, feat[:, 1:])
    with pytest.raises(GraphError, match="expected 2 meta-paths, got 1"):
        model(hgraph.metapaths(typed_graph(), [PATHS["co-liked"]]), feat)
    with pytest.raises(GraphError, match="expected what hgat.graph.metapaths or hgat.graph.disjoint_union gives"):
        model(typed_graph(), feat)
