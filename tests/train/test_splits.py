"""A data set with splits of its own for the seeds: each is trained, chosen and scored on one, and sees no other."""

import dataclasses
import re

import dgl
import pytest
import torch

import citations
from hgat import data
from hgat.data import NodeData
from hgat.errors import RecipeError
from hgat.models import find
from hgat.tasks.nodes import Nodes
from hgat.train import evaluate_folder, fit, read, train
from hgat.train.recipe import to_toml
from hgat.train.run import Experiment

NODES, WIDTH, CLASSES, SPLITS = 101, 7, 3, 10
PARTS = ("train", "val", "test")


def with_splits(multilabel=False):
    generator = torch.Generator().manual_seed(8)
    ends = torch.randint(0, NODES, (2, 307), generator=generator)
    label = torch.randint(0, CLASSES, (NODES,), generator=generator)
    feat = torch.randn(NODES, WIDTH, generator=generator) + 1.5 * torch.eye(CLASSES, WIDTH)[label]
    if multilabel:
        label = torch.eye(CLASSES)[label]
    splits = []
    for _ in range(SPLITS):
        order = torch.randperm(NODES, generator=generator)
        splits.append({"train": order[:41], "val": order[41:70], "test": order[70:]})
    facts = {"feat": {"_N": feat}, "target": "_N", "label": label, "num_classes": CLASSES, "multilabel": multilabel}
    return NodeData("ten", dgl.graph(tuple(ends), num_nodes=NODES), **facts, splits=tuple(splits))


@pytest.fixture
def ten(monkeypatch, tmp_path):
    """(the data, a function that trains the small recipe on whatever data it is given)."""
    (tmp_path / "r.toml").write_text(citations.RECIPE)

    def run(given, out, *overrides, seeds=SPLITS, **more):
        monkeypatch.setattr(data, "load", lambda name, root, **options: given)
        overrides = ("train.epochs=6", "train.lr=0.05", "train.controls=['no_graph']", *overrides)
        return train(
            str(tmp_path / "r.toml"), seeds=seeds, out=tmp_path / out, overrides=overrides, progress=False, **more
        )

    return with_splits(), run


@pytest.mark.slow
@pytest.mark.parametrize("refit", [False, True])
def test_seed_k_is_trained_chosen_and_scored_on_split_k(ten, refit):
    given, run = ten
    setting = f"train.refit={str(refit).lower()}"
    found = run(given, "ten", setting)
    metrics = found.metrics
    assert metrics["seeds"] == list(range(SPLITS)) and metrics["nodes"] == {"train": 41, "val": 29, "test": 31}
    assert len(metrics["test"]["values"]) == len(metrics["val"]["values"]) == SPLITS
    assert len(set(metrics["test"]["values"])) > 3
    recipe = dataclasses.replace(found.recipe, train=dataclasses.replace(found.recipe.train, refit=False))
    for number, split in enumerate(given.splits):
        # The same seed on data that have this split alone.
        alone = dataclasses.replace(given, splits=(), **split)
        data.load = lambda *_, alone=alone, **__: alone  # put back with the fixture
        for variant, of in {"ours": metrics, "no_graph": metrics["controls"]["no_graph"]}.items():
            training = Experiment(recipe).training(variant, number)
            while training.step():
                pass
            expected = training.finish()
            for key in ("best_epoch", "epochs"):
                assert of[key][number] == expected[key]
            assert of["val"]["values"][number] == expected["val"]
            if refit:
                training = Experiment(recipe).training(variant, number, [expected["best_epoch"]])
                while training.step():
                    pass
                expected = training.finish()
            assert of["test"]["values"][number] == expected["test"]


def test_the_best_seeds_model_is_scored_on_its_split(ten):
    given, run = ten
    found = run(given, "ten")
    values = found.metrics["val"]["values"]
    seed = values.index(max(values))
    assert seed > 0, "another split than the first shows it"
    assert torch.equal(found.task.data.test, given.splits[found.task.seed]["test"])
    _, experiment, scores, about = evaluate_folder(found.out)
    assert values[about["seed"]] == max(values) and found.task.seed == about["seed"] > 0
    assert scores["test"] == (found.metrics["test"]["values"][about["seed"]], 31)
    assert scores["val"][0] == max(values)


