"""The task of triples: ranks against a brute-force ranking, losses by hand, what is drawn, controls and settings."""

import dataclasses
import itertools

import dgl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import guilds

import hgat.data
from hgat import models, tasks
from hgat.data import NodeData, TripleData
from hgat.errors import RecipeError, TrainingError
from hgat.models import Batch, System
from hgat.tasks import triples as module
from hgat.tasks.triples import Triples
from hgat.train import run
from hgat.train.recipe import Recipe, Train

PARTS = ("train", "val", "test")


class Fixed(System):
    """Scores that a table [2 R, N, N] gives, of relation, head and tail."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def scorer(self, inputs):
        return lambda head, relation: self.table[relation, head].clone()


def brute_force(task, table, part):
    """Filtered ranks, one triple and one entity at a time, over Python sets; ties by their mean rank."""
    known = {tuple(row) for which in PARTS[: PARTS.index(part) + 1] for row in task.triples[which].tolist()}
    relations, ranks = len(task.data.relations), []
    for inverse in (False, True):
        for head, relation, tail in task.triples[part].tolist():
            row = table[relation + relations, tail] if inverse else table[relation, head]
            right, above, level = (head if inverse else tail), 0, 0
            for entity in range(len(task.data.entities)):
                other = (entity, relation, tail) if inverse else (head, relation, entity)
                if entity != right and other not in known:
                    above += int(row[entity] > row[right])
                    level += int(row[entity] == row[right])
            ranks.append(np.mean([1 + above + k for k in range(level + 1)]))
    return torch.tensor(ranks, dtype=torch.float64)


@pytest.mark.parametrize("part", PARTS)
def test_ranks_are_those_of_brute_force(part, monkeypatch):
    task = Triples(guilds())
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(0, 9, (6, 60, 60), generator=generator).float()  # many ties
    expected = brute_force(task, table, part)
    assert (expected % 1 != 0).any() and len(expected.unique()) > 9
    assert torch.equal(task.ranks(Fixed(table), (), part)[0], expected)
    monkeypatch.setattr(module, "AT_ONCE", 7 * 60 + 1)  # in pieces of seven
    assert torch.equal(task.ranks(Fixed(table), (), part)[0], expected)
    found, _ = task.results(Fixed(table), (), "mrr") if part == "test" else ({}, {})
    if found:
        more = found["more"]
        assert found["test"] == more["mrr"] == pytest.approx(100 * float((1 / expected).mean()))
        assert more["hits@3"] == pytest.approx(100 * float((expected <= 3).double().mean()))
        assert more["mean rank"] == pytest.approx(float(expected.mean()))


def test_ranks_on_umls_are_those_of_brute_force(real_data):
    task = Triples(hgat.data.load("umls", real_data("umls")))
    table = torch.randn(92, 135, 135, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(task.ranks(Fixed(table), (), "test")[0], brute_force(task, table, "test"))


def test_a_constant_answer_has_the_mean_rank():
    """Who answers alike for all entities gains nothing by it, as it would where ties go to the one that is asked."""
    task = Triples(guilds())
    rank, loss = task.ranks(Fixed(torch.zeros(6, 60, 60)), (), "test")
    assert 25 < float(rank.mean()) < 31 and float((rank <= 10).double().mean()) == 0
    torch.testing.assert_close(loss, (2 * rank - 1).log())  # of all that are ranked


def test_scores_that_are_not_finite_are_one_sentence():
    table = torch.zeros(6, 60, 60)
    table[2, :, 7] = torch.nan
    with pytest.raises(TrainingError, match="expected finite scores, got others; a smaller train.lr may help"):
        Triples(guilds()).ranks(Fixed(table), (), "val")


def small(train=((0, 0, 1), (0, 0, 2), (1, 1, 0), (3, 0, 1))):
    """Five entities, two relations, the second of which is `a`: the graph orders relations by their names."""
    parts = {"train": train, "val": [(2, 1, 3)], "test": [(4, 0, 0)]}
    triples = {part: torch.tensor(rows) for part, rows in parts.items()}
    return TripleData("small", triples, tuple("vwxyz"), ("b", "a"))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", ["softmax", "binary"])
def test_losses_over_all_entities(loss, smoothing):
    task = Triples(small(), loss=loss, label_smoothing=smoothing, batch=100)
    (batch,) = task.batches(None, ())
    (query,) = batch.query
    tails = {}
    for h, r, t in task.both_ways(task.triples["train"]).tolist():
        tails.setdefault((h, r), set()).add(t)
    assert sorted(zip(query.head.tolist(), query.relation.tolist(), strict=True)) == sorted(tails)
    scores, expected = torch.randn(len(tails), 5).double(), []
    for row, h, r in zip(scores, query.head.tolist(), query.relation.tolist(), strict=True):
        right = torch.tensor([float(t in tails[h, r]) for t in range(5)]).double()
        if loss == "softmax":
            aim = (1 - smoothing) * right / right.sum() + smoothing / 5
            expected.append(-(aim * row.log_softmax(0)).sum())
        else:
            aim = (1 - smoothing) * right + smoothing / 5
            expected.append(F.binary_cross_entropy_with_logits(row, aim))
    torch.testing.assert_close(task.loss(scores, batch), torch.stack(expected).mean())


def test_loss_of_negatives():
    task = Triples(small(), loss="negatives", negatives=3, batch=100)
    (batch,) = task.batches(None, ())
    (query,) = batch.query
    assert query.tail.shape == (8, 4)
    scores = torch.randn(8, 4).double()
    expected = [-F.logsigmoid(row[0]) - F.logsigmoid(-row[1:]).mean() for row in scores]
    torch.testing.assert_close(task.loss(scores, batch), torch.stack(expected).mean())


def test_negatives_are_all_entities_that_are_no_tail_in_training():
    """Held-out tails are among them, evenly; of one that all entities are tails of there is none."""
    full = [(3, 1, t) for t in range(5)]
    task = Triples(small([(0, 0, 1), (0, 0, 3), *full]), loss="negatives", negatives=4000, batch=100)
    (batch,) = task.batches(None, ())
    (query,) = batch.query
    known = {tuple(row) for row in task.both_ways(task.triples["train"]).tolist()}
    assert not batch.more["some"].all()
    for h, r, some, tail in zip(
        query.head.tolist(), query.relation.tolist(), batch.more["some"], query.tail, strict=True
    ):
        assert (h, r, int(tail[0])) in known
        others = sorted(t for t in range(5) if (h, r, t) not in known)
        assert bool(some) == bool(others)
        if others:
            count = torch.bincount(tail[1:], minlength=5)
            assert count.nonzero().flatten().tolist() == others
            assert (count[others] - 4000 / len(others)).abs().max() < 250
    answer = torch.zeros(len(query.head), 4001)
    alone = Batch(more={"some": torch.zeros(len(query.head), dtype=torch.bool)})
    assert task.loss(answer, alone) == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", ["softmax", "negatives"])
def test_batches_have_everything_once_in_even_steps(loss):
    task = Triples(guilds(), loss=loss, batch=101)
    parts = list(task.batches(None, ()))
    queries = [part.query[0] for part in parts]
    found = [p for q in queries for p in zip(q.head.tolist(), q.relation.tolist(), strict=True)]
    rows = task.both_ways(task.triples["train"])
    if loss == "softmax":
        assert sorted(found) == sorted({(h, r) for h, r, _ in rows.tolist()})
    else:
        asked = torch.cat([torch.stack([q.head, q.relation, q.tail[:, 0]], 1) for q in queries])
        assert sorted(asked.tolist()) == sorted(rows.tolist())
    sizes = [len(q.head) for q in queries]
    assert max(sizes) <= 101 and max(sizes) - min(sizes) <= 1
    again = [part.query[0] for part in task.batches(None, ())]
    assert not torch.equal(queries[0].head, again[0].head)


def test_relations_are_numbered_as_the_graph_has_them():
    """The control counts in the graph; its counts are those of the task's own triples."""
    task = Triples(small())
    control = task.controls["counting"]
    inputs = control.prepare(task.shown())
    score = task.completed(control.build(task.shown(), inputs)).scorer(inputs)
    expected = torch.zeros(4, 5)
    for _, relation, tail in task.both_ways(task.triples["train"]).tolist():
        expected[relation, tail] += 1
    assert torch.equal(score(torch.zeros(4).long(), torch.arange(4)), expected)
    assert expected[:, 1].tolist() == [0, 2, 1, 0]  # b is the second; twice 1 is a tail of b, once a head of a


