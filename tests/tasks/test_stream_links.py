"""Prediction of events in order of time: what may be known when, against plain loops; nothing later is trained on."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import hgat.data
from hgat.data import EventData
from hgat.errors import HgatError, RecipeError
from hgat.graph import from_events
from hgat.tasks import stream_links
from hgat.tasks.stream_links import KINDS, PARTS
from hgat.train import checkpoint, run
from hgat.train.recipe import read

RECIPE = """
[paper]
title = "none"
authors = "none"
year = 2024
link = ""
[data]
name = "enron"
[model]
system = "tgat"
node_input = "learned"
hidden = 11
heads = 1
layers = 1
neighbours = 5
sample = "recent"
time_feats = 7
[task]
name = "stream_links"
batch = 53
[train]
metric = "average_precision"
epochs = 3
lr = 0.01
"""
NODES, EVENTS = 37, 499


def stream(seed=0, nodes=NODES, events=EVENTS, first=0, apart=3):
    """(src, dst, time): many events at one time, pairs that meet again, nodes that come in the end."""
    random, found = np.random.default_rng(seed), []
    for number in range(events):
        here = 17 + (nodes - 17) * number // events
        u, v = random.integers(0, here, 2).tolist()
        if found and random.random() < 0.4:
            u, v, _ = found[random.integers(len(found))]
        found.append((u, v, first + apart * (number // 5)))
    found[-1] = (nodes - 1, *found[-1][1:])
    return found


def stream_task(found, nodes=None):
    src, dst, time = (np.array(column) for column in zip(*found, strict=True))
    graph = from_events((src, dst, time), num_nodes=nodes or int(max(src.max(), dst.max())) + 1)
    return EventData(name="t", graph=graph, feat={"_N": None}, ids={"_N": tuple(range(graph.num_nodes()))})


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The Experiment of a recipe on data, with settings "section.key=value"."""
    (tmp_path / "r.toml").write_text(RECIPE)

    def experiment(task, *settings):
        task = stream_task(task) if isinstance(task, list) else task
        monkeypatch.setattr(hgat.data, "load", lambda name, root, **options: task)
        return run.Experiment(read(tmp_path / "r.toml", settings))

    return experiment


def listed(events):
    return list(zip(events.src.tolist(), events.dst.tolist(), events.time.tolist(), strict=True))


def part_of(experiment, part):
    return listed(experiment.task.events[experiment.task.masks[part]])


def hidden(experiment):
    return set(experiment.task.is_new.nonzero().flatten().tolist())


def to_the_end(training):
    while training.step():
        pass
    return training


def logits(experiment, model, events, part="test"):
    """Of events, from all events up to the end of a part."""
    (recent,) = experiment.inputs(experiment.task)[part]
    return stream_links._scorer(model, (recent,))(events)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("first", [0, 1_700_000_000, 2**60, -(2**40)])
def test_parts_follow_one_another(make, first):
    """However large the numbers are that times begin with, and with events of one time together."""
    found = stream(first=first)
    experiment = make(found)
    train, val, test = (part_of(experiment, part) for part in PARTS)
    assert max(t for *_, t in train) < min(t for *_, t in val)
    assert max(t for *_, t in val) < min(t for *_, t in test)
    new = hidden(experiment)
    left_out = [e for e in found if e[2] < val[0][2] and new & {*e[:2]}]
    assert sorted(train + val + test + left_out) == sorted(found)
    # Within one moment, five events, of what is asked for.
    assert abs(len(test) - 0.15 * EVENTS) <= 6 and abs(len(val) - 0.15 * EVENTS) <= 6
    assert experiment.task.sizes() == {"train": len(train), "val": len(val), "test": len(test)}


@pytest.mark.parametrize("val, test", [(0.1, 0.3), (0.31, 0.07)])
def test_shares(make, val, test):
    sizes = make(stream(), f"task.val_share={val}", f"task.test_share={test}", "task.new_nodes=0").task.sizes()
    assert sizes["val"] == pytest.approx(val * EVENTS, abs=6) and sizes["test"] == pytest.approx(test * EVENTS, abs=6)
    assert sum(sizes.values()) == EVENTS


