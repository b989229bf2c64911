"""DySAT's structural attention: GAT inside every snapshot, all snapshots in one operator call."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph.csr import beside, edges
from hgat.graph.snapshots import Snapshots
from hgat.nn.common import (
    Layer,
    check_activation,
    check_floats,
    check_number,
    check_rates,
    check_sizes,
    end_scores,
    negative_slope,
)

__all__ = ["SnapshotGATConv"]


class SnapshotGATConv(Layer):
    """Attention to neighbours inside every one of T snapshots, with one set of weights.

        h_u = W x_u^t
        logit_uv = leaky_relu(w_uv (attn_l . h_u + attn_r . h_v))
        alpha = softmax over the u that enter v in snapshot t
        out_v^t = activation(sum_u alpha_uv h_u), heads side by side

    w_uv is the weight of the link, snapshots.graph.edata["weight"], or 1 without one. score: "gat" as above, or "dot",
    logit_uv = (Q x_v) . (K x_u) / sqrt(D), which has no place for w.

    x [N, F] or [T, N, F], out [T, N, H * D]; forward says the rest. Features that stay the same are projected once, and
    backward adds up their gradient over all snapshots in one pass. Raises ShapeError for an argument out of range.

    Paper: Sankar et al. 2019 (DySAT), arXiv:1812.09430, eq. 1. "dot" is not in the paper.
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = F.elu,
        *,
        score: Literal["gat", "dot"] = "gat",
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        if score not in ("gat", "dot"):
            raise ShapeError(f"score: expected 'gat' or 'dot', got {score!r}")
        self._in_feats, self._out_feats, self._num_heads = in_feats, out_feats, num_heads
        self.score = score
        width = num_heads * out_feats
        self.fc = nn.Linear(in_feats, width, bias=False)
        if score == "gat":
            self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
            self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        else:
            self.fc_query = nn.Linear(in_feats, width, bias=False)
            self.fc_key = nn.Linear(in_feats, width, bias=False)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform, as in the authors' code."""
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        snapshots: Snapshots,
        feat: torch.Tensor | None = None,
        get_attention: bool = False,
        *,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every node in every snapshot, out [T, N, H * D]; with get_attention (out, alpha [E, H]).

        snapshots: what hgat.graph.snapshots gives for one node and edge type. feat: [N, F], the same in all of them,
        [T, N, F], or None for one-hot rows (F = N), which are never written. edge_mask: [E] or [E, H] bool, False for
        an edge that has no part in the softmax. It and alpha, which is before dropout, are in the order of
        snapshots.graph. A node that has not appeared yet gets activation(0).

        Raises GraphError for anything but such snapshots, ShapeError for features unlike them or the layer.
        """
        graph, feat, steps = self._input(snapshots, feat)
        value = self._project(self.fc, feat)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        options: dict[str, Any] = {"edge_mask": edge_mask}
        if self.score == "gat":
            scores, options["negative_slope"] = self._scores(graph, feat, value, steps)
            out = ops.additive_attention(graph, value, *scores, dropout=dropout, **options)
        else:
            query = self._project(self.fc_query, feat).repeat(steps, 1, 1)
            key = self._project(self.fc_key, feat)
            out = ops.dot_product_attention(graph, query, key, value, dropout=dropout, **options)
        out = out.view(len(snapshots), snapshots.total_nodes, self._num_heads * self._out_feats)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        if self.score == "gat":
            alpha = ops.additive_weights(graph, *scores, **options)
        else:
            alpha = ops.dot_product_weights(graph, query, key, **options)
        return out, alpha.clone()  # a copy: who overwrites it must not overwrite what backward reads

    def _input(self, snapshots, feat):
        """(graph, features at its sources or the dropout of one-hot rows, how often a source is a destination)."""
        if not isinstance(snapshots, Snapshots) or snapshots.is_typed:
            got = "several node or edge types" if isinstance(snapshots, Snapshots) else type(snapshots).__name__
            raise GraphError(
                f"snapshots: expected what hgat.graph.snapshots gives for one node and edge type, got {got}"
            )
        nodes, steps = ("N", snapshots.total_nodes), len(snapshots)
        if feat is None:
            if self._in_feats != nodes[1]:
                raise ShapeError(f"feat: expected [N, F] = [{nodes[1]}, {self._in_feats}], got None for one-hot rows")
            # Dropout on a one-hot row takes the row or leaves it.
            return snapshots.shared, self.feat_drop(self.fc.weight.new_ones(nodes[1], 1)), steps
        check_floats("feat", feat, self.fc.weight)
        if feat.dim() == 3:
            check_shape("feat", feat, ("T", steps), nodes, ("F", self._in_feats))
            return snapshots.graph, self.feat_drop(feat.flatten(0, 1)), 1
        check_shape("feat", feat, nodes, ("F", self._in_feats))
        return snapshots.shared, self.feat_drop(feat), steps

    def _project(self, layer, feat):
        """[rows, H, D]."""
        rows = layer.weight.t() * feat if self._is_one_hot(feat) else layer(feat)
        return rows.unflatten(-1, (self._num_heads, self._out_feats))

    def _is_one_hot(self, feat):
        """True for the column that stands for one-hot rows after their dropout."""
        return feat.shape[1] == 1 != self._in_feats

    def _scores(self, graph, feat, value, steps):
        """(the operator's scores, slope)."""
        if self._is_one_hot(feat):
            at_src, at_dst = (value * self.attn_l).sum(-1), (value * self.attn_r).sum(-1)
        else:
            at_src, at_dst = (end_scores(self.fc, feat, value, attn) for attn in (self.attn_l, self.attn_r))
        if "weight" not in graph.edata:
            return (at_src, at_dst.repeat(steps, 1)), negative_slope(self)
        # leaky_relu(w s) of the paper, written on the edge: the operator's own scores do not know w.
        src, dst = edges(graph, value.device)
        weight = beside(graph, "weight", graph.edata["weight"], value.device).to(value.dtype).unsqueeze(1)
        logits = F.leaky_relu(weight * (at_src[src] + at_dst[dst % len(at_dst)]), negative_slope(self))
        none = at_src.new_zeros(1, self._num_heads)
        return (none.expand_as(at_src), none.expand(graph.num_dst_nodes(), -1), logits), 1.0
