"""Attention as operators on DGLGraphs: contract, checks, and the choice of backend."""

from hgat.ops.additive import (
    additive_attention,
    additive_logits,
    additive_weights,
    gat_attention,
    gated_attention,
    gated_weights,
)
from hgat.ops.alignment import alignment, edge_softmax, scaled_dot_product_attention, uniform_attention
from hgat.ops.chunks import in_chunks
from hgat.ops.dispatch import backends, use_backend
from hgat.ops.dot import dot_product_attention, dot_product_logits, dot_product_weights
from hgat.ops.dropout import attention_dropout
from hgat.ops.gatv2 import gatv2_attention, gatv2_weights
from hgat.ops.hooks import AttentionCall, attention_hook
from hgat.ops.propagation import hop_features, propagate
from hgat.ops.segment import copy_u, copy_v, edge_weighted_sum, weighted_sum
from hgat.ops.typed import typed_projection

__all__ = [
    "AttentionCall",
    "additive_attention",
    "additive_logits",
    "additive_weights",
    "alignment",
    "attention_dropout",
    "attention_hook",
    "backends",
    "copy_u",
    "copy_v",
    "dot_product_attention",
    "dot_product_logits",
    "dot_product_weights",
    "edge_softmax",
    "edge_weighted_sum",
    "hop_features",
    "gat_attention",
    "gated_attention",
    "gated_weights",
    "in_chunks",
    "gatv2_attention",
    "gatv2_weights",
    "propagate",
    "scaled_dot_product_attention",
    "typed_projection",
    "uniform_attention",
    "use_backend",
    "weighted_sum",
]
