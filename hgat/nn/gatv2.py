"""GATv2: dynamic attention."""

import torch
from torch import nn

from hgat import ops
from hgat.nn.common import both_ends, check_in_degrees, feature_pair, glorot_, projected_ends

__all__ = ["GATv2Conv"]


class GATv2Conv(nn.Module):
    """Dynamic graph attention layer, with the constructor, parameters and results of `dgl.nn.GATv2Conv`.

        logit_uv = attn . leaky_relu(W_src h_u + W_dst h_v);  alpha = softmax over u
        out_v = sum_u alpha_uv W_src h_u  [+ residual]

    in_feats: F, or (F_src, F_dst). share_weights: W_dst = W_src, as in all experiments of the paper; ignored, as
    in DGL, for a pair of widths. bias: biases inside the projections.

    forward: graph with one relation; feat [N, F] or a pair; edge_weight [E], a keyword, multiplies alpha (not in DGL)
    -> [N_dst, H, D], and with get_attention alpha [E, H, 1].
    Raises DGLError for a node without in-edges unless allow_zero_in_degree; ShapeError for feat unlike the graph.

    Paper: Brody et al. 2022, arXiv:2105.14491, eq. 7. Differs from DGL: the attention returned is before dropout.
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
        share_weights=False,
    ):
        super().__init__()
        self._in_feats = feature_pair(in_feats)
        self._out_feats = out_feats
        self._num_heads = num_heads
        self._negative_slope = negative_slope
        self._allow_zero_in_degree = allow_zero_in_degree
        self.share_weights = share_weights
        width = num_heads * out_feats
        self.fc_src = nn.Linear(self._in_feats[0], width, bias=bias)
        one_width = not isinstance(in_feats, tuple)
        self.fc_dst = self.fc_src if share_weights and one_width else nn.Linear(self._in_feats[1], width, bias=bias)
        self.attn = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.activation = activation
        self.register_module("res_fc", None)
        if residual:
            same_width = self._in_feats[1] == width
            self.res_fc = nn.Identity() if same_width else nn.Linear(self._in_feats[1], width, bias=bias)
        self.reset_parameters()

    def reset_parameters(self):
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        linear = [self.fc_src]
        if self.fc_dst is not self.fc_src:
            linear.append(self.fc_dst)
        if isinstance(self.res_fc, nn.Linear):
            linear.append(self.res_fc)
        glorot_(*(layer.weight for layer in linear), self.attn)
        for layer in linear:
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def set_allow_zero_in_degree(self, set_value):
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(self, graph, feat, get_attention=False, *, edge_weight=None):
        check_in_degrees(graph, self._allow_zero_in_degree)
        h_src, h_dst, one_input = both_ends(graph, feat, self._in_feats, self.feat_drop)
        shape = (self._num_heads, self._out_feats)
        feat_src, feat_dst = projected_ends((self.fc_src, self.fc_dst), h_src, h_dst, one_input, shape)
        attn = self.attn.squeeze(0)
        out = ops.gatv2_attention(
            graph,
            feat_src,
            feat_dst,
            attn,
            edge_weight=None if edge_weight is None else edge_weight.flatten(),
            negative_slope=self._negative_slope,
            dropout=self.attn_drop.p if self.attn_drop.training else 0.0,
        )
        if self.res_fc is not None:
            out = out + self.res_fc(h_dst).view(h_dst.shape[0], -1, self._out_feats)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        alpha = ops.gatv2_weights(graph, feat_src, feat_dst, attn, negative_slope=self._negative_slope)
        if edge_weight is not None:
            alpha = alpha * edge_weight.view(-1, 1)
        return out, alpha.unsqueeze(-1)
