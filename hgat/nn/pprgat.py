"""PPRGAT: attention whose scores know how near a neighbour is by personalised PageRank."""

from collections.abc import Callable
from typing import Any, Literal

import dgl
import torch
from torch import nn

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape
from hgat.nn.common import (
    Layer,
    add_residual,
    both_ends,
    check_activation,
    check_floats,
    check_in_degrees,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    edge_column,
    end_scores,
    feature_pair,
    glorot_,
    linear_pair,
    negative_slope,
    projected_ends,
    projections,
    residual_linear,
    weighted,
)

__all__ = ["PPRGATConv"]

SCORES = ("v1", "v2")


class PPRGATConv(Layer):
    """Graph attention layer with Pi_vu in the score, the personalised PageRank of sender u for receiver v.

        v1: e_uv = leaky_relu(attn_l . (W h_u) + attn_r . (W h_v) + b Pi_vu)
        v2: e_uv = attn . leaky_relu(W_src h_u + W_dst h_v) + b Pi_vu
        alpha = softmax over u of e_uv;  out_v = sum_u alpha_uv W h_u  [+ residual]  [+ bias]

    b is a number per head, 0 at first: the layer begins as GATConv (v1) or GATv2Conv (v2), whose parameters its own
    are, by name, shape and initialisation; in v2 the biases are inside the projections. Pi stands on edges, so that its
    edges may be those of a graph, or from a node's nearest by Pi: hgat.graph.ppr_values and ppr_graph make the two.
    in_feats: F, or (F_src, F_dst). value_drop: dropout on W h_u before the sum. use_ppr=False: no b, as a control.

    h [N, F], Pi [E], out [N_dst, H, D]; forward says the rest. Raises ShapeError for an argument out of range.
    Paper: Choi 2022, arXiv:2205.14259. v2 is that of the authors' code, with the term outside of the leaky ReLU.
    Differs: in that code the product of Pi [E] and b [1, H, 1] is summed over the edges to one number per head, which
    the softmax of v2 takes away again and v1 only adds to what the leaky ReLU is given; here it is b Pi_vu, a number
    per edge and head. The L1 penalty of that code on rows of alpha, which sum to one, is a constant and left out.
    """

    attn: nn.Parameter
    attn_ppr: nn.Parameter | None
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
        score: Literal["v1", "v2"] = "v1",
        value_drop: float = 0.0,
        use_ppr: bool = True,
    ) -> None:
        super().__init__()
        ends = self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        if not isinstance(score, str) or score not in SCORES:
            raise ShapeError(f"score: expected 'v1' or 'v2', got {brief(score)}")
        width, first = num_heads * out_feats, score == "v1"
        self._num_heads, self._out_feats, self.score = num_heads, out_feats, score
        self._allow_zero_in_degree = allow_zero_in_degree
        linear_pair(self, in_feats if first else ends, width, bias=bool(bias) and not first)
        for name in ("attn_l", "attn_r") if first else ("attn",):
            self.register_parameter(name, nn.Parameter(torch.empty(1, num_heads, out_feats)))
        self.register_parameter("attn_ppr", nn.Parameter(torch.empty(1, num_heads)) if use_ppr else None)
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.register_module("res_fc", residual_linear(self._in_dst_feats, width, bias) if residual else None)
        # A linear residual brings its own bias; a second one would be redundant.
        own_bias = bool(bias) and first and not isinstance(self.res_fc, nn.Linear)
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if own_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zeros for biases and for what multiplies Pi."""
        # In the order of GATConv and GATv2Conv, which then begin with the same numbers.
        linear = {id(fc): fc.weight for fc in projections(self)}
        glorot_(*linear.values(), *((self.attn_l, self.attn_r) if self.score == "v1" else (self.attn,)))
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
        for name, parameter in self.named_parameters():
            if name == "attn_ppr" or name.endswith("bias"):
                nn.init.zeros_(parameter)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        ppr: torch.Tensor | None,
        edge_weight: torch.Tensor | None = None,
        get_attention: bool = False,
        *,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every destination, out [N_dst, H, D]; with get_attention (out, alpha [E, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, F], on a block with
        the destinations first, or a pair ([N_src, F_src], [N_dst, F_dst]). ppr: Pi [E], of floats, in the graph's edge
        order; not looked at without use_ppr. edge_weight: [E], multiplies alpha. edge_mask: [E] or [E, H] bool, False
        for an edge that has no part in the softmax. alpha is before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        layers, widths = projections(self), (self._in_src_feats, self._in_dst_feats)
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        check_plain("feat", h_src, h_dst)
        near = None
        if self.attn_ppr is not None:
            check_floats("ppr", ppr, self.attn_ppr)
            check_shape("ppr", ppr, ("E", graph.num_edges()))
            near = ppr.unsqueeze(1) * self.attn_ppr  # type: ignore[union-attr]
        shape = (self._num_heads, self._out_feats)
        value, at_dst = projected_ends(layers, h_src, h_dst, one_input, shape)
        mask: dict[str, Any] = {"edge_mask": edge_column(edge_mask)}
        slope = negative_slope(self)
        scores: tuple[Any, ...]
        if self.score == "v1":
            ends: Any = zip(layers, (h_src, h_dst), (value, at_dst), (self.attn_l, self.attn_r), strict=True)
            scores = (*(end_scores(*end) for end in ends), near)
        else:
            # What softmax(e + b Pi) gives is softmax(log softmax(e) + b Pi), and e is never made at [E, H, D].
            e = ops.gatv2_weights(graph, value, at_dst, self.attn.squeeze(0), negative_slope=slope, **mask)
            e = e.clamp(min=torch.finfo(e.dtype).tiny).log()
            nothing = value.new_zeros(len(value), shape[0]), value.new_zeros(len(at_dst), shape[0])
            scores, slope = (*nothing, e if near is None else e + near), 1.0
        edge_weight, options = edge_column(edge_weight), {"negative_slope": slope, **mask}
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.additive_attention(
            graph, self.value_drop(value), *scores, edge_weight=edge_weight, dropout=dropout, **options
        )
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha: Any = ops.additive_weights(graph, *scores, **options).clone()
        return out, weighted(alpha, edge_weight).unsqueeze(-1)
