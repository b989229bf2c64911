"""Tables of events as timed graphs: order, names, times of every kind, and wrong tables."""

import re
from datetime import date

import dgl
import numpy as np
import pandas
import pytest
import torch

from hgat.errors import GraphError
from hgat.graph import event_times, from_events, from_frame


def listed(graph, etype=None):
    """[(src, dst, time)] in the graph's order."""
    src, dst = graph.edges(etype=etype, order="eid")
    return list(zip(src.tolist(), dst.tolist(), graph.edges[etype].data["time"].tolist(), strict=True))


def random_events(nodes=7, events=97, among=11, seed=5):
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(0, nodes, (2, events), generator=generator)
    return src, dst, torch.randint(-among, among, (events,), generator=generator)


@pytest.mark.parametrize("kind", ["tensors", "arrays", "lists", "int32"])
def test_sorted_by_time_and_stable(kind):
    columns = random_events()
    rows = list(zip(*(c.tolist() for c in columns), strict=True))
    feat = torch.arange(len(rows)).float().unsqueeze(1)
    given = {
        "tensors": columns,
        "arrays": [c.numpy() for c in columns],
        "lists": [c.tolist() for c in columns],
        "int32": [c.int() for c in columns],
    }[kind]
    graph = from_events((*given, feat))
    order = sorted(range(len(rows)), key=lambda e: rows[e][2])  # Python's sort is stable
    assert listed(graph) == [rows[e] for e in order]
    assert graph.edata["feat"].flatten().tolist() == order
    assert graph.edata["time"].dtype == torch.int64 and graph.edata["time"].min() < 0
    assert graph.num_nodes() == 7 and graph.is_homogeneous


def test_equal_events_stay_as_many_edges_and_the_table_is_left_as_it_was():
    src, dst, time = np.array([1, 1, 2, 1]), np.array([2, 2, 1, 1]), np.array([3.5, 3.5, 3.5, -1.0])
    graph = from_events((src, dst, time), num_nodes=5)
    assert listed(graph) == [(1, 1, -1.0), (1, 2, 3.5), (1, 2, 3.5), (2, 1, 3.5)]
    assert graph.num_nodes() == 5 and graph.edata["time"].dtype == torch.float64 and "feat" not in graph.edata
    assert time.tolist() == [3.5, 3.5, 3.5, -1.0]
    graph.edata["time"][:] = 0.0
    assert time.tolist() == [3.5, 3.5, 3.5, -1.0]


def test_no_events_is_a_graph_without_edges():
    graph = from_events(([], [], []), num_nodes=3)
    assert (graph.num_nodes(), graph.num_edges(), len(event_times(graph))) == (3, 0, 0)
    assert from_events(([], [], [])).num_nodes() == 0


def test_whole_times_beyond_the_floats_stay_whole():
    graph = from_events(([0, 1, 2], [1, 2, 0], [2**60 + 1, 2**60, 2**60 + 2]))
    assert graph.edata["time"].tolist() == [2**60, 2**60 + 1, 2**60 + 2]


def test_dates_are_seconds_since_1970():
    """Also those that nanoseconds in 64 bits cannot hold."""
    days = [date(2000, 1, 2), date(1969, 12, 31), date(1500, 1, 1), date(2700, 1, 1)]
    graph = from_events(([0, 1, 2, 3], [1, 2, 3, 0], np.array(days, "datetime64[D]")))
    assert graph.edata["time"].dtype == torch.float64
    assert graph.edata["time"].tolist() == sorted((day - date(1970, 1, 1)).total_seconds() for day in days)
    month = 31 * 86400.0
    for unit, value, seconds in (("ms", 1500, 1.5), ("ns", -250_000_000, -0.25), ("h", 2, 7200.0), ("M", 1, month)):
        graph = from_events(([0], [1], np.array([value], f"datetime64[{unit}]")))
        assert graph.edata["time"].tolist() == [seconds], unit
    with pytest.raises(GraphError, match="time: expected finite numbers, got nan at event 1"):
        from_events(([0, 1], [1, 0], np.array(["2000-01-01", "NaT"], "datetime64[s]")))


