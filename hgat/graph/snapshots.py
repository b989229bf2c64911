"""A changing graph as snapshots over one set of nodes, and all snapshots as one graph.

Snapshot t owns row v of every node v: attention over T snapshots is one operator call on their disjoint union, whose
node t * N + v is node v in snapshot t.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal

import dgl
import numpy as np
import torch

from hgat.errors import GraphError
from hgat.graph.csr import check_graph, in_order, shown
from hgat.graph.events import TIME, event_times
from hgat.graph.memory import available, within_memory
from hgat.graph.relations import INVERSE, SELF
from hgat.renamed import old_names

__all__ = ["Snapshots", "snapshots", "step_of_events"]

LARGEST = 2**31 - 1  # nodes of a union: what int32 ids and the compiled core count
BYTES_OF_A_LINK = 100  # while links are repeated, sorted and merged


@dataclass(frozen=True)
class Links:
    """Distinct pairs of a relation: `count` events from `src` to `dst` in snapshot `step`, sorted by step. All [L]."""

    step: torch.Tensor
    src: torch.Tensor
    dst: torch.Tensor
    count: torch.Tensor

    def where(self, mask: torch.Tensor) -> "Links":
        """The pairs where `mask`, [L] bool, is True."""
        return Links(self.step[mask], self.src[mask], self.dst[mask], self.count[mask])


@dataclass(frozen=True, eq=False, repr=False)
class Snapshots:
    """T snapshots of a changing graph over the same nodes; what hgat.graph.snapshots gives.

    links: {canonical edge type: the distinct pairs of every step}, without what is added for attention. num_nodes:
    {node type: N}. first_seen: {node type: [N]}, the step of a node's first event, a number past the last step for a
    node without one. boundaries: T + 1 times, or None where the steps were given. start, stop: the steps that are held;
    `snapshots[a:b]` and `snapshots[t]` hold fewer, and share everything else. len() is T.
    Node types are stacked in the order of `ntypes` wherever one tensor speaks of all nodes: N is their total.
    """

    links: dict[tuple[str, str, str], Links]
    num_nodes: dict[str, int]
    first_seen: dict[str, torch.Tensor]
    boundaries: tuple[float, ...] | None
    start: int
    stop: int
    cumulative: bool
    self_loops: bool
    both_ways: bool
    weight: Literal["count", "normalized", "none"]

    def __len__(self) -> int:
        return self.stop - self.start

    def __repr__(self) -> str:
        nodes = ", ".join(f"{count} {ntype}" for ntype, count in self.num_nodes.items())
        return f"Snapshots(steps={len(self)}, nodes: {nodes}, relations={len(self.links)}, weight={self.weight!r})"

    def __getitem__(self, which: int | slice) -> "Snapshots":
        if not isinstance(which, (slice, Integral)):
            raise GraphError(f"snapshots: expected a step or a slice of steps, got {type(which).__name__}")
        if not isinstance(which, slice):
            step = which + len(self) if which < 0 else which
            if not 0 <= step < len(self):
                raise IndexError(f"snapshots: expected a step from {-len(self)} to {len(self) - 1}, got {which}")
            which = slice(step, step + 1)
        first, last, stride = which.indices(len(self))
        if stride != 1 or first >= last:
            raise GraphError(f"snapshots: expected a slice of consecutive steps, at least one, got {which}")
        return replace(self, start=self.start + first, stop=self.start + last)

    @property
    def ntypes(self) -> tuple[str, ...]:
        """The node types, in the order in which their nodes are stacked."""
        return tuple(self.num_nodes)

    @property
    def total_nodes(self) -> int:
        """N, over all node types."""
        return sum(self.num_nodes.values())

    @property
    def is_typed(self) -> bool:
        """True if nodes or events are of several types."""
        return len(self.num_nodes) > 1 or len(self.links) > 1

    @cached_property
    def present(self) -> torch.Tensor:
        """[T, N] bool: the node has had an event in this snapshot or before it."""
        first = torch.cat(list(self.first_seen.values()))
        return first.unsqueeze(0) <= torch.arange(self.start, self.stop).unsqueeze(1)

    def present_on(self, device: torch.device | str) -> torch.Tensor:
        """`present` on a device, kept once moved."""
        device = torch.device(device)
        if device not in self._moved:
            self._moved[device] = self.present.to(device)
        return self._moved[device]

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies take along: not what has been moved to a device, which may not be there."""
        return {name: value for name, value in vars(self).items() if name != "_moved"}

    @cached_property
    def _moved(self) -> dict[torch.device, torch.Tensor]:
        return {}

    @cached_property
    def graph(self) -> dgl.DGLGraph:
        """The disjoint union that attention runs on, a DGLGraph; node t * N + v of a type is its node v in snapshot t.

        edata["weight"] unless weight is "none". With both_ways the reverse of a pair is a pair, too, under a relation
        "name^-1" where nodes or events have types; with self_loops every present node has an edge to itself, which adds
        one to the count of its own events.
        """
        return self._union(self.self_loops, self.weight)

    @cached_property
    def shared(self) -> dgl.DGLGraph:
        """The edges of `graph`, in its order, with the sources of all snapshots one: N -> T * N, of one node type.

        For features that do not change: they are projected once and not once per snapshot.
        """
        if self.is_typed:
            raise GraphError(f"snapshots: expected one node and edge type to share sources, got {list(self.links)}")
        src, dst = in_order(self.graph)
        num = self.total_nodes
        joined = dgl.heterograph(
            {("node", "to", "node of a step"): (src % num, dst)},
            num_nodes_dict={"node": num, "node of a step": num * len(self)},
        )
        if self.weight != "none":
            joined.edata["weight"] = self.graph.edata["weight"]
        return joined

    @cached_property
    def walkable(self) -> dgl.DGLGraph:
        """The union as walks see it: one relation over all stacked nodes, weights are counts, no added self-loops.

        Node t * N + v is stacked node v in snapshot t.
        """
        offset, start = {}, 0
        for ntype, count in self.num_nodes.items():
            offset[ntype], start = start, start + count
        parts = []
        for (srctype, _, dsttype), links in self._held().items():
            base = (links.step - self.start) * self.total_nodes
            src, dst = base + links.src + offset[srctype], base + links.dst + offset[dsttype]
            parts.append((src, dst, links.count))
            if self.both_ways:
                parts.append(_without_self((dst, src, links.count)))
        src, dst, count = (torch.cat(part) for part in zip(*parts, strict=True))
        graph = dgl.graph((src, dst), num_nodes=self.total_nodes * len(self))
        graph.edata["weight"] = count.float()
        return graph

    def events(self) -> dgl.DGLGraph:
        """The pairs as a timed DGLGraph: edata["time"] is the step, edata["count"] how many events a pair had."""
        held = {
            e: links.where((links.step >= self.start) & (links.step < self.stop)) for e, links in self.links.items()
        }
        ends = {etype: (links.src, links.dst) for etype, links in held.items()}
        graph = dgl.heterograph(ends, self.num_nodes)
        for etype, links in held.items():
            graph.edges[etype].data[TIME] = links.step
            graph.edges[etype].data["count"] = links.count
        return graph

    def _held(self):
        """The pairs of every held step: those of the step, or, cumulative, of all steps up to it, counts added up."""
        held = {}
        for etype, links in self.links.items():
            if not self.cumulative:
                held[etype] = links.where((links.step >= self.start) & (links.step < self.stop))
                continue
            links = links.where(links.step < self.stop)
            first = links.step.clamp_min(self.start)
            often = self.stop - first
            _check_memory(int(often.sum()), "links of cumulative snapshots")
            row = torch.repeat_interleave(torch.arange(len(first)), often)
            step = first[row] + torch.arange(len(row)) - (torch.cumsum(often, 0) - often)[row]
            sizes = self.num_nodes[etype[0]], self.num_nodes[etype[2]]
            held[etype] = _merged(step, links.src[row], links.dst[row], links.count[row], sizes)
        return held

    @within_memory
    def _union(self, self_loops, weight):
        if self_loops:
            first = torch.cat(list(self.first_seen.values())).clamp_min(self.start)
            _check_memory(int((self.stop - first).clamp_min(0).sum()), "self-loops of nodes that have appeared")
        ends, weights, sizes = {}, {}, {}
        typed = self.is_typed
        for etype, links in self._held().items():
            step, (srctype, name, dsttype) = links.step - self.start, etype
            src = step * self.num_nodes[srctype] + links.src
            dst = step * self.num_nodes[dsttype] + links.dst
            there = (src, dst, links.count)
            back = (dst, src, links.count)
            if typed:
                ends[etype] = [there]
                if self.both_ways:
                    ends[dsttype, name + INVERSE, srctype] = [back]
            else:
                ends[etype] = [there, _without_self(back)] if self.both_ways else [there]
        first = 0
        for ntype, count in self.num_nodes.items():
            sizes[ntype] = count * len(self)
            if self_loops:
                nodes = self.present[:, first : first + count].flatten().nonzero().flatten()
                loops = (nodes, nodes, torch.ones_like(nodes))
                ends.setdefault((ntype, SELF, ntype) if typed else next(iter(self.links)), []).append(loops)
            first += count
        for etype, parts in ends.items():
            src, dst, count = (torch.cat(part) for part in zip(*parts, strict=True))
            if len(parts) > 1:  # a pair in both directions, or an event of a node with itself, is one edge
                pair = _merged(torch.zeros_like(src), src, dst, count, (sizes[etype[0]], sizes[etype[2]]))
                src, dst, count = pair.src, pair.dst, pair.count
            ends[etype] = (src, dst)
            weights[etype] = _weights(weight, src, dst, count, sizes[etype[0]], sizes[etype[2]])
        graph = dgl.heterograph(ends, sizes)
        if weight != "none":
            for etype, values in weights.items():
                graph.edges[etype].data["weight"] = values
        return graph


