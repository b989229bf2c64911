"""Events by node and the neighbours before a moment, against a plain loop; nothing at or after it is ever seen."""

import re
from dataclasses import replace

import dgl
import pytest
import torch

from hgat.errors import GraphError, HgatError, ShapeError
from hgat.graph.events import from_events
from hgat.graph.recent import prepare, recent_neighbours
from zoo import typed_graph

# Whole numbers beyond 2^53 and fractions below 2^-20 of their size: neither survives a detour through another type.
WHOLE, FRACTIONS = 2**60, 2.0**30
KINDS = {
    "whole": lambda count, among: WHOLE + torch.randint(0, among, (count,)),
    "fractions": lambda count, among: FRACTIONS + torch.randint(0, among, (count,)).double() / 2**10,
}


def random_graph(kind="whole", nodes=13, events=197, among=31):
    """Events with many equal times, repeated pairs, self-loops, one node that has most and the last, without any."""
    src, dst = torch.randint(0, nodes - 1, (2, events))
    src[: events // 2] = 5
    return from_events((src, dst, KINDS[kind](events, among)), num_nodes=nodes)


def typed(kind="whole"):
    graph = typed_graph()
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = KINDS[kind](graph.num_edges(etype), 11)
    return graph


def plain(graph, both_ways=True):
    """{node: [(time, edge, neighbour)] sorted}, by a loop over the events."""
    first, found, number = {}, {}, 0
    for ntype in graph.ntypes:
        first[ntype] = sum(graph.num_nodes(t) for t in first)
    for etype in graph.canonical_etypes:
        times = graph.edges[etype].data["time"].tolist()
        for u, v, t in zip(*(x.tolist() for x in graph.edges(etype=etype, order="eid")), times, strict=True):
            u, v = u + first[etype[0]], v + first[etype[2]]
            found.setdefault(v, []).append((t, number, u))
            if both_ways and u != v:
                found.setdefault(u, []).append((t, number, v))
            number += 1
    return {node: sorted(events) for node, events in found.items()}


def queries(recent, kind="whole"):
    """Every node at its events' times, between them, before all and after all."""
    times = torch.unique(recent.time)
    half = 1 if kind == "whole" else 2**-12
    times = torch.cat([times, times + half, times[:1] - 10**9])
    nodes = torch.arange(recent.num_nodes)
    return nodes.repeat_interleave(len(times)), times.repeat(len(nodes))


@pytest.mark.parametrize("count", [1, 3, 500])
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("make", [random_graph, typed])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_plain_loop(kind, make, both_ways, count):
    graph = make(kind)
    recent, expected = recent_neighbours(graph, both_ways), plain(graph, both_ways)
    nodes, times = queries(recent, kind)
    neighbour, time, edge, mask = recent.before(nodes, times, count)
    assert neighbour.shape == time.shape == edge.shape == mask.shape == (len(nodes), count)
    for row, (node, t) in enumerate(zip(nodes.tolist(), times.tolist(), strict=True)):
        events = [event for event in expected.get(node, []) if event[0] < t][-count:]
        padding = count - len(events)
        got = list(zip(time[row].tolist(), edge[row].tolist(), neighbour[row].tolist(), strict=True))
        assert got == [(t, -1, 0)] * padding + events
        assert mask[row].tolist() == [False] * padding + [True] * len(events)


def test_rows_cover_every_event_once():
    graph = typed()
    recent = recent_neighbours(graph, both_ways=False)
    node = torch.repeat_interleave(torch.arange(recent.num_nodes), recent.indptr.diff())
    assert recent.start == {"film": 0, "user": 11} and recent.num_nodes == 24
    assert recent.edge.sort().values.tolist() == list(range(graph.num_edges()))
    first = 0
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        here = (recent.edge >= first) & (recent.edge < first + len(src))
        at = recent.edge[here] - first
        assert torch.equal(recent.neighbour[here] - recent.start[etype[0]], src[at])
        assert torch.equal(node[here] - recent.start[etype[2]], dst[at])
        first += len(src)


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_order_of_the_edges_does_not_matter_without_ties(idtype):
    graph = from_events((torch.arange(5).repeat(8), torch.randint(0, 7, (40,)), torch.randperm(40)), num_nodes=7)
    src, dst = graph.edges(order="eid")
    order = torch.randperm(40)
    moved = dgl.graph((src[order], dst[order]), num_nodes=7, idtype=idtype)
    moved.edata["time"] = graph.edata["time"][order]
    one, other = recent_neighbours(graph), recent_neighbours(moved)
    for name in ("indptr", "neighbour", "time"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(one.edge, order[other.edge])


@pytest.mark.parametrize("sample", ["recent", "uniform"])
@pytest.mark.parametrize("by", [pytest.param(0, id="strictly before"), pytest.param(1, id="at the time, too")])
def test_never_looks_ahead(sample, by):
    """Events at or after t are moved, deleted or given other ends: nothing changes. A sampler with <= is found out."""
    graph, t = random_graph(), WHOLE + 17
    src, dst = graph.edges(order="eid")
    time = graph.edata["time"]
    late = time >= t
    assert (time == t).any() and (time < t).any() and (time > t).any()
    elsewhere = torch.where(late, torch.randint(0, 12, src.shape), src)
    later = torch.where(late, t + torch.randint(0, 5, time.shape), time)
    graphs = [
        graph,
        from_events((src[~late], dst[~late], time[~late]), num_nodes=13),
        from_events((elsewhere, dst, time), num_nodes=13),
        from_events((src, dst, later), num_nodes=13),
    ]
    nodes = torch.arange(13)
    found = []
    for changed in graphs:
        generator = torch.Generator().manual_seed(7)
        # Whole numbers: an event at a time <= t is an event before t + 1.
        answer = recent_neighbours(changed).before(nodes, torch.full((13,), t + by), 4, sample, generator)
        found.append([x for x in answer if x.dtype != torch.bool])
        if by == 0:
            assert (answer[1][answer[3]] < t).all()
    same = [all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True)) for other in found[1:]]
    assert same == [by == 0] * 3


