"""Doubt: every test of attention on toys whose attention is the mechanism, or decoration, by construction."""

import math
from dataclasses import replace

import dgl
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import kendalltau
from torch import nn

from hgat import cli, data, ops
from hgat import graph as hgraph
from hgat.errors import GraphError, HgatError
from hgat.explain import doubt
from hgat.explain.doubt import command
from hgat.explain.doubt.curves import places
from hgat.explain.gold import correctness
from hgat.models import ACM, GAT, HAN, MAGNA, RGAT, Facts
from hgat.nn import GATConv
from zoo import build, typed_graph

SIZE, CLASSES = 4, 3


@pytest.fixture(scope="module")
def planted():
    return data.load("planted-feature", size=SIZE, groups=12, classes=CLASSES)


class Toy(nn.Module):
    """Attention to the neighbour whose key is asked for; the answer is what it says, or what the node itself says."""

    def __init__(self, mechanism, sharp=6.0):
        super().__init__()
        self.key, self.mechanism = nn.Parameter(sharp * torch.eye(SIZE)), mechanism

    def forward(self, graph, feat):
        ask, key, said = feat.split([SIZE, SIZE, CLASSES], 1)
        logits = ops.dot_product_logits(graph, (ask @ self.key)[:, None], key[:, None], scale=1.0)
        heard = ops.weighted_sum(graph, said[:, None], ops.edge_softmax(graph, logits)).squeeze(1)
        return 6 * heard if self.mechanism else 6 * said + 0.05 * heard


def setting(planted, mechanism, **options):
    """(the toy, its inputs, a subject of it)."""
    model, inputs = Toy(mechanism), (planted.graph, planted.feat["_N"])
    return model, inputs, doubt.Subject(model, inputs, **options)


def test_each_test_tells_mechanism_from_decoration(planted):
    told = {}
    for mechanism in (True, False):
        model, inputs, _ = setting(planted, mechanism)
        right = inputs[1][:, -CLASSES:].argmax(1) if not mechanism else planted.label

        def score(model, inputs=inputs, right=right):
            return 100 * float((model(*inputs).argmax(1) == right).float().mean())

        told[mechanism] = doubt.battery(
            model,
            inputs,
            score=score,
            scores=([100.0, 99.0], [55.0, 54.0] if mechanism else [100.0, 100.0]),
            gold=planted.gold if mechanism else None,
            tests=[name for name in doubt.TESTS if name != "adversary"],
            progress=False,
        )
        assert told[mechanism].mechanism is mechanism, str(told[mechanism])
    stood = {test.name: test.holds for test in told[True].tests}
    fell = {test.name: test.holds for test in told[False].tests}
    both = ["uniform, frozen", "uniform, retrained", "deletion", "insertion", "permutation", "adversarial"]
    assert stood == dict.fromkeys([*both, "ranks", "gold"], True)
    # Absence of the edge that attention is on changes the answer most, however little, where it is decoration, too.
    assert fell == dict.fromkeys(both, False) | {"ranks": True}
    assert told[True].asked == 8 and told[False].stood == 1
    frame = told[True].to_frame()
    assert [*frame.columns] == ["test", "measure", "value", "holds"] and {*frame.test} == {*stood}
    text = str(told[True])
    assert all(test.verdict in text and test.verdict.endswith(".") for test in told[True].tests)
    assert text.endswith("stood 8 of 8: attention looks like the mechanism") and "nodes 48, " in text


def test_uniform_attention_as_good_is_no_mechanism():
    stood = [doubt.Doubt(name, name, {}, "", True) for name in ("deletion", "insertion", "permutation")]
    needed, not_needed = (doubt.Doubt("uniform, frozen", "", {}, "", holds) for holds in (True, False))
    assert doubt.Doubts("", 1, (*stood, needed)).mechanism
    assert not doubt.Doubts("", 1, (*stood, not_needed)).mechanism
    assert doubt.Doubts("", 1, tuple(stood)).mechanism is None


