"""Neighbours sampled by attention: the estimate's mean and variance, its weights, exact parts, DGL's own loader."""

import dgl
import pytest
import torch

import hgat
from hgat import nn as hnn
from hgat.errors import GraphError, ShapeError
from hgat.graph import ImportanceSampler

WIDTH, NODES, COPIES = 3, 7, 1500


def case():
    """A graph whose first nodes have many in-edges, features, alpha of a GAT, and what a whole layer sums."""
    torch.manual_seed(0)
    src, dst = torch.randint(60, (400,)), torch.randint(NODES, (400,))
    graph = dgl.graph((torch.cat([src, torch.tensor([3])]), torch.cat([dst, torch.tensor([9])])), num_nodes=60)
    feat = torch.randn(60, WIDTH)
    layer = hnn.GATConv(WIDTH, 4, 2, allow_zero_in_degree=True)
    layer.attn_l.data *= 3
    with torch.no_grad():
        alpha = layer(graph, feat, get_attention=True)[1].squeeze(-1)
    return graph, feat, alpha, hgat.ops.weighted_sum(graph, feat.unsqueeze(1), alpha)


def estimates(graph, feat, alpha, odds, k):
    """The sums [COPIES, NODES, H, F] by the drawn edges: one of each of so many copies of the graph."""
    dgl.seed(0)
    many = dgl.batch([graph] * COPIES)
    ids = (torch.arange(NODES) + graph.num_nodes() * torch.arange(COPIES).unsqueeze(1)).flatten()
    nodes, _, (block,) = ImportanceSampler([k], odds.repeat(COPIES)).sample(many, ids)
    weight = alpha.repeat(COPIES, 1)[block.edata[dgl.EID]] * block.edata["weight"].unsqueeze(1)
    sums = hgat.ops.weighted_sum(block, feat.repeat(COPIES, 1)[nodes].unsqueeze(1), weight)
    return sums.unflatten(0, (COPIES, NODES))


def test_the_mean_of_the_estimates_is_the_sum_over_all_neighbours():
    graph, feat, alpha, whole = case()
    spread = {}
    for name, odds in {"attention": alpha.mean(1), "even": torch.ones(401)}.items():
        found = estimates(graph, feat, alpha, odds, 5)
        error = found.std(0) / COPIES**0.5
        assert ((found.mean(0) - whole[:NODES]).abs() < 4.5 * error).all()
        spread[name] = float(found.var(0).mean())
    assert spread["attention"] < 0.7 * spread["even"]  # what the odds are for


def test_edges_that_are_drawn_make_up_for_those_that_are_not():
    graph, _, alpha, _ = case()
    odds, k, ids = alpha.mean(1), 6, torch.tensor([9, 2, 30, 0])
    nodes, out, (block,) = ImportanceSampler([k], odds).sample(graph, ids)
    assert out.equal(ids) and block.dstdata[dgl.NID].equal(ids) and nodes.equal(block.srcdata[dgl.NID])
    src, dst = graph.edges()
    edges, (at_src, at_dst) = block.edata[dgl.EID], block.edges(order="eid")
    assert nodes[at_src].equal(src[edges]) and ids[at_dst].equal(dst[edges])
    assert block.in_degrees().tolist() == [1, 6, 0, 6]  # one neighbour, many, none, many
    for edge, weight, v in zip(edges, block.edata["weight"], dst[edges], strict=True):
        wanted = 1.0 if v == 9 else odds[dst == v].sum() / (k * odds[edge])
        assert float(weight) == pytest.approx(float(wanted), rel=1e-5)


def test_all_neighbours_are_the_whole_and_two_layers_are_blocks():
    graph, feat, alpha, whole = case()
    nodes, _, (block,) = ImportanceSampler([-1], alpha.mean(1)).sample(graph, torch.arange(NODES))
    assert (block.edata["weight"] == 1).all()
    out = hgat.ops.weighted_sum(block, feat[nodes].unsqueeze(1), alpha[block.edata[dgl.EID]])
    torch.testing.assert_close(out, whole[:NODES])
    sampler = ImportanceSampler([2, 4], [alpha[:, 0], alpha[:, 1]])
    loader = dgl.dataloading.DataLoader(graph, torch.arange(NODES), sampler, batch_size=3)
    seen = 0
    for nodes, out, blocks in loader:
        assert len(blocks) == 2 and blocks[1].num_dst_nodes() == len(out)
        assert blocks[0].dstdata[dgl.NID].equal(blocks[1].srcdata[dgl.NID]) and len(nodes) == blocks[0].num_src_nodes()
        assert int(blocks[1].in_degrees().max()) <= 4 and int(blocks[0].in_degrees().max()) <= 2
        seen += len(out)
    assert seen == NODES


def test_odds_of_zero_are_never_drawn_and_seeds_repeat():
    graph, _, alpha, _ = case()
    odds = alpha.mean(1).clone()
    odds[::2] = 0
    found = []
    for _ in range(2):
        dgl.seed(7)
        _, _, (block,) = ImportanceSampler([9], odds).sample(graph, torch.arange(NODES))
        found.append(block.edata[dgl.EID])
    assert found[0].equal(found[1]) and (found[0] % 2 == 1).all()
    _, _, (block,) = ImportanceSampler([9], torch.zeros(401)).sample(graph, torch.arange(10))
    assert block.edata[dgl.EID].tolist() == [400]  # the one in-edge of node 9, which keeps all it has


def test_wrong_calls_are_one_sentence():
    graph, _, alpha, _ = case()
    for fanouts in ([], [0], [2.5], [-2]):
        with pytest.raises(ShapeError, match="fanouts: expected numbers from 1 on"):
            ImportanceSampler(fanouts, alpha[:, 0])
    for odds, sentence in (
        (alpha, r"odds: expected floats \[E\], got torch.float32 \[401, 2\]"),
        (-alpha[:, 0], "odds: expected numbers of 0 or more"),
        ([alpha[:, 0]] * 2, "odds: expected one tensor, or one for each of 1 layers, got 2"),
        ([None], r"odds: expected floats \[E\], got NoneType"),
    ):
        with pytest.raises(ShapeError, match=sentence):
            ImportanceSampler([3], odds)
    with pytest.raises(ShapeError, match=r"odds: expected \[E\] = \[401\], got \[400\]"):
        ImportanceSampler([3], alpha[1:, 0]).sample(graph, torch.arange(2))
    with pytest.raises(GraphError, match="no edges to leave out, got edges to leave out"):
        ImportanceSampler([3], alpha[:, 0]).sample(graph, torch.arange(2), exclude_eids=torch.tensor([0]))
