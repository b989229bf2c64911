import collections
import os
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from hgat.data import pickles
from hgat.errors import DataError


class Runs:
    """Asks its reader to call `function` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_matrices_and_containers_are_read(tmp_path, protocol):
    matrix = sp.random(11, 7, 0.3, format="csr", dtype=np.float32, random_state=0)
    assert (pickles.matrix(write(tmp_path / "m", matrix, protocol)) != matrix).nnz == 0
    array = np.arange(13).reshape(13, 1)
    assert (pickles.read(write(tmp_path / "a", array, protocol), np.ndarray) == array).all()
    graph = collections.defaultdict(list, {0: [1, 2], 5: []})
    assert pickles.read(write(tmp_path / "g", graph, protocol), dict) == graph


def test_a_pickle_of_python_2_is_read(tmp_path):
    # collections.defaultdict(list, {3: [4]}) as Python 2 writes it, in protocol 0.
    (tmp_path / "g").write_bytes(b"ccollections\ndefaultdict\n(c__builtin__\nlist\ntRI3\n(lI4\nas.")
    assert pickles.read(tmp_path / "g", dict) == {3: [4]}


def test_names_that_have_moved_are_not_imported(real):
    # NumPy and SciPy warn when their old modules are imported, and will drop them.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickles.matrix(real("cora") / "cora" / "ind.cora.allx").shape == (1708, 1433)


@pytest.mark.parametrize(
    "function, name",
    [(os.system, "posix.system"), (eval, "builtins.eval"), (os.mkdir, "posix.mkdir")],
)
def test_a_pickle_that_asks_to_run_something_runs_nothing(tmp_path, function, name):
    trace = tmp_path / "trace"
    argument = str(trace) if function is os.mkdir else f"__import__('os').mkdir({str(trace)!r})"
    argument = f"mkdir {trace}" if function is os.system else argument
    path = write(tmp_path / "evil", {"graph": [np.ones(3), Runs(function, argument)]})
    with pytest.raises(DataError, match=f"evil: expected only arrays, .* got the name {name}"):
        pickles.read(path, dict)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the same bytes do run under pickle: the test can fail
    assert trace.exists()


def test_a_cut_or_foreign_file_is_refused(tmp_path):
    path = write(tmp_path / "m", np.arange(1000))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="m: expected a whole pickle"):
        pickles.read(path, np.ndarray)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="m: expected a whole pickle"):
        pickles.read(path, np.ndarray)


def test_another_type_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a pickled dict, got list"):
        pickles.read(write(tmp_path / "g", [1, 2]), dict)


def test_a_matrix_with_indices_outside_is_refused(tmp_path):
    matrix = sp.csr_matrix(np.eye(5))
    matrix.indices[2] = 1_000_000
    with pytest.raises(DataError, match="expected a whole CSR matrix, got a broken one"):
        pickles.matrix(write(tmp_path / "m", matrix))
    matrix = sp.csr_matrix(np.eye(5))
    matrix.data = np.array(["a"] * 5, dtype=object)
    with pytest.raises(DataError, match="expected numbers, got object|broken one"):
        pickles.matrix(write(tmp_path / "m", matrix))
