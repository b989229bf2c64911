"""TGATConv and its code of time, against the equations."""

import re

import pytest
import torch
import torch.nn.functional as F

from cases import padding_is_not_read
from hgat import ops
from hgat.errors import HgatError
from hgat.nn.tgat import TGATConv, TimeEncoding

B, K, IN, OUT, HEADS, TIME, EDGE = 11, 5, 7, 3, 2, 6, 4
FORMS = [
    {},
    {"edge_feats": EDGE},
    {"edge_feats": EDGE, "norm": False},
    {"time_encoding": "sincos"},
    {"num_heads": 3, "edge_feats": EDGE, "time_encoding": "sincos", "norm": False},
]


def layer_of(num_heads=HEADS, **settings):
    layer = TGATConv(IN, OUT, num_heads, TIME, **settings)
    if layer.time.phase is not None:
        torch.nn.init.normal_(layer.time.phase)  # zero at the start: a term that could be forgotten
    for bias in (layer.fc_out.bias, layer.merge[0].bias, layer.merge[2].bias):
        torch.nn.init.normal_(bias)
    return layer


def batch(edge_feats=0, dtype=torch.float32):
    """A call's tensors; row 0 has no event, row 1 has all K."""
    mask = torch.rand(B, K) < 0.6
    mask[0], mask[1] = False, True
    edge_feat = torch.randn(B, K, edge_feats, dtype=dtype) if edge_feats else None
    return torch.randn(B, IN, dtype=dtype), torch.randn(B, K, IN, dtype=dtype), torch.rand(B, K) * 9, mask, edge_feat


def oracle(layer, heads, feat, neighbour_feat, elapsed, mask, edge_feat):
    """One node, one head and one event at a time; the parameters are the layer's, the equations the docstring's."""
    p = dict(layer.named_parameters())
    d = p["fc_q.weight"].shape[0] // heads

    def phi(t):
        w = p["time.frequency"]
        if "time.phase" in p:
            return torch.cos(w * t + p["time.phase"])
        return torch.stack([f(x * t) for x in w for f in (torch.cos, torch.sin)]) / len(w) ** 0.5

    out, alpha = [], torch.zeros(len(feat), heads, mask.shape[1])
    for i, h in enumerate(feat):
        edge = torch.zeros(0 if edge_feat is None else edge_feat.shape[-1])
        q, o = torch.cat([h, edge, phi(0.0)]), torch.zeros(heads, d)
        js = mask[i].nonzero().flatten().tolist()
        x = [
            torch.cat([neighbour_feat[i, j], edge if edge_feat is None else edge_feat[i, j], phi(elapsed[i, j])])
            for j in js
        ]
        for head in range(heads) if js else ():
            w_q, w_k, w_v = (p[f"fc_{name}.weight"][head * d : (head + 1) * d] for name in "qkv")
            e = torch.stack([(w_q @ q) @ (w_k @ y) / d**0.5 for y in x]).exp()
            alpha[i, head, js] = e / e.sum()
            o[head] = sum(a * (w_v @ y) for a, y in zip(e / e.sum(), x, strict=True))
        o = p["fc_out.weight"] @ o.flatten() + p["fc_out.bias"]
        if "norm.weight" in p:
            o = F.layer_norm(o + q, q.shape, p["norm.weight"], p["norm.bias"])
        hidden = torch.relu(p["merge.0.weight"] @ torch.cat([o, h]) + p["merge.0.bias"])
        out.append(p["merge.2.weight"] @ hidden + p["merge.2.bias"])
    return torch.stack(out), alpha


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_equals_the_equations(settings):
    layer = layer_of(**settings)
    tensors = batch(settings.get("edge_feats", 0))
    expected, alpha = oracle(layer, settings.get("num_heads", HEADS), *tensors)
    out, alpha_got = layer(*tensors, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha_got, alpha, atol=1e-6, rtol=1e-5)
    assert torch.equal(layer(*tensors), out)


def test_starts_as_the_authors():
    layer = TGATConv(64, 32, 2, 64)
    torch.testing.assert_close(layer.time.frequency[[0, 7, -1]], torch.tensor([1.0, 10**-1.0, 1e-9]))
    assert not layer.time.phase.any()
    for weight in (layer.fc_q.weight, layer.fc_k.weight, layer.fc_v.weight):
        assert weight.shape == (128, 128) and abs(weight.std() - (2 / (128 + 64)) ** 0.5) < 2e-3


def test_time_encodings():
    elapsed = torch.tensor([[0.0, 2.5], [1e4, 7.0]])
    cos, both = TimeEncoding(5), TimeEncoding(6, "sincos")
    assert cos(elapsed).shape == (2, 2, 5) and both(elapsed).shape == (2, 2, 6)
    torch.testing.assert_close(cos(elapsed)[0, 1], torch.cos(2.5 * 10 ** -torch.linspace(0, 9, 5)))
    w = 10 ** -torch.linspace(0, 9, 3)
    expected = torch.stack([torch.cos(7 * w), torch.sin(7 * w)], 1).flatten() / 3**0.5
    torch.testing.assert_close(both(elapsed)[1, 1], expected)
    torch.testing.assert_close(both(elapsed).norm(dim=-1), torch.ones(2, 2))
    assert torch.equal(cos(elapsed.long()), cos(elapsed.long().float()))


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("padding", [1e30, float("inf"), float("nan")])
def test_padding_has_no_influence(settings, padding):
    layer = layer_of(**settings)
    padding_is_not_read(layer, batch(settings.get("edge_feats", 0)), padding)