def test_the_decoder_is_learned_with_the_system_and_alone():
    task = Triples(guilds(), decoder="conve", out_feats=12, channels=3)
    control = task.controls["no_graph"]
    model = task.completed(control.build(task.shown(), ()))
    batch = next(task.batches(model, ()))
    model.objective(task.loss, (), batch).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for group in model.groups() for p in group["params"])
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"encoder", "decoder"} and len(model.decoder.bias) == 60
    assert len({id(p) for group in model.groups() for p in group["params"]}) == len(list(model.parameters()))


class Leaks(Triples):
    """Shows the triples of all parts."""

    def __init__(self, data, **settings):
        super().__init__(data, **settings)
        every = torch.cat([self.data.triples[part] for part in PARTS])
        graph = module.triple_graph(every, self.num_entities, self.data.relations)
        self._facts = dataclasses.replace(self._facts, graph=graph)


def trained(monkeypatch, data, task, system, variant="ours"):
    """(the weights after two epochs and the inputs' edges, validation's score, the test's ranks)."""
    monkeypatch.setattr(hgat.data, "load", lambda name, root: data)
    monkeypatch.setattr(tasks, "find", lambda name: task)
    settings = Train(metric="mrr", epochs=2, lr=0.01, stop="last")
    asked = {"name": "triples", "out_feats": 8, "batch": 97, "loss": "negatives" if system == "rgat" else "softmax"}
    sections = {"data": {"name": "t"}, "task": asked, "graph": {}, "model": {"system": system}}
    training = run.Experiment(Recipe("t", "t", None, **sections, train=settings, expect=None)).training(variant, 0)
    while training.step():
        pass
    ranks = training.fit.task.ranks(training.model, training.inputs["test"], "test")[0]
    return training.weights()[0], training.fit.val_metric, ranks


