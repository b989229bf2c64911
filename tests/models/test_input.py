"""Rows of which most entries are zero, read as a graph of the others: the same rows, sums, gradients and dropout."""

import pytest
import torch

from hgat.errors import ShapeError
from hgat.models._input import SparseLinear, SparseRows, sparse_rows


@pytest.fixture
def words():
    """[41, 60] with three entries in a row; row 7 has none."""
    x = torch.zeros(41, 60)
    x[torch.arange(41).repeat(3), torch.randint(0, 60, (123,))] = torch.rand(123) + 0.1
    x[7] = 0
    return x


def test_the_others_alone_are_read(words):
    found = sparse_rows(words)
    assert isinstance(found, SparseRows) and found.shape == words.shape
    assert found.graph.num_edges() == words.count_nonzero()
    column, row = found.graph.edges()
    assert torch.equal(torch.zeros(41, 60).index_put((row, column), found.value), words)
    for dense in (torch.randn(5, 4), torch.zeros(0, 4), None):
        assert sparse_rows(dense) is dense
    nan = words.clone()
    nan[3, 5] = torch.nan
    assert sparse_rows(nan).value.isnan().sum() == 1


def test_the_layer_gives_the_same_of_both(words):
    layer, sparse = SparseLinear(60, 5), sparse_rows(words)
    one, two = layer(words), layer({"_N": sparse})
    torch.testing.assert_close(one, two)
    cotangent = torch.randn(41, 5)
    for a, b in zip(*(torch.autograd.grad(y, layer.parameters(), cotangent) for y in (one, two)), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_takes_entries_and_scales_the_others(words):
    layer, sparse = SparseLinear(60, 60, drop=0.4), sparse_rows(words)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(60))
        layer.bias.zero_()
    found = layer(sparse)
    kept = found != 0
    torch.testing.assert_close(found[kept], words[kept] / 0.6)
    assert 0.4 < kept.sum() / words.count_nonzero() < 0.8
    torch.testing.assert_close(layer.eval()(sparse), words)


def test_other_widths_are_one_sentence(words):
    for x in (words, sparse_rows(words)):
        with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[any, 59\], got"):
            SparseLinear(59, 2)(x)
