"""Random arguments of every operator, and the oracle: loops over edges, written from the equations without hgat."""

import math

import torch

HEADS, WIDTH, VALUE_WIDTH = 3, 5, 2


def _leaky(x, slope):
    return torch.where(x > 0, x, slope * x)


def oracle_softmax(graph, logits):
    """Softmax over the in-edges of each node, one node and one head at a time."""
    _, dst = graph.edges(order="eid")
    alpha = torch.zeros_like(logits)
    for node in dst.unique():
        here = (dst == node).nonzero().flatten()
        for head in range(logits.shape[1]):
            power = (logits[here, head] - logits[here, head].max()).exp()
            alpha[here, head] = power / power.sum()
    return alpha


def oracle_sum(graph, value, weight):
    """Adds the edges up one by one."""
    src, dst = graph.edges(order="eid")
    rows = [torch.zeros(weight.shape[1], value.shape[-1], dtype=value.dtype) for _ in range(graph.num_dst_nodes())]
    for edge in range(graph.num_edges()):
        rows[int(dst[edge])] = rows[int(dst[edge])] + weight[edge, :, None] * value[int(src[edge])]
    return torch.stack(rows) if rows else value.new_zeros(0, weight.shape[1], value.shape[-1])


def additive(graph, dtype, edge_terms):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    arguments = {
        "value": draw(graph.num_src_nodes(), HEADS, WIDTH),
        "score_src": draw(graph.num_src_nodes(), HEADS),
        "score_dst": draw(graph.num_dst_nodes(), HEADS),
    }
    if edge_terms:
        arguments["score_edge"] = draw(graph.num_edges(), HEADS)
    return arguments


def additive_logits(graph, value, score_src, score_dst, score_edge=None):
    src, dst = (x.long() for x in graph.edges(order="eid"))
    logits = score_src[src] + score_dst[dst]
    return _leaky(logits if score_edge is None else logits + score_edge, 0.2), value


def gated_logits(graph, value, score_src, score_dst, score_edge=None):
    src, dst = (x.long() for x in graph.edges(order="eid"))
    logits = score_src[src] + score_dst[dst]
    return logits if score_edge is None else logits + score_edge, value


def gatv2(graph, dtype, edge_terms):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    arguments = {
        "feat_src": draw(graph.num_src_nodes(), HEADS, WIDTH),
        "feat_dst": draw(graph.num_dst_nodes(), HEADS, WIDTH),
        "attn": draw(HEADS, WIDTH),
    }
    if edge_terms:
        arguments["feat_edge"] = draw(graph.num_edges(), HEADS, WIDTH)
    return arguments


def gatv2_logits(graph, feat_src, feat_dst, attn, feat_edge=None):
    src, dst = (x.long() for x in graph.edges(order="eid"))
    hidden = feat_src[src] + feat_dst[dst]
    hidden = hidden if feat_edge is None else hidden + feat_edge
    return torch.einsum("ehd,hd->eh", _leaky(hidden, 0.2), attn), feat_src


def dot_product(graph, dtype, edge_terms):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    arguments = {
        "query": draw(graph.num_dst_nodes(), HEADS, WIDTH),
        "key": draw(graph.num_src_nodes(), HEADS, WIDTH),
        "value": draw(graph.num_src_nodes(), HEADS, VALUE_WIDTH),
    }
    if edge_terms:
        arguments["bias"] = draw(graph.num_edges(), HEADS)
    return arguments


def dot_product_logits(graph, query, key, value, bias=None):
    src, dst = (x.long() for x in graph.edges(order="eid"))
    logits = torch.einsum("ehd,ehd->eh", query[dst], key[src]) / math.sqrt(WIDTH)
    return logits if bias is None else logits + bias, value


# operator -> (draws its arguments, gives its logits and value)
OPERATORS = {
    "additive": (additive, additive_logits),
    "gated": (additive, gated_logits),
    "gatv2": (gatv2, gatv2_logits),
    "dot_product": (dot_product, dot_product_logits),
}


# What an operator's weights do not read.
UNUSED = {"additive": "value", "gated": "value", "dot_product": "value"}


def oracle_weights(operator, graph, logits):
    """Of `OPERATORS`: a softmax, or a gate for every edge alone."""
    return torch.tanh(logits) if operator == "gated" else oracle_softmax(graph, logits)


def padding_is_not_read(layer, tensors, padding):
    """Whatever stands in the slots without an event: the same output, attention and gradients, bit for bit."""
    *tensors, mask, edge_feat = tensors
    results = []
    for content in (0.0, padding):
        feat, neighbour_feat, elapsed = (x.clone() for x in tensors)
        neighbour_feat[~mask], elapsed[~mask] = content, content
        if edge_feat is not None:
            edge_feat[~mask] = content
        neighbour_feat.requires_grad_()
        layer.zero_grad()
        out, alpha = layer(feat, neighbour_feat, elapsed, mask, edge_feat, get_attention=True)
        out.backward(torch.arange(out.numel()).view_as(out) / out.numel())
        results.append([out, alpha, neighbour_feat.grad, *(p.grad.clone() for p in layer.parameters())])
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected) and torch.isfinite(got).all()
