"""Seeds: what counts, what is printed, and going on after a kill."""

import pytest
import torch
from torch import nn

import hgat.train
from hgat.errors import DataError, RecipeError
from hgat.train import Seeds, checkpoint, seeds

EPOCHS = 7


class Killed(Exception):
    pass


def script(out, count=3, kill=None, **settings):
    """A training with dropout and drawn numbers; kill: (seed, epoch) behind which it stops; (summary, weights)."""
    found, end = Seeds(out, count, **settings), {}
    for run in found:
        model = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for epoch in run.epochs(EPOCHS, model, optimizer):
            loss = model(torch.randn(11, 5)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            score = float(torch.rand(()))
            run.record(loss.item(), val=score, test=1 - score)
            if kill == (run.seed, epoch - 1):
                raise Killed
        end[run.seed] = {k: v.clone() for k, v in model.state_dict().items()}
    return found.summary(), end


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    monkeypatch.setattr(seeds, "SAVE_EVERY", -1.0)


@pytest.mark.parametrize("kill", [(0, 1), (0, 6), (1, 3), (2, 5)], ids=str)
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, kill):
    expected, weights = script(tmp_path / "whole")
    with pytest.raises(Killed):
        script(tmp_path / "killed", kill=kill)
    found, after = script(tmp_path / "killed", resume=True)
    assert found == expected
    assert set(after) == {seed for seed in range(3) if seed >= kill[0]}
    for seed, state in after.items():
        assert all(torch.equal(state[key], weights[seed][key]) for key in state)
    kept = [checkpoint.load_tensors(tmp_path / which / seeds.MODEL) for which in ("whole", "killed")]
    assert kept[0][1] == kept[1][1] and all(torch.equal(kept[0][0][k], kept[1][0][k]) for k in kept[0][0])


def test_without_resume_it_starts_anew(tmp_path):
    expected, _ = script(tmp_path)
    again, trained = script(tmp_path)
    assert again == expected and set(trained) == {0, 1, 2}
    assert script(tmp_path, resume=True) == (expected, {})  # nothing is left to do


def test_the_best_val_counts_and_the_first_of_equals(tmp_path):
    found = Seeds(tmp_path, 1)
    for run in found:
        model = nn.Linear(1, 1)
        for epoch in run.epochs(4, model, torch.optim.Adam(model.parameters())):
            with torch.no_grad():
                model.weight.fill_(epoch)
            run.record(0.0, val=[10, 50, 50, 20][epoch - 1], test=[90, 30, 80, 70][epoch - 1])
    assert found.summary()["test"][0] == pytest.approx(30.0)
    tensors, about = checkpoint.load_tensors(tmp_path / seeds.MODEL)
    assert tensors["weight"].item() == 2.0 and about["val"] == 50.0


def test_ogbs_lines(tmp_path, capsys):
    found = Seeds(tmp_path, 2)
    for run in found:
        model = nn.Linear(1, 1)
        for _ in run.epochs(1, model, torch.optim.Adam(model.parameters())):
            run.record(0.0, train=90, val=50 + 10 * run.seed, test=25 + 50 * run.seed)
    assert found.summary()["test"] == pytest.approx((50.0, 35.35533905932738))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "All runs: 2",
        "Highest Valid: 55.00 ± 7.07",
        "  Final Train: 90.00 ± 0.00",
        "   Final Test: 50.00 ± 35.36",
    ]


def test_wrong_calls_are_one_sentence(tmp_path):
    with pytest.raises(RecipeError, match="seeds: expected 1 or more, got 0"):
        Seeds(tmp_path, 0)
    with pytest.raises(Killed):
        script(tmp_path, kill=(0, 2), settings={"lr": 1})
    with pytest.raises(RecipeError, match="--resume: expected the settings of the run in .*, got others"):
        script(tmp_path, resume=True, settings={"lr": 2})
    with pytest.raises(DataError, match="--resume: expected the state of this model, got another"):
        for run in Seeds(tmp_path, 3, resume=True, settings={"lr": 1}):
            model = nn.Linear(2, 2)
            next(run.epochs(3, model, torch.optim.Adam(model.parameters())))
    with pytest.raises(RecipeError, match="seeds: expected at least one recorded epoch"):
        for _ in Seeds(tmp_path, 1):
            pass


def test_old_names_and_keys_warn_for_one_release(tmp_path):
    with pytest.warns(FutureWarning, match="hgat.train.Runs is now called hgat.train.Seeds;"):
        assert hgat.train.Runs is Seeds
    found = Seeds(tmp_path, 1)
    for run in found:
        model = nn.Linear(1, 1)
        for epoch in run.epochs(2, model, torch.optim.Adam(model.parameters())):
            with pytest.warns(FutureWarning, match=r"record\(valid=...\) is now .*\(val=...\), in percent;") as caught:
                run.record(0.0, valid=10.0 * epoch, test=30.0 + epoch)
            assert caught[0].filename == __file__
    summary = found.summary()
    assert summary == {"val": (20.0, None), "test": (32.0, None)}
    with pytest.warns(FutureWarning, match=r"summary\['valid'\] is now called summary\['val'\];"):
        assert summary["valid"] == (20.0, None)


def test_a_score_of_validation_is_asked_for(tmp_path):
    for run in Seeds(tmp_path, 1):
        model = nn.Linear(1, 1)
        for _ in run.epochs(1, model, torch.optim.Adam(model.parameters())):
            with pytest.raises(RecipeError, match="record: expected a score val=..., got none"):
                run.record(0.0, test=30.0)
            run.record(0.0, val=1.0)


def test_the_lowest_may_be_the_best(tmp_path):
    found = Seeds(tmp_path, 1, better=min)
    for run in found:
        model = nn.Linear(1, 1)
        for epoch in run.epochs(3, model, torch.optim.Adam(model.parameters())):
            run.record(0.0, val=[2.0, 1.0, 3.0][epoch - 1], test=epoch)
    assert found.summary() == {"val": (1.0, None), "test": (2.0, None)}


def test_the_state_of_an_earlier_release_is_no_state_of_this_one(tmp_path):
    """It has fractions, under another name."""
    about = {"settings": {"processes": 1}, "done": [{"valid": 0.5, "test": 0.25}], "running": None}
    checkpoint.save_state(tmp_path / seeds.PROGRESS, {}, about)
    with pytest.raises(DataError, match=r"--resume: expected a state that hgat saved, .*done\[0\]: .*the key 'val'"):
        Seeds(tmp_path, 2, resume=True)
