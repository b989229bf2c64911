"""Attention over views: meta-paths, snapshots, hops, channels. The second level of every two-level system."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape
from hgat.nn.common import Layer, check_activation, check_floats, check_number, check_rates, check_sizes, weight_of

__all__ = ["Fusion", "SemanticAttention"]

GATES = ("softmax", "sigmoid", "tanh", "none")


class Fusion(Layer):
    """Attention over P views of the same nodes: a score for each, its alignment, and the weighted sum.

        score "additive": s_ip = act(q . tanh(W [z_ip || r_ip] + c) + b);   "linear": s_ip = act(q . [z_ip || r_ip] + b)
        beta_i = gate((s_i / temperature) M);   out_i = sum_p drop(beta_ip) z_ip

    r is a reference that is put beside every view to score it, reference_feats wide; none by default. score_bias: b,
    none by default. activation: act, a function, none by default. form: "per_node", a score for each node, or
    "global", the mean over the nodes, and with it one beta for all. shared: one scorer for all views, or with False
    one for each of num_views. gate: "softmax" over the views, or "sigmoid", "tanh" or "none" for each view alone.
    mix: a learned matrix M [P, P] on the scores; temperature divides them. attn_drop: rate of dropout on beta.
    num_views is needed for a mix and for scorers that are not shared.

    In these words: HAN additive, softmax; AM-GCN additive, per node, softmax; DAGNN linear with a bias, sigmoid; GAMLP
    linear with a reference and LeakyReLU or sigmoid, softmax; ACM linear, not shared, sigmoid as activation, mix,
    temperature P, softmax.
    Paper: Wang et al. 2019 (HAN), arXiv:1903.07293, eq. 7-9; Liu et al. 2020 (DAGNN), arXiv:2007.09296; Zhang et al.
    2022 (GAMLP), arXiv:2206.04355; Luan et al. 2022 (ACM), arXiv:2210.07606; Wang et al. 2020 (AM-GCN),
    arXiv:2007.02265. The terms are those of Brauwers and Frasincar 2023, arXiv:2203.14263.
    """

    mix: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        num_views: int | None = None,
        *,
        score: str = "additive",
        hidden_feats: int = 128,
        reference_feats: int = 0,
        score_bias: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        form: str = "per_node",
        shared: bool = True,
        gate: str = "softmax",
        mix: bool = False,
        temperature: float = 1.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(in_feats=in_feats, hidden_feats=hidden_feats)
        if reference_feats != 0:
            check_sizes(reference_feats=reference_feats)
        for name, value, values in (
            ("score", score, ("additive", "linear")),
            ("form", form, ("global", "per_node")),
            ("gate", gate, GATES),
        ):
            if not isinstance(value, str) or value not in values:
                expected = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"
                raise ShapeError(f"{name}: expected {expected}, got {value!r}")
        if num_views is not None or mix or not shared:
            check_sizes(num_views=num_views)
        check_activation(activation)
        check_rates(attn_drop=attn_drop)
        check_number(temperature=temperature)
        if temperature <= 0:
            raise ShapeError(f"temperature: expected a number above 0, got {temperature}")
        self.form, self.gate, self.temperature, self.activation = form, gate, temperature, activation
        self._in_feats, self._num_views, self._reference_feats = in_feats, num_views, reference_feats

        def scorer() -> nn.Module:
            width = in_feats + reference_feats
            if score == "linear":
                return nn.Linear(width, 1, bias=score_bias)
            return nn.Sequential(nn.Linear(width, hidden_feats), nn.Tanh(), nn.Linear(hidden_feats, 1, bias=score_bias))

        count = num_views or 0
        self.project = scorer() if shared else nn.ModuleList(scorer() for _ in range(count))
        self.register_parameter("mix", nn.Parameter(torch.empty(count, count)) if mix else None)
        self._reset_mix()
        self.attn_drop = nn.Dropout(attn_drop)

    def reset_parameters(self) -> None:
        """PyTorch's own of every linear layer; the mixing matrix uniform within 1 / sqrt(P), as in ACM's code."""
        for layer in self.project.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        self._reset_mix()

    def _reset_mix(self) -> None:
        if self.mix is not None:
            bound = len(self.mix) ** -0.5
            nn.init.uniform_(self.mix, -bound, bound)

    def scores(self, z: Tensor | Sequence[Tensor], reference: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """s of every view, before temperature, mix and gate: [N, P], or [P] of form "global".

        z and reference as in `forward`, whose checks are not made here.
        """
        scorers = self.project if isinstance(self.project, nn.ModuleList) else None
        if scorers is None and isinstance(z, Tensor) and (reference is None or isinstance(reference, Tensor)):
            if reference is not None:
                reference = reference if reference.dim() == 3 else reference.unsqueeze(1).expand(-1, z.shape[1], -1)
                z = torch.cat([z, reference], -1)
            score = self.project(z).squeeze(-1)
        else:
            columns = []
            for p, view in enumerate(z.unbind(1) if isinstance(z, Tensor) else z):
                beside = _at(reference, p)
                view = view if beside is None else torch.cat([view, beside], -1)
                columns.append((self.project if scorers is None else scorers[p])(view))
            score = torch.cat(columns, -1)
        if self.activation is not None:
            score = self.activation(score)
        if self.form == "global":
            # The mean of no node is no number.
            score = score.mean(0) if len(score) else score.new_zeros(score.shape[1]).detach()
        return score

    def weights(self, z: Tensor | Sequence[Tensor], reference: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """beta, before dropout: [N, P], or [P] of form "global". z and reference as in `forward`."""
        score = self.scores(z, reference)
        if self.temperature != 1.0:
            score = score / self.temperature
        if self.mix is not None:
            score = score @ self.mix
        return ops.alignment(score, dim=-1, form=self.gate)

    def forward(
        self,
        z: Tensor | Sequence[Tensor],
        reference: Tensor | Sequence[Tensor] | None = None,
        *,
        value: Tensor | Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The views' weighted sum, and the weights.

        z [N, P, F], or a list of P tensors [N, F], which are never stacked; reference [N, R], the same for every view,
        [N, P, R], or a list of P, for a layer of reference_feats R; value, what is summed in the place of z, [N, P, D]
        or a list -> out [N, F] (of value: [N, D]), beta [N, P], or [P] of form "global", before dropout. Without a
        node a global score is zero. Inside hgat.ops.uniform_attention() beta is 1 / P, or 1 of a gate other than
        softmax. Raises ShapeError for tensors that do not fit the layer or one another.
        """
        rows, views = self._check(z, reference)
        beta = self.weights(z, reference)
        drop = self.attn_drop(beta) if self.attn_drop.p else beta
        if value is None:
            value = z
        else:
            self._check_views("value", value, rows, views)
        if isinstance(value, Tensor):
            out = (value * drop.unsqueeze(-1)).sum(1)
        else:
            out = value[0] * drop[..., 0:1]
            for p in range(1, len(value)):
                out = out + value[p] * drop[..., p : p + 1]
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return out, beta.clone()

    def _check(self, z: Any, reference: Any) -> tuple[int | None, int | None]:
        """(nodes, views) of a call whose tensors fit."""
        first = self.project
        while isinstance(first, (nn.ModuleList, nn.Sequential)):
            first = first[0]
        like = weight_of(first)
        rows, views = self._check_views("z", z, None, self._num_views, self._in_feats, like)
        if (reference is None) != (self._reference_feats == 0):
            got = "none" if reference is None else "one"
            raise ShapeError(f"reference: expected {self._reference_feats or 'no'} numbers beside a view, got {got}")
        if isinstance(reference, Tensor) and reference.dim() == 2:
            check_floats("reference", reference, like)
            check_shape("reference", reference, ("N", rows), ("R", self._reference_feats))
        elif reference is not None:
            self._check_views("reference", reference, rows, views, self._reference_feats, like)
        return rows, views

    @staticmethod
    def _check_views(
        name: str, z: Any, rows: int | None, views: int | None, width: int | None = None, like: Tensor | None = None
    ) -> tuple[int | None, int | None]:
        """(rows, views) of views as one tensor [N, P, F] or as a list of P tensors [N, F]."""
        if not isinstance(z, (list, tuple)):
            check_floats(name, z, like)
            check_shape(name, z, ("N", rows), ("P", views), ("F", width))
            return z.shape[0], z.shape[1]
        if not len(z) or (views is not None and len(z) != views):
            expected = "one view or more" if views is None else f"{views} views"
            raise ShapeError(f"{name}: expected {expected}, got {len(z)}")
        for p, view in enumerate(z):
            check_floats(f"{name}[{p}]", view, like)
            check_shape(f"{name}[{p}]", view, ("N", rows), ("F", width))
            rows, width = view.shape
        return rows, len(z)


def _at(views: Any, p: int) -> Any:
    """View p of a tensor [N, P, F] or a list; a tensor [N, F] is every one of them."""
    if isinstance(views, Tensor):
        return views if views.dim() == 2 else views[:, p]
    return None if views is None else views[p]


class SemanticAttention(Fusion):
    """Softmax attention over P views of the same nodes: the setting of Fusion that HAN has.

        w_p = mean_i q . tanh(W z_ip + b);  beta = softmax over p;  out_i = sum_p beta_p z_ip

    form: "global", one beta for the whole graph, or "per_node", without the mean over i, one beta for each node.
    Shapes: z [N, P, F] -> out [N, F], beta [P] or [N, P]; see `forward`.
    Paper: Wang et al. 2019 (HAN), arXiv:1903.07293, eq. 7-9, the global form; their released code runs the other.
    """

    def __init__(self, in_feats: int, hidden_feats: int = 128, form: str = "global") -> None:
        super().__init__(in_feats, hidden_feats=hidden_feats, form=form)
