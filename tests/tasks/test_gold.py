"""Gold edges in a task: shown where it is asked for and nowhere held out, learned from, and measured."""

import dgl
import pytest
import torch

import hgat.data
from hgat import models, ops, tasks
from hgat.errors import GraphError, RecipeError
from hgat.models._gold import attended, beside_gold, supervision

SMALL = {"size": 3, "groups": 12}
SYSTEMS = {
    "gatv2": ("feature", {"self_loops": True}, {"heads": [2], "hidden": 4, "feat_drop": 0.0, "attn_drop": 0.0}),
    "rgat": ("relation", {"inverse": True, "self_relation": True}, {"heads": [1], "hidden": 4, "embed": 4}),
    "hgt": ("recency", {"inverse": True, "time": "edges"}, {"heads": [1], "hidden": 4}),
}


def case(system, **settings):
    """(task, model, inputs, batch) of a system on the planted truth that it can find."""
    kind, graph, given = SYSTEMS[system]
    task = tasks.find("nodes")(hgat.data.load(f"planted-{kind}", **SMALL), **settings)
    cls = models.find(system)
    torch.manual_seed(0)
    inputs = cls.prepare(task.shown(), **graph)
    model = cls.build(task.shown(), inputs, **given)
    return task, model, inputs, next(iter(task.batches(model, inputs)))


def laid(marks):
    return torch.cat(list(marks.values())) if isinstance(marks, dict) else marks


@pytest.mark.parametrize("kind", ["feature", "relation"])
def test_no_gold_is_shown_but_the_share_that_is_asked_for_and_none_of_it_is_held_out(kind):
    data = hgat.data.load(f"planted-{kind}", **SMALL)
    nodes = tasks.find("nodes")
    assert nodes(data).shown().gold is None
    for task in (nodes(data, gold=0.1), nodes(data, gold=0.1).refitted()):
        shown = task.shown()
        told, gold = laid(shown.gold), laid(data.gold)
        here = ~told.isnan()
        assert here.sum() == round(0.1 * data.graph.num_edges())
        assert told[here].equal(gold[here].float())
        dst = torch.cat([data.graph.edges(etype=e, order="eid")[1] for e in data.graph.canonical_etypes])
        assert torch.isin(dst[here], shown.train).all() and not torch.isin(dst[here], data.test).any()
    other = laid(nodes(data, gold=0.1, gold_seed=1).shown().gold)
    assert not other.isnan().equal(laid(nodes(data, gold=0.1).shown().gold).isnan())


