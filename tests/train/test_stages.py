"""Trainings in several stages: what one begins with, the one before it answers; killed in any, resumed to the same."""

import inspect
import json
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CASES

import citations
from hgat import models
from hgat.errors import DataError, HgatError, RecipeError
from hgat.graph import homogeneous
from hgat.models import System
from hgat.nn import GATConv
from hgat.train import checkpoint, evaluate_folder, run, train
from hgat.train.fit import Fit, Training
from hgat.train.recipe import Train

NAME = "staged"
EPOCHS = 5


class Staged(System):
    """One layer of attention with dropout, trained again and again.

    way: "fresh", a model with fresh weights that sees the first one's answers, too; "itself", the same model on
    features with noise; "both", one behind the other.
    """

    began: list = []  # (the stage, the weights that it begins with), as the training asked

    def __init__(self, in_feats, num_outputs, *, way: str = "fresh"):
        super().__init__()
        self.way, self.layer = way, GATConv(in_feats, num_outputs, 1, feat_drop=0.3)

    @staticmethod
    def prepare(shown):
        return homogeneous.prepare(shown.graph), shown.feat[shown.target]

    @classmethod
    def build(cls, shown, inputs, **settings):
        return cls(inputs[1].shape[1], shown.num_classes, **settings)

    def forward(self, graph, feat):
        return self.layer(graph, feat).flatten(1)

    def again(self, shown, inputs, stage):
        self.began.append((stage, {key: value.clone() for key, value in self.state_dict().items()}))
        graph, feat = inputs
        if stage == 1 and self.way != "itself":
            told = torch.cat([feat, self(*inputs), F.one_hot(shown.label + 1, shown.num_classes + 1)], 1)
            return Staged(told.shape[1], shown.num_classes, way=self.way), (graph, told)
        if stage == 1 or (stage == 2 and self.way == "both"):
            return self, (graph, feat + 0.1 * torch.randn_like(feat))
        return None


@pytest.fixture
def staged(monkeypatch):
    """The system as recipes find it."""
    module = types.ModuleType(f"hgat.models.{NAME}")
    module.Staged, module.__all__ = Staged, ["Staged"]
    known = [*models.available(), NAME]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(models, "available", lambda: known)
    monkeypatch.setattr(Staged, "began", [])
    return Staged


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the small data set and a recipe of the system on it."""
    place = citations.write(tmp_path_factory.mktemp("stages"))
    head, rest = citations.RECIPE.split("[model]")
    train_section = rest[rest.index("[train]") :].replace("epochs = 5", f"epochs = {EPOCHS}")
    (place / "r.toml").write_text(f'{head}[model]\nsystem = "{NAME}"\n{train_section}')
    return place


def go(place, out, *overrides, seeds=1, resume=False):
    overrides = ("train.controls=['uniform']", "train.lr=0.05", *overrides)
    return train(str(place / "r.toml"), place, seeds=seeds, out=out, overrides=overrides, resume=resume, progress=False)


def outcome(folder):
    """All but the times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in (metrics, *metrics["controls"].values()):
        for key in ("seconds", "total_seconds"):
            part.pop(key, None)
    return metrics, (folder / "model.safetensors").read_bytes()


class Killed(BaseException):
    """No `except Exception` may stop it."""


def killed_at(place, out, variant, stage, epoch, monkeypatch, *overrides):
    """The state of a run that is killed behind an epoch of a stage, counted from 0."""
    real = checkpoint.write_bytes

    def write(path, content):
        real(path, content)
        if path.name == "progress.safetensors":
            running = checkpoint.load_state(path)[1]["running"]
            if running and running["key"]["variant"] == variant:
                if (len(running["fit"]["stages"]), running["fit"]["fit"]["epoch"]) == (stage, epoch):
                    raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run, "SAVE_EVERY", -1.0)
        patch.setattr(checkpoint, "write_bytes", write)
        with pytest.raises(Killed):
            go(place, out, *overrides)
    return checkpoint.load_state(out / "progress.safetensors")


STAGES = {"fresh": 2, "itself": 2, "both": 3}


@pytest.mark.parametrize("way", STAGES)
def test_every_stage_is_trained_and_the_last_one_is_scored(way, staged, place, tmp_path):
    found = go(place, tmp_path, f"model.way={way}", "train.controls=[]", "train.stop=loss")
    metrics = found.metrics
    assert metrics["epochs"] == [EPOCHS * STAGES[way]]
    assert 1 <= metrics["best_epoch"][0] <= EPOCHS
    width = citations.WIDTH if way == "itself" else citations.WIDTH + citations.CLASSES + citations.CLASSES + 1
    assert found.inputs[1].shape[1] == width
    # Each begins with the weights that were chosen before it, and the last ones are kept.
    assert [stage for stage, _ in staged.began][: STAGES[way]] == list(range(1, STAGES[way] + 1))
    last = staged.began[STAGES[way] - 1][1]
    assert all(torch.equal(value, last[name]) for name, value in found.model.state_dict().items())
    score = found.task.evaluate(found.model, found.inputs, "test", "accuracy")[0]
    assert metrics["test"]["values"] == [score]
    _, experiment, scores, _ = evaluate_folder(tmp_path, place)
    assert scores["test"] == (score, citations.TEST)
    assert scores["val"][0] == metrics["val"]["values"][0]


