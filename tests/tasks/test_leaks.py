"""Nothing that is held out is shown or trained on: what is changed there changes no bit of what is learned.

Each check is run, too, on a task or a system that leaks, and finds it out.
"""

import dataclasses
import inspect
from itertools import product

import dgl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import heights, parties

import hgat.data
from hgat import models, tasks
from hgat.data import EventData, NodeData
from hgat.errors import HgatError
from hgat.graph import from_events
from hgat.models import System
from hgat.tasks import links, snapshot_links
from hgat.tasks.nodes import Nodes
from hgat.tasks.numbers import Numbers
from hgat.tasks.snapshot_links import SnapshotLinks
from hgat.tasks.stream_links import StreamLinks
from hgat.train import run
from hgat.train.fit import Fit
from hgat.train.recipe import Recipe, Train
from zoo import homogeneous, typed_graph


def solving(task):
    return [name for name in models.available() if task in models.find(name).solves]


@pytest.fixture
def make(monkeypatch):
    """The Experiment of a system on data; the system by name, or a class that has none."""

    def experiment(data, system, task, *, graph=None, model=None, **train):
        settings = {"epochs": 3, "lr": 0.01, "stop": "last", "metric": tasks.find(task["name"]).metrics[0], **train}
        if not isinstance(system, str):
            monkeypatch.setattr(models, "find", lambda name: system)
        monkeypatch.setattr(hgat.data, "load", lambda name, root: data)
        own = {"system": system, **(model or {})}
        sections = {"data": {"name": "t"}, "task": task, "graph": graph or {}, "model": own}
        return run.Experiment(Recipe("t", "t", None, **sections, train=Train(**settings), expect=None))

    return experiment


def to_the_end(training):
    while training.step():
        pass
    return training


