"""The compiled kernels: every instruction set, long rows, threads, and their life inside PyTorch."""

import os
import subprocess
import sys

import dgl
import pytest
import torch

from cases import OPERATORS, UNUSED
from hgat import ops
from hgat.errors import BackendError
from hgat.kernels import cpu
from hgat.nn import GATConv
from zoo import ZOO, build

pytestmark = pytest.mark.skipif(not cpu.available(), reason="no compiled core")
SETS = [s for s in cpu.info()["instruction_sets"] if s in cpu.info()["processor"]]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = cpu.info()["in_use"]
    cpu.use_instruction_set(request.param)
    yield request.param
    cpu.use_instruction_set(before)


def star(leaves=3001):
    """Node 0 takes and sends nearly all edges, in more segments than threads; node 1 has one edge more."""
    leaf = torch.arange(2, leaves + 2)
    hub = torch.zeros_like(leaf)
    src, dst = torch.cat([leaf, hub, torch.tensor([1])]), torch.cat([hub, leaf, torch.tensor([2])])
    order = torch.randperm(src.numel(), generator=torch.Generator().manual_seed(1))
    return dgl.graph((src[order], dst[order]), num_nodes=leaves + 2)


def _draw(operator, graph, dtype, heads, width):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    n, e = graph.num_nodes(), graph.num_edges()
    row = (heads, width)

    def additive():
        return dict(value=draw(n, *row), score_src=draw(n, heads), score_dst=draw(n, heads), score_edge=draw(e, heads))

    return {
        "additive": additive,
        "gated": additive,
        "gatv2": lambda: dict(feat_src=draw(n, *row), feat_dst=draw(n, *row), attn=draw(*row), feat_edge=draw(e, *row)),
        "dot_product": lambda: dict(query=draw(n, *row), key=draw(n, *row), value=draw(n, *row), bias=draw(e, heads)),
    }[operator]()


def _all(operator, graph, arguments, backend, **options):
    """Output, weights, and every gradient of both with fixed random cotangents."""
    leaves = {k: v.detach().clone().requires_grad_() for k, v in arguments.items()}
    unused = UNUSED.get(operator)
    with ops.use_backend(backend):
        out = getattr(ops, f"{operator}_attention")(graph, **leaves, **options)
        alpha = getattr(ops, f"{operator}_weights")(graph, **{k: v for k, v in leaves.items() if k != unused})
    generator = torch.Generator().manual_seed(3)
    found = [out, alpha]
    for result in (out, alpha):
        cotangent = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype)
        found += torch.autograd.grad(result, list(leaves.values()), cotangent, allow_unused=True, retain_graph=True)
    return [t for t in found if t is not None]


def _same(got, expected, dtype):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        scale = max(1.0, float(b.detach().abs().max()) if b.numel() else 1.0)
        torch.testing.assert_close(a, b, atol=TOLERANCE[dtype] * scale, rtol=0)


