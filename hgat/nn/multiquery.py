"""Several queries to one set: one for each class (capsules), or one after the other (hops)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape
from hgat.nn.coattention import Found, attend, attention_settings
from hgat.nn.common import Layer, check_floats, check_set, check_sizes, mean_of_set, reset_children
from hgat.nn.general import GeneralAttention
from hgat.nn.generalconv import GeneralAttentionConv
from hgat.nn.readout import checked_members, mean_of_members

__all__ = ["CapsuleAttention", "CapsulePooling", "MultiHopAttention", "MultiHopPooling"]


class Capsules(NamedTuple):
    """What capsules make of B sets: for each class how likely it is and its row, and the mean that rows are held to.

    probability [B, C]; reconstruction [B, C, F]; mean [B, F].
    """

    probability: Tensor
    reconstruction: Tensor
    mean: Tensor

    def loss(self, target: Tensor, weight: float = 1.0) -> Tensor:
        """What capsules are trained by: the right class likely, and its row, no other's, close to the mean.

            relu(1 + sum_c y_c p_c) + weight * relu(1 + sum_c y_c r_c . f),   y_c = -1 of the right class, 1 of others

        target [B] int64, the class of each set -> the mean over the sets, a number.
        Differs: the survey says what is to be close and what far, by the inner product; the hinge is our choice.
        Raises ShapeError for a target that is not [B] of numbers of classes.
        """
        check_shape("target", target, ("B", len(self.mean)))
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise ShapeError(f"target: expected the number of a class, int64, got {target.dtype}")
        target, classes = target.long(), self.probability.shape[1]
        # On a GPU the numbers are not waited for: PyTorch stops at one out of range there.
        if target.device.type == "cpu" and len(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
            got = f"{int(target.min())} to {int(target.max())}"
            raise ShapeError(f"target: expected classes from 0 to {classes - 1}, got {got}")
        sign = torch.ones_like(self.probability).scatter(1, target.unsqueeze(1), -1.0)
        close = (self.reconstruction * self.mean.unsqueeze(1)).sum(-1)
        of_class, of_row = (torch.relu(1 + (sign * part).sum(1)).mean() for part in (self.probability, close))
        return of_class + weight * of_row


class _Capsules(Layer):
    """A query, a weight and a bias of every class, and what they make of the rows that the queries found."""

    def __init__(self, in_feats: int, num_classes: int) -> None:
        super().__init__()
        self._in_feats, self._num_classes = check_sizes(in_feats=in_feats, num_classes=num_classes)
        self.query = nn.Parameter(torch.empty(num_classes, in_feats))
        self.weight = nn.Parameter(torch.empty(num_classes, in_feats))
        self.bias = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(F), as PyTorch's linear layers; biases of zero."""
        bound = self._in_feats**-0.5
        nn.init.uniform_(self.query, -bound, bound)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def _answer(self, found: Tensor, mean: Tensor) -> Capsules:
        """Probability and row of every class, of the rows c [B, C, F] that its query found."""
        probability = torch.sigmoid((found * self.weight).sum(-1) + self.bias)
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return Capsules(probability.clone(), probability.unsqueeze(-1) * found, mean)


class CapsuleAttention(_Capsules):
    """A query for each class over the items of a set: which of them speak for it, and whether it is there.

        e_cl = q_c . x_l;   alpha_c = softmax over l of e_c;   c_c = sum_l alpha_cl x_l
        p_c = sigmoid(w_c . c_c + b_c);   r_c = p_c c_c

    in_feats: F; num_classes: C. Shapes: x [B, N, F] -> probability p [B, C], reconstruction r [B, C, F] and the mean of
    the items [B, F]. Keys and values are the items. `Capsules.loss` is what to train by.
    Raises ShapeError for sizes that are not positive.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.3.2, eq. 43-45.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None, get_attention: bool = False) -> Any:
        """The capsules of every set.

        x [B, N, F]; mask [B, N] bool, True where an item stands -> Capsules, and with get_attention alpha [B, N, C]. A
        set without items has rows of zeros and p of the bias.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        x, mask = check_set("x", x, mask, self._in_feats, self.query)
        alpha = ops.alignment(x @ self.query.t(), dim=1, mask=None if mask is None else mask.unsqueeze(-1))
        found = self._answer(alpha.transpose(1, 2) @ x, mean_of_set(x, mask))
        return (found, alpha.clone()) if get_attention else found  # a copy: backward reads alpha


class CapsulePooling(_Capsules):
    """A query for each class over the nodes of each graph of a batch: CapsuleAttention with graphs for sets.

    in_feats: F; num_classes: C; the equations, parameters and shapes of CapsuleAttention. feat [N, F] -> probability
    [B, C], reconstruction [B, C, F], mean [B, F].
    Raises ShapeError for sizes that are not positive.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.3.2, eq. 43-45.
    """

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False) -> Any:
        """The capsules of every graph.

        graph: what dgl.batch gives, or one graph, of one node type; feat [N, F] -> Capsules, and with get_attention
        alpha [N, C].
        Raises GraphError for another graph, ShapeError for features that do not fit it or the layer.
        """
        star = checked_members(graph, feat, self.query)
        check_shape("feat", feat, ("N", None), ("F", self._in_feats))
        alpha = ops.edge_softmax(star, feat @ self.query.t())
        found = self._answer(ops.weighted_sum(star, feat.unsqueeze(1), alpha), mean_of_members(star, feat))
        return (found, alpha.clone()) if get_attention else found


