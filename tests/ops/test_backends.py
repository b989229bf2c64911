"""One suite for every backend: each operator beside another implementation in float64, on the tests' device."""

from contextlib import nullcontext

import pytest
import torch
from backends import BACKENDS, DEVICE, INTERPRETED, ON_CPU, there
from torch.autograd import gradcheck, gradgradcheck

from cases import OPERATORS, UNUSED
from hgat import ops
from hgat.errors import BackendError, ShapeError
from zoo import ZOO, build

SLOW = ("homogeneous", "block", "zero_in_degree", "empty", "no_nodes")  # what the interpreter sees of the zoo
GRAPHS = {backend: SLOW if backend == "triton" and INTERPRETED else tuple(ZOO) for backend in BACKENDS}
WIDE = {"triton": torch.float32}  # the widest type that a backend has kernels for, float64 elsewhere
EXACT = {torch.float64: 1e-12, torch.float32: 2e-5}
HALVES = {torch.bfloat16: 2**-7, torch.float16: 2**-10}

on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
on_every_graph = pytest.mark.parametrize(
    ("backend", "name"), [(backend, name) for backend in BACKENDS for name in GRAPHS[backend]]
)


def _type(backend):
    if backend == "auto":
        return torch.float32
    return WIDE.get(backend, torch.float64)


def _found(run, leaves, backend):
    """What `run` gives of its leaves, [results, gradients], on the CPU and in float64."""
    with ops.use_backend(backend):
        results = run(**leaves)
    found, given = list(results), [leaf for leaf in leaves.values() if leaf.requires_grad]
    for k, result in enumerate(results):
        generator = torch.Generator().manual_seed(k)
        cotangent = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result)
        if not result.requires_grad:  # uniform weights are those of no score
            continue
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        found += torch.autograd.grad(result, given, cotangent, **options)
    return [one.detach().cpu().double() for one in found]


def _compare(run, leaves, backend, dtype, tolerance):
    """`run` on a backend of leaves in `dtype`, beside the other implementation of the same numbers in float64."""
    kinds = {k: leaf.is_floating_point() for k, leaf in leaves.items()}
    rounded = {k: leaf.to(dtype) if kinds[k] else leaf for k, leaf in leaves.items()}
    wide = {k: leaf.double().requires_grad_() if kinds[k] else leaf for k, leaf in rounded.items()}
    got = _found(run, {k: there(leaf).requires_grad_(kinds[k]) for k, leaf in rounded.items()}, backend)
    wanted = _found(run, wide, "torch" if backend == "dgl" else "dgl")
    for mine, theirs in zip(got, wanted, strict=True):
        scale = max(1.0, float(theirs.abs().max()) if theirs.numel() else 1.0)
        torch.testing.assert_close(mine, theirs, atol=tolerance * scale, rtol=0)


def _attention(operator, graph, options):
    unused = UNUSED.get(operator)

    def run(edge_weight=None, edge_mask=None, **arguments):
        out = getattr(ops, f"{operator}_attention")(
            graph, **arguments, edge_weight=edge_weight, edge_mask=edge_mask, **options
        )
        scores = {k: v for k, v in arguments.items() if k != unused}
        return out, getattr(ops, f"{operator}_weights")(graph, **scores, edge_mask=edge_mask)

    return run


@pytest.mark.parametrize("with_options", [False, True], ids=["plain", "options"])
@on_every_graph
@pytest.mark.parametrize("operator", OPERATORS)
def test_attention(operator, backend, name, with_options):
    graph = build(name, torch.int32)
    leaves = OPERATORS[operator][0](graph, torch.float64, with_options)
    options = {}
    if with_options:
        heads, count = 3, graph.num_edges()
        leaves |= {"edge_weight": torch.rand(count, heads).double(), "edge_mask": torch.rand(count, heads) < 0.8}
        options = {"dropout": 0.3, "seed": 7}
    dtype = _type(backend)
    _compare(_attention(operator, graph, options), leaves, backend, dtype, EXACT[dtype])


@on_every_backend
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_half_types(operator, backend, dtype):
    graph = build("homogeneous")
    leaves = OPERATORS[operator][0](graph, torch.float64, True)
    leaves["edge_weight"] = torch.rand(graph.num_edges()).double()
    if backend == "native" and dtype == torch.float16:
        with pytest.raises(BackendError, match="not for torch.float16"):
            _compare(_attention(operator, graph, {}), leaves, backend, dtype, 1.0)
        return
    _compare(_attention(operator, graph, {}), leaves, backend, dtype, 2 * HALVES[dtype])


