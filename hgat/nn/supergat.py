"""SuperGAT: attention whose scores also say which pairs of nodes are edges."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, brief
from hgat.nn.common import (
    Layer,
    add_residual,
    both_ends,
    check_activation,
    check_graph,
    check_in_degrees,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    edge_column,
    end_scores,
    feature_pair,
    linear_pair,
    negative_slope,
    projected_ends,
    projections,
    residual_linear,
    weighted,
)

__all__ = ["SuperGATConv", "edge_loss"]

SCORES = ("go", "dp", "sd", "mx")


class SuperGATConv(Layer):
    """Graph attention layer whose scores can be trained to predict edges, with the constructor and forward of GATConv.

        z_u = W h_u;  go_uv = attn_l . z_u + attn_r . z_v;  dp_uv = z_u . z_v
        go: e_uv = go_uv;  dp: e_uv = dp_uv;  sd: e_uv = dp_uv / sqrt(D);  mx: e_uv = go_uv * sigmoid(dp_uv)
        alpha = softmax over u of leaky_relu(e_uv);  out_v = sum_u alpha_uv z_u  [+ residual]  [+ bias]

    and what says whether u v is an edge, with probability sigmoid(phi_uv):

        go: phi_uv = go_uv;  dp, mx: phi_uv = dp_uv;  sd: phi_uv = dp_uv / sqrt(D)

    in_feats: F, or (F_src, F_dst) with one projection for each end. score: one of the four; dp and sd have no attn_l
    and attn_r. No edge ever carries more than one number per head: nothing is [E, H, D].
    Raises ShapeError for an argument out of range.
    Paper: Kim and Oh 2021, arXiv:2204.04879. The equations are those of the authors' code, whose leaky ReLU stands
    behind all four scores. Differs: attn_l and attn_r are the halves of its one vector, as in GATConv; heads that a
    model averages have a bias each.
    """

    attn_l: nn.Parameter | None
    attn_r: nn.Parameter | None
    bias: nn.Parameter | None
    res_fc: nn.Module | None
    activation: Callable[[Tensor], Tensor] | None

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        score: Literal["go", "dp", "sd", "mx"] = "mx",
    ) -> None:
        super().__init__()
        self._in_src_feats, self._in_dst_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        if not isinstance(score, str) or score not in SCORES:
            raise ShapeError(f"score: expected one of {list(SCORES)}, got {brief(score)}")
        width = num_heads * out_feats
        self._num_heads, self._out_feats, self.score = num_heads, out_feats, score
        self._allow_zero_in_degree = allow_zero_in_degree
        linear_pair(self, in_feats, width)
        for name in ("attn_l", "attn_r"):
            vector = nn.Parameter(torch.empty(1, num_heads, out_feats)) if score in ("go", "mx") else None
            self.register_parameter(name, vector)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.register_module("res_fc", residual_linear(self._in_dst_feats, width, bias) if residual else None)
        # A linear residual brings its own bias; a second one would be redundant.
        own_bias = bool(bias) and not isinstance(self.res_fc, nn.Linear)
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if own_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform weights, the attention vectors as halves of one, and zero biases, as in the authors' code."""
        for fc in {id(fc): fc for fc in projections(self)}.values():
            nn.init.xavier_uniform_(fc.weight)
        if self.attn_l is not None and self.attn_r is not None:
            bound = (6 / (self._num_heads + 2 * self._out_feats)) ** 0.5
            nn.init.uniform_(self.attn_l, -bound, bound)
            nn.init.uniform_(self.attn_r, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.res_fc, nn.Linear):
            nn.init.xavier_uniform_(self.res_fc.weight)
            if self.res_fc.bias is not None:
                nn.init.zeros_(self.res_fc.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        edge_weight: Tensor | None = None,
        get_attention: bool = False,
        *,
        edge_mask: Tensor | None = None,
        pairs: DGLGraph | None = None,
    ) -> Any:
        """Attention over in-edges; on demand alpha and what the scores say of edges and of other pairs of nodes.

        graph: DGLGraph with one relation (homogeneous, bipartite, block, slice of a heterograph); feat [N, F] or a
        pair; edge_weight [E] or [E, H] multiplies alpha; edge_mask [E] or [E, H] bool, False for an edge that has no
        part in the softmax; pairs: a DGLGraph of P edges from the sources to the destinations of `graph` -> out
        [N_dst, H, D]; with get_attention (out, alpha [E, H, 1]); with pairs (out, (phi of the graph's edges [E, H], phi
        of the pairs [P, H])); with both (out, alpha, (phi, phi)).
        Raises DGLError for a node without in-edges unless allow_zero_in_degree; GraphError for anything but such
        graphs; ShapeError for tensors unlike the graph.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        layers, widths = projections(self), (self._in_src_feats, self._in_dst_feats)
        h_src, h_dst, one_input = both_ends(graph, feat, widths, self.feat_drop, layers)
        check_plain("feat", h_src, h_dst)
        _check_pairs(graph, pairs)
        shape = (self._num_heads, self._out_feats)
        value, at_dst = projected_ends(layers, h_src, h_dst, one_input, shape)
        at_ends: Any = None
        if self.attn_l is not None and self.attn_r is not None:
            ends = zip(layers, (h_src, h_dst), (value, at_dst), (self.attn_l, self.attn_r), strict=True)
            at_ends = tuple(end_scores(*end) for end in ends)
        phi: Any = None if self.score == "go" else self._phi(graph, value, at_dst, at_ends)
        # Every score is one of additive attention, whose leaky ReLU, softmax and sum are one operator.
        if self.score == "go":
            scores = (*at_ends, None)
        else:
            e = ops.additive_logits(graph, *at_ends) * torch.sigmoid(phi) if self.score == "mx" else phi
            scores = value.new_zeros(value.shape[:2]), value.new_zeros((graph.num_dst_nodes(), shape[0])), e
        edge_weight = edge_column(edge_weight)
        options: dict[str, Any] = {"negative_slope": negative_slope(self), "edge_mask": edge_column(edge_mask)}
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.additive_attention(graph, value, *scores, edge_weight=edge_weight, dropout=dropout, **options)
        out = add_residual(out, self.res_fc, h_dst, shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        if self.activation:
            out = self.activation(out)
        found: list[Any] = [out]
        # Copies: who overwrites what the layer gave must not overwrite what backward reads.
        if get_attention:
            alpha = ops.additive_weights(graph, *scores, **options).clone()
            found.append(weighted(alpha, edge_weight).unsqueeze(-1))
        if pairs is not None:
            of_edges = self._phi(graph, value, at_dst, at_ends) if phi is None else phi.clone()
            found.append((of_edges, self._phi(pairs, value, at_dst, at_ends)))
        return found[0] if len(found) == 1 else tuple(found)

    def _phi(self, graph, value, at_dst, at_ends):
        """phi of every edge of `graph`, [E, H]."""
        if self.score == "go":
            return ops.additive_logits(graph, *at_ends)
        return ops.dot_product_logits(graph, at_dst, value, scale=None if self.score == "sd" else 1.0)


def _check_pairs(graph, pairs):
    """Raise GraphError unless `pairs` has the nodes of `graph`, or is None."""
    if pairs is None:
        return
    check_graph(pairs)
    sizes = [(g.num_src_nodes(), g.num_dst_nodes()) for g in (graph, pairs)]
    if sizes[0] != sizes[1]:
        raise GraphError(
            "pairs: expected a graph of {} sources and {} destinations, got {} and {}".format(*sizes[0], *sizes[1])
        )


def edge_loss(edges: Tensor, others: Tensor) -> Tensor:
    """How well phi tells edges from other pairs: the cross-entropy of what the heads say on average.

        - mean over edges and others of [y log sigmoid(phi) + (1 - y) log(1 - sigmoid(phi))],  y = 1 for edges, else 0

    Shapes: edges [P, H], others [Q, H], phi of SuperGATConv -> a scalar; 0 where P + Q = 0.
    Paper: Kim and Oh 2021, arXiv:2204.04879, in the form of the authors' code: phi is averaged, not the probability.
    """
    phi = torch.cat([edges, others]).mean(1)
    label = torch.zeros_like(phi)
    label[: len(edges)] = 1.0
    return F.binary_cross_entropy_with_logits(phi, label) if len(phi) else phi.sum()
