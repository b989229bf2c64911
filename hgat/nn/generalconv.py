"""The general attention model over the in-edges of a graph's nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import dgl
from torch import Tensor

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape
from hgat.nn.common import (
    both_ends,
    check_feature,
    check_in_degrees,
    check_plain,
    edge_column,
    first_rows,
    slope_of,
)
from hgat.nn.general import GeneralModel, check_settings
from hgat.ops.checks import edge_mask_column

__all__ = ["GeneralAttentionConv"]


class GeneralAttentionConv(GeneralModel):
    """The general attention model on a graph: every node queries the nodes at its in-edges.

        k_u = W_k h_u;   v_u = W_v h_u;   q_v = W_q h_v
        alpha_uv = align over u of score(q_v, k_u);   out_v = sum_u drop(alpha_uv) v_u   [W_o, residual, bias, act]

    Settings, parameters and equations are those of hgat.nn.GeneralAttention, without value_feats: a state dict of one
    fits the other, which gives the same where the neighbours are written as padded sets. Every score and alignment is
    one or two calls of hgat's operators; an edge carries no vector but with the additive score of an act that is no
    leaky ReLU, of another alignment than "global", or of several dimensions. On a graph

        global      all in-edges
        local       the top_k best in-edges of each node and head, or those whose `position` is in the window: a time
                    difference, a number of hops, a place, given for every edge
        hard        one in-edge
        reinforced  the in-edges that the policy keeps

    These layers are settings of it, with the same parameters:

        GATConv      keys "linear", values "keys", query "keys", score "linear", score_bias=False, bias=True
        GATv2Conv    values "keys", score "additive", score_activation LeakyReLU(0.2), score_bias=False, map_bias=True
        DotGatConv   values "keys", query "keys", score "scaled"; with key_feats and bias: score "scaled", map_bias=True

    in_feats: F, or (F_src, F_dst). h [N, F], out [N_dst, H, D]; forward says the rest. Raises ShapeError for settings
    out of range, of another alignment or score, and for widths that do not fit.

    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, sections 2 and 3.2; on the neighbourhoods of a graph, of which
    the survey does not speak.
    """

    def __init__(
        self,
        in_feats: int | Sequence[int],
        out_feats: int,
        num_heads: int = 1,
        allow_zero_in_degree: bool = False,
        **settings: Any,
    ) -> None:
        check_settings(settings)
        if "value_feats" in settings:
            got = brief(settings["value_feats"])
            raise ShapeError(f"value_feats: expected none on a graph, whose nodes have one kind of features, got {got}")
        super().__init__(in_feats, out_feats, num_heads, value_feats=None, **settings)
        self._allow_zero_in_degree = allow_zero_in_degree

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        get_attention: bool = False,
        *,
        edge_mask: Tensor | None = None,
        position: Tensor | None = None,
    ) -> Any:
        """New features of every destination, out [N_dst, H, D]; with get_attention (out, alpha [E, H, 1]).

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, F], on a block with
        the destinations first, or a pair ([N_src, F_src], [N_dst, F_dst]); where the layer has a query of its own,
        [N_src, F] is enough. edge_mask: [E] or [E, H] bool, False for an edge that has no part in the attention.
        position: [E] numbers, given if and only if the layer has a window: where the source stands, seen from the
        destination with a monotonic centre, otherwise on the scale of the span. With output_feats out is [N_dst, F_o];
        multi-dimensional alpha is [E, H, D]. alpha is in the graph's edge order, before dropout.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        h_src, h_dst, one_input = self._ends(graph, feat)
        key, value = self.feature_model(h_src)
        if one_input and self.query_model.query == "keys":
            query = first_rows(key, graph.num_dst_nodes())
        else:
            query = self.query_model(h_dst, (graph.num_dst_nodes(),), self.feature_model, key)
        mask = edge_mask_column(graph, edge_column(edge_mask), self._num_heads, key)
        attend, weights = self._operators(graph, query, key, mask, self._position(graph, position, key))
        out = self.output_model(attend(value, self._rate()), h_dst)
        if not get_attention:
            return out
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        alpha = weights().clone()
        return out, alpha if alpha.dim() == 3 else alpha.unsqueeze(-1)

    def _ends(self, graph, feat):
        """(features at the sources, at the destinations or None, whether those are the first rows of these)."""
        layers = self.feature_model.fc_key, self.query_model.fc_query
        if not self.query_model.given and not isinstance(feat, (tuple, list)):
            check_feature("feat", feat, self._key_feats, graph.num_src_nodes(), self._like())
            check_plain("feat", feat)
            return self.feat_drop(feat), None, False
        widths = self._key_feats, self._query_feats
        if not isinstance(feat, (tuple, list)) and widths[0] != widths[1]:
            raise ShapeError(f"feat: expected a pair (source, destination) of widths {list(widths)}, got one tensor")
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        check_plain("feat", h_src, h_dst)
        return h_src, h_dst, one_input

    def _position(self, graph, position, like):
        """position as [E, 1], None of a layer without a window."""
        if (position is None) != (self.attention_model.window is None):
            expected = "None of a layer without" if position is not None else "[E] of a layer with"
            raise ShapeError(f"position: expected {expected} a window, got {'None' if position is None else 'one'}")
        if position is None:
            return None
        check_shape("position", position, ("E", graph.num_edges()))
        if not isinstance(position, Tensor) or position.device != like.device:
            got = position.device if isinstance(position, Tensor) else type(position).__name__
            raise ShapeError(f"position: expected a tensor on {like.device}, got {got}")
        return position.to(like).unsqueeze(-1)

    def _operators(
        self, graph: dgl.DGLGraph, query: Tensor, key: Tensor, mask: Tensor | None, position: Tensor | None
    ) -> tuple[Callable[[Tensor, float], Tensor], Callable[[], Tensor]]:
        """(values and rate of dropout -> contexts [N_dst, H, D], nothing -> weights) of the operators that serve."""
        attention, edge_mask = self.attention_model, dict[str, Any](edge_mask=mask)
        slope = slope_of(attention.activation) if attention.alignment == "global" else None
        arguments: tuple[Any, ...]
        if attention.fused:
            bias = None
            if position is not None:
                bias, edge_mask["edge_mask"] = attention.near(query, position, mask, graph)
                bias = None if bias is None else bias.expand(-1, self._num_heads).to(key)
            query, key, scale = attention.ends(query, key)
            return (
                lambda value, rate: ops.dot_product_attention(
                    graph, query, key, value, bias, scale=scale, dropout=rate, **edge_mask
                ),
                lambda: ops.dot_product_weights(graph, query, key, bias, scale=scale, **edge_mask),
            )
        if attention.kind == "mixed" and slope is not None and not attention.multi_dimensional:
            arguments = (key, attention.shifted(query), attention.attn)
            weights = lambda: ops.gatv2_weights(graph, *arguments, negative_slope=slope, **edge_mask)  # noqa: E731
            if self.feature_model.values != "keys":
                return self._of_weights(graph, weights())
            return (
                lambda value, rate: ops.gatv2_attention(
                    graph, *arguments, negative_slope=slope, dropout=rate, **edge_mask
                ),
                weights,
            )
        if attention.kind == "ends" and slope is not None:
            at_dst, at_src = attention.end_scores(query, key)
            arguments = (at_src, at_dst)
        else:
            logits, mask = attention.entries(query, key, mask, position, graph)
            if attention.alignment == "hard" or attention.multi_dimensional:
                return self._of_weights(graph, attention.align(logits, mask, graph))
            ends = [key.new_zeros(count, self._num_heads) for count in (graph.num_src_nodes(), graph.num_dst_nodes())]
            arguments, slope, edge_mask["edge_mask"] = (*ends, logits), 1.0, mask
        return (
            lambda value, rate: ops.additive_attention(
                graph, value, *arguments, negative_slope=slope, dropout=rate, **edge_mask
            ),
            lambda: ops.additive_weights(graph, *arguments, negative_slope=slope, **edge_mask),
        )

    def _of_weights(
        self, graph: dgl.DGLGraph, weights: Tensor
    ) -> tuple[Callable[[Tensor, float], Tensor], Callable[[], Tensor]]:
        """`_operators` of weights [E, H] that are there, or of [E, H, D], one for each value."""

        def attend(value: Tensor, rate: float) -> Tensor:
            drop = ops.attention_dropout(weights.flatten(1), rate)
            if weights.dim() == 2:
                return ops.weighted_sum(graph, value, drop)
            return ops.weighted_sum(graph, value.flatten(1).unsqueeze(-1), drop).view(
                graph.num_dst_nodes(), *value.shape[1:]
            )

        return attend, lambda: weights
