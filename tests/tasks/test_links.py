"""Prediction of links: parts, pairs without a link and metrics against plain loops, controls against NetworkX."""

import json
from dataclasses import replace

import dgl
import networkx
import numpy as np
import pytest
import torch
from ogb.linkproppred import Evaluator
from sklearn.metrics import average_precision_score, roc_auc_score
from toys import circles, films, parties

import hgat.data
from hgat.data import NodeData, PairData
from hgat.errors import DataError, RecipeError, TrainingError
from hgat.models import System
from hgat.models.gat import GAT
from hgat.tasks import links
from hgat.tasks.links import HITS, Links
from hgat.train import run

PARTS = ("train", "val", "test")


def data_of(graph, feat=3):
    """NodeData of a graph; its labels and its split are read by nobody here."""
    nodes = graph.num_nodes()
    parts = {part: torch.tensor([k]) for k, part in enumerate(PARTS)}
    rows = torch.randn(nodes, feat, generator=torch.Generator().manual_seed(0))
    return NodeData("t", graph, {"_N": rows}, "_N", torch.zeros(nodes, dtype=torch.int64), **parts, num_classes=1)


def pair_data(directed=False, per_link=False):
    """Links of a circle; the held-out ones and the pairs without a link are chords."""
    nodes, step = 23, torch.arange(23)
    graph = dgl.graph((torch.cat([step, (step + 1) % 23]), torch.cat([(step + 1) % 23, step])), num_nodes=nodes)
    chords = {part: (step[:7], (step[:7] + far) % 23) for part, far in (("val", 5), ("test", 6))}
    wrong = {
        part: (step[:7].unsqueeze(1), (step[:7].unsqueeze(1) + far + torch.arange(3)) % 23)
        if per_link
        else (step[:11], (step[:11] + far) % 23)
        for part, far in (("val", 8), ("test", 11))
    }
    feat = torch.randn(nodes, 4, generator=torch.Generator().manual_seed(0))
    return PairData("t", graph, {"_N": feat}, {"train": (step, (step + 1) % 23), **chords}, wrong, directed=directed)


def mixed(directed=False):
    """Edges at random, some of them several times, some of them self-loops, and a node with nothing else."""
    random = np.random.default_rng(0)
    src, dst = (torch.from_numpy(end) for end in random.integers(0, 29, (2, 83)))
    if not directed:
        src, dst = torch.cat([src, dst]), torch.cat([dst, src])
    graph = dgl.graph((torch.cat([src, src[:5], torch.tensor([30])]), torch.cat([dst, dst[:5], torch.tensor([30])])))
    graph.edata["weight"] = torch.arange(graph.num_edges()).float()
    return graph


def pairs_of(ends, directed):
    found = zip(*(end.tolist() for end in ends), strict=True)
    return [pair if directed else tuple(sorted(pair)) for pair in found]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("directed", [False, True])
def test_every_link_is_in_one_part_with_both_its_directions(directed, seed):
    graph = mixed(directed)
    task = Links(data_of(graph), val_share=0.1, test_share=0.2, directed=directed).for_seed(seed)
    every = {(u, v) for u, v in pairs_of(graph.edges(), directed) if u != v}
    parts = {part: pairs_of(task.pairs.links[part], directed) for part in PARTS}
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == sorted(every)
    assert task.sizes() == {part: len(found) for part, found in parts.items()}
    assert [len(parts["val"]), len(parts["test"])] == [round(0.1 * len(every)), round(0.2 * len(every))]
    # What is shown: every edge of a training link as often as it was, with its columns, and the self-loops.
    shown = task.shown().graph
    src, dst = graph.edges(order="eid")
    kept = [
        number
        for number, pair in enumerate(pairs_of((src, dst), directed))
        if pair in set(parts["train"]) or pair[0] == pair[1]
    ]
    assert shown.edata["weight"].long().tolist() == kept and shown.num_nodes() == graph.num_nodes()
    assert pairs_of(shown.edges(order="eid"), True) == pairs_of((src[kept], dst[kept]), True)
    assert (30, 30) in pairs_of(shown.edges(), True)
    for part in ("val", "test"):
        assert not set(pairs_of(shown.edges(), directed)) & set(parts[part])