@pytest.mark.parametrize(("count", "choices"), [(1, 6), (3, 20), (5, 6)])
def test_uniform_has_different_events_with_equal_chances(count, choices):
    each = 1000
    recent = recent_neighbours(from_events(([0] * 7, [1] * 7, range(7))))
    _, time, edge, mask = recent.before([1] * choices * each, [6] * choices * each, count, "uniform")
    assert mask.all() and (edge.diff() > 0).all() and torch.equal(time, edge)
    # Six events are before the time; each choice comes 1000 times, with a standard deviation below 32.
    _, seen = torch.unique(edge @ 10 ** torch.arange(count), return_counts=True)
    assert len(seen) == choices and (seen - each).abs().max() < 160


def test_uniform_has_all_where_there_are_few():
    recent = recent_neighbours(from_events(([0] * 7, [1] * 7, range(7))))
    _, _, edge, mask = recent.before([1, 1], [2, 3], 3, "uniform")
    assert edge.tolist() == [[-1, 0, 1], [0, 1, 2]] and mask.tolist() == [[False, True, True], [True] * 3]


def test_a_generator_decides():
    recent = recent_neighbours(random_graph())
    nodes, times = queries(recent)

    def edges(seed):
        return recent.before(nodes, times, 2, "uniform", torch.Generator().manual_seed(seed))[2]

    assert torch.equal(edges(1), edges(1)) and not torch.equal(edges(1), edges(2))


def test_without_events_or_queries():
    recent = recent_neighbours(from_events(([], [], []), num_nodes=3))
    assert not recent.before([0, 2], torch.zeros(2).to(recent.time), 2)[3].any()
    assert [x.shape for x in recent_neighbours(random_graph()).before([], [], 2, "uniform")] == [(0, 2)] * 4
    with pytest.raises(GraphError, match="graph: expected at least one event, got none"):
        prepare(from_events(([], [], []), num_nodes=3))


def test_prepared_as_asked():
    graph = random_graph()
    assert torch.equal(prepare(graph, both_ways=False).edge, recent_neighbours(graph, both_ways=False).edge)
    assert torch.equal(prepare(graph).edge, recent_neighbours(graph).edge)
    recent = prepare(graph).to("meta")
    assert {x.device.type for x in (recent.indptr, recent.neighbour, recent.time, recent.edge)} == {"meta"}


def test_wrong_calls_are_one_sentence():
    whole, parts = recent_neighbours(random_graph()), recent_neighbours(random_graph("fractions"))
    for call, sentence in [
        (lambda: whole.before([0, 13], [1, 1], 2), "nodes: expected numbers from 0 to 12, got 13"),
        (lambda: whole.before([-1], [1], 2), "nodes: expected numbers from 0 to 12, got -1"),
        (lambda: whole.before([0.5], [1], 2), "nodes: expected [B] whole numbers, got torch.float64 [1]"),
        (lambda: whole.before(torch.ones(13).bool(), [1] * 13, 2), "nodes: expected [B] whole numbers, got torch.bool"),
        (lambda: whole.before(3, 1, 2), "nodes: expected [B] whole numbers, got torch.int64 []"),
        (lambda: whole.before(["a"], [1], 2), "nodes: expected [B] numbers, got list"),
        (lambda: whole.before([0, 1], [1], 2), "times: expected one for each of 2 nodes, got [1]"),
        (lambda: whole.before([0], [1.5], 2), "times: expected torch.int64 as in the graph, got torch.float64"),
        (
            lambda: parts.before([0], torch.ones(1), 2),
            "times: expected torch.float64 as in the graph, got torch.float32",
        ),
        (lambda: parts.before([0], [1], 2), "times: expected torch.float64 as in the graph, got torch.int64"),
        (lambda: parts.before([0, 1], [1.0, float("nan")], 2), "times: expected finite numbers, got nan"),
        (lambda: whole.before([0], [1], 0), "count: expected 1 or more, got 0"),
        (lambda: whole.before([0], [1], 2, "last"), "sample: expected 'recent' or 'uniform', got 'last'"),
        (lambda: recent_neighbours(dgl.graph(([0], [1]))), "graph: expected the time of every edge in edata['time']"),
        (lambda: recent_neighbours([0]), "graph: expected a DGLGraph of all nodes, got list"),
        (
            lambda: recent_neighbours(dgl.to_block(random_graph())),
            "graph: expected a DGLGraph of all nodes, got a block",
        ),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            call()
    mixed = typed()
    mixed.edges["likes"].data["time"] = mixed.edges["likes"].data["time"].double()
    with pytest.raises(GraphError, match="graph: expected times of one type, got .*float64.*int64"):
        recent_neighbours(mixed)
    with pytest.raises(ShapeError):
        replace(whole, time=whole.time.double()).before([0], [1], 1)