@on_every_graph
def test_gat_makes_its_scores_of_the_values(backend, name):
    graph, heads, width = build(name, torch.int32), 3, 5
    if graph.num_dst_nodes() > graph.num_src_nodes():
        with pytest.raises(ShapeError, match="sources of"):
            ops.gat_attention(graph, torch.ones(graph.num_src_nodes(), heads, width), *torch.ones(2, heads, width))
        return
    count, dtype = graph.num_edges(), _type(backend)
    leaves = {"value": torch.randn(graph.num_src_nodes(), heads, width, dtype=torch.float64)}
    leaves["attn_src"] = torch.randn(heads, width, dtype=torch.float64)
    leaves["attn_dst"] = torch.randn(1, heads, width, dtype=torch.float64)  # as layers keep it
    leaves |= {k: torch.randn(count, heads, dtype=torch.float64) for k in ("score_edge", "edge_weight")}
    leaves = {k: leaf.to(dtype).double() for k, leaf in leaves.items()}
    options = {"edge_mask": there(torch.rand(count, heads) < 0.8), "dropout": 0.3, "seed": 7}

    def own(**given):
        return [ops.gat_attention(graph, **given, **options)]

    def of_scores(value, attn_src, attn_dst, **given):
        scores = (value * attn_src).sum(-1), (value[: graph.num_dst_nodes()] * attn_dst).sum(-1)
        return [ops.additive_attention(graph, value, *scores, **given, **options)]

    wide = {k: there(leaf).requires_grad_() for k, leaf in leaves.items()}
    narrow = {k: there(leaf.to(dtype)).requires_grad_() for k, leaf in leaves.items()}
    for settings in (nullcontext(), ops.uniform_attention()):
        with settings:
            for got, wanted in zip(_found(own, narrow, backend), _found(of_scores, wide, "torch"), strict=True):
                scale = max(1.0, float(wanted.abs().max()) if wanted.numel() else 1.0)
                torch.testing.assert_close(got, wanted, atol=EXACT[dtype] * scale, rtol=0)


STEPS = {
    "edge_softmax": lambda graph: {"logits": torch.randn(graph.num_edges(), 3)},
    "weighted_sum": lambda graph: {
        "value": torch.randn(graph.num_src_nodes(), 3, 5),
        "weight": torch.randn(graph.num_edges(), 3),
    },
    "weighted_sum of one head": lambda graph: {
        "value": torch.randn(graph.num_src_nodes(), 1, 5),
        "weight": torch.randn(graph.num_edges(), 3),
    },
    "edge_weighted_sum": lambda graph: {
        "edge_value": torch.randn(graph.num_edges(), 2),
        "weight": torch.randn(graph.num_edges(), 3),
    },
    "additive_logits": lambda graph: {
        "score_src": torch.randn(graph.num_src_nodes(), 3),
        "score_dst": torch.randn(graph.num_dst_nodes(), 3),
        "score_edge": torch.randn(graph.num_edges(), 3),
    },
    "dot_product_logits": lambda graph: {
        "query": torch.randn(graph.num_dst_nodes(), 3, 5),
        "key": torch.randn(graph.num_src_nodes(), 3, 5),
        "bias": torch.randn(graph.num_edges(), 3),
    },
    "copy_u": lambda graph: {"score_src": torch.randn(graph.num_src_nodes(), 3)},
    "copy_v": lambda graph: {"score_dst": torch.randn(graph.num_dst_nodes(), 3)},
}


@on_every_graph
@pytest.mark.parametrize("step", STEPS)
def test_halves(step, backend, name):
    graph = build(name)
    leaves = {k: leaf.double() for k, leaf in STEPS[step](graph).items()}
    dtype = _type(backend)
    run = getattr(ops, step.split(" ")[0])
    _compare(lambda **given: [run(graph, **given)], leaves, backend, dtype, EXACT[dtype])


