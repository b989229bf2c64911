"""Edges of a DGLGraph as plain arrays, sorted for attention: by destination, by (destination, relation), by source.

Built once per graph and device and kept with the graph's own index, so that a graph that gains or loses
edges, or is freed, takes its arrays along. Nothing here depends on features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from math import prod
from numbers import Integral
from types import ModuleType
from typing import Any, TypeVar

import dgl
import torch

from hgat import transforms
from hgat.errors import GraphError, ShapeError
from hgat.graph.memory import enough, within_memory
from hgat.kernels import cpu, triton

__all__ = [
    "Rows",
    "all_formats",
    "beside",
    "cached",
    "check_edges",
    "check_graph",
    "check_product",
    "check_whole",
    "device_of",
    "devices_of_dgl",
    "edges",
    "edges_as_sources",
    "finished",
    "in_order",
    "in_rows",
    "in_rows_by_relation",
    "kept",
    "numbered",
    "out_rows",
    "rebuilt",
    "reverse",
    "shown",
    "single_relation",
    "structure",
    "to_device",
]


T = TypeVar("T")
CPU = torch.device("cpu")
BARE = ("cpu", "meta")  # devices whose tensors carry no number
PINNED = 2**28  # bytes at most that pass through pinned memory, which PyTorch keeps for the next time


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
    def num_rows(self) -> int:
        return self.indptr.numel() - 1


def check_graph(graph: Any, expected: str = "a DGLGraph", blocks: bool = True) -> None:
    """Raise GraphError unless `graph` is a DGLGraph, and, without `blocks`, one that is no block."""
    if getattr(graph, "canonical_etypes", None) is None:
        raise GraphError(f"graph: expected {expected}, got {type(graph).__name__}{_advice(graph)}")
    if not blocks and graph.is_block:
        raise GraphError("graph: expected a DGLGraph of all nodes, got a block")


def _advice(graph):
    """What to do with something that is no graph of DGL, behind the sentence that says so."""
    home = type(graph).__module__.partition(".")[0]
    if home == "networkx":
        return "; make one with dgl.from_networkx(graph)"
    if home == "scipy":
        return "; make one with dgl.from_scipy(matrix)"
    ends = isinstance(graph, Sequence) and not isinstance(graph, str) and len(graph) == 2
    if ends or isinstance(graph, torch.Tensor) or home == "numpy":
        return "; the graph comes first, and dgl.graph((src, dst)) makes one of edges"
    return ""


def check_whole(least: int, error: type[Exception] = GraphError, **values: Any) -> None:
    """Raise `error` unless every value is a whole number of `least` or more that 64 bits hold."""
    for name, value in values.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_whole:
            raise error(f"{name}: expected a whole number of {least} or more, got {shown(value)}")
        if value < least:
            raise error(f"{name}: expected {least} or more, got {value}")
        if value >= 2**63:
            raise error(f"{name}: expected a number below 2^63, got {value}")


def check_product(**factors: int) -> None:
    """Raise GraphError unless the product of the numbers is one that 64 bits hold."""
    if prod(factors.values()) >= 2**62:
        names, got = " * ".join(factors), " * ".join(f"{x:,}" for x in factors.values())
        raise GraphError(f"{names}: expected a product below 2^62, got {got}")


def shown(value: object) -> str:
    """What was given, as it stands in the sentence of an error: its type where it is more than a few words."""
    if isinstance(value, (list, tuple, dict, set)) and len(value) > 20:
        return type(value).__name__
    text = repr(value)
    return text if "\n" not in text and len(text) <= 80 else type(value).__name__


def single_relation(graph: Any) -> None:
    """Raise GraphError unless `graph` is a DGLGraph with one relation: homogeneous, bipartite, block or slice."""
    check_graph(graph)
    if len(graph.canonical_etypes) != 1:
        raise GraphError(
            f"graph: expected one relation, got {len(graph.canonical_etypes)}; take one with graph[etype] or join them "
            "with hgat.graph.join_relations(graph)"
        )


def cached(graph: dgl.DGLGraph, key: tuple, build: Callable[[], T], wait: bool = True) -> T:
    """The value of `build()` for this graph, computed once and dropped when the graph is changed.

    DGL replaces a graph's index, or clears the index's own cache, whenever nodes or edges come or go; the value
    lives in that cache, and graphs that share an index (local scopes, slices by feature) share it.
    wait: for the devices of what was built, so that other streams and threads find it finished.
    """
    store = getattr(graph._graph, "_cache", None)
    if store is None:  # an index without a cache: correct, and paid at every call
        return build()
    key = ("hgat", *key)
    if key not in store:
        # Arrays made under inference mode could not be saved for a later backward, and those made inside a transform
        # of torch.func would end with it.
        with torch.inference_mode(False), transforms.outside():
            store[key] = finished(build()) if wait else build()
    return store[key]


def kept(graph: dgl.DGLGraph) -> Iterator[tuple[tuple, Any]]:
    """(key, value) of everything that `cached` has built for this graph so far."""
    store = getattr(graph._graph, "_cache", None) or {}
    for key, value in list(store.items()):
        if isinstance(key, tuple) and key[:1] == ("hgat",):
            yield key[1:], value


def finished(value: T) -> T:
    """`value`, once the GPUs that its tensors lie on have done what the current stream gave them."""
    for device in _devices(value):
        module = getattr(torch, device.type, None)
        if device.type != "cpu" and module is not None:  # the meta device has none
            module.current_stream(device).synchronize()
    return value


def _devices(value):
    """The devices of the tensors in a tensor, Rows or another record, or a list, tuple or dict of them."""
    if isinstance(value, torch.Tensor):
        return {value.device}
    if is_dataclass(value):
        value = vars(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return set().union(*map(_devices, parts))


def beside(graph: dgl.DGLGraph, key: str, tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the graph's data on `device`, moved once and kept with the graph until the tensor is another."""
    if tensor.device == torch.device(device):
        return tensor
    version = None if tensor.is_inference() else tensor._version
    kept: dict = cached(graph, ("beside", key, str(device)), dict)
    if kept.get("of") is not tensor or kept["version"] != version or version is None:
        with torch.inference_mode(False), transforms.outside():
            kept.update(of=tensor, version=version, moved=finished(tensor.to(device)))
    return kept["moved"]