@within_memory
def snapshots(
    graph: dgl.DGLGraph,
    *,
    boundaries: Sequence[float] | np.ndarray | torch.Tensor | None = None,
    windows: int | None = None,
    width: float | None = None,
    events: int | None = None,
    column: str | None = None,
    steps: int | None = None,
    cumulative: bool = False,
    self_loops: bool = True,
    both_ways: bool = True,
    weight: Literal["count", "normalized", "none"] = "count",
) -> Snapshots:
    """Cut a timed DGLGraph, homogeneous or typed, into snapshots.

    Exactly one of five says where to cut. boundaries: T + 1 rising times; step t holds boundaries[t] <= time <
    boundaries[t + 1], the last one its upper end, too, and events outside are left out. windows: T windows of equal
    length from the first event to the last. width: windows of this length from the first event on. events: this many
    events each, but events of one time are never parted. column: edata[column] has the step of every event, from 0;
    steps: how many there are, where the last ones may have no event. A window without events is an empty snapshot.

    cumulative: step t holds all events up to it. self_loops: an edge from every node that has appeared to itself.
    both_ways: links have no direction. weight: "count", how many events a pair had in the step; "normalized", the same
    divided by the square roots of both ends' sums, D^-1/2 (A + I) D^-1/2; "none".
    Returns Snapshots.
    Raises GraphError for anything else, a graph without events, and a union of 2^31 nodes or more.
    """
    ways = {"boundaries": boundaries, "windows": windows, "width": width, "events": events, "column": column}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise GraphError(f"snapshots: expected one of {', '.join(ways)}, got {', '.join(given) or 'none'}")
    if not isinstance(weight, str) or weight not in ("count", "normalized", "none"):
        raise GraphError(f"weight: expected 'count', 'normalized' or 'none', got {shown(weight)}")
    check_graph(graph, "a DGLGraph of all nodes", blocks=False)
    _check_names(graph, self_loops, both_ways)
    times = {etype: event_times(graph, etype) for etype in graph.canonical_etypes}
    if not sum(len(t) for t in times.values()):
        raise GraphError("snapshots: expected at least one event, got none")
    num_nodes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    total = sum(num_nodes.values())
    if steps is not None and given != ["column"]:
        raise GraphError(f"steps: expected with column alone, got {shown(steps)} with {given[0]}")
    if given == ["column"]:
        step, bounds = _given_steps(graph, column), None
        count = 1 + max(int(s.max()) for s in step.values() if len(s))
        if steps is not None:
            if not isinstance(steps, Integral) or steps < count:
                raise GraphError(f"steps: expected a whole number from {count} on, got {shown(steps)}")
            count = int(steps)
    else:
        step, bounds, count = _cut(times, total, **{given[0]: ways[given[0]]})
    _check_size(count, total)
    links, first = {}, {ntype: torch.full((n,), count) for ntype, n in num_nodes.items()}
    for etype in graph.canonical_etypes:
        src, dst = (end.long().cpu() for end in in_order(graph, etype))
        inside = step[etype] >= 0
        src, dst, at = src[inside], dst[inside], step[etype][inside]
        if both_ways and not (len(num_nodes) > 1 or len(times) > 1):
            src, dst = torch.minimum(src, dst), torch.maximum(src, dst)
        for ntype, nodes in ((etype[0], src), (etype[2], dst)):
            first[ntype].scatter_reduce_(0, nodes, at, "amin")
        sizes = num_nodes[etype[0]], num_nodes[etype[2]]
        links[etype] = _merged(at, src, dst, torch.ones_like(at), sizes)
    return Snapshots(links, num_nodes, first, bounds, 0, count, cumulative, self_loops, both_ways, weight)


