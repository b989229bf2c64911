"""Runs: what counts, what is printed, and going on after a kill."""

import pytest
import torch
from torch import nn

from hgat.errors import DataError, RecipeError
from hgat.train import Runs, checkpoint, options, runs

EPOCHS = 7


class Killed(Exception):
    pass


def script(out, count=3, kill=None, **settings):
    """A training with dropout and drawn numbers; kill: (seed, epoch) behind which it stops; (summary, weights)."""
    found, end = Runs(out, count, **settings), {}
    for run in found:
        model = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for epoch in run.epochs(EPOCHS, model, optimizer):
            loss = model(torch.randn(11, 5)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            score = float(torch.rand(()))
            run.record(loss.item(), valid=score, test=1 - score)
            if kill == (run.seed, epoch - 1):
                raise Killed
        end[run.seed] = {k: v.clone() for k, v in model.state_dict().items()}
    return found.summary(), end


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    monkeypatch.setattr(runs, "SAVE_EVERY", -1.0)


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
    kept = [checkpoint.load_tensors(tmp_path / which / runs.MODEL) for which in ("whole", "killed")]
    assert kept[0][1] == kept[1][1] and all(torch.equal(kept[0][0][k], kept[1][0][k]) for k in kept[0][0])


def test_without_resume_it_starts_anew(tmp_path):
    expected, _ = script(tmp_path)
    again, trained = script(tmp_path)
    assert again == expected and set(trained) == {0, 1, 2}
    assert script(tmp_path, resume=True) == (expected, {})  # nothing is left to do


def test_the_best_valid_counts_and_the_first_of_equals(tmp_path):
    found = Runs(tmp_path, 1)
    for run in found:
        model = nn.Linear(1, 1)
        for epoch in run.epochs(4, model, torch.optim.Adam(model.parameters())):
            with torch.no_grad():
                model.weight.fill_(epoch)
            run.record(0.0, valid=[0.1, 0.5, 0.5, 0.2][epoch - 1], test=[0.9, 0.3, 0.8, 0.7][epoch - 1])
    assert found.summary()["test"][0] == pytest.approx(30.0)
    tensors, about = checkpoint.load_tensors(tmp_path / runs.MODEL)
    assert tensors["weight"].item() == 2.0 and about["valid"] == 0.5


def test_ogbs_lines(tmp_path, capsys):
    found = Runs(tmp_path, 2)
    for run in found:
        model = nn.Linear(1, 1)
        for _ in run.epochs(1, model, torch.optim.Adam(model.parameters())):
            run.record(0.0, train=0.9, valid=0.5 + 0.1 * run.seed, test=0.25 + 0.5 * run.seed)
    assert found.summary()["test"] == pytest.approx((50.0, 35.35533905932738))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "All runs: 2",
        "Highest Valid: 55.00 ± 7.07",
        "  Final Train: 90.00 ± 0.00",
        "   Final Test: 50.00 ± 35.36",
    ]


def test_wrong_calls_are_one_sentence(tmp_path):
    with pytest.raises(RecipeError, match="runs: expected 1 or more, got 0"):
        Runs(tmp_path, 0)
    with pytest.raises(Killed):
        script(tmp_path, kill=(0, 2), settings={"lr": 1})
    with pytest.raises(RecipeError, match="--resume: expected the settings of the run in .*, got others"):
        script(tmp_path, resume=True, settings={"lr": 2})
    with pytest.raises(DataError, match="--resume: expected the state of this model, got another"):
        for run in Runs(tmp_path, 3, resume=True, settings={"lr": 1}):
            model = nn.Linear(2, 2)
            next(run.epochs(3, model, torch.optim.Adam(model.parameters())))
    with pytest.raises(RecipeError, match="expected at least one recorded epoch"):
        for _ in Runs(tmp_path, 1):
            pass


def test_options_are_ogbs_and_the_scripts_own():
    parser = options("A script.\n\nMore of it.", lr=0.5, fanout=10, on_sample={"epochs": 3})
    found = parser.parse_args(["--fanout", "3"])
    assert (found.lr, found.fanout, found.runs, found.epochs, found.root, found.control) == (
        0.5,
        3,
        10,
        500,
        None,
        "none",
    )
    found = parser.parse_args(["--sample", "--runs", "2"])
    assert (found.runs, found.epochs, found.sample) == (2, 3, True)
    assert parser.description == "A script."


@pytest.mark.parametrize(
    "arguments, folder",
    [
        ([], "runs/ogb/ogbn-arxiv"),
        (["--conv", "GATConv"], "runs/ogb/ogbn-arxiv"),
        (["--conv", "GATv2Conv"], "runs/ogb/ogbn-arxiv-GATv2Conv"),
        (["--control", "mlp"], "runs/ogb/ogbn-arxiv-mlp"),
        (["--sample", "--control", "uniform", "--conv", "GATv2Conv"], "runs/ogb/ogbn-arxiv-GATv2Conv-uniform-sample"),
        (["--lr", "0.5", "--resume"], "runs/ogb/ogbn-arxiv"),
        (["--sample", "--out", "mine"], "mine"),
    ],
)
def test_folder_of_the_checkpoint(arguments, folder):
    parser = options("ogbn-arxiv: which subject.", conv=("GATConv", "GATv2Conv"))
    assert parser.parse_args(arguments).out == folder
    assert "runs/ogb/ogbn-arxiv,withwhat" in "".join(parser.format_help().split())
    parser = options("A script: of mine.", conv=("GATConv", "GATv2Conv"), out="runs/ogb/ogbn-arxiv")
    assert parser.parse_args(arguments).out == folder
    assert options("A script: of mine.").parse_args([]).out == "runs/ogb"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--conv", "GAT"], "argument --conv: invalid choice: 'GAT' (choose from"),
        (["--control", "all"], "argument --control: invalid choice: 'all'"),
        (["--device", "abacus"], "argument --device: expected cpu, cuda, cuda:1, ..., got 'abacus'"),
        (["--hidden", "10", "--heads", "3"], "argument --hidden: expected a multiple of --heads 3, got 10"),
        *(
            ([f"--{name}", value], f"argument --{name}: expected 1 or more, got {value}")
            for name in ("runs", "epochs", "hidden", "heads", "layers", "batch")
            for value in ("0", "-1")
        ),
        *(
            (["--fanout", value], f"argument --fanout: expected 1 or more, or -1 for all neighbours, got {value}")
            for value in ("0", "-2")
        ),
        (["--batch", "many"], "argument --batch: invalid int value: 'many'"),
        (["--lr", "0"], "argument --lr: expected a number above 0, got 0"),
        (["--lr", "nan"], "argument --lr: expected a number above 0, got nan"),
        (["--dropout", "1"], "argument --dropout: expected a rate from 0 up to, but not including, 1, got 1"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, sentence, capsys):
    parser = options("ogbn-arxiv: which subject.", conv=("GATConv", "GATv2Conv"), batch=7, fanout=5)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
