"""What an operator says to a wrong call, and that DGL's path and the PyTorch path are one definition."""

import dgl
import pytest
import torch

from cases import HEADS, OPERATORS, UNUSED, VALUE_WIDTH, WIDTH, oracle_softmax, oracle_sum, oracle_weights
from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, HgatError, ShapeError
from hgat.ops import reference
from zoo import ZOO, build, typed_graph

NODES, EDGES = 23, 120  # of the homogeneous graph


def _draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype)


def _calls(num_src, num_dst, num_edges, dtype=torch.float32):
    """Right arguments of every operator on graphs: name -> dict, tensors first."""

    def draw(*shape):
        return _draw(*shape, dtype=dtype)

    additive = {
        "score_src": draw(num_src, HEADS),
        "score_dst": draw(num_dst, HEADS),
        "score_edge": draw(num_edges, HEADS),
    }
    gatv2 = {
        "feat_src": draw(num_src, HEADS, WIDTH),
        "feat_dst": draw(num_dst, HEADS, WIDTH),
        "attn": draw(HEADS, WIDTH),
        "feat_edge": draw(num_edges, HEADS, WIDTH),
    }
    dot = {
        "query": draw(num_dst, HEADS, WIDTH),
        "key": draw(num_src, HEADS, WIDTH),
        "bias": draw(num_edges, HEADS),
    }
    value, weight = draw(num_src, HEADS, VALUE_WIDTH), draw(num_edges, HEADS)
    return {
        "additive_attention": {"value": value, **additive},
        "additive_weights": additive,
        "gat_attention": {
            "value": value,
            "attn_src": draw(HEADS, VALUE_WIDTH),
            "attn_dst": draw(HEADS, VALUE_WIDTH),
            "score_edge": additive["score_edge"],
        },
        "gated_attention": {"value": value, **additive},
        "gated_weights": additive,
        "gatv2_attention": gatv2,
        "gatv2_weights": gatv2,
        "dot_product_attention": {**dot, "value": value},
        "dot_product_weights": dot,
        "dot_product_logits": dot,
        "additive_logits": additive,
        "copy_u": {"score_src": additive["score_src"]},
        "copy_v": {"score_dst": additive["score_dst"]},
        "edge_softmax": {"logits": weight},
        "weighted_sum": {"value": value, "weight": weight},
        "edge_weighted_sum": {"edge_value": draw(num_edges, 2), "weight": weight},
    }


OPTIONAL = ("score_edge", "feat_edge", "bias")
CALLS = _calls(NODES, NODES, EDGES)
ARGUMENTS = [(operator, name) for operator, arguments in CALLS.items() for name in arguments]
ATTENTION = ("additive_attention", "gated_attention", "gatv2_attention", "dot_product_attention")


def _one_sentence(caught):
    text = str(caught.value)
    assert "expected" in text and "got" in text and "\n" not in text and not text.endswith("."), text


def _refused(operator, graph, arguments, error=ShapeError, match=None, **options):
    with pytest.raises(error, match=match) as caught:
        getattr(ops, operator)(graph, **{**arguments, **options})
    _one_sentence(caught)


@pytest.mark.parametrize("operator", CALLS)
def test_right_calls_are_served(operator):
    getattr(ops, operator)(build("homogeneous"), **CALLS[operator])
    required = {k: v for k, v in CALLS[operator].items() if k not in OPTIONAL}
    getattr(ops, operator)(build("homogeneous"), **required)


# Axes that may have any size: the width of what is summed, and the heads where no other tensor has heads.
FREE = {
    ("additive_attention", "value"): 2,
    ("gated_attention", "value"): 2,
    ("dot_product_attention", "value"): 2,
    ("weighted_sum", "value"): 2,
    ("edge_weighted_sum", "edge_value"): 1,
    ("edge_weighted_sum", "weight"): 1,
    ("edge_softmax", "logits"): 1,
    ("copy_u", "score_src"): 1,
    ("copy_v", "score_dst"): 1,
}


