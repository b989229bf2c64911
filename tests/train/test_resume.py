"""A run that is killed, at any moment, and resumed ends as one that was not."""

import json
import os
import random
import time

import pytest

import citations
from hgat.errors import DataError, OutputError, RecipeError
from hgat.train import checkpoint, run, train
from hgat.train.fit import Fit
from shell import Shell

BUDGET = ("train.refit=true", "train.epochs=10", "train.patience=10", "train.lr=0.05")
SAVE_EVERY = 0.02
# Training time is all that two equal runs may differ in.
TIMES = ("seconds", "total_seconds")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the small data set and its recipe."""
    place = citations.write(tmp_path_factory.mktemp("resume"))
    (place / "r.toml").write_text(citations.RECIPE)
    return place


@pytest.fixture(scope="module")
def shell(place):
    shell = Shell(place)
    yield shell
    shell.close()


def arguments(out, *more, seeds=2, overrides=BUDGET):
    sets = [word for override in overrides for word in ("--set", override)]
    return ["train", "r.toml", "--root", ".", "--seeds", seeds, "--out", out, *sets, *more]


def outcome(folder):
    """Everything that must be the same: metrics but for times, the other files' bytes, the list of files."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in (metrics, *metrics["controls"].values()):
        for key in TIMES:
            part.pop(key, None)
    files = {name: (folder / name).read_bytes() for name in ("model.safetensors", "recipe.toml")}
    files["history.csv"] = sorted((folder / "history.csv").read_text().splitlines())  # later seeds stand behind
    return metrics, files, sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def whole(shell, place):
    """(outcome, seconds until the first save, seconds in all) of a run that nothing stopped."""
    started = time.monotonic()
    shell.start(*arguments("whole"), save_every=SAVE_EVERY)
    while not (place / "whole" / "progress.safetensors").exists():
        time.sleep(0.001)
    first = time.monotonic() - started
    done = shell.wait()
    assert (done.status, done.err) == (0, "")
    return outcome(place / "whole"), first, time.monotonic() - started


def running(folder):
    """Which fit the last save was made in, or None."""
    try:
        _, about = checkpoint.load_tensors(folder / "progress.safetensors")
    except DataError:
        return None
    return about["running"] and about["running"]["key"]


def seen(condition):
    """Waits until the state on disk is of the wanted kind, and then a little longer."""

    def wait(folder, chance, shell):
        while True:
            key = running(folder)
            if key and condition(key):
                time.sleep(chance.random() * 0.1)
                return
            if not shell.alive():
                return  # it ended before it was seen there
            time.sleep(0.002)

    return wait


