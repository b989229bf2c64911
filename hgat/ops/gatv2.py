"""Dynamic attention of GATv2."""

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

__all__ = ["gatv2_attention", "gatv2_weights"]


def _check(graph: DGLGraph, feat_src: Tensor, feat_dst: Tensor, attn: Tensor, feat_edge: Tensor | None) -> int:
    heads, width = check_width("feat_src", feat_src, "N_src", "H", "D")
    per_head = (("H", heads), ("D", width))
    check_call(
        graph,
        ("feat_src", feat_src, "N_src", *per_head),
        ("feat_dst", feat_dst, "N_dst", *per_head),
        ("attn", attn, None, *per_head),
        ("feat_edge", feat_edge, "E", *per_head),
    )
    return heads


def gatv2_attention(
    graph: DGLGraph,
    feat_src: Tensor,
    feat_dst: Tensor,
    attn: Tensor,
    feat_edge: Tensor | None = None,
    *,
    edge_weight: Tensor | None = None,
    edge_mask: Tensor | None = None,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """GATv2 attention: the nonlinearity before the score vector, so that the ranking depends on the destination.

        logit_uv = attn . leaky_relu(feat_src_u + feat_dst_v + feat_edge_uv)
        alpha_uv = exp(logit_uv) / sum_w exp(logit_wv)
        out_v = sum_u drop(alpha_uv) * edge_weight_uv * feat_src_u

    Shapes: feat_src [N_src, H, D], feat_dst [N_dst, H, D], attn [H, D], feat_edge [E, H, D], edge_weight [E] or
    [E, H] -> out [N_dst, H, D]. edge_mask, dropout, isolated nodes and errors as in `additive_attention`.
    Paper: Brody et al. 2022, arXiv:2105.14491, eq. 7. Differs: edge terms and edge weights are additions.
    """
    negative_slope = check_number("negative_slope", negative_slope)
    heads = _check(graph, feat_src, feat_dst, attn, feat_edge)
    edge_weight = edge_weight_column(graph, edge_weight, heads, feat_src)
    edge_mask = edge_mask_column(graph, edge_mask, heads, feat_src)
    seed = seed_for(dropout, seed)
    even = even_scores(graph, heads, feat_src, edge_mask)
    if even is not None:
        *scores, edge_mask = even
        run = pick("additive_attention", feat_src, *scores, None, edge_weight)
        return run(graph, feat_src, *scores, None, edge_weight, edge_mask, negative_slope, dropout, seed)
    run = pick("gatv2_attention", feat_src, feat_dst, attn, feat_edge, edge_weight)
    return run(graph, feat_src, feat_dst, attn, feat_edge, edge_weight, edge_mask, negative_slope, dropout, seed)


def gatv2_weights(
    graph: DGLGraph,
    feat_src: Tensor,
    feat_dst: Tensor,
    attn: Tensor,
    feat_edge: Tensor | None = None,
    *,
    edge_mask: Tensor | None = None,
    negative_slope: float = 0.2,
) -> Tensor:
    """alpha of `gatv2_attention` before dropout and edge weights, [E, H] in the graph's edge order."""
    negative_slope = check_number("negative_slope", negative_slope)
    heads = _check(graph, feat_src, feat_dst, attn, feat_edge)
    edge_mask = edge_mask_column(graph, edge_mask, heads, feat_src)
    even = even_scores(graph, heads, feat_src, edge_mask)
    if even is not None:
        *scores, edge_mask = even
        return pick("additive_weights", *scores, None)(graph, *scores, None, edge_mask, negative_slope)
    run = pick("gatv2_weights", feat_src, feat_dst, attn, feat_edge)
    return run(graph, feat_src, feat_dst, attn, feat_edge, edge_mask, negative_slope)
