"""GAT with edge features."""

import torch
from torch import nn

from hgat import ops
from hgat.errors import check_shape
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
from hgat.ops.dropout import attention_dropout

__all__ = ["EdgeGATConv"]


class EdgeGATConv(nn.Module):
    """GAT layer with edge features, with the constructor, parameters and results of `dgl.nn.EdgeGATConv`.

        logit_uv = leaky_relu(attn_l . (W h_u) + attn_r . (W h_v) + attn_edge . (W_e x_uv))
        out_v = sum_u alpha_uv (W h_u + W_e x_uv)  [+ W_res h_v]  [+ bias]

    in_feats: F, or (F_src, F_dst). edge_feats: F_e.

    forward: graph with one relation; feat [N, *, F] or a pair; edge_feat [E, F_e]; edge_weight [E], a keyword,
    multiplies alpha (not in DGL) -> [N_dst, *, H, D], and with get_attention alpha [E, *, H, 1].
    Raises DGLError for a node without in-edges unless allow_zero_in_degree; ShapeError for features unlike the graph.

    Paper: Kaminski et al. 2021, "Rossmann-Toolbox: a deep learning-based protocol for the prediction and design of
    cofactor specificity in Rossmann fold proteins", after DGL's documentation of the layer. Differs from DGL: W_e is
    applied after the sum over edges, which is the same by linearity and keeps edges x heads x width out of memory.
    """

    def __init__(
        self,
        in_feats,
        edge_feats,
        out_feats,
        num_heads,
        feat_drop=0.0,
        attn_drop=0.0,
        negative_slope=0.2,
        residual=True,
        activation=None,
        allow_zero_in_degree=False,
        bias=True,
    ):
        super().__init__()
        self._in_feats = feature_pair(in_feats)
        self._edge_feats = edge_feats
        self._out_feats = out_feats
        self._num_heads = num_heads
        self._negative_slope = negative_slope
        self._allow_zero_in_degree = allow_zero_in_degree
        width = num_heads * out_feats
        linear_pair(self, in_feats, width)
        self.fc_edge = nn.Linear(edge_feats, width, bias=False)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_edge = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.activation = activation
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.register_module("res_fc", nn.Linear(self._in_feats[1], width, bias=False) if residual else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Glorot-normal weights with the gain of ReLU, zero bias."""
        linear = {id(fc): fc.weight for fc in projections(self)}
        glorot_(*linear.values(), self.fc_edge.weight, self.attn_l, self.attn_r, self.attn_edge)
        if self.res_fc is not None:
            glorot_(self.res_fc.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_allow_zero_in_degree(self, set_value):
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(self, graph, feat, edge_feat, get_attention=False, *, edge_weight=None):
        check_in_degrees(graph, self._allow_zero_in_degree)
        check_shape("edge_feat", edge_feat, ("E", graph.num_edges()), ("F_e", self._edge_feats))
        heads, width = self._num_heads, self._out_feats
        h_src, h_dst, one_input = both_ends(graph, feat, self._in_feats, self.feat_drop)
        prefix = h_dst.shape[:-1]
        fc_src, fc_dst = projections(self)
        value, at_dst = projected_ends((fc_src, fc_dst), h_src, h_dst, one_input, (heads, width))
        weight_edge = self.fc_edge.weight.view(heads, width, self._edge_feats)
        score_edge = edge_feat @ torch.einsum("hdf,hd->fh", weight_edge, self.attn_edge.squeeze(0))
        copies = prefix[1:].numel()
        scores = (
            end_scores(fc_src, h_src, value, self.attn_l),
            end_scores(fc_dst, h_dst, at_dst, self.attn_r),
            score_edge.repeat(1, copies),
        )
        alpha = ops.additive_weights(graph, *scores, negative_slope=self._negative_slope)
        dropped = attention_dropout(alpha, self.attn_drop.p) if self.attn_drop.training else alpha
        if edge_weight is not None:
            alpha, dropped = alpha * edge_weight.view(-1, 1), dropped * edge_weight.view(-1, 1)
        out = ops.weighted_sum(graph, with_extra_axes(value, prefix), dropped).reshape(*prefix, heads, width)
        # sum_u alpha W_e x = W_e sum_u alpha x: the sum runs over F_e numbers an edge and not over H * D.
        edge_sum = ops.edge_weighted_sum(graph, edge_feat, dropped).reshape(*prefix, heads, self._edge_feats)
        out = out + torch.einsum("...hf,hdf->...hd", edge_sum, weight_edge)
        if self.res_fc is not None:
            out = out + self.res_fc(h_dst).unflatten(-1, (-1, width))
        if self.bias is not None:
            out = out + self.bias.view(heads, width)
        if self.activation:
            out = self.activation(out)
        return (out, alpha.reshape(graph.num_edges(), *prefix[1:], heads, 1)) if get_attention else out
