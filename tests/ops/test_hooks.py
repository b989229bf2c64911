"""The hook on attention: it sees the weights of every layer, and what it gives is what is used."""

import dgl
import pytest
import torch
from backends import BACKENDS, INTERPRETED, there
from catalogue import LAYERS, tensors
from torch.utils.checkpoint import checkpoint

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import GATConv, GATv2Conv, TemporalAttention
from zoo import build

WITHOUT = {"TimeEncoding"}
GATED = {"Fusion, hops", "Fusion, channels", "Fusion, one view", "DAGNNConv", "DAGNNConv, popular", "FAConv"}
QUICK = [name for name in BACKENDS if not (name == "triton" and INTERPRETED)]


def even(call):
    """One over the number of entries that take part."""
    left_in = (call.weights != 0).to(call.weights.dtype)
    if call.kind == "edges":
        dst = call.graph.edges(order="eid")[1].long()
        count = left_in.new_zeros(call.graph.num_dst_nodes(), left_in.shape[1]).index_add(0, dst, left_in)[dst]
    else:
        count = left_in.sum(call.dim if call.kind == "axis" else -1, keepdim=True)
    return left_in / count.clamp(min=1)


def found(name, module, hook=None, **options):
    """Every floating-point tensor that the layer gives on its call of the catalogue."""
    torch.manual_seed(3)
    call = LAYERS[name].call
    if hook is None:
        return [one for one in tensors(call(module, **options)) if one.is_floating_point()]
    with ops.attention_hook(hook):
        return [one for one in tensors(call(module, **options)) if one.is_floating_point()]


