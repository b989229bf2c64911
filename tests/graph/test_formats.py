"""Graphs that hold one sparse format only, or were made from one, in every function of hgat.graph."""

import dataclasses

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.graph import csr, homogeneous, metapath, relations
from hgat.graph.recent import prepare as prepare_recent
from hgat.graph.snapshots import prepare as prepare_snapshots

FORMS = pytest.mark.parametrize("form", ["coo", "csr", "csc"])
IDTYPES = pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
PATHS = {"there": ["likes", "liked by"], "far": ["follows", "likes", "liked by"]}


def _draw(num_src, num_dst, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, n, (count,), generator=generator) for n in (num_src, num_dst))


def homogeneous_graph(idtype):
    graph = dgl.graph(_draw(11, 11, 37, 0), num_nodes=13, idtype=idtype)
    graph.ndata["x"] = torch.arange(13.0)
    return _timed(graph)


def typed_graph(idtype):
    return _timed(dgl.heterograph(
        {
            ("user", "likes", "film"): _draw(7, 5, 17, 1),
            ("film", "liked by", "user"): _draw(5, 7, 19, 2),
            ("user", "follows", "user"): _draw(7, 7, 13, 3),
        },
        idtype=idtype,
    ))  # fmt: skip


def _timed(graph):
    for number, etype in enumerate(graph.canonical_etypes):
        count = graph.num_edges(etype)
        graph.edges[etype].data["time"] = torch.randperm(count, generator=torch.Generator().manual_seed(number))
        graph.edges[etype].data["step"] = graph.edges[etype].data["time"] // 5
    return graph


ALL = {
    "edges": (homogeneous_graph, csr.edges),
    "in_rows": (homogeneous_graph, csr.in_rows),
    "out_rows": (homogeneous_graph, csr.out_rows),
    "structure": (homogeneous_graph, csr.structure),
    "in_rows_by_relation": (homogeneous_graph, lambda g: csr.in_rows_by_relation(g, torch.arange(37) % 3, 3)),
    "edges_as_sources": (homogeneous_graph, csr.edges_as_sources),
    "numbered": (homogeneous_graph, lambda g: csr.numbered(g).edges(order="eid") if csr.all_formats(g) else None),
    "rebuilt": (homogeneous_graph, csr.rebuilt),
    "rebuilt typed": (typed_graph, csr.rebuilt),
    "self-loops": (homogeneous_graph, homogeneous.prepare),
    "both directions": (homogeneous_graph, lambda g: homogeneous.prepare(g, undirected=True)),
    "loops alone": (homogeneous_graph, lambda g: homogeneous.prepare(g, undirected=True, self_loops=False)),
    "join": (typed_graph, hgraph.join_relations),
    "relations": (typed_graph, relations.prepare),
    "add_inverse": (typed_graph, lambda g: hgraph.add_inverse(g, self_relation=True)),
    "join_types": (
        homogeneous_graph,
        lambda g: hgraph.join_types(g, torch.arange(13) % 2, torch.arange(37) % 3, 2, 3),
    ),
    "metapath_graph": (typed_graph, lambda g: hgraph.metapath_graph(g, PATHS["far"], self_loops=False)),
    "metapaths": (typed_graph, lambda g: hgraph.metapaths(g, PATHS)),
    "metapath": (typed_graph, lambda g: metapath.prepare(g, paths=PATHS)),
    "union": (homogeneous_graph, lambda g: hgraph.disjoint_union([g, g])),
    "views": (homogeneous_graph, hgraph.views),
    "event_times": (homogeneous_graph, hgraph.event_times),
    "recent_neighbours": (typed_graph, hgraph.recent_neighbours),
    "recent": (homogeneous_graph, prepare_recent),
    "snapshots": (typed_graph, lambda g: hgraph.snapshots(g, windows=3).graph),
    "snapshots by step": (homogeneous_graph, lambda g: prepare_snapshots(g, column="step").graph),
    "walks": (homogeneous_graph, lambda g: hgraph.walks(hgraph.snapshots(g, windows=3)).path),
}


def plain(value):
    """Numbers and names alone, whatever holds them."""
    if isinstance(value, dgl.DGLGraph):
        sizes = [(t, value.num_nodes(t)) for t in value.ntypes]
        ends = [[x.tolist() for x in csr.in_order(value, e)] for e in value.canonical_etypes]
        data = [plain(dict(value.edges[e].data)) for e in value.canonical_etypes]
        return value.canonical_etypes, sizes, ends, data, [plain(dict(value.nodes[t].data)) for t in value.ntypes]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if not f.name.startswith("_")]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (tuple, list)) else value


@IDTYPES
@FORMS
@pytest.mark.parametrize("name", ALL)
def test_one_format_is_as_good_as_all(name, form, idtype):
    make, function = ALL[name]
    graph = make(idtype).formats(form)
    before = plain(graph)
    expected = plain(function(make(idtype)))
    found = plain(function(graph))
    if name != "numbered":
        assert found == expected
    assert plain(graph) == before and graph.formats()["created"] == [form] and not graph.formats()["not created"]


def from_rows(graph, form, restricted):
    """The graph made anew from CSR or CSC arrays without numbers of edges, and what that graph is, made from COO."""
    arrays, ends = {}, {}
    for etype in graph.canonical_etypes:
        indptr, other, edge = graph.adj_tensors(form, etype=etype)
        arrays[etype] = (form, (indptr, other, torch.empty(0, dtype=graph.idtype)))
        src, dst = csr.in_order(graph, etype)
        ends[etype] = src[edge.long()], dst[edge.long()]
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    made, same = (_timed(dgl.heterograph(x, sizes, idtype=graph.idtype)) for x in (arrays, ends))
    return made.formats(form) if restricted else made, same


@IDTYPES
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("name", ALL)
def test_rows_without_numbers_of_edges(name, form, restricted, idtype):
    """DGL says that they are 0, 1, 2, ... by an empty array, which an order of edges must not be taken from."""
    make, function = ALL[name]
    made, same = from_rows(make(idtype), form, restricted)
    assert plain(function(made)) == plain(function(same)) or name == "numbered"
