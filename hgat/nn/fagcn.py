"""FAGCN's layer: signed weights of edges, and a residual to where the stack began."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn
from torch.nn import functional as F

from hgat import ops, transforms
from hgat.errors import ShapeError, check_shape
from hgat.graph import csr
from hgat.nn.common import (
    Layer,
    both_ends,
    check_feature,
    check_floats,
    check_graph,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    glorot_,
    normalized_weights,
    scored_rows,
)

__all__ = ["FAConv"]

FORMS = ("signed", "two_channel")


class FAConv(Layer):
    """Frequency-adaptive layer: neighbours are added where their weight is positive and subtracted where it is not.

        alpha_uv = tanh(g . [h_v || h_u] + b);   out_v = eps h0_v + sum_u w_uv alpha_uv h_u;   w_uv = 1 / sqrt(d_u d_v)

    A positive alpha smooths, as a low-pass filter does, a negative one sharpens. eps: the share of h0, the rows that
    the first layer of a stack received. form: "signed", this; "two_channel", the two filters that it stands for, each
    with a score of its own, and for every edge a softmax over the two:

        (alpha^L, alpha^H)_uv = softmax(g_L . [h_v || h_u] + b_L, g_H . [h_v || h_u] + b_H)
        out_v = eps h0_v + sum_u w_uv alpha^L_uv h_u - sum_u w_uv alpha^H_uv h_u

    which is the signed form where g_L - g_H = 2 g and b_L - b_H = 2 b: alpha = alpha^L - alpha^H. signed: with False
    alpha is a sigmoid, in (0, 1). bias: b. attn_drop: rate of dropout on w alpha. Inside `uniform_attention()` alpha is
    1, which leaves the low-pass filter eps I + A; of two channels each has a half, and eps h0 alone is left.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Bo et al. 2021, arXiv:2101.00797. Differs: the bias and the dropout on the weights are those of the authors'
    code; no self-loop is added, which there are removed, and in PyTorch Geometric's FAConv added; d_u counts the edges
    that leave u, which is the in-degree where every edge has its reverse.
    """

    def __init__(
        self,
        in_feats: int,
        *,
        eps: float = 0.3,
        form: str = "signed",
        signed: bool = True,
        bias: bool = True,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        (self._in_feats,) = check_sizes(in_feats=in_feats)
        check_number(eps=eps)
        check_rates(attn_drop=attn_drop)
        if form not in FORMS:
            raise ShapeError(f"form: expected {' or '.join(map(repr, FORMS))}, got {csr.shown(form)}")
        if form == "two_channel" and not signed:
            raise ShapeError("signed: expected True of two channels, whose difference has a sign, got False")
        self.eps, self.form, self.signed = eps, form, signed
        self.gate = nn.Linear(2 * self._in_feats, 1 + FORMS.index(form), bias=bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot normal with the gain of ReLU, as in the authors' code; the bias as PyTorch has it."""
        self.gate.reset_parameters()
        glorot_(self.gate.weight)

    def forward(
        self,
        graph: DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        initial: Tensor,
        edge_weight: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """Neighbours with signed weights, and a share of where the stack began.

        graph: DGLGraph with one relation; feat [N, F], on a block of its sources, or a pair (source, destination);
        initial [N_dst, F], h0; edge_weight [E], w, by default those of `hgat.graph.normalized`, which on a block are
        not those of the whole graph -> [N_dst, F], and with get_attention alpha [E, 1] without w, of two
        channels [E, 2]. A node without in-edges keeps eps h0.
        Raises GraphError for anything but such a graph, ShapeError for tensors unlike it.
        """
        check_graph(graph)
        widths = (self._in_feats, self._in_feats)
        h_src, h_dst, _ = both_ends(graph, feat, widths, nn.Identity(), (self.gate, self.gate))
        check_plain("feat", h_src, h_dst)
        check_feature("initial", initial, self._in_feats, graph.num_dst_nodes(), self.gate.weight)
        check_plain("initial", initial)
        if edge_weight is None:
            edge_weight = normalized_weights(graph, "both", h_src.device)
        check_floats("edge_weight", edge_weight)
        check_shape("edge_weight", edge_weight, ("E", graph.num_edges()))
        # The gate is linear, so each end has a score of its own, and nothing of size E * 2F is made.
        to_dst, to_src = self.gate.weight.view(-1, 2, self._in_feats).transpose(0, 1)
        if h_src is h_dst:
            h_src, both = scored_rows(h_src, torch.cat([to_src, to_dst]))
            at_src, at_dst = both.chunk(2, dim=1)
            scores = at_src, at_dst if self.gate.bias is None else at_dst + self.gate.bias
        else:
            scores = F.linear(h_src, to_src), F.linear(h_dst, to_dst, self.gate.bias)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        if self.form == "two_channel":
            alpha = ops.alignment(ops.additive_logits(graph, *scores), dim=1)
            weight = ops.attention_dropout(alpha * edge_weight.to(alpha.dtype).unsqueeze(1), dropout)
            low, high = ops.weighted_sum(graph, h_src.unsqueeze(1), weight).unbind(1)
            out = torch.add(low - high, initial, alpha=self.eps)
            # A copy: who overwrites what the layer gave must not overwrite what backward reads.
            return (out, alpha.clone()) if get_attention else out
        form = "tanh" if self.signed else "sigmoid"
        value = h_src.unsqueeze(1)
        out = ops.gated_attention(graph, value, *scores, form=form, edge_weight=edge_weight, dropout=dropout)
        # Into the operator's own memory: to touch as much anew costs more than the weights of all edges. PyTorch's
        # transforms forbid it. Not into a view of it: backward would copy its gradient twice.
        add = torch.add if transforms.active() else Tensor.add_
        out = add(out, initial.unsqueeze(1), alpha=self.eps).squeeze(1)
        return (out, ops.gated_weights(graph, *scores, form=form)) if get_attention else out
