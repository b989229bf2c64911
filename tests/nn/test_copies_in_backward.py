"""Backward of a layer copies no gradient that it could hand on: steps of autograd that do are not in its graph."""

import pytest
import torch

from hgat.nn import FAConv, GATConv, HGTConv, SimpleHGNConv, UAGConv
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


def test_the_steps_are_seen():
    x = torch.randn(3, 2, requires_grad=True)
    assert steps(x[:3] * 2) & COPIES == {"SliceBackward0"}
    out = x * 2
    out[0].add_(1)
    assert "CopySlices" in steps(out)
