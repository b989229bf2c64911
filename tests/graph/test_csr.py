"""Edges as sorted arrays, against loops; and the cache that lives and dies with the graph."""

import copy
import gc
import pickle
import weakref

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph import csr
from zoo import ZOO, build, typed_graph

IDTYPES = pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
EVERY = pytest.mark.parametrize("name", ZOO)


def _lists(graph):
    """(source, destination) of every edge in edge order, asked for one edge at a time."""
    pairs = []
    for edge in range(graph.num_edges()):
        src, dst = graph.find_edges(torch.tensor([edge], dtype=graph.idtype))
        pairs.append((int(src), int(dst)))
    return [u for u, _ in pairs], [v for _, v in pairs]


def _group(key, other, num_rows):
    """Rows by brute force: for each row the edges in edge order and their far ends."""
    edge_id = [[e for e, k in enumerate(key) if k == row] for row in range(num_rows)]
    return edge_id, [[other[e] for e in row] for row in edge_id]


def _check_rows(rows, key, other, num_rows):
    edge_id, far = _group(key, other, num_rows)
    assert rows.num_rows == num_rows
    assert rows.indptr.dtype == rows.other.dtype == rows.edge_id.dtype == torch.int64
    assert rows.indptr[0] == 0 and rows.indptr[-1] == len(key) == rows.other.numel() == rows.edge_id.numel()
    for k in range(num_rows):
        here = slice(int(rows.indptr[k]), int(rows.indptr[k + 1]))
        assert rows.edge_id[here].tolist() == edge_id[k]
        assert rows.other[here].tolist() == far[k]


@IDTYPES
@EVERY
def test_edges_are_in_the_graphs_order(name, idtype):
    graph = build(name, idtype)
    src, dst = csr.edges(graph)
    assert src.dtype == dst.dtype == torch.int64
    assert (src.tolist(), dst.tolist()) == _lists(graph)


@IDTYPES
@EVERY
def test_rows_equal_brute_force(name, idtype):
    graph = build(name, idtype)
    src, dst = _lists(graph)
    _check_rows(csr.in_rows(graph), dst, src, graph.num_dst_nodes())
    _check_rows(csr.out_rows(graph), src, dst, graph.num_src_nodes())
    assert torch.diff(csr.in_rows(graph).indptr).tolist() == graph.in_degrees().tolist()


@IDTYPES
@EVERY
def test_rows_by_relation_equal_brute_force(name, idtype):
    graph = build(name, idtype)
    src, dst = _lists(graph)
    relation = torch.randint(0, 3, (graph.num_edges(),), dtype=idtype)
    # One relation more than occurs: the last row of every node stays empty.
    rows = csr.in_rows_by_relation(graph, relation, 4)
    key = [v * 4 + r for v, r in zip(dst, relation.tolist(), strict=True)]
    _check_rows(rows, key, src, graph.num_dst_nodes() * 4)


@EVERY
def test_out_rows_are_the_transpose_of_in_rows(name):
    graph = build(name)
    if graph.is_block:
        graph = dgl.block_to_graph(graph)
    flipped = dgl.reverse(graph)
    for got, expected in (
        (csr.out_rows(graph), csr.in_rows(flipped)),
        (csr.in_rows(graph), csr.out_rows(flipped)),
    ):
        for field in ("indptr", "other", "edge_id"):
            assert torch.equal(getattr(got, field), getattr(expected, field))
    dense = torch.zeros(graph.num_dst_nodes(), graph.num_src_nodes())
    transposed = dense.T.clone()
    for into, rows in ((dense, csr.in_rows(graph)), (transposed, csr.out_rows(graph))):
        row = torch.repeat_interleave(torch.arange(rows.num_rows), torch.diff(rows.indptr))
        into.index_put_((row, rows.other), torch.ones(rows.other.numel()), accumulate=True)
    assert torch.equal(dense, transposed.T)


@IDTYPES
@EVERY
def test_edges_as_sources(name, idtype):
    graph = build(name, idtype)
    found = csr.edges_as_sources(graph)
    assert found.idtype == idtype
    assert (found.num_src_nodes(), found.num_dst_nodes()) == (graph.num_edges(), graph.num_dst_nodes())
    src, dst = found.edges(order="eid")
    assert src.tolist() == list(range(graph.num_edges()))
    assert dst.tolist() == _lists(graph)[1]


def test_edge_order_survives_another_sparse_format():
    """DGL lists the edges of a graph held as CSC by destination, unless it is asked for their numbers."""
    graph = build("hub")
    src, dst = _lists(graph)
    for sparse in ("csr", "csc", "coo"):
        other = graph.formats(sparse)
        assert [x.tolist() for x in csr.edges(other)] == [src, dst]
        _check_rows(csr.in_rows(other), dst, src, graph.num_dst_nodes())


ARRAYS = (csr.edges, csr.in_rows, csr.out_rows, csr.edges_as_sources)


