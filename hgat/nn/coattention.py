"""Co-attention: two sets that attend to one another, by a summary of the other (coarse) or by all its items (fine)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape
from hgat.nn.common import check_set, check_sizes, feature_pair, mean_of_set

__all__ = [
    "ParallelCoAttention",
]


class ParallelCoAttention(nn.Module):
    """Fine-grained co-attention: every item of one set is held against every item of the other, in both directions.

        affinity "bilinear": A = tanh(X W_A Y^T);   "concat": A_ij = w_A . [x_i || y_j || x_i * y_j]
        score "additive": e_x = tanh(X W_1 + A Y W_2) w_x;   e_y = tanh(Y W_2 + A^T X W_1) w_y
        score "max": e_x,i = max_j A_ij;   e_y,j = max_i A_ij
        out = [softmax(e_x) X || softmax(e_y) Y]

    in_feats: F of both sets, or (F_x, F_y), one width for affinity "concat"; hidden_feats: of W_1 and W_2, which score
    "max" has not. Keys and values are the items. Inside hgat.ops.uniform_attention() both sets are averaged.
    Shapes: x [B, N, F_x], y [B, M, F_y] -> [B, F_x + F_y].
    Raises ShapeError for sizes that are not positive, another affinity or score, and widths that differ for "concat".
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.1.1, eq. 12-16, and eq. 13 without parameters' bias.
    """

    project_x: nn.Linear | None

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
        for name, value, values in (("affinity", affinity, ("bilinear", "concat")), ("score", score, ("additive", "max"))):
            if not isinstance(value, str) or value not in values:
                raise ShapeError(f"{name}: expected {values[0]!r} or {values[1]!r}, got {value!r}")
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

    def reset_parameters(self) -> None:
        """PyTorch's own of every linear layer."""
        for layer in self.children():
            layer.reset_parameters()

    def affinities(self, x: Tensor, y: Tensor) -> Tensor:
        """A [B, N, M] of sets [B, N, F_x] and [B, M, F_y], whose checks `forward` makes."""
        if self.affinity == "bilinear":
            return torch.tanh(self.relate(x) @ y.transpose(1, 2))
        # The vector in three parts: nothing of size N * M * 3 F is made.
        of_x, of_y, of_both = self.relate.weight.view(3, -1, 1).unbind(0)
        return x @ of_x + (y @ of_y).transpose(1, 2) + (x * of_both.squeeze(1)) @ y.transpose(1, 2)

    def forward(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """What each set finds in itself by means of the other, side by side.

        x [B, N, F_x], y [B, M, F_y]; x_mask [B, N], y_mask [B, M] bool, True where an item stands -> [B, F_x + F_y], and
        with get_attention (alpha_x [B, N], alpha_y [B, M]). A set without items gives zeros, and of score "max" the
        other is averaged.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        x, x_mask, y, y_mask = check_sets(self, x, y, x_mask, y_mask)
        affinity = self.affinities(x, y)
        if self.score == "max":
            scores = _best(affinity, y_mask), _best(affinity.transpose(1, 2), x_mask)
        else:
            # Padding is zero, so that it adds nothing to what an item hears of the other set.
            of_x, of_y = self.project_x(x), self.project_y(y)
            scores = (
                self.score_x(torch.tanh(of_x + affinity @ of_y)).squeeze(-1),
                self.score_y(torch.tanh(of_y + affinity.transpose(1, 2) @ of_x)).squeeze(-1),
            )
        alphas = tuple(ops.alignment(e, dim=1, mask=mask) for e, mask in zip(scores, (x_mask, y_mask), strict=True))
        out = torch.cat([(alpha.unsqueeze(1) @ z).squeeze(1) for alpha, z in zip(alphas, (x, y), strict=True)], 1)
        return (out, tuple(alpha.clone() for alpha in alphas)) if get_attention else out


def _best(affinity: Tensor, mask: Tensor | None) -> Tensor:
    """The greatest of A [B, N, M] along M among the items that stand, [B, N]; zero where none does."""
    if mask is not None:
        affinity = affinity.masked_fill(~mask.unsqueeze(1), -torch.inf)
    best = F.pad(affinity, (0, 1), value=-torch.inf).amax(-1)
    return best.masked_fill(best == -torch.inf, 0.0)


def check_sets(
    layer: Any, x: Any, y: Any, x_mask: Any, y_mask: Any
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Both sets of a call as `check_set` gives them."""
    like = next(layer.parameters())
    x, x_mask = check_set("x", x, x_mask, layer._in_feats[0], like)
    return x, x_mask, *check_set("y", y, y_mask, layer._in_feats[1], like, len(x))
