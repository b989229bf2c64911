"""SPAGAN: attention over paths that lead to a node, and over their lengths."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, brief, check_shape
from hgat.graph import csr
from hgat.nn.common import (
    Layer,
    check_activation,
    check_feature,
    check_graph,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    glorot_,
    negative_slope,
    weight_of,
)

__all__ = ["SPAGANConv"]

ENCODERS, SCORES = ("pool", "lstm"), ("centre", "path")


class SPAGANConv(Layer):
    """Attention over the paths of one length that end at a node, and over what the lengths give.

        h = W x + b;   phi(p) = max of h_u over the nodes u of the path p other than v, at which it ends
        alpha_p = softmax over the paths p of l edges to v of leaky_relu(attn_p[l] . phi(p) + attn_c[l] . h_v)
        z_l = sum_p drop(alpha_p) phi(p)
        beta_l = softmax over l of leaky_relu(attn_len . [h_v || z_l]);   out_v = sum_l beta_l z_l

    for each head alone. max_length: l is 1 to so many edges; with 1 it is attention over neighbours, GAT's, whose bias
    is part of h and of the score. path_encoder: "pool", this, or "lstm", phi(p) the last state of an LSTM that reads h
    of the nodes from the far end on, one for all heads and lengths. score: "centre", this, or "path", which leaves
    out h_v in alpha, so that all nodes weigh a path alike. SPAGAN as it is described elsewhere is "lstm" with "path".
    feat_drop: on x. attn_drop: on alpha. activation: a function of out, or None.

    Raises ShapeError for a constructor's argument out of range.
    Paper: Yang et al. 2019, arXiv:2101.03464. The equations are its authors' code's, in which phi is a maximum and each
    head attends on both levels alone. Differs: the bias begins at zero.
    """

    attn_c: nn.Parameter | None
    attn_len: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[Tensor], Tensor] | None = None,
        bias: bool = True,
        *,
        max_length: int = 2,
        path_encoder: Literal["pool", "lstm"] = "pool",
        score: Literal["centre", "path"] = "centre",
    ) -> None:
        super().__init__()
        self._in_feats, self._out_feats, self._num_heads, self.max_length = check_sizes(
            in_feats=in_feats, out_feats=out_feats, num_heads=num_heads, max_length=max_length
        )
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        for name, value, known in (("path_encoder", path_encoder, ENCODERS), ("score", score, SCORES)):
            if not isinstance(value, str) or value not in known:
                raise ShapeError(f"{name}: expected {' or '.join(map(repr, known))}, got {brief(value)}")
        heads, width = self._num_heads, self._out_feats
        self.fc = nn.Linear(self._in_feats, heads * width, bias=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(heads * width)) if bias else None)
        self.attn_p = nn.Parameter(torch.empty(self.max_length, heads, width))
        centre = nn.Parameter(torch.empty(self.max_length, heads, width)) if score == "centre" else None
        self.register_parameter("attn_c", centre)
        # One length has all there is to give.
        several = nn.Parameter(torch.empty(heads, 2 * width)) if self.max_length > 1 else None
        self.register_parameter("attn_len", several)
        self.lstm = nn.LSTM(width, width, batch_first=True) if path_encoder == "lstm" else None
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot normal with the gain of ReLU, as GATConv; zero biases; the LSTM as PyTorch has it."""
        glorot_(self.fc.weight)
        for vector in (self.attn_p, self.attn_c):
            if vector is not None:
                glorot_(*(of_length.unsqueeze(0) for of_length in vector.data))
        if self.attn_len is not None:
            glorot_(self.attn_len.data.unsqueeze(0))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.lstm is not None:
            self.lstm.reset_parameters()

    def forward(self, paths: Sequence[DGLGraph], feat: Tensor, get_attention: bool = False) -> Any:
        """New rows of every node.

        paths: a graph for each length from 1 to max_length, as hgat.graph.cheapest_paths gives them, an edge from the
        far end to the end for every path and edata["path"] [P, l + 1]; that of length 1 may be any graph, whose edges
        are the paths. feat [N, F] -> [N, H, D]; with get_attention (out, a list of alpha [P, H, 1], beta [N, H, L]). A
        node that no path of a length ends at has zeros for z_l.
        Raises GraphError for anything else in the place of the path graphs, ShapeError for another number of them and
        for features that do not fit.
        """
        if not isinstance(paths, (list, tuple)) or len(paths) != self.max_length:
            got = f"{len(paths)} of them" if isinstance(paths, (list, tuple)) else type(paths).__name__
            raise ShapeError(f"paths: expected a list of {self.max_length} graphs, one for each length, got {got}")
        for length, graph in enumerate(paths, 1):
            _check_paths(graph, length)
            check_feature("feat", feat, self._in_feats, graph.num_nodes(), weight_of(self.fc))
        check_plain("feat", feat)
        h = self.fc(self.feat_drop(feat))
        h = (h if self.bias is None else h + self.bias).unflatten(-1, (self._num_heads, self._out_feats))
        found, alpha = [], []
        for number, graph in enumerate(paths):
            z, weights = self._within(number, graph, h, get_attention)
            found.append(z)
            alpha.append(weights)
        z = torch.stack(found, 2)  # [N, H, L, D]
        if self.attn_len is None:
            out, beta = found[0], h.new_ones((*h.shape[:2], 1))
        else:
            of_centre, of_length = self.attn_len.split(self._out_feats, 1)
            logits = (h * of_centre).sum(-1, keepdim=True) + (z * of_length.unsqueeze(1)).sum(-1)
            beta = ops.alignment(self.leaky_relu(logits), dim=-1)
            out = (beta.unsqueeze(-1) * z).sum(2)
        if self.activation:
            out = self.activation(out)
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return (out, alpha, beta.clone()) if get_attention else out

    def _within(self, number, graph, h, get_attention):
        """(z_l [N, H, D], alpha [P, H, 1] or None) of the paths of one length, number + 1."""
        if number == 0 and self.lstm is None:
            phi = h  # of a path of one edge what the far end has: no path holds it
        elif number == 0:
            phi = self._encoded(h.unsqueeze(1))
        else:
            path = csr.beside(graph, "path", graph.edata["path"], h.device).long()
            rows = [h.index_select(0, path[:, k]) for k in range(number + 1)]
            phi = self._encoded(torch.stack(rows, 1)) if self.lstm is not None else _largest(rows)
            graph = csr.edges_as_sources(graph)
        score_src = (phi * self.attn_p[number]).sum(-1)
        if self.attn_c is None:
            score_dst = score_src.new_zeros((graph.num_dst_nodes(), self._num_heads))
        else:
            score_dst = (h * self.attn_c[number]).sum(-1)
        slope = negative_slope(self)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        z = ops.additive_attention(graph, phi, score_src, score_dst, negative_slope=slope, dropout=dropout)
        if not get_attention:
            return z, None
        return z, ops.additive_weights(graph, score_src, score_dst, negative_slope=slope).clone().unsqueeze(-1)

    def _encoded(self, rows):
        """The LSTM's last state of rows [P, l, H, D] in order, [P, H, D]."""
        paths, length, heads, width = rows.shape
        rows = rows.transpose(1, 2).reshape(paths * heads, length, width)
        # cuDNN gives gradients in training mode alone; PyTorch's own steps give them in evaluation, too.
        with nullcontext() if self.training else torch.backends.cudnn.flags(enabled=False):
            last = self.lstm(rows)[1][0]
        return last.view(paths, heads, width)


def _largest(rows):
    found = rows[0]
    for row in rows[1:]:
        found = torch.maximum(found, row)
    return found


def _check_paths(graph, length):
    check_graph(graph)
    if graph.is_block or graph.num_src_nodes() != graph.num_dst_nodes():
        raise GraphError(f"paths[{length - 1}]: expected a graph from nodes to the same nodes, got another")
    if length > 1:
        if "path" not in graph.edata:
            raise GraphError(f'paths[{length - 1}]: expected edata["path"], as cheapest_paths gives it, got none')
        name, path = f'paths[{length - 1}].edata["path"]', graph.edata["path"]
        check_shape(name, path, ("P", graph.num_edges()), ("nodes", length + 1))
        if path.dtype not in (torch.int32, torch.int64):
            raise ShapeError(f"{name}: expected numbers of nodes, int32 or int64, got {path.dtype}")
        # On a device the answer would have to be waited for, and an index that is none is an error there, too.
        if path.numel() and path.device.type == "cpu":
            least, most = (int(bound) for bound in path.aminmax())
            if least < 0 or most >= graph.num_nodes():
                raise GraphError(f"{name}: expected numbers of {graph.num_nodes()} nodes, got {least} to {most}")
