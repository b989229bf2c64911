"""Every Triton kernel in Triton's interpreter, on the CPU, against plain PyTorch in float64.

Needs TRITON_INTERPRET=1 before Triton is imported, so it runs in a process of its own: `make test-triton`.
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 is not set", allow_module_level=True)

import plain
import triton
import triton.language as tl

from hgat.kernels import triton as kernels
from hgat.kernels.triton import _common, _host, launch
from hgat.ops.dropout import dropout_numbers, dropout_scale

KINDS = ("additive", "gatv2", "dot")
# What a kernel takes and gives gradients of, in its own order.
INPUTS = {
    "additive": ("value", "left", "right", "edge"),
    "gatv2": ("left", "right", "edge", "attn"),
    "dot": ("right", "left", "value", "edge"),
}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
DROPOUT = dropout_numbers(0.4, 1234567891011)
HEADS, WIDTH = 3, 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Four edges at a time, rows of more than eight are cut, and merged one chunk at a time: every loop goes round."""
    monkeypatch.setattr(launch, "CHUNK", 8)
    monkeypatch.setattr(launch, "LONGEST_CHUNK", 8)
    monkeypatch.setattr(launch, "NODE_PROGRAMS", 2)
    monkeypatch.setattr(launch, "TABLE", {k: (128, 1024, *[2 if "nodes" in k else 4] * 3) for k in launch.TABLE})
    monkeypatch.setattr(launch, "merge_blocks", lambda width, heads=1: launch.Blocks(1, launch.power_of_two(heads), 4))
    launch.blocks.cache_clear()
    yield
    launch.blocks.cache_clear()


class Case:
    """Arguments of one operator on one graph, and calls of it whose results start as NaN."""

    def __init__(
        self, kind, graph, dtype=torch.float32, terms=True, heads=HEADS, width=WIDTH, shared=False, dropout=None
    ):
        torch.manual_seed(7)
        self.src, self.dst, self.num_src, self.num_dst = graph
        self.edges, self.heads, self.kind, self.dropout = self.src.shape[0], heads, kind, dropout
        self.structure = kernels.build_structure(*graph)
        left_width = width - 1 if kind == "dot" else width
        self.factor = 0.2 if kind != "dot" else left_width**-0.5
        rows = {"additive": ("value",), "gatv2": ("left", "right"), "dot": ("value", "left", "right")}[kind]
        self.given = {}
        for name, count in (("value", self.num_src), ("left", self.num_src), ("right", self.num_dst)):
            if name in rows:
                self.given[name] = torch.randn(count, heads, width if name == "value" else left_width).to(dtype)
            elif kind == "additive":
                self.given[name] = torch.randn(count, heads)
        if terms:
            of_rows = kind == "gatv2"
            self.given["edge"] = torch.randn(self.edges, heads, *[width] * of_rows).to(
                dtype if of_rows else torch.float32
            )
            self.given["weight"] = torch.rand(self.edges, 1 if shared else heads)
        if kind == "gatv2":
            self.given["attn"] = torch.randn(heads, width)
        self.mask = torch.rand(self.edges, 1 if shared else heads) > 0.25 if terms else None
        self.rows = self.given[rows[0]]
        self.width = self.rows.shape[2]

    def arguments(self, without_value=False):
        names = [None if without_value and name == "value" else name for name in INPUTS[self.kind]]
        return [self.given.get(name) for name in names]

    def call(self, *changed, **results):
        arguments = changed or (self.dropout, self.given.get("weight"), self.mask, *self.arguments())
        getattr(kernels, self.kind)(self.structure, self.factor, *arguments, **results)

    def forward(self):
        out = nan(self.num_dst, self.heads, self.width, dtype=self.rows.dtype)
        top, inverse = nan(self.num_dst, self.heads), nan(self.num_dst, self.heads)
        self.call(out=out, top=top, inverse=inverse)
        return out, top, inverse

    def backward(self, top, inverse, d_out, without=()):
        found = {k: nan(*v.shape, dtype=v.dtype) for k, v in self.given.items() if k not in without}
        if "weight" in found:
            found["weight"] = nan(self.edges, self.heads)
        gradients = [found.get(name) for name in (*INPUTS[self.kind], "weight")]
        self.call(top=top, inverse=inverse, d_out=d_out, gradients=gradients)
        return found

    def expected(self):
        """The leaves in float64, and (out, alpha, logits, top, sum) of plain PyTorch."""
        leaves = {k: v.double().requires_grad_() for k, v in self.given.items()}
        value = leaves["left"] if self.kind == "gatv2" else leaves["value"]
        return leaves, plain.attention(
            self.kind, self.src, self.dst, self.num_dst, self.factor, self.dropout, leaves.get("weight"), self.mask,
            value, leaves["left"], leaves["right"], leaves.get("edge"), leaves.get("attn"),
        )  # fmt: skip


