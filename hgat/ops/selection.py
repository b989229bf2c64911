"""Which entries have the largest logits: what attention to some of them alone takes part in."""

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import ShapeError, check_whole
from hgat.graph import csr
from hgat.ops.checks import FLOATS

__all__ = ["top_k_mask"]


def top_k_mask(logits: Tensor, k: int, *, graph: DGLGraph | None = None, dim: int | None = None) -> Tensor:
    """True for the k largest logits among the in-edges of each node, or along an axis.

    Shapes: logits [E, *] in the order of the graph's edges, or [*] with `dim` -> bool of the same shape, every column
    for itself. Of equal logits the first are taken, a logit of minus infinity never, and a NaN counts as the largest.
    Raises ShapeError for a k below 1 and for logits that do not fit, GraphError for a graph of several relations.
    """
    if (graph is None) == (dim is None):
        raise ShapeError(f"top_k_mask: expected a graph or an axis dim, got {'none' if graph is None else 'both'}")
    if not isinstance(logits, Tensor) or logits.dtype not in FLOATS:
        raise ShapeError(f"logits: expected a floating-point tensor, got {getattr(logits, 'dtype', type(logits))}")
    if k is None:
        raise ShapeError("k: expected a whole number, 1 or more, got None")
    check_whole(1, k=k)
    logits = logits.detach()
    if graph is None:
        assert dim is not None
        order = torch.sort(logits, dim=dim, descending=True, stable=True)[1]
        place = torch.arange(logits.shape[dim], device=logits.device)
        place = place.view(-1, *[1] * (logits.dim() - 1 - dim % logits.dim())).expand_as(order)
    else:
        csr.single_relation(graph)
        if logits.dim() == 0 or len(logits) != graph.num_edges():
            expected = f"[E, *] with E = {graph.num_edges()}"
            raise ShapeError(f"logits: expected {expected}, got {list(logits.shape)}")
        # Sorted by logit, and then, which keeps that order, by destination: each node's edges stand in a row.
        columns = (-1, *[1] * (logits.dim() - 1))
        dim, first = 0, csr.beside(graph, "indptr", csr.in_rows(graph).indptr, logits.device)
        dst = csr.edges(graph, logits.device)[1].view(columns).expand_as(logits)
        order = torch.sort(logits, dim=0, descending=True, stable=True)[1]
        end, again = torch.sort(dst.gather(0, order), dim=0, stable=True)
        order = order.gather(0, again)
        place = torch.arange(len(logits), device=logits.device).view(columns) - first[end]
    return torch.zeros_like(logits, dtype=torch.bool).scatter(dim, order, place < k) & (logits != -torch.inf)
