"""The operators of compiled kernels as PyTorch's, `torch.ops.hgat.*`: schema, shapes and autograd, once for all.

Each operator has one kernel for every device, a shape rule for torch.compile, and an autograd rule whose backward is an
operator, too, so that the profiler and the compiler see every step. Backward recomputes alpha and stores nothing of
size E * H unless a gradient of that size is asked for. It cannot be differentiated again: the backend `torch` can.

structure, the first argument of all, is hgat.graph.csr.structure(graph, device, kernels), and says which kernels run:
the compiled core's has one tensor, Triton's several. Scores, alpha and edge weights have the type of the sums: float64
for float64, else float32.
"""

from functools import partial
from types import ModuleType
from typing import Any

import torch

from hgat import transforms
from hgat.errors import BackendError
from hgat.ops.dropout import dropout_numbers

__all__ = [
    "additive_alpha_op",
    "additive_logits_op",
    "additive_op",
    "copy_u_op",
    "copy_v_op",
    "dot_edges_op",
    "dot_op",
    "gat_op",
    "gated_op",
    "gatv2_alpha_op",
    "gatv2_op",
    "implement",
    "softmax_op",
    "sum_type",
    "weighted_sum_op",
]

_kernels: dict[bool, ModuleType] = {}  # of structures of several tensors, or of one


def implement(kernels: ModuleType, several: bool) -> None:
    """Run `kernels`, functions called as those of hgat.kernels.cpu, on structures of several tensors, or of one."""
    _kernels[several] = kernels


def _core(structure):
    return _kernels[len(structure) > 1]


DEVICES = ("CPU", "CUDA", "XPU")  # of PyTorch's dispatcher; ROCm is its CUDA
_library = torch.library.Library("hgat", "DEF")
_register_fake = getattr(torch.library, "register_fake", None) or torch.library.impl_abstract


def _below_autograd(operator, *arguments):
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


class _Once(torch.autograd.Function):
    """Runs a backward operator; its results may not be differentiated again."""

    @staticmethod
    def forward(ctx, operator, *arguments):
        results = _below_autograd(operator, *arguments)
        return tuple(results) if isinstance(results, list) else results  # autograd does not look into lists

    @staticmethod
    def backward(ctx, *_):
        raise BackendError(
            "the compiled kernels are differentiable once; for second derivatives run forward inside "
            'hgat.ops.use_backend("torch")'
        )


def _define(schema, kernel, shapes):
    """Register one operator: its kernel, and the function that gives its results' shapes."""
    name = schema.split("(", 1)[0]
    _library.define(schema)
    for device in DEVICES:
        _library.impl(name, kernel, device)
    _register_fake(f"hgat::{name}", shapes)
    operator = getattr(torch.ops.hgat, name).default
    _library.impl(name, transforms.one_by_one(operator), "Batched")
    return operator


def _forward(schema, kernel, shapes, function):
    """An operator with the autograd rule `function`."""
    operator = _define(schema, kernel, shapes)
    _library.impl(schema.split("(", 1)[0], function.apply, "Autograd")
    return operator


