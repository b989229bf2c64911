"""SnapshotGATConv against the equations, one dense softmax per snapshot, and against GATConv snapshot by snapshot."""

import re

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import nn as hnn
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.graph import from_events, snapshots
from hgat.nn import SnapshotGATConv
from zoo import typed_graph

N, T, IN, OUT, HEADS = 13, 5, 7, 3, 2
WEIGHTS = ["count", "normalized", "none"]
FEATS = ["same", "changing", "one-hot"]
SCORES = ["gat", "dot"]


def random_events(events=71, nodes=N):
    """Node N - 1 has no event, node N - 2 appears in the fourth step, and the third step is empty."""
    generator = torch.Generator().manual_seed(11)
    src, dst = torch.randint(0, nodes - 2, (2, events), generator=generator)
    step = torch.randint(0, T, (events,), generator=generator)
    step[step == 2] = 4
    src[step == 3] = torch.where(src[step == 3] < 3, nodes - 2, src[step == 3])
    return src, dst, step


def cut(weight="count", events=None, **settings):
    graph = from_events(events or random_events(), num_nodes=N)
    return snapshots(graph, boundaries=range(T + 1), weight=weight, **settings)


def layer_of(kind="same", score="gat", **settings):
    return SnapshotGATConv(N if kind == "one-hot" else IN, OUT, HEADS, score=score, **settings)


def feat_of(kind, dtype=torch.float32):
    shape = {"same": (N, IN), "changing": (T, N, IN), "one-hot": None}[kind]
    return None if shape is None else torch.randn(shape, dtype=dtype)


def oracle(layer, found, feat):
    """(out [T, N, H * D], alpha [E, H] in the order of found.graph), one snapshot at a time."""
    p, out, alpha = dict(layer.named_parameters()), [], []
    src, dst = found.graph.edges(order="eid")
    weight = found.graph.edata["weight"] if "weight" in found.graph.edata else torch.ones(len(src))
    eye = torch.eye(N, dtype=p["fc.weight"].dtype)
    for t in range(len(found)):
        x = eye if feat is None else feat if feat.dim() == 2 else feat[t]
        h, query, key = ((x @ p[f"{name}.weight"].t()).view(N, HEADS, -1) if f"{name}.weight" in p else None
                         for name in ("fc", "fc_query", "fc_key"))  # fmt: skip
        here = dst // N == t
        u, v = src[here] % N, dst[here] % N
        if query is None:
            left, right = ((h * p[f"attn_{end}"]).sum(-1) for end in "lr")
            e = weight[here].to(h).view(-1, 1) * (left[u] + right[v])
            e = torch.where(e > 0, e, 0.2 * e)
        else:
            e = (query[v] * key[u]).sum(-1) / OUT**0.5
        dense = torch.full((N, N, HEADS), -torch.inf, dtype=h.dtype).index_put((v, u), e)
        dense = torch.nan_to_num(dense.softmax(1)).where(dense > -torch.inf, 0.0)
        out.append(F.elu(torch.einsum("vuh,uhd->vhd", dense, h)).flatten(1))
        alpha.append((here.nonzero().flatten(), dense[v, u]))
    order = torch.cat([edge for edge, _ in alpha]).argsort()
    return torch.stack(out), torch.cat([a for _, a in alpha])[order]


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_equals_the_equations(score, weight, kind, self_loops):
    found, layer, feat = cut(weight, self_loops=self_loops), layer_of(kind, score), feat_of(kind)
    expected, alpha = oracle(layer, found, feat)
    out, got = layer(found, feat, get_attention=True)
    assert out.shape == (T, N, HEADS * OUT)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got, alpha, atol=1e-6, rtol=1e-5)
    assert torch.equal(layer(found, feat), out)