@pytest.mark.parametrize(("operator", "name"), ARGUMENTS)
def test_wrong_shapes(operator, name):
    graph, right = build("homogeneous"), CALLS[operator]
    tensor = right[name]
    wrong = [tensor.unsqueeze(0), tensor.unsqueeze(-1), tensor.flatten(), tensor[0], tensor.sum()]
    for axis in range(tensor.dim()):
        if axis != FREE.get((operator, name)):
            one = tensor.narrow(axis, 0, 1)
            wrong += [tensor.narrow(axis, 0, 0), tensor.narrow(axis, 1, tensor.shape[axis] - 1)]
            wrong += [torch.cat([tensor, one], axis)]
            # One head of values serves all heads of weights.
            wrong += [] if (operator, name, axis) == ("weighted_sum", "value", 1) else [one]
    if operator == "gat_attention" and name.startswith("attn"):
        wrong = wrong[1:]  # [1, H, D] is right
    if operator == "edge_softmax":  # any shape behind the edges, as DGL's
        wrong = [other for other in wrong if other.dim() == 0 or len(other) != EDGES]
    for other in wrong:
        _refused(operator, graph, {**right, name: other})


@pytest.mark.parametrize(("operator", "name"), ARGUMENTS)
def test_wrong_types(operator, name):
    graph, right = build("homogeneous"), CALLS[operator]
    tensor = right[name]
    others = [
        tensor.long(),
        tensor > 0,
        tensor.to(torch.complex64),
        tensor.tolist(),
        tensor.numpy(),
        "value",
        3.0,
    ]
    others += [tensor.to(torch.float8_e4m3fn), tensor.to_sparse()]
    if name not in OPTIONAL:
        others.append(None)
    for other in others:
        _refused(operator, graph, {**right, name: other}, match=name)


@pytest.mark.parametrize(("operator", "name"), [(o, n) for o, n in ARGUMENTS if len(CALLS[o]) > 1])
def test_wrong_devices(operator, name):
    graph, right = build("homogeneous"), CALLS[operator]
    _refused(operator, graph, {**right, name: right[name].to("meta")}, match="expected device .* got")


@pytest.mark.parametrize("operator", CALLS)
def test_wrong_graphs(operator):
    right = CALLS[operator]
    for graph in (None, "graph", torch.zeros(3), hgraph.join_relations(typed_graph())):
        _refused(operator, graph, right, GraphError, "graph: expected a DGLGraph, got")
    _refused(operator, typed_graph(), right, GraphError, "graph: expected one relation, got 4; take one")
    _refused(operator, build("multi_edges"), right)


@pytest.mark.parametrize("operator", ATTENTION)
@pytest.mark.parametrize("dropout", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, 1j, [0.5]])
def test_wrong_dropout(operator, dropout):
    graph = build("homogeneous")
    _refused(operator, graph, CALLS[operator], match="dropout: expected a probability from 0 to 1", dropout=dropout)
    with pytest.raises(ShapeError, match="dropout: expected a probability from 0 to 1"):
        ops.attention_dropout(torch.ones(5, 3), dropout)


@pytest.mark.parametrize("operator", ATTENTION)
def test_wrong_edge_weights(operator):
    graph = build("homogeneous")
    wrong = [
        torch.rand(EDGES - 1),
        torch.rand(1),
        torch.rand(EDGES, 1),
        torch.rand(EDGES, HEADS + 1),
        torch.tensor(1.0),
        torch.rand(EDGES, HEADS, 1),
        torch.rand(NODES),
        torch.rand(EDGES, device="meta"),
        [1.0] * EDGES,
        1.0,
        "w",
        torch.rand(EDGES).to(torch.complex64),
        torch.rand(EDGES).to_sparse(),
    ]
    for edge_weight in wrong:
        _refused(operator, graph, CALLS[operator], match="edge_weight: expected", edge_weight=edge_weight)


@pytest.mark.parametrize("operator", ATTENTION)
def test_right_edge_weights(operator):
    graph, right = build("homogeneous"), CALLS[operator]
    run = getattr(ops, operator)
    counts = torch.arange(EDGES) % 5
    expected = run(graph, **right, edge_weight=counts.float())
    for edge_weight in (counts.double(), counts, counts.int(), counts[:, None].expand(-1, HEADS)):
        torch.testing.assert_close(run(graph, **right, edge_weight=edge_weight), expected)
    masked = run(graph, **right, edge_weight=counts > 2)
    torch.testing.assert_close(masked, run(graph, **right, edge_weight=(counts > 2).float()))


