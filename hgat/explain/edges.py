"""What a trained model attends to, weight by weight, in the numbers of the task's own nodes."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.explain.origins import origins
from hgat.graph import csr
from hgat.graph.metapath import Views
from hgat.graph.recent import RecentEvents, RecentNeighbours
from hgat.graph.snapshots import Snapshots
from hgat.models import Batch, System
from hgat.models._system import resting

__all__ = ["Attended", "AxisAttention", "EdgeAttention", "attended_axes", "attended_edges", "observe"]


@dataclass(frozen=True, eq=False)
class EdgeAttention:
    """The weights of one attention call over edges.

    layer: the name of the module that made it. relations: R canonical names, (source type, name, destination type), and
    relation [E] a number among them for each edge. src, dst [E]: the ends, numbers of their own types. weight [E, H],
    before dropout. group [E]: edges of the same number share a softmax. form: "softmax", or a gate's "sigmoid", "tanh",
    "none". step [E]: the snapshot of an edge, or None. What a graph of pairs or paths has as an edge is one here, too.
    """

    layer: str
    relations: tuple[tuple[str, str, str], ...]
    relation: Tensor
    src: Tensor
    dst: Tensor
    weight: Tensor
    group: Tensor
    form: str
    step: Tensor | None = None

    @property
    def uniform(self) -> Tensor:
        """[E], what each edge would weigh in uniform attention: one over the size of its group, 1 behind a gate."""
        if self.form != "softmax":
            return torch.ones(len(self.group), dtype=self.weight.dtype)
        return 1 / torch.bincount(self.group).to(self.weight.dtype)[self.group]

    def only(self, keep: Tensor) -> "EdgeAttention":
        """The record of some of the edges; keep: bool [E] or numbers. Uniform weights are then those of the part."""
        step = None if self.step is None else self.step[keep]
        columns = {name: getattr(self, name)[keep] for name in ("relation", "src", "dst", "weight", "group")}
        return replace(self, step=step, **columns)


@dataclass(frozen=True, eq=False)
class AxisAttention:
    """The weights of one attention call along an axis: views, hops, channels, moments.

    layer: the name of the module that made it. names: of the K places. weight [*, K], before dropout; a row is a node,
    or a node and a head. form: as of EdgeAttention. ordered: the places have an order of their own, as steps have.
    """

    layer: str
    names: tuple[str, ...]
    weight: Tensor
    form: str
    ordered: bool = False


class Attended(NamedTuple):
    """What one forward attended to: the calls over edges, and those along an axis, in order."""

    edges: list[EdgeAttention]
    axes: list[AxisAttention]


def observe(model: nn.Module, inputs: tuple, batch: Batch | None = None, target: str | None = None) -> Attended:
    """Run a model once, in evaluation mode and without gradients, and give all that it attends to.

    inputs: those of its forward. batch: what is asked of a System, where forward takes more than the inputs. target:
    the node type of a structure that does not say it, by default the model's own. Weights are on the CPU.
    Raises what forward raises.
    """
    calls: list[tuple[str, ops.AttentionCall]] = []
    ask: Any = model
    answer = (lambda: ask(*inputs)) if batch is None else (lambda: ask.answer(inputs, batch))
    with _names(model) as within, ops.attention_hook(lambda call: calls.append((within[-1], call))):
        resting(model, answer)
    shown = inputs if batch is None or batch.inputs is None else batch.inputs
    calls = [call for number, call in enumerate(calls) if not number or not _again(calls[number - 1], call)]
    over = [(layer, call) for layer, call in calls if call.kind == "edges"]
    found = origins(shown, [call.graph for _, call in over], target or getattr(model, "target", None))
    edges = [
        EdgeAttention(
            layer,
            of.relations,
            of.relation,
            of.src,
            of.dst,
            call.weights.cpu(),
            csr.edges(call.graph, "cpu")[1],
            call.form,
            of.step,
        )
        for (layer, call), of in zip(over, found, strict=True)
    ]
    along = [(layer, call) for layer, call in calls if call.kind != "edges"]
    known = _known_names(model, shown) if along else []
    axes = []
    for layer, call in along:
        weight = (
            call.weights.cpu() if call.kind == "pairs" or call.dim is None else call.weights.movedim(call.dim, -1).cpu()
        )
        names, ordered = _names_of(weight.shape[-1], known, any(isinstance(part, RecentNeighbours) for part in shown))
        axes.append(AxisAttention(layer, names, weight, call.form, ordered))
    return Attended(edges, axes)


def attended_edges(model: nn.Module, inputs: tuple) -> list[EdgeAttention]:
    """One record for each attention call over edges, in order; inputs: those of the model's forward. See `observe`."""
    return observe(model, inputs).edges


def attended_axes(model: nn.Module, inputs: tuple) -> list[AxisAttention]:
    """One record for each attention call along an axis, in order; inputs: those of the model's forward."""
    return observe(model, inputs).axes


def _again(before: tuple[str, ops.AttentionCall], now: tuple[str, ops.AttentionCall]) -> bool:
    """Whether a call is that before it once more: a layer that hands its weights on makes them a second time."""
    (layer, one), (name, other) = before, now
    same = layer == name and one.kind == other.kind == "edges" and one.graph is other.graph
    return same and torch.equal(one.weights, other.weights)


@contextmanager
def _names(model: nn.Module):
    """A list whose last entry is the name of the module that runs."""
    within, handles = [""], []

    def enter(name):
        return lambda *_: within.append(name)

    def leave(*_):
        within.pop()

    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(enter(name)),
            module.register_forward_hook(leave, always_call=True),
        ]
    try:
        yield within
    finally:
        for handle in handles:
            handle.remove()


def _known_names(model: Any, inputs: tuple) -> list[tuple[tuple[str, ...], bool]]:
    """(names of the places along an axis, whether they are ordered), as inputs and the system itself have them."""
    known: list[tuple[tuple[str, ...], bool]] = []
    for part in inputs:
        if isinstance(part, Views):
            known.append((part.names, False))
        elif isinstance(part, Snapshots):
            known.append((tuple(f"step {t}" for t in range(part.start, part.stop)), True))
        elif isinstance(part, RecentEvents):  # the latest last, relation by relation
            back = range(part.event.shape[2], 0, -1)
            known.append((tuple(f"{etype[1]}, {k} back" for etype in part.etypes for k in back), True))
    if isinstance(model, System):
        try:
            told: Sequence[Any] = resting(model, lambda: model.attended(*inputs))
        except TypeError:  # a model that is asked for pairs or moments has nothing to tell of its inputs alone
            told = ()
        known += [(entry.names, entry.ordered) for entry in told if getattr(entry, "names", None)]
    return known


def _names_of(count: int, known: list[tuple[tuple[str, ...], bool]], events: bool) -> tuple[tuple[str, ...], bool]:
    """The names that `count` places have and whether they are ordered; events: a node's last ones, in order of time."""
    if events:
        return tuple(f"{k} back" for k in range(count, 0, -1)), True
    return next((of for of in known if len(of[0]) == count), (tuple(map(str, range(count))), True))
