"""Signed edges: the real file, files of one's own, and files that are wrong."""

import gzip

import dgl
import pytest
import torch

from hgat import data
from hgat.data import SignedData
from hgat.errors import DataError


def _load(path, text, **options):
    path.write_text(text)
    return data.load("signed", path=str(path), **options)


def test_a_file_of_ones_own(tmp_path):
    found = _load(tmp_path / "mine.txt", "# u v sign\n7 3 1\n3\t9\t-1\n\n7 3 +1\n9 7 -1\n7 3 -1\n")
    src, dst = found.graph.edges(order="eid")
    assert list(zip(src.tolist(), dst.tolist(), found.sign.tolist(), strict=True)) == [
        (1, 0, 1),
        (0, 2, -1),
        (2, 1, -1),
        (1, 0, -1),
    ]
    assert found.ids == (3, 7, 9) and len(found.test) == 0 and found.name == "signed edges of mine.txt"
    packed = tmp_path / "mine.gz"
    packed.write_bytes(gzip.compress(b"0 1 1\n1 0 -1\n"))
    assert data.load("signed", path=str(packed)).sign.tolist() == [1, -1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0 1 1\n1 2 0\n", "line 2: expected a sign, 1 or -1, got '0'"),
        ("0 1 5\n", "line 1: expected a sign, 1 or -1, got '5'"),
        ("0 1\n", "line 1: expected source, target and sign, got '0 1'"),
        ("0 x 1\n", "line 1: expected an integer, got 'x'"),
        ("0 -1 1\n", "line 1: expected an integer, got '-1'"),
        ("# nothing\n", "expected at least one signed edge, got none"),
    ],
)
def test_wrong_files_are_one_sentence(tmp_path, text, match):
    with pytest.raises(DataError, match=match):
        _load(tmp_path / "wrong.txt", text)


def test_no_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="data.path: expected a file of signed edges, got .*none"):
        data.load("signed", path=str(tmp_path / "none.txt"))


def test_an_edge_in_both_files_is_refused(tmp_path):
    folder = tmp_path / "bitcoin_alpha"
    folder.mkdir()
    (folder / "train.edgelist").write_text("0 1 1\n1 2 -1\n")
    (folder / "test.edgelist").write_text("2 0 1\n0 1 -1\n")
    with pytest.raises(DataError, match="expected edges that are not for training, got 0 1"):
        data.load("bitcoin-alpha", tmp_path, verify=False)


def test_bitcoin_alpha(real_data):
    found = data.load("bitcoin-alpha", real_data("bitcoin_alpha"))
    assert (found.graph.num_nodes(), found.graph.num_edges(), len(found.test)) == (3783, 24186, 4838)
    assert int((found.sign < 0).sum()) == 1243 + 293 and int((found.sign[found.test] < 0).sum()) == 293


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sign": torch.tensor([1, 2])}, "sign: expected 1 or -1, got 2"),
        ({"sign": torch.tensor([1])}, "sign: expected .* with E = 2"),
        ({"test": torch.tensor([2])}, "test: expected ids from 0 to 1, got 2"),
        ({"test": torch.tensor([1, 1])}, "test: expected distinct int64 ids"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, match):
    fields = {"name": "s", "graph": dgl.graph(([0, 1], [1, 0])), "sign": torch.tensor([1, -1]), **change}
    with pytest.raises(DataError, match=match):
        SignedData(**fields)
