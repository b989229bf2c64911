"""What models attend to, in the numbers of the task's own nodes: every system, every structure, blocks too."""

import dataclasses
from types import SimpleNamespace

import dgl
import pytest
import torch
from toys import CASES

from hgat import ops, tasks, train
from hgat.errors import GraphError, HgatError
from hgat.explain import attended_axes, attended_edges, command, observe
from hgat.graph import join_relations
from hgat.models import find
from hgat.models._system import resting

SEEN = {}


def seen(case):
    """(task, inputs, model, batch, what it attends to), made once."""
    if str(case) not in SEEN:
        task, inputs, model = case.setting()
        torch.manual_seed(1)
        batch = case.batch(task, model, inputs)
        SEEN[str(case)] = task, inputs, model, batch, observe(model, inputs, batch)
    return SEEN[str(case)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_model_answers_attention(case):
    _, inputs, model, batch, found = seen(case)
    given = inputs if batch.inputs is None else batch.inputs
    query = () if case.task == "triples" else (batch.query[0], batch.query[2]) if case.system == "tgat" else batch.query
    weights = resting(model, lambda: model.attention(*given, *query))
    tensors = [weights] if isinstance(weights, torch.Tensor) else list(weights)
    flat = [
        t
        for part in tensors
        for t in (part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else [part])
    ]
    assert flat and all(torch.isfinite(t.double()).all() for t in flat)
    assert found.edges or found.axes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_records_are_in_the_numbers_of_the_graph(case):
    """Nothing of a union, a pair or a block is left: each end is a node of its type, and a softmax sums to one."""
    task, _, _, _, found = seen(case)
    graph = task.shown().graph
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    (only,) = sizes.values() if len(sizes) == 1 else (None,)
    for record in found.edges:
        assert record.layer and len(record.relation) == len(record.src) == len(record.dst) == len(record.weight)
        for k, (src, _, dst) in enumerate(record.relations):
            here = record.relation == k
            for ntype, ends in ((src, record.src[here]), (dst, record.dst[here])):
                most = sizes.get(ntype, only if ntype in ("_N", "node") else None)
                assert most is None or not len(ends) or 0 <= int(ends.min()) <= int(ends.max()) < most, (ntype, most)
        if record.form == "softmax":
            total = torch.zeros(int(record.group.max()) + 1, record.weight.shape[1])
            total.index_add_(0, record.group, record.weight)
            assert torch.allclose(total[record.group.unique()], torch.tensor(1.0), atol=1e-4)
    for record in found.axes:
        assert record.ordered == any(" " in name or name.isdigit() for name in record.names), record.names
        assert record.weight.shape[-1] == len(record.names)


def test_typed_edges_are_those_of_the_typed_graph():
    """What an operator sees as one graph of pairs is given back relation by relation, in the graph's order."""
    for system in ("rgat", "hgt", "simplehgn"):
        case = next(case for case in CASES if str(case) == f"{system}-numbers" or str(case) == f"{system}-nodes")
        _, inputs, model, _, found = seen(case)
        graph = inputs[0]
        for record in found.edges:
            assert record.relations == tuple(graph.canonical_etypes)
            for k, etype in enumerate(record.relations):
                src, dst = graph.edges(etype=etype, order="eid")
                assert torch.equal(record.src[record.relation == k], src)
                assert torch.equal(record.dst[record.relation == k], dst)


def test_joined_relations_say_the_same_as_the_graph_that_they_join():
    case = next(case for case in CASES if str(case) == "rgat-numbers")
    _, (graph, feat), model, _, found = seen(case)
    for ours, other in zip(attended_edges(model, (join_relations(graph), feat)), found.edges, strict=True):
        assert ours.relations == other.relations
        for name in ("relation", "src", "dst", "group", "weight"):
            assert torch.equal(getattr(ours, name), getattr(other, name)), name


def test_a_layer_that_hands_its_weights_on_is_seen_once():
    case = next(case for case in CASES if case.system == "simplehgn")
    assert [record.layer for record in seen(case)[-1].edges] == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize("system", ["gat", "rgat", "hgt"])
def test_on_blocks_every_edge_has_the_numbers_and_the_weight_that_it_has_on_the_whole_graph(system):
    case = next(case for case in CASES if case.system == system and case.task == "nodes")
    task, inputs, model, _, whole = seen(case)
    ids = task.data.test[:7]
    sampled, _ = model.sampled(inputs, ids, [-1] * len(model.layers))
    last, all_edges = attended_edges(model, sampled)[-1], whole.edges[-1]
    known = {
        (all_edges.relations[r], s, d): w
        for r, s, d, w in zip(
            all_edges.relation.tolist(), all_edges.src.tolist(), all_edges.dst.tolist(), all_edges.weight, strict=True
        )
    }
    assert set(last.dst.tolist()) == set(ids.tolist())
    for r, s, d, w in zip(last.relation.tolist(), last.src.tolist(), last.dst.tolist(), last.weight, strict=True):
        torch.testing.assert_close(w, known[last.relations[r], s, d])


def test_snapshots_give_pairs_of_a_step():
    case = next(case for case in CASES if case.system == "dysat")
    _, (snapshots, _), _, _, found = seen(case)
    (record,), (past,) = found.edges, found.axes
    src, dst = snapshots.graph.edges(order="eid")
    assert torch.equal(record.step * 40 + record.src, src) and torch.equal(record.step * 40 + record.dst, dst)
    assert past.names == tuple(f"step {t}" for t in range(7))


def test_views_give_pairs_and_their_meta_path():
    case = next(case for case in CASES if case.system == "han")
    _, (views, _), _, _, found = seen(case)
    record = found.edges[0]
    assert record.relations == (("film", "liked", "film"), ("film", "hated", "film"))
    src, dst = views.graph.edges(order="eid")
    assert torch.equal(record.relation * 120 + record.dst, dst) and torch.equal(record.relation * 120 + record.src, src)
    assert found.axes[0].names == ("liked", "hated")


def test_pairs_see_edges_of_the_whole_graph():
    case = next(case for case in CASES if case.system == "pagnn")
    _, inputs, _, _, found = seen(case)
    for record in found.edges:
        assert inputs[0].has_edges_between(record.src, record.dst).all()


def test_a_layer_alone_and_a_graph_of_ones_own():
    from hgat.nn import GATConv

    graph = dgl.graph(([0, 1, 2, 0], [1, 1, 0, 2]))
    (record,) = attended_edges(GATConv(3, 2, 4, allow_zero_in_degree=True), (graph, torch.randn(3, 3)))
    assert (record.src.tolist(), record.dst.tolist()) == ([0, 1, 2, 0], [1, 1, 0, 2]) and record.weight.shape == (4, 4)
    assert record.uniform.tolist() == [0.5, 0.5, 1, 1]
    assert attended_axes(GATConv(3, 2, 4), (graph, torch.randn(3, 3))) == []


def test_looking_changes_nothing():
    case = next(case for case in CASES if str(case) == "gat-nodes")
    _, inputs, model, _, _ = seen(case)
    model.train()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    before = resting(model, lambda: model(*inputs))
    observe(model, inputs)
    assert model.training and torch.equal(resting(model, lambda: model(*inputs)), before)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises(Exception, match="feat"):
        observe(model, (inputs[0], torch.zeros(2, 2)))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def opened(case, task=None, **settings):
    """A run as `hgat train` would leave it, of a toy."""
    task = tasks.find(case.task)(case.toy.data(0), **{**case.toy.task, **(task or {})}).for_seed(0)
    last = task.rounds()[-1]
    inputs = case.inputs(last.shown())
    torch.manual_seed(0)
    model = last.completed(case.build(last.shown(), inputs, **settings))
    recipe = SimpleNamespace(title=f"{case}")
    return SimpleNamespace(task=task, model=model, inputs={"test": inputs}, recipe=recipe, about={"seed": 0})


def asked(**given):
    return SimpleNamespace(**{"node": None, "svg": False, "html": None, **given})


def by_recipe():
    """{(system, task): name of a recipe} of all recipes."""
    return {(recipe.system, recipe.task["name"]): name for name in train.available() if (recipe := train.read(name))}


def test_every_recipe_has_a_toy_that_is_explained():
    assert set(by_recipe()) <= {(case.system, case.task) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_command_explains_every_model(case, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(command.Explained, "picture", lambda self, name, draw: drawn.append(name))
    explained = command.look(opened(case), asked(), tmp_path)
    lines = [line for section in command.SECTIONS for line in section(explained)]
    assert lines and drawn
    if explained.node is not None:
        assert "neighbourhood" in drawn and any("most attended" in line for line in lines)


@pytest.mark.parametrize("system", ["gat", "rgat"])
def test_a_model_that_is_trained_in_batches_is_explained_on_blocks(system, tmp_path):
    case = next(case for case in CASES if case.system == system and case.task == "nodes")
    run = opened(case, {"batch": 20, "fanout": [3, 3]})
    node = int(run.task.data.train[0])
    explained = command.look(run, asked(node=str(node)), tmp_path)
    assert "nodes and all that they read" in explained.part and explained.node == node
    graph = run.task.data.graph
    into = explained.last.only(explained.last.dst == node)
    assert set(graph.predecessors(node).tolist()) <= set(into.src.tolist())


def test_what_cannot_be_explained_is_one_sentence(tmp_path):
    case = {str(case): case for case in CASES}
    gat = opened(case["gat-nodes"])
    with pytest.raises(GraphError, match="node: expected a node from 0 to 179, got 180"):
        command.look(gat, asked(node="180"), tmp_path)
    with pytest.raises(GraphError, match="node: expected a number from 0 to 179, got 'x'"):
        command.look(gat, asked(node="x"), tmp_path)
    with pytest.raises(HgatError, match="explain: expected a model that attends, got TDGNN"):
        command.look(opened(case["tdgnn-nodes"], mix="sum"), asked(), tmp_path)
    with pytest.raises(
        GraphError, match="node: expected a model that attends to the neighbours of '_N' nodes, got GAMLP"
    ):
        command.look(opened(case["gamlp-nodes"]), asked(node="3"), tmp_path)
    model = find("gat")(8, 3)
    graph = dgl.graph(([0, 1], [1, 0]), num_nodes=3)
    split = {part: torch.tensor([k]) for k, part in enumerate(("train", "val", "test"))}
    feat = {"_N": torch.randn(3, 8)}
    alone = dataclasses.replace(gat.task.data, graph=graph, feat=feat, label=torch.arange(3), **split)
    for layer in model.layers:
        layer.set_allow_zero_in_degree(True)
    task = tasks.find("nodes")(alone)
    run = SimpleNamespace(task=task, model=model, inputs={"test": (graph, alone.feat)}, recipe=gat.recipe, about={})
    with pytest.raises(GraphError, match="node: expected a node with in-edges in layers.1, got node 2 with none"):
        command._neighbourhood(command.look(run, asked(node="2"), tmp_path))


def test_uniform_attention_is_seen_as_such():
    case = next(case for case in CASES if str(case) == "gat-nodes")
    _, inputs, model, _, _ = seen(case)
    with ops.uniform_attention():
        for record in attended_edges(model, inputs):
            torch.testing.assert_close(record.weight, record.uniform.unsqueeze(1).expand_as(record.weight))
