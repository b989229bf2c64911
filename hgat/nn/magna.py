"""MAGNA: attention that is learned between neighbours and spread over many hops, and the block around it."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, ShapeError, brief, check_shape, check_whole
from hgat.nn.common import (
    Layer,
    check_feature,
    check_floats,
    check_in_degrees,
    check_number,
    check_plain,
    check_rates,
    check_sizes,
    negative_slope,
    normalized_weights,
    weight_of,
)

__all__ = ["MAGNABlock", "MAGNAConv"]

DIFFUSIONS = ("ppr", "cheb")
GAIN = nn.init.calculate_gain("tanh")


class MAGNAConv(Layer):
    """Multi-hop attention: one-hop attention as the transition matrix of a walk that restarts.

        e_uv = leaky_relu(attn_l . tanh(W h_u) + attn_r . tanh(W h_v) [+ attn_rel . tanh(W_r r_uv)])
        A_vu = softmax over u of e_uv;   Z^0 = W h;   Z^{k+1} = (1 - alpha) drop(A) Z^k + alpha Z^0;   out = Z^K

    out tends to alpha (I - (1 - alpha) A)^-1 W h, whose weights of the senders of one node sum to one, as they do after
    any number of steps. Attention is computed once, [E, H], and what a step keeps for backward are the nodes' rows.
    hops: K. alpha: the share of the walks that restart; with 1 out is W h, with 0 and one hop plain attention.
    rel_feats: F_r, width of the rows of relations in a knowledge graph; None for a graph without relations.
    diffusion: "ppr", this; "cheb", a filter without attention, as MAGNA is described elsewhere:

        out = sum_{k=0..K} beta_k T_k(L) h W_k;   T_0 = I, T_1 = L, T_k = 2 L T_{k-1} - T_{k-2}

    with learned beta and a W_k for each hop; L = 2 (I - S) / 2 - I = -S, S = D^(-1/2) A D^(-1/2) of the graph's edges,
    2 the bound of the eigenvalues of I - S.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Wang et al. 2021, arXiv:2009.14332, eq. 1-5. Differs: W is one matrix for both ends and for what is summed,
    which is the default of the authors' code, where the paper has W_h and W_t; the tanh is the code's; dropout on
    attention is drawn once and not for every hop, and there is none on the rows between the hops, so that in training,
    too, out is a power series of one matrix. Rows of drop(A) are scaled to sum to one, where dropout scales all by
    1 / (1 - attn_drop): a part of the graph that happens to lose no edge would grow by that factor with every hop. A
    node that would lose every edge keeps them. The code's selection of the k strongest edges is left out.
    """

    attn_l: nn.Parameter | None
    attn_r: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        allow_zero_in_degree: bool = False,
        *,
        hops: int = 6,
        alpha: float = 0.1,
        diffusion: Literal["ppr", "cheb"] = "ppr",
        rel_feats: int | None = None,
    ) -> None:
        super().__init__()
        self._in_feats, self._out_feats, self._num_heads = check_sizes(
            in_feats=in_feats, out_feats=out_feats, num_heads=num_heads
        )
        check_sizes(hops=hops)
        check_whole(1, rel_feats=rel_feats)
        check_number(negative_slope=negative_slope)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop, alpha=alpha)
        if not isinstance(diffusion, str) or diffusion not in DIFFUSIONS:
            raise ShapeError(f"diffusion: expected {' or '.join(map(repr, DIFFUSIONS))}, got {brief(diffusion)}")
        attends = diffusion == "ppr"
        if rel_feats is not None and not attends:
            raise ShapeError(f"rel_feats: expected none of a filter without attention, got {rel_feats}")
        self._allow_zero_in_degree = allow_zero_in_degree
        self.hops, self.alpha, self.diffusion = int(hops), alpha, diffusion
        width = self._num_heads * self._out_feats
        self.fc = nn.Linear(self._in_feats, width if attends else (self.hops + 1) * width, bias=False)
        for name in ("attn_l", "attn_r"):
            vector = nn.Parameter(torch.empty(1, self._num_heads, self._out_feats)) if attends else None
            self.register_parameter(name, vector)
        self.register_parameter("beta", None if attends else nn.Parameter(torch.empty(self.hops + 1)))
        self._rel_feats = rel_feats
        if rel_feats is not None:
            self.fc_rel = nn.Linear(rel_feats, width, bias=False)
            self.attn_rel = nn.Parameter(torch.empty(1, self._num_heads, self._out_feats))
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot normal with the gain of tanh, as in the authors' code; every beta is one."""
        for name, parameter in self.named_parameters():
            if name == "beta":
                nn.init.ones_(parameter)
            else:
                nn.init.xavier_normal_(parameter, gain=GAIN)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which keep alpha of their own row, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: DGLGraph,
        feat: Tensor,
        get_attention: bool = False,
        *,
        etype: Tensor | None = None,
        rel_feat: Tensor | None = None,
    ) -> Any:
        """Rows of every node after K steps.

        graph: DGLGraph with one relation from nodes to the same nodes, each with an in-edge; feat [N, F]; etype [E],
        the number of every edge's relation, and rel_feat [R, F_r], given if and only if the layer has rel_feats ->
        [N, H, D], and with get_attention A, [E, H, 1], which is of one hop and before dropout.
        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, a block among them, ShapeError for tensors that do not fit, and for attention that a filter has not.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        if graph.is_block or graph.num_src_nodes() != graph.num_dst_nodes():
            raise GraphError(
                "graph: expected one whose walks go on from every node they reach, got a block or two ends"
            )
        check_feature("feat", feat, self._in_feats, graph.num_dst_nodes(), weight_of(self.fc))
        check_plain("feat", feat)
        score_edge = self._of_relations(graph, etype, rel_feat)
        value = self.fc(self.feat_drop(feat))
        if self.beta is not None or self.attn_l is None or self.attn_r is None:
            if get_attention:
                raise ShapeError("get_attention: expected False of a filter without attention, got True")
            return self._filtered(graph, value.unflatten(-1, (self.hops + 1, self._num_heads, self._out_feats)))
        value = value.unflatten(-1, (self._num_heads, self._out_feats))
        near = torch.tanh(value)
        score_src, score_dst = ((near * end).sum(-1) for end in (self.attn_l, self.attn_r))
        alpha = ops.additive_weights(graph, score_src, score_dst, score_edge, negative_slope=negative_slope(self))
        weight = _dropped(graph, alpha, self.attn_drop.p) if self.attn_drop.training else alpha
        out = ops.propagate(graph, value, weight, self.hops, restart=self.alpha)
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return (out, alpha.clone().unsqueeze(-1)) if get_attention else out

    def _of_relations(self, graph, etype, rel_feat):
        """attn_rel . tanh(W_r r) of every edge, [E, H]; computed once for every relation."""
        for name, given in (("etype", etype), ("rel_feat", rel_feat)):
            if given is None and self._rel_feats is not None:
                raise ShapeError(f"{name}: expected it of a layer that has rel_feats, got none")
            if given is not None and self._rel_feats is None:
                raise ShapeError(f"{name}: expected none of a layer without rel_feats, got {brief(given)}")
        if etype is None or rel_feat is None:
            return None
        check_floats("rel_feat", rel_feat, weight_of(self.fc_rel))
        check_shape("rel_feat", rel_feat, ("R", None), ("F_r", self._rel_feats))
        check_shape("etype", etype, ("E", graph.num_edges()))
        if etype.is_floating_point() or etype.dtype == torch.bool:
            raise ShapeError(f"etype: expected whole numbers, got {etype.dtype}")
        # On a device the answer would have to be waited for, and an index that is none is an error there, too.
        if etype.device.type == "cpu" and etype.numel():
            least, most = (int(bound) for bound in etype.aminmax())
            if least < 0 or most >= len(rel_feat):
                raise ShapeError(f"etype: expected numbers of the {len(rel_feat)} relations, got {least} to {most}")
        row = torch.tanh(self.fc_rel(rel_feat)).unflatten(-1, (self._num_heads, self._out_feats))
        return (row * self.attn_rel).sum(-1).index_select(0, etype.to(rel_feat.device).long())

    def _filtered(self, graph, value):
        """The polynomial of value [N, K + 1, H, D], by Clenshaw's recurrence: K sums over neighbours."""
        weight = normalized_weights(graph, "both", value.device).to(value.dtype)
        terms = (value * self.beta.view(-1, 1, 1)).unbind(1)
        last, before = terms[-1], None
        for k in range(self.hops - 1, -1, -1):
            back = ops.propagate(graph, last, weight)
            found = terms[k] - (2.0 if k else 1.0) * back
            last, before = found if before is None else found - before, last
        return last