# Heads and widths on both sides of every special case: registers, chunks that overlap, one column, odd heads.
SHAPES = [(1, 1), (1, 64), (2, 3), (3, 17), (4, 32), (8, 8), (5, 2), (1, 40), (8, 5), (2, 130), (16, 8), (16, 11)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_instruction_set_equals_the_reference_on_every_shape(instruction_set, operator, shape):
    graph = build("homogeneous")
    for dtype in (torch.float32, torch.float64):
        arguments = _draw(operator, graph, dtype, *shape)
        options = {"dropout": 0.3, "seed": 7, "edge_weight": torch.rand(graph.num_edges(), dtype=dtype)}
        expected = _all(operator, graph, arguments, "dgl", **options)
        _same(_all(operator, graph, arguments, "native", **options), expected, dtype)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_instruction_set_equals_the_reference_on_every_graph(instruction_set, operator, name):
    graph = build(name, torch.int32)
    arguments = OPERATORS[operator][0](graph, torch.float64, True)
    expected = _all(operator, graph, arguments, "dgl")
    _same(_all(operator, graph, arguments, "native"), expected, torch.float64)


@pytest.mark.parametrize("operator", OPERATORS)
def test_rows_that_are_cut_into_segments(instruction_set, operator):
    graph = star()
    assert graph.in_degrees().max() > 10 * 256
    arguments = _draw(operator, graph, torch.float64, 3, 5)
    options = {"dropout": 0.2, "seed": 5, "edge_weight": torch.rand(graph.num_edges(), 3, dtype=torch.float64)}
    expected = _all(operator, graph, arguments, "dgl", **options)
    _same(_all(operator, graph, arguments, "native", **options), expected, torch.float64)


@pytest.mark.parametrize("heads", [1, 3])
def test_halves_of_rows_that_are_cut_into_segments(instruction_set, heads):
    graph = star()
    logits = torch.randn(graph.num_edges(), heads, dtype=torch.float64) * 30
    for value_heads in {1, heads}:
        value = torch.randn(graph.num_nodes(), value_heads, 7, dtype=torch.float64)
        found = []
        for backend in ("dgl", "native"):
            leaves = [value.clone().requires_grad_(), logits.clone().requires_grad_()]
            with ops.use_backend(backend):
                out = ops.weighted_sum(graph, leaves[0], ops.edge_softmax(graph, leaves[1]))
            cotangent = torch.ones_like(out).cumsum(0) / out.shape[0]
            found.append([out, *torch.autograd.grad(out, leaves, cotangent)])
        _same(found[1], found[0], torch.float64)


@pytest.mark.parametrize("operator", OPERATORS)
def test_same_bits_for_one_two_and_four_threads_on_a_star(operator):
    graph = star()
    arguments = _draw(operator, graph, torch.float32, 4, 8)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 4, 2):
            torch.set_num_threads(threads)
            seen.append(_all(operator, graph, arguments, "native", dropout=0.3, seed=5))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_second_derivatives_are_refused_with_a_way_out(operator):
    graph = build("homogeneous")
    arguments = {k: v.requires_grad_() for k, v in _draw(operator, graph, torch.float64, 2, 3).items()}
    with ops.use_backend("native"):
        out = getattr(ops, f"{operator}_attention")(graph, **arguments)
    first = next(iter(arguments.values()))
    (gradient,) = torch.autograd.grad(out.square().sum(), first, create_graph=True)
    with pytest.raises(BackendError, match="differentiable once"):
        torch.autograd.grad(gradient.square().sum(), first)


def test_results_need_no_contiguous_inputs_and_never_share_memory():
    graph = build("homogeneous")
    value = torch.randn(5, 23, 3).transpose(0, 2).transpose(0, 1)  # [23, 3, 5], not contiguous
    scores = torch.randn(23, 3)
    with ops.use_backend("native"):
        out = ops.additive_attention(graph, value, scores, scores)
        expected = ops.additive_attention(graph, value.contiguous(), scores, scores)
    assert not value.is_contiguous() and torch.equal(out, expected)


def test_types_without_kernels_are_refused_by_name_and_served_by_auto():
    graph = build("homogeneous")
    value, scores = torch.randn(23, 3, 5).half(), torch.randn(23, 3).half()
    with ops.use_backend("native"), pytest.raises(BackendError, match="not for torch.float16"):
        ops.additive_attention(graph, value, scores, scores)
    assert ops.additive_attention(graph, value, scores, scores).dtype == torch.float16


def test_the_profiler_sees_one_operator_each_way():
    graph = build("homogeneous")
    value, scores = torch.randn(23, 3, 5, requires_grad=True), torch.randn(23, 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ops.additive_attention(graph, value, scores, scores).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"hgat::additive", "hgat::additive_backward"} <= names


def test_shape_rules_agree_with_the_kernels():
    graph = build("bipartite")
    from hgat.graph import csr

    structure = csr.structure(graph)
    value, src, dst = torch.randn(19, 3, 5), torch.randn(19, 3), torch.randn(13, 3)
    real = torch.ops.hgat.additive(structure, value, src, dst, None, None, None, 0.2, 0.0, 0)
    on_meta = [t.to("meta") for t in (*structure, value, src, dst)]
    meta = torch.ops.hgat.additive(on_meta[:1], *on_meta[1:], None, None, None, 0.2, 0.0, 0)
    assert [(t.shape, t.dtype) for t in meta] == [(t.shape, t.dtype) for t in real]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_layer_gives_the_results_of_the_layer(backend):
    graph = build("homogeneous")
    layer = GATConv(7, 5, 3)
    feat = torch.randn(23, 7, requires_grad=True)
    expected = layer(graph, feat)
    (wanted,) = torch.autograd.grad(expected.square().sum(), feat)
    got = torch.compile(layer, backend=backend)(graph, feat)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), feat)[0], wanted)


