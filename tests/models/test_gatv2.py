"""GATv2 as a whole: shapes, permutations, gradients, and the task that tells it from GAT."""

import io
from itertools import permutations

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import models, ops
from hgat.errors import HgatError, RecipeError, ShapeError
from hgat.models.gat import GAT
from hgat.models.gatv2 import GATv2
from zoo import build

IN, CLASSES = 7, 5
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


def _accuracy(model, graph, feat, label, train, epochs=300, lr=0.03):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(model(graph, feat)[train], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(graph, feat)[train].argmax(1) == label).double().mean().item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": [3], "share_weights": False},
        {"heads": [3, 2, 2], "residual": True, "hidden": 11, "bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_shape_and_features_as_a_dict(settings, idtype):
    graph, feat = build("homogeneous", idtype), torch.randn(23, IN)
    model = GATv2.for_graph(graph, {"_N": feat}, CLASSES, "_N", **settings).eval()
    assert model(graph, feat).shape == (23, CLASSES)
    assert torch.equal(model(graph, {"_N": feat}), model(graph, feat))
    assert models.find("gatv2") is GATv2 and GATv2.graph_kind == "homogeneous"


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


def test_permuted_nodes_give_permuted_rows():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GATv2(IN, CLASSES).eval()
    order = torch.randperm(23)
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    edges = torch.randperm(graph.num_edges())
    moved = dgl.graph((place[src][edges], place[dst][edges]), num_nodes=23)
    torch.testing.assert_close(model(moved, feat[order]), model(graph, feat)[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share_weights", [True, False])
def test_every_parameter_gets_a_finite_gradient(share_weights):
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    options = {"residual": True, "feat_drop": 0.2, "attn_drop": 0.2, "share_weights": share_weights}
    model = GATv2(IN, CLASSES, heads=[4, 2], **options).train()
    out = model(graph, feat)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        # A bias of the destination alone shifts the logits inside the leaky ReLU: no gradient of it cancels.
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


def test_learns_a_ranking_that_depends_on_the_target():
    graph, feat, label, train = dictionary_lookup()
    settings = {"heads": [8], "share_weights": False, **STILL}
    model = GATv2.for_graph(graph, {"_N": feat}, 4, "_N", **settings)
    assert _accuracy(model, graph, feat, label, train) == 1.0
    # A head of GAT ranks the neighbours alike for every target of a dictionary, whatever it learns.
    gat = GAT(8, 4, heads=[1], value_drop=0.0, **STILL)
    assert _accuracy(gat, graph, feat, label, train, epochs=100) < 0.5


def test_state_dict_round_trip():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    for share_weights in (True, False):
        model, other = (GATv2(IN, CLASSES, share_weights=share_weights) for _ in range(2))
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer))
        assert torch.equal(other.eval()(graph, feat), model.eval()(graph, feat))


@pytest.mark.parametrize("rate", ["feat_drop", "attn_drop"])
def test_dropout_acts_in_training_only(rate):
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GATv2(IN, CLASSES, **{**STILL, rate: 0.5})
    assert not torch.equal(model.train()(graph, feat), model(graph, feat))
    assert torch.equal(model.eval()(graph, feat), model(graph, feat))


@pytest.mark.parametrize("heads", [[], [0], [8, 0], [-1, 1]], ids=str)
def test_wrong_heads_are_one_sentence(heads):
    graph, feat = build("homogeneous"), {"_N": torch.randn(23, IN)}
    with pytest.raises(RecipeError, match="model.heads: expected a number of heads per layer, each 1 or more, got"):
        GATv2.for_graph(graph, feat, CLASSES, "_N", heads=heads)


def test_nodes_without_features_are_refused():
    with pytest.raises(HgatError, match="expected features"):
        GATv2.for_graph(build("homogeneous"), {"_N": None}, CLASSES, "_N")


def test_wrong_calls_are_one_sentence():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GATv2(IN, CLASSES)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, \*, F\] = \[23, \*, 7\], got \[23, 6\]"):
        model(graph, feat[:, 1:])
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        model(build("zero_in_degree"), torch.randn(29, IN))
    with pytest.raises(TypeError, match="value_drop"):
        GATv2.for_graph(graph, {"_N": feat}, CLASSES, "_N", value_drop=0.5)
