"""GAT as a whole: shapes, permutations, gradients, and a task that only attention can solve."""

import io

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import models, ops
from hgat.errors import HgatError, RecipeError, ShapeError
from hgat.models.gat import GAT
from zoo import build

IN, CLASSES = 7, 5
STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}


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


def _accuracy(model, graph, feat, label, train, epochs=200, lr=0.05):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(model(graph, feat)[train], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(graph, feat)[train].argmax(1) == label).double().mean().item()


@pytest.mark.parametrize(
    "settings", [{}, {"heads": [3]}, {"heads": [3, 2, 2], "residual": True, "hidden": 11}], ids=str
)
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_shape_and_features_as_a_dict(settings, idtype):
    graph, feat = build("homogeneous", idtype), torch.randn(23, IN)
    model = GAT.for_graph(graph, {"_N": feat}, CLASSES, "_N", **settings).eval()
    assert model(graph, feat).shape == (23, CLASSES)
    assert torch.equal(model(graph, {"_N": feat}), model(graph, feat))
    assert models.find("gat") is GAT and GAT.graph_kind == "homogeneous"


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


def test_permuted_nodes_give_permuted_rows():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES).eval()
    order = torch.randperm(23)
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    edges = torch.randperm(graph.num_edges())
    moved = dgl.graph((place[src][edges], place[dst][edges]), num_nodes=23)
    torch.testing.assert_close(model(moved, feat[order]), model(graph, feat)[order], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_finite_gradient():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES, heads=[4, 2], residual=True, feat_drop=0.2, attn_drop=0.2, value_drop=0.2).train()
    out = model(graph, feat)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize("heads", [[8], [4, 8]], ids=str)
def test_learns_what_only_attention_can_see(heads):
    graph, feat, label, train = flagged_neighbour()
    settings = {"heads": heads, **STILL}
    assert _accuracy(GAT.for_graph(graph, {"_N": feat}, CLASSES, "_N", **settings), graph, feat, label, train) == 1.0
    with ops.uniform_attention():
        model = GAT(CLASSES + 1, CLASSES, heads=[1], **STILL)
        assert _accuracy(model, graph, feat, label, train) < 0.5


def test_state_dict_round_trip():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model, other = GAT(IN, CLASSES), GAT(IN, CLASSES)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other.eval()(graph, feat), model.eval()(graph, feat))


@pytest.mark.parametrize("rate", ["feat_drop", "attn_drop", "value_drop"])
def test_dropout_acts_in_training_only(rate):
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES, **{**STILL, rate: 0.5})
    assert not torch.equal(model.train()(graph, feat), model(graph, feat))
    assert torch.equal(model.eval()(graph, feat), model(graph, feat))


@pytest.mark.parametrize("heads", [[], [0], [8, 0], [-1, 1]], ids=str)
def test_wrong_heads_are_one_sentence(heads):
    graph, feat = build("homogeneous"), {"_N": torch.randn(23, IN)}
    with pytest.raises(RecipeError, match="model.heads: expected a number of heads per layer, each 1 or more, got"):
        GAT.for_graph(graph, feat, CLASSES, "_N", heads=heads)


@pytest.mark.parametrize("settings", [
    {"hidden": 0}, {"hidden": -3}, {"feat_drop": 1.5}, {"attn_drop": -0.1}, {"value_drop": 2.0},
], ids=str)  # fmt: skip
def test_settings_out_of_range_are_one_sentence(settings):
    """They come straight from `--set`, whose user is owed a sentence."""
    with pytest.raises(HgatError, match="expected"):
        GAT.for_graph(build("homogeneous"), {"_N": torch.randn(23, IN)}, CLASSES, "_N", **settings)


def test_nodes_without_features_are_refused():
    with pytest.raises(HgatError, match="expected features"):
        GAT.for_graph(build("homogeneous"), {"_N": None}, CLASSES, "_N")


def test_wrong_calls_are_one_sentence():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, \*, F\] = \[23, \*, 7\], got \[23, 6\]"):
        model(graph, feat[:, 1:])
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        model(build("zero_in_degree"), torch.randn(29, IN))
    with pytest.raises(TypeError, match="unknown"):
        GAT.for_graph(graph, {"_N": feat}, CLASSES, "_N", unknown=1)
