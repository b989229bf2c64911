"""Reading pickles of arrays and sparse matrices without running what they ask for: see hgat.unpickle.

SciPy's matrices are known under their paths of Python 2 and of old and new releases, and only their attributes are
taken from the file.
"""

import os
import pickle
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from hgat import unpickle
from hgat.errors import DataError
from hgat.files import reason

__all__ = ["matrix", "read"]

T = TypeVar("T")


class csr_matrix(unpickle.Instance):  # the name that messages show
    """The attributes of a CSR matrix."""


CLASSES = {(f"scipy.sparse.{module}", "csr_matrix"): csr_matrix for module in ("csr", "_csr")}


def read(path: str | os.PathLike[str], kind: type[T]) -> T:
    """The object in a pickle, which must be of type `kind`; DataError on anything unsafe or damaged."""
    try:
        with open(path, "rb") as handle:
            value = unpickle.load(handle, os.fstat(handle.fileno()).st_size, CLASSES)
    except OSError as error:
        raise DataError(f"{path}: expected a file that can be read, got: {reason(error)}") from None
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a pickled {kind.__name__}, got {type(value).__name__}")
    return value


def matrix(path: str | os.PathLike[str]) -> sp.csr_matrix:
    """The CSR matrix of numbers in a pickle, with its indices checked."""
    state = read(path, csr_matrix).state
    parts = [state.get(name) for name in ("data", "indices", "indptr")]
    shape = state.get("_shape")  # its name in every release
    if not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts):
        raise DataError(f"{path}: expected a whole CSR matrix, got one without its three arrays")
    if any(part.dtype.kind not in "iu" for part in parts[1:]) or parts[0].dtype.kind not in "biuf":
        got = ", ".join(str(part.dtype) for part in parts)
        raise DataError(f"{path}: expected a CSR matrix of numbers, with whole numbers as indices, got {got}")
    if type(shape) is not tuple or len(shape) != 2 or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise DataError(f"{path}: expected a whole CSR matrix, got one of the shape {str(shape)[:60]}")
    try:
        built = sp.csr_matrix(tuple(parts), shape=shape)
        built.check_format(full_check=True)  # SciPy's loops trust the indices
    except Exception as error:  # SciPy promises no list of what it raises
        got = " ".join(f"{error}".split())[:120]
        raise DataError(f"{path}: expected a whole CSR matrix, got a broken one ({got})") from error
    return built
