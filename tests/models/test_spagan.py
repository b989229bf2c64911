"""SPAGAN as a whole: what the first stage hands to the second, and a training through both."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from systems import CLASSES, IN
from toys import CASES

from hgat import models, tasks
from hgat.errors import GraphError, HgatError
from hgat.graph import cheapest_paths
from hgat.models import GAT, MAGNA, SPAGAN, Facts
from hgat.models._system import resting
from hgat.train.fit import Training
from hgat.train.recipe import Train
from zoo import build

CASE = next(case for case in CASES if str(case) == "spagan-nodes")
FORMS = [{}, {"path_encoder": "lstm"}, {"score": "path"}, {"max_length": 1}, {"max_length": 3}, {"heads": (2, 3, 4)}]


def facts(graph=None, feat=None):
    graph = build("homogeneous") if graph is None else graph
    feat = torch.randn(graph.num_nodes(), IN) if feat is None else feat
    return Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)


def stages(shown=None, **settings):
    """(inputs, model) of both stages."""
    shown = facts() if shown is None else shown
    inputs = SPAGAN.prepare(shown)
    torch.manual_seed(0)
    model = SPAGAN.build(shown, inputs, **settings)
    later, after = resting(model, lambda: model.again(shown, inputs, 1))
    return (inputs, model), (after, later)


def test_costs_are_one_minus_the_share_of_the_largest_weight():
    ((graph, feat), model), _ = stages()
    model.eval()
    alpha = model.gat.layers[0](graph, feat["_N"], get_attention=True)[1].squeeze(-1).mean(1)
    src, dst = graph.edges()
    other = src != dst
    cost = model.costs(graph, feat)
    torch.testing.assert_close(cost[other], 1 - alpha[other] / alpha[other].max())
    assert cost[other].min() == 0 and cost.max() <= 1 and (cost[~other] == 1).all()
    # A weight of an edge to itself, however large, is not the largest.
    assert alpha[~other].max() > alpha[other].max()


@pytest.mark.parametrize("settings", [{}, {"max_length": 3, "share": 1.0}], ids=str)
def test_the_second_stage_reads_the_paths_of_the_firsts_attention(settings):
    (inputs, model), ((graph, paths, feat), later) = stages(**settings)
    cost = resting(model, lambda: model.costs(*inputs))
    due = cheapest_paths(inputs[0], cost, settings.get("max_length", 2), share=settings.get("share", 0.5))
    assert graph is inputs[0] and feat is inputs[1] and len(paths) == len(due)
    for got, want in zip(paths, due, strict=True):
        assert torch.equal(got.edata["path"], want.edata["path"])
    first, last = later.layers
    later.eval()
    h = first(paths, feat["_N"])
    torch.testing.assert_close(later(graph, paths, feat), last([graph], h.flatten(1)).mean(1))
    assert first.activation is F.elu and last.activation is F.elu and last.max_length == 1
    assert later.again(facts(), (graph, paths, feat), 2) is None


def test_other_weights_make_other_paths():
    shown = facts()
    inputs = SPAGAN.prepare(shown)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            _, (_, paths, _) = SPAGAN.build(shown, inputs).eval().again(shown, inputs, 1)
        found.append(paths[1].edata["path"].tolist())
    assert found[0] != found[1]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_parameter_of_both_stages_gets_a_gradient(form):
    for inputs, model in stages(**form):
        model.train()
        label = torch.arange(23) % CLASSES
        F.cross_entropy(model(*inputs), label).backward()
        for name, parameter in model.named_parameters():
            assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_permuted_nodes_give_permuted_rows_in_the_second_stage(form):
    """The paths come anew from the moved graph, and the weights are those of the other."""
    shown = facts()
    order = torch.randperm(23)
    place = torch.argsort(order)
    src, dst = shown.graph.edges()
    moved = facts(dgl.graph((place[src], place[dst]), num_nodes=23), shown.feat["_N"][order])
    _, (inputs, later) = stages(shown, **form)
    _, (again, other) = stages(moved, **form)
    other.load_state_dict(later.state_dict())
    got, want = (m.eval()(*i) for i, m in ((again, other), (inputs, later)))
    torch.testing.assert_close(got, want[order], atol=1e-5, rtol=1e-5)


def test_what_lengths_get_adds_up():
    _, (inputs, later) = stages(max_length=3, heads=(4, 3, 2))
    found = later.eval().attended(*inputs)
    assert [s.names for s in found] == [("1 edge", "2 edges", "3 edges")] * 2
    for shares in found:
        assert sum(shares.attention) == pytest.approx(1, abs=1e-5) and sum(shares.uniform) == pytest.approx(1)


def test_parts_that_are_not_joined_and_nodes_alone_are_served():
    graph = dgl.graph(([0, 1, 2, 3, 5], [1, 2, 0, 4, 5]), num_nodes=8)
    _, (inputs, later) = stages(facts(graph))
    assert torch.isfinite(later.eval()(*inputs)).all()
    # Nothing but nodes alone: no edge has a cost, and every path stays.
    every = torch.arange(5)
    (first, model), (inputs, later) = stages(facts(dgl.graph((every, every))))
    assert torch.isfinite(model.costs(*first)).all()
    assert all((p.edges()[0] == p.edges()[1]).all() and p.num_edges() == 5 for p in inputs[1])
    assert torch.isfinite(later.eval()(*inputs)).all()


@pytest.mark.parametrize("cls", [MAGNA, SPAGAN])
def test_a_graph_without_edges_and_a_node_without_any_are_one_sentence(cls):
    settings = {"hidden": 6, "heads": (3, 2) if cls is SPAGAN else 3}
    with pytest.raises(GraphError, match="graph: expected at least one edge, got none"):
        cls.prepare(facts(dgl.graph(([], []), num_nodes=4)))
    shown = facts(dgl.graph(([0, 1], [1, 0]), num_nodes=3))
    inputs = cls.prepare(shown, self_loops=False)
    with pytest.raises(dgl.DGLError, match="0-in-degree nodes"):
        cls.build(shown, inputs, **settings)(*inputs)


def test_the_first_stage_alone_is_gat():
    shown = facts()
    inputs = SPAGAN.prepare(shown)
    torch.manual_seed(0)
    model = SPAGAN.build(shown, inputs, value_drop=0.3, **SPAGAN.ablations["gat"].settings)
    assert model.again(shown, inputs, 1) is None
    torch.manual_seed(0)
    alone = GAT.build(shown, inputs, value_drop=0.3, feat_drop=0.6, attn_drop=0.6)
    for got, due in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(got, due)
    for m in (model, alone):  # training: their dropout is one
        torch.manual_seed(1)
        m.out = m.train()(*inputs)
    assert torch.equal(model.out, alone.out)


def training(epochs=12):
    task = CASE.ask()

    def prepared(task):
        return dict.fromkeys(("train", "val", "test"), CASE.inputs(task.shown()))

    def build(task, inputs):
        return CASE.build(task.shown(), inputs["train"])

    return Training(task, Train(metric="accuracy", epochs=epochs, lr=0.02, patience=epochs), prepared, build)


def test_killed_in_the_second_stage_and_resumed_to_the_same():
    whole = training()
    while whole.step():
        pass
    part = training()
    for _ in range(17):
        assert part.step()
    assert len(part.stages) == 1 and part.fit.epoch == 5
    tensors, numbers = part.state()
    part = training()
    part.restore({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    while part.step():
        pass
    for (name, got), (other, want) in zip(*(sorted(t.weights()[0].items()) for t in (part, whole)), strict=True):
        assert name == other and torch.equal(got, want)
    result = whole.finish()
    assert result["epochs"] == 24 and whole.done[0]["stages"][0] <= 12


def test_the_planted_task_is_solved_over_paths_too():
    found = training(80)
    while found.step():
        pass
    without = CASE.result(tasks.find("nodes").controls["no_graph"])["test"]
    assert len(found.stages) == 1 and found.finish()["test"] > without + 15


WRONG = {
    "max_length: expected 1 or more, got -2": {"max_length": -2},
    "share: expected 0 or more, got -1": {"share": -1},
    "model.stages: expected 1 or 2, got 3": {"stages": 3},
    "stages: expected 1 or more, got 0": {"stages": 0},
    "value_drop: expected a number from 0 to 1, got 1.5": {"value_drop": 1.5},
    "path_encoder: expected 'pool' or 'lstm', got 'mean'": {"path_encoder": "mean"},
    "score: expected 'centre' or 'path', got 'no'": {"score": "no"},
    "model.heads: expected two layers or more, as the last reads no paths, got 1": {"heads": (3,)},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_settings_are_refused_before_the_first_stage_is_trained(sentence):
    with pytest.raises(HgatError, match=sentence):
        SPAGAN(IN, CLASSES, **WRONG[sentence])
    assert models.SPAGAN is SPAGAN
