"""Co-attention of two sets against its equations, written here for one pair of sets without masks."""

import pytest
import torch
from padded import SIZES, padded_sets

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import (
    AlternatingCoAttention,
    AttentionViaAttention,
    InteractiveCoAttention,
    MultiGrainedCoAttention,
    MultiHopAttention,
    ParallelCoAttention,
    RotatoryAttention,
)

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


def additive(attend, query, x):
    """(context, weights) of one set by w . tanh(W_1 q + W_2 x + b)."""
    model = attend.attention_model
    hidden = x @ attend.feature_model.fc_key.weight.T + attend.query_model.fc_query.weight @ query + model.bias[0]
    alpha = softmax(torch.tanh(hidden) @ model.attn[0])
    return alpha @ x, alpha


def mean(x):
    return x.sum(0) / max(len(x), 1)


def alternating(layer):
    def equations(x, y):
        first, _ = additive(layer.over_x, torch.zeros(y.shape[1]).to(x), x)
        of_y, alpha_y = additive(layer.over_y, first, y)
        of_x, alpha_x = additive(layer.over_x, of_y, x)
        return torch.cat([of_x, of_y]), (alpha_x, alpha_y)

    return equations


def interactive(layer):
    def equations(x, y):
        of_x, alpha_x = additive(layer.over_x, mean(y), x)
        of_y, alpha_y = additive(layer.over_y, mean(x), y)
        return torch.cat([of_x, of_y]), (alpha_x, alpha_y)

    return equations


@pytest.mark.parametrize("form", ["alternating", "interactive"])
def test_coarse(form):
    forms = {"alternating": (AlternatingCoAttention, alternating), "interactive": (InteractiveCoAttention, interactive)}
    build, oracle = forms[form]
    layer = build((FX, FY)).double()
    for attend in (layer.over_x, layer.over_y):
        torch.nn.init.normal_(attend.attention_model.bias)
    out, weights, wanted = each(layer, oracle(layer))
    for b, (row, alphas) in enumerate(wanted):
        torch.testing.assert_close(out[b], row)
        for found, alpha in zip(weights, alphas, strict=True):
            torch.testing.assert_close(found[b, : len(alpha)], alpha)
            assert (found[b, len(alpha) :] == 0).all()


def test_a_set_of_one_item_is_what_it_says_and_what_it_asks():
    layer = AlternatingCoAttention((FX, FY)).double()
    x, (y, y_mask) = torch.randn(4, 1, FX).double(), padded_sets(FY, OTHERS)
    out = layer(x, y, None, y_mask)
    torch.testing.assert_close(out[:, :FX], x[:, 0])
    torch.testing.assert_close(out[:, FX:], layer.over_y(x[:, 0], y, mask=y_mask))


def test_both_grains_stand_side_by_side():
    coarse, fine = InteractiveCoAttention((FX, FY)).double(), ParallelCoAttention((FX, FY), 4).double()
    sets = pair()
    x, x_mask, y, y_mask = sets
    given = x, y, x_mask, y_mask
    out, weights = MultiGrainedCoAttention(coarse, fine)(*given, get_attention=True)
    (one, of_one), (other, of_other) = (layer(*given, get_attention=True) for layer in (coarse, fine))
    assert torch.equal(out, torch.cat([one, other], 1))
    assert all(map(torch.equal, weights, (*of_one, *of_other)))


def test_rotatory():
    torch.manual_seed(3)
    layer = RotatoryAttention((FX, FY)).double()
    target, left, right = padded_sets(FX), padded_sets(FY, OTHERS, seed=7), padded_sets(FY, (1, 3, 0, 2), seed=9)

    def attend(over, query, x):
        w, b = over.attention_model.weight[0], over.attention_model.bias[0]
        alpha = softmax(torch.tanh(x @ w @ query + b))
        return alpha @ x, alpha

    masks = target[1], left[1], right[1]
    out, weights = layer(target[0], left[0], right[0], *masks, get_attention=True)
    for b in range(4):
        t, one, other = (x[b][mask[b]] for x, mask in (target, left, right))
        found = [attend(layer.over_left, mean(t), one), attend(layer.over_right, mean(t), other)]
        found += [attend(layer.by_left, found[0][0], t), attend(layer.by_right, found[1][0], t)]
        torch.testing.assert_close(out[b], torch.cat([context for context, _ in found]))
        for alpha, (_, wanted) in zip(weights, found, strict=True):
            torch.testing.assert_close(alpha[b, : len(wanted)], wanted)


