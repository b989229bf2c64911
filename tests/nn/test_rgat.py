"""RGATConv against loops over relations and edges, and against what the paper says its weights sum to."""

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError, ShapeError
from hgat.nn import FeaturelessRGATConv, GATConv, RGATConv
from zoo import typed_graph

IN, OUT, HEADS, ATTN = 6, 5, 2, 3
FORMS = [(softmax, score) for softmax in ("across", "within") for score in ("additive", "multiplicative")]


def _layer(graph, softmax="across", score="additive", **options):
    attn_feats = ATTN if score == "multiplicative" else 1
    return RGATConv(
        IN, OUT, HEADS, graph.canonical_etypes, softmax=softmax, score=score, attn_feats=attn_feats, **options
    )


def _feat(graph):
    return {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}


def _weight(layer, r):
    """W^r [F, H, D] from the parameters, by the equations of the docstring."""
    if hasattr(layer, "basis"):
        return sum(layer.coefficient[r, None, :, b, None] * layer.basis[b][:, None] for b in range(len(layer.basis)))
    if layer.weight.dim() == 4:
        return torch.block_diag(*layer.weight[r]).view(IN, HEADS, OUT)
    return layer.weight[r].view(IN, HEADS, OUT)


def _kernel(layer, r):
    if hasattr(layer, "attn_basis"):
        kernel = sum(layer.attn_coefficient[r, :, b, None, None] * basis for b, basis in enumerate(layer.attn_basis))
    else:
        kernel = layer.attn[r]
    half = kernel.shape[-1] // 2
    return kernel[..., :half], kernel[..., half:]


def oracle(layer, graph, feat):
    """Edge by edge and relation by relation."""
    edges = []  # (destination type, destination, relation, logits [H], message [H, D])
    for r, etype in enumerate(graph.canonical_etypes):
        weight, (to_query, to_key) = _weight(layer, r), _kernel(layer, r)
        for u, v in zip(*graph.edges(etype=etype, order="eid"), strict=True):
            sent = torch.einsum("f,fhd->hd", feat[etype[0]][u], weight)
            at_dst = torch.einsum("f,fhd->hd", feat[etype[2]][v], weight)
            query, key = torch.einsum("hd,hdq->hq", at_dst, to_query), torch.einsum("hd,hdq->hq", sent, to_key)
            if layer.score == "additive":
                logit = torch.nn.functional.leaky_relu((query + key).squeeze(-1), 0.2)
            else:
                logit = (query * key).sum(-1)
            edges.append((etype[2], int(v), r, logit, sent))
    out = {t: torch.zeros(graph.num_nodes(t), HEADS, OUT) for t in graph.dsttypes}
    alphas = []
    for ntype, v, r, logit, sent in edges:
        group = [e[3] for e in edges if e[:2] == (ntype, v) and (layer.softmax == "across" or e[2] == r)]
        alpha = logit.exp() / torch.stack(group).exp().sum(0)
        alphas.append(alpha)
        out[ntype][v] += alpha[:, None] * sent
    return out, torch.stack(alphas)


@pytest.mark.parametrize("options", [
    {}, {"num_bases": 3}, {"num_blocks": 2}, {"num_attn_bases": 4}, {"num_bases": 2, "num_attn_bases": 2},
], ids=str)  # fmt: skip
@pytest.mark.parametrize(("softmax", "score"), FORMS)
def test_equals_the_equations(softmax, score, options):
    graph = typed_graph()
    layer = _layer(graph, softmax, score, **options)
    feat = _feat(graph)
    with torch.no_grad():
        expected, alpha_expected = oracle(layer, graph, feat)
        out, alpha = layer(graph, feat, get_attention=True)
    for ntype in expected:
        torch.testing.assert_close(out[ntype], expected[ntype], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(list(alpha.values())), alpha_expected, atol=1e-6, rtol=0)
    assert [len(a) for a in alpha.values()] == [graph.num_edges(e) for e in graph.canonical_etypes]


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
@pytest.mark.parametrize("softmax", ["across", "within"])
def test_weights_sum_to_one_or_to_the_number_of_relations(softmax, score):
    graph = typed_graph()
    _, alpha = _layer(graph, softmax, score)(graph, _feat(graph), get_attention=True)
    most = 0
    for ntype in graph.ntypes:
        total, relations = torch.zeros(graph.num_nodes(ntype), HEADS), torch.zeros(graph.num_nodes(ntype))
        for etype in graph.canonical_etypes:
            if etype[2] == ntype:
                dst = graph.edges(etype=etype, order="eid")[1]
                total.index_add_(0, dst, alpha[etype].detach())
                relations += (graph.in_degrees(etype=etype) > 0).float()
        expected = relations if softmax == "within" else (relations > 0).float()
        torch.testing.assert_close(total, expected[:, None].expand_as(total))
        most = max(most, int(relations.max()))
    assert most > 1  # the two cases differ on this graph


