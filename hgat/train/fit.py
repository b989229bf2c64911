"""The only training loop: epochs, selection on validation, stages and rounds, a state to save after every epoch."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import dgl
import numpy as np
import torch
from torch import Tensor

from hgat.errors import GraphError, RecipeError, TrainingError
from hgat.models import System
from hgat.models._system import resting
from hgat.tasks import Task
from hgat.tasks._task import check_finite
from hgat.train import checkpoint, state
from hgat.train.recipe import Train

__all__ = ["Fit", "Training"]

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# What a finished fit says of itself; a mean or a sum over several.
MEANS, SUMS = ("val", "val_loss", "best_epoch"), ("epochs", "seconds")
STAGE = {"epochs": "epoch", "seconds": "seconds", "best_epoch": "best_epoch"}  # what of a Fit is kept of a stage


class Fit:
    """Trains one model on one task by a recipe's [train], an epoch at a time.

    inputs: {"train": inputs of forward in training, "val": ..., "test": ...}. epochs: all of them, where the number was
    chosen before.
    `step()` runs one epoch and says whether another follows. `state()` and `restore()` carry everything that the next
    epoch depends on, the random generator included, so that a run that was killed ends as if it had not been.
    """

    def __init__(
        self, model: System, task: Task, inputs: Mapping[str, tuple], train: Train, epochs: int | None = None
    ) -> None:
        self.model, self.task, self.inputs = model, task, inputs
        self.solutions = getattr(model, "solutions", None)
        if epochs is not None:
            train = _changed(train, epochs=epochs, stop="last")
        elif self.solutions:  # each is tried, and validation chooses
            train = _changed(train, epochs=self.solutions, patience=self.solutions, stop="metric")
        if self.solutions == 0:
            train = _changed(train, epochs=1)
        self.train = train
        groups = [group for group in model.groups() if group["params"]]
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.optimizer = (
            _OPTIMIZERS[train.optimizer](groups, lr=train.lr, weight_decay=train.weight_decay) if groups else None
        )
        self.epoch, self.waited, self.seconds = 0, 0, 0.0
        self.best_metric, self.best_loss, self.best_epoch = -float("inf"), float("inf"), 0
        self.val_losses: list[float] = []  # of the last epochs, for the rule that compares with their mean
        self.kept: dict[str, Tensor] | None = None
        self.loss = self.val_metric = self.val_loss = float("nan")

    def step(self) -> bool:
        """One epoch. Returns False when the recipe's rule says that it was the last one."""
        started = time.perf_counter()
        if self.solutions == 0:
            self.val_metric, _ = self.evaluate("val")
            self.loss, self.kept = 0.0, {}
        else:
            self.loss = self._solve() if self.solutions else self._descend()
            self.epoch += 1
            self.val_metric, self.val_loss = self.evaluate("val")
            self._select()
        self.seconds += time.perf_counter() - started
        return self.more

    @property
    def more(self) -> bool:
        """Whether the recipe's rule asks for another epoch."""
        if self.solutions is not None:
            return self.epoch < self.train.epochs and self.solutions > 0
        waits = self.waited < self.train.patience or self.epoch < self.train.least
        return self.epoch < self.train.epochs and waits

    def _descend(self):
        """The mean loss of the epoch's steps."""
        self.model.train()
        found = []
        for batch in self.task.batches(self.model, self.inputs["train"]):
            try:
                loss = self.task.objective(self.model, self.inputs["train"], batch)
            except dgl.DGLError as error:
                raise GraphError(f"graph: expected one that the model can run on, got: {error}") from error
            found.append(check_finite(loss.item(), f"at epoch {self.epoch + 1}", self.task.shown().feat))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.train.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip)
            self.optimizer.step()
        return sum(found) / len(found)

    def _solve(self):
        """The loss of the next solution."""
        self.model.solve(self.task.shown(), self.inputs["train"], self.epoch)
        with torch.no_grad():
            batches = self.task.batches(self.model, self.inputs["train"])
            found = [float(self.model.objective(self.task.loss, self.inputs["train"], batch)) for batch in batches]
        return sum(found) / len(found)

    def evaluate(self, part: str) -> tuple[float, float]:
        """(metric in percent, loss) of the model as it is, in evaluation mode."""
        found, loss = self.task.evaluate(self.model, self.inputs[part], part, self.train.metric)
        if not math.isfinite(found):  # no rule would ever take it for the best
            raise TrainingError(f"training: expected a finite {self.train.metric} on the {part} part, got {found}")
        return found, loss

    def _select(self):
        rule = self.train.stop
        higher, lower = self.val_metric > self.best_metric, self.val_loss < self.best_loss
        if rule == "metric":
            better = higher or (self.val_metric == self.best_metric and lower)
            keep = better
        elif rule == "loss":
            better = keep = lower
        elif rule == "either":
            at_top, at_bottom = self.val_metric >= self.best_metric, self.val_loss <= self.best_loss
            better, keep = at_top or at_bottom, at_top and at_bottom
        elif rule == "mean":
            # Never "no better" before there are enough losses to take the mean of.
            before = self.val_losses[-self.train.patience :]
            falls = len(before) < self.train.patience or self.val_loss <= sum(before) / len(before)
            better = keep = lower
        else:
            better = keep = True
        if rule == "either":
            self.best_metric = max(self.best_metric, self.val_metric)
            self.best_loss = min(self.best_loss, self.val_loss)
        elif better:
            self.best_metric, self.best_loss = self.val_metric, self.val_loss
        if rule == "mean":
            self.val_losses = [*before, self.val_loss][-self.train.patience :]
            self.waited = 0 if falls else self.train.patience
        else:
            self.waited = 0 if better else self.waited + 1
        if keep:
            self.best_epoch = self.epoch
            self.kept = copy.deepcopy(self.model.state_dict())

    def finish(self) -> tuple[dict, dict[str, Tensor]]:
        """Put the kept epoch's weights back; (validation scores and epochs, with what the task says; its tensors)."""
        self.model.load_state_dict(cast(dict[str, Tensor], self.kept))  # there is one behind the first epoch
        val, val_loss = self.evaluate("val")
        if self.solutions == 0:
            val_loss = float("nan")
        numbers, tensors = self.task.results(
            self.model, self.inputs["test"], self.train.metric, knn_share=self.train.knn_share
        )
        own = {"val": val, "val_loss": val_loss, "best_epoch": self.best_epoch}
        return {**numbers, **own, "epochs": self.epoch, "seconds": self.seconds}, tensors

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """({name: tensor}, numbers): everything that the next epoch depends on."""
        moments, counts = checkpoint.pack_optimizer(self.optimizer) if self.optimizer else ({}, {})
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"kept.{k}": v for k, v in (self.kept or {}).items()}
        tensors |= {f"optimizer.{k}": v for k, v in moments.items()}
        tensors["generator"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        numbers = {
            "epoch": self.epoch,
            "waited": self.waited,
            "seconds": self.seconds,
            "best_metric": self.best_metric,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "val_losses": self.val_losses,
            "optimizer": counts,
        }
        return tensors, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: dict) -> None:
        """Continue where `state()` was taken. Raises state.Unfit, and changes nothing, where it cannot have been."""
        self._check(tensors, numbers)
        self.model.load_state_dict(state.part(tensors, "model."))
        self.kept = {k: v.to(self.device) for k, v in state.part(tensors, "kept.").items()} or None
        if self.optimizer:
            checkpoint.unpack_optimizer(self.optimizer, state.part(tensors, "optimizer."), numbers["optimizer"])
        torch.set_rng_state(tensors["generator"])
        if "generator.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)
        self.epoch, self.waited, self.seconds = numbers["epoch"], numbers["waited"], numbers["seconds"]
        self.best_metric, self.best_loss = numbers["best_metric"], numbers["best_loss"]
        self.best_epoch, self.val_losses = numbers["best_epoch"], list(numbers["val_losses"])
        if self.solutions == 0:
            self.step()  # a state is only saved behind it

    def _check(self, tensors, numbers):
        keys = ("epoch", "waited", "seconds", "best_metric", "best_loss", "best_epoch", "val_losses", "optimizer")
        state.record("fit", numbers, keys)
        state.whole("epoch", numbers["epoch"], 0, self.train.epochs)
        by_mean = self.train.stop == "mean"
        state.whole("best_epoch", numbers["best_epoch"], 0, numbers["epoch"])
        state.whole("waited", numbers["waited"], 0, self.train.patience if by_mean else numbers["epoch"])
        state.number("seconds", numbers["seconds"], 0)
        nothing, least = numbers["best_epoch"] == 0, self.task.least_loss
        state.number("best_metric", numbers["best_metric"], *self.task.bounds, also=("-inf",) if nothing else ())
        state.number("best_loss", numbers["best_loss"], least, also=("inf",) if nothing else ())
        if not by_mean:
            # With "either" what is kept may be older than what is better.
            since = numbers["epoch"] - numbers["best_epoch"]
            state.whole("waited", numbers["waited"], 0 if self.train.stop == "either" else since, since)
        due = min(numbers["epoch"], self.train.patience) if by_mean else 0
        if type(numbers["val_losses"]) is not list or len(numbers["val_losses"]) != due:
            raise state.Unfit("val_losses", f"a list of {due}", numbers["val_losses"])
        for value in numbers["val_losses"]:
            state.number("val_losses", value, least)
        weights, kept = self.model.state_dict(), state.part(tensors, "kept.")
        state.check_tensors("model.", state.part(tensors, "model."), weights)
        state.check_tensors("kept.", kept, weights if numbers["best_epoch"] else {})
        moments = state.part(tensors, "optimizer.")
        if self.optimizer:
            state.check_optimizer(self.optimizer, moments, numbers["optimizer"])
        elif moments or numbers["optimizer"] != {}:
            raise state.Unfit("optimizer", "none", numbers["optimizer"])
        steps = max((int(value) for name, value in moments.items() if name.endswith(".step")), default=0)
        if steps % max(numbers["epoch"], 1) or (steps and not numbers["epoch"]):  # every epoch has as many
            raise state.Unfit("optimizer", f"steps of {numbers['epoch']} epochs", steps)
        if "generator" not in tensors:
            raise state.Unfit("generator", "the state of the random generator", "none")
        state.check_generator("generator", tensors["generator"])
        rest = [
            name for name in tensors if not name.startswith(("model.", "kept.", "optimizer.")) and name != "generator"
        ]
        for name in rest:
            if name != "generator.cuda" or self.device.type != "cuda":
                raise state.Unfit(name, "no such tensor", tensors[name])
            state.check_generator(name, tensors[name], cuda=True)


