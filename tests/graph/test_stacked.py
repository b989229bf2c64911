"""Typed graphs as one relation with types in tensors, ages of edges, and types of edges as nodes."""

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError, ShapeError
from hgat.graph.relations import types_as_sources
from hgat.graph.stacked import stack_types
from zoo import build, typed_graph


def timed_graph():
    """The typed graph with times of edges and of nodes; its empty relation has empty times."""
    graph = typed_graph()
    generator = torch.Generator().manual_seed(4)
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.randint(0, 9, (graph.num_edges(etype),), generator=generator)
    for ntype in graph.ntypes:
        graph.nodes[ntype].data["time"] = torch.randint(0, 9, (graph.num_nodes(ntype),), generator=generator)
    return graph


def typed_blocks(graph, seeds, layers=1):
    sampler = dgl.dataloading.MultiLayerFullNeighborSampler(layers)
    return sampler.sample(graph, seeds)


def named_edges(graph):
    """(source type, source, relation, destination type, destination) of every edge, in order."""
    found = []
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        for u, v in zip(src.tolist(), dst.tolist(), strict=True):
            found.append((etype[0], u, etype, etype[2], v))
    return found


def named_again(graph, stacked, ntypes, etypes):
    """The same, read off the stacked graph."""
    sources = [(t, i) for t in graph.srctypes for i in range(graph.num_src_nodes(t))]
    targets = [(t, i) for t in graph.dsttypes for i in range(graph.num_dst_nodes(t))]
    rows = range(len(sources)) if stacked.row is None else stacked.row.tolist()
    at = [sources[row] for row in rows]
    assert [ntypes[k] for k in stacked.ntype.tolist()] == [t for t, _ in at]
    assert at[: len(targets)] == targets  # what is behind them only sends
    src, dst = stacked.graph.edges(order="eid")
    kinds = [etypes[k] for k in stacked.etype.tolist()]
    return [(*at[u], kind, *targets[v]) for u, v, kind in zip(src.tolist(), dst.tolist(), kinds, strict=True)]


@pytest.mark.parametrize("ages", [False, True])
@pytest.mark.parametrize("kind", ["graph", "block"])
def test_every_edge_is_there_with_its_types(kind, ages):
    graph = hgraph.relative_times(timed_graph())
    if kind == "block":
        _, _, (block,) = typed_blocks(graph, {"film": torch.tensor([7, 2, 3])})
        for etype in block.canonical_etypes:
            number = block.edges[etype].data[dgl.EID]
            block.edges[etype].data["age"] = graph.edges[etype].data["age"][number]
        graph = block
    ntypes, etypes = list(reversed(graph.ntypes)), list(reversed(graph.canonical_etypes))
    stacked = stack_types(graph, ntypes, etypes, ages=ages)
    assert named_again(graph, stacked, ntypes, etypes) == named_edges(graph)
    assert stacked.graph.is_block == (ages or kind == "block") and (stacked.row is None) != stacked.graph.is_block
    assert stacked.num_dst == {t: graph.num_dst_nodes(t) for t in graph.dsttypes}
    assert list(stacked.num_edges) == [graph.num_edges(e) for e in graph.canonical_etypes]
    if ages:
        count = stacked.graph.num_dst_nodes()
        src, _ = stacked.graph.edges(order="eid")
        age = torch.cat([graph.edges[e].data["age"] for e in graph.canonical_etypes])
        assert torch.equal(stacked.ages[stacked.age][src - count], age)
        pairs = set(zip(stacked.row[count:].tolist(), stacked.age.tolist(), strict=True))
        assert len(pairs) == len(stacked.age) < len(age)  # each pair once
    assert stack_types(graph, ntypes, etypes, ages=ages) is stacked


def test_another_column_of_ages_is_seen():
    graph = hgraph.relative_times(timed_graph())
    first = stack_types(graph, graph.ntypes, graph.canonical_etypes, ages=True)
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["age"] = graph.edges[etype].data["age"] + 1
    second = stack_types(graph, graph.ntypes, graph.canonical_etypes, ages=True)
    assert torch.equal(second.ages, first.ages + 1)
    graph.edges["follows"].data["age"].add_(100)
    assert int(stack_types(graph, graph.ntypes, graph.canonical_etypes, ages=True).ages.max()) >= 100


