"""What the layers share: their arguments' checks, ends of an edge, the zero-in-degree rule, residuals, masks."""

import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal

import dgl
import torch
from torch import nn

from hgat import transforms
from hgat.errors import ShapeError, brief, check_range, check_shape, check_whole
from hgat.graph import csr, normalized

__all__ = [
    "WideParameters",
    "add_residual",
    "both_ends",
    "check_activation",
    "check_feature",
    "check_floats",
    "check_graph",
    "check_in_degrees",
    "check_number",
    "check_plain",
    "check_rates",
    "check_set",
    "check_sizes",
    "degree_power",
    "drop_edges",
    "edge_column",
    "edge_features",
    "end_scores",
    "feature_pair",
    "first_rows",
    "glorot_",
    "linear_pair",
    "mean_of_set",
    "negative_slope",
    "normalized_weights",
    "projected_ends",
    "projections",
    "repeated",
    "reset_children",
    "residual_linear",
    "slope_of",
    "weight_of",
    "weighted",
    "with_extra_axes",
]

GAIN = nn.init.calculate_gain("relu")
HALVES = (torch.float16, torch.bfloat16)


def glorot_(*tensors: torch.Tensor) -> None:
    """DGL's initialisation of attention layers: Glorot normal with the gain of ReLU."""
    for tensor in tensors:
        nn.init.xavier_normal_(tensor, gain=GAIN)


def feature_pair(in_feats: int | Sequence[int], name: str = "in_feats") -> tuple[int, int]:
    """(width at the source, width at the destination), ints. Raises ShapeError for anything but one width or two."""
    if not isinstance(in_feats, (tuple, list)):
        (width,) = check_sizes(**{name: in_feats})
        return width, width
    if len(in_feats) != 2:
        raise ShapeError(f"{name}: expected F or (F_src, F_dst), got {brief(in_feats)}")
    at_src, at_dst = check_sizes(**{f"{name}[0]": in_feats[0], f"{name}[1]": in_feats[1]})
    return at_src, at_dst


def check_sizes(**sizes: Any) -> tuple[int, ...]:
    """The sizes as ints; ShapeError unless every one is a whole number, 1 or more."""
    for name, size in sizes.items():
        if size is None:
            raise ShapeError(f"{name}: expected a whole number, 1 or more, got None")
    check_whole(1, **sizes)
    return tuple(operator.index(size) for size in sizes.values())


def check_number(**numbers: Any) -> None:
    """Raise ShapeError unless every value is a finite number."""
    for name, value in numbers.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not abs(value) < float("inf"):
            raise ShapeError(f"{name}: expected a finite number, got {brief(value)}")


def check_rates(**rates: object) -> None:
    """Raise ShapeError unless every rate of dropout is a number from 0 to 1."""
    for name, rate in rates.items():
        if rate is None:
            raise ShapeError(f"{name}: expected a number from 0 to 1, got None")
    check_range(0, 1, **rates)


def check_activation(activation: object) -> None:
    """Raise ShapeError unless `activation` can be called or is None."""
    if activation is not None and not callable(activation):
        raise ShapeError(f"activation: expected a function or None, got {brief(activation)}")


def linear_pair(layer: Any, in_feats: int | Sequence[int], out_width: int, bias: bool = False) -> None:
    """Give `layer` DGL's projections: `fc_src` and `fc_dst` for a pair of widths, one `fc` for a single width."""
    if isinstance(in_feats, (tuple, list)):
        layer.fc_src = nn.Linear(layer._in_src_feats, out_width, bias=bias)
        layer.fc_dst = nn.Linear(layer._in_dst_feats, out_width, bias=bias)
    else:
        layer.fc = nn.Linear(layer._in_src_feats, out_width, bias=bias)


def projections(layer: Any) -> tuple[nn.Linear, nn.Linear]:
    """(projection at the source, projection at the destination), the same module where the layer has one."""
    return (layer.fc_src, layer.fc_dst) if hasattr(layer, "fc_src") else (layer.fc, layer.fc)


