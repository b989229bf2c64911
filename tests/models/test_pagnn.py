"""PaGNN: pairs are answered from their surroundings, whatever stands beside them, and never from their edge."""

from dataclasses import replace

import dgl
import pytest
import torch
from toys import parties

from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.models import GAT, PaGNN
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


def near(hops=2, **settings):
    """(model of the form "ppr", its inputs) on the toy, with Pi exact and a weight for it."""
    shown = Links(parties()).shown()
    inputs = PaGNN.prepare(shown, ppr="exact", alpha=0.3)
    torch.manual_seed(0)
    model = PaGNN.build(shown, inputs, hidden=6, hops=hops, form="ppr", **settings)
    torch.nn.init.normal_(model.score.weight)
    for conv in model.near:
        torch.nn.init.constant_(conv.attn_ppr, 4.0)
    return model, inputs


def by_columns(graph, alpha):
    """alpha (I - (1 - alpha) A D^-1)^-1, [N, N]: column u is where a walk from u is."""
    src, dst = graph.edges(order="eid")
    table = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    table[dst[src != dst], src[src != dst]] = 1.0
    return alpha * torch.linalg.inv(torch.eye(len(table)) - (1 - alpha) * table / table.sum(0))


@pytest.mark.parametrize("decoder", ["linear", "product"])
def test_the_form_by_pagerank_is_attention_with_the_walks_inverse_in_its_scores(decoder):
    model, (graph, feat) = near(decoder=decoder)
    pi, nodes = by_columns(graph, 0.3), graph.num_nodes()
    src, dst = graph.edges(order="eid")
    torch.testing.assert_close(graph.edata["ppr"].double(), pi[dst, src], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        z, around = model.fc(feat["_N"]), torch.full((nodes, nodes), -torch.inf)
        for depth, conv in enumerate(model.near):
            value = conv.fc(torch.tanh(z) if depth else z)
            left, right = (value @ end[0, 0] for end in (conv.attn_l, conv.attn_r))
            scores = left.unsqueeze(0) + right.unsqueeze(1) + conv.attn_ppr * pi.float()
            e = around.index_put((dst, src), torch.nn.functional.leaky_relu(scores, 0.2)[dst, src])
            z = torch.softmax(e, 1) @ value + conv.bias
        one, other = z[[0, 7, 119]], z[[3, 50, 2]]
        expected = torch.cat([one, other], 1) @ model.score.weight[0] + model.score.bias
        expected = expected + (one * other).sum(1) if decoder == "product" else expected
    torch.testing.assert_close(answer(model, (graph, feat), [0, 7, 119], [3, 50, 2]), expected, atol=1e-5, rtol=1e-5)


def test_the_form_by_pagerank_without_a_weight_for_it_is_gat():
    model, (graph, feat) = near(hops=1)
    rows = resting(model, lambda: model._near(graph, model.fc(feat["_N"])))
    gat = GAT(6, 6, heads=(1,)).eval()
    state = {f"layers.0.{name}": value for name, value in model.near[0].state_dict().items() if name != "attn_ppr"}
    gat.load_state_dict(state)
    with torch.no_grad():
        plain = gat(graph, model.fc(feat["_N"]))
        assert not torch.allclose(rows, plain, atol=1e-3)
        model.near[0].attn_ppr.zero_()
        assert torch.equal(model._near(graph, model.fc(feat["_N"])), plain)


def test_the_form_by_pagerank_is_asked_for_by_name_in_both_places():
    shown = Links(parties()).shown()
    plain, walked = PaGNN.prepare(shown), PaGNN.prepare(shown, ppr="push")
    assert "ppr" not in plain[0].edata
    with pytest.raises(RecipeError, match="graph.ppr: expected 'push' or 'exact' with model.form = 'ppr', got 'none'"):
        PaGNN.build(shown, plain, form="ppr")
    model = PaGNN.build(shown, walked, form="ppr")
    (feat, *ends, _), _ = model.paired(walked, torch.tensor([0]), torch.tensor([3]))
    with pytest.raises(GraphError, match="graph: expected PageRank in edata"):
        model(feat, *ends, plain[0])
    with pytest.raises(GraphError, match="src: expected ids of 120 nodes, from 0 to 119, got 120"):
        model.paired(walked, torch.tensor([120]), torch.tensor([0]))
    with pytest.raises(RecipeError, match="model.share_weights: expected false with model.form = 'ppr'"):
        PaGNN.build(shown, walked, form="ppr", share_weights=True)
    with pytest.raises(RecipeError, match="model.form: expected 'broadcast' or 'ppr', got 'walk'"):
        setting(form="walk")


def test_the_form_by_pagerank_learns_links():
    task = Links(parties(), out_feats=16)
    inputs = PaGNN.prepare(task.shown(), ppr="push")
    torch.manual_seed(0)
    model = PaGNN.build(task.shown(), inputs, hidden=16, hops=2, form="ppr", decoder="product").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        for batch in task.batches(model, inputs):
            optimizer.zero_grad()
            model.objective(task.loss, inputs, batch).backward()
            assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
            optimizer.step()
    assert task.evaluate(model, inputs, "test", "auc")[0] > 70
