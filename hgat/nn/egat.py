"""EGAT: attention over edges that have features of their own, which it updates."""

import dgl
import torch
import torch.nn.functional as F
from torch import nn

from hgat import ops
from hgat.errors import check_shape
from hgat.graph.csr import reverse
from hgat.nn.common import (
    Layer,
    both_ends,
    check_floats,
    check_in_degrees,
    check_plain,
    check_sizes,
    edge_column,
    feature_pair,
    glorot_,
    weight_of,
    weighted,
)

__all__ = ["EGATConv"]


class EGATConv(Layer):
    """GAT layer that gives new features to nodes and to edges, with the constructor, parameters and results of
    `dgl.nn.EGATConv`.

        f_uv = leaky_relu(W_i h_u + W_j h_v + W_f x_uv + b);  alpha = softmax over u of attn . f_uv
        out_v = sum_u alpha_uv W h_u

    in_node_feats: F, or (F_src, F_dst). in_edge_feats: F_e. out_node_feats, out_edge_feats: D and D_e per head. The
    slope of the leaky ReLU is PyTorch's 0.01, as in DGL.

    h [N, F], x [E, F_e], f [E, H, D_e], out [N_dst, H, D]; forward says the rest. Raises ShapeError for a size out of
    range.

    Paper: Kaminski et al. 2021, "Rossmann-Toolbox: a deep learning-based protocol for the prediction and design of
    cofactor specificity in Rossmann fold proteins", after DGL's documentation of the layer. Differs from DGL:
    bias=False is served, which DGL 2.1 cannot build, and so is one tensor on a block.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_node_feats: int | tuple[int, int],
        in_edge_feats: int,
        out_node_feats: int,
        out_edge_feats: int,
        num_heads: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self._in_src_node_feats, self._in_dst_node_feats = feature_pair(in_node_feats, "in_node_feats")
        sizes = check_sizes(in_edge_feats=in_edge_feats, out_node_feats=out_node_feats, out_edge_feats=out_edge_feats)
        in_edge_feats, out_node_feats, out_edge_feats = sizes
        (num_heads,) = check_sizes(num_heads=num_heads)
        self._num_heads, self._in_edge_feats = num_heads, in_edge_feats
        self._out_node_feats, self._out_edge_feats = out_node_feats, out_edge_feats
        width = num_heads * out_edge_feats
        self.fc_node_src = nn.Linear(self._in_src_node_feats, num_heads * out_node_feats, bias=False)
        self.fc_ni = nn.Linear(self._in_src_node_feats, width, bias=False)
        self.fc_nj = nn.Linear(self._in_dst_node_feats, width, bias=False)
        self.fc_fij = nn.Linear(in_edge_feats, width, bias=False)
        self.attn = nn.Parameter(torch.empty(1, num_heads, out_edge_feats))
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero bias."""
        layers = self.fc_node_src, self.fc_ni, self.fc_fij, self.fc_nj
        glorot_(*(layer.weight for layer in layers), self.attn)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        graph: dgl.DGLGraph,
        nfeats: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        efeats: torch.Tensor,
        edge_weight: torch.Tensor | None = None,
        get_attention: bool = False,
        *,
        edge_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(out [N_dst, H, D], f [E, H, D_e]): new features of nodes and edges; get_attention adds alpha [E, H, 1].

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). nfeats: [N, F], on a block with
        the destinations first, or a pair ([N_src, F_src], [N_dst, F_dst]). efeats: [E, F_e]. edge_weight: [E],
        multiplies alpha, also the one given back. edge_mask (not in DGL): [E] or [E, H] bool, False for an edge that
        has no part in the softmax. f and alpha are in the graph's edge order.

        Raises DGLError for a node without in-edges, GraphError for anything but such a graph, and ShapeError for a
        tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, False)
        widths = self._in_src_node_feats, self._in_dst_node_feats
        h_src, h_dst, _ = both_ends(graph, nfeats, widths, nn.Identity(), (self.fc_ni, self.fc_nj))
        check_plain("nfeats", h_src, h_dst)
        check_floats("efeats", efeats, weight_of(self.fc_fij))
        check_shape("efeats", efeats, ("E", graph.num_edges()), ("F_e", self._in_edge_feats))
        per_head = self._num_heads, self._out_edge_feats
        f = ops.copy_v(reverse(graph), self.fc_ni(h_src)) + ops.copy_v(graph, self.fc_nj(h_dst)) + self.fc_fij(efeats)
        if self.bias is not None:
            f = f + self.bias
        f = F.leaky_relu(f).unflatten(-1, per_head)
        alpha = ops.edge_softmax(graph, (f * self.attn).sum(-1), edge_mask=edge_column(edge_mask))
        dropped = weighted(alpha, edge_column(edge_weight))
        value = self.fc_node_src(h_src).unflatten(-1, (self._num_heads, self._out_node_feats))
        out = ops.weighted_sum(graph, value, dropped)
        # Copies: who overwrites what the layer gave must not overwrite what backward reads.
        f = f.clone()
        return (out, f, dropped.clone().unsqueeze(-1)) if get_attention else (out, f)
