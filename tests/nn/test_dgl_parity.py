"""Layers that DGL has too: same parameters in and out, same outputs, same gradients, same habits."""

import inspect
import io

import dgl
import dgl.nn as dglnn
import pytest
import torch

import hgat.nn as hgatnn
from zoo import build

IN, OUT, HEADS, EDGE = 7, 5, 3, 2
LAYERS = {
    "GATConv": {},
    "GATv2Conv": {},
    "EdgeGATConv": {"edge_feats": EDGE},
    "DotGatConv": {},
}
GRAPHS = ("homogeneous", "bipartite", "block", "multi_edges", "self_loops", "hub", "relation_slice_with_in_edges")


def _graph(name, idtype):
    if name != "relation_slice_with_in_edges":
        return build(name, idtype)
    graph = build("bipartite", idtype)
    hetero = dgl.heterograph({("a", "to", "b"): graph.edges(), ("b", "back", "a"): graph.edges()[::-1]})
    return hetero["a", "to", "b"]


def _pair(layer, in_feats, **options):
    """DGL's layer, and hgat's with the parameters of DGL's."""
    options = {**LAYERS[layer], **options}
    theirs = getattr(dglnn, layer)(in_feats, out_feats=OUT, num_heads=HEADS, **options)
    ours = getattr(hgatnn, layer)(in_feats, out_feats=OUT, num_heads=HEADS, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs.double().float(), ours


def _inputs(graph, layer, pair, width=(IN, IN)):
    feat = torch.randn(graph.num_src_nodes(), width[0], requires_grad=True)
    leaves = [feat]
    arguments = [feat]
    if pair:
        other = torch.randn(graph.num_dst_nodes(), width[1], requires_grad=True)
        leaves.append(other)
        arguments = [(feat, other)]
    if layer == "EdgeGATConv":
        edge = torch.randn(graph.num_edges(), EDGE, requires_grad=True)
        leaves.append(edge)
        arguments.append(edge)
    return arguments, leaves


def _same(got, expected, what):
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got, expected, atol=1e-5 * scale, rtol=0, msg=lambda m: f"{what}: {m}")


def _compare(theirs, ours, graph, arguments, leaves, **options):
    expected, alpha_expected = theirs(graph, *arguments, get_attention=True, **options)
    got, alpha = ours(graph, *arguments, get_attention=True, **options)
    _same(got, expected, "output")
    _same(alpha, alpha_expected, "attention")
    assert alpha.shape == alpha_expected.shape
    cotangent = torch.randn_like(expected)
    names = [name for name, _ in theirs.named_parameters()]
    ours_by_name = dict(ours.named_parameters())
    assert set(ours_by_name) == set(names)
    of_theirs = torch.autograd.grad(expected, leaves + [p for _, p in theirs.named_parameters()], cotangent)
    of_ours = torch.autograd.grad(got, leaves + [ours_by_name[n] for n in names], cotangent)
    inputs = [f"input {k}" for k in range(len(leaves))]
    for name, mine, yours in zip(inputs + names, of_ours, of_theirs, strict=True):
        _same(mine, yours, f"gradient of {name}")


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("layer", LAYERS)
def test_outputs_and_gradients_equal_dgl(layer, name, idtype):
    graph = _graph(name, idtype)
    two_sided = graph.num_src_nodes() != graph.num_dst_nodes() and not graph.is_block
    theirs, ours = _pair(layer, (IN, IN) if two_sided else IN)
    arguments, leaves = _inputs(graph, layer, two_sided)
    _compare(theirs, ours, graph, arguments, leaves)
    # and back again: what hgat trained loads into DGL's layer
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.load_state_dict(ours.state_dict())
    _compare(theirs, ours, graph, arguments, leaves)


@pytest.mark.parametrize("name", ("homogeneous", "multi_edges", "block"))
def test_edge_weights_equal_dgl(name):
    graph = build(name)
    theirs, ours = _pair("GATConv", IN)
    arguments, leaves = _inputs(graph, "GATConv", False)
    weight = torch.rand(graph.num_edges(), requires_grad=True)
    _compare(theirs, ours, graph, arguments, [*leaves, weight], edge_weight=weight)


