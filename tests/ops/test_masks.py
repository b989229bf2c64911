"""Edges left out of the softmax, by edge_mask or by a logit of minus infinity: as if they were not in the graph."""

import dgl
import pytest
import torch

from hgat import ops
from hgat.errors import ShapeError
from hgat.kernels import cpu
from zoo import ZOO, build

INF = float("inf")
SETS = [s for s in cpu.info()["instruction_sets"] if s in cpu.info()["processor"]]
OPERATORS = ("additive", "gated", "gatv2", "dot_product")


@pytest.fixture(params=["dgl", "torch", *[f"native-{s}" for s in SETS]])
def backend(request):
    """Every backend, and the compiled core in every instruction set."""
    name, _, instruction_set = request.param.partition("-")
    before = cpu.info()["in_use"]
    if instruction_set:
        cpu.use_instruction_set(instruction_set)
    with ops.use_backend(name):
        yield name
    if instruction_set:
        cpu.use_instruction_set(before)


def _draw(operator, graph, heads=3, width=5, dtype=torch.float64):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    src, dst, edges = graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges()

    def additive():
        return {
            "value": draw(src, heads, width),
            "score_src": draw(src, heads),
            "score_dst": draw(dst, heads),
            "score_edge": draw(edges, heads),
        }

    return {
        "additive": additive,
        "gated": additive,
        "gatv2": lambda: {
            "feat_src": draw(src, heads, width),
            "feat_dst": draw(dst, heads, width),
            "attn": draw(heads, width),
            "feat_edge": draw(edges, heads, width),
        },
        "dot_product": lambda: {
            "query": draw(dst, heads, width),
            "key": draw(src, heads, width),
            "value": draw(src, heads, width + 2),
            "bias": draw(edges, heads),
        },
    }[operator]()


ON_EDGES = {"additive": "score_edge", "gated": "score_edge", "gatv2": "feat_edge", "dot_product": "bias"}


def _run(operator, graph, arguments, **options):
    """Output, and every gradient with a fixed random cotangent; of the weights likewise."""
    leaves = {k: v.clone().requires_grad_() for k, v in arguments.items()}
    out = getattr(ops, f"{operator}_attention")(graph, **leaves, **options)
    for_weights = {k: v for k, v in leaves.items() if k != "value"}
    mask = {k: v for k, v in options.items() if k == "edge_mask"}
    alpha = getattr(ops, f"{operator}_weights")(graph, **for_weights, **mask)
    found = {"out": out.detach(), "alpha": alpha.detach()}
    for name, result in (("out", out), ("alpha", alpha)):
        generator = torch.Generator().manual_seed(11)
        cotangent = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype)
        if result.requires_grad:
            grads = torch.autograd.grad(result, list(leaves.values()), cotangent, allow_unused=True, retain_graph=True)
            found |= {f"d {name} / d {leaf}": g for leaf, g in zip(leaves, grads, strict=True) if g is not None}
    return found


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_masked_edge_is_one_that_is_not_in_the_graph(backend, operator, name):
    graph = build(name)
    arguments = _draw(operator, graph)
    keep = torch.rand(graph.num_edges()) < 0.5
    if graph.num_dst_nodes():
        keep &= graph.edges(order="eid")[1] != 0  # at least one node loses all of its in-edges
    got = _run(operator, graph, arguments, edge_mask=keep, edge_weight=torch.rand(graph.num_edges()) + 0.5)
    torch.manual_seed(20240229)
    # The same by a graph without these edges, in which the others keep their order.
    fewer = dgl.edge_subgraph(graph, keep.nonzero().flatten(), relabel_nodes=False)
    on_edge = ON_EDGES[operator]
    torch.manual_seed(20240229)
    _draw(operator, graph)
    torch.rand(graph.num_edges())
    weight = (torch.rand(graph.num_edges()) + 0.5)[keep]
    with ops.use_backend("dgl"):
        want = _run(operator, fewer, {**arguments, on_edge: arguments[on_edge][keep]}, edge_weight=weight)
    for key, value in got.items():
        if key == "alpha" or key.endswith(on_edge):
            assert (value[~keep] == 0).all(), key
            if not key.startswith("d alpha"):  # whose cotangent is another one
                torch.testing.assert_close(value[keep], want[key], atol=1e-12, rtol=1e-10)
        elif not key.startswith("d alpha"):
            torch.testing.assert_close(value, want[key], atol=1e-12, rtol=1e-10)
        assert value.isfinite().all(), key


@pytest.mark.parametrize("operator", ["additive", "gated", "dot_product"])
@pytest.mark.parametrize("per_head", [False, True])
def test_minus_infinity_masks_as_edge_mask_does(backend, operator, per_head):
    graph = build("hub")
    arguments = _draw(operator, graph)
    keep = torch.rand(graph.num_edges(), 3 if per_head else 1) < 0.4
    wanted = _run(operator, graph, arguments, edge_mask=keep)
    term = ON_EDGES[operator]
    by_score = {**arguments, term: arguments[term].masked_fill(~keep, -INF)}
    got = _run(operator, graph, by_score)
    for key, value in got.items():
        torch.testing.assert_close(value, wanted[key], atol=1e-13, rtol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 8, 13, 16])