@pytest.mark.parametrize("build_array", ARRAYS, ids=lambda f: f.__name__)
def test_arrays_are_built_once_and_follow_every_change(build_array):
    graph = build("homogeneous")
    first = build_array(graph)
    assert build_array(graph) is first
    graph.ndata["x"] = torch.ones(23, 2)  # features are not structure
    assert build_array(graph) is first
    with graph.local_scope():
        assert build_array(graph) is first
    assert build_array(graph.local_var()) is first

    def fresh(changed):
        """The value is new, and the one that a graph without any cache gets."""
        src, dst = _lists(changed)
        again = build_array(changed)
        assert again is not first
        plain = dgl.graph((src, dst), num_nodes=changed.num_nodes())
        if build_array is csr.edges:
            assert [x.tolist() for x in again] == [src, dst]
        elif build_array is csr.edges_as_sources:
            assert again.edges(order="eid")[1].tolist() == dst and again.num_dst_nodes() == changed.num_nodes()
        else:
            assert torch.equal(again.indptr, build_array(plain).indptr)
            assert torch.equal(again.other, build_array(plain).other)
            assert torch.equal(again.edge_id, build_array(plain).edge_id)

    fresh(dgl.add_self_loop(graph))
    assert build_array(graph) is first  # a new graph, and the old one as it was
    graph.add_edges(torch.tensor([3, 5]), torch.tensor([7, 11]))
    fresh(graph)
    graph.add_nodes(2)
    fresh(graph)
    graph.remove_edges(torch.tensor([0, 13, 17]))
    fresh(graph)
    graph.remove_nodes(torch.tensor([2, 19]))
    fresh(graph)


def test_copies_have_arrays_of_their_own():
    graph = build("homogeneous")
    first = csr.in_rows(graph)
    for other in (graph.clone(), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.int()):
        other.add_edges(torch.tensor([1], dtype=other.idtype), torch.tensor([2], dtype=other.idtype))
        assert csr.in_rows(other).edge_id.numel() == graph.num_edges() + 1
    assert csr.in_rows(graph) is first and first.edge_id.numel() == graph.num_edges()


def test_devices_have_arrays_of_their_own():
    graph = build("homogeneous")
    there = csr.edges(graph, "meta")
    assert there[0].device.type == "meta"
    assert csr.edges(graph)[0].device.type == "cpu"
    assert csr.edges(graph, "meta") is there


@pytest.mark.parametrize("build_array", ARRAYS, ids=lambda f: f.__name__)
def test_arrays_are_freed_with_the_graph(build_array):
    graph = build("homogeneous")
    value = build_array(graph)
    watched = [weakref.ref(x) for x in (value if isinstance(value, tuple) else (value,))]
    watched.append(weakref.ref(graph))
    del value, graph
    gc.collect()
    assert [w() for w in watched] == [None] * len(watched)


def test_arrays_of_a_changed_graph_are_freed_at_once():
    graph = build("homogeneous")
    watched = weakref.ref(csr.in_rows(graph))
    assert watched() is not None
    graph.add_edges(torch.tensor([1]), torch.tensor([2]))
    gc.collect()
    assert watched() is None


def test_values_are_built_once_per_key():
    graph = build("homogeneous")
    calls = []

    def value():
        calls.append(1)
        return object()

    assert csr.cached(graph, ("mine",), value) is csr.cached(graph, ("mine",), value)
    csr.cached(graph, ("yours",), value)
    assert len(calls) == 2

    # An index that keeps nothing is served too, at the price of a build per call.
    class Bare:
        _graph = object()

    csr.cached(Bare(), ("mine",), value)
    csr.cached(Bare(), ("mine",), value)
    assert len(calls) == 4


@pytest.mark.parametrize(("relation", "error", "sentence"), [
    (lambda e: torch.zeros(e - 1, dtype=torch.int64), ShapeError, r"expected \[E\] = \[120\], got \[119\]"),
    (lambda e: torch.zeros(e, 1, dtype=torch.int64), ShapeError, r"expected \[E\] = \[120\], got \[120, 1\]"),
    (lambda e: torch.tensor(0), ShapeError, r"expected \[E\] = \[120\], got \[\]"),
    (lambda e: torch.full((e,), 3), GraphError, "expected numbers from 0 to 2, got 3 to 3"),
    (lambda e: torch.arange(e) - 1, GraphError, "expected numbers from 0 to 2, got -1 to 118"),
    # 0.7 would be cut to relation 0 without a word.
    (lambda e: torch.full((e,), 0.7), ShapeError, "expected whole numbers, got torch.float32"),
    (lambda e: ["likes"] * e, ShapeError, r"expected \[E\] whole numbers, got list"),
    (lambda e: None, ShapeError, r"expected \[E\] whole numbers, got NoneType"),
])  # fmt: skip
def test_bad_relation_arrays_are_one_sentence(relation, error, sentence):
    graph = build("homogeneous")
    with pytest.raises(error, match=f"^relation: {sentence}$"):
        csr.in_rows_by_relation(graph, relation(graph.num_edges()), 3)


def test_relations_of_no_edges():
    graph = build("empty")
    assert csr.in_rows_by_relation(graph, [], 3).num_rows == 21
    assert csr.in_rows_by_relation(graph, [], 0).num_rows == 0
    with pytest.raises(GraphError, match="num_relations: expected 0 or more, got -1"):
        csr.in_rows_by_relation(graph, [], -1)


@pytest.mark.parametrize("function", [*ARRAYS, lambda g: csr.in_rows_by_relation(g, [], 1), csr.single_relation])
def test_several_relations_and_other_things_are_refused(function):
    with pytest.raises(GraphError, match=r"graph: expected one relation, got 4; take one with graph\[etype\]"):
        function(typed_graph())
    with pytest.raises(GraphError, match="graph: expected a DGLGraph, got dict"):
        function({})
