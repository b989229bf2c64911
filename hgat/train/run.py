"""Runs a recipe: loads, prepares, trains every seed of the system and of its controls, writes the results."""

import inspect
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dgl
import torch
from torch import Tensor

import hgat
from hgat import data, ops
from hgat.errors import DataError, HgatError, RecipeError
from hgat.files import write_bytes
from hgat.models import Facts, System
from hgat.tasks import Task
from hgat.train import checkpoint, state
from hgat.train.fit import Training
from hgat.train.history import History
from hgat.train.log import check_logger, logger
from hgat.train.progress import Progress
from hgat.train.recipe import DATA, UNIFORM, Expect, Recipe, beside, read, to_toml

__all__ = ["Opened", "Result", "evaluate_folder", "open_folder", "train", "trained"]

METRICS, MODEL, RECIPE, PROGRESS = "metrics.json", "model.safetensors", "recipe.toml", "progress.safetensors"
HISTORY = "history.csv"
PICTURE = "attention.png"  # drawn by the command line, which stands above hgat.explain
# A run that is killed loses at most this many seconds of work.
SAVE_EVERY = 2.0
KEPT = 64  # prepared inputs that are kept


@dataclass(frozen=True, repr=False)
class Result:
    """What `train` and `hgat.fit` give: the content of metrics.json, the best seed's trained model, inputs and task.

    out: the folder of the run's files.
    """

    metrics: dict
    model: System
    inputs: tuple
    task: Task
    recipe: Recipe
    out: Path

    def __repr__(self) -> str:
        test, metric = self.metrics["test"], self.metrics["metric"]
        return f"Result({self.recipe.title}: {metric} {test['mean']:.1f} of {self.task!r}, {self.out})"

    def predict(self, *asked: Any, **more: Any) -> Tensor:
        """What the trained model says, in the task's own words: `predict` of hgat.tasks, as in predict([0, 7]).

        Raises RecipeError for a task that has no such answer.
        """
        return self.task.predict(self.model, self.inputs, *asked, **more)