@pytest.mark.parametrize(
    ("operator", "options", "match"),
    [
        *[
            (o, {"dropout": 0.5, "seed": s}, "seed: expected a whole number")
            for o in ATTENTION
            for s in (1.5, "1", [1])
        ],
        *[
            (o, {"negative_slope": s}, "negative_slope: expected a number")
            for o in ("additive_attention", "gatv2_attention")
            for s in (None, "0.2")
        ],
        ("additive_weights", {"negative_slope": [0.2]}, "negative_slope: expected a number"),
        ("gatv2_weights", {"negative_slope": None}, "negative_slope: expected a number"),
        ("gated_attention", {"form": "softmax"}, "form: expected 'tanh' or 'sigmoid'"),
        ("gated_weights", {"form": None}, "form: expected 'tanh' or 'sigmoid'"),
        ("dot_product_attention", {"scale": "1"}, "scale: expected a number"),
        ("dot_product_logits", {"scale": [1.0]}, "scale: expected a number"),
        # float(scale) would cut a learned scale off from its gradient.
        ("dot_product_weights", {"scale": torch.ones(1, requires_grad=True)}, "scale: expected a number"),
    ],
)
def test_wrong_numbers(operator, options, match):
    _refused(operator, build("homogeneous"), CALLS[operator], match=match, **options)


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**64 - 1, 2**64, True, torch.tensor(7)], ids=str)
def test_any_whole_number_is_a_seed(seed):
    graph, right = build("homogeneous"), CALLS["additive_attention"]
    out = ops.additive_attention(graph, **right, dropout=0.5, seed=seed)
    assert torch.equal(out, ops.additive_attention(graph, **right, dropout=0.5, seed=int(seed)))


@pytest.mark.parametrize(
    "alpha",
    [
        torch.ones(5),
        torch.ones(3, 3, 1),
        torch.tensor(1.0),
        torch.ones(5, 3).long(),
        [[1.0]],
        None,
    ],
    ids=lambda a: str(getattr(a, "shape", a)),
)
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_wrong_alpha_of_attention_dropout(alpha, p):
    """[E, H, 1] times a scale [E, H] would be [E, H, H] without a word."""
    with pytest.raises(ShapeError, match="^alpha: expected") as caught:
        ops.attention_dropout(alpha, p, 3)
    _one_sentence(caught)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rows": [[1.0]]}, "rows: expected a floating-point tensor"),
        ({"rows": torch.ones(11, 5).long()}, "rows: expected a floating-point tensor"),
        ({"rows": torch.ones(10, 5)}, r"rows: expected \[K, F\] = \[11, 5\], got \[10, 5\]"),
        ({"rows": torch.ones(11, 4)}, r"rows: expected \[K, F\] = \[11, 5\], got \[11, 4\]"),
        ({"weight": torch.ones(5, 3)}, r"weight: expected \[R, F, O\], got \[5, 3\]"),
        ({"weight": None}, "weight: expected a floating-point tensor"),
        ({"weight": torch.ones(4, 5, 3, device="meta")}, "weight: expected device cpu like rows, got meta"),
        ({"count": [3, 0, 7, 1]}, r"count: expected an int64 tensor \[R\] on the CPU, got list"),
        ({"count": torch.tensor([3.0, 0, 7, 1])}, "count: expected an int64 tensor .* got torch.float32"),
        ({"count": torch.tensor([11])}, r"count: expected \[R\] = \[4\], got \[1\]"),
        # Sums to 11: without the check rows -3 to 14 would be read.
        ({"count": torch.tensor([14, -3, 0, 0])}, "count: expected 0 or more rows per relation, got -3"),
        ({"weight": []}, r"weight: expected a tensor \[R, F, O\] or several, got none"),
        ({"weight": [torch.ones(4, 5, 3), torch.ones(4, 3, 3)]}, r"weight: expected \[R, F, O\] = \[4, 5, any\]"),
        ({"index": [0] * 11}, r"index: expected an int64 tensor \[K\] on cpu, got list"),
        ({"index": torch.zeros(11)}, "index: expected an int64 tensor .* got torch.float32 on cpu"),
        ({"index": torch.zeros(11, dtype=torch.int64, device="meta")}, "index: expected .* got torch.int64 on meta"),
        ({"index": torch.zeros(10, dtype=torch.int64)}, r"index: expected \[K\] = \[11\], got \[10\]"),
        ({"index": torch.arange(11) - 1}, "index: expected rows from 0 to 10, got -1 to 9"),
        ({"index": torch.arange(11) + 1}, "index: expected rows from 0 to 10, got 1 to 11"),
        ({"rows": torch.ones(11), "index": torch.arange(11)}, r"rows: expected \[N, F\] = \[any, 5\], got \[11\]"),
    ],
)
def test_wrong_typed_projections(change, match):
    right = {"rows": torch.ones(11, 5), "weight": torch.ones(4, 5, 3), "count": torch.tensor([3, 0, 7, 1])}
    with pytest.raises(ShapeError, match=match) as caught:
        ops.typed_projection(**{**right, **change})
    _one_sentence(caught)


