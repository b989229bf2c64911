"""Twenty thousand calls with infinities, NaN, huge and denormal numbers, empty sizes and every number of heads to 17.

The compiled core equals the reference in float64, outputs, weights and every gradient, or the call is refused in one
sentence.
"""

import random

import dgl
import pytest
import torch

from hgat import ops
from hgat.errors import HgatError
from hgat.kernels import cpu

CALLS = 20_000
SPECIAL = [-float("inf")] * 6 + [float("nan"), float("inf"), 1e30, -1e30, 1e-310, -1e-310, 0.0, -0.0]
OPERATORS = {
    "additive_attention": ("value:SHD", "score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "additive_weights": ("score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "gated_attention": ("value:SHD", "score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "gatv2_attention": ("feat_src:SHD", "feat_dst:THD", "attn:HD", "feat_edge:EHD?"),
    "gatv2_weights": ("feat_src:SHD", "feat_dst:THD", "attn:HD", "feat_edge:EHD?"),
    "dot_product_attention": ("query:THD", "key:SHD", "value:SHV", "bias:EH?"),
    "dot_product_weights": ("query:THD", "key:SHD", "bias:EH?"),
    "additive_logits": ("score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "copy_u": ("score_src:SH",),
    "edge_softmax": ("logits:EH",),
    "weighted_sum": ("value:SHD", "weight:EH"),
}


def _graphs(rng):
    """Small random graphs, one of them with rows of several segments."""
    graphs = []
    for _ in range(40):
        src, dst = rng.choice([0, 1, 2, 5, 7]), rng.choice([0, 1, 2, 3, 6])
        edges = rng.choice([0, 1, 4, 13]) if src and dst else 0
        ends = [torch.tensor([rng.randrange(n) for _ in range(edges)], dtype=torch.int64) for n in (src, dst)]
        graphs.append(dgl.heterograph({("a", "r", "b"): tuple(ends)}, {"a": src, "b": dst}))
    hub = torch.arange(600) % 7, torch.zeros(600, dtype=torch.int64)
    graphs.append(dgl.heterograph({("a", "r", "b"): hub}, {"a": 7, "b": 3}))
    return graphs


def _tensor(rng, sizes, letters, share):
    tensor = torch.randn([sizes[letter] for letter in letters], dtype=torch.float64)
    if share and tensor.numel():
        flat = tensor.view(-1)
        for _ in range(rng.choice([0, 1, 2, max(1, int(share * flat.numel()))])):
            flat[rng.randrange(flat.numel())] = rng.choice(SPECIAL)
        if rng.random() < 0.1:
            tensor[rng.randrange(len(tensor))] = rng.choice(SPECIAL)
        if rng.random() < 0.03:
            tensor.fill_(rng.choice(SPECIAL))
    return tensor


def _call(rng, graphs):
    graph = graphs[-1] if rng.random() < 0.02 else rng.choice(graphs)
    sizes = {
        "S": graph.num_src_nodes(), "T": graph.num_dst_nodes(), "E": graph.num_edges(),
        "H": rng.choice([0, *range(1, 18)]), "D": rng.choice([0, 1, 2, 3, 8, 9]), "V": rng.choice([0, 1, 4, 5]),
    }  # fmt: skip
    name = rng.choice(list(OPERATORS))
    share = rng.choice([0.0, 0.1, 0.5])
    arguments, options = {}, {}
    for item in OPERATORS[name]:
        key, letters = item.split(":")
        if not letters.endswith("?") or rng.random() < 0.5:
            arguments[key] = _tensor(rng, sizes, letters.rstrip("?"), share)
    if "attention" in name or "weights" in name:
        if rng.random() < 0.4:
            shape = (sizes["E"],) if rng.random() < 0.5 else (sizes["E"], sizes["H"])
            options["edge_mask"] = torch.rand(shape) < rng.choice([0.0, 0.5, 1.0])
        if name.startswith(("additive", "gatv2")) and rng.random() < 0.3:
            options["negative_slope"] = rng.choice([0.0, 0.5, 1.0, -0.3])
    if "attention" in name:
        if rng.random() < 0.2:
            options |= {"dropout": rng.choice([0.3, 1.0]), "seed": rng.randrange(100)}
        if rng.random() < 0.2:
            options["edge_weight"] = _tensor(rng, sizes, "EH", share / 4)
    return name, graph, arguments, options


def _answer(backend, name, graph, arguments, options, dtype):
    leaves = {k: v.to(dtype).requires_grad_() for k, v in arguments.items()}
    options = {k: v.to(dtype) if k == "edge_weight" else v for k, v in options.items()}
    try:
        with ops.use_backend(backend):
            out = getattr(ops, name)(graph, **leaves, **options)
    except HgatError as error:
        return str(error)
    cotangent = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape).to(dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), cotangent, allow_unused=True)
    zero = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), grads, strict=True)]
    return [out.detach(), *zero]


@pytest.mark.slow
@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_every_call_equals_the_reference_or_is_refused_in_one_sentence():
    rng = random.Random(20261)
    graphs = _graphs(rng)
    compared = refused = with_gradients = 0
    for number in range(CALLS):
        name, graph, arguments, options = _call(rng, graphs)
        want = _answer("dgl", name, graph, arguments, options, torch.float64)
        got = _answer("native", name, graph, arguments, options, torch.float64)
        if isinstance(got, str) or isinstance(want, str):
            assert isinstance(got, str) and "\n" not in got and ("expected" in got or "at least one head" in got), got
            refused += 1
            continue
        compared += 1
        # Gradients of infinities and NaN are infinity less infinity in one order of additions or another; those of
        # masks and of finite numbers are numbers.
        size = _size(arguments)
        some = 1 if not _only_masks({**arguments, **options}) else len(got)
        for label, mine, theirs in zip(["out", *arguments], got[:some], want[:some], strict=False):
            here = f"call {number}, {name}{[tuple(v.shape) for v in arguments.values()]} {options}: {label}"
            torch.testing.assert_close(
                mine, theirs, atol=1e-10 * size, rtol=1e-9, equal_nan=True, msg=lambda m, here=here: f"{here}: {m}"
            )
        with_gradients += some > 1
        if not graph.num_edges():  # nothing reaches anything, whatever it holds
            assert all((part == 0).all() for part in got), number
    assert compared > 14_000 and with_gradients > 7_000 and refused > 100


def _size(arguments):
    """What the largest numbers of a sum may be, less infinities: sums of 1e30 round to 1e14, in their own order."""
    largest = [v.abs()[v.isfinite()].max() for v in arguments.values() if v.isfinite().any()]
    return max(1.0, float(torch.stack(largest).clamp(min=1.0).prod())) if largest else 1.0


def _only_masks(arguments):
    """True if nothing is special but minus infinity in what is added to logits alone."""
    for name, value in arguments.items():
        if not isinstance(value, torch.Tensor) or value.dtype == torch.bool:
            continue
        wrong = ~value.isfinite() | (value.abs() > 1e20)
        if name in ("score_src", "score_dst", "score_edge", "bias", "logits"):
            wrong &= value != -torch.inf
        if wrong.any():
            return False
    return True
