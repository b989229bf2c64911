"""Models on sampled blocks, and exact inference on a whole graph, layer by layer.

A model that can do both has `layers`, `start(feat, nodes=None)`, what the first layer receives, and `step(depth, graph,
h)`, one layer on a graph or block.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import dgl
import torch
from torch import Tensor, nn

from hgat.errors import RecipeError, ShapeError, check_shape
from hgat.graph.csr import to_device
from hgat.graph.metapath import Views
from hgat.graph.relations import JoinedRelations
from hgat.models._system import System
from hgat.nn.common import check_floats, check_graph

__all__ = [
    "Layered",
    "check_parts",
    "layerwise",
    "of_type",
    "one_type",
    "over_layers",
    "per_layer",
    "sample_blocks",
    "source_ids",
    "widths",
]

Features = Tensor | Mapping[str, Tensor | None]  # [N, F] of one node type, or by type


class Layered(System):
    """A system of `layers` with `start` and `step`, which runs on DGL's blocks and in `layerwise`.

    Its inputs are a DGLGraph and {node type: features}.
    """

    target: str | None = None
    by_type: ClassVar[bool] = False  # whether rows go from layer to layer as {node type: rows}, of one type, too
    layers: nn.ModuleList
    start: Callable[..., Any]
    step: Callable[..., Any]

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None) -> tuple:
        """((blocks, features of their sources), ()) whose answer has the rows of the nodes `ids`."""
        graph, feat = inputs
        if not isinstance(graph, dgl.DGLGraph):
            raise RecipeError(f"task.batch: expected a system on a DGLGraph, got one on {type(graph).__name__}")
        nodes, blocks = sample_blocks(graph, ids, fanout, len(self.layers), self.target)
        device = next(self.parameters()).device
        nodes = nodes if isinstance(nodes, Mapping) else {graph.ntypes[0]: nodes}
        found = {t: None if feat.get(t) is None else feat[t][i.to(feat[t].device)] for t, i in nodes.items()}
        return to_device((blocks, found), device), ()

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Any:
        """Logits of all nodes: in one forward, or, with batch_size, by `layerwise`."""
        return self(*inputs) if batch_size is None else layerwise(self, *inputs, batch_size=batch_size)


def sample_blocks(
    graph: dgl.DGLGraph, ids: Tensor, fanout: Sequence[int] | None, layers: int, target: str | None = None
) -> tuple[Any, list]:
    """(ids of the sources, blocks, one for each layer) of the nodes `ids`, of the type `target` where there are more.

    Raises RecipeError for another number of fanouts than layers.
    """
    if fanout is None or len(fanout) != layers:
        got = "none" if fanout is None else len(fanout)
        raise RecipeError(f"task.fanout: expected {layers} numbers, one for each layer, got {got}")
    sampler = dgl.dataloading.NeighborSampler(list(fanout))
    ids = ids.to(graph.idtype)
    nodes, _, blocks = sampler.sample(graph, {target: ids} if len(graph.ntypes) > 1 else ids)
    return nodes, blocks


def one_type(feat: Any) -> Any:
    """The features themselves where they come as {node type: features} of one type; ShapeError where of several."""
    if isinstance(feat, dict):
        if len(feat) != 1:
            raise ShapeError(f"feat: expected features of one node type, got of {sorted(map(str, feat))}")
        (feat,) = feat.values()
    return feat


def of_type(feat: Any, ntype: str | None) -> Any:
    """Features of one node type, by its name where they come as a dict and the model knows the name."""
    if not isinstance(feat, dict) or ntype is None:
        return one_type(feat)
    if feat.get(ntype) is None:
        raise ShapeError(f"feat: expected features of {ntype!r} nodes, got of {sorted(map(str, feat))}")
    return feat[ntype]


def widths(feat: Any, ntypes: Iterable[str]) -> dict[str, int | None]:
    """{node type: F, or None for a type without features}; ShapeError for features that are no dict of tensors."""
    if not isinstance(feat, Mapping):
        raise ShapeError(f"feat: expected a dict over node types {list(ntypes)}, got {type(feat).__name__}")
    for ntype in ntypes:
        if feat.get(ntype) is not None:
            check_floats(f"feat[{ntype!r}]", feat[ntype])
            check_shape(f"feat[{ntype!r}]", feat[ntype], ("N", None), ("F", None))
    return {ntype: None if feat.get(ntype) is None else feat[ntype].shape[1] for ntype in ntypes}


def check_parts(graph: object) -> None:
    """Raise GraphError for something else in the place of a graph, or of one of several blocks."""
    parts = graph if isinstance(graph, (list, tuple)) else [graph]
    for part in parts:
        if not isinstance(part, (Views, JoinedRelations)):
            # Two tensors are most likely the ends of edges, and the advice is on them together.
            wrong = getattr(part, "canonical_etypes", None) is None
            given = graph if wrong and isinstance(part, torch.Tensor) else part
            check_graph(given, one_relation=False, expected="a DGLGraph, or blocks, one for each layer")


def per_layer(graph: Any, layers: int) -> Sequence[Any]:
    """The graph of each layer: blocks as they are, one graph for all. Raises RecipeError for too few or many blocks,
    GraphError for something else in their place."""
    check_parts(graph)
    if not isinstance(graph, (list, tuple)):
        return [graph] * layers
    if len(graph) != layers:
        raise RecipeError(f"blocks: expected {layers}, one for each layer, got {len(graph)}")
    return graph


def source_ids(graph: Any) -> dict[str, Tensor | None] | None:
    """{node type: ids in the whole graph} of the first block's sources; None for anything but blocks.

    The ids of a type are None on a block that no sampler made, which does not say them.
    """
    check_parts(graph)
    if not isinstance(graph, (list, tuple)) or not graph:
        return None
    data = {ntype: graph[0].srcnodes[ntype].data for ntype in graph[0].srctypes}
    return {ntype: columns[dgl.NID] if dgl.NID in columns else None for ntype, columns in data.items()}


def over_layers(model: Layered, graph: Any, feat: Any) -> Any:
    """forward of a model, from its steps."""
    h = model.start(feat, source_ids(graph))
    for depth, part in enumerate(per_layer(graph, len(model.layers))):
        h = model.step(depth, part, h)
    return h


@torch.no_grad()
def layerwise(
    model: Layered,
    graph: dgl.DGLGraph,
    feat: Features,
    *,
    batch_size: int = 1024,
    device: torch.device | str | None = None,
) -> Tensor:
    """Logits of all nodes as model(graph, feat) gives them, in batches: each layer is finished before the next begins.

    For graphs that were trained on by sampling. Every batch has all its in-edges, so nothing is sampled, and no more
    than a batch's is on `device` (default: the model's). model: in eval mode for what forward gives. graph: a
    DGLGraph; for HAN with one relation per meta-path. feat: [N, F] or {node type: [N, F] or None}, on the CPU, in
    memory or in mapped files. Returns [N, C] on the CPU, of the model's target type.
    Raises RecipeError for a model or a setting that has no layers of this kind, such as HAN with a global beta,
    ShapeError where features are missing.
    """
    if not hasattr(model, "step"):
        raise RecipeError(f"layerwise: expected a model with steps, such as GAT, RGAT, HAN, got {type(model).__name__}")
    check_graph(graph, one_relation=False)
    device = next(model.parameters()).device if device is None else torch.device(device)
    typed = isinstance(feat, dict) and (len(graph.ntypes) > 1 or getattr(model, "by_type", False))
    h: Any = feat.get(graph.ntypes[0]) if isinstance(feat, dict) and not typed else feat
    if h is None:
        raise ShapeError(f"feat: expected features of {graph.ntypes[0]!r} nodes, got none")
    if not typed and not isinstance(h, torch.Tensor):
        raise ShapeError(f"feat: expected a tensor [N, F] or a dict over node types, got {type(h).__name__}")
    sampler = dgl.dataloading.MultiLayerFullNeighborSampler(1)
    for depth in range(len(model.layers)):
        last = depth == len(model.layers) - 1
        ntypes = [model.target] if last and typed else graph.ntypes
        nodes = {ntype: torch.arange(graph.num_nodes(ntype), dtype=graph.idtype) for ntype in ntypes}
        parts: dict[Any, list[Tensor]] = {ntype: [] for ntype in ntypes}
        # One type after the other, so that what a batch gives has one order.
        for ntype in ntypes:
            ids = {ntype: nodes[ntype]} if typed else nodes[ntype]
            for inputs, _, (block,) in dgl.dataloading.DataLoader(graph, ids, sampler, batch_size=batch_size):
                if typed:
                    # Of a graph with one node type DGL gives the ids without its name.
                    inputs = inputs if isinstance(inputs, Mapping) else {ntype: inputs}
                    here = to_device({t: None if h.get(t) is None else h[t][i] for t, i in inputs.items()}, device)
                    rows = to_device(inputs, device)
                else:
                    here, rows = to_device((h[inputs], inputs), device)
                here = model.start(here, rows) if depth == 0 else here
                found = model.step(depth, to_device(block, device), here)
                parts[ntype].append((found[ntype] if typed and not last else found).cpu())
        h = {ntype: torch.cat(some) for ntype, some in parts.items()}
        h = h if typed and not last else next(iter(h.values()))
    return h
