"""Graphs of PyG, NetworkX and pandas: what goes there comes back, every column, type, time and lonely node."""

import builtins
import datetime

import dgl
import networkx
import numpy as np
import pandas
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError
from zoo import ZOO, build, typed_graph

WAYS = {
    "pyg": lambda graph: hgraph.from_pyg(hgraph.to_pyg(graph)),
    "networkx": lambda graph: hgraph.from_networkx(hgraph.to_networkx(graph))[0],
    "pandas": lambda graph: hgraph.from_pandas(*hgraph.to_pandas(graph))[0],
}
GRAPHS = [*(name for name in ZOO if name != "block"), "typed"]


def filled(name):
    """A graph of the zoo with features, labels, masks and times, its last node of every type without an edge."""
    graph = typed_graph() if name == "typed" else build(name)
    graph = dgl.add_nodes(graph, 1, ntype=graph.ntypes[0]) if name != "no_nodes" else graph
    generator = torch.Generator().manual_seed(5)
    for ntype in graph.ntypes:
        count = graph.num_nodes(ntype)
        graph.nodes[ntype].data["feat"] = torch.randn(count, 3, generator=generator)
        graph.nodes[ntype].data["label"] = torch.arange(count)
        graph.nodes[ntype].data["train_mask"] = torch.arange(count) % 2 == 0
    for etype in graph.canonical_etypes:
        count = graph.num_edges(etype)
        graph.edges[etype].data["time"] = torch.randint(0, 99, (count,), generator=generator)
        graph.edges[etype].data["feat"] = torch.rand(count, 2, generator=generator).double()
        graph.edges[etype].data["weight"] = torch.rand(count, generator=generator)
    return graph


def same(one, other, empty_columns=True):
    """Asserts that two graphs have the same types, nodes, edges in their order, and columns."""
    assert sorted(one.ntypes) == sorted(other.ntypes)  # DGL sorts them when it makes a graph
    assert one.canonical_etypes == other.canonical_etypes
    frames = [(one.num_nodes(t), one.nodes[t].data, other.nodes[t].data) for t in one.ntypes]
    for etype in one.canonical_etypes:
        for end, again in zip(one.edges(etype=etype, order="eid"), other.edges(etype=etype, order="eid"), strict=True):
            assert torch.equal(end, again)
        frames.append((one.num_edges(etype), one.edges[etype].data, other.edges[etype].data))
    for ntype in one.ntypes:
        assert one.num_nodes(ntype) == other.num_nodes(ntype)
    for count, frame, again in frames:
        if count or empty_columns:
            assert set(frame) == set(again)
            for key in frame:
                assert frame[key].dtype == again[key].dtype and torch.equal(frame[key], again[key]), key


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("way", WAYS)
def test_what_goes_there_comes_back(way, name):
    if way == "pyg":
        pytest.importorskip("torch_geometric", reason="missing the package torch_geometric")
    graph = filled(name)
    same(graph, WAYS[way](graph), empty_columns=way != "networkx")
    bare = typed_graph() if name == "typed" else build(name)
    same(bare, WAYS[way](bare))


@pytest.mark.parametrize("to", [hgraph.to_networkx, hgraph.to_pandas, hgraph.to_pyg])
def test_a_block_is_no_graph_of_its_own(to):
    if to is hgraph.to_pyg:
        pytest.importorskip("torch_geometric", reason="missing the package torch_geometric")
    with pytest.raises(GraphError, match=f"{to.__name__}: expected a graph, got a block"):
        to(build("block"))
    with pytest.raises(GraphError, match="expected a DGLGraph"):
        to(networkx.Graph())


# ---- PyTorch Geometric ----


@pytest.fixture
def pyg():
    return pytest.importorskip("torch_geometric.data", reason="missing the package torch_geometric")


def test_data_of_pyg_by_its_own_names(pyg):
    index = torch.tensor([[0, 1, 1], [1, 2, 0]])
    data = pyg.Data(x=torch.randn(5, 2), y=torch.arange(5), edge_index=index, edge_attr=torch.randn(3, 4))
    data.time, data.edge_weight, data.train_mask = torch.tensor([3, 1, 2]), torch.rand(3), torch.ones(5).bool()
    graph = hgraph.from_pyg(data)
    assert graph.num_nodes() == 5 and torch.equal(torch.stack(graph.edges()), index)
    assert set(graph.ndata) == {"feat", "label", "train_mask"} and set(graph.edata) == {"feat", "time", "weight"}
    assert torch.equal(graph.ndata["feat"], data.x) and torch.equal(graph.edata["time"], data.time)
    again = hgraph.to_pyg(graph)
    assert torch.equal(again.edge_weight, data.edge_weight) and torch.equal(again.y, data.y) and again.num_nodes == 5