@pytest.mark.parametrize("layer", ["GATv2Conv", "EdgeGATConv", "DotGatConv"])
def test_edge_weights_multiply_alpha(layer):
    graph = build("homogeneous")
    _, ours = _pair(layer, IN)
    arguments, _ = _inputs(graph, layer, False)
    weight = torch.rand(graph.num_edges())
    _, alpha = ours(graph, *arguments, get_attention=True)
    _, weighted = ours(graph, *arguments, get_attention=True, edge_weight=weight)
    torch.testing.assert_close(weighted, alpha * weight.view(-1, 1, 1))
    plain, doubled = ours(graph, *arguments), ours(graph, *arguments, edge_weight=torch.full_like(weight, 2.0))
    if layer == "EdgeGATConv":
        rest = ours.res_fc(arguments[0]).view(-1, HEADS, OUT) + ours.bias.view(HEADS, OUT)
        plain, doubled = plain - rest, doubled - rest
    torch.testing.assert_close(doubled, 2 * plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [
    {"residual": True}, {"residual": True, "bias": False}, {"bias": False}, {"activation": torch.tanh},
    {"negative_slope": 0.5},
], ids=", ".join)  # fmt: skip
@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv", "EdgeGATConv"])
@pytest.mark.parametrize("in_feats", [IN, OUT * HEADS, (IN, 11)], ids=str)
def test_options_equal_dgl(layer, options, in_feats):
    graph = build("bipartite" if isinstance(in_feats, tuple) else "homogeneous")
    width = in_feats if isinstance(in_feats, tuple) else (in_feats, in_feats)
    theirs, ours = _pair(layer, in_feats, **options)
    arguments, leaves = _inputs(graph, layer, isinstance(in_feats, tuple), width)
    _compare(theirs, ours, graph, arguments, leaves)


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "block"])
def test_shared_weights_equal_dgl(name, share_weights):
    theirs, ours = _pair("GATv2Conv", IN, share_weights=share_weights)
    graph = build(name)
    arguments, leaves = _inputs(graph, "GATv2Conv", False)
    _compare(theirs, ours, graph, arguments, leaves)


@pytest.mark.parametrize("layer", ["GATConv", "EdgeGATConv"])
def test_extra_axes_equal_dgl(layer):
    graph = build("homogeneous")
    theirs, ours = _pair(layer, IN)
    feat = torch.randn(graph.num_nodes(), 2, 4, IN)
    if layer == "GATConv":
        expected, alpha_expected = theirs(graph, feat, get_attention=True)
        got, alpha = ours(graph, feat, get_attention=True)
        _same(got, expected, "output")
        _same(alpha, alpha_expected, "attention")
    else:  # DGL's own layer cannot broadcast its edge features over extra axes; each slice is the reference
        edge = torch.randn(graph.num_edges(), EDGE)
        got = ours(graph, feat, edge)
        for a in range(2):
            for b in range(4):
                _same(got[:, a, b], theirs(graph, feat[:, a, b], edge), "output")


@pytest.mark.parametrize("layer", LAYERS)
def test_constructor_and_forward_take_dgls_positions(layer):
    def names(function, skip=()):
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found if p.kind in kinds and p.name not in skip]

    theirs, ours = getattr(dglnn, layer), getattr(hgatnn, layer)
    assert names(ours.__init__) == names(theirs.__init__)
    assert names(ours.forward) == names(theirs.forward)


@pytest.mark.parametrize("layer", LAYERS)
def test_same_seed_draws_dgls_initialisation(layer):
    """Same distribution: gain, fan and zeros, compared by the spread of large layers."""
    build_layer = [
        getattr(library, layer)(64, **LAYERS[layer], out_feats=64, num_heads=8) for library in (dglnn, hgatnn)
    ]
    theirs, ours = (dict(x.named_parameters()) for x in build_layer)
    for name, parameter in theirs.items():
        spread, expected = float(ours[name].detach().std()), float(parameter.detach().std())
        assert spread == pytest.approx(expected, rel=0.2, abs=1e-12), name