def test_hidden_nodes_are_in_no_training_event(make):
    found = stream()
    experiment = make(found)
    new, val = hidden(experiment), part_of(experiment, "val")
    late = {node for u, v, t in found if t >= val[0][2] for node in (u, v)}
    assert new <= late and len(new) == int(0.1 * NODES)
    assert any(t < val[0][2] and new & {u, v} for u, v, t in found), "otherwise nothing had to be left out"
    assert not any(new & {u, v} for u, v, _ in part_of(experiment, "train"))


def test_the_structure_of_training_has_training_events_alone(make):
    experiment = make(stream())
    (recent,) = experiment.inputs(experiment.task)["train"]
    train = part_of(experiment, "train")
    rows = torch.repeat_interleave(torch.arange(NODES), recent.indptr.diff()).tolist()
    held = sorted(zip(rows, recent.neighbour.tolist(), recent.time.tolist(), strict=True))
    expected = [(u, v, t) for u, v, t in train] + [(v, u, t) for u, v, t in train if u != v]
    assert held == sorted(expected)
    (later,), (last,) = (experiment.inputs(experiment.task)[part] for part in ("val", "test"))
    assert len(last.time) > len(later.time) > len(held)
    # What is asked for until the end of validation may be answered from all that is earlier, hidden nodes' events, too.
    end = part_of(experiment, "val")[-1][2]
    both = [(u, v, t) for u, v, t in stream() if t <= end]
    assert sorted(later.time.tolist()) == sorted(t for u, v, t in both for _ in range(1 + (u != v)))


def test_hidden_nodes_are_those_of_their_own_seed(make):
    one, again, other = (hidden(make(stream(), f"task.new_nodes_seed={seed}")) for seed in (3, 3, 4))
    assert one == again != other
    assert hidden(make(stream(), "task.new_nodes=0")) == set()


def test_halves_are_with_and_without_hidden_nodes(make):
    experiment = make(stream())
    new = hidden(experiment)
    scored = []
    score = lambda events: scored.append(listed(events)) or np.zeros(len(events))  # noqa: E731
    for part in ("val", "test"):
        halves = {}
        for half in (False, True):
            scored.clear()
            label, _ = experiment.task.ranked(score, part, "random", 0, half)
            halves[half], negatives = scored
            assert label.tolist() == [1] * len(halves[half]) + [0] * len(negatives)
            assert all(bool(new & {u, v}) == half for u, v, _ in halves[half])
            assert [t for *_, t in negatives] == [t for *_, t in halves[half]], "each at the time of its link"
        assert sorted(halves[False] + halves[True]) == sorted(part_of(experiment, part))
    nobody = make(stream(), "task.new_nodes=0")
    assert nobody.task.ranked(score, "test", "random", 0, True) is None
    model = nobody.training("ours", 0).model
    more = nobody.task.results(model, nobody.inputs(nobody.task)["test"], "auc")[0]["more"]
    assert more and all("transductive" in name for name in more)


def negatives(experiment, part, kind, seed=0):
    events = experiment.task.events[experiment.task.masks[part]]
    return listed(events), listed(experiment.task.negatives(events, kind, np.random.RandomState(seed)))


@pytest.mark.parametrize("part", ["val", "test"])
def test_negatives_are_what_they_claim(make, part):
    found = stream()
    experiment = make(found)
    trained = {(u, v) for u, v, _ in part_of(experiment, "train")}
    behind = {(u, v) for p in ("val", "test") for u, v, _ in part_of(experiment, p)} - trained
    drawn = {kind: set() for kind in KINDS}
    for kind in KINDS:
        for seed in range(5):
            links, others = negatives(experiment, part, kind, seed)
            assert not set(others) & set(found), "none of them happened then"
            assert [t for *_, t in others] == [t for *_, t in links]
            drawn[kind] |= {(u, v) for u, v, _ in others}
            if kind == "random":
                assert [u for u, *_ in others] == [u for u, *_ in links]
    assert {v for _, v in drawn["random"]} == {v for _, v, _ in found}
    assert drawn["historical"] <= trained and len(drawn["historical"]) > len(trained) / 2
    assert drawn["inductive"] <= behind and len(drawn["inductive"]) > len(behind) / 2


