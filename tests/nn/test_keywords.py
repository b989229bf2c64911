"""What layers take besides DGL's arguments: the OGB examples' forms of GAT, masks of edges, edge features, own keys."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from catalogue import EDGE, HEADS, IN, OUT, inputs, stack_of_snapshots

from hgat import graph as hgraph
from hgat import nn as hnn
from hgat.errors import GraphError, ShapeError
from zoo import build, typed_graph


def _softmax(logits, dst, rows, kept=None):
    """alpha [E, H] over the kept in-edges of each node, edge by edge."""
    alpha = torch.zeros_like(logits)
    for node in range(rows):
        for head in range(logits.shape[1]):
            edges = [e for e in (dst == node).nonzero().flatten().tolist() if kept is None or kept[e, head]]
            if edges:
                alpha[edges, head] = torch.softmax(logits[edges, head], 0)
    return alpha


def _sum(alpha, value, src, dst, rows):
    return value.new_zeros(rows, *value.shape[1:]).index_add(0, dst, alpha.unsqueeze(-1) * value[src])


def _degrees(ends, count):
    return torch.bincount(ends, minlength=count).clamp(min=1).float()


def _oracle(layer, graph, h, kept=None, edge_feat=None):
    """GATConv with everything that DGL's OGB examples add to it, from their equations."""
    (src, dst), num_dst = graph.edges(order="eid"), graph.num_dst_nodes()
    shape = layer._num_heads, layer._out_feats
    h_src, h_dst = h if isinstance(h, tuple) else (h, h[:num_dst])
    fc_src = layer.fc_src if isinstance(h, tuple) else layer.fc
    value = fc_src(h_src).view(-1, *shape)
    if layer._use_symmetric_norm:
        value = value * _degrees(src, graph.num_src_nodes()).pow(-0.5).view(-1, 1, 1)
    score = (value * layer.attn_l).sum(-1)[src]
    if layer.attn_r is not None:
        fc_dst = layer.fc_dst if isinstance(h, tuple) else layer.fc
        score = score + (fc_dst(h_dst).view(-1, *shape) * layer.attn_r).sum(-1)[dst]
    if edge_feat is not None:
        score = score + layer.fc_edge(edge_feat)
    alpha = _softmax(F.leaky_relu(score, layer.leaky_relu.negative_slope), dst, num_dst, kept)
    out = _sum(alpha, value, src, dst, num_dst)
    if layer._use_symmetric_norm:
        out = out * _degrees(dst, num_dst).pow(0.5).view(-1, 1, 1)
    if layer.res_fc is not None:
        out = out + layer.res_fc(h_dst).view(num_dst, *shape)
    return (out if layer.bias is None else out + layer.bias.view(shape)), alpha.unsqueeze(-1)


def _same(got, want):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


FORMS = [
    {"use_attn_dst": False},
    {"use_symmetric_norm": True},
    {"use_symmetric_norm": True, "use_attn_dst": False, "residual": True},
    {"edge_feats": EDGE},
    {"edge_feats": EDGE, "use_symmetric_norm": True, "residual": True, "bias": False, "negative_slope": 1.0},
]