@pytest.mark.parametrize("softmax", ["across", "within"])
def test_one_relation_is_gat(softmax):
    graph = dgl.add_self_loop(dgl.rand_graph(17, 61))
    gat = GATConv(IN, OUT, HEADS, bias=False)
    layer = RGATConv(IN, OUT, HEADS, graph.canonical_etypes, softmax=softmax)
    with torch.no_grad():
        layer.weight[0] = gat.fc.weight.T
        layer.attn[0, :, :, 0] = gat.attn_r[0]
        layer.attn[0, :, :, 1] = gat.attn_l[0]
    feat = torch.randn(17, IN)
    torch.testing.assert_close(layer(graph, feat), gat(graph, feat), atol=1e-5, rtol=1e-5)


def test_as_many_bases_as_relations_with_unit_coefficients_is_no_decomposition():
    graph = typed_graph()
    relations = len(graph.canonical_etypes)
    plain, based = _layer(graph), _layer(graph, num_bases=HEADS * relations)
    with torch.no_grad():
        based.attn.copy_(plain.attn)
        based.basis.copy_(plain.weight.view(relations, IN, HEADS, OUT).transpose(1, 2).flatten(0, 1))
        based.coefficient.copy_(torch.eye(relations * HEADS).view(relations, HEADS, -1))
    feat = _feat(graph)
    for ntype, out in plain(graph, feat).items():
        torch.testing.assert_close(based(graph, feat)[ntype], out, atol=1e-5, rtol=1e-5)


def test_within_relation_with_zero_scores_is_the_mean_of_each_relation():
    """WIRGAT with constant attention is R-GCN with mean normalisation."""
    graph = typed_graph()
    layer = _layer(graph, "within")
    torch.nn.init.zeros_(layer.attn)
    feat = _feat(graph)
    expected = {t: torch.zeros(graph.num_nodes(t), HEADS, OUT) for t in graph.ntypes}
    for r, (src, name, dst) in enumerate(graph.canonical_etypes):
        sent = torch.einsum("nf,fhd->nhd", feat[src], _weight(layer, r))
        with graph.local_scope():
            graph.nodes[src].data["m"] = sent
            graph.update_all(dgl.function.copy_u("m", "x"), dgl.function.mean("x", "out"), etype=name)
            expected[dst] = expected[dst] + graph.nodes[dst].data["out"]
    for ntype, out in layer(graph, feat).items():
        torch.testing.assert_close(out, expected[ntype], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("softmax", "score"), FORMS)
def test_block_gives_the_rows_of_the_full_graph(softmax, score):
    graph = typed_graph()
    seeds = {"film": torch.tensor([1, 4, 7]), "user": torch.tensor([2, 3])}
    block = dgl.to_block(dgl.in_subgraph(graph, seeds), seeds)
    layer, feat = _layer(graph, softmax, score), _feat(graph)
    full = layer(graph, feat)
    taken = {t: feat[t][block.srcdata[dgl.NID][t]] for t in block.srctypes}
    for ntype, out in layer(block, taken).items():
        torch.testing.assert_close(out, full[ntype][seeds[ntype]], atol=1e-5, rtol=1e-5)


def test_joined_graph_and_pair_of_dicts_are_accepted():
    graph = typed_graph()
    layer, feat = _layer(graph), _feat(graph)
    expected = layer(graph, feat)
    for out in (layer(hgraph.join_relations(graph), feat), layer(graph, (feat, feat))):
        for ntype in expected:
            assert torch.equal(out[ntype], expected[ntype])