def test_hetero_data_without_features(pyg):
    """Nodes are counted by the edges where nothing else says how many there are."""
    data = pyg.HeteroData()
    data["user", "likes", "film"].edge_index = torch.tensor([[0, 3], [1, 1]])
    data["actor"].num_nodes = 4
    graph = hgraph.from_pyg(data)
    assert {t: graph.num_nodes(t) for t in graph.ntypes} == {"actor": 4, "film": 2, "user": 4}
    assert graph.canonical_etypes == [("user", "likes", "film")] and not graph.nodes["user"].data
    empty = hgraph.from_pyg(pyg.Data(num_nodes=3))
    assert (empty.num_nodes(), empty.num_edges()) == (3, 0)


def test_labels_and_masks_of_pyg_count_the_nodes(pyg):
    """Without features, too: the last node has no edge, and there may be as many edges as labels."""
    index = torch.tensor([[0, 1, 1], [1, 2, 0]])
    for columns, count, of_nodes, of_edges in (
        ({"y": torch.arange(6)}, 6, {"label"}, set()),
        ({"y": torch.arange(4), "edge_index": index[:, [0, 1, 2, 0]]}, 4, {"label"}, set()),
        ({"time": torch.arange(3), "train_mask": torch.ones(5).bool()}, 5, {"train_mask"}, {"time"}),
        ({"time": torch.arange(3), "age": torch.arange(7)}, 7, {"age"}, {"time"}),
        ({"edge_mask": torch.ones(3).bool()}, 3, set(), {"mask"}),
        ({"age": torch.arange(7), "x": torch.ones(7, 1), "y": torch.arange(3)}, 7, {"age", "feat"}, {"y"}),
    ):
        graph = hgraph.from_pyg(pyg.Data(**{"edge_index": index, **columns}))
        assert (graph.num_nodes(), set(graph.ndata), set(graph.edata)) == (count, of_nodes, of_edges)
    typed = pyg.HeteroData()
    typed["user", "likes", "film"].edge_index, typed["user"].y = index, torch.arange(6)
    graph = hgraph.from_pyg(typed)
    assert graph.num_nodes("user") == 6 and graph.nodes["user"].data["label"].tolist() == list(range(6))


def test_what_pyg_has_and_a_graph_has_not(pyg):
    index = torch.tensor([[0, 1], [1, 2]])
    for data, sentence in (
        (pyg.Data(edge_index=index, num_nodes=4, name="k"), "a row for every node or edge, got 'name', which is none"),
        (pyg.Data(edge_index=index, num_nodes=4, u=torch.ones(1)), "got 'u', which is none"),
        (pyg.Data(edge_index=index, num_nodes=2), "ids of '_N' nodes from 0 to 1 in '_E', got 2"),
        (pyg.Data(edge_index=index.float(), num_nodes=4), r"edge_index \[2, E\] of whole numbers"),
        (pyg.Data(x=torch.ones(4, 1), feat=torch.ones(4, 1), edge_index=index), "one attribute for the column 'feat'"),
        (pyg.Data(adj_t=torch.eye(3).to_sparse(), num_nodes=3), "in edge_index, got adj_t"),
        ("graph", "expected a Data or HeteroData of torch_geometric, got 'graph'"),
    ):
        with pytest.raises(GraphError, match=sentence):
            hgraph.from_pyg(data)


def test_columns_come_back_from_pyg_in_their_places_or_are_refused(pyg):
    graph = build("homogeneous")
    graph.ndata["knowledge"], graph.ndata["hedge_fund"] = torch.arange(23), torch.arange(23)
    graph.ndata["_ID"], graph.ndata["num_edges"] = torch.arange(23), torch.arange(23)
    graph.edata["edge_attr"], graph.edata["x"] = torch.ones(graph.num_edges()), torch.ones(graph.num_edges())
    same(graph, WAYS["pyg"](graph))
    sentence = "to_pyg: expected columns whose names come back, got {!r} of {}; call it otherwise"
    for name in ("x", "y", "edge_count", "edge_index", "num_nodes"):
        graph = build("homogeneous")
        graph.ndata[name] = torch.ones(23)
        with pytest.raises(GraphError, match=sentence.format(name, "'_N' nodes")):
            hgraph.to_pyg(graph)
    for name in ("attr", "index"):
        graph = build("homogeneous")
        graph.edata[name] = torch.ones(graph.num_edges())
        with pytest.raises(GraphError, match=sentence.format(name, "edges of '_E'")):
            hgraph.to_pyg(graph)
    graph = typed_graph()
    ntype = graph.ntypes[0]
    graph.nodes[ntype].data["edge_count"] = torch.ones(graph.num_nodes(ntype))
    same(graph, WAYS["pyg"](graph))
    graph.nodes[ntype].data["edge_index"] = torch.ones(graph.num_nodes(ntype))
    with pytest.raises(GraphError, match=sentence.format("edge_index", f"'{ntype}' nodes")):
        hgraph.to_pyg(graph)


