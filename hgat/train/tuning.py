"""Settings chosen on validation: Optuna over the ranges of a recipe's [tune]."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgat.errors import RecipeError, TrainingError
from hgat.train import checkpoint
from hgat.train.recipe import Expect, Recipe, beside, changed, corners, read, to_toml
from hgat.train.run import RECIPE, Experiment

__all__ = ["Tuned", "tune"]

TRIALS = "trials.csv"


@dataclass(frozen=True)
class Tuned:
    """What `tune` gives: the recipe with the best settings, their validation score in percent, all trials, the folder.

    trials: [(score or None of one that diverged, {"section.key": value})], in their order.
    """

    recipe: Recipe
    value: float
    trials: list[tuple[float | None, dict[str, Any]]]
    out: Path


def tune(
    name: str | Path,
    root: str | Path | None = None,
    *,
    trials: int = 20,
    seeds: int = 1,
    out: str | Path | None = None,
    device: str = "cpu",
    overrides: Sequence[str] = (),
    tell: Callable[[int, float | None, dict[str, Any]], object] | None = None,
) -> Tuned:
    """Try settings among the ranges of a recipe's [tune], and keep those whose mean validation score is the best.

    The score of a trial is the mean over `seeds` of the chosen epoch's on validation; controls are not trained, and no
    test score is looked at. name, root, device, overrides: see hgat.train.train. trials: how many, by Optuna's
    tree-structured Parzen estimator with a fixed seed. tell: called behind each with its number, score and settings.
    out: a folder, by default runs/RECIPE-tuned, for `trials.csv`, written behind each trial, and `recipe.toml`, which
    `hgat train` then trains.
    Raises RecipeError for a recipe without [tune] and without the package optuna, TrainingError where all diverge.
    """
    recipe = read(name, overrides)
    if not corners(recipe):
        raise RecipeError(f"tune: expected ranges in the section [tune] of {recipe.name}, got none")
    for what, count in (("trials", trials), ("seeds", seeds)):
        if count < 1:
            raise RecipeError(f"--{what}: expected 1 or more, got {count}")
    optuna = _optuna()
    out = checkpoint.make_folder(out or Path("runs") / f"{recipe.name}-tuned")
    data = Experiment(recipe, root, device).data
    _check_models(recipe, data, device)
    ranges = {f"{section}.{key}": found for section, keys in recipe.tune.items() for key, found in keys.items()}
    done: list[tuple[float | None, dict[str, Any]]] = []

    def objective(trial):
        settings = {key: _suggested(trial, key, found) for key, found in ranges.items()}
        try:
            value = _score(Experiment(changed(recipe, settings), device=device, given=data), seeds)
        except TrainingError:  # a rate that is too large, say
            value = None
        done.append((value, settings))
        checkpoint.write_text(out / TRIALS, _table(list(ranges), done))  # behind each: the next may stop all
        if tell is not None:
            tell(trial.number, value, settings)
        if value is None:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    found = [(value, settings) for value, settings in done if value is not None]
    if not found:
        raise TrainingError(f"tune: expected a trial with a finite loss, got none of {trials}")
    value, settings = max(found, key=lambda pair: pair[0])
    # What was measured with other settings says nothing of these.
    expect = dataclasses.replace(Expect(), paper=recipe.expect.paper, paper_note=recipe.expect.paper_note)
    best = dataclasses.replace(changed(recipe, settings), expect=expect)
    checkpoint.write_text(out / RECIPE, to_toml(beside(best, out)))
    return Tuned(best, value, done, out)


def _optuna():
    try:
        import optuna
    except ImportError:
        raise RecipeError('tune: expected the package optuna, got none; pip install "hgat[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # below it stands the traceback of an error that we say
    return optuna


def _check_models(recipe, data, device):
    """Raise the error of a value that no model can be built with, before any is trained."""
    first, *others = corners(recipe)
    experiment = Experiment(changed(recipe, first), device=device, given=data)
    task = experiment.task.for_seed(0).rounds()[0]
    models = [one for one in others if any(one[key] != first[key] for key in one if key.startswith("model."))]
    for settings in [first, *models]:
        experiment.recipe = changed(recipe, settings)
        experiment.model(task, experiment.inputs(task)["train"])


def _suggested(trial: Any, key: str, found: Any) -> Any:
    """A value of a range: one of a list, or between low and high, whole where both are."""
    if not isinstance(found, Mapping):
        return found[trial.suggest_categorical(key, list(range(len(found))))]  # a value may be a list, which is no key
    whole = type(found["low"]) is int and type(found["high"]) is int
    return (trial.suggest_int if whole else trial.suggest_float)(
        key, found["low"], found["high"], log=found.get("log", False)
    )


def _score(experiment, seeds):
    """The mean validation score of the chosen epochs."""
    values = []
    for seed in range(seeds):
        training = experiment.training("ours", seed)
        while training.step():
            pass
        values.append(training.finish()["val"])
    return statistics.fmean(values)


def _table(keys, done):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "val", *keys])
    for number, (value, settings) in enumerate(done):
        writer.writerow([number, "" if value is None else value, *(settings[key] for key in keys)])
    return text.getvalue()
