"""Edges of a DGLGraph as plain arrays, sorted for attention: by destination, by (destination, relation), by source.

Built once per graph and device and kept with the graph's own index, so that a graph that gains or loses
edges, or is freed, takes its arrays along. Nothing here depends on features.
"""

from dataclasses import dataclass

import dgl
import torch

from hgat import transforms
from hgat.errors import GraphError, ShapeError
from hgat.kernels import cpu

__all__ = [
    "Rows",
    "all_formats",
    "cached",
    "edges",
    "edges_as_sources",
    "in_order",
    "in_rows",
    "in_rows_by_relation",
    "out_rows",
    "reverse",
    "single_relation",
    "structure",
]


@dataclass(frozen=True)
class Rows:
    """Edges grouped into rows; row k holds the positions indptr[k] to indptr[k + 1].

    indptr: [rows + 1] int64. other: [E], the node at the far end of each edge. edge_id: [E], the edge's number
    in the graph. Inside a row edges keep the graph's order.
    """

    indptr: torch.Tensor
    other: torch.Tensor
    edge_id: torch.Tensor

    @property
    def num_rows(self):
        return self.indptr.numel() - 1


def single_relation(graph):
    """Raise GraphError unless `graph` is a DGLGraph with one relation: homogeneous, bipartite, block or slice."""
    etypes = getattr(graph, "canonical_etypes", None)
    if etypes is None:
        raise GraphError(f"graph: expected a DGLGraph, got {type(graph).__name__}")
    if len(etypes) != 1:
        raise GraphError(
            f"graph: expected one relation, got {len(etypes)}; take one with graph[etype] or join them with "
            "hgat.graph.join(graph)"
        )


def cached(graph, key, build):
    """The value of `build()` for this graph, computed once and dropped when the graph is changed.

    DGL replaces a graph's index, or clears the index's own cache, whenever nodes or edges come or go; the value
    lives in that cache, and graphs that share an index (local scopes, slices by feature) share it.
    """
    store = getattr(graph._graph, "_cache", None)
    if store is None:  # an index without a cache: correct, and paid at every call
        return build()
    key = ("hgat", *key)
    if key not in store:
        # Arrays made under inference mode could not be saved for a later backward, and those made inside a transform
        # of torch.func would end with it.
        with torch.inference_mode(False), transforms.outside():
            store[key] = build()
    return store[key]


def all_formats(graph):
    """True unless `graph.formats(...)` has restricted the graph to some of DGL's sparse formats."""
    return cached(graph, ("all formats",), lambda: sum(len(f) for f in graph.formats().values()) == 3)


def in_order(graph, etype=None):
    """(source, destination) of every edge of one relation in the graph's order and own id type."""
    if all_formats(graph):
        return graph.edges(etype=etype, order="eid")
    # Without COO DGL lists edges by row only.
    src, dst, number = graph.edges(form="all", etype=etype, order=None)
    place = torch.argsort(number)
    return src[place], dst[place]


def edges(graph, device=None):
    """(source, destination) of every edge in the graph's order, int64 [E] each, on `device`."""
    single_relation(graph)
    device = torch.device(device) if device is not None else graph.device

    def build():
        src, dst = in_order(graph)
        return src.long().to(device), dst.long().to(device)

    return cached(graph, ("edges", str(device)), build)


def _rows(key, other, num_rows):
    order = torch.argsort(key, stable=True)
    indptr = torch.zeros(num_rows + 1, dtype=torch.int64, device=key.device)
    torch.cumsum(torch.bincount(key, minlength=num_rows), 0, out=indptr[1:])
    return Rows(indptr, other[order], order)


def in_rows(graph, device=None):
    """In-edges by destination: one row per destination node, `other` is the source."""
    src, dst = edges(graph, device)
    return cached(graph, ("in", str(src.device)), lambda: _rows(dst, src, graph.num_dst_nodes()))


def out_rows(graph, device=None):
    """Out-edges by source, the transpose of `in_rows`: one row per source node, `other` is the destination."""
    src, dst = edges(graph, device)
    return cached(graph, ("out", str(src.device)), lambda: _rows(src, dst, graph.num_src_nodes()))


def structure(graph):
    """The edges by destination and by source as the compiled core reads them: one int32 tensor on the CPU.

    Raises GraphError for 2^31 edges or more.
    """
    single_relation(graph)

    def build():
        src, dst = in_order(graph)
        try:
            return cpu.build_structure(src.cpu(), dst.cpu(), graph.num_src_nodes(), graph.num_dst_nodes())
        except ValueError as error:
            raise GraphError(str(error)) from None

    return cached(graph, ("structure",), build)


def in_rows_by_relation(graph, relation, num_relations, device=None):
    """In-edges by (destination, relation): row v * num_relations + r holds the in-edges of v under r.

    relation: [E] int, the relation of each edge in the graph's order. Not cached: it belongs to whoever holds
    `relation`. Raises ShapeError and GraphError for an array that does not fit.
    """
    src, dst = edges(graph, device)
    try:
        relation = torch.as_tensor(relation, device=src.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"relation: expected [E] whole numbers, got {type(relation).__name__}") from None
    # PyTorch makes an empty list float32.
    if relation.numel() and (relation.is_floating_point() or relation.is_complex()):
        raise ShapeError(f"relation: expected whole numbers, got {relation.dtype}")
    relation = relation.long()
    if num_relations < 0:
        raise GraphError(f"num_relations: expected 0 or more, got {num_relations}")
    if relation.shape != dst.shape:
        raise ShapeError(f"relation: expected [E] = [{dst.numel()}], got {list(relation.shape)}")
    if relation.numel() and (relation.min() < 0 or relation.max() >= num_relations):
        raise GraphError(
            f"relation: expected numbers from 0 to {num_relations - 1}, "
            f"got {int(relation.min())} to {int(relation.max())}"
        )
    return _rows(dst * num_relations + relation, src, graph.num_dst_nodes() * num_relations)


def reverse(graph):
    """The bipartite graph from each destination to its sources; edge e is edge e of the result."""
    single_relation(graph)

    def build():
        src, dst = in_order(graph)
        return dgl.heterograph(
            {("target", "to", "source"): (dst, src)},
            num_nodes_dict={"target": graph.num_dst_nodes(), "source": graph.num_src_nodes()},
            idtype=graph.idtype,
        )

    return cached(graph, ("reverse",), build)


def edges_as_sources(graph):
    """The bipartite graph from each edge to its destination: edge e is source e and edge e of the result."""
    single_relation(graph)

    def build():
        _, dst = in_order(graph)
        src = torch.arange(graph.num_edges(), dtype=dst.dtype, device=dst.device)
        return dgl.heterograph(
            {("edge", "to", "target"): (src, dst)},
            num_nodes_dict={"edge": graph.num_edges(), "target": graph.num_dst_nodes()},
            idtype=graph.idtype,
        )

    return cached(graph, ("edges_as_sources",), build)