@pytest.mark.parametrize("edges", [255, 256, 257, 300, 512, 513, 700])
def test_a_hub_whose_first_edges_are_masked(backend, heads, edges):
    """Long rows are cut into segments, and a segment may be masked whole."""
    ends = torch.arange(edges), torch.zeros(edges, dtype=torch.int64)
    graph = dgl.heterograph({("a", "r", "b"): ends}, {"a": edges, "b": 1})
    for masked in (slice(0, 256), slice(1, edges), slice(256, edges), slice(0, edges)):
        logits = torch.randn(edges, heads)
        logits[masked] = -INF
        want = torch.softmax(logits, 0).nan_to_num(0.0)
        torch.testing.assert_close(ops.edge_softmax(graph, logits), want)
        value = torch.randn(edges, heads, 7)
        wanted = (want.unsqueeze(-1) * value).sum(0, keepdim=True)
        zero = torch.zeros(edges, heads), torch.zeros(1, heads)
        out = ops.additive_attention(graph, value, *zero, logits, negative_slope=1.0)
        torch.testing.assert_close(out, wanted, atol=1e-5, rtol=0)
        query, key = torch.zeros(1, heads, 4), torch.randn(edges, heads, 4)
        out = ops.dot_product_attention(graph, query, key, value, bias=logits)
        torch.testing.assert_close(out, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("slope", [0.2, 0.0, -0.5, 1.0, 3.0])
def test_minus_infinity_masks_whatever_the_slope(backend, slope):
    graph = build("homogeneous")
    arguments = _draw("additive", graph)
    arguments["score_src"][3] = -INF
    arguments["score_dst"][5] = -INF
    arguments["score_edge"][::3] = -INF
    found = _run("additive", graph, arguments, negative_slope=slope)
    src, dst = graph.edges(order="eid")
    left_out = (src == 3) | (dst == 5)
    left_out[::3] = True
    alpha = ops.additive_weights(graph, *[arguments[k] for k in ("score_src", "score_dst", "score_edge")])
    assert (alpha[left_out] == 0).all() and (alpha[~left_out] > 0).all()
    assert (found["out"][5] == 0).all()
    assert all(value.isfinite().all() for value in found.values())


def test_uniform_attention_leaves_masked_edges_out(backend):
    graph = build("homogeneous")
    keep = torch.rand(graph.num_edges(), 3) < 0.5
    dst = graph.edges(order="eid")[1]
    count = torch.zeros(23, 3).index_add(0, dst, keep.float())
    mean = keep / count[dst].clamp(min=1)
    arguments = {name: _draw(name, graph, dtype=torch.float32) for name in OPERATORS}
    with ops.uniform_attention():
        for name in OPERATORS:
            right = {k: v for k, v in arguments[name].items() if k != "value"}
            weights = getattr(ops, f"{name}_weights")
            want = keep.float() if name == "gated" else mean
            torch.testing.assert_close(weights(graph, **right, edge_mask=keep), want)
            if name != "gatv2":
                by_score = {**right, ON_EDGES[name]: right[ON_EDGES[name]].masked_fill(~keep, -INF)}
                torch.testing.assert_close(weights(graph, **by_score), want)
        logits = torch.randn(graph.num_edges(), 3).masked_fill(~keep, -INF)
        torch.testing.assert_close(ops.edge_softmax(graph, logits), mean)
        by_node = arguments["additive"]["score_src"].clone()
        by_node[7] = -INF
        alpha = ops.additive_weights(graph, by_node, torch.zeros(23, 3))
        assert (alpha[graph.edges(order="eid")[0] == 7] == 0).all()


def test_masks_with_dropout_drop_the_same_edges_on_every_backend(backend):
    graph = build("hub")
    for operator in OPERATORS:
        arguments = _draw(operator, graph)
        keep = torch.rand(graph.num_edges()) < 0.6
        options = {"edge_mask": keep, "dropout": 0.4, "seed": 9}
        with ops.use_backend("dgl"):
            want = _run(operator, graph, arguments, **options)
        for key, value in _run(operator, graph, arguments, **options).items():
            torch.testing.assert_close(value, want[key], atol=1e-12, rtol=1e-10)


def test_masks_in_chunks():
    graph = build("hub")
    for operator in OPERATORS:
        arguments = _draw(operator, graph)
        keep = torch.rand(graph.num_edges()) < 0.6
        with ops.use_backend("dgl"):
            want = _run(operator, graph, arguments, edge_mask=keep)
            with ops.in_chunks(40):
                got = _run(operator, graph, arguments, edge_mask=keep)
        for key, value in got.items():
            torch.testing.assert_close(value, want[key], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_masks(operator):
    graph = build("homogeneous")
    edges, arguments = graph.num_edges(), _draw(operator, graph)
    wrong = [
        torch.ones(edges),
        torch.ones(edges, dtype=torch.int64),
        [True] * edges,
        torch.ones(edges - 1, dtype=torch.bool),
        torch.ones(edges, 4, dtype=torch.bool),
        torch.ones(edges, 3, 1, dtype=torch.bool),
        torch.tensor(True),
        torch.ones(edges, dtype=torch.bool, device="meta"),
    ]
    for mask in wrong:
        with pytest.raises(ShapeError, match="^edge_mask: expected .* got"):
            getattr(ops, f"{operator}_attention")(graph, **arguments, edge_mask=mask)
        right = {k: v for k, v in arguments.items() if k != "value"}
        with pytest.raises(ShapeError, match="^edge_mask: expected .* got"):
            getattr(ops, f"{operator}_weights")(graph, **right, edge_mask=mask)
        with pytest.raises(ShapeError, match="^edge_mask: expected .* got"):
            ops.edge_softmax(graph, torch.randn(edges, 3), edge_mask=mask)
