"""The halves of attention, the typed projection and the dropout: against loops, and against statistics."""

import dgl
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from cases import HEADS, WIDTH, oracle_softmax, oracle_sum
from hgat import ops
from hgat.kernels import cpu
from hgat.ops import dropout as dropout_file
from hgat.ops import typed
from zoo import ZOO, build

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
EVERY = pytest.mark.parametrize("name", ZOO)
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def _close(got, expected, dtype):
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype] * scale, rtol=0)


def _compare(got, expected, leaves, dtype):
    """Output and every gradient, with one random cotangent."""
    _close(got, expected, dtype)
    cotangent = torch.randn_like(expected)
    of_hgat = torch.autograd.grad(got, leaves, cotangent, allow_unused=True)
    of_loops = [None] * len(leaves)
    if expected.requires_grad:
        of_loops = torch.autograd.grad(expected, leaves, cotangent, allow_unused=True)
    for leaf, mine, wanted in zip(leaves, of_hgat, of_loops, strict=True):
        zero = torch.zeros_like(leaf)
        _close(zero if mine is None else mine, zero if wanted is None else wanted, dtype)


def _leaf(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def _ends(graph):
    return [x.long() for x in graph.edges(order="eid")]


# ---- softmax and sums ----


@TYPES
@EVERY
def test_edge_softmax_equals_the_loop(name, dtype):
    graph = build(name, torch.int32)
    logits = _leaf(graph.num_edges(), HEADS, dtype=dtype)
    _compare(ops.edge_softmax(graph, logits), oracle_softmax(graph, logits), [logits], dtype)


@pytest.mark.parametrize("value_heads", [1, HEADS])
@TYPES
@EVERY
def test_weighted_sum_equals_the_loop(name, dtype, value_heads):
    graph = build(name)
    value = _leaf(graph.num_src_nodes(), value_heads, WIDTH, dtype=dtype)
    weight = _leaf(graph.num_edges(), HEADS, dtype=dtype)
    expected = oracle_sum(graph, value.expand(-1, HEADS, -1), weight)
    got = ops.weighted_sum(graph, value, weight)
    assert got.shape == (graph.num_dst_nodes(), HEADS, WIDTH)
    _compare(got, expected, [value, weight], dtype)


@TYPES
@EVERY
def test_edge_weighted_sum_equals_the_loop(name, dtype):
    graph = build(name, torch.int32)
    edge_value = _leaf(graph.num_edges(), WIDTH, dtype=dtype)
    weight = _leaf(graph.num_edges(), HEADS, dtype=dtype)
    _, dst = _ends(graph)
    rows = [edge_value.new_zeros(HEADS, WIDTH) for _ in range(graph.num_dst_nodes())]
    for edge, v in enumerate(dst.tolist()):
        rows[v] = rows[v] + weight[edge, :, None] * edge_value[edge]
    expected = torch.stack(rows) if rows else edge_value.new_zeros(0, HEADS, WIDTH)
    _compare(ops.edge_weighted_sum(graph, edge_value, weight), expected, [edge_value, weight], dtype)


@pytest.mark.parametrize("scale", [None, 0.7])
@TYPES
@EVERY
def test_dot_product_logits_equal_the_definition(name, dtype, scale):
    graph = build(name)
    query = _leaf(graph.num_dst_nodes(), HEADS, WIDTH, dtype=dtype)
    key = _leaf(graph.num_src_nodes(), HEADS, WIDTH, dtype=dtype)
    bias = _leaf(graph.num_edges(), HEADS, dtype=dtype)
    src, dst = _ends(graph)
    factor = WIDTH**-0.5 if scale is None else scale

    def expected():
        products = [(query[v] * key[u]).sum(-1) * factor for u, v in zip(src.tolist(), dst.tolist(), strict=True)]
        return torch.stack(products) if products else query.new_zeros(0, HEADS)

    _compare(ops.dot_product_logits(graph, query, key, scale=scale), expected(), [query, key], dtype)
    with_bias = ops.dot_product_logits(graph, query, key, bias, scale=scale)
    _compare(with_bias, expected() + bias, [query, key, bias], dtype)


@pytest.mark.parametrize("name", ["zero_in_degree", "bipartite", "block", "empty"])
def test_halves_gradcheck(name):
    graph = build(name)
    logits, weight = _leaf(graph.num_edges(), HEADS), _leaf(graph.num_edges(), HEADS)
    value, one = _leaf(graph.num_src_nodes(), HEADS, WIDTH), _leaf(graph.num_src_nodes(), 1, WIDTH)
    query, edge_value = _leaf(graph.num_dst_nodes(), HEADS, WIDTH), _leaf(graph.num_edges(), WIDTH)
    calls = [
        (lambda x: ops.edge_softmax(graph, x), [logits]),
        (lambda x, w: ops.weighted_sum(graph, x, w), [value, weight]),
        (lambda x, w: ops.weighted_sum(graph, x, w), [one, weight]),
        (lambda x, w: ops.edge_weighted_sum(graph, x, w), [edge_value, weight]),
        (lambda q, k: ops.dot_product_logits(graph, q, k), [query, value]),
        (lambda x: ops.copy_v(graph, x), [_leaf(graph.num_dst_nodes(), HEADS)]),
        (lambda x: ops.copy_u(graph, x), [_leaf(graph.num_src_nodes(), HEADS)]),
        (
            lambda *x: ops.additive_logits(graph, *x),
            [_leaf(graph.num_src_nodes(), HEADS), _leaf(graph.num_dst_nodes(), HEADS), logits],
        ),
    ]
    for call, leaves in calls:
        assert gradcheck(call, leaves, atol=1e-6, fast_mode=True)
        with ops.use_backend("dgl"):
            assert gradcheck(call, leaves, atol=1e-6, fast_mode=True)
            assert gradgradcheck(call, leaves, atol=1e-6, fast_mode=True)


def test_softmax_survives_large_logits_and_sums_to_one():
    graph = build("hub")
    logits = torch.randn(graph.num_edges(), HEADS) * 1e4
    alpha = ops.edge_softmax(graph, logits)
    total = torch.zeros(37, HEADS).index_add(0, _ends(graph)[1], alpha)
    torch.testing.assert_close(total, torch.ones_like(total))
    shifted = ops.edge_softmax(graph, logits.double() + 1e6)
    torch.testing.assert_close(shifted, ops.edge_softmax(graph, logits.double()), atol=1e-6, rtol=0)


def test_half_precision_keeps_its_type():
    graph = build("homogeneous")
    for dtype in (torch.bfloat16, torch.float16):
        logits = torch.randn(graph.num_edges(), HEADS).to(dtype)
        alpha = ops.edge_softmax(graph, logits)
        assert alpha.dtype == dtype
        torch.testing.assert_close(alpha, oracle_softmax(graph, logits.float()).to(dtype), atol=0, rtol=1e-2)
        value = torch.randn(23, HEADS, WIDTH).to(dtype)
        assert ops.weighted_sum(graph, value, alpha).dtype == dtype
        score = torch.randn(23, HEADS).to(dtype)
        for backend in ("auto", "dgl"):
            with ops.use_backend(backend):
                assert torch.equal(ops.copy_v(graph, score), score[_ends(graph)[1]])


def test_graphs_held_in_one_sparse_format_are_served():
    graph = build("hub")
    logits = torch.randn(graph.num_edges(), HEADS)
    value = torch.randn(37, HEADS, WIDTH)
    for sparse in ("csr", "csc", "coo", ["csr", "csc"]):
        other = graph.formats(sparse)
        leaves, same = [], []
        for target, g in ((leaves, other), (same, graph)):
            x, w = value.clone().requires_grad_(), logits.clone().requires_grad_()
            out = ops.weighted_sum(g, x, ops.edge_softmax(g, w))
            target += [out, *torch.autograd.grad(out, [x, w], torch.ones_like(out).cumsum(0))]
        for got, expected in zip(leaves, same, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


@TYPES
@EVERY
def test_copy_v_gives_every_edge_the_row_of_its_end(name, dtype):
    graph = build(name)
    score = _leaf(graph.num_dst_nodes(), HEADS, dtype=dtype)
    _compare(ops.copy_v(graph, score), score[_ends(graph)[1]], [score], dtype)
    with ops.use_backend("dgl"):
        _compare(ops.copy_v(graph, score), score[_ends(graph)[1]], [score], dtype)


@TYPES
@EVERY
def test_copy_u_gives_every_edge_the_row_of_its_source(name, dtype):
    graph = build(name)
    score = _leaf(graph.num_src_nodes(), HEADS, dtype=dtype)
    for backend in ("auto", "dgl"):
        with ops.use_backend(backend):
            _compare(ops.copy_u(graph, score), score[_ends(graph)[0]], [score], dtype)


@pytest.mark.parametrize("edge_terms", [True, False], ids=["edge", "no edge"])
@TYPES
@EVERY
def test_additive_logits_are_the_sums_of_both_ends(name, dtype, edge_terms):
    graph = build(name, torch.int32)
    sizes = (graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges())[: 2 + edge_terms]
    leaves = [_leaf(size, HEADS, dtype=dtype) for size in sizes]
    src, dst = _ends(graph)
    for backend in ("auto", "dgl"):
        expected = leaves[0][src] + leaves[1][dst] + (leaves[2] if edge_terms else 0.0)
        with ops.use_backend(backend):
            _compare(ops.additive_logits(graph, *leaves), expected, leaves, dtype)
    half = ops.additive_logits(graph, *(leaf.detach().to(torch.bfloat16) for leaf in leaves))
    assert half.dtype == torch.float32, "summed and given in float32"


@pytest.mark.parametrize("operator", ["copy_u", "additive_logits"])
def test_sums_and_copies_in_chunks(operator):
    graph = build("hub")
    leaves = [_leaf(37, HEADS), _leaf(37, HEADS), _leaf(graph.num_edges(), HEADS)][: 1 if operator == "copy_u" else 3]
    whole = getattr(ops, operator)(graph, *leaves)
    with ops.use_backend("dgl"), ops.in_chunks(11):
        _compare(getattr(ops, operator)(graph, *leaves), whole, leaves, torch.float64)


# ---- typed projection ----

COUNTS = {
    "mixed": [3, 0, 7, 1],
    "first empty": [0, 5, 2, 0],
    "last empty": [4, 1, 0, 0],
    "one relation": [11],
    "all empty": [0, 0, 0, 0],
    "none": [],
}


def _per_relation(rows, weight, count):
    parts = [part @ w for part, w in zip(rows.split(count), weight, strict=True)] if count else []
    return torch.cat(parts) if parts else rows.new_zeros(0, weight.shape[2])


@pytest.fixture(params=["pieces", "segments"])
def path(request, monkeypatch):
    """Pieces of two rows on the CPU; whole segments in half precision and on other devices."""
    monkeypatch.setattr(typed, "STEP", 2)
    if request.param != "pieces":
        monkeypatch.setattr(typed, "_pieces_run", lambda rows: False)
    return request.param


@pytest.mark.parametrize("counts", COUNTS)
@TYPES
def test_typed_projection_equals_a_loop_over_relations(path, counts, dtype):
    count = COUNTS[counts]
    rows = _leaf(sum(count), 5, dtype=dtype)
    weight = _leaf(len(count), 5, 3, dtype=dtype)
    got = ops.typed_projection(rows, weight, torch.tensor(count, dtype=torch.int64))
    _compare(got, _per_relation(rows, weight, count), [rows, weight], dtype)


INDICES = {
    "neighbours": [4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 9],
    "all in order": list(range(11)),
    "gaps": [0, 2, 3, 1, 2, 4, 6, 7, 8, 10, 0],
    "twice": [5, 5, 5, 1, 2, 2, 3, 4, 4, 4, 12],  # 1 to 4 in four places, and no neighbours
    "backwards": [3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 0],
}


@pytest.mark.parametrize("index", INDICES)
@TYPES
def test_typed_projection_of_rows_by_index(path, index, dtype):
    count, index = COUNTS["mixed"], torch.tensor(INDICES[index])
    rows, weights = _leaf(13, 5, dtype=dtype), [_leaf(4, 5, 3, dtype=dtype), _leaf(4, 5, 1, dtype=dtype)]
    got = ops.typed_projection(rows, weights, torch.tensor(count), index)
    assert isinstance(got, list) and [list(one.shape) for one in got] == [[11, 3], [11, 1]]
    expected = [_per_relation(rows[index], weight, count) for weight in weights]
    _compare(torch.cat(got, 1), torch.cat(expected, 1), [rows, *weights], dtype)
    second = ops.typed_projection(rows, weights, torch.tensor(count), index)[1]
    _compare(second, _per_relation(rows[index], weights[1], count), [rows, *weights], dtype)


def test_typed_projection_gathers_only_what_does_not_stand_together(monkeypatch):
    monkeypatch.setattr(typed, "STEP", 100)
    index = torch.tensor([4, 5, 6, 1, 3, 2, 4, 6, 5, 7, 1])
    pieces = typed._pieces([3, 0, 7, 1], index)
    assert pieces == [(0, 0, 3, 4), (2, 3, 10, None), (3, 10, 11, 1)]  # 1 to 7, but in another order
    assert typed._pieces([2, 3], None) == [(0, 0, 2, 0), (1, 2, 5, 2)]


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_typed_projection_of_what_needs_no_gradient(path, wanted):
    rows, weight = torch.randn(13, 5).requires_grad_(wanted[0]), torch.randn(4, 5, 3).requires_grad_(wanted[1])
    index, count = torch.tensor(INDICES["gaps"]), COUNTS["mixed"]
    got = ops.typed_projection(rows, weight, torch.tensor(count), index)
    leaf = rows if wanted[0] else weight
    _compare(got, _per_relation(rows[index], weight, count), [leaf], torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("counts", ["mixed", "first empty", "one relation"])
def test_typed_projection_gradcheck(path, counts):
    count = torch.tensor(COUNTS[counts])
    leaves = [_leaf(int(count.sum()), 5), _leaf(len(count), 5, 3)]
    index = torch.randint(int(count.sum()), (int(count.sum()),))
    for by in (None, index):
        assert gradcheck(lambda r, w: ops.typed_projection(r, w, count, by), leaves)  # noqa: B023
        assert gradgradcheck(lambda r, w: ops.typed_projection(r, w, count, by), leaves)  # noqa: B023


def test_typed_projection_under_autocast_is_bfloat16():
    rows, weight, count = torch.randn(11, 5), torch.randn(4, 5, 3), torch.tensor(COUNTS["mixed"])
    expected = ops.typed_projection(rows, weight, count)
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.typed_projection(rows, weight, count)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.05, rtol=0.05)


def test_typed_projection_of_two_types_strides_and_half(path):
    count = COUNTS["mixed"]
    rows, weight = torch.randn(5, 11).T, torch.randn(4, 3, 5, dtype=torch.float64).transpose(1, 2)
    got = ops.typed_projection(rows, weight, torch.tensor(count))
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, _per_relation(rows.double(), weight, count))
    half = ops.typed_projection(rows.bfloat16(), weight.bfloat16(), torch.tensor(count))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), got, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("sizes", [(0, 3), (5, 0), (0, 0)])