def nan(*shape, dtype=torch.float32):
    """Memory for a result: what a kernel does not write stays NaN."""
    return torch.full(shape, float("nan"), dtype=dtype)


def close(got, expected, dtype=torch.float32):
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got.double(), expected.detach(), atol=TOLERANCE[dtype] * scale, rtol=0)


def check(case, dtype=torch.float32):
    """Forward and every gradient."""
    leaves, (out, _, _, top, total) = case.expected()
    got, got_top, inverse = case.forward()
    close(got, out, dtype)
    close(got_top, top, dtype)
    close(inverse, torch.where(total == 0, 0, 1 / total), dtype)
    d_out = torch.randn(got.shape).to(dtype)
    found = case.backward(got_top, inverse, d_out)
    names = list(leaves)
    gradients = torch.autograd.grad(out, [leaves[k] for k in names], d_out.double(), allow_unused=True)
    for name, expected in zip(names, gradients, strict=True):
        got = found[name]
        if name == "weight" and leaves[name].shape[1] == 1:
            got = got.sum(1, keepdim=True)
        close(got, torch.zeros_like(leaves[name]) if expected is None else expected, dtype)


@pytest.mark.parametrize("name", plain.graphs())
@pytest.mark.parametrize("kind", KINDS)
def test_out_and_every_gradient_with_all_terms(kind, name):
    check(Case(kind, plain.graphs()[name], dropout=DROPOUT))


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_without_terms_and_with_whole_widths(kind, heads):
    check(Case(kind, plain.graphs()["hubs"], terms=False, heads=heads, width=4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_two_bytes(kind, dtype):
    check(Case(kind, plain.graphs()["random"], dtype=dtype, shared=True), dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_heads_and_wide_offsets(kind, monkeypatch):
    monkeypatch.setattr(launch, "TABLE", {k: (8, 64, 4, 4, 4) for k in launch.TABLE})  # a head a program
    monkeypatch.setattr(_host, "_wide", lambda *_: True)
    case = Case(kind, plain.graphs()["hubs"], dropout=DROPOUT)
    case.structure = [x.long() for x in case.structure]
    check(case)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_nobody_wants_change_no_other(kind):
    case = Case(kind, plain.graphs()["hubs"])
    out, top, inverse = case.forward()
    d_out = torch.randn(out.shape)
    every = case.backward(top, inverse, d_out)
    for name in case.given:
        alone = case.backward(top, inverse, d_out, without=set(case.given) - {name})
        assert torch.equal(alone[name], every[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_and_logits(kind):
    case = Case(kind, plain.graphs()["hubs"])
    _, (_, alpha, before, _, _) = case.expected()
    got = nan(case.edges, HEADS)
    case.call(None, None, case.mask, *case.arguments(True), alpha=got)
    close(got, alpha)
    if kind != "gatv2":
        got = nan(case.edges, HEADS)
        case.call(None, None, None, *case.arguments(True), logits=got)
        close(got, before)


FIRST = [name for name, (_, _, num_src, num_dst) in plain.graphs().items() if num_dst <= num_src]


def gat(graph, heads, width, dtype, wanted=("value", "left", "right", "edge", "weight"), terms=True):
    """({name: gradient} with "out", the same expected) of GAT that makes its scores; destinations come first."""
    case = Case("additive", graph, dtype, terms, heads, width, dropout=DROPOUT if terms else None)
    given = {"value": case.given["value"], "left": torch.randn(heads, width), "right": torch.randn(heads, width)}
    given |= {k: case.given[k] for k in ("edge", "weight") if terms}
    arguments = [given.get(k) for k in ("value", "left", "right", "edge")]
    call = [case.structure, 0.2, case.dropout, given.get("weight"), case.mask, *arguments]
    out = nan(case.num_dst, heads, width, dtype=dtype)
    top, inverse = nan(case.num_dst, heads), nan(case.num_dst, heads)
    kernels.gat(*call, out=out, top=top, inverse=inverse)
    d_out = torch.randn(out.shape).to(dtype)
    found = {k: nan(*v.shape, dtype=v.dtype) for k, v in given.items() if k in wanted}
    gradients = [found.get(k) for k in ("value", "left", "right", "edge", "weight")]
    kernels.gat(*call, top=top, inverse=inverse, d_out=d_out, gradients=gradients)

    leaves = {k: v.double().requires_grad_() for k, v in given.items()}
    value = leaves["value"]
    scores = (value * leaves["left"]).sum(-1), (value[: case.num_dst] * leaves["right"]).sum(-1)
    expected, *_ = plain.attention(
        "additive", case.src, case.dst, case.num_dst, 0.2, case.dropout, leaves.get("weight"), case.mask, value,
        *scores, leaves.get("edge"),
    )  # fmt: skip
    names = [k for k in given if k in wanted]
    d = torch.autograd.grad(expected, [leaves[k] for k in names], d_out.double(), materialize_grads=True)
    return {"out": out, **found}, {"out": expected, **dict(zip(names, d, strict=True))}


@pytest.mark.parametrize(
    "name, dtype", [*((name, torch.float32) for name in FIRST), ("random", torch.bfloat16), ("random", torch.float16)]
)
def test_gat_makes_its_scores(name, dtype):
    found, expected = gat(plain.graphs()[name], HEADS, WIDTH, dtype)
    for key in expected:
        close(found[key], expected[key], dtype)


@pytest.mark.parametrize("wanted", ["value", "left", "right", "edge"])
def test_a_gradient_of_gat_that_is_wanted_alone(wanted):
    found, expected = gat(plain.graphs()["random"], 2, 4, torch.float32, (wanted,))
    close(found[wanted], expected[wanted])


def test_gat_without_terms_in_groups_of_heads_and_with_wide_offsets(monkeypatch):
    monkeypatch.setattr(launch, "TABLE", {k: (8, 64, 4, 4, 4) for k in launch.TABLE})
    monkeypatch.setattr(_host, "_wide", lambda *_: True)
    found, expected = gat(plain.graphs()["random"], HEADS, WIDTH, torch.float32, terms=False)
    for key in expected:
        close(found[key], expected[key])


@pytest.mark.parametrize("name, terms", [("hubs", False), ("hubs", True), ("no edges", True)])
def test_gradient_of_gatv2_logits(name, terms):
    case = Case("gatv2", plain.graphs()[name], terms=terms)
    leaves, _ = case.expected()
    names = [k for k in INPUTS["gatv2"] if k in leaves]
    logits, _ = plain.logits_of(
        "gatv2", case.src, case.dst, case.factor, leaves["left"], leaves["right"], leaves.get("edge"), leaves["attn"]
    )
    d_logits = torch.randn(case.edges, HEADS)
    found = {k: nan(*case.given[k].shape) for k in names}
    gradients = [found.get(k) for k in INPUTS["gatv2"]]
    case.call(None, None, None, *case.arguments(), d_logits=d_logits, gradients=[*gradients, None])
    expected = torch.autograd.grad(logits, [leaves[k] for k in names], d_logits.double())
    for k, wanted in zip(names, expected, strict=True):
        close(found[k], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_twice(kind):
    case = Case(kind, plain.graphs()["hubs"], dropout=DROPOUT)
    runs = []
    for _ in range(2):
        out, top, inverse = case.forward()
        found = case.backward(top, inverse, torch.ones_like(out))
        runs.append([out, top, inverse, *found.values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_strides_do_not_matter(kind):
    case = Case(kind, plain.graphs()["random"], dropout=DROPOUT)
    out, top, inverse = case.forward()
    d_out = torch.randn(1, 1, 1)
    found = case.backward(top, inverse, d_out.expand_as(out).contiguous())
    case.given = {k: v.transpose(0, -1).contiguous().transpose(0, -1) for k, v in case.given.items()}
    again = case.forward()[0]
    assert torch.equal(again, out)
    for name, gradient in case.backward(top, inverse, d_out.expand_as(out)).items():
        assert torch.equal(gradient, found[name]), name


# ---- dropout, masks, infinity, NaN ----


def test_dropout_drops_what_the_other_backends_drop():
    edge = torch.arange(13)
    structure = kernels.build_structure(edge, edge, 13, 13)
    out, top, inverse = nan(13, HEADS, 1), nan(13, HEADS), nan(13, HEADS)
    value, scores = torch.ones(13, HEADS, 1), torch.zeros(13, HEADS)
    arguments = (None, None, value, scores, scores, None)
    kernels.additive(structure, 0.2, DROPOUT, *arguments, out=out, top=top, inverse=inverse)
    expected = dropout_scale(13, HEADS, 0.4, 1234567891011, value)
    assert torch.equal(out.flatten(1), expected)
    assert 0 < int((expected == 0).sum()) < expected.numel()
    kernels.additive(structure, 0.2, dropout_numbers(1.0, 3), *arguments, out=out, top=top, inverse=inverse)
    assert (out == 0).all()


@triton.jit
def drop_kernel(edge, key, threshold, keep_scale, out, COUNT: tl.constexpr, HEADS: tl.constexpr):
    p = tl.arange(0, COUNT)
    h = tl.arange(0, HEADS)
    found = _common.dropped(tl.load(edge + p), h, key, threshold, keep_scale)
    tl.store(out + p[:, None] * HEADS + h[None, :], found)


def test_dropout_of_edge_numbers_above_32_bits():
    """The definition of hgat.ops.dropout, in Python's whole numbers."""
    low = 0xFFFFFFFF

    def mix(x):
        x = ((x ^ x >> 16) * 0x7FEB352D) & low
        x = ((x ^ x >> 15) * 0x846CA68B) & low
        return x ^ x >> 16

    seed, threshold, scale = DROPOUT
    key = mix(mix(seed & low) ^ seed >> 32)
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 12345]
    expected = [
        [scale * (mix(mix(mix(e & low ^ key) ^ e >> 32) ^ (h * 0x9E3779B9 & low)) >= threshold) for h in range(4)]
        for e in edges
    ]
    out = nan(8, 4)
    drop_kernel[(1,)](torch.tensor(edges), *_host._dropout_arguments(DROPOUT), out, COUNT=8, HEADS=4)
    assert torch.equal(out, torch.tensor(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_whose_edges_are_all_left_out_is_one_without_edges(kind):
    case = Case(kind, plain.graphs()["hubs"])
    case.mask = case.mask & (case.dst != 0)[:, None] & (case.dst != 2)[:, None]  # a hub and a short row
    out, top, inverse = case.forward()
    for row in (0, 2):
        assert (out[row] == 0).all() and (top[row] == 0).all() and (inverse[row] == 0).all()
    assert (out[1] != 0).any()
    check(case)


@pytest.mark.parametrize("slope", [0.2, 0.0, -0.5])
def test_a_score_of_minus_infinity_leaves_an_edge_out(slope):
    case = Case("additive", plain.graphs()["hubs"])
    case.factor = slope
    case.given["edge"][~case.mask] = -torch.inf
    with_mask = case.forward()[0]
    case.mask = None
    out, top, inverse = case.forward()
    assert torch.equal(out, with_mask)
    found = case.backward(top, inverse, torch.ones_like(out))
    assert all(torch.isfinite(x).all() for x in found.values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_stay_in_the_rows_that_they_reach(kind, bad):
    case = Case(kind, plain.graphs()["hubs"], terms=False)
    case.given["left"][5] = bad
    reached = torch.zeros(case.num_dst, dtype=torch.bool).index_fill(0, case.dst[case.src == 5], True)
    finite = torch.isfinite(case.forward()[0]).flatten(1).all(1)
    assert reached.any() and not reached.all()
    assert torch.equal(finite, ~reached)


def test_nan_in_attn_reaches_no_node_without_edges():
    case = Case("gatv2", plain.graphs()["empty rows"], terms=False)
    case.given["attn"][:] = float("nan")
    out, top, inverse = case.forward()
    found = case.backward(top, inverse, torch.ones_like(out))
    for name, ends in (("left", case.src), ("right", case.dst)):
        without = torch.ones(len(found[name]), dtype=torch.bool).index_fill(0, ends, False)
        assert (found[name][without] == 0).all() and found[name][~without].isnan().any()


@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_where_alpha_is_one_the_gradient_of_scores_is_exactly_zero(kind):
    """Of one edge, and of many of which one is far above: a difference of two large sums would leave a remainder."""
    case = Case(kind, plain.graphs()["hubs"])
    del case.given["weight"]
    case.mask = None
    case.given["edge"] *= 1e-3
    case.given["edge"][torch.unique(case.dst, return_inverse=True)[1] == 0] -= 1e9
    for row in range(case.num_dst):
        case.given["edge"][(case.dst == row).nonzero()[-1]] = 1e9
    case.given["value"] *= 1e4
    out, top, inverse = case.forward()
    found = case.backward(top, inverse, torch.randn(out.shape))
    for name in ("left", "right", "edge"):
        assert (found[name] == 0).all(), name


# ---- sums over edges, the halves of attention ----


@pytest.mark.parametrize("name", ["hubs", "empty rows", "no edges"])
@pytest.mark.parametrize("one", [False, True], ids=["of heads", "shared"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weighted_sum_and_its_gradients(name, one, dtype):
    src, dst, num_src, num_dst = plain.graphs()[name]
    structure = kernels.build_structure(src, dst, num_src, num_dst)
    value = torch.randn(num_src, 1 if one else HEADS, WIDTH).to(dtype)
    weight = torch.randn(len(src), HEADS)
    leaves = value.double().requires_grad_(), weight.double().requires_grad_()
    expected = plain.weighted_sum(src, dst, *leaves, num_dst)
    out = nan(num_dst, HEADS, WIDTH, dtype=dtype)
    kernels.weighted_sum(structure, value, weight, 1.0, False, out)
    close(out, expected, dtype)
    d_out = torch.randn(out.shape).to(dtype)
    d_value, d_weight = nan(*value.shape, dtype=dtype), nan(*weight.shape)
    kernels.weighted_sum_backward(structure, value, weight, d_out, d_value, d_weight)
    for got, wanted in zip((d_value, d_weight), torch.autograd.grad(expected, leaves, d_out.double()), strict=True):
        close(got, wanted, dtype)
    alone = nan(*value.shape, dtype=dtype)
    kernels.weighted_sum_backward(structure, value, weight, d_out, alone, None)
    assert torch.equal(alone, d_value)
    if not one:
        back = nan(num_src, HEADS, WIDTH, dtype=dtype)
        kernels.weighted_sum(structure, d_out, weight, 0.5, True, back)
        close(back, 0.5 * plain.weighted_sum(dst, src, d_out.double(), weight.double(), num_src), dtype)


@pytest.mark.parametrize("name", ["hubs", "empty rows", "no edges"])
def test_edge_softmax_its_gradient_and_edge_sum(name):
    src, dst, num_src, num_dst = plain.graphs()[name]
    structure = kernels.build_structure(src, dst, num_src, num_dst)
    logits = torch.randn(len(src), HEADS)
    logits[: len(src) // 3, 1] = -torch.inf
    alpha, _, _ = plain.softmax(dst, logits.double(), num_dst)
    got = nan(*logits.shape)
    kernels.edge_softmax(structure, logits, got)
    close(got, alpha)
    d_alpha, d_logits = torch.randn(logits.shape), nan(*logits.shape)
    kernels.softmax_backward(structure, got, d_alpha, d_logits)
    total = alpha.new_zeros(num_dst, HEADS).index_add(0, dst, alpha * d_alpha)
    close(d_logits, alpha * (d_alpha - total[dst]))
    for by_source, index, rows in ((False, dst, num_dst), (True, src, num_src)):
        out = nan(rows, HEADS)
        kernels.edge_sum(structure, d_alpha, by_source, out)
        close(out, d_alpha.new_zeros(rows, HEADS).double().index_add(0, index, d_alpha.double()))