def other_test(data):
    """The same data with other test triples, among them none of the other parts."""
    known = {tuple(row) for part in ("train", "val") for row in data.triples[part].tolist()}
    every = (t for t in itertools.product(range(0, 60, 2), range(3), range(1, 60, 2)) if t not in known)
    rows = torch.tensor(list(itertools.islice(every, len(data.triples["test"]))))
    return dataclasses.replace(data, triples={**data.triples, "test": rows})


@pytest.mark.parametrize("system", [name for name in models.available() if "triples" in models.find(name).solves])
def test_other_triples_for_the_test_change_no_bit(monkeypatch, system):
    one, other = (trained(monkeypatch, d, Triples, system) for d in (guilds(), other_test(guilds())))
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0]) and one[1] == other[1]
    assert not torch.equal(one[2], other[2]), "the change is seen where it is scored"


def test_a_test_triple_among_the_messages_is_found_out(monkeypatch):
    found = [trained(monkeypatch, d, Leaks, "rghat")[0] for d in (guilds(), other_test(guilds()))]
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


class Remembers(System):
    """Says of a tail whether what is shown has an edge to it."""

    solves = ("triples",)

    def scorer(self, inputs):
        (graph,) = inputs
        table = torch.zeros(2 * len(graph.canonical_etypes), graph.num_nodes(), graph.num_nodes())
        for number, etype in enumerate(graph.canonical_etypes):
            src, dst = graph.edges(etype=etype)
            table[number, src, dst] = table[number + len(graph.canonical_etypes), dst, src] = 1
        return Fixed(table).scorer(())


def test_who_remembers_the_messages_knows_no_triple_that_is_held_out():
    found = {}
    for kind in (Triples, Leaks):
        task = kind(guilds())
        inputs = (task.shown().graph,)
        found[kind] = [task.evaluate(Remembers(), inputs, part, "mrr")[0] for part in PARTS]
    assert found[Triples][0] == 100.0 and max(found[Triples][1:]) < 10.0
    assert found[Leaks][2] == 100.0, "and it does where a task leaks"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch": 0}, "task.batch: expected 1 or more, got 0"),
        ({"batch": 1, "decoder": "conve"}, "task.batch: expected 2 or more, got 1"),
        ({"out_feats": 0}, "task.out_feats: expected 1 or more, got 0"),
        ({"negatives": 0}, "task.negatives: expected 1 or more, got 0"),
        ({"channels": -1}, "task.channels: expected 1 or more, got -1"),
        ({"label_smoothing": 1.0}, "task.label_smoothing: expected a number from 0 to below 1, got 1.0"),
        ({"drop": -0.5}, "task.drop: expected a number from 0 to below 1, got -0.5"),
    ],
)
def test_wrong_settings_are_one_sentence(change, match):
    with pytest.raises(RecipeError, match=match):
        Triples(guilds(), **change)


def test_other_data_are_refused():
    graph = dgl.graph(([0, 1, 2], [1, 2, 0]))
    ids = {part: torch.tensor([k]) for k, part in enumerate(PARTS)}
    nodes = NodeData("n", graph, {"_N": None}, "_N", torch.tensor([0, 1, 0]), **ids, num_classes=2)
    with pytest.raises(RecipeError, match="expected data of the kind TripleData for triples, got NodeData of n"):
        Triples(nodes)
