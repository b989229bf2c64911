"""Decoders of triples: their formulas for one triple, the same scores of some tails as of all, and wrong calls."""

import pytest
import torch
import torch.nn.functional as F

from hgat.errors import ShapeError
from hgat.nn import ConvEDecoder, DistMultDecoder, TransEDecoder

ENTITIES, RELATIONS, WIDTH = 7, 3, 12
HEAD, RELATION = torch.tensor([4, 0, 4, 6, 1]), torch.tensor([0, 2, 1, 1, 0])


def distmult(layer, h, r, t):
    return (h * r * t).sum()


def transe(layer, h, r, t):
    return layer.margin - (h + r - t).abs().pow(layer.norm).sum().pow(1 / layer.norm)


def conve(layer, h, r, t):
    """At rest, where batch normalisation is a linear map."""

    def normed(x, norm):
        shape = (-1, *(1,) * (x.dim() - 1)) if x.dim() > 1 else (-1,)
        mean, var, weight, bias = (y.view(shape) for y in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        return (x - mean) / (var + norm.eps).sqrt() * weight + bias

    image = torch.cat([h.view(3, 4), r.view(3, 4)]).unsqueeze(0)  # the relation's image below the head's
    maps = F.relu(normed(layer.conv(normed(image, layer.norm_in).unsqueeze(0))[0], layer.norm_map))
    return F.relu(normed(layer.fc(maps.flatten()), layer.norm_out)) @ t


CASES = {
    "distmult": (lambda: DistMultDecoder(RELATIONS, WIDTH, drop=0.4), distmult),
    "transe, l1": (lambda: TransEDecoder(RELATIONS, WIDTH, margin=3.0, drop=0.4), transe),
    "transe, l2": (lambda: TransEDecoder(RELATIONS, WIDTH, norm=2), transe),
    "conve": (lambda: ConvEDecoder(ENTITIES, RELATIONS, WIDTH, channels=5), conve),
}


def setting(name):
    torch.manual_seed(0)
    layer = CASES[name][0]().double()
    rows = torch.randn(ENTITIES, WIDTH).double()
    if name == "conve":
        with torch.no_grad():
            layer.bias.normal_()
            for norm in (layer.norm_in, layer.norm_map, layer.norm_out):
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
        layer(rows, HEAD, RELATION)  # its running means are those of one batch
    return layer.eval(), rows


@pytest.mark.parametrize("name", CASES)
def test_scores_are_the_formula_of_each_triple(name):
    layer, rows = setting(name)
    expected = torch.stack([
        torch.stack([CASES[name][1](layer, rows[h], layer.relation.weight[r], t) for t in rows])
        for h, r in zip(HEAD, RELATION, strict=True)
    ])  # fmt: skip
    if name == "conve":
        expected = expected + layer.bias
    torch.testing.assert_close(layer(rows, HEAD, RELATION), expected)


@pytest.mark.parametrize("name", CASES)
def test_some_tails_have_the_scores_that_they_have_among_all(name):
    layer, rows = setting(name)
    tail = torch.tensor([[0, 6], [3, 3], [1, 2], [5, 0], [4, 4]])
    torch.testing.assert_close(layer(rows, HEAD, RELATION, tail), layer(rows, HEAD, RELATION).gather(1, tail))


def test_conve_normalises_over_the_batch_and_drops_in_training():
    layer, rows = setting("conve")
    still = layer(rows, HEAD, RELATION)
    torch.testing.assert_close(layer(rows, HEAD[:2], RELATION[:2]), still[:2])
    layer.train()
    assert not torch.equal(layer(rows, HEAD, RELATION), layer(rows, HEAD, RELATION))


@pytest.mark.parametrize(("feats", "shape"), [(200, (20, 20)), (100, (20, 10)), (64, (16, 8)), (12, (6, 4))])
def test_images_of_conve_are_about_as_high_as_wide(feats, shape):
    layer = ConvEDecoder(ENTITIES, RELATIONS, feats, channels=2)
    assert layer.fc.in_features == 2 * (shape[0] - 2) * (shape[1] - 2)


def test_wrong_calls_are_one_sentence():
    layer, rows = setting("distmult")
    with pytest.raises(ShapeError, match=r"rows: expected \[N, D\] = \[any, 12\], got \[7, 11\]"):
        layer(rows[:, 1:], HEAD, RELATION)
    with pytest.raises(ShapeError, match=r"relation: expected \[B\] = \[5\], got \[4\]"):
        layer(rows, HEAD, RELATION[1:])
    with pytest.raises(ShapeError, match=r"tail: expected \[B, K\] = \[5, any\], got \[5\]"):
        layer(rows, HEAD, RELATION, HEAD)
    sizes = {"num_entities": 3, "num_relations": 2, "feats": WIDTH}
    for name in sizes:
        with pytest.raises(ShapeError, match=f"{name}: expected .*1 or more, got 0"):
            ConvEDecoder(**{**sizes, name: 0})
    for name in ("input_drop", "map_drop", "hidden_drop"):
        with pytest.raises(ShapeError, match=f"{name}: expected a number from 0 to 1, got 1.5"):
            ConvEDecoder(**sizes, **{name: 1.5})
    for cls in (DistMultDecoder, TransEDecoder):
        with pytest.raises(ShapeError, match="drop: expected a number from 0 to 1, got -0.1"):
            cls(RELATIONS, WIDTH, drop=-0.1)
    with pytest.raises(ShapeError, match="norm: expected 1 or more, got 0.5"):
        TransEDecoder(RELATIONS, WIDTH, norm=0.5)
    for wrong in ({"width": 5}, {"width": 2}, {"feats": 1, "width": 1}):
        with pytest.raises(ShapeError, match="width: expected a divisor of .* with images of 3 x 3 or more, got"):
            ConvEDecoder(**{**sizes, **wrong})
