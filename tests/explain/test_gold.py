"""Attention beside a gold standard: measures of cases worked out by hand."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.explain import gold

# 0 -> 3, 1 -> 3, 2 -> 3, 0 -> 4, 1 -> 4, 0 -> 2, in this order.
GRAPH = dgl.graph(([0, 1, 2, 0, 1, 0], [3, 3, 3, 4, 4, 2]), num_nodes=5)
DST = torch.tensor([3, 3, 3, 4, 4, 2])
WEIGHTS = torch.tensor([0.5, 0.2, 0.3, 0.25, 0.75, 1.0])
SURE = torch.tensor([True, False, False, True, False, False])


@pytest.mark.parametrize("graph", [GRAPH, DST], ids=["graph", "ends"])
def test_correctness_by_hand(graph):
    assert gold.correctness(WEIGHTS, SURE, graph) == pytest.approx((0.5 + 0.25) / 2)
    two = torch.stack([WEIGHTS, torch.tensor([1.0, 0, 0, 1.0, 0, 1.0])], 1)
    assert gold.correctness(two, SURE, graph) == pytest.approx((0.5 + 0.25 + 1 + 1) / 4)
    assert gold.correctness(WEIGHTS, SURE, graph, nodes=torch.tensor([4, 2])) == pytest.approx(0.25)
    # A gate may be negative, and need not sum to one.
    assert gold.correctness(torch.tensor([-2.0, 1, 1, 0, 0, 1]), SURE, graph) == pytest.approx((0.5 + 0) / 2)


def test_alignment_error_rate_by_hand():
    # A = {0 -> 3, 1 -> 4}: one of two is right, |A| = |S| = 2.
    assert gold.alignment_error_rate(WEIGHTS, SURE, GRAPH) == pytest.approx(1 - (1 + 1) / 4)
    # 1 -> 4 and 0 -> 2 are possible, too: A has all three nodes.
    possible = torch.tensor([True, False, False, True, True, True])
    assert gold.alignment_error_rate(WEIGHTS, SURE, GRAPH, possible) == pytest.approx(1 - (1 + 3) / (3 + 2))
    # Ties share: a third of node 3's edge is right, a half of node 4's, whatever the order.
    assert gold.alignment_error_rate(torch.ones(6), SURE, GRAPH) == pytest.approx(1 - 2 * (1 / 3 + 1 / 2) / 4)
    order = torch.tensor([2, 1, 0, 4, 3, 5])
    assert gold.alignment_error_rate(torch.ones(6), SURE[order], DST) == pytest.approx(1 - 2 * (1 / 3 + 1 / 2) / 4)
    two = torch.stack([WEIGHTS, SURE.float()], 1)
    assert gold.alignment_error_rate(two, SURE, GRAPH) == pytest.approx(0.25)


def test_rank_correlation_by_hand():
    # Node 3 ranks 0 > 2 > 1, and is told 0 > 1 > 2: two of three pairs agree. Node 4 is told the other way round.
    told = torch.tensor([3.0, 2.0, 1.0, 1.0, 0.0, 7.0])
    assert gold.rank_correlation(WEIGHTS, told, GRAPH) == pytest.approx(((2 - 1) / 3 + -1) / 2)
    assert gold.rank_correlation(torch.ones(6), told, GRAPH) == 0
    assert gold.rank_correlation(told, told, DST) == pytest.approx(1)
    # tau-b: one pair of three is tied in what is told.
    tied = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert gold.rank_correlation(WEIGHTS, tied, GRAPH) == pytest.approx(2 / (2 * 3) ** 0.5)


def test_annotated_pairs_are_edges_of_the_graph():
    assert gold.gold_edges(GRAPH, torch.tensor([1, 0]), torch.tensor([4, 3])).tolist() == [1, 0, 0, 0, 1, 0]
    parallel = dgl.graph(([0, 0, 1], [1, 1, 0]))
    assert gold.gold_edges(parallel, torch.tensor([0]), torch.tensor([1])).tolist() == [True, True, False]
    for src, dst, sentence in (
        ([0, 2], [3, 4], "gold: expected edges of the graph, got 2 -> 4, which it does not have"),
        ([9, 2], [3, 4], "gold: expected edges of the graph, got 9 -> 3 and 1 more, which it does not have"),
        ([3], [0], "gold: expected edges of the graph, got 3 -> 0, which"),
    ):
        with pytest.raises(GraphError, match=sentence):
            gold.gold_edges(GRAPH, torch.tensor(src), torch.tensor(dst))
    with pytest.raises(ShapeError, match=r"gold: expected pairs src \[M\] and dst \[M\], got \[2\] and \[1\]"):
        gold.gold_edges(GRAPH, torch.tensor([0, 1]), torch.tensor([3]))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gold.correctness(WEIGHTS[:5], SURE, GRAPH), r"weights: expected floats \[E, H\] with E = 6, got"),
        (lambda: gold.correctness(WEIGHTS, SURE.float(), GRAPH), r"gold: expected torch.bool \[E\] with E = 6, got"),
        (lambda: gold.correctness(WEIGHTS, None, GRAPH), "gold: expected a tensor with a row for each edge, got None"),
        (lambda: gold.correctness(WEIGHTS, ~SURE & SURE, DST), "gold: expected a gold edge into one of the nodes"),
        (lambda: gold.correctness(WEIGHTS, SURE, GRAPH, torch.tensor([2])), "gold: expected a gold edge into one of"),
        (lambda: gold.alignment_error_rate(WEIGHTS, SURE & ~SURE, DST), "gold: expected one sure edge or more, got"),
        (lambda: gold.alignment_error_rate(WEIGHTS, SURE, DST, ~SURE), "possible: expected all sure edges among them"),
        (lambda: gold.rank_correlation(WEIGHTS, torch.ones(6), DST), "annotated: expected a node with in-edges whose"),
        (lambda: gold.rank_correlation(WEIGHTS, torch.ones(5), DST), r"annotated: expected \[E\] with E = 6, got"),
    ],
    ids=["weights", "dtype", "none", "no gold", "nodes", "no sure", "possible", "alike", "annotated"],
)
def test_what_does_not_fit_is_one_sentence(call, sentence):
    with pytest.raises(ShapeError, match=sentence):
        call()
