"""Random attacks: how many edges and features, which never, and the same for a seed."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph import attacked_edges, flipped_features


def both_ways(nodes=29, count=61, seed=0):
    src, dst = torch.randint(0, nodes, (2, count), generator=torch.Generator().manual_seed(seed))
    keep = src != dst
    return dgl.to_simple(dgl.graph((torch.cat([src[keep], dst[keep]]), torch.cat([dst[keep], src[keep]]))))


def pairs(graph):
    return list(zip(*(ends.tolist() for ends in graph.edges(order="eid")), strict=True))


def test_edges_of_both_directions_come_and_go_together():
    graph = both_ways()
    before, after = set(pairs(graph)), pairs(attacked_edges(graph, add=0.5, remove=0.2, seed=3))
    assert len(after) == len(set(after)) and all((v, u) in set(after) and u != v for u, v in after)
    links = len(before) // 2
    assert len(before - set(after)) == 2 * round(0.2 * links) and len(set(after) - before) == 2 * round(0.5 * links)
    assert set(pairs(graph)) == before


def test_directed_edges_alone_and_loops_and_copies_stay():
    graph = dgl.graph(([0, 0, 1, 2, 5, 5], [1, 1, 2, 3, 5, 6]), num_nodes=11)
    added = pairs(attacked_edges(graph, add=2.0, seed=1))
    assert added[:6] == pairs(graph) and len(added) == 6 + 2 * 4  # four edges, one listed twice and one loop
    assert not {(v, u) for u, v in added[6:]} <= set(added[6:])
    assert pairs(attacked_edges(graph, remove=1.0)) == [(5, 5)]


def test_every_pair_may_be_drawn_and_no_edge():
    graph, drawn = dgl.graph(([0, 1, 2], [1, 2, 0]), num_nodes=4), set()
    for seed in range(40):
        drawn |= set(pairs(attacked_edges(graph, add=1 / 3, seed=seed))[3:])
    assert drawn == {(u, v) for u in range(4) for v in range(4) if u != v} - {(0, 1), (1, 2), (2, 0)}
    assert set(pairs(attacked_edges(graph, add=3.0, seed=0))[3:]) == drawn  # all nine
    with pytest.raises(GraphError, match="add: expected 12 pairs without an edge in the graph, got 9"):
        attacked_edges(graph, add=4.0)


def test_the_seed_decides_alone():
    graph = both_ways()
    torch.manual_seed(0)
    first = pairs(attacked_edges(graph, add=0.5, remove=0.5, seed=7))
    torch.manual_seed(1)
    assert pairs(attacked_edges(graph, add=0.5, remove=0.5, seed=7)) == first
    assert pairs(attacked_edges(graph, add=0.5, remove=0.5, seed=8)) != first
    assert pairs(attacked_edges(graph.int(), add=0.5, remove=0.5, seed=7)) == first
    assert attacked_edges(graph.int(), add=0.5).idtype == torch.int32


def test_flipped_features_keep_the_sum_and_the_number_of_words():
    x = (torch.rand(31, 17, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    before = x.clone()
    found = flipped_features(x, 0.3, seed=2)
    assert torch.equal(x, before)
    torch.testing.assert_close(found.sum(1), x.sum(1))
    assert torch.equal((found != 0).sum(1), (x != 0).sum(1))
    words = int((x != 0).sum())
    gone, new = ((x != 0) & (found == 0)).sum(), ((x == 0) & (found != 0)).sum()
    assert gone == new == round(0.3 * words)
    assert torch.equal(found, flipped_features(x, 0.3, seed=2))
    assert not torch.equal(found, flipped_features(x, 0.3, seed=3))
    assert torch.equal(flipped_features(x, 0.0), x) and not ((flipped_features(x, 1.0) != 0) & (x != 0)).any()


def test_wrong_calls_are_one_sentence():
    graph, x = both_ways(), torch.ones(3, 4)
    for call, sentence in (
        (lambda: attacked_edges(graph, add=-0.1), "add: expected 0 or more, got -0.1"),
        (lambda: attacked_edges(graph, remove=1.5), "remove: expected a number from 0 to 1, got 1.5"),
        (lambda: attacked_edges(graph, seed=-1), "seed: expected 0 or more, got -1"),
        (lambda: attacked_edges(graph, seed=2**32), "seed: expected a number from 0 to"),
        (lambda: flipped_features(x, 0.5), "x: expected .* zeros in row 0 to flip for as many others, got 0"),
        (lambda: flipped_features(x, 2.0), "share: expected a number from 0 to 1"),
        (lambda: flipped_features(None, 0.5), "x: expected a floating-point tensor"),
    ):
        with pytest.raises(ShapeError, match=sentence):
            call()
    typed = dgl.heterograph({("a", "to", "b"): ([0], [1])})
    for wrong in (typed, dgl.to_block(graph)):
        with pytest.raises(GraphError, match="graph: expected one node type to attack"):
            attacked_edges(wrong, add=0.5)
