"""Snapshots against dicts and loops over the events; slices, unions, wrong calls, and Enron's published counts."""

import copy
import pickle
import re
import time
from collections import Counter
from fractions import Fraction
from itertools import product

import dgl
import numpy as np
import pytest
import torch

import hgat.data
from hgat.errors import GraphError
from hgat.graph import from_events, snapshots
from zoo import typed_graph

# Times are whole numbers below 40 without 11 to 19, so that windows are empty; fractions are eighths of them.
CUTS = {
    "boundaries": {"boundaries": [3, 8, 12, 18, 31]},
    "fractional boundaries": {"boundaries": [-1.5, 8.0, 8.5, 100.0]},
    "windows": {"windows": 7},
    "one window": {"windows": 1},
    "width": {"width": 4},
    "fractional width": {"width": 2.5},
    "events": {"events": 6},
    "one event each": {"events": 1},
    "all events": {"events": 1000},
    "column": {"column": "step"},
}
BY_TIME = [name for name in CUTS if name != "column"]


def random_graph(seed=0, kind="whole", nodes=11, events=59):
    """Unsorted events with ties, repeated pairs and events of a node with itself; the last node never appears."""
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(0, nodes - 1, (2, events), generator=generator)
    graph = dgl.graph((src, dst), num_nodes=nodes)
    _give_times(graph, None, kind, generator)
    return graph


def random_typed(seed=0, kind="whole"):
    generator = torch.Generator().manual_seed(seed)
    graph = typed_graph()
    for etype in graph.canonical_etypes:
        _give_times(graph, etype, kind, generator)
    return graph


def _give_times(graph, etype, kind, generator):
    when = torch.randint(0, 31, (graph.num_edges(etype),), generator=generator)
    when[when > 10] += 9
    graph.edges[etype].data["time"] = when if kind == "whole" else when.double() / 8
    graph.edges[etype].data["step"] = when % 5 + 2 * (when > 20)


