"""A typed graph as one graph, so that attention over all relations is one operator call.

The sources of the joined graph are the distinct (node, relation) pairs that send an edge: a projection that
depends on the relation is computed once per pair and never per edge. Its destinations are all destination
nodes, for one softmax over every in-edge of a node (across relations), or the distinct (node, relation) pairs
that receive one, for a softmax inside each relation.
"""

from dataclasses import dataclass, field

import dgl
import torch

from hgat.errors import GraphError
from hgat.graph import csr

__all__ = ["JoinedRelations", "Pairs", "add_inverse", "join", "prepare"]

INVERSE = "^-1"
SELF = "self"


@dataclass(frozen=True)
class Pairs:
    """Distinct (node, relation) pairs, sorted by relation.

    node: [K] the node's row when the features of all node types are stacked in order. relation: [K].
    count: [R] pairs per relation, on the CPU.
    """

    node: torch.Tensor
    relation: torch.Tensor
    count: torch.Tensor

    def __len__(self):
        return self.node.numel()

    def to(self, device):
        return Pairs(self.node.to(device), self.relation.to(device), self.count)


@dataclass(frozen=True)
class JoinedRelations:
    """All relations of a typed graph, joined. Edge e is edge e of the relations laid end to end.

    across: DGLGraph, source pairs -> destination nodes. within: DGLGraph, source pairs -> destination pairs.
    collect: DGLGraph, destination pairs -> destination nodes, one edge per pair.
    """

    etypes: tuple
    srctypes: tuple
    dsttypes: tuple
    num_src: dict
    num_dst: dict
    num_edges: tuple
    source: Pairs
    target: Pairs
    across: dgl.DGLGraph
    within: dgl.DGLGraph
    collect: dgl.DGLGraph
    is_block: bool
    _on_device: dict = field(default_factory=dict, repr=False, compare=False)

    def pairs_on(self, device):
        """(source pairs, destination pairs, destination pair of each edge) on `device`, kept once moved."""
        if device not in self._on_device:
            self._on_device[device] = (
                self.source.to(device),
                self.target.to(device),
                csr.edges(self.within, device)[1],
            )
        return self._on_device[device]

    def relation_of_edge(self):
        """The relation's number of every edge, int64 [E]."""
        return torch.repeat_interleave(torch.arange(len(self.etypes)), torch.tensor(self.num_edges))


def _pairs(node, relation, num_nodes, num_relations):
    """Distinct pairs of (relation, node), and the pair of each edge."""
    key, pair_of_edge = torch.unique(relation * num_nodes + node, sorted=True, return_inverse=True)
    pair_relation = torch.div(key, max(num_nodes, 1), rounding_mode="floor")
    count = torch.bincount(pair_relation, minlength=num_relations)
    return Pairs(key - pair_relation * num_nodes, pair_relation, count), pair_of_edge


def join(graph):
    """Join all relations of a typed DGLGraph (or of a block) into one; built once per graph.

    A JoinedRelations is returned as it is. Node types are stacked in the order of graph.srctypes and
    graph.dsttypes. Raises GraphError for anything that is not a DGLGraph.
    """
    if isinstance(graph, JoinedRelations):
        return graph
    _check_graph(graph, "a DGLGraph or what hgat.graph.join gives")
    # Names are part of the key: dgl.block_to_graph gives the index of a block other names.
    names = (tuple(graph.srctypes), tuple(graph.dsttypes), tuple(graph.canonical_etypes), graph.is_block)
    return csr.cached(graph, ("join", names), lambda: _join(graph))


def _check_graph(graph, expected="a DGLGraph"):
    if getattr(graph, "canonical_etypes", None) is None:
        raise GraphError(f"graph: expected {expected}, got {type(graph).__name__}")


def _join(graph):
    num_src = {t: graph.num_src_nodes(t) for t in graph.srctypes}
    num_dst = {t: graph.num_dst_nodes(t) for t in graph.dsttypes}
    src_start, dst_start = _starts(num_src), _starts(num_dst)
    sources, targets, relations = [], [], []
    for number, etype in enumerate(graph.canonical_etypes):
        src, dst = csr.in_order(graph, etype)
        sources.append(src.long().cpu() + src_start[etype[0]])
        targets.append(dst.long().cpu() + dst_start[etype[2]])
        relations.append(torch.full((src.numel(),), number, dtype=torch.int64))
    num_relations = len(graph.canonical_etypes)
    num_nodes = sum(num_dst.values())
    target_node = torch.cat(targets)
    relation = torch.cat(relations)
    source, source_of_edge = _pairs(torch.cat(sources), relation, sum(num_src.values()), num_relations)
    target, target_of_edge = _pairs(target_node, relation, num_nodes, num_relations)
    return JoinedRelations(
        etypes=tuple(graph.canonical_etypes),
        srctypes=tuple(graph.srctypes),
        dsttypes=tuple(graph.dsttypes),
        num_src=num_src,
        num_dst=num_dst,
        num_edges=tuple(r.numel() for r in relations),
        source=source,
        target=target,
        across=_bipartite(source_of_edge, target_node, len(source), num_nodes, graph.idtype),
        within=_bipartite(source_of_edge, target_of_edge, len(source), len(target), graph.idtype),
        collect=_bipartite(torch.arange(len(target)), target.node, len(target), num_nodes, graph.idtype),
        is_block=graph.is_block,
    )


def _starts(sizes):
    starts, total = {}, 0
    for ntype, size in sizes.items():
        starts[ntype] = total
        total += size
    return starts


def _bipartite(src, dst, num_src, num_dst, idtype):
    return dgl.heterograph(
        {("source", "to", "target"): (src, dst)},
        num_nodes_dict={"source": num_src, "target": num_dst},
        idtype=idtype,
    )


def add_inverse(graph, self_relation=False):
    """A typed graph with the inverse of every relation, and, by name, one relation from each node to itself.

    The inverse of (a, r, b) is (b, r + "^-1", a); the relation to itself is called "self". Node and edge features
    are not carried over. Raises GraphError for a block, and for a graph that has such relations already.
    """
    _check_graph(graph)
    if graph.is_block:
        raise GraphError("graph: expected a graph whose relations can be inverted, got a block")
    data = {}
    for etype in graph.canonical_etypes:
        src_type, name, dst_type = etype
        src, dst = csr.in_order(graph, etype)
        inverse = (dst_type, name + INVERSE, src_type)
        if inverse in graph.canonical_etypes:
            raise GraphError(f"graph: relation {etype} has its inverse {inverse} already")
        data[etype] = (src, dst)
        data[inverse] = (dst, src)
    if self_relation:
        for ntype in graph.ntypes:
            if (ntype, SELF, ntype) in data:
                raise GraphError(f"graph: relation {(ntype, SELF, ntype)} is there already")
            nodes = torch.arange(graph.num_nodes(ntype), dtype=graph.idtype, device=graph.device)
            data[(ntype, SELF, ntype)] = (nodes, nodes)
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    return dgl.heterograph(data, num_nodes_dict=sizes, idtype=graph.idtype)


def prepare(graph, *, inverse: bool = True, self_relation: bool = True):
    """The structure that relational attention trains on: inverse and self relations added, then joined."""
    _check_graph(graph)
    if graph.num_edges() == 0:
        raise GraphError("graph: expected at least one edge, got none")
    if inverse:
        graph = add_inverse(graph, self_relation)
    elif self_relation:
        raise GraphError("graph.self_relation: expected inverse = true beside it, got inverse = false")
    return join(graph)
