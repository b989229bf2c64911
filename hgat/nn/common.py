"""What the layers that mirror DGL's share: ends of an edge, the zero-in-degree rule, residuals."""

import dgl
import torch
from torch import nn

from hgat.errors import ShapeError
from hgat.graph import csr

__all__ = [
    "both_ends",
    "check_in_degrees",
    "end_scores",
    "feature_pair",
    "glorot_",
    "linear_pair",
    "projected_ends",
    "projections",
    "with_extra_axes",
]

GAIN = nn.init.calculate_gain("relu")


def glorot_(*tensors):
    """DGL's initialisation of attention layers: Glorot normal with the gain of ReLU."""
    for tensor in tensors:
        nn.init.xavier_normal_(tensor, gain=GAIN)


def feature_pair(in_feats):
    """(width at the source, width at the destination)."""
    return in_feats if isinstance(in_feats, tuple) else (in_feats, in_feats)


def linear_pair(layer, in_feats, out_width, bias=False):
    """Give `layer` DGL's projections: `fc_src` and `fc_dst` for a pair of widths, one `fc` for a single width."""
    if isinstance(in_feats, tuple):
        layer.fc_src = nn.Linear(in_feats[0], out_width, bias=bias)
        layer.fc_dst = nn.Linear(in_feats[1], out_width, bias=bias)
    else:
        layer.fc = nn.Linear(in_feats, out_width, bias=bias)


def projections(layer):
    """(projection at the source, projection at the destination), the same module where the layer has one."""
    return (layer.fc_src, layer.fc_dst) if hasattr(layer, "fc_src") else (layer.fc, layer.fc)


def check_in_degrees(graph, allowed):
    """Raise DGLError, as DGL's layers do, if a destination has no in-edges and that was not allowed."""
    if allowed:
        return
    isolated = csr.cached(graph, ("isolated",), lambda: bool((_in_degrees(graph) == 0).any()))
    if isolated:
        raise dgl.DGLError(
            "There are 0-in-degree nodes in the graph: they would get zeros. Add self-loops with "
            "`g = dgl.add_self_loop(g)`, or set `allow_zero_in_degree=True` if zeros are what you want."
        )


def _in_degrees(graph):
    if csr.all_formats(graph):
        return graph.in_degrees()
    return torch.diff(csr.in_rows(graph).indptr)  # DGL counts in-edges only with COO or CSC


def check_feature(name, feat, width, rows):
    """ShapeError unless `feat` is [rows, *, width]."""
    if not isinstance(feat, torch.Tensor) or feat.dim() < 2 or feat.shape[-1] != width or feat.shape[0] != rows:
        got = list(feat.shape) if isinstance(feat, torch.Tensor) else type(feat).__name__
        raise ShapeError(f"{name}: expected [N, *, F] = [{rows}, *, {width}], got {got}")


def both_ends(graph, feat, widths, drop):
    """(input at the source, input at the destination, whether feat is one tensor), after dropout, checked.

    feat: one tensor, whose first rows are the destinations on a block, or a pair.
    """
    if isinstance(feat, (tuple, list)):
        check_feature("feat[0]", feat[0], widths[0], graph.num_src_nodes())
        check_feature("feat[1]", feat[1], widths[1], graph.num_dst_nodes())
        return drop(feat[0]), drop(feat[1]), False
    check_feature("feat", feat, widths[0], graph.num_src_nodes())
    h_src = drop(feat)
    if graph.is_block:
        return h_src, h_src[: graph.num_dst_nodes()], True
    if graph.num_dst_nodes() != graph.num_src_nodes():
        raise ShapeError(
            f"feat: expected a pair (source, destination) on a bipartite graph with {graph.num_src_nodes()} and "
            f"{graph.num_dst_nodes()} nodes, got one tensor"
        )
    return h_src, h_src, True


def projected_ends(layers, h_src, h_dst, one_input, shape):
    """Both ends projected to [N, *, H, D]; computed once where input and projection are the same.

    layers: (projection at the source, projection at the destination). one_input: h_dst are the first rows of h_src.
    """
    fc_src, fc_dst = layers
    at_src = fc_src(h_src).unflatten(-1, shape)
    if one_input and fc_src is fc_dst:
        return at_src, at_src[: h_dst.shape[0]]
    return at_src, fc_dst(h_dst).unflatten(-1, shape)


def end_scores(fc, h, projected, attn):
    """attn . (W h) of every node and head: h [N, *, F], projected = W h [N, *, H, D], attn [1, H, D] -> [N, * H].

    Where h is no wider than its projection, the attention vector is multiplied into W first, (attn W) h: equal but for
    rounding, and nothing of size N * H * D is made on the way, forward or backward. Not where `fc` may do anything
    else than multiply by its weight, nor under autocast, which would round the scores, too.
    """
    heads, width = attn.shape[-2:]
    plain = type(fc) is nn.Linear and fc.bias is None and not fc._forward_hooks and not fc._forward_pre_hooks
    if not plain or h.shape[-1] > heads * width or projected.dtype != fc.weight.dtype:
        return (projected * attn).sum(-1).flatten(1)
    folded = torch.einsum("hdf,hd->fh", fc.weight.unflatten(0, (heads, width)), attn.squeeze(0))
    return (h @ folded).flatten(1)


def with_extra_axes(tensor, prefix):
    """[N, *, H, D] as [N, heads, D]: the axes of `prefix` behind the first count as heads for the operators."""
    return tensor if len(prefix) == 1 else tensor.flatten(1, -2)
