"""From nodes to edges and back: copies of the ends' rows, and weighted sums over the in-edges of each node."""

from dgl import DGLGraph
from torch import Tensor

from hgat.errors import ShapeError
from hgat.graph.csr import edges_as_sources
from hgat.ops.checks import check_call, check_width
from hgat.ops.dispatch import pick
from hgat.renamed import old_names

__all__ = ["copy_u", "copy_v", "edge_weighted_sum", "weighted_sum"]


def copy_v(graph: DGLGraph, score_dst: Tensor) -> Tensor:
    """Every node's row on each of its in-edges: a score of destinations as one of edges.

        out_uv = score_dst_v

    Shapes: score_dst [N_dst, H] -> out [E, H]. Raises ShapeError and GraphError as `additive_attention` does.
    """
    (heads,) = check_width("score_dst", score_dst, "N_dst", "H")
    check_call(graph, ("score_dst", score_dst, "N_dst", ("H", heads)))
    return pick("copy_v", score_dst)(graph, score_dst)


def copy_u(graph: DGLGraph, score_src: Tensor) -> Tensor:
    """Every node's row on each of its out-edges: a score of sources as one of edges, the twin of `copy_v`.

        out_uv = score_src_u

    Shapes: score_src [N_src, H] -> out [E, H]. Raises ShapeError and GraphError as `additive_attention` does.
    """
    (heads,) = check_width("score_src", score_src, "N_src", "H")
    check_call(graph, ("score_src", score_src, "N_src", ("H", heads)))
    return pick("copy_u", score_src)(graph, score_src)


def weighted_sum(graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
    """Sum of the source rows over the in-edges of each node, weighted by edge and head.

        out_v = sum_u weight_uv * value_u

    Shapes: value [N_src, H, D] or [N_src, 1, D] (one value for all heads), weight [E, H] -> out [N_dst, H, D].
    Raises ShapeError and GraphError as `additive_attention` does.
    """
    (heads,) = check_width("weight", weight, "E", "H")
    value_heads, width = check_width("value", value, "N_src", "H", "D")
    if value_heads not in (1, heads):
        raise ShapeError(f"value: expected [N_src, H, D] with H = {heads} or 1, got {list(value.shape)}")
    check_call(
        graph,
        ("value", value, "N_src", ("H", value_heads), ("D", width)),
        ("weight", weight, "E", ("H", heads)),
    )
    return pick("weighted_sum", value, weight)(graph, value, weight)


def edge_weighted_sum(graph: DGLGraph, edge_value: Tensor, weight: Tensor) -> Tensor:
    """Sum of the edges' own rows over the in-edges of each node, weighted by edge and head.

        out_v = sum_u weight_uv * edge_value_uv

    Shapes: edge_value [E, F], weight [E, H] -> out [N_dst, H, F]; nothing of size E * H * F is kept.
    Raises ShapeError and GraphError as `additive_attention` does.
    """
    (width,) = check_width("edge_value", edge_value, "E", "F")
    check_call(graph, ("edge_value", edge_value, "E", ("F", width)))
    return weighted_sum(edges_as_sources(graph), edge_value.unsqueeze(1), weight)


__getattr__ = old_names(globals(), {"edge_softmax": "hgat.ops.alignment.edge_softmax"})
