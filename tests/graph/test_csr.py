"""Edges as sorted arrays, against loops; and the cache that lives and dies with the graph."""

import copy
import gc
import pickle
import weakref
from types import SimpleNamespace
from typing import NamedTuple

import dgl
import pytest
import scipy.sparse
import torch

import hgat.nn
from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.graph import csr, homogeneous
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


def _made(pointers, ends, edges=(), form="csr", nodes=3):
    arrays = [torch.as_tensor(x, dtype=torch.int64) for x in (pointers, ends, edges)]
    return dgl.graph((form, arrays), num_nodes=nodes)


EDGES = r"\('_N', '_E', '_N'\)"
# What DGL makes graphs of without a look at it, and follows in native code.
UNCHECKED = {
    "a negative end": (lambda f: _made([0, 2, 3, 3], [1, -1, 2], form=f), f"numbers of {EDGES} from 0 to 2, got -1"),
    "pointers that fall": (lambda f: _made([0, 3, 1, 3], [1, 0, 2], form=f), "from 0 to 3, got 4 from 0 to 3"),
    "a negative pointer": (lambda f: _made([0, -3, 1, 3], [1, 0, 2], form=f), "from 0 to 3, got 4 from -3 to 3"),
    "a first pointer of 1": (lambda f: _made([1, 1, 2, 3], [1, 0, 2], form=f), "from 0 to 3, got 4 from 1 to 3"),
    "a last pointer too far": (lambda f: _made([0, 1, 2, 9], [1, 0, 2], form=f), "from 0 to 3, got 4 from 0 to 9"),
    "a last pointer too near": (lambda f: _made([0, 1, 2, 2], [1, 0, 2], form=f), "from 0 to 3, got 4 from 0 to 2"),
    "an edge number too large": (
        lambda f: _made([0, 1, 2, 3], [1, 0, 2], [0, 1, 9], f),
        f"edge numbers of {EDGES} from 0 to 2, got 9",
    ),
    "an edge number far away": (
        lambda f: _made([0, 1, 2, 3], [1, 0, 2], [0, 1, 10**12], f),
        f"edge numbers of {EDGES} from 0 to 2, got 1000000000000",
    ),
    "a negative edge number": (
        lambda f: _made([0, 1, 2, 3], [1, 0, 2], [0, 1, -1], f),
        f"edge numbers of {EDGES} from 0 to 2, got -1",
    ),
    "an edge number twice": (
        lambda f: _made([0, 1, 2, 3], [1, 0, 2], [0, 1, 1], f),
        f"every edge number of {EDGES} once, got some of them again",
    ),
    "a negative node of a list": (
        lambda f: dgl.graph((torch.tensor([0, -1]), torch.tensor([1, 2])), num_nodes=3),
        f"source numbers of {EDGES} from 0 to 2, got -1",
    ),
    "a node that int32 has made negative": (
        lambda f: dgl.graph((torch.tensor([0, 1]), torch.tensor([1, 2**31 + 1])), idtype=torch.int32, num_nodes=3),
        f"destination numbers of {EDGES} from 0 to 2, got -2147483647",
    ),
}  # fmt: skip


def _attention(backend):
    def run(graph):
        x = torch.zeros(3, 2, 2)
        with ops.use_backend(backend):
            ops.dot_product_attention(graph, x, x, x)

    return run


READERS = {
    **{f.__name__: f for f in (*ARRAYS, csr.structure, csr.numbered, csr.rebuilt)},
    "by relation": lambda g: csr.in_rows_by_relation(g, torch.zeros(g.num_edges()), 1),
    "plain": homogeneous.prepare,
    "both directions": lambda g: homogeneous.prepare(g, undirected=True),
    "meta-path": lambda g: hgraph.metapath_graph(g, ["_E", "_E"]),
    "join": hgraph.join_relations,
    "types": lambda g: hgraph.join_types(g, torch.zeros(3).long(), torch.zeros(g.num_edges()).long(), 1, 1),
    "inverse": hgraph.add_inverse,
    "union": lambda g: hgraph.disjoint_union([g, g]),
    "views": hgraph.views,
    "recent": lambda g: hgraph.recent_neighbours(_with_times(g)),
    "snapshots": lambda g: hgraph.snapshots(_with_times(g), windows=2),
    "native": _attention("native"),
    "dgl": _attention("dgl"),
    "layer": lambda g: hgat.nn.GATConv(2, 2, 2)(g, torch.zeros(3, 2)),
}  # fmt: skip


