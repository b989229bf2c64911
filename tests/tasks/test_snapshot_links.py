"""Prediction of the next snapshot's links: what is scored, against plain loops; nothing that is scored trains."""

import dataclasses
import json
import os
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import hgat.data
from hgat.data import EventData
from hgat.errors import HgatError, RecipeError
from hgat.graph import from_events
from hgat.models import Batch, find
from hgat.tasks import snapshot_links
from hgat.tasks.snapshot_links import FEWEST, FIT, RIVALS, TEST, VAL, Counting
from hgat.train import checkpoint, run, train
from hgat.train.recipe import read
from hgat.train.state import Unfit

RECIPE = """
[paper]
title = "none"
authors = "none"
year = 2024
link = ""
[data]
name = "enron"
[model]
system = "dysat"
heads = [2]
hidden = 5
temporal_heads = [2]
[task]
name = "snapshot_links"
column = "step"
num_walks = 3
walk_length = 5
window = 2
positives = 3
negatives = 3
[train]
metric = "macro_auc"
epochs = 3
lr = 0.01
"""
NODES, STEPS = 31, 7


def events_task(events, nodes=None):
    """An EventData of (step, u, v) in this order."""
    nodes = nodes or 1 + max(max(u, v) for _, u, v in events)
    step, src, dst = (np.array(column) for column in zip(*events, strict=True))
    graph = from_events((src, dst, np.arange(len(step))), num_nodes=nodes)
    graph.edata["step"] = torch.from_numpy(step)
    return EventData(name="t", graph=graph, feat={"_N": None}, ids={"_N": tuple(range(nodes))})


def changing(seed=0, nodes=NODES, steps=STEPS, per_step=53):
    """[(step, u, v)]: more nodes with every step, a third of all pairs met before, some that meet themselves."""
    random, events = np.random.default_rng(seed), []
    for step in range(steps):
        here = 11 + (nodes - 11) * step // (steps - 1)
        for _ in range(per_step):
            u, v = random.integers(0, here, 2).tolist()
            if events and random.random() < 0.3:
                _, v, u = events[random.integers(len(events))]
            events.append((step, u, v))
    return events


def blocks(nodes=41, steps=5, per_step=131, groups=3, seed=0):
    """[(step, u, v)] with ends in one group, whoever met before."""
    random, events = np.random.default_rng(seed), []
    for step in range(steps):
        for _ in range(per_step):
            u = random.integers(nodes)
            v = random.choice(np.arange(u % groups, nodes, groups))
            events.append((step, int(u), int(v)))
    return events


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The Experiment of a recipe on data, with settings "section.key=value"."""
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)

    def experiment(task, *settings):
        task = events_task(task) if isinstance(task, list) else task
        monkeypatch.setattr(hgat.data, "load", lambda name, root, **options: task)
        return run.Experiment(read(path, settings))

    return experiment


def first_seen(events):
    found = {}
    for step, *ends in events:
        for node in ends:
            found[node] = min(step, found.get(node, step))
    return found


def links_of(events, step):
    return {(min(u, v), max(u, v)) for s, u, v in events if s == step}


def known_links(events, step, known_at=None):
    seen, limit = first_seen(events), step if known_at is None else known_at
    return {(u, v) for u, v in links_of(events, step) if seen[u] < limit and seen[v] < limit}


def pairs(examples, label):
    here = examples.label == label
    return list(zip(examples.src[here].tolist(), examples.dst[here].tolist(), strict=True))


def to_the_end(training):
    while training.step():
        pass
    return training


def first_round(experiment, variant="ours", seed=0):
    """The Fit of the first target."""
    return experiment.training(variant, seed).fit


def losses(fit):
    """Of every step of the optimiser in one epoch."""
    inputs = fit.inputs["train"]
    return (fit.model.objective(fit.task.loss, inputs, batch) for batch in fit.task.batches(fit.model, inputs))


def kept(training):
    """What the finished targets have given, by name."""
    return {name: tensor for found in training.found for name, tensor in found.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])), key


def no_times(result):
    return {key: value for key, value in result.items() if key != "seconds"}


@pytest.mark.parametrize("self_links, unseen_nodes", [(False, False), (False, True), (True, False), (True, True)])
def test_positives_are_the_links_among_nodes_known_before(make, self_links, unseen_nodes):
    events = changing()
    settings = f"task.self_links={json.dumps(self_links)}", f"task.unseen_nodes={json.dumps(unseen_nodes)}"
    experiment = make(events, *settings)
    assert experiment.task.targets == list(range(1, STEPS))
    views = {"all", "new"} | ({"no_self"} if self_links else set()) | ({"new_strict"} if unseen_nodes else set())
    assert set(experiment.task.scopes) == views | ({"strict"} if self_links or unseen_nodes else set())
    for target, view in product(experiment.task.targets, experiment.task.scopes):
        expected = known_links(events, target)
        if view != "all" or not self_links:
            expected = {(u, v) for u, v in expected if u != v}
        if "new" in view:
            expected -= links_of(events, target - 1)
        found = pairs(experiment.task.examples(target, view, 3), 1)
        assert set(found) == expected and len(found) == len(expected), (target, view)
        assert any(u == v for u, v in found) == (self_links and view == "all")


@pytest.mark.parametrize("unseen_nodes", [False, True])
def test_negatives_are_no_links_of_the_target(make, unseen_nodes):
    events = changing()
    seen = first_seen(events)
    experiment = make(events, f"task.unseen_nodes={json.dumps(unseen_nodes)}", "task.self_links=true")
    unseen = {"all": 0, "no_self": 0, "new": 0, "strict": 0, "new_strict": 0}
    for target, view, seed in product(experiment.task.targets, experiment.task.scopes, range(3)):
        examples = experiment.task.examples(target, view, seed)
        others = pairs(examples, 0)
        assert len(set(others)) == len(others) == len(pairs(examples, 1))
        assert not set(others) & links_of(events, target)
        assert all(u < v and max(seen[u], seen[v]) <= target for u, v in others)
        unseen[view] += sum(max(seen[u], seen[v]) == target for u, v in others)
    assert unseen["strict"] == unseen["new_strict"] == 0
    for view in ("all", "no_self", "new"):
        assert (unseen[view] > 0) == unseen_nodes, view


def test_negatives_are_uniform(make):
    """Every pair without a link alike, whatever its nodes' degrees."""
    events = changing()
    experiment = make(events)
    target, often, seeds = 3, {}, 1500
    for seed in range(seeds):
        for pair in pairs(experiment.task.examples(target, "all", seed), 0):
            often[pair] = often.get(pair, 0) + 1
    seen, links = first_seen(events), links_of(events, target)
    known = [v for v in range(NODES) if seen[v] < target]
    possible = {(u, v) for u, v in product(known, known) if u < v} - links
    assert set(often) == possible
    expected = sum(often.values()) / len(possible)
    spread = np.sqrt(expected * (1 - expected / seeds))
    assert np.abs(np.array(list(often.values())) - expected).max() < 5 * spread


