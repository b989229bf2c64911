"""Attention seen and changed from outside: a hook that is called with the weights of every call.

Fused operators make no weights. Inside `attention_hook` they run as two others of the same backend, the weights and
their sum, so that the hook sees what every layer computes, also one that has never heard of it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

from dgl import DGLGraph
from torch import Tensor

from hgat.errors import ShapeError
from hgat.ops.contexts import Setting
from hgat.ops.plain import gat_attention, gated_weights, masked, scaled_sum

__all__ = ["AttentionCall", "Hooked", "asked", "attention_hook", "is_hooked", "unasked"]


@dataclass(frozen=True)
class AttentionCall:
    """One call of an attention operator, as `attention_hook` shows it.

    kind: "edges", weights of the edges of a graph; "axis", of the entries of a tensor; "pairs", of the two sequences of
    `hgat.ops.scaled_dot_product_attention`. graph: the one that the operator ran over, None unless kind is "edges"; for
    layers over several relations that which joins them. dim: the axis of a softmax along one, else None. form: one of
    "softmax", "sigmoid", "tanh", "none". weights, before dropout and edge weights: [E, H] in the order of the graph's
    edges, or of any shape, or [*, L, S]. number: of the call inside the block, from 0.
    """

    kind: Literal["edges", "axis", "pairs"]
    graph: DGLGraph | None
    dim: int | None
    form: str
    weights: Tensor
    number: int


Hook = Callable[[AttentionCall], Tensor | None]


@dataclass(eq=False)
class _Block:
    """A hook, the number of its next call, and the block around its own.

    A copy counts for itself, so that a forward that runs again counts its calls as it did the first time.
    """

    hook: Hook
    outer: "_Block | None"
    number: int = 0

    def __copy__(self) -> "_Block":
        return _Block(self.hook, copy(self.outer), self.number)

    def ask(self, weights: Tensor, **call: Any) -> Tensor:
        """The weights that the block around it, and then this hook, put in the place of `weights`."""
        if self.outer is not None:
            weights = self.outer.ask(weights, **call)
        number, self.number = self.number, self.number + 1
        given = self.hook(AttentionCall(weights=weights, number=number, **call))
        if given is None:
            return weights
        if not isinstance(given, Tensor) or not given.is_floating_point() or given.shape != weights.shape:
            got = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise ShapeError(
                f"attention_hook: expected None or floating-point weights {list(weights.shape)} for call {number}, "
                f"got {got}"
            )
        if given.device != weights.device:
            raise ShapeError(
                f"attention_hook: expected weights on {weights.device} for call {number}, got {given.device}"
            )
        return given.to(weights.dtype)


_block = Setting("hgat_attention_hook", None)


@contextmanager
def attention_hook(hook: Hook) -> Iterator[None]:
    """Inside the block `hook` is called with the weights of every attention operator, and may put others there.

        hook(call: AttentionCall) -> weights to use instead, [E, H] as call.weights are, or None to leave them

    Dropout, edge weights and the sum follow behind it, and gradients flow through what it gives. It is called once per
    call of an operator, in their order; a layer that is asked for its attention calls twice, for the result and for the
    weights. Where activation checkpointing runs a forward again, in backward, it is called again with the same numbers.
    Operators that the hook itself calls are not shown to it. Inside `uniform_attention()` it is shown uniform weights.
    Blocks nest: the outer hook is asked first, and the inner one sees what that gave; each counts for itself.
    The weights of `propagate` and `weighted_sum` are given, not attended, and are not shown.
    Raises ShapeError for a hook that cannot be called and, in the call, for weights that do not fit.
    """
    if not callable(hook):
        raise ShapeError(f"attention_hook: expected a function of an AttentionCall, got {type(hook).__name__}")
    with _block.to(_Block(hook, _block.get())):
        yield


def is_hooked() -> bool:
    """True inside `attention_hook`."""
    return _block.get() is not None


def unasked() -> AbstractContextManager[None]:
    """Inside the block no hook is called: what it computes are not yet the weights that are used."""
    return _block.to(None) if is_hooked() else nullcontext()


def asked(weights: Tensor, kind: str, form: str, *, graph: DGLGraph | None = None, dim: int | None = None) -> Tensor:
    """The weights that the hook gives for these inside `attention_hook`, else they themselves."""
    block = _block.get()
    if block is None:
        return weights
    with unasked():
        return block.ask(weights, kind=kind, graph=graph, dim=dim, form=form)


class Hooked:
    """The attention operators as their weights, what the hook makes of them, and their sum.

    serve: (operator, *tensors) -> the function of a backend that runs it on them, as `hgat.ops.dispatch` chooses.
    """

    def __init__(self, serve: Callable[..., Callable[..., Tensor]]) -> None:
        self._serve = serve

    def _softmax(self, operator: str, graph: DGLGraph, tensors: tuple, *others: Any) -> Tensor:
        return asked(self._serve(operator, *tensors)(graph, *tensors, *others), "edges", "softmax", graph=graph)

    def edge_softmax(self, graph: DGLGraph, logits: Tensor) -> Tensor:
        return self._softmax("edge_softmax", graph, (logits,))

    def additive_weights(
        self,
        graph: DGLGraph,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        scores = score_src, score_dst, score_edge
        return self._softmax("additive_weights", graph, scores, edge_mask, negative_slope)

    def gatv2_weights(
        self,
        graph: DGLGraph,
        feat_src: Tensor,
        feat_dst: Tensor,
        attn: Tensor,
        feat_edge: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
    ) -> Tensor:
        feats = feat_src, feat_dst, attn, feat_edge
        return self._softmax("gatv2_weights", graph, feats, edge_mask, negative_slope)

    def dot_product_weights(
        self, graph: DGLGraph, query: Tensor, key: Tensor, bias: Tensor | None, edge_mask: Tensor | None, scale: float
    ) -> Tensor:
        return self._softmax("dot_product_weights", graph, (query, key, bias), edge_mask, scale)

    def weighted_sum(self, graph: DGLGraph, value: Tensor, weight: Tensor) -> Tensor:
        return self._serve("weighted_sum", value, weight)(graph, value, weight)

    gat_attention = gat_attention

    def additive_attention(
        self,
        graph: DGLGraph,
        value: Tensor,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        alpha = self.additive_weights(graph, score_src, score_dst, score_edge, edge_mask, negative_slope)
        return scaled_sum(self, graph, value, alpha, edge_weight, dropout, seed)

    def gatv2_attention(
        self,
        graph: DGLGraph,
        feat_src: Tensor,
        feat_dst: Tensor,
        attn: Tensor,
        feat_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        negative_slope: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        alpha = self.gatv2_weights(graph, feat_src, feat_dst, attn, feat_edge, edge_mask, negative_slope)
        return scaled_sum(self, graph, feat_src, alpha, edge_weight, dropout, seed)

    def dot_product_attention(
        self,
        graph: DGLGraph,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        scale: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        alpha = self.dot_product_weights(graph, query, key, bias, edge_mask, scale)
        return scaled_sum(self, graph, value, alpha, edge_weight, dropout, seed)

    def gated_attention(
        self,
        graph: DGLGraph,
        value: Tensor,
        score_src: Tensor,
        score_dst: Tensor,
        score_edge: Tensor | None,
        edge_weight: Tensor | None,
        edge_mask: Tensor | None,
        form: str,
        dropout: float,
        seed: int,
    ) -> Tensor:
        scores = score_src, score_dst, score_edge
        logits = self._serve("additive_logits", *scores)(graph, *scores)
        alpha = asked(gated_weights(masked(logits, edge_mask), form), "edges", form, graph=graph)
        return scaled_sum(self, graph, value, alpha, edge_weight, dropout, seed)
