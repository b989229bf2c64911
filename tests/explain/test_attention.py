"""Shares of attention, and attention to the past, against loops over nodes and edges, written from their definition."""

import math

import dgl
import pytest
import torch

from hgat.explain import past, shares
from hgat.graph import from_events, join_relations, metapaths, snapshots
from hgat.graph.recent import recent_neighbours
from hgat.graph.relations import prepare
from hgat.models import Past, Shares, System, find
from hgat.ops import uniform_attention
from zoo import homogeneous, typed_graph

FEATS, CLASSES = 7, 3


def rgat(graph, softmax="across", target="film", **settings):
    """(model, joined relations, features): trained or not makes no difference to what is tested."""
    joined = prepare(graph) if settings.pop("inverse", False) else join_relations(graph)
    feat = {ntype: torch.randn(joined.num_src[ntype], FEATS) for ntype in joined.num_src}
    model = find("rgat").for_graph(joined, feat, CLASSES, target, softmax=softmax, heads=[3, 2], **settings)
    return model, joined, feat


def by_hand(graph, alpha):
    """{node type: ({relation: share}, {relation: share if all edges counted alike})} of one layer."""
    edges = {e: graph.edges(etype=e, order="eid")[1].tolist() for e in graph.canonical_etypes}
    found = {}
    for ntype in graph.ntypes:
        into = [e for e in graph.canonical_etypes if e[2] == ntype and edges[e]]
        spent, even, nodes = dict.fromkeys(into, 0.0), dict.fromkeys(into, 0.0), 0
        for node in range(graph.num_nodes(ntype)):
            mass, count = dict.fromkeys(into, 0.0), dict.fromkeys(into, 0)
            for etype in into:
                for number, target in enumerate(edges[etype]):
                    if target == node:
                        mass[etype] += sum(alpha[etype][number].tolist()) / alpha[etype].shape[1]
                        count[etype] += 1
            if not sum(count.values()):
                continue
            nodes += 1
            for etype in into:
                spent[etype] += mass[etype] / sum(mass.values())
                even[etype] += count[etype] / sum(count.values())
        if into:
            found[ntype] = {e: s / nodes for e, s in spent.items()}, {e: s / nodes for e, s in even.items()}
    return found


@pytest.mark.parametrize("softmax", ["across", "within"])
@pytest.mark.parametrize("inverse", [False, True])
def test_shares_of_relations(softmax, inverse):
    graph = typed_graph()
    if inverse:
        graph = dgl.edge_type_subgraph(graph, [e for e in graph.canonical_etypes if e[1] != "liked by"])
    model, joined, feat = rgat(graph, softmax, inverse=inverse)
    alphas = [{e: a.detach() for e, a in alpha.items()} for alpha in model.eval().attention(joined, feat)]
    whole = typed_of(joined)
    found = {entry.title: entry for entry in shares(model, joined, feat)}
    # Of the last layer only the predicted nodes are read.
    assert len(found) == 2 * len(whole.ntypes) - 1 == 3
    for layer, alpha in enumerate(alphas, 1):
        for ntype, (spent, even) in by_hand(whole, alpha).items():
            if layer == len(alphas) and ntype != model.target:
                assert f"attention of {ntype} nodes, layer {layer}" not in found
                continue
            entry = found[f"attention of {ntype} nodes, layer {layer}"]
            # "self" is there once for each node type, so it says which.
            assert entry.names == tuple(f"self ({ntype})" if e[1] == "self" else e[1] for e in spent)
            assert entry.attention == pytest.approx(tuple(spent.values()), abs=1e-6)
            assert entry.uniform == pytest.approx(tuple(even.values()), abs=1e-6)
            assert sum(entry.attention) == pytest.approx(1) and sum(entry.uniform) == pytest.approx(1)
            assert len(entry.names) == 1 or entry.attention != pytest.approx(entry.uniform, abs=1e-3)


def typed_of(joined):
    """The typed graph whose edges the joined relations hold, rebuilt from the joined graph alone."""
    start, offset = {}, 0
    for ntype, count in joined.num_dst.items():
        start[ntype], offset = offset, offset + count
    targets = joined.across.edges(order="eid")[1].split(joined.num_edges)
    edges = {
        etype: (torch.zeros_like(target), target - start[etype[2]])
        for etype, target in zip(joined.etypes, targets, strict=True)
    }
    return dgl.heterograph(edges, num_nodes_dict=joined.num_dst)


def test_within_a_relation_every_relation_of_a_node_weighs_the_same():
    """Each softmax sums to one, so a node spends equal parts on the relations that it has."""
    model, joined, feat = rgat(typed_graph(), "within")
    graph = typed_graph()
    degrees = torch.stack([graph.in_degrees(etype=e) for e in ("follows", "likes")]) > 0
    has = degrees.sum(0)
    expected = [(degrees[k] / has.clamp_min(1))[has > 0].mean().item() for k in range(2)]
    (entry,) = [e for e in shares(model, joined, feat) if e.title == "attention of film nodes, layer 1"]
    assert entry.names == ("follows", "likes") and entry.attention == pytest.approx(expected)