def test_the_labels_of_no_other_part_are_shown_to_a_later_stage(staged, place, tmp_path):
    found = go(place, tmp_path, "train.controls=[]")
    told = found.inputs[1][:, -citations.CLASSES - 1 :]
    assert told[:, 0].sum() == len(told) - citations.TRAIN
    assert not told[found.task.data.train, 0].any()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ours", "uniform"])
@pytest.mark.parametrize("way", STAGES)
def test_killed_in_any_stage(way, variant, staged, place, tmp_path, monkeypatch):
    settings = (f"model.way={way}", "train.stop=loss", "train.patience=9")
    go(place, tmp_path / "whole", *settings)
    expected = outcome(tmp_path / "whole")
    assert expected[0]["controls"]["uniform"]["val"] != expected[0]["val"]
    moments = [(stage, epoch) for stage in range(STAGES[way]) for epoch in ((0, 3) if stage else (2, 4))]
    for stage, epoch in moments:
        out = tmp_path / f"{stage}-{epoch}"
        killed_at(place, out, variant, stage, epoch, monkeypatch, *settings)
        go(place, out, *settings, resume=True)
        assert outcome(out) == expected, (stage, epoch)


@pytest.mark.parametrize("way", ["fresh", "both"])
def test_refitted_in_stages(way, staged, place, tmp_path, monkeypatch):
    settings = (f"model.way={way}", "train.refit=true", "train.controls=[]")
    found = go(place, tmp_path / "whole", *settings)
    score = found.task.evaluate(found.model, found.inputs, "test", "accuracy")[0]
    assert found.metrics["test"]["values"] == [score]
    assert evaluate_folder(tmp_path / "whole", place)[2]["test"] == (score, citations.TEST)
    expected = outcome(tmp_path / "whole")
    killed_at(place, tmp_path / "out", "ours", 1, 1, monkeypatch, *settings)
    go(place, tmp_path / "out", *settings, resume=True)
    assert outcome(tmp_path / "out") == expected


@pytest.mark.parametrize("killed", [False, True])
def test_a_refit_trains_every_stage_for_the_epochs_chosen_for_it(killed, staged, place, tmp_path, monkeypatch):
    begun, best = [], {1: 2, 2: 4, 3: 1}  # {stage: the epoch that validation chooses}
    real = Fit.__init__

    def init(self, model, task, inputs, settings, epochs=None):
        real(self, model, task, inputs, settings, epochs)
        training = inspect.currentframe().f_back.f_locals["self"]
        self.stage = 1 + len(training.stages)
        begun.append((self.stage, epochs))

    monkeypatch.setattr(Fit, "__init__", init)
    monkeypatch.setattr(Fit, "evaluate", lambda self, part: (100.0 - abs(self.epoch - best[self.stage]), 1.0))
    settings = ("model.way=both", "train.refit=true", "train.controls=[]")
    if killed:
        killed_at(place, tmp_path, "ours", 2, 3, monkeypatch, *settings)
    go(place, tmp_path, *settings, resume=killed)
    assert [stage for stage in begun if stage[1]][:3] == [(1, 2), (2, 4), (3, 1)]


def test_seeds_draw_stages_of_their_own(staged, place, tmp_path):
    found = go(place, tmp_path, "model.way=itself", "train.controls=[]", seeds=2)
    first, second = found.metrics["val"]["values"]
    one = go(place, tmp_path / "one", "model.way=itself", "train.controls=[]", seeds=1)
    assert one.metrics["val"]["values"] == [first]
    starts = [state["layer.fc.weight"] for stage, state in staged.began if stage == 1]
    assert not torch.equal(starts[0], starts[1])


