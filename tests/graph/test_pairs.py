"""What lies around pairs of nodes, against a walk over sets; and pairs without an edge, against a list of all."""

import dgl
import numpy as np
import pytest
import torch

from hgat.errors import GraphError
from hgat.graph import NonEdges, enclosing, routes


def links(kind, nodes=17, seed=0):
    """[(u, v)]: several at once, self-loops, a node without any edge, two components."""
    random, found = np.random.default_rng(seed), []
    for low, high in ((0, 11), (11, nodes - 2)):
        ends = random.integers(low, high, (19, 2)).tolist()
        found += [(u, v) for u, v in ends] + [(v, u) for u, v in ends if kind == "both ways"]
    return [*found, found[0], (nodes - 2, nodes - 2)]  # the last one has a self-loop alone, and nodes - 1 nothing


def graph_of(found, nodes=17, idtype=torch.int64):
    src, dst = (torch.tensor(end) for end in zip(*found, strict=True))
    return dgl.graph((src, dst), num_nodes=nodes, idtype=idtype)


def walked(found, start, own, hops):
    """{node: how many edges lead there}, up to `hops`, over the links but the pair's own."""
    away, last = {start: 0}, {start}
    for hop in range(1, hops + 1):
        last = {v for u, v in found if u in last and not (own[0] != own[1] and {u, v} == set(own))} - set(away)
        away |= dict.fromkeys(last, hop)
    return away


PAIRS = [(0, 3), (3, 0), (2, 2), (16, 1), (15, 16), (4, 12), (0, 3), (7, 8)]


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["both ways", "one way"])
def test_every_neighbourhood_is_what_a_walk_finds(kind, hops, idtype):
    found = links(kind)
    # Both ends of some links are asked for, too.
    asked = [*PAIRS, *[pair for pair in found if pair[0] != pair[1]][:5]]
    src, dst = (torch.tensor(end) for end in zip(*asked, strict=True))
    around = enclosing(graph_of(found, idtype=idtype), src, dst, hops)
    graph, first = around.graph, 0
    assert graph.idtype == idtype and graph.batch_size == len(asked)
    parts = dgl.unbatch(graph)
    for k, (pair, part) in enumerate(zip(asked, parts, strict=True)):
        away = [walked(found, end, pair, hops) for end in pair]
        nodes = part.ndata[dgl.NID].tolist()
        assert nodes == sorted(away[0].keys() | away[1].keys())
        here = slice(first, first + len(nodes))
        assert around.hops_src[here].tolist() == [away[0].get(v, -1) for v in nodes]
        assert around.hops_dst[here].tolist() == [away[1].get(v, -1) for v in nodes]
        assert (nodes[int(around.src[k]) - first], nodes[int(around.dst[k]) - first]) == pair
        expected = [
            (number, u, v)
            for number, (u, v) in enumerate(found)
            if u in nodes and v in nodes and not (pair[0] != pair[1] and {u, v} == set(pair))
        ]
        ends = [part.ndata[dgl.NID][end.long()].tolist() for end in part.edges(order="eid")]
        assert sorted(zip(part.edata[dgl.EID].tolist(), *ends, strict=True)) == expected
        first += len(nodes)
    assert first == graph.num_nodes()


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_routes_are_what_a_walk_finds(hops, idtype):
    """Every block's edges are those between the hops; only what leads on to the receiver's surroundings is sent."""
    found = links("both ways")
    found.append(found[0][::-1])  # an edge that is there twice, both ways
    asked = [*PAIRS, *[pair for pair in found if pair[0] != pair[1]][:5]]
    src, dst = (torch.tensor(end) for end in zip(*asked, strict=True))
    both = routes(graph_of(found, idtype=idtype), src, dst, hops)
    assert len(both) == 2
    for ways, ends in zip(both, ((0, 1), (1, 0)), strict=True):
        assert ways.senders.tolist() == [pair[ends[0]] for pair in asked] and ways.num_nodes == 17
        # Which pair a row is of: along the blocks from the receivers outwards, and from the senders.
        pair_of = torch.full((len(ways.around),), -1)
        pair_of[: len(asked)] = torch.arange(len(asked))
        for block in reversed(ways.collects):
            u, v = block.edges()
            pair_of[u] = pair_of[v]
        for left, block in zip(reversed(range(hops)), ways.collects, strict=True):
            assert block.is_block
            u, v = block.edges()
            for k, pair in enumerate(asked):
                here = pair_of[v] == k
                got = sorted(zip(ways.around[u[here]].tolist(), ways.around[v[here]].tolist(), strict=True))
                near = walked(found, pair[ends[1]], pair, left)
                own = [] if pair[0] == pair[1] else [pair, pair[::-1]]
                assert got == sorted(x for x in found if x[1] in near and x not in own)
        last_pair, last_ids, kept = torch.arange(len(asked)), ways.senders, []
        for hop, (block, ids) in enumerate(zip(ways.sends, ways.reached, strict=True), 1):
            u, v = block.edges()
            rows = torch.cat([ids, last_ids])
            here = torch.full((len(ids),), -1)
            new = u >= len(ids)
            here[v[new]] = last_pair[u[new] - len(ids)]
            assert (here >= 0).all(), "every node that is reached is reached from the hop before"
            assert u[~new].equal(v[~new]) and sorted(u[~new].tolist()) == list(range(len(ids))), "each and itself"
            for k, pair in enumerate(asked):
                chosen = new & (here[v] == k)
                got = sorted(zip(rows[u[chosen]].tolist(), ids[v[chosen]].tolist(), strict=True))
                away = walked(found, pair[ends[0]], pair, hops)
                ball = walked(found, pair[ends[1]], pair, hops)
                useful = {w for w, at in away.items() if at == hops and w in ball}
                for step in range(hops - 1, hop - 1, -1):
                    before = {x for x, y in found if y in useful and away.get(x) == step and away[y] == step + 1}
                    useful = before | {w for w, at in away.items() if at == step and w in ball}
                own = [] if pair[0] == pair[1] else [pair, pair[::-1]]
                expected = [x for x in found if away.get(x[0]) == hop - 1 and x[1] in useful and x not in own]
                assert got == sorted(expected)
            kept.append((here, ids))
            last_pair, last_ids = here, ids
        table = torch.cat([torch.tensor([-1]), ways.senders, *(ids for _, ids in kept)])
        owner = torch.cat([torch.tensor([-1]), torch.arange(len(asked)), *(pairs for pairs, _ in kept)])
        reached = ways.place > 0
        assert table[ways.place[reached]].equal(ways.around[reached])
        assert owner[ways.place[reached]].equal(pair_of[reached])
        for k, pair in enumerate(asked):
            away = walked(found, pair[ends[0]], pair, hops)
            here = pair_of == k
            assert {int(v) for v in ways.around[here & reached]} == {int(v) for v in ways.around[here]} & set(away)


