"""Training: recipes, the loop, results, checkpoints. The only place where data and models meet."""

from importlib import import_module
from typing import Any

from hgat.renamed import warn
from hgat.train.processes import Processes
from hgat.train.recipe import available, read
from hgat.train.run import Opened, Result, evaluate_folder, open_folder, train
from hgat.train.seeds import Seeds
from hgat.train.tuning import Tuned, tune

__all__ = [
    "Opened",
    "Processes",
    "Result",
    "Seeds",
    "Tuned",
    "available",
    "evaluate_folder",
    "open_folder",
    "read",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "Runs":
        warn("hgat.train.Runs", "hgat.train.Seeds")
        return Seeds
    if name in ("attention", "load_ogb", "options"):  # each warns when it is called
        return getattr(import_module("hgat.train.earlier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
