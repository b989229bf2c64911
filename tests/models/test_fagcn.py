"""FAGCN as a whole: its equations, and a task that only weights with signs can solve."""

import dgl
import pytest
import torch
from systems import IN, accuracy

from hgat import ops
from hgat.errors import RecipeError, ShapeError
from hgat.explain import shares
from hgat.models import FAGCN, Facts
from hgat.nn.fagcn import FAConv
from zoo import build

CLASSES = 3
STILL = {"feat_drop": 0.0, "attn_drop": 0.0}


def restated(model, graph, x, signed=True, even=False):
    """The model's equations on a dense adjacency, [N, N] with the destination first."""
    src, dst = graph.edges()
    a = torch.zeros(len(x), len(x)).index_put((dst, src), torch.ones(len(src)), accumulate=True)
    w = a / (a.sum(1, keepdim=True) * a.sum(0)).clamp_min(1).sqrt()
    h0 = h = torch.relu(x @ model.fc_in.weight.T + model.fc_in.bias)
    for layer in model.layers:
        pairs = torch.cat(torch.broadcast_tensors(h[:, None], h[None]), -1)  # [N, N, 2F]: destination, source
        score = pairs @ layer.gate.weight[0] + (0 if layer.gate.bias is None else layer.gate.bias)
        alpha = torch.ones_like(score) if even else torch.tanh(score) if signed else torch.sigmoid(score)
        h = layer.eps * h0 + (w * alpha) @ h
    return h @ model.fc_out.weight.T + model.fc_out.bias


