"""The ways in which DGL programs write attention: a few steps of training have DGL's losses, whoever runs the softmax.

Each pattern is a small model of a kind that DGL's examples have: on edge_softmax with message passing around it, or on
DGL's layers. It is trained on DGL's functions, on hgat's in their place, and on DGL's after `hgat.accelerate`.
"""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hgat
from hgat import ops

dgl = importlib.import_module("dgl")
fn = dgl.function

NODES, CLASSES, FEATS, HEADS, WIDTH, STEPS = 40, 3, 7, 3, 4, 3


def graph():
    torch.manual_seed(3)
    dgl.seed(3)
    return dgl.add_self_loop(dgl.remove_self_loop(dgl.rand_graph(NODES, 150)))


def block(seeds):
    """The in-edges of these nodes, as a sampler gives them."""
    return dgl.to_block(dgl.in_subgraph(graph(), seeds), seeds)


def relations():
    torch.manual_seed(4)
    sizes, edges = {"a": 20, "b": 15}, {}
    for src, name, dst in (("a", "x", "b"), ("b", "y", "a"), ("b", "z", "b")):
        ends = torch.randint(0, sizes[src], (60,)), torch.randint(0, sizes[dst], (60,))
        edges[src, name, dst] = tuple(torch.cat([end, end[:3]]) for end in ends)  # some edges twice
    return dgl.heterograph(edges, sizes)