def test_routes_ask_for_both_directions_and_for_hops():
    one = torch.tensor([0])
    with pytest.raises(GraphError, match="graph: expected both directions of every edge, got one alone"):
        routes(graph_of([(0, 1), (1, 2), (2, 1)]), one, one + 1, 2)
    with pytest.raises(GraphError, match="hops: expected 1 or more, got 0"):
        routes(graph_of([(0, 1), (1, 0)]), one, one + 1, 0)
    with pytest.raises(GraphError, match="src: expected ids of 17 nodes, from 0 to 16, got 17"):
        routes(graph_of([(0, 1), (1, 0)]), one + 17, one, 1)


def test_nothing_tells_whether_the_pairs_own_edge_was_there():
    found = links("both ways")
    pair = next((u, v) for u, v in found if u != v)
    without = [link for link in found if set(link) != set(pair)]
    src, dst = (torch.tensor([end]) for end in pair)
    one, other = (enclosing(graph_of(x), src, dst, 2) for x in (found, without))
    assert len(without) < len(found)
    for name in ("src", "dst", "hops_src", "hops_dst"):
        assert getattr(one, name).equal(getattr(other, name)), name
    edges = [sorted(zip(*(end.tolist() for end in x.graph.edges()), strict=True)) for x in (one, other)]
    assert edges[0] == edges[1]


