"""The general attention model over padded sets: any score, any alignment, from four parts that can be named."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, NamedTuple

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape, check_whole, meant
from hgat.nn.common import (
    Layer,
    check_activation,
    check_floats,
    check_number,
    check_rates,
    check_sizes,
    feature_pair,
    glorot_,
    residual_linear,
)
from hgat.ops.hooks import asked, unasked

__all__ = [
    "SCORES",
    "AttentionModel",
    "FeatureModel",
    "GeneralAttention",
    "OutputModel",
    "QueryModel",
    "log_probs",
    "reinforce",
]


class _Score(NamedTuple):
    """equation: e of a query and a key. kind: what it reduces to. weight, bias: whether it has them, None if asked."""

    equation: str
    origin: str
    kind: str
    weight: bool = False
    bias: bool | None = False
    activation: Callable[[Tensor], Tensor] | None = None


_LEAKY = nn.LeakyReLU(0.2)
# The scores by name: equation, origin, the kind of computation, and whether W, b and act are in it.
SCORES = {
    "additive": _Score("w . act(q + k + b)", "Bahdanau 2015, arXiv:1409.0473", "mixed", True, None, torch.tanh),
    "linear": _Score("act(w_q . q + w_k . k + b)", "Velickovic 2018, arXiv:1710.10903", "ends", True, None, _LEAKY),
    "multiplicative": _Score("q . k", "Luong 2015, arXiv:1508.04025", "dot"),
    "scaled": _Score("q . k / sqrt(d_k)", "Vaswani 2017, arXiv:1706.03762", "dot"),
    "general": _Score("k . W q", "Luong 2015, arXiv:1508.04025", "dot", True),
    "biased_general": _Score("k . (W q + b)", "Sordoni 2016, arXiv:1606.02245", "dot", True, True),
    "activated_general": _Score("act(k . W q + b)", "Ma 2017, arXiv:1709.00893", "activated", True, None, torch.tanh),
    "cosine": _Score("q . k / (|q| |k|)", "Graves 2014, arXiv:1410.5401", "dot"),
    "euclidean": _Score("-|q - k|", "Brauwers and Frasincar 2023, arXiv:2203.14263", "distance"),
}
ALIGNMENTS = ("global", "local", "hard", "reinforced")

_found: ContextVar[list[Tensor] | None] = ContextVar("hgat_log_probs", default=None)


@contextmanager
def log_probs() -> Iterator[list[Tensor]]:
    """Inside the block what attention chooses at random in training is written down, for `reinforce`.

    The list gets one tensor for each call of a layer whose alignment is "hard" with the gradient "reinforce", or
    "reinforced": log p of what was chosen, [B, Q, H], on a graph [N_dst, H], or with a further axis D of
    multi-dimensional weights. Zero where there was nothing to choose from.
    """
    found: list[Tensor] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def reinforce(found: Sequence[Tensor], reward: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """The term of a loss whose gradient is REINFORCE's estimate of minus that of the expected reward.

        - mean over the rows of (reward - baseline) * sum of log p

    found: what `log_probs` wrote down. reward: [N_dst] or [B, Q], one for each row of every log p, or a scalar that
    stands for all; no gradient goes to it, nor to the baseline, of the same shape or a number, which lowers the
    estimate's variance and leaves it unbiased where it does not depend on what was chosen. -> a scalar, 0 of nothing.
    Raises ShapeError for a reward whose rows are not those of every log p, and a baseline of another shape.
    Paper: Williams 1992, doi:10.1007/BF00992696, eq. 4.
    """
    if not isinstance(reward, Tensor):
        raise ShapeError(f"reward: expected a tensor, got {type(reward).__name__}")
    if reward.dtype == torch.bool or reward.is_complex():
        raise ShapeError(f"reward: expected numbers, got {reward.dtype}")
    if not isinstance(baseline, Tensor):
        check_number(baseline=baseline)
    elif baseline.dtype == torch.bool or baseline.dim() and baseline.shape != reward.shape:
        got = f"{baseline.dtype} {list(baseline.shape)}"
        raise ShapeError(f"baseline: expected a number, or numbers {list(reward.shape)} as the reward's, got {got}")
    advantage = (reward - baseline).detach()
    loss = advantage.new_zeros(())
    for number, one in enumerate(found):
        rows = one.shape[: reward.dim()]
        if rows != reward.shape:
            got = list(reward.shape)
            raise ShapeError(f"reward: expected a scalar or {list(rows)} as of log p number {number}, got {got}")
        # The axes behind the rewards' are choices that were made together.
        total = one.unsqueeze(-1).flatten(reward.dim()).sum(-1)
        loss = loss - ((total * advantage).mean() if total.numel() else total.sum())
    return loss


def _name(name: str, value: Any, values: Sequence[str]) -> None:
    """Raise ShapeError unless `value` is one of `values`."""
    if not isinstance(value, str) or value not in values:
        expected = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"
        raise ShapeError(f"{name}: expected {expected}, got {brief(value)}{meant(value, values)}")


def check_settings(settings: Iterable[str]) -> None:
    """Raise ShapeError unless all are names of settings of GeneralAttention."""
    known = list(inspect.signature(GeneralModel).parameters)
    for name in settings:
        if name not in known:
            raise ShapeError(f"{name}: expected a setting of GeneralAttention, got another name{meant(name, known)}")


def _per_head(x: Tensor, heads: int) -> Tensor:
    """Rows [*, F] as they are for every head, [*, H, F]."""
    return x.unsqueeze(-2).expand(*x.shape[:-1], heads, x.shape[-1])


def _dense(in_feats: int, heads: int, width: int, bias: bool) -> nn.Linear:
    return nn.Linear(in_feats, heads * width, bias=bias)


class FeatureModel(Layer):
    """Keys and values of the features that are attended to: k_l = W_k x_l, v_l = W_v x_l.

    keys: "linear", or "input" for x itself. values: "linear", "keys" for k, or "input". bias: of the maps.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 2.
    """

    def __init__(
        self,
        in_feats: int,
        value_feats: int,
        num_heads: int,
        key_width: int,
        value_width: int,
        keys: str = "linear",
        values: str = "linear",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.keys, self.values, self._heads = keys, values, num_heads
        self.fc_key = _dense(in_feats, num_heads, key_width, bias) if keys == "linear" else None
        self.fc_value = _dense(value_feats, num_heads, value_width, bias) if values == "linear" else None

    def key(self, x: Tensor) -> Tensor:
        """Keys [*, H, D_k] of x [*, F]."""
        if self.fc_key is None:
            return _per_head(x, self._heads)
        return self.fc_key(x).unflatten(-1, (self._heads, self.fc_key.out_features // self._heads))

    def forward(self, x: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(keys [N, *, H, D_k], values [N, *, H, D_v]) of x [N, *, F]; values [N, *, F_v], or x. Raises nothing."""
        key, values = self.key(x), x if values is None else values
        if self.values == "keys":
            return key, key
        if self.fc_value is None:
            return key, _per_head(values, self._heads)
        return key, self.fc_value(values).unflatten(-1, (self._heads, self.fc_value.out_features // self._heads))


class QueryModel(Layer):
    """The query: W_q of what is given, or one of its own.

    query: "linear"; "keys", the keys' own map; "input", what is given as it stands; "trained", a parameter q in the
    place of anything given (self-attentive); "none", no query, q = 0.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, sections 2 and 3.3.1.
    """

    trained: nn.Parameter

    def __init__(self, in_feats: int, num_heads: int, width: int, query: str = "linear", bias: bool = False) -> None:
        super().__init__()
        self.query, self._heads, self._width = query, num_heads, width
        self.fc_query = _dense(in_feats, num_heads, width, bias) if query == "linear" else None
        self.register_parameter("trained", nn.Parameter(torch.empty(num_heads, width)) if query == "trained" else None)

    @property
    def given(self) -> bool:
        """Whether a query is to be given."""
        return self.query not in ("trained", "none")

    def forward(self, query: Tensor | None, rows: Sequence[int], features: FeatureModel, like: Tensor) -> Tensor:
        """Queries [N, *, H, D_q] of `query` [N, *, F]. rows: the axes before H; like: keys. Raises nothing."""
        shape = (self._heads, self._width)
        if self.query == "trained":
            return self.trained.expand(*rows, *shape)
        if query is None or self.query == "none":
            return like.new_zeros(1).expand(*rows, *shape)
        if self.query == "keys":
            return features.key(query)
        return _per_head(query, self._heads) if self.fc_query is None else self.fc_query(query).unflatten(-1, shape)


class OutputModel(Layer):
    """What is made of the context c: act(W_o [c^1 || ... || c^H] + residual + bias), each part if it is asked for.

    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, sections 2 and 3.3.2, without the task's own classifier.
    """

    res_fc: nn.Module | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_heads: int,
        width: int,
        query_feats: int,
        output_feats: int | None = None,
        residual: bool = False,
        bias: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._shape = (num_heads, width) if output_feats is None else (output_feats,)
        size = num_heads * width if output_feats is None else output_feats
        self.fc_out = None if output_feats is None else nn.Linear(num_heads * width, output_feats, bias=bias)
        self.register_module("res_fc", residual_linear(query_feats, size, bias) if residual else None)
        # A linear map brings its own bias; a second one would be redundant.
        own = bias and self.fc_out is None and not isinstance(self.res_fc, nn.Linear)
        self.register_parameter("bias", nn.Parameter(torch.empty(size)) if own else None)
        self.activation = activation

    def forward(self, context: Tensor, query: Tensor | None = None) -> Tensor:
        """[N, *, H, D] of contexts [N, *, H, D], or [N, *, F_o]. query [N, *, F], for the residual. Raises nothing."""
        out = context if self.fc_out is None else self.fc_out(context.flatten(-2))
        if self.res_fc is not None:
            out = out + self.res_fc(query).unflatten(-1, self._shape)
        if self.bias is not None:
            out = out + self.bias.view(self._shape)
        return out if self.activation is None else self.activation(out)


class AttentionModel(Layer):
    """Scores of keys by a query, and their alignment; both for padded sets and for the in-edges of a graph.

    The settings are those of GeneralAttention, which checks them. Layouts: queries [B, Q, H, D_q] and keys
    [B, N, H, D_k] give logits and weights [B, Q, N, H]; on a graph [N_dst, H, D_q] and [N_src, H, D_k] give [E, H];
    with value_width, the number of weights of a multi-dimensional score, a last axis D_v.
    """

    # None where the score or the alignment has none; those without it here are asked for only where they are there.
    attn: nn.Parameter
    centre_weight: nn.Parameter
    centre_attn: nn.Parameter
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    policy_bias: nn.Parameter | None

    def __init__(
        self,
        key_width: int,
        query_width: int,
        num_heads: int,
        score: str = "scaled",
        *,
        has_query: bool = True,
        score_activation: Callable[[Tensor], Tensor] | None = None,
        score_bias: bool = True,
        value_width: int | None = None,
        alignment: str = "global",
        top_k: int | None = None,
        window: float | None = None,
        centre: str = "monotonic",
        span: float | None = None,
        gaussian: bool = True,
        gradient: str = "straight_through",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.score, self.alignment, self.top_k, self.window = score, alignment, top_k, window
        self.centre, self.span, self.gaussian = centre, span, gaussian
        self.gradient, self.temperature = gradient, temperature
        form = SCORES[score]
        self.kind, self.multi_dimensional = form.kind, value_width is not None
        self.activation = deepcopy(form.activation) if score_activation is None else score_activation
        keys, queries = (num_heads, key_width), (num_heads, query_width)
        mixed, ends = form.kind == "mixed", form.kind == "ends"
        sizes: dict[str, Sequence[int] | None] = {
            "attn": (*keys, *(() if value_width is None else (value_width,))) if mixed else None,
            "attn_key": keys if ends else None,
            "attn_query": queries if ends and has_query else None,
            "weight": (*keys, query_width) if form.weight and not (mixed or ends) else None,
            "bias": (keys if mixed or score == "biased_general" else (num_heads,)) if score_bias else None,
            "centre_weight": (*queries, query_width) if centre == "predictive" else None,
            "centre_attn": queries if centre == "predictive" else None,
            "policy_key": keys if alignment == "reinforced" else None,
            "policy_query": queries if alignment == "reinforced" and has_query else None,
            "policy_bias": (num_heads,) if alignment == "reinforced" else None,
        }
        for name, size in sizes.items():
            self.register_parameter(name, None if size is None else nn.Parameter(torch.empty(*size)))

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                glorot_(parameter.unsqueeze(0))  # as DGL's vectors [1, H, D]
            else:
                glorot_(*parameter)

    @property
    def fused(self) -> bool:
        """Whether attention is one of queries and keys by their product, whose weights nobody needs to see."""
        return self.kind == "dot" and self.top_k is None and self.alignment in ("global", "local")

    def ends(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float]:
        """(q', k', scale) whose scaled product is the score, or what the score is made of."""
        if self.weight is not None:
            query = torch.einsum("...hq,hkq->...hk", query, self.weight)
            if self.bias is not None and self.score == "biased_general":
                query = query + self.bias
        if self.score == "cosine":
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        return query, key, key.shape[-1] ** -0.5 if self.score == "scaled" else 1.0

    def shifted(self, query: Tensor) -> Tensor:
        """Queries with the bias of the additive score, [*, H, D]."""
        return query if self.bias is None else query + self.bias

    def end_scores(self, query: Tensor, key: Tensor, policy: bool = False) -> tuple[Tensor, Tensor]:
        """(w_q . q + b [*, H], w_k . k [*, H]) of the linear score, or of the policy."""
        prefix, bias = ("policy", self.policy_bias) if policy else ("attn", self.bias)
        at_key = (key * getattr(self, f"{prefix}_key")).sum(-1)
        own = getattr(self, f"{prefix}_query")
        at_query = query.new_zeros(query.shape[:-1]) if own is None else (query * own).sum(-1)
        return at_query if bias is None else at_query + bias, at_key

    def scores(self, query: Tensor, key: Tensor, graph: dgl.DGLGraph | None = None) -> Tensor:
        """The score of every query and key, or of every edge of a graph."""
        if self.kind == "mixed":
            both = _sums(self.shifted(query), key, graph)
            both = both if self.activation is None else self.activation(both)
            if self.multi_dimensional:
                return torch.einsum("...hd,hdv->...hv", both, self.attn)
            return (both * self.attn).sum(-1)
        if self.kind == "ends":
            logits = _sums(*self.end_scores(query, key), graph)
            return logits if self.activation is None else self.activation(logits)
        query, key, scale = self.ends(query, key)
        if self.kind == "distance":
            return -_distance(query, key, graph)
        if graph is not None:
            logits = ops.dot_product_logits(graph, query, key, scale=scale)
        else:
            logits = torch.einsum("bqhd,bnhd->bqnh", query, key) * scale
        if self.kind == "activated":
            logits = logits if self.bias is None else logits + self.bias
            logits = logits if self.activation is None else self.activation(logits)
        return logits

    def near(
        self, query: Tensor, position: Tensor, mask: Tensor | None, graph: dgl.DGLGraph | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """(the Gaussian's logarithm, which entries are in the window), [B, Q, N, 1 or H], or [E, 1 or H].

        position: where entries stand, of as many axes; mask: which of them are there, None for all.
        """
        assert self.window is not None
        distance = position
        if self.centre == "predictive":
            hidden = torch.einsum("...hq,hdq->...hd", query, self.centre_weight)
            share = torch.sigmoid((torch.tanh(hidden) * self.centre_attn).sum(-1))
            if self.span is not None:
                centre = share * self.span
            else:
                there = torch.ones_like(position, dtype=torch.bool) if mask is None else mask
                centre = share * _total(there.to(share), graph)
            distance = position - (centre.unsqueeze(2) if graph is None else ops.copy_v(graph, centre))
        inside = ~(distance.detach().abs() > self.window)  # NaN is inside, and seen
        sigma = self.window / 2
        return -(distance**2) / (2 * sigma**2) if self.gaussian else None, inside if mask is None else inside & mask

    def kept(self, query: Tensor, key: Tensor, mask: Tensor | None, graph: dgl.DGLGraph | None = None) -> Tensor:
        """What the policy keeps: in training a draw, whose log p is written down, otherwise what is as likely as not.

        [B, Q, N, H] or [E, H] bool. mask: which entries are there, None for all.
        """
        logits = _sums(*self.end_scores(query, key, policy=True), graph)
        # A probability of 1/2 or more is a logit of 0 or more. Written so that NaN is kept, and seen.
        chance = torch.sigmoid(logits.detach())
        keep = ~(torch.rand_like(logits) >= chance if self.training else logits.detach() < 0)
        _write_down(lambda: F.logsigmoid(torch.where(keep, logits, -logits)), mask, graph, self.training)
        return keep if mask is None else keep & mask

    def entries(
        self,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None = None,
        position: Tensor | None = None,
        graph: dgl.DGLGraph | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(logits, which entries take part or None for all), after a window, the best k, or a policy has chosen."""
        logits, bias = self.scores(query, key, graph), None
        if self.window is not None:
            assert position is not None
            bias, mask = self.near(query, position, mask, graph)
        if self.alignment == "reinforced":
            mask = self.kept(query, key, mask, graph)
        if self.multi_dimensional:
            bias, mask = (None if one is None else one.unsqueeze(-1) for one in (bias, mask))
        logits = logits if bias is None else logits + bias
        mask = None if mask is None else mask.expand_as(logits)
        if self.top_k is not None:
            mask = _best(logits if mask is None else logits.masked_fill(~mask, -torch.inf), self.top_k, graph)
        return logits, mask

    def align(self, logits: Tensor, mask: Tensor | None, graph: dgl.DGLGraph | None = None) -> Tensor:
        """Weights of what `entries` gave, of the same shape: a softmax, or one entry that is chosen."""
        dim = 2 if graph is None else None
        if self.alignment != "hard":
            return ops.alignment(logits, graph=graph, dim=dim, mask=mask)
        if self.temperature not in (0, 1):
            logits = logits / self.temperature
        with unasked():
            soft = ops.alignment(logits, graph=graph, dim=dim, mask=mask)
        # A hook is shown the choice, not the softmax behind it, which no value is weighed by.
        weights = self._chosen(soft, graph)
        if graph is None:
            return asked(weights, "axis", "softmax", dim=dim)
        return asked(weights.flatten(1), "edges", "softmax", graph=graph).reshape(weights.shape)

    def _chosen(self, soft: Tensor, graph: dgl.DGLGraph | None) -> Tensor:
        """One of the entries of every query, by their weights: 1 for it, 0 for the others."""
        # The largest of logits with Gumbel noise is a draw from their softmax.
        chances = soft.detach().log()
        if self.training and self.temperature > 0:
            chances = chances - torch.empty_like(chances).exponential_().log()
        chosen = _best(chances, 1, graph)
        if self.temperature > 0 and self.gradient == "straight_through":
            return chosen.to(soft) + (soft - soft.detach())
        if self.temperature > 0:
            tiny = torch.finfo(soft.dtype).tiny
            _write_down(lambda: soft.masked_fill(~chosen, 1.0).clamp(min=tiny).log(), None, graph, self.training)
        return chosen.to(soft)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None = None,
        position: Tensor | None = None,
        graph: dgl.DGLGraph | None = None,
    ) -> Tensor:
        """The weights of every query's keys, or of the edges of a graph.

        query [B, Q, H, D_q], key [B, N, H, D_k], mask bool and position, both of a shape that broadcasts to
        [B, Q, N, H] -> [B, Q, N, H]; on a graph [N_dst, H, D_q], [N_src, H, D_k] and [E, 1] or [E, H] -> [E, H]; with a
        last axis D_v where the score has one. Raises ShapeError as hgat.ops does.
        """
        return self.align(*self.entries(query, key, mask, position, graph), graph)


def _sums(query: Tensor, key: Tensor, graph: dgl.DGLGraph | None) -> Tensor:
    """query + key for every query and key, [B, Q, N, *] of [B, Q, *] and [B, N, *], or for every edge, [E, *]."""
    if graph is None:
        return query.unsqueeze(2) + key.unsqueeze(1)
    return ops.additive_logits(graph, key.flatten(1), query.flatten(1)).unflatten(1, key.shape[1:])


def _distance(query: Tensor, key: Tensor, graph: dgl.DGLGraph | None) -> Tensor:
    """|q - k|, [B, Q, N, H] or [E, H], with a gradient of zero where it is zero."""
    if graph is None:
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(query.transpose(1, 2), key.transpose(1, 2), compute_mode=mode).permute(0, 2, 3, 1)
    # Far from zero the squares would eat the digits of the difference, to which a common centre does not matter.
    there = key.detach()
    centre = there.masked_fill(~there.isfinite(), 0.0).mean(0).nan_to_num()  # of no key at all it is zero
    query, key = query - centre, key - centre
    # No edge carries both vectors: |q|^2 + |k|^2 - 2 q . k, which rounding may make less than zero.
    norms = ops.additive_logits(graph, key.square().sum(-1), query.square().sum(-1))
    square = ops.dot_product_logits(graph, query, key, norms.to(key), scale=-2.0)
    apart = square > 0
    return square.masked_fill(~apart, 1.0).sqrt().masked_fill(~apart, 0.0)


def _total(x: Tensor, graph: dgl.DGLGraph | None) -> Tensor:
    """Sums over the entries of every query: [B, Q, *] of [B, Q, N, *], or [N_dst, *] of [E, *]."""
    if graph is None:
        return x.sum(2)
    ones = x.new_ones(graph.num_src_nodes(), 1, 1)
    return ops.weighted_sum(graph, ones, x.flatten(1)).flatten(1).unflatten(1, x.shape[1:])


def _best(logits: Tensor, k: int, graph: dgl.DGLGraph | None) -> Tensor:
    """True for the k largest logits of every query."""
    return ops.top_k_mask(logits, k, graph=graph, dim=2 if graph is None else None)


def _write_down(
    log_prob: Callable[[], Tensor], mask: Tensor | None, graph: dgl.DGLGraph | None, training: bool
) -> None:
    """Hand log p of the entries, summed for every query, to an open `log_probs`; what mask leaves out counts 0."""
    found = _found.get()
    if found is not None and training:
        each = log_prob()
        found.append(_total(each if mask is None else each.masked_fill(~mask, 0.0), graph))


class GeneralModel(Layer):
    """The four parts and the checks of their settings, for sets and for graphs."""

    def __init__(
        self,
        in_feats: int | Sequence[int],
        out_feats: int,
        num_heads: int = 1,
        *,
        value_feats: int | None = None,
        keys: str = "linear",
        values: str = "linear",
        query: str = "linear",
        key_feats: int | None = None,
        map_bias: bool = False,
        score: str = "scaled",
        score_activation: Callable[[Tensor], Tensor] | None = None,
        score_bias: bool | None = None,
        multi_dimensional: bool = False,
        alignment: str = "global",
        top_k: int | None = None,
        window: float | None = None,
        centre: str | None = None,
        span: float | None = None,
        gaussian: bool | None = None,
        gradient: str | None = None,
        temperature: float | None = None,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        output_feats: int | None = None,
        residual: bool = False,
        bias: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._key_feats, self._query_feats = feature_pair(in_feats)
        out_feats, num_heads = check_sizes(out_feats=out_feats, num_heads=num_heads)
        check_whole(1, value_feats=value_feats, key_feats=key_feats, output_feats=output_feats)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_activation(activation)
        if score_activation is not None and not callable(score_activation):
            raise ShapeError(f"score_activation: expected a function or None, got {brief(score_activation)}")
        _name("keys", keys, ("linear", "input"))
        _name("values", values, ("linear", "keys", "input"))
        _name("query", query, ("linear", "keys", "input", "trained", "none"))
        _name("score", score, tuple(SCORES))
        _name("alignment", alignment, ALIGNMENTS)
        form = SCORES[score]
        self._value_feats = self._key_feats if value_feats is None else value_feats
        key_width = self._key_feats if keys == "input" else (out_feats if key_feats is None else key_feats)
        query_width = self._query_feats if query == "input" else key_width
        self._check_widths(out_feats, key_width, query_width, keys, values, query, score)
        if form.activation is None and score_activation is not None:
            raise ShapeError(f"score_activation: expected None of the score {score!r}, {form.equation}, got one")
        if score_bias is not None and form.bias is not None and score_bias != form.bias:
            what = "with" if form.bias else "without"
            raise ShapeError(f"score_bias: expected a score with or without one, got {score!r}, always {what} b")
        if multi_dimensional and score != "additive":
            raise ShapeError(f"multi_dimensional: expected the score 'additive', got {score!r}")
        if residual and query in ("trained", "none"):
            raise ShapeError(f"residual: expected a query that is given, got query {query!r}")
        settings = _alignment(
            alignment, top_k=top_k, window=window, centre=centre, span=span, gaussian=gaussian,
            gradient=gradient, temperature=temperature,
        )  # fmt: skip
        if settings.get("centre") == "predictive" and query == "none":
            raise ShapeError("centre: expected 'monotonic' without a query, got 'predictive'")
        self._num_heads, self._out_feats = num_heads, out_feats
        self.feature_model = FeatureModel(
            self._key_feats, self._value_feats, num_heads, key_width, out_feats, keys, values, map_bias
        )
        self.query_model = QueryModel(self._query_feats, num_heads, query_width, query, map_bias)
        self.attention_model = AttentionModel(
            key_width, query_width, num_heads, score, has_query=query != "none", score_activation=score_activation,
            score_bias=form.bias is not False if score_bias is None else score_bias,
            value_width=out_feats if multi_dimensional else None, alignment=alignment, **settings,
        )  # fmt: skip
        self.output_model = OutputModel(
            num_heads, out_feats, self._query_feats, output_feats, residual, bias, activation
        )
        self.feat_drop, self.attn_drop = nn.Dropout(feat_drop), nn.Dropout(attn_drop)
        self.reset_parameters()

    def _check_widths(self, out_feats, key_width, query_width, keys, values, query, score):
        """Raise ShapeError unless what is used as it stands, or twice, is as wide as its use."""
        if values != "linear":
            width = key_width if values == "keys" else self._value_feats
            if out_feats != width:
                raise ShapeError(f"out_feats: expected {width}, the width of values {values!r}, got {out_feats}")
        if values == "keys" and self._value_feats != self._key_feats:
            raise ShapeError(f"value_feats: expected none with values 'keys', got {self._value_feats}")
        if query == "keys" and self._query_feats != self._key_feats:
            widths = f"{self._key_feats} and {self._query_feats}"
            raise ShapeError(f"in_feats: expected one width for both ends with query 'keys', got {widths}")
        if SCORES[score].kind in ("mixed", "dot", "distance") and not score.endswith("general"):
            if query_width != key_width:
                got = f"{query_width} and {key_width}"
                raise ShapeError(f"score: expected one width of queries and keys with {score!r}, got {got}")
        if query == "none" and SCORES[score].kind not in ("mixed", "ends"):
            raise ShapeError(f"query: expected the score 'additive' or 'linear' without a query, got {score!r}")

    def reset_parameters(self) -> None:
        """Glorot-normal weights with the gain of ReLU, zero biases."""
        self.attention_model.reset_parameters()
        if self.query_model.query == "trained":
            glorot_(self.query_model.trained.unsqueeze(0))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                glorot_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.output_model.bias is not None:
            nn.init.zeros_(self.output_model.bias)

    def _like(self) -> Tensor | None:
        """A parameter whose type and device the inputs share, None of a layer without any."""
        return next(self.parameters(), None)

    def _rate(self) -> float:
        """The rate at which weights are dropped now."""
        return self.attn_drop.p if self.attn_drop.training else 0.0


def _alignment(alignment: str, **given: Any) -> dict[str, Any]:
    """The settings of an alignment with their defaults. Raises ShapeError for those of another one."""
    own: tuple[str, ...] = {"hard": ("gradient", "temperature"), "local": ("top_k", "window")}.get(alignment, ())
    if alignment == "local" and given["window"] is not None:
        own += ("centre", "span", "gaussian")
    for name, value in given.items():
        if value is not None and name not in own:
            where = "a window" if name in ("centre", "span", "gaussian") else "its alignment"
            raise ShapeError(f"{name}: expected none without {where}, got {brief(value)} with {alignment!r}")
    if alignment == "local" and (given["top_k"] is None) == (given["window"] is None):
        got = "neither" if given["top_k"] is None else "both"
        raise ShapeError(f"alignment: expected top_k or window with 'local', got {got}")
    check_whole(1, top_k=given["top_k"])
    defaults = {"centre": "monotonic", "gaussian": True, "gradient": "straight_through", "temperature": 1.0}
    found = given | {name: value for name, value in defaults.items() if given[name] is None}
    _name("centre", found["centre"], ("monotonic", "predictive"))
    _name("gradient", found["gradient"], ("straight_through", "reinforce"))
    for name in ("window", "span", "temperature"):
        if found[name] is not None:
            check_number(**{name: found[name]})
            if found[name] < 0 or found[name] == 0 and name != "temperature":
                least = "0 or more" if name == "temperature" else "a number above 0"
                raise ShapeError(f"{name}: expected {least}, got {found[name]}")
    if found["centre"] == "predictive" and not found["gaussian"]:
        raise ShapeError("gaussian: expected True with a predictive centre, which learns by it, got False")
    return found


class GeneralAttention(GeneralModel):
    """The general attention model over padded sets: queries that look at the items of a set.

        k_l = W_k x_l;   v_l = W_v x_l                               feature model: keys, values
        q = W_q y                                                    query model: query
        e_l = score(q, k_l);   a_l = align(e_l; e)                   attention model
        c = sum_l drop(a_l) v_l;   out = act(W_o [c^1 || ... || c^H] + residual + bias)      output model

    Queries y [B, Q, F_q] and items x [B, N, F_k] give [B, Q, H * D]. in_feats: F of items and queries, or (F_keys,
    F_query); value_feats: F of values that are given apart. out_feats: D of a head's values; key_feats: d_k, of its
    keys and queries, D by default.

    keys: "linear", or "input", the items as they are. values: "linear", "keys" or "input". query: "linear"; "keys", the
    keys' map; "input"; "trained", a parameter (self-attentive); "none", no query at all: w . act(k + b).
    map_bias: biases of the maps. What is used as it stands is the same for every head.

    score: one of hgat.nn.general.SCORES,

        additive            w . act(q + k + b)           multi-dimensional: W_d^T act(q + k + b)
        linear              act(w_q . q + w_k . k + b)
        multiplicative      q . k                        general             k . W q
        scaled              q . k / sqrt(d_k)            biased_general      k . (W q + b)
        cosine              q . k / (|q| |k|)            activated_general   act(k . W q + b)
        euclidean           -|q - k|

    where W_1 and W_2 of the additive score are the maps of queries and keys. score_activation: act, tanh by default, of
    "linear" LeakyReLU(0.2); score_bias=False: no b, where the score can do without. multi_dimensional: a softmax for
    every one of the D values.

    alignment: "global", a softmax over all items; "local", over some: those of the top_k best scores, or those in a
    window, |l - p| <= D, times the Gaussian exp(-(l - p)^2 / (2 (D/2)^2)) unless gaussian is False, where the centre p
    is "monotonic", the query's own place, or "predictive", p = S sigmoid(w_p . tanh(W_p q)), with S the span, by
    default the number of items; "hard", one item, drawn from softmax(e / temperature) in training and the likeliest in
    evaluation, whose gradient is "straight_through", that of the softmax, or "reinforce", by `log_probs` and
    `reinforce`, and which at temperature 0 is always the best and has no gradient; "reinforced", a softmax over what a
    policy keeps, sigmoid(u_q . q + u_k . k + b), drawn for each item in training, whatever is likely in evaluation,
    which learns by `reinforce` alone.

    feat_drop, attn_drop: dropout of the inputs, and of the weights. output_feats: the width of W_o, which joins the
    heads; residual, bias and activation: as in hgat.nn.GATConv, of the query and behind the sum. The same settings and
    the same parameters, on a graph: hgat.nn.GeneralAttentionConv. Inside hgat.ops.uniform_attention() all items that
    take part weigh alike, and a hard choice, which is then of any, is in evaluation the first.

    Raises ShapeError for settings out of range, of another alignment or score, and for widths that do not fit.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, sections 2 and 3.2; the scores' and alignments' origins are in
    SCORES, and Luong et al. 2015, arXiv:1508.04025, eq. 9-10 (local), Xu et al. 2015, arXiv:1502.03044 (hard), Shen et
    al. 2018, arXiv:1801.10296 (reinforced). Differs: the Gaussian stands inside the softmax, so that the weights sum to
    one; W_1 and W_2 are maps of the other parts.
    """

    def forward(
        self,
        query: Tensor | None,
        keys: Tensor,
        values: Tensor | None = None,
        mask: Tensor | None = None,
        get_attention: bool = False,
        *,
        position: Tensor | None = None,
    ) -> Any:
        """What every query finds in its set.

        query [B, Q, F_q], or [B, F_q] for one, or None where the layer has its own; keys [B, N, F_k]; values
        [B, N, F_v], by default the keys' items; mask [B, N] or [B, Q, N] bool, True where an item stands; position:
        where items stand, for a window, [N], [B, N] or [B, Q, N]: seen from the query with a monotonic centre, by
        default l - i for item l of query i, otherwise on the scale of the span, by default l -> out [B, Q, H * D], or
        [B, Q, F_o] with output_feats, and with get_attention the weights before dropout, [B, Q, N], [B, Q, N, H] of
        several heads, with a last axis D if multi-dimensional. For one query, or none, out and weights have no axis Q.
        A query without items, or with none in its window, finds zeros; what stands where mask is False is not used.

        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        one, query, keys, values, mask, position = self._check(query, keys, values, mask, position)
        if query is not None:
            query = self.feat_drop(query)
        if mask is not None:
            stands = mask.squeeze(-1).any(1).unsqueeze(-1)
            keys, values = keys.masked_fill(~stands, 0.0), None if values is None else values.masked_fill(~stands, 0.0)
        keys = self.feat_drop(keys)
        key, value = self.feature_model(keys, values)
        rows = (len(keys), 1 if query is None else query.shape[1])
        at = self.query_model(query, rows, self.feature_model, key)
        attention = self.attention_model
        weights = None
        if attention.fused and not get_attention:
            context = self._fused(at, key, value, mask, position)
        else:
            weights = attention(at, key, mask, position)
            drop = F.dropout(weights, self._rate()) if self._rate() > 0 else weights
            if weights.dim() == 4:
                context = torch.einsum("bqnh,bnhd->bqhd", drop, value)
            else:
                context = torch.einsum("bqnhd,bnhd->bqhd", drop, value)
        out = self.output_model(context, query).flatten(2)
        out = out.squeeze(1) if one else out
        if not get_attention:
            return out
        assert weights is not None
        weights = weights.squeeze(3) if self._num_heads == 1 else weights
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return out, (weights.squeeze(1) if one else weights).clone()

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, position: Tensor | None) -> Tensor:
        """The context [B, Q, H, D] by PyTorch's own attention, which has no weights to show."""
        bias = None
        if position is not None:
            bias, mask = self.attention_model.near(query, position, mask)
        query, key, scale = self.attention_model.ends(query, key)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        some = None
        if mask is not None:
            mask = mask.permute(0, 3, 1, 2)
            some = mask.any(-1, keepdim=True)
            mask = mask | ~some  # a softmax over nothing has no value; its row is cleared below
        if bias is not None:
            assert mask is not None
            mask = bias.permute(0, 3, 1, 2).to(query).masked_fill(~mask, -torch.inf)
        if mask is not None:
            mask = mask.expand(-1, -1, query.shape[2], -1)
        context = ops.scaled_dot_product_attention(query, key, value, mask, self._rate(), scale=scale)
        return (context if some is None else context.masked_fill(~some, 0.0)).transpose(1, 2)

    def _check(self, query, keys, values, mask, position):
        """(whether there is one query, query [B, Q, F] or None, keys, values, mask and position [*, *, N, 1])."""
        like = self._like()
        check_floats("keys", keys, like)
        check_shape("keys", keys, ("B", None), ("N", None), ("F", self._key_feats))
        sets, items, _ = keys.shape
        if self.query_model.given == (query is None):
            expected = "a tensor [B, Q, F]" if query is None else f"None of query {self.query_model.query!r}"
            raise ShapeError(f"query: expected {expected}, got {'None' if query is None else 'one'}")
        one = query is None or isinstance(query, Tensor) and query.dim() == 2
        if query is not None:
            check_floats("query", query, keys if like is None else like)
            check_shape("query", query, ("B", sets), *(() if one else (("Q", None),)), ("F", self._query_feats))
            query = query.unsqueeze(1) if one else query
        queries = 1 if query is None else query.shape[1]
        if values is None:
            if self._value_feats != self._key_feats:
                raise ShapeError(f"values: expected [B, N, F] with F = {self._value_feats}, got None")
        elif self.feature_model.values == "keys":
            raise ShapeError("values: expected None of a layer whose values are its keys, got some")
        else:
            check_floats("values", values, keys if like is None else like)
            check_shape("values", values, ("B", sets), ("N", items), ("F", self._value_feats))
        full = (sets, queries, items)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.device != keys.device:
                got = f"{mask.dtype} on {mask.device}" if isinstance(mask, Tensor) else type(mask).__name__
                raise ShapeError(f"mask: expected torch.bool on {keys.device}, True where an item stands, got {got}")
            if tuple(mask.shape) not in ((sets, items), full):
                raise ShapeError(
                    f"mask: expected [B, N] = {[sets, items]} or [B, Q, N] = {list(full)}, got {list(mask.shape)}"
                )
            mask = (mask if mask.dim() == 3 else mask.unsqueeze(1)).unsqueeze(-1)
        window = self.attention_model.window
        if window is None and position is not None:
            raise ShapeError("position: expected None of a layer without a window, got one")
        if window is not None:
            if position is None:
                position = torch.arange(items, device=keys.device)
                if self.attention_model.centre == "monotonic":
                    position = position - torch.arange(queries, device=keys.device).unsqueeze(1)
            elif not isinstance(position, Tensor) or tuple(position.shape) not in ((items,), (sets, items), full):
                got = list(position.shape) if isinstance(position, Tensor) else type(position).__name__
                raise ShapeError(f"position: expected [N], [B, N] or [B, Q, N] with {list(full)}, got {got}")
            elif position.dim() == 2:
                position = position.unsqueeze(1)
            position = position.to(keys).expand(full).unsqueeze(-1)
        return one, query, keys, values, mask, position