@pytest.mark.parametrize("operator", CALLS)
def test_operators_without_heads_or_width(operator):
    """No heads or no columns is an empty answer, not an error inside DGL."""
    graph = build("homogeneous")
    for heads, width in ((0, WIDTH), (HEADS, 0), (0, 0)):
        arguments = {}
        for name, right in CALLS[operator].items():
            rows = [] if name.startswith("attn") else [len(right)]
            sizes = [heads, width][: right.dim() - len(rows)]
            arguments[name] = torch.zeros(*rows, *sizes)
        if operator == "edge_weighted_sum":
            arguments["edge_value"] = torch.zeros(EDGES, width)
        leaves = [v.requires_grad_() for v in arguments.values()]
        out = getattr(ops, operator)(graph, **arguments)
        assert out.shape[1] == heads and torch.isfinite(out).all()
        torch.autograd.grad(out.sum(), leaves, allow_unused=True)


def _right_answer(operator, graph, arguments):
    """The answer by loops, in float64."""
    wide = {k: v.double() for k, v in arguments.items() if isinstance(v, torch.Tensor)}
    family = operator.rsplit("_", 1)[0]
    if operator == "gat_attention":
        left, right = (wide.pop(f"attn_{end}") for end in ("src", "dst"))
        wide["score_src"] = (wide["value"] * left).sum(-1)
        wide["score_dst"] = (wide["value"][: graph.num_dst_nodes()] * right).sum(-1)
        family = "additive"
    if operator == "additive_logits":
        src, dst = (x.long() for x in graph.edges(order="eid"))
        return wide["score_src"][src] + wide["score_dst"][dst] + wide.get("score_edge", 0.0)
    if operator == "copy_u":
        return wide["score_src"][graph.edges(order="eid")[0].long()]
    if operator == "copy_v":
        return wide["score_dst"][graph.edges(order="eid")[1].long()]
    if operator == "edge_softmax":
        logits = wide["logits"]
        return oracle_softmax(graph, logits.reshape(len(logits), logits.shape[1:].numel())).view_as(logits)
    if operator == "weighted_sum":
        return oracle_sum(graph, wide["value"].expand(-1, wide["weight"].shape[1], -1), wide["weight"])
    if operator == "edge_weighted_sum":
        return oracle_sum(ops.segment.edges_as_sources(graph), wide["edge_value"][:, None], wide["weight"])
    if family in UNUSED:
        wide.setdefault("value", torch.zeros(graph.num_src_nodes(), HEADS, 1, dtype=torch.float64))
    if "query" in wide:
        src, dst = (x.long() for x in graph.edges(order="eid"))
        logits = (wide["query"][dst] * wide["key"][src]).sum(-1) * max(wide["key"].shape[-1], 1) ** -0.5
        logits, value = logits + wide.get("bias", 0.0), wide["value"]
    else:
        logits, value = OPERATORS[family][1](graph, **wide)
    if operator.endswith("logits"):
        return logits
    alpha = oracle_weights(family, graph, logits)
    return alpha if operator.endswith("weights") else oracle_sum(graph, value, alpha)