def test_every_copy_of_an_edge_has_its_own_mark():
    of = dgl.graph(([1, 0, 1, 1, 2], [0, 0, 0, 0, 1]), num_nodes=4)
    marks = torch.tensor([True, False, False, True, True])

    def gold(graph, marks=marks):
        known = type("Known", (), {"graph": of, "gold": marks, "target": "_N"})
        logits = torch.zeros(graph.num_edges(), 1)
        with attended() as calls:
            ops.edge_softmax(graph, logits)
        return [gold.tolist() for _, gold, _ in beside_gold(calls, graph, known)][0]

    assert gold(of) == marks.float().tolist()
    # In another order and with a further edge.
    told = gold(dgl.graph(([2, 1, 3, 1, 0, 1], [1, 0, 0, 0, 0, 0]), num_nodes=4))
    assert told[2] != told[2] and told[:2] + told[3:] == [1.0, 1.0, 0.0, 0.0, 1.0]
    with pytest.raises(GraphError, match="gold: expected as many edges of .* where their marks differ"):
        gold(dgl.graph(([1, 1], [0, 0]), num_nodes=4))
    assert gold(dgl.graph(([1, 1], [0, 0]), num_nodes=4), marks | True) == [1.0, 1.0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_attention_is_matched_with_the_gold_of_its_own_edges(system):
    """Also where the prepared graph has inverse relations and loops, which are no edges of the data."""
    task, model, inputs, _ = case(system)
    data = task.data
    marks = data.gold if isinstance(data.gold, dict) else {data.graph.canonical_etypes[0]: data.gold}
    expected = {}
    for etype, gold in marks.items():
        src, dst = data.graph.edges(etype=etype, order="eid")
        expected |= {(etype[1], u, v): g for u, v, g in zip(src.tolist(), dst.tolist(), gold.tolist(), strict=True)}
    with attended() as calls:
        model(*inputs)
    ((call, gold, ends),) = beside_gold(calls, inputs, data)
    (graph,) = (part for part in inputs if isinstance(part, dgl.DGLGraph))
    keys = [
        (etype[1], u, v)
        for etype in graph.canonical_etypes
        for u, v in zip(*(end.tolist() for end in graph.edges(etype=etype, order="eid")), strict=True)
    ]
    assert len(keys) == len(gold) == len(call.weights) > len(expected)
    assert [v for _, _, v in keys] == ends.tolist()
    for key, found in zip(keys, gold.tolist(), strict=True):
        assert found == expected[key] if key in expected else found != found


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_loss_has_the_cross_entropy_of_attention_on_shown_edges(system):
    """Against the model's own attention; an outer hook's weights are the leaf that the gradient reaches."""
    task, model, inputs, batch = case(system, gold=0.2, gold_weight=0.5)
    model.eval()
    leaves = []

    def hook(call):
        leaves.append(call.weights.detach().requires_grad_())
        return leaves[-1]

    with ops.attention_hook(hook):
        loss = task.objective(model, inputs, batch)
    plain = model.objective(task.loss, inputs, batch)
    (weights,) = leaves
    ((_, told, _),) = beside_gold(called(weights, inputs), inputs, task.shown())
    edges = (~told.isnan()).nonzero().flatten()
    assert len(edges) == round(0.2 * task.data.graph.num_edges())
    target, share = told[edges].unsqueeze(1).expand(-1, weights.shape[1]), weights[edges]
    extra = 0.5 * -(target * share.log() + (1 - target) * (1 - share).log()).mean()
    assert torch.allclose(loss, plain + extra, atol=1e-5)
    (found,) = torch.autograd.grad(supervision(called(weights, inputs), inputs, task.shown()), weights)
    slope = ((share - target) / (share * (1 - share)) / target.numel()).detach()
    assert torch.allclose(found[edges], slope, rtol=1e-4) and found.count_nonzero() == slope.numel()


def called(weights, inputs):
    graph = next(part for part in inputs if isinstance(part, dgl.DGLGraph))
    return [ops.AttentionCall("edges", graph, None, "softmax", weights, 0)]


def test_the_gradient_of_the_term_alone_reaches_what_scores():
    task, model, inputs, batch = case("gatv2", gold=0.2)
    with attended() as calls:
        model(*inputs)
    supervision(calls, inputs, task.shown()).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "layers.0.attn" in moved


def test_on_blocks_edges_are_those_of_the_whole_graph():
    task, model, inputs, _ = case("gatv2", gold=0.3, batch=9, fanout=[-1])
    seen, pairs = 0, zip(*(end.tolist() for end in task.data.graph.edges(order="eid")), strict=True)
    whole = dict(zip(pairs, task.shown().gold, strict=True))
    for batch in task.batches(model, inputs):
        (block,) = batch.inputs[0]
        with attended() as calls:
            model.answer(inputs, batch)
        ((_, gold, ends),) = beside_gold(calls, batch.inputs, task.shown())
        src, dst = block.edges(order="eid")
        src, dst = block.srcdata[dgl.NID][src], block.dstdata[dgl.NID][dst]
        assert ends.equal(dst)
        for u, v, g in zip(src.tolist(), dst.tolist(), gold, strict=True):
            expected = whole.get((u, v), torch.tensor(torch.nan))
            assert g == expected or (g.isnan() and expected.isnan())
        seen += int((~gold.isnan()).sum())
        assert torch.isfinite(task.objective(model, inputs, batch))
    assert seen == int((~task.shown().gold.isnan()).sum())


def test_correctness_stands_beside_the_score_where_there_is_gold():
    task, model, inputs, _ = case("gatv2")
    with attended() as calls:
        model.eval()(*inputs)
    graph = inputs[0]
    src, dst = graph.edges(order="eid")
    weight, gold = calls[0].weights.mean(1), dict.fromkeys(range(36), 0.0)
    first, last = task.data.graph.edges(order="eid")
    right = set(zip(first[task.data.gold].tolist(), last[task.data.gold].tolist(), strict=True))
    for u, v, w in zip(src.tolist(), dst.tolist(), weight.tolist(), strict=True):
        gold[v] += w * ((u, v) in right)
    expected = 100 * sum(gold[v] for v in task.data.test.tolist()) / len(task.data.test)
    numbers, _ = task.results(model, inputs, "accuracy")
    assert numbers["more"]["correctness"] == pytest.approx(expected, rel=1e-4)
    with ops.uniform_attention():
        numbers, _ = task.results(model, inputs, "accuracy")
    assert numbers["more"]["correctness"] == pytest.approx(100 / 4)  # three neighbours and the loop
    own = tasks.find("nodes")(hgat.data.load("planted-own", **SMALL))
    assert set(own.results(model, inputs, "accuracy")[0]) == {"test"}


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("feature", {"gold": 1.5}, "task.gold: expected a share from 0 to 1, a weight above 0 and a seed, got 1.5"),
        ("feature", {"gold": 0.1, "gold_weight": 0.0}, "task.gold: expected a share from 0 to 1, a weight above 0"),
        ("feature", {"gold": 0.001}, "task.gold: expected a share that is 1 to 54 edges of planted-feature"),
        ("feature", {"gold": 0.9}, "task.gold: expected a share that is 1 to 54 edges of planted-feature"),
        ("own", {"gold": 0.1}, "task.gold: expected data of which gold edges are known, got planted-own"),
        ("feature", {"add_edges": 0.5}, "task: expected data that the attack fits, got planted-feature.* no gold"),
    ],
    ids=["share", "weight", "none", "too many", "no gold", "attacked"],
)
def test_what_cannot_be_shown_is_one_sentence(kind, settings, sentence):
    with pytest.raises(RecipeError, match=sentence):
        tasks.find("nodes")(hgat.data.load(f"planted-{kind}", **SMALL), **settings)


def test_a_system_without_attention_over_the_graphs_edges_is_one_sentence():
    task, _, _, _ = case("gatv2", gold=0.2)
    cls = models.find("fagcn")
    inputs = cls.prepare(task.shown())
    model = cls.build(task.shown(), inputs)
    batch = next(iter(task.batches(model, inputs)))
    with pytest.raises(RecipeError, match="task.gold: expected softmax or sigmoid attention over edges"):
        task.objective(model, inputs, batch)
