"""Layers, one mechanism per file, with DGL's habits.

Every public name of dgl.nn that is not a layer of hgat's is DGL's own (HeteroGraphConv, GraphConv, Sequential, ...), so
that a program may say `import hgat.nn as dglnn`.
"""

import pkgutil
from importlib import import_module

import dgl.nn

from hgat.nn import functional  # noqa: F401
from hgat.nn.agnn import AGNNConv
from hgat.nn.dotgat import DotGatConv
from hgat.nn.edgegat import EdgeGATConv
from hgat.nn.egat import EGATConv
from hgat.nn.fusion import Fusion, SemanticAttention
from hgat.nn.gat import GATConv
from hgat.nn.gatv2 import GATv2Conv
from hgat.nn.general import GeneralAttention
from hgat.nn.generalconv import GeneralAttentionConv
from hgat.nn.han import HANConv
from hgat.nn.hgt import HGTConv
from hgat.nn.readout import GlobalAttentionPooling, Set2Set
from hgat.nn.rgat import FeaturelessRGATConv, RGATConv
from hgat.nn.snapshotgat import SnapshotGATConv
from hgat.nn.temporal import TemporalAttention
from hgat.nn.tgat import TGATConv, TimeEncoding
from hgat.nn.viewgat import ViewGATConv
from hgat.ops import edge_softmax  # noqa: F401  (in the place of DGL's; no layer)

__all__ = [
    "AGNNConv",
    "DotGatConv",
    "EGATConv",
    "EdgeGATConv",
    "FeaturelessRGATConv",
    "Fusion",
    "GATConv",
    "GATv2Conv",
    "GeneralAttention",
    "GeneralAttentionConv",
    "GlobalAttentionPooling",
    "HANConv",
    "HGTConv",
    "RGATConv",
    "SemanticAttention",
    "Set2Set",
    "SnapshotGATConv",
    "TGATConv",
    "TemporalAttention",
    "TimeEncoding",
    "ViewGATConv",
]


def _of_dgl(name):
    """Whether a name of dgl.nn is a part of DGL, and not something that its files import."""
    value = getattr(dgl.nn, name, None)
    home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return not name.startswith("_") and str(home).partition(".")[0] == "dgl"


def _layers():
    """{name: class} of every layer that a file of this package exports: a new one needs no line here."""
    found = {}
    for file in pkgutil.iter_modules(__path__):
        if file.name not in ("common", "functional", "names"):
            module = import_module(f"{__name__}.{file.name}")
            every = {name: getattr(module, name) for name in module.__all__}
            found |= {name: thing for name, thing in every.items() if isinstance(thing, type)}
    return found


def __getattr__(name):
    layer = None if name.startswith("_") else _layers().get(name)
    if layer is not None:
        return layer
    if _of_dgl(name):
        return getattr(dgl.nn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_layers(), *filter(_of_dgl, dir(dgl.nn))})