def test_without_events_the_sum_is_zero():
    layer = layer_of(norm=False)
    feat, neighbour_feat, elapsed, mask, _ = batch()
    out, alpha = layer(feat, neighbour_feat, elapsed, torch.zeros_like(mask), get_attention=True)
    expected = layer.merge(torch.cat([layer.fc_out.bias.expand(B, -1), feat], 1))
    torch.testing.assert_close(out, expected)
    assert not alpha.any()
    assert layer(feat, neighbour_feat[:, :0], elapsed[:, :0], mask[:, :0]).shape == (B, OUT)
    assert layer(feat[:0], neighbour_feat[:0], elapsed[:0], mask[:0]).shape == (0, OUT)


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_alpha_sums_to_one_and_order_of_events_does_not_matter(settings):
    layer = layer_of(**settings)
    feat, *events = batch(settings.get("edge_feats", 0))
    out, alpha = layer(feat, *events, get_attention=True)
    assert alpha.shape == (B, settings.get("num_heads", HEADS), K)
    expected = events[2].any(1, keepdim=True).float().expand(alpha.shape[:2])
    torch.testing.assert_close(alpha.sum(-1), expected)
    order = torch.randperm(K)
    moved = [None if x is None else x[:, order] for x in events]
    again, alpha_again = layer(feat, *moved, get_attention=True)
    torch.testing.assert_close(again, out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha_again, alpha[..., order], atol=1e-6, rtol=1e-5)


def test_uniform_attention_is_a_mean():
    layer, tensors = layer_of(), batch()
    with ops.uniform_attention():
        out, alpha = layer(*tensors, get_attention=True)
    mask = tensors[3]
    expected = mask / mask.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(alpha, expected.unsqueeze(1).expand_as(alpha))
    with torch.no_grad():
        layer.fc_q.weight.zero_()
    torch.testing.assert_close(layer(*tensors), out)


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_every_parameter_gets_a_gradient_and_state_dict_round_trips(settings):
    layer = layer_of(attn_drop=0.1, out_drop=0.1, **settings).train()
    tensors = batch(settings.get("edge_feats", 0))
    out = layer(*tensors)
    out.backward(torch.randn_like(out))
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name
    other = TGATConv(
        IN, OUT, settings.get("num_heads", HEADS), TIME, **{k: v for k, v in settings.items() if k != "num_heads"}
    )
    assert not torch.equal(other.eval()(*tensors), layer.eval()(*tensors))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(*tensors), layer(*tensors))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [FORMS[1], FORMS[3]], ids=str)
def test_gradients_are_those_of_the_equations(settings):
    layer = layer_of(**settings).double()
    feat, neighbour_feat, elapsed, mask, edge_feat = batch(settings.get("edge_feats", 0), torch.float64)
    elapsed = elapsed.double()
    inputs = [x.requires_grad_() for x in (feat, neighbour_feat, elapsed, edge_feat) if x is not None]

    def run(feat, neighbour_feat, elapsed, *edge_feat):
        return layer(feat, neighbour_feat, elapsed, mask, *edge_feat)

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("rate", ["attn_drop", "out_drop"])
def test_dropout_acts_in_training_only(rate):
    layer, tensors = layer_of(**{rate: 0.5}), batch()
    assert not torch.equal(layer.train()(*tensors), layer(*tensors))
    assert torch.equal(layer.eval()(*tensors), layer(*tensors))


def test_wrong_calls_are_one_sentence():
    layer = layer_of(edge_feats=EDGE)
    feat, neighbour_feat, elapsed, mask, edge_feat = batch(EDGE)
    for call, sentence in [
        (
            lambda: layer(feat[:, 1:], neighbour_feat, elapsed, mask, edge_feat),
            "feat: expected [B, F] = [any, 7], got [11, 6]",
        ),
        (
            lambda: layer(feat, neighbour_feat[1:], elapsed, mask, edge_feat),
            "neighbour_feat: expected [B, K, F] = [11, any, 7], got [10, 5, 7]",
        ),
        (
            lambda: layer(feat, neighbour_feat, elapsed[:, 1:], mask, edge_feat),
            "elapsed: expected [B, K] = [11, 5], got [11, 4]",
        ),
        (
            lambda: layer(feat, neighbour_feat, elapsed, mask[1:], edge_feat),
            "mask: expected [B, K] = [11, 5], got [10, 5]",
        ),
        (
            lambda: layer(feat, neighbour_feat, elapsed, mask.float(), edge_feat),
            "mask: expected torch.bool, got torch.float32",
        ),
        (lambda: layer(feat, neighbour_feat, elapsed, mask), "edge_feat: expected 4 numbers per event, got none"),
        (
            lambda: layer(feat, neighbour_feat, elapsed, mask, edge_feat[..., 1:]),
            "edge_feat: expected [B, K, Fe] = [11, 5, 4], got [11, 5, 3]",
        ),
        (
            lambda: layer_of()(feat, neighbour_feat, elapsed, mask, edge_feat),
            "edge_feat: expected no numbers per event, got [11, 5, 4]",
        ),
        (lambda: TimeEncoding(5, "sincos"), "width: expected an even number for 'sincos', got 5"),
        (lambda: TimeEncoding(5, "sin"), "form: expected 'cos' or 'sincos', got 'sin'"),
        (lambda: TGATConv(IN, OUT, 0, TIME), "num_heads: expected 1 or more, got 0"),
        (lambda: TGATConv(IN, OUT, 2, 0), "time_feats: expected 1 or more, got 0"),
        (lambda: TGATConv(IN, OUT, 2, TIME, attn_drop=1.5), "attn_drop: expected a number from 0 to 1, got 1.5"),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            call()