def friends_and_foes(nodes=120, degree=6):
    """(graph, feat, labels, flag): in-edges of flagged nodes come from the other class, those of others from their own.

    The first half is asked for, and half of it flagged; it shows no class of its own, the second half shows its class.
    The neighbours tell the class to whom reads them with the sign that the flag asks for, and else nothing.
    """
    label, flag = torch.arange(nodes) % 2, torch.arange(nodes) // 2 % 2
    shown = torch.arange(nodes) >= nodes // 2
    feat = torch.zeros(nodes, 4)
    feat[shown, label[shown]] = 1.0
    feat[torch.arange(nodes), 2 + flag] = 1.0
    dst = torch.arange(nodes // 2).repeat_interleave(degree)
    draw = torch.randint(0, nodes // 4, (len(dst),), generator=torch.Generator().manual_seed(0))
    src = nodes // 2 + 2 * draw + (label ^ flag)[dst]
    return dgl.graph((src, dst), num_nodes=nodes), feat, label[: nodes // 2], flag


@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "zero_in_degree"])
@pytest.mark.parametrize(
    "settings", [{}, {"layers": 1, "eps": -0.7}, {"layers": 3, "gate_bias": False}, {"signed": False}], ids=str
)
def test_equations(name, settings):
    graph = build(name)
    x = torch.randn(graph.num_nodes(), IN)
    model = FAGCN(IN, CLASSES, hidden=5, **settings).eval()
    got, want = model(graph, x), restated(model, graph, x, model.layers[0].signed)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    cotangent = torch.randn_like(want)
    for one, other in zip(*(torch.autograd.grad(z, model.parameters(), cotangent) for z in (got, want)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "zero_in_degree"])
def test_two_channels_are_the_signed_form(name):
    """softmax(low, high) with scores s and -s differs by tanh(s): the two forms agree."""
    graph = build(name)
    x = torch.randn(graph.num_nodes(), IN)
    signed, other = (FAGCN(IN, CLASSES, form=form, **STILL).eval() for form in ("signed", "two_channel"))
    state = signed.state_dict()
    for key in [key for key in state if ".gate." in key]:
        state[key] = torch.cat([state[key], -state[key]])
    other.load_state_dict(state)
    torch.testing.assert_close(other(graph, x), signed(graph, x), atol=1e-5, rtol=1e-5)
    for both, alpha in zip(other.attention(graph, x), signed.attention(graph, x), strict=True):
        torch.testing.assert_close(both.sum(1), torch.ones(graph.num_edges()))
        torch.testing.assert_close(both[:, :1] - both[:, 1:], alpha, atol=1e-5, rtol=1e-5)
    for one, two in zip(*(model.attended(graph, x) for model in (other, signed)), strict=True):
        assert one.attention == pytest.approx(two.attention, abs=1e-4)


def test_two_channels_as_low_and_high_pass_filters():
    """alpha^L (eps h0 + A h) + alpha^H (eps h0 - A h) of every edge, restated without a difference of weights."""
    graph, layer = build("homogeneous"), FAConv(IN, form="two_channel", eps=0.4)
    h, h0, (src, dst) = torch.randn(23, IN), torch.randn(23, IN), graph.edges()
    w = (graph.out_degrees()[src] * graph.in_degrees()[dst]).float().rsqrt()
    alpha = layer.gate(torch.cat([h[dst], h[src]], 1)).softmax(1)
    low, high = (torch.zeros(23, IN).index_add(0, dst, (w * alpha[:, c])[:, None] * h[src]) for c in (0, 1))
    torch.testing.assert_close(layer(graph, h, h0), 0.4 * h0 + low - high, atol=1e-5, rtol=1e-5)
    with ops.uniform_attention():
        torch.testing.assert_close(layer(graph, h, h0), 0.4 * h0, atol=1e-6, rtol=0)


def test_parameters_are_as_many_as_the_equations_have():
    for bias, more in ((True, 1), (False, 0)):
        assert sum(p.numel() for p in FAConv(IN, bias=bias).parameters()) == 2 * IN + more


def test_blocks_with_all_neighbours_give_the_rows_of_the_whole_graph():
    graph, ids = build("homogeneous"), torch.tensor([3, 11, 20])
    shown = Facts(graph, {"_N": torch.randn(23, IN)}, target="_N", num_classes=CLASSES)
    inputs = FAGCN.prepare(shown)
    model = FAGCN.build(shown, inputs).eval()
    rows, query = model.sampled(inputs, ids, [-1, -1])
    torch.testing.assert_close(model(*rows, *query), model(*inputs)[ids], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.whole(inputs, 5), model(*inputs))


def test_drawn_neighbours_stand_for_the_others():
    """What one neighbour adds counts as often as the node has some: right on average over the neighbours."""
    graph, x = build("hub"), torch.rand(37, IN)
    shown = Facts(graph, {"_N": x}, target="_N", num_classes=CLASSES)
    given, feat, weight = inputs = FAGCN.prepare(shown)
    model = FAGCN.build(shown, inputs, layers=1).eval()
    (blocks, rows, (drawn,)), _ = model.sampled(inputs, torch.tensor([0, 4]), [1])
    edge = blocks[0].edata[dgl.EID].long()
    assert len(edge) == 2 and given.in_degrees()[0] > 30
    torch.testing.assert_close(drawn, weight[edge] * given.in_degrees()[given.edges()[1][edge].long()])
    assert torch.equal(rows, x[blocks[0].srcdata[dgl.NID].long()])
    with pytest.raises(RecipeError, match="task.fanout: expected 1 numbers, one for each layer, got 2"):
        model.sampled(inputs, torch.tensor([4]), [1, 1])
    with pytest.raises(RecipeError, match="blocks: expected 1, one for each layer, got 2"):
        model([build("block")] * 2, torch.randn(23, IN))


def test_uniform_attention_is_the_low_pass_filter():
    graph = build("homogeneous")
    x, model = torch.randn(23, IN), FAGCN(IN, CLASSES).eval()
    with ops.uniform_attention():
        got = model(graph, x)
    torch.testing.assert_close(got, restated(model, graph, x, even=True), atol=1e-5, rtol=1e-5)


def test_the_structure_is_simple_and_weighed_by_degrees():
    graph = dgl.graph(([0, 0, 1, 2, 2], [1, 1, 0, 1, 2]), num_nodes=4)
    given, feat, weight = FAGCN.prepare(Facts(graph, {"_N": torch.randn(4, IN)}, target="_N"))
    assert sorted(zip(*(ends.tolist() for ends in given.edges()), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    torch.testing.assert_close(weight, torch.full((4,), 0.5**0.5))
    assert FAGCN.prepare(Facts(graph, {}), self_loops=True)[0].num_edges() == 8
    model = FAGCN(IN, CLASSES).eval()
    torch.testing.assert_close(model(given, feat, weight), model(given, feat))
    assert not torch.allclose(model(given, feat, weight * 2), model(given, feat))


def test_dropout_spares_the_rate_that_is_not_its_own():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    layer = FAConv(IN, attn_drop=1.0)
    torch.testing.assert_close(layer(graph, x, x), layer.eps * x)
    model = FAGCN(IN, CLASSES, feat_drop=0.0, attn_drop=1.0)  # only the residual is left
    rows = model.layers[0].eps * torch.relu(model.fc_in(x))
    torch.testing.assert_close(model(graph, x), model.fc_out(rows))


def test_weights_with_signs_learn_what_positive_ones_cannot():
    graph, feat, label, flag = friends_and_foes()
    asked = slice(len(label))
    found = {}
    for name, settings in {"signed": {}, "positive": {"signed": False}}.items():
        model = FAGCN.for_graph(graph, {"_N": feat}, 2, "_N", layers=1, **settings, **STILL)
        found[name] = accuracy(model, graph, feat, label, asked, epochs=200, lr=0.05)
        (alpha,) = model.attention(graph, feat)
        of_foes = flag[graph.edges()[1]] == 1
        assert alpha.shape == (graph.num_edges(), 1)
        if name == "signed":  # one sign for friends and the other one for foes
            assert alpha[of_foes].sign().unique().numel() == alpha[~of_foes].sign().unique().numel() == 1
            assert alpha[of_foes][0] * alpha[~of_foes][0] < 0
            (share,) = shares(model, graph, feat)
            assert share.names == ("positive", "negative") and min(share.attention) > 0.2
            assert share.attention[1] == pytest.approx(-(alpha[alpha < 0].sum() / alpha.abs().sum()).item())
        else:
            assert (alpha > 0).all()
    assert found["signed"] == 1.0 and found["positive"] < 0.8, found
    with ops.uniform_attention():
        model = FAGCN(4, 2, layers=1, **STILL)
        assert accuracy(model, graph, feat, label, asked, epochs=200, lr=0.05) < 0.7


def test_the_layer_on_blocks_pairs_and_half_types():
    layer, block = FAConv(IN), build("block")
    feat = torch.randn(block.num_src_nodes(), IN)
    initial, weight = torch.randn(block.num_dst_nodes(), IN), torch.rand(block.num_edges())
    out, alpha = layer(block, feat, initial, weight, get_attention=True)
    pair = layer(block, (feat, feat[: block.num_dst_nodes()]), initial, weight)
    torch.testing.assert_close(out, pair)
    torch.testing.assert_close(
        out - layer.eps * initial, ops.weighted_sum(block, feat[:, None], alpha * weight[:, None])[:, 0]
    )
    half = layer.bfloat16()(block, feat.bfloat16(), initial.bfloat16(), weight)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, atol=0.1, rtol=0.1)


def test_backward_keeps_one_number_per_edge_and_no_row():
    graph, x, kept = build("homogeneous"), torch.randn(23, IN), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        FAGCN(IN, CLASSES)(graph, x)
    of_edges = [shape for shape in kept if graph.num_edges() in shape]
    assert of_edges and all(shape.numel() == graph.num_edges() for shape in of_edges), kept


def test_wrong_calls_are_one_sentence():
    graph, x, layer = build("homogeneous"), torch.randn(23, IN), FAConv(IN)
    with pytest.raises(ShapeError, match="initial: expected"):
        layer(graph, x, x[1:])
    with pytest.raises(ShapeError, match="edge_weight: expected"):
        layer(graph, x, x, torch.ones(3))
    with pytest.raises(ShapeError, match="eps: expected a finite number"):
        FAConv(IN, eps=float("nan"))
    with pytest.raises(ShapeError, match="form: expected 'signed' or 'two_channel', got 'both'"):
        FAConv(IN, form="both")
    with pytest.raises(ShapeError, match="signed: expected True of two channels"):
        FAConv(IN, form="two_channel", signed=False)
    with pytest.raises(ShapeError, match="feat: expected"):
        FAGCN(IN, CLASSES)(graph, x[:, 1:])
