"""TGAT: attention of a node at a time over its earlier neighbours, and the code of elapsed time."""

from typing import Any

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape, check_whole
from hgat.nn.common import Layer, WideParameters, check_floats, check_rates, check_sizes

__all__ = ["TGATConv", "TimeEncoding"]


class TimeEncoding(WideParameters):
    """Elapsed time as `width` numbers, Phi.

        form "cos":     Phi(t)_k = cos(w_k t + phi_k)
        form "sincos":  Phi(t) = sqrt(1 / d) [cos(w_1 t), sin(w_1 t), ..., cos(w_d t), sin(w_d t)], d = width / 2

    w is learned, from 10^0 down to 10^-9 in equal steps of the exponent at the start; phi is learned, from 0.
    Shapes: elapsed [*] -> [*, width]. In half types the angle is computed in float32, and w and phi stay float32:
    rounded to half precision they would tell other times apart.
    Raises ShapeError for another form and an odd width of "sincos".
    Paper: Xu et al. 2020 (TGAT), arXiv:2002.07962. "cos" and the start of w are the authors' code; "sincos" is the
    paper's, its factor taken from what others say of it.
    """

    _wide = ("frequency", "phase")
    phase: nn.Parameter | None
    _like: Tensor

    def __init__(self, width: int, form: str = "cos") -> None:
        super().__init__()
        check_sizes(width=width)
        if form not in ("cos", "sincos"):
            raise ShapeError(f"form: expected 'cos' or 'sincos', got {form!r}")
        if form == "sincos" and width % 2:
            raise ShapeError(f"width: expected an even number for 'sincos', got {width}")
        self.form = form
        self.frequency = nn.Parameter(torch.empty(width if form == "cos" else width // 2))
        self.register_parameter("phase", nn.Parameter(torch.empty(width)) if form == "cos" else None)
        # Goes where the layer is moved, with the type that it is moved to.
        self.register_buffer("_like", torch.empty(0), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """w from 10^0 down to 10^-9, phi zero."""
        with torch.no_grad():
            self.frequency.copy_(torch.logspace(0, -9, len(self.frequency), dtype=torch.float64))
            if self.phase is not None:
                self.phase.zero_()

    def forward(self, elapsed: Tensor) -> Tensor:
        """The code of every elapsed time.

        elapsed [B, K] or of any other shape [*], of any type of real numbers -> [B, K, width] or [*, width], of the
        type of the layer. Raises ShapeError for anything else.
        """
        if not isinstance(elapsed, torch.Tensor) or elapsed.is_complex():
            got = getattr(elapsed, "dtype", type(elapsed).__name__)
            raise ShapeError(f"elapsed: expected a tensor of real numbers, got {got}")
        kind = torch.promote_types(self.frequency.dtype, torch.float32)
        angle = elapsed.to(kind).unsqueeze(-1) * self.frequency.to(kind)
        if self.phase is not None:
            code = torch.cos(angle + self.phase.to(kind))
        else:
            code = torch.stack([torch.cos(angle), torch.sin(angle)], -1).flatten(-2) * len(self.frequency) ** -0.5
        return code.to(self._like.dtype)


class TGATConv(Layer):
    """Attention of B nodes, each at its time t, over K earlier events of each.

        q_i = [h_i || 0 || Phi(0)];  x_ij = [h_j || e_ij || Phi(t - t_j)]
        alpha_ij = softmax over the events j of (W_q q_i) . (W_k x_ij) / sqrt(D), per head
        o_i = W_o [sum_j alpha_ij W_v x_ij, heads side by side] + b_o
        o_i = LayerNorm(o_i + q_i), unless norm=False
        out_i = W_2 relu(W_1 [o_i || h_i] + b_1) + b_2

    attn_drop acts on alpha, out_drop on W_o's output.
    Shapes: feat [B, F], neighbour_feat [B, K, F] -> [B, out_feats]; see `forward`.

    Paper: Xu et al. 2020, arXiv:2002.07962. From the authors' code and not the paper: LayerNorm with the skip, the
    zeros of q in place of an edge, W_o, h_i of the layer below as the perceptron's second input. Differs from that
    code: a node without earlier events gets zeros, there a mean over padding; each layer has its own Phi; D is
    ceil(width of q / H), there the width must be a multiple of H.
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        time_feats: int,
        edge_feats: int = 0,
        attn_drop: float = 0.0,
        time_encoding: str = "cos",
        *,
        out_drop: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        (time_feats,) = check_sizes(time_feats=time_feats)
        check_whole(0, edge_feats=edge_feats)
        check_rates(attn_drop=attn_drop, out_drop=out_drop)
        if not isinstance(norm, bool):
            raise ShapeError(f"norm: expected True or False, got {brief(norm)}")
        self._in_feats, self._edge_feats, self._num_heads = in_feats, edge_feats, num_heads
        width = in_feats + edge_feats + time_feats
        self._head_feats = -(-width // num_heads)
        self.time = TimeEncoding(time_feats, time_encoding)
        self.fc_q, self.fc_k, self.fc_v = (nn.Linear(width, num_heads * self._head_feats, bias=False) for _ in range(3))
        self.fc_out = nn.Linear(num_heads * self._head_feats, width)
        self.norm = nn.LayerNorm(width) if norm else None
        self.merge = nn.Sequential(nn.Linear(width + in_feats, out_feats), nn.ReLU(), nn.Linear(out_feats, out_feats))
        self.attn_drop = nn.Dropout(attn_drop)
        self.out_drop = nn.Dropout(out_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the authors: normal with the variance of Glorot for one head, or for the whole matrix after the heads."""
        self.time.reset_parameters()
        for layer in self._projections():
            nn.init.normal_(layer.weight, std=(2 / (layer.in_features + self._head_feats)) ** 0.5)
        for linear in (self.fc_out, *self.merge):
            if isinstance(linear, nn.Linear):
                linear.reset_parameters()
                nn.init.xavier_normal_(linear.weight)
        if self.norm is not None:
            self.norm.reset_parameters()

    def _projections(self) -> tuple[nn.Linear, ...]:
        return self.fc_q, self.fc_k, self.fc_v

    def _check(self, feat: Any, neighbour_feat: Any, elapsed: Any, mask: Any, edge_feat: Any, *within: Any) -> None:
        """within: axes between those of the nodes and of their events."""
        for name, tensor in (("feat", feat), ("neighbour_feat", neighbour_feat), ("edge_feat", edge_feat)):
            if tensor is not None or name != "edge_feat":
                check_floats(name, tensor, self.fc_out.weight)
        letters = ", ".join(["B", *(letter for letter, _ in within), "K"])
        for name, tensor in (("elapsed", elapsed), ("mask", mask)):
            if not isinstance(tensor, torch.Tensor):
                raise ShapeError(f"{name}: expected a tensor [{letters}], got {type(tensor).__name__}")
        check_shape("feat", feat, ("B", None), ("F", self._in_feats))
        rows = ("B", len(feat)), *within
        check_shape("neighbour_feat", neighbour_feat, *rows, ("K", None), ("F", self._in_feats))
        events = ("K", neighbour_feat.shape[-2])
        check_shape("elapsed", elapsed, *rows, events)
        check_shape("mask", mask, *rows, events)
        if mask.dtype != torch.bool:
            raise ShapeError(f"mask: expected torch.bool, got {mask.dtype}")
        if (edge_feat is None) != (self._edge_feats == 0):
            got = "none" if edge_feat is None else list(edge_feat.shape)
            raise ShapeError(f"edge_feat: expected {self._edge_feats or 'no'} numbers per event, got {got}")
        if edge_feat is not None:
            check_shape("edge_feat", edge_feat, *rows, events, ("Fe", self._edge_feats))

    def _rows(self, feat, neighbour_feat, elapsed, mask, edge_feat):
        """(q [B, X] of the nodes, x [*, X] of their events, zeros where there is none)."""
        # NaN times zero is NaN, forward and backward: padding is cleared before anything is computed from it.
        code = self.time(elapsed.masked_fill(~mask, 0))
        event = torch.cat([neighbour_feat, code] if edge_feat is None else [neighbour_feat, edge_feat, code], -1)
        event = event.masked_fill(~mask.unsqueeze(-1), 0)
        now = self.time(elapsed.new_zeros(len(feat)))
        return torch.cat([feat, feat.new_zeros(len(feat), self._edge_feats), now], -1), event

    def _merged(self, heads, own, feat):
        """The output, from the weighted sums of all heads side by side."""
        out = self.out_drop(self.fc_out(heads))
        if self.norm is not None:
            out = self.norm(out + own)
        return self.merge(torch.cat([out, feat], -1))

    def forward(
        self,
        feat: Tensor,
        neighbour_feat: Tensor,
        elapsed: Tensor,
        mask: Tensor,
        edge_feat: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """Each of B nodes after it has looked at its K events.

        feat [B, F], neighbour_feat [B, K, F], elapsed t - t_j [B, K] of any type, mask [B, K] bool, True where there is
        an event, edge_feat [B, K, Fe] -> [B, out_feats], and with get_attention alpha [B, H, K] before dropout.
        What stands in a slot without an event is never used, not even NaN; without any event the sum is zero, and so is
        alpha. Inside hgat.ops.uniform_attention() the events of a node weigh alike.
        Raises ShapeError for tensors that do not fit.
        """
        self._check(feat, neighbour_feat, elapsed, mask, edge_feat)
        heads, width = self._num_heads, self._head_feats
        own, event = self._rows(feat, neighbour_feat, elapsed, mask, edge_feat)

        # (W_q q) . (W_k x) = (W_k^T W_q q) . x, and W_v comes after the sum: no event is ever projected, and the heads
        # are H queries to the same keys. K * width^2 per node becomes width^2.
        query = self.fc_q(own).unflatten(-1, (heads, width))
        query = torch.einsum("bhd,hdx->bhx", query, self.fc_k.weight.unflatten(0, (heads, width)))
        # A node without events attends to its padding, which is zero.
        seen = (mask | ~mask.any(1, keepdim=True)).unsqueeze(1)
        scale = width**-0.5
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        # Four axes: with three, PyTorch has no fused kernel.
        at, keys, values, mask_ = (x.unsqueeze(1) for x in (query, event, event, seen))
        summed = ops.scaled_dot_product_attention(at, keys, values, mask_, rate, scale=scale).squeeze(1)
        out = torch.einsum("bhx,hdx->bhd", summed, self.fc_v.weight.unflatten(0, (heads, width))).flatten(1)
        out = self._merged(out, own, feat)
        if not get_attention:
            return out
        logits = torch.einsum("bhx,bkx->bhk", query, event) * scale
        return out, ops.alignment(logits, dim=-1, mask=mask.unsqueeze(1))