PROCESS = """
import sys
import torch
import torch.distributed as dist
import hgat, dgl
from hgat.nn import GATConv

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
graph = dgl.add_self_loop(dgl.graph((torch.randint(40, (300,)), torch.randint(40, (300,)))))
feat = torch.randn(2, 40, 7)
layer = GATConv(7, 5, 3)
losses = [layer(graph, each).square().mean() for each in feat]
alone = torch.autograd.grad(sum(losses) / 2, list(layer.parameters()), allow_unused=True)
parallel = torch.nn.parallel.DistributedDataParallel(layer)
with hgat.ops.use_backend("native"):
    parallel(graph, feat[rank]).square().mean().backward()
for expected, parameter in zip(alone, layer.parameters()):
    torch.testing.assert_close(parameter.grad, expected)
print("equal")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_get_the_gradient_of_their_mean(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == "equal"


def test_autocast_keeps_the_storage_small_and_the_result_near():
    graph = build("hub")
    layer = GATConv(7, 16, 4)
    feat = torch.randn(37, 7)
    expected = layer(graph, feat)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(graph, feat)
    torch.testing.assert_close(got.float(), expected, atol=0.05, rtol=0.05)


def test_the_core_refuses_arrays_that_do_not_fit():
    structure = cpu.build_structure(torch.tensor([0, 1]), torch.tensor([1, 0]), 2, 2)
    with pytest.raises(ValueError, match="expected 0 to 1|expected node numbers from 0 to 1, got 2"):
        cpu.build_structure(torch.tensor([0, 2]), torch.tensor([1, 0]), 2, 2)
    with pytest.raises(ValueError, match="made by build_structure"):
        cpu.edge_sum([structure[0][:-1]], torch.randn(2, 3), False, torch.empty(2, 3))
    with pytest.raises(ValueError, match="edge_value: expected 6 elements"):
        cpu.edge_sum(structure, torch.randn(3, 3), False, torch.empty(2, 3))
    with pytest.raises(ValueError, match="out: expected 6 elements of 32 bits"):
        cpu.edge_sum(structure, torch.randn(2, 3), False, torch.empty(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="contiguous"):
        cpu.edge_sum(structure, torch.randn(2, 3), False, torch.empty(3, 2).T)


@pytest.mark.slow
def test_the_environment_chooses_the_instruction_set():
    code = "import hgat; from hgat.kernels import cpu; print(cpu.info()['in_use'])"

    def run(name):
        environment = {**os.environ, cpu.VARIABLE: name}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert run("baseline").stdout.strip() == "baseline"
    wrong = run("avx1024")
    assert wrong.returncode != 0 and "expected auto or one of baseline" in wrong.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize(("heads", "width"), [(2, 16), (2, 9), (3, 9)], ids=["2x16", "2x9", "3x9"])
def test_nan_and_infinity_go_where_the_equations_send_them(instruction_set, heads, width, special, dtype):
    graph = star(300)
    n = graph.num_nodes()
    for operator, first in (
        ("additive", "score_src"),
        ("gated", "score_src"),
        ("gatv2", "feat_src"),
        ("dot_product", "key"),
    ):
        arguments = _draw(operator, graph, dtype, heads, width)
        arguments[first][5] = special  # one leaf, so that only the hub is reached
        arguments[first][1, 0] = special  # the one in-edge of node 2, for one head
        found = {}
        for backend in ("dgl", "native"):
            with ops.use_backend(backend):
                found[backend] = getattr(ops, f"{operator}_attention")(graph, **arguments)
        close = {"equal_nan": True, "atol": TOLERANCE[dtype] * 10, "rtol": TOLERANCE[dtype] * 10}
        torch.testing.assert_close(
            found["native"], found["dgl"], **close, msg=lambda m, operator=operator: f"{operator}: {m}"
        )
        others = torch.arange(3, n)
        assert found["native"][others].isfinite().all()