def test_a_tampered_stage_is_a_sentence(staged, place, tmp_path, monkeypatch):
    tensors, about = killed_at(place, tmp_path, "ours", 2, 2, monkeypatch, "model.way=both")
    fit = about["running"]["fit"]
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (stage,) = (name for name in tensors if name.startswith("stage.1.") and name.endswith("fc.weight"))

    def with_stages(stages):
        return {**about, "running": {**about["running"], "fit": {**fit, "stages": stages}}}

    first, second = fit["stages"]
    lists = {
        "stages: expected a list, got None": None,
        r"stages\[0\]: expected an object with keys, got 3": [3, second],
        r"stages\[1\]: expected the key 'epochs'": [first, {"seconds": 1.0}],
        r"stages\[1\]: expected only the keys": [first, {**second, "more": 1}],
        f"epochs: expected a whole number from 1 to {EPOCHS}, got 0": [{**first, "epochs": 0}, second],
        f"epochs: expected a whole number from 1 to {EPOCHS}, got 6": [first, {**second, "epochs": 6}],
        "seconds: expected a number from 0 to inf, got -1.0": [{**first, "seconds": -1.0}, second],
        f"best_epoch: expected a whole number from 1 to {EPOCHS}, got 0": [{**first, "best_epoch": 0}, second],
        "stage.1.layer.* expected no such tensor": [first],
        "stage.2.layer.*: expected float32 .*, got none": [first, second, second],
    }
    tries = {sentence: (tensors, with_stages(stages)) for sentence, stages in lists.items()}
    kept = tensors[stage]
    for sentence, value in {
        "expected float32 .*, got none": None,
        "expected finite numbers": kept / 0,
        "expected float32 .*, got float64": kept.double(),
        "expected float32 .*, got float32": kept[:2],
    }.items():
        some = {name: other for name, other in {**tensors, stage: value}.items() if other is not None}
        tries[f"stage.1.layer.fc.weight: {sentence}"] = some, about
    for name in ("stage.1.more", "stage.9.more"):
        tries[f"{name}: expected no such tensor"] = {**tensors, name: torch.ones(2)}, about
    for sentence, (some, changed) in tries.items():
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        checkpoint.save_state(tmp_path / "progress.safetensors", some, changed)
        with pytest.raises(DataError, match=f"--resume: expected a state that .*{sentence}") as error:
            go(place, tmp_path, "model.way=both", resume=True)
        assert "\n" not in str(error.value)


def test_one_stage_too_many_is_a_sentence(staged, place, tmp_path, monkeypatch):
    """Another version of the system has fewer stages than the state that was saved."""
    killed_at(place, tmp_path, "ours", 1, 2, monkeypatch)
    monkeypatch.setattr(Staged, "again", System.again)
    with pytest.raises(DataError, match="--resume: expected a state .*stages: expected at most 0, got 1"):
        go(place, tmp_path, resume=True)


@pytest.mark.parametrize("given", [("model", ()), (nn.Linear(2, 2), ()), ("self", [1, 2]), 3])
def test_an_answer_that_is_no_stage(given, staged, place, tmp_path, monkeypatch):
    def again(self, shown, inputs, stage):
        return (self, given[1]) if given != 3 and given[0] == "self" else given

    monkeypatch.setattr(Staged, "again", again)
    with pytest.raises(RecipeError, match="again: expected a System and a tuple of inputs, or None, got "):
        go(place, tmp_path)


def test_weights_of_other_stages_are_refused(staged, place, tmp_path):
    go(place, tmp_path, "model.way=both", "train.controls=[]")
    path = tmp_path / "model.safetensors"
    tensors, about = checkpoint.load_tensors(path)
    assert about["stages"] == 2
    earlier = next(name for name in tensors if name.startswith("stage 0: "))
    for some, changed in (
        (tensors, {**about, "stages": 1}),
        (tensors, {**about, "stages": 3}),
        (tensors, {**about, "stages": "2"}),
        (tensors, {key: value for key, value in about.items() if key != "stages"}),
        ({key: value for key, value in tensors.items() if key != earlier}, about),
        ({**tensors, earlier: tensors[earlier][..., :1]}, about),
    ):
        checkpoint.save_tensors(path, some, changed)
        with pytest.raises(HgatError, match="checkpoint: expected weights of the recipe beside it, got another file"):
            evaluate_folder(tmp_path, place)


def test_a_task_that_shows_each_part_something_else_has_one_stage():
    """One tuple of inputs cannot hold both: the last part would be answered from what was known long before."""
    (case,) = [case for case in CASES if case.task == "stream_links"][:1]

    class Again(case.cls):
        def again(self, shown, inputs, stage):
            return (self, inputs) if stage == 1 else None

    task, inputs, _ = case.setting()
    settings = Train(**{**case.toy.train, "epochs": 1})
    parts = dict.fromkeys(("train", "val", "test"), inputs)
    model = {"node_input": "learned", "hidden": 4, "heads": 1, "layers": 1}
    training = Training(task, settings, lambda _: parts, lambda shown, _: Again(inputs[0].num_nodes, **model))
    with pytest.raises(RecipeError, match="again: expected one stage on stream_links, which shows each part something"):
        while training.step():
            pass
