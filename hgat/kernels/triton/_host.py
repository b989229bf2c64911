"""From tensors to launches: which kernels a call needs, with which constants and scratch memory."""

import contextlib
from typing import Any

import torch
from torch import Tensor

from hgat.kernels.triton import _backward, _forward, _sums, launch
from hgat.kernels.triton.launch import power_of_two
from hgat.kernels.triton.structure import Rows, by_destination, by_source

__all__ = [
    "Call",
    "edge_sum",
    "end_scores",
    "end_scores_backward",
    "softmax_backward",
    "weighted_sum",
    "weighted_sum_backward",
]

FIELDS = 4  # numbers that backward keeps of each destination and head, at most
Result = Tensor | None  # memory for a result, or a tensor that not every call has

_MASK = 0xFFFFFFFF


def _signed(number: int) -> int:
    """32 bits as the whole number that Triton passes as int32, whatever its value."""
    return number - 2**32 if number >= 2**31 else number


def _mix(x: int) -> int:
    """The 32-bit finaliser of hgat.ops.dropout."""
    x ^= x >> 16
    x = x * 0x7FEB352D & _MASK
    x ^= x >> 15
    x = x * 0x846CA68B & _MASK
    return x ^ x >> 16


def _dropout_arguments(dropout):
    """(key of the seed, threshold, scale of what is kept), for a kernel."""
    if dropout is None:
        return 0, 0, 1.0
    seed, threshold, keep_scale = dropout
    key = _mix(_mix(seed & _MASK) ^ (seed >> 32 & _MASK))
    return _signed(key), _signed(min(threshold, _MASK)), float(keep_scale)  # a threshold of 2^32 keeps nothing: scale 0


def _given(tensor: Any) -> Any:
    """The tensor, or None, in the order in which the kernels read it."""
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()


def _wide(rows: int, numbers: int, *tensors: Tensor | None) -> bool:
    """True if an offset into rows of so many numbers, or into one of the tensors, may pass 2^31."""
    return max([rows * numbers, *(0 if t is None else t.numel() for t in tensors)]) >= 2**31


def _device(tensor: Tensor) -> Any:
    """The device of the tensor as the current one, if it is not."""
    device = tensor.device
    if device.index is None:
        return contextlib.nullcontext()
    module = getattr(torch, device.type)
    return contextlib.nullcontext() if module.current_device() == device.index else module.device(device)


_QUICK = {"cuda"} if torch.version.hip is None else set()  # devices of which the rules are known, see `_run`
_compiled: dict[tuple, tuple[Any, list]] = {}


def _run(kernel: Any, grid: tuple[int, int], warps: int, arguments: tuple, **constants: Any) -> None:
    """kernel[grid](*arguments, **constants), in less time than Triton takes to find the compiled kernel again.

    For NVIDIA's GPUs Triton compiles one kernel for each type of the arguments, whether their memory is aligned to 16
    bytes, and the constants; whole numbers among the arguments are of 32 bits and decide nothing. For other GPUs it
    asks more of the arguments, so that there it finds the kernel itself.
    """
    if arguments[0].device.type not in _QUICK:
        kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=True)
        return
    given: list = []
    types: list = []
    for x in arguments:
        if isinstance(x, Tensor):
            address = x.data_ptr()
            given.append(address)
            types.append(x.dtype if address % 16 == 0 else (x.dtype,))
        else:
            given.append(x)
            types.append(x is None)
    device = arguments[0].device
    key = kernel, device.type, device.index, warps, *types, *constants.values()
    found = _compiled.get(key)
    if found is not None:
        compiled, last = found
        compiled[grid[0], grid[1], 1](*given, *last)
        return
    compiled = kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=True)
    _compiled[key] = compiled, [constants[name] for name in kernel.arg_names[len(arguments) :]]