def test_typed_projection_without_columns(path, sizes):
    width, out_width = sizes
    got = ops.typed_projection(torch.zeros(11, width), torch.zeros(4, width, out_width), torch.tensor([3, 0, 7, 1]))
    assert got.shape == (11, out_width) and (got == 0).all()


def test_typed_projection_says_shapes_on_the_meta_device():
    """No step needs the values on the device."""
    rows, weight = torch.zeros(11, 5, device="meta"), torch.zeros(4, 5, 3, device="meta")
    got = ops.typed_projection(rows, [weight], torch.tensor([3, 0, 7, 1]), torch.zeros(11, device="meta").long())
    assert got[0].shape == (11, 3)


# ---- dropout ----


def _kept(edges, heads, p, seed, dtype=torch.float32):
    return ops.attention_dropout(torch.ones(edges, heads, dtype=dtype), p, seed) != 0


def test_dropout_is_a_pure_function_of_seed_edge_and_head():
    whole = _kept(1009, 7, 0.4, 31)
    assert torch.equal(whole, _kept(1009, 7, 0.4, 31))
    # An entry does not know how many edges and heads there are, its type, or what PyTorch's generator did.
    torch.rand(5)
    assert torch.equal(whole[:503, :3], _kept(503, 3, 0.4, 31))
    assert torch.equal(whole, _kept(1009, 7, 0.4, 31, torch.float64))
    assert torch.equal(whole, _kept(1009, 7, 0.4, 31, torch.bfloat16))
    assert not torch.equal(whole, _kept(1009, 7, 0.4, 32))
    # What a higher rate keeps, a lower one keeps too.
    assert not (_kept(1009, 7, 0.6, 31) & ~whole).any()


