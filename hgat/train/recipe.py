"""Recipes: what a reader needs to repeat a number, read from TOML into frozen dataclasses.

An unknown section or key, or a value of a wrong type, is a RecipeError that names it.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hgat import data, models, tasks
from hgat.errors import RecipeError, meant
from hgat.models import System
from hgat.renamed import warn
from hgat.settings import check_settings, tomllib
from hgat.tasks import Task

__all__ = ["Expect", "Paper", "Recipe", "Train", "available", "beside", "changed", "made", "read", "to_toml"]

FOLDER = Path(__file__).parent.parent / "recipes"
UNIFORM = "uniform"  # the control that every system has: its own model with every softmax replaced by a mean
SAVED, DATA = "saved", "data.safetensors"  # the form of data that lie beside a recipe, and what their file is called
LARGEST = 1e30  # PyTorch's optimisers stop with an error of their own where a step leaves float32


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where the number stands: `result` is table and row; `comment` names every departure of the recipe."""

    title: str
    authors: str
    year: int
    link: str
    result: str = ""
    code: str = ""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Train:
    """How a model is trained and which epoch counts.

    stop says when training ends and which epoch's weights are kept, always by validation:
    "metric": the best metric, ties to the lower loss; ends `patience` epochs after it.
    "loss": the lowest loss; ends `patience` epochs after it.
    "either": GAT's rule: ends `patience` epochs after the last best metric or lowest loss; keeps the last
    epoch that was both at once.
    "mean": the lowest loss; ends where a loss is above the mean of the `patience` losses before it.
    "last": all epochs, the last one.
    least: epochs before which no rule ends the training.
    refit: with the number of epochs so chosen, train afresh on training and validation nodes together, then
    test.
    """

    metric: str
    epochs: int
    lr: float
    weight_decay: float = 0.0
    optimizer: Literal["adam", "adamw"] = "adam"
    stop: Literal["metric", "loss", "either", "mean", "last"] = "metric"
    patience: int = 100
    least: int = 0
    clip: float | None = None
    refit: bool = False
    knn_share: float | None = None
    seeds: int = 1
    controls: list[str] = field(default_factory=list)
    control_hidden: int = 64


@dataclass(frozen=True, kw_only=True)
class Expect:
    """The numbers to compare with, in percent, each [mean] or [mean, std]; `controls` has one per control.

    paper_more: the paper's numbers for the other measures that a task reports, by their names in the table.
    """

    paper: list[float] = field(default_factory=list)
    paper_note: str = ""
    paper_more: dict[str, list[float]] = field(default_factory=dict)
    ours: list[float] = field(default_factory=list)
    controls: dict[str, list[float]] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True)
class Recipe:
    """A named experiment.

    paper: where a number stands that it repeats; None for an experiment of one's own. data: name and loader options.
    task: what is asked and how it is scored, a name among hgat.tasks, by default "nodes", and settings. model: system
    and settings. graph: settings of the system's `prepare`. tune: what `hgat tune` tries, by section and key: a list of
    values, or {low, high}, and log = true where its logarithm is drawn evenly.
    """

    name: str
    title: str
    paper: Paper | None
    data: dict
    task: dict
    graph: dict
    model: dict
    train: Train
    expect: Expect
    tune: dict = field(default_factory=dict)

    @property
    def system(self) -> str:
        return self.model["system"]

    @property
    def system_class(self) -> type[System]:
        return models.find(self.system)

    @property
    def task_class(self) -> type[Task]:
        return tasks.find(self.task["name"])

    def settings(self, section: str) -> dict:
        """A section without the key that names its subject."""
        subjects = {"data": "name", "model": "system", "task": "name"}
        return {key: value for key, value in getattr(self, section).items() if key != subjects.get(section)}

    def controls(self) -> dict[str, str]:
        """{name: title} of every control that the recipe may name: its task's, its system's, and uniform attention."""
        of_task = {name: control.title for name, control in self.task_class.controls.items()}
        own = {name: ablation.title for name, ablation in self.system_class.ablations.items()}
        return {**of_task, **own, UNIFORM: "uniform attention"}

    def title_of(self, variant: str) -> str:
        """What tables call a variant, "ours" or a control."""
        return "hgat" if variant == "ours" else self.controls()[variant]