def test_graph_with_fewer_relations_uses_the_same_parameters():
    graph = typed_graph()
    layer, feat = _layer(graph), _feat(graph)
    part = graph.edge_type_subgraph(["likes", "follows"])
    oracle_graph = dgl.heterograph(
        {e: graph.edges(etype=e) if e[1] in ("likes", "follows") else ([], []) for e in graph.canonical_etypes},
        num_nodes_dict={t: graph.num_nodes(t) for t in graph.ntypes},
    )
    torch.testing.assert_close(layer(part, feat)["film"], layer(oracle_graph, feat)["film"])


def test_every_parameter_gets_a_gradient_and_inputs_too():
    graph = typed_graph()
    for softmax, score in FORMS:
        layer = _layer(graph, softmax, score, bias=True, feat_drop=0.1, attn_drop=0.1).train()
        feat = {t: f.requires_grad_() for t, f in _feat(graph).items()}
        out = layer(graph, feat)
        torch.autograd.backward(list(out.values()), [torch.randn_like(o) for o in out.values()])
        used = [k for k, e in enumerate(graph.canonical_etypes) if graph.num_edges(e)]
        for name, parameter in layer.named_parameters():
            grad = parameter.grad if name == "bias" else parameter.grad[used]
            assert torch.isfinite(parameter.grad).all() and (grad.flatten(1) != 0).any(1).all() if grad.dim() > 1 else 1
        assert all((f.grad != 0).any() for f in feat.values())


@pytest.mark.parametrize(("softmax", "score"), FORMS)
def test_featureless_layer_equals_one_hot_input(softmax, score):
    graph = hgraph.add_inverse(typed_graph().edge_type_subgraph(["likes", "follows"]), self_relation=True)
    joined = hgraph.join_relations(graph)
    attn_feats = ATTN if score == "multiplicative" else 1
    options = {"softmax": softmax, "score": score, "attn_feats": attn_feats}
    layer = FeaturelessRGATConv(joined, OUT, HEADS, **options)
    nodes = sum(joined.num_src.values())
    one_hot = dict(zip(joined.srctypes, torch.eye(nodes).split(list(joined.num_src.values())), strict=True))
    full = RGATConv(nodes, OUT, HEADS, joined.etypes, **options)
    with torch.no_grad():
        full.attn.copy_(layer.attn)
        rows = layer.table[layer.row]
        for side, part in zip((joined.source, joined.target), rows.split(layer._sizes), strict=True):
            full.weight[side.relation, side.node] = part
    out = layer(joined, None)
    for ntype, expected in full(joined, one_hot).items():
        torch.testing.assert_close(out[ntype], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(GraphError, match="the one that the layer was built for"):
        layer(typed_graph(), None)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"softmax": "both"}, "softmax: expected 'across' or 'within', got 'both'"),
    ({"score": "cosine"}, "score: expected 'additive' or 'multiplicative', got 'cosine'"),
    ({"num_blocks": 4}, "num_blocks: expected a divisor of F = 6"),
    ({"num_blocks": 2, "num_bases": 2}, "num_blocks: expected None together with num_bases"),
])  # fmt: skip
def test_wrong_options_are_one_sentence(options, sentence):
    with pytest.raises(ShapeError, match=sentence):
        RGATConv(IN, OUT, HEADS, typed_graph().canonical_etypes, **options)


def test_wrong_inputs_are_one_sentence():
    graph = typed_graph()
    layer, feat = _layer(graph), _feat(graph)
    with pytest.raises(ShapeError, match=r"feat: expected features for node types .* got none for 'user'"):
        layer(graph, {"film": feat["film"]})
    with pytest.raises(ShapeError, match=r"feat\['user'\]: expected \[N, F\] = \[13, 6\], got \[12, 6\]"):
        layer(graph, {**feat, "user": feat["user"][:-1]})
    with pytest.raises(ShapeError, match="expected a dict over node types"):
        layer(graph, feat["film"])
    other = dgl.heterograph({("film", "sequel", "film"): ([0], [1])})
    with pytest.raises(GraphError, match="expected relations among"):
        layer(other, {"film": torch.randn(2, IN)})
    with pytest.raises(GraphError, match="expected a DGLGraph"):
        layer("graph", feat)