def test_dropout_values_are_alpha_over_the_keep_rate():
    alpha = torch.rand(1009, 3)
    out = ops.attention_dropout(alpha, 0.25, 5)
    keep = out != 0
    torch.testing.assert_close(out[keep], alpha[keep] / 0.75)


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_the_core_draws_dropout_for_the_backends_that_run_compiled_code(monkeypatch):
    drawn, draw = [], cpu.dropout_scale
    monkeypatch.setattr(cpu, "dropout_scale", lambda *a: drawn.append(ops.contexts.chosen_backend.get()) or draw(*a))
    found = []
    for backend in ("auto", "native", "dgl", "torch"):
        with ops.use_backend(backend):
            found.append(ops.attention_dropout(torch.ones(101, 3), 0.4, 7))
    assert drawn == ["auto", "native", "dgl"] and all(torch.equal(one, found[0]) for one in found)


SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**64 - 1, -1]


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
@TYPES
@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_core_is_bit_equal_to_the_definition(monkeypatch, seed, dtype):
    like = torch.ones(10007, 5, dtype=dtype)
    for p in (0.0, 1e-9, 0.1, 1 / 3, 0.5, 0.6, 0.999999, 1.0):
        compiled = dropout_file.dropout_scale(10007, 5, p, seed, like)
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "available", lambda: False)
            definition = dropout_file.dropout_scale(10007, 5, p, seed, like)
        assert compiled.dtype == definition.dtype == dtype
        assert torch.equal(compiled, definition), p