@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_gradients_equal_those_of_the_equations(score, weight, kind):
    found, layer, feat = cut(weight), layer_of(kind, score).double(), feat_of(kind, torch.float64)
    cotangent = torch.randn(T, N, HEADS * OUT, dtype=torch.float64)
    grads = []
    for run in (layer, lambda *args: oracle(layer, *args)[0]):
        leaves = [*layer.parameters(), *([] if feat is None else [feat.requires_grad_()])]
        out = run(found, feat)
        grads.append(torch.autograd.grad(out, leaves, cotangent))
    for got, expected in zip(*grads, strict=True):
        assert torch.isfinite(got).all() and (got != 0).any()
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("which", [hnn.GATConv, dgl.nn.GATConv], ids=["hgat", "dgl"])
def test_equals_gat_in_every_snapshot(which):
    found, layer, feat = cut("none"), layer_of(), feat_of("changing")
    gat = which(IN, OUT, HEADS, activation=F.elu, bias=False, allow_zero_in_degree=True)
    gat.load_state_dict(layer.state_dict())
    out = layer(found, feat)
    for t in range(T):
        torch.testing.assert_close(out[t], gat(found[t].graph, feat[t]).flatten(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_three_ways_to_give_the_same_features(score, weight):
    found, layer = cut(weight), layer_of("one-hot", score)
    none = layer(found)
    for feat in (torch.eye(N), torch.eye(N).repeat(T, 1, 1)):
        torch.testing.assert_close(layer(found, feat), none, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_slices_give_the_rows_of_the_whole(score, weight):
    found, layer, feat = cut(weight), layer_of("changing", score), feat_of("changing")
    whole = layer(found, feat)
    for a, b in ((0, 2), (2, 3), (1, 5)):
        torch.testing.assert_close(layer(found[a:b], feat[a:b]), whole[a:b], atol=1e-6, rtol=1e-5)


def test_one_node_and_one_feature():
    found = snapshots(from_events(([0, 0], [0, 0], [0, 1])), windows=2)
    layer = SnapshotGATConv(1, OUT, HEADS)
    expected = F.elu(layer.fc.weight.t()).expand(2, 1, -1)
    torch.testing.assert_close(layer(found), expected)
    torch.testing.assert_close(layer(found, torch.ones(1, 1)), expected)


@pytest.mark.parametrize("kind", ["same", "changing"])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_permuted_nodes_give_permuted_rows(score, weight, kind):
    src, dst, step = random_events()
    layer, feat = layer_of(kind, score), feat_of(kind)
    order = torch.randperm(N)
    place = order.argsort()
    moved = layer(cut(weight, (place[src], place[dst], step)), feat[..., order, :])
    torch.testing.assert_close(moved, layer(cut(weight), feat)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("score", SCORES)
def test_alpha_sums_to_one_and_uniform_attention_is_a_mean(score, kind):
    found, layer, feat = cut("normalized"), layer_of(kind, score), feat_of(kind)
    _, dst = found.graph.edges(order="eid")
    degree = found.graph.in_degrees()
    _, alpha = layer(found, feat, get_attention=True)
    total = torch.zeros(T * N, HEADS).index_add_(0, dst, alpha)
    torch.testing.assert_close(total, (degree > 0).float().unsqueeze(1).expand(-1, HEADS))
    with ops.uniform_attention():
        out, alpha = layer(found, feat, get_attention=True)
    torch.testing.assert_close(alpha, (1 / degree[dst]).unsqueeze(1).expand(-1, HEADS))
    h = torch.eye(N) if feat is None else feat
    h = (h @ layer.fc.weight.t()).expand(T, N, -1).flatten(0, 1)
    mean = dgl.ops.copy_u_sum(found.graph, h) / degree.clamp_min(1).unsqueeze(1)
    torch.testing.assert_close(out.flatten(0, 1), F.elu(mean), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_a_later_snapshot_changes_no_earlier_row(score, weight, kind):
    src, dst, step = random_events()
    layer, feat = layer_of(kind, score), feat_of(kind)
    out = layer(cut(weight), feat)
    late = step == 3
    moved = (torch.where(late, (src + 1) % 5, src), dst, step)
    gone = (src[~late], dst[~late], step[~late])
    for events in (moved, gone):
        other = layer(cut(weight, events), feat)
        assert torch.equal(other[:3], out[:3])
        assert not torch.equal(other[3], out[3])
    if kind == "changing":
        elsewhere = feat.clone()
        elsewhere[3] += 1
        assert torch.equal(layer(cut(weight), elsewhere)[[0, 1, 2, 4]], out[[0, 1, 2, 4]])


@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("score", SCORES)
def test_nodes_that_have_not_appeared_get_the_activation_of_zero(score, kind):
    found, feat = cut("normalized"), feat_of(kind)
    absent = ~found.present
    assert absent[:, N - 1].all() and absent[:3, N - 2].all() and found.present[3:, N - 2].all()
    out = layer_of(kind, score, activation=torch.sigmoid)(found, feat)
    assert (out[absent] == 0.5).all() and (out[found.present] != 0.5).any(-1).all()
    assert not layer_of(kind, score, activation=None)(found, feat)[absent].any()


@pytest.mark.parametrize("rate", ["feat_drop", "attn_drop"])
@pytest.mark.parametrize("kind", FEATS)
@pytest.mark.parametrize("score", SCORES)
def test_dropout_acts_in_training_only(score, kind, rate):
    found, feat = cut("normalized"), feat_of(kind)
    layer = layer_of(kind, score, **{rate: 0.5})
    first, second = layer(found, feat), layer(found, feat)
    assert not torch.equal(first, second)
    still = layer_of(kind, score)
    still.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(found, feat), still(found, feat))


def test_dropout_of_one_hot_rows_takes_a_row_or_leaves_it():
    """As nn.Dropout does with the single one of such a row; seen where every node has itself alone."""
    empty = cut("none")[2]
    layer = layer_of("one-hot", feat_drop=0.5, activation=None)
    here = empty.present[0].nonzero().flatten().tolist()
    row, taken = layer.fc.weight.t(), 0
    for _ in range(100):
        out = layer(empty)[0]
        for v in here:
            taken += bool(out[v].any())
            assert torch.equal(out[v], 2 * row[v]) or not out[v].any()
    assert abs(taken / (100 * len(here)) - 0.5) < 0.08


@pytest.mark.parametrize("score", SCORES)
def test_state_dict_round_trip_and_the_snapshots_are_left_as_they_were(score):
    found, feat = cut("normalized"), feat_of("same")
    layer, other = layer_of(score=score), layer_of(score=score)
    keys = {n: set(g.edata) | set(g.ndata) for n, g in (("graph", found.graph), ("shared", found.shared.local_var()))}
    out = layer(found, feat)
    assert not torch.equal(other(found, feat), out)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(found, feat), out)
    assert set(found.graph.edata) == keys["graph"] == {"weight"} == set(found.shared.edata)
    assert not found.shared.srcdata and not found.shared.dstdata


def test_wrong_calls_are_one_sentence():
    found, feat = cut(), feat_of("same")
    layer = layer_of()
    what = "snapshots: expected what hgat.graph.snapshots gives for one node and edge type, got "
    with pytest.raises(GraphError, match=re.escape(what + "DGLGraph")):
        layer(found.graph, feat)
    typed = typed_graph()
    for etype in typed.canonical_etypes:
        typed.edges[etype].data["time"] = torch.arange(typed.num_edges(etype))
    with pytest.raises(GraphError, match=re.escape(what + "several node or edge types")):
        layer(snapshots(typed, windows=2), feat)
    for wrong, sentence in (
        (feat[1:], "feat: expected [N, F] = [13, 7], got [12, 7]"),
        (feat[:, 1:], "feat: expected [N, F] = [13, 7], got [13, 6]"),
        (feat[:, :1], "feat: expected [N, F] = [13, 7], got [13, 1]"),
        (feat.repeat(T + 1, 1, 1), "feat: expected [T, N, F] = [5, 13, 7], got [6, 13, 7]"),
        (feat.repeat(1, 1, 1), "feat: expected [T, N, F] = [5, 13, 7], got [1, 13, 7]"),
        (feat[0], "feat: expected [N, F] = [13, 7], got [7]"),
        (None, "feat: expected [N, F] = [13, 7], got None for one-hot rows"),
    ):
        with pytest.raises(ShapeError, match=re.escape(sentence)):
            layer(found, wrong)
    with pytest.raises(ShapeError, match="score: expected 'gat' or 'dot', got 'cosine'"):
        layer_of(score="cosine")