@pytest.mark.parametrize("name", ["homogeneous", "bipartite", "block", "multi_edges"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_ogb_examples_forms_of_gat(form, name):
    graph = build(name)
    pair = name == "bipartite"
    layer = hnn.GATConv((IN, IN) if pair else IN, OUT, HEADS, **form)
    (feat,) = inputs(graph, "GATConv", pair=pair)
    given = {"edge_feat": torch.randn(graph.num_edges(), EDGE)} if "edge_feats" in form else {}
    want = _oracle(layer, graph, feat, **given)
    _same(layer(graph, feat, get_attention=True, **given), want)
    cotangent = torch.randn_like(want[0])
    parameters = [
        p for n, p in layer.named_parameters() if form.get("use_attn_dst", True) or not n.startswith("fc_dst")
    ]
    _same(
        torch.autograd.grad(layer(graph, feat, **given), parameters, cotangent),
        torch.autograd.grad(want[0], parameters, cotangent),
    )


def test_a_layer_without_destination_score_has_no_parameter_for_it():
    layer = hnn.GATConv(IN, OUT, HEADS, use_attn_dst=False)
    assert layer.attn_r is None and "attn_r" not in layer.state_dict()
    assert "fc_edge.weight" not in layer.state_dict()


@pytest.mark.parametrize("form", [{"use_symmetric_norm": True}, {"edge_feats": EDGE}], ids=str)
def test_extra_axes_are_layers_side_by_side(form):
    graph, layer = build("homogeneous"), hnn.GATConv(IN, OUT, HEADS, residual=True, **form)
    feat, given = torch.randn(23, 2, IN), {}
    if "edge_feats" in form:
        given["edge_feat"] = torch.randn(graph.num_edges(), EDGE)
    out, alpha = layer(graph, feat, get_attention=True, **given)
    for place in range(2):
        _same((out[:, place], alpha[:, place]), layer(graph, feat[:, place], get_attention=True, **given))


def test_edge_features_of_gatv2():
    graph = build("homogeneous")
    src, dst = graph.edges(order="eid")
    layer = hnn.GATv2Conv(IN, OUT, HEADS, edge_feats=EDGE)
    feat, edge = torch.randn(23, IN), torch.randn(graph.num_edges(), EDGE)
    at_src, at_dst = layer.fc_src(feat).view(23, HEADS, OUT), layer.fc_dst(feat).view(23, HEADS, OUT)
    hidden = at_src[src] + at_dst[dst] + (edge @ layer.fc_edge.weight.t()).view(-1, HEADS, OUT)
    alpha = _softmax((F.leaky_relu(hidden, 0.2) * layer.attn).sum(-1), dst, 23)
    want = _sum(alpha, at_src, src, dst, 23)
    got = layer(graph, feat, edge_feat=edge, get_attention=True)
    _same(got, (want, alpha.unsqueeze(-1)))
    cotangent = torch.randn_like(want)
    _same(*(torch.autograd.grad(out, list(layer.parameters()), cotangent) for out in (got[0], want)))
    # Without them the layer is DGL's, and loads its state.
    plain = hnn.GATv2Conv(IN, OUT, HEADS)
    plain.load_state_dict(dgl.nn.GATv2Conv(IN, OUT, HEADS).state_dict())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "bipartite", "block"])
def test_queries_keys_and_values_of_their_own(name, bias):
    graph = build(name)
    (src, dst), num_dst = graph.edges(order="eid"), graph.num_dst_nodes()
    widths = (IN, 4) if name == "bipartite" else IN
    layer = hnn.DotGatConv(widths, OUT, HEADS, key_feats=2, bias=bias)
    feat = torch.randn(graph.num_src_nodes(), IN)
    pair = (feat, torch.randn(num_dst, 4)) if name == "bipartite" else (feat, feat[:num_dst])
    query, key = layer.fc_query(pair[1]).view(-1, HEADS, 2), layer.fc_key(pair[0]).view(-1, HEADS, 2)
    value = layer.fc_value(pair[0]).view(-1, HEADS, OUT)
    alpha = _softmax((query[dst] * key[src]).sum(-1) / 2**0.5, dst, num_dst)
    want = _sum(alpha, value, src, dst, num_dst), alpha.unsqueeze(-1)
    _same(layer(graph, pair if name == "bipartite" else feat, get_attention=True), want)
    assert (layer.fc_query.bias is not None) == bias and not hasattr(layer, "fc")
    before = layer.fc_key.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.fc_key.weight, before)


def test_keys_of_their_own_equal_transformer_conv():
    geometric = pytest.importorskip("torch_geometric.nn")
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    theirs = geometric.TransformerConv(IN, OUT, HEADS, root_weight=False)
    layer = hnn.DotGatConv(IN, OUT, HEADS, key_feats=OUT, bias=True)
    for mine, other in (
        (layer.fc_query, theirs.lin_query),
        (layer.fc_key, theirs.lin_key),
        (layer.fc_value, theirs.lin_value),
    ):
        mine.load_state_dict(other.state_dict())
    want = theirs(feat, torch.stack(graph.edges(order="eid")))
    torch.testing.assert_close(layer(graph, feat).flatten(1), want, atol=1e-5, rtol=1e-5)


def test_dgls_layer_is_untouched_by_the_keywords():
    assert set(hnn.DotGatConv(IN, OUT, HEADS).state_dict()) == set(dgl.nn.DotGatConv(IN, OUT, HEADS).state_dict())
    for name in ("GATConv", "GATv2Conv"):
        ours, theirs = getattr(hnn, name)(IN, OUT, HEADS), getattr(dgl.nn, name)(IN, OUT, HEADS)
        assert set(ours.state_dict()) == set(theirs.state_dict())


