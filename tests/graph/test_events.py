"""Tables of events as timed graphs: order, names, times of every kind, and wrong tables."""

import re
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

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


DAY = 18262 * 86400.0  # 1 January 2020
TOKYO = timezone(timedelta(hours=9))
BOTH = ["2020-01-01 01:00", "2020-01-01 00:00"]
# The later event first. Names of units are NumPy's.
MOMENTS = {
    "dates of pandas": (pandas.Series(pandas.to_datetime(BOTH)), [DAY, DAY + 3600]),
    **{
        f"dates in {unit}": (pandas.Series(pandas.to_datetime(BOTH)).astype(f"datetime64[{unit}]"), [DAY, DAY + 3600])
        for unit in ("s", "ms", "us", "ns")
    },
    "a time zone": (pandas.Series(pandas.to_datetime(BOTH).tz_localize("Asia/Tokyo")), [DAY - 32400, DAY - 28800]),
    "an index in UTC": (pandas.DatetimeIndex(BOTH, tz="UTC"), [DAY, DAY + 3600]),
    "Timestamp": ([pandas.Timestamp(day) for day in BOTH], [DAY, DAY + 3600]),
    "Timestamp of two zones": (
        [pandas.Timestamp(BOTH[0]), pandas.Timestamp(BOTH[1], tz="Asia/Tokyo")],
        [DAY - 32400, DAY + 3600],
    ),
    "datetime": ([datetime(2020, 1, 1, 1), datetime(2020, 1, 1)], [DAY, DAY + 3600]),
    "datetime of a zone": ([datetime(2020, 1, 1, 1, tzinfo=TOKYO), datetime(2020, 1, 1, tzinfo=TOKYO)],
                           [DAY - 32400, DAY - 28800]),
    "datetime far away": ([datetime(9999, 1, 1), datetime(1500, 1, 1, 1)], [-14831766000.0, 253370764800.0]),
    "date": ([date(2020, 1, 2), date(2020, 1, 1)], [DAY, DAY + 86400]),
    "years": (np.array(["1971", "1970"], "datetime64[Y]"), [0.0, 365 * 86400.0]),
    "spans of pandas": (pandas.Series(pandas.to_timedelta([3, 1.5], "s")), [1.5, 3.0]),
    "spans of NumPy": (np.array([3, -5], "timedelta64[ms]"), [-0.005, 0.003]),
    "Timedelta": ([pandas.Timedelta("3s"), timedelta(milliseconds=5)], [0.005, 3.0]),
    "Int64": (pandas.Series([2**60 + 1, 2**60], dtype="Int64"), [2**60, 2**60 + 1]),
    "UInt8": (pandas.Series([2, 1], dtype="UInt8"), [1, 2]),
    "Float64": (pandas.Series([2.5, 1.5], dtype="Float64"), [1.5, 2.5]),
    "whole numbers as objects": (pandas.Series([2**60 + 1, 2**60], dtype=object), [2**60, 2**60 + 1]),
    "numbers as objects": (pandas.Series([2, 1.5], dtype=object), [1.5, 2.0]),
    "Decimal": ([Decimal("1.5"), Decimal(1)], [1.0, 1.5]),
    "categories": (pandas.Series([2, 1], dtype="category"), [1, 2]),
    "sparse": (pandas.Series([2, 0], dtype=pandas.SparseDtype("int64")), [0, 2]),
    "unsigned": (np.array([2, 1], np.uint64), [1, 2]),
    "half": (np.array([2, 1], np.float16), [1.0, 2.0]),
    "long double": (np.array([2, 1], np.longdouble), [1.0, 2.0]),
}  # fmt: skip


def _with_moments(moments):
    """The two events in a tuple, a dict of columns, and a data frame."""
    yield from_events(([0, 1], [1, 0], moments))
    for table in (dict, pandas.DataFrame):
        yield from_frame(table({"u": [0, 1], "v": [1, 0], "t": moments}), "u", "v", "t")[0]


