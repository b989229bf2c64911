import collections
import os
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hostile import hostile

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


@pytest.mark.parametrize("protocol", range(6))
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


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_may_ask_for_is_done(tmp_path, protocol):
    for what, content in hostile(protocol).items():
        (tmp_path / "evil").write_bytes(content)
        with pytest.raises(DataError, match="evil: expected .*, got") as error:
            pickles.read(tmp_path / "evil", object)
            pytest.fail(what)
        assert "\n" not in str(error.value)


def test_a_path_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="expected a file that can be read, got: "):
            pickles.read(path, dict)


def changed(**parts):
    """A CSR matrix of five rows, with other attributes than its own."""
    matrix = sp.csr_matrix(np.eye(5))
    vars(matrix).update(parts)
    return matrix


BROKEN = {
    "indices beyond": changed(indices=np.array([0, 1, 1_000_000, 3, 4])),
    "indices before": changed(indices=np.array([0, 1, -1, 3, 4])),
    "indices that are floats": changed(indices=np.arange(5.0)),
    "pointers that fall": changed(indptr=np.array([0, 4, 1, 2, 3, 5])),
    "pointers beyond": changed(indptr=np.array([0, 1, 2, 3, 4, 1 << 40])),
    "pointers before": changed(indptr=np.array([-1, 1, 2, 3, 4, 5])),
    "pointers too few": changed(indptr=np.array([0, 5])),
    "no pointers": changed(indptr=None),
    "text": changed(data=np.array(["a"] * 5, dtype="U1")),
    "objects": changed(data=np.array(["a"] * 5, dtype=object)),
    "two dimensions": changed(data=np.ones((5, 1))),
    "fewer values": changed(data=np.ones(3)),
    "a shape too small": changed(_shape=(5, 3)),
    "a shape without end": changed(_shape=(1 << 62, 1 << 62)),
    "a negative shape": changed(_shape=(-5, -5)),
    "a shape of three": changed(_shape=(5, 5, 5)),
    "a shape of floats": changed(_shape=(5.0, 5.0)),
    "no shape": changed(_shape=None),
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_matrix_is_refused(tmp_path, what, protocol):
    path = write(tmp_path / "m", BROKEN[what], protocol)
    with pytest.raises(DataError, match="m: expected .*, got") as error:
        pickles.matrix(path)
    assert "\n" not in str(error.value)