def _with_times(graph):
    graph.edata["time"] = torch.arange(graph.num_edges())
    return graph


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("fault", UNCHECKED)
def test_edges_that_nobody_has_checked_are_one_sentence(fault, form, reader):
    """Before any native code: DGL's and the compiled core would read or write where nothing is."""
    make, sentence = UNCHECKED[fault]
    graph = make(form)
    for _ in range(2):  # a fault is found again
        with pytest.raises(GraphError, match=f"^graph: expected .*{sentence}"):
            READERS[reader](graph)


def test_the_faulty_relation_is_named():
    ends = ("csr", [torch.tensor(x) for x in ([0, 1, 2], [4, -2], [0, 1])])
    graph = dgl.heterograph({("a", "r", "b"): ends, ("b", "q", "a"): ([0], [1])}, {"a": 2, "b": 5})
    with pytest.raises(GraphError, match=r"destination numbers of \('a', 'r', 'b'\) from 0 to 4, got -2"):
        hgraph.join_relations(graph)
    assert csr.in_rows(graph["q"]).num_rows == 2


def test_a_check_is_paid_once(monkeypatch):
    graph, looked = build("homogeneous"), []
    check = csr._check_relation
    monkeypatch.setattr(csr, "_check_relation", lambda *x: looked.append(x) or check(*x))
    for _ in range(3):
        csr.structure(graph), csr.edges(graph), csr.all_formats(graph), csr.check_edges(graph)
    assert len(looked) == 1
    graph.add_edges(torch.tensor([1]), torch.tensor([2]))
    csr.structure(graph)
    assert len(looked) == 2


def test_a_check_makes_no_other_format():
    for form in ("csr", "csc", "coo"):
        graph = build("hub").formats(form)
        full = dgl.heterograph({graph.canonical_etypes[0]: csr.in_order(graph)}, {"_N": graph.num_nodes()})
        csr.check_edges(full)
        assert full.formats()["created"] == ["coo"]


def _matrix(form):
    return scipy.sparse.random(31, 31, 0.2, format=form, random_state=0)


def _scipy(form):
    return dgl.from_scipy(_matrix(form))


def _pointers():
    return [torch.from_numpy(x).long() for x in (_matrix("csr").indptr, _matrix("csr").indices)]


# DGL keeps no numbers of edges of graphs that are made so, or of their reverse.
WITHOUT_NUMBERS = {
    "from_scipy csr": lambda: _scipy("csr"),
    "from_scipy csc": lambda: _scipy("csc"),
    "csr arrays": lambda: _made(*_pointers(), nodes=31),
    "csc arrays": lambda: _made(*_pointers(), form="csc", nodes=31),
    "bipartite": lambda: dgl.bipartite_from_scipy(_matrix("csr")[:29], "a", "r", "b"),
    "reverse": lambda: dgl.reverse(_scipy("csr")),
    "a block": lambda: dgl.create_block(
        ("csr", (*_pointers(), torch.tensor([], dtype=torch.int64))), 31, 31
    ),
    "int32": lambda: _scipy("csr").int(),
    "every format": lambda: _scipy("csr").formats(["csr", "csc", "coo"]),
    "a slice": lambda: dgl.heterograph({
        ("a", "r", "a"): ("csr", (*_pointers(), torch.tensor([], dtype=torch.int64))),
        ("a", "q", "a"): ([0], [1]),
    })["r"],
}  # fmt: skip


