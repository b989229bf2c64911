"""Events by node in order of time, and the neighbours that a node had before a moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import dgl
import numpy as np
import torch

from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph.csr import check_graph, check_whole, in_order, shown
from hgat.graph.events import event_times
from hgat.graph.memory import enough, within_memory
from hgat.kernels import cpu

__all__ = ["RecentEvents", "RecentNeighbours", "entities", "prepare", "recent_events", "recent_neighbours"]


@dataclass(frozen=True)
class RecentNeighbours:
    """The events of a timed graph by node; row k holds the positions indptr[k] to indptr[k + 1], sorted by time.

    indptr: [N + 1] int64. neighbour: [M], the node at the far end of each event. time: [M], int64 or float64 as in the
    graph. edge: [M], the event's number in the graph. Events of one node at one time keep the graph's order.
    num_edges: E. start: {node type: number of its first node}. The nodes of all types stand in one line in the order of
    graph.ntypes, the edges of all relations in the order of graph.canonical_etypes.
    """

    indptr: torch.Tensor
    neighbour: torch.Tensor
    time: torch.Tensor
    edge: torch.Tensor
    num_edges: int
    start: dict[str, int]

    @property
    def num_nodes(self) -> int:
        """N, over all node types."""
        return self.indptr.numel() - 1

    def to(self, device: torch.device | str) -> "RecentNeighbours":
        """The same events on a device."""
        arrays = {name: getattr(self, name).to(device) for name in ("indptr", "neighbour", "time", "edge")}
        return replace(self, **arrays)

    def queries(
        self, nodes: torch.Tensor | Sequence[int] | np.ndarray, times: torch.Tensor | Sequence[float] | np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(nodes, times), both [B], as tensors of this structure's types and device.

        Raises ShapeError for other shapes and for times of another type than the graph's (rounded, they could look
        ahead), GraphError for nodes out of range and times that are not finite.
        """
        nodes, times = _tensor("nodes", nodes), _tensor("times", times)
        if nodes.dim() != 1 or (nodes.numel() and (nodes.is_floating_point() or nodes.dtype == torch.bool)):
            raise ShapeError(f"nodes: expected [B] whole numbers, got {nodes.dtype} {list(nodes.shape)}")
        if times.shape != nodes.shape:
            raise ShapeError(f"times: expected one for each of {len(nodes)} nodes, got {list(times.shape)}")
        whole = not (self.time.is_floating_point() or times.is_floating_point() or times.dtype == torch.bool)
        if times.numel() and times.dtype != self.time.dtype and not whole:
            raise ShapeError(f"times: expected {self.time.dtype} as in the graph, got {times.dtype}")
        nodes, times = nodes.to(self.indptr.device).long(), times.to(self.time)
        if nodes.numel() and (nodes.min() < 0 or nodes.max() >= self.num_nodes):
            wrong = int(nodes.min()) if nodes.min() < 0 else int(nodes.max())
            raise GraphError(f"nodes: expected numbers from 0 to {self.num_nodes - 1}, got {wrong}")
        if not torch.isfinite(times).all():
            raise GraphError(f"times: expected finite numbers, got {float(times[~torch.isfinite(times)][0])}")
        return nodes, times

    def before(
        self,
        nodes: torch.Tensor | Sequence[int] | np.ndarray,
        times: torch.Tensor | Sequence[float] | np.ndarray,
        count: int,
        sample: Literal["recent", "uniform"] = "recent",
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`count` events of each node at which time < the given time: (neighbour, time, edge, mask), each [B, count].

        sample: "recent", the last `count` of them, or "uniform", any `count` different ones with equal chances, drawn
        from `generator` or else from torch's. Both in order of time, the latest last; a node with fewer has all of
        them, behind padding where mask is False, neighbour 0, time the given time (so that none has elapsed), edge -1.
        An event at the given time itself is never seen, nor is any later one.
        Raises as `queries` does, and ShapeError for a count below 1 or an unknown sample.

        Differs from the neighbour finder of TGAT's authors, which leaves out the latest event, takes the oldest ones
        when not uniform, and draws with repetition.
        """
        check_whole(1, ShapeError, count=count)
        if not isinstance(sample, str) or sample not in ("recent", "uniform"):
            raise ShapeError(f"sample: expected 'recent' or 'uniform', got {shown(sample)}")
        nodes, times = self.queries(nodes, times)
        with enough(f"count: expected as many events as the free memory holds, got {count:,} of {len(nodes):,} nodes"):
            if sample == "recent" and self._compiled:
                return self._last(nodes, times, count)
            return self._found(nodes, times, count, sample, generator)

    def _found(self, nodes, times, count, sample, generator):
        first, end = self.indptr[nodes], self._end(nodes, times)
        place = end.unsqueeze(1) + torch.arange(-count, 0, device=end.device)
        mask = place >= first.unsqueeze(1)
        if sample == "uniform":
            many = end - first > count
            place[many] = first[many].unsqueeze(1) + _distinct(end[many] - first[many], count, generator)
        neighbour, time, edge = torch.zeros_like(place), times.unsqueeze(1).repeat(1, count), torch.full_like(place, -1)
        slot = mask.flatten().nonzero().squeeze(1)
        found = place.flatten()[slot]
        for padded, values in ((neighbour, self.neighbour), (time, self.time), (edge, self.edge)):
            padded.view(-1)[slot] = values[found]
        return neighbour, time, edge, mask

    @property
    def _compiled(self):
        return cpu.available() and self.indptr.device.type == "cpu"

    @property
    def _events(self):
        return self.indptr, self.neighbour, self.time, self.edge

    def _last(self, nodes, times, count):
        """The last `count` events, by the compiled core."""
        shape = (len(nodes), count)
        found = [torch.empty(shape, dtype=kind) for kind in (torch.int64, times.dtype, torch.int64, torch.uint8)]
        cpu.recent(self._events, nodes, times, found)
        neighbour, time, edge, mask = found
        return neighbour, time, edge, mask.view(torch.bool)

    def _end(self, nodes, times):
        """Where the events of each node before the given time end: binary search in all rows at once."""
        if self._compiled:
            end = torch.empty_like(nodes)
            cpu.recent(self._events, nodes, times, end=end)
            return end
        low, high = self.indptr[nodes], self.indptr[nodes + 1]
        while (unsure := low < high).any():
            middle = torch.div(low + high, 2, rounding_mode="floor")
            # A row that is done may stand behind the last event.
            earlier = unsure & (self.time[middle.clamp(max=len(self.time) - 1)] < times)
            low, high = torch.where(earlier, middle + 1, low), torch.where(earlier, high, middle)
        return low


def _tensor(name, values):
    try:
        # NumPy reads floats of Python as float64, PyTorch as float32.
        return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError):
        raise ShapeError(f"{name}: expected [B] numbers, got {type(values).__name__}") from None


def _distinct(size, count, generator):
    """[B, count] different numbers from 0 to size - 1, sorted, every choice alike; size [B], each above count.

    Floyd's way: in step k draw from size - count + k + 1 numbers, and take the last of those if the draw is there.
    """
    drawn = size.new_empty((len(size), count))
    for k in range(count):
        last = size - count + k
        chance = torch.rand(len(size), dtype=torch.float64, device=size.device, generator=generator)
        number = (chance * (last + 1)).long()
        taken = (drawn[:, :k] == number.unsqueeze(1)).any(1)
        drawn[:, k] = torch.where(taken, last, number)
    return drawn.sort(1).values


@within_memory
def recent_neighbours(graph: dgl.DGLGraph, both_ways: bool = True) -> RecentNeighbours:
    """RecentNeighbours of a timed DGLGraph (hgat.graph.from_events), of one relation or several.

    both_ways: both ends of an event see each other (an event from a node to itself is there once); otherwise the
    destination alone sees the source. Raises GraphError where edata["time"] is missing or not finite, and where
    relations have times of different types.
    """
    check_graph(graph, "a DGLGraph of all nodes", blocks=False)
    etypes = graph.canonical_etypes
    sizes = [graph.num_nodes(ntype) for ntype in graph.ntypes]
    start = dict(zip(graph.ntypes, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    times = [event_times(graph, etype if len(etypes) > 1 else None) for etype in etypes]
    if len({time.dtype for time in times}) > 1:
        raise GraphError(f"graph: expected times of one type, got {sorted({str(time.dtype) for time in times})}")
    ends = [[end.long().cpu() for end in in_order(graph, etype)] for etype in etypes]
    src = torch.cat([src + start[etype[0]] for etype, (src, _) in zip(etypes, ends, strict=True)])
    dst = torch.cat([dst + start[etype[2]] for etype, (_, dst) in zip(etypes, ends, strict=True)])
    time = torch.cat(times)
    edge = torch.argsort(time, stable=True)
    node, neighbour = dst[edge], src[edge]
    if both_ways:
        # An event's two entries lie beside each other, so that a stable sort keeps events in order.
        node, neighbour = (torch.stack(pair, 1).flatten() for pair in ((node, neighbour), (neighbour, node)))
        edge = edge.repeat_interleave(2)
        once = node != neighbour
        once[::2] = True
        node, neighbour, edge = node[once], neighbour[once], edge[once]
    order = torch.argsort(node, stable=True)
    indptr = torch.zeros(sum(sizes) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(node, minlength=sum(sizes)), 0, out=indptr[1:])
    edge = edge[order]
    return RecentNeighbours(indptr, neighbour[order], time[edge], edge, len(time), start)


@dataclass(frozen=True)
class RecentEvents:
    """The last K events of each event's entities before it was asked for, under every one of R relations.

    event: [N, R, K] int32, in order of time, the latest last, behind -1 where there are fewer. elapsed: [N, R, K]
    float32, from when they became known to when the event is asked for, 0 where there is none. etypes: the relations.
    """

    event: torch.Tensor
    elapsed: torch.Tensor
    etypes: tuple[tuple[str, str, str], ...]

    def to(self, device: torch.device | str) -> "RecentEvents":
        """The same on a device."""
        return replace(self, event=self.event.to(device), elapsed=self.elapsed.to(device))

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(event, elapsed, mask) of the events `rows` [B], each [B, R, K]; where mask is False event is 0."""
        event = self.event[rows].long()
        return event.clamp(min=0), self.elapsed[rows], event >= 0


def entities(graph: dgl.DGLGraph, etype: tuple[str, str, str]) -> torch.Tensor:
    """[N] int64, the entity that each event, a node of the relation's source type, is linked to; -1 where none.

    Raises GraphError where an event is linked to several.
    """
    src, dst = (end.long().cpu() for end in in_order(graph, etype))
    found = torch.full((graph.num_nodes(etype[0]),), -1)
    found[src] = dst
    often = torch.bincount(src, minlength=len(found))
    if len(src) and often.max() > 1:
        raise GraphError(
            f"graph: expected at most one {etype[2]!r} for every {etype[0]!r} under {etype[1]!r}, got "
            f"{int(often.max())} of number {int(often.argmax())}; several are relations of their own"
        )
    return found


@within_memory
def recent_events(graph: dgl.DGLGraph, asked: torch.Tensor, count: int) -> RecentEvents:
    """RecentEvents of a typed DGLGraph whose nodes of one type are events and whose others are what these are about.

    Every relation goes from the events to entities of a type, and its edata["time"] says when the event became known
    there; asked [N], of the type of the times: when each event is asked for. Of the events of the same entity the last
    `count` are found that were known strictly before then; none for an event without an entity under a relation.
    Raises GraphError for another graph, ShapeError for another count or other times.
    """
    check_graph(graph, "a DGLGraph of events and entities", blocks=False)
    check_whole(1, ShapeError, count=count)
    etypes = graph.canonical_etypes
    sources = sorted({etype[0] for etype in etypes})
    if len(sources) != 1:
        raise GraphError(f"graph: expected relations from one node type, that of the events, got {sources or 'none'}")
    shape = (graph.num_nodes(sources[0]), len(etypes), count)
    check_shape("asked", asked, ("N", shape[0]))
    event, elapsed = torch.full(shape, -1, dtype=torch.int32), torch.zeros(shape)
    for place, etype in enumerate(etypes):
        known = recent_neighbours(graph[etype], both_ways=False)
        entity = entities(graph, etype)
        there = (entity >= 0).nonzero().squeeze(1)
        # On a graph of one relation the entities stand behind the events.
        at = entity[there] + (known.start[etype[2]] if etype[2] != etype[0] else 0)
        found, time, _, mask = known.before(at, asked[there], count)
        event[there, place] = torch.where(mask, found, -1).int()
        elapsed[there, place] = (asked[there].unsqueeze(1) - time).float()
    return RecentEvents(event, elapsed, tuple(etypes))


def prepare(graph: dgl.DGLGraph, *, both_ways: bool = True) -> RecentNeighbours:
    """The structure that attention over earlier events trains on."""
    recent = recent_neighbours(graph, both_ways)
    if not len(recent.edge):
        raise GraphError("graph: expected at least one event, got none")
    return recent
