"""The checks that the operators share. Layers and models rely on them and check nothing twice."""

import torch

from hgat.errors import ShapeError, check_shape
from hgat.graph.csr import single_relation
from hgat.ops.dropout import check_probability, draw_seed

__all__ = ["check_call", "check_width", "edge_weight_column", "no_scores", "seed_for"]


def check_width(name, tensor, *letters):
    """The sizes of `tensor` behind its first axis; ShapeError unless it has one axis per letter."""
    if not isinstance(tensor, torch.Tensor):
        raise ShapeError(f"{name}: expected a tensor [{', '.join(letters)}], got {type(tensor).__name__}")
    if tensor.dim() != len(letters):
        raise ShapeError(f"{name}: expected [{', '.join(letters)}], got {list(tensor.shape)}")
    return tensor.shape[1:]


def check_call(graph, *arguments):
    """Check graph, float types, devices and shapes of an operator call.

    arguments: (name, tensor or None, letter of the first axis among N_src, N_dst, E, or None, *(letter, size)).
    """
    single_relation(graph)
    rows = {"N_src": graph.num_src_nodes(), "N_dst": graph.num_dst_nodes(), "E": graph.num_edges()}
    device = None
    for name, tensor, first, *rest in arguments:
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ShapeError(f"{name}: expected a floating-point tensor, got {got}")
        expected = [(first, rows[first]), *rest] if first else rest
        check_shape(name, tensor, *expected)
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise ShapeError(f"{name}: expected device {device} like the other tensors, got {tensor.device}")


def edge_weight_column(graph, edge_weight, heads):
    """edge_weight [E] or [E, H] as [E, 1] or [E, H]; None stays None."""
    if edge_weight is None:
        return None
    check_width_of = (("E", graph.num_edges()),)
    if edge_weight.dim() == 2:
        check_width_of += (("H", heads),)
    check_shape("edge_weight", edge_weight, *check_width_of)
    return edge_weight if edge_weight.dim() == 2 else edge_weight.unsqueeze(-1)


def no_scores(graph, heads, like):
    """(score_src, score_dst) all zero: what uniform attention puts in the place of learned scores."""
    return like.new_zeros((graph.num_src_nodes(), heads)), like.new_zeros((graph.num_dst_nodes(), heads))


def seed_for(dropout, seed):
    """A seed for this call: the given one, a fresh one if edges are dropped, else 0."""
    check_probability(dropout)
    if dropout == 0.0:
        return 0
    return draw_seed() if seed is None else int(seed)