def test_a_metric_that_one_split_leaves_undefined_is_told_before_training(ten, monkeypatch):
    given, run = ten
    alike = (given.label == 0).nonzero().flatten()
    rest = (given.label != 0).nonzero().flatten()
    splits = [*given.splits[:-1], {"train": rest, "val": alike[:5], "test": alike[5:]}]
    monkeypatch.setattr(fit.Fit, "step", lambda self: pytest.fail("trained"))
    with pytest.raises(RecipeError, match="train.metric: auc: expected a class that some nodes have"):
        run(dataclasses.replace(given, splits=tuple(splits)), "auc", "train.metric=auc")


def test_more_seeds_than_splits_begin_again(ten):
    given, run = ten
    task = Nodes(given)
    for seed in (0, 3, 9, 10, 13, 29):
        part = task.for_seed(seed)
        assert part.seed == part.first_state == seed
        for name in PARTS:
            assert torch.equal(getattr(part.data, name), given.splits[seed % SPLITS][name])
        # Prepared once for a split: its facts are the same object.
        assert part.shown() is task.for_seed(seed % SPLITS).shown()
        assert part.refitted().shown() is task.for_seed(seed % SPLITS).refitted().shown()
    assert task.for_seed(3).shown() is not task.for_seed(4).shown()
    assert task.for_seed(3).refitted().shown() is not task.for_seed(4).refitted().shown()
    # Five more seeds of a run that had ten.
    whole = run(given, "whole", seeds=12).metrics
    run(given, "run", seeds=SPLITS)
    more = run(given, "run", seeds=12, resume=True).metrics
    for key in ("test", "val"):
        assert more[key] == whole[key] and len(whole[key]["values"]) == 12


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_label_of_another_part_is_shown(ten, multilabel, monkeypatch):
    given = with_splits(multilabel)
    shown, real = [], find("gat").prepare

    def prepare(facts, **settings):
        shown.append(facts)
        return real(facts, **settings)

    monkeypatch.setattr(find("gat"), "prepare", staticmethod(prepare))
    # The signature is read where a recipe is checked.
    prepare.__wrapped__ = real
    ten[1](given, "shown", "train.refit=true", "train.metric=micro_f1", "train.epochs=2", "train.controls=[]")
    assert len(shown) == 2 * SPLITS, "once for each split, and once with its validation nodes"
    for number, split in enumerate(given.splits):
        for facts, ids in zip(
            shown[2 * number : 2 * number + 2], (split["train"], torch.cat([split["train"], split["val"]])), strict=True
        ):
            assert torch.equal(facts.train, ids)
            hidden = torch.ones(NODES, dtype=torch.bool)
            hidden[ids] = False
            assert torch.equal(facts.label[ids], given.label[ids])
            assert facts.label[hidden].isnan().all() if multilabel else (facts.label[hidden] == -1).all()
            assert not any(value is given.label for value in vars(facts).values())


def test_one_split_for_all_seeds(ten):
    given, run = ten
    alone = dataclasses.replace(given, splits=(), **given.splits[4])
    task = Nodes(alone)
    for seed in (0, 3, 17):
        assert torch.equal(task.for_seed(seed).data.test, given.splits[4]["test"])
        assert task.for_seed(seed).shown() is task.for_seed(0).shown()


def test_ten_splits_of_texas(real_data, tmp_path):
    root = real_data("texas")
    known = data.load("texas", root)
    assert len(known.splits) == SPLITS
    text = re.sub('name = "cora"', 'name = "texas"', to_toml(read("gat-cora")))
    (tmp_path / "gat-texas.toml").write_text(text)
    overrides = (
        "train.epochs=3",
        "train.lr=0.5",
        "train.refit=false",
        "train.controls=['majority']",
        "expect.paper=[]",
    )
    found = train(tmp_path / "gat-texas.toml", root, seeds=SPLITS, out=tmp_path, overrides=overrides, progress=False)
    assert len(found.metrics["test"]["values"]) == SPLITS
    # What the most frequent class of split k's training nodes gets on its test nodes.
    expected = []
    for split in known.splits:
        most = known.label[split["train"]].bincount().argmax()
        expected.append(100 * (known.label[split["test"]] == most).double().mean().item())
    assert len(set(expected)) > 3
    assert found.metrics["controls"]["majority"]["test"]["values"] == pytest.approx(expected)
