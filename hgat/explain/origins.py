"""Which nodes of the task's graph the edges of an operator's graph join.

An operator sees joined relations, disjoint unions, snapshots, blocks: each edge e of these is an edge, a pair or a path
between two nodes that the user knows by type and number. What was built is found where it is kept: in a model's inputs,
and beside the graphs themselves (hgat.graph.csr.kept).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import dgl
import torch
from torch import Tensor

from hgat.graph import csr
from hgat.graph.metapath import Views
from hgat.graph.pairs import Routes
from hgat.graph.relations import JoinedRelations, JoinedTypes
from hgat.graph.snapshots import Snapshots
from hgat.graph.stacked import StackedTypes
from hgat.graph.triples import RelationGroups

__all__ = ["Origins", "origins"]

NODE = "_N"  # what DGL calls the nodes of a graph of one type


@dataclass(frozen=True, eq=False)
class Origins:
    """Both ends of E edges, by type and number of the whole graph.

    relations: R canonical names, (source type, name, destination type); relation [E], numbers among them; src, dst [E],
    numbers of their own type. step: [E], the snapshot of each edge, or None where time has none.
    """

    relations: tuple[tuple[str, str, str], ...]
    relation: Tensor
    src: Tensor
    dst: Tensor
    step: Tensor | None = None

    def reversed(self) -> "Origins":
        """The same edges, run through from their destinations."""
        names = tuple((dst, name, src) for src, name, dst in self.relations)
        return replace(self, relations=names, src=self.dst, dst=self.src)


def origins(inputs: Any, graphs: list[dgl.DGLGraph], target: str | None = None) -> list[Origins]:
    """The origins of the edges of each of `graphs`, which operators were called with, in their order of edges.

    inputs: what the model was called with. target: the type of the nodes of a structure that does not say it. Edges of
    a graph that comes from none of the inputs keep that graph's own names and numbers.
    """
    known: dict[int, tuple[dgl.DGLGraph, Origins]] = {}
    for part in _parts(inputs):
        for graph, found in _placed(part, target):
            _add(known, graph, found)
    return [known[id(graph._graph)][1] if id(graph._graph) in known else _own(graph) for graph in graphs]


def _parts(value: Any) -> Iterator[Any]:
    """The graphs and structures in a tuple, list or mapping of inputs."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)) and not isinstance(value, Routes):
        for part in value:
            yield from _parts(part)
    elif not isinstance(value, Tensor):
        yield value


def _add(known, graph, found):
    """Remember where the edges of a graph come from, and those of what is kept beside it."""
    if id(graph._graph) in known:
        return
    known[id(graph._graph)] = graph, found  # the graph is held, so that its index stays the only one of this number
    for key, value in csr.kept(graph):
        for other, beside in _beside(key, value, found):
            _add(known, other, beside)


def _placed(part: Any, target: str | None) -> Iterator[tuple[dgl.DGLGraph, Origins]]:
    """(graph, origins) of every graph in one of the inputs."""
    if isinstance(part, dgl.DGLGraph):
        yield part, _own(part)
    elif isinstance(part, JoinedRelations):
        found = _of_joined(part)
        yield from ((graph, found) for graph in (part.across, part.within))
    elif isinstance(part, Views):
        yield part.graph, _of_views(part, target or NODE)
    elif isinstance(part, Snapshots):
        found = _by_step(_own(part.graph), part.num_nodes)
        for key, value in csr.kept(part.graph):
            if key[0] == "metapaths":
                yield value.graph, _of_paths(value, part.num_nodes, len(part))
        yield part.graph, found
        if not part.is_typed:
            yield part.shared, found
    elif isinstance(part, RelationGroups):
        yield from _of_groups(part, target or NODE)
    elif isinstance(part, Routes):
        yield from _of_routes(part, target or NODE)
    elif is_dataclass(part) and not isinstance(part, type):
        for value in (getattr(part, column.name) for column in fields(part)):
            for inner in _parts(value):
                if isinstance(inner, (dgl.DGLGraph, Views, JoinedRelations)):
                    yield from _placed(inner, target)


def _beside(key: tuple, value: Any, found: Origins) -> Iterator[tuple[dgl.DGLGraph, Origins]]:
    """(graph, origins) of what is kept beside a graph whose edges are `found`, where edge e is edge e."""
    if isinstance(value, JoinedRelations):
        yield from ((graph, found) for graph in (value.across, value.within))
    elif key[0] == "stacked" and isinstance(value[0], StackedTypes):
        yield value[0].graph, found
    elif key[0] == "views":
        yield value.graph, found
    elif key[0] == "types":
        yield from ((kept[-1].across, found) for kept in value if isinstance(kept[-1], JoinedTypes))
    elif key[0] == "edges_as_sources":
        yield value, found
    elif key[0] == "reverse":
        yield value, found.reversed()
    elif key[0] in ("others", "members"):
        yield value, _own(value)


