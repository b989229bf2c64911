"""GAT with dot-product scores."""

import dgl
import torch
from torch import nn

from hgat import ops
from hgat.errors import check_whole
from hgat.nn.common import (
    Layer,
    both_ends,
    check_in_degrees,
    check_plain,
    check_rates,
    check_sizes,
    drop_edges,
    edge_column,
    feature_pair,
    linear_pair,
    projected_ends,
    projections,
    weighted,
)

__all__ = ["DotGatConv"]


class DotGatConv(Layer):
    """Graph attention layer with dot-product scores, with the constructor, parameters and results of
    `dgl.nn.DotGatConv`.

        logit_uv = (W h_u) . (W h_v) / sqrt(D);  alpha = softmax over u;  out_v = sum_u alpha_uv W h_u

    in_feats: F, or (F_src, F_dst) with one projection for each end. Not in DGL's layer: attn_drop; edge_drop, the share
    of edges that a training step leaves out of the softmax; and key_feats, D_k, with which queries, keys and values
    have projections of their own, fc_query, fc_key and fc_value, with biases if `bias`,

        logit_uv = (W_k h_u + b_k) . (W_q h_v + b_q) / sqrt(D_k);  out_v = sum_u alpha_uv (W_v h_u + b_v)

    as in PyTorch Geometric's TransformerConv without its skip (D_k = D there).

    h [N, F], out [N_dst, H, D]; forward says the rest. Raises ShapeError for an argument out of range.

    Differs from DGL: on a homogeneous graph with a pair of inputs the sources keep their own projection; DGL 2.1 stores
    both ends under one name there, so that the second overwrites the first.
    Paper: the dot-product form of Velickovic et al. 2018 that DGL offers; scaled as in Vaswani et al. 2017, eq. 1. With
    key_feats: Shi et al. 2021, arXiv:2009.03509, eq. 1-3, without edge features.
    """

    # What a layer has that was built by DGL's constructor and became this class.
    _key_feats: int | None = None
    edge_drop = 0.0

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        out_feats: int,
        num_heads: int,
        allow_zero_in_degree: bool = False,
        *,
        key_feats: int | None = None,
        bias: bool = False,
        attn_drop: float = 0.0,
        edge_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_whole(1, key_feats=key_feats)
        check_rates(attn_drop=attn_drop, edge_drop=edge_drop)
        self._out_feats, self._num_heads, self._key_feats = out_feats, num_heads, key_feats
        self._allow_zero_in_degree = allow_zero_in_degree
        self.edge_drop = edge_drop
        self.attn_drop = nn.Dropout(attn_drop)
        if key_feats is None:
            linear_pair(self, in_feats, num_heads * out_feats, bias=bias)
            return
        self.fc_query = nn.Linear(self._in_dst_feats, num_heads * key_feats, bias=bias)
        self.fc_key = nn.Linear(self._in_src_feats, num_heads * key_feats, bias=bias)
        self.fc_value = nn.Linear(self._in_src_feats, num_heads * out_feats, bias=bias)

    def _layers(self):
        """The projections at the source and at the destination, those of values first."""
        if self._key_feats is None:
            return projections(self)
        return self.fc_value, self.fc_query, self.fc_key

    def reset_parameters(self) -> None:
        """PyTorch's initialisation of linear layers, as in DGL."""
        for fc in {id(fc): fc for fc in self._layers()}.values():
            fc.reset_parameters()

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
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """New features of every destination, out [N_dst, H, D]; with get_attention (out, alpha [E, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, F], on a block with
        the destinations first, or a pair ([N_src, F_src], [N_dst, F_dst]). Not in DGL's layer: edge_weight [E], which
        multiplies alpha; edge_mask [E] or [E, H] bool, False for an edge that has no part in the softmax. alpha is in
        the graph's edge order, before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        layers, widths = self._layers(), (self._in_src_feats, self._in_dst_feats)
        h_src, h_dst, one_input = both_ends(graph, feat, widths, nn.Identity(), layers[:2])
        check_plain("feat", h_src, h_dst)
        shape = (self._num_heads, self._out_feats)
        if self._key_feats is None:
            value, query = projected_ends(layers, h_src, h_dst, one_input, shape)
            key = value
        else:
            per_head = (self._num_heads, self._key_feats)
            value, key = self.fc_value(h_src).unflatten(-1, shape), self.fc_key(h_src).unflatten(-1, per_head)
            query = self.fc_query(h_dst).unflatten(-1, per_head)
        edge_weight = edge_column(edge_weight)
        if self.training and self.edge_drop > 0:
            edge_mask = drop_edges(graph, self.edge_drop, edge_mask, value.device)
        edge_mask = edge_column(edge_mask)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.dot_product_attention(
            graph, query, key, value, dropout=dropout, edge_weight=edge_weight, edge_mask=edge_mask
        )
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha = weighted(ops.dot_product_weights(graph, query, key, edge_mask=edge_mask).clone(), edge_weight)
        return out, alpha.unsqueeze(-1)
