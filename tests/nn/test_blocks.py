"""Every layer on blocks of DGL's NeighborSampler: outputs and attention of the whole graph."""

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat import nn as hnn
from zoo import build, typed_graph

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # DGL's advice on CPU affinity
IN, OUT, HEADS, EDGE = 7, 5, 3, 2
OF_ONE_TYPE = {
    "GATConv": lambda: hnn.GATConv(IN, OUT, HEADS),
    "GATConv, residual": lambda: hnn.GATConv(IN, OUT, HEADS, residual=True),
    "GATv2Conv": lambda: hnn.GATv2Conv(IN, OUT, HEADS),
    "DotGatConv": lambda: hnn.DotGatConv(IN, OUT, HEADS),
    "EdgeGATConv": lambda: hnn.EdgeGATConv(IN, EDGE, OUT, HEADS),
}


def _sample(graph, seeds, fanout=-1):
    """(sources' ids, the one block) that DGL's DataLoader gives for these seeds."""
    loader = dgl.dataloading.DataLoader(graph, seeds, dgl.dataloading.NeighborSampler([fanout]), batch_size=100)
    ((inputs, _, (block,)),) = loader
    return inputs, block


@pytest.mark.parametrize("fanout", [-1, 2])
@pytest.mark.parametrize("name", OF_ONE_TYPE)
def test_layers_of_one_type(name, fanout):
    torch.manual_seed(0)
    graph, layer = build("homogeneous"), OF_ONE_TYPE[name]().eval()
    feat, edge = torch.randn(graph.num_nodes(), IN), torch.randn(graph.num_edges(), EDGE)
    seeds = torch.tensor([5, 2, 19])
    inputs, block = _sample(graph, seeds, fanout)
    # With a fanout, the graph of the edges that were drawn: what the layer sees is what it attends to.
    drawn = block.edata[dgl.EID]
    whole = dgl.edge_subgraph(graph, drawn, relabel_nodes=False)
    layer.set_allow_zero_in_degree(True) if hasattr(layer, "set_allow_zero_in_degree") else None
    args = ((feat,), (feat[inputs],)) if name != "EdgeGATConv" else ((feat, edge[drawn]), (feat[inputs], edge[drawn]))
    expected, alpha = layer(whole, *args[0], get_attention=True)
    out, found = layer(block, *args[1], get_attention=True)
    torch.testing.assert_close(out, expected[seeds], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, alpha, atol=1e-5, rtol=1e-5)
    sums = torch.zeros(3, HEADS).index_add(0, block.edges()[1], found.flatten(1))
    torch.testing.assert_close(sums, torch.ones(3, HEADS))


def test_hgt():
    torch.manual_seed(0)
    graph, seeds = build("homogeneous"), torch.tensor([5, 2, 19])
    ntype, etype = torch.randint(0, 2, (graph.num_nodes(),)), torch.randint(0, 4, (graph.num_edges(),))
    layer, feat = hnn.HGTConv(IN, OUT, HEADS, 2, 4).eval(), torch.randn(graph.num_nodes(), IN)
    inputs, block = _sample(graph, seeds)
    out = layer(block, feat[inputs], ntype[inputs], etype[block.edata[dgl.EID]])
    torch.testing.assert_close(out, layer(graph, feat, ntype, etype)[seeds], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softmax", ["across", "within"])
def test_rgat(softmax):
    torch.manual_seed(0)
    graph = hgraph.add_inverse(typed_graph(), self_relation=True)
    layer = hnn.RGATConv(IN, OUT, HEADS, graph.canonical_etypes, softmax=softmax).eval()
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    seeds = {"film": torch.tensor([4, 1]), "user": torch.tensor([2])}
    inputs, block = _sample(graph, seeds)
    out, alpha = layer(block, {t: feat[t][ids] for t, ids in inputs.items()}, get_attention=True)
    expected, whole = layer(graph, feat, get_attention=True)
    for ntype, ids in seeds.items():
        torch.testing.assert_close(out[ntype], expected[ntype][ids], atol=1e-5, rtol=1e-5)
    for etype in graph.canonical_etypes:
        torch.testing.assert_close(alpha[etype], whole[etype][block.edges[etype].data[dgl.EID]], atol=1e-5, rtol=1e-5)


def test_han():
    torch.manual_seed(0)
    graph = typed_graph()
    paths = {"co-liked": ["liked by", "likes"], "follows": ["follows"]}  # in the order in which DGL keeps relations
    relations = dgl.heterograph(
        {("film", name, "film"): hgraph.metapath_graph(graph, path).edges() for name, path in paths.items()}
    )
    layer = hnn.HANConv(IN, OUT, HEADS, 2, semantic="per_node").eval()
    feat, seeds = torch.randn(relations.num_nodes(), IN), torch.tensor([4, 1, 8])
    inputs, block = _sample(relations, {"film": seeds})
    out, (alpha, beta) = layer(block, feat[inputs], get_attention=True)
    expected, (whole, whole_beta) = layer(relations, feat, get_attention=True)
    torch.testing.assert_close(out, expected[seeds], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta, whole_beta[seeds], atol=1e-5, rtol=1e-5)
    edges = [block.edges[etype].data[dgl.EID] for etype in block.canonical_etypes]
    shifted = torch.cat([edges[0], edges[1] + relations.num_edges(relations.canonical_etypes[0])])
    torch.testing.assert_close(alpha, whole[shifted], atol=1e-5, rtol=1e-5)
    # The same as the views of the meta-path graphs.
    views = hgraph.metapaths(graph, paths)
    torch.testing.assert_close(layer(views, feat), expected, atol=1e-5, rtol=1e-5)