def test_directed_links_are_ordered_pairs(make):
    events = changing()
    experiment = make(events, "task.both_ways=false")
    seen = first_seen(events)
    for target in experiment.task.targets:
        links = {(u, v) for s, u, v in events if s == target}
        examples = experiment.task.examples(target, "all", 0)
        assert set(pairs(examples, 1)) == {(u, v) for u, v in links if u != v and max(seen[u], seen[v]) < target}
        others = pairs(examples, 0)
        assert not set(others) & links and any(u > v for u, v in others) and any(u < v for u, v in others)


def test_both_classes_are_split_alike(make):
    experiment = make(changing(), "task.self_links=true", "task.unseen_nodes=true")
    for target, view in product(experiment.task.targets, experiment.task.scopes):
        examples = experiment.task.examples(target, view, 0)
        half = len(examples.label) // 2
        for label in (0, 1):
            part = examples.part[examples.label == label]
            sizes = [(part == which).sum() for which in (FIT, VAL, TEST)]
            assert sizes == [round(0.2 * half), round(0.4 * half) - round(0.2 * half), half - round(0.4 * half)]
    sizes = experiment.task.sizes()
    total = sum(len(experiment.task.examples(target, "all", 0).label) for target in experiment.task.targets)
    assert sum(sizes.values()) == total and sizes["test"] == pytest.approx(
        0.6 * total, abs=len(experiment.task.targets)
    )


def links_tested(examples):
    """The links of the test part, one for each row of rivals."""
    here = (examples.part == TEST) & (examples.label == 1)
    return list(zip(examples.src[here].tolist(), examples.dst[here].tolist(), strict=True))


def test_who_is_tested_is_drawn(make):
    """The split is one at random, not one by number."""
    experiment = make(changing())
    one, two, three = (set(links_tested(experiment.task.examples(4, "all", seed))) for seed in range(3))
    assert one != two and two != three and one != three


def test_examples_are_those_of_the_seed_for_every_variant(make):
    experiment = make(changing())
    for seed in range(2):
        expected = vars(experiment.task.examples(experiment.task.targets[0], "all", seed))
        for variant in ("ours", "no_temporal", "no_structural", "uniform"):
            torch.manual_seed(seed + 17)
            np.random.seed(seed + 5)
            same(vars(first_round(experiment, variant, seed).task.own), expected)
    one, other = (experiment.task.examples(4, "all", seed) for seed in (0, 1))
    assert set(pairs(one, 0)) != set(pairs(other, 0)) and set(pairs(one, 1)) == set(pairs(other, 1))
    assert pairs(one, 1) != pairs(other, 1), "another split"


def test_steps_with_too_few_links_are_left_out(make):
    """Four links, five, none, and five of which one is new."""
    random = np.random.default_rng(0)
    ring = [(0, v, (v + 1) % 13) for v in range(13)]
    events = [*ring]
    for step, count in ((1, FEWEST - 1), (2, FEWEST), (4, FEWEST + 2)):
        chosen = random.permutation(13)[:count]
        events += [(step, int(v), int((v + 2) % 13)) for v in chosen]
        # Neither of these can be predicted.
        events += [(step, 3, 3), (step, 5, 13 + step)]
    experiment = make(events_task(events, 19))
    assert experiment.task.targets == [2, 4] and experiment.task.shown().steps == 4
    assert experiment.task.examples(1, "all", 0) is None and experiment.task.examples(3, "all", 0) is None
    fit = experiment.training("counting", 0)
    assert fit.step() and not fit.step(), "two targets"
    more = fit.finish()["more"]
    assert set(kept(fit)) >= {"all.2.score", "all.4.score"} and "all.1.score" not in kept(fit)
    assert more["all links, macro_auc"] == np.mean(
        [100 * roc_auc_score(kept(fit)[f"all.{t}.label"], kept(fit)[f"all.{t}.score"]) for t in (2, 4)]
    )


def test_a_step_in_which_nearly_all_meet_is_left_out(make):
    """There are not enough pairs without a link to tell from."""
    every = [(u, v) for u in range(7) for v in range(u)]
    for missing, expected in ((FEWEST - 1, [2]), (FEWEST, [1, 2])):
        events = [(0, v, (v + 1) % 7) for v in range(7)] + [(1, u, v) for u, v in every[missing:]]
        events += [(2, v, (v + 2) % 7) for v in range(7)]
        experiment = make(events_task(events, 7))
        assert experiment.task.targets == expected
        examples = experiment.task.examples(expected[0], "all", 1)
        assert (examples.label == 0).sum() == (examples.label == 1).sum() >= FEWEST


