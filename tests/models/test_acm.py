"""ACM as a layer and a whole model: its equations, its channels, and tasks that one of them alone solves."""

import dgl
import pytest
import torch
from systems import IN, accuracy

from hgat import ops
from hgat.errors import HgatError, RecipeError, ShapeError
from hgat.explain import shares
from hgat.models import ACM, Facts
from hgat.nn import ACMConv
from zoo import build

CLASSES, OUT = 3, 5


def mean_matrix(graph):
    """P [N_dst, N_src], duplicates counted."""
    src, dst = graph.edges()
    a = torch.zeros(graph.num_dst_nodes(), graph.num_src_nodes())
    a = a.index_put((dst, src), torch.ones(len(src)), accumulate=True)
    return a, a / a.sum(1, keepdim=True).clamp_min(1)


def restated(layer, graph, h, even=False):
    """One layer's equations on dense matrices."""
    a, p = mean_matrix(graph)
    high = torch.eye(*p.shape) - p
    y = [h @ w.T for w in layer.fc.weight.split(layer._out_feats)]
    filters = {"low": p, "high": high, "identity": torch.eye(*p.shape)}
    if layer.form == "acm":
        rows = [torch.relu(filters[c] @ one) for c, one in zip(layer.channels, y, strict=True)]
    else:
        rows = [filters[c] @ torch.relu(one) for c, one in zip(layer.channels, y, strict=True)]
    if layer.structure is not None:
        rows.append(torch.relu((a * (1 - torch.eye(*a.shape))) @ layer.structure))
    scored = rows
    if layer.norms is not None:
        scored = [torch.nn.functional.layer_norm(r, r.shape[1:], n.weight, n.bias)
                  for r, n in zip(rows, layer.norms, strict=True)]  # fmt: skip
    s = torch.cat([torch.sigmoid(r @ one.weight.T) for r, one in zip(scored, layer.fuse.project, strict=True)], 1)
    e = (s / len(rows) @ layer.fuse.mix).exp()
    alpha = torch.full_like(e, 1 / len(rows)) if even else e / e.sum(1, keepdim=True)
    return layer.scale * sum(alpha[:, k : k + 1] * r for k, r in enumerate(rows)), alpha


SETTINGS = [
    {},
    {"form": "acmii", "scale_by_channels": True},
    {"channels": ("identity", "low"), "scale_by_channels": True},
    {"channels": ("high",), "score_norm": True},
    {"channels": ("identity",)},
    {"form": "acmii", "score_norm": True, "num_nodes": "all", "scale_by_channels": True},
]


@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "zero_in_degree", "empty"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_layer_is_its_equations(name, settings):
    graph = build(name)
    settings = {k: graph.num_nodes() if v == "all" else v for k, v in settings.items()}
    layer, x = ACMConv(IN, OUT, **settings), torch.randn(graph.num_nodes(), IN, requires_grad=True)
    (out, alpha), (want, weights) = layer(graph, x, get_attention=True), restated(layer, graph, x)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha, weights, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(want), [x, *layer.parameters()]
    grads = (torch.autograd.grad(z, leaves, cotangent, allow_unused=True) for z in (out, want))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with ops.uniform_attention():
        torch.testing.assert_close(layer(graph, x), restated(layer, graph, x, even=True)[0], atol=1e-5, rtol=1e-5)


def test_high_pass_is_what_low_pass_leaves_and_costs_no_second_sum(monkeypatch):
    graph, x, calls = build("homogeneous"), torch.randn(23, IN), []
    layer = ACMConv(IN, OUT, form="acmii")
    weight = layer.fc.weight.detach().view(3, OUT, IN)
    weight[1] = weight[0]  # the same W for both, so that the channels can be compared
    once = ops.weighted_sum
    monkeypatch.setattr(ops, "weighted_sum", lambda *arguments: calls.append(1) or once(*arguments))
    low, high, _ = layer.views(graph, x)
    torch.testing.assert_close(low + high, torch.relu(x @ weight[0].T))
    assert len(calls) == 1


def test_parameters_are_as_many_as_the_paper_counts():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(ACMConv(IN, OUT)) == 3 * IN * OUT + 3 * OUT + 9
    assert count(ACMConv(IN, OUT, num_nodes=23)) == 3 * IN * OUT + 4 * OUT + 16 + 23 * OUT
    assert count(ACMConv(IN, OUT, score_norm=True)) == 3 * IN * OUT + 3 * OUT + 9 + 6 * OUT
    assert count(ACM(IN, CLASSES, hidden=11)) == 3 * IN * 11 + 33 + 9 + 3 * 11 * CLASSES + 3 * CLASSES + 9


def test_the_factor_of_the_code_is_the_number_of_channels_without_a_structure():
    scales = [ACMConv(IN, OUT, scale_by_channels=on, **o).scale
              for on in (True, False) for o in ({}, {"channels": ("low",)}, {"num_nodes": 23})]  # fmt: skip
    assert scales == [3, 1, 1, 1, 1, 1]
    assert ACMConv(IN, OUT, channels=("low", "high"), scale_by_channels=True).scale == 2