MOMENTS = {
    "before the first save": lambda first, total: lambda folder, chance, shell: time.sleep(chance.random() * first),
    "while an epoch is selected": lambda *_: seen(lambda key: key["variant"] == "ours" and key["stage"] == "select"),
    "while refitting": lambda *_: seen(lambda key: key["variant"] == "ours" and key["stage"] == "refit"),
    "in a control": lambda *_: seen(lambda key: key["variant"] != "ours"),
    "anywhere": lambda first, total: lambda folder, chance, shell: time.sleep(chance.random() * total),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once(moment, shell, place, whole):
    expected, first, total = whole
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for attempt in range(5):
        out = f"{moment.replace(' ', '-')}-{attempt}"
        shell.start(*arguments(out), save_every=SAVE_EVERY)
        MOMENTS[moment](first, total)(place / out, chance, shell)
        shell.kill()
        if shell.wait().status == -9:
            break
    else:
        pytest.fail(f"the run ended five times before it could be killed (seed {seed})")
    assert not (place / out / "metrics.json").exists()
    done = shell(*arguments(out, "--resume"), save_every=SAVE_EVERY)
    assert (done.status, done.err) == (0, ""), f"seed {seed}"
    assert outcome(place / out) == expected, f"seed {seed}"


@pytest.mark.slow
def test_killed_again_and_again(shell, place, whole):
    expected, first, total = whole
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(3):
        shell.start(*arguments("often", "--resume"), save_every=SAVE_EVERY)
        time.sleep(first + chance.random() * total / 4)
        shell.kill()
        assert shell.wait().status in (-9, 0)
    done = shell(*arguments("often", "--resume"), save_every=SAVE_EVERY)
    assert (done.status, done.err) == (0, ""), f"seed {seed}"
    assert outcome(place / "often") == expected, f"seed {seed}"


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(shell, place, whole):
    folder = place / "whole"
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    times = {name: (folder / name).stat().st_mtime_ns for name in ("progress.safetensors", "model.safetensors")}
    done = shell(*arguments("whole", "--resume"))
    assert (done.status, done.err) == (0, "") and "control: no graph" in done.out
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
    assert {name: (folder / name).stat().st_mtime_ns for name in times} == times


def train_here(place, out, *overrides, seeds=1, resume=False):
    overrides = ("train.epochs=3", *overrides)
    return train(str(place / "r.toml"), place, seeds=seeds, out=out, overrides=overrides, resume=resume, progress=False)


def test_more_seeds_train_only_the_new_ones(place, tmp_path):
    one = train_here(place, tmp_path / "a", seeds=1).metrics
    two = train_here(place, tmp_path / "a", seeds=2, resume=True).metrics
    whole = train_here(place, tmp_path / "b", seeds=2).metrics
    assert two["seconds"][0] == one["seconds"][0]
    assert two["controls"]["uniform"]["seconds"][0] == one["controls"]["uniform"]["seconds"][0]
    assert two["test"]["values"][0] == one["test"]["values"][0] and len(two["test"]["values"]) == 2
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert whole["test"] == two["test"]


def test_more_seeds_after_a_kill_in_a_control(place, tmp_path, monkeypatch):
    """The state that was saved is not that of the fit that comes next."""
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    # Recipe; three epochs, weights and result of the one seed; an epoch of the first control.
    with interrupted_at_write(6, monkeypatch, after=True), pytest.raises(Killed):
        train_here(place, tmp_path / "a")
    assert running(tmp_path / "a")["variant"] == "no_graph"
    train_here(place, tmp_path / "a", seeds=2, resume=True)
    train_here(place, tmp_path / "b", seeds=2)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def test_fewer_seeds_than_are_finished_are_refused(place, tmp_path):
    train_here(place, tmp_path, seeds=2)
    with pytest.raises(RecipeError, match="--resume: expected 2 seeds or more, as so many are finished, got 1"):
        train_here(place, tmp_path, seeds=1, resume=True)


def test_other_settings_are_refused_and_harm_nothing(place, tmp_path):
    train_here(place, tmp_path)
    before = outcome(tmp_path)
    for override in (
        "train.lr=0.03",
        "model.hidden=2",
        "graph.self_loops=false",
        "train.controls=[]",
        "paper.year=1",
    ):
        with pytest.raises(
            RecipeError, match="--resume: expected the recipe and settings of the run in .*, got others"
        ):
            train_here(place, tmp_path, override, resume=True)
    assert outcome(tmp_path) == before
    # The same settings in other words are the same settings.
    train_here(place, tmp_path, "train.lr=2e-2", resume=True)
    assert outcome(tmp_path) == before


def test_other_data_under_the_same_name_are_refused(place, tmp_path, monkeypatch):
    """The state of a running fit does not fit other data's weights."""
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    with interrupted_at_write(6, monkeypatch), pytest.raises(Killed):
        train_here(place, tmp_path / "out", "train.epochs=9")
    assert running(tmp_path / "out")
    parts = citations.contents()
    other = citations.write(tmp_path / "data", allx=parts["allx"][:, :9], tx=parts["tx"][:, :9], x=parts["x"][:, :9])
    with pytest.raises(DataError, match="--resume: expected a state that fits the recipe's data"):
        train(
            str(place / "r.toml"),
            other,
            seeds=1,
            out=tmp_path / "out",
            overrides=("train.epochs=3", "train.epochs=9"),
            resume=True,
            progress=False,
        )


def test_without_resume_a_run_starts_anew(place, tmp_path):
    train_here(place, tmp_path, seeds=2)
    (tmp_path / "attention.png").write_text("an earlier run's")
    again = train_here(place, tmp_path, "train.controls=[]")
    assert len(again.metrics["test"]["values"]) == 1 and again.metrics["controls"] == {}
    assert "attention.png" not in os.listdir(tmp_path)


def test_an_earlier_run_leaves_nothing_beside_an_unfinished_one(place, tmp_path, monkeypatch):
    """Its weights and its numbers would pass for those of the new recipe, or of more seeds."""
    train_here(place, tmp_path)
    (tmp_path / "attention.png").write_text("an earlier run's")
    with interrupted_at_write(2, monkeypatch), pytest.raises(Killed):
        train_here(place, tmp_path, seeds=2, resume=True)
    left = ["history.csv", "model.safetensors", "progress.safetensors", "recipe.toml"]
    assert sorted(os.listdir(tmp_path)) == left
    with interrupted_at_write(0, monkeypatch, after=True), pytest.raises(Killed):
        train_here(place, tmp_path, "train.lr=0.01")
    assert os.listdir(tmp_path) == ["recipe.toml"]


def test_nothing_that_is_finished_is_trained_again(place, tmp_path, monkeypatch):
    """After the selection only the refit is left; after both, nothing."""
    settings = ("train.refit=true", "train.controls=[]", "train.epochs=6")
    steps, real = [], Fit.step

    def step(fit):
        steps.append(len(fit.task.shown().train))
        return real(fit)

    monkeypatch.setattr(Fit, "step", step)
    with interrupted_at_write(1, monkeypatch, after=True), pytest.raises(Killed):
        train_here(place, tmp_path, *settings)
    assert steps == [citations.TRAIN] * 6
    steps.clear()
    (best,) = train_here(place, tmp_path, *settings, resume=True).metrics["best_epoch"]
    assert steps == [citations.TRAIN + 500] * best
    steps.clear()
    train_here(place, tmp_path, *settings, resume=True)
    assert steps == []


def test_nothing_to_resume_is_a_fresh_run(place, tmp_path):
    train_here(place, tmp_path / "a", resume=True)
    train_here(place, tmp_path / "b")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"", lambda b: b"\0" * len(b)])