def test_rivals_are_no_links(make):
    events = changing()
    experiment = make(events, "task.self_links=true")
    seen = first_seen(events)
    for target in experiment.task.targets:
        examples = experiment.task.examples(target, "all", 0)
        tested = links_tested(examples)
        assert examples.rivals.shape == (len(tested), RIVALS)
        for (src, _), rivals in zip(tested, examples.rivals.tolist(), strict=True):
            rivals = {v for v in rivals if v >= 0}
            free = {v for v in range(NODES) if seen[v] < target and v != src}
            free -= {v for v in free if (min(src, v), max(src, v)) in links_of(events, target)}
            assert rivals <= free and len(rivals) > len(free) / 2


def plain_counting(events, target):
    """score(u, v): (how often they met before, product of how many each had met), by a loop over the events."""
    often, met = {}, dict.fromkeys(range(NODES), 0)
    for step, *pair in events:
        pair = tuple(sorted(pair))
        if step < target:
            if pair not in often:
                for node in pair:
                    met[node] += 1
            often[pair] = often.get(pair, 0) + 1
    return lambda u, v: (often.get((min(u, v), max(u, v)), 0), met[u] * met[v])


def in_words(score, src, dst):
    """Places of the pairs in the order of their scores, as numbers; equal ones have one place."""
    found = [score(u, v) for u, v in zip(src.tolist(), dst.tolist(), strict=True)]
    place = {value: k for k, value in enumerate(sorted(set(found)))}
    return np.array([place[value] for value in found])


def test_counting_is_how_often_then_degrees(make):
    events = changing()
    experiment = make(events)
    every = np.array(list(product(range(NODES), range(NODES))))
    for target in experiment.task.targets:
        inputs = Counting.prepare(experiment.task.shown_before(target))
        history = Counting.build(None, inputs)(*inputs)
        score = history(every[:, 0], every[:, 1])
        expected = in_words(plain_counting(events, target), every[:, 0], every[:, 1])
        assert (np.unique(score, return_inverse=True)[1] == expected).all()
        again = history(every[:, 1], every[:, 0])
        assert (score == again).all()


def test_counting_as_computed_by_hand(make):
    events = changing()
    experiment = make(events, "task.self_links=true", "task.unseen_nodes=true", "task.first_target=3")
    fit = experiment.training("counting", 5)
    to_the_end(fit)
    result = fit.finish()
    found = {view: [] for view in experiment.task.scopes}
    val = []
    for target, view in product(range(3, STEPS), experiment.task.scopes):
        examples = experiment.task.examples(target, view, 5)
        place = in_words(plain_counting(events, target), examples.src, examples.dst)
        here = examples.part == TEST
        found[view].append((examples.label[here], place[here]))
        if view == "all":
            val.append(roc_auc_score(examples.label[examples.part == VAL], place[examples.part == VAL]))
    for view, title in snapshot_links.SCOPES.items():
        expected = 100 * np.mean([roc_auc_score(*row) for row in found[view]])
        assert result["more"][f"{title}, macro_auc"] == pytest.approx(expected)
    precision = 100 * np.mean([average_precision_score(*row) for row in found["strict"]])
    assert result["more"]["without self-links and unseen nodes, average_precision"] == pytest.approx(precision)
    assert result["test"] == result["more"]["all links, macro_auc"] and result["val"] == pytest.approx(
        100 * np.mean(val)
    )
    assert (result["epochs"], result["best_epoch"]) == (0, 0)


def test_macro_is_the_mean_of_steps_and_micro_one_ranking_of_all():
    one = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.2, 0.3, 0.2, 0.1]), np.array([1.0, 0.25])
    other = np.array([1, 0]), np.array([5.0, 4.0]), np.array([0.5])
    found = snapshot_links._summary([one, other])
    # Of one's six pairs four are right and a tie counts half; the other's is right.
    assert found["macro_auc"] == pytest.approx(100 * (4.5 / 6 + 1) / 2)
    # All seven: links at 5, .9, .2 against 4, .3, .2, .1.
    assert found["micro_auc"] == pytest.approx(100 * (4 + 3 + 1.5) / 12)
    assert found["average_precision"] == pytest.approx(50 * (average_precision_score(*one[:2]) + 1))
    assert found["mrr"] == pytest.approx(100 * ((1 + 0.25) / 2 + 0.5) / 2)


def test_the_rank_of_a_link_among_its_rivals():
    rivals = np.array([[3, 4, -1, 5], [-1, -1, -1, -1], [1, 2, 5, 4]])
    examples = snapshot_links._Examples(
        src=np.array([7, 0, 0, 0, 9]), dst=np.array([7, 2, 1, 3, 9]), label=np.array([1, 1, 1, 1, 0]),
        part=np.array([FIT, TEST, TEST, TEST, TEST]), rivals=rivals,
    )  # fmt: skip
    value = np.array([9.0, 4, 2, 1, 3, 2, 0, 0, 0, 0])
    # Of 2 (score 2): below 3 and 5 no, 4 above, 5 equal; of 1: alone; of 3 (score 1): all four above, one unseen.
    ranks = snapshot_links._ranks(lambda src, dst: value[dst], examples)
    assert ranks.tolist() == pytest.approx([1 / (1 + 1 + 0.5), 1.0, 1 / (1 + 4)])


def first_losses(experiment, epochs=3):
    fit = experiment.training("ours", 0)
    found = []
    for _ in range(epochs):
        assert fit.step()
        found.append(fit.loss)
    return found, {k: v.clone() for k, v in fit.model.state_dict().items()}


@pytest.mark.parametrize("loss", ["walks", "links"])
def test_the_target_snapshot_trains_nothing(make, loss):
    """Whatever happens in it, losses and weights are the same."""
    events, target = changing(), 4
    settings = (f"task.first_target={target}", "train.epochs=9", f"task.loss={loss}")
    random = np.random.default_rng(7)
    changed = [(s, *(random.integers(0, NODES, 2).tolist() if s >= target else (u, v))) for s, u, v in events]
    one, other = (first_losses(make(e, *settings)) for e in (events, changed))
    assert one[0] == other[0] and len(set(one[0])) == 3
    same(one[1], other[1])
    earlier = [(s, *(random.integers(0, 11, 2).tolist() if s == target - 1 else (u, v))) for s, u, v in events]
    assert first_losses(make(earlier, *settings))[0] != one[0], "the step before it does"


