"""`hgat explain RUN --doubt`: the battery on the model of a run, printed, as a table and as a picture."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hgat.errors import HgatError
from hgat.explain.doubt.battery import TESTS, battery
from hgat.explain.doubt.outcome import draw_curves
from hgat.explain.doubt.subject import Subject
from hgat.explain.gold import gold_pairs
from hgat.explain.origins import Origins
from hgat.files import write_bytes

__all__ = ["check", "doubt_run", "run"]

FOLDER = "explain"  # inside the run's
NODES = 1000  # that are asked


def check(arguments: argparse.Namespace) -> None:
    """Raises HgatError for options of --doubt without it, and for options that it does not have."""
    given = [name for name in ("node", "html") if getattr(arguments, name) is not None]
    if arguments.doubt and given:
        raise HgatError(f"--doubt: expected no --{given[0]} beside it, got one")
    given = [name for name in ("nodes", "tests", "retrain") if getattr(arguments, name) not in (None, False)]
    if given and not arguments.doubt:
        raise HgatError(f"--{given[0]}: expected --doubt beside it, got none")


def run(arguments: argparse.Namespace) -> None:
    """Print what the battery finds of a run and write its numbers and its curves."""
    from hgat.train.checkpoint import make_folder
    from hgat.train.run import open_folder

    found = open_folder(arguments.folder, arguments.root, device=arguments.device)
    options = {name: getattr(arguments, name) for name in ("seed", "retrain")}
    options |= {"tests": arguments.tests or TESTS, "nodes": NODES if arguments.nodes is None else arguments.nodes}
    told = doubt_run(found, Path(arguments.folder), **options)
    out = Path(arguments.out or Path(arguments.folder) / FOLDER)
    make_folder(out)
    print(told)
    write_bytes(out / "doubt.csv", told.to_frame().to_csv(index=False).encode())
    files = [out / "doubt.csv"]
    if told.curve is not None:
        files.append(out / f"doubt.{'svg' if arguments.svg else 'png'}")
        draw_curves(told.curve, files[-1], found.recipe.title)
    print("\n" + "\n".join(str(path) for path in files))


def doubt_run(
    found: Any, folder: Path, *, nodes: int = NODES, seed: int = 0, retrain: bool = False, tests: Sequence[str] = TESTS
) -> Any:
    """`battery` on what `hgat.train.open_folder` gives, with all that its folder has.

    nodes: how many of the test nodes, or of all nodes where links are asked for. retrain: train another seed, and one
    with uniform attention where the folder has no such control, by the run's own recipe. tests: names out of TESTS.
    Raises HgatError for a task whose answers are not rows of nodes.
    """
    task, inputs, metric = found.task.rounds()[-1], found.inputs["test"], found.recipe.train.metric
    kind, among = _asked(task)
    shown = task.shown()
    target = shown.target or (shown.graph.ntypes[0] if len(shown.graph.ntypes) == 1 else None)

    def score(model: nn.Module) -> float:
        return float(task.evaluate(model, inputs, "test", metric)[0])

    first = Subject(found.model, inputs, 1, kind=kind, target=target)  # refused before anything is trained
    scores, others = _of_controls(folder), []
    if retrain:
        own = int(found.about["seed"])
        others.append(_trained(found, "ours", own + 1))
        if scores is None:
            even = _trained(found, "uniform", own)
            with found.experiment.context("uniform"):
                scores = [score(found.model)], [score(even)]
    return battery(
        found.model,
        inputs,
        kind=kind,
        nodes=_drawn(first, among, nodes, seed),
        seed=seed,
        score=score,
        scores=scores,
        others=others,
        gold=_gold(task.data, found.recipe.graph.get("paths", {}), first.origin),
        target=target,
        tests=tests,
        title=f"{found.recipe.title}, seed {found.about['seed']}: should its attention be believed?",
    )


def _asked(task: Any) -> tuple[str, Tensor | None]:
    """(kind of the answer, the nodes that it is scored on or None for all)."""
    if task.name() == "nodes":
        return "labels" if task.data.multilabel else "classes", task.data.test
    if task.name() == "snapshot_links":
        return "rows", None
    raise HgatError(f"doubt: expected a run whose task is nodes or snapshot_links, got {task.name()}")


def _gold(data: Any, paths: Mapping[str, Sequence], of: Origins) -> Any:
    """What is known to decide of the edges that are attended to, those of relations or of meta-paths, or None."""
    gold = getattr(data, "gold", None)
    if gold is None:
        return None
    if not isinstance(gold, Mapping):
        gold = {data.graph.canonical_etypes[0]: gold}
    if {*gold} <= {*of.relations}:
        return gold
    if {name for _, name, _ in of.relations} <= {*paths}:
        edges = [of.relation == number for number in range(len(of.relations))]
        return {
            etype: gold_pairs(data.graph, gold, paths[etype[1]], of.src[here], of.dst[here])
            for etype, here in zip(of.relations, edges, strict=True)
        }
    return None


def _drawn(subject: Subject, among: Tensor | None, count: int, seed: int) -> Tensor:
    """`count` nodes that have in-edges to choose from, of those that the task is scored on."""
    able = subject.wide.cpu()
    if among is not None:
        able = able & torch.zeros_like(able).index_fill(0, among.cpu(), True)
    found = able.nonzero().flatten()
    if count < 1 or not len(found):
        raise HgatError(f"nodes: expected 1 or more, of {len(found)} with in-edges to choose from, got {count}")
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:count]].sort().values


def _of_controls(folder: Path) -> tuple[list[float], list[float]] | None:
    """Test scores with attention and with uniform attention of a run that has that control."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics["test"]["values"], metrics["controls"]["uniform"]["test"]["values"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trained(found: Any, variant: str, seed: int) -> nn.Module:
    """The model of a variant and a seed, trained as the run's recipe says; of several rounds the last."""
    experiment = found.experiment
    epochs = None
    while True:
        with experiment.context(variant):
            training = experiment.training(variant, seed, epochs, first=-1)
            with tqdm(desc=f"{variant}, seed {seed}", unit="epoch", disable=None, leave=False) as bar:
                while training.step():
                    bar.update()
            result = training.finish()
        if epochs is not None or not found.recipe.train.refit:
            return training.model
        epochs = [*result.get("stages", ()), result["best_epoch"]]
