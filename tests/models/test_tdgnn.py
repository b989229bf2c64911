"""TDGNN as a whole: its equations, what each mix and decay acts on, and a class that one shell tells."""

import dgl
import pytest
import torch
from systems import IN

from hgat import ops
from hgat.errors import HgatError
from hgat.graph import hop_shells, shells
from hgat.models import TDGNN, Facts
from zoo import build

CLASSES = 3


def facts(graph=None, feat=None):
    graph = build("hub") if graph is None else graph
    feat = torch.randn(graph.num_nodes(), IN) if feat is None else feat
    return Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)


def restated(model, shown, hops, diffusion=True, theta=None, **options):
    """(H^0 .. H^L stacked, their sum with theta) on dense shells."""
    x, first, second = shown.feat["_N"], model.mlp.fc_in, model.mlp.fc_out
    h = [torch.relu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias]
    for graph, weight in hop_shells(shown.graph, hops, **options):
        src, dst = (ends.long() for ends in graph.edges(order="eid"))
        a = torch.zeros(len(x), len(x)).index_put((dst, src), weight)
        if not diffusion:
            a = (a != 0) * (a.sum(1) / (a != 0).sum(1).clamp_min(1))[:, None]
        h.append(a @ h[0])
    h = torch.stack(h)
    return h, ((torch.ones(len(h)) if theta is None else theta)[:, None, None] * h).sum(0)


@pytest.mark.parametrize("options", [{}, {"self_loop": "first"}, {"undirected": False}, {"keep": 3}], ids=str)
@pytest.mark.parametrize("diffusion", [True, False])
def test_equations(options, diffusion):
    shown = facts()
    inputs = TDGNN.prepare(shown, hops=[1, 3], horizon=5, **options)
    options = {"horizon": 5, **options}
    s, w = (TDGNN.build(shown, inputs, mix=m, hidden=5, diffusion=diffusion).eval() for m in ("sum", "scalar"))
    torch.testing.assert_close(s(*inputs), restated(s, shown, [1, 3], diffusion, **options)[1], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        w.theta.copy_(torch.tensor([0.5, -1.0, 2.0]))
    want = restated(w, shown, [1, 3], diffusion, w.theta, **options)[1]
    got, cotangent = w(*inputs), torch.randn_like(want)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for one, due in zip(*(torch.autograd.grad(x, w.parameters(), cotangent) for x in (got, want)), strict=True):
        torch.testing.assert_close(one, due, atol=1e-4, rtol=1e-4)


def test_attention_is_a_softmax_over_the_hops_of_each_node():
    shown = facts()
    inputs = TDGNN.prepare(shown, hops=3)
    model = TDGNN.build(shown, inputs, mix="attention").eval()
    h, _ = restated(model, shown, 3)
    beta = (h @ model.fuse.project.weight[0]).softmax(0)  # [L + 1, N]
    torch.testing.assert_close(model(*inputs), (beta[..., None] * h).sum(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.attention(*inputs), beta.T, atol=1e-5, rtol=1e-5)
    (share,) = model.attended(*inputs)
    assert share.names == ("shell 0", "shell 1", "shell 2", "shell 3")


def test_uniform_attention_and_equal_hops_are_the_sum():
    shown = facts()
    inputs = TDGNN.prepare(shown)
    model = TDGNN.build(shown, inputs).eval()
    with torch.no_grad():
        model.theta.uniform_(2, 3)
    other = TDGNN.build(shown, inputs, **TDGNN.ablations["equal_hops"].settings).eval()
    other.mlp.load_state_dict(model.mlp.state_dict())
    with ops.uniform_attention():
        torch.testing.assert_close(model(*inputs), other(*inputs))
    assert not torch.allclose(model(*inputs), other(*inputs)) and other.attended(*inputs) == []


def test_hops_decay_by_a_rate_of_their_own():
    shown = facts()
    inputs = TDGNN.prepare(shown)
    model = TDGNN.build(shown, inputs, decay_out=0.0, decay_hops=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.groups(), lr=0.1, weight_decay=0.2)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrunk = {"mlp.fc_in": 0.98, "mlp.fc_out": 1.0, "theta": 0.95}
    for name, p in model.named_parameters():
        (factor,) = [f for start, f in shrunk.items() if name.startswith(start)]
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_splits_share_their_shells(monkeypatch):
    """Two tasks on the same graph: the second finds the shells of the first, unless it asks for others."""
    graph, made = build("hub"), []
    make = shells._block
    monkeypatch.setattr(shells, "_block", lambda *given: made.append(1) or make(*given))
    one, two = TDGNN.prepare(facts(graph)), TDGNN.prepare(facts(graph))
    assert len(made) == 1 and all(a[0] is b[0] for a, b in zip(one[0], two[0], strict=True))
    TDGNN.prepare(facts(graph), self_loop="first")
    assert len(made) == 2


def test_isolated_nodes_and_graphs_without_edges():
    shown = facts(dgl.graph(([0, 1], [1, 2]), num_nodes=5))
    inputs = TDGNN.prepare(shown, hops=2, horizon=3, self_loop="first")
    model = TDGNN.build(shown, inputs, mix="sum").eval()
    alone = model.mlp(inputs[1])[4]
    torch.testing.assert_close(model(*inputs)[4], alone * (1 + 3))  # itself, and three powers of a loop of weight 1
    with pytest.raises(HgatError, match="graph: expected at least one edge, got none"):
        TDGNN.prepare(facts(build("empty")))


WRONG = {
    "mix: expected one of sum, scalar, attention, got 'mean'": lambda m, i: TDGNN(IN, CLASSES, 4, mix="mean"),
    "decay_hops: expected 0 or more, got -1": lambda m, i: TDGNN(IN, CLASSES, 4, decay_hops=-1),
    "shells: expected a list of 4, got 3": lambda m, i: m(i[0][:3], i[1]),
    r"feat: expected \[N, F\]": lambda m, i: m(i[0], torch.randn(37, IN - 1)),
    r"mean: expected \[N\]": lambda m, i: m(i[0], torch.randn(36, IN)),
    "feat_drop: expected": lambda m, i: TDGNN(IN, CLASSES, 4, feat_drop=1.5),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    shown = facts()
    inputs = TDGNN.prepare(shown)
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence](TDGNN.build(shown, inputs), inputs)