def test_without_pyg(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("torch_geometric"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(GraphError, match="torch_geometric: expected the package, got none; pip install"):
        hgraph.to_pyg(typed_graph())


# ---- NetworkX ----


def test_a_graph_of_names_without_directions():
    given = networkx.Graph()
    given.add_nodes_from([("ann", {"age": 3.5}), ("bob", {"age": 4.0}), ("zoe", {"age": 1.0})])
    given.add_edge("ann", "bob", time=datetime.datetime(1970, 1, 2))
    given.add_edge("bob", "bob", time=datetime.datetime(1970, 1, 3))
    graph, ids = hgraph.from_networkx(given)
    assert ids == {"_N": ("ann", "bob", "zoe")} and graph.num_nodes() == 3
    assert torch.stack(graph.edges()).tolist() == [[0, 1, 1], [1, 0, 1]]
    assert graph.edata["time"].tolist() == [86400, 86400, 172800] and graph.ndata["age"].tolist() == [3.5, 4.0, 1.0]
    named = hgraph.to_networkx(graph, ids)
    assert list(named.nodes) == ["ann", "bob", "zoe"] and named.edges["bob", "ann", 0]["time"] == 86400
    same(graph, hgraph.from_networkx(named)[0])
    assert set(hgraph.from_networkx(given, node_attrs=[], edge_attrs=["time"])[0].ndata) == set()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda g: g.add_node(7), "nodes of '_N': expected the attribute 'age' of all, got none of 7"),
        (lambda g: g.add_node(7, age="old"), "nodes of '_N': 'age': expected numbers"),
        (lambda g: g.add_node(7, age=[1, 2]), "nodes of '_N': 'age': expected numbers or arrays of one shape"),
        (lambda g: g.add_node(7, age=1, ntype="x"), "expected 'ntype' of every node, got none of 0"),
        (lambda g: g.graph.update(etypes=["to"]), "expected graph.'etypes'. of .source, name, destination., got 'to'"),
    ],
)
def test_what_networkx_has_and_a_graph_has_not(change, sentence):
    given = networkx.DiGraph([(0, 1)])
    networkx.set_node_attributes(given, 2, "age")
    change(given)
    with pytest.raises(GraphError, match=sentence):
        hgraph.from_networkx(given)
    with pytest.raises(GraphError, match="from_networkx: expected a graph of NetworkX, got 3"):
        hgraph.from_networkx(3)
    for ids in ({}, {"film": [0] * 11, "user": range(13)}):
        with pytest.raises(GraphError, match="ids: expected"):
            hgraph.to_networkx(typed_graph(), ids)


def test_columns_with_names_that_networkx_uses():
    """A column is an attribute whatever its name; only those that say type and place are taken."""
    graph = build("homogeneous")
    graph.edata["key"], graph.ndata["self"] = torch.arange(graph.num_edges()), torch.arange(23)
    same(graph, hgraph.from_networkx(hgraph.to_networkx(graph))[0])
    for what, name in (("nodes", "ntype"), ("edges", "etype"), ("edges", "eid")):
        graph = build("homogeneous")
        (graph.ndata if what == "nodes" else graph.edata)[name] = torch.arange(getattr(graph, f"num_{what}")())
        with pytest.raises(GraphError, match=f"to_networkx: expected columns of {what} with other names than '{name}'"):
            hgraph.to_networkx(graph)


def test_an_attribute_eid_of_ones_own_is_a_column_like_others():
    given = networkx.DiGraph()
    given.add_edge(0, 1, eid=7)
    given.add_edge(1, 2, eid=3)
    graph, _ = hgraph.from_networkx(given)
    assert torch.stack(graph.edges()).tolist() == [[0, 1], [1, 2]] and graph.edata["eid"].tolist() == [7, 3]


# ---- pandas ----


@pytest.fixture
def tables():
    users = pandas.DataFrame({"id": ["ann", "bob", "zoe"], "age": [30, 41, 7]})
    films = pandas.DataFrame({"id": [10, 20], "feat.0": [0.5, 1.5], "feat.1": [2.0, 3.0], "new": [True, False]})
    likes = pandas.DataFrame({"src": ["bob", "ann"], "dst": [20, 10]})
    likes["time"] = pandas.to_datetime(["1970-01-02", "1970-01-01"])
    return {"user": users, "film": films}, {("user", "likes", "film"): likes}


