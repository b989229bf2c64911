"""torch.func's transforms over layers: a batch of inputs at once, and gradients, as one by one."""

import pytest
import torch
from catalogue import EDGE, HEADS, IN, LAYERS, ON_ONE_GRAPH, OUT, inputs, stack_of_snapshots
from torch.func import grad, vmap

from hgat import graph as hgraph
from hgat import nn as hnn
from zoo import build, typed_graph


def _calls():
    """{name: (a function of features that a layer gives, the features)}, with every graph built."""
    calls, graph = {}, build("homogeneous")
    for name in ON_ONE_GRAPH:
        layer, (feat, *rest) = LAYERS[name].build(), inputs(graph, name)
        calls[name] = (lambda x, f=layer, r=rest: f(graph, x, *r)), feat
    plain = hnn.GATConv(IN, OUT, HEADS, residual=True, use_symmetric_norm=True, edge_feats=EDGE)
    edge, mask = torch.randn(graph.num_edges(), EDGE), torch.rand(graph.num_edges()) < 0.7
    calls["GATConv, keywords"] = (lambda x: plain(graph, x, edge_feat=edge, edge_mask=mask)), torch.randn(23, IN)
    typed = typed_graph()
    rest = torch.randn(13, IN)
    for name, form in {"RGATConv": {}, "RGATConv, within": {"softmax": "within", "activation": torch.tanh}}.items():
        layer = hnn.RGATConv(IN, OUT, HEADS, typed.canonical_etypes, **form)
        calls[name] = (lambda x, f=layer: f(typed, {"film": x, "user": rest})["film"]), torch.randn(11, IN)
    views = hgraph.metapaths(typed, {"a": ["follows"], "b": ["liked by", "likes"]})
    han = hnn.HANConv(IN, OUT, HEADS, ("b", "a"))
    calls["HANConv"] = (lambda x: han(views, x)), torch.randn(11, IN)
    snapshots, snap = stack_of_snapshots(), hnn.SnapshotGATConv(IN, OUT, HEADS)
    calls["SnapshotGATConv"] = (lambda x: snap(snapshots, x)), torch.randn(6, IN)
    return calls


NAMES = [*ON_ONE_GRAPH, "GATConv, keywords", "RGATConv", "RGATConv, within", "HANConv", "SnapshotGATConv"]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NAMES)
def test_vmap_and_grad(name):
    call, feat = _calls()[name]

    def loss(x):
        out = call(x)
        return sum(part.square().sum() for part in (out if isinstance(out, tuple) else (out,)))

    batch = torch.stack([feat, feat * 0.5, feat + 0.1])
    want = torch.stack([loss(one) for one in batch])
    torch.testing.assert_close(vmap(loss)(batch), want, atol=1e-3, rtol=1e-4)
    leaf = feat.clone().requires_grad_()
    torch.testing.assert_close(grad(loss)(feat), torch.autograd.grad(loss(leaf), leaf)[0], atol=1e-3, rtol=1e-4)
