"""GATv2: dynamic attention."""

from collections.abc import Callable
from typing import Any

import dgl
import torch
from torch import nn

from hgat import ops
from hgat.errors import check_whole
from hgat.nn.common import (
    Layer,
    add_residual,
    both_ends,
    check_activation,
    check_in_degrees,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    drop_edges,
    edge_column,
    edge_features,
    feature_pair,
    glorot_,
    negative_slope,
    projected_ends,
    residual_linear,
    weighted,
)

__all__ = ["GATv2Conv"]


class GATv2Conv(Layer):
    """Dynamic graph attention layer, with the constructor, parameters and results of `dgl.nn.GATv2Conv`.

        logit_uv = attn . leaky_relu(W_src h_u + W_dst h_v [+ W_e x_uv]);  alpha = softmax over u
        out_v = sum_u alpha_uv W_src h_u  [+ residual]

    in_feats: F, or (F_src, F_dst). share_weights: W_dst = W_src, as in all experiments of the paper; where in_feats is
    a pair both are there, as in DGL, and W_src serves both ends of one tensor, each its own end of a pair of tensors.
    bias: biases inside the projections. Not in DGL: edge_feats, F_e, and W_e; edge_drop, the share of edges that a
    training step leaves out of the softmax.

    h [N, F], out [N_dst, H, D]; forward says the rest. Raises ShapeError for an argument out of range.

    Paper: Brody et al. 2022, arXiv:2105.14491, eq. 7. Differs from DGL: the attention returned is before dropout.
    """

    # What a layer has that was built by DGL's constructor and became this class.
    _edge_feats, edge_drop = 0, 0.0
    res_fc: nn.Module | None

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        share_weights: bool = False,
        *,
        edge_feats: int | None = None,
        edge_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_whole(0, edge_feats=edge_feats)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, edge_drop=edge_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        width = num_heads * out_feats
        self._num_heads, self._out_feats, self._edge_feats = num_heads, out_feats, edge_feats or 0
        self._allow_zero_in_degree = allow_zero_in_degree
        self.share_weights, self.bias, self.edge_drop = share_weights, bias, edge_drop
        self.fc_src = nn.Linear(self._in_src_feats, width, bias=bias)
        shared = share_weights and not isinstance(in_feats, (tuple, list))
        self.fc_dst = self.fc_src if shared else nn.Linear(self._in_dst_feats, width, bias=bias)
        if edge_feats:
            self.fc_edge = nn.Linear(edge_feats, width, bias=False)
        self.attn = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.register_module("res_fc", residual_linear(self._in_dst_feats, width, bias) if residual else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        linear = [self.fc_src]
        if self.fc_dst is not self.fc_src:
            linear.append(self.fc_dst)
        if self._edge_feats:
            linear.append(self.fc_edge)
        glorot_(*(layer.weight for layer in linear), self.attn)
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
            linear.append(self.res_fc)
        for layer in linear:
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        get_attention: bool = False,
        *,
        edge_weight: torch.Tensor | None = None,
        edge_feat: torch.Tensor | None = None,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every destination, out [N_dst, H, D]; with get_attention (out, alpha [E, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, F], on a block with
        the destinations first, or a pair ([N_src, F_src], [N_dst, F_dst]). Not in DGL's layer: edge_weight [E], which
        multiplies alpha; edge_feat [E, F_e], given if and only if the layer has edge_feats; edge_mask [E] or [E, H]
        bool, False for an edge that has no part in the softmax. alpha is in the graph's edge order, before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        layers, widths = (self.fc_src, self.fc_dst), (self._in_src_feats, self._in_dst_feats)
        if self.share_weights and not isinstance(feat, (tuple, list)):
            # As in DGL one tensor is projected once, also where the layer was built with two projections.
            layers, widths = (self.fc_src,) * 2, widths[:1] * 2
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        check_plain("feat", h_src, h_dst)
        edge_features(self, graph, edge_feat)
        shape = (self._num_heads, self._out_feats)
        feat_src, feat_dst = projected_ends(layers, h_src, h_dst, one_input, shape)
        ends = feat_src, feat_dst, self.attn.squeeze(0)
        feat_edge = None if edge_feat is None else self.fc_edge(edge_feat).unflatten(-1, shape)
        edge_weight = edge_column(edge_weight)
        if self.training and self.edge_drop > 0:
            edge_mask = drop_edges(graph, self.edge_drop, edge_mask, feat_src.device)
        options: dict[str, Any] = {"negative_slope": negative_slope(self), "edge_mask": edge_column(edge_mask)}
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.gatv2_attention(graph, *ends, feat_edge, edge_weight=edge_weight, dropout=dropout, **options)
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha = weighted(ops.gatv2_weights(graph, *ends, feat_edge, **options).clone(), edge_weight)
        return out, alpha.unsqueeze(-1)
