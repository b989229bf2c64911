"""Launch constants of the kernels: edges, heads and warps of a program, and the edges of a chunk.

Measured on an H100 with 169,343 nodes and 2.47 million edges of power-law degrees. For other sizes the constants follow
from those: they are right everywhere, and were not measured there.
"""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

__all__ = ["NODE_PROGRAMS", "PROGRAMS", "Blocks", "blocks", "chunk", "chunk_lengths", "merge_blocks", "power_of_two"]

# Edges of the longest row that one program takes whole, for a mean of up to 16 edges in a row, and for more.
CHUNK, LONGEST_CHUNK = 128, 512
MOST_CHUNKS = 512  # of one row, until they are of LONGEST_CHUNK edges
NODE_PROGRAMS = 1024  # programs at most that share the nodes in backward of GAT's scores, each with a part of d_attn
PROGRAMS = 16384  # programs that share GATv2's by-destination sweep, each with its own part of d_attn


class Blocks(NamedTuple):
    """Edges that a program takes at a time, heads that it takes, and its warps."""

    edges: int
    heads: int
    warps: int


# (kernel, kind) -> (columns of all heads of a program, numbers of a tile [edges, columns] for a warp, both of float32,
# edges where a head is narrower than 64, than 128, and wider)
TABLE = {
    ("attend", "additive"): (128, 1024, 8, 8, 4),
    ("attend", "gatv2"): (128, 512, 8, 8, 4),
    ("attend", "dot"): (64, 1024, 8, 8, 8),
    ("by_destination", "additive"): (128, 1024, 8, 4, 4),
    ("by_destination", "gatv2"): (128, 512, 4, 4, 2),
    ("by_destination", "dot"): (64, 512, 8, 8, 4),
    ("by_source", "additive"): (128, 1024, 8, 4, 4),
    ("by_source", "gatv2"): (64, 256, 4, 4, 2),
    ("by_source", "dot"): (64, 256, 4, 4, 2),
    ("edges", "additive"): (128, 1024, 32, 32, 32),
    ("edges", "gatv2"): (128, 512, 8, 8, 4),
    ("edges", "dot"): (128, 1024, 8, 8, 4),
    ("nodes", ""): (128, 1024, 8, 8, 4),
    ("sum", ""): (128, 1024, 8, 8, 4),
    ("sum_back", ""): (128, 1024, 8, 4, 4),
}


def power_of_two(count: int) -> int:
    """The lowest power of two that is no less than `count` >= 1."""
    return 1 << (count - 1).bit_length()


def chunk(edges: int, rows: int) -> int:
    """Edges of the longest row that one program takes whole: more of them where all rows are long, to merge less."""
    return min(LONGEST_CHUNK, max(CHUNK, power_of_two(8 * edges // max(1, rows) + 1) // 2))


def chunk_lengths(degree: Tensor, shortest: int) -> Tensor:
    """Edges of a chunk of rows with so many: more of them once the chunks of a row are many, to merge less."""
    return (degree // MOST_CHUNKS).clamp(shortest, max(shortest, LONGEST_CHUNK))


@lru_cache(maxsize=4096)
def blocks(kernel: str, kind: str, heads: int, width: int, size: int = 4, all_heads: bool = False) -> Blocks:
    """Constants of a kernel for heads, the width of a head, and bytes of a number in a row.

    all_heads: one program takes them all.
    """
    most, held, *edges = TABLE[kernel, kind]
    width, block_h = power_of_two(width), power_of_two(heads)
    while block_h > 1 and block_h * width * size > most * 4 and not all_heads:
        block_h //= 2
    row = block_h * width
    found = edges[0 if width < 64 else 1 if width < 128 else 2]
    # A thread holds no more numbers than in the rows of the table: longer rows take more warps, then fewer edges.
    warps = min(8, max(1, row // 256))
    if held == 1024 or kernel == "attend":  # few other numbers beside the tile: as many bytes of it
        held = held * 4 // size
    while found > 1 and found * row > held * warps:
        found //= 2
    return Blocks(found, block_h, warps)


@lru_cache(maxsize=4096)
def merge_blocks(width: int, heads: int = 1) -> Blocks:
    """Constants of a merge, in which a program takes one head, or `heads`, and walks over the chunks of a row."""
    row = power_of_two(heads) * power_of_two(width)
    return Blocks(max(1, min(64, 4096 // row)), power_of_two(heads), 4)
