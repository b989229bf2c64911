"""Labels of events in a stream: parts in time, what is shown, controls; and nothing of the future, bit for bit."""

import copy
import dataclasses
import re

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from toys import CASES, runs

import hgat.data
from hgat import models, ops, tasks
from hgat.data import EventData, StreamData
from hgat.errors import HgatError, RecipeError
from hgat.graph import from_events
from hgat.models import Batch, System
from hgat.tasks.stream_labels import LASTS, StreamLabels, averages
from hgat.train import run
from hgat.train.recipe import Recipe, Train

EVENTS, ENTITIES = 301, 5
SYSTEMS = [name for name in models.available() if "stream_labels" in models.find(name).solves]
SMALL = {"rtgat": {"hidden": 5, "heads": 1, "time_feats": 3, "time_unit": 10.0}}


def stream(seed=0, change=None, moment=None):
    """Events asked for every second time, known up to 30 later; change: a function of what becomes known after
    `moment`, {"known", "label", "after", "entity"}, that is given the True places of those events."""
    generator = torch.Generator().manual_seed(seed)
    asked = 2 * torch.arange(EVENTS)
    known = asked + torch.randint(0, 30, (EVENTS,), generator=generator)
    label = torch.randint(0, 2, (EVENTS,), generator=generator)
    label[torch.rand(EVENTS, generator=generator) < 0.1] = -1
    found = {
        "known": known,
        "label": label,
        "after": torch.stack([label.float(), torch.randn(EVENTS, generator=generator)], 1),
        "of": torch.randint(-1, ENTITIES, (EVENTS,), generator=generator),
        "by": torch.randint(0, 3, (EVENTS,), generator=generator),
        "own": torch.randn(EVENTS, 3, generator=generator),
    }
    if change is not None:
        change(found, known >= moment, asked)
    links = {}
    for name, ntype in (("of", "machine"), ("by", "person")):
        here = (found[name] >= 0).nonzero().squeeze(1)
        links["run", name, ntype] = here, found[name][here], found["known"][here]
    graph = from_events(links, {"run": EVENTS, "machine": ENTITIES, "person": 3})
    feat = {"run": found["own"], "machine": None, "person": torch.eye(3)}
    return StreamData("t", graph, feat, "run", asked, found["label"], 400, 500, found["after"])


def experiment(data, system="rtgat", *, monkeypatch, **train):
    settings = {"epochs": 2, "lr": 0.01, "metric": "auc", **train}
    monkeypatch.setattr(hgat.data, "load", lambda name, root: data)
    graph = {"neighbours": 4} if system == "rtgat" else {}
    sections = {"data": {"name": "t"}, "task": {"name": "stream_labels", "batch": 64}, "graph": graph}
    own = {"system": system, **SMALL.get(system, {})}
    return run.Experiment(Recipe("t", "t", None, **sections, model=own, train=Train(**settings), expect=None))


def test_parts_are_cut_in_time_and_what_straddles_a_cut_is_in_none():
    data = stream()
    task, known, labelled = StreamLabels(data), data.known(), data.label >= 0
    expected = {
        "train": labelled & (data.asked < 400) & (known < 400),
        "val": labelled & (data.asked >= 400) & (data.asked < 500) & (known < 500),
        "test": labelled & (data.asked >= 500),
    }
    for part, mask in expected.items():
        assert task.parts[part].tolist() == mask.nonzero().flatten().tolist() and task.sizes()[part] == mask.sum()
    straddling = labelled & ((data.asked < 400) & (known >= 400) | (data.asked < 500) & (known >= 500))
    assert straddling.sum() > 3 and sum(task.sizes().values()) == labelled.sum() - straddling.sum()


def test_whole_times_are_not_rounded():
    """In float32 Unix times are minutes apart."""
    base, data, moved = 1_400_000_000, stream(), stream()
    for etype in moved.graph.canonical_etypes:
        moved.graph.edges[etype].data["time"] += base
    changes = {"asked": moved.asked + base, "val_time": base + 399.5, "test_time": base + 500}
    moved = dataclasses.replace(moved, **changes)
    assert StreamLabels(moved).sizes() == StreamLabels(data).sizes()