def test_a_test_that_cannot_be_made_is_named_and_gives_no_verdict(planted):
    model, inputs, _ = setting(planted, True)
    told = doubt.battery(model, inputs, tests=["seeds", "gold"], progress=False)
    assert [*told.left_out] == ["seeds", "gold"] and told.mechanism is None
    assert "left out: seeds (needs another seed: --retrain), gold (" in str(told) and "looks like" not in str(told)
    assert doubt.battery(model, inputs, tests=["permutation"], progress=False).mechanism is None


def test_one_value_has_no_standard_error_and_no_say(planted):
    _, _, subject = setting(planted, True, nodes=[3])
    one = [*doubt.curves(subject)[:2], doubt.rank_test(subject), doubt.retrained([99.0], [50.0])]
    assert [told.holds for told in one] == [None] * 4
    assert all(math.isnan(told.numbers["its standard error"]) for told in one[:2])
    assert math.isnan(one[2].numbers["standard error of that"])
    _, _, two = setting(planted, True, nodes=[3, 4])
    score = doubt.leave_one_out(two)
    taus = [float(kendalltau(two.attention()[two.row == n], score[two.row == n]).statistic) for n in (3, 4)]
    got = doubt.rank_test(two).numbers["standard error of that"]
    assert got == pytest.approx(abs(taus[0] - taus[1]) / 2, abs=1e-6)  # n - 1 in the variance


def test_uniform_attention_over_unequal_softmaxes_stands_nothing():
    """A node's one in-edge of a relation has weight 1, each of its seven of another 1/7: that is no preference."""
    torch.manual_seed(0)
    count = 60
    ends = {("n", "one", "n"): 1, ("n", "many", "n"): 7}
    graph = dgl.heterograph(
        {etype: (torch.randint(count, (k * count,)), torch.arange(count).repeat(k)) for etype, k in ends.items()},
        {"n": count},
    )
    model = RGAT(graph, {"n": 5}, 3, "n", hidden=4, heads=(2,), softmax="within")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(0 if "attn" in name else 3)
    subject = doubt.Subject(model, (graph, {"n": torch.randn(count, 5)}))
    assert {round(float(w), 4) for w in subject.weights[0].unique()} == {1.0, round(1 / 7, 4)}
    told = [*doubt.curves(subject)[:2], doubt.rank_test(subject), doubt.permutation(subject)]
    assert [one.holds for one in told] == [False] * 4, told
    assert told[2].numbers["tau with leave-one-out"] == 0


def test_nodes_whose_edges_make_no_difference_count_as_zero():
    """Of two nodes one hears the same from both in-edges: it ranks nothing, as flat attention does."""
    graph = dgl.graph(([0, 1, 0, 2], [3, 3, 4, 4]), num_nodes=5)
    key = torch.eye(SIZE)[[0, 1, 1, 0, 0]]
    said = torch.eye(CLASSES)[[0, 0, 1, 0, 0]]
    subject = doubt.Subject(Toy(True), (graph, torch.cat([torch.eye(SIZE)[[0] * 5], key, said], 1)), [3, 4])
    assert doubt.rank_test(subject).numbers["tau with leave-one-out"] == pytest.approx(0.5)


# ---- many nodes at once ----


def looped():
    """A graph whose last edges are its self-loops, and features of its nodes."""
    graph = dgl.add_self_loop(dgl.remove_self_loop(build("homogeneous")))
    return graph, {"_N": torch.randn(graph.num_nodes(), 5)}


def on_relations():
    graph = hgraph.relations.extended(typed_graph(), inverse=True, self_relation=True)
    feat = {ntype: torch.randn(graph.num_nodes(ntype), 5) for ntype in graph.ntypes}
    options = {"hidden": 4, "heads": (2, 1), "softmax": "within"}
    return RGAT(graph, dict.fromkeys(feat, 5), 3, graph.ntypes[0], **options), (graph, feat)