def _backward(schema, kernel, shapes):
    """An operator that computes gradients, differentiable no further."""
    operator = _define(schema, kernel, shapes)

    def autograd(*arguments):
        if torch.is_grad_enabled():
            results = _Once.apply(operator, *arguments)
            return list(results) if isinstance(results, tuple) else results
        return _below_autograd(operator, *arguments)

    _library.impl(schema.split("(", 1)[0], autograd, "Autograd")
    return operator


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """The type of scores and sums beside rows of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _gradients(tensors, needs, beside):
    """Memory for the gradients of `tensors`; an empty tensor, on the device of `beside`, where nobody wants one."""
    return [
        t.new_empty(t.shape) if wanted and t is not None else beside.new_empty(0)
        for t, wanted in zip(tensors, needs, strict=True)
    ]


def _per_row(tensor, heads):
    """Memory for [rows of `tensor`, heads] in the type of its sums."""
    return torch.empty((tensor.shape[0], heads), dtype=sum_type(tensor.dtype), device=tensor.device)


def _weight_gradient(edge_weight, gradient):
    """The gradient [E, H] that the kernels give, as one of the weight: [E, H] or [E, 1]."""
    if edge_weight is None or gradient is None:
        return None
    return gradient.sum(1, keepdim=True) if edge_weight.shape[1] != gradient.shape[1] else gradient


def _attention(name, core, inputs, factor, like):
    """Define hgat::`name` and hgat::`name`_backward; gives the first.

    core: name of the kernel. inputs: schema of the four tensors between structure and edge weight. factor:
    name of the number behind them. like: (structure, those four) -> (tensor whose type the result has, its shape).
    """
    schema = (
        f"Tensor[] structure, {inputs}, Tensor? edge_weight, Tensor? edge_mask, float {factor}, float dropout, int seed"
    )

    def shapes(structure, *arguments):
        typed, shape = like(structure, *arguments[:4])
        out = typed.new_empty(shape)
        return out, _per_row(out, shape[1]), _per_row(out, shape[1])

    def kernel(structure, *arguments):
        *tensors, edge_weight, edge_mask, factor, dropout, seed = arguments
        out, top, inverse = shapes(structure, *arguments)
        dropped = dropout_numbers(dropout, seed)
        run = getattr(_core(structure), core)
        run(structure, factor, dropped, edge_weight, edge_mask, *tensors, out=out, top=top, inverse=inverse)
        return out, top, inverse

    def backward_shapes(structure, *arguments):
        *tensors, edge_weight, _, factor, dropout, seed, top, inverse, d_out, needs = arguments
        weight = None if edge_weight is None else top.new_empty((edge_weight.shape[0], top.shape[1]))
        return _gradients((*tensors, weight), needs, d_out)

    def backward_kernel(structure, *arguments):
        *tensors, edge_weight, edge_mask, factor, dropout, seed, top, inverse, d_out, needs = arguments
        d = backward_shapes(structure, *arguments)
        given = [t if wanted else None for t, wanted in zip(d, needs, strict=True)]
        dropped = dropout_numbers(dropout, seed)
        getattr(_core(structure), core)(
            structure, factor, dropped, edge_weight, edge_mask, *tensors,
            top=top, inverse=inverse, d_out=d_out, gradients=given,
        )  # fmt: skip
        return d

    finished = "Tensor top, Tensor inverse, Tensor d_out, bool[] needs"
    backward_op = _backward(f"{name}_backward({schema}, {finished}) -> Tensor[]", backward_kernel, backward_shapes)

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            out, top, inverse = _below_autograd(forward_op, *arguments)
            # Not `out`: it is the caller's, who may write to it (an activation in place, a residual).
            ctx.structure = arguments[0]
            ctx.save_for_backward(*arguments[1:7], top, inverse)
            ctx.numbers = arguments[7:]
            ctx.mark_non_differentiable(top, inverse)
            return out, top, inverse

        @staticmethod
        def backward(ctx, d_out, *_):
            *tensors, top, inverse = ctx.saved_tensors
            needs = list(ctx.needs_input_grad[1:6])
            # The rule of the backward operator only says no to what is differentiated again: a call less without it.
            run = backward_op if torch.is_grad_enabled() else partial(_below_autograd, backward_op)
            d = run(ctx.structure, *tensors, *ctx.numbers, top, inverse, d_out, needs)
            d = [g if wanted else None for g, wanted in zip(d, needs, strict=True)]
            return None, *d[:4], _weight_gradient(tensors[4], d[4]), None, None, None, None

    Attention.__name__ = Attention.__qualname__ = f"{name}_attention"  # what the profiler shows
    forward_op = _forward(f"{name}({schema}) -> (Tensor, Tensor, Tensor)", kernel, shapes, Attention)

    def call(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The operator; straight to its autograd rule where no compiler has to see it, which PyTorch would look up."""
        return forward_op(*arguments) if torch.compiler.is_compiling() else Attention.apply(*arguments)

    return call


