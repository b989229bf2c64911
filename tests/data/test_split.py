import pytest
import torch

from hgat.data.split import shuffled
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
