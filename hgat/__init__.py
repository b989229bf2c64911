"""Attention on typed and changing graphs, for DGL and PyTorch.

Importing hgat first makes `import dgl` and `import ogb` work on today's PyTorch (see hgat.compat). The operators
`torch.ops.hgat.*` are registered by `import hgat.ops`.
"""

from typing import TYPE_CHECKING

from hgat import compat

compat.install()

from hgat.errors import HgatError  # noqa: E402

if TYPE_CHECKING:
    from hgat import data, graph, models, nn, ops
    from hgat._accelerate import accelerate

__version__ = "0.1.0"
_PARTS = ("data", "explain", "graph", "models", "nn", "ops", "tasks", "train")
_FROM = {"accelerate": "_accelerate", "fit": "train.own"}  # functions of a part that are the package's own, too
__all__ = [
    "HgatError",
    "accelerate",
    "compat",
    "data",
    "explain",
    "fit",
    "graph",
    "models",
    "nn",
    "ops",
    "tasks",
    "train",
    "__version__",
]


def __getattr__(name):
    """The parts that need DGL come with their first use, so that `hgat doctor` can say that DGL is missing."""
    from importlib import import_module

    if name in _PARTS:
        return import_module(f"hgat.{name}")
    if name in _FROM:
        return getattr(import_module(f"hgat.{_FROM[name]}"), name)
    raise AttributeError(f"module 'hgat' has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
