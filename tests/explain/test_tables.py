"""Tables of attention against what a few lines of NumPy say."""

import dataclasses
import math

import dgl
import numpy as np
import pytest
import torch

from hgat.errors import GraphError, HgatError, ShapeError
from hgat.explain import (
    AxisAttention,
    EdgeAttention,
    attended_edges,
    axis_table,
    by_relation,
    heads_apart,
    neighbours,
    over_time,
    rollout,
    spread,
    table,
)
from hgat.models import find

SRC, DST = torch.tensor([0, 1, 2, 3, 0, 2]), torch.tensor([1, 1, 1, 2, 2, 0])
WEIGHT = torch.tensor([[0.5, 1.0], [0.25, 0.0], [0.25, 0.0], [0.9, 0.5], [0.1, 0.5], [1.0, 1.0]])


def record(layer="one", weight=WEIGHT, step=None, relations=(("_N", "_E", "_N"),), relation=None, form="softmax"):
    relation = torch.zeros(6, dtype=torch.int64) if relation is None else relation
    return EdgeAttention(layer, relations, relation, SRC, DST, weight, DST, form, step)


def test_a_table_has_every_weight_of_every_head():
    rows = table([record(), record("two")], ids={"_N": ("ann", "bob", "cat", "dan")})
    assert len(rows) == 24
    assert rows.columns.tolist() == ["layer", "relation", "head", "src_type", "src", "src_name", "dst_type", "dst",
                                     "dst_name", "step", "weight", "uniform"]  # fmt: skip
    one = rows[(rows.layer == "two") & (rows.src == 3) & (rows["head"] == 1)].iloc[0]
    assert (one.dst, one.src_name, one.dst_name, one.step) == (2, "dan", "cat", -1)
    assert (one.weight, one.uniform) == (0.5, 0.5)
    assert set(table([record()], [1]).dst) == {1} and len(table([record()], [1])) == 6
    with pytest.raises(HgatError, match="expected attention over edges, got none"):
        table([])


def test_entropy_and_the_effective_number_of_neighbours():
    rows = spread([record()])
    first = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25)), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    second = 0.0, math.log(2)
    assert rows.nodes.tolist() == [2, 2] and rows.in_edges.tolist() == [2.5, 2.5]
    for row, entropies in zip(rows.itertuples(), (first, second), strict=True):
        assert row.entropy == pytest.approx(np.mean(entropies))
        assert row.effective == pytest.approx(np.mean(np.exp(entropies)))
        assert row.of_uniform == pytest.approx(np.mean([entropies[0] / math.log(3), entropies[1] / math.log(2)]))


def test_uniform_attention_looks_at_all_and_one_hot_at_one():
    even = record(weight=record().uniform.unsqueeze(1))
    assert spread([even]).effective.item() == pytest.approx(2.5) and spread([even]).of_uniform.item() == pytest.approx(
        1
    )
    hot = torch.tensor([1.0, 0, 0, 0, 1, 1]).unsqueeze(1)
    assert spread([record(weight=hot)]).effective.item() == pytest.approx(1)


def test_heads_are_as_far_apart_as_their_total_variation():
    apart = heads_apart(record())
    assert apart.diagonal().tolist() == [0, 0]
    assert apart[0, 1].item() == pytest.approx((0.5 + 0.4) / 2) and apart[0, 1] == apart[1, 0]


def test_shares_by_relation_are_those_of_the_models_own():
    graph = dgl.heterograph(
        {("user", "likes", "film"): ([0, 1, 2, 2], [0, 0, 4, 1]), ("film", "like", "film"): ([0, 3, 2], [0, 0, 1])},
        num_nodes_dict={"user": 3, "film": 5},
    )
    feat = {"film": torch.randn(5, 4), "user": torch.randn(3, 2)}
    model = find("rgat").for_graph(graph, feat, 3, "film", hidden=5, heads=[2, 1])
    found = {entry.title.split(", ")[0]: entry for entry in by_relation(attended_edges(model, (graph, feat))[:1])}
    (ours,), (entry,) = [e for e in model.attended(graph, feat) if "layer 1" in e.title], found.values()
    assert entry.names == ours.names == ("like", "likes") or set(entry.names) == set(ours.names)
    expected = dict(zip(ours.names, zip(ours.attention, ours.uniform, strict=True), strict=True))
    for name, share, even in zip(entry.names, entry.attention, entry.uniform, strict=True):
        assert (share, even) == pytest.approx(expected[name], abs=1e-6)


