"""Time in half precision: angles of days and decades in seconds are computed in float32, and cast behind the cosine."""

import copy

import pytest
import torch

from hgat.nn import TemporalAttention, TGATConv, TimeEncoding

HALVES = [torch.float16, torch.bfloat16]
GAPS = {"a minute": 60.0, "a day": 86400.0, "a year": 3.15e7, "decades": 1.2e9}


def _close(got, want, kind):
    """Equal within what the half type itself can tell apart, many times over."""
    assert got.dtype == kind and torch.isfinite(got).all()
    torch.testing.assert_close(
        got.double(), want.double(), atol=40 * torch.finfo(kind).eps, rtol=40 * torch.finfo(kind).eps
    )


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("form", ["cos", "sincos"])
def test_code_of_elapsed_time(form, gap, kind):
    code = TimeEncoding(8, form)
    elapsed = GAPS[gap] * torch.linspace(0, 1, 9, dtype=torch.float64)
    want = code(elapsed)
    half = copy.deepcopy(code).to(kind)
    _close(half(elapsed), want, kind)
    assert torch.equal(half.float()(elapsed), want)  # there and back: no frequency was rounded
    assert half.frequency.dtype == torch.float32


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.parametrize("gap", GAPS)
def test_tgat_layer(gap, kind):
    layer = TGATConv(6, 5, 2, 4, edge_feats=3).eval()
    feat, neighbour, edge = torch.randn(3, 6), torch.randn(3, 4, 6), torch.randn(3, 4, 3)
    elapsed = GAPS[gap] * torch.rand(3, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, False, False, True], [False] * 4])
    want = layer(feat, neighbour, elapsed, mask, edge)
    half = copy.deepcopy(layer).to(kind)
    _close(half(feat.to(kind), neighbour.to(kind), elapsed, mask, edge.to(kind)), want, kind)
    out = half(feat.to(kind), neighbour.to(kind), elapsed.long(), mask, edge.to(kind))
    out.sum().backward()
    for name, parameter in half.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.parametrize("gap", GAPS)
def test_temporal_attention_at_times(gap, kind):
    layer = TemporalAttention(6, 3, position="time").eval()
    x, time = torch.randn(5, 4, 6), GAPS[gap] * torch.arange(4, dtype=torch.float64)
    want = layer(x, time=time)
    half = copy.deepcopy(layer).to(kind)
    _close(half(x.to(kind), time=time), want, kind)
    cache, outs = None, []
    for step in range(4):
        out, cache = half.extend(x[:, step].to(kind), cache, time=float(time[step]))
        outs.append(out)
    _close(torch.stack(outs, 1), want, kind)


@pytest.mark.parametrize("kind", HALVES, ids=str)
def test_moving_a_layer_keeps_gradients_state_and_other_types(kind):
    code = TimeEncoding(4)
    code(torch.tensor([3.0])).sum().backward()
    grad = code.frequency.grad.clone()
    code.to(kind)
    assert torch.equal(code.frequency.grad, grad) and code.frequency.grad.dtype == torch.float32
    code.load_state_dict(TimeEncoding(4).state_dict())
    assert code.double().frequency.dtype == torch.float64 and code(torch.tensor([1.0])).dtype == torch.float64
    assert code.to("meta").frequency.device.type == "meta"
    assert set(code.state_dict()) == {"frequency", "phase"}
    assert all(
        p.dtype == kind for n, p in TGATConv(6, 5, 2, 4).to(kind).named_parameters() if not n.startswith("time.")
    )
