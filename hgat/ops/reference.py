"""Every operator in plain DGL message passing and DGL's fused edge softmax: the definition, and the `dgl` backend.

Any float type and any device. Arguments are checked by the operators, not here. Where DGL cannot run beside
the features (PyPI's DGL has no CUDA code; its kernels need an edge, a number, and a graph that may hold every
sparse format), the same steps run as PyTorch gathers and index sums. Half-precision inputs are summed in
float32 and the result is cast back.
"""

from typing import Any

import dgl
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from dgl.nn.functional import edge_softmax as _dgl_edge_softmax  # DGL's own, also after `hgat.accelerate()`
from torch import Tensor

from hgat import transforms
from hgat.graph import csr
from hgat.ops.dropout import dropout_scale

__all__ = [
    "additive_logits",
    "attend",
    "copy_u",
    "copy_v",
    "dot_product_logits",
    "edge_softmax",
    "gatv2_logits",
    "weighted_sum",
]


def _wide(*tensors: Tensor | None) -> list[Any]:
    """The tensors in one type of at least float32."""
    dtype = torch.float32
    for t in tensors:
        if t is not None:
            dtype = torch.promote_types(dtype, t.dtype)
    return [None if t is None else t.to(dtype) for t in tensors]


def _dgl_runs(graph: DGLGraph, *tensors: Tensor) -> bool:
    """True if DGL's own kernels serve this call; they refuse empty tensors, restricted formats and transforms."""
    if transforms.active():
        return False
    served = all(t.device == graph.device and t.numel() > 0 for t in tensors)
    return served and graph.num_edges() > 0 and csr.all_formats(graph)


def _add_ends(graph: DGLGraph, at_src: Tensor, at_dst: Tensor) -> Tensor:
    """at_src_u + at_dst_v for every edge, [E, ...]."""
    if _dgl_runs(graph, at_src):
        return dgl.ops.u_add_v(csr.numbered(graph), at_src, at_dst)
    src, dst = csr.edges(graph, at_src.device)
    return at_src[src] + at_dst[dst]


class _EdgeSoftmax(torch.autograd.Function):
    """DGL's fused edge softmax with a backward that can be differentiated again.

    DGL 2.1's own backward on the CPU is a fused kernel outside autograd: second derivatives through it are silently
    zero. Here backward is made of differentiable steps:

        d_logit_uv = alpha_uv * (d_alpha_uv - sum_w alpha_wv * d_alpha_wv)
    """

    @staticmethod
    def forward(ctx, graph, logits):
        alpha = _dgl_edge_softmax(graph, logits)
        ctx.graph = graph
        ctx.save_for_backward(alpha)
        return alpha

    @staticmethod
    def backward(ctx, d_alpha):
        (alpha,) = ctx.saved_tensors
        product = alpha * d_alpha
        total = dgl.ops.copy_e_sum(ctx.graph, product)
        return None, product - dgl.ops.e_mul_v(ctx.graph, alpha, total)


def additive_logits(graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None) -> Tensor:
    """score_src_u + score_dst_v + score_edge_uv, [E, H]."""
    score_src, score_dst, score_edge = _wide(score_src, score_dst, score_edge)
    logits = _add_ends(graph, score_src, score_dst)
    return logits if score_edge is None else logits + score_edge


def _leaky_logits(
    graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None, negative_slope: float
) -> Tensor:
    """leaky_relu of the sums, [E, H]."""
    logits = additive_logits(graph, score_src, score_dst, score_edge)
    out = F.leaky_relu(logits, negative_slope)
    # Minus infinity leaves an edge out, whatever the slope.
    return out if negative_slope > 0 else torch.where(logits == -torch.inf, logits, out)


def gatv2_logits(
    graph: DGLGraph, feat_src: Tensor, feat_dst: Tensor, attn: Tensor, feat_edge: Tensor | None, negative_slope: float
) -> Tensor:
    """attn . leaky_relu(feat_src_u + feat_dst_v + feat_edge_uv), [E, H]."""
    feat_src, feat_dst, attn, feat_edge = _wide(feat_src, feat_dst, attn, feat_edge)
    hidden = _add_ends(graph, feat_src, feat_dst)
    if feat_edge is not None:
        hidden = hidden + feat_edge
    return (F.leaky_relu(hidden, negative_slope) * attn).sum(-1)


