"""RGHAT's layer: its equations in loops, the sums of its shares, and what more tails of a relation change."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.graph import relation_groups
from hgat.nn import RGHATConv

NODES, WIDTH, REL, OUT, HEADS = 7, 6, 5, 4, 2
NAMES = ("a", "b", "c", "empty")
# Receiver, relation, sender: several senders under one relation, one edge twice, a loop; node 6 receives nothing.
TRIPLES = [
    (0, 0, 1), (0, 0, 2), (0, 1, 3), (0, 2, 4), (0, 2, 4), (1, 0, 0), (1, 0, 6), (2, 2, 2), (2, 1, 0), (3, 1, 6),
    (4, 1, 0), (4, 1, 1), (4, 1, 2), (5, 0, 3), (5, 0, 4), (5, 2, 1),
]  # fmt: skip


def groups_of(triples, nodes=NODES):
    head, relation, tail = (torch.tensor(column) for column in zip(*triples, strict=True))
    return relation_groups(dgl.graph((tail, head), num_nodes=nodes), relation, NAMES)


def setting(triples=TRIPLES, **options):
    torch.manual_seed(0)
    layer = RGHATConv(WIDTH, REL, OUT, HEADS, **options).double()
    return layer, (groups_of(triples), torch.randn(NODES, WIDTH).double(), torch.randn(len(NAMES), REL).double())


def by_hand(layer, triples, feat, rel, order, combine):
    """The equations, an entity and a head at a time."""
    width = WIDTH // HEADS
    g = torch.zeros(NODES, WIDTH).double()
    for k in range(HEADS):
        here = slice(k * width, (k + 1) * width)
        w_head, w_rel, w_tail = (fc.weight[here] for fc in (layer.fc_head, layer.fc_rel, layer.fc_tail))
        p, q = layer.attn_rel[0, k], layer.attn_tail[0, k]
        for node in range(NODES - 1):  # the last one receives nothing
            mine = sorted({r for h, r, _ in triples if h == node})
            a = {r: w_head @ feat[node] + w_rel @ rel[r] for r in mine}
            summary = {}
            for r in mine:
                b = torch.stack(
                    [layer.weight[k].t() @ a[r] + w_tail @ feat[t] for h, s, t in triples if (h, s) == (node, r)]
                )
                summary[r] = torch.softmax(F.leaky_relu(b @ q, 0.2), 0) @ b
            seen = a if order == "relation_first" else summary
            alpha = torch.softmax(torch.stack([F.leaky_relu(p @ seen[r], 0.2) for r in mine]), 0)
            for r, share in zip(mine, alpha, strict=True):
                g[node, here] += share * summary[r]
    terms = {"sum": lambda: layer.fc_sum(feat + g), "product": lambda: layer.fc_product(feat * g)}
    terms = [F.leaky_relu(terms[name](), 0.2) for name in (("sum", "product") if combine == "bi" else (combine,))]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("combine", ["bi", "sum", "product"])
@pytest.mark.parametrize("order", ["relation_first", "entity_first"])
def test_the_equations(order, combine):
    layer, inputs = setting(order=order, combine=combine)
    expected = by_hand(layer, TRIPLES, *inputs[1:], order, combine)
    torch.testing.assert_close(layer(*inputs), expected)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("order", ["relation_first", "entity_first"])
def test_shares_sum_to_one(order, uniform):
    layer, (groups, feat, rel) = setting(order=order)
    with ops.use_backend("dgl"):
        if uniform:
            with ops.uniform_attention():
                _, (alpha, beta) = layer(groups, feat, rel, get_attention=True)
        else:
            _, (alpha, beta) = layer(groups, feat, rel, get_attention=True)
    assert alpha.shape == (len(groups.group), HEADS) and beta.shape == (len(TRIPLES), HEADS)
    node, relation = groups.group.node.tolist(), groups.group.relation.tolist()
    place = {pair: k for k, pair in enumerate(zip(node, relation, strict=True))}
    total, over = torch.zeros(NODES, HEADS).double(), torch.zeros(NODES, HEADS).double()
    for (h, r, _), share in zip(TRIPLES, beta, strict=True):
        total[h] += alpha[place[h, r]] * share
    for pair, k in place.items():
        over[pair[0]] += alpha[k]
    has = torch.tensor([h in {x for x, _, _ in TRIPLES} for h in range(NODES)]).double().unsqueeze(1).expand(-1, HEADS)
    torch.testing.assert_close(total, has)
    torch.testing.assert_close(over, has)
    assert len(place) == len({(h, r) for h, r, _ in TRIPLES}), "a relation with many tails counts once"
    if uniform:
        assert alpha[place[0, 0], 0] == pytest.approx(1 / 3) and beta[3, 0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("order", ["relation_first", "entity_first"])
def test_every_tail_of_a_relation_twice_changes_nothing(order):
    layer, (groups, feat, rel) = setting(order=order)
    doubled = groups_of([*TRIPLES, *(row for row in TRIPLES if row[1] == 0)])
    out, (alpha, _) = layer(groups, feat, rel, get_attention=True)
    again, (other, _) = layer(doubled, feat, rel, get_attention=True)
    torch.testing.assert_close(other, alpha)
    torch.testing.assert_close(again, out)


def test_an_entity_that_receives_nothing_keeps_its_own_row():
    layer, (groups, feat, rel) = setting()
    slope = F.leaky_relu(layer.fc_sum(feat[6]), 0.2)
    torch.testing.assert_close(layer(groups, feat, rel)[6], (slope + F.leaky_relu(layer.fc_product.bias, 0.2)) / 2)


def test_other_entities_are_seen_only_along_edges():
    layer, (groups, feat, rel) = setting()
    changed = feat.clone()
    changed[5] += 1.0  # sends nothing
    same = (layer(groups, changed, rel) == layer(groups, feat, rel)).all(1)
    assert same.tolist() == [node != 5 for node in range(NODES)]


def test_dropout_is_drawn_at_both_levels():
    layer, inputs = setting(attn_drop=0.5)
    assert not torch.equal(layer(*inputs), layer(*inputs))
    layer.eval()
    assert torch.equal(layer(*inputs), layer(*inputs))


def test_wrong_calls_are_one_sentence():
    layer, (groups, feat, rel) = setting()
    with pytest.raises(GraphError, match="groups: expected what hgat.graph.relation_groups gives, got DGLGraph"):
        layer(groups.within, feat, rel)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[7, 6\], got \[6, 6\]"):
        layer(groups, feat[1:], rel)
    with pytest.raises(ShapeError, match=r"rel_feat: expected \[R, F_r\] = \[4, 5\], got \[3, 5\]"):
        layer(groups, feat, rel[1:])
    with pytest.raises(ShapeError, match="in_feats: expected a multiple of 4 heads, got 6"):
        RGHATConv(WIDTH, REL, OUT, 4)
    with pytest.raises(ShapeError, match="order: expected 'relation_first' or 'entity_first', got 'tails'"):
        RGHATConv(WIDTH, REL, OUT, 2, order="tails")
