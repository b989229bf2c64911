"""The `dgl` backend: every operator in DGL's message passing and its fused edge softmax.

Where DGL cannot run a step beside the features (PyPI's DGL has no CUDA code; its kernels need an edge, a number, and a
graph that may hold every sparse format; torch.func's transforms do not see into it), the step of the `torch` backend
runs instead.
"""

import dgl
import torch
from dgl import DGLGraph
from dgl.nn.functional import edge_softmax as _dgl_edge_softmax  # DGL's own, also after `hgat.accelerate()`
from torch import Tensor

from hgat import transforms
from hgat.graph import csr
from hgat.ops.plain import Plain

__all__ = ["Reference"]


def _dgl_runs(graph: DGLGraph, *tensors: Tensor) -> bool:
    """True if DGL's own kernels serve this call; they refuse empty tensors, restricted formats and transforms."""
    if transforms.active():
        return False
    served = all(t.device == graph.device and t.numel() > 0 for t in tensors)
    return served and graph.num_edges() > 0 and csr.all_formats(graph)


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


def _no_empty_softmax(graph: DGLGraph, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """(logits, mask): logits without rows that are all minus infinity, and where such rows stand, [E, H] or None.

    A node whose in-edges are all left out is one without in-edges: zeros, where DGL's softmax gives NaN.
    """
    left_out = logits.detach() == -torch.inf
    if logits.device.type == "cpu" and not left_out.any():  # elsewhere the question would wait for the device
        return logits, None
    kept = dgl.ops.copy_e_sum(graph, (~left_out).to(logits.dtype))
    nothing = dgl.ops.copy_v(graph, kept) == 0
    return logits.masked_fill(nothing, 0.0), nothing


class Reference(Plain):
    """The operators of `torch`, with DGL's kernels for their steps."""

    def _add_ends(self, graph: DGLGraph, at_src: Tensor, at_dst: Tensor) -> Tensor:
        if _dgl_runs(graph, at_src):
            return dgl.ops.u_add_v(csr.numbered(graph), at_src, at_dst)
        return super()._add_ends(graph, at_src, at_dst)

    def _dot_ends(self, graph: DGLGraph, at_src: Tensor, at_dst: Tensor) -> Tensor:
        if _dgl_runs(graph, at_src):
            return dgl.ops.u_dot_v(csr.numbered(graph), at_src, at_dst).squeeze(-1)
        return super()._dot_ends(graph, at_src, at_dst)

    def _copy(self, graph: DGLGraph, rows: Tensor, by_source: bool) -> Tensor:
        if _dgl_runs(graph, rows):
            return (dgl.ops.copy_u if by_source else dgl.ops.copy_v)(csr.numbered(graph), rows)
        return super()._copy(graph, rows, by_source)

    def _softmax(self, graph: DGLGraph, logits: Tensor) -> Tensor:
        if not _dgl_runs(graph, logits):
            return super()._softmax(graph, logits)
        graph = csr.numbered(graph)
        logits, nothing = _no_empty_softmax(graph, logits.contiguous())  # DGL's result has the strides of its input
        alpha = _EdgeSoftmax.apply(graph, logits)
        return alpha if nothing is None else alpha.masked_fill(nothing, 0.0)

    def _sum(self, graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
        if _dgl_runs(graph, value, weight):
            return dgl.ops.u_mul_e_sum(csr.numbered(graph), value, weight.unsqueeze(-1))
        return super()._sum(graph, value, weight)
