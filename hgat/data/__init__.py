"""Data sets as frozen tasks: `load("cora")` reads the card, finds the files, calls the format's loader."""

import importlib
import inspect
import os
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from hgat.data import card as _card
from hgat.data.task import Task
from hgat.errors import DataError

__all__ = ["Task", "available", "load"]


def available():
    """The names of all data sets that `load` knows, sorted."""
    return _card.names()


def load(name, root=None, **options):
    """Load a data set by name.

    The files are looked for in `root/<name>`; `root` is the argument, else the environment variable
    HGAT_DATA, else `~/.cache/hgat`. Options are those of the format's loader, keyword-only arguments of
    `hgat.data.<format>.load`; all take `verify` (True): False accepts files with other checksums or counts
    than the card's. Returns a Task; raises DataError for an unknown name or option, a value of the wrong
    type, and every file that is missing, damaged or unsafe.
    """
    card = _card.read(name)
    loader = importlib.import_module(f"hgat.data.{card.format}").load
    _check_options(name, loader, options)
    root = Path(root or os.environ.get("HGAT_DATA") or "~/.cache/hgat").expanduser()
    task = loader(card, root / card.folder, **options)
    if options.get("verify", True):
        card.check(task, {key: value for key, value in options.items() if key != "verify"})
    return task


def _check_options(name, loader, options):
    """Raise DataError unless every option is a keyword-only argument of `loader` with a value that fits."""
    known = [p.name for p in inspect.signature(loader).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hints = get_type_hints(loader)
    for option, value in options.items():
        if option not in known:
            raise DataError(f"{name}: expected only the options {', '.join(known)}, got {option!r}")
        expected = hints[option]
        if get_origin(expected) is Literal:
            fits, text = value in get_args(expected), " or ".join(repr(c) for c in get_args(expected))
        else:
            # bool is a subclass of int, and `split_seed=True` is a mistake.
            fits, text = type(value) is expected, expected.__name__
        if not fits:
            raise DataError(f"{name}: option {option} of {', '.join(known)}: expected {text}, got {value!r}")