def test_a_relation_without_edges_has_no_share():
    graph = dgl.heterograph(
        {("user", "likes", "film"): ([0, 1, 2], [0, 0, 4]), ("user", "never", "film"): ([], [])},
        num_nodes_dict={"user": 3, "film": 5},
    )
    model, joined, feat = rgat(graph, inverse=True)
    titles = {entry.title: entry.names for entry in shares(model, joined, feat)}
    assert titles["attention of film nodes, layer 1"] == ("self (film)", "likes")
    assert titles["attention of user nodes, layer 1"] == ("likes^-1", "self (user)")
    assert all("never" not in name for names in titles.values() for name in names)


def test_a_type_without_in_edges_has_no_share():
    graph = dgl.heterograph(
        {("user", "likes", "film"): ([0, 1, 2], [0, 0, 4]), ("film", "never", "user"): ([], [])},
        num_nodes_dict={"user": 3, "film": 5},
    )
    model, joined, feat = rgat(graph)
    (one, two) = shares(model, joined, feat)
    assert (one.title, two.title) == ("attention of film nodes, layer 1", "attention of film nodes, layer 2")
    assert one.names == ("likes",) and one.attention == pytest.approx((1.0,))


def test_relations_of_one_name_are_told_apart_by_their_source():
    graph = dgl.heterograph(
        {
            ("user", "to", "film"): ([0, 1, 2], [0, 1, 2]),
            ("film", "to", "film"): ([0, 1], [2, 2]),
            ("film", "is", "film"): ([0], [0]),
        },
        num_nodes_dict={"user": 3, "film": 5},
    )
    model, joined, feat = rgat(graph, inverse=True)
    names = {entry.title: entry.names for entry in shares(model, joined, feat)}["attention of film nodes, layer 1"]
    assert {"to (user)", "to (film)", "is"} <= set(names) and len(set(names)) == len(names)


def han(form):
    graph = typed_graph()
    views = metapaths(graph, {"likes": ["liked by", "likes"], "follows": ["follows"], "far": ["follows"] * 3})
    feat = {"film": torch.randn(11, FEATS), "user": None}
    model = find("han").for_graph(views, feat, CLASSES, "film", hidden=5, heads=[2, 3], semantic=form)
    # The projection of the semantic attention alone would give weights that are nearly equal.
    for layer in model.layers:
        layer.semantic.project[2].weight.data *= 9
    return model, views, feat


@pytest.mark.parametrize("form", ["global", "per_node"])
def test_shares_of_views(form):
    model, views, feat = han(form)
    seen = []
    for layer in model.layers:
        layer.semantic.register_forward_hook(lambda module, given, _: seen.append((module.project, given[0])))
    found = shares(model, views, feat)
    assert [entry.title for entry in found] == ["semantic attention, layer 1", "semantic attention, layer 2"]
    for entry, (project, z) in zip(found, seen, strict=True):
        first, last = project[0], project[2]
        nodes, count, _ = z.shape
        score = [
            [
                sum(
                    q * math.tanh(sum(w * x for w, x in zip(row, z[i, p].tolist(), strict=True)) + b)
                    for q, row, b in zip(
                        last.weight[0].tolist(), first.weight.tolist(), first.bias.tolist(), strict=True
                    )
                )
                for p in range(count)
            ]
            for i in range(nodes)
        ]
        if form == "global":
            score = [[sum(row[p] for row in score) / nodes for p in range(count)]]
        power = [[math.exp(s) for s in row] for row in score]
        beta = [[x / sum(row) for x in row] for row in power]
        expected = [sum(row[p] for row in beta) / len(beta) for p in range(count)]
        assert entry.names == ("likes", "follows", "far")
        assert entry.attention == pytest.approx(expected, abs=1e-5)
        assert entry.attention != pytest.approx((1 / 3,) * 3, abs=1e-2)
        assert sum(entry.attention) == pytest.approx(1) and entry.uniform == pytest.approx((1 / 3,) * 3)


def test_one_plain_graph_has_no_shares():
    graph = homogeneous()
    feat = {"_N": torch.randn(graph.num_nodes(), FEATS)}
    model = find("gat").for_graph(graph, feat, CLASSES, "_N")
    assert shares(model, graph, feat) == []


@pytest.mark.parametrize("make", [lambda: rgat(typed_graph(), feat_drop=0.5, attn_drop=0.5), lambda: han("global")])
def test_reading_changes_no_weight_and_draws_no_number(make):
    model, structure, feat = make()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    generator = torch.get_rng_state()
    one, other = shares(model.train(), structure, feat), shares(model, structure, feat)
    assert one == other, "dropout is off"
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())


