"""Loggers, and settings that validation chooses."""

import builtins
import csv
import sys
from types import SimpleNamespace

import pytest
import torch

import hgat
from hgat.cli import main
from hgat.errors import RecipeError, TrainingError
from hgat.train import read, train, tune
from hgat.train.recipe import to_toml

RECIPE = """
[data]
name = "saved"
path = "data.safetensors"
[model]
system = "gat"
[train]
metric = "accuracy"
epochs = 4
lr = 0.01
controls = ["uniform"]
[tune]
train.lr = { low = 1e-4, high = 0.5, log = true }
model.heads = [[2, 1], [1, 1]]
model.hidden = { low = 2, high = 5 }
"""


@pytest.fixture
def place(tmp_path):
    """A folder with small data and a recipe; the labels of the test nodes may be others."""

    def write(name="a", test=0, recipe=RECIPE):
        torch.manual_seed(1)
        label, (src, dst) = torch.arange(60) % 3, torch.randint(0, 60, (2, 300))
        feat = torch.randn(60, 4) + torch.eye(3, 4)[label]
        split = {"train": range(30), "val": range(30, 45), "test": range(45, 60)}
        label[45:] = (label[45:] + test) % 3
        folder = tmp_path / name
        folder.mkdir()
        hgat.data.save(hgat.data.node_data((src, dst), label, feat=feat, split=split), folder / "data.safetensors")
        (folder / "r.toml").write_text(recipe)
        return folder / "r.toml"

    return write


def test_validation_chooses_and_the_test_labels_do_not(place, tmp_path, capsys):
    pytest.importorskip("optuna", reason="missing the package optuna")
    first, second = (
        tune(place(name, test), trials=5, out=tmp_path / "out" / name) for name, test in (("a", 0), ("b", 1))
    )
    assert first.trials == second.trials and len(first.trials) == 5
    assert first.value == max(value for value, _ in first.trials)
    for _, settings in first.trials:
        assert 1e-4 <= settings["train.lr"] <= 0.5 and type(settings["model.hidden"]) is int
        assert settings["model.heads"] in ([2, 1], [1, 1]) and 2 <= settings["model.hidden"] <= 5
    best = next(settings for value, settings in first.trials if value == first.value)
    assert (first.recipe.train.lr, first.recipe.model["heads"]) == (best["train.lr"], best["model.heads"])
    with open(first.out / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val"]) for row in rows] == [value for value, _ in first.trials]
    again = train(first.out / "recipe.toml", out=tmp_path / "run", progress=False)
    assert again.metrics["val"]["mean"] == first.value  # the recipe that is written is the one that was scored
    assert main(["tune", str(place("c")), "--trials", "1", "--out", str(tmp_path / "c")]) == 0
    done = capsys.readouterr()
    assert "the best of 1 trials" in done.out and done.err.startswith("trial 0: ")
    diverging = ["train.lr=1e30", "tune.train={}"]
    with pytest.raises(TrainingError, match="tune: expected a trial with a finite loss, got none of 2"):
        tune(place("d"), trials=2, out=tmp_path / "d", overrides=diverging)
    with pytest.raises(RecipeError, match="--trials: expected 1 or more, got 0"):
        tune(place("e"), trials=0)


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("train.lr = []", r"tune.train.lr: expected a list of values, or low below high, .*, got \[\]"),
        ("train.lr = { low = 0.1, high = 0.1 }", "tune.train.lr: expected .*, got {'low': 0.1, 'high': 0.1}"),
        ("train.lr = { low = 0.0, high = 0.1, log = true }", "tune.train.lr: expected .* above 0 with log = true"),
        ("train.lr = { low = 0.1 }", "tune.train.lr: expected a list of values"),
        ("train.lr = { low = 0.1, high = 1, step = 2 }", "tune.train.lr: expected a list of values"),
        ("train.lr = 3", "tune.train.lr: expected a list of values, .*, got 3"),
        ("data.split = [1, 2]", "tune: expected ranges of graph, model, task, train, .*, got 'data'"),
        *(
            (f"{key} = [1, 2]", f"tune: expected settings of the model and .*, got '{key}', which says what is")
            for key in [f"train.{name}" for name in ("metric", "seeds", "controls", "control_hidden", "knn_share")]
            + [f"task.{name}" for name in ("name", "gold", "add_edges", "test_share", "windows")]
        ),
        ("train.lr = { low = 0.0, high = 0.1 }", "tune.train.lr: expected a number above 0, .*, got 0.0"),
        ("train.lr = [0.1, 0.2, -3]", "tune.train.lr: expected a number above 0, .*, got -3"),
        ("train.stop = ['loss', 'never']", "tune.train.stop: expected 'metric' or .*, got 'never'"),
        ("model.hidden = { low = 2, high = 5.5 }", "tune.model.hidden: expected int, got 5.5"),
        ("model.hiden = [2, 3]", "tune.model: expected only the keys .*, got 'hiden'; did you mean 'hidden'"),
        ("train.least = [0, 5]", "tune.train.least: expected a number from 0 to 4, got 5"),
        ("train.least = [0, -1]", "tune.train.least: expected a number from 0 to .*, got -1"),
        ('"train.lr" = [1, 2]', "tune: expected ranges of graph, model, task, train, .*, got 'train.lr'"),
    ],
)
def test_a_range_that_is_none(place, line, sentence):
    path = place(recipe=RECIPE[: RECIPE.index("train.lr =")] + line + "\n")
    with pytest.raises(RecipeError, match=sentence):
        read(path)