@pytest.mark.parametrize(("part", "cut"), [("train", 400), ("val", 500)])
def test_what_is_shown_was_known_before_the_next_part(part, cut):
    data = stream()
    task = StreamLabels(data)
    shown = task.shown() if part == "train" else task.shown_at(part)
    assert task.shown_at("train") is task.shown()
    for etype in data.graph.canonical_etypes:
        src, dst, time = (*data.graph.edges(etype=etype, order="eid"), data.graph.edges[etype].data["time"])
        here = time < cut
        got = (*shown.graph.edges(etype=etype, order="eid"), shown.graph.edges[etype].data["time"])
        assert 0 < here.sum() < len(here)
        assert all(torch.equal(a, b[here]) for a, b in zip(got, (src, dst, time), strict=True))
    known, due = data.known() < cut, data.asked < cut
    assert torch.equal(shown.after, data.after * known.unsqueeze(1)) and not known.all()
    assert torch.equal(shown.feat["run"], data.feat["run"] * due.unsqueeze(1))
    assert torch.equal(shown.asked[due], data.asked[due]) and (shown.asked[~due] < cut).all()
    train = task.parts["train"]
    assert torch.equal(shown.train, train) and torch.equal(shown.label[train], data.label[train])
    assert (shown.label >= 0).sum() == len(train)


def test_behind_the_last_cut_everything_is_there():
    data = stream()
    shown = StreamLabels(data).shown_at("test")
    assert shown.graph.num_edges() == data.graph.num_edges() and torch.equal(shown.after, data.after)
    assert torch.equal(shown.asked, data.asked) and (shown.label >= 0).sum() == len(shown.train)


def test_an_epoch_asks_for_every_training_event_once_in_a_new_order():
    task = StreamLabels(stream(), batch=50)
    torch.manual_seed(0)
    epochs = [list(task.batches(None, ())) for _ in range(2)]
    for batches in epochs:
        assert [len(batch.label) for batch in batches[:-1]] == [50] * (len(batches) - 1)
        rows = torch.cat([batch.query[0] for batch in batches])
        assert torch.equal(rows.sort().values, task.parts["train"])
        assert torch.equal(torch.cat([batch.label for batch in batches]), task.data.label[rows])
    assert not torch.equal(epochs[0][0].query[0], epochs[1][0].query[0])


class Says(System):
    """Logits that are given."""

    def forward(self, logits, events):
        return logits[events]


def test_scores_are_scikit_learns():
    task = StreamLabels(stream())
    logits = torch.randn(EVENTS, generator=torch.Generator().manual_seed(1))
    label, answer = task.data.label[task.parts["test"]].numpy(), logits[task.parts["test"]].numpy()
    found, loss = task.evaluate(Says(), (logits,), "test", "average_precision")
    assert found == pytest.approx(100 * average_precision_score(label, answer))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(answer), torch.from_numpy(label).float()
    )
    assert loss == pytest.approx(float(expected), abs=1e-6)
    numbers, _ = task.results(Says(), (logits,), "average_precision")
    assert numbers == {"test": found, "more": {"auc": pytest.approx(100 * roc_auc_score(label, answer))}}
    batch = Batch(query=(task.parts["train"],), label=task.data.label[task.parts["train"]])
    assert float(task.loss(torch.zeros(len(batch.label)), batch)) == pytest.approx(0.693147, abs=1e-5)