def available() -> list[str]:
    """Names of the recipes that come with hgat."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name, or by the path of a TOML file, with `section.key=value` overrides applied.

    A key whose default is None is left out to say so; `section.key=` leaves out one that the file has.
    Raises RecipeError for an unknown recipe, a file that is not TOML, an unknown key or a wrong type.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in available():
            near = meant(name, available())
            known = ", ".join(available())
            raise RecipeError(f"recipe: expected one of {known} or a .toml file, got {str(name)!r}{near}")
        path = FOLDER / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe: expected a readable file, got {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, thousands of digits or of brackets
        raise RecipeError(f"recipe: expected TOML in {path}, got {error}") from None
    content = _now(content)
    data = content.get("data")
    named = _subject(data)
    for override in overrides:
        _apply(content, override)
    if isinstance(data, dict) and data.get("name") == SAVED and isinstance(data.get("path"), str):
        data["path"] = str((path.parent / Path(data["path"]).expanduser()).resolve())
    if _subject(data) != named:
        # What was expected on other data, or on other splits, says nothing of these.
        of = "other splits" if named[0] == data.get("name") else named[0]
        content["expect"] = {"paper_note": f"left out: those of the recipe are of {of}"}
    return _build(path.stem, content)


def made(name: str, content: dict[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """A recipe without a file: its sections, and settings {"section.key": value}. Raises RecipeError as `read`."""
    for key, value in settings.items():
        parts = [part.strip() for part in key.split(".")]
        if len(parts) < 2 or not all(parts):
            raise RecipeError(f"settings: expected keys section.key, got {key!r}")
        _put(content, "settings", key, parts, value)
    return _build(name, content)


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings, {"section.key": value}. Raises RecipeError where they do not fit."""
    content = {key: value for key, value in dataclasses.asdict(recipe).items() if value is not None and key != "name"}
    return made(recipe.name, content, settings)


