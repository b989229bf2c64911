"""Cheapest paths: against NetworkX, the share that is kept, ties, and what nothing reaches."""

import dgl
import networkx
import pytest
import torch

from hgat.errors import GraphError, HgatError
from hgat.graph import cheapest_paths, paths
from zoo import build

GRAPHS = ["homogeneous", "multi_edges", "self_loops", "hub", "empty", "no_nodes"]


def costs(graph, seed=3):
    """Numbers of which no two sums are alike, some of them zero."""
    cost = torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(seed))
    cost[::11] = 0.0
    return cost


def searched(graph, cost):
    """{(u, v): (cost, nodes)} of every pair, by NetworkX."""
    plain = networkx.DiGraph()
    plain.add_nodes_from(range(graph.num_nodes()))
    for u, v, c in zip(*(end.tolist() for end in graph.edges(order="eid")), cost.double().tolist(), strict=True):
        if u != v and (not plain.has_edge(u, v) or plain[u][v]["weight"] > c):
            plain.add_edge(u, v, weight=c)
    return {
        (u, v): (distance, nodes[v])
        for u, (lengths, nodes) in networkx.all_pairs_dijkstra(plain)
        for v, distance in lengths.items()
        if u != v
    }


def listed(graph):
    """{(u, v): (cost, nodes)} of a path graph without the paths that stay."""
    src, dst = (end.tolist() for end in graph.edges(order="eid"))
    rows = zip(src, dst, graph.edata["cost"].tolist(), graph.edata["path"].tolist(), strict=True)
    found = {(u, v): (cost, path) for u, v, cost, path in rows if u != v}
    assert all(path[0] == u and path[-1] == v for (u, v), (_, path) in found.items())
    return found


@pytest.mark.parametrize("block", [paths.BLOCK, 50])
@pytest.mark.parametrize("name", GRAPHS)
def test_all_paths_are_networkxs(name, block, monkeypatch):
    monkeypatch.setattr(paths, "BLOCK", block)
    graph = build(name)
    cost = costs(graph)
    due = searched(graph, cost)
    found = cheapest_paths(graph, cost, 3, share=None)
    assert len(found) == 3
    for length, got in enumerate(found, 1):
        assert got.num_nodes() == graph.num_nodes()
        want = {pair: path for pair, path in due.items() if len(path[1]) == length + 1}
        assert listed(got) == {pair: (pytest.approx(c, abs=1e-6), nodes) for pair, (c, nodes) in want.items()}


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
def test_every_node_has_the_path_that_stays(idtype):
    graph = build("homogeneous", idtype)
    for length, got in enumerate(cheapest_paths(graph, costs(graph), 2), 1):
        assert got.idtype == idtype and got.edata["path"].dtype == idtype
        stays = got.edges()[0] == got.edges()[1]
        every = torch.arange(23, dtype=idtype)
        assert torch.equal(got.edata["path"][stays], every[:, None].repeat(1, length + 1))
        assert (got.edata["cost"][stays] == 0).all()


@pytest.mark.parametrize("share", [0.5, 1.0, 0.0, float("inf")])
def test_a_share_of_the_longer_paths_is_kept_and_the_cheapest(share):
    graph = build("homogeneous")
    every, some = (cheapest_paths(graph, costs(graph), 3, share=s) for s in (None, share))
    assert listed(every[0]) == listed(some[0])
    degree = [sum(v == node for _, v in listed(every[0])) for node in range(23)]
    for length in (1, 2):
        all_paths, kept = listed(every[length]), listed(some[length])
        for node in range(23):
            most = int(min(share, 23) * degree[node])
            due = sorted(c for (_, v), (c, _) in all_paths.items() if v == node)[:most]
            assert sorted(c for (_, v), (c, _) in kept.items() if v == node) == due


def test_a_dear_edge_is_no_path_and_a_long_detour_leaves_the_pair_out():
    graph = dgl.graph(([0, 1, 2, 0], [1, 2, 3, 3]))
    cheap = torch.tensor([0.1, 0.1, 0.1, 0.9])
    one, two, three = (listed(got) for got in cheapest_paths(graph, cheap, 3, share=None))
    assert set(one) == {(0, 1), (1, 2), (2, 3)} and set(two) == {(0, 2), (1, 3)}
    assert three == {(0, 3): (pytest.approx(0.3), [0, 1, 2, 3])}
    two_edges = cheapest_paths(graph, cheap, 2, share=None)
    assert all((0, 3) not in listed(got) for got in two_edges)


@pytest.mark.parametrize("price", [0.0, 0.5, 1e6])
def test_of_equal_costs_the_fewest_edges(price):
    """From 0 to 2 by one edge or two."""
    graph = dgl.graph(([0, 1, 0], [1, 2, 2]))
    cost = torch.tensor([price / 2, price / 2, price])
    one, two = cheapest_paths(graph, cost, 2, share=None)
    assert (0, 2) in listed(one) and not listed(two)


def test_of_equal_costs_the_fewest_edges_beyond_the_first():
    """From 0 to 3 by two edges, the dear one last, or by three, which a search by cost alone comes upon first."""
    graph = dgl.graph(([0, 1, 0, 2, 4], [1, 3, 2, 4, 3]))
    cost = torch.tensor([0.25, 0.75, 0.5, 0.25, 0.25])
    one, two, three = (listed(got) for got in cheapest_paths(graph, cost, 3, share=None))
    assert two[0, 3] == (1.0, [0, 1, 3]) and not three


def test_directions_are_those_of_the_edges():
    graph = dgl.graph(([0, 1], [1, 2]))
    assert set(listed(cheapest_paths(graph, torch.ones(2), 2, share=None)[1])) == {(0, 2)}


def test_what_nothing_reaches_has_itself():
    graph = dgl.graph(([0, 1, 3, 5], [1, 0, 3, 5]), num_nodes=6)
    for got in cheapest_paths(graph, torch.ones(4), 2, share=None):
        assert {v for _, v in listed(got)} <= {0, 1}
        assert (got.in_degrees()[2:] == 1).all()


def test_the_caller_keeps_the_graph():
    graph = build("homogeneous")
    cheapest_paths(graph, costs(graph))
    assert not graph.edata and not graph.ndata


def call(graph="homogeneous", cost=None, *more, **options):
    def run():
        given = build(graph)
        return cheapest_paths(given, torch.ones(given.num_edges()) if cost is None else cost, *more, **options)

    return run


WRONG = {
    "max_length: expected 1 or more, got -2": call("homogeneous", None, -2),
    "max_length: expected 1 or more, got 0": call("homogeneous", None, 0),
    "max_length: expected a whole number, 1 or more, got 1.5": call("homogeneous", None, 1.5),
    "share: expected 0 or more, got -0.5": call(share=-0.5),
    "cost: expected finite numbers of 0 or more, got -1": call(cost=-torch.ones(120)),
    "cost: expected finite numbers of 0 or more, got nan": call(cost=torch.full((120,), torch.nan)),
    "cost: expected finite numbers of 0 or more, got inf": call(cost=torch.full((120,), torch.inf)),
    r"cost: expected \[E\] = \[120\], got \[3\]": call(cost=torch.ones(3)),
    "cost: expected a floating-point tensor": call(cost=torch.ones(120).long()),
    "graph: expected one whose destinations are its sources, got a block": call("block"),
    "graph: expected one whose destinations are its sources, got 19 sources and 13": call("bipartite"),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()
    assert issubclass(GraphError, HgatError)
