"""The weights of the normalised adjacency, for sums over neighbours that learn no weights of their own."""

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph import csr
from hgat.graph.memory import within_memory

__all__ = ["normalized"]

NORMS = ("both", "right", "left", "none")


@within_memory
def normalized(graph: DGLGraph, norm: str = "both", edge_weight: Tensor | None = None) -> Tensor:
    """One weight for each edge, that of the normalised adjacency, in DGL's words.

        both: w_uv / sqrt(d_u d_v);   right: w_uv / d_v;   left: w_uv / d_u;   none: w_uv

    d_u is the sum of w over the edges that leave u, d_v that over the edges that enter v, the degrees where w is 1.
    right is the mean over in-edges. Self-loops are the caller's to add.

    Shapes: edge_weight [E] of numbers not below zero, or None for ones -> [E] float32 in the graph's edge order, on the
    device of edge_weight, else of the graph. Where d is zero the weight is zero, not infinite.
    Raises GraphError for a graph of several relations, ShapeError for another norm and for weights that do not fit.
    Differs from dgl.nn.EdgeWeightNorm: "left" is known, zeros are allowed, and the sums are taken in float64.
    """
    csr.single_relation(graph)
    if not isinstance(norm, str) or norm not in NORMS:
        raise ShapeError(f"norm: expected one of {list(NORMS)}, got {csr.shown(norm)}")
    if edge_weight is None:
        src, dst = csr.edges(graph)
        weight = torch.ones(len(src), dtype=torch.float64, device=src.device)
    else:
        weight = _checked(graph, edge_weight)
        src, dst = csr.edges(graph, weight.device)
    found = weight
    if norm in ("both", "left"):
        found = found * _inverse(weight, src, graph.num_src_nodes(), norm)[src]
    if norm in ("both", "right"):
        found = found * _inverse(weight, dst, graph.num_dst_nodes(), norm)[dst]
    return found.float()


def _inverse(weight: Tensor, end: Tensor, rows: int, norm: str) -> Tensor:
    """1 / d of every node, or for "both" its root; 0 where d is 0."""
    degree = weight.new_zeros(rows).index_add(0, end, weight)
    power = degree.rsqrt() if norm == "both" else degree.reciprocal()
    return power.masked_fill(degree == 0, 0.0)


def _checked(graph: DGLGraph, edge_weight: Tensor) -> Tensor:
    """edge_weight in float64, apart from the gradients of what it was computed from."""
    if not isinstance(edge_weight, Tensor) or edge_weight.is_complex() or edge_weight.layout != torch.strided:
        got = edge_weight.dtype if isinstance(edge_weight, Tensor) else type(edge_weight).__name__
        raise ShapeError(f"edge_weight: expected a tensor of real numbers [E], got {got}")
    check_shape("edge_weight", edge_weight, ("E", graph.num_edges()))
    weight = edge_weight.detach().double()
    if not bool((weight.isfinite() & (weight >= 0)).all()):
        raise GraphError("edge_weight: expected finite numbers not below zero, whose sums are degrees, got others")
    return weight