def test_the_model_is_its_layers():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    options = {"form": "acmii", "structure": True, "residual": True, "score_norm": True}
    model = ACM(IN, CLASSES, 23, hidden=OUT, **options).eval()
    first, second = model.layers
    h = torch.relu(restated(first, graph, x)[0]) + torch.relu(x @ model.skip.weight.T + model.skip.bias)
    torch.testing.assert_close(model(graph, x), restated(second, graph, h)[0], atol=1e-5, rtol=1e-5)
    (share, _) = shares(model, graph, {"_N": x})
    assert share.names == ("low", "high", "identity", "structure") and sum(share.attention) == pytest.approx(1)


@pytest.mark.parametrize("settings", [{}, {"structure": True, "residual": True, "score_norm": True}], ids=str)
def test_blocks_with_all_neighbours_are_the_whole_graph(settings):
    graph = ACM.prepare(Facts(build("homogeneous"), {}))[0]
    feat = {"_N": torch.randn(23, IN)}
    model = ACM(IN, CLASSES, 23, **settings).eval()
    ids = torch.tensor([3, 5, 7, 11, 17])
    (blocks, part), _ = model.sampled((graph, feat), ids, [-1, -1])
    torch.testing.assert_close(model(blocks, part), model(graph, feat)[ids], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.whole((graph, feat), 7), model(graph, feat), atol=1e-5, rtol=1e-5)


def test_a_pair_of_ends_and_half_types():
    layer, block = ACMConv(IN, OUT), build("block")
    feat = torch.randn(block.num_src_nodes(), IN)
    out = layer(block, feat)
    torch.testing.assert_close(out, layer(block, (feat, feat[: block.num_dst_nodes()])))
    half = layer.bfloat16()(block, feat.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, atol=0.1, rtol=0.1)


def test_high_pass_learns_what_the_mean_cannot():
    """Half of the nodes differ from their neighbours in one feature, whose values say nothing by themselves."""
    torch.manual_seed(0)
    nodes, degree = 120, 4
    label, base = torch.arange(nodes) % 2, torch.randn(nodes // 2) * 3
    pair = torch.arange(nodes) // 2
    feat = (base[pair] + label).unsqueeze(1).repeat(1, 2)
    near = torch.cat([feat, base[pair].unsqueeze(1).repeat(1, 2).repeat_interleave(degree, 0)])
    src = torch.cat([nodes + torch.arange(nodes * degree), torch.arange(nodes)])
    dst = torch.cat([torch.arange(nodes).repeat_interleave(degree), torch.arange(nodes)])
    graph = dgl.graph((src, dst), num_nodes=len(near))
    found = {}
    for channels in (("low", "high", "identity"), ("low",)):
        torch.manual_seed(1)
        model = ACM(2, 2, layers=2, hidden=16, channels=channels, feat_drop=0.0)
        found[channels] = accuracy(model, graph, near, label, slice(nodes), epochs=200, lr=0.02)
    assert found["low", "high", "identity"] > 0.97 and found["low",] < 0.75, found


def test_the_structure_is_simple_and_goes_both_ways():
    graph = dgl.graph(([0, 0, 1, 2, 2], [1, 1, 0, 1, 2]), num_nodes=4)
    given, _ = ACM.prepare(Facts(graph, {"_N": torch.randn(4, IN)}, target="_N"))
    pairs = sorted(zip(*(ends.tolist() for ends in given.edges()), strict=True))
    assert pairs == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]
    low, high, _ = ACMConv(IN, OUT, form="acmii").views(given, torch.randn(4, IN))
    assert (high[3] == 0).all()  # a node alone with itself differs from nobody


def test_wrong_calls_are_one_sentence():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    for options, sentence in (
        ({"form": "acmiii"}, "form: expected 'acm' or 'acmii', got 'acmiii'"),
        ({"channels": ()}, r"channels: expected some of low, high, identity, each once, got \(\)"),
        ({"channels": ("low", "low")}, "channels: expected some of"),
        ({"channels": ["mid"]}, "channels: expected some of"),
    ):
        with pytest.raises(ShapeError, match=sentence):
            ACMConv(IN, OUT, **options)
    with pytest.raises(ShapeError, match="edge_weight: expected"):
        ACMConv(IN, OUT)(graph, x, torch.ones(3))
    with pytest.raises(ShapeError, match="structure: expected"):
        ACMConv(IN, OUT, num_nodes=22)(graph, x)
    with pytest.raises(RecipeError, match="model.structure: expected num_nodes"):
        ACM(IN, CLASSES, structure=True)
    with pytest.raises(RecipeError, match="model.residual: expected 2 layers or more"):
        ACM(IN, CLASSES, layers=1, residual=True)
    bare = dgl.graph(([], []), num_nodes=3)
    with pytest.raises(HgatError, match="graph: expected at least one edge, got none"):
        ACM.prepare(Facts(bare, {}))