def on_views():
    """Semantic weights are of all nodes at once, and are held."""
    graph = typed_graph()
    ntype = graph.to_canonical_etype("follows")[0]
    views = hgraph.metapaths(graph, {"film-film": ["follows"], "co-liked": ["liked by", "likes"]})
    model = HAN(5, 3, ["film-film", "co-liked"], ntype, hidden=4, heads=(2,))
    return model, (views, {ntype: torch.randn(graph.num_nodes(ntype), 5)})


SYSTEMS = {
    "GAT": lambda: (GAT(5, 3, hidden=4, heads=(2, 1)), looped()),
    "RGAT": on_relations,
    "HAN": on_views,
    "MAGNA": lambda: (MAGNA(5, 3, hidden=4, heads=2, layers=1, hops=2), looped()),  # reads farther than it attends
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_many_nodes_at_once_are_each_alone(name):
    torch.manual_seed(1)
    model, inputs = SYSTEMS[name]()
    subject = doubt.Subject(model, inputs)
    keep = torch.rand(len(subject.row)) < 0.5
    got = subject.sweep(subject.kept(keep))
    assert len(subject.nodes) > 3 and subject.change(got, subject.base[subject.nodes]).max() > 1e-3
    subject.batches = [torch.tensor([k]) for k in range(len(subject.nodes))]
    torch.testing.assert_close(got, subject.sweep(subject.kept(keep)), atol=1e-5, rtol=1e-4)


class Hops(nn.Module):
    """Uniform attention, and then two hops of plain means, which are no calls."""

    def __init__(self):
        super().__init__()
        self.first = GATConv(8, 4, 1)
        with torch.no_grad():
            self.first.attn_l.zero_()
            self.first.attn_r.zero_()

    def forward(self, graph, feat):
        h = self.first(graph, feat).flatten(1)
        src, dst = graph.edges()
        adjacency = torch.zeros(2 * [len(h)]).index_put((dst, src), torch.ones(len(src)), accumulate=True)
        for _ in range(2):
            h = adjacency @ h / adjacency.sum(1, keepdim=True)
        return 5 * h


def test_batches_see_hops_that_do_not_attend_behind_uniform_attention():
    torch.manual_seed(0)
    graph, feat = dgl.add_self_loop(dgl.rand_graph(100, 200)), torch.randn(100, 8)
    subject = doubt.Subject(Hops(), (graph, feat), list(range(50)))
    keep = torch.rand(graph.num_edges()) < 0.4
    got = subject.sweep(subject.kept(keep))
    assert 1 < len(subject.batches) < 50
    subject.batches = [torch.tensor([k]) for k in range(50)]
    torch.testing.assert_close(got, subject.sweep(subject.kept(keep)), atol=1e-5, rtol=1e-4)


def test_an_edge_that_is_left_out_is_one_that_the_graph_does_not_have():
    torch.manual_seed(1)
    (graph, feat), model = looped(), GAT(5, 3, hidden=4, heads=(2, 1)).eval()
    subject = doubt.Subject(model, (graph, feat))
    keep = torch.rand(graph.num_edges()) < 0.5
    keep[-graph.num_nodes() :] = True
    got = subject.sweep(subject.kept(keep))
    dst = graph.edges(order="eid")[1]
    for place, node in enumerate(subject.nodes.tolist()):
        left = dgl.remove_edges(graph, ((dst == node) & ~keep).nonzero().flatten())
        with torch.no_grad():
            wanted = model(left, feat)[node].softmax(0)
        torch.testing.assert_close(got[place], wanted, atol=1e-5, rtol=1e-4)


def test_places_count_from_the_highest_score_of_each_node(planted):
    _, _, subject = setting(planted, True)
    score = torch.rand(len(subject.row))
    place = places(subject, score)
    for node in range(5):
        mine = (subject.row == node).nonzero().flatten()
        assert place[mine].tolist() == score[mine].argsort(descending=True).argsort().tolist()


def test_curves_begin_with_the_whole_and_end_with_nothing(planted):
    model, inputs, subject = setting(planted, True, nodes=[0, 1, 2])
    deletion, insertion, curve = doubt.curves(subject)
    whole = float(subject.value(subject.base[subject.nodes]).mean())
    for order in ("attention", "degree", "random"):
        assert curve.deletion[order][0] == curve.insertion[order][-1] == pytest.approx(whole)
        assert curve.deletion[order][-1] == curve.insertion[order][0] == pytest.approx(1 / CLASSES)
    # Three tenths of four edges are two, the first the one that decides.
    assert curve.insertion["attention"][3] > 0.9 > 0.5 > curve.deletion["attention"][3]
    assert deletion.numbers["comprehensiveness by attention"] > insertion.numbers["sufficiency by attention"]


# ---- other weights ----


def test_divergence_is_that_of_scipy(planted):
    _, _, subject = setting(planted, True)
    flat = [torch.full_like(weights, 1 / SIZE) for weights in subject.weights]
    got = doubt.divergence(subject, subject.weights, flat)
    mine = subject.weights[0][subject.row == subject.nodes[3], 0]
    assert float(got[3]) == pytest.approx(jensenshannon(mine, [1 / SIZE] * SIZE) ** 2, rel=1e-4)
    assert not doubt.divergence(subject, subject.weights, subject.weights).any()


def test_a_wider_eps_lets_weights_go_farther(planted):
    _, _, subject = setting(planted, True)
    found = [doubt.adversarial(subject, eps=eps, steps=15).numbers["median divergence"] for eps in (0.001, 0.05, 0.9)]
    assert found[0] < found[1] < found[2] < math.log(2) and found[2] > 0.3


def test_an_adversary_is_found_where_attention_is_decoration(planted):
    found = []
    for mechanism in (True, False):
        model, inputs = Toy(mechanism, sharp=6.0 if mechanism else 1.0), (planted.graph, planted.feat["_N"])
        before = [p.clone() for p in model.parameters()]
        found.append(doubt.adversary(doubt.Subject(model, inputs), scales=[0.1], steps=40, lr=0.2))
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
        assert found[-1].numbers["mean change"] <= 0.05
    assert [one.holds for one in found] == [None, False]


def test_an_adversary_is_not_held_back_by_nodes_that_were_not_asked(planted):
    """Softmaxes of one edge, of nodes that are not asked, are no part of the mean divergence."""
    graph, feat = planted.graph, planted.feat["_N"]
    more = 40 * graph.num_nodes()
    ends = torch.arange(graph.num_nodes(), graph.num_nodes() + more)
    graph = dgl.add_edges(dgl.add_nodes(graph, more), ends, ends)
    inputs = graph, torch.cat([feat, feat[:1].expand(more, -1)])
    model = Toy(False, sharp=1.0)
    subject = doubt.Subject(model, inputs, list(range(len(feat))))
    few = doubt.adversary(doubt.Subject(model, (planted.graph, feat)), scales=[0.1], steps=25, lr=0.2)
    assert doubt.adversary(subject, scales=[0.1], steps=25, lr=0.2).numbers == pytest.approx(few.numbers, rel=1e-3)


def test_seeds_that_attend_alike_are_no_distance_apart(planted):
    model, inputs, subject = setting(planted, True)
    same = doubt.seeds_apart(subject, [Toy(True), Toy(True)])
    other = doubt.seeds_apart(subject, [Toy(True, sharp=0.5)])
    assert same.numbers["median divergence"] == 0 and other.numbers["median divergence"] > 0.1
    assert same.holds is None
    told = doubt.battery(model, inputs, others=[Toy(True, sharp=0.5)], tests=["seeds", "adversarial"], progress=False)
    assert f"two seeds differ by {other.numbers['median divergence']:.3f}" in told.tests[1].verdict


def test_permutation_leaves_out_who_has_nothing_to_permute():
    graph = dgl.graph(([0, 1, 2, 0], [3, 3, 3, 4]), num_nodes=5)
    feat = torch.rand(5, 2 * SIZE + CLASSES)
    subject = doubt.Subject(Toy(True), (graph, feat), [3, 4])
    assert doubt.permutation(subject).numbers["nodes"] == 1
    with pytest.raises(HgatError, match="expected an asked node with two in-edges in a softmax, got none"):
        doubt.permutation(doubt.Subject(Toy(True), (graph, feat), [4]))


def test_importance_of_a_plain_mean(planted):
    """Of a sum with weights the gradient of a factor on an edge is w_uv * (what it adds), and absence alike."""
    _, _, subject = setting(planted, True)
    gradient, absence = doubt.gradients(subject), doubt.leave_one_out(subject)
    assert gradient.shape == absence.shape == (planted.graph.num_edges(),)
    gold = planted.gold
    assert absence[gold].mean() > 5 * absence[~gold].mean() and gradient[gold].mean() > 5 * gradient[~gold].mean()
    few = doubt.leave_one_out(subject, most=1)
    assert int((~few.isnan()).sum()) == len(subject.nodes)


# ---- wrong calls ----


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"nodes": [0, 99]}, GraphError, "nodes: expected nodes from 0 to 47, got 99"),
        ({"nodes": 0}, HgatError, "nodes: expected 1 or more, got 0"),
        ({"nodes": []}, GraphError, "nodes: expected nodes with in-edges to attend to, got no node"),
        ({"kind": "numbers"}, HgatError, r"kind: expected one of \['classes', 'labels', 'rows'\], got 'numbers'"),
        ({"eps": 1.5}, HgatError, "eps: expected a number from 0 to 1, got 1.5"),
        ({"eps": 0.0, "tests": ["adversarial"]}, HgatError, "eps: expected a number above 0 and below 1, got 0.0"),
        ({"tests": ["permutatoin"]}, HgatError, r"got 'permutatoin'; did you mean 'permutation'\?"),
        ({"tests": ["belief"]}, HgatError, "tests: expected names out of uniform, .*, got 'belief'"),
        (
            {"gold": torch.ones(500) > 0},
            GraphError,
            r"gold: expected bool \[E\] of the 192 edges of .*, got .* \[500\]",
        ),
        ({"gold": {("a", "b", "a"): torch.ones(3) > 0}}, GraphError, "gold: expected relations of the graph, .* got"),
        ({"gold": torch.zeros(192) > 0, "tests": ["gold"]}, GraphError, "gold: expected a gold edge into one of"),
        ({"model": nn.Linear(2, 3)}, HgatError, "doubt: expected a model with attention over edges, got Linear"),
    ],
)
def test_wrong_calls_are_one_sentence(planted, change, error, match):
    model, inputs = Toy(True), (planted.graph, planted.feat["_N"])
    if "model" in change:
        model, inputs = change["model"], (torch.ones(4, 2),)
    options = {"tests": (), "progress": False} | {name: value for name, value in change.items() if name != "model"}
    with pytest.raises(error, match=match) as caught:
        doubt.battery(model, inputs, **options)
    assert "\n" not in str(caught.value)


