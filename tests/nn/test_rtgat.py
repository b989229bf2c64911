"""RTGATConv against the equations, and against TGATConv where there is one relation."""

import re

import pytest
import torch
import torch.nn.functional as F

from cases import padding_is_not_read
from hgat import ops
from hgat.errors import HgatError
from hgat.nn import RTGATConv, TGATConv

B, K, IN, OUT, HEADS, TIME, EDGE = 11, 5, 7, 3, 2, 6, 4
ETYPES = [("event", name, end) for name, end in (("of", "plane"), ("from", "place"), ("to", "place"))]
R = len(ETYPES)
FORMS = [
    {},
    {"softmax": "within"},
    {"edge_feats": EDGE, "num_heads": 3, "norm": False},
    {"edge_feats": EDGE, "softmax": "within", "time_encoding": "sincos"},
]


def layer_of(num_heads=HEADS, etypes=ETYPES, **settings):
    layer = RTGATConv(IN, OUT, num_heads, TIME, etypes, **settings)
    for name, parameter in layer.named_parameters():
        if name in ("time.phase", "fc_out.bias", "merge.0.bias", "merge.2.bias"):
            torch.nn.init.normal_(parameter)  # zero or small at the start: a term that could be forgotten
    return layer


def batch(edge_feats=0, relations=R):
    """A call's tensors; row 0 has no event, row 1 has all, row 2 none under the first relation."""
    mask = torch.rand(B, relations, K) < 0.6
    mask[0], mask[1], mask[2, 0] = False, True, False
    edge_feat = torch.randn(B, relations, K, edge_feats) if edge_feats else None
    return torch.randn(B, IN), torch.randn(B, relations, K, IN), torch.rand(B, relations, K) * 9, mask, edge_feat


def oracle(layer, heads, softmax, feat, neighbour_feat, elapsed, mask, edge_feat):
    """One node and one head at a time; the parameters are the layer's, the equations the docstring's."""
    p = dict(layer.named_parameters())
    d = p["fc_q.weight"].shape[0] // heads
    out, alpha = [], torch.zeros(len(feat), heads, R, K)
    for i, h in enumerate(feat):
        edge = torch.zeros(0 if edge_feat is None else edge_feat.shape[-1])
        q, o = torch.cat([h, edge, layer.time(torch.zeros(()))]), torch.zeros(heads, d)
        found = [(r, j) for r in range(R) for j in range(K) if mask[i, r, j]]
        x = {
            (r, j): torch.cat(
                [
                    neighbour_feat[i, r, j],
                    edge if edge_feat is None else edge_feat[i, r, j],
                    layer.time(elapsed[i, r, j]),
                ]
            )
            for r, j in found
        }
        for head in range(heads):
            rows = slice(head * d, (head + 1) * d)
            e = {
                (r, j): ((p["fc_q.weight"][rows] @ q) @ (p["weight_k"][r, rows] @ y) / d**0.5).exp()
                for (r, j), y in x.items()
            }
            for r, j in found:
                total = sum(e[s, k] for s, k in found if softmax == "across" or s == r)
                alpha[i, head, r, j] = e[r, j] / total
                o[head] = o[head] + alpha[i, head, r, j] * (p["weight_v"][r, rows] @ x[r, j])
        o = p["fc_out.weight"] @ o.flatten() + p["fc_out.bias"]
        if "norm.weight" in p:
            o = F.layer_norm(o + q, q.shape, p["norm.weight"], p["norm.bias"])
        hidden = torch.relu(p["merge.0.weight"] @ torch.cat([o, h]) + p["merge.0.bias"])
        out.append(p["merge.2.weight"] @ hidden + p["merge.2.bias"])
    return torch.stack(out), alpha


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_equals_the_equations(settings):
    layer, tensors = layer_of(**settings), batch(settings.get("edge_feats", 0))
    expected, alpha = oracle(layer, settings.get("num_heads", HEADS), settings.get("softmax", "across"), *tensors)
    out, alpha_got = layer(*tensors, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha_got, alpha, atol=1e-6, rtol=1e-5)
    assert torch.equal(layer(*tensors), out)