def beside(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as it is written into `folder`: saved data that lie there, too, are named without the way to them."""
    path = recipe.data.get("path")
    if recipe.data["name"] != SAVED or not path or Path(path).parent != folder.resolve():
        return recipe
    return dataclasses.replace(recipe, data={**recipe.data, "path": Path(path).name})


def _subject(data):
    """What the numbers of a recipe are of: the name of its data, and whether splits are drawn."""
    if not isinstance(data, dict):
        return None
    split = data.get("split")
    return data.get("name"), split if isinstance(split, str) else None


def _apply(content, override):
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise RecipeError(f"--set: expected section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()  # a bare word is a string
    parts = _section_now(content, parts)
    table, there = _put(content, "--set", key, parts, value)
    if there and not text.strip():
        del table[parts[-1]]


def _put(content, where, key, parts, value):
    """Write a value at its place; gives (the table that it is in now, whether the key was there before)."""
    table = content
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{where}: expected a section in {key!r}, got the key {part!r}")
    there = parts[-1] in table
    table[parts[-1]] = value
    return table, there


# What stood in another section before a task said what is asked: {task: keys of [graph] that are keys of [task] now}.
MOVED = {"snapshot_links": ("boundaries", "windows", "width", "events", "column")}


def _now(content):
    """The content with sections and keys where they stand now; each that is moved warns."""
    earlier = "protocol" in content
    if earlier:
        warn("[protocol] of a recipe", "[task]", stacklevel=5)
        if not isinstance(content["protocol"], dict):
            raise RecipeError(f"recipe: protocol: expected a section [task], got {content['protocol']!r}")
        if "task" in content:
            raise RecipeError("recipe: expected one section [task], got [protocol] beside it")
        content["task"] = content.pop("protocol")
    task, graph = content.get("task"), content.get("graph")
    if isinstance(graph, dict):
        for key in _moved(task):
            if key in graph:
                warn(f"graph.{key} of a recipe on {task['name']}", f"task.{key}", stacklevel=5)
                task[key] = graph.pop(key)
        if earlier and _moved(task) and "both_ways" in graph:
            # It said of the links that are asked for, too, whether they have a direction.
            task["both_ways"] = graph["both_ways"]
    return content


def _moved(task):
    """The keys of [graph] that are the task's now."""
    name = task.get("name") if isinstance(task, dict) else None
    return MOVED.get(name, ()) if isinstance(name, str) else ()


def _section_now(content, parts):
    """Where a key of `--set` stands now."""
    if parts[0] == "protocol":
        warn(f"protocol.{parts[1]}", f"task.{parts[1]}", stacklevel=6)
        return ["task", *parts[1:]]
    task = content.get("task")
    if parts[0] == "graph" and parts[1] in _moved(task):
        warn(f"graph.{parts[1]} of a recipe on {task['name']}", f"task.{parts[1]}", stacklevel=6)
        return ["task", *parts[1:]]
    return parts


def _build(name, content):
    sections = [f.name for f in dataclasses.fields(Recipe) if f.name != "name"]
    for key, value in content.items():
        if key not in sections:
            raise RecipeError(
                f"recipe: expected only the sections {', '.join(sections)}, got {key!r}{meant(key, sections)}"
            )
        kind, readable = (str, "a string") if key == "title" else (dict, f"a section [{key}]")
        if not isinstance(value, kind):
            raise RecipeError(f"recipe: {key}: expected {readable}, got {value!r}")
    for key, cls in (("paper", Paper), ("train", Train), ("expect", Expect)):
        if key == "paper" and key not in content:
            content[key] = None
            continue
        check_settings(key, cls, content.setdefault(key, {}), RecipeError)
        content[key] = cls(**content[key])
    for key in ("data", "task", "graph", "model", "tune"):
        content.setdefault(key, {})
    content["task"] = {"name": "nodes", **content["task"]}
    recipe = Recipe(name=name, **{"title": name, **content})
    _check(recipe)
    return recipe


def _check(recipe):
    for section, (subject, known) in {
        "data": ("name", [*data.available(), *data.forms()]),
        "model": ("system", models.available()),
    }.items():
        got = getattr(recipe, section).get(subject)
        if got not in known:
            raise RecipeError(
                f"{section}.{subject}: expected one of {', '.join(known)}, got {got!r}{meant(got, known)}"
            )
    system, task, train = recipe.system_class, recipe.task_class, recipe.train
    if recipe.task["name"] not in system.solves:
        raise RecipeError(f"task.name: expected {' or '.join(system.solves)} for {recipe.system}, got {task.name()!r}")
    check_settings("task", task, recipe.settings("task"), RecipeError)
    check_settings("graph", system.prepare, recipe.graph, RecipeError)
    check_settings("model", system, recipe.settings("model"), RecipeError)
    if train.metric not in task.metrics:
        near = meant(train.metric, task.metrics)
        raise RecipeError(f"train.metric: expected one of {', '.join(task.metrics)}, got {train.metric!r}{near}")
    for key in ("epochs", "patience", "seeds", "control_hidden"):
        if getattr(train, key) < 1:
            raise RecipeError(f"train.{key}: expected 1 or more, got {getattr(train, key)}")
    for key in ("lr", "clip"):
        if getattr(train, key) is not None and not 0 < getattr(train, key) <= LARGEST:
            raise RecipeError(f"train.{key}: expected a number above 0, at most {LARGEST}, got {getattr(train, key)}")
    if not 0 <= train.weight_decay <= LARGEST:
        raise RecipeError(f"train.weight_decay: expected a number from 0 to {LARGEST}, got {train.weight_decay}")
    if not 0 <= train.least <= train.epochs:
        raise RecipeError(f"train.least: expected a number from 0 to {train.epochs}, got {train.least}")
    _check_knn(recipe)
    _check_tune(recipe)
    taken = sorted({*task.controls, UNIFORM} & set(system.ablations))
    if taken:  # what a recipe names would be one of the two, and be called the other
        raise RecipeError(f"ablations: expected names of {recipe.system}'s own, got {', '.join(taken)}, of all systems")
    for name in train.controls:
        if train.controls.count(name) > 1:
            raise RecipeError(
                f"train.controls: expected each name once, got {name!r} {train.controls.count(name)} times"
            )
    for control in [*train.controls, *recipe.expect.controls]:
        if control not in recipe.controls():
            expected = sorted(recipe.controls())
            raise RecipeError(
                f"train.controls: expected names among {expected}, got {control!r}{meant(control, expected)}"
            )


TUNED = ("graph", "model", "task", "train")
# Settings that say what is asked, of which data and how it is scored, or what the controls are: no two trials with
# different ones could be compared.
ASKED = {
    "train": {"metric", "seeds", "controls", "control_hidden", "knn_share"},
    "task": {"name", "kernel", "val_share", "test_share", "directed"}
    | {"add_edges", "remove_edges", "flip_features", "attack_seed", "gold", "gold_seed", "new_nodes", "new_nodes_seed"}
    | {"boundaries", "windows", "width", "events", "column", "both_ways", "first_target", "self_links", "ahead"}
    | {"unseen_nodes"},
}


def _check_tune(recipe):
    for section, keys in recipe.tune.items():
        if section not in TUNED or not isinstance(keys, dict):
            raise RecipeError(
                f"tune: expected ranges of {', '.join(TUNED)}, as in train.lr = [0.01, 0.1], got {section!r}"
            )
        for key, found in keys.items():
            if key in ASKED.get(section, ()):
                expected = "settings of the model and of how it is trained"
                raise RecipeError(f"tune: expected {expected}, got '{section}.{key}', which says what is compared")
            if isinstance(found, list) and found:
                continue
            bounds = [found.get(end) for end in ("low", "high")] if isinstance(found, dict) else [None]
            known = (
                isinstance(found, dict)
                and set(found) <= {"low", "high", "log"}
                and type(found.get("log", True)) is bool
            )
            numbers = all(type(end) in (int, float) and abs(end) <= LARGEST for end in bounds)
            if not known or not numbers or bounds[0] >= bounds[1] or found.get("log") and bounds[0] <= 0:
                expected = "a list of values, or low below high, above 0 with log = true"
                raise RecipeError(f"tune.{section}.{key}: expected {expected}, got {found!r}")
    for settings in corners(recipe):
        try:
            changed(dataclasses.replace(recipe, tune={}), settings)
        except RecipeError as error:
            raise RecipeError(f"tune.{error}") from None


def corners(recipe: Recipe) -> list[dict[str, Any]]:
    """Settings that a trial may have: every value of a list and both ends of a range, with the first of all others."""
    values = {
        f"{section}.{key}": found if isinstance(found, list) else [found["low"], found["high"]]
        for section, keys in recipe.tune.items()
        for key, found in keys.items()
    }
    first = {key: found[0] for key, found in values.items()}
    return [{**first, key: value} for key, found in values.items() for value in found]


def _check_knn(recipe):
    system, task, share = recipe.system_class, recipe.task_class, recipe.train.knn_share
    if share is None:
        return
    if not 0 < share < 1:
        raise RecipeError(f"train.knn_share: expected a number between 0 and 1, got {share}")
    if not hasattr(system, "embed") or "knn_share" not in inspect.signature(task.results).parameters:
        got = f"{share} with {recipe.system} on {task.name()}"
        raise RecipeError(f"train.knn_share: expected it of a system that embeds nodes to classify, got {got}")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML text that `read` reads back."""
    content = dataclasses.asdict(recipe)
    content.pop("name")
    lines = [f"title = {_value(content.pop('title'))}"]
    for section, values in content.items():
        if values is None or section == "tune" and not values:
            continue
        lines += ["", f"[{section}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _key(key):
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    # JSON's strings, numbers and booleans are TOML's too, but for one character that only TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
