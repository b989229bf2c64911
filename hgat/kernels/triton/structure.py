"""The edges of a graph by destination and by source, as the kernels read them, with long rows cut into chunks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgat.kernels.triton import launch

__all__ = ["Rows", "build_structure", "by_destination", "by_source"]


class Rows(NamedTuple):
    """Edges grouped into rows; row k holds the positions indptr[k] to indptr[k + 1].

    other: [E] the node at the far end. edge: [E] the edge's number in the graph; inside a row edges keep the graph's
    order. tasks: [T, 3] row, first position and end of every chunk of the rows longer than `chunk`. heavy: [R, 3]
    such a row and its chunks, first and end.
    """

    indptr: Tensor
    other: Tensor
    edge: Tensor
    tasks: Tensor
    heavy: Tensor

    @property
    def number(self) -> int:
        """How many rows there are."""
        return self.indptr.shape[0] - 1

    @property
    def chunk(self) -> int:
        """Edges of the longest row that is not cut."""
        return launch.chunk(self.other.shape[0], self.number)


def by_destination(structure: list[Tensor]) -> Rows:
    """The in-edges."""
    return Rows(*structure[:5])


def by_source(structure: list[Tensor]) -> Rows:
    """The out-edges."""
    return Rows(*structure[5:])


def build_structure(
    src: Tensor, dst: Tensor, num_src: int, num_dst: int, degrees: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """In-edges by destination and out-edges by source, on the device of src and dst: `Rows` twice, in one list.

    Whole numbers of 32 bits where nodes and edges fit. degrees: edges of every source, and of every destination, on the
    CPU: the device is not waited for, and the chunks of long rows lie on the CPU. Without them it is, once for the
    longest row and once more for the chunks of each side that has any.
    """
    # A block of edges may reach beyond the last one.
    whole = torch.int32 if max(src.shape[0], num_src, num_dst) < 2**31 - 2**12 else torch.int64
    src, dst = src.to(whole), dst.to(whole)
    sides = [_sorted(dst, src, num_dst), _sorted(src, dst, num_src)]
    chunks = [launch.chunk(src.shape[0], rows) for rows in (num_dst, num_src)]
    if degrees is None:
        pointers = [side[0] for side in sides]
    else:
        pointers = [torch.cat([d.new_zeros(1), d.cumsum(0)]).to(whole) for d in (degrees[1], degrees[0])]
    longest = [indptr.diff().max() if len(indptr) > 1 else indptr[0] for indptr in pointers]
    found = []
    for side, indptr, most, chunk in zip(sides, pointers, torch.stack(longest).tolist(), chunks, strict=True):
        nothing = side[0].new_empty((0, 3))
        found += [*side, *(_cut(indptr, chunk) if most > chunk else (nothing, nothing))]
    return found


def _sorted(key, other, num_rows):
    ordered, place = torch.sort(key, stable=True)
    ends = torch.arange(num_rows + 1, dtype=key.dtype, device=key.device)
    indptr = torch.searchsorted(ordered, ends, out_int32=key.dtype == torch.int32)
    return indptr, other.index_select(0, place), place.to(key.dtype)


def _cut(indptr, chunk):
    """Chunks of nearly the same length of every row longer than `chunk`.

    They have `chunk` edges, and more once there are many of them, so that a hub's are merged in little time.
    """
    degree = indptr.diff()
    row = (degree > chunk).nonzero().flatten()
    count = degree[row]
    length = launch.chunk_lengths(count, chunk)
    parts = (count + length - 1) // length
    end = parts.cumsum(0)
    heavy = torch.stack([row, end - parts, end], 1).to(indptr.dtype)
    of = torch.repeat_interleave(torch.arange(row.shape[0], device=row.device), parts)
    k = torch.arange(of.shape[0], device=row.device) - (end - parts)[of]
    length = (count + parts - 1) // parts
    first = indptr[row[of]] + k * length[of]
    last = torch.minimum(first + length[of], indptr[row[of] + 1])
    return torch.stack([row[of], first, last], 1).to(indptr.dtype), heavy
