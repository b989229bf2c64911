"""What a task shows and what a system promises: the two sides of every training.

A task (hgat.tasks) knows what is asked and how it is scored. It shows Facts, in which nothing is that is held out, and
asks in Batches. A System answers: it prepares its structure from what is shown, once, and its forward gives the answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import dgl
import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import RecipeError

__all__ = ["Ablation", "Batch", "Facts", "Past", "Shares", "System"]

_Given = TypeVar("_Given")


_NONE = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Facts:
    """What a task shows before an answer is asked for: never a label, a link or an event that is held out.

    graph: as the data set states it, without what is written on its nodes but for their "time", with the training links
    or events alone where links or events are asked for; its edata["time"] are times, and edata["step"] numbers of
    snapshots, of which there are `steps`. directed: links have a direction. feat: {node type: [N, F] or None}; columns:
    {node type: their names}, of those that have any. edge_feat: [E, F] or None.
    Where nodes are classified: target, their type; train, ids of the nodes whose labels may be learned from; label,
    [N] with -1 everywhere else, or [N, C] with NaN everywhere else (multilabel); num_classes: C. numeric: labels are
    numbers, [N] with NaN everywhere else, in standard deviations from the mean of the training nodes, and C is 1.
    Where whole graphs are classified: graph is a batch of all of them (dgl.batch), target the type of their nodes, and
    train, label and num_classes are of graphs in the place of nodes; feat and edge_feat may be uint8, one-hot rows.
    Where links are asked for: target, the type of their ends; num_classes: the columns of a row that stands for a node.
    Where triples are asked for (triples): the same of entities, and graph has the training triples alone, an edge from
    head to tail each, in a relation of its name.
    Elsewhere they are empty.
    Where those nodes are events in a stream: asked, [N], when each is asked for; after, [N, Fa], what is known of each
    once it is known, which its edges' edata["time"] say, and zeros before.
    gold: where a share of what decides the labels is told, [E] of 1 for an edge that decides, 0 for one that does not,
    and NaN for every edge of which nothing is told; {relation: [E_r]} where there are several.
    """

    graph: dgl.DGLGraph
    feat: Mapping[str, Tensor | None]
    edge_feat: Tensor | None = None
    target: str = ""
    label: Tensor = _NONE
    train: Tensor = _NONE
    num_classes: int = 0
    multilabel: bool = False
    numeric: bool = False
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    steps: int | None = None
    directed: bool = False
    triples: bool = False
    asked: Tensor = _NONE
    after: Tensor | None = None
    gold: Tensor | Mapping[tuple[str, str, str], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """What is asked for in one step of the optimiser.

    query: what forward takes behind the inputs, such as the ends and times of links. inputs: instead of the whole's
    inputs, where only a part of the graph is sampled. The rest is the task's own and is read by its loss alone.
    """

    query: tuple = ()
    inputs: tuple | None = None
    rows: Tensor | None = None
    label: Tensor | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Ablation(NamedTuple):
    """A control that is the system itself with other settings: its title in tables and the settings to replace.

    settings: of [model]. graph: of [graph], for one that sees another structure.
    """

    title: str
    settings: dict
    graph: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Shares:
    """Mean share of a node's attention that goes to each name, and what it would be if all edges counted alike.

    title: whose attention, in which layer. attention, uniform: one number per name; each list sums to 1. what, even:
    what the numbers and those of uniform attention are called in a figure. ordered: the names have an order of their
    own, as hops have.
    """

    title: str
    names: tuple[str, ...]
    attention: tuple[float, ...]
    uniform: tuple[float, ...]
    what: str = "mean share of a node's attention"
    even: str = "if all edges counted alike"
    ordered: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Past:
    """How one layer's attention is spread over time, heads averaged: 1 is what a step gets if all are looked at alike.

    by_step: [T, T], row t: what step t gives to each step up to it, the mean over the nodes present there. by_node: [N,
    T], what every node's last step gives to each step; 0 for those that are hidden from it. present: [T, N] bool.
    title: whose attention.
    """

    title: str
    by_step: Tensor
    by_node: Tensor
    present: Tensor


def _extensible(function: Callable[..., _Given]) -> Callable[..., _Given]:
    """`function` itself; subclasses give it keyword-only arguments of their own, which recipes check."""
    return function


class System(nn.Module):
    """A whole model that answers a task; every class of hgat.models is one.

    solves: the tasks that it answers, by the names of their files. ablations: {name: Ablation}, controls that are
    settings of its own, named in a recipe's train.controls.
    A system gives at least `build` and `forward`; what stands here is right for a model on one graph.
    """

    solves: ClassVar[tuple[str, ...]] = ("nodes",)
    ablations: ClassVar[Mapping[str, Ablation]] = {}

    @staticmethod
    @_extensible
    def prepare(shown: Facts) -> tuple:
        """The inputs of forward, from what is shown: structure, features, whatever is computed before training.

        Its keyword-only arguments are the keys of a recipe's [graph]. It runs once per split and stage, never in
        forward, on the CPU; what is random in it draws from PyTorch's generator, which has the same state every time.
        """
        return shown.graph, dict(shown.feat)

    @classmethod
    @_extensible
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "System":
        """A model with fresh weights for these inputs; settings: the keys of a recipe's [model]."""
        raise NotImplementedError(f"{cls.__name__}.build")

    def extra_repr(self) -> str:
        """How many parameters the system has, for print."""
        return f"{sum(parameter.numel() for parameter in self.parameters()):,} parameters"

    def answer(self, inputs: tuple, batch: Batch) -> Any:
        """forward on a batch: its query behind the inputs, its own inputs in their place."""
        return self(*(inputs if batch.inputs is None else batch.inputs), *batch.query)

    def objective(self, loss: Callable[[Any, Batch], Tensor], inputs: tuple, batch: Batch) -> Tensor:
        """What is minimised, a scalar. loss(answer, batch): that of the task; further terms are added to it."""
        return loss(self.answer(inputs, batch), batch)

    def groups(self) -> list[dict]:
        """Parameters in groups as PyTorch's optimisers take them; what a group leaves out, [train] says."""
        return [{"params": list(self.parameters())}]

    def again(self, shown: Facts, inputs: tuple, stage: int) -> "tuple[System, tuple] | None":
        """What is trained behind stage `stage`, counted from 1, with its inputs: this model or another; None: nothing.

        Called on the model with the weights that the stage's validation chose, in evaluation mode and without
        gradients. It may read `shown` and its own answers, and what is random in it draws from PyTorch's generator,
        seeded by the seed and the stage. It is called again to continue and to score what was trained.
        """
        return None

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None) -> tuple | None:
        """(inputs, query) of forward whose rows are those of the nodes `ids`; fanout: neighbours per layer, -1 for all.

        None for a system whose whole answer costs so little that its rows are taken from it. Raises RecipeError for a
        system that needs the whole graph.
        """
        raise RecipeError(f"task.batch: expected none for {type(self).__name__}, which trains on the whole graph")

    def paired(self, inputs: tuple, src: Tensor, dst: Tensor) -> tuple | None:
        """(inputs, query) of forward that answers with a logit [B] for each of the pairs src, dst [B].

        The batch's structure is built here and not in forward. None for a system whose answer is a row for each node.
        """
        return None

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Any:
        """forward on everything, in eval mode; batch_size: in pieces of so many rows where the system can do that."""
        return self(*inputs)

    def rows(self, inputs: tuple, ids: Tensor, batch_size: int | None = None) -> Any:
        """What `whole` answers for the nodes `ids`; a system whose rows stand alone reads no others."""
        answer = self.whole(inputs, batch_size)
        return answer[ids.to(answer.device)]

    def attention(self, *inputs: Any) -> Any:
        """The weights of every attention call, in order, before dropout; inputs: those of forward.

        By default what an `hgat.ops.attention_hook` around forward sees: [E, H] in the order of the edges that the
        operator ran over, or [*, K] along an axis.
        """
        found: list[Tensor] = []
        with ops.attention_hook(lambda call: found.append(call.weights)):
            self(*inputs)
        return found

    def attended(self, *inputs: Any) -> list[Shares] | list[Past]:
        """What attention was spent on, as Shares or Past of every layer worth looking at; what hgat.explain draws."""
        return []

    @classmethod
    def for_graph(
        cls, graph: Any, feat: Any = None, num_outputs: int = 0, target: str = "", **settings: Any
    ) -> "System":
        """The model for a prepared graph and the features of its nodes: `build` without a task."""
        shown = Facts(graph, feat, target=target, num_classes=num_outputs)
        return cls.build(shown, (graph, feat), **settings)


def resting(model: nn.Module, read: Callable[[], Any], grad: bool = False) -> Any:
    """read() with the model in evaluation mode, and with gradients if `grad`; its mode is given back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with nullcontext() if grad else torch.no_grad():
            return read()
    finally:
        for module in training:
            module.training = True


def pieces(count: int, size: int | None) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `count`."""
    size = max(count, 1) if size is None else size
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
