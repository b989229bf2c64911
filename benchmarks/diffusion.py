"""Attention that is spread over K hops: MAGNAConv beside one layer of GAT and beside the same steps in DGL.

On the power-law graph of ogbn-arxiv's size, K from 1 to 12. "DGL" has hgat's parameters, its scores by apply_edges,
DGL's edge_softmax, and K times update_all. "GAT" is hgat's GATConv of the same shape: it computes something else and is
timed alone, and its line "GAT/hgat" is the part of MAGNA's time that one layer of GAT takes: K = 6 is to take at most
6.5 times as long, which is 0.15. The memory of forward does not grow with K, that of forward and backward by rows of
nodes.
"""

import torch
import torch.nn.functional as F

import hgat
import dgl.function as fn
from benchmarks import graphs
from benchmarks.memory import Spec
from benchmarks.timing import Candidate, Case
from dgl.nn.functional import edge_softmax

__all__ = ["magna", "specs"]

HOPS = (1, 2, 6, 12)


def _by_dgl(layer, graph, feat):
    value = layer.fc(feat).unflatten(-1, layer.attn_l.shape[1:])
    near = torch.tanh(value)
    with graph.local_scope():
        graph.ndata["l"], graph.ndata["r"] = (
            (near * end).sum(-1, keepdim=True) for end in (layer.attn_l, layer.attn_r)
        )
        graph.apply_edges(fn.u_add_v("l", "r", "e"))
        graph.edata["a"] = edge_softmax(graph, F.leaky_relu(graph.edata.pop("e"), 0.2))
        z = value
        for _ in range(layer.hops):
            graph.ndata["z"] = z
            graph.update_all(fn.u_mul_e("z", "a", "m"), fn.sum("m", "z"))
            z = (1 - layer.alpha) * graph.ndata.pop("z") + layer.alpha * value
        return z


def magna(hops, heads=4, width=32, in_feats=128, scale=1.0):
    """The case of K = hops."""
    structure = graphs.arxiv(scale)
    graph = structure.graph
    feat = torch.randn((structure.num_src, in_feats), generator=torch.Generator().manual_seed(1))
    feat = graphs.place(feat.requires_grad_())
    torch.manual_seed(0)
    layer = graphs.place(hgat.nn.MAGNAConv(in_feats, width, heads, hops=hops))
    one = graphs.place(hgat.nn.GATConv(in_feats, width, heads, bias=False))
    leaves = {"feat": feat, **dict(layer.named_parameters())}
    return Case(
        f"MAGNAConv {heads} x {width}, K = {hops}",
        [
            Candidate("hgat", lambda: layer(graph, feat), leaves),
            Candidate("DGL", lambda: _by_dgl(layer, graph, feat), leaves),
            Candidate("GAT", lambda: one(graph, feat), {"feat": feat, **dict(one.named_parameters())}, compared=False),
        ],
    )


def specs(scale=1.0, root=None):
    """Every K."""
    for hops in HOPS:
        yield Spec("benchmarks.diffusion:magna", {"hops": hops, "scale": scale}, int(graphs.ARXIV[1] * scale) * 128 * 4)
