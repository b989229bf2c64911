import pytest
import torch

from hgat.data.split import class_counts, drawn, per_class, shuffled
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


def classes_of(sizes, unlabelled=0):
    """Labels with so many nodes of each class, in an order of chance."""
    label = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)] + [torch.full((unlabelled,), -1)])
    return label[torch.randperm(len(label), generator=torch.Generator().manual_seed(0))]


SIZES = {
    # form: (sizes of the classes, nodes of each class in training, nodes for validation, for test)
    "planetoid": ((2000, 30, 20, 7), (20, 20, 20, 7), 500, 1000),
    # Texas: a cap of round(0.6 * 183 / 5) = 22 a class, so that two classes have nothing but training nodes.
    "gpr_gnn": ((33, 1, 18, 101, 30), (22, 1, 18, 22, 22), 37, 61),
    "uag": ((33, 1, 18, 101, 30), None, 18, 147),
}


@pytest.mark.parametrize("form", SIZES)
def test_random_splits_have_the_sizes_of_the_paper(form):
    sizes, of_train, val, test = SIZES[form]
    label = classes_of(sizes, unlabelled=11)
    splits, note = drawn(label, len(sizes), form, 7, "d")
    assert f"sizes of {form}, 7 of them" in note and len(splits) == 7
    for split in splits:
        assert list(split) == ["train", "val", "test"]
        if of_train is None:
            assert len(split["train"]) == val
        else:
            assert label[split["train"]].bincount(minlength=len(sizes)).tolist() == list(of_train)
        assert (len(split["val"]), len(split["test"])) == (val, test)
        every = torch.cat(list(split.values()))
        assert len(every.unique()) == len(every) and (label[every] >= 0).all()
    trained = {tuple(split["train"].tolist()) for split in splits}
    assert len(trained) == 7, "each number draws its own"
    for one, other in zip(splits, drawn(label, len(sizes), form, 3, "d")[0], strict=False):
        assert all(torch.equal(one[part], other[part]) for part in one), "and always the same"
    many = drawn(label, len(sizes), form, 40, "d")[0]
    tested = torch.cat([split["test"] for split in many])
    nobody = {"gpr_gnn": (1, 2), "planetoid": (2, 3), "uag": ()}[form]
    assert set(label[tested].tolist()) == set(range(len(sizes))) - set(nobody)
    # Validation is drawn as test is: the same share of each class, but for chance.
    shares = [label[torch.cat([s[part] for s in many])].bincount(minlength=len(sizes)) for part in ("val", "test")]
    one, other = (count / count.sum() for count in shares)
    torch.testing.assert_close(one, other, atol=0.04, rtol=0)


@pytest.mark.parametrize(
    ("form", "sizes", "sentence"),
    [
        (
            "planetoid",
            (101, 1, 18),
            r"d.split: expected at least 1 training node and 500 \+ 1000 others .*, got 39 and 81",
        ),
        ("planetoid", (1519, 20), r"at least 1 training node and 500 \+ 1000 others for 'planetoid', got 40 and 1499"),
        ("gpr_gnn", (1, 1), r"d.split: expected .* others for 'gpr_gnn', got 2 and 0"),
        ("uag", (2, 2), r"d.split: expected at least 1 training node and 1 \+ 4 others for 'uag', got 0 and 4"),
    ],
)
def test_too_few_nodes_for_a_random_split_are_one_sentence(form, sizes, sentence):
    with pytest.raises(DataError, match=sentence):
        drawn(classes_of(sizes), len(sizes), form, 1, "d")


def test_no_draws_are_refused():
    with pytest.raises(DataError, match="d.draws: expected 1 or more, got 0"):
        drawn(classes_of((9, 9)), 2, "uag", 0, "d")


def test_counts_of_classes_are_given_for_each_part():
    label = torch.tensor([0, 1, 1, 0, 2, 1])
    one = {"train": torch.tensor([0, 1, 2]), "val": torch.tensor([3]), "test": torch.tensor([4])}
    other = {"train": torch.tensor([0, 1]), "val": torch.tensor([3]), "test": torch.tensor([5])}
    assert class_counts(label, [one], 4) == "Nodes of each class: train 1, 2, 0, 0; val 1, 0, 0, 0; test 0, 0, 1, 0."
    assert (
        class_counts(label, [one, other], 3)
        == "Nodes of each class in the 2 splits: train 1, 1-2, 0; val 1, 0, 0; test 0, 0-1, 0-1."
    )
