"""The three attention operators, on every backend: against the oracle, forward and every gradient."""

import dgl
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from cases import OPERATORS, UNUSED, oracle_sum, oracle_weights
from hgat import ops
from zoo import ZOO, build

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def _run(operator, graph, arguments, **options):
    return getattr(ops, f"{operator}_attention")(graph, **arguments, **options)


def _weights(operator, graph, arguments):
    unused = UNUSED.get(operator)
    return getattr(ops, f"{operator}_weights")(graph, **{k: v for k, v in arguments.items() if k != unused})


def _oracle(operator, graph, arguments, edge_weight=None):
    logits, value = OPERATORS[operator][1](graph, **arguments)
    alpha = oracle_weights(operator, graph, logits)
    return oracle_sum(graph, value, alpha if edge_weight is None else alpha * edge_weight), alpha


def _close(got, expected, dtype):
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("edge_terms", [False, True], ids=["plain", "edge-terms"])
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("operator", OPERATORS)
def test_output_and_gradients_equal_the_oracle(operator, name, dtype, idtype, edge_terms):
    graph = build(name, idtype)
    arguments = OPERATORS[operator][0](graph, dtype, edge_terms)
    arguments["edge_weight"] = torch.rand(graph.num_edges(), dtype=dtype)
    leaves = {k: v.requires_grad_() for k, v in arguments.items()}
    edge_weight = leaves.pop("edge_weight")
    expected, alpha = _oracle(operator, graph, leaves, edge_weight[:, None])
    got = _run(operator, graph, leaves, edge_weight=edge_weight)
    _close(got, expected, dtype)
    _close(_weights(operator, graph, leaves), alpha, dtype)
    cotangent = torch.randn_like(expected)
    every = [*leaves.values(), edge_weight]
    of_oracle = torch.autograd.grad(expected, every, cotangent, allow_unused=True) if expected.requires_grad else None
    of_hgat = torch.autograd.grad(got, every, cotangent, allow_unused=True)
    for k, leaf in enumerate(every):
        wanted = None if of_oracle is None else of_oracle[k]
        wanted = torch.zeros_like(leaf) if wanted is None else wanted
        _close(torch.zeros_like(leaf) if of_hgat[k] is None else of_hgat[k], wanted, dtype)


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradcheck_in_float64_with_dropout(operator):
    graph = build("zero_in_degree")
    arguments = OPERATORS[operator][0](graph, torch.float64, True)
    names = list(arguments)
    leaves = [arguments[k].requires_grad_() for k in names]

    def run(*values):
        return _run(operator, graph, dict(zip(names, values, strict=True)), dropout=0.4, seed=11)

    assert gradcheck(run, leaves, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("operator", OPERATORS)
def test_second_derivatives_are_right_on_the_reference(operator):
    graph = build("homogeneous")
    arguments = OPERATORS[operator][0](graph, torch.float64, True)
    names = list(arguments)

    def run(*values):
        with ops.use_backend("dgl"):
            return _run(operator, graph, dict(zip(names, values, strict=True)))

    assert gradgradcheck(run, [arguments[k].requires_grad_() for k in names], atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("operator", OPERATORS)
def test_isolated_nodes_get_zeros_and_give_none(operator):
    graph = build("zero_in_degree")
    arguments = OPERATORS[operator][0](graph, torch.float32, False)
    out = _run(operator, graph, arguments)
    isolated = graph.in_degrees() == 0
    assert isolated.any()
    assert (out[isolated] == 0).all()
    assert (out[~isolated] != 0).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("operator", OPERATORS)
def test_nan_and_infinity_stay_in_the_rows_that_they_reach(operator, bad):
    graph = build("bipartite")
    arguments = OPERATORS[operator][0](graph, torch.float32, False)
    first = next(k for k in arguments if k in ("score_src", "feat_src", "key"))
    if operator == "gated" and bad > 0:
        first = "value"  # a score without bound is a weight of one
    arguments[first][7] = bad
    reached = torch.zeros(graph.num_dst_nodes(), dtype=torch.bool)
    reached[graph.successors(7)] = True
    out = _run(operator, graph, arguments)
    finite = torch.isfinite(out).flatten(1).all(1)
    assert reached.any() and not reached.all()
    assert (finite == ~reached).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_order_of_edges_and_strides_do_not_matter(operator):
    graph = build("multi_edges")
    arguments = OPERATORS[operator][0](graph, torch.float32, True)
    out = _run(operator, graph, arguments)
    order = torch.randperm(graph.num_edges())
    src, dst = graph.edges(order="eid")
    shuffled_graph = dgl.graph((src[order], dst[order]), num_nodes=graph.num_nodes())
    edge_name = next(k for k in arguments if k in ("score_edge", "feat_edge", "bias"))
    shuffled = {**arguments, edge_name: arguments[edge_name][order]}
    rounding = 1e-6 * float(out.abs().max()) if operator == "gated" else 1e-6  # a sum without a softmax is no mean
    torch.testing.assert_close(_run(operator, shuffled_graph, shuffled), out, atol=rounding, rtol=0)
    strided = {k: v.transpose(0, -1).contiguous().transpose(0, -1) for k, v in arguments.items()}
    assert not next(iter(strided.values())).is_contiguous()
    torch.testing.assert_close(_run(operator, graph, strided), out, atol=rounding, rtol=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_same_bits_twice_and_for_one_and_two_threads(operator):
    graph = build("hub")
    arguments = {k: v.requires_grad_() for k, v in OPERATORS[operator][0](graph, torch.float32, True).items()}
    cotangent = None
    seen = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            out = _run(operator, graph, arguments, dropout=0.3, seed=5)
            cotangent = torch.randn_like(out) if cotangent is None else cotangent
            seen.append([out.detach(), *torch.autograd.grad(out, list(arguments.values()), cotangent)])
    finally:
        torch.set_num_threads(threads)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("operator", OPERATORS)
def test_half_precision_is_summed_in_float32(operator, dtype):
    graph = build("hub")
    arguments = OPERATORS[operator][0](graph, torch.float32, True)
    half = {k: v.to(dtype) for k, v in arguments.items()}
    out = _run(operator, graph, half)
    assert out.dtype == dtype
    expected, _ = _oracle(operator, graph, {k: v.float() for k, v in half.items()})
    torch.testing.assert_close(out, expected.to(dtype), atol=0, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("operator", OPERATORS)
def test_uniform_attention_is_the_mean_or_the_sum_of_the_in_edges(operator):
    graph = build("homogeneous")
    arguments = OPERATORS[operator][0](graph, torch.float32, True)
    value = arguments.get("value", arguments.get("feat_src"))
    even = 1.0 / graph.in_degrees()[graph.edges(order="eid")[1]].float()[:, None].expand(-1, value.shape[1])
    if operator == "gated":  # which has no softmax: a plain sum
        even = torch.ones_like(even)
    with ops.uniform_attention():
        out, alpha = _run(operator, graph, arguments), _weights(operator, graph, arguments)
    torch.testing.assert_close(out, oracle_sum(graph, value, even), atol=1e-6, rtol=0)
    torch.testing.assert_close(alpha, even, atol=1e-7, rtol=0)
    assert (_run(operator, graph, arguments) - out).abs().max() > 1e-3


@pytest.mark.parametrize("operator", OPERATORS)
def test_graph_is_left_as_it_was(operator):
    graph = build("homogeneous")
    graph.ndata["mine"] = torch.ones(graph.num_nodes())
    _run(operator, graph, OPERATORS[operator][0](graph, torch.float32, True))
    assert set(graph.ndata) == {"mine"} and not graph.edata
