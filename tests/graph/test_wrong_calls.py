"""Wrong arguments to every public function of hgat.graph: one sentence each, and none of somebody else's."""

import importlib

import dgl
import networkx
import numpy as np
import pytest
import scipy.sparse
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError, ShapeError
from hgat.graph import csr, homogeneous, metapath, relations

# hgat.graph.snapshots and hgat.graph.walks are functions with the names of their modules.
snapshots_module, recent_module = (importlib.import_module(f"hgat.graph.{name}") for name in ("snapshots", "recent"))

NOT_GRAPHS = {
    "a tensor": torch.zeros(2, 3),
    "None": None,
    "NetworkX": networkx.path_graph(3),
    "SciPy": scipy.sparse.eye(3).tocsr(),
    "a name": "cora",
    "a number": 3,
    "an edge index": (torch.tensor([0]), torch.tensor([1])),
    "an array": np.zeros((2, 3)),
    "a dict": {"graph": 1},
}


def typed():
    return dgl.heterograph({
        ("user", "likes", "film"): ([0, 1], [0, 1]),
        ("film", "liked by", "user"): ([0, 1], [0, 1]),
        ("film", "follows", "film"): ([0], [1]),
    })  # fmt: skip


def timed():
    return hgraph.from_events(([0, 1, 2], [1, 2, 0], [0, 1, 2]))


def types(count):
    return torch.zeros(count, dtype=torch.int64)


ON_GRAPHS = {
    "metapath_graph": lambda g: hgraph.metapath_graph(g, ["follows"]),
    "metapaths": lambda g: hgraph.metapaths(g, [["follows"]]),
    "metapath.prepare": lambda g: metapath.prepare(g, paths={"f": ["follows"]}),
    "union": lambda g: hgraph.disjoint_union([g, g]),
    "views": hgraph.views,
    "join": hgraph.join_relations,
    "join_types": lambda g: hgraph.join_types(g, types(3), types(3), 1, 1),
    "add_inverse": hgraph.add_inverse,
    "relations.prepare": relations.prepare,
    "homogeneous.prepare": homogeneous.prepare,
    "event_times": hgraph.event_times,
    "ppr_graph": lambda g: hgraph.ppr_graph(g, 1),
    "ppr_values": hgraph.ppr_values,
    "members": hgraph.members,
    "take_graphs": lambda g: hgraph.take_graphs(g, types(1)),
    "sub_batch": lambda g: hgraph.sub_batch(g, types(1)),
    "clique_expansion": hgraph.clique_expansion,
    "recent_neighbours": hgraph.recent_neighbours,
    "recent.prepare": recent_module.prepare,
    "snapshots": lambda g: hgraph.snapshots(g, windows=2),
    **{f"csr.{f.__name__}": f for f in (
        csr.check_graph, csr.edges, csr.edges_as_sources, csr.in_rows, csr.out_rows, csr.single_relation, csr.structure
    )},
    "csr.in_rows_by_relation": lambda g: csr.in_rows_by_relation(g, [], 1),
}  # fmt: skip


def sentence(function, *arguments):
    """The sentence that the call ends in."""
    with pytest.raises((GraphError, ShapeError)) as error:
        function(*arguments)
    text = str(error.value)
    assert "expected" in text and "got" in text and "\n" not in text and len(text) < 400
    return text


@pytest.mark.parametrize("thing", NOT_GRAPHS)
@pytest.mark.parametrize("name", ON_GRAPHS)
def test_what_is_no_graph(name, thing):
    given = NOT_GRAPHS[thing]
    text = sentence(ON_GRAPHS[name], given)
    assert text.startswith(("graph: expected ", "views: expected ")) and f"got {type(given).__name__}" in text


def test_walks_want_snapshots():
    for given in (*NOT_GRAPHS.values(), timed()):
        assert sentence(hgraph.walks, given) == (
            f"snapshots: expected what hgat.graph.snapshots gives, got {type(given).__name__}"
        )


LONG = torch.zeros(50, 3)
WHOLE = [None, "3", -1, 2.5, True, [1], LONG, 2**70]


def recent():
    return hgraph.recent_neighbours(timed())


def cut():
    return hgraph.snapshots(timed(), windows=2)


