"""TemporalAttention against the equations, one node and one step at a time; no step sees a later one."""

import re

import pytest
import torch

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import TemporalAttention

N, T, F, HEADS = 11, 7, 6, 3
TIME = torch.tensor([0.0, 1.0, 1.5, 4.0, 9.0, 9.5, 30.0])
FORMS = [
    {},
    {"position": "none"},
    {"position": "time"},
    {"scale": "sqrt_T"},
    {"position": "time", "scale": "sqrt_T", "feed_forward": False},
    {"num_heads": 1, "feed_forward": False},
    {"num_heads": 6, "position": "none", "scale": "sqrt_T"},
    {"residual": True},
    {"residual": True, "position": "time", "feed_forward": False},
]
forms = pytest.mark.parametrize("settings", FORMS, ids=str)
shown = pytest.mark.parametrize("absent", [False, True], ids=["all present", "some absent"])


def layer_of(num_heads=HEADS, **settings):
    layer = TemporalAttention(F, num_heads, T, **settings)
    for name, parameter in layer.named_parameters():
        if "bias" in name or name == "phase":
            torch.nn.init.normal_(parameter)  # zero at the start: a term that could be forgotten
    return layer


def presence():
    """[T, N]: node 0 always, node 1 never, node 2 with gaps, the others from some step on."""
    present = torch.arange(T).unsqueeze(1) >= torch.randint(0, T, (N,))
    present[:, 0], present[:, 1] = True, False
    present[:, 2] = torch.arange(T) % 2 == 1
    return present


def inputs(layer, absent=False, dtype=torch.float32):
    time = TIME.to(dtype) if layer.position == "time" else None
    return torch.randn(N, T, F, dtype=dtype), presence() if absent else None, time


def place_of(layer, time):
    """p of every step, [T, F]."""
    p = dict(layer.named_parameters())
    if "frequency" in p:
        return torch.stack([torch.cos(p["frequency"] * t + p["phase"]) for t in time])
    return p.get("place", torch.zeros(T, F))


def oracle(layer, heads, x, present=None, time=None):
    """(out, beta): the parameters are the layer's, the equations the docstring's."""
    p, d, steps = dict(layer.named_parameters()), F // heads, x.shape[1]
    place = place_of(layer, time)
    beta = torch.zeros(len(x), heads, steps, steps, dtype=x.dtype)
    scale = (d if layer.scale == "sqrt_d" else steps) ** 0.5
    rows = []
    for v in range(len(x)):
        q, k, value = ((x[v] + place) @ w.t() for w in p["qkv.weight"].split(F))
        for i in range(steps):
            if present is not None and not present[i, v]:
                rows.append(torch.zeros(F, dtype=x.dtype))
                continue
            seen = [j for j in range(i + 1) if present is None or present[j, v]]
            z = []
            for h in range(heads):
                part = slice(h * d, (h + 1) * d)
                e = torch.stack([q[i, part] @ k[j, part] / scale for j in seen]).exp()
                beta[v, h, i, seen] = (e / e.sum()).detach()
                z.append((e / e.sum()) @ value[seen][:, part])
            z = torch.cat(z) + (x[v, i] + place[i] if layer.residual else 0)
            if "feed_forward.weight" in p:
                z = torch.relu(p["feed_forward.weight"] @ z + p["feed_forward.bias"]) + z
            rows.append(z)
    return torch.stack(rows).view_as(x), beta


@shown
@forms
def test_equals_the_equations(settings, absent):
    layer = layer_of(**settings)
    tensors = inputs(layer, absent)
    expected, beta = oracle(layer, settings.get("num_heads", HEADS), *tensors)
    out, got = layer(*tensors, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got, beta, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(layer(*tensors), out, atol=0, rtol=0)


@pytest.mark.slow
@shown
@forms
def test_gradients_equal_those_of_the_equations(settings, absent):
    layer = layer_of(**settings).double()
    x, *rest = inputs(layer, absent, torch.float64)
    x.requires_grad_()
    cotangent, grads = torch.randn_like(x), []
    for run in (layer, lambda *args: oracle(layer, settings.get("num_heads", HEADS), *args)[0]):
        leaves = [x, *layer.parameters()]
        grads.append(torch.autograd.grad(run(x, *rest), leaves, cotangent))
    for got, expected in zip(*grads, strict=True):
        assert torch.isfinite(got).all() and (got != 0).any()
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-8)


