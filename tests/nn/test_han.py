"""HANConv and its semantic attention, against the equations."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.nn import GATConv, HANConv, SemanticAttention
from zoo import typed_graph

IN, OUT, HEADS = 7, 5, 3
PATHS = {"film-film": ["follows"], "co-liked": ["liked by", "likes"]}


def _views():
    return hgraph.metapaths(typed_graph(), PATHS)


def _single(view):
    return hgraph.metapath_graph(typed_graph(), PATHS[view])


@pytest.mark.parametrize("share_projection", [True, False])
@pytest.mark.parametrize("semantic", ["global", "per_node"])
def test_equals_the_equations(semantic, share_projection):
    """One GATConv per meta-path, then equations 7 to 9, written here without hgat's fusion."""
    layer = HANConv(IN, OUT, HEADS, 2, semantic=semantic, share_projection=share_projection)
    feat = torch.randn(11, IN)
    z = []
    for p, name in enumerate(PATHS):
        gat = GATConv(IN, OUT, HEADS, activation=F.elu)
        with torch.no_grad():
            gat.fc.weight.copy_(layer.fc[0 if share_projection else p].T)
            gat.attn_l.copy_(layer.attn_l[p : p + 1])
            gat.attn_r.copy_(layer.attn_r[p : p + 1])
            gat.bias.copy_(layer.bias[p])
        z.append(gat(_single(name), feat).flatten(1))
    w = torch.stack([torch.tanh(x @ layer.semantic.project[0].weight.T + layer.semantic.project[0].bias)
                     @ layer.semantic.project[2].weight[0] for x in z])  # fmt: skip
    if semantic == "global":
        w = w.mean(1)
    beta = w.exp() / w.exp().sum(0)
    expected = sum(beta[p].unsqueeze(-1) * z[p] for p in range(2))
    out, (_, beta_got) = layer(_views(), feat, get_attention=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta_got, beta if semantic == "global" else beta.T, atol=1e-6, rtol=0)


def test_one_metapath_is_gat_and_has_beta_one():
    views = hgraph.metapaths(typed_graph(), {"co-liked": PATHS["co-liked"]})
    layer = HANConv(IN, OUT, HEADS, 1)
    gat = GATConv(IN, OUT, HEADS, activation=F.elu)
    with torch.no_grad():
        gat.fc.weight.copy_(layer.fc[0].T)
        gat.attn_l.copy_(layer.attn_l)
        gat.attn_r.copy_(layer.attn_r)
    feat = torch.randn(11, IN)
    out, (alpha, beta) = layer(views, feat, get_attention=True)
    expected, alpha_expected = gat(_single("co-liked"), feat, get_attention=True)
    torch.testing.assert_close(out, expected.flatten(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha, alpha_expected.squeeze(-1), atol=1e-6, rtol=0)
    assert beta.tolist() == [1.0]


def test_same_metapath_twice_has_equal_beta_and_order_of_nodes_does_not_matter():
    graph = _single("co-liked")
    layer = HANConv(IN, OUT, HEADS, 2)
    with torch.no_grad():
        for parameter in (layer.attn_l, layer.attn_r):
            parameter[1] = parameter[0]
    feat = torch.randn(11, IN)
    out, (_, beta) = layer(hgraph.disjoint_union([graph, graph]), feat, get_attention=True)
    torch.testing.assert_close(beta, torch.full((2,), 0.5))
    order = torch.randperm(11)
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    moved = dgl.graph((place[src], place[dst]), num_nodes=11)
    again, (_, beta_again) = layer(hgraph.disjoint_union([moved, moved]), feat[order], get_attention=True)
    torch.testing.assert_close(again, out[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta_again, beta)


def test_blocks_give_the_rows_of_the_full_graph():
    seeds = torch.tensor([2, 5, 6])
    blocks, feats, feat = [], [], torch.randn(11, IN)
    for name in PATHS:
        graph = _single(name)
        block = dgl.to_block(dgl.in_subgraph(graph, seeds), seeds)
        blocks.append(block)
        feats.append(feat[block.srcdata[dgl.NID]])
    layer = HANConv(IN, OUT, HEADS, 2, semantic="per_node")
    expected = layer(_views(), feat)[seeds]
    torch.testing.assert_close(layer(hgraph.disjoint_union(blocks), feats), expected, atol=1e-5, rtol=1e-5)


def test_uniform_attention_covers_both_levels():
    layer = HANConv(IN, OUT, HEADS, 2, activation=None, bias=False)
    feat = torch.randn(11, IN)
    with ops.uniform_attention():
        out, (_, beta) = layer(_views(), feat, get_attention=True)
    expected = 0
    for name in PATHS:
        mean = dgl.ops.copy_u_mean(_single(name), feat @ layer.fc[0])
        expected = expected + mean / 2
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta, torch.full((2,), 0.5))


def test_every_parameter_gets_a_gradient_and_state_dict_round_trips():
    layer = HANConv(IN, OUT, HEADS, 2, feat_drop=0.1, attn_drop=0.1, share_projection=False).train()
    out = layer(_views(), torch.randn(11, IN))
    out.backward(torch.randn_like(out))
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name
    other = HANConv(IN, OUT, HEADS, 2, share_projection=False)
    other.load_state_dict(layer.state_dict())
    feat = torch.randn(11, IN)
    assert torch.equal(other.eval()(_views(), feat), layer.eval()(_views(), feat))


def test_wrong_inputs_are_one_sentence():
    layer = HANConv(IN, OUT, HEADS, 2)
    with pytest.raises(GraphError, match="expected what .*, or a DGLGraph, got list"):
        layer([_single("co-liked")] * 2, torch.randn(11, IN))
    with pytest.raises(GraphError, match="expected 2 meta-paths, got 1"):
        layer(hgraph.disjoint_union([_single("co-liked")]), torch.randn(11, IN))
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[11, 7\], got \[11, 8\]"):
        layer(_views(), torch.randn(11, 8))
    with pytest.raises(ShapeError, match="expected 2 tensors, one for each view, got 1"):
        layer(_views(), [torch.randn(11, IN)])
    with pytest.raises(ShapeError, match="form: expected 'global' or 'per_node', got 'local'"):
        SemanticAttention(IN, form="local")
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(hgraph.metapaths(typed_graph(), PATHS, self_loops=False), torch.randn(11, IN))
