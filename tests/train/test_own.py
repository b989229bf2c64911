"""`hgat.fit`: a graph of one's own through the loop, controls and files of a recipe."""

import csv
import json
import os

import dgl
import networkx
import numpy as np
import pytest
import torch

import hgat
from hgat.cli import main
from hgat.data import EventData
from hgat.errors import DataError, RecipeError, ShapeError
from hgat.train import evaluate_folder
from hgat.train.history import History
from hgat.train.own import _usual

NODES = 61  # the last two without an edge
QUICK = {"progress": False, "epochs": 4}


@pytest.fixture(scope="module")
def graph():
    """Two communities whose features tell them, some edges between them; two nodes that stand alone."""
    torch.manual_seed(3)
    label = torch.arange(NODES) % 2
    src, dst = torch.randint(0, NODES - 2, (2, 900))
    near = (label[src] == label[dst]) | (torch.rand(900) < 0.2)
    graph = dgl.graph((src[near], dst[near]), num_nodes=NODES)
    graph.ndata["label"], graph.ndata["feat"] = label, torch.randn(NODES, 5) + 2.0 * label.unsqueeze(1)
    graph.edata["time"] = torch.arange(int(near.sum())).flip(0)
    return graph


@pytest.fixture(scope="module")
def found(graph, tmp_path_factory):
    """(a fit of two seeds, what its callback was given)."""
    rows = []
    out = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        settings = {"model.hidden": 7, "model.attn_drop": 0.0, "model.value_drop": 0.0, "train.patience": 9}
        given = {"system": "gat", "seeds": 2, "epochs": 30, "lr": 0.05, "settings": settings}
        return hgat.fit(graph, "label", **given, callback=rows.append, progress=False), rows, out


def test_it_learns_beside_its_controls_and_answers(graph, found):
    fit, _, _ = found
    assert fit.metrics["test"]["mean"] > 80 and set(fit.metrics["controls"]) == {"no_graph", "uniform"}
    assert fit.metrics["system"] == "gat" and fit.metrics["paper"] is None and fit.metrics["recipe"] == "gat-own"
    assert fit.model.layers[0].fc.weight.shape[0] == 7 * 8  # the settings were taken
    said = fit.predict()
    assert said.shape == (NODES,) and said.dtype == torch.int64
    test = fit.task.data.test
    right = 100 * (said[test] == graph.ndata["label"][test]).double().mean()
    assert float(right) == pytest.approx(max(fit.metrics["test"]["values"])) or right in fit.metrics["test"]["values"]
    assert torch.equal(fit.predict([5, 0]), said[[5, 0]])
    assert torch.equal(fit.predict(torch.arange(NODES) < 3), said[:3])
    chances = fit.predict([5, 0], probabilities=True)
    assert torch.equal(chances.argmax(1), said[[5, 0]]) and torch.allclose(chances.sum(1), torch.ones(2))
    with pytest.raises(TypeError, match="probabilites"):
        fit.predict([5, 0], probabilites=True)
    for nodes, sentence in (([NODES], f"ids from 0 to {NODES - 1}, got {NODES}"), ([0.5], "ids .K., or .N. bool")):
        with pytest.raises(ShapeError, match=f"nodes: expected {sentence}"):
            fit.predict(nodes)


def test_what_is_there_says_its_size_in_a_line(found, graph):
    fit, _, _ = found
    assert repr(fit.task) == "Nodes(own, nodes: 37 train, 12 val, 12 test)"
    edges = graph.num_edges()
    sizes = f"nodes=61, edges={edges}, relations=1, classes=2, features=5, train=37, val=12, test=12"
    assert repr(fit.task.data) == f"NodeData('own', {sizes})"
    mean = fit.metrics["test"]["mean"]
    assert repr(fit) == f"Result(GAT on own: accuracy {mean:.1f} of {fit.task!r}, runs/gat-own)"
    steps = hgat.graph.snapshots(hgat.data.event_data(graph).graph, windows=3)
    assert repr(steps) == "Snapshots(steps=3, nodes: 61 _N, relations=1, weight='count')"
    assert "Parameter" not in repr(fit.model) and fit.model.extra_repr() in repr(fit.model)
    total = sum(parameter.numel() for parameter in fit.model.parameters())
    assert fit.model.extra_repr() == f"{total:,} parameters"


