"""RGHAT's layer: attention over the relations of an entity, and inside each over the neighbours."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph.triples import RelationGroups
from hgat.nn.common import Layer, check_floats, check_number, check_rates, check_sizes, glorot_, negative_slope

__all__ = ["RGHATConv"]

ORDERS = ("relation_first", "entity_first")
COMBINERS = ("bi", "sum", "product")


class RGHATConv(Layer):
    """Hierarchical attention: first over the distinct relations of an entity, then over the entities inside each.

        a_hr   = W1 [h || v_r];          alpha_hr  = softmax over the relations r of h of leaky_relu(p . a_hr)
        b_hrt  = W2 [a_hr || t];         beta_hrt  = softmax over the t of (h, r) of leaky_relu(q . b_hrt)
        g_h    = sum_r alpha_hr s_hr;    s_hr      = sum_t beta_hrt b_hrt
        h'     = 1/2 (leaky_relu(W3 (h + g_h)) + leaky_relu(W4 (h * g_h)))

    for every one of the heads, whose g stand side by side. A relation with many tails counts once at the first level.
    in_feats: F, width of h, a multiple of num_heads, each of which has F / num_heads columns of g. rel_feats: F_r,
    width of the rows v of relations. out_feats: of h'. order: "relation_first", this; "entity_first", the summaries of
    relations are what the first level compares: alpha_hr = softmax over r of leaky_relu(p . s_hr). combine: "bi", this;
    "sum" or "product", one of its two terms.
    feat_drop: of h; attn_drop: of alpha and beta. Dropout on beta leaves the part of b that t has no share in.

    Raises ShapeError for a constructor's argument out of range.
    Paper: Zhang et al. 2020, RGHAT, AAAI 34(5), doi:10.1609/aaai.v34i05.6508. The equations are a reconstruction by
    notes of others that agree: W3 and W4, which the notes give one name, are two, and heads stand side by side.
    "entity_first" is not the paper's; RGHAT is described so elsewhere.
    """

    def __init__(
        self,
        in_feats: int,
        rel_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        *,
        order: Literal["relation_first", "entity_first"] = "relation_first",
        combine: Literal["bi", "sum", "product"] = "bi",
    ) -> None:
        super().__init__()
        in_feats, rel_feats, out_feats, num_heads = check_sizes(
            in_feats=in_feats, rel_feats=rel_feats, out_feats=out_feats, num_heads=num_heads
        )
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        for name, got, known in (("order", order, ORDERS), ("combine", combine, COMBINERS)):
            if got not in known:
                raise ShapeError(f"{name}: expected {' or '.join(map(repr, known))}, got {got!r}")
        if in_feats % num_heads:
            raise ShapeError(f"in_feats: expected a multiple of {num_heads} heads, got {in_feats}")
        self._in_feats, self._rel_feats, self._num_heads = in_feats, rel_feats, num_heads
        self.order, self.combine = order, combine
        width = in_feats // num_heads
        self.fc_head, self.fc_tail = (nn.Linear(in_feats, in_feats, bias=False) for _ in range(2))
        self.fc_rel = nn.Linear(rel_feats, in_feats, bias=False)
        self.weight = nn.Parameter(torch.empty(num_heads, width, width))  # of W2, what multiplies a
        self.attn_rel, self.attn_tail = (nn.Parameter(torch.empty(1, num_heads, width)) for _ in range(2))
        self.fc_sum = nn.Linear(in_feats, out_feats) if combine != "product" else None
        self.fc_product = nn.Linear(in_feats, out_feats) if combine != "sum" else None
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot normal, as DGL's attention layers have it, and zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                glorot_(parameter)

    def forward(self, groups: RelationGroups, feat: Tensor, rel_feat: Tensor, get_attention: bool = False) -> Any:
        """New rows of every entity.

        groups: what hgat.graph.relation_groups gives, of R relations; feat [N, F], rel_feat [R, F_r] -> [N, out_feats],
        and with get_attention (alpha [P, H] of the groups, beta [E, H] of the edges), before dropout. The share of an
        edge is the product of both, and they sum to one for each entity that has an in-edge; one without has g = 0.
        Raises GraphError for anything but such groups, ShapeError for rows unlike them or the layer.
        """
        if not isinstance(groups, RelationGroups):
            raise GraphError(f"groups: expected what hgat.graph.relation_groups gives, got {type(groups).__name__}")
        check_floats("feat", feat, self.weight)
        check_shape("feat", feat, ("N", groups.num_nodes), ("F", self._in_feats))
        check_floats("rel_feat", rel_feat, self.weight)
        check_shape("rel_feat", rel_feat, ("R", len(groups.relations)), ("F_r", self._rel_feats))
        per_head, slope = (self._num_heads, self._in_feats // self._num_heads), negative_slope(self)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        h, relation = self.feat_drop(feat), groups.relation_on(feat.device)
        # a and b are linear, so that W1 and W2, and the vectors of scores, are multiplied with one another first: what
        # is computed for each group is a sum of two rows, one of its entity and one of its relation.
        of_head, of_rel = (fc.weight.unflatten(0, per_head) for fc in (self.fc_head, self.fc_rel))

        def of_group(form, *others):
            """What a linear map of a gives for every group, [P, columns]."""
            at_head, at_rel = (torch.einsum(form, of, *others).flatten(0, -2) for of in (of_head, of_rel))
            return ops.copy_v(groups.collect, h @ at_head.t()) + F.embedding(relation, rel_feat @ at_rel.t())

        attn_rel, attn_tail = self.attn_rel.squeeze(0), self.attn_tail.squeeze(0)
        own = of_group("hdf,hde->hef", self.weight).unflatten(-1, per_head)  # of b, what is the same for all t
        tail = self.fc_tail(h).unflatten(-1, per_head)
        of_tail = torch.einsum("hdf,hd->hf", self.fc_tail.weight.unflatten(0, per_head), attn_tail)
        inside = h @ of_tail.t(), of_group("hdf,hde,he->hf", self.weight, attn_tail)
        options: dict[str, Any] = {"negative_slope": slope, "dropout": dropout}
        summary = own + ops.additive_attention(groups.within, tail, *inside, **options)
        if self.order == "relation_first":
            at_group = of_group("hdf,hd->hf", attn_rel)
        else:
            at_group = torch.einsum("phd,hd->ph", summary, attn_rel)
        over = at_group, feat.new_zeros((groups.num_nodes, self._num_heads))
        g = ops.additive_attention(groups.collect, summary, *over, **options).flatten(1)
        parts = [F.leaky_relu(fc(x), slope) for fc, x in self._terms(h, g)]
        out = parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2
        if not get_attention:
            return out
        # Copies: who overwrites what the layer gave must not overwrite what backward reads.
        levels = (groups.collect, over), (groups.within, inside)
        return out, tuple(ops.additive_weights(g, *s, negative_slope=slope).clone() for g, s in levels)

    def _terms(self, h, g):
        """(linear map, what it maps) of every term of h'."""
        found = [(self.fc_sum, h + g)] if self.fc_sum is not None else []
        return [*found, (self.fc_product, h * g)] if self.fc_product is not None else found