class Call:
    """One call of an attention operator.

    left, right: what source and destination bring to the logits; on_edge: what the edge brings. factor: the slope, or
    the scale of dot products. width: of the values; left_width: of the rows that make the logits.
    """

    def __init__(
        self,
        kind: str,
        structure: list[Tensor],
        factor: float,
        dropout: tuple[int, int, float] | None,
        weight: Tensor | None,
        mask: Tensor | None,
        value: Tensor | None,
        left: Tensor | None,
        right: Tensor | None,
        on_edge: Tensor | None,
        attn: Tensor | None = None,
    ) -> None:
        self.kind = kind
        self.structure = structure
        self.factor = float(factor)
        self.numbers = _dropout_arguments(dropout)
        self.weight, self.mask, self.value, self.left, self.right, self.on_edge, self.attn = map(
            _given, (weight, mask, value, left, right, on_edge, attn)
        )
        if self.mask is not None:
            self.mask = self.mask.view(torch.uint8)
        some: Tensor = self.left if self.left is not None else self.on_edge
        self.heads = some.shape[1]
        self.edges = structure[1].shape[0]
        self.left_width = 1 if kind == "additive" else some.shape[2]
        self.width = self.left_width if value is None else value.shape[2]
        self.widest = max(self.width, self.left_width)
        self.like = some
        self.size = (some if value is None else value).element_size()
        # Results, and the numbers that backward keeps of every destination, may be larger than all that is given.
        nodes = max(structure[0].shape[0], structure[5].shape[0])
        self.wide = _wide(self.edges, self.heads, value, left, right, on_edge) or _wide(
            nodes, self.heads * max(self.widest, FIELDS)
        )
        edge_needed = on_edge is not None or weight is not None or mask is not None or dropout is not None
        self.constants = {
            "KIND": kind,
            "H": self.heads,
            "D": self.width,
            "DL": self.left_width,
            "WEIGHT_HEADS": 0 if weight is None else weight.shape[1],
            "MASK_HEADS": 0 if mask is None else mask.shape[1],
            "DROPS": dropout is not None,
            "NEEDS_EDGE": edge_needed,
            "WIDE": self.wide,
            "BLOCK_D": power_of_two(self.width),
            "BLOCK_L": power_of_two(self.left_width),
        }

    def blocks(self, kernel: str, width: int) -> tuple[launch.Blocks, int]:
        """Launch constants, and into how many groups the heads fall."""
        found = launch.blocks(kernel, self.kind, self.heads, width, self.size)
        return found, -(-self.heads // found.heads)

    def scratch(self, *shape: int) -> Tensor:
        """Memory of float32 on the tensors' device, not filled."""
        return torch.empty(shape, dtype=torch.float32, device=self.like.device)

    def forward(self, out: Result, alpha: Result, logits: Result, top: Result, inverse: Result) -> None:
        """The results that are not None; logits come alone."""
        rows = by_destination(self.structure)
        if rows.number == 0:
            return
        with _device(self.like):
            if logits is not None:
                self.on_edges(rows, None, None, logits)
                return
            if top is None:
                top, inverse = self.scratch(rows.number, self.heads), self.scratch(rows.number, self.heads)
            self.attend(rows, out, top, inverse)
            if alpha is not None:
                self.on_edges(rows, top, inverse, alpha)

    def attend(self, rows: Rows, out: Result, top: Result, inverse: Result) -> None:
        """out, top and inverse."""
        blocks, groups = self.blocks("attend", self.widest)
        chunks = rows.tasks.shape[0]
        value = None if out is None else self.value
        part = part_top = part_sum = None
        if chunks:
            part_top, part_sum = self.scratch(chunks, self.heads), self.scratch(chunks, self.heads)
            part = None if out is None else self.scratch(chunks, self.heads, self.width)
        _run(
            _forward.attend, (chunks + rows.number, groups), blocks.warps,
            (
                rows.indptr, rows.other, rows.edge, rows.tasks, chunks, value, self.left, self.right, self.on_edge,
                self.attn, self.weight, self.mask, out, top, inverse, part, part_top, part_sum, self.factor,
                *self.numbers,
            ),
            **self.constants, CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
        )  # fmt: skip
        if chunks:
            blocks = launch.merge_blocks(1 if out is None else self.width)
            _run(
                _forward.attend_merge, (rows.heavy.shape[0], self.heads), blocks.warps,
                (rows.heavy, part, part_top, part_sum, out, top, inverse),
                H=self.heads, D=self.width, WIDE=self.wide, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
                BLOCK_D=self.constants["BLOCK_D"],
            )  # fmt: skip

    def on_edges(self, rows: Rows, top: Result, inverse: Result, result: Tensor) -> None:
        """result [E, H]: the logits, or, given top and inverse, alpha."""
        blocks, groups = self.blocks("edges", self.left_width)
        chunks = rows.tasks.shape[0]
        _run(
            _forward.edge_logits, (chunks + rows.number, groups), blocks.warps,
            (
                rows.indptr, rows.other, rows.edge, rows.tasks, chunks, self.left, self.right, self.on_edge,
                self.attn, self.mask, top, inverse, result, self.factor,
            ),
            KIND=self.kind, H=self.heads, D=self.left_width, MASK_HEADS=self.constants["MASK_HEADS"], WIDE=self.wide,
            CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads, BLOCK_D=power_of_two(self.left_width),
        )  # fmt: skip

    def backward(
        self,
        top: Result,
        inverse: Result,
        d_out: Result,
        d_value: Result,
        d_left: Result,
        d_right: Result,
        d_edge: Result,
        d_weight: Result,
        d_attn: Result = None,
        d_logits: Result = None,
    ) -> None:
        """The gradients that are not None, given top and inverse of forward and d_out, or d_logits (GATv2).

        GATv2's d_left holds what its source gets as a value, too; it has no d_value.
        """
        d_out, d_logits = _given(d_out), _given(d_logits)
        rows = by_destination(self.structure)
        numbers = [d_left, d_right, d_edge, d_attn]
        info = None
        with _device(self.like):
            if any(x is not None for x in numbers):
                info = self.by_destination(rows, top, inverse, d_out, d_logits, d_right, d_attn)
            if any(x is not None for x in (d_value, d_left, d_edge, d_weight)):
                self.by_source(info, top, inverse, d_out, d_logits, d_value, d_left, d_edge, d_weight)

    def by_destination(
        self,
        rows: Rows,
        top: Result,
        inverse: Result,
        d_out: Result,
        d_logits: Result,
        d_right: Result,
        d_attn: Result,
    ) -> Tensor | None:
        """d_right and d_attn; gives [N, 3 or 4, H], or None if the gradient of the logits is given."""
        if rows.number == 0:
            if d_attn is not None:
                d_attn.zero_()
            return self.scratch(0, 4 if self.kind == "additive" else 3, self.heads) if d_logits is None else None
        blocks, groups = self.blocks("by_destination", self.widest)
        chunks, heavy = rows.tasks.shape[0], rows.heavy.shape[0]
        fields = 4 if self.kind == "additive" else 3
        info = self.scratch(rows.number, fields, self.heads) if d_logits is None else None
        tasks = chunks + rows.number
        # By fours, so that the parts of long rows behind them are aligned, whatever the graph.
        programs = tasks if d_attn is None else min(-(-tasks // 4) * 4, launch.PROGRAMS)
        part_attn = None if d_attn is None else self.scratch(programs + heavy, self.heads, self.left_width)
        part_mean = part_sums = None
        if chunks:
            part_mean = self.scratch(chunks, 2, self.heads)
            sums = 4 if self.kind == "gatv2" else 2
            part_sums = self.scratch(chunks, sums, self.heads, self.left_width)
        _run(
            _backward.by_destination, (programs, groups), blocks.warps,
            (
                rows.indptr, rows.other, rows.edge, rows.tasks, chunks, tasks, self.value, self.left, self.right,
                self.on_edge, self.attn, self.weight, self.mask, top, inverse, d_out, d_logits, info, d_right,
                part_mean, part_sums, part_attn, self.factor, *self.numbers,
            ),
            **self.edge_constants(d_logits), STRIDE=fields * self.heads, CHUNK=rows.chunk, BLOCK_E=blocks.edges,
            BLOCK_H=blocks.heads,
        )  # fmt: skip
        if chunks:
            blocks = launch.merge_blocks(self.left_width)
            part_rest = None if part_attn is None else part_attn[programs:]
            _run(
                _backward.by_destination_merge, (heavy, self.heads), blocks.warps,
                (
                    rows.heavy, part_mean, part_sums, self.right, self.attn, top, inverse, info, d_right, part_rest,
                    self.factor,
                ),
                KIND=self.kind, H=self.heads, DL=self.left_width, STRIDE=fields * self.heads,
                GIVEN=d_logits is not None, WIDE=self.wide, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
                BLOCK_L=self.constants["BLOCK_L"],
            )  # fmt: skip
        if part_attn is not None:
            torch.sum(part_attn, 0, out=d_attn)
        return info

    def edge_constants(self, *of_edges: Result) -> dict[str, Any]:
        """The constants; the edges' numbers are read if a gradient of their size is given or wanted, too."""
        if all(x is None for x in of_edges):
            return self.constants
        return {**self.constants, "NEEDS_EDGE": True}

    def by_source(
        self,
        info: Result,
        top: Result,
        inverse: Result,
        d_out: Result,
        d_logits: Result,
        d_value: Result,
        d_left: Result,
        d_edge: Result,
        d_weight: Result,
    ) -> None:
        """d_value, d_left, d_edge and d_weight, given what `by_destination` gave."""
        rows = by_source(self.structure)
        if rows.number == 0:
            return
        blocks, groups = self.blocks("by_source", self.widest)
        chunks = rows.tasks.shape[0]
        right, mean, stride, right_stride = self.right, None, self.heads, self.heads
        if info is not None:
            stride = info.stride(0)
            top, inverse, mean = info[:, 0], info[:, 1], info[:, 2]
            if self.kind == "additive":
                right, right_stride = info[:, 3], stride
        part_value = part_left = None
        if chunks:
            part_value = None if d_value is None else self.scratch(chunks, self.heads, self.width)
            part_left = None if d_left is None else self.scratch(chunks, self.heads, self.left_width)
        _run(
            _backward.by_source, (chunks + rows.number, groups), blocks.warps,
            (
                rows.indptr, rows.other, rows.edge, rows.tasks, chunks, self.value, self.left, right, self.on_edge,
                self.attn, self.weight, self.mask, top, inverse, mean, d_out, d_logits, d_value, d_left, d_edge,
                d_weight, part_value, part_left, self.factor, *self.numbers,
            ),
            **self.edge_constants(d_logits, d_edge, d_weight), STRIDE=stride, RIGHT_STRIDE=right_stride,
            CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
        )  # fmt: skip
        for part, result in ((part_value, d_value), (part_left, d_left)):
            if part is not None:
                _merge(rows, part, result, self.wide)


def _merge(rows: Rows, part: Any, result: Any, wide: bool, one: bool = False) -> None:
    """result of the long rows from their parts [chunks, H, D]; over the heads, too, if `one`."""
    heads, width = part.shape[1], part.shape[2]
    blocks = launch.merge_blocks(width, heads if one else 1)
    _run(
        _sums.merge, (rows.heavy.shape[0], 1 if one else heads), blocks.warps,
        (rows.heavy, part, result),
        H=heads, D=width, ONE=one, WIDE=wide, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads, BLOCK_D=power_of_two(width),
    )  # fmt: skip


def _node_constants(value, blocks):
    """Constants of a kernel that walks over nodes."""
    _, heads, width = value.shape
    return {
        "H": heads, "D": width, "WIDE": _wide(0, 0, value), "BLOCK_N": blocks.edges, "BLOCK_H": blocks.heads,
        "BLOCK_D": power_of_two(width),
    }  # fmt: skip


def end_scores(structure: list[Tensor], value: Tensor, attn_src: Tensor, attn_dst: Tensor) -> tuple[Tensor, Tensor]:
    """(attn_src . value of every source, attn_dst . value of every destination), [N, H] of float32."""
    sources, targets = value.shape[0], structure[0].shape[0] - 1
    value, attn_src, attn_dst = _given(value), _given(attn_src), _given(attn_dst)
    heads, width = value.shape[1:]
    score_src, score_dst = (
        torch.empty((count, heads), dtype=torch.float32, device=value.device) for count in (sources, targets)
    )
    if sources:
        blocks = launch.blocks("nodes", "", heads, width, value.element_size())
        with _device(value):
            _run(
                _sums.end_scores, (-(-sources // blocks.edges), -(-heads // blocks.heads)), blocks.warps,
                (value, attn_src, attn_dst, score_src, score_dst, sources, targets), **_node_constants(value, blocks),
            )  # fmt: skip
    return score_src, score_dst


def end_scores_backward(
    value: Tensor,
    attn_src: Tensor,
    attn_dst: Tensor,
    d_src: Tensor,
    d_dst: Tensor,
    d_value: Result,
    d_attn_src: Result,
    d_attn_dst: Result,
) -> None:
    """Backward of `end_scores`: adds to d_value, and writes the others that are not None."""
    value, attn_src, attn_dst = _given(value), _given(attn_src), _given(attn_dst)
    sources, heads, width = value.shape
    blocks = launch.blocks("nodes", "", heads, width, value.element_size())
    groups, tiles = -(-heads // blocks.heads), -(-sources // blocks.edges)
    steps = -(-tiles // launch.NODE_PROGRAMS)
    programs = -(-tiles // max(steps, 1))
    with _device(value):
        part = None
        if d_attn_src is not None or d_attn_dst is not None:
            part = torch.empty((programs, 2, heads, width), dtype=torch.float32, device=value.device)
        if programs:
            _run(
                _sums.end_scores_back, (programs, groups), blocks.warps,
                (value, attn_src, attn_dst, d_src, d_dst, d_value, part, sources, d_dst.shape[0], steps),
                **_node_constants(value, blocks),
            )  # fmt: skip
        if part is not None:
            blocks = launch.merge_blocks(width)
            _run(
                _sums.end_scores_merge, (1, heads), blocks.warps, (part, d_attn_src, d_attn_dst, programs),
                H=heads, D=width, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads, BLOCK_D=power_of_two(width),
            )  # fmt: skip


def weighted_sum(
    structure: list[Tensor], value: Tensor, weight: Tensor, factor: float, from_source: bool, out: Tensor
) -> None:
    """As hgat.kernels.triton.weighted_sum."""
    rows = by_source(structure) if from_source else by_destination(structure)
    if rows.number == 0:
        return
    value, weight = _given(value), _given(weight)
    heads, width = weight.shape[1], value.shape[2]
    wide = _wide(weight.shape[0], heads, value, out)
    blocks = launch.blocks("sum", "", heads, width, value.element_size())
    chunks = rows.tasks.shape[0]
    with _device(out):
        part = torch.empty((chunks, heads, width), dtype=torch.float32, device=out.device) if chunks else None
        _run(
            _sums.sum_rows, (chunks + rows.number, -(-heads // blocks.heads)), blocks.warps,
            (rows.indptr, rows.other, rows.edge, rows.tasks, chunks, value, weight, out, part, float(factor)),
            H=heads, D=width, ONE=value.shape[1] != heads, WIDE=wide, CHUNK=rows.chunk, BLOCK_E=blocks.edges,
            BLOCK_H=blocks.heads, BLOCK_D=power_of_two(width),
        )  # fmt: skip
        if chunks:
            _merge(rows, part, out, wide)


def weighted_sum_backward(
    structure: list[Tensor], value: Tensor, weight: Tensor, d_out: Tensor, d_value: Result, d_weight: Result
) -> None:
    """As hgat.kernels.triton.weighted_sum_backward."""
    rows = by_source(structure)
    if rows.number == 0 or (d_value is None and d_weight is None):
        return
    value, weight, d_out = map(_given, (value, weight, d_out))
    heads, width = weight.shape[1], value.shape[2]
    one = value.shape[1] != heads
    wide = _wide(weight.shape[0], heads, value, d_out)
    blocks = launch.blocks("sum_back", "", heads, width, value.element_size(), one)  # one value: also summed over heads
    chunks = rows.tasks.shape[0]
    with _device(value):
        part = None
        if chunks and d_value is not None:
            part = torch.empty((chunks, heads, width), dtype=torch.float32, device=value.device)
        _run(
            _sums.sum_rows_back, (chunks + rows.number, -(-heads // blocks.heads)), blocks.warps,
            (
                rows.indptr, rows.other, rows.edge, rows.tasks, chunks, value, weight, d_out, d_value, d_weight, part,
            ),
            H=heads, D=width, ONE=one, WIDE=wide, CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
            BLOCK_D=power_of_two(width),
        )  # fmt: skip
        if part is not None:
            _merge(rows, part, d_value, wide, one)


def edge_sum(structure: list[Tensor], edge_value: Tensor, from_source: bool, out: Tensor) -> None:
    """As hgat.kernels.triton.edge_sum."""
    rows = by_source(structure) if from_source else by_destination(structure)
    if rows.number == 0:
        return
    edge_value = _given(edge_value)
    heads = edge_value.shape[1]
    blocks = launch.blocks("edges", "additive", heads, 1)
    wide = _wide(edge_value.shape[0], heads, out)
    chunks = rows.tasks.shape[0]
    with _device(out):
        part = torch.empty((chunks, heads, 1), dtype=torch.float32, device=out.device) if chunks else None
        _run(
            _sums.sum_numbers, (chunks + rows.number, -(-heads // blocks.heads)), blocks.warps,
            (rows.indptr, rows.edge, rows.tasks, chunks, edge_value, out, part),
            H=heads, WIDE=wide, CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
        )  # fmt: skip
        if chunks:
            _merge(rows, part, out, wide)


def softmax_backward(structure: list[Tensor], alpha: Tensor, d_alpha: Tensor, d_logits: Tensor) -> None:
    """As hgat.kernels.triton.softmax_backward."""
    rows = by_destination(structure)
    if rows.number == 0:
        return
    alpha, d_alpha = _given(alpha), _given(d_alpha)
    heads = alpha.shape[1]
    blocks = launch.blocks("edges", "additive", heads, 1)
    wide = _wide(max(alpha.shape[0], rows.number), heads)
    chunks, groups = rows.tasks.shape[0], -(-heads // blocks.heads)
    with _device(alpha):
        part = torch.empty((chunks, heads, 1), dtype=torch.float32, device=alpha.device) if chunks else None
        _run(
            _sums.softmax_rows, (chunks + rows.number, groups), blocks.warps,
            (rows.indptr, rows.edge, rows.tasks, chunks, alpha, d_alpha, d_logits, part),
            H=heads, WIDE=wide, CHUNK=rows.chunk, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
        )  # fmt: skip
        if chunks:
            total = torch.empty((rows.number, heads), dtype=torch.float32, device=alpha.device)
            _merge(rows, part, total, wide)
            _run(
                _sums.softmax_rest, (chunks, groups), blocks.warps,
                (rows.edge, rows.tasks, alpha, d_alpha, d_logits, total),
                H=heads, WIDE=wide, BLOCK_E=blocks.edges, BLOCK_H=blocks.heads,
            )  # fmt: skip