def slope_of(activation: object) -> float | None:
    """The slope of a leaky ReLU, a ReLU or an Identity, which the operators take; None of any other activation."""
    if isinstance(activation, nn.LeakyReLU):
        return activation.negative_slope
    if isinstance(activation, nn.ReLU):
        return 0.0
    return 1.0 if isinstance(activation, nn.Identity) else None


def negative_slope(layer: Any) -> float:
    """The slope that the operators take, of the layer's own `leaky_relu`, which a user may have exchanged.

    Raises ShapeError for an activation that is no leaky ReLU: the operators know no other.
    """
    slope = slope_of(layer.leaky_relu)
    if slope is None:
        got = type(layer.leaky_relu).__name__
        raise ShapeError(f"leaky_relu: expected a torch.nn.LeakyReLU, ReLU or Identity on the scores, got {got}")
    return slope


def check_graph(graph: object, one_relation: bool = True, expected: str = "a DGLGraph") -> None:
    """Raise GraphError, which says what to do, unless `graph` is a DGLGraph, by default of one relation."""
    if one_relation:
        csr.single_relation(graph)
    else:
        csr.check_graph(graph, expected)


def check_in_degrees(graph: dgl.DGLGraph, allowed: bool) -> None:
    """Raise DGLError, as DGL's layers do, if a destination has no in-edges and that was not allowed.

    Raises GraphError for anything but a DGLGraph of one relation: this is the first that a layer asks of its graph.
    """
    check_graph(graph)
    if allowed:
        return
    isolated = csr.cached(graph, ("isolated",), lambda: bool((_in_degrees(graph) == 0).any()))
    if isolated:
        raise dgl.DGLError(
            "There are 0-in-degree nodes in the graph: they would get zeros. Add self-loops with "
            "`g = dgl.add_self_loop(g)`, or set `allow_zero_in_degree=True` if zeros are what you want."
        )


def _in_degrees(graph):
    if csr.all_formats(graph):
        return graph.in_degrees()
    return torch.diff(csr.in_rows(graph).indptr)  # DGL counts in-edges only with COO or CSC


def degree_power(graph: dgl.DGLGraph, end: Literal["src", "dst"], power: float, like: torch.Tensor) -> torch.Tensor:
    """Degrees at "src" or "dst", at least 1, to a power: [N] of the type and on the device of `like`, kept."""

    def build():
        rows = csr.out_rows(graph) if end == "src" else csr.in_rows(graph)
        return torch.diff(rows.indptr).clamp(min=1).float().pow(power).to(like)

    return csr.cached(graph, ("degrees", end, power, str(like.device), like.dtype), build)


def normalized_weights(graph: dgl.DGLGraph, norm: str, device: torch.device | None = None) -> torch.Tensor:
    """The weights of hgat.graph.normalized, [E] float32, on a device, by default the graph's; kept with the graph."""
    device = graph.device if device is None else device
    return csr.cached(graph, ("normalized", norm, str(device)), lambda: normalized(graph, norm).to(device))


