"""What compiled kernels of any device need of a call: the operators' positional arguments, brought to one type."""

from types import ModuleType

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.graph import csr
from hgat.ops import registry
from hgat.ops.plain import gat_attention, gated_attention
from hgat.ops.registry import sum_type

__all__ = ["Compiled"]


def _types(rows, numbers):
    """`rows` in one type of storage, wide enough for all, and `numbers` in the type of its sums."""
    stored = rows[0].dtype
    for tensor in (*rows, *numbers):
        if tensor is not None and (tensor.dtype == torch.float64 or any(tensor is row for row in rows)):
            stored = torch.promote_types(stored, tensor.dtype)
    wide = sum_type(stored)
    return (
        [None if t is None else t.to(stored) for t in rows],
        [None if t is None else t.to(wide) for t in numbers],
    )


class Compiled:
    """The operators on one set of kernels, hgat.kernels.cpu or hgat.kernels.triton."""

    def __init__(self, kernels: ModuleType) -> None:
        self._kernels = kernels

    def _structure(self, graph, tensor):
        return csr.structure(graph, tensor.device, self._kernels)

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
        (rows,), numbers = _types([value], [score_src, score_dst, score_edge, edge_weight])
        out, _, _ = registry.additive_op(
            self._structure(graph, value), rows, *numbers, edge_mask, negative_slope, dropout, seed
        )
        return out.to(value.dtype)

    def gat_attention(
        self,
        graph: DGLGraph,
        value: Tensor,
        attn_src: Tensor,
        attn_dst: Tensor,
        score_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        if not hasattr(self._kernels, "gat"):  # the core's costs no launch, so that it would gain nothing
            others = edge_weight, edge_mask, negative_slope, dropout, seed
            return gat_attention(self, graph, value, attn_src, attn_dst, score_edge, *others)
        (rows,), numbers = _types([value], [attn_src, attn_dst, score_edge, edge_weight])
        out, _, _ = registry.gat_op(
            self._structure(graph, value), rows, *numbers, edge_mask, negative_slope, dropout, seed
        )
        return out.to(value.dtype)

    def gated_attention(
        self,
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
        if not hasattr(self._kernels, "gated"):  # Triton's have no such kernel yet: two of theirs
            scores = score_src, score_dst, score_edge
            return gated_attention(self, graph, value, *scores, edge_weight, edge_mask, form, dropout, seed)
        (rows,), numbers = _types([value], [score_src, score_dst, score_edge, edge_weight])
        return registry.gated_op(self._structure(graph, value), rows, *numbers, edge_mask, form, dropout, seed).to(
            value.dtype
        )

    def additive_weights(
        self,
        graph: DGLGraph,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        _, numbers = _types([score_src], [score_src, score_dst, score_edge])
        return registry.additive_alpha_op(
            self._structure(graph, score_src), *numbers, edge_mask, negative_slope, graph.num_edges()
        )

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
        rows, (attn, edge_weight) = _types([feat_src, feat_dst, feat_edge], [attn, edge_weight])
        out, _, _ = registry.gatv2_op(
            self._structure(graph, feat_src), *rows, attn, edge_weight, edge_mask, negative_slope, dropout, seed
        )
        return out.to(feat_src.dtype)

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
        rows, (attn,) = _types([feat_src, feat_dst, feat_edge], [attn])
        return registry.gatv2_alpha_op(
            self._structure(graph, feat_src), *rows, attn, edge_mask, negative_slope, graph.num_edges()
        )

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
        rows, numbers = _types([query, key, value], [bias, edge_weight])
        out, _, _ = registry.dot_op(self._structure(graph, key), *rows, *numbers, edge_mask, scale, dropout, seed)
        return out.to(value.dtype)

    def dot_product_weights(
        self, graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, edge_mask: Tensor | None, scale: float
    ) -> Tensor:
        rows, (bias,) = _types([query, key], [bias])
        return registry.dot_edges_op(
            self._structure(graph, key), *rows, bias, edge_mask, scale, True, graph.num_edges()
        )

    def dot_product_logits(
        self, graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:
        rows, (bias,) = _types([query, key], [bias])
        return registry.dot_edges_op(self._structure(graph, key), *rows, bias, None, scale, False, graph.num_edges())

    def additive_logits(
        self, graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None
    ) -> Tensor:
        _, numbers = _types([score_src], [score_src, score_dst, score_edge])
        return registry.additive_logits_op(self._structure(graph, score_src), *numbers, graph.num_edges())

    def copy_u(self, graph: DGLGraph, score_src: Tensor) -> Tensor:
        rows = score_src.to(sum_type(score_src.dtype))
        return registry.copy_u_op(self._structure(graph, score_src), csr.edges(graph, score_src.device)[0], rows).to(
            score_src.dtype
        )

    def copy_v(self, graph: DGLGraph, score_dst: Tensor) -> Tensor:
        rows = score_dst.to(sum_type(score_dst.dtype))
        return registry.copy_v_op(self._structure(graph, score_dst), csr.edges(graph, score_dst.device)[1], rows).to(
            score_dst.dtype
        )

    def edge_softmax(self, graph: DGLGraph, logits: Tensor) -> Tensor:
        return registry.softmax_op(self._structure(graph, logits), logits.to(sum_type(logits.dtype)))

    def weighted_sum(self, graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
        (rows,), (weight,) = _types([value], [weight])
        return registry.weighted_sum_op(self._structure(graph, value), rows, weight, graph.num_dst_nodes()).to(
            value.dtype
        )