def _gated_kernel(structure, value, score_src, score_dst, score_edge, edge_weight, edge_mask, form, dropout, seed):
    out = _gated_shapes(structure, value, score_src, score_dst)
    scores, dropped = (score_src, score_dst, score_edge), dropout_numbers(dropout, seed)
    _core(structure).gated(structure, form, dropped, edge_weight, edge_mask, value, *scores, out=out)
    return out


def _gated_shapes(structure, value, score_src, score_dst, *_):
    return value.new_empty((score_dst.shape[0], *value.shape[1:]))


def _gated_backward_shapes(structure, value, score_src, score_dst, score_edge, edge_weight, *others):
    *_, d_out, needs = others
    weight = None if edge_weight is None else edge_weight.new_empty((edge_weight.shape[0], value.shape[1]))
    return _gradients((value, score_src, score_dst, score_edge, weight), needs, d_out)


def _gated_backward_kernel(structure, *arguments):
    *tensors, edge_weight, edge_mask, form, dropout, seed, d_out, needs = arguments
    d = _gated_backward_shapes(structure, *arguments)
    given = [t if wanted else None for t, wanted in zip(d, needs, strict=True)]
    dropped = dropout_numbers(dropout, seed)
    _core(structure).gated(structure, form, dropped, edge_weight, edge_mask, *tensors, d_out=d_out, gradients=given)
    return d


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        ctx.structure, ctx.numbers = arguments[0], arguments[7:]
        ctx.save_for_backward(*arguments[1:7])
        return _below_autograd(gated_op, *arguments)

    @staticmethod
    def backward(ctx, d_out):
        tensors = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[1:6])
        d = gated_backward_op(ctx.structure, *tensors, *ctx.numbers, d_out, needs)
        d = [g if wanted else None for g, wanted in zip(d, needs, strict=True)]
        return None, *d[:4], _weight_gradient(tensors[4], d[4]), None, None, None, None


def _additive_alpha_kernel(structure, score_src, score_dst, score_edge, edge_mask, slope, num_edges):
    alpha = score_src.new_empty((num_edges, score_src.shape[1]))
    _core(structure).additive(
        structure, slope, None, None, edge_mask, None, score_src, score_dst, score_edge, alpha=alpha
    )
    return alpha


def _additive_logits_kernel(structure, score_src, score_dst, score_edge, num_edges):
    """score_src_u + score_dst_v + score_edge_uv, before the leaky ReLU."""
    logits = score_src.new_empty((num_edges, score_src.shape[1]))
    _core(structure).additive(structure, 1.0, None, None, None, None, score_src, score_dst, score_edge, logits=logits)
    return logits


class _AdditiveLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure, score_src, score_dst, score_edge, num_edges):
        ctx.structure = structure
        ctx.rows = score_src.shape[0], score_dst.shape[0]
        return _below_autograd(additive_logits_op, structure, score_src, score_dst, score_edge, num_edges)

    @staticmethod
    def backward(ctx, d):
        needs = ctx.needs_input_grad[1:4]
        d_ends = [
            edge_sum_op(ctx.structure, d, by_source, rows) if wanted else None
            for by_source, rows, wanted in zip((True, False), ctx.rows, needs, strict=False)
        ]
        return None, *d_ends, d if needs[2] else None, None


class _AdditiveAlpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure, score_src, score_dst, score_edge, edge_mask, slope, num_edges):
        scores = score_src, score_dst, score_edge
        alpha = _below_autograd(additive_alpha_op, structure, *scores, edge_mask, slope, num_edges)
        ctx.save_for_backward(score_src, score_dst, score_edge, alpha)
        ctx.structure, ctx.slope = structure, slope
        return alpha

    @staticmethod
    def backward(ctx, d_alpha):
        score_src, score_dst, score_edge, alpha = ctx.saved_tensors
        structure = ctx.structure
        needs = list(ctx.needs_input_grad[1:4])
        d_logits = softmax_backward_op(structure, alpha, d_alpha)
        before = additive_logits_op(structure, score_src, score_dst, score_edge, alpha.shape[0])
        d = torch.where(before > 0, d_logits, d_logits * ctx.slope)
        d_src = edge_sum_op(structure, d, True, score_src.shape[0]) if needs[0] else None
        d_dst = edge_sum_op(structure, d, False, score_dst.shape[0]) if needs[1] else None
        return None, d_src, d_dst, d if needs[2] else None, None, None, None


