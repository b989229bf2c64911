"""SPAGAN as a whole model: GAT first, then attention over the paths that its attention makes cheap."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, check_range, check_whole
from hgat.graph import csr
from hgat.graph.paths import cheapest_paths
from hgat.models._batches import Features, one_type
from hgat.models._stack import Stack, check_settings, feature_width
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.models.gat import GAT
from hgat.nn.spagan import SPAGANConv

__all__ = ["SPAGAN"]


class SPAGAN(System):
    """Two stages of training: a GAT, and a model with fresh weights that attends over cheapest paths.

        cost_uv = 1 - w_uv / max w,   w the mean over heads of the first layer's attention, of edges between two nodes
        hidden layers over paths of 1 to max_length edges; the last over the graph's edges; ELU behind each

    The first stage is this model, whose forward is hgat.models.GAT's. Where training ends, `again` computes the paths
    from its attention, once, and gives the second stage, whose forward takes the graph, these paths and the features.
    No gradient goes through the paths.

    in_feats: F. num_outputs: C. hidden: width per head of the hidden layers. heads: one number per layer, of which
    there are two or more, side by side and in the last the mean. stages: 2, or 1, which is the GAT alone. max_length,
    share: which paths, see hgat.graph.cheapest_paths. path_encoder, score: see hgat.nn.SPAGANConv. feat_drop,
    attn_drop: of both stages. value_drop: of the GAT, see hgat.models.GAT.
    Raises RecipeError for fewer than two heads and other stages, ShapeError for sizes, rates and names out of range.
    Paper: Yang et al. 2019 (SPAGAN), arXiv:2101.03464. Paths are computed once, as in the authors' code, where the
    paper has them computed again from what the paths have learned; that the last layer reads the edges is the code's.
    """

    ablations = {"gat": Ablation("GAT, the first stage alone", {"stages": 1})}

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8, 1),
        stages: int = 2,
        max_length: int = 2,
        share: float = 0.5,
        path_encoder: Literal["pool", "lstm"] = "pool",
        score: Literal["centre", "path"] = "centre",
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        value_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop)
        if len(heads) < 2:
            raise RecipeError(f"model.heads: expected two layers or more, as the last reads no paths, got {len(heads)}")
        check_whole(1, stages=stages, max_length=max_length)
        if stages > 2:
            raise RecipeError(f"model.stages: expected 1 or 2, got {stages}")
        check_range(0, share=share)
        options: dict[str, Any] = {"hidden": hidden, "heads": heads, "feat_drop": feat_drop, "attn_drop": attn_drop}
        self.gat = GAT(in_feats, num_outputs, value_drop=value_drop, **options)
        options |= {"max_length": max_length, "path_encoder": path_encoder, "score": score}
        self.over_paths = partial(_OverPaths, in_feats, num_outputs, **options)
        _OverPaths(1, 1, **{**options, "hidden": 1, "heads": (1, 1)})  # says now what is out of range
        self.stages, self.max_length, self.share = stages, max_length, share

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features): every node attends to itself once; undirected: every edge in both directions, once."""
        return Stack.prepare(shown, self_loops=self_loops, undirected=undirected)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "SPAGAN":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, **settings)

    def forward(self, graph: DGLGraph, feat: Features) -> Tensor:
        """Logits of every node in the first stage.

        graph: DGLGraph with self-loops; feat [N, F] or {node type: [N, F]} -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for features that do not fit.
        """
        return self.gat(graph, feat)

    def costs(self, graph: DGLGraph, feat: Features) -> Tensor:
        """What an edge costs by the first layer's attention, [E], from 0 to 1; a node's edge to itself costs 1."""
        weight = self.gat.layers[0](graph, one_type(feat), get_attention=True)[1].mean((1, 2))
        src, dst = csr.edges(graph, weight.device)
        weight = weight.masked_fill(src == dst, 0.0)
        most = weight.max() if len(weight) else weight.new_ones(())
        return 1 - weight / most.clamp_min(1e-30)

    def again(self, shown: Facts, inputs: tuple, stage: int) -> "tuple[System, tuple] | None":
        """The second stage: a model with fresh weights, and (graph, its cheapest paths, features)."""
        if stage >= self.stages:
            return None
        graph, feat = inputs
        paths = cheapest_paths(graph, self.costs(graph, feat), self.max_length, share=self.share)
        return self.over_paths(), (graph, paths, feat)


class _OverPaths(System):
    """The second stage: layers over paths, and a last one over the graph's edges."""

    def __init__(self, in_feats, num_outputs, *, hidden, heads, max_length, feat_drop, attn_drop, **options):
        super().__init__()
        options |= {"feat_drop": feat_drop, "attn_drop": attn_drop, "activation": F.elu}
        self.layers, width = nn.ModuleList(), in_feats
        for count in heads[:-1]:
            self.layers.append(SPAGANConv(width, hidden, count, max_length=max_length, **options))
            width = hidden * count
        options["path_encoder"] = "pool"  # a path of one edge is its end
        self.layers.append(SPAGANConv(width, num_outputs, heads[-1], max_length=1, **options))

    def _hidden(self, paths, feat, get_attention=False):
        """(rows behind the hidden layers [N, H * D], beta of each [N, H, L] if it is asked for)."""
        h, found = one_type(feat), []
        for layer in self.layers[:-1]:
            h = layer(paths, h, get_attention)
            if get_attention:
                h, _, beta = h
                found.append(beta)
            h = h.flatten(1)
        return h, found

    def forward(self, graph: DGLGraph, paths: Sequence[DGLGraph], feat: Features) -> Tensor:
        """Logits of every node, [N, C]; paths: those of hgat.graph.cheapest_paths."""
        return self.layers[-1]([graph], self._hidden(paths, feat)[0]).mean(1)

    def attended(self, graph: DGLGraph, paths: Sequence[DGLGraph], feat: Features) -> list[Shares]:
        """The share of each length in every hidden layer, heads and nodes averaged."""
        names = tuple(f"{k} edge{'s' if k > 1 else ''}" for k in range(1, len(paths) + 1))
        even = (1 / len(paths),) * len(paths)
        return [
            Shares(
                f"attention over lengths of paths, layer {depth}",
                names,
                tuple(beta.mean((0, 1)).tolist()),
                even,
                even="if all lengths counted alike",
            )
            for depth, beta in enumerate(self._hidden(paths, feat, get_attention=True)[1], 1)
        ]
