"""SuperGAT as a whole: its loss of edges, and where the pairs come from that are none."""

import re

import dgl
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from systems import CLASSES, IN
from toys import CASES

from hgat import ops
from hgat.errors import ShapeError
from hgat.models import Batch, Facts
from hgat.models import supergat as module
from hgat.models.supergat import SuperGAT
from hgat.tasks.nodes import Nodes

STILL = {"feat_drop": 0.0, "attn_drop": 0.0}
CASE = next(case for case in CASES if str(case) == "supergat-nodes")


def nothing(answer, batch):
    """A question that is always answered well."""
    return 0.0 * answer.sum()


def setting(graph, width=IN, **settings):
    """(inputs, a model in training mode) for a graph with random features."""
    generator = torch.Generator().manual_seed(5)
    feat = torch.randn(graph.num_nodes(), width, generator=generator)
    shown = Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)
    inputs = SuperGAT.prepare(shown)
    return inputs, SuperGAT.build(shown, inputs, **settings).train()


def ring(nodes=40, away=(1, 2, 3)):
    """Each node sends to the next ones, never the other way."""
    src = torch.arange(nodes).repeat(len(away))
    dst = (src + torch.tensor(away).repeat_interleave(nodes)) % nodes
    return dgl.graph((src, dst), num_nodes=nodes)


@pytest.fixture
def watched(monkeypatch):
    """(pairs of every layer's call, arguments of every edge loss), as they come."""
    pairs, losses = [], []

    def forward(layer, graph, feat, *args, **options):
        pairs.append((graph, options.get("pairs")))
        return original(layer, graph, feat, *args, **options)

    def edge_loss(edges, others):
        losses.append((edges, others))
        return loss(edges, others)

    original, loss = module.SuperGATConv.forward, module.edge_loss
    monkeypatch.setattr(module.SuperGATConv, "forward", forward)
    monkeypatch.setattr(module, "edge_loss", edge_loss)
    return pairs, losses


def key(graph, nodes, src, dst):
    if graph.is_block:
        src, dst = graph.srcdata[dgl.NID][src], graph.dstdata[dgl.NID][dst]
    return set((src * nodes + dst).tolist())


@pytest.mark.parametrize("score", ["go", "dp", "sd", "mx"])
def test_the_objective_restated(score, watched):
    graph = dgl.to_bidirected(ring())
    inputs, model = setting(graph, heads=[2, 3], score=score, edge_loss=0.7, edge_share=1.0, non_edges=0.25, **STILL)
    label = torch.arange(40) % CLASSES
    batch = Batch(rows=torch.arange(9), label=label[:9])
    got = model.objective(lambda out, b: F.cross_entropy(out[b.rows], b.label), inputs, batch)
    graph, h, expected = inputs[0], inputs[1]["_N"], 0.0
    src, dst = graph.edges(order="eid")
    for layer, (_, pairs) in zip(model.layers, list(watched[0]), strict=True):
        heads, width = layer._num_heads, layer._out_feats
        z = (h @ layer.fc.weight.t()).view(40, heads, width)
        probability = []
        for u, v in ((src, dst), pairs.edges(order="eid")):
            phi = (z[u] * z[v]).sum(-1) / (width**0.5 if score == "sd" else 1.0)
            if score == "go":
                phi = (z[u] * layer.attn_l + z[v] * layer.attn_r).sum(-1)
            probability.append(torch.sigmoid(phi.mean(1)))
        assert [len(p) for p in probability] == [280, 70]
        expected = expected - 0.7 * torch.cat([probability[0].log(), (1 - probability[1]).log()]).mean()
        z = layer(graph, h)
        h = z.mean(1) if heads == 3 else z.flatten(1)
    expected = expected + F.cross_entropy(h[:9], label[:9])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_pairs_are_drawn_afresh_and_never_edges(watched):
    inputs, model = setting(ring(), **STILL)
    graph = inputs[0]
    src, dst = graph.edges()
    edges = key(graph, 40, src, dst) | key(graph, 40, dst, src)  # the other way is no non-edge either
    assert len(edges) == 280
    seen = []
    for _ in range(20):
        model.objective(nothing, inputs, Batch())
    for _, pairs in watched[0]:
        u, v = pairs.edges()
        assert len(u) == int(0.5 * 0.8 * 160) == 64
        seen.append(key(pairs, 40, u, v))
        assert not seen[-1] & edges
    assert len(seen) == 40 and len(set(map(frozenset, seen))) == 40
    assert set().union(*seen) <= set(range(1600)) - edges
    for at_edges, _ in watched[1]:
        assert len(at_edges) == int(0.8 * 160) == 128
    assert not torch.equal(watched[1][0][0], watched[1][2][0])  # the same weights, other edges


def test_pairs_are_uniform_over_the_non_edges(watched):
    inputs, model = setting(ring(), heads=[1], non_edges=100.0, **STILL)
    model.objective(nothing, inputs, Batch())
    u, v = watched[0][0][1].edges()
    count = torch.bincount(u * 40 + v, minlength=1600)
    count = count[count > 0].double()
    assert len(count) == 1600 - 280
    mean = 100 * 128 / 1320
    assert count.mean() == pytest.approx(mean) and count.var() == pytest.approx(mean, rel=0.25)  # Poisson's


