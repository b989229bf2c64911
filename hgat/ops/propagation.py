"""Features spread along the edges with weights that stay as they are, step after step."""

import os
from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_range, check_shape, check_whole
from hgat.graph.csr import single_relation
from hgat.graph.hops import stored_hops
from hgat.ops.checks import FLOATS, check_number
from hgat.ops.segment import weighted_sum

__all__ = ["hop_features", "propagate"]


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


def hop_features(
    graph: DGLGraph,
    feat: Tensor,
    hops: int,
    edge_weight: Tensor | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> list[Tensor]:
    """What a node's neighbours at every distance say, computed once before training: the hops of SIGN and GAMLP.

        X^(0) = feat;   X^(k)_v = sum_u w_uv X^(k-1)_u

    Shapes: feat [N, F], edge_weight [E], w, such as those of `hgat.graph.normalized`, ones by default -> the list
    X^(0), ..., X^(hops), each [N, F]: what DGL's SIGNDiffusion leaves in a graph's data. Rows of it, `x[ids]`, train
    GAMLP, DAGNN's gates or SIGN in batches without a graph. In memory it is `propagate` with every=True.

    folder: X^(1) to X^(hops) are computed into files there, hop by hop, with room for one of them in memory, and are
    memory-mapped tensors: rows are read from the disk when they are asked for, and what is assigned to them does not
    reach it. The same bits as in memory. The folder appears whole or not at all. One that is there is read instead of
    computed, if it was made of the same edges in the same order, weights, features and number of hops, of which it
    holds the SHA-256; the hops themselves are not read through again.

    Raises ShapeError for tensors and numbers that do not fit, and for a folder beside a half type or what gradients are
    asked of; GraphError for a graph whose destinations are not its sources; DataError for a folder of anything else;
    OutputError where it cannot be written.
    Paper: Frasca et al. 2020 (SIGN), arXiv:2004.11198; Zhang et al. 2022 (GAMLP), arXiv:2206.04355.
    """
    check_whole(0, hops=hops)
    found = propagate(graph, feat, edge_weight, 0 if folder is not None else hops, every=True)  # and its checks
    if folder is None:
        return found
    plain = feat.dtype in (torch.float32, torch.float64) and feat.dim() == 2
    if not plain or feat.requires_grad or edge_weight is not None and edge_weight.requires_grad:
        got = "what gradients are asked of" if plain else f"{feat.dtype} {list(feat.shape)}"
        raise ShapeError(f"hop_features: expected float32 or float64 [N, F] without gradients for a folder, got {got}")
    return stored_hops(folder, graph, feat, edge_weight, int(hops), lambda x: propagate(graph, x, edge_weight))


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