def test_a_value_that_no_model_can_have_is_said_before_the_first_trial(place, tmp_path):
    pytest.importorskip("optuna", reason="missing the package optuna")
    path = place(recipe=RECIPE[: RECIPE.index("train.lr =")] + "train.epochs = [2]\nmodel.heads = [[0, 1], [1, 1]]\n")
    told = []
    with pytest.raises(RecipeError, match=r"model.heads: expected a number of heads per layer, .*, got \[0, 1\]"):
        tune(path, trials=9, out=tmp_path / "out", tell=lambda *trial: told.append(trial))
    assert not told


def test_a_trial_that_fails_says_so_in_a_sentence_alone_and_leaves_those_before(place, tmp_path, caplog):
    optuna = pytest.importorskip("optuna", reason="missing the package optuna")
    rows = []

    def tell(number, value, settings):
        with open(tmp_path / "out" / "trials.csv", newline="") as file:
            rows.append([row["train.epochs"] for row in csv.DictReader(file)])
        if number == 2:
            raise RecipeError("tell: expected two trials, got another")

    path = place(recipe=RECIPE[: RECIPE.index("train.lr =")] + "train.epochs = [2]\n")
    optuna.logging.enable_propagation()
    try:
        with pytest.raises(RecipeError, match="tell: expected two trials"):
            tune(path, trials=9, out=tmp_path / "out", tell=tell)
    finally:
        optuna.logging.disable_propagation()
    assert not caplog.records and rows == [["2"] * (k + 1) for k in range(3)]


def test_ranges_survive_being_written_and_a_recipe_without_any_says_so(place):
    path = place()
    recipe = read(path)
    (path.parent / "again.toml").write_text(to_toml(recipe))
    assert read(path.parent / "again.toml").tune == recipe.tune and set(recipe.tune) == {"train", "model"}
    assert "[tune]" not in to_toml(read("gat-cora"))
    for overrides in ((), ("tune.train={}",)):
        with pytest.raises(RecipeError, match=r"tune: expected ranges in the section \[tune\] of gat-cora, got none"):
            tune("gat-cora", overrides=overrides)


def test_packages_that_are_missing(place, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] in ("optuna", "tensorboard", "wandb"):
            raise ImportError(name)
        return real(name, *rest)

    path = place()
    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(RecipeError, match="tune: expected the package optuna, got none; pip install"):
        tune(path, out=tmp_path / "t")
    for name in ("tensorboard", "wandb"):
        with pytest.raises(RecipeError, match=f"--log: expected the package {name}, got none; pip install"):
            train(path, out=tmp_path / name, log=name, progress=False)


def test_an_unknown_logger_is_refused_before_anything_is_read(tmp_path, capsys):
    assert main(["train", "gat-cora", "--root", "none", "--log", "tensorbord", "--out", str(tmp_path / "o")]) == 2
    sentence = "hgat: --log: expected one of csv, tensorboard, wandb, got 'tensorbord'; did you mean 'tensorboard'?\n"
    assert capsys.readouterr().err == sentence and not (tmp_path / "o").exists()


def test_tensorboard_gets_every_epoch(place, tmp_path):
    pytest.importorskip("tensorboard", reason="missing the package tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = train(place(), out=tmp_path, log="tensorboard", progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("uniform/seed 0/val")
    assert [one.step for one in scalars] == [1, 2, 3, 4]
    assert max(one.value for one in scalars) == pytest.approx(found.metrics["controls"]["uniform"]["val"]["mean"])


def test_wandb_gets_every_epoch(place, tmp_path, monkeypatch):
    """What the package is asked for; it would go to a server."""
    logged, given = [], {}

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            given["ended"] = True

        def log(self, row):
            logged.append(row)

    package = SimpleNamespace(init=lambda **options: given.update(options) or Run())
    monkeypatch.setitem(sys.modules, "wandb", package)
    train(place(), out=tmp_path, log="wandb", progress=False)
    assert given == {"project": "hgat", "name": "r", "dir": str(tmp_path), "ended": True}
    assert [row["epoch"] for row in logged] == [1, 2, 3, 4] * 2 and "ours/seed 0/loss" in logged[0]
