"""A reconstruction of GraphHAM's layer: attention between nodes, and between the groups that they belong to."""

from collections.abc import Callable
from typing import Any, Literal

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, check_range
from hgat.nn.common import (
    Layer,
    both_ends,
    check_activation,
    check_in_degrees,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    end_scores,
    glorot_,
    negative_slope,
    normalized_weights,
)

__all__ = ["GraphHAMConv"]


class GraphHAMConv(Layer):
    """A reconstruction of GraphHAM's layer from what its abstract says, not the paper's equations: nodes attend to
    neighbours by what they are and by the groups that they belong to.

        s_ij = leaky_relu(a_l . (W h_j) + a_r . (W h_i)) of each head;  groups G [K, H * D] in the space of W h
        membership  c_i = mean of W h_j over the in-edges;  pi_i = softmax_k(G_k . c_i / sqrt(H * D))
                    g_i = G_k with k drawn from pi_i; the likeliest k in evaluation mode
                    alpha = softmax over j of s_ij + g_i . g_j / sqrt(D);  out_i = sum_j alpha W h_j
        grains      local_i = sum_j softmax_j(s_ij) W h_j;  global_i = sum_k softmax_k(W h_i . G_k / sqrt(D)) G_k
                    out_i = gamma_i1 local_i + gamma_i2 global_i;  gamma_i = softmax(U tanh(V [local_i || global_i]))
        Each head has its own part of W h, of g and of G.

    in_feats, out_feats: F, D. num_groups: K. variant: "membership" or "grains", the local-grain, global-grain and
    cross-grain attention of surveys. temperature: of the Gumbel noise that k is drawn with, through which gradients go
    back to pi. value_drop: dropout on W h before the sum. A bias and the activation follow.
    h [N, F], out [N, H, D]; forward says the rest. With one group "membership" is hgat.nn.GATConv but for rounding.
    Raises ShapeError for an argument out of range.

    Paper: Lin, Blaser and Wang 2022, arXiv:2111.00604, of which only the abstract was at hand: that memberships are
    sampled from a node's context, and that attention has a group level beside that of nodes. All equations are ours.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        num_groups: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[Tensor], Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        variant: Literal["membership", "grains"] = "membership",
        temperature: float = 1.0,
        value_drop: float = 0.0,
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        (num_groups,) = check_sizes(num_groups=num_groups)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_number(negative_slope=negative_slope, temperature=temperature)
        check_range(0, temperature=temperature)
        check_activation(activation)
        if temperature == 0:
            raise ShapeError("temperature: expected more than 0, got 0")
        if variant not in ("membership", "grains"):
            raise ShapeError(f"variant: expected 'membership' or 'grains', got {variant!r}")
        width = num_heads * out_feats
        self._in_feats, self._out_feats, self._num_heads = in_feats, out_feats, num_heads
        self.variant, self.temperature = variant, temperature
        self._allow_zero_in_degree = allow_zero_in_degree
        self.fc = nn.Linear(in_feats, width, bias=False)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.groups = nn.Parameter(torch.empty(num_groups, width))
        if variant == "grains":
            self.mix = nn.Linear(2 * width, width)
            self.gate = nn.Linear(width, 2, bias=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero bias."""
        glorot_(self.fc.weight, self.attn_l, self.attn_r, self.groups)
        if self.variant == "grains":
            self.mix.reset_parameters()
            self.gate.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: Tensor,
        get_attention: bool = False,
        *,
        get_memberships: bool = False,
    ) -> Any:
        """New features of every node, out [N, H, D]; then alpha [E, H] and log pi [N, K], each where it is asked for.

        graph: homogeneous, with all nodes: a block lacks the neighbours that say which groups its sources belong to.
        feat: [N, F]. alpha: over the neighbours, in the graph's edge order, before dropout. pi: under "grains" the mean
        over the heads of the attention to groups.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for another graph, and
        ShapeError for features unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        if graph.is_block or graph.num_src_nodes() != graph.num_dst_nodes():
            raise GraphError("graph: expected one with all nodes, which say who belongs to which group, got a block")
        h, _, _ = both_ends(graph, feat, (self._in_feats,) * 2, self.feat_drop, (self.fc, self.fc))
        check_plain("feat", h)
        heads, width = self._num_heads, self._out_feats
        value = self.fc(h).unflatten(-1, (heads, width))
        scores = end_scores(self.fc, h, value, self.attn_l), end_scores(self.fc, h, value, self.attn_r)
        logits = F.leaky_relu(ops.additive_logits(graph, *scores), negative_slope(self))
        to_group = log_pi = None
        if self.variant == "membership":
            log_pi = self._memberships(graph, value)
            of_node = self._drawn(log_pi).unflatten(-1, (heads, width))
            logits = logits + ops.dot_product_logits(graph, of_node, of_node, scale=width**-0.5)
        else:
            groups = self.groups.unflatten(-1, (heads, width))
            to_group = ops.alignment(torch.einsum("nhd,khd->nhk", value, groups) * width**-0.5, dim=-1)
        alpha = ops.alignment(logits, graph=graph)
        dropped = ops.attention_dropout(alpha, self.attn_drop.p if self.attn_drop.training else 0.0)
        out = ops.weighted_sum(graph, self.value_drop(value), dropped)
        if to_group is not None:
            of_groups = torch.einsum("nhk,khd->nhd", to_group, groups)
            both = torch.cat([out.flatten(1), of_groups.flatten(1)], 1)
            gamma = ops.alignment(self.gate(torch.tanh(self.mix(both))), dim=-1)[:, :, None, None]
            out = gamma[:, 0] * out + gamma[:, 1] * of_groups
            log_pi = to_group.mean(1).clamp_min(torch.finfo(to_group.dtype).tiny).log()
        if self.bias is not None:
            out = out + self.bias.view(heads, width)
        if self.activation:
            out = self.activation(out)
        more: list[Any] = (
            [alpha.clone()] if get_attention else []
        )  # a copy: it may be overwritten, and backward reads it
        if get_memberships:
            more.append(log_pi)
        return (out, *more) if more else out

    def _memberships(self, graph, value):
        """log pi, [N, K]."""
        context = ops.propagate(graph, value.flatten(1), normalized_weights(graph, "right", value.device))
        logits = context @ self.groups.T * self.groups.shape[1] ** -0.5
        # A probability that losses and draws read, not a weight on rows: `uniform_attention()` leaves it as it is.
        return logits - logits.logsumexp(1, keepdim=True)

    def _drawn(self, log_pi):
        """The vector of each node's group, [N, H * D]."""
        if self.training:
            return F.gumbel_softmax(log_pi, self.temperature, hard=True) @ self.groups
        return self.groups.index_select(0, log_pi.argmax(1))