MASKED = {
    "GATConv": {},
    "GATConv, residual": {"residual": True},
    "GATv2Conv": {},
    "DotGatConv": {},
    "DotGatConv, keys": {"key_feats": 2},
    "EdgeGATConv": {"edge_feats": EDGE},
}


def _masked_layer(name, **options):
    return getattr(hnn, name.partition(",")[0])(
        IN, out_feats=OUT, num_heads=HEADS, allow_zero_in_degree=True, **MASKED[name] | options
    )


def _without(graph, mask):
    return dgl.edge_subgraph(graph, mask.nonzero().flatten(), relabel_nodes=False)


@pytest.mark.parametrize("name", MASKED)
def test_masked_edges_are_edges_that_are_not_there(name):
    graph, layer = build("homogeneous"), _masked_layer(name)
    mask = torch.rand(graph.num_edges()) < 0.5
    mask[graph.edges(order="eid")[1] == 4] = False  # one node loses all of them
    feat, *edge = inputs(graph, name.partition(",")[0])
    want, alpha = layer(_without(graph, mask), feat, *(e[mask] for e in edge), get_attention=True)
    got, found = layer(graph, feat, *edge, edge_mask=mask, get_attention=True)
    _same((got, found[mask]), (want, alpha))
    assert not found[~mask].any()
    cotangent = torch.randn_like(want)
    _same(*(torch.autograd.grad(out, list(layer.parameters()), cotangent, allow_unused=True) for out in (got, want)))
    # Every head by itself, and all edges.
    per_head = mask.unsqueeze(1).expand(-1, HEADS).clone()
    per_head[:, 1] = True
    got = layer(graph, feat, *edge, edge_mask=per_head)
    _same((got[:, 0], got[:, 1]), (want[:, 0], layer(graph, feat, *edge)[:, 1]))


