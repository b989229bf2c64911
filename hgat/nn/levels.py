"""Attention on several levels: items of groups of a whole, from below, or a coarse level that queries a fine one."""

from collections.abc import Sequence
from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape
from hgat.graph.batches import members_by_type
from hgat.nn.coattention import attend, attention_settings
from hgat.nn.common import Layer, check_floats, check_set, check_sizes, feature_pair
from hgat.nn.general import GeneralAttention

__all__ = ["AttentionViaAttention", "HierarchicalAttention", "HierarchicalPooling"]


class AttentionViaAttention(Layer):
    """Two levels of the same thing, words and characters: what is found in the coarse one joins the query to the fine.

        c_w = attend_w(q, W);   c_c = attend_c([q || c_w], C);   out = [c_w || c_c]

    attend is hgat.nn.GeneralAttention, whose keywords are further ones here. query_feats: of q. in_feats: F of both
    levels, or (F_w, F_c), coarse and fine.
    Shapes: query [B, Q], coarse [B, N, F_w], fine [B, M, F_c] -> [B, F_w + F_c].
    Raises ShapeError for sizes that are not positive.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.2.
    """

    def __init__(self, query_feats: int, in_feats: int | Sequence[int], **attention: Any) -> None:
        super().__init__()
        (self._query_feats,) = check_sizes(query_feats=query_feats)
        self._in_feats = coarse, fine = feature_pair(in_feats)
        attention = attention_settings(attention)
        self.over_coarse = GeneralAttention((coarse, query_feats), coarse, **attention)
        self.over_fine = GeneralAttention((fine, query_feats + coarse), fine, **attention)

    def reset_parameters(self) -> None:
        """Those of both levels."""
        self.over_coarse.reset_parameters()
        self.over_fine.reset_parameters()

    def forward(
        self,
        query: Tensor,
        coarse: Tensor,
        fine: Tensor,
        coarse_mask: Tensor | None = None,
        fine_mask: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """What the query finds on both levels, side by side.

        query [B, Q], coarse [B, N, F_w], fine [B, M, F_c]; masks [B, N] and [B, M] bool, True where an item stands ->
        [B, F_w + F_c], and with get_attention (alpha_w [B, N], alpha_c [B, M]). Of a level without items zeros are
        found.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        check_shape("query", query, ("B", None), ("Q", self._query_feats))
        of_coarse, alpha_coarse = attend(self.over_coarse, query, coarse, coarse_mask, get_attention)
        both = torch.cat([query, of_coarse], 1)
        of_fine, alpha_fine = attend(self.over_fine, both, fine, fine_mask, get_attention)
        out = torch.cat([of_coarse, of_fine], 1)
        return (out, (alpha_coarse, alpha_fine)) if get_attention else out


class _Hierarchy(Layer):
    """A self-attentive score of the items in their group, and one of the groups in their whole."""

    def __init__(self, in_feats: int, hidden_feats: int = 128) -> None:
        super().__init__()
        self._in_feats, hidden = check_sizes(in_feats=in_feats, hidden_feats=hidden_feats)
        self.lower, self.upper = (
            nn.Sequential(nn.Linear(in_feats, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)) for _ in range(2)
        )

    def reset_parameters(self) -> None:
        """PyTorch's own of linear layers."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def _over_groups(self, groups: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The groups' rows [B, S, F] weighed by the upper score, and beta [B, S]; mask [B, S]: which have items."""
        beta = ops.alignment(self.upper(groups).squeeze(-1), dim=1, mask=mask)
        return (beta.unsqueeze(1) @ groups).squeeze(1), beta


class HierarchicalAttention(_Hierarchy):
    """From below: the items of a group make its row, the groups of a whole make its row, words, sentences, document.

        c_s = sum_l alpha_sl x_sl,   alpha_s = softmax over the items l of group s of e(x_sl)
        out = sum_s beta_s c_s,      beta = softmax over the groups s of e'(c_s)

    e(x) = w . tanh(W x + b) with hidden_feats rows of W, and e' the same with its own parameters; all groups share e.
    With one group it is hgat.nn.GeneralAttention over that group's items, of score "additive" and query "none".
    Shapes: x [B, S, N, F], S groups of N items -> [B, F].
    Raises ShapeError for sizes that are not positive.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.2. Differs: no encoder between the levels.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None, get_attention: bool = False) -> Any:
        """The row of every whole.

        x [B, S, N, F]; mask [B, S, N] bool, True where an item stands -> [B, F], and with get_attention
        (alpha [B, S, N], beta [B, S]). A group without items has no part; a whole without any gives zeros.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        like = next(self.parameters())
        check_floats("x", x, like)
        check_shape("x", x, ("B", None), ("S", None), ("N", None), ("F", self._in_feats))
        shape = x.shape[:3]
        if mask is None:
            mask = x.new_ones(shape, dtype=torch.bool)
        check_shape("mask of x", mask, *zip("BSN", shape, strict=True))
        x, flat = check_set("x", x.flatten(0, 1), mask.flatten(0, 1), self._in_feats, like)
        alpha = ops.alignment(self.lower(x).squeeze(-1), dim=1, mask=flat)
        out, beta = self._over_groups((alpha.unsqueeze(1) @ x).view(*shape[:2], self._in_feats), mask.any(-1))
        return (out, (alpha.clone().view(shape), beta.clone())) if get_attention else out


class HierarchicalPooling(_Hierarchy):
    """From below, in a batch of typed graphs: the nodes of a type make its row, the types of a graph make its row.

        c_gt = sum_v alpha_v x_v,   alpha = softmax over the nodes v of type t in graph g of e(x_v)
        out_g = sum_t beta_gt c_gt,  beta_g = softmax over the types t that are in g of e'(c_gt)

    e and e' as of HierarchicalAttention, whose parameters these are; e is the same for all types. With one type it is
    hgat.nn.GlobalAttentionPooling by e.
    Shapes: feat {node type: [N_t, F]} -> [B, F].
    Raises ShapeError for sizes that are not positive.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.2, with node types for its sentences.
    """

    def forward(self, graph: DGLGraph, feat: dict[str, Tensor], get_attention: bool = False) -> Any:
        """A row of every graph of a batch.

        graph: what dgl.batch gives of typed graphs, or one; feat {node type: [N_t, F]} of every type, or [N, F] of the
        only one -> [B, F], and with get_attention ({node type: alpha [N_t, 1]}, beta [B, T] in the order of
        graph.ntypes). A type without nodes in a graph has no part; a graph without nodes gives zeros.
        Raises GraphError for another graph, ShapeError for features that do not fit it or the layer.
        """
        star, there = members_by_type(graph, next(self.parameters()).device)
        feat = {graph.ntypes[0]: feat} if isinstance(feat, Tensor) and len(graph.ntypes) == 1 else feat
        if not isinstance(feat, dict) or set(feat) != set(graph.ntypes):
            got = sorted(feat) if isinstance(feat, dict) else type(feat).__name__
            raise ShapeError(f"feat: expected {{node type: [N, F]}} of {graph.ntypes}, got {got}")
        for ntype in graph.ntypes:
            check_floats(f"feat of {ntype}", feat[ntype], next(self.parameters()))
            check_shape(f"feat of {ntype}", feat[ntype], ("N", graph.num_nodes(ntype)), ("F", self._in_feats))
        x = torch.cat([feat[ntype] for ntype in graph.ntypes])
        alpha = ops.edge_softmax(star, self.lower(x))
        groups = ops.weighted_sum(star, x.unsqueeze(1), alpha).view(*there.shape, self._in_feats)
        out, beta = self._over_groups(groups, there)
        if not get_attention:
            return out
        parts = alpha.split([graph.num_nodes(ntype) for ntype in graph.ntypes])
        return out, ({ntype: part.clone() for ntype, part in zip(graph.ntypes, parts, strict=True)}, beta.clone())