class Experiment:
    """A recipe on its data: the task, and for every variant and seed what it is trained on and with.

    given: data of the kind that the task takes, in the place of those that the recipe names.
    """

    def __init__(self, recipe: Recipe, root: str | Path | None = None, device: str = "cpu", given: Any = None):
        self.recipe, self.device = recipe, _device(device)
        self.data = data.load(recipe.data["name"], root, **recipe.settings("data")) if given is None else given
        self.task = recipe.task_class(self.data, **recipe.settings("task"))
        if recipe.train.refit:
            self.task.refitted()
        self.task.check(recipe.train.metric, recipe.train.controls)
        self._prepared: list[tuple[Facts, type[System], Mapping, tuple]] = []

    def training(self, variant: str, seed: int, epochs: Sequence[int] | None = None, first: int = 0) -> Training:
        """What one variant and seed are trained for, from round `first` on.

        epochs: of every stage, chosen before, for a refit with the validation part.
        """
        task = self.task.for_seed(seed)
        task = task if epochs is None else task.refitted()

        def prepared(task):
            return self.inputs(task, variant)

        def build(task, inputs):
            return self.model(task, inputs["train"], variant)

        return Training(task, self.recipe.train, prepared, build, self._moved, epochs, first)

    def system(self, variant: str) -> type[System]:
        """The class of a variant: the recipe's, or a control of the task."""
        return self.task.controls.get(variant, self.recipe.system_class)

    def context(self, variant: str) -> Any:
        """What a variant is trained in."""
        return ops.uniform_attention() if variant == UNIFORM else nullcontext()

    def inputs(self, task: Task, variant: str = "ours") -> dict[str, tuple]:
        """{part: inputs of forward}, on the device."""
        shown = {"train": task.shown(), "val": task.shown_at("val"), "test": task.shown_at("test")}
        return {part: self._of(facts, variant) for part, facts in shown.items()}

    def scoring(self, task: Task) -> dict[str, tuple]:
        """{part: inputs of forward} to score every part with."""
        return {part: self._of(task.shown_at(part)) for part in ("train", "val", "test")}

    def _of(self, shown, variant="ours"):
        """The inputs that a variant prepares of what is shown; they are kept for the next seeds and variants."""
        system = self.system(variant)
        if system in self.task.controls.values():
            settings = self.task.control_settings(system)
        else:
            settings = self.recipe.graph
            if variant in system.ablations:
                settings = {**settings, **system.ablations[variant].graph}
        for facts, of, by, inputs in self._prepared:
            if facts is shown and of is system and by == settings:
                return inputs
        with torch.random.fork_rng():
            torch.manual_seed(0)  # what is random in it is the same for every variant and after every resume
            inputs = system.prepare(shown, **settings)
        if not isinstance(inputs, tuple):
            raise RecipeError(f"prepare: expected a tuple of inputs, got {type(inputs).__name__}")
        self._prepared = [*self._prepared, (shown, system, settings, self._moved(inputs))][-KEPT:]
        return self._prepared[-1][-1]

    def _moved(self, inputs):
        """Inputs on the device; a graph stays where it is, as the operators keep its structure on any device."""
        if isinstance(inputs, Mapping):
            return {key: self._moved(value) for key, value in inputs.items()}
        if isinstance(inputs, (list, tuple)):
            moved = [self._moved(value) for value in inputs]
            return inputs._make(moved) if hasattr(inputs, "_make") else type(inputs)(moved)
        if isinstance(inputs, dgl.DGLGraph) or not hasattr(inputs, "to"):
            return inputs
        return inputs.to(self.device)

    def model(self, task: Task, inputs: tuple, variant: str = "ours") -> System:
        """A variant's model with fresh weights."""
        system = self.system(variant)
        settings = self.recipe.settings("model")
        if system in self.task.controls.values():
            offered = {"hidden": self.recipe.train.control_hidden, "feat_drop": self.recipe.model.get("feat_drop")}
            known = inspect.signature(system.build).parameters
            settings = {key: value for key, value in offered.items() if key in known and value is not None}
        elif variant in system.ablations:
            settings |= system.ablations[variant].settings
        try:
            model = task.completed(system.build(task.shown(), inputs, **settings))
        except HgatError:
            raise
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            # What PyTorch says of a tensor that no memory holds, or no number counts.
            raise RecipeError(f"model: expected settings that a model can be built with, got: {error}") from error
        return model.to(self.device)

    def check_ablations(self) -> None:
        """Raise RecipeError, before any training, for an ablation that cannot be built on these data."""
        named = [variant for variant in self.recipe.train.controls if variant in self.recipe.system_class.ablations]
        if not named:
            return
        task = self.task.for_seed(0).rounds()[0]
        self.model(task, self._of(task.shown()))
        for variant in named:
            try:
                self.model(task, self._of(task.shown(), variant), variant)
            except HgatError as error:
                raise RecipeError(
                    f"train.controls: expected ablations that {self.recipe.system} can be built with, got {variant!r}: "
                    f"{error}"
                ) from error

    def last(self, seed: int, weights: Mapping[str, Tensor], stages: int) -> tuple[Task, System, Mapping[str, tuple]]:
        """(a seed's task, the model of its last round with the weights of a run, {part: inputs to score it with})."""
        training = self.training("ours", seed, [1] if self.recipe.train.refit else None, first=-1)
        training.choose(weights, stages)
        inputs = training.inputs if stages else self.scoring(training.rounds[-1])
        return training.task, training.model, inputs