def test_the_edges_of_a_step_are_all_different():
    inputs, model = setting(ring(), heads=[1], edge_share=0.5, non_edges=0.0, **STILL)
    edges, pairs = model._drawn(inputs[0], inputs[0], torch.device("cpu"))
    assert len(set(edges.tolist())) == 80 and set(edges.tolist()) <= set(range(160)) and pairs.num_edges() == 0
    counts = torch.zeros(160)
    for _ in range(400):
        counts[model._drawn(inputs[0], inputs[0], torch.device("cpu"))[0]] += 1
    assert 140 < counts.min() and counts.max() < 260


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_graphs_without_non_edges_and_steps_without_edges(share):
    whole = dgl.graph((torch.arange(5).repeat(5), torch.arange(5).repeat_interleave(5)))
    inputs, model = setting(whole, edge_share=share, **STILL)
    found = model.objective(nothing, inputs, Batch())
    assert torch.isfinite(found) and bool(found > 0) == bool(share)


def test_nothing_is_drawn_in_evaluation_or_without_a_weight(watched):
    inputs, model = setting(ring())
    state = torch.get_rng_state()
    model.eval()
    assert model.objective(nothing, inputs, Batch()) == 0
    model(*inputs), model.whole(inputs)
    assert torch.equal(torch.get_rng_state(), state)
    model.whole(inputs, 7)
    off = setting(ring(), edge_loss=0.0)[1]
    assert off.objective(nothing, inputs, Batch()) == 0
    assert not watched[1] and all(pairs is None for _, pairs in watched[0])


def test_the_generator_decides():
    """A run that goes on from a saved state of PyTorch's generator draws what it would have drawn."""
    inputs, model = setting(ring())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (model.objective(nothing, inputs, Batch()) for _ in range(2))
    torch.set_rng_state(state)
    again = setting(ring())[0]  # prepared once more
    torch.set_rng_state(state)
    assert model.objective(nothing, again, Batch()) == first != second


def test_batches_draw_pairs_of_their_blocks_that_are_no_edges_of_the_whole(watched):
    data = CASE.toy.data(0)
    task = Nodes(data, batch=40, fanout=[2, 3])
    inputs = SuperGAT.prepare(task.shown())
    torch.manual_seed(0)
    model = SuperGAT.build(task.shown(), inputs).train()
    nodes, total = data.graph.num_nodes(), 0
    src, dst = inputs[0].edges()
    edges = key(inputs[0], nodes, src, dst)
    for batch in task.batches(model, inputs):
        model.objective(task.loss, inputs, batch).backward()
    for block, pairs in watched[0]:
        assert block.is_block
        u, v = pairs.edges()
        assert len(u) == int(0.5 * 0.8 * block.num_edges()) > 0
        found = key(block, nodes, u, v)
        assert not found & edges
        total += len(found)
    assert len(watched[0]) == 6 and total > 100


def communities(seed=0):
    """Three circles of friends; three of a node's many features say to which it belongs."""
    generator = torch.Generator().manual_seed(seed)
    nodes = 90
    circle = torch.arange(nodes) % 3
    edges = (torch.rand(nodes, nodes, generator=generator) < 0.3) & (circle[:, None] == circle[None])
    graph = dgl.to_bidirected(dgl.graph(edges.nonzero(as_tuple=True), num_nodes=nodes))
    return graph, torch.cat([torch.eye(3)[circle], torch.randn(nodes, 20, generator=generator)], 1)


@pytest.mark.parametrize("score", ["dp", "sd", "mx", "go"])
def test_the_edge_loss_alone_learns_to_tell_edges(score):
    graph, feat = communities()
    shown = Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)
    inputs = SuperGAT.prepare(shown)
    torch.manual_seed(1)
    model = SuperGAT.build(shown, inputs, score=score, heads=[4], non_edges=1.0, **STILL).train()
    every = torch.arange(90)
    pairs = dgl.graph((every.repeat(90), every.repeat_interleave(90)))
    label = inputs[0].has_edges_between(*pairs.edges()).numpy()

    def auc():
        with torch.no_grad():
            _, (_, phi) = model.layers[0](inputs[0], feat, pairs=pairs)
        return roc_auc_score(label, phi.mean(1).numpy())

    before, optimizer = auc(), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.objective(nothing, inputs, Batch()).backward()
        optimizer.step()
    # Who is of one circle scores 0.91, the rest is learned by heart. A sum of one score per end can say neither.
    assert auc() < 0.65 if score == "go" else before < 0.7 and auc() > 0.85


def test_uniform_attention_keeps_the_edge_loss(watched):
    inputs, model = setting(ring(), **STILL)
    with ops.uniform_attention():
        model.objective(nothing, inputs, Batch()).backward()
    assert len(watched[1]) == 2
    assert all((layer.fc.weight.grad != 0).any() for layer in model.layers)
    assert all(layer.attn_l.grad is None or not layer.attn_l.grad.any() for layer in model.layers)


def test_which_pairs_are_edges_is_known_before_training(monkeypatch):
    inputs, model = setting(ring())
    monkeypatch.setattr(module.torch, "unique", lambda *a: pytest.fail("built in training"))
    model.objective(nothing, inputs, Batch())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("edge_loss", -1.0, "0 or more"),
        ("non_edges", -0.1, "0 or more"),
        ("edge_share", 1.5, "a number from 0 to 1"),
    ],
)
def test_wrong_settings(name, value, expected):
    with pytest.raises(ShapeError, match=re.escape(f"{name}: expected {expected}, got {value}")):
        SuperGAT(IN, CLASSES, **{name: value})


@pytest.mark.parametrize("score", ["go", "dp", "sd", "mx"])
def test_the_edge_loss_reaches_every_projection_without_a_labelled_node(score):
    inputs, model = setting(ring(), score=score)
    model.objective(nothing, inputs, Batch()).backward()
    for layer in model.layers:
        assert layer.fc.weight.grad.isfinite().all() and layer.fc.weight.grad.abs().sum() > 0