class _Hops(Layer):
    """A query that is made anew of what it found, hop after hop, by the same parameters."""

    attend: nn.Module

    def __init__(self, in_feats: int, query_feats: int, num_hops: int, transform: nn.Module | None) -> None:
        super().__init__()
        self._in_feats, self._query_feats, self.num_hops = check_sizes(
            in_feats=in_feats, query_feats=query_feats, num_hops=num_hops
        )
        if transform is not None and not callable(transform):
            raise ShapeError(f"transform: expected a module (context, query) -> query, got {type(transform).__name__}")
        self.transform = nn.GRUCell(in_feats, query_feats) if transform is None else transform

    def reset_parameters(self) -> None:
        """Those of the attention, and of the transform where it has such a method."""
        reset_children(self)

    def _hops(self, query: Tensor | None, context: Tensor, read: Callable[[Tensor], Found], get_attention: bool) -> Any:
        """c of the last hop, and with get_attention weights of all hops along axis 1. context: c of hop 0."""
        if query is None:
            query = context.new_zeros(len(context), self._query_feats)
        check_floats("query", query, context)
        check_shape("query", query, ("B", len(context)), ("Q", self._query_feats))
        weights = []
        for _ in range(self.num_hops):
            query = self.transform(context, query)
            check_shape("transform(context, query)", query, ("B", len(context)), ("Q", self._query_feats))
            context, alpha = read(torch.cat([query, context], 1))
            if alpha is not None:
                weights.append(alpha)
        return (context, torch.stack(weights, 1)) if get_attention else context


class MultiHopAttention(_Hops):
    """Repeated attention over one set: what a hop finds makes the query of the next.

        c^0 = mean of X;   q^(s+1) = transform(c^s, q^s);   c^(s+1) = attend([q^(s+1) || c^s], X);   out = c^S

    in_feats: F; query_feats: Q; num_hops: S. attend is hgat.nn.GeneralAttention, the same in all hops, by default of
    the additive score, whose keywords are further ones here. transform: a module ([B, F], [B, Q]) -> [B, Q], by default
    torch.nn.GRUCell(F, Q). With one hop it is a plain attention whose query is [transform(mean, q) || mean].
    Shapes: query [B, Q], x [B, N, F] -> [B, F].
    Raises ShapeError for sizes that are not positive and a transform that cannot be called.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.3.2, eq. 41-42, which leave transform open.
    """

    def __init__(
        self, in_feats: int, query_feats: int, num_hops: int, transform: nn.Module | None = None, **attention: Any
    ) -> None:
        super().__init__(in_feats, query_feats, num_hops, transform)
        self.attend = GeneralAttention((in_feats, query_feats + in_feats), in_feats, **attention_settings(attention))

    def forward(self, query: Tensor | None, x: Tensor, mask: Tensor | None = None, get_attention: bool = False) -> Any:
        """What the last hop finds in every set.

        query [B, Q], or None for zeros; x [B, N, F]; mask [B, N] bool, True where an item stands -> [B, F], and with
        get_attention alpha [B, S, N], multi-dimensional [B, S, N, F]. A set without items gives zeros.
        Raises ShapeError for tensors that do not fit the layer or one another.
        """
        x, mask = check_set("x", x, mask, self._in_feats, next(self.parameters()))
        read = lambda query: attend(self.attend, query, x, mask, get_attention)  # noqa: E731
        return self._hops(query, mean_of_set(x, mask), read, get_attention)


class MultiHopPooling(_Hops):
    """Repeated queries of every graph to its nodes: MultiHopAttention with graphs for sets.

    The settings, equations and parameters of MultiHopAttention, with hgat.nn.GeneralAttentionConv from the nodes to
    their graph. hgat.nn.Set2Set is a relative: an LSTM makes its query, the score is the inner product with the query
    alone, and its first context is zero.
    Shapes: feat [N, F], query [B, Q] -> [B, F].
    Raises ShapeError for sizes that are not positive, a transform that cannot be called, and a window.
    Paper: Brauwers and Frasincar 2023, arXiv:2203.14263, section 3.3.2, eq. 41-42.
    """

    def __init__(
        self, in_feats: int, query_feats: int, num_hops: int, transform: nn.Module | None = None, **attention: Any
    ) -> None:
        super().__init__(in_feats, query_feats, num_hops, transform)
        settings = attention_settings(attention)
        if settings.get("window") is not None:
            raise ShapeError(f"window: expected none over nodes, which have no places, got {brief(settings['window'])}")
        self._multi_dimensional = bool(settings.get("multi_dimensional"))
        self.attend = GeneralAttentionConv(
            (in_feats, query_feats + in_feats), in_feats, allow_zero_in_degree=True, **settings
        )

    def forward(self, graph: DGLGraph, feat: Tensor, query: Tensor | None = None, get_attention: bool = False) -> Any:
        """What the last hop finds in every graph.

        graph: what dgl.batch gives, or one graph, of one node type; feat [N, F]; query [B, Q], or None for zeros ->
        [B, F], and with get_attention alpha [N, S], multi-dimensional [N, S, F]. A graph without nodes gives zeros.
        Raises GraphError for another graph, ShapeError for tensors that do not fit it or the layer.
        """
        star = checked_members(graph, feat, next(self.parameters()))
        check_shape("feat", feat, ("N", None), ("F", self._in_feats))

        def read(query: Tensor) -> Found:
            found = self.attend(star, (feat, query), get_attention=get_attention)
            if not get_attention:
                return found.squeeze(1), None
            out, alpha = (part.squeeze(1) for part in found)
            return out, alpha if self._multi_dimensional else alpha.squeeze(1)

        return self._hops(query, mean_of_members(star, feat), read, get_attention)
