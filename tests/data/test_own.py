"""Graphs, labels and splits of one's own, and the file that keeps them."""

import dataclasses
import json

import dgl
import networkx
import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load, save

import hgat
from hgat.data import EventData, GraphData, NodeData, folder, node_data
from hgat.data.saved import KINDS, pack
from hgat.data.split import shares
from hgat.errors import DataError, GraphError
from zoo import typed_graph

PARTS = ("train", "val", "test")


def same(one, other):
    """Whether two values of a data set's fields are alike, graphs by their edges and columns."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    if isinstance(one, dgl.DGLGraph):
        frames = [(one.nodes[t].data, other.nodes[t].data) for t in one.ntypes]
        frames += [(one.edges[e].data, other.edges[e].data) for e in one.canonical_etypes]
        edges = [(one.edges(etype=e, order="eid"), other.edges(etype=e, order="eid")) for e in one.canonical_etypes]
        return (
            (one.ntypes, one.canonical_etypes, one.idtype) == (other.ntypes, other.canonical_etypes, other.idtype)
            and all(one.num_nodes(t) == other.num_nodes(t) for t in one.ntypes)
            and all(same(a, b) for a, b in edges)
            and all(same(dict(a), dict(b)) for a, b in frames)
            and all(same(one.batch_num_nodes(t), other.batch_num_nodes(t)) for t in one.ntypes)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def named():
    return node_data(networkx.Graph([("a", "b"), ("b", "c")]), [0, 1, 0], split=(0.4, 0.3, 0.3))


def nodes(graph=None, **more):
    graph = typed_graph() if graph is None else graph
    feat = {"film": torch.randn(11, 3), "user": None}
    return node_data(graph, torch.arange(11) % 3, target="film", feat=feat, **more)


def test_a_typed_graph_keeps_what_tasks_may_know():
    graph = typed_graph()
    graph.nodes["film"].data["label"] = torch.arange(11) % 3
    graph.nodes["film"].data["feat"] = torch.arange(22).reshape(11, 2)
    graph.edges["likes"].data["time"], graph.edges["likes"].data["label"] = torch.arange(41), torch.arange(41)
    data = node_data(graph, "label")
    assert (data.target, data.num_classes, data.class_names) == ("film", 3, ("0", "1", "2"))
    assert data.feat["user"] is None and data.feat["film"].dtype == torch.float32
    assert set(data.graph.edges["likes"].data) == {"time"} and not data.graph.nodes["film"].data
    assert "label" in graph.edges["likes"].data and "label" in graph.nodes["film"].data  # the caller's stays


def test_columns_of_edges_are_kept_or_named():
    graph = dgl.graph(([0, 1], [1, 2]), num_nodes=10)
    graph.edata["feat"], graph.edata["weight"], graph.edata["time"] = torch.arange(2), torch.ones(2), torch.arange(2)
    data = node_data(graph, torch.arange(10) % 2)
    assert torch.equal(data.edge_feat, torch.tensor([[0.0], [1.0]])) and list(data.graph.edata) == ["time"]
    assert data.notes[-1] == "Columns of edges that are left out: 'weight'."
    assert set(graph.edata) == {"feat", "weight", "time"}  # the caller's stay
    graph = typed_graph()
    graph.edges["likes"].data["feat"] = torch.arange(41)
    assert nodes(graph).edge_feat is None
    assert nodes(graph).notes[-1] == "Columns of edges that are left out: 'feat' of 'likes'."
    timed_graph = dgl.graph(([0, 1], [1, 2]))
    timed_graph.edata["time"], timed_graph.edata["feat"] = torch.arange(2), torch.ones(2, 3)
    assert hgat.data.event_data(timed_graph).notes == ("Columns of edges that are left out: 'feat'.",)


def test_labels_of_every_kind():
    graph = dgl.graph(([0, 1], [1, 2]), num_nodes=10)
    split = {"train": [0, 1], "val": [2], "test": [3]}
    named = node_data(graph, ["b", "a", "b", "c", None, "a", "a", "b", "c", np.nan], split=split)
    assert named.class_names == ("a", "b", "c") and named.label.tolist() == [1, 0, 1, 2, -1, 0, 0, 1, 2, -1]
    number = node_data(graph, np.arange(10) / 2, split=split)
    assert number.numeric and number.label.dtype == torch.float32 and number.class_names == ("number",)
    several = node_data(graph, np.eye(10)[:, :4], split=split)
    assert several.multilabel and several.num_classes == 4
    column = node_data(graph, torch.arange(10).reshape(10, 1), split=split)  # as OGB has them
    assert not column.multilabel and column.num_classes == 10
    gaps = node_data(graph, [0, 1, 1, 1, -7, 3, 0, 0, 0, 0], split=split, class_names=["p", "q", "r", "s"])
    assert gaps.num_classes == 4 and gaps.label[4] == -1 and gaps.class_names == ("p", "q", "r", "s")


@pytest.mark.parametrize("kind, given", [("Int64", [2, None, 0, 1]), ("boolean", [True, None, False, True])])
def test_labels_of_pandas_that_may_be_missing_are_classes(kind, given):
    label = pandas.Series(given, dtype=kind)
    data = node_data(([0], [1]), label, split={"train": [0], "val": [2], "test": [3]})
    assert not data.numeric and data.label.tolist() == [-1 if value is None else int(value) for value in given]


def test_splits_of_every_kind():
    graph = dgl.graph(([0, 1], [1, 2]), num_nodes=10)
    label = torch.arange(10) % 2
    masks = {part: torch.arange(10) % 3 == k for k, part in enumerate(PARTS)}
    for part, mask in masks.items():
        graph.ndata[f"{part}_mask"] = mask
    found = node_data(graph, label)
    assert all(torch.equal(found.split[part], masks[part].nonzero().flatten()) for part in PARTS)
    ogb = node_data(
        graph,
        label,
        split={"train": [4, 2], "valid": np.array([0]), "test": masks["test"].numpy() & False | (np.arange(10) == 9)},
    )
    assert [ogb.split[part].tolist() for part in PARTS] == [[4, 2], [0], [9]]
    numbers = {part: mask.long().tolist() for part, mask in masks.items()}
    found = node_data(graph, label, split=numbers)
    assert all(torch.equal(found.split[part], masks[part].nonzero().flatten()) for part in PARTS)
    assert len(node_data(graph, split=torch.tensor([0.5, 0.2, 0.2]), draws=1).train) == 5
    several = {part: torch.stack([mask, mask.roll(1)], 1) for part, mask in masks.items()}
    found = node_data(graph, label, split=several)
    assert len(found.splits) == 2 and torch.equal(found.with_split(1).test, masks["test"].roll(1).nonzero().flatten())
    drawn = node_data(graph, label, split=(0.4, 0.2, 0.2), draws=3)
    assert len(drawn.splits) == 3 and [len(drawn.split[part]) for part in PARTS] == [4, 2, 2]


def test_shares_are_of_every_class_alike_and_decided_by_the_seed():
    label = torch.cat([torch.zeros(60), torch.ones(30), torch.full((10,), 2), torch.full((5,), -1)]).long()
    known = (label >= 0).nonzero().flatten()
    cut = shares(known, label, (0.5, 0.3, 0.2), 0)
    counts = [label[cut[part]].bincount(minlength=3).tolist() for part in PARTS]
    assert counts == [[30, 15, 5], [18, 9, 3], [12, 6, 2]]
    assert torch.equal(torch.cat(list(cut.values())).sort().values, known)
    again, other = (shares(known, label, (0.5, 0.3, 0.2), seed) for seed in (0, 1))
    assert all(torch.equal(cut[part], again[part]) for part in PARTS)
    assert not torch.equal(cut["train"], other["train"])
    plain = shares(known, None, (0.5, 0.3, 0.2), 0)
    assert [len(ids) for ids in plain.values()] == [50, 30, 20]


@pytest.mark.parametrize(
    "graph, label, more, sentence",
    [
        ("graph", [0, 1], {}, "graph: expected a DGLGraph, PyG's, .*, got 'graph'"),
        (([0, 1], [1, 5]), [0, 1, 0], {}, "graph: expected two arrays of node ids"),
        (([0, -1], [1, 1]), [0, 1, 0], {}, "graph: expected two arrays of node ids .*negative"),
        (
            ([0.5, 1], [1, 2]),
            [0, 1, 0],
            {},
            "two arrays of node ids .E., got others: ids of float64, which are no whole",
        ),
        (([0, 1], [1, 2, 0]), [0, 1, 0], {}, r"two arrays of node ids .E., got others: shapes \[2\] and \[3\]$"),
        ("typed", [0] * 11, {"target": "film", "split": {"train": [0], "val": [11], "test": [2]}}, "0 to 10, got 11"),
        (([0, 1], [1, 2]), [[0], [1]], {"feat": np.ones((3, 2))}, "graph: expected two arrays of node ids"),
        ("typed", [0] * 11, {}, "target: expected the node type to predict, one of film, user, got none"),
        ("typed", [0] * 11, {"target": "actor"}, "target: expected one of film, user, got 'actor'"),
        ("typed", [0] * 5, {"target": "film"}, r"label: expected \[N\] or \[N, C\] with N = 11, got \[5\]"),
        ("typed", [0] * 11, {"target": "film", "feat": "x"}, "feat: expected a column of ndata, which has none, got"),
        ("typed", [0] * 11, {"target": "film", "feat": {"actor": None}}, "feat: expected the node types film, user"),
        ("typed", [0] * 11, {"target": "film", "feat": ["a"] * 11}, "feat: expected numbers .N, F. of 'film' nodes"),
        ("typed", [0] * 11, {"target": "film", "split": (0.5, 0.6, 0.1)}, "split: expected three shares above 0"),
        ("typed", [0] * 11, {"target": "film", "split": 0.5}, "split: expected three shares above 0"),
        ("typed", [0] * 11, {"target": "film", "split": {"train": [0]}}, "split: expected the parts train, val, test"),
        ("typed", [0] * 11, {"target": "film", "draws": 0}, "draws: expected 1 or more, got 0"),
        (
            "typed",
            [0] * 11,
            {"target": "film", "split": {"train": [0], "val": [True] * 3, "test": [2]}},
            r"split: expected ids \[K\], or a mask \[11\] of bool, of val, got bool \[3\]",
        ),
        (
            "typed",
            [0] * 11,
            {"target": "film", "split": {"train": [0], "val": [0], "test": [2]}},
            "val: expected no id",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(graph, label, more, sentence):
    with pytest.raises(DataError, match=sentence):
        node_data(typed_graph() if graph == "typed" else graph, label, **more)


@pytest.fixture
def tables(tmp_path):
    """A folder of films with genres and years, and users who like them."""
    (tmp_path / "mine").mkdir()
    years = "\n".join(f"f{k},{1990 + k},{k / 2},{'noir' if k % 2 else 'western'}" for k in range(10))
    (tmp_path / "mine" / "film.nodes.csv").write_text(f"id,year,score,genre\n{years}\n")
    likes = "\n".join(f"{k % 4},f{k % 9},2020-01-{k + 1:02d}" for k in range(20))
    (tmp_path / "mine" / "user.likes.film.edges.csv").write_text(f"src,dst,time\n{likes}\n")
    return tmp_path / "mine"


def test_a_folder_of_tables(tables):
    data = hgat.data.load("folder", path=str(tables), label="genre", split=[0.5, 0.2, 0.3])
    assert (data.name, data.target, data.class_names) == ("mine", "film", ("noir", "western"))
    assert data.graph.num_nodes("film") == 10 and data.graph.num_nodes("user") == 4  # f9 has no edge
    assert data.feat["user"] is None and data.feat["film"][3].tolist() == [1993.0, 1.5]
    assert data.label.tolist() == [1, 0] * 5 and len(data.train) == 5
    assert data.graph.edata["time"].diff().unique().tolist() == [86400.0]
    assert data.ids == {"film": tuple(f"f{k}" for k in range(10))}  # users are called by their numbers
    nodes, edges = folder.tables(tables)
    nodes["film"] = nodes["film"].drop(columns="genre")
    number = node_data((nodes, edges), "score")
    assert number.numeric and number.feat["film"].shape == (10, 1) and number.class_names == ("score",)


@pytest.mark.parametrize(
    "change, label, sentence",
    [
        (
            lambda at: (at / "x.csv").write_text("a\n1\n"),
            "genre",
            "mine: expected files that are called TYPE.nodes.csv",
        ),
        (lambda at: (at / "user.likes.film.edges.csv").unlink(), "genre", "expected tables of edges, got none"),
        (
            lambda at: (at / "film.nodes.csv").write_text(""),
            "genre",
            "film.nodes.csv: expected a table, got No columns",
        ),
        (lambda at: None, "kind", "label: expected a column of one table of nodes, .*genre.*, got 'kind'"),
        (lambda at: None, "score", "nodes of 'film': expected numbers in all columns .*, got text in genre"),
        (lambda at: (at / "actor.nodes.csv").write_text("id,genre\n1,x\n"), "genre", "a column of one table of nodes"),
    ],
)
def test_tables_that_do_not_fit(tables, change, label, sentence):
    change(tables)
    with pytest.raises((DataError, GraphError), match=sentence):
        hgat.data.load("folder", path=str(tables), label=label)


def test_text_and_names_of_a_graph_of_networkx():
    given = networkx.Graph([("a", "b"), ("b", "c"), ("c", "d")])
    networkx.set_node_attributes(given, {"a": "x", "b": "y", "d": "x"}, "club")
    data = node_data(given, "club", split={"train": [0], "val": [1], "test": [3]})
    assert data.class_names == ("x", "y") and data.label.tolist() == [0, 1, -1, 0]
    assert data.ids == {"_N": ("a", "b", "c", "d")} and "club" in given.nodes["a"]
    assert node_data(networkx.path_graph(4), [0, 1, 0, 1]).ids is None
    with pytest.raises(DataError, match="own: ids: expected a name for every node of a type of the graph, got 3 of"):
        dataclasses.replace(data, ids={"_N": ("a", "b", "c")})
    with pytest.raises(DataError, match="target: expected the node type to predict, one of _N, got 'film'"):
        node_data(given, "club", target="film")


def test_graphs_of_other_libraries():
    given = networkx.path_graph(6)
    for node in given:
        given.nodes[node].update(label=node % 2, feat=[float(node), 1.0])
    given.add_node(6, label=0, feat=[0.0, 0.0])
    data = node_data(given, "label", split=(0.4, 0.3, 0.3))
    assert data.label.tolist() == [0, 1] * 3 + [0] and data.graph.num_edges() == 10 and data.feat["_N"].shape == (7, 2)
    pyg = pytest.importorskip("torch_geometric.data", reason="missing the package torch_geometric")
    theirs = pyg.Data(x=data.feat["_N"], y=data.label, edge_index=torch.stack(data.graph.edges()))
    again = node_data(theirs, "label", split=(0.4, 0.3, 0.3))
    assert all(same(getattr(again, key), getattr(data, key)) for key in ("graph", "feat", "label", "train"))


def timed():
    graph = typed_graph()
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.arange(graph.num_edges(etype)).flip(0).double() / 3
    return hgat.data.event_data(graph)


def test_times_are_as_exact_as_tasks_take_them():
    graph = dgl.graph(([0, 1], [1, 2]))
    graph.edata["time"] = torch.tensor([2.5, 1.0])
    time = hgat.data.event_data(graph).graph.edata["time"]
    assert time.dtype == torch.float64 and time.tolist() == [1.0, 2.5]


def batch():
    graph = dgl.batch([dgl.graph(([0], [1]), num_nodes=3), dgl.graph(([], []), num_nodes=2), dgl.graph(([1], [0]))])
    ids = [torch.tensor([k]) for k in range(3)]
    return GraphData("many", graph, {"_N": torch.zeros(7, 2, dtype=torch.uint8)}, torch.tensor([0, 1, 0]), *ids, 2)


@pytest.mark.parametrize("made", [nodes, named, timed, batch], ids=["nodes", "named", "events", "graphs"])
def test_what_is_saved_comes_back(made, tmp_path):
    data, path = made(), tmp_path / "own.safetensors"
    hgat.data.save(data, path)
    again = hgat.data.load("saved", path=str(path))
    assert type(again) is type(data)
    for field in dataclasses.fields(data):
        assert same(getattr(data, field.name), getattr(again, field.name)), field.name
    assert pack(again) == path.read_bytes()
    if isinstance(data, EventData):
        assert all((again.graph.edges[e].data["time"].diff() >= 0).all() for e in again.graph.canonical_etypes)


def test_every_kind_of_data_can_be_saved():
    assert set(KINDS) == {name for name in hgat.data.__all__ if name.endswith("Data")}


def test_what_no_file_can_hold_is_refused():
    data = nodes()
    fitted = NodeData(**{f.name: getattr(data, f.name) for f in dataclasses.fields(data)} | {"fitted": lambda ids: ids})
    with pytest.raises(DataError, match="save: expected tensors, graphs, numbers and texts .*, got function in fitted"):
        pack(fitted)
    with pytest.raises(DataError, match="save: expected one of EventData, .*, got dict"):
        pack({})


def edited(content, change):
    about = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["hgat"])
    tensors = load(content)
    change(about, tensors)
    return save(tensors, metadata={"hgat": json.dumps(about)})


EDITS = {
    "another class": lambda about, tensors: about.update(kind="Path"),
    "no such field": lambda about, tensors: about["fields"].update(more=1),
    "a field less": lambda about, tensors: about["fields"].pop("graph"),
    "a tensor less": lambda about, tensors: tensors.pop("label"),
    "a tag of another kind": lambda about, tensors: about["fields"].update(label={"import": "os"}),
    "a node that there is not": lambda about, tensors: tensors["graph.edge.0.src"].fill_(10**6),
    "a negative node": lambda about, tensors: tensors["graph.edge.0.src"].fill_(-1),
    "labels out of range": lambda about, tensors: tensors["label"].fill_(9),
    "a text for a number": lambda about, tensors: about["fields"].update(num_classes="3"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_was_edited_is_one_sentence(edit, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(edited(pack(nodes()), EDITS[edit]))
    with pytest.raises(DataError, match="expected") as caught:
        hgat.data.load("saved", path=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pack(nodes())[:-3]], ids=["empty", "zip", "torn"])
def test_another_file_is_one_sentence(content, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="own.safetensors: expected a file of data that hgat saved, got another"):
        hgat.data.load("saved", path=str(path))