def _device(name):
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).item()
    except (AssertionError, ImportError, RuntimeError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        if name in there or name == "cuda" and len(there) > 1:
            reason = str(error).split("\n")[0].split(". ")[0]
            raise RecipeError(f"--device: expected a device that PyTorch can use, got {name!r}: {reason}") from None
        raise RecipeError(f"--device: expected a device of this machine, {', '.join(there)}, got {name!r}") from None
    return device


def train(
    name: str | Path,
    root: str | Path | None = None,
    *,
    seeds: int | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    overrides: Sequence[str] = (),
    progress: bool = True,
    callback: Callable[[dict[str, Any]], object] | None = None,
    log: str = "csv",
) -> Result:
    """Train a recipe with all its controls and write metrics.json, the best seed's weights and the recipe.

    name: a recipe's name or the path of a TOML file. seeds: how many, counted from 0. out: a folder, by
    default runs/<recipe>. resume: continue a run that was killed; it ends as if it had not been, and with
    more seeds than before it trains only those. overrides: "section.key=value". progress: show a bar where
    stderr is a terminal, and else a line now and then. callback: called behind every epoch with what history.csv has
    of it, {"variant", "seed", "stage", "epoch", "loss", "val", "val_loss"}. log: "tensorboard" or "wandb", which get
    the same beside the file.
    Returns a Result. Raises the errors of hgat.errors, each one sentence.
    """
    recipe = read(name, overrides)
    made = lambda: Experiment(recipe, root, device)  # noqa: E731
    return trained(recipe, made, seeds, out, resume, progress=progress, callback=callback, log=log)


def trained(
    recipe: Recipe,
    made: Callable[[], Experiment],
    seeds: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    progress: bool = True,
    callback: Callable[[dict[str, Any]], object] | None = None,
    content: bytes | None = None,
    log: str = "csv",
) -> Result:
    """`train` of a recipe that was read before. made(): its experiment. content: of the file of data that the recipe
    names beside itself, to be written there."""
    check_logger(log)
    seeds = recipe.train.seeds if seeds is None else seeds
    if seeds < 1:
        raise RecipeError(f"--seeds: expected 1 or more, got {seeds}")
    out = checkpoint.make_folder(out or Path("runs") / recipe.name)
    experiment = made()
    experiment.check_ablations()
    ledger = _Ledger(out, recipe, seeds, resume)
    if content is not None:
        write_bytes(out / DATA, content)
    fits = [(variant, seed) for variant in ["ours", *recipe.train.controls] for seed in range(seeds)]
    left = [fit for fit in fits if not ledger.has(*fit)]
    if left:
        # What was made of fewer seeds must not stand beside the weights of more.
        checkpoint.remove(out / METRICS)
        checkpoint.remove(out / PICTURE)
    with logger(log, out, recipe.name) as tell:

        def told(row):
            tell(row)
            if callback is not None:
                callback(row)

        for variant, seed in left:
            _fit(experiment, variant, seed, ledger, progress, told)
    task, model, inputs = _best_model(experiment, ledger)
    metrics = _summary(recipe, experiment, ledger, seeds)
    checkpoint.write_text(out / METRICS, json.dumps(metrics, indent=2) + "\n")
    return Result(metrics, model, inputs["test"], task, recipe, out)


class _Ledger:
    """What is finished, and the state of the fit that is not, in one file that is replaced as a whole."""

    def __init__(self, out, recipe, seeds, resume):
        self.path, self.out, self.recipe, self.seeds = out / PROGRESS, out, recipe, seeds
        self.about = {"recipe": to_toml(beside(recipe, out)), "done": [], "selected": None, "running": None}
        self.tensors = {}
        if resume and self.path.exists():
            self._read(seeds)
        else:
            # An earlier run's state and weights must not pass for this one's.
            checkpoint.remove(self.path)
            checkpoint.remove(out / MODEL)
            checkpoint.remove(out / HISTORY)
            checkpoint.write_text(out / RECIPE, self.about["recipe"])
        self.history = History(out / HISTORY, resume)
        self.saved = time.monotonic()

    def _read(self, seeds):
        tensors, about = checkpoint.load_state(self.path)
        if about.get("recipe") != self.about["recipe"]:
            raise RecipeError(
                f"--resume: expected the recipe and settings of the run in {self.out}, got others; "
                "run without --resume to start anew"
            )
        try:
            self._check(about, tensors)
        except state.Unfit as error:
            raise state.unfit(self.path, "--resume: expected a state that hgat saved", error) from None
        finished = 1 + max((result["seed"] for result in about["done"]), default=0)
        if seeds < finished:
            # The weights in the folder may be those of a seed that would not be in the table.
            raise RecipeError(f"--resume: expected {finished} seeds or more, as so many are finished, got {seeds}")
        self.tensors, self.about = tensors, about

    def _check(self, about, tensors):
        """Raise state.Unfit for what no run of the recipe can have saved; the tensors are checked by their fit."""
        state.record("state", about, self.about)
        if type(about["done"]) is not list:
            raise state.Unfit("done", "a list", about["done"])
        finished = {variant: 0 for variant in ["ours", *self.recipe.train.controls]}
        more = {}
        for place, result in enumerate(about["done"]):
            self._check_result(f"done[{place}]", result)
            variant = result["variant"]
            state.whole(f"done[{place}].seed", result["seed"], finished[variant], finished[variant])
            finished[variant] += 1
            if more.setdefault(variant, [*result.get("more", ()), "knn" in result]) != [
                *result.get("more", ()),
                "knn" in result,
            ]:
                raise state.Unfit(f"done[{place}]", "the measures of the other seeds", "others")
        selected, running = about["selected"], about["running"]
        if selected is not None:
            if not self.recipe.train.refit:
                raise state.Unfit("selected", "none without train.refit", selected)
            self._check_result("selected", selected)
            state.whole("selected.seed", selected["seed"], finished[selected["variant"]], finished[selected["variant"]])
        if running is None:
            state.check_tensors("", tensors, {})
            return
        state.record("running", running, ("key", "seeds", "fit", "more"))
        key = running["key"]
        state.record("running.key", key, ("variant", "seed", "stage"))
        self._check_key("running.key", key, ("select",) if selected is None else ("refit",))
        state.whole("running.seeds", running["seeds"], 1, 1 << 31)
        due = next(((v, done) for v, done in finished.items() if done < running["seeds"]), None)
        if due != (key["variant"], key["seed"]):
            raise state.Unfit("running.key", "the first that is not finished", f"{key['variant']}, {key['seed']}")
        if selected is not None and (selected["variant"], selected["seed"]) != (key["variant"], key["seed"]):
            raise state.Unfit("running.key", "the refit of what was selected", "another's")
        if type(running["more"]) is not bool:
            raise state.Unfit("running.more", "true or false", running["more"])
        if type(running["fit"]) is not dict:
            raise state.Unfit("running.fit", "an object with keys", running["fit"])

    def _check_key(self, where, key, stages):
        variants = ["ours", *self.recipe.train.controls]
        if key["variant"] not in variants:
            raise state.Unfit(f"{where}.variant", f"one of {', '.join(variants)}", key["variant"])
        if key["stage"] not in stages:
            raise state.Unfit(f"{where}.stage", " or ".join(stages), key["stage"])
        state.whole(f"{where}.seed", key["seed"])

    def _check_result(self, where, result):
        numbers = ("test", "val", "val_loss", "best_epoch", "epochs", "seconds")
        state.record(where, result, ("variant", "seed", "stage", *numbers), ("knn", "more", "stages"))
        self._check_key(where, result, ("select",))
        for key in ("test", "val", "knn"):
            if key in result:
                state.number(f"{where}.{key}", result[key], *self.recipe.task_class.bounds)
        # What is counted and not trained has no loss.
        also = () if result["variant"] == "ours" else ("nan",)
        state.number(f"{where}.val_loss", result["val_loss"], self.recipe.task_class.least_loss, also=also)
        state.number(f"{where}.seconds", result["seconds"], 0)
        state.whole(f"{where}.epochs", result["epochs"])
        if type(result["best_epoch"]) is float and not self.recipe.train.refit:  # a mean over several trainings
            state.number(f"{where}.best_epoch", result["best_epoch"], 0, result["epochs"])
        else:
            state.whole(f"{where}.best_epoch", result["best_epoch"], 0, result["epochs"])
        if type(result.get("stages", [])) is not list:
            raise state.Unfit(f"{where}.stages", "a list", result["stages"])
        for best in result.get("stages", ()):
            state.whole(f"{where}.stages", best, 1, self.recipe.train.epochs)
        if "more" in result:
            state.record(f"{where}.more", result["more"], (), tuple(result["more"]) if result["more"] else ())
            for name, value in result["more"].items():
                state.number(f"{where}.more.{name}", value)

    def has(self, variant, seed):
        return any(r["variant"] == variant and r["seed"] == seed for r in self.about["done"])

    def results(self, variant):
        return [r for r in self.about["done"] if r["variant"] == variant]

    def selected(self, variant, seed):
        """The finished selection of the fit that is being refitted, or None."""
        found = self.about["selected"]
        return found if found and (found["variant"], found["seed"]) == (variant, seed) else None

    def restore(self, fit, key):
        """Continue `fit` if the run was killed inside it; gives whether an epoch follows."""
        running = self.about["running"]
        if not running or running["key"] != key:
            self.history.begin(key, -1)
            return True
        try:
            fit.restore(self.tensors, running["fit"])
            if running["more"] is not fit.more:
                raise state.Unfit("running.more", str(fit.more).lower(), str(running["more"]).lower())
        except state.Unfit as error:
            raise state.unfit(self.path, "--resume: expected a state that fits the recipe's data", error) from None
        self.history.begin(key, fit.trained)
        return running["more"]

    def save_running(self, fit, key, more):
        if time.monotonic() - self.saved < SAVE_EVERY:
            return
        tensors, numbers = fit.state()
        self.about["running"] = {"key": key, "seeds": self.seeds, "fit": numbers, "more": more}
        self._write(tensors)

    def save_selected(self, result):
        self.about |= {"selected": result, "running": None}
        self._write({})

    def save_done(self, result):
        self.about["done"].append(result)
        self.about |= {"selected": None, "running": None}
        self._write({})

    def _write(self, tensors):
        checkpoint.save_state(self.path, tensors, self.about)
        self.saved = time.monotonic()


def _fit(experiment, variant, seed, ledger, progress, callback):
    """Train one variant with one seed: select on validation and, where the recipe says so, refit."""
    recipe = experiment.recipe
    result = ledger.selected(variant, seed)
    if result is None:
        result, training = _stage(experiment, variant, seed, None, ledger, progress, callback)
        if recipe.train.refit:
            ledger.save_selected(result)
    if recipe.train.refit:
        epochs = [*result.get("stages", ()), result["best_epoch"]]
        refitted, training = _stage(experiment, variant, seed, epochs, ledger, progress, callback)
        measured = {name: refitted[name] for name in ("test", "more") if name in refitted}
        result = {**result, **measured, "seconds": result["seconds"] + refitted["seconds"]}
    if variant == "ours" and all(_better(result, other) for other in ledger.results("ours")):
        weights, stages = training.weights()
        about = {"recipe": recipe.name, "seed": seed, "val": result["val"], **({"stages": stages} if stages else {})}
        checkpoint.save_tensors(ledger.out / MODEL, weights, about)
    ledger.save_done(result)


def _stage(experiment, variant, seed, refit_epochs, ledger, progress, callback):
    """(result, training) of the selection, or, with refit_epochs, of the refit."""
    stage = "select" if refit_epochs is None else "refit"
    key = {"variant": variant, "seed": seed, "stage": stage}
    fit = experiment.training(variant, seed, refit_epochs)
    title = f"{experiment.recipe.title_of(variant)}, seed {seed}" + (", refit" if stage == "refit" else "")
    with experiment.context(variant):
        more = ledger.restore(fit, key)  # what a stage begins with, the one before it answers
        with Progress(title, experiment.recipe.train.metric, fit.train.epochs, fit.epoch, quiet=not progress) as said:
            while more:
                more = fit.step()
                said.step(fit.last["epoch"], fit.last["loss"], fit.last["val"])
                ledger.history.add({**key, **fit.last})
                callback({**key, **fit.last})
                ledger.save_running(fit, key, more)
            result = {**key, **fit.finish()}
            said.end(result)
            return result, fit


def _better(result, other):
    """True if a seed is to be kept rather than an earlier one: by validation only."""
    return (result["val"], -result["val_loss"]) > (other["val"], -other["val_loss"])


def _spread(values):
    return {
        "values": values,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _summary(recipe, experiment, ledger, seeds):
    def of(variant):
        rows = [r for r in ledger.results(variant) if r["seed"] < seeds]
        knn = {"knn": _spread([r["knn"] for r in rows])} if all("knn" in r for r in rows) else {}
        more = {name: _spread([r["more"][name] for r in rows]) for name in rows[0].get("more", ())}
        return {
            **knn,
            **({"more": more} if more else {}),
            "test": _spread([r["test"] for r in rows]),
            "val": _spread([r["val"] for r in rows]),
            "best_epoch": [r["best_epoch"] for r in rows],
            "epochs": [r["epochs"] for r in rows],
            "seconds": [round(r["seconds"], 2) for r in rows],
        }

    def paired(variant):
        """By how much the system is above a control, seed by seed: they share a split and a beginning."""
        both = zip(of("ours")["test"]["values"], of(variant)["test"]["values"], strict=True)
        return _spread([ours - control for ours, control in both])

    # The paper's numbers say nothing of another file in the data set's place.
    expect, notes, task = recipe.expect, list(experiment.task.data.notes), experiment.task
    stands_in = getattr(experiment.data, "stands_in", False)
    of_others = recipe.data["name"] not in data.forms() and experiment.data.name != recipe.data["name"]
    if expect.paper and (stands_in or of_others):
        expect = Expect()
        found = "a stand-in for" if stands_in else f"{experiment.data.name} and not on"
        notes.append(f"run on {found} the recipe's data: the paper's numbers are left out")
    return {
        "recipe": recipe.name,
        "system": recipe.system,
        "data": recipe.data["name"],
        "metric": recipe.train.metric,
        "protocol": recipe.task["name"],
        "unit": task.unit,
        task.unit: task.sizes(),
        "seeds": list(range(seeds)),
        **of("ours"),
        "controls": {variant: {**of(variant), "paired": paired(variant)} for variant in recipe.train.controls},
        "paper": expect.paper or None,
        "paper_note": expect.paper_note,
        **({"paper_more": expect.paper_more} if expect.paper_more else {}),
        "notes": notes,
        "total_seconds": round(sum(r["seconds"] for r in ledger.about["done"]), 2),
        "versions": {
            "hgat": hgat.__version__,
            "torch": torch.__version__,
            "dgl": dgl.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "device": str(experiment.device),
        },
    }


def _best_model(experiment, ledger):
    """(the best finished seed's task, the recipe's model with its weights, {part: inputs})."""
    *found, about = _load_model(experiment, ledger.out)
    best = ledger.results("ours")[0]
    for result in ledger.results("ours"):
        best = result if _better(result, best) else best
    if (about["seed"], about["val"]) != (best["seed"], best["val"]):
        raise DataError(
            f"checkpoint: expected the weights of seed {best['seed']} in {ledger.out / MODEL}, got those of "
            f"{about['seed']}; run without --resume to start anew"
        )
    return found


def _load_model(experiment, folder):
    """(task, the recipe's model with the weights that were kept, {part: inputs}, what was written beside them)."""
    path = folder / MODEL
    weights, about = checkpoint.load_tensors(path)
    try:
        state.record("metadata", about, ("recipe", "seed", "val"), ("stages",))
        state.whole("seed", about["seed"])
        state.whole("stages", about.get("stages", 0))
        state.number("val", about["val"], *experiment.task.bounds)
        return *experiment.last(about["seed"], weights, about.get("stages", 0)), about
    except state.Unfit as error:
        raise _another(path, error) from None


def _another(path, error):
    return DataError(f"checkpoint: expected weights of the recipe beside it, got another file, {path}: {error}")


@dataclass(frozen=True)
class Opened:
    """What `train` left in a folder: the recipe, the task of the seed that was kept, its model, inputs by part.

    experiment: the recipe on its data. about: what is written beside the weights.
    """

    recipe: Recipe
    experiment: Experiment
    task: Task
    model: System
    inputs: Mapping[str, tuple]
    about: dict


def open_folder(folder: str | Path, root: str | Path | None = None, *, device: str = "cpu") -> Opened:
    """The trained model that `train` left in a folder, on the recipe's data.

    Raises DataError for a folder without a run and for weights of another recipe, and what reading the recipe and its
    data raises; where that fails and another version of hgat wrote the folder, the sentence says so. Warns where it
    opens all the same.
    """
    folder = Path(folder)
    if not (folder / RECIPE).is_file():
        raise DataError(f"run: expected a folder with {RECIPE} and {MODEL}, as `hgat train` leaves it, got {folder}")
    theirs, ours = _version_of(folder), hgat.__version__
    try:
        recipe = read(folder / RECIPE)
        experiment = Experiment(recipe, root, device)
        opened = Opened(recipe, experiment, *_load_model(experiment, folder))
    except HgatError as error:
        if theirs in (None, ours):
            raise
        raise DataError(f"run: expected one of hgat {ours}, got one of {theirs}, {folder}: {error}") from error
    if theirs not in (None, ours):
        said = f"run: one of hgat {theirs}, opened with {ours}, which may not answer as it did, {folder}"
        warnings.warn(said, FutureWarning, stacklevel=2)
    return opened


def _version_of(folder):
    """The version of hgat that wrote a run's results, None where it does not say."""
    try:
        return json.loads((folder / METRICS).read_text())["versions"]["hgat"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evaluate_folder(
    folder: str | Path, root: str | Path | None = None, *, device: str = "cpu"
) -> tuple[Recipe, Experiment, dict[str, tuple[float, int]], dict]:
    """(recipe, experiment, {part: (score in percent, on how many)}, about) of what `train` left in a folder."""
    run = open_folder(folder, root, device=device)
    scores = run.task.scores(run.model, run.inputs, run.recipe.train.metric)
    return run.recipe, run.experiment, scores, run.about
