"""Scaled dot-product attention over in-edges."""

from dgl import DGLGraph
from torch import Tensor

from hgat.ops.alignment import even_scores
from hgat.ops.checks import (
    check_call,
    check_number,
    check_width,
    edge_mask_column,
    edge_weight_column,
    seed_for,
)
from hgat.ops.dispatch import pick

__all__ = ["dot_product_attention", "dot_product_logits", "dot_product_weights"]


def _check(
    graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, scale: float | None, *values: Tensor
) -> tuple[int, float]:
    """(heads, scale) of a call whose arguments fit."""
    heads, width = check_width("key", key, "N_src", "H", "D")
    arguments = [
        ("key", key, "N_src", ("H", heads), ("D", width)),
        ("query", query, "N_dst", ("H", heads), ("D", width)),
        ("bias", bias, "E", ("H", heads)),
    ]
    for value in values:
        value_width = check_width("value", value, "N_src", "H", "Dv")[1]
        arguments.append(("value", value, "N_src", ("H", heads), ("Dv", value_width)))
    check_call(graph, *arguments)
    if scale is None:
        return heads, max(width, 1) ** -0.5  # rows without numbers have a product of zero at any scale
    return heads, check_number("scale", scale)


def dot_product_attention(
    graph: DGLGraph,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    edge_weight: Tensor | None = None,
    edge_mask: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Dot-product attention along edges.

        logit_uv = scale * (query_v . key_u) + bias_uv
        alpha_uv = exp(logit_uv) / sum_w exp(logit_wv)
        out_v = sum_u drop(alpha_uv) * edge_weight_uv * value_u

    Shapes: query [N_dst, H, D], key [N_src, H, D], value [N_src, H, Dv], bias [E, H], edge_weight [E] or [E, H]
    -> out [N_dst, H, Dv]. scale: 1 / sqrt(D) if None. edge_mask, dropout, isolated nodes and errors as in
    `additive_attention`.
    Paper: Vaswani et al. 2017, arXiv:1706.03762, eq. 1, with the in-edges of a node for its keys.
    """
    heads, scale = _check(graph, query, key, bias, scale, value)
    edge_weight = edge_weight_column(graph, edge_weight, heads, value)
    edge_mask = edge_mask_column(graph, edge_mask, heads, value)
    seed = seed_for(dropout, seed)
    even = even_scores(graph, heads, value, edge_mask, edge=bias)
    if even is not None:
        *scores, edge_mask = even
        run = pick("additive_attention", value, *scores, None, edge_weight)
        return run(graph, value, *scores, None, edge_weight, edge_mask, 0.2, dropout, seed)
    run = pick("dot_product_attention", query, key, value, bias, edge_weight)
    return run(graph, query, key, value, bias, edge_weight, edge_mask, scale, dropout, seed)


def dot_product_weights(
    graph: DGLGraph,
    query: Tensor,
    key: Tensor,
    bias: Tensor | None = None,
    *,
    edge_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """alpha of `dot_product_attention` before dropout and edge weights, [E, H] in the graph's edge order."""
    heads, scale = _check(graph, query, key, bias, scale)
    edge_mask = edge_mask_column(graph, edge_mask, heads, key)
    even = even_scores(graph, heads, key, edge_mask, edge=bias)
    if even is not None:
        *scores, edge_mask = even
        return pick("additive_weights", *scores, None)(graph, *scores, None, edge_mask, 0.2)
    return pick("dot_product_weights", query, key, bias)(graph, query, key, bias, edge_mask, scale)


def dot_product_logits(
    graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """The logits of `dot_product_attention`, [E, H]: for a softmax over other groups than the in-edges."""
    _, scale = _check(graph, query, key, bias, scale)
    return pick("dot_product_logits", query, key, bias)(graph, query, key, bias, scale)
