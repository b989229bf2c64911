"""Simple-HGN's layer: GAT with the type of the edge in its score, and attention that remembers the layer before."""

from collections.abc import Callable
from typing import Any, Literal, overload

import dgl
import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import check_range, check_shape
from hgat.graph.relations import types_as_sources
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
    end_scores,
    first_rows,
    glorot_,
    negative_slope,
    residual_linear,
)

__all__ = ["SimpleHGNConv"]


class SimpleHGNConv(Layer):
    """Additive attention over edges of all types together, each type with an embedding in the score.

        logit_uv = leaky_relu(a_l . (W h_u) + a_r . (W h_v) + a_e . (W_e r_t(uv)));  alpha^ = softmax over all in-edges
        alpha_uv = (1 - beta) drop(alpha^_uv) + beta drop(res_attn_uv)     res_attn: alpha of the layer before, if given
        out_v = act(sum_u alpha_uv W h_u [+ W_res h_v] [+ bias])

    in_feats, out_feats: F, D. num_etypes: how many types of edges there are. edge_feats: the width of r_t and, per
    head, of W_e r_t. beta: what the attention of the layer before counts for. residual: the input itself where F is
    H * D, else a linear map of it. h [N, F], out [N_dst, H, D]; forward says the rest. Raises ShapeError for an
    argument out of range.

    Paper: Lv et al. 2021, arXiv:2112.14936, eq. 5-8, and the authors' code. Differs: the layer's alpha, which the next
    layer is given, is before dropout; W_e r_t is computed once for each type, never for an edge.
    """

    res_fc: nn.Module | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        num_etypes: int,
        edge_feats: int = 64,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = False,
        *,
        beta: float = 0.05,
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        num_etypes, edge_feats = check_sizes(num_etypes=num_etypes, edge_feats=edge_feats)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_range(0, 1, beta=beta)
        check_activation(activation)
        width = num_heads * out_feats
        self._in_feats, self._out_feats, self._num_heads = in_feats, out_feats, num_heads
        self._allow_zero_in_degree, self.beta = allow_zero_in_degree, beta
        self.edge_emb = nn.Embedding(num_etypes, edge_feats)
        self.fc = nn.Linear(in_feats, width, bias=False)
        self.fc_e = nn.Linear(edge_feats, edge_feats * num_heads, bias=False)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_e = nn.Parameter(torch.empty(1, num_heads, edge_feats))
        self.register_module("res_fc", residual_linear(in_feats, width, False) if residual else None)
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, embeddings from N(0, 1), zero bias."""
        self.edge_emb.reset_parameters()
        glorot_(self.fc.weight, self.fc_e.weight, self.attn_l, self.attn_r, self.attn_e)
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @overload
    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: Tensor,
        etype: Tensor,
        res_attn: Tensor | None = None,
        get_attention: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: Tensor,
        etype: Tensor,
        res_attn: Tensor | None = None,
        *,
        get_attention: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: Tensor,
        etype: Tensor,
        res_attn: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """New features of every destination, out [N_dst, H, D]; with get_attention (out, alpha [E, H]).

        graph: of one relation, homogeneous or a block. feat: [N, F], on a block with the destinations first. etype:
        [E], the type of every edge, whole numbers. res_attn: [E, H], alpha of the layer before on the same edges, of
        which no gradient is taken. alpha: before dropout, in the graph's edge order, without gradient.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for another graph and a type
        out of range, ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        h_src, h_dst, _ = both_ends(graph, feat, (self._in_feats,) * 2, self.feat_drop, (self.fc, self.fc))
        check_plain("feat", h_src)
        shape = self._num_heads, self._out_feats
        value = self.fc(h_src).unflatten(-1, shape)
        at_dst = first_rows(value, len(h_dst))
        scores = (
            end_scores(self.fc, h_src, value, self.attn_l),
            end_scores(self.fc, h_dst, at_dst, self.attn_r),
            self._edge_scores(graph, etype),
        )
        slope = negative_slope(self)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.additive_attention(graph, value, *scores, negative_slope=slope, dropout=dropout)
        alpha: Any = None
        if get_attention:
            with torch.no_grad():
                # A copy: who overwrites what the layer gave must not overwrite what an operator keeps.
                alpha = ops.additive_weights(graph, *scores, negative_slope=slope).clone()
        if res_attn is not None and self.beta > 0:
            # Apart, since weights that are written down for backward cost more than a second sum.
            check_floats("res_attn", res_attn, value)
            check_shape("res_attn", res_attn, ("E", graph.num_edges()), ("H", self._num_heads))
            past = res_attn.detach()
            told = ops.weighted_sum(graph, value, ops.attention_dropout(past, dropout))
            out = torch.lerp(out, told, self.beta)
            alpha = None if alpha is None else alpha.lerp_(past, self.beta)
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        return (out, alpha) if get_attention else out

    def _edge_scores(self, graph, etype):
        """a_e . (W_e r_t) of every edge, [E, H]."""
        heads = self._num_heads
        table = (self.fc_e(self.edge_emb.weight).unflatten(-1, (heads, -1)) * self.attn_e).sum(-1)  # [T, H]
        return ops.copy_u(types_as_sources(graph, etype, len(table)), table)
