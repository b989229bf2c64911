"""Training: recipes, the loop, results, checkpoints. The only place where data and models meet."""

from hgat.train.processes import Processes
from hgat.train.recipe import available, read
from hgat.train.run import Result, evaluate_folder, train
from hgat.train.runs import Runs, attention, load_ogb, options

__all__ = [
    "Processes",
    "Result",
    "Runs",
    "attention",
    "available",
    "evaluate_folder",
    "load_ogb",
    "options",
    "read",
    "train",
]
