"""What an operator returns may be overwritten: backward does not read it, and nothing is copied for that."""

import pytest
import torch
import torch.nn.functional as F
from backends import ON_CPU

from cases import HEADS, OPERATORS
from hgat import ops
from hgat.kernels import cpu
from zoo import build


def _relu_(out):
    return F.relu(out, inplace=True)


def _of_flat(out):
    return F.elu(out.flatten(1), inplace=True)


def _residual(out):
    out += 1.5
    return out.square()


def _unseen(out):
    """A write that PyTorch does not count."""
    out.data.zero_()
    return out


CHANGES = {
    "relu_": (_relu_, F.relu),
    "flatten": (_of_flat, lambda out: F.elu(out.flatten(1))),
    "residual": (_residual, lambda out: (out + 1.5).square()),
    "data": (_unseen, lambda out: out),
}


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_are_those_of_a_result_that_was_left_alone(operator, change, backend):
    graph = build("hub")
    arguments = OPERATORS[operator][0](graph, torch.float64, True)
    leaves = [v.requires_grad_() for v in arguments.values()]
    in_place, plain = CHANGES[change]
    options = {"dropout": 0.3, "seed": 5, "edge_weight": torch.rand(graph.num_edges(), HEADS, dtype=torch.float64)}
    found = []
    with ops.use_backend(backend):
        for activation in (in_place, plain):
            out = activation(getattr(ops, f"{operator}_attention")(graph, **arguments, **options))
            cotangent = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
            found.append(torch.autograd.grad(out, leaves, cotangent))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-12, rtol=1e-10)


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_result_is_not_kept_for_backward(operator):
    graph = build("hub")
    arguments = OPERATORS[operator][0](graph, torch.float32, False)
    leaves = [v.requires_grad_() for v in arguments.values()]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = getattr(ops, f"{operator}_attention")(graph, **arguments)
    given = {leaf.data_ptr() for leaf in leaves}
    own = [t for t in kept if t.data_ptr() not in given and t.is_floating_point()]
    # Beside the inputs: the highest logit and the sum of every node and head, of which gates have none.
    assert {tuple(t.shape) for t in own} == (set() if operator == "gated" else {(graph.num_nodes(), HEADS)})
    assert out.data_ptr() not in {t.data_ptr() for t in kept}