@pytest.mark.parametrize("core", ["compiled", "definition"])
def test_definition_by_plain_integers(monkeypatch, core):
    """The hash once more, in Python integers without tensors."""
    if core == "definition":
        monkeypatch.setattr(cpu, "available", lambda: False)

    def mix(x):
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    seed, p = 0x123456789ABCDEF, 0.37
    key = mix(mix(seed % 2**32) ^ seed >> 32)
    expected = [
        [mix(mix(mix(edge ^ key)) ^ head * 0x9E3779B9 % 2**32) >= int(p * 2**32) for head in range(3)]
        for edge in range(211)
    ]
    assert _kept(211, 3, p, seed).tolist() == expected


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_number_of_threads_does_not_matter():
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.attention_dropout(torch.ones(10007, 3), 0.3, 17))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("seed", [1, 2, 3, 2**40])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.6, 0.9])
def test_keep_rate_is_within_statistical_bounds(p, seed):
    kept = _kept(20011, 5, p, seed)
    deviation = (p * (1 - p)) ** 0.5
    assert abs(kept.double().mean() - (1 - p)) < 5 * deviation / kept.numel() ** 0.5
    # Every head by itself, and edges in blocks: no region is dropped more than another.
    assert ((kept.double().mean(0) - (1 - p)).abs() < 5 * deviation / 20011**0.5).all()
    blocks = kept[:20000].view(200, 100, 5).double().mean((1, 2))
    chi_square = (((blocks - (1 - p)) / (deviation / 500**0.5)) ** 2).sum()
    assert abs(chi_square - 200) < 5 * 400**0.5


