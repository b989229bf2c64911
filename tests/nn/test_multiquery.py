"""Several queries to one set or graph: capsules and hops against their equations, written here for one set."""

import pytest
import torch
from batches import SIZES as NODES
from batches import batch
from padded import SIZES, padded_sets

from hgat.errors import ShapeError
from hgat.graph import padded
from hgat.nn import (
    CapsuleAttention,
    CapsulePooling,
    GlobalAttentionPooling,
    MultiHopAttention,
    MultiHopPooling,
    Set2Set,
)

F, C = 5, 3


def softmax(e):
    return e.exp() / e.exp().sum()


def capsules(layer, x):
    """(p [C], r [C, F], alpha [n, C]) of one set."""
    alpha = torch.stack([softmax(x @ q) for q in layer.query], 1)
    found = alpha.T @ x
    p = 1 / (1 + (-(found * layer.weight).sum(1) - layer.bias).exp())
    return p, p.unsqueeze(1) * found, alpha


def test_capsules_of_sets():
    torch.manual_seed(0)
    layer = CapsuleAttention(F, C).double()
    x, mask = padded_sets(F)
    found, weights = layer(x, mask, get_attention=True)
    for b, n in enumerate(SIZES):
        p, r, alpha = capsules(layer, x[b, :n])
        torch.testing.assert_close((found.probability[b], found.reconstruction[b], weights[b, :n]), (p, r, alpha))
        torch.testing.assert_close(found.mean[b], x[b, :n].sum(0) / max(n, 1))
    assert (found.reconstruction[1] == 0).all() and (weights[~mask] == 0).all()


def test_capsules_of_graphs_are_those_of_their_nodes_as_sets():
    torch.manual_seed(0)
    layer, (graph, feat) = CapsulePooling(F, C).double(), batch(F)
    sets = CapsuleAttention(F, C).double()
    sets.load_state_dict(layer.state_dict())
    x, mask = padded(graph, feat.double())
    found, alpha = layer(graph, feat.double(), get_attention=True)
    wanted, weights = sets(x, mask, get_attention=True)
    torch.testing.assert_close(tuple(found), tuple(wanted))
    torch.testing.assert_close(alpha, weights[mask])


def test_the_loss_of_capsules():
    torch.manual_seed(0)
    layer, (x, mask), target = CapsuleAttention(F, C).double(), padded_sets(F), torch.tensor([2, 0, 1, 1])
    found = layer(x, mask)
    wanted = 0.0
    for b, right in enumerate(target.tolist()):
        y = [-1.0 if c == right else 1.0 for c in range(C)]
        of_p = 1 + sum(y[c] * found.probability[b, c] for c in range(C))
        of_r = 1 + sum(y[c] * (found.reconstruction[b, c] @ found.mean[b]) for c in range(C))
        wanted = wanted + max(of_p, 0 * of_p) + 0.5 * max(of_r, 0 * of_r)
    torch.testing.assert_close(found.loss(target, 0.5), wanted / len(target))
    right = found._replace(probability=torch.eye(C).double()[target], reconstruction=0 * found.reconstruction)
    assert right.loss(target, 0.0) == 0.0
    with pytest.raises(ShapeError, match=r"target: expected \[B\] = \[4\], got \[3\]"):
        found.loss(target[1:])
    with pytest.raises(ShapeError, match="target: expected the number of a class, int64, got torch.float32"):
        found.loss(target.float())


HOPS, Q = 3, 4


def hops(layer, query, x):
    """(c [F], alpha [S, n]) of one set, by the additive score."""
    model, found = layer.attend.attention_model, []
    context = x.sum(0) / max(len(x), 1)
    for _ in range(layer.num_hops):
        query = layer.transform(context.unsqueeze(0), query.unsqueeze(0)).squeeze(0)
        at = layer.attend.query_model.fc_query.weight @ torch.cat([query, context]) + model.bias[0]
        alpha = softmax(torch.tanh(x @ layer.attend.feature_model.fc_key.weight.T + at) @ model.attn[0])
        context = alpha @ x
        found.append(alpha)
    return context, torch.stack(found)


def test_hops_over_sets():
    torch.manual_seed(0)
    layer, query = MultiHopAttention(F, Q, HOPS).double(), torch.randn(4, Q).double()
    x, mask = padded_sets(F)
    out, alpha = layer(query, x, mask, get_attention=True)
    for b, n in enumerate(SIZES):
        torch.testing.assert_close((out[b], alpha[b, :, :n]), hops(layer, query[b], x[b, :n]))
    torch.testing.assert_close(layer(None, x, mask), layer(0 * query, x, mask))


