"""SiGAT's layer: an attention of its own for every motif of signed edges."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph.csr import beside
from hgat.graph.metapath import Views
from hgat.graph.motifs import KINDS
from hgat.nn.common import Layer, check_floats, check_sizes

__all__ = ["SiGATConv"]

SLOPE = 0.1


class SiGATConv(Layer):
    """Attention over the neighbours under each of M motifs, with its own projection, score and softmax.

        t_v^m = W_m x_v + b_m;   e_uv^m = leaky_relu(a_m . [t_u^m || t_v^m])
        alpha^m = softmax over the v that u attends to under m, itself among them;   out_u^m = sum_v alpha_uv^m t_v^m

    in_feats, out_feats: F, D. num_channels: M, 38, 6 or 2 in the paper's code. The slope of the leaky ReLU is 0.1.
    score: "motif", this; "edge_type", one channel of all signed edges whose score is a perceptron of both ends and of
    the kind of edge, out, in, positive, negative:
        e_uv = a . leaky_relu(Q x_u + K x_v + r_kind)

    Raises ShapeError for sizes that are not positive, another score, and for "edge_type" with several channels.
    Paper: Huang et al. 2019, arXiv:1906.10958. The equations are those of the authors' code. "edge_type" is not in it.
    """

    def __init__(
        self, in_feats: int, out_feats: int, num_channels: int = 38, *, score: Literal["motif", "edge_type"] = "motif"
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_channels = check_sizes(
            in_feats=in_feats, out_feats=out_feats, num_channels=num_channels
        )
        if score not in ("motif", "edge_type"):
            raise ShapeError(f"score: expected 'motif' or 'edge_type', got {score!r}")
        if score == "edge_type" and num_channels != 1:
            raise ShapeError(f"num_channels: expected 1 with score = 'edge_type', got {num_channels}")
        self._in_feats, self.num_channels, self.score = in_feats, num_channels, score
        self.weight = nn.Parameter(torch.empty(num_channels, in_feats, out_feats))
        self.bias = nn.Parameter(torch.empty(num_channels, 1, out_feats))
        if score == "motif":
            self.attn_dst = nn.Parameter(torch.empty(num_channels, 1, out_feats))
            self.attn_src = nn.Parameter(torch.empty(num_channels, 1, out_feats))
        else:
            self.query, self.key = (nn.Linear(in_feats, out_feats, bias=False) for _ in range(2))
            self.kind = nn.Embedding(len(KINDS), out_feats)
            self.attn = nn.Parameter(torch.empty(1, out_feats))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal weights, as in the authors' code, and zero biases."""
        for name, parameter in self.named_parameters():
            if name == "bias":
                nn.init.zeros_(parameter)
            else:
                fan_in = self._in_feats if parameter.dim() == 2 or name == "weight" else parameter.shape[-1]
                nn.init.normal_(parameter, std=(2.0 / fan_in) ** 0.5)

    def forward(self, views: Views, feat: Tensor, get_attention: bool = False) -> Any:
        """A row of every node under every motif.

        views: what hgat.graph.signed_motifs gives, of M motifs; feat [N, F] -> out [N, M, D], and with get_attention
        alpha [E, 1] in the order of views.graph. A node that meets nobody under a motif has t_u there.
        Raises GraphError for anything but such views, ShapeError for features unlike them or the layer.
        """
        if not isinstance(views, Views) or views.num_views != self.num_channels:
            got = f"{views.num_views} views" if isinstance(views, Views) else type(views).__name__
            raise GraphError(f"views: expected what hgat.graph.signed_motifs gives for {self.num_channels}, got {got}")
        graph = views.graph
        if self.score == "edge_type" and "kind" not in graph.edata:
            raise GraphError("views: expected hgat.graph.signed_motifs(graph, 1) for score = 'edge_type', got others")
        check_floats("feat", feat, self.weight)
        check_shape("feat", feat, ("N", views.num_dst), ("F", self._in_feats))
        value = feat @ self.weight + self.bias  # [M, N, D]
        rows = value.flatten(0, 1).unsqueeze(1)
        if self.score == "motif":
            scores = [self._scores(feat, attn) for attn in (self.attn_src, self.attn_dst)]
            out = ops.additive_attention(graph, rows, *scores, negative_slope=SLOPE)
        else:
            kind = beside(graph, "kind", graph.edata["kind"], feat.device)
            at_src, at_dst, at_edge = (x.unsqueeze(1) for x in (self.key(feat), self.query(feat), self.kind(kind)))
            alpha = ops.gatv2_weights(graph, at_src, at_dst, self.attn, at_edge, negative_slope=SLOPE)
            out = ops.weighted_sum(graph, rows, alpha)
        out = out.view(self.num_channels, views.num_dst, -1).transpose(0, 1)
        if not get_attention:
            return out
        if self.score == "motif":
            alpha = ops.additive_weights(graph, *scores, negative_slope=SLOPE)
        return out, alpha.clone()  # a copy: who overwrites it must not overwrite what backward reads

    def _scores(self, feat: Tensor, attn: Tensor) -> Tensor:
        """a . t_v^m of every node, [M * N, 1]: x (W a) + b . a, for which t is not read."""
        at = feat @ (self.weight * attn).sum(-1).t() + (self.bias * attn).sum((1, 2))
        return at.t().reshape(-1, 1)