def test_the_history_has_every_epoch_and_the_callback_the_same(found):
    fit, rows, out = found
    assert fit.out == out.joinpath("runs", "gat-own").relative_to(out)
    with open(out / fit.out / "history.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in row.items()} for row in rows] == lines
    for variant, part in {"ours": fit.metrics, **fit.metrics["controls"]}.items():
        for seed in range(2):
            mine = [line for line in lines if line["variant"] == variant and line["seed"] == str(seed)]
            assert [int(line["epoch"]) for line in mine] == list(range(1, part["epochs"][seed] + 1))
            best = mine[part["best_epoch"][seed] - 1]
            assert float(best["val"]) == part["val"]["values"][seed]
            assert float(mine[0]["loss"]) > float(mine[-1]["loss"]) > 0 and float(best["val_loss"]) > 0


def test_its_folder_is_a_runs(found, tmp_path, monkeypatch, capsys):
    """Scored again, and trained again, wherever it lies: the data are in it."""
    fit, _, out = found
    moved = tmp_path / "moved"
    (out / fit.out).rename(moved)
    monkeypatch.chdir(tmp_path)
    files = {
        "data.safetensors",
        "history.csv",
        "metrics.json",
        "model.safetensors",
        "progress.safetensors",
        "recipe.toml",
    }
    assert set(os.listdir(moved)) == files
    assert main(["eval", "moved"]) == 0
    shown, best = capsys.readouterr().out, max(fit.metrics["val"]["values"])
    assert "GAT on own, seed" in shown and f"val   {best:6.1f}  on 12 nodes" in shown
    assert main(["explain", "moved", "--node", "3"]) == 0
    assert os.listdir(moved / "explain")
    capsys.readouterr()
    before = json.loads((moved / "metrics.json").read_text())
    assert main(["train", "moved/recipe.toml", "--out", "moved", "--resume", "--quiet"]) == 0
    assert "paper" not in capsys.readouterr().out
    after = json.loads((moved / "metrics.json").read_text())
    assert after.pop("recipe") == "recipe" and before.pop("recipe") == "gat-own" and after == before
    assert main(["train", "moved/recipe.toml", "--out", "anew", "--quiet"]) == 0
    again = json.loads((tmp_path / "anew" / "metrics.json").read_text())
    assert again["test"] == before["test"] and main(["eval", "anew"]) == 0
    capsys.readouterr()
    content = (moved / "data.safetensors").read_bytes()
    (moved / "data.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["eval", "moved"]) == 2
    assert "data.safetensors: expected the SHA-256" in capsys.readouterr().err
    moved.rename(out / fit.out)


def test_a_fit_goes_on_with_the_same_data_alone(graph, tmp_path):
    one = hgat.fit(graph, "label", "gat", out=tmp_path, controls=[], **QUICK)
    content = (tmp_path / "data.safetensors").read_bytes()
    both = hgat.fit(graph, "label", "gat", out=tmp_path, controls=[], resume=True, **QUICK)
    assert both.metrics == one.metrics
    other = graph.clone()
    other.ndata["feat"] = graph.ndata["feat"] + 1
    with pytest.raises(RecipeError, match="--resume: expected the recipe and settings of the run"):
        hgat.fit(other, "label", "gat", out=tmp_path, controls=[], resume=True, **QUICK)
    assert (tmp_path / "data.safetensors").read_bytes() == content


def test_numbers_links_and_events(graph, tmp_path):
    """The task follows from what is given; the same graph serves all."""
    src, dst = (end.numpy() for end in graph.edges())
    number = 100 + 10 * np.arange(NODES)
    fit = hgat.fit((src, dst), number.astype(float), "rgat", feat=graph.ndata["feat"], out=tmp_path / "a", **QUICK)
    assert fit.task.name() == "numbers" and fit.metrics["metric"] == "r2"
    assert fit.predict([3, 4]).shape == (2,) and 300 < float(fit.predict().mean()) < 500  # in their own unit
    with pytest.raises(TypeError, match="probabilities"):
        fit.predict([3], probabilities=True)
    fit = hgat.fit(graph, system="gat", out=tmp_path / "b", **QUICK)
    assert fit.task.name() == "links"
    chance = fit.predict([0, 2], [2, NODES - 1])
    assert chance.shape == (2,) and ((chance > 0) & (chance <= 1)).all()
    assert torch.equal(fit.predict([2], [0]), chance[:1])  # undirected
    with pytest.raises(TypeError, match="probabilities"):
        fit.predict([0], [2], probabilities=True)
    with pytest.raises(ShapeError, match="src: expected numbers, as the data have no names, got 'a'"):
        fit.predict(["a"], [2])
    with pytest.raises(ShapeError, match=f"dst: expected ids from 0 to {NODES - 1}, got -1"):
        fit.predict([0], [-1])
    with pytest.raises(ShapeError, match=r"predict: expected ids src \[K\] and dst \[K\]"):
        fit.predict([0, 1], [2])
    small = {"model.hidden": 3, "model.time_feats": 3, "model.layers": 1, "model.neighbours": 2}
    options = {"task": "stream_links", "settings": small, "controls": ["counting"], "out": tmp_path / "c"}
    fit = hgat.fit(graph, system="tgat", **options, **{**QUICK, "epochs": 1})
    assert isinstance(fit.task.data, EventData) and fit.task.data.graph.edata["time"].diff().min() >= 0
    with pytest.raises(RecipeError, match="predict: expected a task of nodes, numbers or links, got stream_links"):
        fit.predict()
    recipe, experiment, *_ = evaluate_folder(tmp_path / "c")
    assert recipe.paper is None and torch.equal(experiment.data.graph.edata["time"], fit.task.data.graph.edata["time"])


def test_nodes_are_asked_for_by_their_names(tmp_path, capsys):
    club = networkx.relabel_nodes(networkx.karate_club_graph(), {k: f"n{k}" for k in range(34)})
    fit = hgat.fit(club, "club", "gat", feat=torch.eye(34), out=tmp_path / "a", controls=[], **QUICK)
    assert fit.task.data.class_names == ("Mr. Hi", "Officer")
    assert torch.equal(fit.predict(["n3", "n0"]), fit.predict([3, 0]))
    with pytest.raises(ShapeError, match="nodes: expected the name of one node each, got 'n34'"):
        fit.predict(["n34"])
    assert main(["explain", str(tmp_path / "a"), "--node", "n3"]) == 0 and "n3: the most" in capsys.readouterr().out


def test_labels_of_one_class_are_labels(graph):
    data = hgat.data.node_data(graph, torch.zeros(NODES, dtype=torch.int64))
    assert _usual(data, labelled=True) == "nodes"
    assert _usual(hgat.data.node_data(graph), labelled=False) == "links"
    assert _usual(hgat.data.node_data(graph, "label"), labelled=False) == "nodes"


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"label": "label", "system": "gatt"}, "system: expected one of .*, got 'gatt'"),
        ({"label": "label", "system": "dysat"}, "task.name: expected snapshot_links for dysat, got 'nodes'"),
        ({"task": "nodes", "system": "gat"}, "fit: expected labels for the task nodes, got none"),
        ({"task": "triples", "system": "rgat"}, "expected data of the kind TripleData for the task triples, got a g"),
        ({"task": "pairs"}, "task: expected one of graphs, .*, got 'pairs'"),
        ({"label": "label", "settings": {"hidden": 3}}, "settings: expected keys section.key, got 'hidden'"),
        ({"label": "label", "settings": {"model.hiden": 3}}, "model: expected only the keys .*, got 'hiden'"),
        ({"label": "label", "metric": "r2"}, "train.metric: expected one of accuracy, .*, got 'r2'"),
        ({"label": "class"}, "label: expected a column of ndata of '_N', feat, label, got 'class'"),
        ({"label": "label", "splitt": 3}, "only the keywords feat, .*, got 'splitt'; did you mean 'split'?"),
        ({"label": "label", "callback": 3}, "callback: expected a function of a dict, got 3"),
        (
            {"task": "snapshot_links", "system": "dysat"},
            "task: expected one of task.boundaries, task.windows, .*, got n",
        ),
        ({"label": "label", "controls": ["none"]}, "train.controls: expected names among"),
    ],
)
def test_what_does_not_fit_is_one_sentence(graph, tmp_path, given, sentence):
    with pytest.raises((RecipeError, DataError), match=sentence):
        hgat.fit(graph, out=tmp_path, **given, **QUICK)
    assert os.listdir(tmp_path) == []