# One form of every layer that DGL has too, and the forms whose parameters are others.
FIRST_VALUES = [
    *[("GATConv", (w, OUT, HEADS), {"residual": r}) for w in (IN, (IN, 11)) for r in (False, True)],
    *[("GATv2Conv", (w, OUT, HEADS), {"residual": r}) for w in (IN, (IN, 11)) for r in (False, True)],
    ("GATv2Conv", (IN, OUT, HEADS), {"share_weights": True, "residual": True}),
    *[("EdgeGATConv", (w, EDGE, OUT, HEADS), {"residual": r}) for w in (IN, (IN, 11)) for r in (False, True)],
    ("DotGatConv", (IN, OUT, HEADS), {}),
    ("HGTConv", (IN, OUT, HEADS, 2, 3), {"use_norm": True}),
    ("EGATConv", (IN, EDGE, OUT, 4, HEADS), {}),
    ("AGNNConv", (), {}),
]


@pytest.mark.parametrize(("layer", "sizes", "options"), FIRST_VALUES, ids=str)
def test_parameters_stand_in_dgls_order_with_dgls_first_values(layer, sizes, options):
    """PyTorch's optimisers match their state by position, and a script with one import changed starts where it did."""
    built = []
    for module in (dglnn, hgatnn):
        torch.manual_seed(7)
        built.append(list(getattr(module, layer)(*sizes, **options).named_parameters()))
    theirs, ours = built
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, mine), (_, wanted) in zip(ours, theirs, strict=True):
        assert torch.equal(mine, wanted), name


@pytest.mark.parametrize("layer", LAYERS)
def test_zero_in_degree_raises_as_dgl_does(layer):
    graph = build("zero_in_degree")
    arguments, _ = _inputs(graph, layer, False)
    _, ours = _pair(layer, IN)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        ours(graph, *arguments)
    ours.set_allow_zero_in_degree(True)
    theirs = getattr(dglnn, layer)(IN, out_feats=OUT, num_heads=HEADS, allow_zero_in_degree=True, **LAYERS[layer])
    theirs.load_state_dict(ours.state_dict())
    _same(ours(graph, *arguments), theirs(graph, *arguments), "output")


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_survives_save_and_leaves_the_graph_alone(layer):
    graph = build("homogeneous")
    graph.ndata["mine"] = torch.ones(graph.num_nodes())
    _, ours = _pair(layer, IN)
    arguments, _ = _inputs(graph, layer, False)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again(graph, *arguments), ours(graph, *arguments))
    assert set(graph.ndata) == {"mine"} and not graph.edata


@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv", "DotGatConv"])
def test_inside_hetero_graph_conv(layer):
    from zoo import typed_graph

    graph = typed_graph()
    options = {} if layer == "DotGatConv" else {"bias": False}
    if layer == "DotGatConv":  # DGL's confuses the two ends of a pair on a relation from a type to itself
        graph = graph.edge_type_subgraph(["likes", "liked by"])

    def build_conv(library):
        return dglnn.HeteroGraphConv(
            {
                e[1]: getattr(library, layer)((IN, IN), OUT, HEADS, allow_zero_in_degree=True, **options)
                for e in graph.canonical_etypes
            }
        )

    theirs, ours = build_conv(dglnn), build_conv(hgatnn)
    ours.load_state_dict(theirs.state_dict())
    feat = {t: torch.randn(graph.num_nodes(t), IN) for t in graph.ntypes}
    expected = theirs(graph, feat)
    for ntype, out in ours(graph, feat).items():
        _same(out, expected[ntype], ntype)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_parameter_gets_a_gradient_with_dropout_on(layer):
    graph = build("homogeneous")
    options = {} if layer == "DotGatConv" else {"feat_drop": 0.2, "attn_drop": 0.2}
    ours = getattr(hgatnn, layer)(IN, out_feats=OUT, num_heads=HEADS, **LAYERS[layer], **options).train()
    arguments, _ = _inputs(graph, layer, False)
    out = ours(graph, *arguments)
    out.backward(torch.randn_like(out))
    for name, parameter in ours.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize("layer", LAYERS)
