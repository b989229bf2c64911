"""Runs a recipe: loads, prepares, trains every seed of the system and of its controls, writes what came out."""

import dataclasses
import json
import os
import platform
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import dgl
import torch
from tqdm import tqdm

import hgat
from hgat import data, models
from hgat.errors import DataError, RecipeError
from hgat.train import checkpoint, controls
from hgat.train.loop import Fit, evaluate
from hgat.train.recipe import read, to_toml

__all__ = ["Result", "evaluate_folder", "train"]

METRICS, MODEL, RECIPE, PROGRESS = "metrics.json", "model.safetensors", "recipe.toml", "progress.safetensors"
# A run that is killed loses at most this many seconds of work.
SAVE_EVERY = 2.0


@dataclass(frozen=True)
class Result:
    """What `train` gives: the content of metrics.json, the trained model of the best seed, its inputs and task."""

    metrics: dict
    model: torch.nn.Module
    inputs: tuple
    task: object
    recipe: object
    out: Path


class _Experiment:
    """One recipe on its data: builds the inputs once, and a fresh model for every fit."""

    def __init__(self, recipe, root, device):
        self.recipe = recipe
        self.device = _device(device)
        self.task = data.load(recipe.data["name"], root, **recipe.settings("data"))
        self.structure = recipe.prepare(self.task.graph)
        self.feat = {t: None if f is None else f.to(self.device) for t, f in self.task.feat.items()}

    def fit(self, variant, seed, refit_epochs=None):
        """(Fit, context in which its steps run) of one variant, seeded before the weights are drawn.

        refit_epochs: train on training and validation nodes together for so many epochs.
        """
        torch.manual_seed(seed)
        task, settings = self.task, self.recipe.train
        if refit_epochs is not None:
            task = _AllLabels(task)
            settings = dataclasses.replace(settings, epochs=refit_epochs, stop="last")
        model, inputs, context = None, None, nullcontext()
        if variant != "ours":
            model, inputs, context = controls.find(variant)(self.task, self.recipe)
        if model is None:
            model = models.find(self.recipe.system).for_graph(
                self.structure, self.feat, self.task.num_classes, self.task.target, **self.recipe.settings("model")
            )
            inputs = (self.structure, self.feat)
        else:
            inputs = tuple(x.to(self.device) for x in inputs)
        return Fit(model.to(self.device), inputs, task, settings), context


class _AllLabels:
    """A task whose validation nodes are trained on too; everything else is the task's."""

    def __init__(self, task):
        self._task = task
        self.train = torch.cat([task.train, task.val])

    def __getattr__(self, name):
        return getattr(self._task, name)


def _device(name):
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"--device: expected a device that PyTorch can use, got {name!r}: {error}") from None
    return device


def train(name, root=None, *, seeds=None, out=None, device="cpu", resume=False, overrides=(), progress=True):
    """Train a recipe with all its controls and write metrics.json, the best seed's weights and the recipe.

    name: a recipe's name or the path of a TOML file. seeds: how many, counted from 0. out: a folder, by default
    runs/<recipe>. resume: continue a run that was killed; it ends as if it had not been. overrides: "section.key=value".
    Returns a Result. Raises the errors of hgat.errors, each one sentence.
    """
    recipe = read(name, overrides)
    seeds = recipe.train.seeds if seeds is None else seeds
    if seeds < 1:
        raise RecipeError(f"--seeds: expected 1 or more, got {seeds}")
    out = checkpoint.make_folder(out or Path("runs") / recipe.name)
    experiment = _Experiment(recipe, root, device)
    ledger = _Ledger(out, recipe, resume)
    for variant in ["ours", *recipe.train.controls]:
        for seed in range(seeds):
            if not ledger.has(variant, seed):
                _fit(experiment, variant, seed, ledger, progress)
    model, _ = _load_model(experiment, out)
    metrics = _summary(recipe, experiment.task, ledger, seeds, str(experiment.device))
    checkpoint.write_text(out / METRICS, json.dumps(metrics, indent=2) + "\n")
    return Result(metrics, model, (experiment.structure, experiment.feat), experiment.task, recipe, out)


class _Ledger:
    """What is finished, and the state of the fit that is not, in one file that is replaced as a whole."""

    def __init__(self, out, recipe, resume):
        self.path, self.out = out / PROGRESS, out
        self.text = to_toml(recipe)
        self.about = {"recipe": self.text, "name": recipe.name, "done": [], "seconds": 0.0}
        self.about |= {"selected": None, "running": None}
        self.tensors = {}
        if resume and self.path.exists():
            tensors, about = checkpoint.load_tensors(self.path)
            if about.get("recipe") != self.text:
                raise RecipeError(
                    f"--resume: expected the recipe and settings of the run in {out}, got others; "
                    "run without --resume to start anew"
                )
            self.tensors, self.about = tensors, about
        else:
            # An earlier run's files must not pass for this one's.
            for name in (PROGRESS, MODEL, METRICS):
                (out / name).unlink(missing_ok=True)
            checkpoint.write_text(out / RECIPE, self.text)
        self.before = self.about["seconds"]
        self.started = self.saved = time.monotonic()

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
        if running and running["key"] == key:
            fit.restore(self.tensors, running["fit"])
            return running["more"]
        return True

    def save_running(self, fit, key, more):
        if time.monotonic() - self.saved < SAVE_EVERY:
            return
        tensors, numbers = fit.state()
        self.about["running"] = {"key": key, "fit": numbers, "more": more}
        self._write(tensors)

    def save_selected(self, result):
        self.about |= {"selected": result, "running": None}
        self._write({})

    def save_done(self, result):
        self.about["done"].append(result)
        self.about |= {"selected": None, "running": None}
        self._write({})

    def _write(self, tensors):
        self.about["seconds"] = self.seconds()
        checkpoint.save_tensors(self.path, tensors, self.about)
        self.saved = time.monotonic()

    def seconds(self):
        return self.before + time.monotonic() - self.started