@pytest.mark.parametrize("directed", [False, True])
def test_pairs_without_a_link_are_drawn_once_for_a_seed_and_are_none_of_any_part(directed):
    graph = mixed(directed)
    task = Links(data_of(graph), directed=directed)
    every = set(pairs_of(graph.edges(), directed))
    found = [[pairs_of(task.for_seed(s).pairs.negatives[part], directed) for part in PARTS[1:]] for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    val, test = found[0]
    assert [len(val), len(test)] == [task.sizes()["val"], task.sizes()["test"]]
    assert len({*val, *test}) == len(val) + len(test) and not every & {*val, *test}
    assert all(u != v for u, v in [*val, *test])
    assert task.for_seed(0).shown() is task.for_seed(0).shown() is not task.for_seed(1).shown()


def test_a_seed_is_the_same_split_on_every_machine():
    task = Links(data_of(mixed()), val_share=0.03, test_share=0.05).for_seed(0)
    assert pairs_of(task.pairs.links["test"], False) == HELD
    assert pairs_of(task.pairs.negatives["test"], False) == FALSE
    assert pairs_of(task.for_seed(1).pairs.links["test"], False) != HELD


HELD = [(0, 9), (3, 11), (12, 28), (19, 25)]
FALSE = [(21, 26), (4, 26), (0, 26), (0, 1)]


@pytest.mark.parametrize("batch", [None, 7])
def test_training_sees_every_link_once_an_epoch_and_fresh_pairs_that_may_be_held_out(batch):
    task = Links(data_of(mixed()), val_share=0.2, test_share=0.3, negatives=5, batch=batch)
    train, drawn = pairs_of(task.pairs.links["train"], False), []
    held = {*pairs_of(task.pairs.links["val"], False), *pairs_of(task.pairs.links["test"], False)}
    torch.manual_seed(0)
    for _ in range(4):
        seen, wrong = [], []
        for step in task.batches(System(), ()):
            pairs = pairs_of((step.more["src"], step.more["dst"]), False)
            assert len(pairs) == len(step.label) and (batch is None or len(pairs) <= 6 * batch)
            seen += [pair for pair, label in zip(pairs, step.label, strict=True) if label]
            wrong += [pair for pair, label in zip(pairs, step.label, strict=True) if not label]
        assert sorted(seen) == sorted(train) and len(wrong) == 5 * len(train)
        assert not set(wrong) & set(train)
        drawn.append(wrong)
    assert drawn[0] != drawn[1]
    assert held & {pair for wrong in drawn for pair in wrong}, "a link that is held out is not avoided"


@pytest.mark.parametrize("directed", [False, True])
def test_the_order_of_both_ends_tells_a_link_from_no_other_pair(directed):
    """In the file every link but one leads from the smaller id; pairs without one are drawn in that order."""
    data = pair_data(directed)
    turned = replace(data, links={part: ends[::-1] for part, ends in data.links.items()})
    found = []
    for task in (Links(data), Links(turned)):
        torch.manual_seed(0)
        more = next(task.batches(System(), ())).more
        found.append((more["src"][:23], more["dst"][:23]))
    (src, dst), (again, other) = found
    assert (src.equal(again) and dst.equal(other) and (src <= dst).all()) != directed
    assert directed or (more["src"] <= more["dst"]).all()


def test_the_loss_is_that_of_inner_products():
    one, other = (Links(pair_data(directed), out_feats=6) for directed in (False, True))
    rows = torch.randn(23, 6)
    batch = next(one.batches(System(), ()))
    src, dst, label = (batch.more["src"], batch.more["dst"], batch.label)
    product = (rows[src] * rows[dst]).sum(1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(product, label)
    torch.testing.assert_close(one.loss(rows, batch), expected)
    product = (rows[src, :3] * rows[dst, 3:]).sum(1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(product, label)
    torch.testing.assert_close(other.loss(rows, batch), expected)
    torch.testing.assert_close(other.loss(product, batch), expected)


def test_measures_are_scikit_learns_and_ogbs():
    random = np.random.default_rng(0)
    right, wrong = random.normal(1, 1, 67).round(1), random.normal(0, 1, 131).round(1)
    found = links._measures(right, wrong)
    label = np.concatenate([np.ones(67), np.zeros(131)])
    scores = np.concatenate([right, wrong])
    assert found["auc"] == pytest.approx(100 * roc_auc_score(label, scores))
    assert found["average_precision"] == pytest.approx(100 * average_precision_score(label, scores))
    given = {"y_pred_pos": torch.from_numpy(right), "y_pred_neg": torch.from_numpy(wrong)}
    for name, k in (("ogbl-ddi", 20), ("ogbl-collab", 50), ("ogbl-ppa", 100)):
        assert found[f"hits@{k}"] == pytest.approx(100 * Evaluator(name).eval(given)[f"hits@{k}"])
    rank = [1 + (wrong > x).sum() + (wrong == x).sum() / 2 for x in right]
    assert found["mrr"] == pytest.approx(100 * np.mean(1 / np.array(rank)))
    assert set(found) == set(Links.metrics)


def test_measures_of_each_links_own_pairs_are_ogbs():
    random = np.random.default_rng(0)
    right, wrong = random.normal(1, 1, 67).round(1), random.normal(0, 1, (67, 13)).round(1)
    found = links._measures(right, wrong)
    given = {"y_pred_pos": torch.from_numpy(right), "y_pred_neg": torch.from_numpy(wrong)}
    expected = Evaluator("ogbl-citation2").eval(given)
    for name, theirs in (("mrr", "mrr"), ("hits@1", "hits@1"), ("hits@3", "hits@3"), ("hits@10", "hits@10")):
        assert found[name] == pytest.approx(100 * float(expected[f"{theirs}_list"].mean()), rel=1e-5)
    assert [f"hits@{k}" in found for k in HITS] == [k <= 13 for k in HITS]


class Says(System):
    """Scores each pair by a function; it has nothing to learn."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def paired(self, inputs, src, dst):
        return inputs, (src, dst)

    def forward(self, src, dst):
        assert src.shape == dst.shape and len(src) <= links.AT_ONCE
        return self.score(src, dst)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("per_link", [False, True])
def test_the_pairs_of_a_part_are_scored_each_in_its_place(monkeypatch, per_link, directed):
    data = pair_data(directed, per_link)
    monkeypatch.setattr(links, "AT_ONCE", 5)
    task = Links(data)
    model = Says(lambda src, dst: (100 * src + dst).double() / 1000)
    right, wrong = task._scores(model, (), "test")
    for got, (src, dst) in ((right, data.links["test"]), (wrong, data.negatives["test"])):
        src = src.expand_as(dst)
        low, high = (src, dst) if directed else (torch.minimum(src, dst), torch.maximum(src, dst))
        np.testing.assert_allclose(got, ((100 * low + high).double() / 1000).numpy())
    metric, loss = task.evaluate(model, (), "test", "mrr")
    assert metric == pytest.approx(links._measures(right, wrong)["mrr"])
    terms = [*np.log1p(np.exp(-right)), *np.log1p(np.exp(wrong)).ravel()]
    assert loss == pytest.approx(np.mean(terms))
    numbers, _ = task.results(model, (), "mrr")
    assert numbers["test"] == numbers["more"]["mrr"] == metric and numbers["more"] == links._measures(right, wrong)


def test_a_score_that_is_not_finite_is_one_sentence():
    with pytest.raises(TrainingError, match="expected finite scores, got others"):
        Links(pair_data()).evaluate(Says(lambda src, dst: src / 0.0), (), "val", "auc")


NX = {
    "common_neighbours": lambda graph, u, v: len(list(networkx.common_neighbors(graph, u, v))),
    "adamic_adar": lambda graph, u, v: next(networkx.adamic_adar_index(graph, [(u, v)]))[2],
    "preferential_attachment": lambda graph, u, v: next(networkx.preferential_attachment(graph, [(u, v)]))[2],
}


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", NX)
def test_counts_are_networkxs_of_the_training_links(name, directed):
    task = Links(data_of(mixed(directed)), directed=directed)
    control, shown = task.controls[name], task.shown()
    inputs = control.prepare(shown)
    graph = networkx.Graph([(u, v) for u, v in pairs_of(shown.graph.edges(), True) if u != v])
    graph.add_nodes_from(range(shown.graph.num_nodes()))
    src, dst = torch.combinations(torch.arange(31)).T
    got = control.build(shown, inputs)(*inputs, *control.paired(control.build(shown, inputs), inputs, src, dst)[1])
    expected = [NX[name](graph, u, v) for u, v in zip(src.tolist(), dst.tolist(), strict=True)]
    np.testing.assert_allclose(got.numpy(), expected)
    assert max(expected) > 0 and control.solutions == 0


@pytest.mark.parametrize("directed", [False, True])
def test_the_gat_encoder_is_gat_on_the_training_links(directed):
    task = Links(data_of(mixed(directed)), directed=directed, out_feats=6)
    control, shown = task.controls["gat"], task.shown()
    graph, feat = inputs = control.prepare(shown)
    ends = pairs_of(shown.graph.edges(), True)
    both = set(ends) if directed else {*ends, *(pair[::-1] for pair in ends)}
    assert {*pairs_of(graph.edges(), True)} == both | {(v, v) for v in range(31)}
    model = control.build(shown, inputs, hidden=12, feat_drop=0.4)
    peer = GAT.build(shown, inputs, hidden=3, heads=(4, 1), feat_drop=0.4, attn_drop=0.4, value_drop=0.0)
    peer.load_state_dict(model.encoder.state_dict())
    for training in (True, False):
        rows = []
        for network in (model, peer):
            torch.manual_seed(1)
            rows.append(network.train(training)(graph, feat))
        assert rows[0].equal(rows[1]) and rows[0].shape == (31, 6)
    with pytest.raises(RecipeError, match="feat: expected features of '_N' nodes, got none"):
        control.build(shown, (graph, {"_N": None}))


def test_a_node_whose_links_are_all_held_out_is_scored_like_others():
    """Node 4 has one link; in some seed it is tested on."""
    graph = dgl.to_bidirected(dgl.graph(([0, 1, 2, 3, 0, 1, 3], [1, 2, 3, 0, 2, 3, 4]), num_nodes=6))
    for seed in range(40):
        task = Links(data_of(graph), test_share=0.15).for_seed(seed)
        if pairs_of(task.pairs.links["test"], False) == [(3, 4)]:
            break
    assert task.shown().graph.in_degrees()[4:].tolist() == [0, 0]
    inputs = GAT.prepare(task.shown())
    metric, _ = task.evaluate(GAT.build(task.shown(), inputs), inputs, "test", "auc")
    assert np.isfinite(metric)


def complete(nodes, without=0):
    src, dst = torch.combinations(torch.arange(nodes)).T
    return dgl.to_bidirected(dgl.graph((src[without:], dst[without:]), num_nodes=nodes))


@pytest.mark.parametrize(
    ("data", "settings", "sentence"),
    [
        (
            data_of(complete(9, 3)),
            {},
            "expected 5 pairs of nodes without a link, as many as links to score, got 3",
        ),
        (data_of(complete(9)), {}, "expected 6 pairs of nodes without a link, as many as links to score, got 0 of t"),
        (data_of(complete(3, 1)), {}, "expected three links of two nodes or more to split, got 2 of t"),
        (
            data_of(dgl.graph((range(9), range(9)))),
            {},
            "expected three links of two nodes or more to split, got 0",
        ),
        (films(), {}, "expected a graph of one node type and one relation, got 2 and 4 of films"),
        (data_of(mixed()), {"val_share": 0.5, "test_share": 0.5}, "shares above 0 that leave links to train on"),
        (data_of(mixed()), {"val_share": 0.0}, "shares above 0 that leave links to train on, got val_share = 0.0"),
        (data_of(mixed()), {"negatives": 0}, "task.negatives: expected 1 or more, got 0"),
        (data_of(mixed()), {"batch": 0}, "task.batch: expected 1 or more, got 0"),
        (data_of(mixed()), {"directed": True, "out_feats": 3}, "task.out_feats: expected an even number"),
        (pair_data(), {"test_share": 0.1}, "task.test_share: expected none, as t brings its own, got 0.1"),
        (pair_data(), {"directed": False}, "task.directed: expected none, as t brings its own, got False"),
        (circles(), {}, "expected data of the kind NodeData or PairData for links, got EventData of circles"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(data, settings, sentence):
    with pytest.raises(RecipeError, match=sentence) as error:
        Links(data, **settings)
    assert "\n" not in str(error.value)


def test_hits_of_more_places_than_pairs_are_refused():
    task = Links(pair_data())
    task.check("hits@10", [])
    with pytest.raises(RecipeError, match="train.metric: hits@20: expected 20 pairs without a link, got 11 in val"):
        task.check("hits@20", [])


ENDS = torch.arange(7)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"graph": films().graph}, "graph: expected one node type and one relation, got 2 and 4"),
        ({"feat": {}}, "feat: expected the node types _N, got"),
        ({"feat": {"_N": torch.randn(22, 3)}}, r"features of _N: expected \[N, F\] float32 with N = 23"),
        ({"links": {"train": (ENDS, ENDS)}}, "links: expected the parts train, val, test, got train"),
        ({"negatives": {}}, "negatives: expected the parts val, test, got none"),
        (
            {"links": dict.fromkeys(PARTS, (ENDS, ENDS + 17))},
            "links of train: expected ids of nodes from 0 to 22, got 23",
        ),
        ({"links": dict.fromkeys(PARTS, (ENDS, ENDS[:3]))}, r"links of train: expected \[M\] and \[M\], got \[7\] and"),
        ({"links": dict.fromkeys(PARTS, (ENDS[:0], ENDS[:0]))}, "links of train: expected int64 ids, one or more, got"),
        ({"links": dict.fromkeys(PARTS, (ENDS.float(), ENDS))}, "links of train: expected int64 ids, one or more, got"),
        (
            {"negatives": dict.fromkeys(PARTS[1:], (ENDS[:6].unsqueeze(1), ENDS[:6].unsqueeze(1)))},
            r"of val: expected \[K\] and \[K\], or \[M, 1\] and \[M, K\] with M = 7, got \[6, 1\] and \[6, 1\]",
        ),
        ({"negatives": dict.fromkeys(PARTS[1:], (ENDS, ENDS - 1))}, "negatives of val: expected ids of nodes from 0"),
    ],
)
def test_pairs_that_do_not_fit_the_graph_are_one_sentence(change, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        replace(pair_data(), **change)
    assert "\n" not in str(error.value)


def test_a_recipe_of_links_trains_and_goes_on(monkeypatch, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(RECIPE)
    monkeypatch.setattr(hgat.data, "load", lambda name, root: parties())
    done = run.train(path, seeds=2, out=tmp_path / "out", progress=False)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["links"] == Links(parties()).sizes() and len(written["test"]["values"]) == 2
    assert set(written["more"]) == {"auc", "average_precision", "mrr", "hits@1", "hits@3", "hits@10", "hits@20"}
    assert written["more"]["hits@10"] == written["test"]
    assert list(written["controls"]) == ["common_neighbours", "no_graph", "uniform"]
    again = run.train(path, seeds=2, out=tmp_path / "out", resume=True, progress=False)
    assert again.metrics["test"] == done.metrics["test"]


RECIPE = """
[paper]
title = "none"
authors = "none"
year = 2024
link = ""
[data]
name = "cora"
[task]
name = "links"
batch = 97
[model]
system = "gat"
hidden = 5
[train]
metric = "hits@10"
epochs = 3
lr = 0.01
controls = ["common_neighbours", "no_graph", "uniform"]
"""
