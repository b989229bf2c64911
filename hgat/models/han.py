"""HAN as a whole model."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, check_whole
from hgat.graph import metapath
from hgat.graph.metapath import Views
from hgat.graph.metapath import views as as_views
from hgat.models._batches import Features, Layered, of_type, per_layer
from hgat.models._shares import by_view
from hgat.models._stack import check_settings, feature_width
from hgat.models._system import Facts, Shares
from hgat.nn import HANConv

__all__ = ["HAN"]

ViewsOrBlocks: TypeAlias = Views | DGLGraph | Sequence[DGLGraph]


class HAN(Layered):
    """HAN layers over the same meta-paths, then a linear classifier.

    in_feats: F of the node type that the meta-paths join. num_metapaths: P, or, as for_graph gives them, their names:
    see hgat.nn.HANConv on how views are matched. target: the node type's name, for features given as a dict. heads: one
    number per layer; hidden: width per head. semantic, semantic_feats, share_projection: see hgat.nn.HANConv.
    Paper: Wang et al. 2019, arXiv:1903.07293, eq. 1-10. Differs: value_drop, dropout on the projected features, stands
    in the released code and not in the paper.
    """

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        num_metapaths: int | Sequence[str],
        target: str | None = None,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8,),
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        value_drop: float = 0.0,
        negative_slope: float = 0.2,
        semantic: str = "global",
        semantic_feats: int = 128,
        share_projection: bool = True,
    ) -> None:
        super().__init__()
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_whole(1, semantic_feats=semantic_feats, num_outputs=num_outputs)
        self.target = target
        self.layers = nn.ModuleList()
        for count in heads:
            self.layers.append(
                HANConv(
                    in_feats,
                    hidden,
                    count,
                    num_metapaths,
                    feat_drop=feat_drop,
                    attn_drop=attn_drop,
                    negative_slope=negative_slope,
                    semantic=semantic,
                    semantic_feats=semantic_feats,
                    share_projection=share_projection,
                    value_drop=value_drop,
                )
            )
            in_feats = hidden * count
        self.classify = nn.Linear(in_feats, num_outputs)

    @staticmethod
    def prepare(shown: Facts, *, paths: dict, self_loops: bool = True, max_pairs: int | None = None) -> tuple:
        """(views, features): one view per named meta-path, of at most max_pairs pairs each."""
        views = metapath.prepare(shown.graph, paths=paths, self_loops=self_loops, max_pairs=max_pairs)
        return views, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "HAN":
        """A model for the names of the prepared views, as wide as the features of the target type, and its classes."""
        views, feat = inputs
        width = feature_width(feat, shown.target)
        return cls(width, shown.num_classes, as_views(views).names, shown.target, **settings)

    def embed(self, views: ViewsOrBlocks, feat: Features) -> Tensor:
        """Z of the last layer, [N, H * D]."""
        z = self.start(feat)
        for layer, graph in zip(self.layers, per_layer(views, len(self.layers)), strict=True):
            z = layer(graph, z)
        return z

    def start(self, feat: Features, nodes: Any = None) -> Tensor:
        """What the first layer receives."""
        return of_type(feat, self.target)

    def step(self, depth: int, graph: Views | DGLGraph, h: Tensor) -> Tensor:
        """Layer `depth`, counted from 0, on a graph or block, behind the last the classifier."""
        layer: Any = self.layers[depth]
        if layer.semantic.form == "global":
            raise RecipeError("model.semantic: expected 'per_node' in batches of nodes, got 'global', which needs all")
        h = layer(graph, h)
        return self.classify(h) if depth == len(self.layers) - 1 else h

    def forward(self, views: ViewsOrBlocks, feat: Features) -> Tensor:
        """Logits of the nodes that the meta-paths join.

        views: hgat.graph.metapaths, or a graph with one relation per meta-path, feat [N, F] or {node type: [N, F]}; or
        blocks of such a graph, one per layer, feat [N_src, F] of the first one's sources -> [N, C] or [N_dst, C].
        Raises GraphError for other meta-paths, RecipeError for another number of blocks than layers, ShapeError for
        features that do not fit.
        """
        return self.classify(self.embed(views, feat))

    def attention(self, views: ViewsOrBlocks, feat: Features) -> list[tuple[Tensor, Tensor]]:
        """(alpha [E, H], beta) of every layer, a list."""
        z = self.start(feat)
        found = []
        for layer, graph in zip(self.layers, per_layer(views, len(self.layers)), strict=True):
            z, attention = layer(graph, z, get_attention=True)
            found.append(attention)
        return found

    def attended(self, views: Views | DGLGraph, feat: Features) -> list[Shares]:
        """The semantic weights of every layer, averaged over nodes where they differ by node."""
        found = self.attention(views, feat)
        return [by_view(as_views(views), beta, depth) for depth, (_, beta) in enumerate(found, 1)]
