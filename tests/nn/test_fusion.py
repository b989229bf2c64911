"""Attention over views in the words of five systems, each against its equations written here without hgat."""

import pytest
import torch

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import Fusion, SemanticAttention

N, P, F, R = 7, 3, 5, 2


def _views():
    z = torch.randn(N, P, F, dtype=torch.float64, requires_grad=True)
    return z, [z[:, p] for p in range(P)]


def _leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def _softmax(x):
    return x.exp() / x.exp().sum(-1, keepdim=True)


def _han(layer, z, reference):
    first, _, last = layer.project
    return _softmax(torch.stack([(torch.tanh(z[:, p] @ first.weight.T + first.bias) @ last.weight[0]).mean()
                                 for p in range(P)]))  # fmt: skip


def _am_gcn(layer, z, reference):
    """Its own W for each view, as the paper is said to print it."""
    return _softmax(torch.stack([torch.tanh(z[:, p] @ s[0].weight.T + s[0].bias) @ s[2].weight[0]
                                 for p, s in enumerate(layer.project)], 1))  # fmt: skip


def _dagnn(layer, z, reference):
    s = z @ layer.project.weight[0] + layer.project.bias
    return 1 / (1 + (-s).exp())


def _gamlp(layer, z, reference):
    return _softmax(torch.stack([_leaky(torch.cat([z[:, p], reference], 1) @ layer.project.weight[0])
                                 for p in range(P)], 1))  # fmt: skip


def _acm(layer, z, reference):
    s = torch.stack([1 / (1 + (-(z[:, p] @ one.weight[0])).exp()) for p, one in enumerate(layer.project)], 1)
    return _softmax(s / 3 @ layer.mix)


SYSTEMS = {
    "HAN": (lambda: Fusion(F, hidden_feats=4, form="global"), _han, False),
    "AM-GCN": (lambda: Fusion(F, P, hidden_feats=4, shared=False), _am_gcn, False),
    "DAGNN": (lambda: Fusion(F, score="linear", score_bias=True, gate="sigmoid"), _dagnn, False),
    "GAMLP": (lambda: Fusion(F, score="linear", reference_feats=R, activation=torch.nn.LeakyReLU(0.2)), _gamlp, True),
    "ACM": (
        lambda: Fusion(F, P, score="linear", shared=False, activation=torch.sigmoid, mix=True, temperature=3.0),
        _acm,
        False,
    ),
}


@pytest.mark.parametrize("form", ["stacked", "list"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_equals_the_equations_of(system, form):
    build, equations, with_reference = SYSTEMS[system]
    layer = build().double()
    z, views = _views()
    reference = torch.randn(N, R, dtype=torch.float64, requires_grad=True) if with_reference else None
    beta = equations(layer, z, reference)
    expected = (beta.unsqueeze(-1) * z).sum(1)
    out, found = layer(z if form == "stacked" else views, reference)
    torch.testing.assert_close(found, beta)
    torch.testing.assert_close(out, expected)
    leaves = [z, *layer.parameters(), *([reference] if with_reference else [])]
    cotangent = torch.randn_like(out)
    for mine, wanted in zip(
        torch.autograd.grad(out, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent), strict=True
    ):
        torch.testing.assert_close(mine, wanted)
        assert (wanted != 0).any()


@pytest.mark.parametrize("system", SYSTEMS)
def test_uniform_attention_is_a_mean_of_the_views_or_their_plain_sum(system):
    build, _, with_reference = SYSTEMS[system]
    layer, (z, views) = build().double(), _views()
    reference = torch.randn(N, R, dtype=torch.float64) if with_reference else None
    expected = z.sum(1) if layer.gate == "sigmoid" else z.mean(1)
    for given in (z, views):
        with ops.uniform_attention():
            out, beta = layer(given, reference)
        torch.testing.assert_close(out, expected)
        assert (beta == beta.flatten()[0]).all()
        assert not torch.allclose(layer(given, reference)[0], expected)


def test_no_view_is_stacked_where_they_come_as_a_list(monkeypatch):
    layer = Fusion(F, score="linear", gate="sigmoid")
    big, seen = [torch.randn(1000, F) for _ in range(P)], []
    for name in ("stack", "cat"):
        real = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, real=real, **k: seen.append(real(*a, **k)) or seen[-1])
    out, beta = layer(big)
    assert all(made.numel() <= 1000 * P for made in seen)
    torch.testing.assert_close(out, sum(view * beta[:, p : p + 1] for p, view in enumerate(big)))


@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "tanh", "none"])
def test_gates_mix_and_temperature(gate):
    layer = Fusion(F, P, score="linear", gate=gate, mix=True, temperature=2.0).double()
    z, _ = _views()
    score = (z @ layer.project.weight[0]) / 2.0 @ layer.mix
    expected = {"softmax": _softmax(score), "sigmoid": 1 / (1 + (-score).exp()), "tanh": score.tanh(), "none": score}
    torch.testing.assert_close(layer.weights(z), expected[gate])
    assert layer.mix.abs().max() <= P**-0.5 and layer.mix.std() > 0
    before = layer.mix.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.mix)


def test_values_apart_from_what_is_scored():
    """As ACM+ does, which scores normalised channels and sums the channels themselves."""
    layer, (z, _) = Fusion(F).double(), _views()
    value = torch.randn(N, P, 2, dtype=torch.float64)
    _, beta = layer(z)
    for given in (value, [value[:, p] for p in range(P)]):
        out, found = layer(z, value=given)
        torch.testing.assert_close(found, beta)
        torch.testing.assert_close(out, (beta.unsqueeze(-1) * value).sum(1))


