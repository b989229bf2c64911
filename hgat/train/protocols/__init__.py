"""What is learned and how it is scored, one file each, found by file name.

A protocol file `<name>.py` exports `Experiment`, one recipe on its data. Its keyword-only arguments are the keys of a
recipe's [protocol]; `metrics` and `controls` are the names that a recipe may use; `task`, `inputs` and `unit`, what is
counted, are for reports; `model()` gives fresh weights, `fit(variant, seed, refit_epochs)` a training in the manner of
hgat.train.loop.Fit and a context to run it in; `scores(model, seed)` is the score of a trained model on every part and
on how many examples, and `scored` says what score that is.
"""

import importlib
import pkgutil

from hgat.errors import RecipeError

__all__ = ["available", "find"]


def available():
    """Names of the protocols."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name):
    """The Experiment of a protocol, by the name of its file. Raises RecipeError for an unknown one."""
    if name not in available():
        raise RecipeError(f"protocol.name: expected one of {', '.join(available())}, got {name!r}")
    return importlib.import_module(f"hgat.train.protocols.{name}").Experiment