def check_floats(name: str, tensor: object, like: torch.Tensor | None = None) -> None:
    """Raise ShapeError unless `tensor` holds floats, and those of the parameter `like`, on its device.

    Under autocast PyTorch brings types together itself.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ShapeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise ShapeError(f"{name}: expected a floating-point tensor, got {tensor.dtype}; {name}.float() makes one")
    if like is None:
        return
    if tensor.device != like.device:
        raise ShapeError(f"{name}: expected device {like.device} like the layer's parameters, got {tensor.device}")
    if tensor.dtype != like.dtype and not _autocast(tensor.device.type):
        raise ShapeError(f"{name}: expected {like.dtype} like the layer's parameters, got {tensor.dtype}")


def check_set(
    name: str, x: Any, mask: Any, width: int, like: torch.Tensor | None = None, sets: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Padded sets as attention takes them: (x [B, N, F] with zeros where the mask is False, mask [B, N] or None).

    Whatever stands in the padding, NaN too, is gone. sets: B, where it is known; like: see check_floats.
    """
    check_floats(name, x, like)
    check_shape(name, x, ("B", sets), ("N", None), ("F", width))
    if mask is None:
        return x, None
    check_shape(f"mask of {name}", mask, ("B", x.shape[0]), ("N", x.shape[1]))
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.device != x.device:
        got = f"{mask.dtype} on {mask.device}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ShapeError(f"mask of {name}: expected torch.bool on {x.device}, True where an item stands, got {got}")
    return x.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def mean_of_set(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The unweighted mean of the items of what `check_set` gave, [B, F]; zeros of a set without items."""
    count = x.shape[1] if mask is None else mask.sum(1, keepdim=True)
    return x.sum(1) / (max(count, 1) if isinstance(count, int) else count.clamp(min=1))


def _autocast(device):
    try:
        return torch.is_autocast_enabled(device)
    except (TypeError, RuntimeError):  # before PyTorch 2.4 it takes no device, and some devices have none
        return torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()


def weight_of(layer: object) -> torch.Tensor | None:
    """The weight that a plain linear layer multiplies its input with, None of anything else, which may take any."""
    return layer.weight if type(layer) is nn.Linear else None


def check_feature(name: str, feat: object, width: int, rows: int, like: torch.Tensor | None = None) -> None:
    """ShapeError unless `feat` is [rows, *, width] of floats; like: see check_floats."""
    if not isinstance(feat, torch.Tensor) or feat.dim() < 2 or feat.shape[-1] != width or feat.shape[0] != rows:
        got = list(feat.shape) if isinstance(feat, torch.Tensor) else type(feat).__name__
        raise ShapeError(f"{name}: expected [N, *, F] = [{rows}, *, {width}], got {got}")
    check_floats(name, feat, like)


def both_ends(
    graph: dgl.DGLGraph,
    feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    widths: Sequence[int],
    drop: Callable[[torch.Tensor], torch.Tensor],
    layers: Sequence[object] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """(input at the source, input at the destination, whether feat is one tensor), after dropout, checked.

    feat: one tensor, whose first rows are the destinations on a block, or a pair. layers: the projections of both ends.
    """
    at_src, at_dst = (weight_of(layer) for layer in layers)
    if isinstance(feat, (tuple, list)):
        if len(feat) != 2:
            raise ShapeError(f"feat: expected a tensor or a pair (source, destination), got {len(feat)} of them")
        check_feature("feat[0]", feat[0], widths[0], graph.num_src_nodes(), at_src)
        check_feature("feat[1]", feat[1], widths[1], graph.num_dst_nodes(), at_dst)
        if feat[0].shape[1:-1] != feat[1].shape[1:-1]:
            raise ShapeError(
                f"feat[1]: expected the axes between of feat[0], {list(feat[0].shape[1:-1])}, "
                f"got {list(feat[1].shape[1:-1])}"
            )
        return drop(feat[0]), drop(feat[1]), False
    check_feature("feat", feat, widths[0], graph.num_src_nodes(), at_src)
    h_src = drop(feat)
    if graph.is_block:
        return h_src, h_src[: graph.num_dst_nodes()], True
    if graph.num_dst_nodes() != graph.num_src_nodes():
        raise ShapeError(
            f"feat: expected a pair (source, destination) on a bipartite graph with {graph.num_src_nodes()} and "
            f"{graph.num_dst_nodes()} nodes, got one tensor"
        )
    return h_src, h_src, True


class Layer(nn.Module):
    """A layer that is printed with the arguments it was made of, sizes first, as PyTorch's layers are."""

    def __new__(cls, *arguments: Any, **options: Any) -> "Layer":
        """Keeps the arguments' text for print; copies and pickles, which are made without any, bring theirs along."""
        made = super().__new__(cls)
        said = [*map(_shortly, arguments), *(f"{name}={_shortly(value)}" for name, value in options.items())]
        made.__dict__["_made_of"] = ", ".join(said)
        return made

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return self.__dict__.get("_made_of", "")


def _shortly(value: object) -> str:
    """A size, a rate or a name as it is, of a longer list its length, of the rest what it is called."""
    if isinstance(value, (list, tuple, dict, set)) and len(value) > 4:
        return f"<{len(value)} of {type(value).__name__}>"
    if value is None or isinstance(value, (bool, int, float, str, list, tuple)):
        return brief(value)
    return f"<{getattr(value, '__name__', type(value).__name__)}>"


def scored_rows(rows: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, rows W^T): [N, F] and weight [S, F] -> the rows for one attention operator, and S scores of each, [N, S].

    The gradient is d_rows + d_scores W, added in the memory of d_rows: on a large graph what a new [N, F] costs is the
    touching of its memory. So the rows must go to an operator alone, whose gradient for them is nobody else's.
    """
    if transforms.active():
        return rows, torch.nn.functional.linear(rows, weight)
    return _ScoredRows.apply(rows, weight)


class _ScoredRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, weight):
        ctx.save_for_backward(rows, weight)
        return rows.view_as(rows), torch.nn.functional.linear(rows, weight)

    @staticmethod
    def backward(ctx, d_rows, d_scores):
        rows, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        d_scores = d_scores.to(rows.dtype)  # of another type under autocast
        return d_rows.addmm_(d_scores, weight) if wanted[0] else None, d_scores.t() @ rows if wanted[1] else None


def check_plain(name: str, *tensors: torch.Tensor) -> None:
    """Raise ShapeError unless every tensor is [N, F], for layers without further axes between."""
    for tensor in tensors:
        if tensor.dim() != 2:
            raise ShapeError(f"{name}: expected [N, F], got {list(tensor.shape)}")


def edge_column(values: torch.Tensor | None, copies: int = 1) -> torch.Tensor | None:
    """A weight or a mask of edges as the operators take it: [E], also of [E, 1] as DGL's layers take it, or [E, H].

    copies: how often the heads are repeated for features with further axes.
    """
    if not isinstance(values, torch.Tensor) or values.dim() < 2:
        return values
    return values.flatten() if values.shape[1:].numel() == 1 else repeated(values, copies)


def repeated(tensor: torch.Tensor, copies: int) -> torch.Tensor:
    """What stands for every edge and head, [E, H], once for each of `copies`."""
    return tensor.repeat(1, copies) if copies > 1 and tensor.dim() == 2 else tensor


def weighted(alpha: torch.Tensor, edge_weight: torch.Tensor | None) -> torch.Tensor:
    """alpha [E, H] times edge_weight [E] or [E, H]."""
    if edge_weight is None:
        return alpha
    return alpha * (edge_weight.unsqueeze(-1) if edge_weight.dim() == 1 else edge_weight)


def edge_features(layer: Any, graph: dgl.DGLGraph, edge_feat: torch.Tensor | None) -> None:
    """Raise ShapeError unless `edge_feat` is what the layer was built for: [E, F_e], or nothing."""
    width = layer._edge_feats
    if (edge_feat is None) == bool(width):
        got = "none" if edge_feat is None else "some"
        raise ShapeError(f"edge_feat: expected {f'[E, {width}]' if width else 'none without edge_feats'}, got {got}")
    if edge_feat is not None:
        check_floats("edge_feat", edge_feat, weight_of(layer.fc_edge))
        check_shape("edge_feat", edge_feat, ("E", graph.num_edges()), ("F_e", width))


def drop_edges(graph: dgl.DGLGraph, rate: float, edge_mask: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """`edge_mask` without a random share of the edges, int(E * rate) of them, for all heads alike.

    Drawn by PyTorch's generator, as DGL's OGB examples draw it: torch.randperm(E), whose first numbers are dropped.
    """
    count = graph.num_edges()
    kept = torch.ones(count, dtype=torch.bool, device=device)
    kept.index_fill_(0, torch.randperm(count, device=device)[: int(count * rate)], False)
    if edge_mask is None:
        return kept
    if not isinstance(edge_mask, torch.Tensor) or edge_mask.dtype != torch.bool:
        got = getattr(edge_mask, "dtype", type(edge_mask).__name__)
        raise ShapeError(f"edge_mask: expected a tensor of torch.bool, got {got}")
    if edge_mask.shape[:1] != (count,) or edge_mask.dim() > 2 or edge_mask.device != kept.device:
        raise ShapeError(
            f"edge_mask: expected [E] or [E, H] with E = {count} on {kept.device}, got {list(edge_mask.shape)} on "
            f"{edge_mask.device}"
        )
    return edge_mask & (kept if edge_mask.dim() == 1 else kept.unsqueeze(1))


def first_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` rows; all of them as they stand, since backward of a slice copies the gradient."""
    return rows if rows.shape[0] == count else rows[:count]


def projected_ends(
    layers: Sequence[nn.Module], h_src: torch.Tensor, h_dst: torch.Tensor, one_input: bool, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends projected to [N, *, H, D]; computed once where input and projection are the same.

    layers: (projection at the source, projection at the destination). one_input: h_dst are the first rows of h_src.
    """
    fc_src, fc_dst = layers
    at_src = fc_src(h_src).unflatten(-1, shape)
    if one_input and fc_src is fc_dst:
        return at_src, first_rows(at_src, h_dst.shape[0])
    return at_src, fc_dst(h_dst).unflatten(-1, shape)


def end_scores(fc: Any, h: torch.Tensor, projected: torch.Tensor, attn: torch.Tensor) -> torch.Tensor:
    """attn . (W h) of every node and head: h [N, *, F], projected = W h [N, *, H, D], attn [1, H, D] -> [N, * H].

    Where h is no wider than its projection, the attention vector is multiplied into W first, (attn W) h: equal but for
    rounding, and nothing of size N * H * D is made on the way, forward or backward. Not where `fc` may do anything
    else than multiply by its weight, nor under autocast, which would round the scores, too.
    """
    heads, width = attn.shape[-2:]
    plain = type(fc) is nn.Linear and fc.bias is None and not fc._forward_hooks and not fc._forward_pre_hooks
    if not plain or h.shape[-1] > heads * width or projected.dtype != fc.weight.dtype:
        return (projected * attn).sum(-1).flatten(1)
    # What einsum("hdf,hd->fh") does, in fewer steps: on a small graph the steps are what takes the time.
    by_head = fc.weight.unflatten(0, (heads, width)).transpose(1, 2)
    folded = torch.bmm(by_head, attn.reshape(heads, width, 1)).squeeze(2).t()
    return (h @ folded).flatten(1)


def reset_children(module: nn.Module) -> None:
    """Fresh parameters for every child that has `reset_parameters`."""
    for child in module.children():
        reset: Any = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


def residual_linear(in_width: int, out_width: int, bias: bool) -> nn.Module:
    """DGL's residual of GATConv and GATv2Conv: the input itself where it is as wide as the output, else linear."""
    return nn.Identity() if in_width == out_width else nn.Linear(in_width, out_width, bias=bias)


def add_residual(
    out: torch.Tensor, res_fc: nn.Module | None, h_dst: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """out [N, *, H, D] with the residual of h_dst [N, *, F]; every size is named, since N may be 0."""
    return out if res_fc is None else out + res_fc(h_dst).unflatten(-1, shape)


def with_extra_axes(tensor: torch.Tensor, prefix: Sequence[int]) -> torch.Tensor:
    """[N, *, H, D] as [N, heads, D]: the axes of `prefix` behind the first count as heads for the operators."""
    return tensor if len(prefix) == 1 else tensor.flatten(1, -2)


class WideParameters(Layer):
    """A module whose parameters named in `_wide` stay at 32 bits or more when it is moved to a half type.

    For frequencies: rounded to half precision they tell other times apart, a day in seconds is thousands of radians.
    """

    _wide: tuple[str, ...] = ()

    def _apply(self, fn, recurse=True):
        before = {name: self._parameters.get(name) for name in self._wide}
        before = {
            name: (p.detach(), None if p.grad is None else p.grad.detach())
            for name, p in before.items()
            if p is not None
        }
        super()._apply(fn, recurse)
        for name, (data, grad) in before.items():
            parameter = self._parameters[name]
            if parameter.dtype in HALVES and data.dtype not in HALVES:
                parameter.data = data.to(parameter.device)
                parameter.grad = None if grad is None else grad.to(parameter.device, data.dtype)
        return self
