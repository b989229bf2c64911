"""Leaders: whose word the class is, by hand; the same draw gives the same graphs."""

import dgl
import pytest
import torch

import hgat.data
from hgat.data import GraphData
from hgat.errors import DataError


def test_the_class_is_the_word_of_whom_the_neighbours_vote_for():
    data = hgat.data.load("leaders", graphs=50, least=5, most=9, classes=3)
    assert isinstance(data, GraphData) and data.name == "leaders with graphs = 50, least = 5, most = 9, classes = 3"
    rows = data.feat["_N"].split(data.graph.batch_num_nodes().tolist())
    for graph, feat, label in zip(dgl.unbatch(data.graph), rows, data.label, strict=True):
        standing = torch.stack([feat[graph.predecessors(v), 0].mean() for v in range(graph.num_nodes())])
        assert feat[standing.argmax(), 1:].argmax() == label and (feat[:, 1:].sum(1) == 1).all()
        first, second = standing.topk(2).values
        assert first - second >= 0.1 - 1e-6 and feat[:, 0].abs().max() <= 1
        src, dst = graph.edges()
        assert (src != dst).all() and graph.has_edges_between(dst, src).all() and not graph.is_multigraph
        assert (graph.in_degrees() >= 2).all() and 5 <= graph.num_nodes() <= 9
    assert sorted(torch.cat([data.train, data.val, data.test]).tolist()) == list(range(50))
    again = hgat.data.load("leaders", graphs=50, least=5, most=9, classes=3)
    assert again.feat["_N"].equal(data.feat["_N"]) and again.train.equal(data.train)
    other = hgat.data.load("leaders", graphs=50, least=5, most=9, classes=3, draw=1)
    assert not other.label.equal(data.label)


@pytest.mark.parametrize("options", [{"graphs": 9}, {"least": 3}, {"most": 9}, {"classes": 1}], ids=str)
def test_numbers_out_of_range(options):
    ((name, value),) = options.items()
    with pytest.raises(DataError, match=rf"leaders\.{name}: expected \d+ or more, got {value}"):
        hgat.data.load("leaders", **options)


def small(**changes):
    graph = dgl.batch([dgl.graph(([0], [1])), dgl.graph(([], [])), dgl.graph(([0], [0]))])
    parts = dict(zip(("train", "val", "test"), torch.arange(3).split(1), strict=True))
    given = {"feat": {"_N": torch.zeros(3, 2)}, "label": torch.tensor([0, 1, 0]), "num_classes": 2, **parts}
    return GraphData("g", graph, **{**given, **changes})


def test_graphs_without_nodes_or_edges_are_accepted():
    assert small().counts() == {
        **{"graphs": 3, "nodes": 3, "edges": 2, "relations": 1, "classes": 2, "features": 2},
        **{"train": 1, "val": 1, "test": 1},
    }
    assert small(feat={"_N": None}).feat["_N"] is None and small().split["val"].tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"feat": {"_N": torch.zeros(2, 2)}},
            r"feat: expected float32 or uint8 of 3 rows, got torch.float32 \[2, 2\]",
        ),
        ({"feat": {"_N": torch.zeros(3, 2).long()}}, "feat: expected float32 or uint8 of 3 rows, got torch.int64"),
        ({"feat": {"a": None}}, "feat: expected the node types _N, got a"),
        ({"edge_feat": torch.zeros(3, 1)}, "edge_feat: expected float32 or uint8 of 2 rows"),
        ({"label": torch.tensor([0, 2, 0])}, "label: expected values from -1 to 1, got 2"),
        ({"label": torch.tensor([0, 1])}, r"label: expected torch.int64 \[3\], got torch.int64 \[2\]"),
        ({"label": torch.tensor([0, -1, 0])}, "val: expected only graphs with a label, got graph 1 without one"),
        ({"label": torch.full((3, 2), 2.0), "multilabel": True}, "label: expected only 0, 1 and NaN, got 2.0"),
        ({"test": torch.tensor([1])}, "test: expected no id of val, got id 1 in both"),
        ({"test": torch.tensor([3])}, "test: expected ids from 0 to 2, got 3"),
        ({"num_classes": 0}, "num_classes: expected 1 or more, got 0"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        small(**changes)


def test_a_typed_graph_is_no_batch_of_graphs():
    typed = dgl.heterograph({("a", "to", "b"): ([0], [0])})
    with pytest.raises(DataError, match="graph: expected one relation among nodes of one type"):
        GraphData("g", typed, {}, torch.zeros(1).long(), *torch.arange(3).split(1), num_classes=1)