def test_averages_are_those_of_a_plain_search():
    task = StreamLabels(stream())
    shown = task.shown_at("test")
    table, data = averages(shown), task.data
    known, width = data.known(), len(LASTS) * 4
    assert table.shape == (EVENTS, 6 + 2 * width)
    entity = {}
    for etype in data.graph.canonical_etypes:
        entity[etype[1]] = torch.full((EVENTS,), -1)
        src, dst = data.graph.edges(etype=etype)
        entity[etype[1]][src] = dst
    for i in (0, 1, 40, 150, 222, EVENTS - 1):
        assert torch.equal(table[i, :3], data.feat["run"][i])
        for place, (_, name, _) in enumerate(shown.graph.canonical_etypes):
            ids = ((entity[name] == entity[name][i]) & (entity[name][i] >= 0) & (known < data.asked[i])).nonzero()
            ids = ids.squeeze(1)[torch.argsort(known[ids.squeeze(1)], stable=True)]
            row = table[i, 6 + place * width : 6 + (place + 1) * width].unflatten(0, (len(LASTS), 4))
            for got, count in zip(row, LASTS, strict=True):
                ages = (data.asked[i] - known[ids])[-count:]
                # Several become known at one time: then the last ones of the graph's order, which is another.
                expected = [len(ages) / count, float((1.0 + ages[0]).log()) if len(ages) else 0.0]
                assert got[:2].tolist() == pytest.approx(expected, abs=1e-5)
                if len(known[ids].unique()) == len(ids) and len(ids):
                    torch.testing.assert_close(got[2:], data.after[ids[-count:]].mean(0))
                elif not len(ids):
                    assert not got[2:].any()


@pytest.mark.parametrize("name", list(StreamLabels.controls))
def test_controls_answer_as_they_say(name):
    (case,) = (case for case in CASES if case.system == "rtgat")
    found = case.result(StreamLabels.controls[name])
    low, high = {"majority": (50, 50), "no_graph": (35, 65)}.get(name, (80, 97))
    assert low <= found["test"] <= high


def test_linear_on_averages_is_scikit_learns(monkeypatch):
    one = experiment(stream(), monkeypatch=monkeypatch)
    task = one.task.for_seed(0)
    inputs = one.inputs(task, "linear_averages")
    model = one.model(task, inputs["train"], "linear_averages")
    model.solve(task.shown(), inputs["train"], 4)
    table, train = averages(task.shown()).numpy(), task.parts["train"]
    mean, std = table[train].mean(0), table[train].std(0)
    std[std == 0] = 1
    expected = LogisticRegression(C=1.0, max_iter=1000).fit((table[train] - mean) / std, task.data.label[train].numpy())
    test = averages(task.shown_at("test")).numpy()[task.parts["test"]]
    got = model.answer(inputs["test"], Batch(query=(task.parts["test"],)))
    torch.testing.assert_close(
        got, torch.from_numpy(expected.decision_function((test - mean) / std)).float(), atol=2e-2, rtol=1e-2
    )


def test_a_state_says_which_setting_was_chosen(monkeypatch):
    """And it is solved again from what is shown where it was solved by another run."""
    one = experiment(stream(), monkeypatch=monkeypatch)
    task = one.task.for_seed(0)
    inputs = one.inputs(task, "boosted_averages")
    model = one.model(task, inputs["train"], "boosted_averages")
    batch = Batch(query=(task.parts["val"],))
    model.solve(task.shown(), inputs["train"], 3)
    answer, state = model.answer(inputs["val"], batch), copy.deepcopy(model.state_dict())
    model.solve(task.shown(), inputs["train"], 0)
    assert not torch.equal(model.answer(inputs["val"], batch), answer)
    other = experiment(stream(), monkeypatch=monkeypatch)
    inputs = other.inputs(other.task, "boosted_averages")
    again = other.model(other.task, inputs["train"], "boosted_averages")
    again.load_state_dict(state)
    assert torch.equal(again.answer(inputs["val"], batch), answer)


def shifted(found, later, asked):
    found["known"][later] += 17


def unlike(found, later, asked):
    """Everything that the later events say, and whom they are about where they are asked for later, too."""
    found["label"][later & (found["label"] >= 0)] ^= 1
    found["after"][later] = 7.0
    for name in ("of", "by"):
        due = later & (asked > MOMENT)
        found[name][due] = 1
    found["own"][asked > MOMENT] = -3.0


