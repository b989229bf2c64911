"""MAGNA's layer and block: the equations once more on dense matrices, its limits, and what backward keeps."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from catalogue import HEADS, IN, OUT

from hgat import graph as hgraph
from hgat import ops
from hgat.errors import HgatError
from hgat.kernels import cpu
from hgat.nn import MAGNABlock, MAGNAConv
from zoo import build

GRAPHS = ["homogeneous", "multi_edges", "self_loops", "hub"]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def layer_of(hops=3, **settings):
    return MAGNAConv(IN, OUT, HEADS, hops=hops, **settings)


def ends_of(graph):
    return (end.long() for end in graph.edges(order="eid"))


def attention(layer, graph, feat, of_edge=0.0):
    """A of the equations, [H, N, N], the destination first."""
    src, dst = ends_of(graph)
    near = torch.tanh((feat @ layer.fc.weight.t()).view(-1, layer._num_heads, layer._out_feats))
    e = F.leaky_relu((near[src] * layer.attn_l + near[dst] * layer.attn_r).sum(-1) + of_edge, 0.2).exp()
    a = torch.zeros(layer._num_heads, len(feat), len(feat))
    a = a.index_put((torch.arange(layer._num_heads), dst[:, None], src[:, None]), e, accumulate=True)
    return a / a.sum(-1, keepdim=True).clamp_min(1e-30)


def diffused(layer, a, feat):
    """sum_{m<K} alpha (1 - alpha)^m A^m V + (1 - alpha)^K A^K V, [N, H, D]."""
    v = (feat @ layer.fc.weight.t()).view(-1, layer._num_heads, layer._out_feats).transpose(0, 1)
    found, power = 0.0, v
    for m in range(layer.hops):
        found = found + layer.alpha * (1 - layer.alpha) ** m * power
        power = a @ power
    return (found + (1 - layer.alpha) ** layer.hops * power).transpose(0, 1)


def filtered(layer, graph, feat):
    """sum_k beta_k T_k(L) h W_k with L = 2 (I - S) / 2 - I."""
    src, dst = ends_of(graph)
    s = torch.zeros(len(feat), len(feat)).index_put((dst, src), hgraph.normalized(graph), accumulate=True)
    basis = [torch.eye(len(feat)), -s]
    while len(basis) <= layer.hops:
        basis.append(2 * -s @ basis[-1] - basis[-2])
    weight = layer.fc.weight.view(layer.hops + 1, -1, IN)
    terms = [layer.beta[k] * basis[k] @ feat @ weight[k].t() for k in range(layer.hops + 1)]
    return sum(terms).view(-1, layer._num_heads, layer._out_feats)


def same_gradients(got, want, leaves):
    cotangent = torch.randn_like(want)
    torch.testing.assert_close(got, want, **CLOSE)
    for mine, due in zip(*(torch.autograd.grad(x, leaves, cotangent) for x in (got, want)), strict=True):
        torch.testing.assert_close(mine, due, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("settings", [{}, {"hops": 1}, {"alpha": 0.0, "hops": 2}, {"alpha": 0.7, "hops": 5}])
def test_equations(name, settings):
    graph, layer = build(name), layer_of(**settings)
    feat = torch.randn(graph.num_nodes(), IN, requires_grad=True)
    same_gradients(
        layer(graph, feat), diffused(layer, attention(layer, graph, feat), feat), [feat, *layer.parameters()]
    )


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("hops", [1, 2, 5])
def test_the_filter_without_attention(name, hops):
    graph, layer = build(name), layer_of(hops, diffusion="cheb")
    torch.nn.init.uniform_(layer.beta, 0.5, 1.5)
    feat = torch.randn(graph.num_nodes(), IN, requires_grad=True)
    same_gradients(layer(graph, feat), filtered(layer, graph, feat), [feat, *layer.parameters()])


def test_relations_are_a_third_term_of_the_score():
    graph, layer = build("homogeneous"), layer_of(rel_feats=4)
    feat = torch.randn(23, IN, requires_grad=True)
    etype, rel_feat = torch.arange(graph.num_edges()) % 3, torch.randn(3, 4, requires_grad=True)
    row = torch.tanh((rel_feat @ layer.fc_rel.weight.t()).view(3, HEADS, OUT))
    a = attention(layer, graph, feat, (row * layer.attn_rel).sum(-1)[etype])
    got = layer(graph, feat, etype=etype, rel_feat=rel_feat)
    same_gradients(got, diffused(layer, a, feat), [feat, rel_feat, *layer.parameters()])


def test_alpha_of_one_gives_the_projection():
    graph, layer, feat = build("homogeneous"), layer_of(alpha=1.0), torch.randn(23, IN)
    assert torch.equal(layer(graph, feat), layer.fc(feat).view(23, HEADS, OUT))


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_many_steps_give_the_dense_inverse(alpha):
    graph, layer, feat = build("homogeneous"), layer_of(300, alpha=alpha), torch.randn(23, IN)
    a = attention(layer, graph, feat)
    inverse = alpha * torch.linalg.inv(torch.eye(23) - (1 - alpha) * a)
    v = (feat @ layer.fc.weight.t()).view(23, HEADS, OUT).transpose(0, 1)
    torch.testing.assert_close(layer(graph, feat), (inverse @ v).transpose(0, 1), **CLOSE)
    assert (inverse.sum(-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("hops", [1, 2, 10])
def test_weights_of_the_senders_sum_to_one(hops):
    """One column of W h is one everywhere, and what is left of it is the sum of the weights."""
    graph, layer = build("homogeneous"), layer_of(hops, alpha=0.2)
    feat = torch.cat([torch.randn(23, IN - 1), torch.ones(23, 1)], 1)
    with torch.no_grad():
        weight = layer.fc.weight.view(HEADS, OUT, IN)
        weight[:, 0] = torch.eye(IN)[-1]
    torch.testing.assert_close(layer(graph, feat)[..., 0], torch.ones(23, HEADS))
    alpha = layer(graph, feat, get_attention=True)[1]
    assert alpha.shape == (graph.num_edges(), HEADS, 1) and alpha.std() > 0.01


def test_dropout_on_attention_is_one_matrix_for_all_hops():
    graph = build("homogeneous")
    feat, found = torch.eye(23), {}
    for hops in (1, 2, 3):
        layer = MAGNAConv(23, 23, 1, attn_drop=0.4, hops=hops, alpha=0.0)
        with torch.no_grad():
            layer.fc.weight.copy_(torch.eye(23))
            layer.attn_l.copy_(torch.linspace(-1, 1, 23))
            layer.attn_r.copy_(torch.linspace(2, -1, 23))
        torch.manual_seed(3)
        found[hops] = layer(graph, feat).squeeze(1)
    torch.testing.assert_close(found[2], found[1] @ found[1], **CLOSE)
    torch.testing.assert_close(found[3], found[1] @ found[1] @ found[1], **CLOSE)
    dense = torch.zeros(23, 23).index_put(graph.edges()[::-1], torch.ones(120), accumulate=True)
    assert ((found[1] == 0) & (dense > 0)).any()  # some edges are dropped


@pytest.mark.parametrize("drop", [0.3, 0.9])
def test_rows_sum_to_one_with_dropout_too(drop):
    """What is left of the edges keeps its proportions, and a node that would lose all keeps all."""
    graph = build("homogeneous")
    src, dst = graph.edges()
    layer, feat = MAGNAConv(23, 23, 1, attn_drop=drop, hops=1, alpha=0.0), torch.eye(23)
    with torch.no_grad():
        layer.fc.weight.copy_(torch.eye(23))
    full = layer.eval()(graph, feat).squeeze(1)
    lost = 0
    for _ in range(20):
        got = layer.train()(graph, feat).squeeze(1)
        torch.testing.assert_close(got.sum(1), torch.ones(23))
        lost += int((got == 0).sum() > (full == 0).sum())
        single = [v for v in range(23) if len(set(src[dst == v].tolist())) == 1]
        torch.testing.assert_close(got[single], full[single])
    assert lost == 20


def test_a_pair_that_keeps_its_edges_does_not_grow_with_the_hops():
    """Two nodes that hear each other alone: scaled by 1 / (1 - 0.5), their rows would be 2^30 times as large."""
    graph = dgl.graph(([0, 1], [1, 0]))
    layer = MAGNAConv(IN, OUT, HEADS, attn_drop=0.5, hops=30, alpha=0.0)
    feat = torch.randn(2, IN)
    bound = layer.fc(feat).abs().max()
    assert all(layer(graph, feat).abs().max() <= bound * 1.001 for _ in range(20))


def kept(hops, graph, feat, training):
    """Elements of all that autograd keeps of a forward, each storage once."""
    layer = MAGNAConv(IN, 8, 4, attn_drop=0.5, hops=hops, alpha=0.1).train(training)
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(graph, feat)
    assert out.requires_grad
    return sum(storages.values())


@pytest.mark.skipif(not cpu.available(), reason="the compiled core is missing")
@pytest.mark.parametrize("training", [False, True])
def test_a_further_hop_keeps_rows_of_nodes_and_nothing_of_edges(training):
    nodes, edges = 50, 5000
    graph = dgl.graph((torch.randint(nodes, (edges,)), torch.arange(edges) % nodes))
    feat = torch.randn(nodes, IN, requires_grad=True)
    few, many = (kept(hops, graph, feat, training) for hops in (2, 12))
    rows = nodes * 4 * 8
    assert 0 < many - few <= 10 * rows < edges * 4
    assert many < 6 * edges * 4 + 30 * rows  # a few columns per head, and nothing of edges x heads x width


def test_uniform_attention_spreads_evenly():
    graph, layer, feat = build("homogeneous"), layer_of(4), torch.randn(23, IN)
    weight = hgraph.normalized(graph, "right").unsqueeze(1).repeat(1, HEADS)
    with ops.uniform_attention():
        got = layer(graph, feat)
    want = ops.propagate(graph, layer.fc(feat).view(23, HEADS, OUT), weight, 4, restart=layer.alpha)
    torch.testing.assert_close(got, want, **CLOSE)


def test_a_node_without_in_edges_keeps_its_share_of_its_own_row():
    graph, feat = build("zero_in_degree"), torch.randn(29, IN)
    bare = graph.in_degrees() == 0
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer_of()(graph, feat)
    layer = layer_of(alpha=0.3, allow_zero_in_degree=True)
    want = 0.3 * layer.fc(feat).view(-1, HEADS, OUT)
    torch.testing.assert_close(layer(graph, feat)[bare], want[bare])
    assert bare.any()


def test_disconnected_parts_do_not_reach_each_other():
    layer, x = layer_of(8), torch.randn(6, IN)
    graph = dgl.add_self_loop(dgl.graph(([0, 1, 2, 3, 4], [1, 2, 0, 4, 3]), num_nodes=6))
    other = torch.cat([x[:3], torch.randn(3, IN)])
    assert torch.equal(layer(graph, x)[:3], layer(graph, other)[:3])
    # A node with itself alone stays where it is.
    torch.testing.assert_close(layer(graph, x)[5], layer.fc(x[5]).view(HEADS, OUT), **CLOSE)


@pytest.mark.parametrize("settings", [{}, {"norm": False}, {"feed_forward": False}, {"diffusion": "cheb"}])
@pytest.mark.parametrize("width", [IN, 12])
def test_the_block_restated(settings, width):
    graph = build("homogeneous")
    block = MAGNABlock(width, 12, 3, hops=2, **settings)
    x = torch.randn(23, width, requires_grad=True)

    def norm(rows):
        centred = rows - rows.mean(1, keepdim=True)
        return (
            rows if settings.get("norm") is False else centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        )

    shortcut = x if width == 12 else x @ block.res_fc.weight.t()
    y = block.conv(graph, norm(x)).flatten(1) @ block.fc_out.weight.t() + shortcut
    if settings.get("feed_forward") is False:
        want = F.elu(y)
    else:
        first, second = block.feed_forward[1], block.feed_forward[4]
        assert first.weight.shape == (48, 12)
        want = torch.relu(norm(y) @ first.weight.t() + first.bias) @ second.weight.t() + second.bias + y
    same_gradients(block.eval()(graph, x), want, [x, block.fc_out.weight])


def call(layer=None, graph="homogeneous", feat=None, **more):
    feat = torch.ones(23, IN) if feat is None else feat
    return lambda: (layer or layer_of())(build(graph), feat, **more)


RELATIONS = {"etype": torch.zeros(120, dtype=torch.int64), "rel_feat": torch.ones(3, 4)}
WRONG = {
    "diffusion: expected 'ppr' or 'cheb', got 'heat'": lambda: layer_of(diffusion="heat"),
    "hops: expected 1 or more, got 0": lambda: layer_of(0),
    "hops: expected 1 or more, got -2": lambda: layer_of(-2),
    "alpha: expected a number from 0 to 1, got 1.5": lambda: layer_of(alpha=1.5),
    "rel_feats: expected none of a filter": lambda: layer_of(diffusion="cheb", rel_feats=3),
    "out_feats: expected a multiple of 3 heads, got 10": lambda: MAGNABlock(IN, 10, 3),
    "graph: expected one whose walks go on": call(graph="block"),
    "etype: expected none of a layer without rel_feats, got ": call(etype=RELATIONS["etype"]),
    "etype: expected it of a layer that has rel_feats, got none": call(layer_of(rel_feats=4)),
    "rel_feat: expected it of a layer that has rel_feats, got none": call(
        layer_of(rel_feats=4), etype=RELATIONS["etype"]
    ),
    r"rel_feat: expected \[R, F_r\] = \[any, 3\]": call(layer_of(rel_feats=3), **RELATIONS),
    r"etype: expected \[E\]": call(layer_of(rel_feats=4), etype=torch.zeros(3).long(), rel_feat=torch.ones(3, 4)),
    "get_attention: expected False of a filter": call(layer_of(diffusion="cheb"), get_attention=True),
    r"feat: expected \[N, \*, F\] = \[23, \*, 7\]": call(feat=torch.ones(23, 5)),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()


def test_numbers_of_relations_that_are_none():
    graph, layer = build("homogeneous"), layer_of(rel_feats=4)
    etype = torch.zeros(graph.num_edges(), dtype=torch.int64)
    for wrong in (-1, 3):
        etype[0] = wrong
        with pytest.raises(HgatError, match="etype: expected numbers of the 3 relations, got"):
            layer(graph, torch.ones(23, IN), etype=etype, rel_feat=torch.ones(3, 4))


def test_numbers_of_relations_on_a_device_are_not_waited_for():
    graph = build("homogeneous")
    layer = MAGNAConv(4, 2, 3, rel_feats=5, allow_zero_in_degree=True).to("meta")
    etype = torch.zeros(graph.num_edges(), dtype=torch.int64, device="meta")
    feat, rel_feat = (torch.empty(rows, width, device="meta") for rows, width in ((graph.num_nodes(), 4), (7, 5)))
    assert layer(graph, feat, etype=etype, rel_feat=rel_feat).shape == (graph.num_nodes(), 3, 2)
