"""HGT as a whole: against a loop over edges with relative times, on blocks, and what it is given wrongly."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat.errors import GraphError, HgatError, RecipeError
from hgat.models import HGT, Facts, layerwise
from hgat.nn.names import StateError
from zoo import typed_graph

IN, CLASSES = 5, 3
SMALL = {"hidden": 3, "heads": [2, 2], "feat_drop": 0.0, "out_drop": 0.0}


def facts(timed=False):
    graph = typed_graph()
    if timed:
        generator = torch.Generator().manual_seed(4)
        for etype in graph.canonical_etypes:
            graph.edges[etype].data["time"] = torch.randint(0, 9, (graph.num_edges(etype),), generator=generator)
    feat = {"film": torch.randn(11, IN, generator=torch.Generator().manual_seed(1)), "user": None}
    return Facts(graph, feat, target="film", num_classes=CLASSES)


def setting(time="none", **settings):
    """(shown, graph, features, a model in evaluation mode whose parameters are away from their constants)."""
    shown = facts(time != "none")
    graph, feat = HGT.prepare(shown, time=time)
    torch.manual_seed(0)
    model = HGT.build(shown, (graph, feat), **{**SMALL, **settings}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return shown, graph, feat, model


def expected(model, graph, feat):
    """The equations, edge after edge and node after node."""
    names, rows = dict(enumerate(model.ntypes)), {}
    for k, ntype in names.items():
        layer = model.inputs[k]
        rows[ntype] = torch.tanh(layer(feat[ntype])) if feat[ntype] is not None else layer.weight
    for depth, layer in enumerate(model.layers):
        heads, new = (layer.num_heads, layer.head_size), {}
        linear = {n: getattr(layer, f"linear_{n}").get_weight() for n in "kqva"}
        for k, ntype in names.items():
            new[ntype] = []
            for v in range(len(rows[ntype])):
                query = (rows[ntype][v] @ linear["q"][k]).view(heads)
                logits, messages = [], []
                for r, etype in enumerate(model.etypes):
                    src, dst = graph.edges(etype=etype, order="eid")
                    for edge in ((dst == v) if etype[2] == ntype else dst < 0).nonzero().flatten():
                        x, s = rows[etype[0]][src[edge]], model.ntypes.index(etype[0])
                        if model.timed:
                            age, width = graph.edges[etype].data["age"][edge].double(), len(x)
                            angle = age / 10000 ** (torch.arange(0, width, 2).double() / width)
                            wave = torch.stack([angle.sin(), angle.cos()], 1).flatten().float() / width**0.5
                            x = x + model.times[depth](wave)
                        att, msg = (
                            torch.stack([h.get_weight()[r] for h in part])
                            for part in (layer.relation_att, layer.relation_msg)
                        )
                        key = torch.einsum("hd,hde->he", (x @ linear["k"][s]).view(heads), att)
                        prior = torch.stack([p[r] for p in layer.relation_pri])
                        logits.append((key * query).sum(1) * prior / heads[1] ** 0.5)
                        messages.append(torch.einsum("hd,hde->he", (x @ linear["v"][s]).view(heads), msg))
                z = torch.zeros(heads)
                if logits:
                    z = (torch.softmax(torch.stack(logits), 0).unsqueeze(2) * torch.stack(messages)).sum(0)
                gate = torch.sigmoid(layer.skip[k])
                skip = rows[ntype][v] @ layer.residual_w if hasattr(layer, "residual_w") else rows[ntype][v]
                out = gate * (F.gelu(z.flatten()) @ linear["a"][k]) + (1 - gate) * skip
                new[ntype].append(layer.norm(out) if layer.use_norm else out)
        rows = {ntype: torch.stack(found) for ntype, found in new.items()}
    return model.classify(rows[model.target])


@pytest.mark.parametrize("settings", [{"time": "none"}, {"time": "edges", "heads": [2, 1], "use_norm": False}], ids=str)
def test_answers_are_those_of_the_equations(settings):
    _, graph, feat, model = setting(**settings)
    torch.testing.assert_close(model(graph, feat), expected(model, graph, feat), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", ["none", "edges"])
def test_blocks_with_all_neighbours_and_pieces_give_the_same(time):
    _, graph, feat, model = setting(time)
    whole, ids = model(graph, feat), torch.tensor([7, 2, 3])
    inputs, query = model.sampled((graph, feat), ids, [-1, -1])
    assert query == () and len(inputs[0]) == 2
    torch.testing.assert_close(model(*inputs), whole[ids], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layerwise(model, graph, feat, batch_size=4), whole, atol=1e-5, rtol=1e-5)


def test_only_the_age_of_what_is_attended_to_counts():
    """A shift of all times changes nothing; another time of one edge does."""
    shown, graph, feat, model = setting("edges")
    before = model(graph, feat)
    for etype in shown.graph.canonical_etypes:
        shown.graph.edges[etype].data["time"] += 1000
    torch.testing.assert_close(model(HGT.prepare(shown, time="edges")[0], feat), before)
    shown.graph.edges["follows"].data["time"][0] -= 500
    assert not torch.allclose(model(HGT.prepare(shown, time="edges")[0], feat), before)


def test_times_of_nodes_and_what_lacks_times():
    shown = facts()
    shown.graph.nodes["film"].data["time"] = torch.arange(11)
    with pytest.raises(GraphError, match=r"expected times as ndata\['time'\] of 'user' nodes, got none"):
        HGT.prepare(shown, time="nodes")
    shown.graph.nodes["user"].data["time"] = torch.arange(13)
    graph, feat = HGT.prepare(shown, time="nodes")
    assert torch.equal(graph.edges["follows"].data["age"], torch.sub(*reversed(graph.edges(etype="follows"))))
    with pytest.raises(GraphError, match=r"expected times as edata\['time'\] of"):
        HGT.prepare(facts(), time="edges")
    model = HGT.build(shown, (graph, feat), **SMALL)
    with pytest.raises(GraphError, match=r"expected int64 \[E\] as edata\['age'\]"):
        model(HGT.prepare(facts())[0], feat)


def test_another_order_of_names_is_put_right():
    shown, graph, feat, model = setting()
    other = graph.edge_type_subgraph(graph.canonical_etypes[::-1])  # DGL sorts names elsewhere
    torch.manual_seed(9)
    found = HGT.build(shown, (other, feat), **SMALL).eval()
    found.load_state_dict(model.state_dict())
    assert found.etypes != model.etypes
    torch.testing.assert_close(found(other, feat), model(graph, feat))
    fewer = HGT.prepare(shown, without=["follows"])[0]
    with pytest.raises(StateError, match="expected relations"):
        HGT.build(shown, (fewer, feat), **SMALL).load_state_dict(model.state_dict())


def test_an_empty_type_and_an_empty_relation_change_nothing():
    shown, graph, feat, model = setting()
    ends = {etype: graph.edges(etype=etype) for etype in graph.canonical_etypes}
    more = dgl.heterograph(
        {**ends, ("shop", "sells", "film"): ([], [])}, num_nodes_dict={"film": 11, "user": 13, "shop": 0}
    )
    torch.manual_seed(3)
    model = HGT.for_graph(more, {**feat, "shop": None}, CLASSES, "film", **SMALL)
    out = model.train()(more, {**feat, "shop": None})
    out.sum().backward()
    assert torch.isfinite(out).all() and all(
        torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None
    )


def test_attention_sums_to_one_over_all_relations():
    _, graph, feat, model = setting("edges")
    for alpha in model.attention(graph, feat):
        total = torch.zeros(11, 2)
        for etype, part in alpha.items():
            if etype[2] == "film":
                total.index_add_(0, graph.edges(etype=etype)[1], part.detach())
        received = sum(graph.in_degrees(etype=e) for e in graph.canonical_etypes if e[2] == "film") > 0
        torch.testing.assert_close(total[received], torch.ones_like(total[received]))


def test_wrong_settings_are_one_sentence():
    shown, graph, feat, _ = setting()
    with pytest.raises(RecipeError, match=r"target: expected a node type among \['film', 'user'\], got 'shop'"):
        HGT.for_graph(graph, feat, CLASSES, "shop")
    with pytest.raises(GraphError, match="expected a DGLGraph"):
        HGT("graph", {}, CLASSES, "film")
    for wrong in ({"time": "days"}, {"time": "edges", "time_unit": 0.0}, {"without": ["cites"]}):
        with pytest.raises(HgatError, match="expected"):
            HGT.prepare(facts(True), **wrong)
    with pytest.raises(HgatError, match="expected features of 'film' nodes, got none"):
        HGT.build(shown, (graph, feat))(graph, {"film": None, "user": None})
