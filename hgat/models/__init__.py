"""Whole systems, one file each, found by file name.

A model file `<system>.py` exports one class in `__all__`. The class has a class method
`for_graph(graph, feat, num_outputs, **settings)`, whose keyword arguments are the keys of a recipe's [model], an
attribute `graph_kind`, the module of hgat.graph that prepares its structure, and
`forward(graph, feat) -> [N, num_outputs]` with one row per node of the predicted type. A model that is made of layers
has `layers`, `start` and `step`, by which it runs on blocks and in `layerwise`.
"""

import importlib
import pkgutil

from hgat.errors import RecipeError
from hgat.models._batches import layerwise

__all__ = ["available", "find", "layerwise"]


def available():
    """Names of the systems that have a model file."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(system):
    """The model class of a system, by the name of its file. Raises RecipeError for an unknown system."""
    if system not in available():
        raise RecipeError(f"system: expected one of {available()}, got {system!r}")
    module = importlib.import_module(f"hgat.models.{system}")
    (name,) = module.__all__
    return getattr(module, name)
