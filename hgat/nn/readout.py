"""Attention that reads out whole graphs: one row for each graph of a batch, of the rows of its nodes."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape
from hgat.graph.batches import members
from hgat.nn.common import Layer, check_floats, check_sizes, degree_power

__all__ = ["GlobalAttentionPooling", "Set2Set"]


class GlobalAttentionPooling(Layer):
    """A softmax over the nodes of each graph and their weighted sum, with the constructor of DGL's layer of this name.

        alpha_v = softmax over the nodes v of a graph of gate(x_v);   out_g = sum_v alpha_v f(x_v)

    gate_nn: a module [N, F] -> [N, 1]. feat_nn: f, a module [N, F] -> [N, D]; by default x itself.
    A graph without nodes gets zeros. Inside hgat.ops.uniform_attention() it is the mean. DGL's layer computes the same;
    this one also serves features on a GPU beside a graph on the CPU.
    Raises ShapeError for a gate that cannot be called.
    Paper: Li et al. 2016 (GGNN), arXiv:1511.05493, eq. 7, with a softmax in the place of the sigmoid, as DGL has it.
    """

    def __init__(self, gate_nn: nn.Module, feat_nn: nn.Module | None = None) -> None:
        super().__init__()
        if not callable(gate_nn) or not (feat_nn is None or callable(feat_nn)):
            got = gate_nn if not callable(gate_nn) else feat_nn
            raise ShapeError(f"gate_nn, feat_nn: expected modules, got {type(got).__name__}")
        self.gate_nn, self.feat_nn = gate_nn, feat_nn

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False) -> Any:
        """A row of every graph of a batch.

        graph: what dgl.batch gives, or one graph, of one node type; feat [N, F] -> out [B, D], and with get_attention
        alpha [N, 1].
        Raises GraphError for another graph, ShapeError for features that do not fit it and a gate of another width.
        """
        star = checked_members(graph, feat)
        gate = self.gate_nn(feat)
        check_shape("gate_nn(feat)", gate, ("N", len(feat)), ("1", 1))
        value = feat if self.feat_nn is None else self.feat_nn(feat)
        check_shape("feat_nn(feat)", value, ("N", len(feat)), ("D", None))
        alpha = ops.edge_softmax(star, gate)
        out = ops.weighted_sum(star, value.unsqueeze(1), alpha).squeeze(1)
        return (out, alpha.clone()) if get_attention else out  # a copy: backward reads alpha


class Set2Set(Layer):
    """A query of every graph that attends to its nodes and is renewed, several times: DGL's layer of this name.

        q_t = LSTM(q*_{t-1});   alpha_v = softmax over the nodes v of a graph of q_t . x_v
        r_t = sum_v alpha_v x_v;   q*_t = [q_t || r_t]

    Shapes: feat [N, F] -> [B, 2 * F]. input_dim: F. n_iters: how often. n_layers: of the LSTM. q*_0 and the LSTM begin
    with zeros. A graph without nodes has r = 0. State dicts go both ways with DGL's.
    Raises ShapeError for sizes that are not positive.
    Paper: Vinyals et al. 2016, arXiv:1511.06391, eq. 3-7.
    """

    def __init__(self, input_dim: int, n_iters: int, n_layers: int = 1) -> None:
        super().__init__()
        self.input_dim, self.n_iters, self.n_layers = check_sizes(
            input_dim=input_dim, n_iters=n_iters, n_layers=n_layers
        )
        self.output_dim = 2 * self.input_dim
        self.lstm = nn.LSTM(self.output_dim, self.input_dim, self.n_layers)

    def reset_parameters(self) -> None:
        """PyTorch's own of an LSTM."""
        self.lstm.reset_parameters()

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False) -> Any:
        """q* of every graph of a batch.

        graph: as of GlobalAttentionPooling; feat [N, F] -> out [B, 2 * F], and with get_attention alpha [N, n_iters].
        Raises GraphError for another graph, ShapeError for features that do not fit it or the layer.
        """
        star = checked_members(graph, feat, next(self.parameters()))
        check_shape("feat", feat, ("N", None), ("F", self.input_dim))
        graphs, key, found = star.num_dst_nodes(), feat.unsqueeze(1), []
        out = feat.new_zeros(graphs, self.output_dim)
        state = tuple(feat.new_zeros(self.n_layers, graphs, self.input_dim) for _ in range(2))
        for _ in range(self.n_iters):
            query, state = self.lstm(out.unsqueeze(0), state)
            query = query.squeeze(0)
            read = ops.dot_product_attention(star, query.unsqueeze(1), key, key, scale=1.0).squeeze(1)
            if get_attention:
                found.append(ops.dot_product_weights(star, query.unsqueeze(1), key, scale=1.0))
            out = torch.cat([query, read], 1)
        return (out, torch.cat(found, 1)) if get_attention else out


def checked_members(graph: DGLGraph, feat: Any, like: Tensor | None = None) -> DGLGraph:
    """hgat.graph.members of a batch whose nodes have the features `feat` [N, F]."""
    star = members(graph)
    check_floats("feat", feat, like)
    check_shape("feat", feat, ("N", star.num_src_nodes()), ("F", None))
    return star


def mean_of_members(star: DGLGraph, feat: Tensor) -> Tensor:
    """The unweighted mean of the rows `feat` [N, F] of each graph's nodes, [B, F]; zeros of a graph without nodes."""
    total = ops.weighted_sum(star, feat.unsqueeze(1), feat.new_ones(len(feat), 1)).squeeze(1)
    return total / degree_power(star, "dst", 1.0, feat).unsqueeze(1)
