"""ACM as a whole model."""

from collections.abc import Sequence
from typing import Any, Literal

import dgl
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.errors import RecipeError, check_range, check_whole
from hgat.graph import homogeneous
from hgat.models._batches import Features, Layered, one_type, over_layers, per_layer, source_ids
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, Shares
from hgat.nn.acm import CHANNELS, ACMConv
from hgat.nn.common import normalized_weights

__all__ = ["ACM"]


class ACM(Layered):
    """Adaptive channel mixing: in each layer a node weighs a low-pass, a high-pass and an identity channel.

        h^l = ReLU(ACMConv(drop(h^(l-1)))), the last without ReLU

    form: "acm", or "acmii" with the ReLU before the filter. channels, score_norm, scale_by_channels: see
    hgat.nn.ACMConv. structure: a channel ReLU(A W_A) besides, whose rows are learned for every node, so that the model
    knows no other graph. residual: drop(ReLU(x W_X)) is added to what the second layer receives. In the paper's names
    ACM-GCN and ACMII-GCN are `form` alone, + is score_norm, with structure where it helps, and ++ all three.

    in_feats: F. num_outputs: C. num_nodes: N, for structure. hidden: width. layers: L. feat_drop: rate of dropout.
    Raises ShapeError for sizes and rates out of range, RecipeError for structure without num_nodes and for a residual
    of one layer.
    Paper: Luan et al. 2022, arXiv:2210.07606. Differs, as the authors' code does: the last layer has no ReLU behind
    the sum, and a residual stands once and not in every layer. Their score_norm never runs on small graphs, for a name
    is misspelt there.
    """

    layers: Any
    skip: Any
    ablations = {"low_pass": Ablation("low-pass channel alone", {"channels": ("low",)})}

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        num_nodes: int | None = None,
        *,
        hidden: int = 64,
        layers: int = 2,
        form: Literal["acm", "acmii"] = "acm",
        channels: Sequence[str] = CHANNELS,
        structure: bool = False,
        residual: bool = False,
        score_norm: bool = False,
        scale_by_channels: bool = False,
        feat_drop: float = 0.5,
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs, hidden=hidden, layers=layers)
        check_range(0, 1, feat_drop=feat_drop)
        if structure and num_nodes is None:
            raise RecipeError("model.structure: expected num_nodes beside it, a row is learned for each, got none")
        if residual and layers == 1:
            raise RecipeError("model.residual: expected 2 layers or more, the second receives it, got 1")
        self.feat_drop = nn.Dropout(feat_drop)
        widths = [in_feats, *[hidden] * (layers - 1), num_outputs]
        self.layers = nn.ModuleList(
            ACMConv(
                widths[k],
                widths[k + 1],
                form=form,
                channels=channels,
                score_norm=score_norm,
                scale_by_channels=scale_by_channels,
                num_nodes=num_nodes if structure else None,
            )
            for k in range(layers)
        )
        self.skip = nn.Linear(in_feats, hidden) if residual else None

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = True) -> tuple:
        """(graph, features): every node is in its own mean once; undirected: every edge in both directions, once."""
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        normalized_weights(graph, "right")  # kept with the graph, for the layers
        return graph, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "ACM":
        """A model as wide as the features of the target type, its classes and, for structure, its nodes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, inputs[0].num_nodes(), **settings)

    def start(self, feat: Features, nodes: Any = None) -> Tensor:
        """What the first layer receives."""
        return one_type(feat)

    def step(self, depth: int, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        """Layer `depth`, counted from 0, on a graph or block: [N_src, width] -> [N_dst, width], of the last logits."""
        return self._step(depth, graph, h)[0]

    def _step(self, depth, graph, h):
        """(what layer `depth` gives, alpha)."""
        layer = self.layers[depth]
        nodes = None
        if layer.structure is not None and graph.is_block:
            (nodes,) = (source_ids([graph]) or {}).values()
        z, alpha = layer(graph, self.feat_drop(h), nodes=nodes, get_attention=True)
        if depth == len(self.layers) - 1:
            return z, alpha
        z = F.relu(z)
        if depth == 0 and self.skip is not None:
            # The destinations of a block are its first sources.
            z = z + self.feat_drop(F.relu(self.skip(h[: graph.num_dst_nodes()])))
        return z, alpha

    def forward(self, graph: dgl.DGLGraph | Sequence[dgl.DGLGraph], feat: Features) -> Tensor:
        """Logits of every node.

        graph: DGLGraph with self-loops, feat [N, F] or {node type: [N, F]}; or DGL's blocks, one per layer, and feat
        [N_src, F] of the first one's sources -> [N, C] or [N_dst, C].
        Raises RecipeError for another number of blocks than layers, ShapeError for features that do not fit.
        """
        return over_layers(self, graph, feat)

    def attention(self, graph: dgl.DGLGraph | Sequence[dgl.DGLGraph], feat: Features) -> list[Tensor]:
        """alpha of every layer, [N, C] each."""
        h, found = self.start(feat), []
        for depth, part in enumerate(per_layer(graph, len(self.layers))):
            h, alpha = self._step(depth, part, h)
            found.append(alpha)
        return found

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of every channel in every layer, the mean over the nodes."""
        found = []
        for depth, (layer, alpha) in enumerate(zip(self.layers, self.attention(*inputs), strict=True), 1):
            share, names = tuple(alpha.mean(0).tolist()), layer.names()
            even = (1 / len(names),) * len(names)
            title = f"attention over channels, layer {depth}"
            found.append(Shares(title, names, share, even, even="if all channels counted alike"))
        return found