def test_typed_events():
    graph = from_events(
        {
            ("user", "buys", "item"): ([0, 1, 0], [4, 2, 2], [3, 1, 2]),
            ("user", "rates", "item"): ([2], [0], [0.5], [[7.0, 8.0]]),
        },
        num_nodes={"user": 5, "shop": 3},
    )
    assert {t: graph.num_nodes(t) for t in graph.ntypes} == {"user": 5, "item": 5, "shop": 3}
    assert listed(graph, "buys") == [(1, 2, 1), (0, 2, 2), (0, 4, 3)]
    assert listed(graph, ("user", "rates", "item")) == [(2, 0, 0.5)]
    assert graph.edges["rates"].data["feat"].tolist() == [[7.0, 8.0]] and "feat" not in graph.edges["buys"].data
    assert event_times(graph, "buys").tolist() == [1, 2, 3] and event_times(graph, "rates").dtype == torch.float64


TYPED = ("a", "x", "b")


@pytest.mark.parametrize(("events", "num_nodes", "sentence"), [
    (([0, 1], [1, 2], [0.0, float("nan")]), None, "events: time: expected finite numbers, got nan at event 1"),
    (([0, 1], [1, 2], [float("-inf"), 0.0]), None, "events: time: expected finite numbers, got -inf at event 0"),
    (([0, 1], [1], [0, 1]), None, "events: expected columns of one length, got [2, 1, 2]"),
    (([0, 1], [1, 2], [0, 1], [[1.0]]), None, "events: expected columns of one length, got [2, 2, 2, 1]"),
    (([0, 1], [1, 2], [0, 1], torch.tensor(3.0)), None, "columns of one length, got [2, 2, 2, 'one number']"),
    (([0, 1.5], [1, 2], [0, 1]), None, "events: src: expected [E] whole numbers, got torch.float64 [2]"),
    (([0, 1], [True, False], [0, 1]), None, "events: dst: expected [E] whole numbers, got torch.bool [2]"),
    (([[0], [1]], [1, 2], [0, 1]), None, "events: src: expected [E] whole numbers, got torch.int64 [2, 1]"),
    ((["a", "b"], [1, 2], [0, 1]), None, "events: src: expected numbers, got list"),
    (([0, None], [1, 2], [0, 1]), None, "events: src: expected numbers, got none at event 1"),
    (([0, 1], [1, 2], [[0], [1]]), None, "events: time: expected [E] numbers, got torch.int64 [2, 1]"),
    (([0, 1], [1, 2], [[0], [1, 2]]), None, "events: time: expected [E] numbers, got lists of different lengths"),
    (([0, 1], [1, 2], ["now", "then"]), None, "events: time: expected numbers, got <U4"),
    (([0, 1], [1, 2], [True, False]), None, "events: time: expected [E] numbers, got torch.bool [2]"),
    (([0, -1], [1, 2], [0, 1]), None, "events: src: expected nodes from 0, got -1"),
    (([0, 1], [1, 6], [0, 1]), 6, "num_nodes: expected 7 or more of '_N', got 6"),
    (([0, 1], [1, 6], [0, 1]), {"_N": 7}, "num_nodes: expected an int, got {'_N': 7}"),
    (([0, 1], [1, 6], [0, 1]), 7.0, "num_nodes: expected an int, got 7.0"),
    (([0, 1], [1, 2]), None, "events: expected (src, dst, time) or (src, dst, time, feat), got 2 columns"),
    (np.zeros((3, 2)), None, "events: expected (src, dst, time) or (src, dst, time, feat), got ndarray"),
    ({}, None, "events: expected at least one edge type, got none"),
    ({"x": ([0], [1], [2])}, None, "events: expected edge types (source type, name, destination type), got 'x'"),
    ({TYPED: ([0], [1])}, None, f"events of {TYPED}: expected (src, dst, time) or"),
    ({TYPED: ([0], [3], [2])}, 7, "num_nodes: expected {node type: int}, got 7"),
    ({TYPED: ([0], [3], [2])}, {"b": 3}, "num_nodes: expected 4 or more of 'b', got 3"),
    ({TYPED: ([0], [3], [float("inf")])}, None, f"events of {TYPED}: time: expected finite numbers, got inf"),
])  # fmt: skip
def test_wrong_events_are_one_sentence(events, num_nodes, sentence):
    with pytest.raises(GraphError, match=re.escape(sentence)) as error:
        from_events(events, num_nodes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("table", [dict, pandas.DataFrame, lambda rows: pandas.DataFrame(rows).to_records(index=False)])
def test_frame_numbers_names(table):
    rows = {"from": ["bo", "al", "bo"], "to": ["cy", "bo", "bo"], "when": [3, 1, 2], "more": [0, 0, 0]}
    graph, ids = from_frame(table(rows), "from", "to", "when")
    assert ids.tolist() == ["al", "bo", "cy"]
    assert listed(graph) == [(0, 1, 1), (1, 1, 2), (1, 2, 3)]


def test_frame_numbers_names_by_value_and_reads_dates():
    frame = pandas.DataFrame({"u": [100, 9], "v": [9, 20], "t": pandas.to_datetime(["1970-01-02", "1970-01-01"])})
    graph, ids = from_frame(frame, "u", "v", "t")
    assert ids.tolist() == [9, 20, 100] and listed(graph) == [(0, 1, 0.0), (2, 0, 86400.0)]


def _frame(u, v, t=(0, 1)):
    return {"u": u, "v": v, "t": list(t)}


NONE = "events: expected a name at both ends of every event, got none in 'u' or 'v'"
KINDS = "events: expected names of one kind in 'u' and 'v', got "


@pytest.mark.parametrize(("frame", "sentence"), [
    ({"u": [0], "t": [1]}, "events: expected a column 'v', got u, t"),
    (pandas.DataFrame({"u": [0], "t": [1]}), "events: expected a column 'v', got u, t"),
    ([[0, 1, 2]], "events: expected a column 'u', got list"),
    (None, "events: expected a column 'u', got NoneType"),
    (_frame([1.0, float("nan")], [2.0, 3.0]), NONE),
    (_frame(["a", None], ["b", "c"]), NONE),
    (_frame(["a", float("nan")], ["b", "c"]), NONE),
    (pandas.DataFrame(_frame(pandas.array(["a", None], dtype="string"), ["b", "c"])), NONE),
    (pandas.DataFrame(_frame(pandas.array([1, None], dtype="Int64"), [2, 3])), NONE),
    (_frame([1, "a"], ["b", "c"]), KINDS + "int, str"),
    (_frame([1, 2], ["b", "c"]), KINDS + "int, str"),
    (_frame(np.array([1, 2]), np.array(["b", "c"])), KINDS + "int, str"),
    (pandas.DataFrame(_frame([1, 2], ["b", "c"])), KINDS + "int, str"),
    (_frame(["a", "b"], ["b"]), "events: expected columns of one length, got [2, 1, 2]"),
    (_frame(["a", "b"], ["b", "c"], [0.0, float("nan")]), "events: time: expected finite numbers, got nan at event 1"),
    (_frame(["a", "b"], ["b", "c"], ["now", "then"]), "events: time: expected numbers"),
    (pandas.DataFrame(np.ones((2, 4)), columns=["u", "u", "v", "t"]), "expected one column 'u', got an array [2, 2]"),
])  # fmt: skip
def test_wrong_frames_are_one_sentence(frame, sentence):
    with pytest.raises(GraphError, match=re.escape(sentence)):
        from_frame(frame, "u", "v", "t")


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_times_of_a_graph_of_ones_own(idtype):
    """In the graph's order, sorted or not, whole numbers and floats widened."""
    graph = dgl.graph(([0, 1, 2], [1, 2, 0]), idtype=idtype)
    for given, kind in ((torch.int32, torch.int64), (torch.float32, torch.float64), (torch.uint8, torch.int64)):
        graph.edata["time"] = torch.tensor([3, 1, 2], dtype=given)
        assert event_times(graph).dtype == kind and event_times(graph).tolist() == [3, 1, 2]


def _with(time):
    graph = dgl.graph(([0, 1], [1, 2]))
    if time is not None:
        graph.edata["time"] = time
    return graph


@pytest.mark.parametrize(("graph", "sentence"), [
    ("graph", "graph: expected a DGLGraph, got str"),
    (_with(None), "graph: expected the time of every edge in edata['time'], got none"),
    (_with(torch.zeros(2, 1)), "graph: time: expected [E] numbers, got torch.float32 [2, 1]"),
    (_with(torch.tensor([True, False])), "graph: time: expected [E] numbers, got torch.bool [2]"),
    (_with(torch.tensor([0.0, float("nan")])), "graph: time: expected finite numbers, got nan at event 1"),
])  # fmt: skip
def test_graphs_without_times_are_one_sentence(graph, sentence):
    with pytest.raises(GraphError, match=re.escape(sentence)):
        event_times(graph)


def test_a_relation_without_times_is_named():
    graph = dgl.heterograph({TYPED: ([0], [0])})
    graph.edges["x"].data["date"] = torch.zeros(1)
    with pytest.raises(GraphError, match=re.escape("edata['time'] of x, got ['date']")):
        event_times(graph, "x")