def _dropped(graph, alpha, dropout):
    """alpha [E, H] without some edges, rows scaled to sum to one again; all edges of a node that would have none."""
    if dropout == 0.0:
        return alpha
    left = ops.attention_dropout(alpha, dropout)
    total = ops.weighted_sum(graph, left.new_ones((graph.num_src_nodes(), alpha.shape[1], 1)), left).squeeze(-1)
    total = ops.copy_v(graph, total)
    return torch.where(total > 0, left / total.where(total > 0, 1.0), alpha)


class MAGNABlock(Layer):
    """Attention and a feed-forward network, each behind a layer normalisation and beside a residual.

        y = drop(W_o conv(LN(x))) + x;   out = drop(W_2 drop_ff(relu(W_1 LN(y)))) + y

    conv: MAGNAConv with out_feats / num_heads columns for each head, whose settings are diffusion, hops, alpha,
    attn_drop, feat_drop and rel_feats. x goes through a linear map of its own where F is not out_feats. W_1 is four
    times as wide as out_feats. norm: False leaves out LN. feed_forward: with False out = elu(y). ff_drop: drop_ff.
    feat_drop: drop, and what conv drops of its features.

    Raises ShapeError for a constructor's argument out of range, and where out_feats is no multiple of num_heads.
    Paper: Wang et al. 2021, arXiv:2009.14332, eq. 6-7. Differs: LN is PyTorch's, where the authors' code divides by an
    unbiased standard deviation plus 1e-6.
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        ff_drop: float = 0.1,
        negative_slope: float = 0.2,
        allow_zero_in_degree: bool = False,
        *,
        hops: int = 6,
        alpha: float = 0.1,
        diffusion: Literal["ppr", "cheb"] = "ppr",
        rel_feats: int | None = None,
        norm: bool = True,
        feed_forward: bool = True,
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        if out_feats % num_heads:
            raise ShapeError(f"out_feats: expected a multiple of {num_heads} heads, got {out_feats}")
        check_rates(ff_drop=ff_drop)
        self.norm = nn.LayerNorm(in_feats) if norm else nn.Identity()
        self.conv = MAGNAConv(
            in_feats, out_feats // num_heads, num_heads, feat_drop, attn_drop, negative_slope, allow_zero_in_degree,
            hops=hops, alpha=alpha, diffusion=diffusion, rel_feats=rel_feats,
        )  # fmt: skip
        self.fc_out = nn.Linear(out_feats, out_feats, bias=False)
        self.res_fc = nn.Identity() if in_feats == out_feats else nn.Linear(in_feats, out_feats, bias=False)
        self.feed_forward = (
            nn.Sequential(
                nn.LayerNorm(out_feats) if norm else nn.Identity(),
                nn.Linear(out_feats, 4 * out_feats),
                nn.ReLU(),
                nn.Dropout(ff_drop),
                nn.Linear(4 * out_feats, out_feats),
            )
            if feed_forward
            else None
        )
        self.drop = nn.Dropout(feat_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in the authors' code: Glorot normal, with the gain of tanh at the residual and of ReLU behind it."""
        self.conv.reset_parameters()
        self.fc_out.reset_parameters()
        if isinstance(self.res_fc, nn.Linear):
            nn.init.xavier_normal_(self.res_fc.weight, gain=GAIN)
        for module in self.feed_forward or []:
            if isinstance(module, nn.Linear):
                module.reset_parameters()
                nn.init.xavier_normal_(module.weight, gain=nn.init.calculate_gain("relu"))
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False, **relations: Tensor) -> Any:
        """New rows of every node.

        graph, get_attention and the relations etype and rel_feat are MAGNAConv's; feat [N, F] -> [N, out_feats], and
        with get_attention conv's A, [E, H, 1].
        Raises what MAGNAConv raises.
        """
        check_floats("feat", feat)
        check_feature("feat", feat, self.conv._in_feats, len(feat))
        found = self.conv(graph, self.norm(feat), get_attention, **relations)
        z, alpha = found if get_attention else (found, None)
        y = self.drop(self.fc_out(z.flatten(1))) + self.res_fc(feat)
        out = F.elu(y) if self.feed_forward is None else y + self.drop(self.feed_forward(y))
        return (out, alpha) if get_attention else out