def _own(graph: dgl.DGLGraph) -> Origins:
    """Of a graph's own edges, relation by relation, with the numbers that a sampler wrote on a block."""
    ends, relation = [], []
    for number, etype in enumerate(graph.canonical_etypes):
        src, dst = csr.in_order(graph, etype)
        if graph.is_block:
            src, dst = _sampled(graph.srcnodes[etype[0]].data, src), _sampled(graph.dstnodes[etype[2]].data, dst)
        ends.append((src.long().cpu(), dst.long().cpu()))
        relation.append(torch.full((len(src),), number))
    src, dst = (torch.cat(side) for side in zip(*ends, strict=True))
    return Origins(tuple(graph.canonical_etypes), torch.cat(relation), src, dst)


def _sampled(columns: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    return columns[dgl.NID][ids.long()] if dgl.NID in columns else ids


def _of_joined(joined: JoinedRelations) -> Origins:
    """Of joined relations whose graph is not at hand."""
    pair, dst = (end.long().cpu() for end in csr.in_order(joined.across))
    relation, src = joined.relation_of_edge(), joined.source.node.cpu()[pair]
    first = [
        torch.tensor([start[etype[end]] for etype in joined.etypes])[relation]
        for end, start in ((0, _starts(joined.num_src)), (2, _starts(joined.num_dst)))
    ]
    return Origins(joined.etypes, relation, src - first[0], dst - first[1])


def _starts(sizes: Mapping[str, int]) -> dict[str, int]:
    """Where each type begins among the stacked nodes."""
    found, start = {}, 0
    for ntype, count in sizes.items():
        found[ntype], start = start, start + count
    return found


def _of_views(views: Views, ntype: str) -> Origins:
    """Of the pairs of views over nodes of one type; the relation is the view."""
    src, dst = (end.long().cpu() for end in csr.in_order(views.graph))
    view = dst // max(views.num_dst, 1)
    first = torch.tensor(views.source_start)
    names = tuple((ntype, name, ntype) for name in views.names)
    return Origins(names, view, src - first[view], dst - view * views.num_dst)


def _by_step(found: Origins, num_nodes: Mapping[str, int]) -> Origins:
    """Edges of a union of snapshots, whose node t * N + v is node v at step t; num_nodes: N of each type."""
    counts = [
        torch.tensor([num_nodes[etype[end]] for etype in found.relations]).clamp_min(1)[found.relation]
        for end in (0, 2)
    ]
    return replace(found, src=found.src % counts[0], dst=found.dst % counts[1], step=found.dst // counts[1])


def _of_paths(views: Views, num_nodes: Mapping[str, int], steps: int) -> Origins:
    """Of meta-paths over a union of snapshots, from a node type to itself."""
    ntype = next(ntype for ntype, count in num_nodes.items() if count * steps == views.num_dst)
    return _by_step(_of_views(views, ntype), num_nodes)


def _of_groups(groups: RelationGroups, ntype: str) -> Iterator[tuple[dgl.DGLGraph, Origins]]:
    """Of both levels: an entity looks at its neighbours under a relation, and at its relations."""
    (src, place), (group, dst) = (
        (end.long().cpu() for end in csr.in_order(graph)) for graph in (groups.within, groups.collect)
    )
    node, relation = groups.group.node.cpu(), groups.group.relation.cpu().long()
    names = tuple((ntype, name, ntype) for name in groups.relations)
    yield groups.within, Origins(names, relation[place], src, node[place])
    yield groups.collect, Origins((("relation", "of", ntype),), torch.zeros_like(dst), relation[group], dst)


def _of_routes(routes: Routes, ntype: str) -> Iterator[tuple[dgl.DGLGraph, Origins]]:
    """Of the blocks of routes, which say the numbers of their nodes beside them."""
    around = routes.around.cpu()
    before = (routes.senders, *routes.reached)
    for k, block in enumerate(routes.sends):
        nodes = torch.cat([routes.reached[k], before[k]]).cpu()
        yield block, _numbered(block, nodes, ntype)
    for block in routes.collects:
        yield block, _numbered(block, around, ntype)


def _numbered(block: dgl.DGLGraph, nodes: Tensor, ntype: str) -> Origins:
    """Of a block whose sources are `nodes`, the destinations first."""
    src, dst = (nodes[end.long().cpu()] for end in csr.in_order(block))
    return Origins(((ntype, "to", ntype),), torch.zeros_like(src), src, dst)
