"""Co-attention: two sets that attend to one another, by a summary of the other (coarse) or by all its items (fine)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn.common import Layer, check_set, check_sizes, feature_pair, mean_of_set, reset_children
from hgat.nn.general import GeneralAttention, check_settings

__all__ = [
    "AlternatingCoAttention",
    "InteractiveCoAttention",
    "MultiGrainedCoAttention",
    "ParallelCoAttention",
    "RotatoryAttention",
]

# Of GeneralAttention, what would make its rows wider or narrower than the items, which are the next query.
FIXED = ("in_feats", "out_feats", "num_heads", "value_feats", "output_feats")

# What is found in a set, [B, F], and the weights of its items, [B, N], or None where nobody asked for them.
Found = tuple[Tensor, Tensor | None]


def attention_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of hgat.nn.GeneralAttention whose rows are as wide as the items: additive, of the items, if not said.

    Raises ShapeError for those that would change the rows' width, for a query of the layer's own, as one is given, and
    for other names.
    """
    check_settings(settings)
    wrong = [name for name in settings if name in FIXED]
    if wrong:
        raise ShapeError(
            f"{wrong[0]}: expected one head whose rows are as wide as the items, got {settings[wrong[0]]!r}"
        )
    if settings.get("query") in ("none", "trained"):
        raise ShapeError(f"query: expected one of what is given, got {settings['query']!r}")
    return {"score": "additive", "values": "input"} | settings


def attend(layer: nn.Module, query: Tensor, x: Tensor, mask: Tensor | None, get_attention: bool) -> Found:
    """What `layer` finds in sets x [B, N, F], with its weights if they are asked for."""
    found = layer(query, x, mask=mask, get_attention=get_attention)
    return found if get_attention else (found, None)


