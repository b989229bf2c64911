"""The `torch` backend: every operator in plain PyTorch, gathers by edge and sums by segment, on any device.

Any float type, differentiable twice, inside torch.func's transforms, and without a step that waits for the device.
Arguments are checked by the operators, not here. Half-precision inputs are summed in float32 and the result is cast
back. It keeps tensors of edges x heads x width; `hgat.ops.in_chunks` bounds them. On a GPU PyTorch adds in any order,
so that the last bits may differ from run to run unless torch.use_deterministic_algorithms(True) is set.
"""

from typing import Any

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor

from hgat.graph import csr
from hgat.ops.dropout import dropout_scale

__all__ = [
    "Plain",
    "gat_attention",
    "gated_attention",
    "gated_weights",
    "masked",
    "scaled_sum",
    "segment_softmax",
]


def wide(*tensors: Tensor | None) -> list[Any]:
    """The tensors in one type of at least float32."""
    dtype = torch.float32
    for t in tensors:
        if t is not None:
            dtype = torch.promote_types(dtype, t.dtype)
    return [None if t is None else t.to(dtype) for t in tensors]


def masked(logits: Tensor, edge_mask: Tensor | None) -> Tensor:
    """Minus infinity where an edge is left out."""
    return logits if edge_mask is None else logits.masked_fill(~edge_mask, -torch.inf)


