"""DAGNN's layer: rows spread over many hops, and a gate that says how much of each hop a node keeps."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.graph import csr
from hgat.nn.common import Layer, check_feature, check_graph, check_plain, check_sizes, normalized_weights
from hgat.nn.fusion import Fusion

__all__ = ["DAGNNConv"]

PROPAGATIONS, GATES = ("fixed", "gat"), ("sigmoid", "softmax")


class DAGNNConv(Layer):
    """Propagation and adaptive adjustment: every node weighs what it is told over 0 to K hops.

        H_0 = Z;   H_k = A H_(k-1);   s_ik = gate(q . H_ik + b);   out_i = sum_{k=0..K} s_ik H_ik

    in_feats: F. hops: K; with 0 there is nothing to choose among, and out is Z. propagation: "fixed", A as
    `edge_weight` says, D^(-1/2) A D^(-1/2) by default; "gat", attention learned anew for each hop, additive with a
    softmax over in-edges, and no projection. gate: "sigmoid", a share of each hop that no other hop takes from, or
    "softmax" over the hops; None is the first of fixed propagation and the second of "gat". So propagation="gat" alone
    is DAGNN as it is often described, learned weights of edges and of hops that sum to one; the paper's has neither.
    Inside `uniform_attention()` all hops count 1, or 1 / (K + 1) of a softmax.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Liu, Gao and Ji 2020, arXiv:2007.09296, section 4. Differs: b is the authors' code's; self-loops, which are
    in the paper's A, are the caller's to add.
    """

    attn_src: Tensor | None
    attn_dst: Tensor | None

    def __init__(self, in_feats: int, hops: int = 10, *, propagation: str = "fixed", gate: str | None = None) -> None:
        super().__init__()
        (self._in_feats,) = check_sizes(in_feats=in_feats)
        if hops != 0:
            check_sizes(hops=hops)
        self.hops, self.propagation = int(hops), propagation
        for name, value, known in (("propagation", propagation, PROPAGATIONS), ("gate", gate, (*GATES, None))):
            if value not in known:
                raise ShapeError(f"{name}: expected {' or '.join(map(repr, known))}, got {csr.shown(value)}")
        gate = GATES[propagation == "gat"] if gate is None else gate
        # A softmax over hops knows no bias that all of them share.
        bias = gate == "sigmoid"
        self.fuse = Fusion(self._in_feats, score="linear", score_bias=bias, gate=gate) if hops else None
        learned = hops and propagation == "gat"
        for name in ("attn_src", "attn_dst"):
            self.register_parameter(name, nn.Parameter(torch.empty(self.hops, in_feats)) if learned else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The gate as PyTorch has a linear layer; the scores of edges Glorot normal with the gain of ReLU, as GAT."""
        if self.fuse is not None:
            self.fuse.reset_parameters()
        for parameter in (self.attn_src, self.attn_dst):
            if parameter is not None:
                nn.init.xavier_normal_(parameter, gain=nn.init.calculate_gain("relu"))

    def spread(self, graph: DGLGraph, feat: Tensor, edge_weight: Tensor | None = None) -> list[Tensor]:
        """H_0 to H_K, a list of [N, F]: what needs the graph, and may be done once where Z does not change."""
        check_graph(graph)
        if graph.is_block:
            raise GraphError("graph: expected the whole graph, or a list of hops computed on it, got a block")
        check_feature("feat", feat, self._in_feats, graph.num_nodes())
        check_plain("feat", feat)
        if self.attn_src is not None and self.attn_dst is not None:
            h = [feat]
            for to_src, to_dst in zip(self.attn_src, self.attn_dst, strict=True):
                score = h[-1] @ to_src, h[-1] @ to_dst
                h.append(ops.additive_attention(graph, h[-1][:, None], *(s[:, None] for s in score)).squeeze(1))
            return h
        if edge_weight is None:
            edge_weight = normalized_weights(graph, "both", feat.device)
        return ops.propagate(graph, feat, edge_weight.to(feat.dtype), self.hops, every=True)

    def forward(
        self,
        graph: DGLGraph | None,
        feat: Tensor | Sequence[Tensor],
        edge_weight: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """The hops' weighted sum.

        graph: DGLGraph with self-loops and feat [N, F], Z; edge_weight [E], A. Or feat a list of K + 1 tensors [N, F],
        hops that `spread` or another computed before: then the graph is not read, and may be None, or a block whose
        destinations the rows are -> [N, F], and with get_attention s [N, K + 1].
        Raises GraphError for anything else in the place of such a graph, ShapeError for tensors that do not fit.
        """
        if isinstance(feat, (list, tuple)):
            if len(feat) != self.hops + 1:
                raise ShapeError(f"feat: expected {self.hops + 1} hops, got {len(feat)}")
            hops = list(feat)
            rows = len(hops[0]) if graph is None and isinstance(hops[0], Tensor) else None
            if graph is not None:
                check_graph(graph)
                rows = graph.num_dst_nodes()
            for k, h in enumerate(hops):
                check_feature(f"feat[{k}]", h, self._in_feats, len(h) if rows is None else rows)
                check_plain(f"feat[{k}]", h)
        else:
            hops = self.spread(cast(DGLGraph, graph), cast(Tensor, feat), edge_weight)
        if self.fuse is None:
            out, s = hops[0].clone(), hops[0].new_ones(len(hops[0]), 1)
        else:
            out, s = self.fuse(hops)
        return (out, s) if get_attention else out
