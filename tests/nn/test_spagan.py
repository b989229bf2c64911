"""SPAGAN's layer: its equations over lists of paths, what it is over single edges, and its encoders."""

import dgl
import pytest
import torch
import torch.nn.functional as F
from catalogue import HEADS, IN, OUT

from hgat import ops
from hgat.errors import HgatError
from hgat.graph import cheapest_paths
from hgat.nn import GATConv, SPAGANConv
from zoo import build

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def paths_of(graph, length=2, share=None):
    cost = torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(1))
    return cheapest_paths(graph, cost, length, share=share)


def restated(layer, paths, x):
    """(out, beta), a node, a length and a path at a time."""
    heads, width = layer._num_heads, layer._out_feats
    h = x @ layer.fc.weight.t()
    h = (h if layer.bias is None else h + layer.bias).view(-1, heads, width)
    out, shares = [], []
    for v in range(len(x)):
        of_length = []
        for number, graph in enumerate(paths):
            lists = [p for p in graph.edata["path"].tolist() if p[-1] == v]
            phi = []
            for nodes in lists:
                rows = h[nodes[:-1]]  # [l, H, D]
                if layer.lstm is None:
                    phi.append(rows.max(0).values)
                else:
                    phi.append(layer.lstm(rows.transpose(0, 1))[0][:, -1])
            if not phi:
                of_length.append(torch.zeros(heads, width))
                continue
            phi = torch.stack(phi)
            score = (phi * layer.attn_p[number]).sum(-1)
            if layer.attn_c is not None:
                score = score + (h[v] * layer.attn_c[number]).sum(-1)
            alpha = F.leaky_relu(score, 0.2).softmax(0)
            of_length.append((alpha[..., None] * phi).sum(0))
        z = torch.stack(of_length, 1)  # [H, L, D]
        if layer.attn_len is None:
            beta = torch.ones(heads, 1)
        else:
            both = torch.cat([h[v][:, None].expand_as(z), z], -1)
            beta = F.leaky_relu((both * layer.attn_len[:, None]).sum(-1), 0.2).softmax(-1)
        shares.append(beta)
        out.append((beta[..., None] * z).sum(1))
    return torch.stack(out), torch.stack(shares)


@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "self_loops", "hub"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"path_encoder": "lstm"}, {"score": "path"}, {"path_encoder": "lstm", "score": "path"}, {"bias": False}],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_equations(name, settings, length):
    graph = build(name)
    layer, paths = SPAGANConv(IN, OUT, HEADS, max_length=length, **settings), paths_of(graph, length)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(graph.num_nodes(), IN, requires_grad=True)
    out, alpha, beta = layer(paths, x, get_attention=True)
    want, shares = restated(layer, paths, x)
    torch.testing.assert_close(beta, shares, **CLOSE)
    torch.testing.assert_close(out, want, **CLOSE)
    assert [len(a) for a in alpha] == [p.num_edges() for p in paths]
    for weights, path in zip(alpha, paths, strict=True):
        total = torch.zeros(graph.num_nodes(), HEADS, 1).index_add(0, path.edges()[1], weights)
        torch.testing.assert_close(total, torch.ones_like(total))
    cotangent, leaves = torch.randn_like(want), [x, *layer.parameters()]
    for got, due in zip(*(torch.autograd.grad(y, leaves, cotangent) for y in (out, want)), strict=True):
        torch.testing.assert_close(got, due, atol=1e-4, rtol=1e-4)


def gat_of(layer, graph):
    gat = GATConv(IN, OUT, HEADS, bias=False)
    with torch.no_grad():
        gat.fc.weight.copy_(layer.fc.weight)
        gat.attn_l.copy_(layer.attn_p[:1])
        gat.attn_r.copy_(layer.attn_c[:1])
    return lambda x: gat(graph, x)


def test_paths_of_one_edge_are_attention_over_neighbours():
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.to_simple(build("homogeneous"))))
    layer, x = SPAGANConv(IN, OUT, HEADS, bias=False, max_length=1), torch.randn(23, IN, requires_grad=True)
    # Where all edges cost the same, each is the cheapest path between its ends.
    paths = cheapest_paths(graph, torch.ones(graph.num_edges()), 1)
    assert paths[0].num_edges() == graph.num_edges()
    want = gat_of(layer, graph)(x)
    cotangent = torch.randn_like(want)
    for given in (paths, [graph]):
        got = layer(given, x)
        torch.testing.assert_close(got, want, **CLOSE)
        torch.testing.assert_close(
            *(torch.autograd.grad(y, x, cotangent, retain_graph=True)[0] for y in (got, want)), **CLOSE
        )


def test_its_two_levels_over_nothing_but_edges():
    """Without paths of two edges the second length has what stays, h_v, and beta weighs GAT against it."""
    graph = dgl.add_self_loop(dgl.graph(([0, 0, 0], [1, 2, 3])))
    layer, x = SPAGANConv(IN, OUT, HEADS, bias=False), torch.randn(4, IN)
    out, _, beta = layer(cheapest_paths(graph, torch.ones(7), 2), x, get_attention=True)
    near, own = gat_of(layer, graph)(x), layer.fc(x).view(4, HEADS, OUT)
    torch.testing.assert_close(out, beta[..., :1] * near + beta[..., 1:] * own, **CLOSE)


