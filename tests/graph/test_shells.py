"""Hop shells: against powers of a dense matrix, where edges are directed, and where there are too many pairs."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, HgatError
from hgat.graph import hop_shells, shells
from zoo import build, typed_graph


def restated(graph, hops, horizon, self_loop="every", undirected=True):
    """(T^k * E^k, T^k) of every hop k: [N, N] from the paper's three lines, receivers first."""
    src, dst = (ends.long() for ends in graph.edges())
    a = torch.eye(graph.num_nodes(), dtype=torch.float64)
    a[dst, src] = 1
    if undirected:
        a[src, dst] = 1
    a = a / (a.sum(1, keepdim=True) * a.sum(0)).sqrt()
    power = [torch.linalg.matrix_power(a, i) for i in range(horizon + 1)]
    found = []
    for k in hops:
        tree = power[k].sign() - power[k - 1].sign()
        if self_loop == "every" or k == 1:
            tree = tree + torch.eye(len(a))
        found.append((tree * sum(power[k:]), tree))
    return found


@pytest.mark.parametrize("name", ["homogeneous", "zero_in_degree", "multi_edges", "hub", "self_loops"])
@pytest.mark.parametrize("options", [{}, {"self_loop": "first"}, {"undirected": False}], ids=str)
@pytest.mark.parametrize("block", [1 << 23, 60], ids=["one block", "many"])
def test_equations(name, options, block, monkeypatch):
    graph = build(name)
    monkeypatch.setattr(shells, "BLOCK", block)
    for hops, horizon in (([1, 2, 3], 6), ([2, 4], 4)):
        found = hop_shells(graph, hops, horizon, **options)
        for (shell, weight), (want, tree) in zip(found, restated(graph, hops, horizon, **options), strict=True):
            src, dst = (ends.long() for ends in shell.edges(order="eid"))
            assert shell.num_nodes() == graph.num_nodes() and weight.dtype == torch.float32
            got = torch.zeros_like(want).index_put((dst, src), weight.double(), accumulate=True)
            torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
            assert len(src) == int(tree.sum())  # no pair twice, none that is not in the shell


def test_walks_follow_the_edges_of_a_directed_graph():
    """The published table, read the other way round, has a zero here: nothing leads from 3 to 0."""
    graph = dgl.graph(([0, 1, 2], [1, 2, 3]), num_nodes=4)
    ((shell, weight),) = hop_shells(graph, [3], 5, self_loop="first", undirected=False)
    assert [ends.tolist() for ends in shell.edges()] == [[0], [3]] and weight.item() > 0
    ((shell, weight),) = hop_shells(graph, [3], 5, self_loop="first")
    assert sorted(zip(*(ends.tolist() for ends in shell.edges()), strict=True)) == [(0, 3), (3, 0)]
    assert weight[0] == weight[1]


def test_isolated_nodes_have_themselves_and_double_edges_count_once():
    once, twice = dgl.graph(([0, 1], [1, 2]), num_nodes=5), dgl.graph(([0, 0, 1], [1, 1, 2]), num_nodes=5)
    for undirected in (True, False):
        one, two = (hop_shells(graph, 2, 6, undirected=undirected) for graph in (once, twice))
        for (shell, weight), (other, again) in zip(one, two, strict=True):
            assert torch.equal(weight, again) and shell.num_edges() == other.num_edges()
    for k, (shell, weight) in enumerate(hop_shells(once, 3, 6), 1):
        edge = shell.in_edges(4, form="eid")
        assert shell.predecessors(4).tolist() == [4] and weight[edge.long()].item() == pytest.approx(6 - k + 1)


def test_the_strongest_of_each_receiver_are_kept():
    graph = build("hub")
    for (shell, weight), (few, of_few) in zip(hop_shells(graph, 3), hop_shells(graph, 3, keep=2), strict=True):
        for node in range(graph.num_nodes()):
            src, _, edge = shell.in_edges(node, form="all")
            others = {int(u): weight[int(e)].item() for u, e in zip(src, edge, strict=True) if u != node}
            kept, _, at = few.in_edges(node, form="all")
            got = {int(u): of_few[int(e)].item() for u, e in zip(kept, at, strict=True) if u != node}
            assert node in kept.tolist() and len(got) == min(2, len(others))
            assert sorted(got.values()) == sorted(sorted(others.values())[-2:])
            assert all(others[u] == w for u, w in got.items())


def test_too_many_pairs_are_told_before_they_are_made(monkeypatch):
    graph, blocks = build("hub"), []
    monkeypatch.setattr(shells, "BLOCK", 37 * 4)
    block = shells._block
    monkeypatch.setattr(shells, "_block", lambda *given: blocks.append(given) or block(*given))
    monkeypatch.setattr(shells, "available", lambda: 20_000)
    with pytest.raises(GraphError, match=r"hop_shells: expected shells that the free memory holds, 0.0 GiB, got about"):
        hop_shells(graph, 3)
    assert len(blocks) == 1  # of ten
    monkeypatch.setattr(shells, "available", lambda: 200_000)
    assert len(hop_shells(graph, 3)) == 3


WRONG = {
    "graph: expected at least one edge, got none": lambda: hop_shells(build("empty")),
    "hops: expected whole numbers that rise from 1 to a horizon of 3": lambda: hop_shells(build("hub"), 4, 3),
    r"hops: expected .*, got \[2, 1\]": lambda: hop_shells(build("hub"), [2, 1]),
    r"hops: expected .*, got \[\]": lambda: hop_shells(build("hub"), []),
    "hops: expected 1 or more, got 0": lambda: hop_shells(build("hub"), 0),
    "horizon: expected a whole number, 1 or more, got 2.5": lambda: hop_shells(build("hub"), 2, 2.5),
    "self_loop: expected 'every' or 'first', got 'none'": lambda: hop_shells(build("hub"), 2, self_loop="none"),
    "keep: expected 1 or more, got 0": lambda: hop_shells(build("hub"), 2, keep=0),
    "graph: expected": lambda: hop_shells(typed_graph()),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()
