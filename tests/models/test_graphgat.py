"""GraphGAT: its parts one by one, batches, odd graphs, bonds in the score."""

import dgl
import pytest
import torch
from batches import batch, reordered
from toys import meetings

from hgat import nn as hnn
from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.models import GraphGAT
from hgat.tasks.graphs import Graphs

READOUTS = ("gate", "set2set", "topk", "sag", "mean")


def model(readout="gate", **settings):
    torch.manual_seed(0)
    return GraphGAT(6, 3, readout=readout, hidden=8, heads=2, **settings).eval()


def by_hand(net, graph, feat):
    """One graph after the other, from the equations and the layers."""
    found = []
    for part, rows in zip(dgl.unbatch(graph), feat.split(graph.batch_num_nodes().tolist()), strict=True):
        h = net.encoder(rows)
        for layer in net.layers:
            h = torch.relu(layer(part, h).flatten(1) if net.edges else layer(h) + h)
        if net.pool is not None:
            part, h = net.pool(part, h)
        if net.readout is None:
            out = h.mean(0) if len(h) else torch.zeros(8)
        else:
            out = net.readout(part, h)[0]
        found.append(net.decoder(out))
    return torch.stack(found)


@pytest.mark.parametrize("settings", [*({"readout": r} for r in READOUTS), {"edges": False}], ids=str)
def test_a_batch_is_its_graphs_one_by_one(settings):
    (graph, feat), net = batch(6), model(**settings)
    found = net(graph, feat)
    assert found.shape == (6, 3) and torch.isfinite(found).all()
    torch.testing.assert_close(found, by_hand(net, graph, feat))
    moved, order = reordered(graph)
    torch.testing.assert_close(net(moved, feat[order]), found)
    alpha = net.attention(graph, feat)
    assert len(alpha) == 2 * net.edges + (settings.get("readout") != "mean")
    if net.edges:
        assert alpha[0].shape == (graph.num_edges(), 2)
    assert {"gate": (24, 1), "set2set": (24, 3)}.get(settings.get("readout"), alpha[-1].shape) == alpha[-1].shape


@pytest.mark.parametrize("size", [1, 7, None])
def test_pieces_are_the_whole(size):
    task = Graphs(meetings())
    inputs = GraphGAT.prepare(task.shown())
    net = GraphGAT.build(task.shown(), inputs).eval()
    ids = torch.tensor([5, 0, 199, 5])
    whole = net(task.shown().graph, task.shown().feat)
    torch.testing.assert_close(net.rows(inputs, ids, size), whole[ids])
    torch.testing.assert_close(net.whole(inputs), whole)


def test_edges_have_a_part_in_the_score():
    graph, feat = batch(6)
    torch.manual_seed(0)
    net = GraphGAT(6, 3, 2, hidden=8, heads=2)
    edge = torch.randn(graph.num_edges(), 2)
    assert not torch.allclose(net(graph, feat, edge), net(graph, feat, -edge))
    with pytest.raises(ShapeError, match=r"edge_feat: expected \[E, 2\], got none"):
        net(graph, feat)
    with pytest.raises(ShapeError, match="edge_feat: expected none without edge_feats"):
        model()(graph, feat, edge)


def test_bytes_count_as_numbers_and_reverse_edges_stand_in_their_graphs():
    graph, feat = batch(6)
    shown = Graphs(meetings()).shown()
    shown = type(shown)(graph, {"_N": (feat > 0).byte()}, torch.arange(48).unsqueeze(1).byte() % 2, "_N", num_classes=3)
    both, rows, edges = GraphGAT.prepare(shown, undirected=True)
    assert both.batch_num_edges().equal(2 * graph.batch_num_edges()) and len(edges) == 2 * graph.num_edges()
    (src, dst), (of, to) = both.edges(order="eid"), graph.edges(order="eid")
    assert src[0::2].equal(of) and src[1::2].equal(to) and dst[1::2].equal(of) and edges[1::2].equal(edges[0::2])
    net = GraphGAT.build(shown, (both, rows, edges), hidden=8).eval()
    out = net.rows((both, rows, edges), torch.arange(6))
    torch.testing.assert_close(out, net(both, (feat > 0).float(), edges.float()))


def test_what_does_not_fit_is_one_sentence():
    graph, feat = batch(6)
    with pytest.raises(RecipeError, match="model.readout: expected one of gate, set2set, topk, sag, mean, got 'max'"):
        model("max")
    with pytest.raises(RecipeError, match="model.hidden: expected a multiple of heads = 3, got 8"):
        GraphGAT(6, 3, hidden=8, heads=3)
    with pytest.raises(ShapeError, match="steps: expected 1 or more, got 0"):
        model(steps=0)
    with pytest.raises(GraphError, match="graph: expected"):
        model()(None, feat)
    shown = Graphs(meetings()).shown()
    with pytest.raises(RecipeError, match="feat: expected features of '_N' nodes, got none"):
        GraphGAT.build(shown, (shown.graph, {"_N": None}, None))
    assert isinstance(model("topk").pool, hnn.TopKPooling) and isinstance(model("sag").pool, hnn.SAGPooling)