def test_references_that_differ_by_view():
    layer, (z, views) = Fusion(F, reference_feats=R).double(), _views()
    reference = torch.randn(N, P, R, dtype=torch.float64)
    expected = layer.project(torch.cat([z, reference], -1)).squeeze(-1).softmax(-1)
    for given in (z, views):
        for beside in (reference, [reference[:, p] for p in range(P)]):
            torch.testing.assert_close(layer(given, beside)[1], expected)


def test_dropout_acts_on_the_sum_and_not_on_what_is_given():
    layer, (z, _) = Fusion(F, attn_drop=0.5).double(), _views()
    out, beta = layer.train()(z)
    torch.testing.assert_close(beta.sum(-1), torch.ones(N, dtype=torch.float64))
    assert not torch.allclose(out, (beta.unsqueeze(-1) * z).sum(1))
    out, beta = layer.eval()(z)
    torch.testing.assert_close(out, (beta.unsqueeze(-1) * z).sum(1))


@pytest.mark.parametrize("form", ["stacked", "list"])
@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "tanh", "none"])
def test_what_is_given_may_be_overwritten(gate, form):
    layer, (z, views) = Fusion(F, gate=gate).double(), _views()
    found = []
    for overwrite in (False, True):
        outs = layer(z if form == "stacked" else views)
        loss = sum((out * 2.0).sum() for out in outs)
        if overwrite:
            for out in outs:
                out += 1.0
        found.append(torch.autograd.grad(loss, [z, *layer.parameters()]))
    for mine, wanted in zip(*found, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("form", ["global", "per_node"])
def test_semantic_attention_is_a_setting_of_fusion(form):
    torch.manual_seed(3)
    one = SemanticAttention(F, 4, form)
    torch.manual_seed(3)
    other = Fusion(F, hidden_feats=4, form=form)
    assert isinstance(one, Fusion)
    assert list(one.state_dict()) == ["project.0.weight", "project.0.bias", "project.2.weight"]
    z = torch.randn(N, P, F)
    for mine, wanted in zip(one(z), other(z), strict=True):
        assert torch.equal(mine, wanted)


def test_without_a_node():
    for form in ("global", "per_node"):
        for gate, share in (("softmax", 1 / P), ("sigmoid", 0.5)):
            for given in (torch.randn(0, P, F), [torch.randn(0, F)] * P):
                out, beta = Fusion(F, form=form, gate=gate)(given)
                assert out.shape == (0, F) and beta.shape == ((P,) if form == "global" else (0, P))
                torch.testing.assert_close(beta, torch.full_like(beta, share))


Z = torch.randn(N, P, F)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Fusion(F, mix=True), "num_views: expected a whole number, 1 or more, got None"),
        (lambda: Fusion(F, shared=False), "num_views: expected a whole number"),
        (lambda: Fusion(F, score="dot"), "score: expected 'additive' or 'linear', got 'dot'"),
        (lambda: Fusion(F, gate="relu"), "gate: expected 'softmax', 'sigmoid', 'tanh' or 'none', got 'relu'"),
        (lambda: Fusion(F, temperature=0.0), "temperature: expected a number above 0, got 0.0"),
        (lambda: Fusion(F, temperature="1"), "temperature: expected a finite number"),
        (lambda: Fusion(F, reference_feats=-1), "reference_feats: expected"),
        (lambda: Fusion(F, activation="relu"), "activation: expected a function or None"),
        (lambda: Fusion(F)(Z[..., 1:]), r"z: expected \[N, P, F\] = \[any, any, 5\], got \[7, 3, 4\]"),
        (lambda: Fusion(F, 4)(Z), r"z: expected \[N, P, F\] = \[any, 4, 5\], got \[7, 3, 5\]"),
        (lambda: Fusion(F)([]), "z: expected one view or more, got 0"),
        (lambda: Fusion(F, 4)([Z[:, 0]] * 3), "z: expected 4 views, got 3"),
        (lambda: Fusion(F)([Z[:, 0], Z[1:, 0]]), r"z\[1\]: expected \[N, F\] = \[7, 5\], got \[6, 5\]"),
        (lambda: Fusion(F)([Z[:, 0], Z[:, 0].double()]), r"z\[1\]: expected torch.float32 like"),
        (lambda: Fusion(F)(None), "z: expected a tensor, got NoneType"),
        (lambda: Fusion(F)(Z, torch.randn(N, R)), "reference: expected no numbers beside a view, got one"),
        (lambda: Fusion(F, reference_feats=R)(Z), "reference: expected 2 numbers beside a view, got none"),
        (lambda: Fusion(F, reference_feats=R)(Z, torch.randn(6, R)), r"reference: expected \[N, R\] = \[7, 2\]"),
        (
            lambda: Fusion(F, reference_feats=R)(Z, torch.randn(N, 2, R)),
            r"reference: expected \[N, P, F\] = \[7, 3, 2\]",
        ),
        (lambda: Fusion(F, reference_feats=R)(Z, [torch.randn(N, R)]), "reference: expected 3 views, got 1"),
        (lambda: Fusion(F)(Z, value=Z[:, :2]), r"value: expected \[N, P, F\] = \[7, 3, any\], got \[7, 2, 5\]"),
    ],
)
def test_wrong_calls_are_one_sentence(call, match):
    with pytest.raises(ShapeError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_bias_of_an_additive_score_shifts_every_score():
    """Behind a sigmoid it counts; behind a softmax it would not."""
    torch.manual_seed(0)
    fusion, z = Fusion(F, score="additive", score_bias=True, gate="sigmoid"), torch.randn(7, 3, F)
    with torch.no_grad():
        fusion.project[2].bias.fill_(0.0)
        without = fusion.scores(z)
        fusion.project[2].bias.fill_(0.5)
        torch.testing.assert_close(fusion.scores(z), without + 0.5)
    assert Fusion(F, score="additive").project[2].bias is None
