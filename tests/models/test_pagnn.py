"""PaGNN: pairs are answered from their surroundings, whatever stands beside them, and never from their edge."""

from dataclasses import replace

import dgl
import pytest
import torch
from toys import parties

from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.models import PaGNN
from hgat.models._system import resting
from hgat.tasks.links import Links


def setting(**settings):
    """(model, its inputs) on the toy, hops 2."""
    shown = Links(parties()).shown()
    inputs = PaGNN.prepare(shown)
    torch.manual_seed(0)
    model = PaGNN.build(shown, inputs, hidden=6, **settings)
    torch.nn.init.normal_(model.score.weight)
    return model, inputs


def answer(model, inputs, src, dst):
    found, query = model.paired(inputs, torch.tensor(src), torch.tensor(dst))
    return resting(model, lambda: model(*found, *query))


def test_a_pairs_answer_does_not_depend_on_the_pairs_beside_it():
    model, inputs = setting()
    alone = torch.cat([answer(model, inputs, [u], [v]) for u, v in ((0, 3), (7, 50), (0, 3), (119, 2))])
    torch.testing.assert_close(answer(model, inputs, [0, 7, 0, 119], [3, 50, 3, 2]), alone)
    assert len(alone.unique()) == 3


def test_the_pairs_own_edge_is_never_read():
    model, (graph, feat) = setting()
    src, dst = graph.edges()
    number = int((src < dst).nonzero()[0])
    u, v = int(src[number]), int(dst[number])
    without = dgl.remove_edges(graph, graph.edge_ids(torch.tensor([u, v]), torch.tensor([v, u])))
    assert without.num_edges() == graph.num_edges() - 2
    assert answer(model, (graph, feat), [u], [v]).equal(answer(model, (without, feat), [u], [v]))
    # It is read where others ask.
    w = int(next(x for x in graph.out_edges(u)[1] if x not in (u, v)))
    assert not torch.allclose(answer(model, (graph, feat), [u], [w]), answer(model, (without, feat), [u], [w]))


def test_a_node_without_links_and_ends_in_two_components_are_answered():
    task = Links(parties())
    shown = task.shown()
    feat = torch.cat([shown.feat["_N"], torch.ones(2, 8)])
    lonely = replace(shown, graph=dgl.add_nodes(shown.graph, 2), feat={"_N": feat})
    inputs = PaGNN.prepare(lonely)
    model = PaGNN.build(lonely, inputs)
    found = answer(model, inputs, [120, 120, 0, 0], [121, 5, 119, 0])
    assert torch.isfinite(found).all() and len(found) == 4


def test_both_directions_of_a_directed_graph_are_read():
    task = Links(parties(), directed=True)
    graph, _ = PaGNN.prepare(task.shown())
    src, dst = graph.edges()
    pairs = set(zip(src.tolist(), dst.tolist(), strict=True))
    assert pairs == {(v, u) for u, v in pairs} and all((v, v) in pairs for v in range(120))


def test_forward_builds_no_structure(monkeypatch):
    model, inputs = setting()
    found, _ = model.paired(inputs, torch.tensor([0]), torch.tensor([3]))
    monkeypatch.setattr("hgat.models.pagnn.routes", None)
    monkeypatch.setattr(dgl, "graph", None)
    monkeypatch.setattr(dgl, "create_block", None)
    assert torch.isfinite(resting(model, lambda: model(*found))).all()


def test_without_a_direction_shared_weights_give_a_pair_the_same_rows_whichever_end_is_first():
    for shared in (True, False):
        model, inputs = setting(share_weights=shared, decoder="product")
        torch.nn.init.zeros_(model.score.weight)  # what is left is the inner product
        one, back = answer(model, inputs, [0, 7], [3, 50]), answer(model, inputs, [3, 50], [0, 7])
        assert torch.allclose(one, back) == shared


def test_the_product_adds_the_inner_product_of_both_ends():
    model, inputs = setting(decoder="product")
    (feat, ahead, back), _ = model.paired(inputs, torch.tensor([0, 7]), torch.tensor([3, 50]))
    found = resting(model, lambda: model(feat, ahead, back))
    with torch.no_grad():
        x = model.fc(feat["_N"])
        z_dst, z_src = model.forwards(ahead, x), model.backwards(back, x)
        linear = torch.cat([z_src, z_dst], 1) @ model.score.weight[0] + model.score.bias
    torch.testing.assert_close(found, linear + (z_src * z_dst).sum(1))
    model.decoder = "linear"
    torch.testing.assert_close(resting(model, lambda: model(feat, ahead, back)), linear)


def test_what_does_not_fit_is_one_sentence():
    model, inputs = setting()
    with pytest.raises(GraphError, match="dst: expected ids of 120 nodes, from 0 to 119, got 120"):
        model.paired(inputs, torch.tensor([0]), torch.tensor([120]))
    (feat, *both), _ = model.paired(inputs, torch.tensor([0]), torch.tensor([3]))
    with pytest.raises(ShapeError, match="expected features of one node type"):
        model({"a": feat["_N"], "b": feat["_N"]}, *both)
    with pytest.raises(RecipeError, match="model.decoder: expected 'linear' or 'product', got 'sum'"):
        setting(decoder="sum")
    with pytest.raises(ShapeError, match="hops: expected 1 or more, got 0"):
        setting(hops=0)
    bare = replace(Links(parties()).shown(), feat={"_N": None})
    with pytest.raises(RecipeError, match="feat: expected features of '_N' nodes, got none"):
        PaGNN.build(bare, PaGNN.prepare(bare))