def _independent(a, b, p):
    """True unless two rows of fair choices agree too often or too rarely: a chi-square of the 2 x 2 table."""
    n = a.numel()
    chi_square = 0.0
    for x, y in ((False, False), (False, True), (True, False), (True, True)):
        expected = n * ((1 - p) if x else p) * ((1 - p) if y else p)
        chi_square += float(((a == x) & (b == y)).sum() - expected) ** 2 / expected
    return chi_square < 25  # 3 degrees of freedom: exceeded once in 60,000 honest tables


def test_heads_edges_and_seeds_are_independent():
    p = 0.4
    kept = _kept(20011, 8, p, 77)
    pairs = [(kept[:, i], kept[:, j]) for i in range(8) for j in range(i)]
    for lag in (1, 2, 3, 7, 16, 64, 256, 1024):
        pairs += [(kept[lag:, head], kept[:-lag, head]) for head in (0, 5)]
        # The head's number is folded into the edge's hash: a shift in both must not cancel.
        pairs.append((kept[lag:, 0], kept[:-lag, 1]))
    for other in (78, 76, 77 + 2**32, 77 ^ 2**31, 0):
        again = _kept(20011, 8, p, other)
        pairs += [(kept[:, head], again[:, head]) for head in (0, 3)]
    assert all(_independent(a, b, p) for a, b in pairs)
    assert not _independent(kept[:, 0], kept[:, 0], p)


