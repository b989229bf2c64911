"""Attention operators on the same tensors: hgat, DGL's steps, PyG's steps, and the floor.

- hgat: `hgat.ops.additive_attention`, `gatv2_attention`, `dot_product_attention`, on the backend that it picks.
- DGL: the message passing that stands inside dgl.nn.GATConv, GATv2Conv and DotGatConv, call by call.
- PyG: `edge_updater` and `propagate` of PyG's own GATConv, GATv2Conv and TransformerConv, without their projections.
- copy_u_sum: DGL's plain sum over neighbours of the same width. It reads every neighbour's row once and computes no
  weights, so no attention on the CPU should be expected below it. It is timed and not compared.

Inputs are projected already, for all alike: these rows are the operator alone. All share the same input tensors.
"""

import torch
import torch.nn.functional as F

import hgat
import dgl
import dgl.function as fn
from benchmarks import graphs
from benchmarks.memory import Spec
from benchmarks.peers import pyg
from benchmarks.timing import Candidate, Case
from dgl.nn.functional import edge_softmax

__all__ = ["FLOOR", "OPERATORS", "SHAPES", "build", "specs"]

SHAPES = ((4, 32), (8, 8), (1, 64), (4, 64), (3, 250))
OPERATORS = ("gat", "gatv2", "dot")
TITLES = {"gat": "GAT", "gatv2": "GATv2", "dot": "dot-product"}
FLOOR = "copy_u_sum"
SLOPE = 0.2


def _weighted_sum(graph, value, logits):
    graph.srcdata["ft"] = value
    graph.edata["a"] = edge_softmax(graph, logits)
    graph.update_all(fn.u_mul_e("ft", "a", "m"), fn.sum("m", "out"))
    return graph.dstdata["out"]


def dgl_gat(graph, value, score_src, score_dst):
    """The steps of dgl.nn.GATConv behind its projection."""
    with graph.local_scope():
        graph.srcdata["el"] = score_src.unsqueeze(-1)
        graph.dstdata["er"] = score_dst.unsqueeze(-1)
        graph.apply_edges(fn.u_add_v("el", "er", "e"))
        return _weighted_sum(graph, value, F.leaky_relu(graph.edata.pop("e"), SLOPE))


def dgl_gatv2(graph, feat_src, feat_dst, attn):
    """The steps of dgl.nn.GATv2Conv behind its projections."""
    with graph.local_scope():
        graph.srcdata["el"] = feat_src
        graph.dstdata["er"] = feat_dst
        graph.apply_edges(fn.u_add_v("el", "er", "e"))
        hidden = F.leaky_relu(graph.edata.pop("e"), SLOPE)
        return _weighted_sum(graph, feat_src, (hidden * attn).sum(-1).unsqueeze(-1))


def dgl_dot(graph, query, key, value):
    """The steps of dgl.nn.DotGatConv behind its projection, with keys and values told apart."""
    with graph.local_scope():
        graph.srcdata["k"] = key
        graph.dstdata["q"] = query
        graph.apply_edges(fn.u_dot_v("k", "q", "e"))
        return _weighted_sum(graph, value, graph.edata.pop("e") / key.shape[-1] ** 0.5)


def _pyg_call(operator, structure, leaves, heads, width):
    """What PyG's layer runs once its inputs are projected, or None without PyG."""
    if pyg() is None:
        return None
    from torch_geometric import nn

    edges = structure.edge_index
    if operator == "gat":
        layer = graphs.place(nn.GATConv(1, width, heads, negative_slope=SLOPE, add_self_loops=False, bias=False))
        value, *scores = leaves.values()

        def call():
            alpha = layer.edge_updater(edges, alpha=tuple(scores), edge_attr=None, size=None)
            return layer.propagate(edges, x=(value, value), alpha=alpha, size=None)

    elif operator == "gatv2":
        layer = graphs.place(nn.GATv2Conv(1, width, heads, negative_slope=SLOPE, add_self_loops=False, bias=False))
        feat_src, feat_dst, attn = leaves.values()
        del layer.att
        layer.att = attn  # [H, D] broadcasts as the layer's own [1, H, D] does

        def call():
            alpha = layer.edge_updater(edges, x=(feat_src, feat_dst), edge_attr=None)
            return layer.propagate(edges, x=(feat_src, feat_dst), alpha=alpha)

    else:
        layer = nn.TransformerConv(1, width, heads, bias=False, root_weight=False)
        query, key, value = leaves.values()

        def call():
            out = layer.propagate(edges, query=query, key=key, value=value, edge_attr=None)
            layer._alpha = None  # as the layer's own forward does: alpha must not outlive the call
            return out

    return call


def build(operator, heads, width, scale=1.0):
    """The case of one operator and shape on the power-law graph of ogbn-arxiv's size times `scale`."""
    structure = graphs.arxiv(scale)
    return on(structure, operator, heads, width)


def on(structure, operator, heads, width, dtype=torch.float32):
    """The case of one operator, shape and type on any graph."""
    graph = structure.graph
    generator = torch.Generator().manual_seed(heads * 1000 + width)

    def random(*shape):
        return graphs.place(torch.randn(shape, generator=generator).to(dtype).requires_grad_())

    rows = (structure.num_src, heads, width)
    if operator == "gat":
        leaves = {"value": random(*rows), "score_src": random(*rows[:2]), "score_dst": random(structure.num_dst, heads)}
        ours, theirs = hgat.ops.additive_attention, dgl_gat
    elif operator == "gatv2":
        leaves = {"feat_src": random(*rows), "feat_dst": random(structure.num_dst, heads, width)}
        leaves["attn"] = random(heads, width)
        ours, theirs = hgat.ops.gatv2_attention, dgl_gatv2
    else:
        leaves = {"query": random(structure.num_dst, heads, width), "key": random(*rows), "value": random(*rows)}
        ours, theirs = hgat.ops.dot_product_attention, dgl_dot
    summed = leaves["feat_src" if operator == "gatv2" else "value"]
    candidates = [
        Candidate("hgat", lambda: ours(graph, *leaves.values()), leaves),
        Candidate("DGL", lambda: theirs(graph, *leaves.values()), leaves),
    ]
    call = _pyg_call(operator, structure, leaves, heads, width)
    if call is not None:
        candidates.append(Candidate("PyG", call, leaves))
    floor = Candidate(FLOOR, lambda: dgl.ops.copy_u_sum(graph, summed), {"value": summed}, compared=False)
    return Case(f"{TITLES[operator]} {heads} x {width}", [*candidates, floor])


def specs(operators=OPERATORS, shapes=SHAPES, scale=1.0):
    """One spec per operator and shape."""
    for operator in operators:
        for heads, width in shapes:
            options = {"operator": operator, "heads": heads, "width": width, "scale": scale}
            yield Spec("benchmarks.operators:build", options, int(graphs.ARXIV[1] * scale) * heads * width * 4)
