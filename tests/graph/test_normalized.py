"""The weights of the normalised adjacency: against DGL's, against a dense matrix, and where a degree is zero."""

import dgl
import pytest
import torch
from dgl.nn.pytorch import EdgeWeightNorm, GraphConv

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, ShapeError
from zoo import ZOO, build, typed_graph


@pytest.mark.parametrize("weighted", [False, True], ids=["ones", "weights"])
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", ZOO)
def test_equals_the_definition(name, idtype, weighted):
    graph = build(name, idtype)
    src, dst = (x.long() for x in graph.edges(order="eid"))
    weight = torch.rand(len(src)) + 0.1 if weighted else torch.ones(len(src))
    degree = {"src": [0.0] * graph.num_src_nodes(), "dst": [0.0] * graph.num_dst_nodes()}
    for u, v, w in zip(src.tolist(), dst.tolist(), weight.tolist(), strict=True):
        degree["src"][u] += w
        degree["dst"][v] += w
    for norm in ("both", "right", "left", "none"):
        expected = []
        for u, v, w in zip(src.tolist(), dst.tolist(), weight.tolist(), strict=True):
            d = {"both": (degree["src"][u] * degree["dst"][v]) ** 0.5, "right": degree["dst"][v]}
            expected.append(w / {**d, "left": degree["src"][u], "none": 1.0}[norm])
        got = hgraph.normalized(graph, norm, weight if weighted else None)
        assert got.dtype == torch.float32 and got.shape == (graph.num_edges(),)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), atol=0, rtol=1e-6)


@pytest.mark.parametrize("norm", ["both", "right", "none"])
def test_equals_dgls(norm):
    for name in ("homogeneous", "hub", "bipartite", "block", "multi_edges"):
        graph = build(name)
        weight = torch.rand(graph.num_edges()) + 0.1
        for given in (weight, torch.ones(graph.num_edges())):
            torch.testing.assert_close(hgraph.normalized(graph, norm, given), EdgeWeightNorm(norm)(graph, given))


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
def test_sums_with_it_are_dgls_graph_convolution(norm):
    graph = build("homogeneous")
    feat, conv = torch.randn(23, 5), GraphConv(5, 5, norm=norm, weight=False, bias=False)
    torch.testing.assert_close(ops.propagate(graph, feat, hgraph.normalized(graph, norm)), conv(graph, feat))


def test_a_degree_of_zero_gives_no_infinity():
    graph = dgl.graph(([0, 0, 1, 2], [1, 2, 2, 3]), num_nodes=6)
    weight = torch.tensor([0.0, 0.0, 2.0, 0.0])  # nothing leaves 0 or 2, nothing enters 1 or 3
    expected = {"both": [0, 0, 1, 0], "right": [0, 0, 1, 0], "left": [0, 0, 1, 0]}
    for norm, wanted in expected.items():
        assert hgraph.normalized(graph, norm, weight).tolist() == wanted
    assert hgraph.normalized(build("empty")).shape == (0,)
    assert hgraph.normalized(build("no_nodes"), "right").shape == (0,)


def test_restricted_formats_and_whole_numbers():
    graph = build("hub")
    expected = hgraph.normalized(graph)
    for sparse in ("csr", "csc", "coo"):
        assert torch.equal(hgraph.normalized(graph.formats(sparse)), expected)
    counts = torch.arange(graph.num_edges()) % 3
    for weight in (counts, counts > 0, counts.double()):
        torch.testing.assert_close(hgraph.normalized(graph, "right", weight), _right(graph, weight.float()))
    learned = torch.rand(graph.num_edges(), requires_grad=True)
    assert not hgraph.normalized(graph, "both", learned).requires_grad


def _right(graph, weight):
    total = torch.zeros(graph.num_nodes()).index_add(0, graph.edges(order="eid")[1], weight)
    return torch.where(weight > 0, weight / total[graph.edges(order="eid")[1]], 0.0)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"graph": "graph"}, GraphError, "graph: expected a DGLGraph, got str"),
        ({"graph": typed_graph()}, GraphError, "graph: expected one relation, got 4"),
        ({"norm": "sym"}, ShapeError, r"norm: expected one of \['both', 'right', 'left', 'none'\], got 'sym'"),
        ({"norm": None}, ShapeError, "norm: expected one of"),
        ({"edge_weight": [1.0] * 120}, ShapeError, r"edge_weight: expected a tensor of real numbers \[E\], got list"),
        ({"edge_weight": torch.ones(119)}, ShapeError, r"edge_weight: expected \[E\] = \[120\], got \[119\]"),
        ({"edge_weight": torch.ones(120, 1)}, ShapeError, r"edge_weight: expected \[E\] = \[120\], got \[120, 1\]"),
        ({"edge_weight": -torch.ones(120)}, GraphError, "edge_weight: expected finite numbers not below zero"),
        ({"edge_weight": torch.full((120,), torch.nan)}, GraphError, "edge_weight: expected finite numbers"),
        ({"edge_weight": torch.ones(120) * 1j}, ShapeError, "edge_weight: expected a tensor of real numbers"),
    ],
)
def test_wrong_calls_are_one_sentence(change, error, match):
    with pytest.raises(error, match=match) as caught:
        hgraph.normalized(**{"graph": build("homogeneous"), **change})
    assert "\n" not in str(caught.value)
