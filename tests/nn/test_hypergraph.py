"""HypergraphAttentionConv: loops over hyperedges and nodes, two nodes as plain attention, orders, odd hyperedges."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from catalogue import HEADS, IN, OUT

import hgat
from hgat import nn as hnn
from hgat.errors import GraphError, ShapeError
from hgat.graph import hypergraph
from hgat.graph.hypergraph import others

SETS = [[0, 1, 2], [2, 3], [], [4], [3, 1, 0, 4], [3, 2]]  # node 5 is in none
NODES = 6


def layer(**options):
    torch.manual_seed(0)
    return hnn.HypergraphAttentionConv(IN, OUT, HEADS, **options)


def by_hand(net, feat):
    value = net.fc(feat).view(-1, HEADS, OUT)

    def score(row, attn):
        return (row * attn[0]).sum(-1)

    def read(nodes):
        alpha = torch.softmax(F.leaky_relu(torch.stack([score(value[u], net.attn_in) for u in nodes]), 0.2), 0)
        return (alpha.unsqueeze(-1) * value[nodes]).sum(0)

    rows = []
    for v in range(NODES):
        parts = []
        for nodes in SETS:
            if v in nodes:
                parts.append(read(nodes if net.include_self else [u for u in nodes if u != v] or [v]))
        if not parts:
            rows.append(torch.zeros(HEADS, OUT))
            continue
        logits = [score(f, net.attn_l) + score(value[v], net.attn_r) for f in parts]
        beta = torch.softmax(F.leaky_relu(torch.stack(logits), 0.2), 0)
        rows.append((beta.unsqueeze(-1) * torch.stack(parts)).sum(0))
    return torch.stack(rows)


@pytest.mark.parametrize("include_self", [True, False])
def test_rows_are_what_the_equations_say(include_self):
    graph, net, feat = hypergraph(SETS, NODES), layer(include_self=include_self), torch.randn(NODES, IN)
    out, (alpha, beta) = net(graph, feat, get_attention=True)
    torch.testing.assert_close(out, by_hand(net, feat))
    assert (out[5] == 0).all() and beta.shape == (graph.num_edges(), HEADS)
    sums = torch.zeros(NODES, HEADS).index_add(0, graph.edges(order="eid")[0], beta)
    torch.testing.assert_close(sums[:5], torch.ones(5, HEADS))
    inward = graph if include_self else others(graph)
    sums = torch.zeros(inward.num_dst_nodes(), HEADS).index_add(0, inward.edges(order="eid")[1], alpha)
    full = inward.in_degrees() > 0
    torch.testing.assert_close(sums[full], torch.ones(int(full.sum()), HEADS))


def pairs():
    """An undirected graph as hyperedges of two nodes, and of one where it has a loop; and the graph itself."""
    torch.manual_seed(3)
    src, dst = torch.combinations(torch.arange(NODES)).T[:, torch.randperm(15)[:8]]
    loops = torch.tensor([0, 4])
    sets = [*torch.stack([src, dst], 1).tolist(), [0], [4]]
    graph = dgl.graph((torch.cat([src, dst, loops]), torch.cat([dst, src, loops])), num_nodes=NODES)
    return hypergraph(sets, NODES), graph


def plain(net, left, right):
    """GATConv with the projection of a layer and these score vectors."""
    gat = hnn.GATConv(IN, OUT, HEADS, allow_zero_in_degree=True)
    gat.fc.weight.data, gat.attn_l.data, gat.attn_r.data = net.fc.weight.data, left.data, right.data
    return gat


def test_hyperedges_of_two_nodes_are_plain_attention():
    (graph, edges), feat = pairs(), torch.randn(NODES, IN)
    net = layer(include_self=False)
    torch.testing.assert_close(net(graph, feat), plain(net, net.attn_l, net.attn_r)(edges, feat))


def test_hyperedges_of_two_nodes_with_the_node_itself_are_half_of_it():
    feat = torch.randn(NODES, IN)
    src, dst = torch.combinations(torch.arange(NODES)).T[:, ::2]
    graph = hypergraph(torch.stack([src, dst], 1).tolist(), NODES)
    edges = dgl.graph((torch.cat([src, dst]), torch.cat([dst, src])), num_nodes=NODES)
    net = layer()
    net.attn_in.data.zero_()
    own = net.fc(feat).view(NODES, HEADS, OUT)
    rows = plain(net, net.attn_l / 2, net.attn_r + net.attn_l / 2)(edges, feat)
    inside = (edges.in_degrees() > 0).view(-1, 1, 1)
    torch.testing.assert_close(net(graph, feat), torch.where(inside, (rows + own) / 2, torch.zeros(())))


@pytest.mark.parametrize("include_self", [True, False])
def test_other_orders_of_nodes_and_hyperedges_give_the_same(include_self):
    net, feat = layer(include_self=include_self), torch.randn(NODES, IN)
    order, place = torch.randperm(NODES), None
    place = torch.argsort(order)
    moved = [[int(place[v]) for v in reversed(nodes)] for nodes in reversed(SETS)]
    torch.testing.assert_close(net(hypergraph(moved, NODES), feat[order]), net(hypergraph(SETS, NODES), feat)[order])


def test_a_node_in_none_has_its_residual_and_bias():
    net, feat = layer(residual=True), torch.randn(NODES, IN)
    net.bias.data.fill_(2.0)
    out = net(hypergraph(SETS, NODES), feat)
    torch.testing.assert_close(out[5], net.res_fc(feat[5]).view(HEADS, OUT) + 2.0)
    empty = net(hypergraph([[], []], 3), feat[:3])
    torch.testing.assert_close(empty, net.res_fc(feat[:3]).view(3, HEADS, OUT) + 2.0)


def test_uniform_attention_is_two_means():
    net, feat = layer(), torch.randn(NODES, IN)
    with hgat.ops.uniform_attention():
        out = net(hypergraph(SETS, NODES), feat)
    value = net.fc(feat).view(NODES, HEADS, OUT)
    torch.testing.assert_close(out[1], (value[[0, 1, 2]].mean(0) + value[[3, 1, 0, 4]].mean(0)) / 2)


def test_what_does_not_fit_is_one_sentence():
    graph, feat = hypergraph(SETS, NODES), torch.randn(NODES, IN)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[6, any\]|feat: expected \[N, F\] = \[6, 7\]"):
        layer()(graph, feat[1:])
    with pytest.raises(ShapeError, match="negative_slope: expected a finite number"):
        layer(negative_slope="a")
    for wrong in (dgl.graph(([0], [1])), None, dgl.to_block(dgl.graph(([0], [1])))):
        with pytest.raises(GraphError, match="graph: expected"):
            layer()(wrong, feat)