def test_over_time_is_the_spread_of_each_step():
    rows = over_time([record(step=torch.tensor([0, 0, 0, 1, 1, 1])), record("none")])
    assert rows.step.tolist() == [0, 1] and rows.in_edges.tolist() == [3, 2] and set(rows.layer) == {"one"}


def test_places_along_an_axis():
    weight = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    rows = axis_table([AxisAttention("past", ("3 back", "2 back", "1 back"), weight, "softmax")])
    assert rows.weight.tolist() == pytest.approx([0.35, 0.35, 0.3])
    assert rows.uniform.tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 6])  # the padding of the first row is none


def test_rollout_is_the_product_of_the_layers():
    generator = torch.Generator().manual_seed(0)
    layers = [record(str(k), torch.rand(6, 3, generator=generator) + 0.1) for k in range(3)]
    layers = [record(r.layer, r.weight / torch.zeros(4, 3).index_add(0, DST, r.weight)[DST]) for r in layers]
    expected = np.eye(4)
    for layer in layers:
        alpha = np.zeros((4, 4))
        for src, dst, weight in zip(SRC, DST, layer.weight.mean(1), strict=True):
            alpha[dst, src] += float(weight)
        step = 0.3 * np.eye(4) + 0.7 * alpha
        step[3] = np.eye(4)[3]  # nothing enters it
        expected = step @ expected
    found = rollout(layers, [1, 3, 2], {"_N": 4}, residual=0.3)["_N"].toarray()
    np.testing.assert_allclose(found, expected[[1, 3, 2]], atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(rollout(layers, [1], {"_N": 4}, residual=1.0)["_N"].toarray(), np.eye(4)[[1]])


def test_rollout_of_types_and_of_relations_with_softmaxes_of_their_own():
    relations = (("a", "x", "b"), ("a", "y", "b"))
    both = EdgeAttention("l", relations, torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([1, 1]),
                         torch.ones(2, 1), torch.tensor([0, 1]), "softmax")  # fmt: skip
    found = rollout([both], [1], {"a": 3, "b": 2}, "b", residual=0.5)
    assert found["a"].toarray().tolist() == [[0.25, 0, 0.25]] and found["b"].toarray().tolist() == [[0, 0.5]]


@pytest.mark.parametrize(
    ("wrong", "sentence", "error"),
    [
        ({"nodes": [4]}, "node: expected a node from 0 to 3, got 4", GraphError),
        ({"ntype": "x"}, "node: expected a node type among", GraphError),
        ({"residual": 1.5}, "residual: expected", ShapeError),
        ({"records": [record(step=torch.zeros(6))]}, "rollout: expected attention between nodes", HgatError),
        ({"records": [record(weight=-WEIGHT, form="tanh")]}, "rollout: expected weights of 0 or more", HgatError),
        ({"sizes": {"a": 4}, "ntype": "a"}, "rollout: expected attention between nodes", HgatError),
    ],
    ids=["node", "type", "residual", "snapshots", "negative", "types"],
)
def test_rollout_refuses(wrong, sentence, error):
    with pytest.raises(error, match=sentence):
        rollout(**{"records": [record()], "nodes": [1], "sizes": {"_N": 4}, **wrong})


def test_neighbours_of_a_node():
    found = neighbours(record(), 2, heads=1)
    assert found.node.tolist() == [3, 0] and found.weight.tolist() == pytest.approx([0.7, 0.3])
    assert found.heads.tolist() == ["0.900, 0.500", ""] and found.uniform.tolist() == [0.5, 0.5]
    with pytest.raises(GraphError, match="node: expected a node with in-edges in one, got node 3 with none"):
        neighbours(record(), 3)


def test_the_most_attended_of_several_softmaxes():
    """By attention over uniform's, and last those that are alone in theirs; behind a gate by the weight."""
    src, dst = torch.arange(6), torch.zeros(6, dtype=torch.int64)
    weight = torch.tensor([1.0, 0.55, 0.45, 0.1, 0.5, 0.4]).unsqueeze(1)
    parts = EdgeAttention("one", (("_N", "_E", "_N"),), dst, src, dst, weight,
                          torch.tensor([0, 1, 1, 2, 2, 2]), "softmax")  # fmt: skip
    assert neighbours(parts, 0).node.tolist() == [4, 5, 1, 2, 3, 0]
    assert neighbours(dataclasses.replace(parts, form="tanh"), 0).node.tolist() == [0, 1, 4, 2, 5, 3]
