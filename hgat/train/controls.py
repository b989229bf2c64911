"""Controls of node classification: what a score is worth without the part that is claimed to matter, on the same split.

A control is a function of this module, named in a recipe's train.controls: it gives the model to train (or
None, if the recipe's own model is trained in another way), its inputs, and a context in which to run them.
A model is trained as the recipe says, or by the class that it names as `fitted_by`.
"""

from contextlib import nullcontext

import torch
from torch import nn

from hgat import ops
from hgat.train.linear import LogisticPath

__all__ = ["TITLES", "find", "names"]

TITLES = {
    "ours": "hgat",
    "no_graph": "no graph",
    "uniform": "uniform attention",
    "majority": "majority class",
    "neighbours": "linear on neighbours",
    "no_temporal": "no temporal attention",
    "no_structural": "no structural attention",
    "no_time": "order of events only",
    "counting": "counting, untrained",
}


class _Features(nn.Module):
    """Two linear layers on a node's own features."""

    def __init__(self, in_feats, hidden, num_outputs, drop):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(drop),
            nn.Linear(in_feats, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, num_outputs),
        )

    def forward(self, feat):
        return self.layers(feat)


class _Neighbours(nn.Module):
    """A linear model on which nodes are a node's neighbours, each row scaled to length one."""

    fitted_by = LogisticPath

    def __init__(self, num_neighbours, num_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_neighbours, num_outputs))
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, bag):
        return torch.sparse.mm(bag, self.weight) + self.bias


class _Constant(nn.Module):
    """The same learned logits for every node: the class frequencies of the training nodes."""

    def __init__(self, num_nodes, num_outputs):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_outputs))
        self.num_nodes = num_nodes

    def forward(self):
        return self.logits.expand(self.num_nodes, -1)


def no_graph(task, recipe):
    """A two-layer perceptron on the target's own features; the class frequencies where it has none."""
    feat = task.feat[task.target]
    if feat is None:
        return majority(task, recipe)
    drop = recipe.model.get("feat_drop", 0.5)
    return (
        _Features(feat.shape[1], recipe.train.control_hidden, task.num_classes, drop),
        (feat,),
        nullcontext(),
    )


def neighbours(task, recipe):
    """Logistic regression on the list of a node's neighbours: the graph without any message passing.

    The class frequencies where no relation ends at the target.
    """
    graph, width, rows, columns = task.graph, 0, [], []
    start = {}
    for ntype in graph.ntypes:
        start[ntype], width = width, width + graph.num_nodes(ntype)
    for etype in graph.canonical_etypes:
        if etype[2] == task.target:
            src, dst = graph.edges(etype=etype, order="eid")
            rows.append(dst.long())
            columns.append(src.long() + start[etype[0]])
    if not rows:
        return majority(task, recipe)
    place = torch.unique(torch.stack([torch.cat(rows), torch.cat(columns)]), dim=1)
    count = torch.bincount(place[0], minlength=graph.num_nodes(task.target))
    value = count[place[0]].float().rsqrt()
    bag = torch.sparse_coo_tensor(
        place, value, (graph.num_nodes(task.target), width), is_coalesced=True, check_invariants=True
    )
    return _Neighbours(width, task.num_classes), (bag,), nullcontext()


def majority(task, recipe):
    """The class frequencies of the training nodes."""
    return _Constant(task.graph.num_nodes(task.target), task.num_classes), (), nullcontext()


def uniform(task, recipe):
    """The recipe's own model with every softmax replaced by a mean."""
    return None, None, ops.uniform_attention()


_CONTROLS = {f.__name__: f for f in (no_graph, majority, neighbours, uniform)}


def names():
    """The controls of node classification."""
    return sorted(_CONTROLS)


def find(name):
    """The control of that name."""
    return _CONTROLS[name]
