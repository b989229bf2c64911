"""Operators in parts by destination, for graphs whose edges x heads x width do not fit into memory.

Compiled kernels (`native`, `triton`) never make a tensor of that size. The backends `dgl` and `torch` do, several
times, and keep some for backward; inside `in_chunks` they run on one range of destinations after the other, keep only
the inputs, and compute each range again in backward. Every softmax lies inside one range, so the result is the same.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dgl
import torch
from dgl import DGLGraph
from torch import Tensor
from torch.autograd.function import once_differentiable

from hgat.errors import ShapeError
from hgat.graph import csr
from hgat.ops.contexts import Setting
from hgat.ops.dropout import dropout_scale

__all__ = ["in_chunks", "limit", "run"]

_limit = Setting("hgat_edges_of_a_chunk", None)
# What the first axis of an operator's argument counts; every other argument is passed on as it is.
SOURCES = ("value", "score_src", "feat_src", "key")
DESTINATIONS = ("score_dst", "feat_dst", "query")
EDGES = ("score_edge", "feat_edge", "bias", "edge_weight", "edge_mask", "logits", "weight")
WHOLE = ("attn",)


@contextmanager
def in_chunks(edges: int) -> Iterator[None]:
    """Inside the block `dgl` and `torch` take about `edges` edges at a time, all in-edges of a node together.

    For full-graph training where these backends would need more memory than there is: the results are those of the
    whole call but for rounding, forward runs twice, and what is kept for backward are the inputs alone. The backends
    `native` and `triton` are left as they are: they need no such memory. Raises ShapeError for less than one edge.
    Differs: not differentiable a second time.
    """
    if not isinstance(edges, int) or edges < 1:
        raise ShapeError(f"edges: expected a whole number of 1 or more, got {edges!r}")
    with _limit.to(edges):
        yield


def limit() -> int | None:
    """Edges of a chunk, or None outside `in_chunks`."""
    return _limit.get()


@dataclass(frozen=True)
class _Chunk:
    """The in-edges of the destinations first to last - 1. graph: from `sources`, renumbered; edge: [E_c] numbers."""

    graph: dgl.DGLGraph
    sources: torch.Tensor
    first: int
    last: int
    edge: torch.Tensor

    def part(self, axis: str, tensor: Tensor) -> Tensor:
        if axis == "src":
            return tensor[self.sources]
        if axis == "edge":
            return tensor[self.edge]
        return tensor[self.first : self.last] if axis == "dst" else tensor


def _chunks(graph: DGLGraph, edges: int, device: torch.device) -> list[_Chunk]:
    """The chunks of a graph, kept with it; together they cover every destination."""

    def build():
        rows = csr.in_rows(graph, device)
        start = rows.indptr.cpu()
        found, first, count = [], 0, graph.num_dst_nodes()
        while first < count:
            # The last row that still fits; a row of more edges is a chunk of its own.
            last = int(torch.searchsorted(start, start[first] + edges, right=True)) - 1
            last = min(max(last, first + 1), count)
            here = slice(int(start[first]), int(start[last]))
            sources, src = torch.unique(rows.other[here], return_inverse=True)
            dst = torch.repeat_interleave(torch.arange(last - first), torch.diff(start[first : last + 1]))
            part = dgl.heterograph(
                {("source", "to", "target"): (src.int().to(graph.device), dst.int().to(graph.device))},
                num_nodes_dict={"source": len(sources), "target": last - first},
                idtype=torch.int32,
            )
            found.append(_Chunk(part, sources, first, last, rows.edge_id[here]))
            first = last
        return found

    return csr.cached(graph, ("chunks", edges, str(device)), build)


class _Chunked(torch.autograd.Function):
    """One operator, chunk by chunk. call(graph, *tensors): the operator; axes: of each tensor; out: axis of the result.

    rows: of the result.
    """

    @staticmethod
    def forward(ctx, call, chunks, axes, out, rows, *tensors):
        ctx.call, ctx.chunks, ctx.axes, ctx.out = call, chunks, axes, out
        ctx.save_for_backward(*tensors)
        whole = None
        for chunk in chunks:
            found = call(chunk.graph, *(chunk.part(axis, t) for axis, t in zip(axes, tensors, strict=True)))
            if whole is None:
                whole = found.new_empty((rows, *found.shape[1:]))
            whole[chunk.edge if out == "edge" else slice(chunk.first, chunk.last)] = found
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[5:]
        # Sums over chunks, in float32 at least.
        grads = [
            torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) if want else None
            for t, want in zip(tensors, wanted, strict=True)
        ]
        for chunk in ctx.chunks:
            parts = [
                chunk.part(axis, t).detach().requires_grad_(want)
                for axis, t, want in zip(ctx.axes, tensors, wanted, strict=True)
            ]
            with torch.enable_grad():
                found = ctx.call(chunk.graph, *parts)
            here = chunk.part(ctx.out, d_out)
            asked = [k for k, want in enumerate(wanted) if want]
            got = torch.autograd.grad(found, [parts[k] for k in asked], here, allow_unused=True)
            for k, grad in zip(asked, got, strict=True):
                if grad is None:
                    continue
                axis, total = ctx.axes[k], grads[k]
                grad = grad.to(total.dtype)
                if axis == "src":
                    total.index_add_(0, chunk.sources, grad)
                elif axis == "edge":
                    total[chunk.edge] = grad
                elif axis == "dst":
                    total[chunk.first : chunk.last] = grad
                else:
                    total += grad
        found = [None if g is None else g.to(t.dtype) for g, t in zip(grads, tensors, strict=True)]
        return None, None, None, None, None, *found


def _axis(name: str) -> str | None:
    for axis, names in (("src", SOURCES), ("dst", DESTINATIONS), ("edge", EDGES), ("all", WHOLE)):
        if name in names:
            return axis
    return None


def run(operator: Callable[..., Tensor], edges: int) -> Callable[..., Tensor]:
    """`operator`, a function of the backend `dgl` or `torch`, in chunks of `edges` edges."""
    names = [*inspect.signature(operator).parameters][1:]
    # The weights of attention and the halves that end at edges give a row per edge.
    out = "dst" if operator.__name__.endswith(("_attention", "_sum")) else "edge"

    def call(graph, *arguments):
        given = dict(zip(names, arguments, strict=True))
        if graph.num_edges() <= edges:
            return operator(graph, *arguments)
        if given.get("dropout"):
            # What is dropped depends on an edge's number in the whole graph.
            like = next(given[name] for name in SOURCES if name in given)
            heads, wide = like.shape[1], torch.promote_types(like.dtype, torch.float32)
            scale = dropout_scale(graph.num_edges(), heads, given["dropout"], given["seed"], like.detach().to(wide))
            given["edge_weight"] = scale if given["edge_weight"] is None else given["edge_weight"] * scale
            given["dropout"] = 0.0
        tensors = {name: t for name, t in given.items() if _axis(name) and t is not None}

        def on_part(part, *some):
            return operator(part, **{**given, **dict(zip(tensors, some, strict=True))})

        axes = [_axis(name) for name in tensors]
        rows = graph.num_edges() if out == "edge" else graph.num_dst_nodes()
        device = next(iter(tensors.values())).device
        return _Chunked.apply(on_part, _chunks(graph, edges, device), axes, out, rows, *tensors.values())

    return call