def listed(graph):
    """[(edge type, src, dst, time, given step)] in the graph's order."""
    rows = []
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        data = graph.edges[etype].data
        columns = (src, dst, data["time"], data["step"])
        rows += [(etype, *row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return rows


def steps_of(rows, boundaries=None, windows=None, width=None, events=None, column=None):
    """(step of every event or None, number of steps), in exact numbers."""
    times = sorted(Fraction(t) for *_, t, _ in rows)
    first, last = times[0], times[-1]
    if column:
        return [s for *_, s in rows], 1 + max(s for *_, s in rows)
    if boundaries:
        bounds = [Fraction(b) for b in boundaries]

        def step(t):
            if t == bounds[-1]:
                return len(bounds) - 2
            return next((k for k in range(len(bounds) - 1) if bounds[k] <= t < bounds[k + 1]), None)

        count = len(bounds) - 1
    elif windows:
        count, long = windows, (last - first) / windows

        def step(t):
            return min(int((t - first) / long), windows - 1)

    elif width:
        count = int((last - first) / Fraction(width)) + 1

        def step(t):
            return int((t - first) / Fraction(width))

    else:
        begin = sorted({times[k] for k in range(0, len(times), events)})
        count = len(begin)

        def step(t):
            return sum(b <= t for b in begin) - 1

    return [step(Fraction(t)) for *_, t, _ in rows], count


def oracle(graph, cut, cumulative, self_loops, both_ways, weight, first=0, last=None):
    """(edges {etype: {(src, dst): weight}}, present [T][N], events {pair of stacked nodes: count}) of some steps."""
    rows = listed(graph)
    steps, count = steps_of(rows, **cut)
    last = count if last is None else last
    sizes = {t: graph.num_nodes(t) for t in graph.ntypes}
    offset = {t: sum(list(sizes.values())[:k]) for k, t in enumerate(sizes)}
    typed = len(sizes) > 1 or len(graph.canonical_etypes) > 1
    total = sum(sizes.values())
    edges = {etype: Counter() for etype in graph.canonical_etypes}
    if typed and both_ways:
        edges |= {(e[2], e[1] + "^-1", e[0]): Counter() for e in graph.canonical_etypes}
    if typed and self_loops:
        edges |= {(t, "self", t): Counter() for t in sizes}
    met, present = Counter(), []
    for place, t in enumerate(range(first, last)):
        here = [False] * total
        for (etype, u, v, _, _), step in zip(rows, steps, strict=True):
            if step is None or step > t:
                continue
            here[offset[etype[0]] + u] = here[offset[etype[2]] + v] = True
            if step < t and not cumulative:
                continue
            a, b = place * sizes[etype[0]] + u, place * sizes[etype[2]] + v
            x, y = (place * total + offset[n] + k for n, k in ((etype[0], u), (etype[2], v)))
            edges[etype][a, b] += 1
            met[x, y] += 1
            if both_ways and typed:
                edges[etype[2], etype[1] + "^-1", etype[0]][b, a] += 1
            elif both_ways and u != v:
                edges[etype][b, a] += 1
            if both_ways and x != y:
                met[y, x] += 1
        present.append(here)
        for ntype in sizes if self_loops else ():
            for v in range(sizes[ntype]):
                if here[offset[ntype] + v]:
                    own = (ntype, "self", ntype) if typed else graph.canonical_etypes[0]
                    edges[own][place * sizes[ntype] + v, place * sizes[ntype] + v] += 1
    found = {}
    for etype, pairs in edges.items():
        sent, received = Counter(), Counter()
        for (a, b), c in pairs.items():
            sent[a] += c
            received[b] += c
        scale = {pair: (sent[pair[0]] * received[pair[1]]) ** -0.5 if weight == "normalized" else 1 for pair in pairs}
        found[etype] = {pair: None if weight == "none" else c * scale[pair] for pair, c in pairs.items()}
    return found, present, met


def distinct(graph, cut, both_ways):
    """{etype: {(step, src, dst): events}}, a pair of either direction from the lower number where both are one."""
    rows = listed(graph)
    found = {etype: Counter() for etype in graph.canonical_etypes}
    for (etype, u, v, _, _), step in zip(rows, steps_of(rows, **cut)[0], strict=True):
        if step is not None:
            u, v = sorted((u, v)) if both_ways and len(found) == 1 else (u, v)
            found[etype][step, u, v] += 1
    return found


def _pairs(links):
    key = list(zip(links.step.tolist(), links.src.tolist(), links.dst.tolist(), strict=True))
    assert key == sorted(set(key))
    return Counter(dict(zip(key, links.count.tolist(), strict=True)))


def read(graph):
    """{etype: {(src, dst): weight or None}} of a union, every pair once."""
    found = {}
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        weight = graph.edges[etype].data.get("weight", torch.zeros(0)).tolist() or [None] * len(src)
        pairs = list(zip(src.tolist(), dst.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        found[etype] = dict(zip(pairs, weight, strict=True))
    return found


def same(found, expected):
    assert {e: set(p) for e, p in found.items()} == {e: set(p) for e, p in expected.items()}
    for etype, pairs in expected.items():
        for pair, weight in pairs.items():
            assert found[etype][pair] == (None if weight is None else pytest.approx(weight, rel=1e-6))


def _walked(graph):
    src, dst = graph.edges(order="eid")
    found = Counter()
    for u, v, count in zip(src.tolist(), dst.tolist(), graph.edata["weight"].tolist(), strict=True):
        found[u, v] += count
    return found


@pytest.mark.parametrize(("kind", "weight"), [("whole", "count"), ("fractions", "normalized"), ("whole", "none")])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("make", [random_graph, random_typed], ids=["plain", "typed"])
def test_equals_loops_over_the_events(make, cut, kind, weight):
    graph = make(7, kind)
    for cumulative, self_loops, both_ways in product([False, True], repeat=3):
        settings = (cumulative, self_loops, both_ways, weight)
        found = snapshots(
            graph, **CUTS[cut], cumulative=cumulative, self_loops=self_loops, both_ways=both_ways, weight=weight
        )
        expected, present, met = oracle(graph, CUTS[cut], *settings)
        assert len(found) == len(present)
        assert found.present.tolist() == present
        same(read(found.graph), expected)
        assert {e: _pairs(x) for e, x in found.links.items()} == distinct(graph, CUTS[cut], both_ways)
        assert _walked(found.walkable) == met
        assert found.walkable.num_nodes() == len(found) * graph.num_nodes()
        assert {t: found.graph.num_nodes(t) for t in graph.ntypes} == {
            t: len(found) * graph.num_nodes(t) for t in graph.ntypes
        }


@pytest.mark.parametrize("cut", ["boundaries", "width", "column"])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("make", [random_graph, random_typed], ids=["plain", "typed"])
def test_slices_hold_their_steps_and_who_has_appeared_before(make, cumulative, cut):
    graph = make(3)
    whole = snapshots(graph, **CUTS[cut], cumulative=cumulative, weight="normalized")
    steps = len(whole)
    parts = [(a, b) for a in range(steps) for b in range(a + 1, steps + 1)]
    for a, b in parts:
        part = whole[a:b]
        expected, present, met = oracle(graph, CUTS[cut], cumulative, True, True, "normalized", a, b)
        assert len(part) == b - a and part.present.tolist() == present
        same(read(part.graph), expected)
        assert _walked(part.walkable) == met
    # Slices of slices, single steps, from behind, and one after the other.
    assert read(whole[1:][1:3].graph) == read(whole[2:4].graph)
    assert read(whole[-1].graph) == read(whole[steps - 1 :].graph)
    assert [len(step) for step in whole] == [1] * steps
    assert [step.present[0].tolist() for step in whole] == whole.present.tolist()
    assert read(whole[:].graph) == read(whole.graph)
    assert whole[1:3].boundaries == whole.boundaries


@pytest.mark.parametrize("cumulative", [False, True])
def test_a_slice_equals_snapshots_of_its_events_alone(cumulative):
    """But for who has appeared before, which its events cannot know."""
    graph = random_graph(5)
    whole = snapshots(graph, boundaries=[0, 5, 9, 25, 40], cumulative=cumulative, self_loops=False)
    for a, b in ((0, 2), (1, 4), (2, 3)):
        bounds = [0, 5, 9, 25, 40]
        first = bounds[0] if cumulative else bounds[a]
        inside = (graph.edata["time"] >= first) & (graph.edata["time"] <= bounds[b] - (b < 4))
        alone = dgl.edge_subgraph(graph, inside, relabel_nodes=False)
        given = bounds[: b + 1] if cumulative else bounds[a : b + 1]
        built = snapshots(alone, boundaries=given, cumulative=cumulative, self_loops=False)
        assert read(whole[a:b].graph) == read(built[-(b - a) :].graph)


@pytest.mark.parametrize("both_ways", [True, False])
def test_normalized_equals_the_matrix_product(both_ways):
    """D^-1/2 (A + I) D^-1/2 among the nodes that have appeared, dense."""
    graph = random_graph(11)
    found = snapshots(graph, width=5, weight="normalized", both_ways=both_ways)
    counts = snapshots(graph, width=5, both_ways=both_ways, self_loops=False)
    for t in range(len(found)):
        here = found[t].present[0].numpy()
        adjacency = np.zeros((11, 11))
        for (u, v), c in read(counts[t].graph)["_N", "_E", "_N"].items():
            adjacency[u, v] = c
        adjacency = adjacency[here][:, here] + np.eye(here.sum())
        expected = np.diag(adjacency.sum(1) ** -0.5) @ adjacency @ np.diag(adjacency.sum(0) ** -0.5)
        dense = np.zeros((11, 11))
        for (u, v), w in read(found[t].graph)["_N", "_E", "_N"].items():
            dense[u, v] = w
        np.testing.assert_allclose(dense[here][:, here], expected, rtol=1e-6)
        assert dense[~here].sum() == dense[:, ~here].sum() == 0
        if both_ways:
            assert np.array_equal(dense, dense.T)
            assert np.abs(np.linalg.eigvalsh(expected)).max() == pytest.approx(1.0)


@pytest.mark.parametrize("weight", ["count", "normalized", "none"])
def test_shared_has_the_edges_of_graph_with_sources_of_all_steps_one(weight):
    whole = snapshots(random_graph(2), width=5, weight=weight)
    for found in (whole, whole[2:5], whole[3]):
        src, dst = found.graph.edges(order="eid")
        shared = found.shared.edges(order="eid")
        assert torch.equal(shared[0], src % 11) and torch.equal(shared[1], dst)
        assert (found.shared.num_src_nodes(), found.shared.num_dst_nodes()) == (11, 11 * len(found))
        assert ("weight" in found.shared.edata) == (weight != "none")
        if weight != "none":
            assert torch.equal(found.shared.edata["weight"], found.graph.edata["weight"])
    with pytest.raises(GraphError, match="snapshots: expected one node and edge type to share sources, got"):
        _ = snapshots(random_typed(), windows=2).shared


@pytest.mark.parametrize("make", [random_graph, random_typed], ids=["plain", "typed"])
def test_events_and_back(make):
    graph = make(4)
    found = snapshots(graph, width=5, weight="none")
    pairs = found.events()
    assert sum(pairs.edges[e].data["count"].sum() for e in pairs.canonical_etypes) == graph.num_edges()
    for etype in pairs.canonical_etypes:
        assert (pairs.edges[etype].data["time"].diff() >= 0).all()
    again = snapshots(pairs, column="time", weight="none")
    assert torch.equal(again.present, found.present)
    assert read(again.graph) == read(found.graph)
    part = found[1:3].events()
    assert {t for e in part.canonical_etypes for t in part.edges[e].data["time"].tolist()} <= {1, 2}
    assert read(snapshots(part, boundaries=[1, 2, 3], weight="none", self_loops=False).graph) == read(
        snapshots(graph, width=5, weight="none", self_loops=False)[1:3].graph
    )


def test_an_empty_window_keeps_who_has_appeared():
    graph = from_events(([0, 1], [1, 2], [0, 30]), num_nodes=5)
    found = snapshots(graph, windows=3)
    assert found.boundaries == (0, 10, 20, 30)
    assert found.present.tolist() == [[True, True, False, False, False]] * 2 + [[True, True, True, False, False]]
    assert read(found[1].graph)["_N", "_E", "_N"] == {(0, 0): 1, (1, 1): 1}
    assert found[1].walkable.num_edges() == 0 and found[1].events().num_edges() == 0


def test_a_node_that_never_appears_has_no_edge():
    found = snapshots(random_graph(), width=5)
    assert not found.present[:, 10].any() and (found.first_seen["_N"][10] >= len(found))
    src, dst = found.graph.edges()
    assert not ((src % 11 == 10) | (dst % 11 == 10)).any()


@pytest.mark.parametrize("cut", [{"windows": 1}, {"width": 3}, {"events": 2}, {"boundaries": [5, 6]}], ids=str)
@pytest.mark.parametrize("time", [5, 5.0, -5.0])
def test_all_events_at_one_time_are_one_snapshot(cut, time):
    cut = {"boundaries": [time, time + 1]} if "boundaries" in cut else cut
    graph = from_events(([0, 1, 1], [1, 2, 2], [time] * 3))
    found = snapshots(graph, **cut, self_loops=False)
    assert len(found) == 1 and found.present.all()
    assert read(found.graph)["_N", "_E", "_N"] == {(0, 1): 1, (1, 0): 1, (1, 2): 2, (2, 1): 2}


@pytest.mark.parametrize("events", [1, 2, 3, 5, 17, 100])
def test_events_at_one_time_are_never_parted(events):
    for seed in range(10):
        graph = random_graph(seed)
        found = snapshots(graph, events=events)
        times = graph.edata["time"].sort().values.tolist()
        begin = list(found.boundaries[:-1])
        assert set(begin) == {times[k] for k in range(0, len(times), events)}  # a step begins at every such event
        assert begin == sorted(set(begin)) and found.boundaries[-1] == times[-1]
        inside = [sum(1 for t in times if sum(b <= t for b in begin) - 1 == k) for k in range(len(found))]
        assert [int(step.events().edata["count"].sum()) for step in found] == inside
    # Without ties every step has exactly as many, but for the last.
    distinct = from_events((torch.arange(20) % 3, torch.arange(20) % 5, torch.randperm(20)))
    sizes = [int(step.events().edata["count"].sum()) for step in snapshots(distinct, events=events)]
    assert sizes == [events] * (20 // events) + ([20 % events] if 20 % events else [])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("make", [random_graph, random_typed], ids=["plain", "typed"])
def test_order_of_the_edges_and_their_type_do_not_matter(make, cut):
    graph = make(1)
    moved = {}
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        moved[etype] = (src, dst, torch.randperm(len(src)))
    other = dgl.heterograph(
        {e: (src[o].int(), dst[o].int()) for e, (src, dst, o) in moved.items()},
        num_nodes_dict={t: graph.num_nodes(t) for t in graph.ntypes},
    )
    for etype, (_, _, order) in moved.items():
        for name in ("time", "step"):
            other.edges[etype].data[name] = graph.edges[etype].data[name][order].to(torch.int32)
    one, two = (snapshots(g, **CUTS[cut], weight="normalized") for g in (graph, other))
    assert other.idtype == torch.int32
    assert one.boundaries == two.boundaries and torch.equal(one.present, two.present)
    for etype in one.graph.canonical_etypes:
        for a, b in zip(one.graph.edges(etype=etype), two.graph.edges(etype=etype), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(one.graph.edges[etype].data["weight"], two.graph.edges[etype].data["weight"])


@pytest.mark.parametrize("cut", ["windows", "width", "events"])
def test_every_event_lies_in_one_step_whatever_the_rounding(cut):
    """Fractions that binary numbers cannot hold: no event is lost at the upper end, none is counted twice."""
    for seed in range(300):
        random = np.random.RandomState(seed)
        times = np.round(random.rand(31) * 10 ** random.randint(-3, 9), random.randint(0, 12))
        times += random.choice([0, 0.1, -7e6])
        span = float(times.max() - times.min())
        setting = {"windows": 7, "width": span / random.randint(1, 20) if span else 1.0, "events": 4}[cut]
        found = snapshots(from_events((np.arange(31), np.arange(31)[::-1].copy(), times)), **{cut: setting})
        assert sum(int(links.count.sum()) for links in found.links.values()) == 31
        assert found.boundaries[0] <= times.min() and found.boundaries[-1] >= times.max()


def test_large_times_are_compared_as_whole_numbers():
    base = 2**60
    graph = from_events(([0, 1, 2], [1, 2, 3], [base, base + 1, base + 2]))
    for cut in ({"width": 1}, {"events": 1}, {"boundaries": [base, base + 1, base + 2, base + 3]}):
        found = snapshots(graph, **cut)
        assert [int(step.events().num_edges()) for step in found] == [1, 1, 1], cut


def test_nothing_is_shared_with_the_graph_that_was_cut():
    graph = random_graph()
    kept = [x.clone() for x in graph.edges(order="eid")] + [graph.edata["time"].clone()]
    found = snapshots(graph, width=5)
    found.graph.edata["weight"][:] = 0
    for now, then in zip([*graph.edges(order="eid"), graph.edata["time"]], kept, strict=True):
        assert torch.equal(now, then)
    assert "weight" not in graph.edata
    assert len(snapshots(graph.formats("csc"), width=5)) == len(found)
    assert read(snapshots(graph.formats("csr"), width=5)[0].graph) == read(snapshots(graph, width=5)[0].graph)


ONE_OF = "snapshots: expected one of boundaries, windows, width, events, column, got "


def _with_step(step):
    graph = random_graph()
    graph.edata["step"] = step
    return graph


def _named(name):
    graph = dgl.heterograph({("a", "x", "b"): ([0], [1]), name: ([0], [1])})
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.zeros(1)
    return graph


@pytest.mark.parametrize(("graph", "settings", "sentence"), [
    (random_graph, {}, ONE_OF + "none"),
    (random_graph, {"windows": 2, "width": 3}, ONE_OF + "windows, width"),
    (random_graph, {"windows": 0}, "windows: expected a whole number above 0, got 0"),
    (random_graph, {"windows": 2.5}, "windows: expected a whole number above 0, got 2.5"),
    (random_graph, {"windows": True}, "windows: expected a whole number above 0, got True"),
    (random_graph, {"windows": "many"}, "windows: expected a whole number above 0, got 'many'"),
    (random_graph, {"windows": 10**12}, "2^31 nodes in all, got 1,000,000,000,000 steps of 11 nodes"),
    (random_graph, {"events": 0.5}, "events: expected a whole number above 0, got 0.5"),
    (random_graph, {"events": -1}, "events: expected a whole number above 0, got -1"),
    (random_graph, {"width": 0}, "width: expected a finite number above 0, got 0"),
    (random_graph, {"width": -1.0}, "width: expected a finite number above 0, got -1.0"),
    (random_graph, {"width": float("nan")}, "width: expected a finite number above 0, got nan"),
    (random_graph, {"width": float("inf")}, "width: expected a finite number above 0, got inf"),
    (random_graph, {"width": 1e-12}, "2^31 nodes in all, got 39,000,000,000,001 steps of 11 nodes"),
    (random_graph, {"width": 1e-7}, "fewer than 2^31 nodes in all, got 390,000,001 steps of 11 nodes"),
    (random_graph, {"boundaries": [3]}, "boundaries: expected two or more rising times, got [3]"),
    (random_graph, {"boundaries": [3, 3]}, "boundaries: expected two or more rising times, got [3, 3]"),
    (random_graph, {"boundaries": [3, 5, 4]}, "boundaries: expected two or more rising times, got [3, 5, 4]"),
    (random_graph, {"boundaries": [3, float("nan")]}, "boundaries: expected two or more rising times"),
    (random_graph, {"boundaries": "3 5"}, "boundaries: expected two or more rising times, got '3 5'"),
    (random_graph, {"boundaries": [[3, 5]]}, "boundaries: expected two or more rising times, got [[3, 5]]"),
    (random_graph, {"boundaries": [100, 200]}, "boundaries: expected events between 100 and 200, got none"),
    (random_graph, {"column": "week"}, "snapshots: expected edata['week'] of ('_N', '_E', '_N'), got ['step', 'time']"),
    (lambda: _with_step(torch.zeros(59)), {"column": "step"}, "steps from 0 in edata['step'], [E] whole numbers, got"),
    (lambda: _with_step(torch.arange(59) - 1), {"column": "step"}, "whole numbers, got torch.int64 [59] from -1"),
    (lambda: _with_step(torch.arange(59).view(-1, 1)), {"column": "step"}, "whole numbers, got torch.int64 [59, 1]"),
    (random_graph, {"windows": 2, "weight": "sum"}, "weight: expected 'count', 'normalized' or 'none', got 'sum'"),
    (lambda: "graph", {"windows": 2}, "graph: expected a DGLGraph of all nodes, got str"),
    (lambda: dgl.to_block(random_graph()), {"windows": 2}, "graph: expected a DGLGraph of all nodes, got a block"),
    (typed_graph, {"windows": 2}, "graph: expected the time of every edge in edata['time'] of ("),
    (lambda: from_events(([], [], []), 3), {"windows": 2}, "snapshots: expected at least one event, got none"),
    (lambda: _named(("b", "x^-1", "a")), {"windows": 1}, "both_ways: expected no relation ('b', 'x^-1', 'a'), which"),
    (lambda: _named(("a", "self", "a")), {"windows": 1}, "self_loops: expected no relation ('a', 'self', 'a'), which"),
])  # fmt: skip
def test_wrong_calls_are_one_sentence(graph, settings, sentence):
    with pytest.raises(GraphError, match=re.escape(sentence)) as error:
        snapshots(graph(), **settings)
    assert "\n" not in str(error.value)


def test_names_are_free_where_nothing_is_added():
    assert len(snapshots(_named(("b", "x^-1", "a")), windows=1, both_ways=False).graph.etypes) == 4
    assert len(snapshots(_named(("a", "self", "a")), windows=1, self_loops=False).graph.etypes) == 4


def test_wrong_slices_are_one_sentence():
    found = snapshots(random_graph(), windows=3)
    for step in (3, -4):
        with pytest.raises(IndexError, match=f"snapshots: expected a step from -3 to 2, got {step}"):
            found[step]
    for which in (slice(2, 2), slice(3, None), slice(None, None, 2), slice(None, None, -1)):
        with pytest.raises(GraphError, match="snapshots: expected a slice of consecutive steps, at least one, got"):
            found[which]


PAIRS = [24, 22, 21, 64, 77, 93, 143, 197, 212, 220, 221, 258, 173, 128, 256, 238]
NODES = [18, 23, 24, 50, 66, 79, 98, 110, 117, 125, 131, 135, 137, 138, 141, 143]


def test_enron_has_the_published_counts(real_data):
    """Sankar et al. 2019, table 1: 143 nodes, and 2,347 links when an e-mail to oneself is one, too."""
    root = real_data("enron", "enron_events.csv")
    graph = hgat.data.load("enron", root).graph
    assert (graph.num_nodes(), graph.num_edges()) == (143, 22784)
    found = snapshots(graph, column="step", weight="normalized")
    links = found.links["_N", "_E", "_N"]
    assert torch.bincount(links.step).tolist() == PAIRS and sum(PAIRS) == 2347
    assert found.present.sum(1).tolist() == NODES
    assert int(links.count.sum()) == 22784
    # Both directions of a pair, and every node with itself.
    own = int((links.src == links.dst).sum())
    assert found.graph.num_edges() == 2 * (2347 - own) + sum(NODES)


def test_a_million_events_are_cut_in_seconds():
    generator = torch.Generator().manual_seed(0)
    src, dst = (10000 * torch.rand(2, 10**6, generator=generator) ** 3).long()
    graph = from_events((src, dst, torch.rand(10**6, generator=generator)), num_nodes=10000)
    begin = time.perf_counter()
    found = snapshots(graph, windows=20, weight="normalized")
    assert found.graph.num_nodes() == 200000 and found.shared.num_edges() == found.graph.num_edges()
    assert time.perf_counter() - begin < 30
    assert sum(int(links.count.sum()) for links in found.links.values()) == 10**6


def test_what_was_moved_to_a_device_is_not_pickled():
    found = snapshots(random_graph(), windows=3)
    assert found.present_on("meta").device.type == "meta" and found.graph.num_nodes() == 33
    for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert "_moved" not in vars(other) and torch.equal(other.present, found.present)
        assert other.present_on("meta").device.type == "meta" and len(other) == 3
        assert other.graph.num_edges() == found.graph.num_edges()
    assert found.present_on("meta") is found.present_on("meta")