def test_nodes_without_in_edges_and_channels_without_edges():
    graph = dgl.graph(([0, 1], [2, 2]), num_nodes=4)
    feat = torch.rand(4, 2 * SIZE + CLASSES)
    with pytest.raises(GraphError, match="nodes: expected nodes with in-edges to attend to, got node 3 without any"):
        doubt.Subject(Toy(True), (graph, feat), [2, 3])
    loops = dgl.add_self_loop(graph)
    with pytest.raises(HgatError, match="expected a model with attention over edges, got ACM, which has none"):
        acm = ACM(5, 3)
        doubt.Subject(acm, ACM.prepare(_facts(loops, torch.rand(4, 5))))
    with pytest.raises(HgatError, match="retrained: expected scores of the same seeds, got 2 and 1"):
        doubt.retrained([1.0, 2.0], [1.0])
    with pytest.raises(HgatError, match="seeds: expected a model of another seed or more, got none"):
        doubt.seeds_apart(doubt.Subject(Toy(True), (graph, feat)), [])


def _facts(graph, feat):
    return Facts(graph, {"_N": feat}, target="_N", num_classes=3)


RECIPE = """
title = "A toy"
[paper]
title = "None"
authors = "Nobody"
year = 2022
link = "https://arxiv.org/abs/2105.14491"
[data]
name = "planted-feature"
groups = 12
[graph]
self_loops = false
[model]
system = "gatv2"
hidden = 4
heads = [1]
decoder = true
[train]
metric = "accuracy"
epochs = 2
lr = 0.01
seeds = 1
[expect]
"""