class Training:
    """All that one variant and seed are trained for: the rounds of its task, and the stages of its system in each.

    prepared(round): {part: inputs} of a round of the task. build(round, inputs): a model with fresh weights. moved:
    puts inputs on the device. epochs: of every stage, where their numbers were chosen before. first: the round to
    begin with.
    In the manner of one Fit: `step()` until it is False, then `finish()`.
    """

    def __init__(
        self,
        task: Task,
        train: Train,
        prepared: Callable[[Task], Mapping[str, tuple]],
        build: Callable[[Task, Mapping[str, tuple]], System],
        moved: Callable[[Any], Any] = lambda inputs: inputs,
        epochs: Sequence[int] | None = None,
        first: int = 0,
    ) -> None:
        self.task, self.settings, self.prepared, self.build, self.moved = task, train, prepared, build, moved
        self.epochs = epochs
        self.rounds = task.rounds()
        self.done: list[dict] = []  # the numbers of every finished round
        self.found: list[dict[str, Tensor]] = []  # and its tensors
        self._start(first)
        self.last: dict[str, float] = {}  # the numbers of the last epoch, which a stage behind it does not have
        # A bar counts the epochs of all rounds.
        self.train = _changed(self.fit.train, epochs=self.fit.train.epochs * len(self.rounds))

    def _start(self, number: int) -> None:
        """The first stage of a round, counted from 0 or from the last one, -1; the last where there are not so many."""
        task = self.rounds[min(number, len(self.rounds) - 1)]
        inputs = self.prepared(task)
        torch.manual_seed(task.first_state)
        self.stages: list[dict] = []  # the chosen weights of every finished stage but the last, and its numbers
        self.fit = Fit(self.build(task, inputs), task, inputs, self.settings, self._chosen())

    def _chosen(self) -> int | None:
        """The epochs of the stage that begins, where they were chosen before."""
        # Where a refit has more stages than its selection had, the last number is all that is known.
        return None if self.epochs is None else self.epochs[min(len(self.stages), len(self.epochs) - 1)]

    def _again(self) -> bool:
        """Begin the stage behind the finished one, whose weights are chosen; False where there is none."""
        task, number = self.fit.task, len(self.stages) + 1
        # Far from the states that other seeds and rounds begin with.
        torch.manual_seed(task.first_state + 1_000_003 * 7_919 * number)
        # At rest, so that what it answers is the same behind a training and behind a resume.
        model, inputs = self.fit.model, self.fit.inputs["train"]
        following = resting(model, lambda: model.again(task.shown(), inputs, number))
        if following is None:
            return False
        pair = following if isinstance(following, tuple) else (following,)
        if len(pair) != 2 or not isinstance(pair[0], System) or not isinstance(pair[1], tuple):
            got = ", ".join(type(part).__name__ for part in pair)
            raise RecipeError(f"again: expected a System and a tuple of inputs, or None, got {got}")
        if any(task.shown_at(part) is not task.shown() for part in self.fit.inputs if part != "train"):
            # One tuple of inputs cannot hold what each part may read.
            raise RecipeError(f"again: expected one stage on {task.name()}, which shows each part something else")
        model, inputs = pair
        found = self.moved(inputs)
        self.stages.append({"kept": self.fit.kept, **{key: getattr(self.fit, place) for key, place in STAGE.items()}})
        model = model.to(self.fit.device)
        self.fit = Fit(model, task, dict.fromkeys(self.fit.inputs, found), self.settings, self._chosen())
        return True

    @property
    def model(self) -> System:
        """The model that is trained now, or was last."""
        return self.fit.model

    @property
    def inputs(self) -> Mapping[str, tuple]:
        """{part: inputs of its forward}."""
        return self.fit.inputs

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch's steps."""
        return self.fit.loss

    @property
    def val_metric(self) -> float:
        """The last epoch's metric on validation, in percent."""
        return self.fit.val_metric

    @property
    def trained(self) -> int:
        """Epochs that were trained so far, in all stages and rounds."""
        ended = sum(numbers["epochs"] for numbers in [*self.done[: len(self.rounds) - 1], *self.stages])
        return ended + self.fit.epoch

    @property
    def epoch(self) -> int:
        """Epochs so far, those that finished rounds did not need among them."""
        ended = min(len(self.done), len(self.rounds) - 1) * self.fit.train.epochs
        return ended + sum(stage["epochs"] for stage in self.stages) + self.fit.epoch

    @property
    def more(self) -> bool:
        """Whether a round is left."""
        return len(self.done) < len(self.rounds)

    def step(self) -> bool:
        """One epoch, and what follows the last one of a stage or a round. False when nothing is left to train."""
        more = self.fit.step()
        self.last = {"epoch": self.trained, "loss": self.fit.loss, "val": self.fit.val_metric}
        self.last["val_loss"] = self.fit.val_loss
        if more:
            return True
        if self.fit.kept:
            self.fit.model.load_state_dict(self.fit.kept)
        if self._again():
            return True
        numbers, tensors = self.fit.finish()
        for stage in self.stages:
            numbers = {**numbers, **{key: numbers[key] + stage[key] for key in SUMS}}
        if self.stages:
            numbers["stages"] = [stage["best_epoch"] for stage in self.stages]
        self.done.append(numbers)
        self.found.append(tensors)
        if not self.more:
            return False
        self._start(len(self.done))
        return True

    def finish(self) -> dict:
        """The results of all rounds as one: means of what validation says, the task's own of the test scores."""
        found = self.task.combine(list(zip(self.done, self.found, strict=True)), self.settings.metric)
        if len(self.done) == 1:
            return {**found, **{key: self.done[0][key] for key in (*MEANS, *SUMS)}}
        mean = {key: float(np.mean([row[key] for row in self.done])) for key in MEANS}
        total = {key: sum(row[key] for row in self.done) for key in SUMS}
        if self.fit.solutions == 0:
            mean["best_epoch"] = 0
        return {**found, **mean, **total}

    def weights(self) -> tuple[dict[str, Tensor], int]:
        """(the last round's chosen weights, with those of its earlier stages, how many stages those are)."""
        tensors = self.fit.model.state_dict()
        for place, stage in enumerate(self.stages):
            tensors |= {f"{_stage(place)}{name}": value for name, value in stage["kept"].items()}
        return tensors, len(self.stages)

    def choose(self, tensors: Mapping[str, Tensor], stages: int) -> None:
        """Take what `weights` gave. Raises state.Unfit where that was of another training."""
        self._start(-1)
        for place in range(stages):
            kept = state.part(tensors, _stage(place))
            tensors = {name: value for name, value in tensors.items() if not name.startswith(_stage(place))}
            state.check_tensors(_stage(place), kept, self.fit.model.state_dict())
            self._behind(kept)
        state.check_tensors("", tensors, self.fit.model.state_dict(), finite=False)  # a loss that is not says it better
        self.fit.model.load_state_dict(tensors)

    def _behind(self, kept, **numbers):
        """Begin the stage behind the one that chose these weights."""
        self.fit.model.load_state_dict(kept)
        self.fit.kept = kept
        for key, value in numbers.items():
            setattr(self.fit, STAGE[key], value)
        place = len(self.stages)
        if not self._again():
            raise state.Unfit("stages", f"at most {place}", place + 1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """({name: tensor}, numbers): everything that the next epoch depends on, with what is finished."""
        tensors, numbers = self.fit.state()
        tensors = {f"fit.{k}": v for k, v in tensors.items()}
        stages = []
        for place, stage in enumerate(self.stages):
            tensors |= {f"stage.{place}.{k}": v for k, v in stage["kept"].items()}
            stages.append({key: stage[key] for key in STAGE})
        for place, found in enumerate(self.found):
            tensors |= {f"round.{place}.{k}": v for k, v in found.items()}
        return tensors, {"fit": numbers, "done": self.done, "stages": stages}

    def restore(self, tensors: Mapping[str, Tensor], numbers: dict) -> None:
        """Continue where `state()` was taken. Raises state.Unfit where it cannot have been."""
        state.record("fit", numbers, ("fit", "done", "stages"))
        done, stages = numbers["done"], numbers["stages"]
        if type(done) is not list or len(done) > len(self.rounds):
            raise state.Unfit("done", f"a list of at most {len(self.rounds)}", done)
        if type(stages) is not list:
            raise state.Unfit("stages", "a list", stages)
        for row in done:
            self._check_row(row)
        prefixes = ("fit.", *(f"stage.{k}." for k in range(len(stages))), *(f"round.{k}." for k in range(len(done))))
        for name in tensors:
            if not name.startswith(prefixes):
                raise state.Unfit(name, "no such tensor", tensors[name])
        found = [state.part(tensors, f"round.{place}.") for place in range(len(done))]
        for task, kept in zip(self.rounds, found, strict=False):
            _check_results(kept, task.expected())
        self.done, self.found = done, found
        self._start(len(done))
        for place, stage in enumerate(stages):
            state.record(f"stages[{place}]", stage, STAGE)
            state.whole("epochs", stage["epochs"], 1, self.fit.train.epochs)
            state.whole("best_epoch", stage["best_epoch"], 1, stage["epochs"])
            state.number("seconds", stage["seconds"], 0)
            kept = state.part(tensors, f"stage.{place}.")
            state.check_tensors(f"stage.{place}.", kept, self.fit.model.state_dict())
            self._behind(kept, **stage)
        self.fit.restore(state.part(tensors, "fit."), numbers["fit"])

    def _check_row(self, row):
        if type(row) is not dict:
            raise state.Unfit("done", "an object with keys", row)
        state.record("done", row, (*MEANS, *SUMS), tuple(row))
        low, high = self.task.bounds
        for key in ("val", "test", "knn"):
            if key in row:
                state.number(f"done.{key}", row[key], low, high)
        untrained = ("nan",) if self.fit.solutions == 0 else ()
        state.number("done.val_loss", row["val_loss"], also=untrained)
        state.number("done.seconds", row["seconds"], 0)
        state.whole("done.epochs", row["epochs"], 0)
        state.whole("done.best_epoch", row["best_epoch"], 0, self.fit.train.epochs)


def _check_results(kept, expected):
    """Raise state.Unfit unless the tensors of a round may be what its task gave."""
    state.check_tensors("round.", kept, expected)
    for name, tensor in kept.items():
        if name.endswith(".label") and not torch.equal(tensor, expected[name]):
            raise state.Unfit(f"round.{name}", "the labels of this seed's examples", "others")
        if name.endswith(".rank") and not ((tensor > 0) & (tensor <= 1)).all():
            raise state.Unfit(f"round.{name}", "reciprocal ranks", "others")


def _stage(place):
    """What the names of an earlier stage's weights begin with; no module's do."""
    return f"stage {place}: "


def _changed(train, **changes):
    return dataclasses.replace(train, **changes)