def test_a_pair_that_meets_at_that_time_is_drawn_again(make):
    """Of three destinations two are taken at every moment: the third is what is left."""
    found = [(0, 1 + (t + k) % 3, t) for t in range(71) for k in range(2)]
    experiment = make(found, "task.new_nodes=0")
    _, others = negatives(experiment, "test", "random")
    assert [v for _, v, _ in others] == [1 + (t + 2) % 3 for *_, t in others]


def test_negatives_are_those_of_the_seed(make):
    experiment = make(stream())
    scored = []
    score = lambda events: scored.append(listed(events)) or np.zeros(len(events))  # noqa: E731
    for seed in (0, 0, 1):
        np.random.seed(len(scored))
        torch.manual_seed(len(scored))
        for part, kind in (("val", "random"), ("test", "random"), ("test", "historical")):
            experiment.task.ranked(score, part, kind, seed)
    first, again, other = (scored[k : k + 6] for k in (0, 6, 12))
    assert first == again
    assert first[0] == other[0] and all(first[k] != other[k] for k in (1, 3, 5))


def in_words(found, pairs):
    """(how often the pair met strictly before, product of how often its ends met anyone), by a loop over the events."""
    scores = []
    for u, v, t in pairs:
        before = [(a, b) for a, b, s in found if s < t]
        scores.append((before.count((u, v)), sum(a == u for a, _ in before) * sum(b == v for _, b in before)))
    place = {value: k for k, value in enumerate(sorted(set(scores)))}
    return np.array([place[value] for value in scores])


def test_counting_is_how_often_a_pair_met_before(make):
    """Links and their negatives are ranked on one scale."""
    found = stream()
    experiment = make(found)
    fit = experiment.training("counting", 3)
    assert not fit.step()
    result = fit.finish()
    for half, new in (("transductive", False), ("inductive", True)):
        for kind in KINDS:
            pairs = []
            collect = lambda events: pairs.extend(listed(events)) or np.zeros(len(events))  # noqa: E731, B023
            label, _ = experiment.task.ranked(collect, "test", kind, 3, new)
            place = in_words(found, pairs)
            more = result["more"]
            assert more[f"{half}, {kind} negatives, auc"] == pytest.approx(100 * roc_auc_score(label, place))
            expected = 100 * average_precision_score(label, place)
            assert more[f"{half}, {kind} negatives, average_precision"] == pytest.approx(expected)
    assert result["test"] == result["more"]["transductive, random negatives, average_precision"]
    pairs = []
    label, _ = experiment.task.ranked(lambda e: pairs.extend(listed(e)) or np.zeros(len(e)), "val", "random", 3, False)
    assert result["val"] == pytest.approx(100 * average_precision_score(label, in_words(found, pairs)))


def test_counting_sees_nothing_of_the_same_time():
    """Against a loop, for pairs that are there and others, at times of events, between, before and after."""
    random = np.random.default_rng(0)
    keys, times = torch.from_numpy(random.integers(0, 13, 211)), torch.from_numpy(random.integers(0, 29, 211))
    earlier = stream_links._Earlier(keys, times)
    asked = torch.arange(-2, 17).repeat_interleave(33)
    at = torch.arange(-2, 31).repeat(19)
    expected = [int(((keys == k) & (times < t)).sum()) for k, t in zip(asked.tolist(), at.tolist(), strict=True)]
    assert earlier.count(asked, at).tolist() == expected
    assert earlier.count(asked, at + 0.5).tolist() == [
        int(((keys == k) & (times <= t)).sum()) for k, t in zip(asked.tolist(), at.tolist(), strict=True)
    ]


def first_losses(experiment, epochs=3):
    fit = experiment.training("ours", 0)
    found = []
    for _ in range(epochs):
        fit.step()
        found.append(fit.loss)
    return found, {k: v.clone() for k, v in fit.model.state_dict().items()}