def test_a_node_with_itself_alone_keeps_its_row():
    graph = dgl.graph(([0, 1, 2], [1, 0, 2]), num_nodes=4)  # 2 has itself, 3 nothing
    layer, x = SPAGANConv(IN, OUT, HEADS), torch.randn(4, IN)
    out = layer(paths_of(graph), x)
    torch.testing.assert_close(out[2:], layer.fc(x[2:]).view(2, HEADS, OUT), **CLOSE)


def test_parts_that_no_path_joins_do_not_reach_each_other():
    graph = dgl.graph(([0, 1, 2, 3, 4], [1, 2, 0, 4, 3]), num_nodes=5)
    layer, x = SPAGANConv(IN, OUT, HEADS), torch.randn(5, IN)
    other = torch.cat([x[:3], torch.randn(2, IN)])
    assert torch.equal(layer(paths_of(graph), x)[:3], layer(paths_of(graph), other)[:3])


def test_the_order_of_a_path_matters_to_the_lstm_alone():
    """Each node but 0 is reached over 1, or starts there."""
    x = torch.randn(4, IN)
    for encoder, differs in (("pool", False), ("lstm", True)):
        layer = SPAGANConv(IN, OUT, HEADS, path_encoder=encoder)
        there, back = ([[0, 1, 3]], [[1, 0, 3]])
        found = []
        for nodes in (there, back):
            first = dgl.graph(([0, 1, 2, 3], [0, 1, 2, 3]))
            second = dgl.graph(([nodes[0][0]], [3]), num_nodes=4)
            second.edata["path"] = torch.tensor(nodes)
            found.append(layer([first, second], x)[3])
        assert torch.allclose(*found) != differs


def test_without_the_centre_all_nodes_weigh_a_path_alike():
    graph = dgl.graph(([0, 1, 0, 1], [2, 2, 3, 3]))
    layer, x = SPAGANConv(IN, OUT, HEADS, max_length=1, score="path"), torch.randn(4, IN)
    alpha = layer([graph], x, get_attention=True)[1][0]
    torch.testing.assert_close(alpha[:2], alpha[2:])
    layer = SPAGANConv(IN, OUT, HEADS, max_length=1)
    alpha = layer([graph], 5 * x, get_attention=True)[1][0]
    assert (alpha[:2] - alpha[2:]).abs().max() > 1e-3


def test_uniform_attention_is_a_mean_on_both_levels():
    graph = build("homogeneous")
    layer, paths, x = SPAGANConv(IN, OUT, HEADS), paths_of(graph), torch.randn(23, IN)
    h = layer.fc(x).view(23, HEADS, OUT)
    means = []
    for path in paths:
        phi = h[path.edata["path"][:, :-1]].amax(1)
        total = torch.zeros(23, HEADS, OUT).index_add(0, path.edges()[1], phi)
        means.append(total / path.in_degrees()[:, None, None])
    with ops.uniform_attention():
        torch.testing.assert_close(layer(paths, x), sum(means) / 2, **CLOSE)


PATHS = paths_of(build("homogeneous"))
X = torch.ones(23, IN)


def with_path(change):
    """PATHS with other nodes in the longer of them."""
    other = PATHS[1].clone()
    other.edata["path"] = change(other.edata["path"].clone())
    return [PATHS[0], other]


WRONG = {
    "max_length: expected 1 or more, got -1": lambda: SPAGANConv(IN, OUT, HEADS, max_length=-1),
    "path_encoder: expected 'pool' or 'lstm', got 'mean'": lambda: SPAGANConv(IN, OUT, HEADS, path_encoder="mean"),
    "score: expected 'centre' or 'path', got 'dot'": lambda: SPAGANConv(IN, OUT, HEADS, score="dot"),
    "paths: expected a list of 2 graphs, one for each length, got 1": lambda: SPAGANConv(IN, OUT, HEADS)(PATHS[:1], X),
    "paths: expected a list of 2 graphs, .* got DGLGraph": lambda: SPAGANConv(IN, OUT, HEADS)(PATHS[0], X),
    r"paths\[1\]: expected edata": lambda: SPAGANConv(IN, OUT, HEADS)([PATHS[0], build("homogeneous")], X),
    r'paths\[1\].edata\["path"\]: expected \[P, nodes\]': lambda: SPAGANConv(IN, OUT, HEADS)([PATHS[0]] * 2, X),
    r'paths\[1\].edata\["path"\]: expected numbers of nodes, int32 or int64, got torch.float32': lambda: SPAGANConv(
        IN, OUT, HEADS
    )(with_path(torch.Tensor.float), X),
    r'paths\[1\].edata\["path"\]: expected numbers of 23 nodes, got 0 to 23': lambda: SPAGANConv(IN, OUT, HEADS)(
        with_path(lambda path: path.where(path < 22, 23)), X
    ),
    r'paths\[1\].edata\["path"\]: expected numbers of 23 nodes, got -1 to 22': lambda: SPAGANConv(IN, OUT, HEADS)(
        with_path(lambda path: path.where(path > 0, -1)), X
    ),
    r"paths\[0\]: expected a graph from nodes to the same": lambda: SPAGANConv(IN, OUT, HEADS, max_length=1)(
        [build("block")], X
    ),
    "graph: expected a DGLGraph": lambda: SPAGANConv(IN, OUT, HEADS, max_length=1)([X], X),
    r"feat: expected \[N, \*, F\] = \[23, \*, 7\]": lambda: SPAGANConv(IN, OUT, HEADS)(PATHS, torch.ones(23, 5)),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()