class _CoAttention(Layer):
    """What all have: the checks of two sets, and what was found in them side by side."""

    _in_feats: tuple[int, int]

    def reset_parameters(self) -> None:
        """Those of all that it consists of."""
        reset_children(self)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        x_mask: Tensor | None = None,
        y_mask: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """What each set finds in itself by means of the other, side by side.

        x [B, N, F_x], y [B, M, F_y]; x_mask [B, N], y_mask [B, M] bool, True where an item stands ->
        [B, F_x + F_y], and with get_attention (alpha_x [B, N], alpha_y [B, M]); of several grains the coarse ones
        first. Of a set without items zeros are found.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        like = next(self.parameters(), None)
        x, x_mask = check_set("x", x, x_mask, self._in_feats[0], like)
        y, y_mask = check_set("y", y, y_mask, self._in_feats[1], like, len(x))
        found = self._found(x, y, x_mask, y_mask, get_attention)
        out = torch.cat([context for context, _ in found], 1)
        if not get_attention:
            return out
        return out, tuple(alpha.clone() for _, alpha in found if alpha is not None)  # backward reads alpha

    def _found(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, get_attention: bool
    ) -> tuple[Found, ...]:
        """What is found in x, then in y, of sets that were checked."""
        raise NotImplementedError("_found")


class _Coarse(_CoAttention):
    """Attention over each of two sets, by a query that is made of the other one."""

    def __init__(self, in_feats: int | Sequence[int], **attention: Any) -> None:
        super().__init__()
        self._in_feats = x_feats, y_feats = feature_pair(in_feats)
        attention = attention_settings(attention)
        self.over_x = GeneralAttention((x_feats, y_feats), x_feats, **attention)
        self.over_y = GeneralAttention((y_feats, x_feats), y_feats, **attention)


class AlternatingCoAttention(_Coarse):
    """Coarse-grained co-attention by turns: what one set gives is the query to the other, which queries the first.

        c_0 = attend_x(0, X);   c_y = attend_y(c_0, Y);   c_x = attend_x(c_y, X);   out = [c_x || c_y]

    attend(q, X) = sum_l alpha_l x_l is hgat.nn.GeneralAttention, by default of the additive score, whose first query is
    zero: the score w . tanh(W x + b) without one, by the same parameters. in_feats: F of both sets, or (F_x, F_y);
    further keywords are those of GeneralAttention. A set of one item queries the other by that item.
    Shapes: x [B, N, F_x], y [B, M, F_y] -> [B, F_x + F_y]; see `forward`.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1, eq. 6-9.
    """

    def _found(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, get_attention: bool
    ) -> tuple[Found, ...]:
        first = self.over_x(x.new_zeros(len(x), self._in_feats[1]), x, mask=x_mask)
        of_y = attend(self.over_y, first, y, y_mask, get_attention)
        return attend(self.over_x, of_y[0], x, x_mask, get_attention), of_y


class InteractiveCoAttention(_Coarse):
    """Coarse-grained co-attention at once: the mean of each set is the query to the other.

        c_x = attend_x(mean of Y, X);   c_y = attend_y(mean of X, Y);   out = [c_x || c_y]

    attend, in_feats and further keywords as of AlternatingCoAttention. The mean of a set without items is zero.
    Shapes: x [B, N, F_x], y [B, M, F_y] -> [B, F_x + F_y]; see `forward`.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1, eq. 10-11.
    """

    def _found(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, get_attention: bool
    ) -> tuple[Found, ...]:
        of_x = attend(self.over_x, mean_of_set(y, y_mask), x, x_mask, get_attention)
        return of_x, attend(self.over_y, mean_of_set(x, x_mask), y, y_mask, get_attention)


class ParallelCoAttention(_CoAttention):
    """Fine-grained co-attention: every item of one set is held against every item of the other, in both directions.

        affinity "bilinear": A = tanh(X W_A Y^T);   "concat": A_ij = w_A . [x_i || y_j || x_i * y_j]
        score "additive": e_x = tanh(X W_1 + A Y W_2) w_x;   e_y = tanh(Y W_2 + A^T X W_1) w_y
        score "max": e_x,i = max_j A_ij;   e_y,j = max_i A_ij
        out = [softmax(e_x) X || softmax(e_y) Y]

    in_feats: F of both sets, or (F_x, F_y), one width for affinity "concat"; hidden_feats: of W_1 and W_2, which score
    "max" has not. Keys and values are the items. Beside a set without items score "max" has a mean.
    Shapes: x [B, N, F_x], y [B, M, F_y] -> [B, F_x + F_y]; see `forward`.
    Raises ShapeError for sizes that are not positive, another affinity or score, and widths that differ for "concat".
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1, eq. 12-16.
    """

    def __init__(
        self,
        in_feats: int | Sequence[int],
        hidden_feats: int = 128,
        *,
        affinity: str = "bilinear",
        score: str = "additive",
    ) -> None:
        super().__init__()
        self._in_feats = x_feats, y_feats = feature_pair(in_feats)
        check_sizes(hidden_feats=hidden_feats)
        for name, value, (one, other) in (
            ("affinity", affinity, ("bilinear", "concat")),
            ("score", score, ("additive", "max")),
        ):
            if not isinstance(value, str) or value not in (one, other):
                raise ShapeError(f"{name}: expected {one!r} or {other!r}, got {value!r}")
        if affinity == "concat" and x_feats != y_feats:
            raise ShapeError(f"in_feats: expected one width for affinity 'concat', got {x_feats} and {y_feats}")
        self.affinity, self.score = affinity, score
        if affinity == "bilinear":
            self.relate = nn.Linear(x_feats, y_feats, bias=False)
        else:
            self.relate = nn.Linear(3 * x_feats, 1, bias=False)
        if score == "additive":
            self.project_x = nn.Linear(x_feats, hidden_feats, bias=False)
            self.project_y = nn.Linear(y_feats, hidden_feats, bias=False)
            self.score_x = nn.Linear(hidden_feats, 1, bias=False)
            self.score_y = nn.Linear(hidden_feats, 1, bias=False)

    def affinities(self, x: Tensor, y: Tensor) -> Tensor:
        """A [B, N, M] of sets [B, N, F_x] and [B, M, F_y], whose checks `forward` makes."""
        if self.affinity == "bilinear":
            return torch.tanh(self.relate(x) @ y.transpose(1, 2))
        # The vector in three parts: nothing of size N * M * 3 F is made.
        of_x, of_y, of_both = self.relate.weight.view(3, -1, 1).unbind(0)
        return x @ of_x + (y @ of_y).transpose(1, 2) + (x * of_both.squeeze(1)) @ y.transpose(1, 2)

    def _found(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, get_attention: bool
    ) -> tuple[Found, ...]:
        to_x = self.affinities(x, y)
        to_y = to_x.transpose(1, 2)
        if self.score == "max":
            of_x, of_y = _greatest(to_x, y_mask), _greatest(to_y, x_mask)
        else:
            # Padding is zero, so that it adds nothing to what an item hears of the other set.
            hidden_x, hidden_y = self.project_x(x), self.project_y(y)
            of_x = self.score_x(torch.tanh(hidden_x + to_x @ hidden_y)).squeeze(-1)
            of_y = self.score_y(torch.tanh(hidden_y + to_y @ hidden_x)).squeeze(-1)
        return _mean(x, of_x, x_mask), _mean(y, of_y, y_mask)


class MultiGrainedCoAttention(_CoAttention):
    """Co-attention of both grains, side by side: by a summary of the other set, and by all of its items.

        out = [coarse(X, Y) || fine(X, Y)]

    coarse: an AlternatingCoAttention or InteractiveCoAttention; fine: a ParallelCoAttention of the same widths.
    Shapes: x [B, N, F_x], y [B, M, F_y] -> [B, 2 * (F_x + F_y)]; see `forward`.
    Raises ShapeError for other modules and for widths that differ.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1.
    """

    def __init__(self, coarse: _CoAttention, fine: _CoAttention) -> None:
        super().__init__()
        for name, module in (("coarse", coarse), ("fine", fine)):
            if not isinstance(module, _CoAttention):
                raise ShapeError(f"{name}: expected a module of co-attention, got {type(module).__name__}")
        if coarse._in_feats != fine._in_feats:
            raise ShapeError(f"fine: expected the widths {coarse._in_feats} of coarse, got {fine._in_feats}")
        self._in_feats, self.coarse, self.fine = coarse._in_feats, coarse, fine

    def _found(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, get_attention: bool
    ) -> tuple[Found, ...]:
        sets = x, y, x_mask, y_mask, get_attention
        return self.coarse._found(*sets) + self.fine._found(*sets)


class RotatoryAttention(Layer):
    """A target between two contexts: it queries either of them, and what they answer queries the target.

        t = mean of T;   c_l = attend_l(t, L);   c_r = attend_r(t, R)
        t_l = attend_tl(c_l, T);   t_r = attend_tr(c_r, T);   out = [c_l || c_r || t_l || t_r]

    attend is hgat.nn.GeneralAttention, by default of the activated general score, tanh(x . W q + b), of the items and
    the query as they are. in_feats: F of target and contexts, or (F_t, F_c); further keywords are those of
    GeneralAttention, where "score" is among them with maps of items and query by default.
    Shapes: target [B, N, F_t], left [B, L, F_c], right [B, R, F_c] -> [B, 2 * (F_t + F_c)].
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1, eq. 17-20.
    """

    def __init__(self, in_feats: int | Sequence[int], **attention: Any) -> None:
        super().__init__()
        self._in_feats = target, context = feature_pair(in_feats)
        if "score" not in attention:
            attention = {"score": "activated_general", "keys": "input", "query": "input"} | attention
        attention = attention_settings(attention)
        self.over_left = GeneralAttention((context, target), context, **attention)
        self.over_right = GeneralAttention((context, target), context, **attention)
        self.by_left = GeneralAttention((target, context), target, **attention)
        self.by_right = GeneralAttention((target, context), target, **attention)

    def reset_parameters(self) -> None:
        """Those of all four."""
        reset_children(self)

    def forward(
        self,
        target: Tensor,
        left: Tensor,
        right: Tensor,
        target_mask: Tensor | None = None,
        left_mask: Tensor | None = None,
        right_mask: Tensor | None = None,
        *,
        get_attention: bool = False,
    ) -> Any:
        """What the target finds in its contexts, and then in itself by means of them, side by side.

        target [B, N, F_t], left [B, L, F_c], right [B, R, F_c]; masks [B, N], [B, L], [B, R] bool, True where an item
        stands -> [B, 2 * (F_t + F_c)], and with get_attention the weights of c_l, c_r, t_l and t_r. Of a set without
        items zeros are found.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        like, (of_target, of_context) = next(self.parameters(), None), self._in_feats
        target, target_mask = check_set("target", target, target_mask, of_target, like)
        left, left_mask = check_set("left", left, left_mask, of_context, like, len(target))
        right, right_mask = check_set("right", right, right_mask, of_context, like, len(target))
        mean = mean_of_set(target, target_mask)
        at_left = attend(self.over_left, mean, left, left_mask, get_attention)
        at_right = attend(self.over_right, mean, right, right_mask, get_attention)
        by_left = attend(self.by_left, at_left[0], target, target_mask, get_attention)
        by_right = attend(self.by_right, at_right[0], target, target_mask, get_attention)
        found = at_left, at_right, by_left, by_right
        out = torch.cat([context for context, _ in found], 1)
        return (out, tuple(alpha for _, alpha in found)) if get_attention else out


def _mean(x: Tensor, score: Tensor, mask: Tensor | None) -> Found:
    """The items [B, N, F] weighed by the softmax of their scores [B, N]."""
    alpha = ops.alignment(score, dim=1, mask=mask)
    return (alpha.unsqueeze(1) @ x).squeeze(1), alpha


def _greatest(affinity: Tensor, mask: Tensor | None) -> Tensor:
    """The greatest of A [B, N, M] along M among the items that stand, [B, N]; zero where none does."""
    if mask is not None:
        affinity = affinity.masked_fill(~mask.unsqueeze(1), -torch.inf)
    best = F.pad(affinity, (0, 1), value=-torch.inf).amax(-1)
    return best.masked_fill(best == -torch.inf, 0.0)
