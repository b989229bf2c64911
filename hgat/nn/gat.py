"""GAT: additive attention."""

import torch
from torch import nn

from hgat import ops
from hgat.nn.common import (
    both_ends,
    check_in_degrees,
    end_scores,
    feature_pair,
    glorot_,
    linear_pair,
    projected_ends,
    projections,
    with_extra_axes,
)

__all__ = ["GATConv"]


class GATConv(nn.Module):
    """Graph attention layer, with the constructor, parameters and results of `dgl.nn.GATConv`.

        logit_uv = leaky_relu(attn_l . (W h_u) + attn_r . (W h_v));  alpha = softmax over u
        out_v = sum_u alpha_uv W h_u  [+ residual]  [+ bias]

    in_feats: F, or (F_src, F_dst) with one projection for each end. residual: identity where F = H * D, else
    linear. value_drop (not in DGL): dropout on W h_u before the sum, the third dropout of the authors' code.

    forward: graph with one relation (homogeneous, bipartite, block, slice of a heterograph); feat [N, *, F] or a
    pair; edge_weight [E] multiplies alpha. -> [N_dst, *, H, D], and with get_attention alpha [E, *, H, 1].
    Raises DGLError for a node without in-edges unless allow_zero_in_degree; ShapeError for feat unlike the graph.

    Paper: Velickovic et al. 2018, arXiv:1710.10903, eq. 1-6. Differs as DGL does: Glorot-normal initialisation, no
    bias inside the score. Differs from DGL: the attention returned is before dropout, and checked shapes raise
    ShapeError.
    """

    def __init__(
        self,
        in_feats,
        out_feats,
        num_heads,
        feat_drop=0.0,
        attn_drop=0.0,
        negative_slope=0.2,
        residual=False,
        activation=None,
        allow_zero_in_degree=False,
        bias=True,
        *,
        value_drop=0.0,
    ):
        super().__init__()
        self._in_feats = feature_pair(in_feats)
        self._out_feats = out_feats
        self._num_heads = num_heads
        self._negative_slope = negative_slope
        self._allow_zero_in_degree = allow_zero_in_degree
        linear_pair(self, in_feats, num_heads * out_feats)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.activation = activation
        self.register_module("res_fc", None)
        if residual:
            same_width = self._in_feats[1] == num_heads * out_feats
            self.res_fc = (
                nn.Identity() if same_width else nn.Linear(self._in_feats[1], num_heads * out_feats, bias=bias)
            )
        # A linear residual brings its own bias; a second one would be redundant.
        if bias and not isinstance(self.res_fc, nn.Linear):
            self.bias = nn.Parameter(torch.empty(num_heads * out_feats))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        glorot_(*{id(fc): fc.weight for fc in projections(self)}.values(), self.attn_l, self.attn_r)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
            if self.res_fc.bias is not None:
                nn.init.zeros_(self.res_fc.bias)

    def set_allow_zero_in_degree(self, set_value):
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(self, graph, feat, edge_weight=None, get_attention=False):
        check_in_degrees(graph, self._allow_zero_in_degree)
        h_src, h_dst, one_input = both_ends(graph, feat, self._in_feats, self.feat_drop)
        prefix = h_dst.shape[:-1]
        shape = (self._num_heads, self._out_feats)
        fc_src, fc_dst = projections(self)
        value, at_dst = projected_ends((fc_src, fc_dst), h_src, h_dst, one_input, shape)
        # a . [W h_u || W h_v] is a sum of one score per end, so no edge ever carries both vectors.
        score_src = end_scores(fc_src, h_src, value, self.attn_l)
        score_dst = end_scores(fc_dst, h_dst, at_dst, self.attn_r)
        if edge_weight is not None:
            edge_weight = edge_weight.flatten()
        out = ops.additive_attention(
            graph,
            with_extra_axes(self.value_drop(value), prefix),
            score_src,
            score_dst,
            edge_weight=edge_weight,
            negative_slope=self._negative_slope,
            dropout=self.attn_drop.p if self.attn_drop.training else 0.0,
        ).reshape(*prefix, *shape)
        if self.res_fc is not None:
            out = out + self.res_fc(h_dst).unflatten(-1, (-1, self._out_feats))
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        alpha = ops.additive_weights(graph, score_src, score_dst, negative_slope=self._negative_slope)
        if edge_weight is not None:
            alpha = alpha * edge_weight.unsqueeze(-1)
        return out, alpha.reshape(graph.num_edges(), *prefix[1:], self._num_heads, 1)