def _taken(tensor: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor. On a GPU the gradient of indexing would sort the index at every call."""
    return tensor[index] if tensor.device.type == "cpu" else tensor.index_select(0, index)


def segment_softmax(segment: Tensor, count: int, logits: Tensor) -> Tensor:
    """Softmax of logits [E, *] over the entries of each of `count` segments [E]; zeros where all are minus infinity."""
    rows = (count, *logits.shape[1:])
    index = segment.view(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    # The maximum only guards against overflow: it cancels, so no gradient flows through it.
    highest = logits.detach().new_full(rows, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
    empty = highest == -torch.inf
    shifted = torch.exp(logits - _taken(highest.masked_fill(empty, 0.0), segment))
    total = logits.new_zeros(rows).index_add(0, segment, shifted)
    return shifted / _taken(total.masked_fill(empty, 1.0), segment)


def gated_weights(logits: Tensor, form: str) -> Tensor:
    """tanh or sigmoid of logits, or they themselves for "none"; zero where they are minus infinity, in every form."""
    weights = logits if form == "none" else torch.sigmoid(logits) if form == "sigmoid" else torch.tanh(logits)
    return weights.masked_fill(logits.detach() == -torch.inf, 0.0)


def gated_attention(
    kernels: Any,
    graph: DGLGraph,
    value: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    form: str,
    dropout: float,
    seed: int,
) -> Tensor:
    """The operator out of two others of `kernels`, additive_logits and weighted_sum, [N_dst, H, D]."""
    logits = kernels.additive_logits(graph, score_src, score_dst, score_edge)
    return scaled_sum(kernels, graph, value, gated_weights(masked(logits, edge_mask), form), edge_weight, dropout, seed)


def gat_attention(
    kernels: Any,
    graph: DGLGraph,
    value: Tensor,
    attn_src: Tensor,
    attn_dst: Tensor,
    score_edge: Tensor | None,
    *others: Any,
) -> Tensor:
    """The operator as additive_attention of `kernels` behind the scores, [N_dst, H, D]."""
    rows, attn_src, attn_dst = wide(value, attn_src, attn_dst)
    score_src, score_dst = (rows * attn_src).sum(-1), (rows[: graph.num_dst_nodes()] * attn_dst).sum(-1)
    return kernels.additive_attention(graph, value, score_src, score_dst, score_edge, *others)


def scaled_sum(
    kernels: Any,
    graph: DGLGraph,
    value: Tensor,
    alpha: Tensor,
    edge_weight: Tensor | None,
    dropout: float,
    seed: int,
) -> Tensor:
    """Dropout, edge weight and sum: what follows the weights in every attention operator, [N_dst, H, D]."""
    if dropout > 0.0:
        alpha = alpha * dropout_scale(alpha.shape[0], alpha.shape[1], dropout, seed, alpha.detach())
    if edge_weight is not None:
        alpha = alpha * edge_weight
    return kernels.weighted_sum(graph, value, alpha)


class Plain:
    """The operators, made of six steps: three that give edges something, two sums and the softmax."""

    def _add_ends(self, graph: DGLGraph, at_src: Tensor, at_dst: Tensor) -> Tensor:
        """at_src_u + at_dst_v for every edge, [E, ...]."""
        src, dst = csr.edges(graph, at_src.device)
        return _taken(at_src, src) + _taken(at_dst, dst)

    def _dot_ends(self, graph: DGLGraph, at_src: Tensor, at_dst: Tensor) -> Tensor:
        """at_src_u . at_dst_v for every edge, [E, H]."""
        src, dst = csr.edges(graph, at_src.device)
        return (_taken(at_src, src) * _taken(at_dst, dst)).sum(-1)

    def _copy(self, graph: DGLGraph, rows: Tensor, by_source: bool) -> Tensor:
        """The row of every edge's source, or of its destination, [E, ...]."""
        return rows.index_select(0, csr.edges(graph, rows.device)[0 if by_source else 1])

    def _softmax(self, graph: DGLGraph, logits: Tensor) -> Tensor:
        """Softmax over in-edges, [E, H]."""
        return segment_softmax(csr.edges(graph, logits.device)[1], graph.num_dst_nodes(), logits)

    def _sum(self, graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
        """sum over the edges u -> v of weight_uv * value_u, [N_dst, H, D]."""
        src, dst = csr.edges(graph, value.device)
        messages = _taken(value, src) * weight.unsqueeze(-1)
        return messages.new_zeros((graph.num_dst_nodes(), *messages.shape[1:])).index_add(0, dst, messages)

    gat_attention = gat_attention
    gated_attention = gated_attention

    def additive_logits(
        self, graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None
    ) -> Tensor:
        """score_src_u + score_dst_v + score_edge_uv, [E, H]."""
        score_src, score_dst, score_edge = wide(score_src, score_dst, score_edge)
        logits = self._add_ends(graph, score_src, score_dst)
        return logits if score_edge is None else logits + score_edge

    def gatv2_logits(
        self,
        graph: DGLGraph,
        feat_src: Tensor,
        feat_dst: Tensor,
        attn: Tensor,
        feat_edge: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        """attn . leaky_relu(feat_src_u + feat_dst_v + feat_edge_uv), [E, H]."""
        feat_src, feat_dst, attn, feat_edge = wide(feat_src, feat_dst, attn, feat_edge)
        hidden = self._add_ends(graph, feat_src, feat_dst)
        if feat_edge is not None:
            hidden = hidden + feat_edge
        return (F.leaky_relu(hidden, negative_slope) * attn).sum(-1)

    def dot_product_logits(
        self, graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:
        """scale * (query_v . key_u) + bias_uv, [E, H]."""
        query, key, bias = wide(query, key, bias)
        logits = self._dot_ends(graph, key, query) * scale
        return logits if bias is None else logits + bias

    def copy_u(self, graph: DGLGraph, score_src: Tensor) -> Tensor:
        """score_src_u for every edge, [E, H]."""
        (found,) = wide(score_src)
        return self._copy(graph, found, True).to(score_src.dtype)

    def copy_v(self, graph: DGLGraph, score_dst: Tensor) -> Tensor:
        """score_dst_v for every edge, [E, H]."""
        (found,) = wide(score_dst)
        return self._copy(graph, found, False).to(score_dst.dtype)

    def edge_softmax(self, graph: DGLGraph, logits: Tensor) -> Tensor:
        """exp(logit_uv) / sum over the edges w -> v of exp(logit_wv), [E, H]."""
        return self._softmax(graph, *wide(logits))

    def weighted_sum(self, graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
        """sum over the edges u -> v of weight_uv * value_u, [N_dst, H, D]."""
        return self._sum(graph, *wide(value, weight)).to(value.dtype)

    def _leaky_logits(
        self, graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None, negative_slope: float
    ) -> Tensor:
        """leaky_relu of the sums, [E, H]."""
        logits = self.additive_logits(graph, score_src, score_dst, score_edge)
        out = F.leaky_relu(logits, negative_slope)
        # Minus infinity leaves an edge out, whatever the slope.
        return out if negative_slope > 0 else torch.where(logits == -torch.inf, logits, out)

    def _attend(
        self,
        graph: DGLGraph,
        value: Tensor,
        logits: Tensor,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        dropout: float,
        seed: int,
    ) -> Tensor:
        """Softmax, dropout, edge weight and sum, [N_dst, H, D]."""
        alpha = self.edge_softmax(graph, masked(logits, edge_mask))
        return scaled_sum(self, graph, value, alpha, edge_weight, dropout, seed)

    def additive_attention(
        self,
        graph: DGLGraph,
        value: Tensor,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        logits = self._leaky_logits(graph, score_src, score_dst, score_edge, negative_slope)
        return self._attend(graph, value, logits, edge_weight, edge_mask, dropout, seed)

    def gatv2_attention(
        self,
        graph: DGLGraph,
        feat_src: Tensor,
        feat_dst: Tensor,
        attn: Tensor,
        feat_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        logits = self.gatv2_logits(graph, feat_src, feat_dst, attn, feat_edge, negative_slope)
        return self._attend(graph, feat_src, logits, edge_weight, edge_mask, dropout, seed)

    def dot_product_attention(
        self,
        graph: DGLGraph,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        scale: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        logits = self.dot_product_logits(graph, query, key, bias, scale)
        return self._attend(graph, value, logits, edge_weight, edge_mask, dropout, seed)

    def additive_weights(
        self,
        graph: DGLGraph,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        logits = self._leaky_logits(graph, score_src, score_dst, score_edge, negative_slope)
        return self.edge_softmax(graph, masked(logits, edge_mask))

    def gatv2_weights(
        self,
        graph: DGLGraph,
        feat_src: Tensor,
        feat_dst: Tensor,
        attn: Tensor,
        feat_edge: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        logits = self.gatv2_logits(graph, feat_src, feat_dst, attn, feat_edge, negative_slope)
        return self.edge_softmax(graph, masked(logits, edge_mask))

    def dot_product_weights(
        self, graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, edge_mask: Tensor | None, scale: float
    ) -> Tensor:
        return self.edge_softmax(graph, masked(self.dot_product_logits(graph, query, key, bias, scale), edge_mask))
