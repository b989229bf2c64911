"""Attention on several levels against its equations, written here for one whole."""

import dgl
import pytest
import torch
from padded import SIZES, padded_sets

from hgat.errors import GraphError, ShapeError
from hgat.nn import (
    AttentionViaAttention,
    GeneralAttention,
    GlobalAttentionPooling,
    HierarchicalAttention,
    HierarchicalPooling,
)

F = 5


def softmax(e):
    return e.exp() / e.exp().sum()


def gated(gate, x):
    first, _, last = gate
    alpha = softmax(torch.tanh(x @ first.weight.T + first.bias) @ last.weight[0])
    return alpha @ x, alpha


def hierarchical(layer, groups):
    """(out [F], alphas, beta) of groups [n_s, F], those without items left out."""
    found = [gated(layer.lower, group) for group in groups]
    there = [context for (context, _), group in zip(found, groups, strict=True) if len(group)]
    if not there:
        return groups[0].new_zeros(F), [alpha for _, alpha in found], []
    out, beta = gated(layer.upper, torch.stack(there))
    return out, [alpha for _, alpha in found], beta


def test_hierarchical_attention():
    torch.manual_seed(0)
    layer = HierarchicalAttention(F, 4).double()
    x, mask = padded_sets(F, (3, 0, 2, 1, 4, 2, 0, 0, 0))
    x, mask = x.unflatten(0, (3, 3)).requires_grad_(), mask.unflatten(0, (3, 3))
    out, (alpha, beta) = layer(x, mask, get_attention=True)
    rows = []
    for b in range(3):
        groups = [x[b, s][mask[b, s]] for s in range(3)]
        row, alphas, betas = hierarchical(layer, groups)
        rows.append(row)
        for s, one in enumerate(alphas):
            torch.testing.assert_close(alpha[b, s, : len(one)], one)
        torch.testing.assert_close(beta[b][mask[b].any(1)], torch.as_tensor(betas, dtype=beta.dtype))
    torch.testing.assert_close(out, torch.stack(rows))
    assert beta[0, 1] == 0 and (beta[2] == 0).all()
    cotangent = torch.randn_like(out)
    mine, theirs = (torch.autograd.grad(one, x, cotangent)[0] for one in (out, torch.stack(rows)))
    torch.testing.assert_close(mine, theirs)


def test_one_group_is_self_attentive_attention():
    torch.manual_seed(0)
    layer, (x, mask) = HierarchicalAttention(F, F).double(), padded_sets(F)
    flat = GeneralAttention(F, F, score="additive", query="none", values="input").double()
    with torch.no_grad():
        flat.feature_model.fc_key.weight.copy_(layer.lower[0].weight)
        flat.attention_model.bias.copy_(layer.lower[0].bias.unsqueeze(0))
        flat.attention_model.attn.copy_(layer.lower[2].weight)
    torch.testing.assert_close(layer(x.unsqueeze(1), mask.unsqueeze(1)), flat(None, x, mask=mask))
    assert torch.equal(layer(x.unsqueeze(1)), layer(x.unsqueeze(1), torch.ones_like(mask).unsqueeze(1)))


COUNTS = {"author": (3, 0, 2, 0), "paper": (1, 4, 0, 0), "venue": (0, 2, 2, 0)}


def typed_batch(idtype=torch.int64):
    """(a batch of typed graphs, features of its types): one without authors, one without any node."""
    torch.manual_seed(0)
    etypes = [("author", "wrote", "paper"), ("paper", "in", "venue")]
    graphs = [
        dgl.heterograph({e: ([], []) for e in etypes}, {t: n[b] for t, n in COUNTS.items()}, idtype=idtype)
        for b in range(4)
    ]
    return dgl.batch(graphs), {t: torch.randn(sum(n), F, dtype=torch.float64) for t, n in COUNTS.items()}


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
def test_nodes_types_and_graphs(idtype):
    torch.manual_seed(0)
    layer, (graph, feat) = HierarchicalPooling(F, 4).double(), typed_batch(idtype)
    out, (alpha, beta) = layer(graph, feat, get_attention=True)
    parts = {t: x.split(COUNTS[t]) for t, x in feat.items()}
    weights = {t: x.split(COUNTS[t]) for t, x in alpha.items()}
    for b in range(4):
        row, alphas, betas = hierarchical(layer, [parts[t][b] for t in graph.ntypes])
        torch.testing.assert_close(out[b], row)
        there = [COUNTS[t][b] > 0 for t in graph.ntypes]
        torch.testing.assert_close(beta[b][there], torch.as_tensor(betas, dtype=beta.dtype))
        for t, one in zip(graph.ntypes, alphas, strict=True):
            torch.testing.assert_close(weights[t][b].squeeze(1), one)
    assert torch.equal(out, layer(graph, dict(reversed(feat.items()))))
    # The same as padded groups.
    x, mask = out.new_zeros(4, 3, 4, F), torch.zeros(4, 3, 4, dtype=torch.bool)
    for t, ntype in enumerate(graph.ntypes):
        for b, part in enumerate(parts[ntype]):
            x[b, t, : len(part)], mask[b, t, : len(part)] = part, True
    dense = HierarchicalAttention(F, 4).double()
    dense.load_state_dict(layer.state_dict())
    torch.testing.assert_close(dense(x, mask), out)


