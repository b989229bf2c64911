"""hgat's edge_softmax in the place of DGL's, for programs that write their attention on it themselves."""

import importlib
import sys
from types import ModuleType
from typing import Literal

import dgl
import torch
from dgl.base import ALL

from hgat import ops

__all__ = ["edge_softmax", "give_back", "replace"]

# Not `from dgl.ops import edge_softmax`: that name is the function, and the module of the same name is hidden by it.
DGLS = importlib.import_module("dgl.ops.edge_softmax").edge_softmax


def edge_softmax(
    graph: dgl.DGLGraph,
    logits: torch.Tensor | dict[str | tuple[str, str, str], torch.Tensor],
    eids: torch.Tensor | str = ALL,
    norm_by: Literal["dst", "src"] = "dst",
) -> torch.Tensor | dict[tuple[str, str, str], torch.Tensor]:
    """DGL's `dgl.ops.edge_softmax`, run by `hgat.ops.edge_softmax`."""
    return ops.edge_softmax(graph, logits, eids=eids, norm_by=norm_by)


def replace() -> list[str]:
    """Put hgat's function wherever a loaded module has DGL's; gives the names, as in "dgl.ops.edge_softmax"."""
    return _exchange(DGLS, edge_softmax)


def give_back() -> list[str]:
    """Put DGL's function wherever a loaded module has hgat's by `replace`, or by an import since; gives the names."""
    return _exchange(edge_softmax, DGLS)


def _exchange(old, new):
    """Replace the object `old` in the namespaces of all modules but hgat's, whose reference backend calls DGL's."""
    names = []
    for place, module in sorted(sys.modules.copy().items(), key=lambda pair: pair[0]):
        if place.partition(".")[0] == "hgat" or not isinstance(module, ModuleType):
            continue
        namespace = vars(module)  # not getattr, which a module that loads its parts late answers by loading them
        for name in [name for name, value in namespace.copy().items() if value is old]:
            namespace[name] = new
            names.append(f"{place}.{name}")
    return names
