"""Launch constants of the kernels: edges, heads and warps of a program, and the edges of a chunk.

Measured on an H100 at 169,343 nodes and 2.47 million edges of power-law degrees, float32. Everywhere else they are right,
and no slower than what any fixed choice gave there.
"""

from functools import lru_cache
from typing import NamedTuple

__all__ = ["CHUNK", "LONGEST_CHUNK", "MOST_CHUNKS", "PROGRAMS", "Blocks", "blocks", "merge_blocks", "power_of_two"]

CHUNK = 128  # edges of the longest row that one program takes whole; longer rows are cut into chunks of no less than that
MOST_CHUNKS = 512  # of one row, while they have no more edges than
LONGEST_CHUNK = 512
PROGRAMS = 16384  # programs that share GATv2's by-destination sweep, each with its own part of d_attn


class Blocks(NamedTuple):
    edges: int
    heads: int
    warps: int


# (kernel, kind) -> (columns of all heads of a program, edges where a head is narrower than 64, than 128, and wider)
TABLE = {
    ("attend", "additive"): (128, 8, 8, 4),
    ("attend", "gatv2"): (128, 4, 4, 4),
    ("attend", "dot"): (64, 8, 8, 8),
    ("by_destination", "additive"): (128, 8, 4, 4),
    ("by_destination", "gatv2"): (128, 4, 4, 2),
    ("by_destination", "dot"): (64, 8, 8, 4),
    ("by_source", "additive"): (128, 8, 4, 4),
    ("by_source", "gatv2"): (64, 4, 4, 2),
    ("by_source", "dot"): (64, 4, 4, 2),
    ("edges", "additive"): (128, 32, 32, 32),
    ("edges", "gatv2"): (128, 8, 8, 4),
    ("edges", "dot"): (128, 8, 8, 4),
    ("sum", ""): (128, 8, 8, 4),
    ("sum_back", ""): (128, 8, 4, 4),
}


def power_of_two(count: int) -> int:
    """The lowest power of two that is no less than `count` >= 1."""
    return 1 << (count - 1).bit_length()


@lru_cache(maxsize=4096)
def blocks(kernel: str, kind: str, heads: int, width: int, all_heads: bool = False) -> Blocks:
    """Constants of a kernel for heads and the width of a head; `all_heads`: one program takes them all."""
    most, *edges = TABLE[kernel, kind]
    width, block_h = power_of_two(width), power_of_two(heads)
    while block_h > 1 and block_h * width > most and not all_heads:
        block_h //= 2
    row = block_h * width
    found = edges[0 if width < 64 else 1 if width < 128 else 2]
    # Wider rows than those of the table: fewer edges, more warps, so that a thread holds no more numbers.
    while row > 256 and found * row > 1024 and found > 1:
        found //= 2
    return Blocks(found, block_h, min(8, max(1, found * row // 1024, row // 256)))


@lru_cache(maxsize=4096)
def merge_blocks(width: int, heads: int = 1) -> Blocks:
    """Constants of a merge, in which a program takes one head, or `heads`, and walks over the chunks of a row."""
    row = power_of_two(heads) * power_of_two(width)
    return Blocks(max(1, min(64, 8192 // row)), power_of_two(heads), 4)