def _gatv2_alpha_kernel(structure, feat_src, feat_dst, feat_edge, attn, edge_mask, slope, num_edges):
    alpha = attn.new_empty((num_edges, attn.shape[0]))
    _core(structure).gatv2(structure, slope, None, None, edge_mask, feat_src, feat_dst, feat_edge, attn, alpha=alpha)
    return alpha


def _gatv2_logits_backward_shapes(structure, feat_src, feat_dst, feat_edge, attn, slope, d_logits, needs):
    return _gradients((feat_src, feat_dst, feat_edge, attn), needs, d_logits)


def _gatv2_logits_backward_kernel(structure, feat_src, feat_dst, feat_edge, attn, slope, d_logits, needs):
    d = _gatv2_logits_backward_shapes(structure, feat_src, feat_dst, feat_edge, attn, slope, d_logits, needs)
    given = [t if wanted else None for t, wanted in zip(d, needs, strict=True)]
    _core(structure).gatv2(
        structure,
        slope,
        None,
        None,
        None,
        feat_src,
        feat_dst,
        feat_edge,
        attn,
        d_logits=d_logits,
        gradients=[*given, None],
    )
    return d


class _Gatv2Alpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure, feat_src, feat_dst, feat_edge, attn, edge_mask, slope, num_edges):
        tensors = (feat_src, feat_dst, feat_edge, attn)
        alpha = _below_autograd(gatv2_alpha_op, structure, *tensors, edge_mask, slope, num_edges)
        ctx.save_for_backward(*tensors, alpha)
        ctx.structure, ctx.slope = structure, slope
        return alpha

    @staticmethod
    def backward(ctx, d_alpha):
        *tensors, alpha = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[1:5])
        d_logits = softmax_backward_op(ctx.structure, alpha, d_alpha)
        d = gatv2_logits_backward_op(ctx.structure, *tensors, ctx.slope, d_logits, needs)
        return None, *[g if wanted else None for g, wanted in zip(d, needs, strict=True)], None, None, None


def _dot_edges_kernel(structure, query, key, bias, edge_mask, scale, normalised, num_edges):
    result = query.new_empty((num_edges, query.shape[1]), dtype=sum_type(query.dtype))
    name = "alpha" if normalised else "logits"
    _core(structure).dot(structure, scale, None, None, edge_mask, query, key, None, bias, **{name: result})
    return result


class _DotEdges(torch.autograd.Function):
    """Logits of dot-product attention, or, normalised, their softmax."""

    @staticmethod
    def forward(ctx, structure, query, key, bias, edge_mask, scale, normalised, num_edges):
        result = _below_autograd(dot_edges_op, structure, query, key, bias, edge_mask, scale, normalised, num_edges)
        ctx.save_for_backward(query, key, result if normalised else None)
        ctx.structure, ctx.scale = structure, scale
        return result

    @staticmethod
    def backward(ctx, d_result):
        query, key, alpha = ctx.saved_tensors
        structure = ctx.structure
        needs = ctx.needs_input_grad[1:4]
        d = d_result if alpha is None else softmax_backward_op(structure, alpha, d_result)
        d_query = sum_rows_op(structure, key, d, ctx.scale, False, query.shape[0]) if needs[0] else None
        d_key = sum_rows_op(structure, query, d, ctx.scale, True, key.shape[0]) if needs[1] else None
        return None, d_query, d_key, d if needs[2] else None, None, None, None, None


def _softmax_kernel(structure, logits):
    alpha = logits.new_empty(logits.shape)
    _core(structure).edge_softmax(structure, logits, alpha)
    return alpha


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure, logits):
        alpha = _below_autograd(softmax_op, structure, logits)
        ctx.structure = structure
        ctx.save_for_backward(alpha)
        return alpha

    @staticmethod
    def backward(ctx, d_alpha):
        (alpha,) = ctx.saved_tensors
        return None, softmax_backward_op(ctx.structure, alpha, d_alpha)


