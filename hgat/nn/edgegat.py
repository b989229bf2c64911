"""GAT with edge features."""

from collections.abc import Callable
from typing import Any

import dgl
import torch
from torch import nn

from hgat import ops
from hgat.nn.common import (
    Layer,
    add_residual,
    both_ends,
    check_activation,
    check_in_degrees,
    check_number,
    check_rates,
    check_sizes,
    drop_edges,
    edge_column,
    edge_features,
    end_scores,
    feature_pair,
    glorot_,
    linear_pair,
    negative_slope,
    projected_ends,
    projections,
    repeated,
    weighted,
    with_extra_axes,
)
from hgat.ops.dropout import attention_dropout

__all__ = ["EdgeGATConv"]


class EdgeGATConv(Layer):
    """GAT layer with edge features, with the constructor, parameters and results of `dgl.nn.EdgeGATConv`.

        logit_uv = leaky_relu(attn_l . (W h_u) + attn_r . (W h_v) + attn_edge . (W_e x_uv))
        out_v = sum_u alpha_uv (W h_u + W_e x_uv)  [+ W_res h_v]  [+ bias]

    in_feats: F, or (F_src, F_dst). edge_feats: F_e. Not in DGL: edge_drop, the share of edges that a training step
    leaves out of the softmax.

    h [N, *, F], x [E, F_e], out [N_dst, *, H, D]; forward says the rest. Raises ShapeError for an argument out of
    range.

    Paper: Kaminski et al. 2021, "Rossmann-Toolbox: a deep learning-based protocol for the prediction and design of
    cofactor specificity in Rossmann fold proteins", after DGL's documentation of the layer. Differs from DGL: W_e is
    applied after the sum over edges, which is the same by linearity and keeps edges x heads x width out of memory.
    """

    # What a layer has that was built by DGL's constructor and became this class.
    edge_drop = 0.0
    bias: nn.Parameter | None
    res_fc: nn.Linear | None

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        edge_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = True,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        edge_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        sizes = check_sizes(edge_feats=edge_feats, out_feats=out_feats, num_heads=num_heads)
        edge_feats, out_feats, num_heads = sizes
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, edge_drop=edge_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        self._num_heads, self._out_feats, self._edge_feats = num_heads, out_feats, edge_feats
        self._allow_zero_in_degree = allow_zero_in_degree
        self.edge_drop = edge_drop
        width = num_heads * out_feats
        linear_pair(self, in_feats, width)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.register_module("res_fc", nn.Linear(self._in_dst_feats, width, bias=False) if residual else None)
        self.fc_edge = nn.Linear(edge_feats, width, bias=False)
        self.attn_edge = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero bias."""
        linear = {id(fc): fc.weight for fc in projections(self)}
        glorot_(*linear.values(), self.attn_l, self.attn_r, self.fc_edge.weight, self.attn_edge)
        if self.res_fc is not None:
            glorot_(self.res_fc.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        edge_feat: torch.Tensor,
        get_attention: bool = False,
        *,
        edge_weight: torch.Tensor | None = None,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every destination, out [N_dst, *, H, D]; with get_attention (out, alpha [E, *, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, *, F], on a block with
        the destinations first, or a pair ([N_src, *, F_src], [N_dst, *, F_dst]). edge_feat: [E, F_e]. Not in DGL's
        layer: edge_weight [E], which multiplies alpha; edge_mask [E] or [E, H] bool, False for an edge that has no part
        in the softmax. alpha is in the graph's edge order, before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        edge_features(self, graph, edge_feat)
        shape = heads, width = self._num_heads, self._out_feats
        layers = fc_src, fc_dst = projections(self)
        widths = self._in_src_feats, self._in_dst_feats
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        prefix = h_dst.shape[:-1]
        value, at_dst = projected_ends(layers, h_src, h_dst, one_input, shape)
        weight_edge = self.fc_edge.weight.unflatten(0, shape)
        score_edge = edge_feat @ torch.einsum("hdf,hd->fh", weight_edge, self.attn_edge.squeeze(0))
        copies = prefix[1:].numel()
        scores = (
            end_scores(fc_src, h_src, value, self.attn_l),
            end_scores(fc_dst, h_dst, at_dst, self.attn_r),
            repeated(score_edge, copies),
        )
        if self.training and self.edge_drop > 0:
            edge_mask = drop_edges(graph, self.edge_drop, edge_mask, value.device)
        edge_weight = edge_column(edge_weight, copies)
        options: dict[str, Any] = {"negative_slope": negative_slope(self), "edge_mask": edge_column(edge_mask, copies)}
        alpha = ops.additive_weights(graph, *scores, **options)
        dropped = attention_dropout(alpha, self.attn_drop.p) if self.attn_drop.training else alpha
        dropped = weighted(dropped, edge_weight)
        out = ops.weighted_sum(graph, with_extra_axes(value, prefix), dropped).reshape(*prefix, *shape)
        # sum_u alpha W_e x = W_e sum_u alpha x: the sum runs over F_e numbers an edge and not over H * D.
        edge_sum = ops.edge_weighted_sum(graph, edge_feat, dropped).reshape(*prefix, heads, self._edge_feats)
        out = out + torch.einsum("...hf,hdf->...hd", edge_sum, weight_edge)
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha = weighted(alpha.clone(), edge_weight)
        return out, alpha.reshape(graph.num_edges(), *prefix[1:], heads, 1)
