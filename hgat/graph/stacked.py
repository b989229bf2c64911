"""A typed graph as one of a single relation with its types in tensors, and how old what an edge brings is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dgl
import torch

from hgat.errors import GraphError, ShapeError, check_range
from hgat.graph import csr
from hgat.graph.memory import within_memory
from hgat.graph.relations import _starts

__all__ = ["AGE", "StackedTypes", "relative_times", "stack_types"]

AGE = "age"
TIME = "time"


@dataclass(frozen=True)
class StackedTypes:
    """All node types of a typed graph, or of a block, as one, for layers that take types in tensors.

    graph: DGLGraph of one relation, homogeneous or a block with the destinations first, whose edges are those of the
    relations laid end to end. row: [N_src], the row of each source where the rows of all source types are stacked in
    the graph's order; None if they are as they stand. ntype: [N_src], etype: [E], numbers. ages: [A] the distinct ages,
    and age: [N_src - N_dst] which of them each source behind the destinations has; None without ages. num_edges: of
    each relation; num_src, num_dst: {node type: sources}, {node type: destinations}, in order.
    """

    graph: dgl.DGLGraph
    row: torch.Tensor | None
    ntype: torch.Tensor
    etype: torch.Tensor
    ages: torch.Tensor | None
    age: torch.Tensor | None
    num_edges: tuple[int, ...]
    num_src: dict[str, int]
    num_dst: dict[str, int]


@within_memory
def stack_types(
    graph: dgl.DGLGraph,
    ntypes: Sequence[str],
    etypes: Sequence[tuple[str, str, str]],
    *,
    ages: bool = False,
    device: torch.device | str | None = None,
) -> StackedTypes:
    """Stack the node types of a typed graph or block; built once per graph.

    ntypes, etypes: the names, canonical ones, whose places are the numbers. ages: a source is a distinct pair of a node
    and an age, read from the edges' column "age" as `relative_times` writes it, behind the destinations, so that what
    depends on both is computed once for each pair. device: where row, ages and age lie, the graph's if None; the types
    stay on the CPU, where layers sort by them.
    Raises GraphError for another graph, for types without a number, and for ages that are missing or no whole numbers.
    """
    csr.check_graph(graph)
    device = csr.device_of(graph, device)
    for what, names, known in (
        ("node types", graph.ntypes, ntypes),
        ("relations", graph.canonical_etypes, etypes),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise GraphError(f"graph: expected {what} among {list(known)}, got {unknown[0]!r}")
    # A column may be exchanged without a change of the graph.
    columns = _ages(graph) if ages else []
    seen = tuple((id(column), None if column.is_inference() else column._version) for column in columns)
    names = (tuple(graph.ntypes), tuple(graph.canonical_etypes), graph.is_block)
    key = ("stacked", names, tuple(ntypes), tuple(etypes), str(device), seen)
    # The columns are kept beside what was made of them: an id could be another tensor's once they are gone.
    return csr.cached(graph, key, lambda: (_stack(graph, ntypes, etypes, columns, device), columns))[0]


def _ages(graph):
    """edata["age"] of every relation; GraphError unless all are whole numbers."""
    found = []
    for etype in graph.canonical_etypes:
        column = graph.edges[etype].data.get(AGE)
        if column is None or column.dtype != torch.int64 or column.dim() != 1:
            got = "none" if column is None else f"{column.dtype} {list(column.shape)}"
            raise GraphError(
                f"graph: expected int64 [E] as edata['{AGE}'] of {etype}, as hgat.graph.relative_times writes it, "
                f"got {got}"
            )
        found.append(column)
    return found


def _stack(graph, ntypes, etypes, ages, device):
    ntypes, etypes = list(ntypes), list(etypes)
    if graph.is_block:
        num_src = {t: graph.num_src_nodes(t) for t in graph.srctypes}
        num_dst = {t: graph.num_dst_nodes(t) for t in graph.dsttypes}
    else:  # of a graph whose types either send or receive DGL names the others alone
        num_src = num_dst = {t: graph.num_nodes(t) for t in graph.ntypes}
    short = [t for t, count in num_dst.items() if num_src.get(t, 0) < count]
    if short:
        raise GraphError(f"graph: expected the destinations of {short[0]!r} among its sources, got fewer sources")
    src_start, dst_start = _starts(num_src), _starts(num_dst)
    total = sum(num_dst.values())
    # The row of each destination among the stacked sources.
    at_dst = torch.cat([torch.arange(count) + src_start[t] for t, count in num_dst.items()])
    src, dst, etype = [], [], []
    for name in graph.canonical_etypes:
        u, v = (end.long().cpu() for end in csr.in_order(graph, name))
        src.append(u + src_start[name[0]])
        dst.append(v + dst_start[name[2]])
        etype.append(torch.full((len(u),), etypes.index(name)))
    src, dst, etype = (torch.cat(parts) for parts in (src, dst, etype))
    ntype = torch.cat([torch.full((count,), ntypes.index(t)) for t, count in num_src.items()])
    row = values = number = None
    if ages:
        age = torch.cat(ages).cpu()
        low = int(age.min()) if len(age) else 0
        span = int(age.max()) - low + 1 if len(age) else 1
        csr.check_product(nodes=len(ntype), ages=span)
        pair, place = torch.unique(src * span + age - low, return_inverse=True)
        values, number = (t.to(device) for t in torch.unique(pair % span + low, return_inverse=True))
        row, src = torch.cat([at_dst, pair // span]), total + place
    elif graph.is_block:
        place = torch.full((len(ntype),), -1)
        place[at_dst] = torch.arange(total)
        others = (place < 0).nonzero().flatten()
        place[others] = total + torch.arange(len(others))
        row, src = torch.cat([at_dst, others]), place[src]
    if row is None:
        stacked = dgl.graph((src, dst), num_nodes=total, idtype=graph.idtype)
    else:
        ends = src.to(graph.idtype), dst.to(graph.idtype)
        stacked = dgl.create_block(ends, num_src_nodes=len(row), num_dst_nodes=total)
        ntype = ntype[row]
    row = None if row is None else row.to(device)
    counts = tuple(graph.num_edges(name) for name in graph.canonical_etypes)
    return StackedTypes(stacked, row, ntype, etype, values, number, counts, num_src, num_dst)


def relative_times(graph: dgl.DGLGraph, of: Literal["edges", "nodes"] = "edges", unit: float = 1.0) -> dgl.DGLGraph:
    """The graph with how old what each edge brings is, in whole units, as edata["age"] of every relation, int64 [E].

        of = "nodes"  age_uv = time_v - time_u                          ndata["time"] of every node type
        of = "edges"  age_uv = max_w time_wv - time_uv                  edata["time"]; w -> v of every relation

    A relation "self", from each node to itself, has the age 0, and needs no times. unit: what counts as one, in the
    data's units of time; ages are rounded to it. The columns of the graph that is given stay as they are.
    Raises GraphError for a block, and for times that are missing, of another length, or not finite.
    """
    csr.check_graph(graph, blocks=False)
    if of not in ("edges", "nodes"):
        raise ShapeError(f"of: expected 'edges' or 'nodes', got {of!r}")
    check_range(0, unit=unit)
    if unit == 0:
        raise ShapeError("unit: expected more than 0, got 0")
    found = graph.local_var()
    own = {etype: etype[1] == "self" and etype[0] == etype[2] for etype in graph.canonical_etypes}
    if of == "nodes":
        when = {t: _times(graph.nodes[t].data, f"ndata['{TIME}'] of {t!r} nodes") for t in graph.ntypes}
    else:
        newest = {t: torch.full((graph.num_nodes(t),), -torch.inf, dtype=torch.float64) for t in graph.ntypes}
        when = {}
        for etype in graph.canonical_etypes:
            if not own[etype]:
                when[etype] = _times(graph.edges[etype].data, f"edata['{TIME}'] of {etype}")
                newest[etype[2]].scatter_reduce_(0, csr.in_order(graph, etype)[1].long().cpu(), when[etype], "amax")
    for etype in graph.canonical_etypes:
        src, dst = (end.long().cpu() for end in csr.in_order(graph, etype))
        if own[etype]:
            age = torch.zeros(len(src))
        elif of == "nodes":
            age = when[etype[2]][dst] - when[etype[0]][src]
        else:
            age = newest[etype[2]][dst] - when[etype]
        found.edges[etype].data[AGE] = (age / unit).round().long().to(graph.device)
    return found


def _times(columns, what):
    """A column of finite times as float64."""
    time = columns.get(TIME)
    if time is None:
        raise GraphError(f"graph: expected times as {what}, got none")
    if time.dim() != 1 or not torch.isfinite(time.double()).all():
        got = list(time.shape) if time.dim() != 1 else "some that are not"
        raise GraphError(f"graph: expected one finite time for each, as {what}, got {got}")
    return time.double().cpu()