@pytest.mark.parametrize("name", ["GATConv", "EdgeGATConv"])
def test_masks_of_features_with_further_axes(name):
    graph, layer = build("homogeneous"), _masked_layer(name)
    mask = torch.rand(graph.num_edges(), HEADS) < 0.5
    _, *edge = inputs(graph, name)
    feat = torch.randn(23, 2, IN)
    out = layer(graph, feat, *edge, edge_mask=mask)
    for place in range(2):
        torch.testing.assert_close(
            out[:, place], layer(graph, feat[:, place], *edge, edge_mask=mask), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", MASKED)
def test_a_training_step_leaves_a_share_of_the_edges_out_of_the_softmax(name, rate):
    graph, layer = build("homogeneous"), _masked_layer(name, edge_drop=rate)
    arguments = inputs(graph, name.partition(",")[0])
    whole = layer.eval()(graph, *arguments)
    layer.train()
    torch.manual_seed(5)
    got, alpha = layer(graph, *arguments, get_attention=True)
    torch.manual_seed(5)
    torch.testing.assert_close(layer(graph, *arguments), got)
    # As the OGB examples draw it: the first numbers of a permutation.
    torch.manual_seed(5)
    kept = torch.ones(graph.num_edges(), dtype=torch.bool)
    if rate:
        kept[torch.randperm(graph.num_edges())[: int(graph.num_edges() * rate)]] = False
    torch.testing.assert_close(layer.eval()(graph, *arguments, edge_mask=kept), got)
    assert not alpha[~kept].any()
    assert torch.equal(layer(graph, *arguments), whole)
    total = torch.zeros(23, HEADS, 1).index_add(0, graph.edges(order="eid")[1], alpha)
    assert ((total - 1).abs().lt(1e-5) | total.eq(0)).all()
    if rate == 0.3:  # a mask of the user's and the drop: what both leave
        torch.manual_seed(5)
        mask = torch.arange(graph.num_edges()) % 2 == 0
        both = layer.train()(graph, *arguments, edge_mask=mask)
        torch.testing.assert_close(layer.eval()(graph, *arguments, edge_mask=mask & kept), both)


@pytest.mark.parametrize("form", [{}, {"softmax": "within"}, {"score": "multiplicative", "attn_feats": 2}], ids=str)
def test_masks_of_relations(form):
    graph = typed_graph()
    layer = hnn.RGATConv(IN, OUT, HEADS, graph.canonical_etypes, **form)
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    masks = {e: torch.rand(graph.num_edges(e)) < 0.5 for e in graph.canonical_etypes[:2]}
    thin = dgl.edge_subgraph(
        graph,
        {e: masks.get(e, torch.ones(graph.num_edges(e), dtype=torch.bool)) for e in graph.canonical_etypes},
        relabel_nodes=False,
    )
    want, alpha = layer(thin, feat, get_attention=True)
    per_head = {e: m.unsqueeze(1).expand(-1, HEADS) for e, m in masks.items()}
    mixed = {**masks, graph.canonical_etypes[0]: per_head[graph.canonical_etypes[0]]}
    for given in (masks, per_head, mixed):
        out, found = layer(graph, feat, edge_mask=given, get_attention=True)
        for ntype in want:
            torch.testing.assert_close(out[ntype], want[ntype], atol=1e-5, rtol=1e-5)
        for etype, mask in masks.items():
            torch.testing.assert_close(found[etype][mask], alpha[etype], atol=1e-5, rtol=1e-5)
            assert not found[etype][~mask].any()
    with pytest.raises(GraphError, match="edge_mask: expected relations among"):
        layer(graph, feat, edge_mask={("a", "b", "c"): mask})
    first = graph.canonical_etypes[0]
    for wrong in (masks[first].float(), masks[first][1:], [True]):
        with pytest.raises(ShapeError, match=r"edge_mask\[.*: expected bool"):
            layer(graph, feat, edge_mask={first: wrong})
    with pytest.raises(ShapeError, match="edge_mask: expected {relation"):
        layer(graph, feat, edge_mask=[masks[first]])
    assert all(
        torch.equal(a, b)
        for a, b in zip(layer(graph, feat, edge_mask={}).values(), layer(graph, feat).values(), strict=True)
    )


def test_masks_of_metapaths_and_snapshots():
    views = hgraph.metapaths(typed_graph(), {"a": ["follows"], "b": ["liked by", "likes"]})
    layer, feat = hnn.HANConv(IN, OUT, HEADS, 2, allow_zero_in_degree=True, semantic="per_node"), torch.randn(11, IN)
    mask = torch.rand(views.graph.num_edges()) < 0.5
    thin = dgl.edge_subgraph(views.graph, mask.nonzero().flatten(), relabel_nodes=False)
    from dataclasses import replace

    out, (alpha, _) = layer(views, feat, get_attention=True, edge_mask=mask)
    want, (found, _) = layer(replace(views, graph=thin), feat, get_attention=True)
    _same((out, alpha[mask]), (want, found))

    snapshots = stack_of_snapshots()
    mask = torch.rand(snapshots.graph.num_edges()) < 0.5
    for score in ("gat", "dot"):
        layer = hnn.SnapshotGATConv(IN, OUT, HEADS, score=score)
        out, alpha = layer(snapshots, torch.randn(6, IN), get_attention=True, edge_mask=mask)
        assert not alpha[~mask].any()
        total = torch.zeros(18, HEADS).index_add(0, snapshots.graph.edges(order="eid")[1], alpha)
        assert ((total - 1).abs().lt(1e-5) | total.eq(0)).all()
        alone = total.sum(1).eq(0).view(3, 6)
        assert not out[alone].any() and out[~alone].any()


@pytest.mark.parametrize(
    "wrong", [torch.ones(5, dtype=torch.bool), torch.ones(120), [True], "all"], ids=["short", "floats", "list", "text"]
)
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_masks_of_another_form(wrong, drop):
    graph, layer = build("homogeneous"), hnn.GATConv(IN, OUT, HEADS, edge_drop=drop)
    with pytest.raises(ShapeError, match="edge_mask: expected"):
        layer(graph, torch.randn(23, IN), edge_mask=wrong)


@pytest.mark.parametrize("name", ["GATv2Conv", "GATConv", "DotGatConv"])
def test_edge_weights_for_each_head(name):
    graph, layer = build("homogeneous"), _masked_layer(name)
    weight, feat = torch.rand(graph.num_edges(), HEADS), torch.randn(23, IN)
    got, alpha = layer(graph, feat, edge_weight=weight, get_attention=True)
    _, plain = layer(graph, feat, get_attention=True)
    torch.testing.assert_close(alpha, plain * weight.unsqueeze(-1))
    column = layer(graph, feat, edge_weight=weight[:, :1])
    torch.testing.assert_close(column, layer(graph, feat, edge_weight=weight[:, 0]))
    assert got.shape == column.shape
