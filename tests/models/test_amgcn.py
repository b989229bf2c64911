"""AM-GCN as a whole: its equations, its losses against all pairs of nodes, a task that similar features solve."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import ops
from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.explain import shares
from hgat.models import AMGCN, Facts
from hgat.models.amgcn import consistency, disparity
from zoo import build

N, IN, CLASSES = 23, 7, 3


def prepared(settings=None, x=None, graph=None):
    x = torch.rand(N, IN, generator=torch.Generator().manual_seed(3)) if x is None else x
    shown = Facts(build("homogeneous") if graph is None else graph, {"_N": x}, target="_N", num_classes=CLASSES)
    return shown, AMGCN.prepare(shown, **(settings or {}))


def dense(view):
    """A view as a matrix [N, N], the destination first."""
    return view.spread(torch.eye(N))


def restated(model, a_t, a_f, x, even=False):
    """The equations on dense matrices: (logits, [Z_T, Z_F, Z_CT, Z_CF])."""

    def gcn(net, a):
        h = torch.relu(a @ x @ net.first.weight.T + net.bias[0])
        return a @ h @ net.second.weight.T + net.bias[1]

    z = [gcn(model.of_graph, a_t), gcn(model.of_features, a_f)]
    common = [] if model.of_both is None else [gcn(model.of_both, a_t), gcn(model.of_both, a_f)]
    channels = [*z, sum(common) / 2] if common else z
    own = model.fuse.project if isinstance(model.fuse.project, torch.nn.ModuleList) else [model.fuse.project] * 3
    e = torch.stack([torch.tanh(c @ own[k][0].weight.T + own[k][0].bias) @ own[k][2].weight[0]
                     for k, c in enumerate(channels)], 1).exp()  # fmt: skip
    alpha = torch.full_like(e, 1 / len(channels)) if even else e / e.sum(1, keepdim=True)
    fused = sum(alpha[:, k : k + 1] * c for k, c in enumerate(channels))
    return fused @ model.classify.weight.T + model.classify.bias, [*z, *common]


SETTINGS = [
    ({}, {}),
    ({"norm": "both", "metric": "heat"}, {"scorer": "per_channel", "loss_form": "paper", "gamma": 0.1, "beta": 2.0}),
    ({"feature_graph": "dense"}, {"common": False, "hidden": 5, "out": 11}),
    ({"feature_graph": "dense", "norm": "both"}, {"gamma": 0.7, "beta": 0.3}),
]


@pytest.mark.parametrize(("graph", "settings"), SETTINGS, ids=str)
def test_equations(graph, settings):
    shown, inputs = prepared(graph)
    x, model = shown.feat["_N"], AMGCN(IN, CLASSES, **{"hidden": 11, "out": 5, **settings}).eval()
    a_t, a_f = dense(inputs[0]), dense(inputs[1])
    want, z = restated(model, a_t, a_f, x)
    torch.testing.assert_close(model(*inputs), want, atol=1e-5, rtol=1e-5)
    with ops.uniform_attention():
        torch.testing.assert_close(model(*inputs), restated(model, a_t, a_f, x, even=True)[0], atol=1e-5, rtol=1e-5)
    loss = want.square().mean()
    if len(z) == 4:
        r, form = torch.eye(N) - 1 / N, model.loss_form
        centred = [c if form == "paper" else r @ c for c in z[2:]]
        s = [F.normalize(c, dim=1) @ F.normalize(c, dim=1).T for c in centred]
        hsic = [torch.trace(r @ z[k] @ z[k].T @ r @ z[k + 2] @ z[k + 2].T) for k in (0, 1)]
        apart = (s[0] - s[1]).square()
        loss = loss + model.gamma * (apart.sum() if form == "paper" else apart.mean())
        loss = loss + model.beta * (sum(hsic) / (N - 1) ** 2 if form == "paper" else sum(hsic) / 2)
    got = model.objective(lambda answer, batch: answer.square().mean(), inputs, None)
    torch.testing.assert_close(got, loss, atol=1e-4, rtol=1e-4)
    for one, other in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (got, loss)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_losses_are_those_of_all_pairs_and_need_no_table_of_them():
    z = [torch.randn(N, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    r = torch.eye(N, dtype=torch.float64) - 1 / N
    similar = [F.normalize(v, dim=1) @ F.normalize(v, dim=1).T for v in z[:2]]
    torch.testing.assert_close(consistency(*z[:2], "paper"), (similar[0] - similar[1]).square().sum())
    assert consistency(z[0], z[0] * 3, "paper").abs() < 1e-9  # of rows, length says nothing
    moved = consistency(z[0], z[0] + 5.0)
    assert moved.abs() < 1e-9 < consistency(z[0], z[0] + 5.0, "paper")  # the code's knows no common shift
    traces = [torch.trace(r @ z[k] @ z[k].T @ r @ z[k + 1] @ z[k + 1].T) for k in (0, 2)]
    pairs = [(z[0], z[1]), (z[2], z[3])]
    torch.testing.assert_close(disparity(pairs), sum(traces) / 2)
    torch.testing.assert_close(disparity(pairs, "paper"), sum(traces) / (N - 1) ** 2)
    kept, large = [], [torch.randn(10_007, 3, requires_grad=True) for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        (consistency(*large) + disparity([tuple(large)])).backward()
    assert max(kept) <= 10_007 * 3


def test_both_views_have_self_loops_and_rows_that_sum_to_one():
    _, (topology, alike, _) = prepared()
    for view in (topology, alike):
        matrix = dense(view)
        assert (matrix.diagonal() > 0).all()
        torch.testing.assert_close(matrix.sum(1), torch.ones(N))
    _, (topology, alike, _) = prepared({"norm": "both"})
    torch.testing.assert_close(dense(topology), dense(topology).T)
    torch.testing.assert_close(dense(alike), dense(alike).T)


def test_the_dense_view_is_all_cosines_and_is_never_formed():
    shown, (_, alike, _) = prepared({"feature_graph": "dense"})
    rows = F.normalize(shown.feat["_N"], dim=1)
    s = rows @ rows.T
    torch.testing.assert_close(dense(alike), s / s.sum(1, keepdim=True))
    assert max(alike.left.numel(), alike.right.numel()) == N * IN
    x = shown.feat["_N"].clone()
    x[4] = 0.0
    _, inputs = prepared({"feature_graph": "dense"}, x)
    assert (dense(inputs[1])[4] == 0).all() and AMGCN(IN, CLASSES)(*inputs).isfinite().all()


def test_the_features_graph_solves_what_the_graph_does_not():
    """Links are random; features are alike within a class in one of two ways, which a linear map does not see."""
    generator = torch.Generator().manual_seed(0)
    nodes = 120
    label, way = torch.arange(nodes) % 2, torch.arange(nodes) // 2 % 2
    x = 0.3 * torch.randn(nodes, 6, generator=generator)
    x[:, 0] += 2.0 * (way * 2 - 1)
    x[:, 1] += 2.0 * ((way ^ label) * 2 - 1)
    src, dst = torch.randint(0, nodes, (2, 300), generator=generator)
    shown = Facts(dgl.graph((src, dst), num_nodes=nodes), {"_N": x}, target="_N", num_classes=2)
    inputs, train = AMGCN.prepare(shown), torch.arange(0, 40)
    torch.manual_seed(0)
    model = AMGCN.build(shown, inputs, hidden=16, out=8, hidden_drop=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        loss = model.objective(lambda out, _: F.cross_entropy(out[train], label[train]), inputs, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = model.eval()(*inputs).argmax(1) == label
    (share,) = shares(model, *inputs)
    assert right[40:].double().mean() > 0.95
    assert share.names == ("topology", "features", "common") and share.attention[1] > share.attention[0]


def test_bad_input_is_a_sentence_or_a_documented_result():
    x = torch.rand(N, IN)
    nan = x.clone()
    nan[3, 1] = float("nan")
    for settings, features, sentence in (
        ({"k": N}, x, f"k: expected fewer neighbours than the {N} rows, got {N}"),
        ({}, torch.ones(N, IN), f"x: expected rows of which some differ, got {N} alike"),
        ({}, nan, "x: expected finite features to compare, got others in row 3"),
        ({"feature_graph": "dense"}, nan, "graph.feature_graph: expected features not below zero"),
        ({"feature_graph": "dense"}, x - 0.5, "graph.feature_graph: expected features not below zero"),
    ):
        with pytest.raises(GraphError, match=sentence):
            prepared(settings, features)
    with pytest.raises(GraphError, match="graph: expected at least one edge, got none"):
        prepared(x=x, graph=dgl.graph(([], []), num_nodes=N))
    lonely = dgl.graph(([0, 0, 1], [1, 1, 2]), num_nodes=N)  # listed twice, one way, and nodes without any
    _, inputs = prepared(x=x, graph=lonely)
    matrix = dense(inputs[0])
    assert matrix[0, :2].tolist() == [0.5, 0.5] and matrix[5].tolist() == [float(j == 5) for j in range(N)]
    assert AMGCN(IN, CLASSES)(*inputs).isfinite().all()
    with pytest.raises(RecipeError, match="model.scorer: expected 'shared' or 'per_channel', got 'own'"):
        AMGCN(IN, CLASSES, scorer="own")
    with pytest.raises(ShapeError, match="gamma: expected 0 or more, got -1"):
        AMGCN(IN, CLASSES, gamma=-1)
    with pytest.raises(ShapeError, match="feat: expected"):
        AMGCN(IN + 1, CLASSES)(*inputs)