def test_a_damaged_state_is_refused_and_kept(damage, place, tmp_path):
    train_here(place, tmp_path)
    path = tmp_path / "progress.safetensors"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="checkpoint: expected a file that hgat wrote"):
        train_here(place, tmp_path, resume=True)
    assert path.read_bytes() == damaged


def test_another_file_in_the_place_of_the_state(place, tmp_path):
    train_here(place, tmp_path)
    (tmp_path / "progress.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="--resume: expected the recipe and settings"):
        train_here(place, tmp_path, resume=True)


class Killed(BaseException):
    """No `except Exception` may stop it."""


class interrupted_at_write:
    """Raises Killed at the write with this number, counted from 0, before it is made or right after."""

    def __init__(self, number, monkeypatch, after=False):
        self.number, self.monkeypatch, self.after, self.count = number, monkeypatch, after, 0

    def __enter__(self):
        real = checkpoint.write_bytes

        def write(path, content):
            self.count += 1
            if self.count == self.number + 1 and not self.after:
                raise Killed
            real(path, content)
            if self.count == self.number + 1:
                raise Killed

        self.patch = self.monkeypatch.context()
        self.patch.__enter__().setattr(checkpoint, "write_bytes", write)
        return self

    def __exit__(self, *error):
        self.patch.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_write(after, place, tmp_path, monkeypatch):
    """Recipe, selection, weights, result, metrics: a kill between any two of them must not show."""
    settings = ("train.refit=true", "train.controls=['uniform']")
    monkeypatch.setattr(run, "SAVE_EVERY", 1e9)
    with interrupted_at_write(10**9, monkeypatch) as writes:
        train_here(place, tmp_path / "whole", *settings, seeds=2)
    expected = outcome(tmp_path / "whole")
    assert writes.count >= 1 + 8 + 1 + 1
    for number in range(writes.count):
        out = tmp_path / str(number)
        with interrupted_at_write(number, monkeypatch, after), pytest.raises(Killed):
            train_here(place, out, *settings, seeds=2)
        train_here(place, out, *settings, seeds=2, resume=True)
        assert outcome(out) == expected, f"write {number}"


@pytest.mark.slow
def test_killed_after_every_epoch(place, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    # The last epoch's weights show every step, those of the best epoch might not.
    settings = ("train.epochs=4", "train.controls=[]", "train.stop=last")
    with interrupted_at_write(10**9, monkeypatch) as writes:
        train_here(place, tmp_path / "whole", *settings)
    expected = outcome(tmp_path / "whole")
    assert writes.count == 1 + 4 + 1 + 1 + 1
    for number in range(writes.count):
        with interrupted_at_write(number, monkeypatch, True), pytest.raises(Killed):
            train_here(place, tmp_path / "out", *settings)
        train_here(place, tmp_path / "out", *settings, resume=True)
        assert outcome(tmp_path / "out") == expected, f"write {number}"


def test_a_full_disk_stops_the_run_and_resume_goes_on(place, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    train_here(place, tmp_path / "whole")
    real, count = os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count == 5:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="expected to write .* bytes to .*, got: No space left on device"):
            train_here(place, tmp_path / "out")
    assert not any(name.startswith(".") for name in os.listdir(tmp_path / "out"))
    train_here(place, tmp_path / "out", resume=True)
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")
