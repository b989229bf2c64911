"""GATv2 as a whole: its equations and settings, and the task that tells it from GAT."""

from itertools import permutations

import dgl
import torch
import torch.nn.functional as F
from systems import CLASSES, IN, accuracy

from hgat import ops
from hgat.models.gat import GAT
from hgat.models.gatv2 import GATv2
from zoo import build

STILL = {"feat_drop": 0.0, "attn_drop": 0.0}


def dictionary_lookup(size=4):
    """(graph, feat, labels, targets): a target holds a key and asks for the value under it in its dictionary.

    All targets of a dictionary see the same (key, value) nodes, and every permutation of values is a
    dictionary: the answer needs a ranking of the neighbours that depends on the target. Paper: Brody et al.
    2022, section 4.1.
    """
    src, dst, feat, label, targets = [], [], [], [], []
    one_hot = torch.eye(size)
    for values in permutations(range(size)):
        first = len(feat)
        for key, value in enumerate(values):
            feat.append(torch.cat([one_hot[key], one_hot[value]]))
        for key in range(size):
            node = len(feat)
            feat.append(torch.cat([one_hot[key], torch.zeros(size)]))
            targets.append(node)
            label.append(values[key])
            src += range(first, first + size)
            dst += [node] * size
    graph = dgl.graph((torch.tensor(src), torch.tensor(dst)), num_nodes=len(feat))
    return dgl.add_self_loop(graph), torch.stack(feat), torch.tensor(label), torch.tensor(targets)


def test_settings_reach_the_layers():
    shared, apart = GATv2(IN, CLASSES), GATv2(IN, CLASSES, share_weights=False, bias=False)
    assert all(layer.fc_src is layer.fc_dst for layer in shared.layers)
    assert all(layer.fc_src is not layer.fc_dst and layer.fc_src.bias is None for layer in apart.layers)
    assert [layer.attn.shape for layer in shared.layers] == [(1, 8, 8), (1, 1, CLASSES)]


def test_heads_stand_side_by_side_and_are_averaged_at_the_end():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GATv2(IN, CLASSES, hidden=3, heads=[4, 6], share_weights=False).eval()
    h = feat
    for k, layer in enumerate(model.layers):
        left, right = (fc(h).view(23, *layer.attn.shape[1:]) for fc in (layer.fc_src, layer.fc_dst))
        z = ops.gatv2_attention(graph, left, right, layer.attn[0])
        h = z.mean(1) if k == 1 else F.elu(z).flatten(1)
    torch.testing.assert_close(model(graph, feat), h, atol=1e-5, rtol=1e-5)


def test_learns_a_ranking_that_depends_on_the_target():
    graph, feat, label, train = dictionary_lookup()
    settings = {"heads": [8], "share_weights": False, **STILL}
    model = GATv2.for_graph(graph, {"_N": feat}, 4, "_N", **settings)
    assert accuracy(model, graph, feat, label, train, epochs=300, lr=0.03) == 1.0
    # A head of GAT ranks the neighbours alike for every target of a dictionary, whatever it learns.
    gat = GAT(8, 4, heads=[1], value_drop=0.0, **STILL)
    assert accuracy(gat, graph, feat, label, train, epochs=100, lr=0.03) < 0.5