def step_of_events(graph: dgl.DGLGraph, **way: Any) -> tuple[dict[tuple[str, str, str], torch.Tensor], int]:
    """({relation: [E] the step of every event, -1 outside of all}, how many steps there are).

    way: one of boundaries, windows, width, events, column, as in `snapshots`, which raises what this raises.
    """
    given = {name: value for name, value in way.items() if value is not None}
    if list(given) == ["column"]:
        steps = _given_steps(graph, given["column"])
        return steps, 1 + max((int(s.max()) for s in steps.values() if len(s)), default=-1)
    times = {etype: event_times(graph, etype) for etype in graph.canonical_etypes}
    steps, _, count = _cut(times, graph.num_nodes(), **given)
    return steps, count


def _merged(step, src, dst, count, sizes):
    """Equal (step, src, dst) as one, counts added, sorted."""
    key, place = torch.unique((step * sizes[0] + src) * max(sizes[1], 1) + dst, return_inverse=True)
    total = torch.zeros_like(key).index_add_(0, place, count)
    pair, dst = key // max(sizes[1], 1), key % max(sizes[1], 1)
    return Links(pair // max(sizes[0], 1), pair % max(sizes[0], 1), dst, total)


def _without_self(ends):
    src, dst, count = ends
    keep = src != dst
    return src[keep], dst[keep], count[keep]


def _weights(kind, src, dst, count, num_src, num_dst):
    weight = count.double()
    if kind == "normalized":
        sent = torch.zeros(num_src, dtype=torch.float64).index_add_(0, src, weight)
        received = torch.zeros(num_dst, dtype=torch.float64).index_add_(0, dst, weight)
        weight = weight / (sent[src] * received[dst]).sqrt()
    return weight.float()


def _check_names(graph, self_loops, both_ways):
    """No relation of a typed graph may have the name of one that is added."""
    if len(graph.ntypes) == len(graph.canonical_etypes) == 1:
        return
    for srctype, name, dsttype in graph.canonical_etypes if both_ways else ():
        inverse = (dsttype, name + INVERSE, srctype)
        if inverse in graph.canonical_etypes:
            raise GraphError(f"both_ways: expected no relation {inverse}, which it adds, got one")
    for ntype in graph.ntypes if self_loops else ():
        if (ntype, SELF, ntype) in graph.canonical_etypes:
            raise GraphError(f"self_loops: expected no relation {(ntype, SELF, ntype)}, which it adds, got one")


def _given_steps(graph, column):
    if not isinstance(column, str):
        raise GraphError(f"column: expected the name of edge data, got {type(column).__name__}")
    steps = {}
    for etype in graph.canonical_etypes:
        data = graph.edges[etype].data
        if column not in data:
            raise GraphError(f"snapshots: expected edata[{column!r}] of {etype}, got {sorted(data)}")
        step = data[column].cpu()
        if step.dim() != 1 or step.is_floating_point() or (step.numel() and step.min() < 0):
            got = f"{step.dtype} {list(step.shape)}" + (f" from {step.min()}" if step.numel() else "")
            raise GraphError(f"snapshots: expected steps from 0 in edata[{column!r}], [E] whole numbers, got {got}")
        steps[etype] = step.long()
    return steps


def _cut(times, num_nodes, boundaries=None, windows=None, width=None, events=None):
    """({relation: step of each event, -1 outside}, boundaries, number of steps)."""
    every = np.sort(torch.cat([t.to(_wider(times)) for t in times.values()]).numpy())
    if windows is not None:
        _positive("windows", windows, whole=True)
        _check_size(int(windows), num_nodes)  # before so many boundaries are made
        bounds = np.linspace(every[0], every[-1], int(windows) + 1)
    elif width is not None:
        _positive("width", width)
        number = int((every[-1] - every[0]) // width) + 1
        _check_size(number, num_nodes)
        bounds = every[0] + width * np.arange(number + 1)
        bounds[-1] = max(bounds[-1], every[-1])  # rounding must not leave the last event out
    elif events is not None:
        _positive("events", events, whole=True)
        bounds = np.concatenate([np.unique(every[:: int(events)]), every[-1:]])
    else:
        bounds = _boundaries(boundaries)
    count, steps = len(bounds) - 1, {}
    for etype, time in times.items():
        time = time.numpy()
        step = np.searchsorted(bounds, time, side="right") - 1
        step[time == bounds[-1]] = count - 1
        step[(time < bounds[0]) | (time > bounds[-1])] = -1
        steps[etype] = torch.from_numpy(step)
    if not any((s >= 0).any() for s in steps.values()):
        raise GraphError(f"boundaries: expected events between {bounds[0]} and {bounds[-1]}, got none")
    return steps, tuple(bounds.tolist()), count


def _boundaries(given):
    try:
        bounds = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # lists of different lengths, a tensor that is not NumPy's
        bounds = np.empty((0, 0))
    if bounds.ndim != 1 or bounds.dtype.kind not in "iuf" or len(bounds) < 2 or not (bounds[1:] > bounds[:-1]).all():
        raise GraphError(f"boundaries: expected two or more rising times, got {shown(given)}")
    return bounds


def _wider(times):
    kinds = {t.dtype for t in times.values()}
    return torch.float64 if torch.float64 in kinds else torch.int64


def _positive(name, value, whole=False):
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or not 0 < value < (2**63 if isinstance(value, Integral) else float("inf")):
        raise GraphError(f"{name}: expected a {'whole' if whole else 'finite'} number above 0, got {shown(value)}")


def _check_memory(links, what):
    most = available() // BYTES_OF_A_LINK
    if links > most:
        raise GraphError(
            f"snapshots: expected at most {most:,} {what}, which the free memory holds, got {links:,}; take fewer steps"
        )


def _check_size(steps, nodes):
    if steps * nodes > LARGEST:
        raise GraphError(f"snapshots: expected fewer than 2^31 nodes in all, got {steps:,} steps of {nodes:,} nodes")


__getattr__ = old_names(globals(), {"prepare": "snapshots"})
