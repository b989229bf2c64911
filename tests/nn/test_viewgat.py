"""ViewGATConv: one GATConv for each view, and what HANConv makes of it."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.nn import Fusion, GATConv, HANConv, ViewGATConv
from hgat.nn.names import StateError
from zoo import typed_graph

IN, OUT, HEADS = 7, 5, 3
PATHS = {"film-film": ["follows"], "co-liked": ["liked by", "likes"]}


def _views(names=tuple(PATHS)):
    return hgraph.metapaths(typed_graph(), {name: PATHS[name] for name in names})


@pytest.mark.parametrize("share_projection", [True, False])
def test_equals_one_gat_for_each_view(share_projection):
    layer, feat = ViewGATConv(IN, OUT, HEADS, 2, share_projection=share_projection), torch.randn(11, IN)
    with torch.no_grad():
        layer.bias.normal_()
    z, alpha = layer(_views(), feat, get_attention=True)
    assert z.shape == (11, 2, HEADS * OUT)
    found = []
    for p, path in enumerate(PATHS.values()):
        gat = GATConv(IN, OUT, HEADS, activation=F.elu)
        with torch.no_grad():
            gat.fc.weight.copy_(layer.fc[0 if share_projection else p].T)
            gat.attn_l.copy_(layer.attn_l[p : p + 1])
            gat.attn_r.copy_(layer.attn_r[p : p + 1])
            gat.bias.copy_(layer.bias[p])
        out, weights = gat(hgraph.metapath_graph(typed_graph(), path), feat, get_attention=True)
        torch.testing.assert_close(z[:, p], out.flatten(1), atol=1e-5, rtol=1e-5)
        found.append(weights.squeeze(-1))
    torch.testing.assert_close(alpha, torch.cat(found), atol=1e-6, rtol=0)


@pytest.mark.parametrize("semantic", ["global", "per_node"])
def test_hanconv_is_this_and_its_semantic_attention(semantic):
    han = HANConv(IN, OUT, HEADS, list(PATHS), semantic=semantic)
    layer, feat = ViewGATConv(IN, OUT, HEADS, list(PATHS)), torch.randn(11, IN)
    own = {name: tensor for name, tensor in han.state_dict().items() if not name.startswith("semantic")}
    layer.load_state_dict({**own, "_extra_state": layer.get_extra_state()})
    z, alpha = layer(_views(), feat, get_attention=True)
    expected, beta = han.semantic(z)
    out, (alpha_han, beta_han) = han(_views(), feat, get_attention=True)
    for mine, wanted in ((out, expected), (alpha_han, alpha), (beta_han, beta)):
        assert torch.equal(mine, wanted)
    assert han.metapaths == tuple(PATHS) == layer.view_names


def test_any_fusion_follows_it():
    """Channels of a system that is not HAN: a gate for each view of each node."""
    layer, feat = ViewGATConv(IN, OUT, HEADS, 2), torch.randn(11, IN)
    fusion = Fusion(HEADS * OUT, score="linear", gate="sigmoid")
    out, beta = fusion(layer(_views(), feat))
    out.backward(torch.randn_like(out))
    assert beta.shape == (11, 2)
    for name, parameter in [*layer.named_parameters(), *fusion.named_parameters()]:
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


def test_views_are_matched_by_name():
    layer, feat = ViewGATConv(IN, OUT, HEADS, list(PATHS), share_projection=False), torch.randn(11, IN)
    z = layer(_views(), feat)
    turned = layer(_views(("co-liked", "film-film")), feat)
    torch.testing.assert_close(turned, z.flip(1), atol=1e-6, rtol=1e-6)
    other = ViewGATConv(IN, OUT, HEADS, ["co-liked", "film-film"], share_projection=False)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(_views(), feat), z, atol=1e-6, rtol=1e-6)
    with pytest.raises(
        GraphError, match=r"views: expected the views \['film-film', 'co-liked'\], got \['film-film', 'x'"
    ):
        layer(hgraph.metapaths(typed_graph(), {"film-film": ["follows"], "x": ["follows"]}), feat)
    with pytest.raises(StateError, match="state dict: expected views"):
        ViewGATConv(IN, OUT, HEADS, ["a", "b"], share_projection=False).load_state_dict(layer.state_dict())


def test_blocks_and_uniform_attention():
    layer, feat = ViewGATConv(IN, OUT, HEADS, 2, activation=None, bias=False), torch.randn(11, IN)
    seeds, blocks, feats, means = torch.tensor([2, 5, 6]), [], [], []
    for path in PATHS.values():
        graph = hgraph.metapath_graph(typed_graph(), path)
        blocks.append(dgl.to_block(dgl.in_subgraph(graph, seeds), seeds))
        feats.append(feat[blocks[-1].srcdata[dgl.NID]])
        means.append(dgl.ops.copy_u_mean(graph, feat @ layer.fc[0]))
    expected = layer(_views(), feat)
    torch.testing.assert_close(layer(hgraph.disjoint_union(blocks), feats), expected[seeds], atol=1e-5, rtol=1e-5)
    with ops.uniform_attention():
        torch.testing.assert_close(layer(_views(), feat), torch.stack(means, 1), atol=1e-5, rtol=1e-5)


def test_wrong_inputs_are_one_sentence():
    layer = ViewGATConv(IN, OUT, HEADS, 2)
    with pytest.raises(GraphError, match="views: expected 2 views, got 1"):
        layer(_views(("co-liked",)), torch.randn(11, IN))
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[11, 7\], got \[11, 8\]"):
        layer(_views(), torch.randn(11, 8))
    for wrong, match in ((0, "num_views: expected"), ([], "num_views: expected different names"), ("a", "num_views")):
        with pytest.raises((ShapeError, GraphError), match=match):
            ViewGATConv(IN, OUT, HEADS, wrong)
