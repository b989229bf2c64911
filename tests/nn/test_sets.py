"""What holds for every module on padded sets: padding, order, empty sets, uniform attention; and for their graphs."""

import pytest
import torch
from catalogue import tensors
from padded import SIZES, padded_sets, repadded, shuffled
from test_no_waiting import moved, watched

from hgat import nn as hnn
from hgat import ops

F, Q = 5, 4
OTHERS = (2, 4, 3, 1)


def _query():
    return torch.randn(4, Q, generator=torch.Generator().manual_seed(5)).double()


# Name: (layer, how it is called with sets (x, mask), how many sets).
CASES = {
    "alternating": (lambda: hnn.AlternatingCoAttention(F), 2),
    "alternating, scaled": (lambda: hnn.AlternatingCoAttention(F, score="scaled"), 2),
    "interactive": (lambda: hnn.InteractiveCoAttention(F), 2),
    "interactive, best": (lambda: hnn.InteractiveCoAttention(F, alignment="local", top_k=2), 2),
    "parallel": (lambda: hnn.ParallelCoAttention(F), 2),
    "parallel, greatest": (lambda: hnn.ParallelCoAttention(F, affinity="concat", score="max"), 2),
    "grained": (
        lambda: hnn.MultiGrainedCoAttention(
            hnn.AlternatingCoAttention(F), hnn.ParallelCoAttention(F, affinity="concat")
        ),
        2,
    ),
    "rotatory": (lambda: hnn.RotatoryAttention(F), 3),
    "via": (lambda: hnn.AttentionViaAttention(Q, F), 2),
    "hierarchical": (lambda: hnn.HierarchicalAttention(F), 1),
    "hops": (lambda: hnn.MultiHopAttention(F, Q, 2), 1),
    "capsules": (lambda: hnn.CapsuleAttention(F, 3), 1),
}


def build(name):
    torch.manual_seed(0)
    make, count = CASES[name]
    return make().double(), [
        padded_sets(F, sizes, seed=k) for k, sizes in enumerate((SIZES, OTHERS, (3, 1, 2, 4))[:count])
    ]


def call(name, layer, sets, get_attention=False, query=None):
    """What the layer gives of these sets; groups of one whole are two sets each."""
    xs, masks = zip(*sets, strict=True)
    if name == "hierarchical":
        return layer(xs[0].unflatten(0, (2, 2)), masks[0].unflatten(0, (2, 2)), get_attention=get_attention)
    before = [_query() if query is None else query] if name in ("via", "hops") else []
    return layer(*before, *xs, *masks, get_attention=get_attention)


@pytest.mark.parametrize("name", CASES)
def test_padding_and_order_change_nothing(name):
    layer, sets = build(name)
    wanted = tensors(call(name, layer, sets))
    for change in (repadded, lambda x, mask: shuffled(x, mask)[:2]):
        moved = [change(*one) for one in sets]
        for out, want in zip(tensors(call(name, layer, moved)), wanted, strict=True):
            torch.testing.assert_close(out, want)
    x = sets[0][0].clone().requires_grad_()
    wide, mask = repadded(x, sets[0][1])
    loss = sum(out.square().sum() for out in tensors(call(name, layer, [(wide, mask), *sets[1:]])))
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_weights_stand_on_items_and_sum_to_one(name):
    layer, sets = build(name)
    _, weights = call(name, layer, sets, get_attention=True)
    for alpha in tensors((weights,)):
        total = alpha.sum(1 if name == "capsules" else -1)
        assert ((total - 1).abs() < 1e-9).logical_or(total == 0).all() and (alpha >= 0).all()


def _means(name, sets):
    """What is found with all weights alike."""
    means = [x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1) for x, mask in sets]
    if name == "hierarchical":
        return torch.stack([means[0][0], means[0][2:].mean(0)])  # the empty group has no part
    if name == "rotatory":
        return torch.cat([means[1], means[2], means[0], means[0]], 1)
    return torch.cat(means * (2 if name == "grained" else 1), 1)


@pytest.mark.parametrize("name", [name for name in CASES if name != "interactive, best"])
def test_uniform_attention_is_the_mean(name):
    layer, sets = build(name)
    plain = call(name, layer, sets)
    with ops.uniform_attention():
        out = call(name, layer, sets)
    if name == "capsules":
        plain, out = (one.reconstruction[:, 0] / one.probability[:, :1] for one in (plain, out))
    wanted = _means(name, sets)
    torch.testing.assert_close(out, wanted)
    assert not torch.allclose(plain, wanted)


@pytest.mark.parametrize("name", CASES)
def test_no_set_and_sets_without_places(name):
    layer, sets = build(name)
    empty = [(x[:, :0], mask[:, :0]) for x, mask in sets]
    for out in tensors(call(name, layer, empty)):
        assert out.isfinite().all()
    first = tensors(call(name, layer, empty))[0]
    assert name == "capsules" or (first == 0).all()
    if name not in ("via", "hops"):
        for out in tensors(
            call(name, layer, [(x[:0], mask[:0]) for x, mask in sets]) if name != "hierarchical" else ()
        ):
            assert out.numel() == 0


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_learns_and_survives(name):
    layer, sets = build(name)
    loss = sum((out * torch.randn_like(out)).sum() for out in tensors(call(name, layer, sets)) if out.requires_grad)
    for key, grad in zip(
        dict(layer.named_parameters()), torch.autograd.grad(loss, list(layer.parameters())), strict=True
    ):
        assert grad.isfinite().all() and (grad != 0).any(), key
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    wanted = tensors(call(name, layer, sets))
    layer.reset_parameters()
    assert not all(torch.equal(one, other) for one, other in zip(tensors(call(name, layer, sets)), wanted, strict=True))
    layer.load_state_dict(state)
    assert all(map(torch.equal, tensors(call(name, layer, sets)), wanted))


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_may_be_overwritten(name):
    layer, sets = build(name)
    for x, _ in sets:
        x.requires_grad_()
    found = []
    for overwrite in (False, True):
        outs = tensors(call(name, layer, sets, get_attention=True))
        torch.manual_seed(1)
        loss = sum((out * torch.randn_like(out)).sum() for out in outs)
        if overwrite:
            for out in outs:
                out += 1.0
        found.append(torch.autograd.grad(loss, [*layer.parameters(), *(x for x, _ in sets)]))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", CASES)
def test_nothing_waits_on_a_gpu(name):
    layer, sets = build(name)
    query = moved(_query())
    call(name, watched(layer.to("meta")), moved(sets), query=query)
