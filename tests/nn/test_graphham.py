"""GraphHAMConv against its equations, and with one group against GATConv."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat.errors import GraphError, HgatError
from hgat.nn import GATConv, GraphHAMConv
from zoo import build, typed_graph

IN, OUT, HEADS, GROUPS = 7, 5, 3, 4


def drawn(layer, graph, x):
    """What the layer gives with its own draws told: (out, the group of each node)."""
    told = []
    run = layer._drawn
    layer._drawn = lambda log_pi: (told.append(run(log_pi)), told[-1])[1]
    return layer(graph, x), told


def expected(layer, graph, x, group=None):
    """(out, pi) by the equations, node after node; group: of each node, in the place of the likeliest."""
    src, dst = (end.long() for end in graph.edges(order="eid"))
    wh = (x @ layer.fc.weight.T).unflatten(-1, (HEADS, OUT))
    groups = layer.groups.unflatten(-1, (HEADS, OUT))
    near = [src[dst == i] for i in range(len(x))]
    own = torch.stack([(wh[js].mean(0) * groups).sum((1, 2)) for js in near])
    pi = torch.softmax(own / (HEADS * OUT) ** 0.5, 1)
    g = groups[pi.argmax(1) if group is None else group]
    out = []
    for i, js in enumerate(near):
        s = F.leaky_relu((layer.attn_l * wh[js]).sum(-1) + (layer.attn_r * wh[i]).sum(-1), 0.2)
        s = s + (g[i] * g[js]).sum(-1) / OUT**0.5 if layer.variant == "membership" else s
        out.append((torch.softmax(s, 0).unsqueeze(-1) * wh[js]).sum(0))
    out = torch.stack(out)
    if layer.variant == "grains":
        to_group = torch.softmax(torch.einsum("nhd,khd->nhk", wh, groups) / OUT**0.5, 2)
        above = torch.einsum("nhk,khd->nhd", to_group, groups)
        both = torch.cat([out.flatten(1), above.flatten(1)], 1)
        gamma = torch.softmax(torch.tanh(both @ layer.mix.weight.T + layer.mix.bias) @ layer.gate.weight.T, 1)
        out, pi = gamma[:, :1, None] * out + gamma[:, 1:, None] * above, to_group.mean(1)
    return out + layer.bias.view(HEADS, OUT), pi


@pytest.mark.parametrize("variant", ["membership", "grains"])
@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "hub"])
def test_outputs_and_gradients_are_those_of_the_equations(name, variant):
    graph = build(name)
    x = torch.randn(graph.num_nodes(), IN)
    layer = GraphHAMConv(IN, OUT, HEADS, GROUPS, variant=variant).eval()
    out, log_pi = layer(graph, x, get_memberships=True)
    want, pi = expected(layer, graph, x)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_pi.exp(), pi, atol=1e-5, rtol=1e-5)
    cotangent, names = torch.randn_like(want), dict(layer.named_parameters())
    found = [torch.autograd.grad(o, list(names.values()), cotangent, allow_unused=True) for o in (out, want)]
    for key, ours, theirs in zip(names, *found, strict=True):
        ours, theirs = (torch.zeros_like(names[key]) if g is None else g for g in (ours, theirs))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3, msg=lambda m, key=key: f"{key}: {m}")


def test_in_training_a_group_is_drawn_by_its_probability_and_pi_learns_from_it():
    graph = build("homogeneous")
    x = torch.randn(23, IN, generator=torch.Generator().manual_seed(1))
    layer = GraphHAMConv(IN, OUT, HEADS, GROUPS)
    with torch.no_grad():
        layer.groups.div_(3)
    _, pi = expected(layer, graph, x)
    torch.manual_seed(0)
    often = torch.zeros(23, GROUPS)
    for _ in range(150):
        out, (of_node,) = drawn(layer, graph, x)
        group = torch.cdist(of_node, layer.groups).argmin(1)
        torch.testing.assert_close(of_node, layer.groups[group])
        often[torch.arange(23), group] += 1
    torch.testing.assert_close(out, expected(layer, graph, x, group)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(often / 150, pi.detach(), atol=0.17, rtol=0)
    (in_training,) = torch.autograd.grad(out.square().sum(), layer.groups)
    (at_draws,) = torch.autograd.grad(expected(layer, graph, x, group)[0].square().sum(), layer.groups)
    assert (in_training - at_draws).norm() > 0.01 * at_draws.norm()  # the rest came through pi


@pytest.mark.parametrize("training", [False, True])
def test_one_group_is_gat(training):
    graph, x = build("homogeneous"), torch.randn(23, IN)
    ours, gat = GraphHAMConv(IN, OUT, HEADS, 1), GATConv(IN, OUT, HEADS)
    gat.load_state_dict({name: ours.state_dict()[name] for name in gat.state_dict()})
    (out, alpha), (theirs, beta) = (m.train(training)(graph, x, get_attention=True) for m in (ours, gat))
    torch.testing.assert_close(out, theirs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(alpha, beta.squeeze(-1), atol=1e-6, rtol=1e-6)


def test_wrong_arguments_are_one_sentence():
    layer = GraphHAMConv(IN, OUT, HEADS, GROUPS)
    for graph in (build("block"), build("bipartite")):
        with pytest.raises(GraphError, match="expected one with all nodes, which say who belongs to which group"):
            layer(graph, torch.randn(graph.num_src_nodes(), IN))
    for arguments, sentence in (
        ((build("homogeneous"), torch.randn(23, IN - 1)), r"feat: expected \[N, \*, F\]"),
        ((typed_graph(), torch.randn(23, IN)), "graph: expected one relation, got 4"),
    ):
        with pytest.raises(HgatError, match=sentence):
            layer(*arguments)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(build("zero_in_degree"), torch.randn(29, IN))
    for wrong in ({"variant": "both"}, {"temperature": 0}, {"temperature": -1.0}, {"num_groups": 0}):
        with pytest.raises(HgatError, match="expected"):
            GraphHAMConv(**{"in_feats": IN, "out_feats": OUT, "num_heads": HEADS, "num_groups": GROUPS} | wrong)


def test_a_node_without_in_edges_belongs_to_each_group_alike():
    graph = build("zero_in_degree")
    layer = GraphHAMConv(IN, OUT, HEADS, GROUPS, allow_zero_in_degree=True, bias=False).eval()
    out, log_pi = layer(graph, torch.randn(29, IN), get_memberships=True)
    alone = graph.in_degrees() == 0
    assert alone.any() and not out[alone].any()
    torch.testing.assert_close(log_pi[alone].exp(), torch.full((int(alone.sum()), GROUPS), 1 / GROUPS))