@pytest.mark.parametrize("unit", [1.0, 2.5])
def test_ages_of_edges_and_of_nodes(unit):
    graph = hgraph.relations.extended(timed_graph(), inverse=False)
    for etype in timed_graph().canonical_etypes:
        graph.edges[etype].data["time"] = timed_graph().edges[etype].data["time"]
    for ntype in graph.ntypes:
        graph.nodes[ntype].data["time"] = timed_graph().nodes[ntype].data["time"]
    newest = {}
    for etype in graph.canonical_etypes:
        if etype[1] != "self":
            for v, t in zip(
                graph.edges(etype=etype)[1].tolist(), graph.edges[etype].data["time"].tolist(), strict=True
            ):
                newest[etype[2], v] = max(t, newest.get((etype[2], v), t))
    by_edge, by_node = (hgraph.relative_times(graph, of, unit) for of in ("edges", "nodes"))
    assert "age" not in graph.edges["likes"].data
    for etype in graph.canonical_etypes:
        src, dst = (end.tolist() for end in graph.edges(etype=etype))
        when = {t: graph.nodes[t].data["time"].tolist() for t in graph.ntypes}
        nodes = [when[etype[2]][v] - when[etype[0]][u] for u, v in zip(src, dst, strict=True)]
        if etype[1] == "self":
            edges = [0] * len(src)
        else:
            times = graph.edges[etype].data["time"].tolist()
            edges = [newest[etype[2], v] - t for v, t in zip(dst, times, strict=True)]
        for found, expected in ((by_edge, edges), (by_node, nodes)):
            column = found.edges[etype].data["age"]
            assert column.dtype == torch.int64 and column.tolist() == [round(x / unit) for x in expected]


def test_times_that_are_missing_are_one_sentence():
    graph = timed_graph()
    with pytest.raises(GraphError, match=r"expected times as edata\['time'\] of .*'follows'.*, got none"):
        hgraph.relative_times(typed_graph())
    with pytest.raises(GraphError, match=r"expected times as ndata\['time'\] of 'film' nodes, got none"):
        hgraph.relative_times(typed_graph(), "nodes")
    graph.edges["likes"].data["time"] = torch.full((41,), float("nan"))
    with pytest.raises(GraphError, match="expected one finite time for each, as edata.* got some that are not"):
        hgraph.relative_times(graph)
    for wrong, sentence in (({"of": "days"}, "of: expected 'edges' or 'nodes'"), ({"unit": 0}, "unit: expected more")):
        with pytest.raises(ShapeError, match=sentence):
            hgraph.relative_times(timed_graph(), **wrong)
    with pytest.raises(GraphError, match=r"int64 \[E\] as edata\['age'\] of .*relative_times writes it, got none"):
        stack_types(graph, graph.ntypes, graph.canonical_etypes, ages=True)


def test_types_without_a_number_are_one_sentence():
    graph = typed_graph()
    with pytest.raises(GraphError, match=r"expected node types among \['film'\], got 'user'"):
        stack_types(graph, ["film"], graph.canonical_etypes)
    with pytest.raises(GraphError, match="expected relations among .*, got .*'never'"):
        stack_types(graph, graph.ntypes, graph.canonical_etypes[:-1])
    with pytest.raises(GraphError, match="expected a DGLGraph, got NoneType"):
        stack_types(None, [], [])


def test_types_as_sources():
    graph = build("multi_edges")
    etype = torch.randint(5, (graph.num_edges(),))
    found = types_as_sources(graph, etype, 7)
    src, dst = found.edges(order="eid")
    assert torch.equal(src, etype) and torch.equal(dst, torch.arange(graph.num_edges()))
    assert found.num_src_nodes() == 7 and types_as_sources(graph, etype, 7) is found
    etype[0] = (etype[0] + 1) % 5
    assert torch.equal(types_as_sources(graph, etype, 7).edges(order="eid")[0], etype)
    with pytest.raises(GraphError, match="etype: expected numbers from 0 to 3"):
        types_as_sources(graph, torch.full_like(etype, 4), 4)
    with pytest.raises(ShapeError, match="etype: expected a tensor of whole numbers"):
        types_as_sources(graph, etype.float(), 7)