def test_data_that_are_given_bring_their_labels(graph, tmp_path):
    data = hgat.data.node_data(graph, "label", name="mine")
    fit = hgat.fit(data, system="gat", out=tmp_path, controls=[], **QUICK)
    assert fit.metrics["recipe"] == "gat-mine" and torch.equal(fit.task.data.train, data.train)
    with pytest.raises(RecipeError, match="fit: expected data of hgat.data alone, .*, got a label beside"):
        hgat.fit(data, "label", out=tmp_path, **QUICK)
    with pytest.raises(RecipeError, match="got split beside"):
        hgat.fit(data, split=(0.5, 0.2, 0.3), out=tmp_path, **QUICK)


def test_a_history_that_a_kill_has_torn_is_mended(tmp_path):
    """What is behind the saved state of the fit that goes on is dropped, and half a line; all else stays."""
    path, key = tmp_path / "history.csv", {"variant": "ours", "seed": 1, "stage": "select"}
    numbers = {"loss": 0.5, "val": 50.0, "val_loss": float("nan")}
    history = History(path, resume=False)
    for seed, epochs in ((0, 3), (1, 4)):
        history.begin({**key, "seed": seed}, -1)
        for epoch in range(1, epochs + 1):
            history.add({**key, "seed": seed, "epoch": epoch, **numbers})
    with open(path, "a") as file:
        file.write("ours,2,select,1,0.5,50.0,0.")
    history = History(path, resume=True)
    history.begin(key, 2)
    history.add({**key, "epoch": 3, **numbers})
    lines = path.read_text().splitlines()
    assert lines[0] == "variant,seed,stage,epoch,loss,val,val_loss"
    assert [line.split(",")[1:4:2] for line in lines[1:]] == [[s, e] for s in "01" for e in "123"]
    history.begin({**key, "seed": 0}, -1)  # another fit of the same process, trained anew
    assert [line[5] for line in path.read_text().splitlines()[1:]] == ["1"] * 3
    assert History(path, resume=False)._rows == []