class Tells(System):
    """What it says of its attention, and how it was when it was asked."""

    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)
        self.weight = torch.nn.Parameter(torch.ones(3))

    def attended(self, one, other):
        spent = self.drop(self.weight) * 1.0
        self.asked = self.training, spent.requires_grad, one, other
        steps = torch.ones(2, 2)
        rows = Shares("mine", ("a", "b", "c"), tuple(spent.tolist()), (1 / 3,) * 3)
        return [rows, Past("of steps", steps, steps, steps.bool())]


def test_any_system_is_asked():
    """In evaluation mode and without gradients, with the inputs of its forward; each reader takes what it reads."""
    model = Tells().train()
    model.drop.eval()  # a module that rests on its own goes on resting
    (found,), (steps,) = shares(model, "one", "other"), past(model, "one", "other")
    assert found == Shares("mine", ("a", "b", "c"), (1.0, 1.0, 1.0), (1 / 3,) * 3)
    assert steps.title == "of steps" and model.asked == (False, False, "one", "other")
    assert model.training and not model.drop.training
    assert shares(System()) == [] and past(System()) == []


def test_reading_leaves_the_mode_as_it_was():
    model, structure, feat = rgat(typed_graph())
    shares(model.train(), structure, feat)
    assert model.training and all(module.training for module in model.modules())


TWO_LAYERS = {"heads": [2], "hidden": 6, "temporal_heads": [3, 2]}


def dysat(**settings):
    """(model, snapshots, features): 13 nodes in 5 steps, one of which never comes."""
    random = torch.Generator().manual_seed(3)
    src, dst = (torch.randint(0, 12, (61,), generator=random) for _ in range(2))
    step = torch.arange(61) % 5
    late = (src > 7) | (dst > 7)
    step[late] = step[late].clamp_min(2)
    graph = from_events((src, dst, step), num_nodes=13)
    found = snapshots(graph, windows=5)
    feat = {"_N": torch.randn(13, FEATS, generator=random)}
    model = find("dysat").for_graph(found, feat, **{**TWO_LAYERS, **settings})
    for layer in model.past:
        layer.qkv.weight.data *= 3  # else attention is nearly uniform
    return model, found, feat


@pytest.mark.parametrize("mask_absent", [True, False])
def test_past_of_temporal_layers(mask_absent):
    """A step's share of what a step of a node attends to, as a multiple of what it would have if all were alike."""
    model, structure, feat = dysat(mask_absent=mask_absent)
    present = structure.present.tolist()
    layers = model.eval().attention(structure, feat)
    found = past(model, structure, feat)
    assert [entry.title for entry in found] == ["temporal attention, layer 1", "temporal attention, layer 2"]
    for entry, beta in zip(found, layers, strict=True):
        sums, counts, last = torch.zeros(5, 5), torch.zeros(5, 5), torch.zeros(13, 5)
        for node in range(13):
            for t in range(5):
                seen = [s for s in range(t + 1) if present[s][node] or not mask_absent]
                if not present[t][node]:
                    continue
                for s in seen:
                    share = sum(beta[node, :, t, s].tolist()) / beta.shape[1] * len(seen)
                    sums[t, s] += share
                    counts[t, s] += 1
                    if t == 4:
                        last[node, s] = share
        assert torch.allclose(entry.by_step, sums / counts.clamp_min(1), atol=1e-5)
        assert torch.allclose(entry.by_node, last, atol=1e-5)
        assert torch.equal(entry.present, structure.present)
        assert (entry.by_node[12] == 0).all() and (entry.by_step.triu(1) == 0).all()
        assert entry.by_step[4].max() > 1.1


@pytest.mark.parametrize("mask_absent", [True, False])
def test_past_is_one_where_all_steps_are_looked_at_alike(mask_absent):
    model, structure, feat = dysat(mask_absent=mask_absent)
    with uniform_attention():
        for entry in past(model, structure, feat):
            assert torch.allclose(entry.by_step, torch.ones(5, 5).tril())
            here = structure.present.t() if mask_absent else structure.present[-1].unsqueeze(1).expand(13, 5)
            assert torch.allclose(entry.by_node, here.float())


def test_only_temporal_layers_have_a_past():
    model, structure, feat = dysat(temporal=False)
    assert past(model, structure, feat) == [] and shares(model, structure, feat) == []
    model, joined, feat = rgat(typed_graph())
    assert past(model, joined, feat) == []
    recent = recent_neighbours(from_events(([0, 1], [1, 2], [3, 5])))
    assert past(find("tgat").for_graph(recent), recent, None) == []


def test_reading_the_past_changes_nothing():
    model, structure, feat = dysat(feat_drop=0.5, attn_drop=0.5, temporal_drop=0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    generator = torch.get_rng_state()
    one, other = past(model.train(), structure, feat), past(model, structure, feat)
    assert all(
        torch.equal(a.by_step, b.by_step) and torch.equal(a.by_node, b.by_node) for a, b in zip(one, other, strict=True)
    )
    assert torch.equal(torch.get_rng_state(), generator) and model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
