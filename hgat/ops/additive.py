"""Additive attention of GAT, and its scores with a gate for each edge in the place of the softmax."""

from dgl import DGLGraph
from torch import Tensor

from hgat.errors import ShapeError
from hgat.ops.alignment import alignment, even_scores
from hgat.ops.checks import (
    check_call,
    check_number,
    check_width,
    edge_mask_column,
    edge_weight_column,
    seed_for,
)
from hgat.ops.dispatch import pick

__all__ = [
    "additive_attention",
    "additive_logits",
    "additive_weights",
    "gat_attention",
    "gated_attention",
    "gated_weights",
]


def additive_attention(
    graph: DGLGraph,
    value: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    *,
    edge_weight: Tensor | None = None,
    edge_mask: Tensor | None = None,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Additive attention: one score per end of the edge, softmax over in-edges, weighted sum.

        logit_uv = leaky_relu(score_src_u + score_dst_v + score_edge_uv)
        alpha_uv = exp(logit_uv) / sum_w exp(logit_wv)          over the edges w -> v
        out_v = sum_u drop(alpha_uv) * edge_weight_uv * value_u

    Shapes: value [N_src, H, D], score_src [N_src, H], score_dst [N_dst, H], score_edge [E, H], edge_weight [E] or
    [E, H] -> out [N_dst, H, D]. graph: DGLGraph with one relation. edge_mask: bool [E] or [E, H], True where the edge
    takes part; an edge left out is not in the softmax, nor is one with a logit of minus infinity. dropout: probability
    that an edge's alpha of one head is zeroed, a pure function of (seed, edge, head); the seed is drawn from PyTorch's
    generator if None. A node without in-edges, or with none that takes part, gets zeros and zero gradient. The caller
    may overwrite the result.

    Raises ShapeError for a tensor that does not fit, GraphError for a graph with several relations, BackendError if
    a backend named with `use_backend` cannot run the call.
    Paper: Velickovic et al. 2018, arXiv:1710.10903, eq. 1-4, in the split form a^T[Wh_v || Wh_u] = s_v + s_u.
    Differs: edge terms and edge weights are additions; edge_weight multiplies alpha after the softmax, as in DGL.
    """
    negative_slope = check_number("negative_slope", negative_slope)
    heads = _check_scored(graph, value, score_src, score_dst, score_edge)
    edge_weight = edge_weight_column(graph, edge_weight, heads, value)
    edge_mask = edge_mask_column(graph, edge_mask, heads, value)
    seed = seed_for(dropout, seed)
    even = even_scores(graph, heads, score_src, edge_mask, src=score_src, dst=score_dst, edge=score_edge)
    if even is not None:
        score_src, score_dst, edge_mask = even
        score_edge = None
    run = pick("additive_attention", value, score_src, score_dst, score_edge, edge_weight)
    return run(graph, value, score_src, score_dst, score_edge, edge_weight, edge_mask, negative_slope, dropout, seed)


def gat_attention(
    graph: DGLGraph,
    value: Tensor,
    attn_src: Tensor,
    attn_dst: Tensor,
    score_edge: Tensor | None = None,
    *,
    edge_weight: Tensor | None = None,
    edge_mask: Tensor | None = None,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Additive attention whose scores are made of the values themselves, as GAT's are.

        score_src_u = attn_src . value_u;   score_dst_v = attn_dst . value_v
        out_v = sum_u drop(alpha_uv) * edge_weight_uv * value_u         alpha as in `additive_attention`

    Shapes: value [N_src, H, D], its first N_dst rows those of the destinations, as on a block; attn_src, attn_dst
    [H, D] or [1, H, D], as layers keep them, score_edge [E, H] -> out [N_dst, H, D]. The rest as in
    `additive_attention`. On a GPU scores and attention are one step forward and one backward, since a small graph costs
    what its steps cost; the CPU makes the scores first.

    Raises ShapeError for a tensor that does not fit and for a graph of more destinations than sources, GraphError and
    BackendError as `additive_attention` does.
    Paper: Velickovic et al. 2018, arXiv:1710.10903, eq. 1-4.
    """
    negative_slope = check_number("negative_slope", negative_slope)
    heads, width = check_width("value", value, "N_src", "H", "D")
    check_call(
        graph,
        ("value", value, "N_src", ("H", heads), ("D", width)),
        ("attn_src", attn_src, None, *_one(attn_src), ("H", heads), ("D", width)),
        ("attn_dst", attn_dst, None, *_one(attn_dst), ("H", heads), ("D", width)),
        ("score_edge", score_edge, "E", ("H", heads)),
    )
    if graph.num_dst_nodes() > graph.num_src_nodes():
        raise ShapeError(
            f"value: expected rows of every destination among the sources, got {graph.num_src_nodes()} sources of "
            f"{graph.num_dst_nodes()} destinations"
        )
    edge_weight = edge_weight_column(graph, edge_weight, heads, value)
    edge_mask = edge_mask_column(graph, edge_mask, heads, value)
    seed = seed_for(dropout, seed)
    even = even_scores(graph, heads, attn_src, edge_mask, edge=score_edge)
    if even is None:
        run = pick("gat_attention", value, attn_src, attn_dst, score_edge, edge_weight)
        return run(graph, value, attn_src, attn_dst, score_edge, edge_weight, edge_mask, negative_slope, dropout, seed)
    score_src, score_dst, edge_mask = even
    run = pick("additive_attention", value, score_src, score_dst, edge_weight)
    return run(graph, value, score_src, score_dst, None, edge_weight, edge_mask, negative_slope, dropout, seed)


def additive_weights(
    graph: DGLGraph,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    *,
    edge_mask: Tensor | None = None,
    negative_slope: float = 0.2,
) -> Tensor:
    """alpha of `additive_attention` before dropout and edge weights, [E, H] in the graph's edge order."""
    negative_slope = check_number("negative_slope", negative_slope)
    heads = _check_scores(graph, score_src, score_dst, score_edge)
    edge_mask = edge_mask_column(graph, edge_mask, heads, score_src)
    even = even_scores(graph, heads, score_src, edge_mask, src=score_src, dst=score_dst, edge=score_edge)
    if even is not None:
        score_src, score_dst, edge_mask = even
        score_edge = None
    run = pick("additive_weights", score_src, score_dst, score_edge)
    return run(graph, score_src, score_dst, score_edge, edge_mask, negative_slope)


def additive_logits(graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None = None) -> Tensor:
    """The sums of `additive_attention` alone, for another nonlinearity than its leaky ReLU, or another alignment.

        out_uv = score_src_u + score_dst_v + score_edge_uv

    Shapes: score_src [N_src, H], score_dst [N_dst, H], score_edge [E, H] -> out [E, H] in the graph's edge order, in
    float32 for half types. `hgat.ops.alignment` makes weights of them. Raises as `additive_attention` does.
    """
    _check_scores(graph, score_src, score_dst, score_edge)
    return pick("additive_logits", score_src, score_dst, score_edge)(graph, score_src, score_dst, score_edge)


def gated_attention(
    graph: DGLGraph,
    value: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    *,
    form: str = "tanh",
    edge_weight: Tensor | None = None,
    edge_mask: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """Additive scores without a softmax: each edge's weight is its own, and may be negative.

        alpha_uv = tanh(score_src_u + score_dst_v + score_edge_uv)        or its sigmoid
        out_v = sum_u drop(alpha_uv) * edge_weight_uv * value_u

    Shapes: as `additive_attention` has them -> out [N_dst, H, D]. form: "tanh" or "sigmoid". What edge_mask leaves out,
    and what has a score of minus infinity, weighs zero; inside `uniform_attention()` every other alpha is 1. dropout
    and seed as there. The caller may overwrite the result.

    Raises ShapeError for another form and for tensors that do not fit, GraphError and BackendError as
    `additive_attention` does.
    Paper: Bo et al. 2021 (FAGCN), arXiv:2101.00797, eq. 3-4, whose edge weights are 1 / sqrt(d_u d_v).
    """
    _check_gate(form)
    heads = _check_scored(graph, value, score_src, score_dst, score_edge)
    edge_weight = edge_weight_column(graph, edge_weight, heads, value)
    edge_mask = edge_mask_column(graph, edge_mask, heads, value)
    seed = seed_for(dropout, seed)
    scores = score_src, score_dst, score_edge
    even = even_scores(graph, heads, score_src, edge_mask, src=score_src, dst=score_dst, edge=score_edge, gate=True)
    if even is not None:
        *ends, edge_mask = even
        scores = *ends, None
    run = pick("gated_attention", value, *scores, edge_weight)
    return run(graph, value, *scores, edge_weight, edge_mask, form, dropout, seed)


def gated_weights(
    graph: DGLGraph,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    *,
    form: str = "tanh",
    edge_mask: Tensor | None = None,
) -> Tensor:
    """alpha of `gated_attention` before dropout and edge weights, [E, H] in the graph's edge order."""
    _check_gate(form)
    logits = additive_logits(graph, score_src, score_dst, score_edge)
    edge_mask = edge_mask_column(graph, edge_mask, logits.shape[1], logits)
    mask = None if edge_mask is None else edge_mask.expand_as(logits)
    return alignment(logits, graph=graph, form=form, mask=mask)


def _one(attn: Tensor) -> list[tuple[str, int]]:
    """The axis of one that an attention vector may have before its heads."""
    return [("1", 1)] if isinstance(attn, Tensor) and attn.dim() == 3 else []


def _check_gate(form: str) -> None:
    if form not in ("tanh", "sigmoid"):
        raise ShapeError(f"form: expected 'tanh' or 'sigmoid', got {form!r}")


def _check_scored(
    graph: DGLGraph, value: Tensor, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None
) -> int:
    """H of values with scores of both ends, and perhaps of edges, that fit them and the graph."""
    heads, width = check_width("value", value, "N_src", "H", "D")
    scores = _scores(heads, score_src, score_dst, score_edge)
    check_call(graph, ("value", value, "N_src", ("H", heads), ("D", width)), *scores)
    return heads


def _check_scores(graph: DGLGraph, score_src: Tensor, score_dst: Tensor, score_edge: Tensor | None) -> int:
    """H of scores of both ends, and perhaps of edges, that fit the graph."""
    (heads,) = check_width("score_src", score_src, "N_src", "H")
    check_call(graph, *_scores(heads, score_src, score_dst, score_edge))
    return heads


def _scores(heads, score_src, score_dst, score_edge):
    """What `check_call` is told of them."""
    return (
        ("score_src", score_src, "N_src", ("H", heads)),
        ("score_dst", score_dst, "N_dst", ("H", heads)),
        ("score_edge", score_edge, "E", ("H", heads)),
    )