# name: (call of one argument, what it cannot be)
ARGUMENTS = {
    "metapath_graph: metapath": (
        lambda x: hgraph.metapath_graph(typed(), x), ["follows", 3, None, LONG, {"a": 1}, [3], [None], [LONG], [[]], []]
    ),
    "metapath_graph: max_pairs": (
        lambda x: hgraph.metapath_graph(typed(), ["follows"], max_pairs=x), [x for x in WHOLE if x is not None]
    ),
    "metapaths: paths": (
        lambda x: hgraph.metapaths(typed(), x), ["follows", 3, None, LONG, {}, [], ["follows"], {"f": "follows"}, {1}]
    ),
    "union: graphs": (
        hgraph.disjoint_union, [None, 3, "graph", timed(), LONG, [], {}, [timed(), None], [timed(), typed()]]
    ),
    "union: names": (
        lambda x: hgraph.disjoint_union([timed(), timed()], x), ["ab", 3, LONG, ["a"], [1, 2], [None, "a"]]
    ),
    "union: id types": (lambda x: hgraph.disjoint_union([timed(), x]), [timed().int()]),
    "join_types: ntype": (
        lambda x: hgraph.join_types(timed(), x, types(3), 1, 1), [None, 3, "a", [0, 0, 0], LONG, types(2), types(3) - 1]
    ),
    "join_types: etype": (
        lambda x: hgraph.join_types(timed(), types(3), x, 1, 1), [None, 3, "a", [0, 0, 0], LONG, types(2), types(3) + 1]
    ),
    "join_types: num_ntypes": (lambda x: hgraph.join_types(timed(), types(3), types(3), x, 1), WHOLE),
    "join_types: num_etypes": (lambda x: hgraph.join_types(timed(), types(3), types(3), 1, x), WHOLE),
    "join_types: device": (
        lambda x: hgraph.join_types(timed(), types(3), types(3), 1, 1, x),
        ["processor", LONG, ["cpu"], {"a": 1}],
    ),
    "csr.edges: device": (lambda x: csr.edges(timed(), x), ["processor", LONG, ["cpu"], {"a": 1}]),
    "event_times: etype": (lambda x: hgraph.event_times(timed(), x), ["a", 3, LONG, ["_E"], ("_N", "_E")]),
    "event_times: none of several": (hgraph.event_times, [typed()]),
    "from_events: events": (hgraph.from_events, [None, 3, "abc", LONG, [1, 2], {"a": 1}, {1, 2, 3}, typed()]),
    "from_events: num_nodes": (lambda x: hgraph.from_events(([0], [1], [2]), x), WHOLE[1:]),
    "from_events: num_nodes of a type": (
        lambda x: hgraph.from_events({("a", "r", "b"): ([0], [1], [2])}, {"a": x}), WHOLE
    ),
    "from_events: feat": (lambda x: hgraph.from_events(([0], [1], [2], x)), ["a", 3, ["a"], [[1], [2]]]),
    "from_frame: frame": (lambda x: hgraph.from_frame(x, "u", "v", "t"), [None, 3, "abc", LONG, [1], typed()]),
    "from_frame: column": (
        lambda x: hgraph.from_frame({"u": [1], "v": [2], "t": [3]}, "u", x, "t"), [None, 3, "a", LONG, ["u"]]
    ),
    "before: nodes": (lambda x: recent().before(x, [1], 2), [None, "a", 3, [0.5], [7], [-1], [[0]], [True], LONG]),
    "before: times": (lambda x: recent().before([0], x, 2), [None, "a", 3, [0.5], [None], ["a"], [[0]], [True], LONG]),
    "before: count": (lambda x: recent().before([0], [1], x), WHOLE),
    "before: sample": (lambda x: recent().before([0], [1], 2, x), [None, 3, "last", LONG, ["recent"]]),
    "snapshots: boundaries": (
        lambda x: hgraph.snapshots(timed(), boundaries=x),
        [3, "ab", LONG, [[0], [1, 2]], [None, 3], ["a", "b"], [2, 1], np.zeros(99), scipy.sparse.eye(2)],
    ),
    "snapshots: windows": (lambda x: hgraph.snapshots(timed(), windows=x), WHOLE),
    "snapshots: width": (lambda x: hgraph.snapshots(timed(), width=x), ["3", -1, True, [1], LONG, 2**70]),
    "snapshots: events": (lambda x: hgraph.snapshots(timed(), events=x), WHOLE),
    "snapshots: column": (lambda x: hgraph.snapshots(timed(), column=x), [3, LONG, "week", ["step"]]),
    "snapshots: weight": (lambda x: hgraph.snapshots(timed(), windows=2, weight=x), [None, 3, "sum", LONG, ["count"]]),
    "snapshots: a step": (lambda x: cut()[x], [None, "a", 0.5, LONG, [0]]),
    "walks: num_walks": (lambda x: hgraph.walks(cut(), num_walks=x), WHOLE),
    "walks: length": (lambda x: hgraph.walks(cut(), length=x), WHOLE),
    "walks: window": (lambda x: hgraph.walks(cut(), window=x), WHOLE),
    "walks: seed": (lambda x: hgraph.walks(cut(), seed=x), [None, "a", 0.5, LONG]),
    "csr.in_rows_by_relation: num_relations": (lambda x: csr.in_rows_by_relation(timed(), [0, 0, 0], x), WHOLE),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_another_form(name):
    function, wrong = ARGUMENTS[name]
    for given in wrong:
        sentence(function, given)


FAR = 2**60  # more than any machine has, so that nothing is ever allocated
TOO_LARGE = {
    **{name: (lambda call: lambda: call(typed_and_timed(FAR)))(ON_GRAPHS[name]) for name in (
        "metapath_graph", "metapaths", "metapath.prepare", "relations.prepare", "recent_neighbours", "recent.prepare",
        "snapshots",
    )},
    **{name: (lambda call: lambda: call(dgl.graph(([0, 1], [1, 2]), num_nodes=FAR)))(ON_GRAPHS[name]) for name in (
        "homogeneous.prepare", "csr.in_rows", "csr.out_rows", "csr.structure", "csr.in_rows_by_relation",
    )},
    "num_relations": lambda: csr.in_rows_by_relation(timed(), [0, 0, 0], FAR // 4),
    "num_relations of many nodes": lambda: csr.in_rows_by_relation(timed(), [0, 0, 0], FAR * 4),
    "num_ntypes": lambda: hgraph.join_types(timed(), types(3), types(3), FAR // 4, 1),
    "num_ntypes and num_etypes": lambda: hgraph.join_types(timed(), types(3), types(3), 2**40, 2**40),
    "count": lambda: recent().before([0], [1], FAR),
    "uniform count": lambda: recent().before([0], [1], FAR, "uniform"),
    "num_walks": lambda: hgraph.walks(cut(), num_walks=FAR),
    "length": lambda: hgraph.walks(cut(), length=FAR),
}  # fmt: skip


def typed_and_timed(nodes):
    graph = dgl.heterograph(
        {("user", "likes", "film"): ([0], [1]), ("film", "follows", "film"): ([0], [1])},
        {"user": nodes, "film": nodes},
    )
    for etype in graph.etypes:
        graph.edges[etype].data["time"] = torch.zeros(1)
    return graph


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_no_memory_holds_is_one_sentence(name):
    sentence(TOO_LARGE[name])


@pytest.mark.parametrize("settings", [{"cumulative": True, "self_loops": False}, {"cumulative": False}])
def test_links_of_many_steps_are_counted_before_they_are_made(monkeypatch, settings):
    graph = hgraph.from_events((list(range(50)), list(range(1, 51)), list(range(50))))
    monkeypatch.setattr(snapshots_module, "available", lambda: 100 * 1000)
    assert len(hgraph.snapshots(graph, windows=10, **settings)[:3].graph.ntypes) == 1
    with pytest.raises(GraphError, match="^snapshots: expected at most 1,000 .*, which the free memory holds, got "):
        hgraph.snapshots(graph, windows=400, **settings).graph  # noqa: B018


def test_any_whole_number_is_a_seed_of_walks():
    for seed in (0, -1, 2**31, 2**40, -(2**70)):
        first, again = (hgraph.walks(cut(), seed=seed).path for _ in range(2))
        assert torch.equal(first, again)