@pytest.mark.parametrize("softmax", ["across", "within"])
def test_of_one_relation_it_is_tgat(softmax):
    layer = layer_of(etypes=ETYPES[:1], softmax=softmax)
    plain = TGATConv(IN, OUT, HEADS, TIME)
    state = {key: value for key, value in layer.state_dict().items() if key != "_extra_state"}
    state |= {f"fc_{name}.weight": state.pop(f"weight_{name}")[0] for name in "kv"}
    plain.load_state_dict(state)
    feat, *events = (None if x is None else x for x in batch(relations=1))
    expected, alpha = plain(feat, *(x.squeeze(1) for x in events[:3]), get_attention=True)
    out, got = layer(feat, *events, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.squeeze(2), alpha)


def test_starts_like_tgat():
    layer = RTGATConv(64, 32, 2, 64, ETYPES)
    for weight in (layer.fc_q.weight, *layer.weight_k, *layer.weight_v):
        assert weight.shape == (128, 128) and abs(weight.std() - (2 / (128 + 64)) ** 0.5) < 2e-3
    assert not hasattr(layer, "fc_k") and not hasattr(layer, "fc_v")


@pytest.mark.parametrize("softmax", ["across", "within"])
def test_uniform_attention_is_a_mean(softmax):
    layer, tensors = layer_of(softmax=softmax), batch()
    with ops.uniform_attention():
        out, alpha = layer(*tensors, get_attention=True)
    mask = tensors[3]
    count = mask.sum((1, 2) if softmax == "across" else 2, keepdim=True)
    torch.testing.assert_close(alpha, (mask / count.clamp(min=1)).unsqueeze(1).expand_as(alpha))
    with torch.no_grad():
        layer.fc_q.weight.zero_()
    torch.testing.assert_close(layer(*tensors), out)


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("padding", [1e30, float("inf"), float("nan")])
def test_padding_has_no_influence(settings, padding):
    layer = layer_of(**settings)
    padding_is_not_read(layer, batch(settings.get("edge_feats", 0)), padding)


def test_relations_are_matched_by_name():
    layer, tensors = layer_of(), batch()
    order = [2, 0, 1]
    moved = layer_of(etypes=[ETYPES[k] for k in order])
    moved.load_state_dict(layer.state_dict())
    feat, *events = tensors
    again = moved(feat, *(None if x is None else x[:, order] for x in events))
    torch.testing.assert_close(again, layer(*tensors), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(layer(feat, *(None if x is None else x[:, order] for x in events)), again, atol=1e-3)
    with pytest.raises(HgatError, match="state dict: expected relations"):
        layer_of(etypes=[*ETYPES[:2], ("event", "by", "person")]).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_every_parameter_gets_a_gradient_and_sizes_of_zero_are_served(settings):
    layer = layer_of(attn_drop=0.1, out_drop=0.1, **settings).train()
    tensors = batch(settings.get("edge_feats", 0))
    out = layer(*tensors)
    out.backward(torch.randn_like(out))
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name
    feat, *events = tensors
    assert layer(feat[:0], *(None if x is None else x[:0] for x in events)).shape == (0, OUT)
    assert layer(feat, *(None if x is None else x[:, :, :0] for x in events)).shape == (B, OUT)


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
            lambda: layer(feat, neighbour_feat[:, 1:], elapsed, mask, edge_feat),
            "neighbour_feat: expected [B, R, K, F] = [11, 3, any, 7], got [11, 2, 5, 7]",
        ),
        (
            lambda: layer(feat, neighbour_feat, elapsed[..., 1:], mask, edge_feat),
            "elapsed: expected [B, R, K] = [11, 3, 5], got [11, 3, 4]",
        ),
        (
            lambda: layer(feat, neighbour_feat, elapsed, mask.float(), edge_feat),
            "mask: expected torch.bool, got torch.float32",
        ),
        (lambda: layer(feat, neighbour_feat, None, mask, edge_feat), "elapsed: expected a tensor [B, R, K], got None"),
        (lambda: layer(feat, neighbour_feat, elapsed, mask), "edge_feat: expected 4 numbers per event, got none"),
        (lambda: layer_of(softmax="both"), "softmax: expected 'across' or 'within', got 'both'"),
        (lambda: layer_of(etypes=["of"]), "etypes: expected (source type, relation, destination type)"),
        (lambda: layer_of(num_heads=0), "num_heads: expected 1 or more, got 0"),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            call()
