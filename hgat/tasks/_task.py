"""What every task promises."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import dgl
import torch
from torch import Tensor

from hgat.errors import RecipeError, ShapeError, TrainingError
from hgat.models import Batch, Facts, System

__all__ = ["Control", "Task", "check_finite", "without_columns"]

PARTS = ("train", "val", "test")


class Control(System):
    """A model that a score is compared with: what the question is worth without the part that is claimed to matter.

    title: what tables call it. solutions: None for one that is trained as the recipe says; else how many solutions
    `solve` finds, among which validation chooses; 0 for one without anything to learn.
    """

    title: ClassVar[str] = ""
    solutions: ClassVar[int | None] = None

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None) -> tuple | None:
        """None: the rows of a batch are taken from the whole answer."""
        return None

    def solve(self, shown: Facts, inputs: tuple, number: int) -> None:
        """Take the weights of solution `number`, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__}.solve")


class Task:
    """A question on a data set: what is shown, what is asked, and how an answer is scored.

    kind: the class of data that it takes, or several. metrics: the names that a recipe's train.metric may have; all in
    percent, and more is better. bounds: the least and the largest value of any of them. least_loss: that of the loss
    beside them.
    controls: {name: Control}, what a recipe's train.controls may name beside "uniform" and the system's own ablations.
    unit: what is counted in tables. Keyword-only arguments of a subclass's constructor are the keys of a recipe's
    [task].
    """

    kind: ClassVar[type | tuple[type, ...]]
    metrics: ClassVar[tuple[str, ...]] = ()
    bounds: ClassVar[tuple[float, float]] = (0.0, 100.0)
    least_loss: ClassVar[float] = 0
    controls: ClassVar[Mapping[str, type[Control]]] = {}
    unit: ClassVar[str] = ""
    data: Any

    def __init__(self, data: Any) -> None:
        if not isinstance(data, self.kind):
            kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
            raise RecipeError(
                f"task: expected data of the kind {' or '.join(k.__name__ for k in kinds)} for {self.name()}, got "
                f"{type(data).__name__} of {data.name}"
            )
        self.data = data
        self.seed = 0

    def __repr__(self) -> str:
        parts = ", ".join(f"{count:,} {part}" for part, count in self.sizes().items())
        return f"{type(self).__name__}({self.data.name}, {self.unit}: {parts})"

    @classmethod
    def name(cls) -> str:
        """The name of the task's file."""
        return cls.__module__.rpartition(".")[2]

    @property
    def first_state(self) -> int:
        """What PyTorch's generator is seeded with before the weights are drawn."""
        return self.seed

    def control_settings(self, control: type[System]) -> dict:
        """What `prepare` of one of the controls is given beside what is shown."""
        return {}

    def for_seed(self, seed: int) -> "Task":
        """The task as one seed has it: with its split, and what is drawn once for all variants of the seed."""
        found = copy.copy(self)
        found.seed = seed
        return found

    def refitted(self) -> "Task":
        """The task with the validation part among what is learned from; RecipeError where it is no part of the past."""
        raise RecipeError(f"train.refit: expected false with {self.name()}, got true")

    def rounds(self) -> "Sequence[Task]":
        """What is trained for on its own, one after the other, each a task: by default this task alone."""
        return [self]

    def check(self, metric: str, controls: Sequence[str]) -> None:
        """Raise RecipeError, before any training, where the data leave the metric or a control undefined."""

    def shown(self) -> Facts:
        """What may be read before and in training; the same object every time."""
        raise NotImplementedError

    def shown_at(self, part: str) -> Facts:
        """What may be read when the answers of a part are asked for."""
        return self.shown()

    def sizes(self) -> dict[str, int]:
        """{part: how many of `unit`}."""
        raise NotImplementedError

    def completed(self, model: System) -> System:
        """A model with fresh weights, and what the task learns beside it: by default the model itself."""
        return model

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """What is asked in one epoch, a step of the optimiser each; drawn from PyTorch's generator."""
        raise NotImplementedError

    def loss(self, answer: Any, batch: Batch) -> Tensor:
        """The question's own loss, a scalar."""
        raise NotImplementedError

    def objective(self, model: System, inputs: tuple, batch: Batch) -> Tensor:
        """What is minimised in one step, a scalar: the model's objective of `loss`, by default."""
        return model.objective(self.loss, inputs, batch)

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, loss) of a model on a part, in evaluation mode."""
        raise NotImplementedError

    def results(self, model: System, inputs: tuple, metric: str, **more: Any) -> tuple[dict, dict[str, Tensor]]:
        """({"test": metric in percent, "more": other measures, ...}, tensors) of the weights that were chosen.

        The tensors are what `combine` needs of a round; they are kept with the state of a run. more: what else the
        recipe asks for, see its [train].
        """
        return {"test": self.evaluate(model, inputs, "test", metric)[0]}, {}

    def combine(self, found: Sequence[tuple[dict, dict[str, Tensor]]], metric: str) -> dict:
        """The results of all rounds as one."""
        ((numbers, _),) = found
        return numbers

    def expected(self) -> dict[str, Tensor]:
        """Tensors like those that `results` gives of this round, known before: a saved state is compared with them."""
        return {}

    def scores(self, model: System, inputs: Mapping[str, tuple], metric: str) -> dict[str, tuple[float, int]]:
        """{part: (metric in percent, on how many)} of a trained model of the last round."""
        sizes = self.sizes()
        return {part: (self.evaluate(model, inputs[part], part, metric)[0], sizes[part]) for part in PARTS}

    def predict(self, model: System, inputs: tuple, *asked: Any, **more: Any) -> Tensor:
        """What a trained model says, in the task's own words; the task says what may be asked. Raises RecipeError for a
        task without such an answer."""
        raise RecipeError(f"predict: expected a task of nodes, numbers or links, got {self.name()}")

    def scored(self, metric: str) -> str:
        """What `scores` gives, in words."""
        return metric.replace("_", " ")


def numbered(what: str, given: Any, names: Sequence[str] | None) -> Any:
    """The numbers of nodes that are given by their names, [K]; else what is given. ShapeError for an unknown name."""
    if not isinstance(given, (list, tuple)) or not any(isinstance(item, str) for item in given):
        return given
    place: dict[str, list[int]] = {}
    for number, name in enumerate(names or ()):
        place.setdefault(name, []).append(number)
    for item in given:
        if len(place.get(str(item), ())) != 1:
            known = "numbers, as the data have no names" if names is None else "the name of one node each"
            raise ShapeError(f"{what}: expected {known}, got {item!r}")
    return torch.tensor([place[str(item)][0] for item in given])


def without_columns(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """The graph without what is written on its nodes, where a label or a mask of a split may stand, but for times."""
    if not any(graph.nodes[ntype].data for ntype in graph.ntypes):
        return graph
    graph = graph.local_var()
    for ntype in graph.ntypes:
        for name in list(graph.nodes[ntype].data):
            if name != "time":
                del graph.nodes[ntype].data[name]
    return graph


def check_finite(loss: float, where: str, feat: Mapping[str, Tensor | None]) -> float:
    """The loss, or a TrainingError with the likeliest cause: features that are not finite, else the step."""
    if math.isfinite(loss):
        return loss
    cause = "; a smaller train.lr may help"
    for ntype, rows in feat.items():
        wrong = None if rows is None else (~torch.isfinite(rows).all(1)).nonzero().flatten()
        if wrong is not None and len(wrong):
            cause = f": the features of {len(wrong)} {ntype!r} nodes are not finite, first node {int(wrong[0])}"
            break
    raise TrainingError(f"training: expected a finite loss, got {loss} {where}{cause}")