def test_test_labels_choose_nothing(make, monkeypatch):
    """With all of them wrong the same epoch and weights are kept, and the scores are others."""
    experiment = make(blocks(), "task.first_target=4", "train.epochs=11")

    def outcome():
        fit = experiment.training("ours", 0)
        result = to_the_end(fit).finish()
        return result, fit.model.state_dict()

    right, weights = outcome()
    real = experiment.task.examples

    def wrong(*arguments, **options):
        examples = real(*arguments, **options)
        examples.label[examples.part == TEST] ^= 1
        return examples

    monkeypatch.setattr(experiment.task, "examples", wrong)
    # The ranks know no labels but that of the links, which are as many either way here.
    monkeypatch.setattr(snapshot_links, "_ranks", lambda score, examples: np.ones(3))
    turned, others = outcome()
    for key in ("val", "val_loss", "best_epoch", "epochs"):
        assert turned[key] == right[key], key
    same(weights, others)
    assert turned["test"] == pytest.approx(100 - right["test"]) and 1 < right["best_epoch"]


def embeddings(experiment, model, target):
    shown = experiment.task.shown_before(target)
    return snapshot_links._answer(model, find("dysat").prepare(shown, **experiment.recipe.graph))


def test_the_controls_switch_off_what_they_say(make):
    """Without temporal attention only the last step's links matter, without the structural one none do."""
    events, target = changing(), 5
    setting = f"task.first_target={target}"

    def shuffled(step):
        """The same nodes in the same step, linked otherwise."""
        here = [(u, v) for s, u, v in events if s == step]
        targets = np.roll([v for _, v in here], 1).tolist()
        return [e for e in events if e[0] != step] + [(step, u, v) for (u, _), v in zip(here, targets, strict=True)]

    whole, early, late = (make(sorted(e, key=lambda x: x[0]), setting) for e in (events, shuffled(2), shuffled(4)))
    assert torch.equal(whole.task.snapshots.present, early.task.snapshots.present)
    assert torch.equal(whole.task.snapshots.present, late.task.snapshots.present)
    changes = {}
    for variant in ("ours", "no_temporal", "no_structural", "uniform"):
        fit = whole.training(variant, 0)
        with whole.context(variant):
            before, *after = (embeddings(e, fit.model, target) for e in (whole, early, late))
        changes[variant] = [not np.allclose(before, x, atol=1e-6) for x in after]
        assert np.abs(before).max() > 0.01
    assert changes == {
        "ours": [True, True], "no_temporal": [False, True], "no_structural": [False, False], "uniform": [True, True]
    }  # fmt: skip


@pytest.mark.slow
def test_uniform_attention_is_uniform_while_it_trains(make):
    experiment = make(changing(), "task.first_target=5")
    fit = first_round(experiment, "uniform")
    with experiment.context("uniform"):
        (beta,) = fit.model.attention(*fit.inputs["train"])
    first = first_seen(changing())
    for node in range(11):
        steps = torch.arange(1, 6 - first[node]).float()
        expected = (1 / steps).unsqueeze(1).expand(-1, len(steps)).tril()
        assert torch.allclose(beta[node, 1, first[node] :, first[node] :], expected)
    assert not torch.allclose(fit.model.attention(*fit.inputs["train"])[0], beta)


SETTINGS = {
    "all nodes at once": (),
    "in batches": ("task.batch=7",),
    "links as the loss": ("task.loss=links",),
    "links in batches": ("task.loss=links", "task.batch=7"),
    "cumulative": ("graph.cumulative=true",),
}


@pytest.mark.parametrize("loss", ["walks", "links"])
@pytest.mark.parametrize(
    "setting", ["graph.cumulative=true", "graph.self_loops=false", "graph.weight='normalized'", "graph.both_ways=false"]
)
def test_what_the_model_sees_changes_nothing_of_what_is_asked(make, setting, loss):
    """Examples, counting and everything that is drawn for the loss are the task's own."""
    options = f"task.loss={loss}", "task.first_target=5", "task.batch=17", "task.self_links=true"
    plain, other = make(changing(), *options), make(changing(), *options, setting)
    assert plain.task.targets == other.task.targets and plain.task.sizes() == other.task.sizes()
    for target, scope in product(plain.task.targets, plain.task.scopes):
        same(vars(plain.task.examples(target, scope, 1)), vars(other.task.examples(target, scope, 1)))
    asked = []
    for experiment in (plain, other):
        fit = first_round(experiment)
        torch.manual_seed(3)
        asked.append([batch.more for batch in fit.task.batches(fit.model, fit.inputs["train"])])
        assert first_round(experiment, "counting").evaluate("test") == first_round(plain, "counting").evaluate("test")
    for one, two in zip(*asked, strict=True):
        same(one, two)
    inputs = [first_round(experiment).inputs["train"][0] for experiment in (plain, other)]
    ends = [sorted(zip(*(x.tolist() for x in found.graph.edges()), strict=True)) for found in inputs]
    weights = [found.graph.edata["weight"].sort().values.tolist() for found in inputs]
    assert (ends[0], weights[0]) != (ends[1], weights[1]), "and the model does see it"