def test_one_type_is_a_flat_readout():
    torch.manual_seed(0)
    layer, feat = HierarchicalPooling(F, 4), torch.randn(7, F)
    graph = dgl.batch([dgl.graph(([0], [1]), num_nodes=n) for n in (3, 4)] + [dgl.graph(([], []))])
    flat = GlobalAttentionPooling(layer.lower)
    torch.testing.assert_close(layer(graph, feat), flat(graph, feat))
    torch.testing.assert_close(layer(graph, {"_N": feat}), flat(graph, feat))


def test_attention_via_attention():
    torch.manual_seed(0)
    layer, query = AttentionViaAttention(4, (F, 3)).double(), torch.randn(4, 4).double()
    words, letters = padded_sets(F), padded_sets(3, (2, 4, 0, 5), seed=7)
    out, weights = layer(query, words[0], letters[0], words[1], letters[1], get_attention=True)
    for b in range(4):
        at, found = query[b], []
        for attend, (x, mask) in ((layer.over_coarse, words), (layer.over_fine, letters)):
            x, model = x[b][mask[b]], attend.attention_model
            hidden = x @ attend.feature_model.fc_key.weight.T + attend.query_model.fc_query.weight @ at + model.bias[0]
            alpha = softmax(torch.tanh(hidden) @ model.attn[0])
            torch.testing.assert_close(weights[len(found)][b][mask[b]], alpha)
            found.append(alpha @ x)
            at = torch.cat([query[b], found[0]])
        torch.testing.assert_close(out[b], torch.cat(found))
    assert SIZES[1] == 0 and (out[1, :F] == 0).all()


X = torch.randn(2, 3, 4, F)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: HierarchicalAttention(0), "in_feats: expected 1 or more, got 0"),
        (lambda: HierarchicalAttention(F)(X[0]), r"x: expected \[B, S, N, F\] = \[any, any, any, 5\], got \[3, 4, 5\]"),
        (
            lambda: HierarchicalAttention(F)(X, torch.ones(2, 3, 3).bool()),
            r"mask of x: expected \[B, S, N\] = \[2, 3, 4\], got \[2, 3, 3\]",
        ),
        (
            lambda: HierarchicalPooling(F)(typed_batch()[0], torch.randn(3, F)),
            r"feat: expected \{node type: \[N, F\]\}",
        ),
        (
            lambda: HierarchicalPooling(F).double()(typed_batch()[0], typed_batch()[1] | {"paper": X[0, 0].double()}),
            r"feat of paper: expected \[N, F\] = \[5, 5\], got \[4, 5\]",
        ),
        (lambda: AttentionViaAttention(4, F)(torch.randn(2, 3), X[:, 0], X[:, 1]), r"query: expected \[B, Q\] = "),
        (lambda: AttentionViaAttention(4, F, num_heads=2), "num_heads: expected one head"),
    ],
)
def test_wrong_calls_are_one_sentence(call, match):
    with pytest.raises(ShapeError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_wrong_graphs_are_one_sentence():
    with pytest.raises(GraphError, match="graph: expected a DGLGraph"):
        HierarchicalPooling(F)(None, X)
    graph, feat = typed_batch()
    graph.set_batch_num_nodes({**{t: torch.tensor(n) for t, n in COUNTS.items()}, "paper": torch.tensor([1, 1, 1, 1])})
    with pytest.raises(GraphError, match="expected a batch whose graphs have 5 nodes together, got 4"):
        HierarchicalPooling(F).double()(graph, feat)
