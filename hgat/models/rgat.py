"""RGAT as a whole model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, check_whole
from hgat.graph import relations
from hgat.graph.relations import JoinedRelations, join_relations
from hgat.models._batches import per_layer, source_ids, widths
from hgat.models._stack import check_settings
from hgat.models._system import Facts
from hgat.models._typed import Typed, check_target
from hgat.nn import FeaturelessRGATConv, RGATConv

__all__ = ["RGAT"]

Features = Mapping[str, Tensor | None] | None
RelationsOrBlocks: TypeAlias = JoinedRelations | DGLGraph | Sequence[JoinedRelations | DGLGraph]


class RGAT(Typed):
    """A stack of RGAT layers over all relations of a typed graph.

    joined: the relations (hgat.graph.join_relations). in_feats: {node type: F, or None for a type without features}.
    target: the node type to predict. one_hot: no node type has features and layer one learns a row per
    (node, relation), as in the authors' example. Otherwise embed is the width of the input that every node type is
    brought to, by a linear map of its features or, without features, by a learned row per node. input_hidden: the width
    of a hidden layer before that map, a perceptron then; None, none. heads: one number per
    layer; hidden: width per head. readout: the last layer is as wide as the others, and a linear map of its heads, side
    by side and behind a ReLU, answers; else it is as wide as the answer, and so are the rows that its attention
    compares. softmax, score, attn_feats, num_bases, num_attn_bases, num_blocks: see hgat.nn.RGATConv.
    Paper: Busbridge et al. 2019, arXiv:1904.05811; two layers, ReLU, heads side by side and then averaged as in the
    authors' example. Differs: the learned row per node, and optional residuals and dropout.
    """

    solves = ("nodes", "numbers", "triples")

    def __init__(
        self,
        joined: JoinedRelations | DGLGraph,
        in_feats: Mapping[str, int | None],
        num_outputs: int,
        target: str,
        *,
        one_hot: bool = False,
        embed: int = 16,
        input_hidden: int | None = None,
        hidden: int = 16,
        heads: Sequence[int] = (4, 1),
        softmax: str = "across",
        score: str = "additive",
        attn_feats: int = 1,
        num_bases: int | None = None,
        num_attn_bases: int | None = None,
        num_blocks: int | None = None,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        readout: bool = False,
    ) -> None:
        super().__init__()
        joined = join_relations(joined)
        check_whole(1, num_outputs=num_outputs)
        check_target(target, joined.num_dst)
        sizes = {**joined.num_src, **joined.num_dst}
        featured = sorted(ntype for ntype in sizes if in_feats.get(ntype) is not None)
        if one_hot and featured:
            raise RecipeError(f"model.one_hot: expected no node type with features, got features of {featured}")
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop)
        check_whole(
            1,
            embed=embed,
            input_hidden=input_hidden,
            num_bases=num_bases,
            num_attn_bases=num_attn_bases,
            num_blocks=num_blocks,
        )
        check_whole(1, attn_feats=attn_feats)
        self.target = target
        self.one_hot = one_hot
        self.bring({} if one_hot else sizes, in_feats, embed, input_hidden)
        if one_hot:
            self.ntypes, self.featured = tuple(sizes), (False,) * len(sizes)
        options: dict[str, Any] = {
            "softmax": softmax,
            "score": score,
            "attn_feats": attn_feats,
            "num_attn_bases": num_attn_bases,
            "feat_drop": feat_drop,
            "attn_drop": attn_drop,
            "negative_slope": negative_slope,
        }
        self.layers = nn.ModuleList()
        self.skips = nn.ModuleList()
        width = embed
        for depth, count in enumerate(heads):
            last = depth == len(heads) - 1 and not readout
            out = num_outputs if last else hidden
            if one_hot and depth == 0:
                self.layers.append(FeaturelessRGATConv(joined, out, count, **options))
            else:
                shared = {**options, "num_bases": num_bases, "num_blocks": num_blocks}
                self.layers.append(RGATConv(width, out, count, joined.etypes, **shared))
            if residual:
                no_input = one_hot and depth == 0
                self.skips.append(nn.Identity() if no_input else nn.Linear(width, out if last else out * count))
            width = out * count
        self.readout = nn.Linear(width, num_outputs) if readout else None

    @staticmethod
    def prepare(
        shown: Facts, *, inverse: bool = True, self_relation: bool = True, without: Sequence[str] = ()
    ) -> tuple:
        """(graph, features): inverse and self relations added, all relations joined, but for those named in without."""
        graph = relations.extended(shown.graph, inverse=inverse, self_relation=self_relation, without=without)
        join_relations(graph)  # kept with the graph
        return graph, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "RGAT":
        """A model for the relations of the prepared graph, as wide as the features; RecipeError for no target."""
        joined, feat = join_relations(inputs[0]), inputs[1]
        ntypes = {**joined.num_src, **joined.num_dst}
        return cls(joined, widths(feat, ntypes), shown.num_classes, shown.target, **settings)

    def start(self, feat: Features, nodes: Mapping[str, Tensor | None] | None = None) -> dict[str, Tensor] | None:
        """What the first layer receives, {node type: [N, embed]}; nodes: {type: ids} where only some nodes are here."""
        if self.one_hot and nodes is not None:
            raise RecipeError("model.one_hot: expected false on blocks, got true: layer one has a row per relation")
        return None if self.one_hot else super().start(feat, nodes)

    def _layer(self, depth, joined, h):
        """{node type: [N_dst, width]} behind layer `depth`."""
        last = depth == len(self.layers) - 1
        answers = last and self.readout is None
        out = {t: z.mean(1) if answers else z.flatten(1) for t, z in self.layers[depth](joined, h).items()}
        width = next(iter(out.values())).shape[1]
        for t, count in (joined.num_dst if joined.is_block else joined.num_src).items():
            if t not in out:  # a type that receives nothing: zeros, as for any node without in-edges
                out[t] = self.layers[depth].attention_kernel()[0].new_zeros((count, width))
        if len(self.skips) and h is not None:
            out = {t: z + self.skips[depth](h[t][: len(z)]) for t, z in out.items()}
        if answers:
            return out
        out = {t: F.relu(z) for t, z in out.items()}
        return {self.target: self.readout(out[self.target])} if last and self.readout is not None else out

    def step(self, depth: int, graph: JoinedRelations | DGLGraph, h: Any) -> Any:
        """Layer `depth`, counted from 0, on a graph or block: {type: [N_src, width]} -> {type: [N_dst, width]}."""
        h = self._layer(depth, join_relations(graph), h)
        return h[self.target] if depth == len(self.layers) - 1 else h

    def hidden_states(self, graph: RelationsOrBlocks, feat: Features) -> tuple[list[dict[str, Tensor] | None], Tensor]:
        """What each layer receives: a list of {node type: [N, width]}, and the logits behind them."""
        parts = [join_relations(part) for part in per_layer(graph, len(self.layers))]
        h: Any = self.start(feat, source_ids(graph))
        states = []
        for depth, part in enumerate(parts):
            states.append(h)
            h = self._layer(depth, part, h)
        return states, h[self.target]

    def forward(self, graph: RelationsOrBlocks, feat: Features) -> Tensor:
        """Logits of the nodes of the target type.

        graph: a DGLGraph or joined relations, feat {node type: [N, F] or None} -> [N_target, C]; or DGL's blocks, one
        per layer, and features of the first one's sources -> [N_dst, C], of the last one's destinations. Not on blocks:
        one_hot.
        Raises GraphError for other relations, ShapeError for features that do not fit, RecipeError for another number
        of blocks than layers.
        """
        return self.hidden_states(graph, feat)[1]

    def attention(self, graph: RelationsOrBlocks, feat: Features) -> list[dict[tuple[str, str, str], Tensor]]:
        """alpha of every layer, a list of {relation: [E_r, H]}."""
        states, _ = self.hidden_states(graph, feat)
        parts = [join_relations(part) for part in per_layer(graph, len(self.layers))]
        return [
            layer(part, h, get_attention=True)[1] for layer, part, h in zip(self.layers, parts, states, strict=True)
        ]