def _softmax_backward_kernel(structure, alpha, d_alpha):
    d_logits = alpha.new_empty(alpha.shape)
    _core(structure).softmax_backward(structure, alpha, d_alpha, d_logits)
    return d_logits


def _edge_sum_kernel(structure, edge_value, by_source, num_rows):
    out = edge_value.new_empty((num_rows, edge_value.shape[1]))
    _core(structure).edge_sum(structure, edge_value, by_source, out)
    return out


def _sum_rows_kernel(structure, value, weight, factor, by_source, num_rows):
    out = value.new_empty((num_rows, weight.shape[1], value.shape[2]))
    _core(structure).weighted_sum(structure, value, weight, factor, by_source, out)
    return out


def _sum_rows_shapes(structure, value, weight, factor, by_source, num_rows):
    return value.new_empty((num_rows, weight.shape[1], value.shape[2]))


def _weighted_sum_backward_shapes(structure, value, weight, d_out, needs):
    return _gradients((value, weight), needs, d_out)


def _weighted_sum_backward_kernel(structure, value, weight, d_out, needs):
    d = _weighted_sum_backward_shapes(structure, value, weight, d_out, needs)
    given = [t if wanted else None for t, wanted in zip(d, needs, strict=True)]
    _core(structure).weighted_sum_backward(structure, value, weight, d_out, *given)
    return d


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure, value, weight, num_rows):
        ctx.structure = structure
        ctx.save_for_backward(value, weight)
        return _below_autograd(weighted_sum_op, structure, value, weight, num_rows)

    @staticmethod
    def backward(ctx, d_out):
        value, weight = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[1:3])
        d = weighted_sum_backward_op(ctx.structure, value, weight, d_out, needs)
        return None, *[g if wanted else None for g, wanted in zip(d, needs, strict=True)], None


def _copy(name, by_source):
    """Define hgat::`name`, which gives every edge the row of one of its ends; backward adds the edges of a row up."""

    class Copy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, structure, end, rows):
            ctx.structure, ctx.num_rows = structure, rows.shape[0]
            return _below_autograd(operator, structure, end, rows)

        @staticmethod
        def backward(ctx, d_out):
            return None, None, edge_sum_op(ctx.structure, d_out, by_source, ctx.num_rows)

    Copy.__name__ = Copy.__qualname__ = name
    operator = _forward(
        f"{name}(Tensor[] structure, Tensor end, Tensor rows) -> Tensor",
        lambda structure, end, rows: rows.index_select(0, end),
        lambda structure, end, rows: rows.new_empty((end.shape[0], rows.shape[1])),
        Copy,
    )
    return operator


_GATED = (
    "Tensor[] structure, Tensor value, Tensor score_src, Tensor score_dst, Tensor? score_edge, Tensor? edge_weight, "
    "Tensor? edge_mask, str form, float dropout, int seed"
)
_GATV2 = "Tensor[] structure, Tensor feat_src, Tensor feat_dst, Tensor? feat_edge, Tensor attn"

softmax_backward_op = _backward(
    "edge_softmax_backward(Tensor[] structure, Tensor alpha, Tensor d_alpha) -> Tensor",
    _softmax_backward_kernel,
    lambda structure, alpha, d_alpha: alpha.new_empty(alpha.shape),
)
edge_sum_op = _backward(
    "edge_sum(Tensor[] structure, Tensor edge_value, bool by_source, int num_rows) -> Tensor",
    _edge_sum_kernel,
    lambda structure, edge_value, by_source, num_rows: edge_value.new_empty((num_rows, edge_value.shape[1])),
)
sum_rows_op = _backward(
    "sum_rows(Tensor[] structure, Tensor value, Tensor weight, float factor, bool by_source, int num_rows) -> Tensor",
    _sum_rows_kernel,
    _sum_rows_shapes,
)
gatv2_logits_backward_op = _backward(
    f"gatv2_logits_backward({_GATV2}, float slope, Tensor d_logits, bool[] needs) -> Tensor[]",
    _gatv2_logits_backward_kernel,
    _gatv2_logits_backward_shapes,
)
weighted_sum_backward_op = _backward(
    "weighted_sum_backward(Tensor[] structure, Tensor value, Tensor weight, Tensor d_out, bool[] needs) -> Tensor[]",
    _weighted_sum_backward_kernel,
    _weighted_sum_backward_shapes,
)

