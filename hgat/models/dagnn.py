"""DAGNN as a whole model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat import ops
from hgat.errors import RecipeError, check_whole
from hgat.graph import homogeneous, normalized
from hgat.models._batches import Features, one_type
from hgat.models._input import Perceptron, sparse_rows
from hgat.models._stack import feature_width
from hgat.models._system import Facts, Shares, System, pieces
from hgat.nn import DAGNNConv

__all__ = ["DAGNN"]


class DAGNN(System):
    """A perceptron makes logits, and every node weighs what these are over 0 to K hops of its neighbourhood.

        Z = MLP(X);   H_k = A^k Z;   logits_i = sum_{k=0..K} sigmoid(q . H_ik + b) H_ik

    in_feats: F. num_outputs: C. hidden: of the perceptron. hops: K; with 0 the model is the perceptron. propagation,
    gate: see hgat.nn.DAGNNConv; propagation = "gat" is the form with learned edges and a softmax over hops.
    feat_drop, hidden_drop: before either layer of the perceptron.
    Raises ShapeError for sizes, rates and names out of range.
    Paper: Liu, Gao and Ji 2020, arXiv:2007.09296. Differs: with graph.precompute the hops are those of X and the
    perceptron reads each of them, which nonlinearly is not the same; it is what trains in batches without a graph.
    """

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 64,
        hops: int = 10,
        propagation: Literal["fixed", "gat"] = "fixed",
        gate: Literal["sigmoid", "softmax"] | None = None,
        feat_drop: float = 0.8,
        hidden_drop: float = 0.8,
    ) -> None:
        super().__init__()
        self.mlp = Perceptron(in_feats, hidden, num_outputs, feat_drop, hidden_drop)
        self.conv = DAGNNConv(num_outputs, hops, propagation=propagation, gate=gate)

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        self_loops: bool = True,
        undirected: bool = False,
        precompute: int | None = None,
        hop_folder: str | None = None,
    ) -> tuple:
        """(graph, features, weights of its edges), or with precompute (None, precompute + 1 hops of features, None).

        self_loops, undirected: as for attention over one relation. precompute: how many hops are spread now.
        hop_folder: where these stay on disk, see hgat.ops.hop_features; in memory by default.
        """
        check_whole(0, precompute=precompute)
        if hop_folder is not None and precompute is None:
            raise RecipeError(f"graph.hop_folder: expected it beside graph.precompute, got {hop_folder!r} without")
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        if precompute is None:
            return graph, {ntype: sparse_rows(x) for ntype, x in shown.feat.items()}, normalized(graph)
        feature_width(shown.feat, shown.target)
        feat = one_type(dict(shown.feat))
        return None, ops.hop_features(graph, feat, precompute, normalized(graph), folder=hop_folder), None

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "DAGNN":
        """A model as wide as the features of the target type, and its classes; for as many hops as are prepared."""
        if isinstance(inputs[1], list):
            hops = len(inputs[1]) - 1
            if settings.setdefault("hops", hops) != hops or settings.get("propagation", "fixed") != "fixed":
                raise RecipeError(f"graph.precompute: expected model.hops of fixed propagation, got {hops}")
        return cls(feature_width(shown.feat, shown.target), shown.num_classes, **settings)

    def _hops(self, graph, feat, edge_weight):
        """H_0 to H_K, as what the layer takes for features."""
        if isinstance(feat, (list, tuple)):
            return [self.mlp(x) for x in feat]
        z = self.mlp(feat)
        return self.conv.spread(graph, z, edge_weight)

    def forward(
        self, graph: DGLGraph | None, feat: Features | Sequence[Tensor], edge_weight: Tensor | None = None
    ) -> Tensor:
        """Logits of every node.

        graph: DGLGraph with self-loops; feat [N, F] or {node type: [N, F]}; edge_weight [E], 1 / sqrt(d_u d_v) by
        default. Or no graph and feat a list of K + 1 tensors [N, F], the features' hops of the rows that are asked for
        -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for tensors that do not fit.
        """
        return self.conv(None, self._hops(graph, feat, edge_weight))

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None = None) -> tuple:
        """(the hops of the nodes `ids`, ()), which need no graph; RecipeError where hops were not computed before."""
        if not isinstance(inputs[1], list):
            raise RecipeError("task.batch: expected it of DAGNN beside graph.precompute, got it without")
        if fanout is not None:
            raise RecipeError(f"task.fanout: expected none for DAGNN, which samples no neighbours, got {list(fanout)}")
        return (None, [x[ids.to(x.device)] for x in inputs[1]], None), ()

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Logits of all nodes; batch_size: of hops that were computed before, that many rows at a time."""
        if batch_size is None or not isinstance(inputs[1], list):
            return self(*inputs)
        parts = pieces(len(inputs[1][0]), batch_size)
        return torch.cat([self(None, [x[part] for x in inputs[1]]) for part in parts])

    def attention(
        self, graph: DGLGraph | None, feat: Features | Sequence[Tensor], edge_weight: Tensor | None = None
    ) -> Tensor:
        """s of every node and hop, [N, K + 1]."""
        return self.conv(None, self._hops(graph, feat, edge_weight), get_attention=True)[1]

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of every hop in the sum of a node's gates, the mean over the nodes."""
        s = self.attention(*inputs)
        share = (s / s.sum(1, keepdim=True).clamp_min(1e-30)).mean(0)
        names = tuple(f"hop {k}" for k in range(len(share)))
        even = (1 / len(share),) * len(share)
        what: dict[str, Any] = {
            "what": "mean share of a node's gates",
            "even": "if all hops counted alike",
            "ordered": True,
        }
        return [Shares("attention over hops", names, tuple(share.tolist()), even, **what)]