def test_neighbouring_seeds_and_edges_do_not_repeat_rows():
    """A row of 64 heads that appears twice would mean that two edges share their fate."""
    rows = [tuple(row) for seed in range(3) for row in _kept(503, 64, 0.5, seed).tolist()]
    assert len(set(rows)) == len(rows)


def test_rates_zero_and_one():
    alpha = torch.rand(101, 3)
    assert ops.attention_dropout(alpha, 0.0) is alpha
    assert (ops.attention_dropout(alpha, 1.0, 3) == 0).all()
    state = torch.get_rng_state()
    ops.attention_dropout(alpha, 0.0)
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn where nothing is dropped


def test_manual_seed_decides():
    alpha = torch.rand(101, 3)
    torch.manual_seed(5)
    first, second = ops.attention_dropout(alpha, 0.5), ops.attention_dropout(alpha, 0.5)
    torch.manual_seed(5)
    assert torch.equal(ops.attention_dropout(alpha, 0.5), first)
    assert not torch.equal(first, second)
    torch.manual_seed(6)
    assert not torch.equal(ops.attention_dropout(alpha, 0.5), first)


def test_operators_drop_what_attention_dropout_drops():
    graph = build("homogeneous")
    scores = torch.randn(23, HEADS, dtype=torch.float64), torch.randn(23, HEADS, dtype=torch.float64)
    value = torch.randn(23, HEADS, WIDTH, dtype=torch.float64)
    alpha = ops.attention_dropout(ops.additive_weights(graph, *scores), 0.4, 13)
    got = ops.additive_attention(graph, value, *scores, dropout=0.4, seed=13)
    torch.testing.assert_close(got, ops.weighted_sum(graph, value, alpha))
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(ops.additive_attention(graph, value, *scores, dropout=0.4))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], ops.additive_attention(graph, value, *scores, dropout=0.4))


def test_gradient_of_dropout_is_its_scale():
    alpha = _leaf(53, HEADS)
    scale = ops.attention_dropout(torch.ones(53, HEADS, dtype=torch.float64), 0.4, 3)
    cotangent = torch.randn(53, HEADS, dtype=torch.float64)
    (grad,) = torch.autograd.grad(ops.attention_dropout(alpha, 0.4, 3), alpha, cotangent)
    torch.testing.assert_close(grad, cotangent * scale)


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
def test_dropout_of_nothing(shape):
    assert ops.attention_dropout(torch.ones(shape), 0.5, 3).shape == shape


def test_halves_leave_the_graph_as_it_was():
    graph = dgl.graph(build("hub").edges(), num_nodes=37)
    graph.ndata["mine"] = torch.ones(37)
    logits = torch.randn(graph.num_edges(), HEADS)
    ops.edge_weighted_sum(graph, torch.randn(graph.num_edges(), 2), ops.edge_softmax(graph, logits))
    assert set(graph.ndata) == {"mine"} and not graph.edata