def test_ends_in_different_components_have_a_neighbourhood_each():
    around = enclosing(graph_of(links("both ways")), torch.tensor([0]), torch.tensor([12]), 2)
    assert ((around.hops_src < 0) ^ (around.hops_dst < 0)).all()
    src, dst = around.graph.edges()
    assert ((around.hops_src[src] < 0) == (around.hops_src[dst] < 0)).all()


def test_no_pairs_give_an_empty_graph():
    none = torch.empty(0, dtype=torch.int64)
    around = enclosing(graph_of(links("one way")), none, none, 2)
    assert around.graph.num_nodes() == around.graph.num_edges() == len(around.src) == len(around.hops_dst) == 0


@pytest.mark.parametrize(
    ("src", "dst", "hops", "sentence"),
    [
        ([0, 17], [1, 1], 2, "src: expected ids of 17 nodes, from 0 to 16, got 17"),
        ([0], [-1], 2, "dst: expected ids of 17 nodes, from 0 to 16, got -1"),
        ([0], [1], -1, "hops: expected 0 or more, got -1"),
        ([0], [1], 1.5, "hops: expected a whole number of 0 or more, got 1.5"),
        ([0.5], [1], 2, r"src: expected ids of nodes \[B\], got torch.float32 \[1\]"),
        ([0, 1], [1], 2, r"dst: expected \[B\] = \[2\], got \[1\]"),
    ],
)
def test_what_is_no_pair_is_one_sentence(src, dst, hops, sentence):
    with pytest.raises(ValueError, match=sentence):
        enclosing(graph_of(links("one way")), torch.tensor(src), torch.tensor(dst), hops)


def test_graphs_of_two_kinds_of_nodes_are_refused():
    bipartite = dgl.heterograph({("a", "to", "b"): ([0], [0])})
    two = dgl.heterograph({("a", "to", "a"): ([0], [0]), ("a", "by", "a"): ([0], [0])})
    for graph, sentence in ((bipartite, "expected one node type, got 'a' and 'b'"), (two, "expected one relation")):
        with pytest.raises(GraphError, match=sentence):
            enclosing(graph, torch.tensor([0]), torch.tensor([0]), 1)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("nodes", [0, 1, 2, 5, 17])
def test_non_edges_are_all_pairs_but_the_links(nodes, directed):
    found = [(u % max(nodes, 1), v % max(nodes, 1)) for u, v in links("one way")] if nodes else []
    src, dst = (torch.tensor(end, dtype=torch.int64) for end in (zip(*found, strict=True) if found else ((), ())))
    others = NonEdges(nodes, src, dst, directed=directed)
    taken = set(found) | (set() if directed else {(v, u) for u, v in found})
    pairs = [(u, v) for u in range(nodes) for v in range(nodes) if (u < v or (directed and u != v))]
    expected = [pair for pair in pairs if pair not in taken]
    assert len(others) == len(expected)
    ends = others.at(torch.arange(len(others)))
    assert sorted(zip(*(end.tolist() for end in ends), strict=True)) == sorted(expected)


@pytest.mark.parametrize("directed", [False, True])
def test_non_edges_of_many_nodes_are_numbered_to_the_last(directed):
    """Where a float's root is no longer exact."""
    nodes = 1_600_000_001
    others = NonEdges(nodes, torch.tensor([0]), torch.tensor([1]), directed=directed)
    src, dst = others.at(torch.tensor([0, 1, len(others) - 2, len(others) - 1]))
    ends = list(zip(src.tolist(), dst.tolist(), strict=True))
    if directed:
        assert ends == [(0, 2), (0, 3), (nodes - 1, nodes - 3), (nodes - 1, nodes - 2)]
    else:
        assert ends == [(0, 2), (1, 2), (nodes - 3, nodes - 1), (nodes - 2, nodes - 1)]


def test_non_edges_that_there_are_not_are_one_sentence():
    others = NonEdges(3, torch.tensor([0]), torch.tensor([1]))
    for number in (2, -1):
        with pytest.raises(GraphError, match=f"expected those of 2 pairs without a link, got {number}"):
            others.at(torch.tensor([number]))
    with pytest.raises(GraphError, match="dst: expected ids of 3 nodes, from 0 to 2, got 3"):
        NonEdges(3, torch.tensor([0]), torch.tensor([3]))
