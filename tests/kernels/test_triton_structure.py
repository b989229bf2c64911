"""What the Triton kernels are given, and how they are launched: plain PyTorch, so Triton need not be installed."""

import subprocess
import sys

import plain
import pytest
import torch

from hgat.kernels import triton as kernels
from hgat.kernels.triton import launch, structure


def rebuilt(rows, count):
    """(row, far end, edge) of every position, from the pointers."""
    degree = rows.indptr.diff()
    assert int(degree.sum()) == rows.other.shape[0] == rows.edge.shape[0]
    return torch.repeat_interleave(torch.arange(count), degree.long()), rows.other.long(), rows.edge.long()


@pytest.mark.parametrize("number", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", plain.graphs())
def test_every_edge_is_in_both_orders_once(name, number):
    src, dst, num_src, num_dst = plain.graphs()[name]
    found = kernels.build_structure(src.to(number), dst.to(number), num_src, num_dst)
    assert all(x.dtype == torch.int32 for x in found)
    for rows, own, far, count in (
        (structure.by_destination(found), dst, src, num_dst),
        (structure.by_source(found), src, dst, num_src),
    ):
        assert rows.number == count
        row, other, edge = rebuilt(rows, count)
        assert torch.equal(edge.sort()[0], torch.arange(len(src)))
        assert torch.equal(own[edge], row) and torch.equal(far[edge], other)
        inside = row[1:] == row[:-1]
        assert (edge[1:] > edge[:-1])[inside].all()  # inside a row edges keep the graph's order


@pytest.mark.parametrize("hub", [129, 128 * 512, 128 * 512 + 1, 1_000_000])
def test_long_rows_are_cut_into_chunks_that_cover_them(hub):
    draw = torch.Generator().manual_seed(hub)
    rest = torch.randint(1, 50_000, (400_000,), generator=draw)
    dst = torch.cat([torch.zeros(hub, dtype=torch.int64), rest, torch.full((300,), 7)])
    src = torch.arange(len(dst)) % 60_000
    rows = structure.by_destination(kernels.build_structure(src, dst, 60_000, 50_000))
    degree = rows.indptr.diff()
    assert rows.heavy[:, 0].tolist() == (degree > rows.chunk).nonzero().flatten().tolist() == [0, 7]
    for row, begin, end in rows.heavy.tolist():
        tasks = rows.tasks[begin:end]
        assert (tasks[:, 0] == row).all()
        assert tasks[0, 1] == rows.indptr[row] and tasks[-1, 2] == rows.indptr[row + 1]
        assert torch.equal(tasks[1:, 1], tasks[:-1, 2])
        length = tasks[:, 2] - tasks[:, 1]
        assert (length > 0).all() and length.max() - length.min() <= len(tasks)
        assert length.max() <= max(rows.chunk, launch.LONGEST_CHUNK)
    assert rows.heavy[-1, 2] == len(rows.tasks)
    # A hub of many edges is merged from no more chunks than hold LONGEST_CHUNK edges, or from MOST_CHUNKS.
    chunks = int(rows.heavy[0, 2] - rows.heavy[0, 1])
    assert chunks <= max(launch.MOST_CHUNKS + 1, -(-hub // launch.LONGEST_CHUNK))


@pytest.mark.parametrize("hub", [0, 129, 70_000])
def test_degrees_of_the_cpu_make_the_same_structure(hub):
    draw = torch.Generator().manual_seed(hub)
    dst = torch.cat([torch.zeros(hub, dtype=torch.int64), torch.randint(1, 500, (400,), generator=draw)])
    src = torch.arange(len(dst)) % 600
    degrees = torch.bincount(src, minlength=600), torch.bincount(dst, minlength=501)
    expected = kernels.build_structure(src, dst, 600, 501)
    found = kernels.build_structure(src, dst, 600, 501, degrees)
    assert len(expected[3]) == 0 if hub < 129 else len(expected[3]) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


def test_the_longest_whole_row_grows_with_the_mean_degree():
    assert launch.chunk(0, 0) == launch.chunk(0, 5) == launch.chunk(10, 5) == launch.CHUNK
    assert launch.chunk(50_000, 1000) == 256
    assert launch.chunk(10**6, 10) == launch.LONGEST_CHUNK


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kernel", launch.TABLE, ids=" ".join)
def test_launch_constants_are_powers_of_two_within_what_triton_takes(kernel, size):
    for heads in (1, 2, 3, 8, 17, 64):
        for width in (1, 5, 32, 250, 256, 1500, 4096):
            for every in (False, True):
                edges, block_h, warps = launch.blocks(*kernel, heads, width, size, every)
                assert all(x & (x - 1) == 0 and x >= 1 for x in (edges, block_h, warps)), (heads, width)
                assert warps <= 8 and block_h <= launch.power_of_two(heads)
                assert not every or block_h >= heads
                assert edges * block_h * launch.power_of_two(width) <= 2**20 or edges == 1


def test_hgat_needs_no_triton_until_its_kernels_run():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import hgat.kernels.triton as kernels\n"
        "assert not kernels.available() and not kernels.interpreted()\n"
        "assert 'Triton could not be imported' in kernels.why_missing()\n"
        "assert kernels.info()['reason'] == kernels.why_missing()\n"
        "import torch; e = torch.zeros(2, dtype=torch.int32); assert len(kernels.build_structure(e, e, 1, 1)) == 10\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
