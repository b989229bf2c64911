"""Simple-HGN as a whole: its layers by hand, attention that goes from layer to layer on graphs and blocks."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat.errors import GraphError, RecipeError
from hgat.models import Facts, SimpleHGN, layerwise
from hgat.nn import SimpleHGNConv
from zoo import typed_graph

IN, CLASSES = 5, 3
SMALL = {"embed": 6, "hidden": 4, "heads": [2, 2, 2, 1], "edge_feats": 3, "beta": 0.3}
STILL = {"feat_drop": 0.0, "attn_drop": 0.0}


def setting(**settings):
    """(shown, graph, features, a model in evaluation mode)."""
    feat = {"film": torch.randn(11, IN, generator=torch.Generator().manual_seed(1)), "user": None}
    shown = Facts(typed_graph(), feat, target="film", num_classes=CLASSES)
    graph, feat = SimpleHGN.prepare(shown)
    torch.manual_seed(0)
    return shown, graph, feat, SimpleHGN.build(shown, (graph, feat), **{**SMALL, **STILL, **settings}).eval()


def test_layers_by_hand():
    """hgat.nn.SimpleHGNConv is tested against its equations; here are what goes in and out of the layers."""
    _, graph, feat, model = setting()
    flat = dgl.to_homogeneous(graph)
    kinds = flat.edata[dgl.ETYPE]
    where = {ntype: feat[ntype] if feat[ntype] is not None else None for ntype in graph.ntypes}
    rows = [m(where[t]) if where[t] is not None else m.weight for t, m in zip(graph.ntypes, model.inputs, strict=True)]
    h, past = torch.cat(rows), None
    for depth, layer in enumerate(model.layers[:-1]):
        assert (layer.res_fc is not None) == (depth > 0)
        z, past = layer(flat, h, kinds, past, get_attention=True)
        assert past.shape == (flat.num_edges(), 2)
        h = z.flatten(1)
    z = model.layers[-1](flat, h, kinds).mean(1)
    want = (z / z.norm(dim=1, keepdim=True))[flat.ndata[dgl.NTYPE] == graph.ntypes.index("film")]
    found = model(graph, feat)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(11))
    assert model.layers[0].activation is F.elu and model.layers[-1].activation is None


def test_attention_that_was_passed_on():
    _, graph, feat, model = setting()
    first, second, third, last = model.attention(graph, feat)
    plain = setting(beta=0.0)[3]
    plain.load_state_dict(model.state_dict())
    own = plain.attention(graph, feat)
    for etype in graph.canonical_etypes:
        torch.testing.assert_close(first[etype], own[0][etype])
        assert last[etype].shape == (graph.num_edges(etype), 1)
    torch.testing.assert_close(second["film", "follows", "film"], 0.7 * own[1]["film", "follows", "film"]
                               + 0.3 * first["film", "follows", "film"])  # fmt: skip
    assert not torch.allclose(third["film", "follows", "film"], own[2]["film", "follows", "film"])


def test_blocks_with_all_neighbours_give_the_same():
    _, graph, feat, model = setting()
    ids = torch.tensor([7, 2, 3])
    inputs, _ = model.sampled((graph, feat), ids, [-1] * 4)
    torch.testing.assert_close(model(*inputs), model(graph, feat)[ids], atol=1e-5, rtol=1e-5)
    for block in inputs[0]:
        for etype in block.canonical_etypes:
            block.edges[etype].data.pop(dgl.EID)
    with pytest.raises(GraphError, match=r"blocks: expected the numbers of their edges in edata\[dgl.EID\], got none"):
        model(*inputs)


def test_an_edge_that_the_layer_before_did_not_sample_had_no_attention_there():
    _, graph, feat, model = setting(heads=[2, 2, 1])
    told = []
    layer = model.layers[1]
    layer.register_forward_pre_hook(lambda _, given: told.append(given[3]))
    (blocks, rows), _ = model.sampled((graph, feat), torch.arange(11), [2, -1, -1])
    model(blocks, rows)
    before, after = (
        torch.cat([b.edges[e].data[dgl.EID] + 10**6 * k for k, e in enumerate(b.canonical_etypes)]) for b in blocks[:2]
    )
    missing = ~torch.isin(after, before)
    assert missing.any() and not told[0][missing].any() and (told[0][~missing] > 0).all()


def test_exact_inference_in_pieces_where_no_layer_is_told_of_another():
    _, graph, feat, model = setting(beta=0.0)
    torch.testing.assert_close(layerwise(model, graph, feat, batch_size=4), model(graph, feat), atol=1e-5, rtol=1e-5)
    _, _, _, model = setting()
    assert torch.equal(model.whole((graph, feat), 4), model(graph, feat))
    with pytest.raises(RecipeError, match="model.beta: expected 0 for layers one by one"):
        layerwise(model, graph, feat)


def test_relations_are_matched_by_name():
    shown, graph, feat, model = setting()
    other = graph.edge_type_subgraph(graph.canonical_etypes[::-1])  # DGL sorts names elsewhere
    torch.manual_seed(9)
    found = SimpleHGN.build(shown, (other, feat), **SMALL).eval()
    found.load_state_dict(model.state_dict())
    torch.testing.assert_close(found(other, feat), model(graph, feat))
    torch.testing.assert_close(model(other, feat), model(graph, feat))  # and so are those of a graph


def test_the_relation_of_an_edge_counts():
    _, graph, feat, model = setting()
    swapped = {etype: graph.edges(etype=etype) for etype in graph.canonical_etypes}
    first, second = ("user", "likes", "film"), ("user", "never", "film")
    swapped[first], swapped[second] = swapped[second], swapped[first]
    other = dgl.heterograph(swapped, num_nodes_dict={"user": 13, "film": 11})
    assert not torch.allclose(model(other, feat), model(graph, feat))


def test_empty_types_and_relations_train():
    graph = dgl.heterograph(
        {("tag", "marks", "item"): ([0, 1, 1], [1, 2, 0]), ("shop", "sells", "item"): ([], [])},
        num_nodes_dict={"tag": 2, "item": 3, "shop": 0},
    )
    feat = {"tag": torch.randn(2, 3), "item": None, "shop": None}
    model = SimpleHGN.for_graph(graph, feat, CLASSES, "item", **SMALL)
    out = model(graph, feat)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_wrong_settings_are_one_sentence():
    _, graph, feat, _ = setting()
    with pytest.raises(RecipeError, match="model.heads: expected as many in each layer but the last with beta, got"):
        SimpleHGN.for_graph(graph, feat, CLASSES, "film", heads=[2, 3, 1])
    assert len(SimpleHGN.for_graph(graph, feat, CLASSES, "film", heads=[2, 3, 1], beta=0.0).layers) == 3
    assert all(isinstance(layer, SimpleHGNConv) for layer in setting()[3].layers)
