"""PPRGAT as a whole: whose PageRank its edges carry, and that it is GAT where PageRank weighs nothing."""

import dgl
import pytest
import torch
from systems import CLASSES, IN

import hgat.data
from hgat.errors import GraphError
from hgat.graph import ppr_graph, ppr_values
from hgat.models import Facts
from hgat.models.gat import GAT
from hgat.models.pprgat import PPRGAT
from hgat.train.recipe import read
from hgat.train.run import Experiment
from zoo import build

STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}


def facts(graph):
    return Facts(graph, {"_N": torch.randn(graph.num_nodes(), IN)}, target="_N", num_classes=CLASSES)


def plain():
    return dgl.remove_self_loop(dgl.to_bidirected(build("hub")))


def test_edges_keep_their_own_and_their_loops_pagerank():
    graph, _ = PPRGAT.prepare(facts(plain()), neighbours="edges", alpha=0.3)
    expected = dgl.add_self_loop(plain())
    assert torch.equal(torch.stack(graph.edges()), torch.stack(expected.edges()))
    src, dst = graph.edges()
    loops = src == dst
    assert loops.sum() == graph.num_nodes()
    # The walk is that of the graph without loops.
    torch.testing.assert_close(graph.edata["ppr"][~loops], ppr_values(plain(), 0.3), atol=1e-6, rtol=1e-5)
    whole = ppr_graph(plain(), None, 0.3)
    own = {int(u): float(p) for u, v, p in zip(*whole.edges(), whole.edata["ppr"], strict=True) if u == v}
    assert graph.edata["ppr"][loops].tolist() == pytest.approx([own[int(u)] for u in src[loops]], abs=1e-6)


def test_the_nearest_are_neighbours_where_they_are_asked_for():
    graph, _ = PPRGAT.prepare(facts(plain()), k=5, form="row", ppr="exact")
    expected = ppr_graph(plain(), 5, form="row", method="exact")
    assert torch.equal(torch.stack(graph.edges()), torch.stack(expected.edges()))
    torch.testing.assert_close(graph.edata["ppr"], expected.edata["ppr"], atol=1e-6, rtol=1e-5)
    assert (graph.in_degrees() == 5).all()
    with pytest.raises(GraphError, match="k: expected at most the 37 nodes"):
        PPRGAT.prepare(facts(plain()), k=38)


def test_the_control_named_gat_is_gat_from_its_first_number_on():
    shown, (_, settings, of_graph) = facts(plain()), PPRGAT.ablations["gat"]

    def trained(cls, graph, **model):
        torch.manual_seed(5)
        inputs = cls.prepare(shown, **graph)
        model = cls.build(shown, inputs, residual=True, **model)
        out = model.train()(*inputs)  # dropout, too
        (out * torch.randn_like(out)).sum().backward()
        return [out, *(parameter.grad for _, parameter in sorted(model.named_parameters()))]

    ours, gat = trained(PPRGAT, {"k": 5, **of_graph}, **{"score": "v2", **settings}), trained(GAT, {"self_loops": True})
    assert len(ours) == len(gat) and all(map(torch.equal, ours, gat))
    assert not torch.equal(trained(PPRGAT, {"k": 5}, **settings)[0], gat[0])


def test_a_control_is_given_the_graph_that_it_names():
    data = hgat.data.load("dictionary", None, k=4)
    recipe = read("pprgat-cora", ["graph.neighbours=topk", "graph.k=2"])
    experiment = Experiment(recipe, given=data)
    graphs = {name: experiment.inputs(experiment.task, name)["train"][0] for name in ("ours", "gat", "no_ppr")}
    assert graphs["gat"].num_edges() == data.graph.num_edges() + data.graph.num_nodes()  # self-loops
    assert graphs["ours"] is graphs["no_ppr"] and graphs["ours"].in_degrees().max() == 2
    experiment.check_ablations()


def test_it_begins_as_gat_on_the_same_edges():
    graph, feat = PPRGAT.prepare(facts(plain()), neighbours="edges")
    model, gat = PPRGAT(IN, CLASSES, **STILL), GAT(IN, CLASSES, **STILL)
    gat.load_state_dict({name: value for name, value in model.state_dict().items() if not name.endswith("attn_ppr")})
    torch.testing.assert_close(model(graph, feat), gat(graph, feat), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        for layer in model.layers:
            layer.attn_ppr.fill_(2.0)
    assert not torch.allclose(model(graph, feat), gat(graph, feat), atol=1e-3)
    with pytest.raises(GraphError, match="graph: expected PageRank in edata"):
        model(dgl.add_self_loop(plain()), feat)


@pytest.mark.parametrize("score", ["v1", "v2"])
def test_blocks_carry_their_edges_pagerank(score):
    graph, feat = PPRGAT.prepare(facts(plain()), neighbours="edges")
    model = PPRGAT(IN, CLASSES, score=score).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.attn_ppr.fill_(5.0)
    ids = torch.tensor([3, 0, 17])
    (blocks, rows), _ = model.sampled((graph, feat), ids, [-1, -1])
    whole = model(graph, feat)
    torch.testing.assert_close(model(blocks, rows), whole[ids], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.whole((graph, feat), 7), whole, atol=1e-5, rtol=1e-5)
