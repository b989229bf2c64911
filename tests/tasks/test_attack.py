"""An attack on the data of a task is drawn once, and every row of a table meets it."""

import dataclasses
import json

import pytest
import torch
from toys import neighbours

from hgat.data import NodeData
from hgat.errors import RecipeError
from hgat.tasks import find
from hgat.train import run


def edges(graph):
    return torch.stack(graph.edges(order="eid"))


def test_all_seeds_and_parts_show_the_same_attacked_graph():
    data = neighbours()
    split = {"train": data.val, "val": data.train, "test": data.test}
    data = dataclasses.replace(data, splits=(dict(data.split), split))
    task = find("nodes")(data, add_edges=0.5, remove_edges=0.1, attack_seed=4)
    shown = [t.shown() for t in (task, task.for_seed(0), task.for_seed(1), task.refitted())]
    for facts in shown:
        assert torch.equal(edges(facts.graph), edges(shown[0].graph))
    assert shown[0].graph.num_edges() == pytest.approx(1.4 * data.graph.num_edges(), abs=4)
    assert torch.equal(task.for_seed(1).data.train, data.val)
    again = find("nodes")(data, add_edges=0.5, remove_edges=0.1, attack_seed=4)
    other = find("nodes")(data, add_edges=0.5, remove_edges=0.1, attack_seed=5)
    assert torch.equal(edges(again.shown().graph), edges(shown[0].graph))
    assert not torch.equal(edges(other.shown().graph), edges(shown[0].graph))
    assert (
        task.data.notes[-1] == "Attacked at random, the same for every row, seed 4: 50% edges added, 10% edges removed."
    )
    assert find("nodes")(data).data is data


def test_features_are_flipped_and_edges_left():
    data = neighbours()
    words = (torch.rand(180, 40, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    data = dataclasses.replace(data, feat={"_N": words})
    shown = find("nodes")(data, flip_features=0.3).shown()
    assert torch.equal(edges(shown.graph), edges(data.graph))
    assert 0 < (shown.feat["_N"] != words).sum() and torch.equal(data.feat["_N"], words)


def test_what_cannot_be_attacked_is_one_sentence():
    data = neighbours()
    timed = dataclasses.replace(data, edge_feat=torch.zeros(data.graph.num_edges(), 2))
    bare = dataclasses.replace(data, feat={"_N": None})
    for given, settings, sentence in (
        (timed, {"add_edges": 0.5}, "graph: expected edges without features or times to attack"),
        (data, {"flip_features": 0.5}, "x: expected .* zeros in row 0"),
        (bare, {"flip_features": 0.5}, "x: expected a floating-point tensor"),
        (data, {"remove_edges": 1.5}, "remove: expected a number from 0 to 1"),
    ):
        with pytest.raises(RecipeError, match=f"task: expected data that the attack fits, got neighbours: {sentence}"):
            find("nodes")(given, **settings)


def test_the_note_and_the_attacked_graph_reach_every_row_of_a_run(tmp_path, monkeypatch):
    seen, data = [], neighbours()
    assert isinstance(data, NodeData)
    monkeypatch.setattr(run.data, "load", lambda *arguments, **options: data)
    once = run.Experiment._of

    def watched(self, shown, variant="ours"):
        seen.append((self.system(variant).__name__, shown.graph.num_edges()))
        return once(self, shown, variant)

    monkeypatch.setattr(run.Experiment, "_of", watched)
    overrides = ["train.epochs=2", "task.add_edges=0.5", 'train.controls=["no_graph", "uniform", "gat"]']
    run.train("uag-cora", seeds=2, out=tmp_path, overrides=overrides, progress=False)
    links = data.graph.num_edges() // 2
    assert {edges for _, edges in seen} == {2 * (links + round(0.5 * links))} and {n for n, _ in seen} == {
        "UAG",
        "NoGraph",
    }
    notes = json.loads((tmp_path / "metrics.json").read_text())["notes"]
    assert any(note.startswith("Attacked at random") for note in notes)