def check_edges(graph: dgl.DGLGraph) -> None:
    """Raise GraphError if an edge of any relation, as DGL holds it, has an end or a number that does not exist.

    DGL takes arrays as they are given, dgl.graph(("csr", ...)) for one, and its native code follows them. What the
    graph holds is looked at once, before DGL makes another sparse format of it.
    """
    cached(graph, ("checked",), lambda: [_check_relation(graph, *x) for x in enumerate(graph.canonical_etypes)])


def _check_relation(graph, number, etype):
    index = graph._graph.get_relation_graph(number)
    held = index.formats()["created"]
    num_src, num_dst = index.num_nodes(0), index.num_nodes(index.metagraph.num_nodes() - 1)
    if "coo" in held:
        src, dst, _ = index.edges(0, "eid")  # as they lie there; adjacency_matrix_tensors would copy them
        _check_range(etype, "source", src, num_src)
        _check_range(etype, "destination", dst, num_dst)
    for form, of, rows, end, nodes in (
        ("csr", False, num_src, "destination", num_dst),
        ("csc", True, num_dst, "source", num_src),
    ):
        if form not in held:
            continue
        _, _, indptr, ends, edge = index.adjacency_matrix_tensors(0, of, "csr")
        _check_pointers(etype, form, indptr, rows, len(ends))
        _check_range(etype, end, ends, nodes)
        if not len(edge):  # DGL's way to say that they are 0, 1, 2, ...
            continue
        seen = torch.zeros(len(ends), dtype=torch.bool, device=edge.device)
        _check_range(etype, "edge", edge, len(ends))
        if len(edge) != len(ends) or not seen.index_fill_(0, edge.long(), True).all():
            raise GraphError(f"graph: expected every edge number of {etype} once, got some of them again")


def _check_range(etype, what, numbers, limit):
    if numbers.numel():
        least, most = (int(x) for x in torch.aminmax(numbers))
        if least < 0 or most >= limit:
            wrong = least if least < 0 else most
            raise GraphError(f"graph: expected {what} numbers of {etype} from 0 to {limit - 1}, got {wrong}")


def _check_pointers(etype, form, indptr, rows, count):
    fits = len(indptr) == rows + 1 and indptr[0] == 0 and indptr[-1] == count
    if not fits or (indptr[1:] < indptr[:-1]).any():
        got = f"{len(indptr)} from {int(indptr.min())} to {int(indptr.max())}" if len(indptr) else "none"
        falls = " that fall" if fits else ""
        raise GraphError(
            f"graph: expected {rows + 1} {form} pointers of {etype} that rise from 0 to {count}, got {got}{falls}"
        )


def all_formats(graph: dgl.DGLGraph) -> bool:
    """True unless `graph.formats(...)` has restricted the graph to some of DGL's sparse formats.

    Asked before DGL's own code reads the edges, so it raises as `check_edges` does.
    """
    check_edges(graph)
    return cached(graph, ("all formats",), lambda: sum(len(f) for f in graph.formats().values()) == 3)


