"""Training: recipes, the loop, metrics, checkpoints. The only place where data and models meet."""

from hgat.train.recipe import available, read
from hgat.train.run import Result, evaluate_folder, train

__all__ = ["Result", "available", "evaluate_folder", "read", "train"]
