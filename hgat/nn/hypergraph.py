"""Attention on hypergraphs: from the nodes of a hyperedge to it, and from its hyperedges to a node."""

from collections.abc import Callable
from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import check_shape
from hgat.graph.csr import edges_as_sources, reverse
from hgat.graph.hypergraph import check_hypergraph, others
from hgat.nn.common import (
    Layer,
    add_residual,
    check_activation,
    check_floats,
    check_number,
    check_rates,
    check_sizes,
    glorot_,
    residual_linear,
)

__all__ = ["HypergraphAttentionConv"]


class HypergraphAttentionConv(Layer):
    """Attention from nodes to the hyperedges that they are in, and from these back to the nodes.

        t_v = W x_v
        alpha_ve = softmax over the nodes v of e of leaky_relu(a_in . t_v);   f_e = sum_v alpha_ve t_v
        beta_ev = softmax over the hyperedges e of v of leaky_relu(a_l . f_e + a_r . t_v)
        out_v = sum_e beta_ev f_e  [+ residual]  [+ bias]

    in_feats, out_feats, num_heads: F, D, H. include_self=False: what a node gets from a hyperedge is of its other nodes
    alone, f_ev, a softmax over them for each v; a hyperedge of one node is then a self-loop. So hyperedges of two nodes
    are the edges of a graph, and this layer is hgat.nn.GATConv on it, with the same W, a_l and a_r. With
    include_self=True they are it but for the half that is the node's own: where a_in = 0, f_e is (t_u + t_v) / 2 and
    out_v = (GATConv's row with a_l / 2 and a_r + a_l / 2, plus t_v) / 2.
    include_self=False takes as many score terms as the sum of |e| (|e| - 1) over the hyperedges, True the sum of |e|.
    A hyperedge without nodes says nothing to anybody; a node in none gets zeros, its residual and the bias.
    residual: identity where F = H * D, else linear. attn_drop: dropout on alpha and beta.
    Raises ShapeError for an argument out of range.
    Paper: Ding et al. 2020 (HyperGAT), EMNLP 2020, arXiv:2011.00387, eq. 3-6. Differs: one projection W, where the
    authors' code has one for the rows and others for the scores, and no learned word that alpha's score begins with,
    which is a constant there; include_self and the residual are ours.
    """

    attn_in: nn.Parameter
    attn_l: nn.Parameter
    attn_r: nn.Parameter
    res_fc: nn.Module | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        bias: bool = True,
        *,
        include_self: bool = True,
    ) -> None:
        super().__init__()
        self._in_feats, self._out_feats, self._num_heads = check_sizes(
            in_feats=in_feats, out_feats=out_feats, num_heads=num_heads
        )
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        width = self._num_heads * self._out_feats
        self.negative_slope, self.include_self = negative_slope, include_self
        self.activation = activation
        self.fc = nn.Linear(self._in_feats, width, bias=False)
        for name in ("attn_in", "attn_l", "attn_r"):
            self.register_parameter(name, nn.Parameter(torch.empty(1, self._num_heads, self._out_feats)))
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.register_module("res_fc", residual_linear(self._in_feats, width, False) if residual else None)
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU and a zero bias, as GATConv has."""
        glorot_(self.fc.weight, self.attn_in, self.attn_l, self.attn_r)
        if isinstance(self.res_fc, nn.Linear):
            glorot_(self.res_fc.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False) -> Any:
        """New features of every node.

        graph: hgat.graph.hypergraph, or one relation of a typed graph from nodes to hyperedges, of I pairs; feat [N, F]
        -> out [N, H, D], and with get_attention (out, (alpha, beta)): beta [I, H] in the order of the graph's edges,
        alpha [I, H] too, or, with include_self=False, [P, H] of the pairs' other nodes, in the order of the edges of
        hgat.graph.hypergraph.others(graph). Both are before dropout.
        Raises GraphError for anything but a bipartite graph, ShapeError for features that do not fit it or the layer.
        """
        check_hypergraph(graph)
        check_floats("feat", feat, self.fc.weight)
        check_shape("feat", feat, ("N", graph.num_src_nodes()), ("F", self._in_feats))
        shape = self._num_heads, self._out_feats
        h = self.feat_drop(feat)
        value = self.fc(h).unflatten(-1, shape)
        back = reverse(graph)
        inward, outward = (graph, back) if self.include_self else (others(graph), edges_as_sources(back))
        at_node = (value * self.attn_in).sum(-1)
        inner = at_node, at_node.new_zeros(inward.num_dst_nodes(), self._num_heads)
        options: dict[str, Any] = {"negative_slope": self.negative_slope}
        drop = self.attn_drop.p if self.attn_drop.training else 0.0
        rows = ops.additive_attention(inward, value, *inner, dropout=drop, **options)
        outer = (rows * self.attn_l).sum(-1), (value * self.attn_r).sum(-1)
        out = ops.additive_attention(outward, rows, *outer, dropout=drop, **options)
        out = add_residual(out, self.res_fc, h, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation is not None:
            out = self.activation(out)
        if not get_attention:
            return out
        # Copies: who overwrites what the layer gave must not overwrite what backward reads.
        found = (ops.additive_weights(*x, **options).clone() for x in ((inward, *inner), (outward, *outer)))
        return out, tuple(found)
