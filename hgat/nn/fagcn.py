"""FAGCN's layer: signed weights of edges, and a residual to where the stack began."""

from typing import Any

from dgl import DGLGraph
from torch import Tensor, nn
from torch.nn import functional as F

from hgat import ops
from hgat.errors import check_shape
from hgat.graph import csr, normalized
from hgat.nn.common import (
    both_ends,
    check_feature,
    check_floats,
    check_graph,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    glorot_,
)

__all__ = ["FAConv"]


class FAConv(nn.Module):
    """Frequency-adaptive layer: neighbours are added where their weight is positive and subtracted where it is not.

        alpha_uv = tanh(g . [h_v || h_u] + b);   out_v = eps h0_v + sum_u w_uv alpha_uv h_u;   w_uv = 1 / sqrt(d_u d_v)

    A positive alpha smooths, as a low-pass filter does, a negative one sharpens. eps: the share of h0, the rows that
    the first layer of a stack received. signed: with False alpha is a sigmoid, in (0, 1). bias: b. attn_drop: rate of
    dropout on w alpha. Inside `uniform_attention()` alpha is 1, which leaves the low-pass filter eps I + A.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Bo et al. 2021, arXiv:2101.00797. Differs: the bias and the dropout on the weights are those of the authors'
    code; no self-loop is added, which there are removed, and in PyTorch Geometric's FAConv added; d_u counts the edges
    that leave u, which is the in-degree where every edge has its reverse.
    """

    def __init__(
        self, in_feats: int, *, eps: float = 0.3, signed: bool = True, bias: bool = True, attn_drop: float = 0.0
    ) -> None:
        super().__init__()
        (self._in_feats,) = check_sizes(in_feats=in_feats)
        check_number(eps=eps)
        check_rates(attn_drop=attn_drop)
        self.eps, self.signed = eps, signed
        self.gate = nn.Linear(2 * self._in_feats, 1, bias=bias)
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
        not those of the whole graph -> [N_dst, F], and with get_attention alpha [E, 1] without w. A node without
        in-edges keeps eps h0.
        Raises GraphError for anything but such a graph, ShapeError for tensors unlike it.
        """
        check_graph(graph)
        widths = (self._in_feats, self._in_feats)
        h_src, h_dst, _ = both_ends(graph, feat, widths, nn.Identity(), (self.gate, self.gate))
        check_plain("feat", h_src, h_dst)
        check_feature("initial", initial, self._in_feats, graph.num_dst_nodes(), self.gate.weight)
        check_plain("initial", initial)
        if edge_weight is None:
            device = h_src.device
            edge_weight = csr.cached(graph, ("normalized", str(device)), lambda: normalized(graph).to(device))
        check_floats("edge_weight", edge_weight)
        check_shape("edge_weight", edge_weight, ("E", graph.num_edges()))
        # The gate is linear, so each end has a score of its own, and nothing of size E * 2F is made.
        to_dst, to_src = self.gate.weight.view(2, 1, self._in_feats)
        logits = ops.additive_logits(graph, F.linear(h_src, to_src), F.linear(h_dst, to_dst, self.gate.bias))
        alpha = ops.alignment(logits, graph=graph, form="tanh" if self.signed else "sigmoid")
        weight = alpha * edge_weight.to(alpha.dtype).unsqueeze(1)
        if self.attn_drop.training:
            weight = ops.attention_dropout(weight, self.attn_drop.p)
        out = ops.weighted_sum(graph, h_src.unsqueeze(1), weight).squeeze(1) + self.eps * initial
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return (out, alpha.clone()) if get_attention else out
