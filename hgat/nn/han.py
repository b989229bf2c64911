"""HAN: node-level attention inside each meta-path, then attention over the meta-paths."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor

from hgat.graph.metapath import Views
from hgat.nn.common import check_sizes
from hgat.nn.fusion import SemanticAttention
from hgat.nn.names import NamedState
from hgat.nn.viewgat import ViewGATConv

__all__ = ["HANConv"]


class HANConv(ViewGATConv):
    """Heterogeneous graph attention layer over P meta-paths.

        h'_i = M h_i
        logit_ij^P = leaky_relu(attn_l^P . h'_j + attn_r^P . h'_i);  alpha^P = softmax over the neighbours j under P
        z_i^P = activation(sum_j alpha_ij^P h'_j + bias^P), heads side by side     (hgat.nn.ViewGATConv)
        beta = semantic attention over P (hgat.nn.SemanticAttention);  out_i = sum_P beta_P z_i^P

    num_metapaths: P, or the P names, which views are then matched with, in whatever order they come. With a number the
    first views that the layer sees give the names, and so does a state dict, which holds them. Views without names
    (hgat.graph.disjoint_union of graphs alone) are matched by position.
    share_projection: one M for all meta-paths, as the paper writes it; False gives each meta-path its own, as the
    released code does. semantic: "global" (paper) or "per_node" (released code).
    Shapes: feat [N, F] -> [N_dst, H * D]; see `forward`.

    Paper: Wang et al. 2019, arXiv:1903.07293, eq. 1-9. Differs: a bias after the sum, as in the released code.
    """

    _argument, _entry, _called = "num_metapaths", "metapaths", "meta-paths"

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        num_metapaths: int | Sequence[str],
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[Tensor], Tensor] | None = F.elu,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        semantic: str = "global",
        semantic_feats: int = 128,
        share_projection: bool = True,
        value_drop: float = 0.0,
    ) -> None:
        NamedState.__init__(self)
        self._set_up(
            in_feats, out_feats, num_heads, num_metapaths, feat_drop, attn_drop, negative_slope, activation,
            allow_zero_in_degree, bias, share_projection, value_drop,
        )  # fmt: skip
        check_sizes(semantic_feats=semantic_feats)
        self.semantic = SemanticAttention(self._num_heads * self._out_feats, semantic_feats, semantic)
        self.reset_parameters()

    @property
    def metapaths(self) -> tuple[str, ...] | None:
        """The names of the meta-paths, or None where neither the program nor views have given any."""
        return self.view_names

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU per meta-path, as in GATConv; zero biases."""
        super().reset_parameters()
        self.semantic.reset_parameters()

    def forward(
        self,
        views: Views | DGLGraph,
        feat: Tensor | Sequence[Tensor],
        get_attention: bool = False,
        *,
        edge_mask: Tensor | None = None,
    ) -> Any:
        """One row for each node from all meta-paths, and with get_attention the attention at both levels.

        views: what hgat.graph.metapaths or hgat.graph.disjoint_union gives, or a DGLGraph or block with one relation
        per meta-path; feat [N, F], or for views with their own sources a list of P tensors [N_src_p, F], destinations
        first; edge_mask [E] or [E, H] bool in the order of views.graph, False for an edge that has no part in the
        softmax -> [N_dst, H * D], and with get_attention (alpha [E, H] in the order of views.graph, before dropout, and
        beta [P] or [N_dst, P] in that of the views). All views are one operator call. A global beta is the batch's own
        on blocks.
        Raises GraphError for another graph and for other names, ShapeError for feat unlike it, and DGLError for a node
        without neighbours unless allow_zero_in_degree.
        """
        z, alpha = self._inside(views, feat, get_attention, edge_mask)
        out, beta = self.semantic(z)
        return (out, (alpha, beta)) if get_attention else out
