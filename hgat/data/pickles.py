"""Reading pickles of arrays and sparse matrices without running what they ask for.

A pickle is a program. This reader knows the few names that NumPy arrays, SciPy matrices and plain
containers need, under their paths of Python 2 and of old and new releases, and refuses every other name
before anything is called.
"""

import collections
import copyreg
import pickle

import numpy as np
import scipy.sparse as sp

from hgat.errors import DataError

__all__ = ["matrix", "read"]

# The functions that rebuild an array moved between releases of NumPy; an array knows its own.
_ARRAY = np.empty(0).__reduce__()[0]
_BUFFER = np.empty(0).__reduce_ex__(5)[0]

ALLOWED = {
    ("__builtin__", "list"): list,
    ("__builtin__", "object"): object,
    ("builtins", "list"): list,
    ("builtins", "object"): object,
    ("collections", "defaultdict"): collections.defaultdict,
    ("copy_reg", "_reconstructor"): copyreg._reconstructor,
    ("copyreg", "_reconstructor"): copyreg._reconstructor,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy.core.numeric", "_frombuffer"): _BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _BUFFER,
    ("scipy.sparse.csr", "csr_matrix"): sp.csr_matrix,
    ("scipy.sparse._csr", "csr_matrix"): sp.csr_matrix,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise DataError(f"expected only arrays, sparse matrices and containers, got the name {module}.{name}")
        return ALLOWED[module, name]


def read(path, kind):
    """The object in a pickle, which must be of type `kind`; DataError on anything unsafe or damaged."""
    try:
        with open(path, "rb") as handle:
            value = _Reader(handle, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # the pickle module promises no list of what a damaged file raises
        raise DataError(f"{path}: expected a whole pickle, got one that cannot be read ({error})") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a pickled {kind.__name__}, got {type(value).__name__}")
    return value


def matrix(path):
    """The numeric CSR matrix in a pickle, with its indices checked."""
    value = read(path, sp.csr_matrix)
    try:
        # A pickle sets the attributes as it likes, and SciPy's loops trust them.
        built = sp.csr_matrix((value.data, value.indices, value.indptr), shape=value.shape)
        built.check_format(full_check=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected a whole CSR matrix, got a broken one ({error})") from error
    if built.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers, got {built.dtype}")
    return built
