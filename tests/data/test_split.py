import pytest
import torch

from hgat.data.split import per_class, shuffled
from hgat.errors import DataError


def test_a_seed_decides_and_stays_what_it_was():
    ids = torch.arange(10, 20)
    assert shuffled(ids, 0).tolist() == [12, 18, 14, 19, 11, 16, 17, 13, 10, 15]
    assert shuffled(ids, 1).tolist() != shuffled(ids, 0).tolist()
    assert sorted(shuffled(ids, 1).tolist()) == ids.tolist()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(DataError, match=f"split_seed: expected a number from 0 to .*, got {seed}"):
        shuffled(torch.arange(3), seed)


def test_as_many_of_every_class_and_the_rest_for_test():
    label = torch.tensor([0, 1, 1, 0, -1, 1, 0, 1, 0, 0])
    train, val, test = per_class(label, 2, 1, 0)
    for part, most in ((train, 2), (val, 1)):
        assert label[part].bincount().tolist() == [most, most]
    assert label[test].bincount().tolist() == [2, 1]
    assert torch.cat([train, val, test]).sort().values.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert all(torch.equal(*pair) for pair in zip(per_class(label, 2, 1, 0), (train, val, test), strict=True))
    assert any(not torch.equal(*pair) for pair in zip(per_class(label, 2, 1, 1), (train, val, test), strict=True))
    with pytest.raises(DataError, match="labels: expected more than 4 papers of class 1, got 4"):
        per_class(label, 2, 2, 0, "papers")
