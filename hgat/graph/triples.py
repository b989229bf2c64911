"""Triples of a knowledge graph as graphs: by relation, as messages between entities, and grouped for two levels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import dgl
import torch
from torch import Tensor

from hgat.errors import GraphError
from hgat.graph import csr
from hgat.graph.memory import within_memory
from hgat.graph.relations import INVERSE, SELF, Pairs, _bipartite, _pairs

__all__ = ["ENTITY", "RelationGroups", "message_graph", "relation_groups", "triple_graph"]

ENTITY = "entity"


@within_memory
def triple_graph(triples: Tensor, num_entities: int, relations: Sequence[str]) -> dgl.DGLGraph:
    """Triples as a typed graph: one edge a triple, from head to tail, in a relation of its name among entities.

    triples [M, 3], whole numbers, (head, relation, tail); relations: R names. A relation without a triple is there,
    with no edge. Raises GraphError for other triples, and for names that are not all different.
    """
    if not isinstance(triples, Tensor) or triples.dim() != 2 or triples.shape[1] != 3 or triples.is_floating_point():
        got = list(triples.shape) if isinstance(triples, Tensor) else type(triples).__name__
        raise GraphError(f"triples: expected whole numbers [M, 3], got {got}")
    _check_names(relations)
    sizes = torch.tensor([num_entities, len(relations), num_entities])
    if ((triples < 0) | (triples >= sizes)).any():
        raise GraphError(
            f"triples: expected numbers of {num_entities} entities and {len(relations)} relations, got others"
        )
    head, relation, tail = triples.long().unbind(1)
    edges = {(ENTITY, name, ENTITY): (head[here], tail[here]) for name, here in _by_number(relation, relations)}
    return dgl.heterograph(edges, num_nodes_dict={ENTITY: num_entities})


def _check_names(relations):
    if isinstance(relations, str) or not relations or len(set(relations)) != len(relations):
        raise GraphError(f"relations: expected different names, at least one, got {csr.shown(relations)}")


def _by_number(relation, relations):
    """(name, places of its triples) of every relation, in order."""
    order = torch.argsort(relation, stable=True)
    return zip(relations, order.split(torch.bincount(relation, minlength=len(relations)).tolist()), strict=True)


@within_memory
def message_graph(
    graph: dgl.DGLGraph, inverse: bool = True, self_relation: bool = False
) -> tuple[dgl.DGLGraph, Tensor, tuple[str, ...]]:
    """(graph of one relation, etype [E], the names of its edges' types) of a typed graph of one node type.

    Edges of relation k of graph.canonical_etypes have type k, and with `inverse` each is there the other way round,
    too, with type R + k, called `name^-1`. self_relation: each node has an edge to itself of the last type, called
    "self". What enters a node says with whom it is in which relation. The edges lie by type, and are those of `graph`
    and no others: of a graph of training triples no held-out one is among them.
    Raises GraphError for a block or a graph of several node types, and for one without edges.
    """
    csr.check_graph(graph, blocks=False)
    if len(graph.ntypes) != 1:
        raise GraphError(f"graph: expected one node type, got {len(graph.ntypes)}")
    if graph.num_edges() == 0:
        raise GraphError("graph: expected at least one edge, got none")
    ends = [csr.in_order(graph, etype) for etype in graph.canonical_etypes]
    names = tuple(name for _, name, _ in graph.canonical_etypes)
    if inverse:
        ends, names = [*ends, *((dst, src) for src, dst in ends)], (*names, *(name + INVERSE for name in names))
    if self_relation:
        nodes = torch.arange(graph.num_nodes(), dtype=graph.idtype, device=graph.device)
        ends, names = [*ends, (nodes, nodes)], (*names, SELF)
    src, dst = (torch.cat(side) for side in zip(*ends, strict=True))
    etype = torch.repeat_interleave(torch.arange(len(ends)), torch.tensor([len(one) for one, _ in ends]))
    return dgl.graph((src, dst), num_nodes=graph.num_nodes(), idtype=graph.idtype), etype, names


@dataclass(frozen=True)
class RelationGroups:
    """The in-edges of every node in groups, one for each relation that it has: two levels of attention.

    within: DGLGraph, nodes -> groups, an edge for each edge of the graph, in its order. collect: DGLGraph, groups ->
    nodes, an edge for each group, in order. group: the P groups as (node, relation), sorted by relation. num_nodes: N.
    relations: the names of all R.
    """

    within: dgl.DGLGraph
    collect: dgl.DGLGraph
    group: Pairs
    num_nodes: int
    relations: tuple[str, ...]
    _on_device: dict = field(default_factory=dict, repr=False, compare=False)

    def relation_on(self, device: torch.device | str) -> Tensor:
        """The relation of every group, [P], on `device`, kept once moved."""
        if device not in self._on_device:
            (self._on_device[device],) = csr.to_device((self.group.relation,), device)
        return self._on_device[device]


@within_memory
def relation_groups(graph: dgl.DGLGraph, etype: Tensor, relations: Sequence[str]) -> RelationGroups:
    """Group the in-edges of each node by their type, for attention over relations and, inside one, over neighbours.

    graph: DGLGraph from nodes to the same nodes, one relation; etype [E], whole numbers, of its edges in order;
    relations: R different names of these numbers: what hgat.graph.message_graph gives. A node without in-edges has no
    group, and a relation without edges none either.
    Raises GraphError for a block, and for types that do not fit the graph.
    """
    csr.single_relation(graph)
    _check_names(relations)
    if graph.is_block or graph.num_src_nodes() != graph.num_dst_nodes():
        raise GraphError("graph: expected one from nodes to the same nodes, got a block or two ends")
    if not isinstance(etype, Tensor) or etype.is_floating_point() or etype.shape != (graph.num_edges(),):
        got = list(etype.shape) if isinstance(etype, Tensor) else type(etype).__name__
        raise GraphError(f"etype: expected whole numbers [E] with E = {graph.num_edges()}, got {got}")
    etype, nodes = etype.long().cpu(), graph.num_nodes()
    if len(etype) and (etype.min() < 0 or etype.max() >= len(relations)):
        got = f"{int(etype.min())} to {int(etype.max())}"
        raise GraphError(f"etype: expected numbers from 0 to {len(relations) - 1}, got {got}")
    src, dst = (end.long().cpu() for end in csr.in_order(graph))
    group, of_edge = _pairs(dst, etype, nodes, len(relations))
    within = _bipartite(src, of_edge, nodes, len(group), graph.idtype)
    collect = _bipartite(torch.arange(len(group)), group.node, len(group), nodes, graph.idtype)
    return RelationGroups(within, collect, group, nodes, tuple(relations))