def test_typed_tables(tables):
    graph, ids = hgraph.from_pandas(*tables)
    assert ids == {"user": ("ann", "bob", "zoe"), "film": (10, 20)} and graph.num_nodes("user") == 3
    assert torch.stack(graph.edges()).tolist() == [[1, 0], [1, 0]]
    assert graph.edata["time"].tolist() == [86400.0, 0.0]
    assert graph.nodes["film"].data["feat"].tolist() == [[0.5, 2.0], [1.5, 3.0]]
    assert graph.nodes["film"].data["new"].dtype == torch.bool and graph.nodes["user"].data["age"].tolist() == [
        30,
        41,
        7,
    ]
    again = hgraph.from_pandas(*hgraph.to_pandas(graph, ids))
    same(graph, again[0])
    assert again[1] == ids


def test_tables_of_one_type_and_nodes_without_a_table(tables):
    films = pandas.DataFrame({"id": ["x", "y", "z"]})
    graph, ids = hgraph.from_pandas(films, pandas.DataFrame({"a": ["z"], "b": ["x"]}), src="a", dst="b")
    assert torch.stack(graph.edges()).tolist() == [[2], [0]] and graph.num_nodes() == 3
    graph, ids = hgraph.from_pandas({}, tables[1])
    assert ids == {"user": ("ann", "bob"), "film": (10, 20)}
    graph, _ = hgraph.from_pandas({"n": pandas.DataFrame({"id": [1], "v": pandas.array([None], dtype="Int64")})}, {})
    assert graph.nodes["n"].data["v"].isnan().all() and graph.num_edges() == 0


@pytest.mark.parametrize(
    "place, change, sentence",
    [
        ("user", {"drop": "id"}, "nodes of 'user': expected the column 'id', got age"),
        ("likes", {"drop": "dst"}, "edges of 'likes': expected the column 'dst', got src, time"),
        ("user", {"id": ["a", "a", "b"]}, "nodes of 'user': expected each id once, got 'a' twice"),
        ("user", {"id": ["a", None, "b"]}, "nodes of 'user': expected an id in every row, got none in row 1"),
        ("user", {"age": ["1", "2", "x"]}, "nodes of 'user': the column 'age'.*: expected numbers, got"),
        ("user", {"age": pandas.Categorical(["p", "q", "p"])}, "the column 'age'.*: expected numbers, got"),
        ("likes", {"src": ["bob", "eve"]}, "expected ids of 'user' nodes in the column 'src', got 'eve'"),
        ("likes", {"dst": ["20", "10"]}, "expected ids of 'film' nodes in the column 'dst', got '20'"),
        ("film", {"feat.3": [1, 2]}, "nodes of 'film': expected the columns feat.0 to feat.2, got .0, 1, 3."),
    ],
)
def test_a_table_that_does_not_fit(tables, place, change, sentence):
    nodes, edges = tables
    table = nodes.get(place, edges["user", "likes", "film"])
    table = table.drop(columns=change["drop"]) if "drop" in change else table.assign(**change)
    nodes, edges = {**nodes, **({place: table} if place in nodes else {})}, edges if place in nodes else {
        ("user", "likes", "film"): table
    }  # fmt: skip
    with pytest.raises(GraphError, match=sentence):
        hgraph.from_pandas(nodes, edges)


def test_no_tables_and_columns_that_no_table_has(tables):
    with pytest.raises(GraphError, match="nodes: expected a data frame or a dict of them, got 3"):
        hgraph.from_pandas(3, {})
    with pytest.raises(GraphError, match=r"edges: expected \(source type, name, destination type\), got 'likes'"):
        hgraph.from_pandas(tables[0], {"likes": tables[1]["user", "likes", "film"]})
    graph = build("homogeneous")
    graph.ndata["cube"] = torch.ones(23, 2, 2)
    with pytest.raises(GraphError, match=r"to_pandas: expected columns \[N\] or \[N, F\], got \[23, 2, 2\] in 'cube'"):
        hgraph.to_pandas(graph)
    graph.ndata.pop("cube")
    graph.ndata["id"] = torch.arange(23)
    with pytest.raises(GraphError, match="to_pandas: expected columns with names of their own, got 'id' twice"):
        hgraph.to_pandas(graph)
    graph.ndata.pop("id")
    for name, column, sentence in (
        ("a.0", torch.ones(23), "expected columns whose names come back, got 'a.0'; call it otherwise"),
        ("half", torch.ones(23).bfloat16(), "expected numbers of a type that NumPy has, got bfloat16 in 'half'"),
    ):
        graph.ndata[name] = column
        with pytest.raises(GraphError, match=f"to_pandas: {sentence}"):
            hgraph.to_pandas(graph)
        graph.ndata.pop(name)
    graph.ndata["a.0"] = torch.ones(23, 2)  # a.0.0 and a.0.1
    same(graph, WAYS["pandas"](graph))
    with pytest.raises(GraphError, match="ids: expected 23 names of '_N' nodes, got 0"):
        hgraph.to_pandas(graph, {"user": np.arange(3)})