@pytest.mark.parametrize("kind", [AlternatingCoAttention, InteractiveCoAttention, RotatoryAttention, "levels", "hops"])
def test_weights_are_made_only_where_they_are_asked_for(kind):
    torch.manual_seed(3)
    x, y, query = torch.randn(2, 3, 5), torch.randn(2, 4, 5), torch.randn(2, 5)
    if kind == "levels":
        layer, inputs = AttentionViaAttention(5, 5, score="general"), (query, x, y)
    elif kind == "hops":
        layer, inputs = MultiHopAttention(5, 5, 2, score="general"), (query, x)
    else:
        layer, inputs = kind(5, score="general"), (x, y, y)[: 3 if kind is RotatoryAttention else 2]
    calls = []
    with ops.attention_hook(lambda call: calls.append(call.kind)):
        layer(*inputs)
    assert calls and set(calls) == {"pairs"}  # PyTorch's own attention
    torch.testing.assert_close(layer(*inputs), layer(*inputs, get_attention=True)[0])


X, Y = torch.randn(2, 3, FX), torch.randn(2, 4, FY)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ParallelCoAttention(5, affinity="cosine"), "affinity: expected 'bilinear' or 'concat', got 'cosine'"),
        (lambda: ParallelCoAttention(5, score="mean"), "score: expected 'additive' or 'max', got 'mean'"),
        (lambda: ParallelCoAttention((5, 3), affinity="concat"), "in_feats: expected one width for affinity 'concat'"),
        (lambda: InteractiveCoAttention(5, num_heads=2), "num_heads: expected one head whose rows are as wide as the"),
        (lambda: AlternatingCoAttention(5, query="none"), "query: expected one of what is given, got 'none'"),
        (lambda: RotatoryAttention(5, query="trained"), "query: expected one of what is given, got 'trained'"),
        (
            lambda: InteractiveCoAttention(5, map_bais=True),
            "map_bais: expected a setting of .* did you mean 'map_bias'?",
        ),
        (lambda: AlternatingCoAttention(5, score="dot"), "score: expected 'additive', 'linear', 'multiplicative'"),
        (lambda: MultiGrainedCoAttention(torch.nn.Tanh(), None), "coarse: expected a module of co-attention, got Tanh"),
        (
            lambda: MultiGrainedCoAttention(InteractiveCoAttention(5), ParallelCoAttention((5, 3))),
            r"fine: expected the widths \(5, 5\) of coarse, got \(5, 3\)",
        ),
        (lambda: InteractiveCoAttention(5)(X, Y), r"y: expected \[B, N, F\] = \[2, any, 5\], got \[2, 4, 3\]"),
        (lambda: ParallelCoAttention((5, 3))(X, Y[1:]), r"y: expected \[B, N, F\] = \[2, any, 3\], got \[1, 4, 3\]"),
        (
            lambda: ParallelCoAttention((5, 3))(X, Y, torch.ones(2, 4).bool()),
            r"mask of x: expected \[B, N\] = \[2, 3\], got \[2, 4\]",
        ),
        (lambda: RotatoryAttention((5, 3))(X, Y, Y, torch.ones(2, 3)), "mask of target: expected torch.bool on cpu"),
        (lambda: RotatoryAttention((5, 3))(X, Y, None), "right: expected a tensor, got NoneType"),
    ],
)
def test_wrong_calls_are_one_sentence(call, match):
    with pytest.raises(ShapeError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
