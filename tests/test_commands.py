"""The command line beside its results: the version, names that are nearly right, what is said while it works."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

import citations
import hgat
from hgat.cli import main
from hgat.errors import meant
from hgat.train import progress, run, train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = citations.write(tmp_path_factory.mktemp("commands"))
    (place / "r.toml").write_text(citations.RECIPE)
    return place


def test_the_module_is_the_command_and_knows_its_version_without_pytorch():
    code = "import sys, runpy; sys.modules.update(torch=None, dgl=None); sys.argv = ['hgat', '--version']\n"
    code += "runpy.run_module('hgat', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hgat {hgat.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments, near",
    [
        (["gat-coraa"], "gat-cora"),
        (["gat-cora", "--set", "data.name=coraa"], "cora"),
        (["gat-cora", "--set", "data.name=geomgcn"], "geom_gcn"),
        (["gat-cora", "--set", "model.system=gatv"], "gatv2"),
        (["gat-cora", "--set", "task.name=node"], "nodes"),
        (["gat-cora", "--set", "train.epoch=3"], "epochs"),
        (["gat-cora", "--set", "model.hiden=3"], "hidden"),
        (["gat-cora", "--set", "data.normalise=row"], "normalize"),
        (["gat-cora", "--set", "trian.lr=3"], "train"),
        (["gat-cora", "--set", "train.metric=acuracy"], "accuracy"),
        (["gat-cora", "--set", "train.controls=['unifrom']"], "uniform"),
    ],
)
def test_a_name_that_is_nearly_right(arguments, near, tmp_path, capsys):
    assert main(["train", *arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"; did you mean {near!r}?\n")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["trian", "gat-cora"], "train"),
        (["--versoin"], "--version"),
        (["train", "gat-cora", "--qiuet"], "--quiet"),
        (["train", "--seed=3", "gat-cora", "--devcie=cpu"], "--device"),
        (["train", "gat-cora", "--seeds", "three"], None),
        (["quite-another"], None),
    ],
)
def test_a_command_or_an_option_that_is_nearly_right(arguments, near, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.endswith(f"; did you mean {near!r}?\n") if near else "did you mean" not in said


def test_a_name_that_is_like_none():
    assert meant("quite another", ["gat-cora", "gat-pubmed"]) == "" and meant(3, []) == ""


def go(place, out, **more):
    return train(place / "r.toml", place, out=out, overrides=["train.epochs=3", "train.controls=['uniform']"], **more)


def test_a_log_has_lines(place, tmp_path, capsys, monkeypatch):
    """Every fit that ends, and between them whatever has not ended for a while."""
    go(place, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+ s", "T", line) for line in lines] == [
        f"{title}, seed 0: 3 epochs in T, val accuracy {part['val']['mean']:.1f} at epoch {part['best_epoch'][0]}"
        for title, part in zip(("hgat", "uniform attention"), values(place, tmp_path), strict=True)
    ]
    monkeypatch.setattr(progress, "EVERY", 0.0)
    go(place, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert re.fullmatch(r"hgat, seed 0: epoch 2 of at most 3, loss \d\.\d{3}, val accuracy \d\d\.\d", lines[1])
    go(place, tmp_path, progress=False)
    assert main(["train", str(place / "r.toml"), "--root", str(place), "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def values(place, out):
    metrics = go(place, out, resume=True).metrics
    return metrics, metrics["controls"]["uniform"]


@pytest.mark.parametrize("metric", ["accuracy", "average_precision"])
def test_a_bar_shows_the_score_on_a_narrow_terminal(metric, monkeypatch):
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        title = "boosted trees with neighbours' means and that kernel, seed 0, refit"
        with progress.Progress(title, metric, 20000, 1000) as said:
            said.step(1001, 0.123456, 81.25)
            said.bar.refresh()
            said.end({"val": 81.25})
        terminal.flush()
        shown = os.read(master, 65536).decode()
    os.close(master)
    pieces = [piece for piece in re.split(r"[\r\n]|\x1b\[[A-Z]", shown) if "val" in piece]
    assert pieces and all(len(piece.rstrip()) <= 80 for piece in pieces)
    assert f"val {metric.replace('_', ' ')} 81.2, loss 0.123 1001/20000 |" in pieces[-1]
    assert metric != "accuracy" or ", boosted" in pieces[-1]


def test_a_device_that_there_is_not(monkeypatch):
    with pytest.raises(hgat.HgatError) as caught:
        run._device("cuda:99")
    assert re.fullmatch(
        r"--device: expected a device of this machine, cpu(, cuda:\d+)*, got 'cuda:99'", str(caught.value)
    )
