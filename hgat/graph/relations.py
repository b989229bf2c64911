"""A typed graph as one graph, so that attention over all relations is one operator call.

The sources of the joined graph are the distinct (node, relation) pairs that send an edge: a projection that
depends on the relation is computed once per pair and never per edge. Its destinations are all destination
nodes, for one softmax over every in-edge of a node (across relations), or the distinct (node, relation) pairs
that receive one, for a softmax inside each relation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import dgl
import torch

from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph import csr
from hgat.graph.memory import within_memory
from hgat.renamed import old_names

__all__ = [
    "JoinedRelations",
    "JoinedTypes",
    "Pairs",
    "add_inverse",
    "extended",
    "join_relations",
    "join_types",
    "prepare",
]

INVERSE = "^-1"
SELF = "self"
# Structures that a graph keeps for different tensors of types.
KEPT = 4
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Pairs:
    """Distinct (node, relation) pairs, sorted by relation.

    node: [K] the node's row when the features of all node types are stacked in order. relation: [K].
    count: [R] pairs per relation, on the CPU.
    """

    node: torch.Tensor
    relation: torch.Tensor
    count: torch.Tensor

    def __len__(self) -> int:
        return self.node.numel()

    def to(self, device: torch.device | str) -> "Pairs":
        """The same pairs with `node` and `relation` on a device."""
        node, relation = csr.to_device((self.node, self.relation), device)
        return Pairs(node, relation, self.count)


@dataclass(frozen=True)
class JoinedRelations:
    """All relations of a typed graph, joined. Edge e is edge e of the relations laid end to end.

    across: DGLGraph, source pairs -> destination nodes. within: DGLGraph, source pairs -> destination pairs.
    collect: DGLGraph, destination pairs -> destination nodes, one edge per pair.
    """

    etypes: tuple[tuple[str, str, str], ...]
    srctypes: tuple[str, ...]
    dsttypes: tuple[str, ...]
    num_src: dict[str, int]
    num_dst: dict[str, int]
    num_edges: tuple[int, ...]
    source: Pairs
    target: Pairs
    across: dgl.DGLGraph
    within: dgl.DGLGraph
    collect: dgl.DGLGraph
    is_block: bool
    _on_device: dict = field(default_factory=dict, repr=False, compare=False)

    def pairs_on(self, device: torch.device | str) -> tuple[Pairs, Pairs]:
        """(source pairs, destination pairs) on `device`, kept once moved."""
        if device not in self._on_device:
            self._on_device[device] = self.source.to(device), self.target.to(device)
        return self._on_device[device]

    def relation_of_edge(self) -> torch.Tensor:
        """The relation's number of every edge, int64 [E]."""
        return torch.repeat_interleave(torch.arange(len(self.etypes)), torch.tensor(self.num_edges))


def _pairs(node, relation, num_nodes, num_relations):
    """Distinct pairs of (relation, node), and the pair of each edge."""
    number = relation * num_nodes + node
    slots = num_nodes * num_relations
    if slots <= 8 * number.numel() + 1000:  # a mark for every possible pair costs less than a sort of the edges
        seen = torch.zeros(slots, dtype=torch.bool, device=number.device).index_fill_(0, number, True)
        key = seen.nonzero().squeeze(1)
        pair_of_edge = (torch.cumsum(seen, 0) - 1)[number]
    else:
        key, pair_of_edge = torch.unique(number, sorted=True, return_inverse=True)
    pair_relation = torch.div(key, max(num_nodes, 1), rounding_mode="floor")
    count = torch.bincount(pair_relation, minlength=num_relations)
    return Pairs(key - pair_relation * num_nodes, pair_relation, count), pair_of_edge


@within_memory
def join_relations(graph: dgl.DGLGraph | JoinedRelations) -> JoinedRelations:
    """Join all relations of a typed DGLGraph (or of a block) into one; built once per graph.

    A JoinedRelations is returned as it is. Node types are stacked in the order of graph.srctypes and
    graph.dsttypes. Raises GraphError for anything that is not a DGLGraph.
    """
    if isinstance(graph, JoinedRelations):
        return graph
    csr.check_graph(graph, "a DGLGraph or what hgat.graph.join_relations gives")
    # Names are part of the key: dgl.block_to_graph gives the index of a block other names.
    names = (tuple(graph.srctypes), tuple(graph.dsttypes), tuple(graph.canonical_etypes), graph.is_block)
    return csr.cached(graph, ("join", names), lambda: _join(graph))


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