@on_every_backend
@pytest.mark.parametrize("operator", OPERATORS)
def test_uniform_attention_and_minus_infinity(operator, backend):
    graph = build("zero_in_degree")
    leaves = OPERATORS[operator][0](graph, torch.float64, True)
    on_edge = next(k for k in ("score_edge", "bias", "feat_edge") if k in leaves)
    if operator != "gatv2":
        leaves[on_edge][::3] = -torch.inf
    run, dtype = _attention(operator, graph, {}), _type(backend)
    _compare(run, leaves, backend, dtype, EXACT[dtype])
    with ops.uniform_attention():
        _compare(run, leaves, backend, dtype, EXACT[dtype])


@on_every_backend
def test_the_same_edges_are_dropped(backend):
    graph = build("homogeneous")
    value, zero = torch.ones(23, 3, 1), torch.zeros(23, 3)
    with ops.use_backend(backend):
        # One entry per edge: the sum of an edge's own row is what dropout left of it.
        of_edges = [there(torch.zeros(graph.num_edges(), 3)), there(torch.ones(graph.num_edges(), 3))]
        kept = ops.attention_dropout(of_edges[1], 0.4, 2**63 + 11)
        got = ops.additive_attention(graph, there(value), there(zero), there(zero), dropout=0.4, seed=2**63 + 11)
    with ops.use_backend("dgl"):
        expected = ops.attention_dropout(torch.ones(graph.num_edges(), 3), 0.4, 2**63 + 11)
        wanted = ops.additive_attention(graph, value, zero, zero, dropout=0.4, seed=2**63 + 11)
    assert torch.equal(kept.cpu(), expected) and 0 < (kept == 0).sum() < kept.numel()
    torch.testing.assert_close(got.cpu(), wanted)


@on_every_backend
def test_other_strides_give_the_same(backend):
    graph, dtype = build("homogeneous"), _type(backend)
    leaves = OPERATORS["gatv2"][0](graph, dtype, True)
    strided = {k: v.transpose(0, -1).contiguous().transpose(0, -1) for k, v in leaves.items()}
    with ops.use_backend(backend):
        expected = ops.gatv2_attention(graph, **there(leaves))
        got = ops.gatv2_attention(graph, **{k: v.to(DEVICE) for k, v in strided.items()})
    assert not strided["feat_src"].is_contiguous()
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name in ("dgl", "torch")])
@pytest.mark.parametrize("operator", OPERATORS)
def test_second_derivatives(operator, backend):
    graph = build("zero_in_degree")
    arguments = there(OPERATORS[operator][0](graph, torch.float64, True))
    names = list(arguments)

    def run(*values):
        given = dict(zip(names, values, strict=True))
        with ops.use_backend(backend):
            return getattr(ops, f"{operator}_attention")(graph, **given, dropout=0.3, seed=11)

    leaves = [arguments[k].requires_grad_() for k in names]
    assert gradcheck(run, leaves, atol=1e-6, fast_mode=True, nondet_tol=1e-9)
    assert gradgradcheck(run, leaves, atol=1e-6, fast_mode=True, nondet_tol=1e-9)


def test_torch_runs_inside_transforms_and_in_chunks():
    graph = build("homogeneous")
    value, scores = there(torch.randn(4, 23, 3, 5)), there(torch.randn(23, 3))
    with ops.use_backend("torch"):
        each = torch.stack([ops.additive_attention(graph, one, scores, scores) for one in value])
        got = torch.func.vmap(lambda one: ops.additive_attention(graph, one, scores, scores))(value)
        torch.testing.assert_close(got, each)
        with ops.in_chunks(20):
            torch.testing.assert_close(ops.additive_attention(graph, value[0], scores, scores), each[0])


@pytest.mark.parametrize("backend", [*ON_CPU, "triton"])
def test_tensors_on_two_devices_are_one_sentence(backend):
    graph = build("homogeneous")
    value, scores = torch.randn(23, 3, 5), torch.randn(23, 3)
    with ops.use_backend(backend):
        for wrong in ((value.to("meta"), scores, scores), (value, scores, scores.to("meta"))):
            with pytest.raises(ShapeError, match="expected device .* like the other tensors, got"):
                ops.additive_attention(graph, *wrong)
        with pytest.raises(ShapeError, match="edge_mask: expected device cpu like the other tensors, got meta"):
            ops.additive_attention(graph, value, scores, scores, edge_mask=torch.ones(120, device="meta").bool())
