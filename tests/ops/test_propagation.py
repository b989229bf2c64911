"""Repeated sums with fixed weights: against powers of a dense matrix, forward and every gradient."""

import dgl
import pytest
import torch
from torch.autograd import gradcheck

from hgat import ops
from hgat.errors import GraphError, ShapeError
from zoo import ZOO, build, typed_graph

SQUARE = [name for name in ZOO if name not in ("bipartite", "block", "relation_slice")]


def dense(graph, weight):
    """A[v, u], the sum of the weights of the edges u -> v."""
    src, dst = (x.long() for x in graph.edges(order="eid"))
    size = graph.num_nodes()
    return weight.new_zeros(size * size).index_add(0, dst * size + src, weight).view(size, size)


def powers(graph, x, weight, steps, restart):
    """[z^0, ..., z^steps]."""
    found = [x]
    for _ in range(steps):
        found.append((1 - restart) * dense(graph, weight) @ found[-1] + restart * x)
    return found


@pytest.mark.parametrize("restart", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("backend", ["auto", "dgl"])
@pytest.mark.parametrize("name", SQUARE)
def test_equals_the_powers_of_a_dense_matrix(name, backend, restart):
    graph = build(name)
    x = torch.randn(graph.num_nodes(), 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(graph.num_edges(), dtype=torch.float64, requires_grad=True)  # half of them negative
    expected = powers(graph, x, weight, 3, restart)
    with ops.use_backend(backend):
        got = ops.propagate(graph, x, weight, 3, restart=restart)
        each = ops.propagate(graph, x, weight, 3, restart=restart, every=True)
    torch.testing.assert_close(got, expected[-1])
    assert len(each) == 4 and each[0] is x
    for one, wanted in zip(each, expected, strict=True):
        torch.testing.assert_close(one, wanted)
    cotangents = [torch.randn_like(x) for _ in each]
    of_loops = torch.autograd.grad(expected, [x, weight], cotangents, allow_unused=True, retain_graph=True)
    for mine, wanted in zip(torch.autograd.grad(each, [x, weight], cotangents), of_loops, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if wanted is None else wanted)
    of_loops = torch.autograd.grad(expected[-1], [x, weight], cotangents[0], allow_unused=True)
    for mine, wanted in zip(torch.autograd.grad(got, [x, weight], cotangents[0]), of_loops, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if wanted is None else wanted)


@pytest.mark.parametrize("form", ["per head", "one for all", "ones"])
def test_heads(form):
    graph = build("hub")
    x = torch.randn(37, 3, 2, dtype=torch.float64, requires_grad=True)
    shape = {"per head": (graph.num_edges(), 3), "one for all": (graph.num_edges(),), "ones": None}[form]
    weight = None if shape is None else torch.randn(shape, dtype=torch.float64, requires_grad=True)
    got = ops.propagate(graph, x, weight, 2, restart=0.2)
    columns = torch.ones(graph.num_edges(), 3, dtype=torch.float64) if weight is None else weight
    columns = columns.unsqueeze(1).expand(-1, 3) if columns.dim() == 1 else columns
    expected = torch.stack([powers(graph, x[:, h], columns[:, h], 2, 0.2)[-1] for h in range(3)], 1)
    torch.testing.assert_close(got, expected)
    if weight is not None:
        assert gradcheck(lambda *a: ops.propagate(graph, *a, 2, restart=0.2), [x, weight], fast_mode=True)


def test_ones_are_neighbour_counts_and_no_step_is_a_copy():
    graph = build("multi_edges")
    ones = torch.ones(11, 1)
    torch.testing.assert_close(ops.propagate(graph, ones).flatten(), graph.in_degrees().float())
    still = ops.propagate(graph, ones, steps=0)
    assert torch.equal(still, ones) and still is not ones and still.data_ptr() != ones.data_ptr()
    assert ops.propagate(graph, ones, steps=0, every=True)[0] is ones


def test_the_result_may_be_overwritten():
    graph = build("hub")
    x = torch.randn(37, 4, requires_grad=True)
    weight = torch.rand(graph.num_edges(), requires_grad=True)
    found = []
    for overwrite in (False, True):
        out = ops.propagate(graph, x, weight, 3, restart=0.1)
        if overwrite:
            out += 1.0
        found.append(torch.autograd.grad(out.sum(), [x, weight]))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_in_chunks_and_in_half_precision():
    graph = build("hub")
    x, weight = torch.randn(37, 4), torch.rand(graph.num_edges()) / 8
    whole = ops.propagate(graph, x, weight, 3)
    with ops.use_backend("dgl"), ops.in_chunks(17):
        torch.testing.assert_close(ops.propagate(graph, x, weight, 3), whole)
    half = ops.propagate(graph, x.to(torch.bfloat16), weight, 3)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": [[1.0]]}, "x: expected a floating-point tensor .* got list"),
        ({"x": torch.ones(23, 2).long()}, "x: expected a floating-point tensor .* got torch.int64"),
        ({"x": torch.ones(23)}, r"x: expected a floating-point tensor \[N, F\] or \[N, H, D\], got \[23\]"),
        ({"x": torch.ones(22, 2)}, r"x: expected \[N, F\] = \[23, any\], got \[22, 2\]"),
        ({"weight": [1.0] * 120}, r"weight: expected a floating-point tensor \[E\] or \[E, H\], got list"),
        ({"weight": torch.ones(120).long()}, "weight: expected a floating-point tensor .* got torch.int64"),
        ({"weight": torch.ones(119)}, r"weight: expected \[E\] = \[120\], got \[119\]"),
        ({"weight": torch.ones(120, 1)}, r"weight: expected \[E\] = \[120\], got \[120, 1\]"),
        ({"x": torch.ones(23, 3, 2), "weight": torch.ones(120, 2)}, r"weight: expected \[E, H\] = \[120, 3\]"),
        ({"weight": torch.ones(120, device="meta")}, "weight: expected device cpu like x, got meta"),
        ({"steps": -1}, "steps: expected a whole number, 0 or more|steps: expected 0 or more"),
        ({"steps": 1.5}, "steps: expected a whole number"),
        ({"restart": 1.5}, "restart: expected a number from 0 to 1, got 1.5"),
        ({"restart": "0.1"}, "restart: expected a number"),
    ],
)
def test_wrong_calls_are_one_sentence(change, match):
    with pytest.raises(ShapeError, match=match) as caught:
        ops.propagate(build("homogeneous"), **{"x": torch.ones(23, 2), **change})
    assert "\n" not in str(caught.value)


def test_graphs_whose_destinations_are_not_their_sources():
    for name in ("bipartite", "block"):
        graph = build(name)
        with pytest.raises(GraphError, match="graph: expected one whose destinations are its sources, got"):
            ops.propagate(graph, torch.ones(graph.num_src_nodes(), 2))
    graph = build("homogeneous")
    block = dgl.to_block(graph, graph.nodes())  # as many at both ends
    with pytest.raises(GraphError, match="got a block"):
        ops.propagate(block, torch.ones(block.num_src_nodes(), 2))
    with pytest.raises(GraphError, match="expected one relation"):
        ops.propagate(typed_graph(), torch.ones(24, 2))
