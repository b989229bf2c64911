"""A reconstruction of UAG's layer: attention that weighs uncertain neighbours and doubtful edges down."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn
from torch.nn import functional as F

from hgat import ops
from hgat.errors import check_range, check_shape
from hgat.nn.common import (
    Layer,
    both_ends,
    check_floats,
    check_graph,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    end_scores,
    first_rows,
    glorot_,
)

__all__ = ["UAGConv"]


class UAGConv(Layer):
    """A reconstruction, of which only the abstract was public: GAT whose logits fall with what is uncertain.

        e_uv = leaky_relu(attn_l . W h_u + attn_r . W h_v) - alpha_tau U_u - beta_tau U_uv
        alpha_uv = softmax over u of e_uv;   out_v = sum_u alpha_uv W h_u + bias

    U_u and U_uv are numbers from 0 on, of a node and of an edge: how they are estimated is the caller's, see
    hgat.models.UAG. They stand behind the leaky ReLU, which would let a fifth of them through, and before the softmax,
    so that a neighbour's weight is multiplied by exp(-alpha_tau U_u - beta_tau U_uv). No gradient goes into them: a
    model must not learn to look certain. Without any the layer is GATConv. Inside `uniform_attention()` alpha is
    1 / in-degree, whatever is uncertain.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Feng et al. 2021 (UAG), arXiv:2009.10235, whose equations were not public; that its constants alpha_tau = 15
    and beta_tau = 2.5 stand for a node's and an edge's is a choice made here. Attention is that of Velickovic et al.
    2018, arXiv:1710.10903.
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        *,
        value_drop: float = 0.0,
        alpha_tau: float = 15.0,
        beta_tau: float = 2.5,
    ) -> None:
        super().__init__()
        self._in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_number(negative_slope=negative_slope)
        check_range(0, alpha_tau=alpha_tau, beta_tau=beta_tau)
        self._shape = num_heads, out_feats
        self.negative_slope, self.alpha_tau, self.beta_tau = negative_slope, alpha_tau, beta_tau
        self.fc = nn.Linear(in_feats, num_heads * out_feats, bias=False)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.bias = nn.Parameter(torch.empty(num_heads * out_feats))
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As GATConv's: Glorot-normal weights with the gain of ReLU, zero biases."""
        glorot_(self.fc.weight, self.attn_l, self.attn_r)
        nn.init.zeros_(self.bias)

    def forward(
        self,
        graph: DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        of_node: Tensor | None = None,
        of_edge: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """New features of every destination.

        graph: DGLGraph with one relation, or a block; feat [N, F], on a block of its sources, or a pair (source,
        destination); of_node [N_src], U_u; of_edge [E], U_uv; None for none -> [N_dst, H, D], and with get_attention
        alpha [E, H, 1], before dropout. A node without in-edges gets the bias.
        Raises GraphError for anything but such a graph, ShapeError for tensors unlike it.
        """
        check_graph(graph)
        h_src, h_dst, one_input = both_ends(graph, feat, (self._in_feats,) * 2, self.feat_drop, (self.fc, self.fc))
        check_plain("feat", h_src, h_dst)
        value = self.fc(h_src).unflatten(-1, self._shape)
        at_dst = first_rows(value, len(h_dst)) if one_input else self.fc(h_dst).unflatten(-1, self._shape)
        score_src = end_scores(self.fc, h_src, value, self.attn_l)
        score_dst = end_scores(self.fc, h_dst, at_dst, self.attn_r)
        logits = F.leaky_relu(ops.additive_logits(graph, score_src, score_dst), self.negative_slope)
        for name, u, rows, tau in (
            ("of_node", of_node, graph.num_src_nodes(), self.alpha_tau),
            ("of_edge", of_edge, graph.num_edges(), self.beta_tau),
        ):
            if u is not None:
                check_floats(name, u)
                check_shape(name, u, ("N_src" if name == "of_node" else "E", rows))
                u = (u.detach() * tau).to(logits.dtype).unsqueeze(1)
                logits = logits - (ops.copy_u(graph, u) if name == "of_node" else u)
        alpha = ops.alignment(logits, graph=graph)
        weight = ops.attention_dropout(alpha, self.attn_drop.p) if self.attn_drop.training else alpha
        out = ops.weighted_sum(graph, self.value_drop(value), weight) + self.bias.view(self._shape)
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return (out, alpha.clone().unsqueeze(-1)) if get_attention else out