@pytest.mark.parametrize("operator", ["additive", "gatv2", "dot"])
@pytest.mark.parametrize("name", WITHOUT_NUMBERS)
def test_dgls_kernels_run_on_rows_without_numbers_of_edges(name, operator):
    """Forward and backward, edges in the graph's order, one head and width or several, equal to the compiled core."""
    graph = WITHOUT_NUMBERS[name]()
    num_src, num_dst, num_edges = graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges()
    for heads, width in ((1, 1), (3, 5)):
        src, dst = torch.randn(num_src, heads, width), torch.randn(num_dst, heads, width)
        edge = torch.randn(num_edges, heads)
        arguments = {
            "additive": (src, src[..., 0], dst[..., 0], edge),
            "gatv2": (src, dst, torch.randn(heads, width), torch.randn(num_edges, heads, width)),
            "dot": (dst, src, src.flip(0), edge),
        }[operator]
        call = {"additive": "additive_attention", "gatv2": "gatv2_attention", "dot": "dot_product_attention"}[operator]
        found = []
        for backend in ("dgl", "native"):
            leaves = [x.clone().requires_grad_() for x in arguments]
            with ops.use_backend(backend):
                out = getattr(ops, call)(graph, *leaves, edge_weight=torch.linspace(0, 1, num_edges))
            cotangent = torch.linspace(-1, 1, out.numel()).view_as(out)
            found.append([out, *torch.autograd.grad(out, leaves, cotangent)])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_graphs_with_numbers_of_edges_are_not_built_again():
    for graph in (build("homogeneous"), build("block"), build("bipartite"), dgl.from_scipy(_matrix("coo"))):
        assert csr.numbered(graph) is graph
        graph.create_formats_()
        assert csr.numbered(graph) is graph
    graph = _scipy("csr")
    again = csr.numbered(graph)
    assert again is not graph and csr.numbered(graph) is again
    watched = weakref.ref(again)
    del graph, again
    gc.collect()
    assert watched() is None


class _Kernels:
    """Kernels whose structure fails with an error."""

    __name__ = "kernels"

    def __init__(self, error):
        self.error, self.asked = error, []

    def build_structure(self, src, dst, num_src, num_dst, degrees=None):
        self.asked.append((src.device.type, src.dtype, num_src, num_dst))
        if self.error is not None:
            raise self.error
        return [src, dst]


def test_a_structure_is_built_once_for_each_device_and_each_set_of_kernels():
    graph, kernels = build("bipartite", torch.int32), _Kernels(None)
    there = csr.structure(graph, "meta", kernels)
    assert csr.structure(graph, torch.device("meta"), kernels) is there and len(there) == 2
    assert kernels.asked == [("meta", torch.int32, 19, 13)]
    here = csr.structure(graph)
    assert len(here) == 1 and here[0].device.type == "cpu" and csr.structure(graph, "cpu") is here
    other = csr.structure(graph, "cpu", kernels)
    assert other is not here and other is not there and other[0].device.type == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has\na total capacity of"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_a_structure_that_does_not_fit_into_memory_is_one_sentence(error):
    graph = build("homogeneous")
    match = "^structure: expected one that the free memory of meta holds, got 120 edges$"
    with pytest.raises(GraphError, match=match):
        csr.structure(graph, "meta", _Kernels(error))
    assert len(csr.structure(graph, "meta", _Kernels(None))) == 2  # nothing half-built is kept
    with pytest.raises(RuntimeError, match="no such kernel"):
        csr.structure(build("homogeneous"), "meta", _Kernels(RuntimeError("no such kernel")))


