"""Whole systems, one file each, found by file name.

A model file `<system>.py` exports one class in `__all__`, a System: hgat.models._system says what it promises. The
class is `hgat.models.<Class>` too, where its file has its name in small letters.
"""

import importlib
import pkgutil
from typing import Any

from hgat.errors import RecipeError, meant
from hgat.models._batches import layerwise
from hgat.models._system import Ablation, Batch, Facts, Past, Shares, System

__all__ = ["Ablation", "Batch", "Facts", "Past", "Shares", "System", "available", "find", "layerwise"]


def available() -> list[str]:
    """Names of the systems that have a model file."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(system: str) -> type[System]:
    """The model class of a system, by the name of its file. Raises RecipeError for an unknown system."""
    if system not in available():
        raise RecipeError(f"system: expected one of {available()}, got {system!r}{meant(system, available())}")
    module = importlib.import_module(f"hgat.models.{system}")
    (name,) = module.__all__
    return getattr(module, name)


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name.lower() in available() and name != name.lower():
        found = find(name.lower())
        if found.__name__ == name:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(system).__name__ for system in available())})
