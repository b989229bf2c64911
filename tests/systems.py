"""Every whole model with a small graph that it runs on, the forms that its settings give it, and how it is trained."""

import inspect
from collections import namedtuple

import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat.models.gat import GAT
from hgat.models.gatv2 import GATv2
from hgat.models.han import HAN
from hgat.models.rgat import RGAT
from zoo import build, typed_graph

__all__ = ["CLASSES", "IN", "PATHS", "SYSTEMS", "accuracy", "rates", "stage"]

IN, CLASSES = 7, 5
PATHS = {"film-film": ["follows"], "co-liked": ["liked by", "likes"]}

# model: the class. graph(): a DGLGraph. prepare(graph): what the model takes. target: the node type to predict. feats:
# widths of features by name, the first for every node type that the model reads. forms: settings that change the
# parameters or the equations.
System = namedtuple("System", "model graph prepare target feats forms")

STACKED = [{}, {"heads": [3]}, {"heads": [4, 2], "residual": True}]
SYSTEMS = {
    "gat": System(
        GAT,
        lambda: build("homogeneous"),
        lambda graph: graph,
        "_N",
        {"all": {"_N": IN}},
        [*STACKED, {"heads": [3, 2, 2], "residual": True, "hidden": 11}],
    ),
    "gatv2": System(
        GATv2,
        lambda: build("homogeneous"),
        lambda graph: graph,
        "_N",
        {"all": {"_N": IN}},
        [
            *STACKED,
            {"share_weights": False},
            {"heads": [3], "share_weights": False},
            {"heads": [4, 2], "residual": True, "share_weights": False},
            {"heads": [3, 2, 2], "residual": True, "hidden": 11, "bias": False},
        ],
    ),
    "han": System(
        HAN,
        typed_graph,
        lambda graph: hgraph.metapath.prepare(graph, paths=PATHS),
        "film",
        {"all": {"film": IN, "user": None}},
        [
            {},
            {"heads": [3, 2], "hidden": 11},
            {"semantic": "per_node"},
            {"semantic": "per_node", "semantic_feats": 3},
            {"share_projection": False},
            {"share_projection": False, "heads": [3, 2]},
        ],
    ),
    "rgat": System(
        RGAT,
        lambda: hgraph.add_inverse(typed_graph(), self_relation=True),
        hgraph.join_relations,
        "film",
        {"all": {"film": IN, "user": 3}, "some": {"film": IN, "user": None}, "none": {"film": None, "user": None}},
        [
            {},
            {"softmax": "within"},
            {"score": "multiplicative", "attn_feats": 3},
            {"softmax": "within", "score": "multiplicative", "attn_feats": 2, "residual": True},
            {"num_bases": 2, "num_attn_bases": 3},
            {"num_blocks": 2, "heads": [2, 2], "hidden": 3, "embed": 6, "residual": True},
        ],
    ),
}


def stage(name, kind="all", graph=None):
    """(what the model takes for a graph, random features by node type with None for a type without)."""
    system = SYSTEMS[name]
    graph = system.graph() if graph is None else graph
    widths = system.feats[kind]
    feat = {t: None if width is None else torch.randn(graph.num_nodes(t), width) for t, width in widths.items()}
    return system.prepare(graph), feat


def rates(name):
    """The settings of a model that are rates of dropout."""
    return [key for key in inspect.signature(SYSTEMS[name].model.__init__).parameters if key.endswith("_drop")]


def accuracy(model, graph, feat, label, rows=slice(None), *, epochs, lr):
    """Share of `rows` that the model gets right, without dropout, after training on those rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(model(graph, feat)[rows], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(graph, feat)[rows].argmax(1) == label).double().mean().item()