@pytest.mark.slow
def test_nothing_behind_training_trains(make):
    found = stream()
    end = part_of(make(found, "task.new_nodes=0"), "val")[0][2]
    random = np.random.default_rng(5)
    changed = [(*(random.integers(0, NODES, 2).tolist() if t >= end else (u, v)), t) for u, v, t in found]
    settings = ("task.new_nodes=0", "train.epochs=5")
    one, other = (first_losses(make(stream_task(e, NODES), *settings)) for e in (found, changed))
    assert one[0] == other[0] and len(set(one[0])) == 3
    same(one[1], other[1])
    earlier = [(*(random.integers(0, 17, 2).tolist() if t == 30 else (u, v)), t) for u, v, t in found]
    assert first_losses(make(stream_task(earlier, NODES), *settings))[0] != one[0]


@pytest.mark.slow
def test_what_hidden_nodes_did_trains_nothing(make):
    """Their events before the cut may be with anyone else who is hidden."""
    found = stream()
    experiment = make(found)
    new, end = sorted(hidden(experiment)), part_of(experiment, "val")[0][2]
    changed = [(new[0], new[1], t) if t < end and set(new) & {u, v} else (u, v, t) for u, v, t in found]
    assert changed != found
    one, other = (first_losses(make(stream_task(e, NODES))) for e in (found, changed))
    assert one[0] == other[0]
    same(one[1], other[1])


@pytest.mark.parametrize("layers, sample", [(1, "recent"), (2, "uniform")])
def test_no_event_is_scored_by_what_comes_later(make, layers, sample):
    """What happens at an event's own time or behind it does not change its score."""
    found = stream()
    settings = (f"model.layers={layers}", f"model.sample={sample}", "model.neighbours=97", "task.new_nodes=0")
    experiment = make(found, *settings)
    model = experiment.training("ours", 0).model
    moment = 240
    random = np.random.default_rng(5)
    changed = [(*(random.integers(0, NODES, 2).tolist() if t >= moment else (u, v)), t) for u, v, t in found]
    other = make(stream_task(changed, NODES), *settings)
    src, dst = torch.arange(NODES), torch.arange(NODES).roll(5)
    scores = [
        [logits(e, model, stream_links._Events(src, dst, torch.full((NODES,), t)))
         for t in (moment, moment + 3)] for e in (experiment, other)
    ]  # fmt: skip
    assert np.allclose(scores[0][0], scores[1][0], atol=1e-5)
    assert not np.allclose(scores[0][1], scores[1][1], atol=1e-3)


def test_without_time_only_the_order_counts(make):
    found = stream()
    stretched = [(u, v, t**2) for u, v, t in found]
    gaps = {}
    for variant in ("ours", "no_time"):
        scores = []
        for events in (found, stretched):
            experiment = make(events, "task.new_nodes=0")
            fit = experiment.training(variant, 0)
            late = experiment.task.events[experiment.task.masks["test"]]
            scores.append(logits(experiment, fit.model, late))
        gaps[variant] = np.abs(scores[0] - scores[1]).max()
    assert gaps["no_time"] < 1e-5 and gaps["ours"] > 1e-2
    # Nor does training bring time back in.
    experiment = make(found, "task.new_nodes=0", "train.epochs=2")
    fit = to_the_end(experiment.training("no_time", 0))
    late = experiment.task.events[experiment.task.masks["test"]]
    other = make(stretched, "task.new_nodes=0")
    again = other.task.events[other.task.masks["test"]]
    one, two = logits(experiment, fit.model, late), logits(other, fit.model, again)
    assert np.allclose(one, two, atol=1e-5)


def test_uniform_attention_is_another_model(make):
    experiment = make(stream())
    late = experiment.task.events[experiment.task.masks["test"]]
    ours, uniform = (experiment.training(variant, 0) for variant in ("ours", "uniform"))
    same(ours.model.state_dict(), uniform.model.state_dict())
    with experiment.context("uniform"):
        even = logits(experiment, uniform.model, late)
    assert not np.allclose(even, logits(experiment, ours.model, late))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recent", "uniform"])