def test_a_run_is_doubted_from_the_command_line(tmp_path, capsys):
    (tmp_path / "toy.toml").write_text(RECIPE, encoding="utf-8")
    run = tmp_path / "run"
    assert cli.main(["train", str(tmp_path / "toy.toml"), "--out", str(run)]) == 0
    capsys.readouterr()
    assert cli.main(["explain", str(run), "--doubt", "--nodes", "9", "--retrain"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A toy, seed 0: should its attention be believed?\nattention of 9 nodes in doubt")
    for title in ("Uniform attention, retrained", "Seed to seed", "Gold standard", "Deletion"):
        assert title in said
    files = [run / "explain" / name for name in ("doubt.csv", "doubt.png")]
    assert all(str(path) in said and path.stat().st_size > 500 for path in files)
    for options, said in (
        (["--doubt", "--nodes", "0"], "nodes: expected 1 or more"),
        (["--doubt", "--node", "3"], "--doubt: expected no --node beside it, got one"),
        (["--doubt", "--html", "page.html"], "--doubt: expected no --html beside it, got one"),
        (["--nodes", "9"], "--nodes: expected --doubt beside it, got none"),
        (["--tests", "uniform"], "--tests: expected --doubt beside it, got none"),
        (["--retrain"], "--retrain: expected --doubt beside it, got none"),
    ):
        assert cli.main(["explain", str(run), *options]) == 2
        assert said in capsys.readouterr().err


HAN_RECIPE = RECIPE.replace('name = "planted-feature"\ngroups = 12', 'name = "planted-path"').replace(
    'system = "gatv2"', 'system = "han"'
)
PATHS = '[graph]\npaths = { 0 = ["to 0", "from 0"], 1 = ["to 1", "from 1"], 2 = ["to 2", "from 2"] }'


def test_gold_of_the_graph_is_told_of_pairs_of_meta_paths(tmp_path, capsys):
    text = HAN_RECIPE.replace("[graph]", PATHS).replace("decoder = true\n", "")
    (tmp_path / "toy.toml").write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    assert cli.main(["train", str(tmp_path / "toy.toml"), "--out", str(run)]) == 0
    capsys.readouterr()
    assert cli.main(["explain", str(run), "--doubt", "--nodes", "20", "--tests", "uniform", "gold"]) == 0
    said = capsys.readouterr().out
    # Five neighbours on each of three paths, of which one decides.
    assert "Gold standard" in said and "correctness of uniform 0.067" in said and "left out" not in said


def test_gold_of_edges_that_are_not_attended_to_is_left_out(planted):
    _, _, subject = setting(planted, True)
    assert {*command._gold(planted, {}, subject.origin)} == {*subject.origin.relations}
    other = replace(subject.origin, relations=(("_N", "a path", "_N"),))
    assert command._gold(planted, {}, other) is None
    assert command._gold(replace(planted, gold=None), {}, subject.origin) is None


def test_gold_is_counted_by_node_as_training_does():
    """A node's softmaxes, one for each relation, count together."""
    torch.manual_seed(2)
    model, inputs = on_relations()
    subject = doubt.Subject(model, inputs)
    etype = subject.origin.relations[0]
    marks = {etype: torch.ones(int((subject.origin.relation == 0).sum())) > 0}
    told = doubt.battery(model, inputs, gold=marks, tests=["gold"], progress=False).tests[0].numbers
    gold, known = subject.origin.relation == 0, subject.row >= 0
    found = [correctness(w[known], gold[known], subject.row[known]) for w in subject.weights]
    assert told["correctness"] == pytest.approx(sum(found) / len(found))
