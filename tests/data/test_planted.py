"""Planted truth: the gold neighbour's payload is the label, turning it turns the label, and no other one's does."""

import dgl
import pytest
import torch

import hgat.data
from hgat import tasks
from hgat.data import planted
from hgat.errors import DataError
from hgat.graph import metapath_graph

SMALL = {"size": 3, "groups": 6}


def small(kind, **options):
    return hgat.data.load(f"planted-{kind}", **{**SMALL, **options})


def part(data, name):
    """The columns of the target's features that are called so."""
    return [place for place, column in enumerate(data.columns[data.target]) if column.startswith(name)]


def tellers(kind, data):
    """{node: the one that decides it}, by the gold edges alone."""
    if kind == "path":
        first, last = (("item", "to 0", "middle 0"), ("middle 0", "from 0", "item"))
        src, middle = (ends[data.gold[first]] for ends in data.graph.edges(etype=first, order="eid"))
        through, dst = (ends[data.gold[last]] for ends in data.graph.edges(etype=last, order="eid"))
        of_middle = dict(zip(middle.tolist(), src.tolist(), strict=True))
        assert len(of_middle) == len(middle)
        return {v: of_middle[m] for m, v in zip(through.tolist(), dst.tolist(), strict=True)}
    golds = data.gold if isinstance(data.gold, dict) else {data.graph.canonical_etypes[0]: data.gold}
    pairs = [
        pair
        for etype, gold in golds.items()
        for pair in zip(*(ends[gold].tolist() for ends in data.graph.edges(etype=etype, order="eid")), strict=True)
    ]
    found = {v: u for u, v in pairs}
    assert len(found) == len(pairs) == data.graph.num_nodes(data.target)  # one each
    return found


@pytest.mark.parametrize("kind", ["feature", "relation", "recency", "path"])
def test_turning_a_payload_turns_the_labels_that_it_is_gold_for_and_no_others(kind):
    data = small(kind)
    teller, payload = tellers(kind, data), part(data, "payload")
    assert sorted(teller) == list(range(18))
    for node in range(18):
        rows = data.feat[data.target].clone()
        rows[node, payload] = rows[node, payload].roll(1)
        found = planted.answers(kind, data.graph, {**data.feat, data.target: rows}, data.columns[data.target])
        assert sorted((found != data.label).nonzero().flatten().tolist()) == sorted(
            v for v, u in teller.items() if u == node
        )


def test_neighbours_tell_nothing_where_the_payload_is_the_nodes_own_and_all_alike_where_it_is_their_mean():
    own, mean = small("own"), small("mean")
    assert own.gold is None and mean.gold is None
    assert own.label.equal(own.feat["_N"][:, part(own, "payload")].argmax(1))
    src, dst = mean.graph.edges()
    said = mean.feat["_N"][:, part(mean, "payload")]
    for v in range(18):
        assert said[src[dst == v]].mean(0).argmax() == mean.label[v]
    # The same graph, with the same keys, as the set in which attention decides.
    feature = small("feature")
    for data in (own, mean):
        assert torch.stack(data.graph.edges()).equal(torch.stack(feature.graph.edges()))
        assert data.feat["_N"][:, :6].equal(feature.feat["_N"][:, :6])


def test_destinations_that_ask_for_different_keys_share_their_neighbours():
    data = small("feature")
    src, dst = data.graph.edges(order="eid")
    ask, key = (data.feat["_N"][:, part(data, name)].argmax(1) for name in ("ask", "key"))
    assert dst.equal(torch.arange(18).repeat_interleave(3)) and (src != dst).all()
    shared = src.view(6, 3, 3)
    assert (shared == shared[:, :1]).all()
    assert ask.view(6, 3).sort(1).values.equal(torch.arange(3).expand(6, 3))
    assert key[shared[:, 0]].sort(1).values.equal(torch.arange(3).expand(6, 3))
    assert (key[src[data.gold]] == ask[dst[data.gold]]).all()


def test_every_path_has_its_own_neighbours_and_one_that_is_marked():
    data = small("path", groups=8)
    genre, mark = (data.feat["item"][:, part(data, name)] for name in ("genre", "mark"))
    for path in range(planted.PATHS):
        walked = metapath_graph(data.graph, [f"to {path}", f"from {path}"], self_loops=False)
        src, dst = walked.edges()
        assert (genre[src, path] == 1).all()
        assert torch.zeros(24).index_add_(0, dst, mark[src, 0]).equal(torch.ones(24))
        assert walked.in_degrees().equal(torch.full((24,), 3))
        assert data.gold["item", f"to {path}", f"middle {path}"].any() == (path == 0)


def test_times_of_a_nodes_edges_differ():
    data = small("recency")
    time = data.graph.edata["time"].view(18, 3)
    assert (time.sort(1).values.diff(dim=1) > 0).all()
    assert data.gold.view(18, 3).int().argmax(1).equal(time.argmax(1))


@pytest.mark.parametrize("kind", planted.KINDS)
def test_the_same_draw_gives_the_same_and_another_another(kind):
    one, two, other = (small(kind, split_seed=seed) for seed in (1, 1, 2))
    assert one.label.equal(two.label) and one.test.equal(two.test) and not one.label.equal(other.label)
    assert one.name == f"planted-{kind} with size = 3, groups = 6"
    assert sorted(torch.cat(list(one.split.values())).tolist()) == list(range(18))
    assert hgat.data.load(f"planted-{kind}").counts()["train"] == 600  # as the card says, which is checked


def test_gold_is_never_shown():
    task = tasks.find("nodes")(small("feature"))
    for shown in (task.shown(), task.refitted().shown(), task.shown_at("test")):
        assert shown.gold is None
        assert not shown.graph.ndata and not shown.graph.edata


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 1}, "planted-own.size: expected 2 or more, got 1"),
        ({"groups": 3}, "planted-own.groups: expected 4 or more, got 3"),
        ({"classes": 1}, "planted-own.classes: expected 2 or more, got 1"),
        ({"split_seed": -1}, "planted-own.split_seed: expected a number from 0 to"),
    ],
    ids=["size", "groups", "classes", "split_seed"],
)
def test_wrong_sizes_are_one_sentence(options, sentence):
    with pytest.raises(DataError, match=sentence):
        hgat.data.load("planted-own", **options)


def test_gold_that_does_not_fit_the_graph_is_one_sentence():
    graph = dgl.graph(([0, 1], [1, 2]))
    typed = dgl.heterograph({("a", "r", "a"): ([0], [1]), ("a", "s", "a"): ([1], [2])})
    train, val, test = torch.arange(3).split(1)
    parts = {"label": torch.arange(3), "num_classes": 3, "train": train, "val": val, "test": test}

    def made(graph, gold):
        ntype = graph.ntypes[0]
        hgat.data.NodeData("d", graph, {ntype: None}, ntype, gold=gold, **parts)

    made(graph, torch.tensor([True, False]))
    made(typed, {("a", "r", "a"): torch.tensor([True])})
    for of, gold, sentence in (
        (graph, torch.tensor([True]), r"d: gold: expected torch.bool \[2\] for the edges of .*, got torch.bool \[1\]"),
        (graph, torch.ones(2), r"d: gold: expected torch.bool \[2\] .*, got torch.float32 \[2\]"),
        (typed, torch.ones(2).bool(), "d: gold: expected a dict by relation, of a graph with 2, got one tensor"),
        (
            typed,
            {("a", "t", "a"): torch.ones(1).bool()},
            r"d: gold: expected relations among .*, got \('a', 't', 'a'\)",
        ),
    ):
        with pytest.raises(DataError, match=sentence):
            made(of, gold)