def in_order(graph: dgl.DGLGraph, etype: str | tuple[str, str, str] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(source, destination) of every edge of one relation in the graph's order and own id type.

    Raises GraphError as `check_edges` does.
    """
    if all_formats(graph):
        return graph.edges(etype=etype, order="eid")
    # Without COO DGL lists edges by row only.
    src, dst, number = graph.edges(form="all", etype=etype, order=None)
    if not len(number):  # rows whose edges are numbered as they stand
        return src, dst
    place = torch.argsort(number)
    return src[place], dst[place]


def rebuilt(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """A graph with the types, nodes, edges and data of `graph`, made afresh, that may hold every sparse format.

    DGL's transforms stop with errors of their own on graphs that `graph.formats(...)` has restricted. `graph` is no
    block; it is given back as it is unless it was restricted.
    """
    if all_formats(graph):
        return graph
    ends = {etype: in_order(graph, etype) for etype in graph.canonical_etypes}
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    found = dgl.heterograph(ends, sizes, idtype=graph.idtype)
    for ntype in graph.ntypes:
        found.nodes[ntype].data.update(graph.nodes[ntype].data)
    for etype in graph.canonical_etypes:
        found.edges[etype].data.update(graph.edges[etype].data)
    return found


def numbered(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """`graph`, or one of the same nodes and edges in the same order that DGL's kernels for sums over edges serve.

    Those of DGL 2.1 for floats of 32 bits and less want the numbers of the edges, which a graph that was made from CSR
    or CSC without them (dgl.from_scipy) does not keep: "Check notnull: edges", there or in backward.
    """
    single_relation(graph)

    def build():
        check_edges(graph)
        index = graph._graph.get_relation_graph(0)
        held = [form for form in index.formats()["created"] if form != "coo"]
        arrays = [index.adjacency_matrix_tensors(0, form == "csc", "csr") for form in held]
        if all(len(edge) == len(ends) for _, _, _, ends, edge in arrays):
            return None  # the graph itself would hold itself alive
        return dgl.heterograph(
            {("source", "to", "target"): in_order(graph)},
            num_nodes_dict={"source": graph.num_src_nodes(), "target": graph.num_dst_nodes()},
            idtype=graph.idtype,
        )

    found = cached(graph, ("numbered",), build)
    return graph if found is None else found


def device_of(graph: dgl.DGLGraph | torch.Tensor, device: torch.device | str | None) -> torch.device:
    """`device` as PyTorch's, that of the graph or tensor if it is None; GraphError for what is none."""
    if device is None:
        return graph.device
    if isinstance(device, torch.device) and (device.type in BARE or device.index is not None):
        return device
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise GraphError(f"device: expected a device such as 'cpu' or 'cuda:0', got {shown(device)}") from None
    if found.type in BARE or found.index is not None:
        return found
    try:  # "cuda" is the current one of several, and its tensors say which
        return torch.empty(0, device=found).device
    except (AssertionError, RuntimeError) as error:  # the first by a PyTorch that was built without it
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GraphError(f"device: expected one that PyTorch can use, got {shown(device)}: {reason}") from None


@cache
def devices_of_dgl() -> frozenset[str]:
    """Types of device that this build of DGL has code for: "cpu", and "cuda" perhaps."""
    prefix = "device_api."
    return frozenset(name.removeprefix(prefix) for name in dgl.list_global_func_names() if name.startswith(prefix))


def to_device(value: Any, device: torch.device | str) -> Any:
    """What a layer on `device` takes: a graph or block, a tensor, or a list, tuple or dict of them.

    A graph goes there where this build of DGL has code for the device; else it stays, and the operators keep its
    structure on the device, as PyPI's DGL has code for the CPU alone: that of a graph of one relation is built here.
    Tensors go from the CPU to a GPU through pinned memory. Neither waits for what the GPU is doing, and the results
    are for the current stream; tensors of more than 256 MiB are waited for. A tensor may be filled again once this has
    returned, a pinned one too. What is neither is given back as it is. Raises GraphError for what is no device.
    """
    if isinstance(value, Mapping):
        return {key: to_device(one, device) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        moved = [to_device(one, device) for one in value]
        return value._make(moved) if hasattr(value, "_make") else type(value)(moved)  # a namedtuple
    if not isinstance(value, (dgl.DGLGraph, torch.Tensor)):
        return value
    found = device_of(value, device)
    if isinstance(value, torch.Tensor):
        return _moved(value, found)
    if found.type in devices_of_dgl():
        return value.to(found)
    if len(value.canonical_etypes) == 1:
        if found.type in ("cuda", "xpu") and triton.available() and not triton.interpreted():
            structure(value, found, triton, wait=False)
        else:
            edges(value, found, wait=False)
    return value


def _moved(tensor, device):
    """A tensor on `device`; from the CPU to a GPU through memory that is pinned here, without waiting."""
    if tensor.device.type != "cpu" or device.type != "cuda" or not 0 < tensor.nbytes <= PINNED:
        return tensor.to(device)
    if tensor.is_pinned():  # its owner may fill it again before the copy has run, and pin_memory() gives it back
        tensor = tensor.clone()
    return tensor.pin_memory().to(device, non_blocking=True)


def edges(
    graph: dgl.DGLGraph, device: torch.device | str | None = None, *, wait: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """(source, destination) of every edge in the graph's order, int64 [E] each, on `device`.

    wait: as of `cached`. Raises GraphError where they do not fit into memory.
    """
    single_relation(graph)
    device = device_of(graph, device)

    def build():
        with _room("edges: expected arrays", graph, device):
            src, dst = (to_device(end, device).long() for end in in_order(graph))
        return src, dst

    return cached(graph, ("edges", device), build, wait)


def _room(expected, graph, device):
    """One sentence where the memory of `device` ends inside the block."""
    return enough(f"{expected} that the free memory of {device} holds, got {graph.num_edges():,} edges")


def _rows(key, other, num_rows):
    order = torch.argsort(key, stable=True)
    indptr = torch.zeros(num_rows + 1, dtype=torch.int64, device=key.device)
    torch.cumsum(torch.bincount(key, minlength=num_rows), 0, out=indptr[1:])
    return Rows(indptr, other[order], order)


@within_memory
def in_rows(graph: dgl.DGLGraph, device: torch.device | str | None = None) -> Rows:
    """In-edges by destination: one row per destination node, `other` is the source."""
    src, dst = edges(graph, device)
    return cached(graph, ("in", src.device), lambda: _rows(dst, src, graph.num_dst_nodes()))


@within_memory
def out_rows(graph: dgl.DGLGraph, device: torch.device | str | None = None) -> Rows:
    """Out-edges by source, the transpose of `in_rows`: one row per source node, `other` is the destination."""
    src, dst = edges(graph, device)
    return cached(graph, ("out", src.device), lambda: _rows(src, dst, graph.num_src_nodes()))


def structure(
    graph: dgl.DGLGraph, device: torch.device | str | None = None, kernels: ModuleType = cpu, *, wait: bool = True
) -> list[torch.Tensor]:
    """The edges by destination and by source as compiled kernels read them, on `device`.

    kernels: those of hgat.kernels.cpu, or of hgat.kernels.triton, whose `build_structure` sorts the edges once; the
    core's has one int32 tensor, Triton's several. wait: as of `cached`. Raises GraphError where they do not serve a
    graph of this size, and where it does not fit into memory.
    """
    single_relation(graph)
    if device != CPU:  # asked at every call of an operator
        device = device_of(graph, device)

    def build():
        sizes = graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges()
        with _room("structure: expected one", graph, device):
            ends = in_order(graph)
            src, dst = to_device(ends, device)
            options = {}
            if ends[0].device.type == "cpu" != device.type:  # counted here, so that the device is not waited for
                options["degrees"] = [torch.bincount(end, minlength=n) for end, n in zip(ends, sizes[:2], strict=True)]
            try:
                return to_device(kernels.build_structure(src, dst, *sizes[:2], **options), device)
            except ValueError as error:
                got = f", got {max(sizes):,}" if max(sizes) >= 2**31 else ""
                raise GraphError(f"{error}{got}") from None

    return cached(graph, ("structure", kernels.__name__, device), build, wait)


@within_memory
def in_rows_by_relation(
    graph: dgl.DGLGraph,
    relation: torch.Tensor | Sequence[int],
    num_relations: int,
    device: torch.device | str | None = None,
) -> Rows:
    """In-edges by (destination, relation): row v * num_relations + r holds the in-edges of v under r.

    relation: [E] int, the relation of each edge in the graph's order. Not cached: it belongs to whoever holds
    `relation`. Raises ShapeError and GraphError for an array that does not fit.
    """
    src, dst = edges(graph, device)
    try:
        given = torch.as_tensor(relation, device=src.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"relation: expected [E] whole numbers, got {type(relation).__name__}") from None
    # PyTorch makes an empty list float32.
    if given.numel() and (given.is_floating_point() or given.is_complex()):
        raise ShapeError(f"relation: expected whole numbers, got {given.dtype}")
    number = given.long()
    check_whole(0, num_relations=num_relations)
    check_product(num_relations=num_relations, num_nodes=graph.num_dst_nodes())
    if number.shape != dst.shape:
        raise ShapeError(f"relation: expected [E] = [{dst.numel()}], got {list(number.shape)}")
    if number.numel() and (number.min() < 0 or number.max() >= num_relations):
        raise GraphError(
            f"relation: expected numbers from 0 to {num_relations - 1}, got {int(number.min())} to {int(number.max())}"
        )
    return _rows(dst * num_relations + number, src, graph.num_dst_nodes() * num_relations)


def reverse(graph: dgl.DGLGraph) -> dgl.DGLGraph:
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


def edges_as_sources(graph: dgl.DGLGraph) -> dgl.DGLGraph:
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