def same(one, other, where=""):
    """Bit for bit, whatever holds the tensors."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}[{place}]")
    elif hasattr(one, "canonical_etypes"):
        assert one.canonical_etypes == other.canonical_etypes, where
        for etype in one.canonical_etypes:
            same(one.edges(etype=etype, order="eid"), other.edges(etype=etype, order="eid"), f"{where}{etype}")
            same(dict(one.edges[etype].data), dict(other.edges[etype].data), f"{where}{etype}")
        same([one.num_nodes(t) for t in one.ntypes], [other.num_nodes(t) for t in one.ntypes], where)
    elif hasattr(one, "__dict__"):
        assert type(one) is type(other), where
        # What is computed once and kept is compared through what it is computed from.
        fields = getattr(one, "__dataclass_fields__", vars(one))
        same({key: getattr(one, key) for key in fields}, {key: getattr(other, key) for key in fields}, where)
    else:
        assert one == other, where


# Snapshots

NODES, STEPS, TARGET = 23, 7, 5


def changing(seed=0):
    """[(step, u, v, time)]: new nodes in every step, those of the target and behind it among them."""
    random, events = np.random.default_rng(seed), []
    for step in range(STEPS):
        here = 11 + (NODES - 11) * step // (STEPS - 1)
        events += [(step, *random.integers(0, here, 2).tolist(), 10.0 * step + k / 10) for k in range(47)]
    return events


def later_changed(events, how):
    """The events with those at and behind the target step changed."""
    random, found = np.random.default_rng(5), []
    for step, u, v, time in events:
        if step < TARGET:
            found.append((step, u, v, time))
        elif how == "other ends":
            found.append((step, *random.integers(0, NODES, 2).tolist(), time))
        elif how == "other times":
            found.append((step, u, v, float(random.uniform(10 * TARGET, 10 * STEPS))))
    return found


def snapshots_of(events, feat=False):
    step, src, dst, time = (np.array(column) for column in zip(*events, strict=True))
    order = np.argsort(time, kind="stable")
    graph = from_events((src, dst, time), num_nodes=NODES)
    graph.edata["step"] = torch.from_numpy(step[order])
    rows = torch.randn(NODES, 3, generator=torch.Generator().manual_seed(0)) if feat else None
    return EventData(name="t", graph=graph, feat={"_N": rows}, ids={"_N": tuple(range(NODES))})


CUTS = {"column": {"column": "step"}, "boundaries": {"boundaries": [10.0 * k for k in range(STEPS + 1)]}}
LOSSES = {
    "walks": {"num_walks": 3, "walk_length": 5, "window": 2, "positives": 3, "negatives": 3},
    "links in batches": {"loss": "links", "num_walks": 3, "negatives": 3, "batch": 7},
    "linked": {"noise": "linked", "num_walks": 3, "walk_length": 5, "positives": 3, "negatives": 3, "batch": 7},
}
SMALL = {"dysat": {"heads": [2], "hidden": 3, "temporal_heads": [1]}}  # a model is small by default but for these


def round_of(make, events, system, cut="column", loss="walks", **task):
    """(the Experiment, the round of the target, which may itself have no event)."""
    settings = {"name": "snapshot_links", "first_target": TARGET - 1, **CUTS[cut], **LOSSES[loss], **task}
    experiment = make(snapshots_of(events), system, settings, model=SMALL.get(system))
    task = experiment.task.for_seed(1)
    return experiment, snapshot_links._Round(task, TARGET)


def asked(target, model, inputs, epochs=2):
    """All that the loss is given in some epochs."""
    torch.manual_seed(target.first_state)
    return [[vars(batch) for batch in target.batches(model, inputs)] for _ in range(epochs)]


CHANGES = ("other ends", "other times", "none")


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cut", CUTS)
def test_a_round_is_given_nothing_of_its_target_or_behind_it(make, cut, loss, how):
    """What prepare and forward are given, and the pairs that the loss is about."""
    events = changing()
    for system in solving("snapshot_links"):
        (one, target), (other, again) = (
            round_of(make, e, system, cut, loss) for e in (events, later_changed(events, how))
        )
        assert target.shown().graph.num_edges() == sum(step < TARGET for step, *_ in events)
        same(target.shown(), again.shown(), "shown")
        inputs = [experiment.inputs(t) for experiment, t in ((one, target), (other, again))]
        same(*inputs, "inputs")
        batches = [asked(t, None, found["train"]) for t, found in zip((target, again), inputs, strict=True)]
        assert any(len(value) for value in batches[0][0][0]["more"].values())
        same(*batches, "batches")


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("system", [*solving("snapshot_links"), "counting"])
def test_a_round_learns_nothing_of_its_target_or_behind_it(make, system, how):
    """The weights of every epoch, and the answers; the scores of the target's own examples alone may differ."""
    events, found, scores = changing(), [], []
    for changed in (events, later_changed(events, how)):
        experiment, target = round_of(make, changed, "dysat" if system == "counting" else system)
        if how == "none":  # there is nothing to score
            target.evaluate = lambda *_: (50.0, 1.0)
        variant = "counting" if system == "counting" else "ours"
        inputs = experiment.inputs(target, variant)
        torch.manual_seed(target.first_state)
        fit = Fit(experiment.model(target, inputs["train"], variant), target, inputs, experiment.recipe.train)
        epochs = []
        while True:
            more = fit.step()
            epochs.append((fit.loss, {key: value.clone() for key, value in fit.model.state_dict().items()}))
            scores.append(fit.val_metric)
            if not more:
                break
        answer = snapshot_links._answer(fit.model, inputs["test"])
        if callable(answer):
            every = np.array(list(product(range(NODES), range(NODES))))
            answer = answer(every[:, 0], every[:, 1])
        found.append((epochs, answer))
    same(*found)
    assert len(found[0][0]) == (1 if system == "counting" else 3)
    if how == "other ends":
        assert scores[: len(scores) // 2] != scores[len(scores) // 2 :], "the change is seen where it is scored"


def test_a_round_that_is_shown_its_target_is_found_out(make, monkeypatch):
    real = SnapshotLinks.shown_before
    monkeypatch.setattr(SnapshotLinks, "shown_before", lambda self, target: real(self, min(target + 1, STEPS)))
    with pytest.raises(AssertionError, match="shown"):
        events = changing()
        same(*(round_of(make, e, "dysat")[1].shown() for e in (events, later_changed(events, "other ends"))), "shown")


# Events in order of time


def stream(nodes=29, events=401, seed=0):
    """[(u, v, time)]: several at one time, nodes that come in the end, every pair at most once in either order."""
    random, found, met = np.random.default_rng(seed), [], set()
    while len(found) < events:
        here = 19 + (nodes - 19) * len(found) // events
        u, v = random.integers(0, here, 2).tolist()
        if u != v and (u, v) not in met:
            met |= {(u, v)}
            found.append((u, v, len(found) // 3))
    return found


def events_of(found, nodes=29):
    src, dst, time = (np.array(column) for column in zip(*found, strict=True))
    graph = from_events((src, dst, time), num_nodes=nodes)
    return EventData(name="t", graph=graph, feat={"_N": None}, ids={"_N": tuple(range(nodes))})


def of_graph(graph):
    src, dst = (end.tolist() for end in graph.edges(order="eid"))
    return list(zip(src, dst, graph.edata["time"].tolist(), strict=True))


@pytest.mark.parametrize("new_nodes", [0.0, 0.2])
def test_training_is_shown_no_event_of_validation_or_test_or_of_a_hidden_node(new_nodes):
    found = stream()
    task = StreamLinks(events_of(found), new_nodes=new_nodes)
    hidden = set(task.is_new.nonzero().flatten().tolist())
    assert len(hidden) == int(new_nodes * 29)
    later = task.events.time[task.masks["val"]].min()
    ended = task.events.time[task.masks["test"]].min()
    shown = of_graph(task.shown().graph)
    assert sorted(shown) == sorted((u, v, t) for u, v, t in found if t < later and not hidden & {u, v})
    assert 0.4 * len(found) < len(shown) < 0.8 * len(found)
    # Behind training what is earlier may be read, and of the end of validation nothing later is there.
    assert sorted(of_graph(task.shown_at("val").graph)) == sorted(e for e in found if e[2] < ended)
    (events, targets), train = task.trained, set(shown)
    assert set(zip(events.src.tolist(), events.dst.tolist(), events.time.tolist(), strict=True)) == train
    assert set(targets.tolist()) == {v for _, v, _ in shown}
    torch.manual_seed(0)
    for batch in task.batches(None, ()):
        src, dst, time = (x.tolist() for x in batch.query)
        half = len(src) // 2
        assert set(zip(src[:half], dst[:half], time[:half], strict=True)) <= train
        assert not hidden & {*src, *dst}


class Remembers(System):
    """Takes every pair that it is shown before training for one that meets."""

    solves = ("stream_links",)

    def __init__(self, pairs):
        super().__init__()
        self.register_buffer("pairs", pairs)
        self.scale = torch.nn.Parameter(torch.ones(1))

    @staticmethod
    def prepare(shown):
        src, dst = shown.graph.edges(order="eid")
        return (torch.unique(src * shown.graph.num_nodes() + dst), shown.graph.num_nodes())

    @classmethod
    def build(cls, shown, inputs):
        return cls(inputs[0])

    def forward(self, pairs, nodes, src, dst, times):
        return self.scale * torch.isin(src * nodes + dst, self.pairs).float()


def test_a_system_that_remembers_what_it_is_shown_gains_nothing(make, monkeypatch):
    """No pair meets twice: those it knows are not among the events of the test."""
    task = {"name": "stream_links", "new_nodes": 0.0}

    def outcome():
        data = events_of(stream(61), 61)
        training = to_the_end(make(data, Remembers, task, metric="auc").training("ours", 0))
        return training.finish()["more"]["transductive, random negatives, auc"], training.loss

    tested, trained = outcome()
    assert tested <= 50.0 and trained < 2 * np.log(2)
    monkeypatch.setattr(StreamLinks, "shown", lambda self: self._facts["test"])
    assert outcome()[0] > 90.0, "and it does gain where the task leaks"


class Peeks(Remembers):
    """Reads all that there is when it is asked, at whatever time."""

    def forward(self, pairs, nodes, src, dst, times):
        return self.scale * torch.isin(src * nodes + dst, pairs).float()


MOMENT = 90


def answers(make, system, variant="ours"):
    """What a system says at MOMENT and before of every pair, from three streams with one past; and a while later."""
    random, found = np.random.default_rng(3), stream()
    others = [
        found,
        [(*(random.permutation(29)[:2].tolist() if t >= MOMENT else (u, v)), t) for u, v, t in found],
        [(u, v, t if t < MOMENT else t + 17) for u, v, t in found],
        [(u, v, t) for u, v, t in found if t < MOMENT],
    ]
    src, dst = (torch.tensor(x) for x in zip(*product(range(29), range(29)), strict=True))
    model, now, later = None, [], []
    for events in others:
        experiment = make(events_of(events), system, {"name": "stream_links", "new_nodes": 0.0})
        inputs = experiment.inputs(experiment.task, variant)
        if model is None:
            torch.manual_seed(0)
            model = experiment.model(experiment.task, inputs["train"], variant).eval()
        for times, out in (((MOMENT - 3, MOMENT), now), ((MOMENT + 30,), later)):
            for time in times:
                torch.manual_seed(0)
                with torch.no_grad():
                    out.append(model(*inputs["test"], src, dst, torch.full_like(src, time)))
    return [now[k : k + 2] for k in range(0, len(now), 2)], later


@pytest.mark.parametrize("system", solving("stream_links"))
def test_no_answer_changes_with_what_happens_later(make, system):
    now, later = answers(make, system)
    for other in now[1:]:
        same(now[0], other)
    assert not torch.allclose(later[0], later[1], atol=1e-4)


def test_no_order_of_counting_changes_with_what_happens_later(make):
    """How ties are scaled depends on the whole stream, and the order of the pairs does not."""
    now, later = answers(make, "tgat", "counting")

    def order(answers):
        return [torch.unique(answer, return_inverse=True)[1] for answer in answers]

    for other in now[1:]:
        same(order(now[0]), order(other))
        same([answer.floor() for answer in now[0]], [answer.floor() for answer in other])
    assert not torch.equal(*order(later[:2]))


def test_a_system_that_looks_ahead_is_found_out(make):
    now, _ = answers(make, Peeks)
    assert [all(map(torch.equal, now[0], other)) for other in now[1:]] == [False, True, False]


# Nodes

CLASSES = 3
# What [graph] offers to a system that asks for it.
OFFERED = {"paths": {"follows": ["follows"], "co-liked": ["liked by", "likes"]}}


def node_data(graph, target, multilabel=False, held_out=None, splits=1, seed=0):
    """Labels at random; held_out: all labels outside the training nodes are drawn anew by this seed."""
    random = torch.Generator().manual_seed(seed)
    nodes, found = graph.num_nodes(target), []
    for _ in range(splits):
        order, third = torch.randperm(nodes, generator=random), nodes // 3
        found.append({"train": order[:third], "val": order[third : 2 * third], "test": order[2 * third : -1]})
    feat = {t: torch.randn(graph.num_nodes(t), 7, generator=random) for t in graph.ntypes}

    def labels(random):
        if multilabel:
            return (torch.rand(nodes, CLASSES, generator=random) < 0.5).float()
        return torch.randint(0, CLASSES, (nodes,), generator=random)

    label = labels(random)
    if held_out is not None:
        own = torch.zeros(nodes, dtype=torch.bool)
        own[found[0]["train"]] = True
        other = 1 - label if multilabel else (label + 1) % CLASSES
        label = torch.where(own.view(-1, *[1] * (label.dim() - 1)), label, other)
    options = {"splits": tuple(found)} if splits > 1 else found[0]
    return NodeData("t", graph, feat, target, label, num_classes=CLASSES, multilabel=multilabel, **options)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("multilabel", [False, True])
def test_labels_that_are_held_out_are_not_shown(multilabel, splits):
    data = node_data(homogeneous(), "_N", multilabel, splits=splits)
    task = Nodes(data)
    plans = [(task, data.split)]
    for seed in range(5):
        split = data.splits[seed % splits] if splits > 1 else data.split
        plans.append((task.for_seed(seed), split))
        both = torch.cat([split["train"], split["val"]])
        plans.append((task.for_seed(seed).refitted(), {**split, "train": both}))
    for own, split in plans:
        shown, known = own.shown(), torch.zeros(data.graph.num_nodes(), dtype=torch.bool)
        known[split["train"]] = True
        assert torch.equal(shown.train, split["train"]) and shown is own.shown()
        assert torch.equal(shown.label[known], data.label[known])
        hidden = shown.label[~known]
        assert len(hidden) >= 7 and (hidden.isnan().all() if multilabel else (hidden == -1).all())
        for part in ("val", "test"):
            assert own.shown_at(part) is shown
        (batch,) = own.batches(None, ())
        assert torch.equal(batch.rows, split["train"]) and torch.equal(batch.label, data.label[split["train"]])
        assert not {"label", *data.split} & {*shown.graph.ndata, *shown.graph.edata, *shown.feat}


class Copies(System):
    """Reads the labels that it is shown as features of the nodes."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(CLASSES, CLASSES)

    @staticmethod
    def prepare(shown):
        if shown.multilabel:
            return (shown.label.nan_to_num(0.5) * 2 - 1,)
        return (F.one_hot(shown.label + 1, CLASSES + 1)[:, 1:].float(),)

    @classmethod
    def build(cls, shown, inputs):
        return cls()

    def forward(self, feat):
        return self.linear(feat)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_system_that_copies_the_labels_knows_none_of_the_test(make, monkeypatch, multilabel, splits):
    nodes = torch.arange(300)
    data = node_data(dgl.graph((nodes, nodes)), "_N", multilabel, splits=splits)
    metric = "micro_f1" if multilabel else "accuracy"

    def outcome(seed):
        experiment = make(data, Copies, {"name": "nodes"}, epochs=60, lr=0.1, metric=metric)
        training = to_the_end(experiment.training("ours", seed))
        task = experiment.task.for_seed(seed)
        with torch.no_grad():
            logits = training.model(*training.inputs["test"])[task.data.test]
        told = task.scores(training.model, training.inputs, metric)
        return told["train"][0], told["test"][0], logits

    for seed in range(splits):
        train, test, logits = outcome(seed)
        assert train == 100.0 and test < (70.0 if multilabel else 50.0)
        assert (logits == logits[0]).all(), "one answer for all of them: it is chance"
    real = Nodes.with_training_nodes

    def leaking(self, train):
        found = real(self, train)
        found._shown = dataclasses.replace(found._shown, label=self.data.label)
        return found

    monkeypatch.setattr(Nodes, "with_training_nodes", leaking)
    assert outcome(0)[1] == 100.0, "and it does know them where the task leaks"


def fitting(make, system, multilabel, held_out, **task):
    """The Experiment of a system on the typed graph, or on that of one type, whichever it can be built on."""
    asked = inspect.signature(models.find(system).prepare).parameters
    offered = {key: value for key, value in OFFERED.items() if key in asked}
    metric = "micro_f1" if multilabel else "accuracy"
    for graph, target in ((typed_graph(), "film"), (homogeneous(), "_N")):
        data = node_data(graph, target, multilabel, held_out)
        experiment = make(data, system, {"name": "nodes", **task}, graph=offered, metric=metric)
        try:
            experiment.training("ours", 0)
        except HgatError:
            continue
        return experiment
    return experiment.training("ours", 0)  # says why not


def weights(make, system, multilabel, held_out, variant="ours", **task):
    """The weights after three epochs, and their loss on the test nodes."""
    training = to_the_end(fitting(make, system, multilabel, held_out, **task).training(variant, 0))
    return training.model.state_dict(), training.fit.evaluate("test")[1]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("system", solving("nodes"))
def test_other_labels_of_held_out_nodes_change_no_weight(make, system, multilabel):
    one, other = (weights(make, system, multilabel, held_out) for held_out in (None, 1))
    same(one[0], other[0], system)
    assert one[1] != other[1], "the change is seen where it is scored"


@pytest.mark.slow
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("system", ["gat", "rgat"])
def test_other_labels_of_held_out_nodes_change_no_weight_in_batches(make, system, multilabel):
    batches = {"batch": 3, "fanout": [-1, -1]}
    one, other = (weights(make, system, multilabel, held_out, **batches) for held_out in (None, 1))
    same(one[0], other[0], system)
    assert one[1] != other[1]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("control", ["majority", "no_graph"])
def test_other_labels_of_held_out_nodes_change_no_control(make, control, multilabel):
    one, other = (weights(make, "gat", multilabel, held_out, control) for held_out in (None, 1))
    same(one[0], other[0], control)
    assert one[1] != other[1]


def test_a_task_that_trains_on_all_labels_is_found_out(make, monkeypatch):
    real = Nodes.with_training_nodes

    def on_all(self, train):
        return real(self, torch.arange(len(self.data.label)))

    monkeypatch.setattr(Nodes, "with_training_nodes", on_all)
    (one, _), (other, _) = (weights(make, "gat", False, held_out) for held_out in (None, 1))
    with pytest.raises(AssertionError):
        same(one, other)


# Links


def pairs_changed(seed, held_out=None):
    """The toy's split by a seed as PairData; held_out: with other links and pairs where they are held out."""
    pairs = tasks.find("links")(parties()).for_seed(seed).pairs
    if held_out is None:
        return pairs
    random = torch.Generator().manual_seed(held_out)

    def other(ends):
        return tuple(torch.randint(0, 120, end.shape, generator=random) for end in ends)

    held = {part: other(pairs.links[part]) for part in ("val", "test")}
    wrong = {part: other(pairs.negatives[part]) for part in ("val", "test")}
    return dataclasses.replace(pairs, links={**pairs.links, **held}, negatives=wrong)


def linked(make, system, held_out, variant="ours", batch=None):
    """What is shown, prepared, asked and learned with these links held out, and the loss on those of the test."""
    experiment = make(pairs_changed(1, held_out), system, {"name": "links", "out_feats": 4, "batch": batch}, epochs=2)
    training = experiment.training(variant, 1)
    task, inputs = training.fit.task, training.inputs
    asked_for = []
    torch.manual_seed(3)
    for found in task.batches(System(), ()):
        asked_for.append([found.label, dict(found.more)])
    to_the_end(training)
    prepared = {part: value[:2] for part, value in inputs.items()}
    return [task.shown(), prepared, asked_for, training.model.state_dict()], training.fit.evaluate("test")[1]


@pytest.mark.parametrize("batch", [None, 101])
@pytest.mark.parametrize("system", solving("links"))
def test_other_links_that_are_held_out_change_nothing_that_is_learned(make, system, batch):
    one, other = (linked(make, system, held_out, batch=batch) for held_out in (None, 1))
    same(one[0], other[0], system)
    assert one[1] != other[1], "the change is seen where it is scored"


def test_other_links_that_are_held_out_change_no_control(make):
    for variant in links.Links.controls:
        one, other = (linked(make, "gat", held_out, variant) for held_out in (None, 1))
        assert one[1] != other[1]
        if variant in ("no_graph", "gat"):  # the others learn nothing
            same(one[0], other[0], variant)


class Knows(System):
    """Says of a pair whether it is an edge of what is shown."""

    solves = ("links",)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    @classmethod
    def build(cls, shown, inputs):
        return cls()

    def paired(self, inputs, src, dst):
        return inputs, (src, dst)

    def forward(self, graph, feat, src, dst):
        return self.scale * graph.has_edges_between(src, dst).float()


def test_a_system_that_knows_the_shown_links_knows_none_that_is_held_out(make, monkeypatch):
    def outcome():
        training = to_the_end(make(parties(), Knows, {"name": "links"}, metric="auc").training("ours", 0))
        return [training.fit.evaluate(part)[0] for part in ("train", "val", "test")]

    train, val, test = outcome()
    assert train > 90.0 and val == test == 50.0
    real = links._Split.of

    def leaking(self, seed):
        return dataclasses.replace(real(self, seed), graph=self.data.graph)

    monkeypatch.setattr(links._Split, "of", leaking)
    assert outcome()[1:] == [100.0, 100.0], "and it does know them where the task leaks"


def test_a_task_that_avoids_held_out_links_in_training_is_found_out(make, monkeypatch):
    """Pairs that are drawn in training tell, by what is never among them, what the test will ask."""
    real = links.Links._own

    def leaking(self):
        pairs, shown, _ = real(self)
        every = [torch.cat([pairs.links[part][end] for part in pairs.links]) for end in (0, 1)]
        return pairs, shown, links.NonEdges(shown.graph.num_nodes(), *every)

    monkeypatch.setattr(links.Links, "_own", leaking)
    one, other = (linked(make, "gat", held_out) for held_out in (None, 1))
    with pytest.raises(AssertionError):
        same(one[0][2], other[0][2])


# Numbers


def numbers(make, system, change, variant="ours"):
    """The weights after the first epoch, or with the first setting, and their loss on the test nodes.

    change: what is added to the numbers that are held out.
    """
    data = heights()
    label = data.label.clone()
    label[torch.cat([data.val, data.test])] += change
    training = make(dataclasses.replace(data, label=label), system, {"name": "numbers"}).training(variant, 0)
    training.step()
    return training.model.state_dict(), training.fit.evaluate("test")[1]


@pytest.mark.parametrize("variant", ["ours", "no_graph", "linear_means", "boosted"])
@pytest.mark.parametrize("system", solving("numbers"))
def test_other_numbers_of_held_out_nodes_change_no_weight(make, system, variant):
    one, other = (numbers(make, system, torch.linspace(-3, 3, 80) * scale, variant) for scale in (0, 1))
    same(one[0], other[0], system)
    assert one[1] != other[1], "the change is seen where it is scored"


def test_a_task_that_scales_by_all_numbers_is_found_out(make, monkeypatch):
    real = Numbers._scale
    monkeypatch.setattr(Numbers, "_scale", lambda self, train: real(self, torch.arange(len(self.data.label))))
    (one, _), (other, _) = (numbers(make, "rgat", torch.linspace(-3, 3, 80) * scale) for scale in (0, 1))
    with pytest.raises(AssertionError):
        same(one, other)
