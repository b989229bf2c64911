"""FAGCN as a whole model."""

from typing import Any

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.errors import check_shape
from hgat.graph import homogeneous, normalized
from hgat.models._batches import Features, one_type
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn import FAConv
from hgat.nn.common import check_floats, check_graph, check_rates, check_sizes, glorot_

__all__ = ["FAGCN"]


class FAGCN(System):
    """Frequency-adaptive graph convolution: one hidden map, layers that only weigh and add, one map to the classes.

        h0 = ReLU(W_1 x);   h^l = eps h0 + sum_u alpha_uv / sqrt(d_u d_v) h^(l-1)_u;   logits = W_2 h^L

    in_feats: F. num_outputs: C. hidden: width. layers: L. eps, signed, gate_bias (bias there), attn_drop: see
    hgat.nn.FAConv. feat_drop: rate of dropout on x and on h0, whose dropped rows are those of the residual, too.
    Raises ShapeError for sizes and rates out of range.
    Paper: Bo et al. 2021, arXiv:2101.00797. Differs: gate_bias, and dropout on the weights, are of the authors' code,
    which has one rate of dropout for everything.
    """

    ablations = {"unsigned": Ablation("positive weights", {"signed": False})}

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 32,
        layers: int = 2,
        eps: float = 0.3,
        signed: bool = True,
        gate_bias: bool = True,
        feat_drop: float = 0.5,
        attn_drop: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(in_feats=in_feats, num_outputs=num_outputs, hidden=hidden, layers=layers)
        check_rates(feat_drop=feat_drop)
        self.feat_drop = nn.Dropout(feat_drop)
        self.fc_in, self.fc_out = nn.Linear(in_feats, hidden), nn.Linear(hidden, num_outputs)
        glorot_(self.fc_in.weight, self.fc_out.weight)
        options = {"eps": eps, "signed": signed, "bias": gate_bias, "attn_drop": attn_drop}
        self.layers = nn.ModuleList(FAConv(hidden, **options) for _ in range(layers))

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = False, undirected: bool = True) -> tuple:
        """(graph, features, 1 / sqrt(d_u d_v) of its edges); undirected: every edge in both directions, once."""
        graph = homogeneous.prepare(shown.graph, undirected=undirected)
        graph = graph if self_loops else dgl.remove_self_loop(graph)
        return graph, dict(shown.feat), normalized(graph)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "FAGCN":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, **settings)

    def _start(self, graph, feat):
        """h0."""
        check_graph(graph)
        x = one_type(feat)
        check_floats("feat", x, self.fc_in.weight)
        check_shape("feat", x, ("N", graph.num_nodes()), ("F", self.fc_in.in_features))
        return self.feat_drop(F.relu(self.fc_in(self.feat_drop(x))))

    def forward(self, graph: dgl.DGLGraph, feat: Features, edge_weight: Tensor | None = None) -> Tensor:
        """Logits of every node.

        graph: DGLGraph, without self-loops in the paper; feat [N, F] or {node type: [N, F]}; edge_weight [E],
        1 / sqrt(d_u d_v) by default -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for tensors that do not fit.
        """
        h = initial = self._start(graph, feat)
        for layer in self.layers:
            h = layer(graph, h, initial, edge_weight)
        return self.fc_out(h)

    def attention(self, graph: dgl.DGLGraph, feat: Features, edge_weight: Tensor | None = None) -> list[Tensor]:
        """alpha of every layer, signed and without 1 / sqrt(d_u d_v): a list of [E, 1]."""
        h = initial = self._start(graph, feat)
        found = []
        for layer in self.layers:
            h, alpha = layer(graph, h, initial, edge_weight, get_attention=True)
            found.append(alpha)
        return found

    def attended(self, graph: dgl.DGLGraph, feat: Features, edge_weight: Tensor | None = None) -> list[Shares]:
        """How much of the sum of |alpha| is positive and how much negative, of every layer."""
        found, what = [], {"what": "share of the sum of |alpha|", "even": "uniform attention"}
        for depth, alpha in enumerate(self.attention(graph, feat, edge_weight), 1):
            sizes = torch.stack([alpha.clamp(min=0).sum(), -alpha.clamp(max=0).sum()])
            if sizes.sum() > 0:
                shares = tuple((sizes / sizes.sum()).tolist())
                names = "positive", "negative"
                found.append(Shares(f"|alpha| by sign, layer {depth}", names, shares, (1.0, 0.0), **what))
        return found
