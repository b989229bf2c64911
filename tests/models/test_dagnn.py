"""DAGNN as a whole: its equations, the perceptron that it is without hops, and rows that need no graph."""

from pathlib import Path

import dgl
import pytest
import torch
from systems import IN
from toys import neighbours

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import DataError, HgatError, RecipeError
from hgat.models import DAGNN, Facts
from hgat.tasks import find
from hgat.train.fit import Training
from hgat.train.recipe import Train
from zoo import build

CLASSES = 3


def facts(graph=None, feat=None):
    graph = build("homogeneous") if graph is None else graph
    feat = torch.randn(graph.num_nodes(), IN) if feat is None else feat
    return Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)


def mlp(model, x):
    first, second = model.mlp.fc_in, model.mlp.fc_out
    return torch.relu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias


def test_equations():
    """From the graph to the logits: its own self-loops go, one is added, and hops are powers of a dense matrix."""
    shown = facts()
    model = DAGNN.build(shown, DAGNN.prepare(shown), hops=4, hidden=5).eval()
    x, (src, dst) = shown.feat["_N"], shown.graph.edges()
    a = torch.zeros(23, 23).index_put((dst, src), torch.ones(len(src)), accumulate=True).fill_diagonal_(1)
    a = a / (a.sum(1, keepdim=True) * a.sum(0)).sqrt()
    hops = torch.stack([torch.linalg.matrix_power(a, k) @ mlp(model, x) for k in range(5)], 1)
    gate = model.conv.fuse.project
    s = torch.sigmoid(hops @ gate.weight[0] + gate.bias)
    torch.testing.assert_close(model(*DAGNN.prepare(shown)), (s[..., None] * hops).sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.attention(*DAGNN.prepare(shown)), s, atol=1e-5, rtol=1e-5)


def test_without_hops_it_is_the_perceptron():
    shown = facts()
    model = DAGNN.build(shown, DAGNN.prepare(shown), hops=0).eval()
    torch.testing.assert_close(model(*DAGNN.prepare(shown)), mlp(model, shown.feat["_N"]))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"mlp"}


def test_words_are_read_as_the_whole_rows_are():
    """Rows that are mostly zeros go another way, which gives the same."""
    x = torch.zeros(23, 60)
    x[torch.arange(23), torch.arange(23) * 2] = torch.rand(23)
    shown = facts(feat=x)
    graph, feat, weight = DAGNN.prepare(shown)
    assert feat["_N"].shape == (23, 60) and feat["_N"].value.shape == (23,)
    model = DAGNN.build(shown, (graph, feat, weight), hops=2).eval()
    torch.testing.assert_close(model(graph, feat, weight), model(graph, x, weight), atol=1e-6, rtol=1e-5)


def test_hops_that_are_prepared_train_in_rows():
    shown = facts()
    inputs = DAGNN.prepare(shown, precompute=3)
    model = DAGNN.build(shown, inputs, hidden=5).eval()
    assert inputs[0] is None and model.conv.hops == 3
    weight = hgraph.normalized(DAGNN.prepare(shown)[0])
    spread = ops.propagate(DAGNN.prepare(shown)[0], shown.feat["_N"], weight, 3, every=True)
    whole = model(*inputs)
    torch.testing.assert_close(whole, model.conv(None, [mlp(model, x) for x in spread]), atol=1e-5, rtol=1e-5)
    rows, query = model.sampled(inputs, torch.tensor([5, 2]), None)
    torch.testing.assert_close(model(*rows, *query), whole[[5, 2]])
    torch.testing.assert_close(model.whole(inputs, 7), whole)
    with pytest.raises(RecipeError, match=r"task.fanout: expected none for DAGNN, .*, got \[2\]"):
        model.sampled(inputs, torch.tensor([5]), [2])
    with pytest.raises(RecipeError, match="graph.precompute: expected model.hops of fixed propagation, got 3"):
        DAGNN.build(shown, inputs, hops=5)
    with pytest.raises(RecipeError, match="graph.precompute: expected model.hops of fixed propagation, got 3"):
        DAGNN.build(shown, inputs, propagation="gat")
    with pytest.raises(RecipeError, match="task.batch: expected it of DAGNN beside graph.precompute"):
        model.sampled(DAGNN.prepare(shown), torch.tensor([5]), None)


def test_rows_of_hops_are_trained_on_in_batches():
    """The toy's classes are told by its neighbours: gates over hops that need no graph any more learn them."""
    task = find("nodes")(neighbours(), batch=30)
    inputs = DAGNN.prepare(task.shown(), precompute=2)
    train = Train(metric="accuracy", epochs=20, lr=0.02)
    seen = []

    def build(task, inputs):
        model = DAGNN.build(task.shown(), inputs["train"], hidden=16, feat_drop=0.1, hidden_drop=0.1)
        model.register_forward_pre_hook(lambda _, given: seen.append((given[0], len(given[1][0]))))
        return model

    training = Training(task.for_seed(0), train, lambda task: dict.fromkeys(("train", "val", "test"), inputs), build)
    while training.step():
        pass
    assert training.finish()["test"] > 70 and {(None, 30)} <= set(seen) and all(g is None for g, _ in seen)


def test_parameters_are_as_many_as_the_equations_have():
    d, h, c = 11, 6, 4
    count = sum(p.numel() for p in DAGNN(d, c, hidden=h).parameters())
    assert count == (d + 1) * h + (h + 1) * c + c + 1


def test_hops_on_disk_train_as_in_memory(tmp_path):
    """In batches of rows of memory-mapped files, to the same bits; what is prepared again is read again."""
    shown, folder = facts(), str(tmp_path / "hops")
    losses = []
    for inputs in (DAGNN.prepare(shown, precompute=3), DAGNN.prepare(shown, precompute=3, hop_folder=folder)):
        torch.manual_seed(0)
        model = DAGNN.build(shown, inputs, hidden=5)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for ids in torch.arange(23).split(6):
            rows, query = model.sampled(inputs, ids)
            loss = model(*rows, *query).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:4] == losses[4:] and len(set(losses)) == 4
    assert folder in Path("/proc/self/maps").read_text()
    with pytest.raises(DataError, match="hops of other hops; take another folder"):
        DAGNN.prepare(shown, precompute=2, hop_folder=folder)
    with pytest.raises(RecipeError, match="graph.hop_folder: expected it beside graph.precompute, got 'x' without"):
        DAGNN.prepare(shown, hop_folder="x")


def test_isolated_nodes_directed_and_double_edges():
    """A node without neighbours keeps to itself; an edge that comes twice counts twice, as everywhere."""
    graph = dgl.graph(([0, 0, 1], [1, 1, 2]), num_nodes=5)
    x = torch.randn(5, IN)
    shown = facts(graph, x)
    inputs = DAGNN.prepare(shown)
    model = DAGNN.build(shown, inputs, hops=2).eval()
    z, s = mlp(model, x), model.attention(*inputs)
    torch.testing.assert_close(model(*inputs)[3], (s[3, :, None] * z[3]).sum(0))
    other = DAGNN.prepare(shown, undirected=True)
    assert other[0].num_edges() == 9 and not torch.allclose(model(*other)[0], model(*inputs)[0])
    with pytest.raises(HgatError, match="graph: expected at least one edge, got none"):
        DAGNN.prepare(facts(build("empty")))