def test_what_is_shown_is_what_happened_before_with_its_step(make):
    """Cut in each of the ways; events outside of all steps are in none."""
    events = changing()
    for cut, step in (
        ("column='step'", [s for s, *_ in events]),
        ("windows=5", [min(k * 5 // (len(events) - 1), 4) for k in range(len(events))]),
        ("width=53.0", [k // 53 for k in range(len(events))]),
        ("events=53", [k // 53 for k in range(len(events))]),
        ("boundaries=[10, 60, 200, 301]", [sum(k >= b for b in (10, 60, 200)) - 1 for k in range(302)]),
    ):
        task = make(events, "task.column=", f"task.{cut}").task
        assert len(task.snapshots) == max(step) + 1
        assert task.shown() is task.shown() is task.rounds()[-1].shown() and task.shown().steps == task.targets[-1]
        for target in task.targets:
            shown = task.shown_before(target)
            src, dst = (end.tolist() for end in shown.graph.edges(order="eid"))
            held = list(zip(shown.graph.edata["step"].tolist(), src, dst, strict=True))
            assert held == [(t, u, v) for t, (_, u, v) in zip(step, events, strict=False) if 0 <= t < target]
            assert (shown.graph.num_nodes(), shown.steps, shown.directed) == (NODES, target, False)
    directed = make(events, "task.both_ways=false").task
    assert directed.shown().directed and not directed.snapshots.both_ways


def test_batches_share_the_nodes_among_them(make, monkeypatch):
    fit = first_round(make(changing(), "task.batch=7"))
    chosen = []
    monkeypatch.setattr(fit.task, "_batch", lambda nodes: chosen.append(nodes) or Batch())
    for _ in range(2):
        chosen.clear()
        list(fit.task.batches(fit.model, fit.inputs["train"]))
        assert sorted(int(nodes.sum()) for nodes in chosen) == [3, 7, 7, 7, 7]
        assert (sum(nodes.int() for nodes in chosen) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_groups_are_learned(make, settings):
    experiment = make(events_task(blocks(), 41), "task.first_target=4", "train.epochs=29", *SETTINGS[settings])
    fit = experiment.training("ours", 0)
    steps = len(list(losses(fit.fit)))
    assert steps == (6 if "batch" in settings else 1)
    fit.step()
    first = fit.loss
    result = to_the_end(fit).finish()
    assert fit.loss < 0.9 * first
    # Some pairs without a link are in one group, too: knowing the groups, and nothing else, gives so much.
    examples = experiment.task.examples(4, "all", 0)
    here = examples.part == TEST
    best = 100 * roc_auc_score(examples.label[here], (examples.src % 3 == examples.dst % 3)[here])
    assert best - 9 < result["test"] < best + 4, (result["test"], best)
    assert result["more"]["new links, macro_auc"] > 70 and result["epochs"] <= 29
    counting = experiment.training("counting", 0)
    assert to_the_end(counting).finish()["test"] < result["test"] + 3


def test_links_at_random_are_worth_nothing(make):
    """The protocol gives nothing away: links at random, nobody met before."""
    random = np.random.default_rng(1)
    events = [(step, *random.permutation(41)[:2].tolist()) for step in range(3) for _ in range(97)]
    experiment = make(events_task(events, 41), "task.first_target=2", "train.epochs=7")
    found = [to_the_end(experiment.training("ours", seed)).finish()["test"] for seed in range(5)]
    assert 40 < np.mean(found) < 60


def test_the_next_links_are_what_the_loss_reads(make):
    events = [e for e in changing() if e[0] != 2]  # an empty step, from which nothing can be drawn
    experiment = make(events, "task.loss=links", "task.first_target=6")
    target = first_round(experiment).task
    links = list(zip(*(x.tolist() for x in target.links), strict=True))
    assert all(s // NODES == d // NODES for s, d in links)
    found = sorted((s // NODES, s % NODES, d % NODES) for s, d in links)
    assert found == sorted((t - 1, u, v) for t in (1, 4, 5) for u, v in known_links(events, t) if u != v)
    far = target.pool.negatives(target.links[0], 13)
    assert (far // NODES == (target.links[0] // NODES).unsqueeze(1)).all()


def silent(nodes=41, steps=6, active=13, seed=0):
    """[(step, u, v)]: all meet in the first two steps, and only `active` of them ever after."""
    random = np.random.default_rng(seed)
    ends = [random.permutation(nodes if step < 2 else active)[:2] for step in range(steps) for _ in range(83)]
    return [(k // 83, int(u), int(v)) for k, (u, v) in enumerate(ends)]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_loss_speaks_of_silent_nodes(make, settings):
    """Those without a link in a step are told from others, too: they are most of what is scored."""
    events = [e for e in silent(NODES, 7, 11) if e[0] != 3]  # a step without links teaches nothing
    experiment = make(events, "task.first_target=6", *SETTINGS[settings])
    reached = {}
    for noise in ("known", "linked"):
        experiment.task.noise = noise
        fit = first_round(experiment)
        total, forward = torch.zeros(6, NODES), fit.model.forward

        def watched(*inputs, total=total, forward=forward):
            out = forward(*inputs)
            out.register_hook(lambda grad: total.add_(grad.abs().sum(-1).t()) is None or None)
            return out

        fit.model.forward = watched
        for _ in range(20):
            for loss in losses(fit):
                loss.backward()
        reached[noise] = total > 0
    first, known = first_seen(events), torch.zeros(6, NODES, dtype=torch.bool)
    learned = [0, 1, 2, 4, 5]
    if experiment.task.kind_of_loss == "links":
        learned = [0, 1, 4]  # those that a step with links follows
    for t in learned:
        known[t, [v for v, step in first.items() if step <= t]] = True
    assert torch.equal(reached["known"], known)
    assert (reached["linked"] & ~known).sum() == 0
    # Also where the model sees all links so far: what is to be alike are those of the step.
    assert not reached["linked"][4, 11:].any()


def test_silent_nodes_are_told_from_active_ones(make):
    settings = "task.first_target=5", "train.epochs=60", "train.lr=0.02", "model.temporal_drop=0.0"
    found = {}
    for noise in ("known", "linked"):
        experiment = make(events_task(silent(), 41), *settings, f"task.noise={noise}")
        fit = first_round(experiment)
        for _ in range(60):
            fit.step()
        rows = embeddings(experiment, fit.model, 5)
        product = rows @ rows.T
        np.fill_diagonal(product, np.nan)
        active = np.arange(41) < 13
        found[noise] = [
            np.nanmean(product[a][:, b]) for a, b in ((active, active), (active, ~active), (~active, ~active))
        ]
    gap = {noise: both - max(others) for noise, (both, *others) in found.items()}
    assert gap["known"] > 1 and gap["linked"] < 0.3


def typed_task(steps=5):
    """Users who rate films low or high; more of both with every step."""
    random, rated = np.random.default_rng(0), {}
    for level in ("low", "high"):
        src, dst, time = [], [], []
        for step in range(steps):
            src += random.integers(0, 11 + 2 * step, 43).tolist()
            dst += random.integers(0, 7 + step, 43).tolist()
            time += [10 * step + random.random() for _ in range(43)]
        rated["user", level, "film"] = np.array(src), np.array(dst), np.array(time)
    sizes = {"film": 11, "user": 19}
    graph = from_events(rated, sizes)
    ids = {ntype: tuple(range(count)) for ntype, count in sizes.items()}
    return EventData(name="t", graph=graph, feat={"film": None, "user": None}, ids=ids)


@pytest.fixture
def make_typed(make, tmp_path):
    """Typed snapshots are cut by width: the recipe's column goes."""
    text = (tmp_path / "r.toml").read_text().replace('column = "step"', "width = 10.0")
    text = text.replace('system = "dysat"', 'system = "dysat"\nstructural = "rgat"\nembed = 7')
    (tmp_path / "r.toml").write_text(text)
    return lambda *settings: make(typed_task(), *settings)


def test_typed_pairs_are_of_the_right_types(make_typed):
    experiment = make_typed("task.unseen_nodes=true")
    start = experiment.task.pairs.offset
    assert len(experiment.task.snapshots) == 5 and sorted(start.values()) in ([0, 11], [0, 19])
    task = typed_task()
    rated = {}  # by either level
    for etype in task.graph.canonical_etypes:
        src, dst = (end.tolist() for end in task.graph.edges(etype=etype, order="eid"))
        for u, f, t in zip(src, dst, task.graph.edges[etype].data["time"].tolist(), strict=True):
            rated.setdefault(int((t - float(experiment.task.snapshots.boundaries[0])) // 10), set()).add((u, f))
    for target in experiment.task.targets:
        before = set().union(*(rated[s] for s in range(target)))
        users, films = ({pair[k] for pair in before} for k in (0, 1))
        examples = experiment.task.examples(target, "strict", 0)
        found = [{(u - start["user"], f - start["film"]) for u, f in pairs(examples, label)} for label in (0, 1)]
        assert found[1] <= {(u, f) for u, f in rated[target] if u in users and f in films}
        assert not found[0] & rated[target] and len(found[0]) == len(found[1])
        assert all(u in users and f in films for u, f in found[0])
        for (user, _), rivals in zip(links_tested(examples), examples.rivals.tolist(), strict=True):
            rivals = {f - start["film"] for f in rivals if f >= 0}
            assert rivals <= {f for f in films if (user - start["user"], f) not in rated[target]}


@pytest.mark.parametrize("loss", ["walks", "links"])
def test_typed_snapshots_are_trained_on(make_typed, loss):
    experiment = make_typed("task.first_target=3", f"task.loss={loss}", "task.batch=17")
    for variant in ("ours", "no_temporal", "uniform", "counting"):
        with experiment.context(variant):
            result = to_the_end(experiment.training(variant, 0)).finish()
        assert 0 < result["test"] < 100
    task, model, inputs = experiment.last(0, *experiment.training("ours", 0, first=-1).weights())
    assert set(task.scores(model, inputs, "macro_auc")) == {"train", "val", "test"}


def test_an_ablation_that_cannot_be_built_is_told_before_training(make_typed, tmp_path, monkeypatch):
    make_typed("train.controls=['no_temporal']").check_ablations()
    monkeypatch.setattr(run, "_fit", lambda *_: pytest.fail("trained"))
    sentence = (
        "train.controls: expected ablations that dysat can be built with, got 'no_structural': model.structural: "
        "expected 'rgat' or 'han' on typed snapshots, got 'none'"
    )
    with pytest.raises(RecipeError, match=sentence):
        run.train(tmp_path / "r.toml", out=tmp_path / "out", overrides=["train.controls=['no_structural']"])


def test_steps_further_ahead(make):
    """One training on all but three steps; who was not known then is in no example."""
    events, ahead = changing(), 3
    experiment = make(events, f"task.ahead={ahead}", "task.first_target=3")
    fit = experiment.training("counting", 0)
    more = to_the_end(fit).finish()["more"]
    assert [name for name in more if "ahead" in name] == [
        "1 step ahead, auc", "2 steps ahead, auc", "3 steps ahead, auc"
    ]  # fmt: skip
    known_at = STEPS - ahead
    for step in range(known_at, STEPS):
        examples = experiment.task.examples(step, "all", 0, known_at=known_at)
        assert set(pairs(examples, 1)) == {(u, v) for u, v in known_links(events, step, known_at) if u != v}
        seen = first_seen(events)
        assert all(max(seen[u], seen[v]) < known_at for u, v in pairs(examples, 0))
        place = in_words(plain_counting(events, known_at), examples.src, examples.dst)
        here = examples.part == TEST
        name = f"{step - known_at + 1} step{'s' if step > known_at else ''} ahead, auc"
        assert more[name] == pytest.approx(100 * roc_auc_score(examples.label[here], place[here]))
    ours = experiment.training("ours", 0)
    assert [name for name in to_the_end(ours).finish()["more"] if "ahead" in name] == [n for n in more if "ahead" in n]


def test_scores_are_those_of_the_last_targets_model(make):
    experiment = make(blocks(), "task.first_target=3", "train.epochs=9")
    fit = experiment.training("ours", 0)
    result = to_the_end(fit).finish()
    task, model, inputs = experiment.last(0, *fit.weights())
    scores, last = task.scores(model, inputs, "macro_auc"), kept(fit)
    assert scores["test"][0] == pytest.approx(100 * roc_auc_score(last["all.4.label"], last["all.4.score"]))
    assert scores["val"][0] == pytest.approx(fit.done[-1]["val"]) and result["val"] != pytest.approx(scores["val"][0])
    table = embeddings(experiment, fit.model, 4)
    examples = experiment.task.examples(4, "all", 0)
    both = torch.tensor(table[examples.src] * table[examples.dst])
    here = examples.part == FIT
    # A logistic regression with scikit-learn's default penalty, by hand.
    weight = torch.zeros(both.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    label = torch.tensor(examples.label).double()
    optimizer = torch.optim.LBFGS([weight], max_iter=1000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = both[here] @ weight[:-1] + weight[-1]
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, label[here], reduction="sum")
        loss = fit + weight.pow(2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    logits = (both @ weight[:-1]).detach().numpy()
    tested = examples.part == TEST
    assert scores["test"][0] == pytest.approx(100 * roc_auc_score(examples.label[tested], logits[tested]), abs=0.5)


def through_a_file(fit, path):
    tensors, numbers = fit.state()
    checkpoint.save_tensors(path, tensors, {"numbers": numbers})
    tensors, about = checkpoint.load_tensors(path)
    return tensors, about["numbers"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ours", "no_temporal", "counting"])
def test_a_state_at_any_epoch_leads_to_the_same_end(make, tmp_path, variant):
    """In a target, between two, and behind the last."""
    experiment = make(changing(), "task.first_target=4", "task.batch=17")
    whole = experiment.training(variant, 1)
    states, more = [], True
    while more:
        more = whole.step()
        states.append((more, *through_a_file(whole, tmp_path / "state")))
    expected = no_times(whole.finish())
    assert len(states) == (3 if variant == "counting" else 9), "a step for each target, or an epoch"
    for follows, tensors, numbers in states:
        torch.manual_seed(99)
        again = experiment.training(variant, 1)
        torch.rand(3)
        again.restore(tensors, numbers)
        if follows:
            to_the_end(again)
        result = again.finish()
        assert json.dumps(no_times(result)) == json.dumps(expected) and result["seconds"] > 0
        if variant != "counting":
            same(again.model.state_dict(), whole.model.state_dict())
            assert again.epoch == whole.epoch


def test_a_state_that_no_run_can_have_saved_is_refused(make):
    """In the third target: what is done, what it scored, and the training itself."""
    experiment = make(changing(), "task.first_target=4")
    fit = experiment.training("ours", 1)
    while len(fit.done) < 2 or fit.fit.epoch < 1:
        fit.step()
    tensors, numbers = fit.state()
    done = numbers["done"]
    label, score, rank = (next(k for k in tensors if k.startswith("round.1.all") and k.endswith(e)) for e in
                          (".label", ".score", ".rank"))  # fmt: skip
    tries = [
        (tensors, {**numbers, "done": done[:1]}),
        (tensors, {**numbers, "done": [*done, *done, *done, *done]}),
        (tensors, {**numbers, "done": None}),
        (tensors, {**numbers, "done": [done[0], None]}),
        (tensors, {**numbers, "done": [done[0], {**done[1], "val": float("nan")}]}),
        (tensors, {**numbers, "done": [done[0], {**done[1], "epochs": "3"}]}),
        (tensors, {**numbers, "done": [done[0], {**done[1], "best_epoch": -1}]}),
        (tensors, {**numbers, "stages": None}),
        (tensors, {**numbers, "stages": [{"epochs": 1, "seconds": 1.0}]}),
        (tensors, {**numbers, "before": 1}),
        (tensors, {**numbers, "fit": None}),
        (tensors, {**numbers, "fit": {**numbers["fit"], "epoch": 99}}),
        (tensors, {**numbers, "more": 1}),
        ({**tensors, label: 1 - tensors[label]}, numbers),
        ({**tensors, score: tensors[score].float()}, numbers),
        ({**tensors, score: tensors[score][:-1]}, numbers),
        ({**tensors, score: tensors[score] * torch.nan}, numbers),
        ({**tensors, rank: tensors[rank] * 0}, numbers),
        ({**tensors, "round.1.more": torch.ones(2)}, numbers),
        ({**tensors, "more": torch.ones(2)}, numbers),
        ({k: v for k, v in tensors.items() if k != score}, numbers),
        ({k: v for k, v in tensors.items() if k != "fit.generator"}, numbers),
        ({**tensors, "fit.generator": tensors["fit.generator"][:-1]}, numbers),
        ({}, numbers),
        (tensors, {}),
    ]
    for number, changed in enumerate(tries):
        again = experiment.training("ours", 1)
        with pytest.raises(Unfit, match="expected .*, got"):
            again.restore(*changed)
            pytest.fail(str(number))
    again = experiment.training("ours", 1)
    again.restore(tensors, numbers)
    counting = experiment.training("counting", 1)
    with pytest.raises(Unfit):
        counting.restore(tensors, numbers)


class Killed(BaseException):
    """No `except Exception` may stop it."""


@pytest.mark.slow
def test_a_run_killed_at_any_write_ends_the_same(tmp_path, monkeypatch):
    """Through the program itself: every save of every variant."""
    lines = [f"{s},{u},{v},{k}" for k, (s, u, v) in enumerate(changing(steps=4))]
    (tmp_path / "mails.csv").write_text("\n".join(["snapshot,u,v,unix_time", *lines]))
    text = RECIPE.replace('name = "enron"', f'name = "enron"\npath = "{tmp_path / "mails.csv"}"')
    (tmp_path / "r.toml").write_text(text.replace("epochs = 3", 'epochs = 2\ncontrols = ["counting", "uniform"]'))
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    real, count = checkpoint.write_bytes, [0]

    def go(out, resume=False):
        overrides = ["task.first_target=2"]
        return train(tmp_path / "r.toml", out=tmp_path / out, resume=resume, overrides=overrides, progress=False)

    def outcome(out):
        metrics = json.loads((tmp_path / out / "metrics.json").read_text())
        for part in (metrics, *metrics["controls"].values()):
            part.pop("seconds")
        metrics.pop("total_seconds")
        return metrics, (tmp_path / out / "model.safetensors").read_bytes()

    def counted(path, content):
        count[0] += 1
        real(path, content)
        if count[0] == stop:
            raise Killed

    stop = None
    monkeypatch.setattr(checkpoint, "write_bytes", counted)
    go("whole")
    total, expected = count[0], outcome("whole")
    # Recipe; every epoch of two targets, once for each of counting's, weights, three results, metrics.
    assert total == 1 + 4 + 4 + 2 + 1 + 3 + 1
    assert expected[0]["controls"]["counting"]["more"].keys() == expected[0]["more"].keys()
    for stop in range(1, total + 1):
        count[0] = 0
        with pytest.raises(Killed):
            go(str(stop))
        count[0] = -(10**9)
        go(str(stop), resume=True)
        assert outcome(str(stop)) == expected, stop
    assert "whole" in os.listdir(tmp_path)


WRONG = {
    "task.first_target=0": "task.first_target: expected a step from 1 to 6, got 0",
    "task.first_target=7": "task.first_target: expected a step from 1 to 6, got 7",
    "task.batch=0": "task.batch: expected 1 or more, got 0",
    "task.ahead=0": "task.ahead: expected 1 or more, got 0",
    "task.ahead=7": "task.ahead: expected 1, or 1 to 6 with links enough, got 7",
    "task.negatives=0": "task.negatives: expected 1 or more, got 0",
    "task.positives=-1": "task.positives: expected 1 or more, got -1",
    "task.num_walks=0": "task.num_walks: expected 1 or more, got 0",
    "task.walk_length=0": "task.walk_length: expected 1 or more, got 0",
    "task.window=0": "task.window: expected 1 or more, got 0",
    "task.loss=mse": "task.loss: expected 'walks' or 'links', got 'mse'",
    "task.loss=links": "task.first_target: expected 2 or more with loss = 'links', got 1",
    "task.typo=1": "task: expected only the keys boundaries, .*, first_target, .*, got 'typo'",
    "task.name=pairs": "task.name: expected one of graphs, links, nodes, .*, snapshot_links, .*, got 'pairs'",
    "train.metric=accuracy": "train.metric: expected one of macro_auc, .*, got 'accuracy'",
    "train.controls=['majority']": "train.controls: expected names among .*'counting'.*, got 'majority'",
    "task.column=": "task: expected one of task.boundaries, task.windows, .*, as in task.windows = 5, got none",
    "task.windows=3": "snapshots: expected one of boundaries, .*, got windows, column",
    "graph.typo=1": "graph: expected only the keys cumulative, self_loops, both_ways, weight, got 'typo'",
    "task.column=week": r"snapshots: expected edata\['week'\]",
    "model.heads=[]": "model.heads",
}


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_settings(make, setting):
    with pytest.raises(HgatError, match=WRONG[setting]) as error:
        made = make(changing(), setting)
        made.model(made.task, made.inputs(made.task)["train"])
    assert "\n" not in str(error.value)


def test_too_little_to_learn_from(make):
    with pytest.raises(RecipeError, match="task: expected two snapshots or more, to learn from and to predict, got 1"):
        make(changing(steps=7)[:53])
    events = [(step, v, v + 1) for step in range(3) for v in range(FEWEST - 1)]
    with pytest.raises(
        RecipeError, match=f"first_target: expected a step from 1 on with {FEWEST} links or more among nod"
    ):
        make(events)


def test_refit_is_refused(make):
    """Before anything is trained."""
    with pytest.raises(RecipeError, match="train.refit: expected false with snapshot_links, got true"):
        make(changing(), "train.refit=true")


PAPER = RECIPE[: RECIPE.index("[model]")]
OTHERS = {
    ("gat", "snapshot_links", "macro_auc"): "task.name: expected nodes or links for gat, got 'snapshot_links'",
    ("tgat", "snapshot_links", "macro_auc"): "task.name: expected stream_links for tgat, got 'snapshot_links'",
    ("dysat", "nodes", "accuracy"): "task.name: expected snapshot_links for dysat, got 'nodes'",
    ("dysat", "stream_links", "auc"): "task.name: expected snapshot_links for dysat, got 'stream_links'",
}


@pytest.mark.parametrize("system, task, metric", OTHERS)
def test_a_system_that_does_not_solve_the_task(tmp_path, system, task, metric):
    """Is refused before any file is read."""
    text = f"{PAPER}[model]\nsystem = {system!r}\n[task]\nname = {task!r}\n[train]\n"
    (tmp_path / "r.toml").write_text(f"{text}metric = {metric!r}\nepochs = 3\nlr = 0.01\n")
    with pytest.raises(RecipeError, match=OTHERS[system, task, metric]):
        read(tmp_path / "r.toml")


def test_losses_are_finite_or_say_so(make):
    fit = make(changing(), "train.lr=1e30", "train.epochs=5").training("ours", 0)
    with pytest.raises(HgatError, match="a smaller train.lr may help"):
        to_the_end(fit)


def test_the_recipes_are_one_recipe():
    """What was chosen on several streams is one choice: the recipes differ by their data alone."""
    enron, movielens = read("dysat-enron"), read("dysat-movielens")
    of_the_data = {
        "model": {"structural", "embed", "heads", "temporal_heads"},  # typed or not, and narrow where there is more
        "task": {"column", "width", "first_target", "self_links", "unseen_nodes", "ahead"},
    }
    for section, free in of_the_data.items():
        a, b = ({k: v for k, v in getattr(recipe, section).items() if k not in free} for recipe in (enron, movielens))
        assert a == b
    a, b = (dataclasses.asdict(r.train) | {"seeds": 1, "controls": []} for r in (enron, movielens))
    assert a == b
