"""Backward of a layer copies no gradient that it could hand on: steps of autograd that do are not in its graph."""

import pytest
import torch
import torch.nn.functional as F

from hgat.nn import FAConv, GATConv, HGTConv, SimpleHGNConv, UAGConv
from hgat.nn.common import scored_rows
from hgat.ops import use_backend
from zoo import build

COPIES = {"CopySlices", "SliceBackward0", "AsStridedBackward0"}


def steps(out):
    """Names of the steps of autograd behind `out`."""
    found, todo = set(), [out.grad_fn]
    while todo:
        step = todo.pop()
        if step is not None and step not in found:
            found.add(step)
            todo += [before for before, _ in step.next_functions]
    return {step.name().rpartition("::")[2] for step in found}


@pytest.mark.parametrize("wide", [False, True], ids=["projected vectors", "folded vectors"])
def test_gat_takes_no_slice_of_all_rows(wide):
    layer = GATConv(6, 8 if wide else 2, 2, allow_zero_in_degree=True)
    assert not steps(layer(build("homogeneous"), torch.randn(23, 6, requires_grad=True))) & COPIES


@pytest.mark.parametrize("name", ["HGT", "Simple-HGN", "UAG"])
def test_nor_do_its_relatives(name):
    graph, x = build("homogeneous"), torch.randn(23, 6, requires_grad=True)
    etype, ntype = torch.arange(graph.num_edges()) % 3, torch.zeros(23, dtype=torch.int64)
    out = {
        "HGT": lambda: HGTConv(6, 3, 2, 1, 3)(graph, x, ntype, etype),
        "Simple-HGN": lambda: SimpleHGNConv(6, 3, 2, 3, allow_zero_in_degree=True)(graph, x, etype),
        "UAG": lambda: UAGConv(6, 3, 2)(graph, x),
    }[name]()
    assert not steps(out) & COPIES


def test_faconv_adds_to_no_view():
    x = torch.randn(23, 6, requires_grad=True)
    assert not steps(FAConv(6)(build("homogeneous"), x, x)) & COPIES


def test_the_gradients_of_rows_and_of_their_scores_are_one_step():
    x = torch.randn(23, 6, requires_grad=True)
    assert not steps(FAConv(6)(build("homogeneous"), x, x)) & {"MmBackward0", "AddmmBackward0", "TBackward0"}


@pytest.mark.parametrize("form", ["signed", "two_channel"])
@pytest.mark.parametrize("backend", ["native", "torch", "dgl"])
def test_gradients_that_others_hold_are_not_written_to(form, backend):
    """d_out comes from outside, and of the gradients of x and of initial each has memory of its own."""
    graph, layer = build("homogeneous"), FAConv(6, form=form)
    x, along = torch.randn(23, 6, requires_grad=True), torch.randn(23, 6)
    kept = along.clone()
    with use_backend(backend):
        once, again = (torch.autograd.grad(layer(graph, x, x * 1.0), [x, *layer.parameters()], along) for _ in "ab")
    assert torch.equal(along, kept)
    torch.testing.assert_close(once, again, rtol=0, atol=0)
    layer, x, along = layer.double(), x.detach().double().requires_grad_(), along.double()
    assert torch.autograd.gradcheck(lambda x: layer(graph, x, x * 1.0), x)


@pytest.mark.parametrize("width", [1, 3])
def test_scored_rows_have_the_gradients_of_a_linear_map(width):
    x, weight = torch.randn(9, 4, requires_grad=True), torch.randn(width, 4, requires_grad=True)
    along = torch.randn(9, 4), torch.randn(9, width)
    plain = torch.autograd.grad((x * 1.0, F.linear(x, weight)), (x, weight), along)
    rows, scores = scored_rows(x, weight)
    torch.testing.assert_close(torch.autograd.grad((rows * 1.0, scores), (x, weight), along), plain)
    with torch.autocast("cpu", torch.bfloat16):
        rows, scores = scored_rows(x, weight)
    assert (rows.dtype, scores.dtype) == (torch.float32, torch.bfloat16)
    halved = torch.autograd.grad((rows * 1.0, scores), (x, weight), (along[0], along[1].bfloat16()))
    torch.testing.assert_close(halved, plain, rtol=0.05, atol=0.05)


def test_the_steps_are_seen():
    x = torch.randn(3, 2, requires_grad=True)
    assert steps(x[:3] * 2) & COPIES == {"SliceBackward0"}
    out = x * 2
    out[0].add_(1)
    assert "CopySlices" in steps(out)
