"""Training on data of one's own: `hgat.fit`, through the same loop, controls and files as a recipe."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hgat import models, tasks
from hgat.data import EventData, GraphData, NodeData, PairData, SignedData, StreamData, TripleData
from hgat.data.own import event_data, node_data
from hgat.data.saved import pack
from hgat.errors import RecipeError, brief, meant
from hgat.train.recipe import DATA, SAVED, UNIFORM, made
from hgat.train.run import Experiment, Result, trained

__all__ = ["fit"]

SETS = (EventData, GraphData, NodeData, PairData, SignedData, StreamData, TripleData)


def fit(
    graph: Any,
    label: Any = None,
    system: str = "rgat",
    *,
    task: str | None = None,
    metric: str | None = None,
    epochs: int = 200,
    lr: float = 0.005,
    controls: Sequence[str] | None = None,
    seeds: int = 1,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[dict[str, Any]], object] | None = None,
    name: str = "own",
    **data: Any,
) -> Result:
    """Train a system on a graph of your own, beside its controls; gives what `hgat.train.train` gives.

        found = hgat.fit(graph, "label", system="rgat")
        found.metrics["test"], found.model, found.task, found.predict([0, 7])

    graph, label: as hgat.data.node_data takes them, with its keywords feat, target, split, split_seed, draws and
    class_names; for the tasks snapshot_links and stream_links a graph with edata["time"] and no label, for links a
    graph and no label; or data of hgat.data, as `hgat.data.load` gives them. system: one of hgat.models.available().
    task: one of hgat.tasks.available(); by default numbers where labels are floats, nodes where there are any, else
    links. metric: the task's first by default. controls: their names, by default a perceptron without the graph, where
    the task has one, and uniform attention. settings: what else a recipe says, {"model.hidden": 16,
    "train.patience": 20}. seeds, out, device, resume, progress, callback: as hgat.train.train has them; out:
    runs/SYSTEM-NAME by default. The folder has the data, too: `hgat eval` reads it as any run's. resume: of the same
    data and settings.
    Raises the errors of hgat.errors, each one sentence.
    """
    if task not in (None, *tasks.available()):
        near = meant(task, tasks.available())
        raise RecipeError(f"task: expected one of {', '.join(tasks.available())}, got {task!r}{near}")
    if callback is not None and not callable(callback):
        raise RecipeError(f"callback: expected a function of a dict, got {brief(callback)}")
    found = _data(graph, label, task, name, data)
    asked = task or _usual(found, label is not None)
    known, content = tasks.find(asked), pack(found)
    if controls is None:
        controls = [control for control in ("no_graph",) if control in known.controls] + [UNIFORM]
    multilabel = getattr(found, "multilabel", False) and "micro_f1" in known.metrics
    sections = {
        "title": f"{models.find(system).__name__} on {found.name}",
        "data": {"name": SAVED, "path": DATA, "sha256": hashlib.sha256(content).hexdigest()},
        "task": {"name": asked},
        "model": {"system": system},
        "train": {
            "metric": metric or ("micro_f1" if multilabel else known.metrics[0]),
            "epochs": epochs,
            "lr": lr,
            "seeds": seeds,
            "controls": list(controls),
        },
    }
    recipe = made(f"{system}-{found.name}", sections, settings or {})
    experiment = Experiment(recipe, device=device, given=found)
    return trained(
        recipe, lambda: experiment, out=out, resume=resume, progress=progress, callback=callback, content=content
    )


def _data(graph, label, task, name, options):
    """The data that are given, or those that the graph and its labels make."""
    if isinstance(graph, SETS):
        if label is not None or options:
            got = "a label" if label is not None else next(iter(options))
            raise RecipeError(f"fit: expected data of hgat.data alone, which bring labels and split, got {got} beside")
        return graph
    kinds = (NodeData,) if task is None else _kinds(task)
    maker = node_data if NodeData in kinds else event_data
    taken = [key for key in inspect.signature(maker).parameters if key not in ("graph", "label", "name")]
    for key in options:
        if key not in taken:
            near = meant(key, [*taken, *inspect.signature(fit).parameters])
            raise RecipeError(f"fit: expected of data only the keywords {', '.join(taken)}, got {key!r}{near}")
    if NodeData in kinds:
        if label is None and task != "links" and task is not None:
            raise RecipeError(f"fit: expected labels for the task {task}, got none")
        return node_data(graph, label, name=name, **options)
    if EventData in kinds:
        return event_data(graph, name=name, **options)
    expected = " or ".join(kind.__name__ for kind in kinds)
    raise RecipeError(f"fit: expected data of the kind {expected} for the task {task}, got a graph")


def _kinds(task):
    kind = tasks.find(task).kind
    return kind if isinstance(kind, tuple) else (kind,)


def _usual(data, labelled):
    """The task that is asked where none is named; data without labels have one class, of all nodes."""
    if isinstance(data, NodeData):
        labelled = labelled or data.num_classes > 1 or bool(data.label.any())
        return "numbers" if data.numeric else "nodes" if labelled else "links"
    return next(task for task in tasks.available() if type(data) in _kinds(task))
