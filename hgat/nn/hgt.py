"""HGT: dot-product attention whose projections depend on node type and edge type."""

import math
from collections.abc import Callable
from typing import Any

import dgl
import torch
from dgl.nn import TypedLinear
from torch import nn

from hgat import ops
from hgat.errors import check_shape
from hgat.graph.relations import join_types
from hgat.nn.common import Layer, check_activation, check_floats, check_graph, check_rates, check_sizes, first_rows
from hgat.ops.checks import check_width

__all__ = ["HGTConv"]


class HGTConv(Layer):
    """Heterogeneous graph transformer layer, with the constructor, parameters and results of `dgl.nn.HGTConv`.

        k_uv = K_t(u) h_u A_r(uv);  q_v = Q_t(v) h_v;  m_uv = V_t(u) h_u M_r(uv)           t: node type, r: edge type
        logit_uv = mu_r(uv) (q_v . k_uv) / sqrt(D);  alpha = softmax over all in-edges of v, whatever their types
        z_v = sum_u alpha_uv m_uv;  g_v = sigmoid(skip_t(v))
        out_v = g_v drop(O_t(v) act(z_v)) + (1 - g_v) h_v   [h_v W_res where F is not H * D]   [LayerNorm]

    K, Q, V, O: a matrix for each node type (linear_k, linear_q, linear_v, linear_a). A, M: a [D, D] matrix for each
    edge type and head (relation_att, relation_msg), mu a number (relation_pri). activation: act, the identity if None,
    as in DGL's layer; the paper's is GELU.

    Raises ShapeError for a size out of range.

    Paper: Hu et al. 2020, arXiv:2003.01332. Differs as DGL does: the gate g on the skip, mu for each edge type instead
    of each (node type, edge type, node type), no relative time, which hgat.models.HGT adds to x. Differs from DGL:
    K A and V M are multiplied first and applied once to each distinct (node, edge type), never to each edge.
    """

    activation: Callable[[torch.Tensor], torch.Tensor] | None = None  # a layer built by DGL's constructor has none

    def __init__(
        self,
        in_size: int,
        head_size: int,
        num_heads: int,
        num_ntypes: int,
        num_etypes: int,
        dropout: float = 0.2,
        use_norm: bool = False,
        *,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        in_size, head_size, num_heads = check_sizes(in_size=in_size, head_size=head_size, num_heads=num_heads)
        num_ntypes, num_etypes = check_sizes(num_ntypes=num_ntypes, num_etypes=num_etypes)
        check_rates(dropout=dropout)
        check_activation(activation)
        width = num_heads * head_size
        self.in_size, self.head_size, self.num_heads = in_size, head_size, num_heads
        self.sqrt_d = math.sqrt(head_size)
        self.use_norm, self.activation = use_norm, activation
        # In DGL's order, so that the same seed draws the same parameters.
        self.linear_k = TypedLinear(in_size, width, num_ntypes)
        self.linear_q = TypedLinear(in_size, width, num_ntypes)
        self.linear_v = TypedLinear(in_size, width, num_ntypes)
        self.linear_a = TypedLinear(width, width, num_ntypes)
        self.relation_pri = nn.ParameterList([nn.Parameter(torch.ones(num_etypes)) for _ in range(num_heads)])
        self.relation_att = nn.ModuleList([TypedLinear(head_size, head_size, num_etypes) for _ in range(num_heads)])
        self.relation_msg = nn.ModuleList([TypedLinear(head_size, head_size, num_etypes) for _ in range(num_heads)])
        self.skip = nn.Parameter(torch.ones(num_ntypes))
        self.drop = nn.Dropout(dropout)
        if use_norm:
            self.norm = nn.LayerNorm(width)
        if in_size != width:
            self.residual_w = nn.Parameter(torch.empty(in_size, width))
            nn.init.xavier_uniform_(self.residual_w)

    def reset_parameters(self) -> None:
        """Uniform typed matrices within 1 / sqrt(inputs), Glorot-uniform residual, ones for mu and skip."""
        typed = (self.linear_k, self.linear_q, self.linear_v, self.linear_a, *self.relation_att, *self.relation_msg)
        for layer in typed:
            layer.reset_parameters()
        for ones in (*self.relation_pri, self.skip):
            nn.init.ones_(ones)
        if self.use_norm:
            self.norm.reset_parameters()
        if hasattr(self, "residual_w"):
            nn.init.xavier_uniform_(self.residual_w)

    def forward(
        self,
        g: dgl.DGLGraph,
        x: torch.Tensor,
        ntype: torch.Tensor,
        etype: torch.Tensor,
        *,
        presorted: bool = False,
    ) -> torch.Tensor:
        """New features of every destination, [N_dst, H * D]; a node without in-edges keeps (1 - g_v) h_v.

        g: a homogeneous graph (dgl.to_homogeneous) or a block of one. x: [N, F]. ntype: [N], the type of every node.
        etype: [E], the type of every edge; both whole numbers, on a block with the destinations first. Give the same
        type tensors at every call: the structure is built when they are new and kept with the graph. presorted: DGL's
        promise that the types are sorted; nothing depends on it, since sorted types are recognised.

        Raises ShapeError for x, ntype or etype unlike the graph or the layer, and GraphError for a graph with several
        relations, another bipartite graph than a block, or a type out of range.
        """
        joined, query, key, value = self._project(g, x, ntype, etype)
        x_dst = first_rows(x, g.num_dst_nodes())
        out = ops.dot_product_attention(joined.across, query, key, value, scale=1 / self.sqrt_d).flatten(1)
        if self.activation is not None:
            out = self.activation(out)
        out = ops.typed_projection(out, self.linear_a.get_weight(), joined.target_count)
        out = self.drop(joined.by_node(out))
        gate = torch.sigmoid(self.skip).index_select(0, joined.target_type).unsqueeze(-1)
        skip = x_dst @ self.residual_w if hasattr(self, "residual_w") else x_dst
        out = gate * out + (1 - gate) * skip
        return self.norm(out) if self.use_norm else out

    def attention(self, g: dgl.DGLGraph, x: torch.Tensor, ntype: torch.Tensor, etype: torch.Tensor) -> torch.Tensor:
        """alpha of every edge, [E, H] in the graph's edge order. The arguments are those of forward."""
        joined, query, key, _ = self._project(g, x, ntype, etype)
        return ops.dot_product_weights(joined.across, query, key, scale=1 / self.sqrt_d).clone()

    def _project(self, g, x, ntype, etype):
        """(the types joined, query [N_dst, H, D] by type, key and value [K, H, D] of each (node, edge type))."""
        check_graph(g)
        check_width("x", x, "N", "F")
        check_floats("x", x, self.skip)
        num_types: tuple[Any, Any] = self.linear_k.num_types, self.relation_att[0].num_types
        joined = join_types(g, ntype, etype, *num_types, x.device)
        check_shape("x", x, ("N", g.num_src_nodes()), ("F", self.in_size))
        x_dst = joined.by_type(first_rows(x, g.num_dst_nodes()))
        heads = (self.num_heads, self.head_size)
        key, value = ops.typed_projection(x, self._pair_weights(joined), joined.pairs.count, joined.pairs.node)
        query = ops.typed_projection(x_dst, self.linear_q.get_weight(), joined.target_count)
        return joined, query.unflatten(-1, heads), key.unflatten(-1, heads), value.unflatten(-1, heads)

    def _pair_weights(self, joined):
        """[K A mu, V M] of every combination of node type and edge type, [combinations, F, H * D] each."""
        by_node = torch.cat([self.linear_k.get_weight(), self.linear_v.get_weight()], -1)
        by_node = by_node.unflatten(-1, (2 * self.num_heads, self.head_size))
        prior = torch.stack(list(self.relation_pri), 1)[..., None, None]
        to_key, to_value = (
            torch.stack([head.get_weight() for head in heads], 1) for heads in (self.relation_att, self.relation_msg)
        )
        by_edge = torch.cat([to_key * prior, to_value], 1)  # [edge types, 2 * H, D, D]
        by_node = by_node.index_select(0, joined.source_type)
        by_edge = by_edge.index_select(0, joined.edge_type)
        return list(torch.einsum("cfhd,chde->cfhe", by_node, by_edge).flatten(2).chunk(2, -1))
