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
__all__ = ["HgatError", "accelerate", "compat", "data", "graph", "models", "nn", "ops", "__version__"]

_PARTS = ("data", "graph", "models", "nn", "ops")


def __getattr__(name):
    """The parts that need DGL come with their first use, so that `hgat doctor` can say that DGL is missing."""
    from importlib import import_module

    if name in _PARTS:
        return import_module(f"hgat.{name}")
    if name == "accelerate":
        return import_module("hgat._accelerate").accelerate
    raise AttributeError(f"module 'hgat' has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