additive_op = _attention(
    "additive",
    "additive",
    "Tensor value, Tensor score_src, Tensor score_dst, Tensor? score_edge",
    "slope",
    lambda _, value, score_src, score_dst, score_edge: (value, (score_dst.shape[0], *value.shape[1:])),
)
gat_op = _attention(
    "gat",
    "gat",
    "Tensor value, Tensor attn_src, Tensor attn_dst, Tensor? score_edge",
    "slope",
    # Its structure is one of several tensors, the first of them the pointers of the destinations' rows.
    lambda structure, value, *_: (value, (structure[0].shape[0] - 1, *value.shape[1:])),
)
gatv2_op = _attention(
    "gatv2",
    "gatv2",
    "Tensor feat_src, Tensor feat_dst, Tensor? feat_edge, Tensor attn",
    "slope",
    lambda _, feat_src, feat_dst, feat_edge, attn: (feat_dst, feat_dst.shape),
)
dot_op = _attention(
    "dot_product",
    "dot",
    "Tensor query, Tensor key, Tensor value, Tensor? bias",
    "scale",
    lambda _, query, key, value, bias: (value, (query.shape[0], *value.shape[1:])),
)
gated_backward_op = _backward(
    f"gated_backward({_GATED}, Tensor d_out, bool[] needs) -> Tensor[]", _gated_backward_kernel, _gated_backward_shapes
)
gated_op = _forward(f"gated({_GATED}) -> Tensor", _gated_kernel, _gated_shapes, _Gated)
additive_alpha_op = _forward(
    "additive_alpha(Tensor[] structure, Tensor score_src, Tensor score_dst, Tensor? score_edge, Tensor? edge_mask, "
    "float slope, int num_edges) -> Tensor",
    _additive_alpha_kernel,
    lambda structure, src, dst, edge, mask, slope, num_edges: src.new_empty((num_edges, src.shape[1])),
    _AdditiveAlpha,
)
additive_logits_op = _forward(
    "additive_logits(Tensor[] structure, Tensor score_src, Tensor score_dst, Tensor? score_edge, int num_edges) "
    "-> Tensor",
    _additive_logits_kernel,
    lambda structure, score_src, score_dst, score_edge, num_edges: score_src.new_empty((num_edges, score_src.shape[1])),
    _AdditiveLogits,
)
gatv2_alpha_op = _forward(
    f"gatv2_alpha({_GATV2}, Tensor? edge_mask, float slope, int num_edges) -> Tensor",
    _gatv2_alpha_kernel,
    lambda structure, src, dst, edge, attn, mask, slope, num_edges: attn.new_empty((num_edges, attn.shape[0])),
    _Gatv2Alpha,
)
dot_edges_op = _forward(
    "dot_product_edges(Tensor[] structure, Tensor query, Tensor key, Tensor? bias, Tensor? edge_mask, float scale, "
    "bool normalised, int num_edges) -> Tensor",
    _dot_edges_kernel,
    lambda structure, query, key, bias, mask, scale, normalised, num_edges: query.new_empty(
        (num_edges, query.shape[1]), dtype=sum_type(query.dtype)
    ),
    _DotEdges,
)
copy_u_op = _copy("copy_u", True)
copy_v_op = _copy("copy_v", False)
softmax_op = _forward(
    "edge_softmax(Tensor[] structure, Tensor logits) -> Tensor",
    _softmax_kernel,
    lambda structure, logits: logits.new_empty(logits.shape),
    _Softmax,
)
weighted_sum_op = _forward(
    "weighted_sum(Tensor[] structure, Tensor value, Tensor weight, int num_rows) -> Tensor",
    lambda structure, value, weight, num_rows: _sum_rows_kernel(structure, value, weight, 1.0, False, num_rows),
    lambda structure, value, weight, num_rows: _sum_rows_shapes(structure, value, weight, 1.0, False, num_rows),
    _WeightedSum,
)
