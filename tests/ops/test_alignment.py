"""Logits made into weights: the forms, masks, and that one file alone asks whether attention is uniform."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

import hgat
from cases import HEADS, oracle_softmax
from hgat import ops
from hgat.errors import GraphError, ShapeError
from zoo import ZOO, build, typed_graph

HOME = Path(hgat.__file__).parent
GATES = {"sigmoid": lambda e: 1 / (1 + (-e).exp()), "tanh": lambda e: 1 - 2 / (1 + (2 * e).exp()), "none": lambda e: e}


@pytest.mark.parametrize("name", ZOO)
def test_softmax_over_the_in_edges(name):
    graph = build(name)
    logits = torch.randn(graph.num_edges(), HEADS, dtype=torch.float64)
    torch.testing.assert_close(ops.alignment(logits, graph=graph), oracle_softmax(graph, logits))
    mask = torch.rand(graph.num_edges()) < 0.6
    assert torch.equal(ops.alignment(logits, graph=graph, mask=mask), ops.edge_softmax(graph, logits, edge_mask=mask))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_along_an_axis_without_what_is_left_out(dim):
    logits = torch.randn(5, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(ops.alignment(logits, dim=dim), logits.exp() / logits.exp().sum(dim, keepdim=True))
    mask = torch.rand(5, 7, 3) < 0.6
    mask.select(dim, 0)[0] = True
    mask.movedim(dim, -1)[1, 2] = False  # a row with nothing left
    power = logits.exp() * mask
    total = power.sum(dim, keepdim=True)
    expected = torch.where(total > 0, power / total, 0.0)
    torch.testing.assert_close(ops.alignment(logits, dim=dim, mask=mask), expected)
    torch.testing.assert_close(ops.alignment(logits.masked_fill(~mask, -torch.inf), dim=dim), expected)
    assert (total == 0).any()


@pytest.mark.parametrize("form", GATES)
def test_gates_stand_alone(form):
    graph = build("hub")
    logits = torch.randn(graph.num_edges(), HEADS, dtype=torch.float64)
    expected = GATES[form](logits)
    for over in ({}, {"graph": graph}, {"dim": 1}):
        torch.testing.assert_close(ops.alignment(logits, form=form, **over), expected)
    mask = torch.rand(graph.num_edges()) < 0.5
    left = ops.alignment(logits, graph=graph, form=form, mask=mask)
    torch.testing.assert_close(left, expected * mask[:, None])
    torch.testing.assert_close(ops.alignment(logits, form=form, mask=mask[:, None]), left)
    left = ops.alignment(logits.masked_fill(~mask[:, None], -torch.inf), form=form)
    torch.testing.assert_close(left, expected * mask[:, None])


@pytest.mark.parametrize("form", ops.alignment.__globals__["FORMS"])
def test_gradients(form):
    graph = build("zero_in_degree")
    logits = torch.randn(graph.num_edges(), 2, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(graph.num_edges(), 2) < 0.7
    assert gradcheck(lambda e: ops.alignment(e, graph=graph, form=form, mask=mask), [logits], fast_mode=True)
    few = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[1], mask[2, 0] = False, False
    assert gradcheck(lambda e: ops.alignment(e, dim=1, form=form, mask=mask), [few])
    (grad,) = torch.autograd.grad(ops.alignment(few, dim=1, form=form, mask=mask).square().sum(), few)
    assert torch.isfinite(grad).all() and not grad[~mask].any()


@pytest.mark.parametrize("form", ["softmax", "sigmoid", "tanh", "none"])
def test_uniform_is_a_mean_or_a_plain_sum(form):
    graph = build("zero_in_degree")
    edges, dst = graph.num_edges(), graph.edges(order="eid")[1]
    logits = torch.randn(edges, HEADS, requires_grad=True)
    mask = torch.rand(edges) < 0.7
    mask[0] = False
    count = torch.bincount(dst[mask], minlength=graph.num_nodes())[dst]
    with ops.uniform_attention():
        on_edges = ops.alignment(logits, graph=graph, form=form, mask=mask)
        on_axis = ops.alignment(logits, dim=1, form=form)
        left_out = ops.alignment(logits.masked_fill(~mask[:, None], -torch.inf), dim=0, form=form)
    share = 1.0 / count.clamp(min=1) if form == "softmax" else torch.ones(edges)
    torch.testing.assert_close(on_edges, (share * mask)[:, None].expand(-1, HEADS))
    torch.testing.assert_close(on_axis, torch.full((edges, HEADS), 1 / HEADS if form == "softmax" else 1.0))
    share = 1.0 / float(mask.sum()) if form == "softmax" else 1.0
    torch.testing.assert_close(left_out, (mask * share)[:, None].expand(-1, HEADS).float())
    assert not on_axis.requires_grad


def test_a_layer_that_never_heard_of_it_is_a_right_uniform_control():
    class New(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Linear(4, 1)

        def forward(self, z):
            return (ops.alignment(self.score(z).squeeze(-1), dim=1).unsqueeze(-1) * z).sum(1)

    layer, z = New(), torch.randn(5, 3, 4)
    assert not torch.allclose(layer(z), z.mean(1))
    with ops.uniform_attention():
        torch.testing.assert_close(layer(z), z.mean(1))


@pytest.mark.parametrize("masked", ["none", "bool", "float"])
def test_scaled_dot_product_attention_is_pytorchs_and_uniform_where_asked(masked):
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
    seen = torch.rand(5, 7) < 0.6
    seen[:, 0] = True
    bias = torch.randn(5, 7).masked_fill(~seen, -torch.inf)
    mask = {"none": None, "bool": seen, "float": bias}[masked]
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    assert torch.equal(ops.scaled_dot_product_attention(query, key, value, mask, scale=0.3), expected)
    with ops.uniform_attention():
        got = ops.scaled_dot_product_attention(query, key, value, mask)
    share = torch.ones(5, 7) if mask is None else seen.float()
    torch.testing.assert_close(got, (share / share.sum(1, keepdim=True)) @ value)
    with pytest.raises(ShapeError, match="key: expected a tensor"):
        ops.scaled_dot_product_attention(query, None, value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"form": "max"}, r"form: expected one of \['softmax', 'sigmoid', 'tanh', 'none'\], got 'max'"),
        ({"form": None}, "form: expected one of"),
        ({}, "alignment: expected a graph or an axis dim, got none"),
        ({"graph": 1, "dim": 0}, "alignment: expected a graph or an axis dim, got both"),
        ({"graph": 1, "dim": 0, "form": "tanh"}, "alignment: expected a graph or an axis dim, got both"),
        ({"dim": 2}, r"dim: expected an axis of logits \[120, 3\], got 2"),
        ({"dim": "1"}, "dim: expected an axis of logits"),
        ({"logits": [1.0], "dim": 0}, "logits: expected a floating-point tensor of 16 bits or more, got list"),
        ({"logits": torch.ones(3).long(), "dim": 0}, "logits: expected a floating-point tensor .* got torch.int64"),
        ({"logits": torch.ones(5, 3), "graph": 1}, r"logits: expected \[E, H\] = \[120, 3\], got \[5, 3\]"),
        ({"logits": torch.ones(5, 3), "graph": 1, "form": "tanh"}, "logits: expected .* with E = 120"),
        ({"dim": 1, "mask": torch.ones(120, 3)}, "mask: expected a tensor of torch.bool"),
        (
            {"dim": 1, "mask": torch.ones(4, 3) > 0},
            r"mask: expected a shape that broadcasts to \[120, 3\], got \[4, 3\]",
        ),
        ({"dim": 1, "mask": torch.ones(2, 120, 3) > 0}, "mask: expected a shape that broadcasts"),
        ({"graph": 1, "form": "tanh", "mask": torch.ones(3) > 0}, r"mask: expected \[120\] or \[120, 3\], got \[3\]"),
        ({"dim": 1, "mask": torch.ones(120, 3, device="meta") > 0}, "mask: expected device cpu like logits, got meta"),
    ],
)
def test_wrong_calls_are_one_sentence(change, match):
    change = {**change, **({"graph": build("homogeneous")} if "graph" in change else {})}
    with pytest.raises(ShapeError, match=match) as caught:
        ops.alignment(**{"logits": torch.randn(120, 3), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_wrong_graphs_are_one_sentence(form):
    for graph in (typed_graph(), "graph", torch.ones(3)):
        with pytest.raises(GraphError, match="graph: expected"):
            ops.alignment(torch.randn(120, 3), graph=graph, form=form)


def test_empty_sizes():
    for shape in ((0,), (0, 3), (3, 0), (0, 0)):
        for form in ("softmax", "sigmoid", "tanh", "none"):
            logits = torch.zeros(shape, requires_grad=True)
            weights = ops.alignment(logits, dim=-1, form=form)
            assert weights.shape == shape
            torch.autograd.grad(weights.sum(), logits)
    assert ops.alignment(torch.tensor(2.0), dim=0) == 1.0


# ---- the one home ----


SOFTMAX = {"softmax", "log_softmax", "Softmax", "LogSoftmax", "scaled_dot_product_attention"}


def asks(home):
    """Files but the one home that ask whether attention is uniform; layers that take a softmax of their own."""
    found = []
    for path in sorted(home.rglob("*.py")):
        place = path.relative_to(home).as_posix()
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        spoken = {name for node in nodes for name in (getattr(node, k, None) for k in ("id", "attr", "name"))}
        wrong = {"is_uniform", "_uniform"} & spoken
        if place.startswith("nn/"):
            wrong |= {node.name for node in nodes if isinstance(node, ast.alias) and node.name in SOFTMAX}
            wrong |= {_called(node) for node in nodes if isinstance(node, ast.Call)} & SOFTMAX
        if wrong and place != "ops/alignment.py":
            found.append((place, sorted(wrong)))
    return found


def _called(call):
    """The name of a called function, unless it is one of hgat.ops."""
    if isinstance(call.func, ast.Attribute):
        of_ops = isinstance(call.func.value, ast.Name) and call.func.value.id == "ops"
        return None if of_ops else call.func.attr
    return getattr(call.func, "id", None)


def test_nobody_else_asks_whether_attention_is_uniform():
    assert asks(HOME) == []


@pytest.mark.parametrize(
    "line",
    [
        "from hgat.ops.alignment import is_uniform",
        "late = ops.alignment.is_uniform()",
        "import torch\nweights = torch.softmax(torch.ones(3), 0)",
        "weights = logits.softmax(-1)",
        "from torch.nn.functional import softmax",
        "out = F.scaled_dot_product_attention(q, k, v)",
    ],
)
def test_a_planted_question_is_found(tmp_path, line):
    (tmp_path / "nn").mkdir()
    path = tmp_path / "nn" / "foo.py"
    path.write_text("from hgat import ops\n\nout = ops.scaled_dot_product_attention(q, k, v)\n", encoding="utf-8")
    assert asks(tmp_path) == []
    path.write_text(f"{path.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    assert [place for place, _ in asks(tmp_path)] == ["nn/foo.py"]