def test_edges_that_do_not_fit_into_memory_are_one_sentence(monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has\na total capacity of")

    graph = build("homogeneous")
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(GraphError, match="^edges: expected arrays that the free memory of meta holds, got 120"):
            csr.edges(graph, "meta")
    assert csr.edges(graph, "meta")[0].device.type == "meta"


@pytest.fixture
def waits(monkeypatch):
    """The devices whose streams are waited for, where the meta device stands for a GPU."""
    found = []
    module = SimpleNamespace(
        current_stream=lambda device: SimpleNamespace(synchronize=lambda: found.append(str(device)))
    )
    monkeypatch.setattr(torch, "meta", module, raising=False)
    return found


def test_what_is_kept_for_a_device_is_finished_before_another_stream_reads_it(waits):
    graph, kernels = build("homogeneous"), _Kernels(None)
    kept = {
        "edges": lambda: csr.edges(graph, "meta"),
        "structure": lambda: csr.structure(graph, "meta", kernels),
        "record": lambda: csr.cached(graph, ("rows",), lambda: csr.Rows(*[torch.ones(2, device="meta")] * 3)),
        "dict": lambda: csr.cached(graph, ("dict",), lambda: {"a": [torch.ones(2, device="meta"), None, 3]}),
        "beside": lambda: csr.beside(graph, "weight", weight, "meta"),
    }
    weight = torch.rand(3)
    for name, read in kept.items():
        read()
        assert waits == ["meta"], name
        read()
        assert waits == ["meta"], f"{name}: once, where it is built"
        waits.clear()
    csr.structure(graph), csr.edges(graph), csr.in_rows(graph)
    assert not waits


def test_moving_a_batch_waits_for_nothing_and_builds_what_the_layers_read(waits):
    graph, typed = build("block"), typed_graph()
    assert hgraph.to_device(graph, "meta") is graph and hgraph.to_device(typed, "meta") is typed and not waits
    csr.edges(graph, "meta")
    assert not waits, "built already"


def test_a_block_is_sorted_on_the_way_to_a_gpu_that_triton_serves(monkeypatch):
    graph, asked = build("block"), []
    monkeypatch.setattr(csr, "structure", lambda *a, **o: asked.append((*a, o)))
    monkeypatch.setattr(csr, "edges", lambda *a, **o: asked.append((*a, o)))
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(csr.triton, "interpreted", lambda: False)
    monkeypatch.setattr(csr.triton, "available", lambda: True)
    hgraph.to_device(graph, gpu)
    monkeypatch.setattr(csr.triton, "available", lambda: False)
    hgraph.to_device(graph, "cuda:0")
    assert asked == [(graph, gpu, csr.triton, {"wait": False}), (graph, gpu, {"wait": False})]


def test_memory_that_its_owner_has_pinned_is_not_read_later(monkeypatch):
    """PyTorch's pin_memory gives back what is pinned already; the copy to the GPU runs after to_device has returned."""
    copied = []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking=False: copied.append(self) or self)
    buffer = torch.arange(3.0)
    hgraph.to_device(buffer, "cuda:0")
    buffer.zero_()
    assert copied[0].tolist() == [0.0, 1.0, 2.0]


def test_what_a_layer_takes_goes_to_the_device_and_graphs_without_code_stay():
    graph, x = build("block"), torch.randn(5, 3)
    moved = hgraph.to_device({"blocks": [graph], "pair": (x, None), "name": "x"}, "meta")
    assert moved["blocks"][0] is graph and moved["name"] == "x" and moved["pair"][1] is None
    assert isinstance(moved["pair"], tuple) and moved["pair"][0].device.type == "meta"
    assert hgraph.to_device(x, "cpu") is x and hgraph.to_device(graph, "cpu") is graph
    with pytest.raises(GraphError, match="device: expected a device such as 'cpu' or 'cuda:0', got 'nowhere'"):
        hgraph.to_device(graph, "nowhere")
    with pytest.raises(GraphError, match="device: expected a device such as 'cpu' or 'cuda:0', got 'nowhere'"):
        hgraph.to_device([x], "nowhere")
    pair = hgraph.to_device(Pair(x, [x]), "meta")
    assert type(pair) is Pair and {pair.one.device.type, pair.two[0].device.type} == {"meta"}


class Pair(NamedTuple):
    one: torch.Tensor
    two: list


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use a GPU")
def test_a_device_that_pytorch_cannot_use_is_one_sentence_with_the_reason(monkeypatch):
    with pytest.raises(GraphError, match="^device: expected one that PyTorch can use, got 'cuda': .*[a-z]$"):
        csr.edges(build("homogeneous"), "cuda")

    def missing(*arguments, **options):
        raise RuntimeError("No CUDA GPUs are available.\nmore")

    monkeypatch.setattr(torch, "empty", missing)
    with pytest.raises(GraphError, match="got device.type='cuda'.: No CUDA GPUs are available$"):
        csr.device_of(build("homogeneous"), torch.device("cuda"))


def test_data_beside_a_graph_are_moved_once_and_again_after_a_change():
    graph, data = build("homogeneous"), torch.arange(3.0)
    there = csr.beside(graph, "weight", data, "meta")
    assert there.device.type == "meta" and csr.beside(graph, "weight", data, "meta") is there
    data.add_(1)
    assert csr.beside(graph, "weight", data, "meta") is not there
    assert csr.beside(graph, "weight", data.clone(), "meta") is not there
    assert csr.beside(graph, "weight", data, "cpu") is data