def rows_that_change(layer, absent=False):
    """{step: the steps whose rows change when x at that step does}."""
    x, present, time = inputs(layer, absent)
    out, found = layer(x, present, time), {}
    for t in range(T):
        other = x.clone()
        other[:, t] = torch.randn(N, F)
        changed = (layer(other, present, time) != out).any(-1)  # [N, T]
        found[t] = changed.any(0).nonzero().flatten().tolist()
    return found


@shown
@forms
def test_no_step_sees_a_later_one(settings, absent):
    changed = rows_that_change(layer_of(**settings), absent)
    assert changed == {t: list(range(t, T)) for t in range(T)}  # and every later step sees the earlier ones


@forms
def test_the_mask_as_printed_is_found_out(settings, monkeypatch):
    """The paper's M_ij = 0 for i <= j, i the row: every step would see the future and not the past."""
    monkeypatch.setattr(torch.Tensor, "tril", torch.Tensor.triu)
    changed = rows_that_change(layer_of(**settings))
    assert changed == {t: list(range(t + 1)) for t in range(T)}


@forms
def test_one_step_is_a_projection_and_the_feed_forward_layer(settings):
    layer = layer_of(**settings)
    x, _, time = inputs(layer)
    time = None if time is None else time[:1] + 3
    x = x[:, :1]
    placed = x + place_of(layer, time)[:1]
    z = placed @ layer.qkv.weight[2 * F :].t() + (placed if layer.residual else 0)
    expected = z if layer.feed_forward is None else torch.relu(layer.feed_forward(z)) + z
    out, beta = layer(x, None, time, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    assert (beta == 1).all()


@forms
def test_absent_steps_are_seen_by_no_other_and_give_zeros(settings):
    layer = layer_of(**settings)
    x, present, time = inputs(layer, absent=True)
    there = present.t()
    out, beta = layer(x, present, time, get_attention=True)
    assert not out[~there].any() and out[there].any(-1).all()
    torch.testing.assert_close(beta.sum(-1), there.float().unsqueeze(1).expand(-1, beta.shape[1], -1))
    assert not beta.masked_select(~there[:, None, None, :]).any()
    assert not beta.masked_select(~there[:, None, :, None]).any()
    for junk in (1e4, -1e4):
        other = torch.where(there.unsqueeze(-1), x, junk)
        assert torch.equal(layer(other, present, time), out)
    everyone = torch.ones_like(present)
    assert torch.equal(layer(x, everyone, time), layer(x, None, time))


@pytest.mark.parametrize("training", [False, True])
@forms
def test_never_nan(settings, training):
    """Not where nothing at all is present, nor with large scores; not in backward either."""
    for size in (1.0, 1e4):
        for present in (presence(), torch.zeros(T, N, dtype=torch.bool)):
            layer = layer_of(**settings, attn_drop=0.5).train(training)
            x, _, time = inputs(layer)
            x = (x * size).requires_grad_()
            out = layer(x, present, time)
            out.backward(torch.randn_like(out))
            assert torch.isfinite(out).all()
            for grad in (x.grad, *(p.grad for p in layer.parameters())):
                assert torch.isfinite(grad).all()
            assert not x.grad[~present.t()].any()


@forms
def test_every_row_of_the_mask_sees_something(settings, monkeypatch):
    """Where a row sees nothing it is up to PyTorch's version whether that is zero or NaN."""
    real = torch.nn.functional.scaled_dot_product_attention

    def strict(query, key, value, mask, *args, **options):
        assert mask.any(-1).all()
        return real(query, key, value, mask, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", strict)
    layer = layer_of(**settings)
    x, present, time = inputs(layer, absent=True)
    layer(x, present, time)
    cache = None
    for t in range(T):
        _, cache = layer.extend(x[:, t], cache, present[t], None if time is None else time[t])


def test_positions():
    x = torch.randn(N, T, F)
    learned, none = layer_of(), layer_of(position="none")
    none.load_state_dict({k: v for k, v in learned.state_dict().items() if k != "place"})
    torch.testing.assert_close(learned(x), none(x + learned.place))
    timed = layer_of(position="time")
    none.load_state_dict({k: v for k, v in timed.state_dict().items() if k not in ("frequency", "phase")})
    code = torch.cos(TIME.unsqueeze(1) * timed.frequency + timed.phase)
    torch.testing.assert_close(timed(x, time=TIME), none(x + code))
    # Without positions a step sees the set of those before it, in no order.
    order = torch.tensor([2, 0, 1, 3, 4, 5, 6])
    torch.testing.assert_close(none(x[:, order])[:, 3:], none(x)[:, 3:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(learned(x[:, order])[:, 3:], learned(x)[:, 3:], atol=1e-3)


def test_times_count_from_anywhere_but_their_origin_is_a_phase():
    """time + c is phase + frequency * c, no more: shifted times are not the same, yet the layer can learn them."""
    layer, x = layer_of(position="time"), torch.randn(N, T, F)
    out, shifted = layer(x, time=TIME), layer(x, time=TIME + 5)
    assert not torch.allclose(out, shifted, atol=1e-3)
    with torch.no_grad():
        layer.phase += layer.frequency * 5
    torch.testing.assert_close(layer(x, time=TIME), shifted, atol=1e-5, rtol=1e-5)
    whole = torch.arange(T)
    assert torch.equal(layer(x, time=whole), layer(x, time=whole.double()))


@shown
@forms
def test_extend_gives_the_columns_of_forward(settings, absent):
    layer = layer_of(**settings)
    x, present, time = inputs(layer, absent)
    whole, cache = layer(x, present, time), None
    for t in range(T):
        now = [None if part is None else part[t] for part in (present, time)]
        row, cache = layer.extend(x[:, t], cache, *now)
        prefix = layer(x[:, : t + 1], *(None if part is None else part[: t + 1] for part in (present, time)))
        torch.testing.assert_close(row, prefix[:, t], atol=1e-5, rtol=1e-5)
        if layer.scale == "sqrt_d":  # sqrt(T) is of the steps so far
            torch.testing.assert_close(row, whole[:, t], atol=1e-5, rtol=1e-5)
        elif t == T // 2:
            assert not torch.allclose(row, whole[:, t], atol=1e-4)


def test_extend_takes_a_number_as_its_time_and_leaves_the_cache_as_it_was():
    layer, x = layer_of(position="time"), torch.randn(N, T, F)
    _, cache = layer.extend(x[:, 0], time=0)
    kept = [part.clone() for part in cache]
    one, _ = layer.extend(x[:, 1], cache, time=2)
    two, _ = layer.extend(x[:, 1], cache, time=torch.tensor(2.0))
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(cache, kept, strict=True))


def test_extend_remembers_presence_from_before_it_was_given():
    layer, x, present = layer_of(), torch.randn(N, 2, F), presence()[:2]
    present[0] = True
    _, cache = layer.extend(x[:, 0])
    row, _ = layer.extend(x[:, 1], cache, present[1])
    torch.testing.assert_close(row, layer(x, present)[:, 1], atol=1e-5, rtol=1e-5)


@shown
@forms
def test_uniform_attention_is_a_mean_over_the_past(settings, absent):
    layer = layer_of(**settings)
    x, present, time = inputs(layer, absent)
    there = torch.ones(N, T, dtype=torch.bool) if present is None else present.t()
    placed = x + place_of(layer, time)
    value = placed @ layer.qkv.weight[2 * F :].t() * there.unsqueeze(-1)
    count = there.cumsum(1).clamp_min(1).unsqueeze(-1)
    z = value.cumsum(1) / count + (placed if layer.residual else 0)
    expected = (z if layer.feed_forward is None else torch.relu(layer.feed_forward(z)) + z) * there.unsqueeze(-1)
    with ops.uniform_attention():
        out, beta = layer(x, present, time, get_attention=True)
        cache = None
        for t in range(T):
            now = [None if part is None else part[t] for part in (present, time)]
            row, cache = layer.extend(x[:, t], cache, *now)
            torch.testing.assert_close(row, expected[:, t], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    both = (there.unsqueeze(1) & there.unsqueeze(2)).tril()
    torch.testing.assert_close(beta, (both / count).unsqueeze(1).expand_as(beta))


@forms
def test_dropout_acts_in_training_only_and_beta_is_before_it(settings):
    layer = layer_of(**settings, attn_drop=0.5)
    x, present, time = inputs(layer, absent=True)
    out, beta = layer(x, present, time, get_attention=True)
    again, beta_again = layer(x, present, time, get_attention=True)
    assert not torch.equal(out, again) and torch.equal(beta, beta_again)
    layer.eval()
    assert torch.equal(layer(x, present, time), layer(x, present, time))


@forms
def test_state_dict_round_trip(settings):
    layer, other = layer_of(**settings), layer_of(**settings)
    tensors = inputs(layer)
    out = layer(*tensors)
    assert not torch.equal(other(*tensors), out)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(*tensors), out)


def test_starts_as_it_says():
    layer = TemporalAttention(64, 2, 9)
    for weight in (*layer.qkv.weight.split(64), layer.place, layer.feed_forward.weight):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
    assert not layer.feed_forward.bias.any()
    timed = TemporalAttention(64, 2, position="time")
    torch.testing.assert_close(timed.frequency[[0, 7, -1]], torch.tensor([1.0, 0.1, 1e-9]))
    assert not timed.phase.any()


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda x: layer_of()(x[0]), "x: expected [N, T, F] = [any, any, 6], got [7, 6]"),
    (lambda x: layer_of()(x[..., 1:]), "x: expected [N, T, F] = [any, any, 6], got [11, 7, 5]"),
    (lambda x: layer_of()(x, presence().t()), "present: expected [T, N] = [7, 11], got [11, 7]"),
    (lambda x: layer_of()(torch.cat([x, x], 1)), "x: expected at most 7 steps, as many as positions, got 14"),
    (lambda x: layer_of(position="time")(x), "time: expected the time of every step, [T], got None"),
    (lambda x: layer_of(position="time")(x, time=TIME[1:]), "time: expected [T] = [7], got [6]"),
    (lambda x: layer_of().extend(x), "x: expected [N, F] = [any, 6], got [11, 7, 6]"),
    (lambda x: layer_of().extend(x[:, 0], present=presence()), "present: expected [N] = [11], got [7, 11]"),
    (lambda x: layer_of(position="time").extend(x[:, 0]), "time: expected the time of every step, [T], got None"),
    (lambda x: (a := layer_of()).extend(x[1:, 0], a.extend(x[:, 0])[1]), "x: expected [N, F] = [11, 6], got [10, 6]"),
    (lambda x: TemporalAttention(F, 4, T), "num_heads: expected a divisor of F = 6, got 4"),
    (lambda x: TemporalAttention(F, 0, T), "num_heads: expected a divisor of F = 6, got 0"),
    (lambda x: TemporalAttention(F, 3), "num_steps: expected 1 or more for learned positions, got None"),
    (lambda x: TemporalAttention(F, 3, 0), "num_steps: expected 1 or more for learned positions, got 0"),
    (lambda x: TemporalAttention(F, 3, T, position="sine"), "position: expected 'learned', 'time' or 'none', got"),
    (lambda x: TemporalAttention(F, 3, T, scale="none"), "scale: expected 'sqrt_d' or 'sqrt_T', got 'none'"),
])  # fmt: skip
def test_wrong_calls_are_one_sentence(change, sentence):
    with pytest.raises(ShapeError, match=re.escape(sentence)) as error:
        change(torch.randn(N, T, F))
    assert "\n" not in str(error.value)


def test_extend_past_the_last_position_is_one_sentence():
    layer, x, cache = layer_of(), torch.randn(N, F), None
    for _ in range(T):
        _, cache = layer.extend(x, cache)
    with pytest.raises(ShapeError, match="x: expected at most 7 steps, as many as positions, got 8"):
        layer.extend(x, cache)
    layer, cache = layer_of(position="none"), None
    for _ in range(T + 2):  # without positions there is no last one
        row, cache = layer.extend(x, cache)
    assert row.shape == (N, F) and torch.isfinite(row).all()