def test_a_state_at_any_epoch_leads_to_the_same_end(make, tmp_path, kind):
    experiment = make(stream(), f"model.sample={kind}")
    whole = experiment.training("ours", 1)
    states, more = [], True
    while more:
        more = whole.step()
        tensors, numbers = whole.state()
        checkpoint.save_tensors(tmp_path / "state", tensors, {"numbers": numbers})
        states.append((more, *checkpoint.load_tensors(tmp_path / "state")))
    expected = {**whole.finish(), "seconds": None}
    assert len(states) == 3
    for follows, tensors, about in states:
        again = experiment.training("ours", 1)
        torch.manual_seed(99)
        again.restore(tensors, about["numbers"])
        if follows:
            to_the_end(again)
        assert {**again.finish(), "seconds": None} == expected
        same(again.model.state_dict(), whole.model.state_dict())


def test_counting_goes_on_from_a_state_behind_its_step(make):
    experiment = make(stream())
    whole = experiment.training("counting", 1)
    whole.step()
    again = experiment.training("counting", 1)
    again.restore(*whole.state())
    result = [{**fit.finish(), "seconds": None} for fit in (whole, again)]
    assert json.dumps(result[0]) == json.dumps(result[1])


def test_the_epoch_is_chosen_on_validation_events_of_nodes_that_are_not_hidden(make):
    experiment = make(stream())
    fit = experiment.training("ours", 2)
    fit.step()
    new, moments = hidden(experiment), []

    def score(events):
        moments.append(listed(events))
        return logits(experiment, fit.model, events, "val")

    label, scores = experiment.task.ranked(score, "val", "random", 2, False)
    assert moments[0] == [e for e in part_of(experiment, "val") if not new & {*e[:2]}]
    metric, loss = fit.fit.evaluate("val")
    assert metric == fit.val_metric == pytest.approx(100 * average_precision_score(label, scores))
    chance = 1 / (1 + np.exp(-scores))
    assert loss == pytest.approx(-np.mean(np.log(np.where(label == 1, chance, 1 - chance))))


def test_an_evaluation_can_be_repeated_and_draws_nothing(make):
    """With neighbours drawn at random, too, and however often there was one before."""
    experiment = make(stream(), "model.sample=uniform", "model.neighbours=3", "train.epochs=2")
    fit = to_the_end(experiment.training("ours", 0))
    task, _, inputs = experiment.last(0, *fit.weights())
    generator = torch.get_rng_state()
    one, scores = fit.fit.evaluate("val"), task.scores(fit.model, inputs, "auc")
    assert torch.equal(torch.get_rng_state(), generator)
    torch.rand(7)
    assert fit.fit.evaluate("val") == one and task.scores(fit.model, inputs, "auc") == scores
    assert task.results(fit.model, inputs["test"], "auc") == task.results(fit.model, inputs["test"], "auc")
    assert set(scores) == set(PARTS)


def planted(events=1499, groups=5, seed=0):
    """Sources 0 to 18, destinations 19 to 41: a source meets whom its group's turn says, and groups take turns."""
    random, found = np.random.default_rng(seed), []
    for number in range(events):
        u = int(random.integers(19))
        v = 19 + int(random.choice(np.arange(u % groups, 23, groups)))
        found.append((u, v, number))
    return found


@pytest.mark.slow
def test_groups_are_learned(make):
    experiment = make(planted(), "train.epochs=5", "train.lr=0.02", "task.new_nodes=0.05")
    fit = experiment.training("ours", 0)
    fit.step()
    first = fit.loss
    result = to_the_end(fit).finish()
    assert fit.loss < 0.8 * first
    more = result["more"]
    # One in five destinations is of the group; a fifth of the negatives are, too.
    assert 75 < more["transductive, random negatives, auc"] < 95
    assert more["inductive, random negatives, auc"] > 50
    # Pairs of the past are of one group, as the links are: nothing tells them apart.
    assert 35 < more["transductive, historical negatives, auc"] < 65
    assert result["val"] == pytest.approx(result["test"], abs=10)


def test_links_at_random_are_worth_nothing(make):
    random = np.random.default_rng(3)
    found = [(*random.integers(0, 31, 2).tolist(), k) for k in range(997)]
    experiment = make(found, "train.epochs=2", "task.new_nodes=0")
    result = to_the_end(experiment.training("ours", 0)).finish()
    assert 40 < result["more"]["transductive, random negatives, auc"] < 60