def _corrupt(tensor, pick):
    """One random change to a right argument; sometimes it is still right."""

    def choose(*options):
        return options[int(torch.randint(0, len(options), (), generator=pick))]

    axis = int(torch.randint(0, tensor.dim(), (), generator=pick))
    return choose(
        lambda: tensor,
        lambda: tensor.narrow(axis, 0, max(tensor.shape[axis] - 1, 0)),
        lambda: torch.cat([tensor, tensor.narrow(axis, 0, min(1, tensor.shape[axis]))], axis),
        lambda: tensor.narrow(axis, 0, 0),
        lambda: tensor.transpose(0, axis),
        lambda: tensor.unsqueeze(axis),
        lambda: tensor.select(axis, 0) if tensor.shape[axis] else tensor,
        lambda: tensor.long(),
        lambda: tensor.double(),
        lambda: tensor.to("meta"),
        lambda: tensor.tolist(),
        lambda: None,
        lambda: "tensor",
    )()


def test_a_thousand_random_calls_give_one_sentence_or_a_right_answer():
    pick = torch.Generator().manual_seed(1009)
    graphs = [build(name) for name in ("homogeneous", "bipartite", "zero_in_degree", "empty", "no_nodes", "block")]
    names = list(CALLS)
    refused = served = 0
    for trial in range(1000):
        operator = names[trial % len(names)]
        graph = graphs[int(torch.randint(0, len(graphs), (), generator=pick))]
        arguments = _calls(graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges())[operator]
        for name in list(arguments):
            if torch.rand((), generator=pick) < 0.5:
                arguments[name] = _corrupt(arguments[name], pick)
        used = typed_graph() if torch.rand((), generator=pick) < 0.05 else graph
        try:
            out = getattr(ops, operator)(used, **arguments)
        except HgatError as error:
            assert "expected" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        served += 1
        if out.device.type == "cpu":  # a call of meta tensors only has a shape for its answer
            expected = _right_answer(operator, graph, arguments)
            assert out.shape == expected.shape
            torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=0)
    assert refused > 300 and served > 100


# ---- the reference without DGL's kernels ----


def _outputs(run, leaves):
    out = run()
    cotangent = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    if not out.requires_grad:
        return [out]
    grads = torch.autograd.grad(out, leaves, cotangent, allow_unused=True)
    return [out, *[torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]]


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("operator", CALLS)
def test_the_path_without_dgl_is_the_same_definition(monkeypatch, operator, name, idtype):
    graph = build(name, idtype)
    sizes = (graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges())
    arguments = {k: v.requires_grad_() for k, v in _calls(*sizes, dtype=torch.float64)[operator].items()}
    options = {"dropout": 0.3, "seed": 7, "edge_weight": torch.rand(sizes[2])} if operator in ATTENTION else {}

    def run():
        with ops.use_backend("dgl"):
            return getattr(ops, operator)(graph, **arguments, **options)

    leaves = list(arguments.values())
    with_dgl = _outputs(run, leaves)
    runs = reference._dgl_runs
    asked = []
    monkeypatch.setattr(reference, "_dgl_runs", lambda *a: asked.append(runs(*a)) or False)
    without = _outputs(run, leaves)
    assert asked and any(asked) == (graph.num_edges() > 0)
    for mine, theirs in zip(without, with_dgl, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("operator", ATTENTION)
def test_the_path_without_dgl_keeps_nan_in_its_rows(monkeypatch, operator):
    graph = build("bipartite")
    arguments = _calls(19, 13, graph.num_edges())[operator]
    first = next(k for k in arguments if k in ("score_src", "feat_src", "key"))
    arguments[first][7] = float("nan")
    monkeypatch.setattr(reference, "_dgl_runs", lambda *a: False)
    out = getattr(ops, operator)(graph, **arguments)
    reached = torch.zeros(13, dtype=torch.bool)
    reached[graph.successors(7)] = True
    assert (torch.isfinite(out).flatten(1).all(1) == ~reached).all()


@pytest.mark.parametrize("operator", CALLS)
def test_shapes_on_the_meta_device(operator):
    """A graph on one device with features on another takes the path without DGL."""
    graph = dgl.graph(build("homogeneous").edges(), num_nodes=NODES)
    arguments = {k: v.to("meta") for k, v in CALLS[operator].items()}
    out = getattr(ops, operator)(graph, **arguments)
    assert out.device.type == "meta"
    assert out.shape == getattr(ops, operator)(graph, **CALLS[operator]).shape
