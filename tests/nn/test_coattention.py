"""Co-attention of two sets against its equations, written here for one pair of sets without masks."""

import pytest
import torch
from padded import SIZES, padded_sets

from hgat.errors import ShapeError
from hgat.nn import ParallelCoAttention

FX, FY = 5, 3
OTHERS = (2, 4, 3, 1)


def pair(fx=FX, fy=FY):
    """Two padded sets of different sizes; the second of x is empty."""
    return *padded_sets(fx), *padded_sets(fy, OTHERS, seed=7)


def each(layer, equations, fx=FX, fy=FY):
    """(what the layer gives, what the equations give) of each pair of sets, gradients of x among it."""
    x, x_mask, y, y_mask = pair(fx, fy)
    x.requires_grad_()
    out, weights = layer(x, y, x_mask, y_mask, get_attention=True)
    wanted = [equations(x[b, :n], y[b, :m]) for b, (n, m) in enumerate(zip(SIZES, OTHERS, strict=True))]
    cotangent = torch.randn_like(out)
    mine = torch.autograd.grad(out, x, cotangent)[0]
    theirs = torch.autograd.grad(torch.stack([one for one, _ in wanted]), x, cotangent)[0]
    torch.testing.assert_close(mine, theirs)
    return out, weights, wanted


def softmax(e):
    return e.exp() / e.exp().sum()


def parallel(layer):
    def equations(x, y):
        if layer.affinity == "bilinear":
            a = torch.tanh(x @ layer.relate.weight.T @ y.T)
        else:
            w = layer.relate.weight[0]
            a = torch.stack([torch.stack([w @ torch.cat([i, j, i * j]) for j in y]) for i in x]) if len(x) else x @ y.T
        if layer.score == "max":
            ex = a.max(1).values if len(x) else a.sum(1)
            ey = a.max(0).values if len(x) else a.sum(0)
        else:
            w1, w2 = layer.project_x.weight, layer.project_y.weight
            ex = layer.score_x.weight[0] @ torch.tanh(w2 @ y.T @ a.T + w1 @ x.T)
            ey = layer.score_y.weight[0] @ torch.tanh(w1 @ x.T @ a + w2 @ y.T)
        weights = softmax(ex), softmax(ey)
        return torch.cat([weights[0] @ x, weights[1] @ y]), weights

    return equations


@pytest.mark.parametrize("score", ["additive", "max"])
@pytest.mark.parametrize("affinity", ["bilinear", "concat"])
def test_parallel(affinity, score):
    widths = (FX, FY) if affinity == "bilinear" else (FX, FX)
    layer = ParallelCoAttention(widths, 4, affinity=affinity, score=score).double()
    out, weights, wanted = each(layer, parallel(layer), *widths)
    for b, (row, (of_x, of_y)) in enumerate(wanted):
        torch.testing.assert_close(out[b], row)
        torch.testing.assert_close(weights[0][b, : SIZES[b]], of_x)
        torch.testing.assert_close(weights[1][b, : OTHERS[b]], of_y)