def typed_task():
    """Two relations between users and films, at times that alternate."""
    random, rated = np.random.default_rng(0), {}
    for number, level in enumerate(("low", "high")):
        times = 2 * np.arange(211) + number
        rated["user", level, "film"] = random.integers(0, 19, 211), random.integers(0, 13, 211), times
    graph = from_events(rated, {"user": 19, "film": 13})
    ids = {"film": tuple(range(13)), "user": tuple(range(19))}
    return EventData(name="t", graph=graph, feat={"film": None, "user": None}, ids=ids)


def test_events_of_several_types_are_one_stream(make):
    task = typed_task()
    experiment = make(task, "task.new_nodes=0.2")
    recent, everything = (experiment.inputs(experiment.task)[part][0] for part in ("train", "test"))
    start = recent.start
    assert start == everything.start and sorted(start.values()) == sorted(set(experiment.task.start.tolist()))
    assert experiment.task.events.time.tolist() == list(range(422))
    for number, level in enumerate(("low", "high")):
        src, dst = task.graph.edges(etype=level, order="eid")
        events = experiment.task.events[experiment.task.events.time % 2 == number]
        assert torch.equal(events.src, src + start["user"]) and torch.equal(events.dst, dst + start["film"])
    train = part_of(experiment, "train")
    assert sorted(recent.time.tolist()) == sorted(2 * [t for *_, t in train])
    for kind in KINDS:
        _, others = negatives(experiment, "test", kind)
        assert all(0 <= u - start["user"] < 19 and 0 <= v - start["film"] < 13 for u, v, _ in others)
    result = to_the_end(experiment.training("ours", 0)).finish()
    assert 0 < result["test"] <= 100


WRONG = {
    "task.val_share=0": "task: expected shares above 0 that leave something to train on, got val_share = 0",
    "task.test_share=0.85": "task: expected shares above 0 .* test_share = 0.85, new_nodes = 0.1",
    "task.new_nodes=1.0": "task: expected shares above 0 .* new_nodes = 1.0",
    "task.new_nodes=-0.1": "task: expected shares above 0 .* new_nodes = -0.1",
    "task.new_nodes=0.99": "two events or more in every part among nodes that are not hidden, got 0 for train",
    "task.val_share=0.001": "two events or more in every part .*, got 0 for val",
    "task.new_nodes_seed=-1": "task.new_nodes_seed: expected a number from 0 to 4294967295, got -1",
    "task.batch=0": "task.batch: expected 1 or more, got 0",
    "task.batch=0.5": "task.batch: expected int, got 0.5",
    "task.typo=1": "task: expected only the keys val_share, .*, got 'typo'",
    "train.metric=macro_auc": "train.metric: expected one of average_precision, auc, got 'macro_auc'",
    "train.controls=['no_temporal']": "train.controls: expected names among .*'no_time'.*, got 'no_temporal'",
    "model.node_input=feat": "model.node_input: expected features of the nodes for 'feat', got none",
    "graph.both_ways=1": "graph.both_ways: expected bool, got 1",
}  # fmt: skip


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_settings(make, setting):
    with pytest.raises(HgatError, match=WRONG[setting]) as error:
        made = make(stream(), setting)
        made.model(made.task, made.inputs(made.task)["train"])
    assert "\n" not in str(error.value)


def test_a_part_of_hidden_nodes_alone_is_refused(make):
    """Training is of others, but there is no event to choose the epoch by."""
    found = [(u % 7, 7 + u % 5, u) for u in range(101)] + [(20 + u % 2, 22, 101 + u) for u in range(42)]
    with pytest.raises(RecipeError, match="among nodes that are not hidden, got 0 for val"):
        make(found, "task.new_nodes=0.3")


def test_refit_is_refused(make):
    with pytest.raises(RecipeError, match="train.refit: expected false with stream_links, got true"):
        make(stream(), "train.refit=true")


def test_scores_that_are_not_finite_say_so(make):
    fit = make(stream(), "train.lr=1e30", "train.epochs=5").training("ours", 0)
    with pytest.raises(HgatError, match="a smaller train.lr may help"):
        to_the_end(fit)