@pytest.mark.parametrize("options", [{}, {"multi_dimensional": True}], ids=["one weight", "every value"])
def test_hops_over_graphs_are_those_over_their_nodes_as_sets(options):
    torch.manual_seed(0)
    (graph, feat), query = batch(F), torch.randn(len(NODES), Q)
    layer, sets = MultiHopPooling(F, Q, HOPS, **options), MultiHopAttention(F, Q, HOPS, **options)
    sets.load_state_dict(layer.state_dict())
    x, mask = padded(graph, feat)
    out, alpha = layer(graph, feat, query, get_attention=True)
    wanted, weights = sets(query, x, mask, get_attention=True)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(alpha, weights.transpose(1, 2)[mask])


def test_one_hop_is_a_plain_attention_with_a_known_query():
    torch.manual_seed(0)
    layer, (x, mask) = MultiHopAttention(F, Q, 1, score="general").double(), padded_sets(F)
    query = torch.randn(4, Q).double()
    mean = x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    asked = torch.cat([layer.transform(mean, query), mean], 1)
    torch.testing.assert_close(layer(query, x, mask), layer.attend(asked, x, mask=mask))


class Same(torch.nn.Module):
    def forward(self, context, query):
        return query


def test_one_hop_that_looks_at_the_first_query_alone_is_a_plain_readout():
    """And so is one step of Set2Set, whose query an LSTM makes of zeros."""
    torch.manual_seed(0)
    (graph, feat), set2set = batch(F), Set2Set(F, 1)
    query, _ = set2set.lstm(torch.zeros(1, len(NODES), 2 * F))
    layer = MultiHopPooling(F, F, 1, Same(), score="general", query="input", keys="input")
    with torch.no_grad():
        layer.attend.attention_model.weight.copy_(torch.eye(F, 2 * F))  # q of [q || c]
    out, alpha = layer(graph, feat, query.squeeze(0), get_attention=True)
    wanted, weights = set2set(graph, feat, get_attention=True)
    torch.testing.assert_close((out, alpha), (wanted[:, F:], weights))
    gate = torch.nn.Linear(F, 1, bias=False)
    with torch.no_grad():
        gate.weight.copy_(query[0, :1])
    torch.testing.assert_close(GlobalAttentionPooling(gate)(graph, feat), out)  # every graph has the same query


GRAPH, FEAT = batch(F)
FOUND = CapsuleAttention(F, C)(torch.randn(2, 3, F))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: CapsuleAttention(F, 0), "num_classes: expected 1 or more, got 0"),
        (lambda: MultiHopAttention(F, Q, 0), "num_hops: expected 1 or more, got 0"),
        (lambda: MultiHopAttention(F, Q, 1, 3), "transform: expected a module .* got int"),
        (lambda: MultiHopAttention(F, Q, 1, output_feats=3), "output_feats: expected one head whose rows are as wide"),
        (
            lambda: MultiHopAttention(F, Q, 1)(torch.randn(2, 3), torch.randn(2, 3, F)),
            r"query: expected \[B, Q\] = \[2, 4\], got \[2, 3\]",
        ),
        (
            lambda: MultiHopAttention(F, Q, 1, torch.nn.Bilinear(F, Q, 3))(None, torch.randn(2, 3, F)),
            r"transform\(context, query\): expected \[B, Q\] = \[2, 4\], got \[2, 3\]",
        ),
        (
            lambda: MultiHopPooling(F, Q, 1, alignment="local", window=2.0),
            "window: expected none over nodes, .* got 2.0",
        ),
        (lambda: MultiHopAttention(F, Q, 1, query="none"), "query: expected one of what is given, got 'none'"),
        (lambda: FOUND.loss(torch.tensor([0, C])), f"target: expected classes from 0 to {C - 1}, got 0 to {C}"),
        (lambda: FOUND.loss(torch.tensor([0, -1])), f"target: expected classes from 0 to {C - 1}, got -1 to 0"),
        (
            lambda: FOUND.loss(torch.tensor([True, False])),
            "target: expected the number of a class, int64, got torch.bool",
        ),
        (lambda: MultiHopPooling(F, Q, 1)(GRAPH, FEAT[:, 1:]), r"feat: expected \[N, F\] = \[any, 5\], got \[24, 4\]"),
        (lambda: CapsulePooling(F, C)(GRAPH, FEAT[1:]), r"feat: expected \[N, F\] = \[24, any\], got \[23, 5\]"),
        (lambda: CapsuleAttention(F, C)(FEAT), r"x: expected \[B, N, F\] = \[any, any, 5\], got \[24, 5\]"),
    ],
)
def test_wrong_calls_are_one_sentence(call, match):
    with pytest.raises(ShapeError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
