"""Launch constants of the kernels: edges, heads and warps of a program, and the edges of a chunk."""

from functools import lru_cache
from typing import NamedTuple

__all__ = ["CHUNK", "PROGRAMS", "Blocks", "blocks", "power_of_two"]

CHUNK = 512  # edges of a row that one program takes; longer rows are cut
PROGRAMS = 2048  # programs that share GATv2's by-destination sweep, each with its own part of d_attn
SUM_AT_ONCE = 16  # chunks of a row that a merge reads at a time

# Numbers of a tile [edges, heads, width] that one thread holds.
HELD = {"attend": 64, "edges": 64, "by_destination": 32, "by_source": 32, "sum": 64}


class Blocks(NamedTuple):
    edges: int
    heads: int
    warps: int


def power_of_two(count: int) -> int:
    """The lowest power of two that is no less than `count` >= 1."""
    return 1 << (count - 1).bit_length()


@lru_cache(maxsize=4096)
def blocks(kernel: str, heads: int, width: int, degree: int) -> Blocks:
    """Constants of a kernel for heads, the width of a head and the mean number of edges in a row."""
    width = power_of_two(width)
    block_h = power_of_two(heads)
    while block_h > 1 and block_h * width > 256:
        block_h //= 2
    row = block_h * width
    warps = min(8, max(1, row // 256))
    edges = max(1, min(32, HELD[kernel] * 32 * warps // row, max(4, power_of_two(degree + 1))))
    return Blocks(edges, block_h, warps)
