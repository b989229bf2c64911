"""Features spread along the edges with weights that stay as they are, step after step."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_range, check_shape, check_whole
from hgat.graph.csr import single_relation
from hgat.ops.checks import FLOATS, check_number
from hgat.ops.segment import weighted_sum

__all__ = ["propagate"]


def propagate(
    graph: DGLGraph,
    x: Tensor,
    weight: Tensor | None = None,
    steps: int = 1,
    *,
    restart: float = 0.0,
    every: bool = False,
) -> Any:
    """Repeated weighted sums over the in-edges of each node.

        z^0 = x;  z^{k+1}_v = (1 - restart) sum_u weight_uv z^k_u + restart x_v

    Shapes: x [N, F] with weight [E], or [N, H, D] with weight [E] or [E, H]; weight None for ones -> z of the last
    step, of the shape of x; with every=True the list z^0, ..., z^steps, x itself first. Weights may be negative and
    need not sum to one; `hgat.graph.normalized` gives those of a normalised adjacency. Gradients go back to x and to
    weight. The caller may overwrite the result, but not the parts of the list, each of which made the next.
    Raises ShapeError for tensors and numbers that do not fit, GraphError for a graph whose destinations are not its
    sources.
    Paper: Klicpera et al. 2019 (APPNP), arXiv:1810.05997, the power iteration; without a restart the plain powers.
    """
    single_relation(graph)
    count = graph.num_dst_nodes()
    if graph.is_block or graph.num_src_nodes() != count:
        ends = "a block" if graph.is_block else f"{graph.num_src_nodes()} sources and {count} destinations"
        raise GraphError(f"graph: expected one whose destinations are its sources, got {ends}")
    check_whole(0, steps=steps)
    check_range(0, 1, restart=check_number("restart", restart))
    if not isinstance(x, Tensor) or x.dtype not in FLOATS or x.dim() not in (2, 3):
        got: object = type(x).__name__
        if isinstance(x, Tensor):
            got = x.dtype if x.dtype not in FLOATS else list(x.shape)
        raise ShapeError(f"x: expected a floating-point tensor [N, F] or [N, H, D], got {got}")
    check_shape("x", x, ("N", count), *((("F", None),) if x.dim() == 2 else (("H", None), ("D", None))))
    weight = _columns(graph, x, weight)
    z = x if x.dim() == 3 else x.unsqueeze(1)
    origin = None if restart == 0 else z * restart
    found = [z]
    for _ in range(steps):
        z = weighted_sum(graph, z, weight)
        if origin is not None:
            z = torch.add(origin, z, alpha=1.0 - restart)
        if every:
            found.append(z)
    if every:
        return [x, *(one.reshape(x.shape) for one in found[1:])]
    return z.reshape(x.shape) if steps else x.clone()


def _columns(graph: DGLGraph, x: Tensor, weight: Any) -> Tensor:
    """weight as [E, 1] for x [N, F], as [E, H] for x [N, H, D]."""
    heads = 1 if x.dim() == 2 else x.shape[1]
    if weight is None:
        return x.new_ones(graph.num_edges(), heads)
    if not isinstance(weight, Tensor) or weight.dtype not in FLOATS:
        got = getattr(weight, "dtype", type(weight).__name__)
        raise ShapeError(f"weight: expected a floating-point tensor [E] or [E, H], got {got}")
    per_head = weight.dim() == 2 and x.dim() == 3
    check_shape("weight", weight, ("E", graph.num_edges()), *((("H", heads),) if per_head else ()))
    if weight.device != x.device:
        raise ShapeError(f"weight: expected device {x.device} like x, got {weight.device}")
    return weight if per_head else weight.unsqueeze(1).expand(-1, heads).contiguous()