def _fit(experiment, variant, seed, ledger, progress):
    """Train one variant with one seed: select on validation and, where the recipe says so, refit on all labels."""
    recipe = experiment.recipe
    result, model = _stage(experiment, variant, seed, "select", ledger, progress)
    if recipe.train.refit:
        if model is not None:
            ledger.save_selected(result)
        refitted, model = _stage(experiment, variant, seed, "refit", ledger, progress, result["best_epoch"])
        result = {**result, "test": refitted["test"], "seconds": result["seconds"] + refitted["seconds"]}
    if variant == "ours" and all(_better(result, other) for other in ledger.results("ours")):
        checkpoint.save_tensors(
            ledger.out / MODEL, model.state_dict(), {"recipe": recipe.name, "seed": seed, "val": result["val"]}
        )
    ledger.save_done(result)


def _stage(experiment, variant, seed, stage, ledger, progress, epochs=None):
    """(result, trained model) of one stage; the model is None if the stage was finished before the run was killed."""
    if stage == "select" and ledger.selected(variant, seed):
        return ledger.selected(variant, seed), None
    fit, context = experiment.fit(variant, seed, epochs)
    key = {"variant": variant, "seed": seed, "stage": stage}
    more = ledger.restore(fit, key)
    title = f"{controls.TITLES[variant]}, seed {seed}" + (", refit" if stage == "refit" else "")
    bar = tqdm(total=fit.train.epochs, initial=fit.epoch, desc=title, unit="epoch", disable=not progress, leave=False)
    started = time.monotonic()
    with context, bar:
        while more:
            more = fit.step()
            bar.set_postfix_str(f"loss {fit.loss:.3f}, val {fit.train.metric} {fit.val_metric:.1f}", refresh=False)
            bar.update()
            ledger.save_running(fit, key, more)
        return {**key, **fit.finish(), "seconds": time.monotonic() - started}, fit.model


def _better(result, other):
    """True if a seed is to be kept rather than an earlier one: by validation only."""
    return (result["val"], -result["val_loss"]) > (other["val"], -other["val_loss"])


def _spread(values):
    return {
        "values": values,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _summary(recipe, task, ledger, seeds, device):
    def of(variant):
        rows = [r for r in ledger.results(variant) if r["seed"] < seeds]
        return {
            "test": _spread([r["test"] for r in rows]),
            "val": _spread([r["val"] for r in rows]),
            "best_epoch": [r["best_epoch"] for r in rows],
            "epochs": [r["epochs"] for r in rows],
            "seconds": [round(r["seconds"], 2) for r in rows],
        }

    return {
        "recipe": recipe.name,
        "system": recipe.system,
        "data": recipe.data["name"],
        "metric": recipe.train.metric,
        "nodes": {"train": len(task.train), "val": len(task.val), "test": len(task.test)},
        "seeds": list(range(seeds)),
        **of("ours"),
        "controls": {variant: of(variant) for variant in recipe.train.controls},
        "paper": recipe.expect.paper or None,
        "paper_note": recipe.expect.paper_note,
        "notes": list(task.notes),
        "total_seconds": round(ledger.seconds(), 2),
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
            "device": device,
        },
    }


def _load_model(experiment, folder):
    weights, about = checkpoint.load_tensors(folder / MODEL)
    fit, _ = experiment.fit("ours", about["seed"])
    try:
        fit.model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"checkpoint: expected weights of the recipe beside it, got {error}") from None
    return fit.model, about


def evaluate_folder(folder, root=None, *, device="cpu"):
    """(recipe, task, {split: score in percent}, about) of the checkpoint that `train` left in a folder."""
    folder = Path(folder)
    if not (folder / RECIPE).is_file():
        raise DataError(f"eval: expected a folder with {RECIPE} and {MODEL}, got {folder}")
    recipe = read(str(folder / RECIPE))
    experiment = _Experiment(recipe, root, device)
    model, about = _load_model(experiment, folder)
    inputs = (experiment.structure, experiment.feat)
    task, metric = experiment.task, recipe.train.metric
    scores = {
        split: evaluate(model, inputs, task, metric, getattr(task, split))[0] for split in ("train", "val", "test")
    }
    return recipe, task, scores, about
