"""Features that stay on disk: NumPy's memory-mapped files as tensors."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from hgat.errors import DataError, OutputError
from hgat.files import reason

__all__ = ["mapped"]

ROWS = 1 << 16  # rows that are in memory at once while a file is written


def mapped(path: str | os.PathLike[str], tensor: torch.Tensor | None = None) -> torch.Tensor:
    """The tensor in a .npy file, whose pages are read when rows are asked for and may leave memory again.

    tensor: written to the file first, unless the file holds it already; the file appears whole or not at all. Rows are
    taken as of any tensor, `feat[ids]`; processes that map one file share its pages. What is assigned to the result
    stays in memory and does not reach the file.
    Raises DataError for a file that is missing, damaged, or holds Python objects, OutputError where it cannot be
    written.
    """
    path = Path(path)
    if tensor is not None and not (path.exists() and _holds(path, tensor)):
        _write(path, tensor)
    return _open(path)


def _open(path):
    try:
        # "c": writable for PyTorch, which knows no other, yet private to the process.
        with np.errstate(over="ignore"):  # a shape without end, which is refused
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)
    except Exception as error:  # NumPy's reading of a header and torch's of a type promise no list
        got = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:120]
        raise DataError(f"mapped: expected a NumPy file of numbers, got {path}: {got}") from None


def _holds(path, tensor):
    try:
        found = _open(path)
    except DataError:
        return False
    if found.shape != tensor.shape or found.dtype != tensor.dtype:
        return False
    parts = range(0, len(tensor), ROWS)
    return all(torch.equal(found[k : k + ROWS], tensor[k : k + ROWS]) for k in parts)


def _write(path, tensor):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        with open(temporary, "wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": tuple(tensor.shape),
            }
            np.lib.format.write_array_header_1_0(file, header)
            for k in range(0, len(tensor), ROWS):
                file.write(tensor[k : k + ROWS].detach().cpu().contiguous().numpy().data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except TypeError:
        raise OutputError(f"mapped: expected a type that NumPy has, got {tensor.dtype}") from None
    except OSError as error:
        raise OutputError(f"mapped: expected to write {path}, got: {reason(error)}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