def losses(model, run, rows):
    """Losses of STEPS steps of `run(model)`, which gives scores of `rows` nodes or graphs."""
    torch.manual_seed(5)
    model.double()
    for _, weight in sorted(model.named_parameters()):
        nn.init.normal_(weight, std=0.5)
    label = torch.arange(rows) % CLASSES
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []
    for step in range(STEPS):
        torch.manual_seed(step)  # of what the model itself draws
        loss = F.cross_entropy(run(model), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[0] != found[-1] and all(loss == loss for loss in found)
    return torch.tensor(found)


def features(rows, width=FEATS):
    torch.manual_seed(6)
    return torch.randn(rows, width, dtype=torch.float64)


# ---- on edge_softmax ----


class Additive(nn.Module):
    """GAT in message passing, with what OGB's scripts add: dropped edges, sources alone, symmetric norm, edges."""

    def __init__(self, softmax, edge_drop=0.0, use_dst=True, norm=False, edge_feats=0, inplace=False):
        super().__init__()
        self.softmax, self.edge_drop, self.norm, self.inplace = softmax, edge_drop, norm, inplace
        self.fc = nn.Linear(FEATS, HEADS * WIDTH, bias=False)
        self.left, self.right = (nn.Linear(FEATS, HEADS, bias=False) if use else None for use in (True, use_dst))
        self.edge = nn.Linear(edge_feats, HEADS, bias=False) if edge_feats else None
        self.end = nn.Linear(HEADS * WIDTH, CLASSES)

    def forward(self, g, x, edge=None):
        with g.local_scope():
            x_dst = x[: g.num_dst_nodes()]
            value = self.fc(x).view(-1, HEADS, WIDTH)
            if self.norm:
                value = value * g.out_degrees().clamp(min=1).to(x).pow(-0.5).view(-1, 1, 1)
            g.srcdata.update(ft=value, el=self.left(x).unsqueeze(-1))
            if self.right is None:
                g.apply_edges(fn.copy_u("el", "e"))
            else:
                g.dstdata["er"] = self.right(x_dst).unsqueeze(-1)
                g.apply_edges(fn.u_add_v("el", "er", "e"))
            score = g.edata.pop("e")
            if edge is not None:
                score += self.edge(edge).unsqueeze(-1)
            score = F.leaky_relu(score, 0.2, inplace=self.inplace)
            if self.training and self.edge_drop:
                eids = torch.randperm(g.num_edges())[int(g.num_edges() * self.edge_drop) :]
                g.edata["a"] = torch.zeros_like(score)
                g.edata["a"][eids] = self.softmax(g, score[eids], eids=eids)
            else:
                g.edata["a"] = self.softmax(g, score)
            g.update_all(fn.u_mul_e("ft", "a", "m"), fn.sum("m", "out"))
            out = g.dstdata["out"]
            if self.norm:
                out = out * g.in_degrees().clamp(min=1).to(x).pow(0.5).view(-1, 1, 1)
            return self.end(F.relu(out.flatten(1), inplace=True))


def additive(**options):
    def train(softmax):
        g, x = graph(), features(NODES)
        edge = features(g.num_edges(), 2) if options.get("edge_feats") else None
        return losses(Additive(softmax, **options), lambda model: model(g, x, edge), NODES)

    return train


def additive_on_blocks(softmax):
    sampled = block(torch.arange(15))
    x = features(sampled.num_src_nodes())
    return losses(Additive(softmax, edge_drop=0.2), lambda model: model(sampled, x), 15)


def dot_product(softmax):
    """A transformer's attention over in-edges, logits [E, H, 1]."""
    g, x = graph(), features(NODES)

    def run(model):
        with g.local_scope():
            parts = (fc(x).view(NODES, HEADS, WIDTH) for fc in model[:3])
            g.ndata.update(zip(("q", "k", "v"), parts, strict=True))
            g.apply_edges(fn.u_dot_v("k", "q", "e"))
            g.edata["a"] = softmax(g, g.edata.pop("e") / WIDTH**0.5)
            g.update_all(fn.u_mul_e("v", "a", "m"), fn.sum("m", "out"))
            return model[3](g.ndata["out"].flatten(1))

    sizes = [(FEATS, HEADS * WIDTH)] * 3 + [(HEADS * WIDTH, CLASSES)]
    return losses(nn.ModuleList(nn.Linear(*size) for size in sizes), run, NODES)


def relation_by_relation(softmax):
    """A softmax within every relation, on slices of the typed graph, logits [E, H] and norm_by by name."""
    g, x = relations(), {ntype: features(relations().num_nodes(ntype)) for ntype in ("a", "b")}

    def run(model):
        with g.local_scope():
            for etype in g.canonical_etypes:
                one = g[etype]
                one.srcdata["k"] = model[etype[1]](x[etype[0]]).view(-1, HEADS, WIDTH)
                one.dstdata["q"] = model["query"](x[etype[2]]).view(-1, HEADS, WIDTH)
                one.srcdata[f"v_{etype[1]}"] = one.srcdata["k"]
                one.apply_edges(fn.v_dot_u("q", "k", "t"))
                one.edata["t"] = softmax(one, one.edata.pop("t").sum(-1), norm_by="dst").unsqueeze(-1)
            passing = {e: (fn.u_mul_e(f"v_{e}", "t", "m"), fn.sum("m", "out")) for e in g.etypes}
            g.multi_update_all(passing, cross_reducer="mean")
            return model["end"](g.nodes["b"].data["out"].flatten(1))

    model = nn.ModuleDict({name: nn.Linear(FEATS, HEADS * WIDTH) for name in ("x", "y", "z", "query")})
    model["end"] = nn.Linear(HEADS * WIDTH, CLASSES)
    return losses(model, run, 15)


def across_relations(norm_by):
    """One softmax over the in-edges (or out-edges) of all relations, from a dict of logits."""

    def train(softmax):
        g, x = relations(), {ntype: features(relations().num_nodes(ntype)) for ntype in ("a", "b")}

        def run(model):
            with g.local_scope():
                logits = {}
                for src, name, dst in g.canonical_etypes:
                    g.nodes[src].data[name] = model[name](x[src])
                    g.nodes[dst].data["q"] = model["query"](x[dst])
                    g.apply_edges(fn.u_add_v(name, "q", "e"), etype=name)
                    logits[src, name, dst] = F.leaky_relu(g.edges[name].data["e"]).unsqueeze(-1)
                for etype, alpha in softmax(g, logits, norm_by=norm_by).items():
                    g.edges[etype].data["a"] = alpha
                for ntype in g.ntypes:
                    g.nodes[ntype].data["v"] = model["value"](x[ntype]).view(-1, HEADS, WIDTH)
                passing = {etype: (fn.u_mul_e("v", "a", "m"), fn.sum("m", "out")) for etype in g.canonical_etypes}
                g.multi_update_all(passing, "sum")
                return model["end"](g.nodes["b"].data["out"].flatten(1))

        model = nn.ModuleDict({name: nn.Linear(FEATS, HEADS) for name in ("x", "y", "z", "query")})
        model.update({"value": nn.Linear(FEATS, HEADS * WIDTH), "end": nn.Linear(HEADS * WIDTH, CLASSES)})
        return losses(model, run, 15)

    return train


def by_channel(softmax):
    """A softmax of every channel of the messages, and a message function of one's own."""
    g, x = graph(), features(NODES)

    def run(model):
        with g.local_scope():
            g.ndata["h"] = model[0](x)
            g.apply_edges(fn.copy_u("h", "m"))
            g.edata["m"] = F.relu(g.edata["m"]) + 1e-7
            g.edata["a"] = softmax(g, g.edata["m"] * model[1].weight.sum())
            g.update_all(lambda edges: {"x": edges.data["m"] * edges.data["a"]}, fn.sum("x", "out"))
            return model[2](x + g.ndata["out"])

    sizes = (FEATS, FEATS), (1, 1), (FEATS, CLASSES)
    return losses(nn.ModuleList(nn.Linear(*size) for size in sizes), run, NODES)


def learned_structure(softmax):
    """Logits [E] over complete graphs made anew in every step, whose weak edges are dropped."""
    x, groups = features(NODES), torch.arange(NODES) // 8
    row, col = (groups.unsqueeze(1) == groups).nonzero().T

    def run(model):
        logits = F.leaky_relu((torch.cat([x[row], x[col]], 1) * model[0].weight).sum(-1))
        weights = softmax(dgl.graph((row, col), num_nodes=NODES), logits)
        kept = weights.detach() > 0.05
        g = dgl.graph((row[kept], col[kept]), num_nodes=NODES)
        g.edata["w"], g.ndata["h"] = weights[kept], model[1](x)
        g.update_all(fn.u_mul_e("h", "w", "m"), fn.sum("m", "h"))
        return g.ndata["h"]

    return losses(nn.ModuleList([nn.Linear(2 * FEATS, 1), nn.Linear(FEATS, CLASSES)]), run, NODES)


def routing(softmax):
    """What a source sends is shared among its out-edges, again and again."""
    g, x = graph(), features(NODES)

    def run(model):
        with g.local_scope():
            g.ndata["h"], logits = model(x), x.new_zeros(g.num_edges(), 1)
            for _ in range(3):
                g.edata["c"] = softmax(g, logits, norm_by="src")
                g.update_all(fn.u_mul_e("h", "c", "m"), fn.sum("m", "s"))
                g.apply_edges(fn.u_dot_v("h", "s", "agree"))
                logits = logits + g.edata["agree"]
            return g.ndata["s"]

    return losses(nn.Linear(FEATS, CLASSES), run, NODES)


def two_relations_of_a_bipartite_graph(softmax):
    """Users and items attend to one another over the same links, with edge features: logits [E, 1]."""
    torch.manual_seed(7)
    u, v = torch.randint(0, 12, (50,)), torch.randint(0, 9, (50,))
    g = dgl.heterograph({("u", "to", "v"): (u, v), ("v", "back", "u"): (v, u)}, {"u": 12, "v": 9})
    x, edge = {"u": features(12), "v": features(9)}, features(50, 2)

    def run(model):
        with g.local_scope():
            for etype, key in (("to", "v"), ("back", "u")):
                g.nodes[key].data["q"] = model[key](x[key])
                g.nodes["u" if key == "v" else "v"].data["h"] = x["u" if key == "v" else "v"]
                g.edges[etype].data["h"] = edge
                g.apply_edges(lambda edges: {"he": torch.cat([edges.src["h"], edges.data["h"]], -1)}, etype=etype)
                g.apply_edges(fn.e_dot_v("he", "q", "dot"), etype=etype)
                g.edges[etype].data["a"] = softmax(g[etype], g.edges[etype].data["dot"])
                g.apply_edges(lambda edges: {"m": edges.data["he"] * edges.data["a"]}, etype=etype)
                g.update_all(fn.copy_e("m", "m"), fn.sum("m", "out"), etype=etype)
            return model["end"](torch.cat([g.nodes["u"].data["out"], g.nodes["v"].data["out"]]))

    model = nn.ModuleDict({key: nn.Linear(FEATS, FEATS + 2) for key in ("u", "v")})
    model["end"] = nn.Linear(FEATS + 2, CLASSES)
    return losses(model, run, 21)


PATTERNS = {
    "additive": additive(),
    "dropped edges": additive(edge_drop=0.3),
    "dropped edges, symmetric norm, sources alone": additive(edge_drop=0.3, use_dst=False, norm=True),
    "edge features, scores changed in place": additive(edge_feats=2, inplace=True),
    "sampled": additive_on_blocks,
    "dot product": dot_product,
    "relation by relation": relation_by_relation,
    "across relations": across_relations("dst"),
    "across relations by source": across_relations("src"),
    "by channel": by_channel,
    "learned structure": learned_structure,
    "routing": routing,
    "bipartite": two_relations_of_a_bipartite_graph,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_on_edge_softmax(pattern):
    expected = PATTERNS[pattern](dgl.ops.edge_softmax)
    torch.testing.assert_close(PATTERNS[pattern](ops.edge_softmax), expected, rtol=1e-9, atol=0)
    report = hgat.accelerate()
    try:
        torch.testing.assert_close(PATTERNS[pattern](dgl.ops.edge_softmax), expected, rtol=1e-9, atol=0)
        with ops.use_backend("dgl"):
            torch.testing.assert_close(PATTERNS[pattern](dgl.ops.edge_softmax), expected, rtol=1e-9, atol=0)
    finally:
        report.undo()


# ---- on layers ----


class Stack(nn.Module):
    """Two layers of attention, activations in place between them, the mean of the heads at the end."""

    def __init__(self, conv, second=None):
        super().__init__()
        self.convs = nn.ModuleList([conv(FEATS, WIDTH), (second or conv)(HEADS * WIDTH, CLASSES)])

    def forward(self, graphs, x, *edges):
        for depth, (conv, g) in enumerate(zip(self.convs, graphs, strict=True)):
            x = conv(g, x, *edges)
            if depth == 0:
                x = F.relu(x, inplace=True).flatten(1)
        return x.mean(1)


def stack(make):
    def train(nn_of, accelerate):
        g, x = graph(), features(NODES)
        model = Stack(make(nn_of))
        edges = (features(g.num_edges(), 2),) if make is edge_gat else ()
        return losses(accelerate(model), lambda model: model([g, g], x, *edges), NODES)

    return train


def gat(nn_of):
    return lambda size, out: nn_of.GATConv(size, out, HEADS, residual=True, activation=F.elu)


def gatv2(nn_of):
    return lambda size, out: nn_of.GATv2Conv(size, out, HEADS, residual=True, bias=False, share_weights=True)


def dotgat(nn_of):
    return lambda size, out: nn_of.DotGatConv(size, out, HEADS)


def edge_gat(nn_of):
    return lambda size, out: nn_of.EdgeGATConv(size, 2, out, HEADS)


def gat_on_blocks(nn_of, accelerate):
    """Pairs of sources and destinations on blocks, as the oldest sampled scripts have them."""
    last = block(torch.arange(9))
    first = block(last.srcdata[dgl.NID])
    x = features(NODES)[first.srcdata[dgl.NID]]
    sizes = (FEATS, WIDTH), (HEADS * WIDTH, CLASSES)
    model = nn.ModuleList(nn_of.GATConv((size, size), out, HEADS, activation=F.relu) for size, out in sizes)

    def run(model):
        h = x
        for depth, (conv, sampled) in enumerate(zip(model, (first, last), strict=True)):
            h = conv(sampled, (h, h[: sampled.num_dst_nodes()]))
            h = h.flatten(1) if depth == 0 else h
        return h.mean(1)

    return losses(accelerate(model), run, 9)


def hetero_gat(nn_of, accelerate):
    """dgl.nn.HeteroGraphConv around a layer for every relation, views of what it returns."""
    g, x = relations(), {ntype: features(relations().num_nodes(ntype)) for ntype in ("a", "b")}
    mods = {name: nn_of.GATConv(FEATS, WIDTH, HEADS, allow_zero_in_degree=True) for name in ("x", "y", "z")}
    model = nn.ModuleList([dgl.nn.HeteroGraphConv(mods, aggregate="sum"), nn.Linear(HEADS * WIDTH, CLASSES)])

    def run(model):
        h = model[0](g, x)["b"]
        return model[1](F.relu_(h.view(h.shape[0], h.shape[1] * h.shape[2])))

    return losses(accelerate(model), run, 15)


def a_layer_for_every_type_of_edge(nn_of, accelerate):
    """Subgraphs of one graph that keep all nodes, sums in place."""
    g, x, kind = graph(), features(NODES), torch.arange(graph().num_edges()) % 3
    model = nn.ModuleList(nn_of.GATConv(FEATS, WIDTH, HEADS, allow_zero_in_degree=True) for _ in range(3))
    model.append(nn.Linear(FEATS, HEADS * WIDTH))
    model.append(nn.Linear(HEADS * WIDTH, CLASSES))

    def run(model):
        h = model[3](x)
        for k, conv in enumerate(model[:3]):
            h += conv(g.edge_subgraph(kind == k, relabel_nodes=False), (x, x)).view(-1, HEADS * WIDTH)
        return model[4](F.elu(h))

    return losses(accelerate(model), run, NODES)


def metapaths(nn_of, accelerate):
    """HAN of DGL's: a layer for every meta-path graph, a softmax over what they say."""
    graphs, x = [graph(), dgl.add_self_loop(dgl.khop_graph(graph(), 2))], features(NODES)
    model = nn.ModuleList(nn_of.GATConv(FEATS, WIDTH, HEADS, activation=F.elu) for _ in graphs)
    model.append(nn.Sequential(nn.Linear(HEADS * WIDTH, 5), nn.Tanh(), nn.Linear(5, 1, bias=False)))
    model.append(nn.Linear(HEADS * WIDTH, CLASSES))

    def run(model):
        views = torch.stack([conv(g, x).flatten(1) for conv, g in zip(model[:2], graphs, strict=True)], 1)
        return model[3]((torch.softmax(model[2](views).mean(0), 0) * views).sum(1))

    return losses(accelerate(model), run, NODES)


def hgt(nn_of, accelerate):
    g, x = graph(), features(NODES, HEADS * WIDTH)
    ntype, etype = torch.arange(NODES) % 2, torch.arange(g.num_edges()) % 4
    model = nn.ModuleList([nn_of.HGTConv(HEADS * WIDTH, WIDTH, HEADS, 2, 4), nn.Linear(HEADS * WIDTH, CLASSES)])
    return losses(accelerate(model), lambda model: model[1](model[0](g, x, ntype, etype)), NODES)


LAYERS = {
    "GATConv": stack(gat),
    "GATv2Conv": stack(gatv2),
    "DotGatConv": stack(dotgat),
    "EdgeGATConv": stack(edge_gat),
    "HGTConv": hgt,
    "pairs on blocks": gat_on_blocks,
    "HeteroGraphConv": hetero_gat,
    "a layer for every type of edge": a_layer_for_every_type_of_edge,
    "meta-paths": metapaths,
}


def accelerated(model):
    report = hgat.accelerate(model)
    assert report.replaced and not report.kept
    return model


@pytest.mark.parametrize("pattern", LAYERS)
def test_on_layers(pattern):
    expected = LAYERS[pattern](dgl.nn, lambda model: model)
    torch.testing.assert_close(LAYERS[pattern](hgat.nn, lambda model: model), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(LAYERS[pattern](dgl.nn, accelerated), expected, rtol=1e-9, atol=0)
