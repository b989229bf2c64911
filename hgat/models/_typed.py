"""What systems on typed graphs share: the rows that every node type starts with, and names for what has numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, ShapeError, check_shape
from hgat.graph.relations import JoinedRelations, join_relations
from hgat.graph.stacked import StackedTypes, stack_types
from hgat.models._batches import Features, Layered, per_layer, source_ids
from hgat.models._shares import by_relation
from hgat.models._system import Shares
from hgat.nn.common import check_floats, check_graph
from hgat.nn.names import NamedState, order_of, reorder, reorder_children

__all__ = ["StackedSystem", "Typed", "check_target", "typed_sizes"]


class Typed(Layered, NamedState):
    """A system whose node types each have an input of their own: a map of their features, or a learned row per node."""

    target: str
    by_type = True
    ntypes: tuple[str, ...]
    featured: tuple[bool, ...]
    inputs: nn.ModuleList

    def bring(
        self, sizes: Mapping[str, int], in_feats: Mapping[str, int | None], width: int, hidden: int | None = None
    ) -> None:
        """Give the system its inputs, `width` wide. sizes: {node type: nodes}; in_feats: {node type: F or None}.

        hidden: the width of a hidden layer before it.
        """
        # Node types are not names of modules, which must not hold a dot: each has a number.
        self.ntypes = tuple(sizes)
        self.featured = tuple(in_feats.get(ntype) is not None for ntype in sizes)
        self.inputs = nn.ModuleList()
        for ntype, count in sizes.items():
            given = in_feats.get(ntype)
            if given is not None:
                self.inputs.append(_input(given, hidden, width))
            else:
                rows = nn.Embedding(count, width)
                if count:
                    nn.init.xavier_uniform_(rows.weight)
                self.inputs.append(rows)

    def _names(self):
        return {"ntypes": self.ntypes}

    def _match(self, names, state, prefix):
        theirs = names.get("ntypes") if isinstance(names, dict) else None
        reorder_children(state, f"{prefix}inputs.", order_of(theirs, self.ntypes, "node types"))

    def start(self, feat: Any, nodes: Mapping[str, Tensor | None] | None = None) -> Any:
        """What the first layer receives, {node type: [N, width]}; nodes: {type: ids} where only some nodes are here."""
        if not isinstance(feat, Mapping):
            raise ShapeError(f"feat: expected a dict over node types {list(self.ntypes)}, got {type(feat).__name__}")
        h, inputs = {}, cast(Sequence[Any], self.inputs)  # linear maps and learned rows
        for ntype, featured, layer in zip(self.ntypes, self.featured, inputs, strict=True):
            if nodes is not None and ntype not in nodes:
                continue
            if featured and feat.get(ntype) is None:
                raise ShapeError(f"feat: expected features of {ntype!r} nodes, got none")
            if not featured and nodes is not None and nodes[ntype] is None:
                raise ShapeError(f"blocks: expected the ids of {ntype!r} nodes in srcdata[dgl.NID], got none")
            if featured:
                first: Any = layer[0] if isinstance(layer, nn.Sequential) else layer
                check_floats(f"feat[{ntype!r}]", feat[ntype], first.weight)
                check_shape(f"feat[{ntype!r}]", feat[ntype], ("N", None), ("F", first.in_features))
                h[ntype] = layer(feat[ntype])
            else:
                h[ntype] = layer.weight if nodes is None else layer(cast(Tensor, nodes[ntype]).to(layer.weight.device))
        return h

    def attention(self, graph: Any, feat: Any) -> list[dict[tuple[str, str, str], Tensor]]:
        """alpha of every layer, a list of {relation: [E_r, H]}."""
        raise NotImplementedError

    def attended(self, graph: JoinedRelations | DGLGraph, feat: Any) -> list[Shares]:
        """Attention by relation: of every layer and destination type, of the last layer the predicted type alone."""
        joined, layers = join_relations(graph), self.attention(graph, feat)
        found = []
        for depth, alpha in enumerate(layers, 1):
            # What other types than the target attend to in the last layer was never trained.
            read = {self.target} if depth == len(layers) else set(joined.dsttypes)
            found += by_relation(joined, alpha, f"layer {depth}", read)
        return found


def _input(given, hidden, width):
    """The map of features to what the first layer receives."""
    if hidden is None:
        return nn.Linear(given, width)
    return nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, width))


class StackedSystem(Typed):
    """A system whose layers take all node types as one, with types in tensors: hgat.graph.stack_types.

    of_ntype, of_etype: what the state dict calls the tensors whose rows stand for node types and for relations. timed:
    whether edges have ages (hgat.graph.relative_times). A layer of its own is `layered`.
    """

    etypes: tuple[tuple[str, str, str], ...]
    of_ntype: ClassVar[re.Pattern]
    of_etype: ClassVar[re.Pattern]
    timed = False

    def _names(self):
        return {"ntypes": self.ntypes, "etypes": self.etypes}

    def _match(self, names, state, prefix):
        super()._match(names, state, prefix)
        for what, ours, pattern in (("ntypes", self.ntypes, self.of_ntype), ("etypes", self.etypes, self.of_etype)):
            order = order_of(names.get(what), ours, "node types" if what == "ntypes" else "relations")
            own = [key for key in state if key.startswith(prefix) and pattern.fullmatch(key[len(prefix) :])]
            reorder(state, "", own, order)

    def layered(self, depth: int, part: DGLGraph, stacked: StackedTypes, rows: Tensor, past: Any) -> tuple[Tensor, Any]:
        """(rows of the destinations behind layer `depth`, what the next layer is told of it).

        part, stacked: the graph or block. rows: [N_src, width] of the sources. past: what the layer before told, None
        at the first.
        """
        raise NotImplementedError

    def rows_of(self, graph: DGLGraph, h: Mapping[str, Tensor]) -> tuple[StackedTypes, Tensor]:
        """(the graph or block as the layers take it, [N_src, width] of its sources); h: {type: [N_src, width]}."""
        device = next(iter(h.values())).device
        stacked = stack_types(graph, self.ntypes, self.etypes, ages=self.timed, device=device)
        rows = torch.cat([h[ntype] for ntype in stacked.num_src])
        return stacked, rows if stacked.row is None else rows.index_select(0, stacked.row)

    def step(self, depth: int, graph: DGLGraph, h: Any) -> Any:
        """Layer `depth`, counted from 0, on a graph or block: {type: [N_src, width]} -> {type: [N_dst, width]}."""
        h = self._step(depth, graph, h, None)[0]
        return h[self.target] if depth == len(self.layers) - 1 else h

    def _step(self, depth, graph, h, past):
        """({type: rows} behind layer `depth`, what it tells the next)."""
        stacked, rows = self.rows_of(graph, h)
        rows, past = self.layered(depth, graph, stacked, rows, past)
        return dict(zip(stacked.num_dst, rows.split(list(stacked.num_dst.values())), strict=True)), past

    def forward(self, graph: DGLGraph | Sequence[DGLGraph], feat: Features) -> Tensor:
        """Logits of the nodes of the target type.

        graph: a typed DGLGraph, feat {node type: [N, F] or None} -> [N_target, C]; or DGL's blocks, one per layer, and
        features of the first one's sources -> [N_dst, C], of the last one's destinations.
        Raises GraphError for other types and for ages that are missing, ShapeError for features that do not fit,
        RecipeError for another number of blocks than layers.
        """
        h, past = self.start(feat, source_ids(graph)), None
        for depth, part in enumerate(per_layer(graph, len(self.layers))):
            h, past = self._step(depth, part, h, past)
        return h[self.target]


def typed_sizes(graph: Any, target: str) -> dict[str, int]:
    """{node type: nodes} of a typed graph; RecipeError unless `target` is one of them, GraphError for no graph."""
    check_graph(graph, one_relation=False)
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    check_target(target, sizes)
    return sizes


def check_target(target: str, sizes: Mapping[str, int]) -> None:
    """Raise RecipeError unless `target` is one of the node types."""
    if target not in sizes:
        raise RecipeError(f"target: expected a node type among {sorted(sizes)}, got {target!r}")
