"""GAT inside each of several views of the same nodes, all of them in one operator call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, check_shape, is_whole
from hgat.graph.metapath import Views
from hgat.graph.metapath import views as as_views
from hgat.nn.common import (
    check_activation,
    check_floats,
    check_in_degrees,
    check_number,
    check_rates,
    check_sizes,
    edge_column,
    glorot_,
    negative_slope,
)
from hgat.nn.names import NamedState, names_of, order_of, reorder

__all__ = ["ViewGATConv"]


class ViewGATConv(NamedState):
    """Attention inside each of P views of the same nodes: the node level of HAN, before any view is weighed.

        h'_i = M h_i
        logit_ij^P = leaky_relu(attn_l^P . h'_j + attn_r^P . h'_i);  alpha^P = softmax over the neighbours j under P
        z_i^P = activation(sum_j alpha_ij^P h'_j + bias^P), heads side by side

    num_views: P, or the P names, which views are then matched with, in whatever order they come. With a number the
    first views that the layer sees give the names, and so does a state dict, which holds them. Views without names
    (hgat.graph.disjoint_union of graphs alone) are matched by position.
    share_projection: one M for all views, or with False one for each.
    Shapes: feat [N, F] -> z [N_dst, P, H * D]; see `forward`. hgat.nn.Fusion makes one of the P.

    Paper: Wang et al. 2019 (HAN), arXiv:1903.07293, eq. 1-4. Differs: a bias after the sum, as in the released code.
    """

    # What a setting of this layer calls its views: the argument, the entry of the state dict, and in errors.
    _argument, _entry, _called = "num_views", "views", "views"
    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        num_views: int | Sequence[str],
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[Tensor], Tensor] | None = F.elu,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        share_projection: bool = True,
        value_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self._set_up(
            in_feats, out_feats, num_heads, num_views, feat_drop, attn_drop, negative_slope, activation,
            allow_zero_in_degree, bias, share_projection, value_drop,
        )  # fmt: skip
        self.reset_parameters()

    def _set_up(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        num_views: int | Sequence[str],
        feat_drop: float,
        attn_drop: float,
        negative_slope: float,
        activation: Callable[[Tensor], Tensor] | None,
        allow_zero_in_degree: bool,
        bias: bool,
        share_projection: bool,
        value_drop: float,
    ) -> None:
        """Everything but the parameters' first values."""
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        self.view_names: tuple[str, ...] | None = None
        if is_whole(num_views):
            (count,) = check_sizes(**{self._argument: num_views})
        else:
            names = names_of(self._argument, num_views)
            count = len(names)
            self.view_names = None if _are_numbers(names) else names
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        self._in_feats, self._out_feats, self._num_heads = in_feats, out_feats, num_heads
        self._num_views = count
        # Names that only use has given make way for those of a state dict.
        self._names_were_given = self.view_names is not None
        self._allow_zero_in_degree = allow_zero_in_degree
        width = num_heads * out_feats
        copies = 1 if share_projection else count
        self.fc = nn.Parameter(torch.empty(copies, in_feats, width))
        self.attn_l = nn.Parameter(torch.empty(count, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(count, num_heads, out_feats))
        self.register_parameter("bias", nn.Parameter(torch.empty(count, width)) if bias else None)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.value_drop = nn.Dropout(value_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU per meta-path, as in GATConv; zero biases."""
        for per_view in (self.fc, self.attn_l, self.attn_r):
            for view in range(len(per_view)):
                # GATConv's score vectors are [1, H, D]; the fan of that shape is kept.
                glorot_(per_view.data[view] if per_view is self.fc else per_view.data[view : view + 1])
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _names(self) -> dict[str, Any]:
        return {self._entry: self.view_names}

    def _match(self, names: Any, state: dict, prefix: str) -> None:
        theirs = names.get(self._entry) if isinstance(names, dict) else None
        if theirs is None:
            return
        if not self._names_were_given or self.view_names is None:
            self.view_names = names_of("state dict", theirs)
            return
        order = order_of(theirs, self.view_names, self._called)
        reorder(state, prefix, ("attn_l", "attn_r", "bias") + (("fc",) if len(self.fc) > 1 else ()), order)

    def _order(self, views: Views) -> list[int] | None:
        """Numbers in this layer of the views, or None where they are the same in the same order."""
        names = tuple(views.names)
        if len(names) != self._num_views:
            raise GraphError(f"views: expected {self._num_views} {self._called}, got {len(names)}")
        if _are_numbers(names):
            return None
        if self.view_names is None:
            self.view_names = names_of("views", names)
        if names == self.view_names:
            return None
        if set(names) != set(self.view_names):
            raise GraphError(f"views: expected the {self._called} {list(self.view_names)}, got {list(names)}")
        return [self.view_names.index(name) for name in names]

    def _project(self, views: Views, feat: Any, fc: Tensor) -> tuple[Tensor, Tensor]:
        """(value [source rows of all views, H, D], its rows at the destinations [P, N_dst, H, D])."""
        shape = (self._num_heads, self._out_feats)
        views_count, num_dst = views.num_views, views.num_dst
        if isinstance(feat, Tensor):
            if not views.shared_source:
                raise ShapeError(f"feat: expected a list of {views_count} tensors, one for each view, got one tensor")
            check_floats("feat", feat, self.fc)
            check_shape("feat", feat, ("N", views.num_src), ("F", self._in_feats))
            feat = self.feat_drop(feat)
            value = torch.matmul(feat, fc).unflatten(-1, shape)  # [1 or P, N, H, D]
            value = value.expand(views_count, *value.shape[1:])
            return value.flatten(0, 1), value[:, :num_dst]
        if isinstance(feat, str) or not isinstance(feat, Sequence):
            got = type(feat).__name__
            raise ShapeError(f"feat: expected a tensor [N, F] or a list of {views_count}, one for each view, got {got}")
        if len(feat) != views_count:
            raise ShapeError(f"feat: expected {views_count} tensors, one for each view, got {len(feat)}")
        parts = []
        for view, (part, start, end) in enumerate(zip(feat, views.source_start, views.source_start[1:], strict=False)):
            check_floats(f"feat[{view}]", part, self.fc)
            check_shape(f"feat[{view}]", part, ("N", end - start), ("F", self._in_feats))
            weight = fc[view if len(fc) > 1 else 0]
            parts.append((self.feat_drop(part) @ weight).unflatten(-1, shape))
        return torch.cat(parts), torch.stack([part[:num_dst] for part in parts])

    def _scores(
        self, views: Views, value: Tensor, at_dst: Tensor, attn_l: Tensor, attn_r: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The operator's scores of both ends, [rows of all views, H] each."""
        sizes = [end - start for start, end in zip(views.source_start, views.source_start[1:], strict=False)]
        parts = zip(value.split(sizes), attn_l, strict=True)
        score_src = torch.cat([(part * attn).sum(-1) for part, attn in parts])
        score_dst = (at_dst * attn_r.unsqueeze(1)).sum(-1).flatten(0, 1)
        return score_src, score_dst

    def forward(
        self,
        views: Views | DGLGraph,
        feat: Tensor | Sequence[Tensor],
        get_attention: bool = False,
        *,
        edge_mask: Tensor | None = None,
    ) -> Any:
        """What every view gives each node, and with get_attention the attention inside them.

        views: what hgat.graph.metapaths or hgat.graph.disjoint_union gives, or a DGLGraph or block with one relation
        per view; feat [N, F], or for views with their own sources a list of P tensors [N_src_p, F], destinations
        first; edge_mask [E] or [E, H] bool in the order of views.graph, False for an edge that has no part in the
        softmax -> z [N_dst, P, H * D], the views in their own order, and with get_attention alpha [E, H] in the order
        of views.graph, before dropout. All views are one operator call.
        Raises GraphError for another graph and for other names, ShapeError for feat unlike it, and DGLError for a node
        without neighbours unless allow_zero_in_degree.
        """
        z, alpha = self._inside(views, feat, get_attention, edge_mask)
        return (z, alpha) if get_attention else z

    def _inside(
        self, views: Any, feat: Any, get_attention: bool, edge_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(z [N_dst, P, H * D], alpha [E, H] or None)."""
        views = as_views(views)
        order = self._order(views)
        if not views.destinations_first:
            raise GraphError("views: expected blocks or graphs from a node type to itself, got a bipartite graph")
        check_in_degrees(views.graph, self._allow_zero_in_degree)
        fc: Tensor = self.fc
        attn_l: Tensor = self.attn_l
        attn_r: Tensor = self.attn_r
        bias: Tensor | None = self.bias
        if order is not None:
            fc = fc if len(fc) == 1 else fc[order]
            attn_l, attn_r, bias = attn_l[order], attn_r[order], None if bias is None else bias[order]
        value, at_dst = self._project(views, feat, fc)
        scores = self._scores(views, value, at_dst, attn_l, attn_r)
        options: dict[str, Any] = {"negative_slope": negative_slope(self), "edge_mask": edge_column(edge_mask)}
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        z = ops.additive_attention(views.graph, self.value_drop(value), *scores, dropout=dropout, **options)
        z = z.view(views.num_views, views.num_dst, self._num_heads * self._out_feats)
        if bias is not None:
            z = z + bias.unsqueeze(1)
        if self.activation:
            z = self.activation(z)
        z = z.transpose(0, 1)
        if not get_attention:
            return z, None
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return z, ops.additive_weights(views.graph, *scores, **options).clone()


def _are_numbers(names: tuple[str, ...]) -> bool:
    """Whether the names are what hgat.graph.disjoint_union calls graphs that were given none."""
    return names == tuple(map(str, range(len(names))))
