"""Every Triton kernel compiled for GPUs that need not be there: registers, spills and shared memory stay small."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1 is set, which compiles nothing", allow_module_level=True)

from compiled import compiled, launches, resources

from hgat.kernels import triton as kernels
from hgat.kernels.triton import _host

NODES, EDGES = 169_343, 2_470_000
SHAPES = [(4, 32), (8, 8), (1, 64), (4, 64), (8, 128), (3, 250)]
DROPOUT = (5, 1 << 31, 2.0)


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def structure(chunks=900, number=torch.int32):
    """That of a graph of NODES and EDGES with long rows, of shapes alone."""
    shapes = [(NODES + 1,), (EDGES,), (EDGES,), (chunks, 3), (chunks // 3, 3)]
    return [empty(*shape, dtype=number) for shape in shapes * 2]


def attention(kind, heads, width, dtype=torch.float32, terms=False, number=torch.int32):
    """Forward and backward with every gradient, as one call."""
    rows = lambda: empty(NODES, heads, width, dtype=dtype)  # noqa: E731
    scores, of_edges = empty(NODES, heads), empty(EDGES, heads)
    edge = None
    if terms:
        edge = empty(EDGES, heads, width, dtype=dtype) if kind == "gatv2" else of_edges
    inputs = {
        "additive": (rows(), scores, scores, edge),
        "gatv2": (rows(), rows(), edge, empty(heads, width)),
        "dot": (rows(), rows(), rows(), edge),
    }[kind]
    weight = of_edges if terms else None
    mask = empty(EDGES, heads, dtype=torch.bool) if terms else None
    dropout = DROPOUT if terms else None
    operator = getattr(kernels, kind)
    graph = structure(number=number)

    def call():
        arguments = (graph, 0.2, dropout, weight, mask, *inputs)
        operator(*arguments, out=rows(), top=scores, inverse=scores, alpha=None)
        operator(*arguments, top=scores, inverse=scores, d_out=rows(), gradients=[*inputs, weight])
        operator(graph, 0.2, None, None, mask, *inputs, alpha=of_edges)

    return call


def gat(heads, width, dtype=torch.float32):
    """Forward and backward with every gradient of GAT that makes its scores."""
    value, attn, scores = empty(NODES, heads, width, dtype=dtype), empty(heads, width), empty(NODES, heads)

    def call():
        arguments = (structure(), 0.2, None, None, None, value, attn, attn, None)
        kernels.gat(*arguments, out=value, top=scores, inverse=scores)
        kernels.gat(*arguments, top=scores, inverse=scores, d_out=value, gradients=[value, attn, attn, None, None])

    return call


def sums(heads, width, shared):
    value, weight = empty(NODES, 1 if shared else heads, width), empty(EDGES, heads)
    out = empty(NODES, heads, width)

    def call():
        graph = structure()
        kernels.weighted_sum(graph, value, weight, 1.0, False, out)
        kernels.weighted_sum_backward(graph, value, weight, out, value, weight)
        kernels.edge_softmax(graph, weight, weight)
        kernels.softmax_backward(graph, weight, weight, weight)
        kernels.edge_sum(graph, weight, True, empty(NODES, heads))

    return call


def within_bounds(monkeypatch, call, capability, expected):
    found = launches(monkeypatch, call)
    assert len({kernel.__name__ for kernel, *_ in found}) >= expected  # nothing was left out
    for launch in found:
        use = resources(launch, capability)
        kernel, _, _, constants = launch
        what = f"{kernel.__name__} {constants} {use}"
        assert use["spilled"] <= 16, what
        # Eight programs of one warp or more, or two of eight, share the 65,536 registers of a multiprocessor.
        assert use["registers"] * 32 * use["warps"] * (8 if use["warps"] == 1 else 2) <= 65_536, what
        assert use["shared"] <= 8_192, what
    return found


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["additive", "gatv2", "dot"])
def test_attention_at_the_shape_of_many_layers(kind, capability, monkeypatch):
    within_bounds(monkeypatch, attention(kind, 4, 32), capability, 7)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("kind", ["additive", "gatv2", "dot"])
def test_attention_at_other_shapes(kind, shape, monkeypatch):
    within_bounds(monkeypatch, attention(kind, *shape), 90, 7)


@pytest.mark.parametrize("kind", ["additive", "gatv2", "dot"])
def test_attention_with_every_term_in_bfloat16_and_wide_numbers(kind, monkeypatch):
    within_bounds(monkeypatch, attention(kind, 4, 32, torch.bfloat16, True, torch.int64), 90, 7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gat_with_its_scores(shape, monkeypatch):
    within_bounds(monkeypatch, gat(*shape), 90, 9)
    within_bounds(monkeypatch, gat(*shape, torch.bfloat16), 90, 9)


@pytest.mark.parametrize("capability", [80, 90])
def test_sums(capability, monkeypatch):
    within_bounds(monkeypatch, sums(4, 32, False), capability, 8)
    within_bounds(monkeypatch, sums(4, 32, True), capability, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_read_sixteen_bytes_a_thread(dtype, monkeypatch):
    seen = set()
    for launch in launches(monkeypatch, attention("additive", 4, 32, dtype)):
        kernel, _, arguments, _ = launch
        if kernel.__name__ in ("attend", "by_destination", "by_source") and arguments[5] is not None:  # the values
            seen.add(kernel.__name__)
            assert "ld.global.v4" in compiled(launch, 90).asm["ptx"], kernel.__name__
    assert len(seen) == 3


def test_a_launch_finds_the_kernel_of_its_types_alignment_and_constants(monkeypatch):
    monkeypatch.setattr(_host, "_QUICK", {"cpu"})
    launched = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *given: launched.append((grid, given))

    class Kernel:
        arg_names = ("out", "mask", "count", "WIDTH")
        compiled = 0

        def __getitem__(self, grid):
            def compile_and_launch(*arguments, **constants):
                self.compiled += 1
                return Compiled()

            return compile_and_launch

    kernel, memory = Kernel(), torch.zeros(64)
    bases = torch.zeros(64, dtype=torch.bfloat16)
    # What is launched, and whether Triton has to be asked for a kernel.
    for arguments, width, new in (
        ((memory, None, 3), 4, True),
        ((memory[16:], None, 5), 4, False),  # other memory and numbers
        ((memory[1:], None, 3), 4, True),  # not aligned to 16 bytes
        ((memory, bases, 3), 4, True),
        ((bases, None, 3), 4, True),
        ((memory, None, 3), 8, True),
        ((memory, None, 1), 4, False),
    ):
        before = kernel.compiled
        _host._run(kernel, (7, 2), 1, arguments, WIDTH=width)
        assert (kernel.compiled > before) == new, (arguments[2], width)
    assert launched == [
        ((7, 2, 1), (memory[16:].data_ptr(), None, 5, 4)),
        ((7, 2, 1), (memory.data_ptr(), None, 1, 4)),
    ]


def test_offsets_into_results_that_are_larger_than_all_that_is_given_are_wide():
    """20 million destinations of a thousand sources: out has 2.56e9 numbers, and nothing else as many as 2^31."""
    few, many = 1000, 20_000_000
    shapes = [(many + 1,), (many,), (many,), (0, 3), (0, 3), (few + 1,), (many,), (many,), (0, 3), (0, 3)]
    rows = [empty(*shape, dtype=torch.int32) for shape in shapes]
    value, left, right = empty(few, 4, 32), empty(few, 4), empty(many, 4)
    assert _host.Call("additive", rows, 0.2, None, None, None, value, left, right, None).wide
    narrow = [empty(*shape, dtype=torch.int32) for shape in [(few + 1,), (few,), (few,), (0, 3), (0, 3)] * 2]
    assert not _host.Call("additive", narrow, 0.2, None, None, None, value, left, left, None).wide
