"""`hgat explain` on the folder of a run."""

import dataclasses
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import citations
from hgat import train
from hgat.cli import main
from hgat.explain import Attended, AxisAttention, EdgeAttention, by_relation, command, page

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the small data set and a trained run in `run`."""
    place = citations.write(tmp_path_factory.mktemp("explain"))
    (place / "r.toml").write_text(citations.RECIPE)
    few = ["train.epochs=3", "train.controls=[]"]
    train.train(place / "r.toml", place, seeds=1, out=place / "run", overrides=few, progress=False)
    return place


def refused(capsys, sentence, *arguments):
    assert main(["explain", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and re.match(f"hgat: {sentence}", printed.err), (
        printed.err
    )


def test_it_prints_tables_and_says_which_files_it_wrote(place, capsys):
    pytest.importorskip("bokeh")
    html = place / "page.html"
    assert main(["explain", str(place / "run"), "--root", str(place), "--node", "3", "--html", str(html)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0] == "GAT on a small graph, seed 0: what it attends to"
    assert re.search(r"(?m)^  layers.0 +\d+ +[\d,]+ +[\d.]+ +[\d.]+ +[\d.]+ % ", out)
    rows = pd.read_csv(place / "run" / "explain" / "neighbourhood.csv")
    last = rows[rows.layer == "layers.1"].groupby("src").weight.mean().sort_values(ascending=False)
    assert set(rows.dst) == {3} and set(rows.layer) == {"layers.0", "layers.1"}
    assert f"node 3: the most attended of {len(last)} in-edges in layers.1" in lines
    told = lines[lines.index(f"node 3: the most attended of {len(last)} in-edges in layers.1") + 2]
    assert told.split() == [str(last.index[0]), "edges", f"{last.iloc[0]:.4f}", f"{1 / len(last):.4f}"]
    written = [line for line in lines if line.startswith(str(place))]
    assert [line.rsplit("/", 1)[1] for line in written] == [
        "spread.png", "heads.png", "neighbourhood.png", "neighbourhood.csv", "page.html"
    ]  # fmt: skip
    assert html.read_text().startswith("<!DOCTYPE html>")


def test_pictures_go_where_they_are_wanted(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hgat.explain.pictures.draw_heads", lambda records, path, title: path.write_text("<?xml"))
    monkeypatch.setattr("hgat.explain.pictures.draw_spread", lambda records, path, title: path.write_text("<?xml"))
    assert main(["explain", str(place / "run"), "--root", str(place), "--svg", "--out", str(tmp_path / "new")]) == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "heads.svg", "neighbourhood.csv", "neighbourhood.svg", "spread.svg"
    ]  # fmt: skip
    assert (tmp_path / "new" / "neighbourhood.svg").read_text().startswith("<?xml")


def test_wrong_calls_are_one_sentence(place, tmp_path, capsys):
    root = ["--root", place]
    refused(capsys, "run: expected a folder with recipe.toml and model.safetensors, .* got ", tmp_path, *root)
    refused(capsys, r"node: expected a node from 0 to \d+, got 100000\n", place / "run", *root, "--node", 100000)
    refused(capsys, r"node: expected a node from 0 to \d+, got -1\n", place / "run", *root, "--node=-1")
    refused(
        capsys, r"node: expected a number from 0 to \d+, got 'author:3'\n", place / "run", *root, "--node", "author:3"
    )
    (tmp_path / "file").write_text("")
    refused(capsys, "file: expected |.*expected ", place / "run", *root, "--out", tmp_path / "file")


def test_a_page_that_cannot_be_written_is_refused_before_the_run_is_opened(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hgat.train.run.open_folder", lambda *_, **__: pytest.fail("the run was opened"))
    monkeypatch.setitem(sys.modules, "bokeh", None)
    ask = [place / "run", "--root", place, "--html"]
    refused(capsys, "explain: expected Bokeh for a page, got none; pip install ", *ask, tmp_path / "a.html")
    monkeypatch.setitem(sys.modules, "bokeh", SimpleNamespace())
    refused(capsys, "--html: expected a file that can be written, got .*No such", *ask, tmp_path / "none" / "a.html")
    refused(capsys, "--html: expected a file, got the folder ", *ask, tmp_path)
    assert list(tmp_path.iterdir()) == []
    page.check_page(tmp_path / "made" / "a.html", tmp_path / "made")  # which is made after the run is opened


def test_a_run_of_another_version_that_opens_says_so(place, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["versions"]["hgat"] = "0.0.1"
    (copy / "metrics.json").write_text(json.dumps(metrics))
    assert main(["explain", str(copy), "--root", str(place), "--node=-1"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert re.match(r"hgat: run: one of hgat 0\.0\.1, opened with [\d.]+\S*, .*copy", first) and "node:" in last


def test_a_run_of_another_version_says_so(place, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["versions"]["hgat"] = "0.0.1"
    (copy / "metrics.json").write_text(json.dumps(metrics))
    recipe = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(recipe.replace("[model]", "[model]\nancient = 1"))
    refused(capsys, r"run: expected one of hgat [\d.]+\S*, got one of 0.0.1, .*ancient", copy, "--root", place)
    (copy / "metrics.json").write_text("[")  # which says nothing: then it is the recipe that is wrong
    refused(capsys, "(?!run:).*ancient", copy, "--root", place)


def into(src, dst, group, step=None):
    """Attention of one head over edges whose softmaxes are given."""
    src, dst, group = (torch.tensor(x) for x in (src, dst, group))
    weight = (1 / torch.bincount(group)[group]).unsqueeze(1)
    step = None if step is None else torch.tensor(step)
    return EdgeAttention("one", (("_N", "_E", "_N"),), torch.zeros_like(dst), src, dst, weight, group, "softmax", step)


def test_the_node_that_is_shown_has_something_to_choose():
    """Three edges in one softmax, at the step that is shown; in-edges of several softmaxes or steps do not add up."""
    assert command._typical(into([1, 2, 3, 0, 2, 3], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3]), "_N", None) == 1
    steps = into(
        [1, 2, 3, 1, 2, 0, 2, 3, 3], [0] * 5 + [1] * 4, [0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 0, 0, 1, 1, 0, 0, 0, 1]
    )
    assert command._typical(steps, "_N", None) == 1  # of node 0 step 1 is shown, of node 1 step 0
    assert command._typical(steps, "_N", torch.tensor([0])) == 1


def explained(edges=(), axes=(), told=()):
    """A run of nothing but its attention, whose pictures are names."""
    recipe, model = SimpleNamespace(title="a run"), SimpleNamespace(attended=lambda: told, training=False)
    found = SimpleNamespace(recipe=recipe, model=model, inputs={"test": ()})
    return command.Explained(found, Attended(list(edges), list(axes)), SimpleNamespace(), None, "_N", {}, {}, " once")


@pytest.fixture
def drawn(monkeypatch):
    """Names of the pictures; nothing is drawn."""
    names = []
    monkeypatch.setattr(command.Explained, "picture", lambda self, name, draw: names.append(name))
    return names


def test_softmaxes_are_not_called_nodes(drawn):
    whole, parts = into([0, 1, 2, 3], [0] * 4, [0] * 4), into([0, 1, 2, 3], [0] * 4, [0, 0, 1, 1])
    lines = command._layers(explained([whole]))
    assert lines[1].split()[:4] == ["layer", "heads", "nodes", "in-edges"] and "nodes with two in-edges" in lines[-1]
    lines = command._layers(explained([whole, parts]))
    assert lines[1].split()[:5] == ["layer", "heads", "softmaxes", "edges", "each"]
    assert lines[3].split()[3:5] == ["2", "2.0"] and "of softmaxes over two edges or more" in lines[-1]


def test_places_in_an_order_of_their_own_keep_it(drawn, monkeypatch):
    """The ten that differ most, in order; others begin with those that differ most."""
    apart = torch.tensor([0.0, 0.0, *[0.01 * k for k in (1, 2, 3, 4, 5, 6, -7, -7, -4, -3)]])
    names = tuple(f"{k} back" for k in range(12, 0, -1))
    given = []
    monkeypatch.setattr(command.Explained, "picture", lambda self, name, draw: draw(name))
    monkeypatch.setattr("hgat.explain.plot.draw_shares", lambda shares, path, title: given.extend(shares))
    past = AxisAttention("past", names, 1 / 12 + apart.unsqueeze(0), "softmax", True)
    lines = command._axes(explained(axes=[past, dataclasses.replace(past, layer="views", ordered=False)]))
    assert [entry.ordered for entry in given] == [True, False]
    cells = [line.split()[0] for line in lines if " back" in line]
    assert cells[:10] == [str(k) for k in range(10, 0, -1)]
    assert cells[10:12] == ["4", "3"] and lines.count("  2 smaller differences left out") == 2


def test_two_calls_of_one_module_are_told_apart(drawn, tmp_path, monkeypatch):
    one = into([0, 1, 2, 3], [0] * 4, [0] * 4)
    run = explained([one, dataclasses.replace(one, layer="two"), dataclasses.replace(one)])
    run.node, run.out = 0, tmp_path
    assert [line.split("  ")[1].strip() for line in command._layers(run)[2:5]] == ["one", "two", "one, 2"]
    assert command._neighbourhood(run)[1].endswith("in-edges in one, 2")
    assert list(pd.read_csv(tmp_path / "neighbourhood.csv").layer.unique()) == ["one", "two", "one, 2"]
    labels = []
    monkeypatch.setattr(command, "write_page", lambda records, *_, **__: labels.extend(r.layer for r in records) or 0)
    run.arguments.html, run.found.task = "a.html", SimpleNamespace(data=None)
    command._page(run)
    assert labels == ["one", "two", "one, 2"]


def test_nodes_of_the_type_node_are_nodes():
    relations = (("node", "a", "node"), ("node", "b", "node"))
    record = dataclasses.replace(into([0, 1], [0, 0], [0, 0]), relations=relations, relation=torch.tensor([0, 1]))
    assert by_relation([record])[0].title == "attention of nodes, one"
