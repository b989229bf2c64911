"""HyperGAT: which hyperedges it prepares, and that its clique control is GAT with self-loops."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from toys import films, neighbours

from hgat import nn as hnn
from hgat.errors import GraphError, RecipeError
from hgat.graph import clique_expansion
from hgat.models import HyperGAT
from hgat.tasks.nodes import Nodes


def hyperedges(graph):
    found = [set() for _ in range(graph.num_dst_nodes())]
    for v, e in zip(*(end.tolist() for end in graph.edges()), strict=True):
        found[e].add(v)
    return found


def test_of_a_plain_graph_a_node_and_its_neighbours_are_a_hyperedge():
    shown = Nodes(neighbours()).shown()
    graph, feat = HyperGAT.prepare(shown)
    assert list(feat) == ["_N"]
    for v, nodes in enumerate(hyperedges(graph)):
        assert nodes == {v, *shown.graph.predecessors(v).tolist(), *shown.graph.successors(v).tolist()}


def test_of_a_typed_graph_a_node_of_another_type_is_one_under_each_relation():
    shown = Nodes(films()).shown()
    graph, feat = HyperGAT.prepare(shown)
    assert graph.num_src_nodes() == 120 and graph.num_dst_nodes() == 2 * 60 and list(feat) == ["film"]
    wanted = []
    for name in [etype for etype in shown.graph.canonical_etypes if etype[2] == "film"]:
        wanted += [set(shown.graph.successors(u, etype=name).tolist()) for u in range(60)]
    assert hyperedges(graph) == wanted
    (likes, _) = HyperGAT.prepare(shown, relations=["likes"])
    assert likes.num_dst_nodes() == 60
    with pytest.raises(GraphError, match="graph.relations: expected relations that end at 'film', got"):
        HyperGAT.prepare(shown, relations=["loves"])


def test_its_clique_control_is_gat_with_self_loops():
    shown = Nodes(neighbours()).shown()
    (ablation,) = HyperGAT.ablations.values()
    whole, feat = HyperGAT.prepare(shown)
    graph, _ = HyperGAT.prepare(shown, **ablation.graph)
    model = HyperGAT.build(shown, (graph, feat), **ablation.settings).eval()
    plain, x = dgl.add_self_loop(clique_expansion(whole)), feat["_N"]
    for depth, layer in enumerate(model.layers):
        gat = hnn.GATConv(layer._in_feats, layer._out_feats, layer._num_heads)
        gat.load_state_dict({name: p for name, p in layer.state_dict().items() if name in gat.state_dict()})
        x = gat(plain, x)
        x = F.elu(x).flatten(1) if depth == 0 else x.mean(1)
    torch.testing.assert_close(model(graph, feat), x)


def test_attention_of_every_layer():
    shown = Nodes(neighbours()).shown()
    inputs = HyperGAT.prepare(shown)
    model = HyperGAT.build(shown, inputs, heads=[3, 1]).eval()
    (alpha, beta), (_, last) = model.attention(*inputs)
    pairs = inputs[0].num_edges()
    assert alpha.shape == beta.shape == (pairs, 3) and last.shape == (pairs, 1)
    with pytest.raises(RecipeError, match="task.batch: expected none for HyperGAT"):
        model.sampled(inputs, torch.tensor([0]), [2, 2])
