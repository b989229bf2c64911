"""GAT: additive attention."""

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
    check_rates,
    check_sizes,
    degree_power,
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
    residual_linear,
    weighted,
    with_extra_axes,
)

__all__ = ["GATConv"]

FEW = 2**24  # numbers in the rows of a graph that is small for a GPU, where reading them costs less than launches do


class GATConv(Layer):
    """Graph attention layer, with the constructor, parameters and results of `dgl.nn.GATConv`.

        logit_uv = leaky_relu(attn_l . (W h_u) + attn_r . (W h_v) [+ w_e . x_uv]);  alpha = softmax over u
        out_v = sum_u alpha_uv W h_u  [+ residual]  [+ bias]

    in_feats: F, or (F_src, F_dst) with one projection for each end. residual: identity where F = H * D, else linear.
    Not in DGL's layer, but in the one that its OGB examples write for themselves: edge_drop, the share of edges that a
    training step leaves out of the softmax, so that the others weigh more; use_attn_dst=False, no attn_r;
    use_symmetric_norm, W h_u times d_out(u)^-1/2 before the score and the sum times d_in(v)^1/2 behind, d at least 1;
    edge_feats, F_e, one number w_e . x_uv per head in the score. value_drop: dropout on W h_u before the sum, the third
    dropout of the authors' code.

    h [N, *, F], out [N_dst, *, H, D]; forward says the rest. Raises ShapeError for an argument out of range.

    Paper: Velickovic et al. 2018, arXiv:1710.10903, eq. 1-6. Differs as DGL does: Glorot-normal initialisation, no
    bias inside the score. Differs from DGL: the attention returned is before dropout, and checked shapes raise
    ShapeError.
    """

    # What a layer has that was built by DGL's constructor and became this class.
    _edge_feats, edge_drop, _use_symmetric_norm = 0, 0.0, False
    attn_r: nn.Parameter | None
    bias: nn.Parameter | None
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
        *,
        value_drop: float = 0.0,
        edge_drop: float = 0.0,
        edge_feats: int | None = None,
        use_attn_dst: bool = True,
        use_symmetric_norm: bool = False,
    ) -> None:
        super().__init__()
        self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_whole(0, edge_feats=edge_feats)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop, edge_drop=edge_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        width = num_heads * out_feats
        self._num_heads, self._out_feats, self._edge_feats = num_heads, out_feats, edge_feats or 0
        self._allow_zero_in_degree = allow_zero_in_degree
        self._use_symmetric_norm, self.edge_drop = use_symmetric_norm, edge_drop
        linear_pair(self, in_feats, width)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.register_parameter("attn_r", nn.Parameter(torch.empty(1, num_heads, out_feats)) if use_attn_dst else None)
        if edge_feats:
            self.fc_edge = nn.Linear(edge_feats, num_heads, bias=False)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.register_module("res_fc", residual_linear(self._in_dst_feats, width, bias) if residual else None)
        # A linear residual brings its own bias; a second one would be redundant.
        self.has_linear_res = isinstance(self.res_fc, nn.Linear)
        self.has_explicit_bias = bool(bias) and not self.has_linear_res
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if self.has_explicit_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        linear = {id(fc): fc.weight for fc in projections(self)}
        glorot_(*linear.values(), self.attn_l)
        if self.attn_r is not None:
            glorot_(self.attn_r)
        if self._edge_feats:
            glorot_(self.fc_edge.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
            if self.res_fc.bias is not None:
                nn.init.zeros_(self.res_fc.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def _in_one_step(self, value: torch.Tensor, one_projection: bool) -> bool:
        """Whether the operator makes the scores, too: on a GPU every step of a small graph costs its launch.

        Elsewhere the attention vectors are multiplied into the weight first, which reads less. one_projection: both
        ends' rows are those of `value`, and nobody asks for alpha.
        """
        plain = one_projection and self.attn_r is not None and not self._use_symmetric_norm
        dropped = self.value_drop.training and self.value_drop.p > 0  # which the scores do not see
        return plain and not dropped and value.dim() == 3 and value.device.type != "cpu" and value.numel() < FEW

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        edge_weight: torch.Tensor | None = None,
        get_attention: bool = False,
        *,
        edge_feat: torch.Tensor | None = None,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every destination, out [N_dst, *, H, D]; with get_attention (out, alpha [E, *, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, *, F], on a block with
        the destinations first, or a pair ([N_src, *, F_src], [N_dst, *, F_dst]). edge_weight: [E], multiplies alpha.
        Not in DGL's layer: edge_feat [E, F_e], given if and only if the layer has edge_feats; edge_mask [E] or [E, H]
        bool, False for an edge that has no part in the softmax. alpha is in the graph's edge order, before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        layers = fc_src, fc_dst = projections(self)
        widths = self._in_src_feats, self._in_dst_feats
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        edge_features(self, graph, edge_feat)
        prefix = h_dst.shape[:-1]
        shape = (self._num_heads, self._out_feats)
        if self.attn_r is None:
            value, at_dst = fc_src(h_src).unflatten(-1, shape), None
        else:
            value, at_dst = projected_ends(layers, h_src, h_dst, one_input, shape)
        copies = prefix[1:].numel()
        score_edge = None if edge_feat is None else repeated(self.fc_edge(edge_feat), copies)
        edge_weight = edge_column(edge_weight, copies)
        if self.training and self.edge_drop > 0:
            edge_mask = drop_edges(graph, self.edge_drop, edge_mask, value.device)
        options: dict[str, Any] = {"negative_slope": negative_slope(self), "edge_mask": edge_column(edge_mask, copies)}
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        drops: dict[str, Any] = {"edge_weight": edge_weight, "dropout": dropout}
        scores: tuple[Any, Any, Any] = (None, None, None)
        if self._in_one_step(value, one_input and fc_src is fc_dst and not get_attention):
            assert self.attn_r is not None
            out = ops.gat_attention(graph, value, self.attn_l, self.attn_r, score_edge, **drops, **options)
        else:
            # a . [W h_u || W h_v] is a sum of one score per end, so no edge ever carries both vectors.
            score_src = end_scores(fc_src, h_src, value, self.attn_l)
            if self.attn_r is None or at_dst is None:
                score_dst = score_src.new_zeros((graph.num_dst_nodes(), score_src.shape[1]))
            else:
                score_dst = end_scores(fc_dst, h_dst, at_dst, self.attn_r)
            if self._use_symmetric_norm:
                scale = degree_power(graph, "src", -0.5, value)
                value = value * scale.view(-1, *[1] * (value.dim() - 1))
                score_src = score_src * scale.unsqueeze(1)
            scores = score_src, score_dst, score_edge
            value = with_extra_axes(self.value_drop(value), prefix)
            out = ops.additive_attention(graph, value, score_src, score_dst, score_edge, **drops, **options)
        if len(prefix) > 1:
            out = out.reshape(*prefix, *shape)
        if self._use_symmetric_norm:
            out = out * degree_power(graph, "dst", 0.5, out).view(-1, *[1] * (out.dim() - 1))
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha = weighted(ops.additive_weights(graph, *scores, **options).clone(), edge_weight)
        return out, alpha.reshape(graph.num_edges(), *prefix[1:], self._num_heads, 1)
