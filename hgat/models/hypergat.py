"""HyperGAT as a whole model, on any graph's hyperedges."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import GraphError, check_whole
from hgat.graph.csr import in_order
from hgat.graph.hypergraph import clique_expansion, hypergraph
from hgat.models._batches import Features, one_type
from hgat.models._stack import check_settings, feature_width
from hgat.models._system import Ablation, Facts, System
from hgat.nn.hypergraph import HypergraphAttentionConv

__all__ = ["HyperGAT"]


class HyperGAT(System):
    """A stack of HypergraphAttentionConv: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads: one number per layer; hidden: width per head of the hidden layers. include_self,
    residual: see hgat.nn.HypergraphAttentionConv.
    Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Ding et al. 2020 (HyperGAT), EMNLP 2020, arXiv:2011.00387; theirs are hypergraphs of words and sentences.
    """

    solves = ("nodes",)
    ablations = {"clique": Ablation("GAT on the clique expansion", {"include_self": False}, {"expansion": "clique"})}

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8, 1),
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        include_self: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop)
        check_whole(1, num_outputs=num_outputs)
        self.layers = nn.ModuleList()
        options: dict[str, Any] = {"include_self": include_self, "residual": residual}
        width = in_feats
        for count in heads[:-1]:
            layer = HypergraphAttentionConv(width, hidden, count, feat_drop, attn_drop, activation=F.elu, **options)
            self.layers.append(layer)
            width = hidden * count
        self.layers.append(HypergraphAttentionConv(width, num_outputs, heads[-1], feat_drop, attn_drop, **options))

    @staticmethod
    def prepare(
        shown: Facts, *, relations: list[str] | None = None, expansion: Literal["none", "clique"] = "none"
    ) -> tuple:
        """(hypergraph of the target's nodes, their features).

        Of a graph of one node type: every node is a hyperedge, of itself and those that it is linked with. Of a typed
        graph: every node of another type is a hyperedge of the target's nodes that it points to, under each relation
        that ends at the target, or those named in `relations`, one of its own.
        expansion: "clique" has in the place of every hyperedge all pairs of its nodes, each once, as hyperedges of two
        nodes, and every node as one: with include_self = false plain attention, GAT with self-loops.
        Raises GraphError where no relation ends at the target.
        """
        graph, target = shown.graph, shown.target
        found, first = [], 0
        for etype in graph.canonical_etypes:
            if etype[2] != target or not (relations is None or etype[1] in relations):
                continue
            hyperedges, nodes = (end.long() for end in in_order(graph, etype))
            if etype[0] == target:
                every = torch.arange(graph.num_nodes(target))
                # Both directions of an edge, as a hyperedge has none.
                ends = torch.cat([hyperedges, nodes, every]), torch.cat([nodes, hyperedges, every])
                hyperedges, nodes = ends
            found.append((nodes, hyperedges + first))
            first += graph.num_nodes(etype[0])
        if not found:
            raise GraphError(f"graph.relations: expected relations that end at {target!r}, got {relations or 'none'}")
        nodes, hyperedges = (torch.cat(ends) for ends in zip(*found, strict=True))
        made = hypergraph((nodes, hyperedges), graph.num_nodes(target), first)
        if expansion == "clique":
            src, dst = clique_expansion(made).edges()
            once, alone = src < dst, torch.arange(graph.num_nodes(target))
            pairs = torch.stack([src[once], dst[once]], 1).flatten()
            number = torch.arange(int(once.sum())).repeat_interleave(2)
            made = hypergraph((torch.cat([pairs, alone]), torch.cat([number, int(once.sum()) + alone])))
        return made, {target: shown.feat[target]}

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "HyperGAT":
        """A model as wide as the target's features; RecipeError where it has none."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, **settings)

    def forward(self, graph: DGLGraph, feat: Features) -> Tensor:
        """Logits of every node.

        graph: a hypergraph (hgat.graph.hypergraph), feat [N, F] or {node type: [N, F]} of one type -> [N, C].
        Raises GraphError for another graph, ShapeError for features that do not fit.
        """
        return self.hidden_states(graph, feat)[-1]

    def hidden_states(self, graph: DGLGraph, feat: Features) -> list[Tensor]:
        """What each layer receives, a list of [N, width], and the logits behind them."""
        states = [one_type(feat)]
        for depth, layer in enumerate(self.layers):
            h = layer(graph, states[-1])
            states.append(h.flatten(1) if depth < len(self.layers) - 1 else h.mean(1))
        return states

    def attention(self, graph: DGLGraph, feat: Features) -> list[tuple[Tensor, Tensor]]:
        """(alpha, beta) of every layer, see hgat.nn.HypergraphAttentionConv."""
        states = self.hidden_states(graph, feat)[:-1]
        return [layer(graph, h, get_attention=True)[1] for layer, h in zip(self.layers, states, strict=True)]