def close(got, wanted):
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_seen_and_changed(name):
    torch.manual_seed(2)
    module, calls = LAYERS[name].build().eval(), []
    plain = found(name, module)
    close(found(name, module, lambda call: calls.append(call)), plain)
    assert (calls == []) == (name in WITHOUT)
    assert [call.number for call in calls] == [*range(len(calls))]
    for call in calls:
        assert (call.kind == "edges") == (call.graph is not None) and (call.kind == "pairs") <= (call.dim is None)
        assert call.kind != "edges" or call.weights.shape[0] == call.graph.num_edges() and call.weights.dim() == 2
    if all(call.form == "softmax" for call in calls):
        close(found(name, module, lambda call: call.weights.clone()), plain)
        if name.endswith("hard"):  # its uniform control is a choice of any
            return
        with ops.uniform_attention():
            wanted = found(name, module)
        close(found(name, module, even), wanted)
    else:
        assert name in GATED
    given = []

    def leaf(call):
        given.append(torch.full_like(call.weights, 0.3).requires_grad_())
        return given[-1]

    out = found(name, module, leaf)
    if given:
        grads = torch.autograd.grad(sum(one.sin().sum() for one in out), given, allow_unused=True)
        assert any(grad is not None and grad.any() and torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("backend", QUICK)
def test_every_operator_of_every_backend(backend):
    graph = build("zero_in_degree")
    edges, nodes = graph.num_edges(), graph.num_nodes()
    mask, weight = there(torch.rand(edges) < 0.8), there(torch.rand(edges))
    value, a, b = (there(torch.randn(nodes, 2, 3)) for _ in range(3))
    s, t, e = there(torch.randn(nodes, 2)), there(torch.randn(nodes, 2)), there(torch.randn(edges, 2))
    options = {"edge_mask": mask, "edge_weight": weight, "dropout": 0.4, "seed": 7}
    calls = {
        "additive": lambda **o: ops.additive_attention(graph, value, s, t, e, **o),
        "gat": lambda **o: ops.gat_attention(graph, value, a[0], b[0], e, **o),
        "gatv2": lambda **o: ops.gatv2_attention(graph, a, b, value[0], **o),
        "dot": lambda **o: ops.dot_product_attention(graph, a, b, value, e, **o),
        "gated": lambda **o: ops.gated_attention(graph, value, s, t, e, form="sigmoid", **o),
    }
    weights = {
        "additive": lambda: ops.additive_weights(graph, s, t, e, edge_mask=mask),
        "gatv2": lambda: ops.gatv2_weights(graph, a, b, value[0], edge_mask=mask),
        "dot": lambda: ops.dot_product_weights(graph, a, b, e, edge_mask=mask),
        "gated": lambda: ops.gated_weights(graph, s, t, e, form="sigmoid", edge_mask=mask),
    }
    with ops.use_backend(backend), ops.in_chunks(11):
        for name, run in calls.items():
            seen, wanted = [], run(**options)
            with ops.attention_hook(seen.append):
                torch.testing.assert_close(run(**options), wanted)
            assert len(seen) == 1 and seen[0].graph is graph
            assert seen[0].form == ("sigmoid" if name == "gated" else "softmax")
            if name in weights:
                torch.testing.assert_close(seen[0].weights, weights[name]())
            plain_sum = ops.weighted_sum(graph, a if name == "gatv2" else value, there(torch.ones(edges, 2)))
            with ops.attention_hook(lambda call: torch.ones_like(call.weights)):
                torch.testing.assert_close(run(), plain_sum)
                assert name not in weights or (weights[name]() == 1).all()
        logits = there(torch.randn(edges))
        for given in ({}, {"norm_by": "src"}, {"eids": torch.arange(edges - 3)}):
            mine = logits[: len(given.get("eids", logits))]
            wanted = 2 * ops.edge_softmax(graph, mine, **given)
            with ops.attention_hook(lambda call: call.weights * 2):
                torch.testing.assert_close(ops.edge_softmax(graph, mine, **given), wanted)


def test_gates_and_axes():
    graph, seen = build("hub"), []
    logits = torch.randn(graph.num_edges(), 3, 2)
    with ops.attention_hook(seen.append):
        ops.alignment(logits, graph=graph, form="tanh")
        ops.alignment(logits, dim=1)
        ops.alignment(logits, form="none")
    assert [(c.kind, c.form, c.dim, [*c.weights.shape]) for c in seen] == [
        ("edges", "tanh", None, [graph.num_edges(), 6]),
        ("axis", "softmax", 1, [*logits.shape]),
        ("axis", "none", None, [*logits.shape]),
    ]
    with ops.attention_hook(lambda call: call.weights + 1):
        torch.testing.assert_close(ops.alignment(logits, graph=graph, form="tanh"), logits.tanh() + 1)


@pytest.mark.parametrize("masked", ["none", "bool", "float"])
def test_pairs(masked):
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
    mask = torch.rand(5, 7) < 0.6
    mask[:, 0], mask[1] = True, masked == "none"
    mask = {"none": None, "bool": mask, "float": torch.randn(5, 7).masked_fill(~mask, -torch.inf)}[masked]
    wanted, seen = ops.scaled_dot_product_attention(query, key, value, mask, scale=0.3).nan_to_num(), []
    with ops.attention_hook(seen.append):
        torch.testing.assert_close(ops.scaled_dot_product_attention(query, key, value, mask, scale=0.3), wanted)
    assert seen[0].kind == "pairs" and seen[0].weights.shape == (2, 3, 5, 7)
    with ops.attention_hook(lambda call: torch.full_like(call.weights, 2.0)), ops.uniform_attention():
        got = ops.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(got, 2 * value.sum(2, keepdim=True).expand(-1, -1, 5, -1))


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_a_forward_that_runs_again_asks_with_the_same_numbers(reentrant):
    graph = dgl.add_self_loop(dgl.rand_graph(20, 60))
    first, second, x = GATConv(6, 3, 2), GATv2Conv(6, 3, 2), torch.randn(20, 6, requires_grad=True)
    given = [torch.rand(graph.num_edges(), 2, 1) for _ in range(3)]
    numbers = []

    def hook(call):
        numbers.append(call.number)
        return given[call.number]

    def net(x, run):
        out = run(lambda x: second(graph, first(graph, x).flatten(1)).flatten(1), x)
        return run(lambda x: first(graph, x), out).pow(2).sum()

    given = [one.squeeze(-1) for one in given]
    with ops.attention_hook(hook):
        (wanted,) = torch.autograd.grad(net(x, lambda f, x: f(x)), x)
    assert numbers == [0, 1, 2]
    with ops.attention_hook(hook):
        loss = net(x, lambda f, x: checkpoint(f, x, use_reentrant=reentrant))
    assert numbers == [0, 1, 2] * 2
    for k in (1, 2):
        loss.backward(retain_graph=True)
        assert numbers[6:] == [2, 0, 1] * k
    torch.testing.assert_close(x.grad, 2 * wanted)


def test_blocks_nest_and_hooks_are_not_shown_their_own_calls():
    graph, layer, x = build("homogeneous"), GATConv(7, 3, 2), torch.randn(23, 7)
    inner = []

    def flat(call):
        return ops.edge_softmax(call.graph, torch.zeros_like(call.weights))  # asks nobody

    with ops.attention_hook(flat):
        layer(graph, x)
        with ops.attention_hook(inner.append):
            got = layer(graph, x)
    with ops.uniform_attention(), ops.attention_hook(inner.append):
        torch.testing.assert_close(layer(graph, x), got)
    assert [call.number for call in inner] == [0, 0]
    torch.testing.assert_close(inner[0].weights, inner[1].weights)
    learned = layer(graph, x)
    assert not torch.allclose(learned, got)


def test_dropout_stands_behind_the_hook():
    graph, layer, x = build("homogeneous"), GATConv(7, 3, 2, attn_drop=0.5), torch.randn(23, 7)
    seen, runs = [], []
    for _ in range(2):
        torch.manual_seed(4)
        with ops.attention_hook(seen.append):
            runs.append(layer(graph, x))
    torch.manual_seed(4)
    torch.testing.assert_close(layer(graph, x), runs[0])
    assert (seen[0].weights > 0).all() and torch.equal(*runs)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (torch.ones(3), r"attention_hook: expected None or floating-point weights \[5, 2, 4, 4\] for call 0, got "),
        (torch.ones(5, 2, 4, 4).long(), r"got torch.int64 \[5, 2, 4, 4\]"),
        ("weights", "for call 0, got str"),
        (torch.ones(5, 2, 4, 4, device="meta"), "attention_hook: expected weights on cpu for call 0, got meta"),
    ],
)
def test_wrong_weights_are_one_sentence(given, match):
    layer = TemporalAttention(6, 2, 4)
    with pytest.raises(ShapeError, match=match) as caught, ops.attention_hook(lambda call: given):
        layer(torch.randn(5, 4, 6))
    assert "\n" not in str(caught.value)
    assert layer(torch.randn(5, 4, 6)).shape == (5, 4, 6)


def test_what_cannot_be_called_is_no_hook():
    with pytest.raises(ShapeError, match="attention_hook: expected a function of an AttentionCall, got Tensor"):
        with ops.attention_hook(torch.ones(3)):
            pass