@dataclass(frozen=True)
class JoinedTypes:
    """A graph with one relation whose types stand in tensors, as dgl.to_homogeneous writes them, joined.

    A pair is a node and the type of an edge that it sends; its relation is the combination of node type and edge type.
    pairs: Pairs over the combinations that occur. source_type, edge_type: the two types of each combination.
    target_order: [N_dst] the destination nodes sorted by type, target_row: [N_dst] where each of them went, both None
    if they are sorted as they stand. target_type: [N_dst]. target_count: destinations of each node type, on the CPU.
    across: DGLGraph, pairs -> destinations sorted by type, with the edges in the graph's order.
    """

    pairs: Pairs
    source_type: torch.Tensor
    edge_type: torch.Tensor
    target_order: torch.Tensor | None
    target_row: torch.Tensor | None
    target_type: torch.Tensor
    target_count: torch.Tensor
    across: dgl.DGLGraph

    def by_type(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the destinations, from the graph's order to the order of types."""
        return rows if self.target_order is None else rows.index_select(0, self.target_order)

    def by_node(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the destinations, from the order of types back to the graph's."""
        return rows if self.target_row is None else rows.index_select(0, self.target_row)


@within_memory
def join_types(
    graph: dgl.DGLGraph,
    ntype: torch.Tensor,
    etype: torch.Tensor,
    num_ntypes: int,
    num_etypes: int,
    device: torch.device | str | None = None,
) -> JoinedTypes:
    """Join the types of a homogeneous graph, or of a block of one; built once for each pair of type tensors.

    ntype: [N_src] whole numbers below num_ntypes, on a block with the destinations first. etype: [E] whole numbers
    below num_etypes. device: where the index tensors of the result lie, the graph's if None. Other values, or the same
    tensors after a change in place (by PyTorch; NumPy and `.data` leave no trace), get a structure of their own; the
    last four are kept with the graph.
    Raises GraphError for a graph of another kind or a type out of range, ShapeError for tensors unlike the graph.
    """
    csr.single_relation(graph)
    num_src, num_dst = graph.num_src_nodes(), graph.num_dst_nodes()
    if num_src != num_dst and not graph.is_block:
        raise GraphError(f"graph: expected a homogeneous graph or a block, got {num_src} sources and {num_dst} targets")
    csr.check_whole(0, num_ntypes=num_ntypes, num_etypes=num_etypes)
    csr.check_product(num_ntypes=num_ntypes, num_etypes=num_etypes, num_nodes=num_src)
    _check_types("ntype", ntype, "N", num_src)
    _check_types("etype", etype, "E", graph.num_edges())
    device = csr.device_of(graph, device)
    kept: list[tuple[_Seen, _Seen, JoinedTypes]] = csr.cached(
        graph, ("types", num_ntypes, num_etypes, graph.is_block, str(device)), list
    )
    for seen_ntype, seen_etype, joined in kept:
        if seen_ntype.is_still(ntype) and seen_etype.is_still(etype):
            return joined
    # Also where evaluation comes first: indices that are inference tensors could not serve a backward pass later.
    with torch.inference_mode(False):
        joined = csr.finished(_join_types(graph, ntype, etype, num_ntypes, num_etypes, device))
    kept.insert(0, (_Seen(ntype), _Seen(etype), joined))
    del kept[KEPT:]
    return joined


@within_memory
def types_as_sources(graph: dgl.DGLGraph, etype: torch.Tensor, num_etypes: int) -> dgl.DGLGraph:
    """The bipartite graph from each type of edge to the edges of that type: edge e is destination e and edge e of it.

    For what is computed for each type and read by each edge. etype: [E] whole numbers below num_etypes. Kept with the
    graph as `join_types` keeps its structure. Raises GraphError for a graph of several relations or a type out of
    range, ShapeError for a tensor unlike the graph.
    """
    csr.single_relation(graph)
    _check_types("etype", etype, "E", graph.num_edges())
    kept: list[tuple[_Seen, dgl.DGLGraph]] = csr.cached(graph, ("types as sources", num_etypes), list)
    for seen, found in kept:
        if seen.is_still(etype):
            return found
    with torch.inference_mode(False):
        every = torch.arange(graph.num_edges())
        found = _bipartite(_in_range("etype", etype, num_etypes), every, num_etypes, len(every), graph.idtype)
    kept.insert(0, (_Seen(etype), found))
    del kept[KEPT:]
    return found


class _Seen:
    """A tensor of types as it was when a structure was built from it."""

    def __init__(self, tensor):
        self._values = tensor.clone()
        self._remember(tensor)

    def _remember(self, tensor):
        # The tensor itself is held: an address alone could be taken by another tensor once it is freed.
        self._tensor = tensor
        self._version = None if tensor.is_inference() else tensor._version

    def is_still(self, tensor):
        """True if `tensor` is the one that was seen and unchanged since, or has the same values."""
        if tensor is self._tensor and self._version is not None and tensor._version == self._version:
            return True
        alike = tensor.dtype == self._values.dtype and tensor.device == self._values.device
        if not alike or not torch.equal(tensor, self._values):
            return False
        self._remember(tensor)
        return True


def _check_types(name, types, letter, size):
    if not isinstance(types, torch.Tensor) or types.dtype not in WHOLE:
        got = getattr(types, "dtype", type(types).__name__)
        raise ShapeError(f"{name}: expected a tensor of whole numbers [{letter}], got {got}")
    check_shape(name, types, (letter, size))


def _in_range(name, types, limit):
    """`types` as int64 on the CPU; GraphError unless every one is below `limit`."""
    types = types.cpu().to(torch.int64, copy=True)
    if types.numel() and (types.min() < 0 or types.max() >= limit):
        raise GraphError(
            f"{name}: expected numbers from 0 to {limit - 1}, got {int(types.min())} to {int(types.max())}"
        )
    return types


def _join_types(graph, ntype, etype, num_ntypes, num_etypes, device):
    ntype, etype = _in_range("ntype", ntype, num_ntypes), _in_range("etype", etype, num_etypes)
    src, dst = (end.long().cpu() for end in csr.in_order(graph))
    pairs, pair_of_edge = _pairs(src, etype * num_ntypes + ntype[src], len(ntype), num_ntypes * num_etypes)
    # Weights are composed for each combination, so those without an edge are left out.
    occurs, number = torch.unique(pairs.relation, return_inverse=True)
    pairs = Pairs(pairs.node, number, pairs.count[occurs])
    target_type = ntype[: graph.num_dst_nodes()]
    order = row = None
    if (torch.diff(target_type) < 0).any():
        order = torch.argsort(target_type, stable=True)
        row = torch.empty_like(order)
        row[order] = torch.arange(len(order))
        dst = row[dst]
    return JoinedTypes(
        pairs=pairs.to(device),
        source_type=(occurs % max(num_ntypes, 1)).to(device),
        edge_type=torch.div(occurs, max(num_ntypes, 1), rounding_mode="floor").to(device),
        target_order=None if order is None else order.to(device),
        target_row=None if row is None else row.to(device),
        target_type=target_type.to(device),
        target_count=torch.bincount(target_type, minlength=num_ntypes),
        across=_bipartite(pair_of_edge, dst, len(pairs), graph.num_dst_nodes(), graph.idtype),
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


@within_memory
def add_inverse(graph: dgl.DGLGraph, self_relation: bool = False) -> dgl.DGLGraph:
    """A typed graph with the inverse of every relation, and, by name, one relation from each node to itself.

    The inverse of (a, r, b) is (b, r + "^-1", a); the relation to itself is called "self". Node and edge features
    are not carried over. Raises GraphError for a block, and for a graph that has such relations already.
    """
    csr.check_graph(graph)
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
        data |= _to_itself(graph, data)
    return _of_edges(graph, data)


def _to_itself(graph, known):
    """{relation: edges} from each node of each type to itself; GraphError where a relation is called so already."""
    data = {}
    for ntype in graph.ntypes:
        if (ntype, SELF, ntype) in known:
            raise GraphError(f"graph: relation {(ntype, SELF, ntype)} is there already")
        nodes = torch.arange(graph.num_nodes(ntype), dtype=graph.idtype, device=graph.device)
        data[(ntype, SELF, ntype)] = (nodes, nodes)
    return data


def _of_edges(graph, data):
    """A typed graph of the same nodes with these edges."""
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    return dgl.heterograph(data, num_nodes_dict=sizes, idtype=graph.idtype)


def extended(
    graph: dgl.DGLGraph, *, inverse: bool = True, self_relation: bool = True, without: Sequence[str] = ()
) -> dgl.DGLGraph:
    """The graph that relational attention trains on: with inverse relations and, beside them, self relations.

    without: names of relations that are left out before. Raises GraphError for a graph without edges, and for a name
    that no relation has.
    """
    csr.check_graph(graph)
    for name in without:
        if name not in graph.etypes:
            raise GraphError(f"graph.without: expected names of relations among {graph.etypes}, got {name!r}")
    kept = [etype for etype in graph.canonical_etypes if etype[1] not in without]
    if sum(graph.num_edges(etype) for etype in kept) == 0:
        raise GraphError("graph: expected at least one edge, got none")
    csr.check_graph(graph, blocks=not without and (inverse or not self_relation))
    if without:
        graph = _of_edges(graph, {etype: csr.in_order(graph, etype) for etype in kept})
    if inverse:
        return add_inverse(graph, self_relation)
    if self_relation:
        data = {etype: csr.in_order(graph, etype) for etype in graph.canonical_etypes}
        return _of_edges(graph, data | _to_itself(graph, data))
    return graph


def prepare(graph: dgl.DGLGraph, *, inverse: bool = True, self_relation: bool = True) -> JoinedRelations:
    """The structure that relational attention trains on: inverse and self relations added, then joined."""
    return join_relations(extended(graph, inverse=inverse, self_relation=self_relation))


__getattr__ = old_names(globals(), {"join": "join_relations"})
