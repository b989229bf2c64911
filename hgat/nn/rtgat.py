"""TGAT's attention over earlier events under several relations."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn.names import NamedState, check_etypes, order_of, reorder
from hgat.nn.tgat import TGATConv

__all__ = ["RTGATConv"]


class RTGATConv(NamedState, TGATConv):
    """Attention of B nodes, each at its time t, over K earlier events of each under every one of R relations.

        q_i = [h_i || 0 || Phi(0)];  x_ij^r = [h_j || e_ij || Phi(t - t_j)]
        logit_ij^r = (W_q q_i) . (W_k^r x_ij^r) / sqrt(D), per head
        across: alpha_ij^r = softmax over all (r, j) of node i
        within: alpha_ij^r = softmax over the j of node i under one r
        o_i = W_o [sum_r sum_j alpha_ij^r W_v^r x_ij^r, heads side by side] + b_o
        o_i = LayerNorm(o_i + q_i), unless norm=False
        out_i = W_2 relu(W_1 [o_i || h_i] + b_1) + b_2

    etypes: the canonical relations, in the order of the tensors' axis R; a state dict is matched with them by name.
    attn_drop acts on alpha, out_drop on W_o's output.
    Shapes: feat [B, F], neighbour_feat [B, R, K, F] -> [B, out_feats]; see `forward`. Raises GraphError for etypes that
    are no canonical relations, ShapeError for an argument out of range.

    Paper: Xu et al. 2020 (TGAT), arXiv:2002.07962, with the softmax across or within relations of Busbridge et al. 2019
    (RGAT), arXiv:1904.05811. The two together are a construction of this project; of one relation it is TGATConv.
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        time_feats: int,
        etypes: Sequence[tuple[str, str, str]],
        edge_feats: int = 0,
        attn_drop: float = 0.0,
        time_encoding: str = "cos",
        *,
        softmax: Literal["across", "within"] = "across",
        out_drop: float = 0.0,
        norm: bool = True,
    ) -> None:
        if softmax not in ("across", "within"):
            raise ShapeError(f"softmax: expected 'across' or 'within', got {softmax!r}")
        etypes = check_etypes(etypes)
        options: dict[str, Any] = {"out_drop": out_drop, "norm": norm}
        super().__init__(in_feats, out_feats, num_heads, time_feats, edge_feats, attn_drop, time_encoding, **options)
        self.etypes, self.softmax = etypes, softmax
        # In the place of what one relation has.
        shape = (len(etypes), *self.fc_k.weight.shape)
        del self.fc_k, self.fc_v
        self.weight_k, self.weight_v = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As TGATConv's, those of each relation like those of one."""
        if hasattr(self, "fc_k"):  # while TGATConv is made
            return
        for weight in (self.weight_k, self.weight_v):
            nn.init.normal_(weight, std=(2 / (weight.shape[2] + self._head_feats)) ** 0.5)
        super().reset_parameters()

    def _projections(self):
        return (self.fc_q,)

    def _names(self):
        return {"etypes": self.etypes}

    def _match(self, names, state, prefix):
        theirs = names.get("etypes") if isinstance(names, dict) else None
        reorder(state, prefix, ("weight_k", "weight_v"), order_of(theirs, self.etypes, "relations"))

    def forward(
        self,
        feat: Tensor,
        neighbour_feat: Tensor,
        elapsed: Tensor,
        mask: Tensor,
        edge_feat: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """Each of B nodes after it has looked at its K events under each relation.

        feat [B, F], neighbour_feat [B, R, K, F], elapsed t - t_j [B, R, K] of any type, mask [B, R, K] bool, True where
        there is an event, edge_feat [B, R, K, Fe] -> [B, out_feats], and with get_attention alpha [B, H, R, K] before
        dropout. What stands in a slot without an event is never used, not even NaN; without any event the sum is zero,
        and so is alpha. Inside hgat.ops.uniform_attention() the events in one softmax weigh alike.
        Raises ShapeError for tensors that do not fit.
        """
        self._check(feat, neighbour_feat, elapsed, mask, edge_feat, ("R", len(self.etypes)))
        own, event = self._rows(feat, neighbour_feat, elapsed, mask, edge_feat)
        heads, width = self._num_heads, self._head_feats

        # As in TGATConv no event is projected: W_k^r goes into the query, and W_v^r comes after the sum.
        query = self.fc_q(own).unflatten(-1, (heads, width))
        query = torch.einsum("bhd,rhdx->brhx", query, self.weight_k.unflatten(1, (heads, width)))
        logits = (query @ event.transpose(-1, -2)).transpose(1, 2) * width**-0.5  # [B, H, R, K]
        if self.softmax == "across":
            alpha = ops.alignment(logits.flatten(2), dim=-1, mask=mask.flatten(1).unsqueeze(1)).view_as(logits)
        else:
            alpha = ops.alignment(logits, dim=-1, mask=mask.unsqueeze(1))
        summed = self.attn_drop(alpha).transpose(1, 2) @ event  # [B, R, H, X]
        out = torch.einsum("brhx,rhdx->bhd", summed, self.weight_v.unflatten(1, (heads, width))).flatten(1)
        out = self._merged(out, own, feat)
        # What backward reads is not handed out to be overwritten.
        return (out, alpha.clone()) if get_attention else out