def test_nodes_in_another_order_give_outputs_in_that_order(layer):
    graph = build("multi_edges")
    _, ours = _pair(layer, IN)
    arguments, _ = _inputs(graph, layer, False)
    order = torch.randperm(graph.num_nodes())
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    moved = dgl.graph((place[src], place[dst]), num_nodes=graph.num_nodes())
    _same(ours(moved, arguments[0][order], *arguments[1:]), ours(graph, *arguments)[order], "output")


def test_attention_returned_in_training_is_before_dropout():
    graph = build("homogeneous")
    ours = hgatnn.GATConv(IN, OUT, HEADS, attn_drop=0.9).train()
    _, alpha = ours(graph, torch.randn(graph.num_nodes(), IN), get_attention=True)
    total = torch.zeros(graph.num_nodes(), HEADS).index_add(0, graph.edges(order="eid")[1], alpha.squeeze(-1))
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("layer", LAYERS)
def test_wrong_width_or_number_of_rows_is_one_sentence(layer):
    graph = build("homogeneous")
    _, ours = _pair(layer, IN)
    arguments, _ = _inputs(graph, layer, False)
    for wrong in (arguments[0][:, :-1], arguments[0][:-1]):
        with pytest.raises(hgatnn.common.ShapeError, match=r"feat: expected \[N, \*, F\] = \[23, \*, 7\], got"):
            ours(graph, wrong, *arguments[1:])


def test_dot_product_keeps_both_ends_of_a_pair_apart_on_a_homogeneous_graph():
    graph = build("homogeneous")
    ours = hgatnn.DotGatConv((IN, IN), OUT, HEADS)
    feat = torch.randn(23, IN), torch.randn(23, IN)
    src, dst = graph.edges(order="eid")
    as_bipartite = dgl.heterograph({("a", "to", "b"): (src, dst)}, num_nodes_dict={"a": 23, "b": 23})
    _same(ours(graph, feat), ours(as_bipartite, feat), "output")


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("layer", LAYERS)
def test_graph_restricted_to_one_sparse_format(layer, form):
    graph = build("homogeneous")
    _, ours = _pair(layer, IN)
    arguments, _ = _inputs(graph, layer, False)
    _same(ours(graph.formats(form), *arguments), ours(graph, *arguments), form)


@pytest.mark.parametrize("width", [4, OUT * HEADS, 40], ids=["narrow", "as wide", "wide"])
@pytest.mark.parametrize("layer", ["GATConv", "EdgeGATConv"])
def test_scores_of_inputs_narrower_and_wider_than_the_projection(layer, width):
    graph = build("homogeneous")
    theirs, ours = _pair(layer, width)
    arguments, leaves = _inputs(graph, layer, False, (width, width))
    _compare(theirs, ours, graph, arguments, leaves)


def test_scores_follow_a_projection_that_does_more_than_multiply():
    """A hook on fc, a bias, another module in its place: scores are of what fc gave, as in DGL's layer."""
    graph = build("homogeneous")
    feat = torch.randn(graph.num_nodes(), 4)

    def doubled(module, inputs, output):
        return 2 * output

    class Shifted(torch.nn.Linear):
        def forward(self, feat):
            return super().forward(feat) + 1

    for change in ("hook", "bias", "class"):
        theirs, ours = _pair("GATConv", 4)
        for layer in (theirs, ours):
            if change == "hook":
                layer.fc.register_forward_hook(doubled)
            elif change == "bias":
                layer.fc.bias = torch.nn.Parameter(torch.linspace(-1, 1, OUT * HEADS))
            else:
                layer.fc.__class__ = Shifted
        _same(ours(graph, feat), theirs(graph, feat), change)
