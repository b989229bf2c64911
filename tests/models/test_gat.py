"""GAT as a whole: its equations, and a task that only attention can solve."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from systems import CLASSES, IN, accuracy

from hgat import ops
from hgat.models.gat import GAT
from zoo import build

STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}
EFFORT = {"epochs": 200, "lr": 0.05}


def flagged_neighbour():
    """(graph, feat, labels, targets): a target's label is the class of its one flagged neighbour.

    Every target has one neighbour of each class, and no features of its own: the mean of its neighbours is
    the same for all targets, so that the answer is visible to attention alone.
    """
    targets = 23
    label = torch.arange(targets) % CLASSES
    feat = torch.zeros(targets * (1 + CLASSES), CLASSES + 1)
    source = targets + torch.arange(targets * CLASSES)
    feat[source, torch.arange(CLASSES).repeat(targets)] = 1.0
    feat[targets + torch.arange(targets) * CLASSES + label, CLASSES] = 1.0
    graph = dgl.graph((source, torch.arange(targets).repeat_interleave(CLASSES)), num_nodes=len(feat))
    return dgl.add_self_loop(graph), feat, label, torch.arange(targets)


def test_heads_stand_side_by_side_and_are_averaged_at_the_end():
    """The stack once more, layer by layer as section 3.3 of the paper says."""
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES, hidden=3, heads=[4, 2, 6]).eval()
    h = feat
    for k, layer in enumerate(model.layers):
        assert layer.attn_l.shape == ((1, 4, 3), (1, 2, 3), (1, 6, CLASSES))[k]
        z = (h @ layer.fc.weight.T).view(23, *layer.attn_l.shape[1:])
        alpha = ops.additive_weights(graph, (z * layer.attn_l).sum(-1), (z * layer.attn_r).sum(-1))
        z = ops.weighted_sum(graph, z, alpha) + layer.bias.view(layer.attn_l.shape)
        h = z.mean(1) if k == 2 else F.elu(z).flatten(1)
    torch.testing.assert_close(model(graph, feat), h, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [[8], [4, 8]], ids=str)
def test_learns_what_only_attention_can_see(heads):
    graph, feat, label, train = flagged_neighbour()
    settings = {"heads": heads, **STILL}
    model = GAT.for_graph(graph, {"_N": feat}, CLASSES, "_N", **settings)
    assert accuracy(model, graph, feat, label, train, **EFFORT) == 1.0
    with ops.uniform_attention():
        model = GAT(CLASSES + 1, CLASSES, heads=[1], **STILL)
        assert accuracy(model, graph, feat, label, train, **EFFORT) < 0.5
