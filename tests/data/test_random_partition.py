"""Random partition graphs: neighbours are as many and as much alike as was asked for."""

import pytest
import torch

import hgat.data
from hgat.errors import DataError


@pytest.mark.parametrize(("homophily", "degree"), [(0.1, 20.0), (0.5, 10.0), (0.9, 40.0), (0.0, 15.0), (1.0, 15.0)])
def test_neighbours_are_as_many_and_as_alike_as_asked(tmp_path, homophily, degree):
    data = hgat.data.load("random-partition", tmp_path, homophily=homophily, degree=degree)
    src, dst = data.graph.edges()
    pairs = src * 5000 + dst
    assert len(torch.unique(pairs)) == len(pairs) and (src != dst).all()
    assert torch.equal(pairs.sort().values, (dst * 5000 + src).sort().values)
    # 5 deviations of a sum of independent pairs.
    assert len(src) / 5000 == pytest.approx(degree, abs=5 * 2 * (degree * 2500) ** 0.5 / 5000 + degree / 500)
    alike = data.label[src] == data.label[dst]
    assert alike.float().mean() == pytest.approx(homophily, abs=0.01)
    if homophily == 0.5:
        of_others = torch.zeros(10, 10).index_put_((data.label[src], data.label[dst]), torch.ones(1), accumulate=True)
        others = of_others[~torch.eye(10, dtype=torch.bool)]
        assert (others / others.mean()).sub(1).abs().max() < 0.25  # all other classes alike


def test_features_lie_about_a_circle_each_class_along_it(tmp_path):
    data = hgat.data.load("random-partition", tmp_path)
    feat = data.feat["_N"]
    assert feat.mean().abs() < 1e-5 and feat.std(correction=0) == pytest.approx(1.0, abs=1e-5)
    of_class = feat.view(10, 500, 2)
    centre = of_class.mean(1)
    angle = 2 * torch.pi * torch.arange(10) / 10
    out, along = torch.stack([angle.cos(), angle.sin()], 1), torch.stack([-angle.sin(), angle.cos()], 1)
    scale = (centre * out).sum(1).mean() / 300
    torch.testing.assert_close(centre / scale, 300 * out, atol=30.0, rtol=0.0)
    rest = (of_class - centre.unsqueeze(1)) / scale
    for axis, variance in ((out, 7_000), (along, 24_500)):
        found = torch.einsum("cnf,cf->cn", rest, axis).var(1)
        assert (found / variance).sub(1).abs().max() < 0.3
        assert (found / variance).mean() == pytest.approx(1.0, abs=0.1)


def test_the_split_has_20_50_and_100_of_every_class(tmp_path):
    data = hgat.data.load("random-partition", tmp_path)
    for ids, count in ((data.train, 20), (data.val, 50), (data.test, 100)):
        assert torch.equal(data.label[ids].bincount(), torch.full((10,), count))
    together = torch.cat([data.train, data.val, data.test])
    assert len(torch.unique(together)) == 1700


def test_the_same_seed_gives_the_same_and_another_another(tmp_path):
    one, two, other = (hgat.data.load("random-partition", tmp_path, degree=2.0, split_seed=s) for s in (1, 1, 2))
    for key in ("train", "val", "test"):
        assert torch.equal(getattr(one, key), getattr(two, key))
        assert not torch.equal(getattr(one, key), getattr(other, key))
    assert torch.equal(one.feat["_N"], two.feat["_N"]) and not torch.equal(one.feat["_N"], other.feat["_N"])
    assert one.graph.num_edges() == two.graph.num_edges()
    assert one.name == "random-partition with degree = 2"


def test_numbers_out_of_range_are_one_sentence(tmp_path):
    for options, sentence in (
        ({"homophily": 1.1}, "homophily: expected a number from 0 to 1, got 1.1"),
        ({"degree": 0.0}, "degree: expected a number above 0, at most 500, got 0.0"),
        ({"degree": 501.0}, "degree: expected a number above 0, at most 500, got 501.0"),
        ({"split_seed": -1}, "split_seed: expected a number from 0 to"),
    ):
        with pytest.raises(DataError, match=sentence):
            hgat.data.load("random-partition", tmp_path, **options)