@pytest.mark.parametrize("name", MOMENTS)
def test_times_as_pandas_and_python_have_them(name):
    moments, seconds = MOMENTS[name]
    for graph in _with_moments(moments):
        assert graph.edata["time"].tolist() == seconds
        assert graph.edata["time"].dtype == (torch.int64 if isinstance(seconds[0], int) else torch.float64)
        assert graph.edges()[0].tolist() == [1, 0]


NO_MOMENTS = {
    "NaT": (pandas.Series([pandas.Timestamp("2020"), pandas.NaT]), "finite numbers, got nan at event 1"),
    "NaT of a zone": (pandas.Series([pandas.Timestamp("2020", tz="UTC"), pandas.NaT]), "numbers, got none at event 1"),
    "no span": (pandas.Series([pandas.Timedelta("3s"), pandas.NaT]), "finite numbers, got nan at event 1"),
    "NA in Int64": (pandas.Series([2, None], dtype="Int64"), ".*numbers, got n.* at event 1"),
    "NA in Float64": (pandas.Series([2.5, None], dtype="Float64"), ".*numbers, got n.* at event 1"),
    "NA": (pandas.Series([pandas.NA, 2], dtype=object), "numbers, got none at event 0"),
    "None": (pandas.Series([2, None], dtype=object), "numbers, got none at event 1"),
    "text": (pandas.Series(["2", "1"]), "numbers, got str"),
    "text of pandas": (pandas.Series(["2", "1"], dtype="string"), "numbers, got str"),
    "text and numbers": (pandas.Series(["2", 1], dtype=object), "numbers, got int, str"),
    "categories of text": (pandas.Series(["2", "1"], dtype="category"), "numbers, got str"),
    "truth values": (pandas.Series([True, False]), r"\[E\] numbers, got torch.bool"),
    "truth values with NA": (pandas.Series([True, None], dtype="boolean"), "numbers, got none at event 1"),
    "periods": (pandas.Series(pandas.period_range("2020", periods=2)), "numbers, got Period"),
    "intervals": (pandas.Series(pandas.interval_range(0, 2)), "numbers, got Interval"),
    "beyond int64": ([2**70, 1], "numbers below 2\\^63, got 1180591620717411303424"),
    "beyond uint64's half": (np.array([2**63, 1], np.uint64), "numbers below 2\\^63, got 9223372036854775808"),
    "beyond UInt64's half": (pandas.Series([2**63, 1], dtype="UInt64"), "numbers below 2\\^63, got 922337203685477580"),
    "years that differ": (np.array([3, 1], "timedelta64[Y]"), "dates or spans of time in seconds, got timedelta64.Y."),
    "attoseconds": (np.array([3, 1], "datetime64[as]"), "dates or spans of time in seconds, got datetime64.as."),
    "structured": (np.zeros(2, [("a", "i4")]), "numbers, got "),
    "complex": ([1j, 2], r"\[E\] numbers, got torch.complex128"),
    "a sparse tensor": (torch.eye(2).to_sparse(), "numbers, got torch.float32"),
    "a tensor without numbers": (torch.zeros(2, device="meta"), "numbers, got torch.float32"),
    "a set": ({1, 2}, "numbers, got set"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MOMENTS)
def test_times_that_are_none_are_one_sentence(name):
    moments, sentence = NO_MOMENTS[name]
    with pytest.raises(GraphError, match=f"^events: time: expected {sentence}") as error:
        from_events(([0, 1], [1, 0], moments))
    assert "\n" not in str(error.value)
    if isinstance(moments, pandas.Series):
        with pytest.raises(GraphError, match=f"^events: time: expected {sentence}"):
            from_frame(pandas.DataFrame({"u": [0, 1], "v": [1, 0], "t": moments}), "u", "v", "t")


def test_unsigned_times_of_a_tensor_do_not_wrap():
    if not hasattr(torch, "uint64"):
        pytest.skip("this PyTorch has no uint64")
    with pytest.raises(GraphError, match="time: expected numbers below 2.63, got 9223372036854775809"):
        from_events(([0, 1], [1, 0], torch.tensor([2**63 + 1, 1], dtype=torch.uint64)))


@pytest.mark.parametrize("column", [
    pandas.Series([1, 0], dtype="Int64"), pandas.Series([1, 0], dtype=object), pandas.Series([1, 0], dtype="category"),
    np.array([1, 0], np.uint16), pandas.Series([1, 0], dtype="UInt64"),
], ids=lambda c: str(c.dtype))  # fmt: skip
def test_nodes_as_pandas_has_them(column):
    graph = from_events((column, column, [0, 1]))
    assert [end.tolist() for end in graph.edges()] == [[1, 0], [1, 0]]


# What differs stays different: (sources, destinations, names).
NAMES = {
    "Int64": (pandas.Series([2**60 + 1, 5], dtype="Int64"), [2**60, 5], [5, 2**60, 2**60 + 1]),
    "signed and unsigned": (np.array([2**60 + 1], np.int64), np.array([2**60], np.uint64), [2**60, 2**60 + 1]),
    "far beyond": (np.array([1], np.int64), np.array([2**63 + 1], np.uint64), [1, 2**63 + 1]),
    "large and small floats": (np.array([2**60 + 1]), np.array([float(2**60)]), [2**60, 2**60 + 1]),
    "floats": (np.array([1, 2]), np.array([2.0, 0.5]), [0.5, 1, 2]),
    "categories": (pandas.Series(["b", "a"], dtype="category"), ["a", "c"], ["a", "b", "c"]),
    "text of pandas": (pandas.Series(["b", "a"], dtype="string"), pandas.Series(["a", "c"]), ["a", "b", "c"]),
    "dates": (pandas.Series(pandas.to_datetime(BOTH)), pandas.Series(pandas.to_datetime(BOTH[:1] * 2)), None),
    "truth values": ([True, False], [False, False], [False, True]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_differ_stay_different(name):
    src, dst, expected = NAMES[name]
    graph, ids = from_frame({"u": src, "v": dst, "t": list(range(len(src)))}, "u", "v", "t")
    assert expected is None or ids.tolist() == expected
    for found, given in zip(graph.edges(order="eid"), (src, dst), strict=True):
        assert [ids[k] for k in found] == list(np.asarray(given))


@pytest.mark.parametrize("src, dst", [
    ([True, False], [1, 0]), ([True, 1], [2, 3]), (np.array([True, False]), np.array([1, 0])),
    (np.array(BOTH, "datetime64[s]"), np.array([1, 0])), (np.array(BOTH, "datetime64[s]"), ["a", "b"]),
])  # fmt: skip
def test_names_of_two_kinds_are_one_sentence(src, dst):
    with pytest.raises(GraphError, match="expected names of one kind in 'u' and 'v', got "):
        from_frame({"u": src, "v": dst, "t": [0, 1]}, "u", "v", "t")


def test_a_missing_date_is_no_name():
    with pytest.raises(GraphError, match="expected a name at both ends of every event, got none in 'u' or 'v'"):
        from_frame({"u": np.array(["NaT", "2020"], "datetime64[s]"), "v": np.array(BOTH, "datetime64[s]"), "t": [0, 1]},
                   "u", "v", "t")  # fmt: skip


def test_text_of_pyarrow():
    pytest.importorskip("pyarrow", reason="missing the package pyarrow")
    frame = pandas.DataFrame({"u": ["b", "a"], "v": ["a", "c"], "t": ["2020-01-02", "2020-01-01"]})
    frame = frame.astype({"u": "string[pyarrow]", "v": "string[pyarrow]"})
    frame["t"] = pandas.to_datetime(frame["t"]).astype("timestamp[ns][pyarrow]")
    graph, ids = from_frame(frame, "u", "v", "t")
    assert ids.tolist() == ["a", "b", "c"] and listed(graph) == [(0, 2, DAY), (1, 0, DAY + 86400)]


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
