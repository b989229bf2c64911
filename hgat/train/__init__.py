"""Training: recipes, the loop, results, checkpoints. The only place where data and models meet."""

from hgat.renamed import old_names
from hgat.train.processes import Processes
from hgat.train.recipe import available, read
from hgat.train.run import Result, evaluate_folder, train
from hgat.train.seeds import Seeds

__all__ = [
    "Processes",
    "Result",
    "Seeds",
    "available",
    "evaluate_folder",
    "read",
    "train",
]

__getattr__ = old_names(globals(), {"Runs": "Seeds"})
