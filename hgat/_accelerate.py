"""hgat's attention layers in a model that was built from DGL's."""

from dataclasses import dataclass
from typing import Any

import torch
from dgl import nn as dglnn
from dgl.nn.pytorch import glob
from dgl.nn.pytorch.utils import Identity
from torch.nn.utils import parametrize

from hgat import _edge_softmax, nn
from hgat.errors import HgatError
from hgat.nn.common import projections

__all__ = ["Acceleration", "accelerate"]

LAYERS: dict[Any, type[torch.nn.Module]] = {
    dglnn.GATConv: nn.GATConv,
    dglnn.GATv2Conv: nn.GATv2Conv,
    dglnn.EdgeGATConv: nn.EdgeGATConv,
    dglnn.DotGatConv: nn.DotGatConv,
    dglnn.HGTConv: nn.HGTConv,
    dglnn.EGATConv: nn.EGATConv,
    dglnn.AGNNConv: nn.AGNNConv,
}
# DGL's other attention: what it attends to, which is not the in-edges of a node that hgat's operators serve.
OF_NODES = "attention between all nodes of a graph"
POOLING = "attention that pools the nodes of a graph"
OTHERS: dict[Any, str] = {
    dglnn.BiasedMHA: OF_NODES,
    dglnn.EGTLayer: OF_NODES,
    dglnn.GraphormerLayer: OF_NODES,
    glob.MultiHeadAttention: OF_NODES,
    dglnn.SetTransformerEncoder: OF_NODES,
    dglnn.SetTransformerDecoder: POOLING,
    dglnn.GlobalAttentionPooling: POOLING,
    dglnn.Set2Set: POOLING,
    dglnn.TWIRLSConv: "attention inside an unfolded optimisation",
    dglnn.TWIRLSUnfoldingAndAttention: "attention inside an unfolded optimisation",
    dglnn.CuGraphGATConv: "attention of another library's",
}
# What DGL's layers are made of. A part of another type may compute something that hgat's forward does not call.
PARTS = {
    Identity,
    dglnn.TypedLinear,
    torch.nn.Dropout,
    torch.nn.Identity,
    torch.nn.LayerNorm,
    torch.nn.LeakyReLU,
    torch.nn.Linear,
    torch.nn.ModuleList,
    torch.nn.ParameterList,
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What every class statement writes, and a constructor, whose work is done.
UNREAD = {
    "__annotations__", "__dict__", "__doc__", "__firstlineno__", "__init__", "__module__", "__qualname__",
    "__static_attributes__", "__weakref__",
}  # fmt: skip


class _NoModel:
    """What stands for a model that was not given: None may be a mistake."""

    def __repr__(self):
        return "no model"


NO_MODEL = _NoModel()


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did, by the names of `model.named_modules()`; the model itself has the name "".

    replaced: {name: the class of hgat that the layer has now}. kept: {name: why it is DGL's still, in one sentence}.
    A layer that the model holds in two places is listed under both names. Print it to read it.
    """

    replaced: dict[str, Any]
    kept: dict[str, str]

    def __str__(self):
        if not self.replaced and not self.kept:
            return "no attention layer of DGL found"
        now = {name: f"hgat.nn.{layer.__name__}" for name, layer in self.replaced.items()}
        lines = []
        for title, entries in (("replaced", now), ("kept as they are", self.kept)):
            named = {name or "(the model itself)": text for name, text in entries.items()}
            width = max(map(len, named), default=0)
            if named:
                lines += [f"{title}:", *(f"  {name:{width}}  {text}" for name, text in named.items())]
        return "\n".join(lines)


class Functions(Acceleration):
    """What `accelerate()` without a model did; replaced: {module and name: hgat's function}, kept is empty."""

    def __str__(self):
        places = "\n".join(f"  {name}  hgat.ops.{function.__name__}" for name, function in self.replaced.items())
        return f"replaced:\n{places}" if places else "no function of DGL's left to replace"

    def undo(self) -> list[str]:
        """Give DGL's functions back, everywhere; gives the names of the places."""
        return _edge_softmax.give_back()


def _accelerate_functions():
    return Functions(dict.fromkeys(_edge_softmax.replace(), _edge_softmax.edge_softmax), {})


def accelerate(model: torch.nn.Module | _NoModel = NO_MODEL) -> Acceleration:
    """Turn DGL's attention layers in `model` into hgat's, in place: same parameters, same results.

    Every dgl.nn.GATConv, GATv2Conv, EdgeGATConv, DotGatConv, HGTConv, EGATConv and AGNNConv in the module tree becomes
    the layer of the same name in hgat.nn, whatever holds it (Sequential, ModuleList, ModuleDict,
    dgl.nn.HeteroGraphConv, a module of your own), also where the model itself is such a layer. The object stays and
    only its class changes, so whatever
    refers to it goes on as before: optimisers, names and state dicts, train or eval mode, device and type, dropout
    rates, activation, residual, a layer or a projection in two places. No random number is drawn, and a second call
    finds nothing to do.

    model: a torch.nn.Module -> Acceleration with what was replaced and what was kept and why. Kept are layers with
    hooks, with parametrised or exchanged parts (weight_norm, pruning, adapters), compiled ones, subclasses that add
    more than a constructor, and DGL's attention that is not over in-edges (BiasedMHA, GlobalAttentionPooling, ...).
    Raises HgatError for anything but a module.

    Without a model: for programs that write their attention on DGL's `edge_softmax`, which then runs on hgat's
    operators, with the same arguments and results. It is replaced in every loaded module that has it under any name,
    so in dgl.ops, dgl.nn.functional, DGL's own layers, and where a program said `from dgl.nn.functional import
    edge_softmax` before; modules that are loaded later import it from there. Not reached is what a closure, a default
    argument, a functools.partial or an attribute of an object holds. Nothing falls back to DGL's function: what hgat's
    fast backends do not serve, its `dgl` backend does. The result's `undo()` gives DGL's back.

    Differs after the change as the layers' docstrings say: dropout on attention drops other edges for the same seed,
    attention is returned before dropout, and DotGatConv with a pair of inputs on a relation from a node type to itself
    (as dgl.nn.HeteroGraphConv calls it) keeps the two ends apart, where DGL 2.1 takes the destinations for both.
    """
    if model is NO_MODEL:
        return _accelerate_functions()
    if not isinstance(model, torch.nn.Module):
        raise HgatError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    names: dict[Any, list[str]] = {}
    others: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, tuple(LAYERS)):
            names.setdefault(module, []).append(name)
        elif isinstance(module, tuple(OTHERS)) and not any(_inside(name, outer) for outer in others):
            others[name] = module
    replaced, kept = {}, {name: _no_counterpart(module) for name, module in others.items()}
    for layer, places in names.items():
        reason = _why_not(layer)
        if reason is None:
            _become_ours(layer)
            replaced.update(dict.fromkeys(places, type(layer)))
        else:
            kept.update(dict.fromkeys(places, reason))
    return Acceleration(replaced, kept)


def _inside(name, outer):
    """Whether a module's name is that of a part of the module `outer`."""
    return not outer or name.startswith(f"{outer}.")


def _no_counterpart(layer):
    base = next(base for base in type(layer).__mro__ if base in OTHERS)
    own = "" if type(layer) is base else f", from which {type(layer).__name__} derives"
    return f"hgat has no layer for DGL's {base.__name__}{own}: {OTHERS[base]}"


def _base(layer):
    """The class of DGL that `layer` is, or derives from."""
    return next(base for base in type(layer).__mro__ if base in LAYERS)


def _become_ours(layer):
    """Give `layer` hgat's class, and what hgat's constructor keeps and DGL's does not.

    What only DGL's forward reads stays too: someone may hold on to the bound method.
    """
    base = _base(layer)
    if base in (dglnn.GATConv, dglnn.GATv2Conv, dglnn.EdgeGATConv, dglnn.DotGatConv):
        # Of the projections themselves, which a user may have exchanged.
        layer._in_src_feats, layer._in_dst_feats = (fc.in_features for fc in projections(layer))
    if base is dglnn.EGATConv:
        layer._in_edge_feats = layer.fc_fij.in_features
    if base is dglnn.GATConv:
        layer.value_drop = torch.nn.Dropout(0.0).train(layer.training)
    if base is dglnn.DotGatConv:
        layer.attn_drop = torch.nn.Dropout(0.0).train(layer.training)
    layer.__class__ = LAYERS[base]


def _parts(layer):
    """(name, module) of the layer and of everything in it but the activation, which hgat calls just as DGL does."""
    yield "", layer
    for name, child in layer.named_children():
        if name != "activation":
            yield from child.named_modules(prefix=name)


def _why_not(layer):
    """One sentence on why `layer` must stay DGL's, or None."""
    for name, part in _parts(layer):
        whose = f"its {name}" if name else "it"
        if parametrize.is_parametrized(part):
            return f"{whose} is parametrised ({', '.join(part.parametrizations)})"
        if any(getattr(part, hooks) for hooks in HOOKS):
            return f"{whose} has hooks, which may count on DGL's own forward"
        if name and type(part) not in PARTS:
            return f"{whose} is of type {type(part).__name__}, which DGL's layer does not have there"
    if "forward" in vars(layer):
        return "its forward was replaced on the object"
    if layer._compiled_call_impl is not None:
        return "it is compiled already; call accelerate before compile"
    base = _base(layer)
    added = {name for cls in set(type(layer).__mro__) - set(base.__mro__) for name in vars(cls)} - UNREAD
    if added:
        return f"its class {type(layer).__name__} adds {', '.join(sorted(added))} to DGL's {base.__name__}"
    return None