def dot_product_logits(graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """scale * (query_v . key_u) + bias_uv, [E, H]."""
    query, key, bias = _wide(query, key, bias)
    if _dgl_runs(graph, key):
        logits = dgl.ops.u_dot_v(csr.numbered(graph), key, query).squeeze(-1)
    else:
        src, dst = csr.edges(graph, key.device)
        logits = (key[src] * query[dst]).sum(-1)
    logits = logits * scale
    return logits if bias is None else logits + bias


def copy_u(graph: DGLGraph, score_src: Tensor) -> Tensor:
    """score_src_u for every edge, [E, H]."""
    (wide,) = _wide(score_src)
    if _dgl_runs(graph, wide):
        out = dgl.ops.copy_u(csr.numbered(graph), wide)
    else:
        out = wide.index_select(0, csr.edges(graph, wide.device)[0])
    return out.to(score_src.dtype)


def copy_v(graph: DGLGraph, score_dst: Tensor) -> Tensor:
    """score_dst_v for every edge, [E, H]."""
    (wide,) = _wide(score_dst)
    if _dgl_runs(graph, wide):
        out = dgl.ops.copy_v(csr.numbered(graph), wide)
    else:
        out = wide.index_select(0, csr.edges(graph, wide.device)[1])
    return out.to(score_dst.dtype)


def edge_softmax(graph: DGLGraph, logits: Tensor) -> Tensor:
    """exp(logit_uv) / sum over the edges w -> v of exp(logit_wv), [E, H]."""
    (wide,) = _wide(logits)
    if _dgl_runs(graph, wide):
        graph = csr.numbered(graph)
        wide, nothing = _no_empty_softmax(graph, wide.contiguous())  # DGL's result has the strides of its input
        alpha = _EdgeSoftmax.apply(graph, wide)
        return alpha if nothing is None else alpha.masked_fill(nothing, 0.0)
    _, dst = csr.edges(graph, wide.device)
    rows = (graph.num_dst_nodes(), *wide.shape[1:])
    index = dst.view(-1, *[1] * (wide.dim() - 1)).expand_as(wide)
    # The maximum only guards against overflow: it cancels, so no gradient flows through it.
    highest = wide.detach().new_full(rows, -torch.inf).scatter_reduce(0, index, wide.detach(), "amax")
    empty = highest == -torch.inf
    shifted = torch.exp(wide - highest.masked_fill(empty, 0.0)[dst])
    total = wide.new_zeros(rows).index_add(0, dst, shifted)
    return shifted / total.masked_fill(empty, 1.0)[dst]


def _no_empty_softmax(graph: DGLGraph, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """(logits, mask): logits without rows that are all minus infinity, and where such rows stand, [E, H] or None.

    A node whose in-edges are all left out is one without in-edges: zeros, where DGL's softmax gives NaN.
    """
    left_out = logits.detach() == -torch.inf
    if not left_out.any():
        return logits, None
    kept = dgl.ops.copy_e_sum(graph, (~left_out).to(logits.dtype))
    nothing = dgl.ops.copy_v(graph, kept) == 0
    return logits.masked_fill(nothing, 0.0), nothing


def weighted_sum(graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
    """sum over the edges u -> v of weight_uv * value_u, [N_dst, H, D]."""
    wide_value, weight = _wide(value, weight)
    if _dgl_runs(graph, wide_value, weight):
        out = dgl.ops.u_mul_e_sum(csr.numbered(graph), wide_value, weight.unsqueeze(-1))
    else:
        src, dst = csr.edges(graph, wide_value.device)
        messages = wide_value[src] * weight.unsqueeze(-1)
        out = messages.new_zeros((graph.num_dst_nodes(), *messages.shape[1:])).index_add(0, dst, messages)
    return out.to(value.dtype)


def masked(logits: Tensor, edge_mask: Tensor | None) -> Tensor:
    """Minus infinity where an edge is left out."""
    return logits if edge_mask is None else logits.masked_fill(~edge_mask, -torch.inf)


def attend(
    graph: DGLGraph,
    value: Tensor,
    logits: Tensor,
    edge_weight: Tensor | None,
    edge_mask: Tensor | None,
    dropout: float,
    seed: int,
) -> Tensor:
    """Softmax, dropout, edge weight and sum: what the attention operators share, [N_dst, H, D]."""
    alpha = edge_softmax(graph, masked(logits, edge_mask))
    if dropout > 0.0:
        alpha = alpha * dropout_scale(alpha.shape[0], alpha.shape[1], dropout, seed, alpha.detach())
    if edge_weight is not None:
        alpha = alpha * edge_weight
    return weighted_sum(graph, value, alpha)


def additive_attention(
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
    logits = _leaky_logits(graph, score_src, score_dst, score_edge, negative_slope)
    return attend(graph, value, logits, edge_weight, edge_mask, dropout, seed)


def gatv2_attention(
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
    logits = gatv2_logits(graph, feat_src, feat_dst, attn, feat_edge, negative_slope)
    return attend(graph, feat_src, logits, edge_weight, edge_mask, dropout, seed)


def dot_product_attention(
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
    logits = dot_product_logits(graph, query, key, bias, scale)
    return attend(graph, value, logits, edge_weight, edge_mask, dropout, seed)


def additive_weights(
    graph: DGLGraph,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None,
    edge_mask: Tensor | None,
    negative_slope: float,
) -> Tensor:
    logits = _leaky_logits(graph, score_src, score_dst, score_edge, negative_slope)
    return edge_softmax(graph, masked(logits, edge_mask))


def gatv2_weights(
    graph: DGLGraph,
    feat_src: Tensor,
    feat_dst: Tensor,
    attn: Tensor,
    feat_edge: Tensor | None,
    edge_mask: Tensor | None,
    negative_slope: float,
) -> Tensor:
    logits = gatv2_logits(graph, feat_src, feat_dst, attn, feat_edge, negative_slope)
    return edge_softmax(graph, masked(logits, edge_mask))


def dot_product_weights(
    graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, edge_mask: Tensor | None, scale: float
) -> Tensor:
    return edge_softmax(graph, masked(dot_product_logits(graph, query, key, bias, scale), edge_mask))