MOMENT = 550  # in the test part
CHANGES = {"later ones shifted": shifted, "later ones unlike": unlike}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("variant", ["ours", "uniform", "latest", "linear_averages", "boosted_averages", "no_graph"])
def test_no_prediction_knows_what_became_known_later(monkeypatch, variant, how):
    """One model, trained once; two streams that differ from MOMENT on; the answers up to it are the same bits."""
    answers, model = [], None
    for change in (None, CHANGES[how]):
        data = stream(change=change, moment=MOMENT)
        one = experiment(data, monkeypatch=monkeypatch)
        task = one.task.for_seed(0)
        with one.context(variant):
            if model is None:
                training = one.training(variant, 0)
                while training.step():
                    pass
                model = training.model.eval()
            inputs = one.inputs(task, variant)["test"]
            with torch.no_grad():
                every = model.answer(inputs, Batch(query=(torch.arange(EVENTS),)))
        answers.append(every)
    due = data.asked <= MOMENT
    assert torch.equal(answers[0][due], answers[1][due])
    if how == "later ones unlike":
        assert not torch.equal(answers[0][~due], answers[1][~due]), "the change is seen where it may be"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("how", CHANGES)
def test_nothing_is_learned_of_validation_and_test(monkeypatch, system, how):
    """The weights of every epoch are the same where all that became known from the first cut on is another."""
    found = []
    for change in (None, CHANGES[how]):
        data = stream(change=change, moment=400)
        training = experiment(data, system, monkeypatch=monkeypatch, stop="last").training("ours", 0)
        while training.step():
            pass
        found.append({key: value.clone() for key, value in training.model.state_dict().items()})
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


class Peeks(System):
    """Reads what an event itself says once it is known."""

    solves = ("stream_labels",)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    @staticmethod
    def prepare(shown):
        return (shown.after,)

    @classmethod
    def build(cls, shown, inputs):
        return cls()

    def forward(self, after, events):
        return self.scale * after[events, 0]


def test_a_system_that_peeks_is_found_out(monkeypatch):
    answers = []
    for change in (None, unlike):
        data = stream(change=change, moment=MOMENT)
        task = StreamLabels(data)
        answers.append(Peeks().answer(Peeks.prepare(task.shown_at("test")), Batch(query=(torch.arange(EVENTS),))))
    due = data.asked <= MOMENT
    assert not torch.equal(answers[0][due], answers[1][due])


def test_uniform_attention_answers_otherwise(monkeypatch):
    one = experiment(stream(), monkeypatch=monkeypatch)
    inputs = one.inputs(one.task)["test"]
    model, batch = one.model(one.task, inputs).eval(), Batch(query=(one.task.parts["test"],))
    plain = model.answer(inputs, batch)
    with ops.uniform_attention():
        assert not torch.allclose(model.answer(inputs, batch), plain)


def test_wrong_settings_and_data_are_one_sentence():
    assert tasks.find("stream_labels") is StreamLabels
    data = stream()
    other = EventData("t", data.graph, dict.fromkeys(data.graph.ntypes), dict.fromkeys(data.graph.ntypes, ()))
    for call, sentence in [
        (lambda: StreamLabels(data, batch=0), "task.batch: expected 1 or more, got 0"),
        (
            lambda: StreamLabels(other),
            "task: expected data of the kind StreamData for stream_labels, got EventData of t",
        ),
        (
            lambda: StreamLabels(dataclasses.replace(data, test_time=10_000)),
            "task: expected events with either label in every part, got 0 of 0 with label 1 for test",
        ),
        (
            lambda: StreamLabels(dataclasses.replace(data, label=data.label.clamp(max=0))),
            "task: expected events with either label in every part, got 0 of",
        ),
    ]:
        with pytest.raises((HgatError, RecipeError), match=re.escape(sentence)):
            call()


def test_the_toy_needs_its_past():
    data = runs()
    assert data.counts()["labelled"] == 1000 and StreamLabels(data).sizes()["train"] > 500
