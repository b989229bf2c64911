"""Data sets as frozen tasks: `load("cora")` reads the card, finds the files, calls the format's loader."""

import importlib
import os
from pathlib import Path
from typing import Any

from hgat.data import card as _card
from hgat.data.memmap import mapped
from hgat.data.own import event_data, node_data
from hgat.data.saved import save
from hgat.data.sets import EventData, GraphData, NodeData, PairData, SignedData, StreamData, TripleData
from hgat.errors import DataError
from hgat.renamed import old_names
from hgat.settings import check_settings

__all__ = [
    "EventData",
    "GraphData",
    "NodeData",
    "PairData",
    "SignedData",
    "StreamData",
    "TripleData",
    "available",
    "event_data",
    "forms",
    "load",
    "mapped",
    "node_data",
    "save",
]


def available() -> list[str]:
    """The names of all data sets that `load` knows, sorted."""
    return _card.names()


def forms() -> list[str]:
    """The formats of which `load` reads any folder or file, by the option `path`, sorted."""
    return sorted(_card.FORMS)


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> Any:
    """Load a data set by name, or any folder or file of a form (`forms`) by the form's name and `path`.

    The files are looked for in `root/<name>`; `root` is the argument, else the environment variable HGAT_DATA, else
    `~/.cache/hgat`. Options are those of the format's loader, keyword-only arguments of `hgat.data.<format>.load`; all
    take `verify` (True): False accepts files with other checksums or counts than the card's.
    Returns NodeData, GraphData, EventData, StreamData, PairData, SignedData or TripleData, by the data set; raises
    DataError for an unknown name or option, a value of the wrong type, and every file that is missing, damaged or
    unsafe.
    """
    # The type of the result is left open: a checker that reads no names would ask every caller to tell the two apart.
    card = _card.read(name)
    loader = importlib.import_module(f"hgat.data.{card.format}").load
    check_settings(name, loader, options, DataError)
    own = options.get("path") is not None
    if name in forms() and not own:
        raise DataError(f"{name}.path: expected {_card.FORMS[name]}, got no such key")
    home = Path(root or os.environ.get("HGAT_DATA") or "~/.cache/hgat").expanduser()
    task = loader(card, home / card.folder, **options)
    if options.get("verify", True) and task.name == card.name and not own:
        card.check(task, {key: value for key, value in options.items() if key != "verify"})
    return task


__getattr__ = old_names(globals(), {"Task": "NodeData", "EventTask": "EventData"})
