"""hgat.accelerate: the same outputs and gradients before and after, on the very same objects; and what it leaves."""

import copy
import io
import pickle
import re

import dgl
import dgl.nn as dglnn
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import hgat
import hgat.nn as hgatnn
from hgat.errors import HgatError
from zoo import build, typed_graph

IN, OUT, HEADS, EDGE, NTYPES, ETYPES = 7, 5, 3, 2, 3, 4
LAYERS = ("GATConv", "GATv2Conv", "EdgeGATConv", "DotGatConv", "HGTConv")
DROPPING = ("GATConv", "GATv2Conv", "EdgeGATConv")


def make(layer, in_feats=IN, **options):
    """DGL's layer, no parameter at a constant."""
    if layer == "HGTConv":
        made = dglnn.HGTConv(in_feats, OUT, HEADS, NTYPES, ETYPES, **{"dropout": 0.0} | options)
    elif layer == "EdgeGATConv":
        made = dglnn.EdgeGATConv(in_feats, EDGE, OUT, HEADS, **options)
    else:
        made = getattr(dglnn, layer)(in_feats, OUT, HEADS, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def inputs(layer, graph, pair=False, width=IN, dtype=torch.float32):
    """(arguments behind the graph, leaves) of a call."""
    feat = torch.randn(graph.num_src_nodes(), width, dtype=dtype, requires_grad=True)
    leaves, arguments = [feat], [feat]
    if pair:
        leaves.append(torch.randn(graph.num_dst_nodes(), width, dtype=dtype, requires_grad=True))
        arguments = [tuple(leaves)]
    if layer == "EdgeGATConv":
        leaves.append(torch.randn(graph.num_edges(), EDGE, dtype=dtype, requires_grad=True))
        arguments.append(leaves[-1])
    if layer == "HGTConv":
        arguments += [torch.randint(NTYPES, (len(feat),)), torch.randint(ETYPES, (graph.num_edges(),))]
    return arguments, leaves


def run(model, graph, arguments, leaves, **options):
    """Outputs and all gradients under a random cotangent that is the same at every call."""
    torch.manual_seed(11)
    out = model(graph, *arguments, **options)
    outs = list(out.values()) if isinstance(out, dict) else [out]
    torch.manual_seed(12)
    cotangents = [torch.randn_like(o) for o in outs]
    names = [f"input {k}" for k in range(len(leaves))] + [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(outs, [*leaves, *model.parameters()], cotangents)
    return {f"output {k}": o for k, o in enumerate(outs)} | dict(zip(names, gradients, strict=True))


def same(got, expected, atol=1e-5):
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        scale = max(1.0, float(tensor.detach().abs().max()) if tensor.numel() else 1.0)
        torch.testing.assert_close(got[name], tensor, atol=atol * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def ours(layer):
    return getattr(hgatnn, layer)


GRAPHS = ("homogeneous", "block", "multi_edges", "hub", "bipartite")


@pytest.mark.parametrize(
    ("layer", "name"),
    [(layer, name) for layer in LAYERS for name in GRAPHS if (layer, name) != ("HGTConv", GRAPHS[-1])],
)
def test_outputs_and_gradients_stay(layer, name):
    graph = build(name)
    pair = name == "bipartite"
    model = nn.ModuleDict({"conv": make(layer, (IN, IN) if pair else IN)})
    model.forward = lambda *a, **k: model["conv"](*a, **k)
    arguments, leaves = inputs(layer, graph, pair)
    before = run(model, graph, arguments, leaves)
    report = hgat.accelerate(model)
    assert report.replaced == {"conv": ours(layer)} and report.kept == {}
    assert type(model["conv"]) is ours(layer)
    same(run(model, graph, arguments, leaves), before)


@pytest.mark.parametrize("options", [
    {"residual": True}, {"residual": True, "bias": False}, {"bias": False}, {"activation": torch.tanh},
    {"activation": nn.PReLU()}, {"negative_slope": 0.5}, {"feat_drop": 0.5},
], ids=", ".join)  # fmt: skip
@pytest.mark.parametrize("in_feats", [IN, OUT * HEADS, (IN, IN)], ids=str)
@pytest.mark.parametrize("layer", DROPPING)
def test_options_stay(layer, in_feats, options):
    pair = isinstance(in_feats, tuple)
    graph = build("bipartite" if pair else "homogeneous")
    model = make(layer, in_feats, **options)
    arguments, leaves = inputs(layer, graph, pair, IN if pair else in_feats)
    before = run(model, graph, arguments, leaves)  # training: feat_drop drops the same numbers
    assert hgat.accelerate(model).replaced == {"": ours(layer)}
    same(run(model, graph, arguments, leaves), before)


@pytest.mark.parametrize("options", [{"use_norm": True}, {"dropout": 0.5}, {"in_feats": OUT * HEADS}], ids=str)
def test_options_of_hgt_stay(options):
    model, graph = make("HGTConv", **options), build("homogeneous")
    arguments, leaves = inputs("HGTConv", graph, width=options.get("in_feats", IN))
    before = run(model, graph, arguments, leaves)
    hgat.accelerate(model)
    same(run(model, graph, arguments, leaves), before)


@pytest.mark.parametrize("layer", DROPPING)
def test_rate_of_dropout_on_attention_stays(layer):
    graph = build("hub")
    model = make(layer, attn_drop=0.75, **({"residual": False} if layer == "EdgeGATConv" else {}))
    arguments, _ = inputs(layer, graph)
    hgat.accelerate(model)
    expected = model.eval()(graph, *arguments)
    assert torch.equal(model(graph, *arguments), expected)
    model.train()
    with torch.no_grad():
        drawn = torch.stack([model(graph, *arguments) for _ in range(800)])
    assert drawn.std(0).max() > 0.1
    # Dropout keeps the mean; a rate that was lost would make every draw the same.
    error = (drawn.mean(0) - expected).abs().max() / (drawn.std(0).max() / 800**0.5)
    assert error < 5
    model.attn_drop.p = 1.0
    bias = 0.0 if layer == "GATv2Conv" else model.bias.view(HEADS, OUT)
    torch.testing.assert_close(model(graph, *arguments), (expected * 0 + bias))


@pytest.mark.parametrize("layer", DROPPING)
def test_dropout_alone_in_training_mode_drops_as_before(layer):
    """Dropout at evaluation, to sample predictions: the mode of the part decides, as in DGL, not the layer's."""
    graph, model = build("hub"), make(layer, attn_drop=0.5).eval()
    arguments, _ = inputs(layer, graph)
    hgat.accelerate(model)
    expected = model(graph, *arguments)
    model.attn_drop.train()
    assert not torch.allclose(model(graph, *arguments), expected)
    model.train().attn_drop.eval()
    torch.testing.assert_close(model(graph, *arguments), expected)


class Net(nn.Module):
    """DGL layers in every container, one of them used twice, two held by a list beside the tree as well."""

    def __init__(self):
        super().__init__()
        self.first = dglnn.GATConv(IN, OUT, HEADS, activation=F.elu)
        width = OUT * HEADS
        self.stack = nn.ModuleList([dglnn.GATv2Conv(width, OUT, HEADS, share_weights=True), nn.Linear(width, width)])
        self.named = nn.ModuleDict({"dot": nn.Sequential(dglnn.DotGatConv(width, OUT, HEADS))})
        self.twice = nn.ModuleList([dglnn.HGTConv(width, OUT, HEADS, NTYPES, ETYPES, dropout=0.0)] * 2)
        self.pipe = dglnn.Sequential(_Flat(dglnn.GATConv(width, OUT, HEADS)), _Flat(dglnn.GATConv(width, OUT, HEADS)))
        self.edge = dglnn.EdgeGATConv(width, EDGE, OUT, HEADS)
        self.beside = [self.first, self.edge]

    def forward(self, graph, feat, edge_feat, ntype, etype):
        h = self.beside[0](graph, feat).flatten(1)
        h = self.stack[1](self.stack[0](graph, h).flatten(1))
        h = self.named["dot"][0](graph, h).flatten(1)
        for layer in self.twice:
            h = layer(graph, h, ntype, etype)
        return self.beside[1](graph, self.pipe(graph, h), edge_feat)


class _Flat(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, graph, feat):
        return self.layer(graph, feat).flatten(1)


REPLACED_IN_NET = {
    "first": "GATConv",
    "stack.0": "GATv2Conv",
    "named.dot.0": "DotGatConv",
    "twice.0": "HGTConv",
    "twice.1": "HGTConv",
    "pipe.0.layer": "GATConv",
    "pipe.1.layer": "GATConv",
    "edge": "EdgeGATConv",
}


def net_inputs(graph):
    feat = torch.randn(graph.num_nodes(), IN, requires_grad=True)
    edge = torch.randn(graph.num_edges(), EDGE, requires_grad=True)
    types = torch.randint(NTYPES, (graph.num_nodes(),)), torch.randint(ETYPES, (graph.num_edges(),))
    return [feat, edge, *types], [feat, edge]


def test_every_container_of_a_model():
    graph, model = build("homogeneous"), Net()
    arguments, leaves = net_inputs(graph)
    before = run(model, graph, arguments, leaves)
    objects = {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}
    parameters = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    state = copy.deepcopy(model.state_dict())
    report = hgat.accelerate(model)
    assert report.replaced == {name: ours(layer) for name, layer in REPLACED_IN_NET.items()}
    assert report.kept == {}
    assert not any(isinstance(m, tuple(getattr(dglnn, layer) for layer in LAYERS)) for m in model.modules())
    same(run(model, graph, arguments, leaves), before)
    # The same objects under the same names, one layer in two places included.
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == parameters
    after = {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}
    assert {name: number for name, number in after.items() if name in objects} == objects
    assert model.twice[0] is model.twice[1] and model.stack[0].fc_dst is model.stack[0].fc_src
    assert list(model.state_dict()) == list(state)


def test_second_call_replaces_nothing():
    model = Net()
    hgat.accelerate(model)
    classes = [type(module) for module in model.modules()]
    report = hgat.accelerate(model)
    assert (report.replaced, report.kept) == ({}, {})
    assert str(report) == "no attention layer of DGL found"
    assert [type(module) for module in model.modules()] == classes


@pytest.mark.parametrize("layer", LAYERS)
def test_the_model_itself_may_be_a_layer(layer):
    graph, model = build("homogeneous"), make(layer)
    arguments, leaves = inputs(layer, graph)
    before = run(model, graph, arguments, leaves)
    report = hgat.accelerate(model)
    assert report.replaced == {"": ours(layer)} and type(model) is ours(layer)
    assert str(report) == f"replaced:\n  (the model itself)  hgat.nn.{layer}"
    same(run(model, graph, arguments, leaves), before)


@pytest.mark.parametrize("as_block", [False, True], ids=["graph", "block"])
@pytest.mark.parametrize("layer", LAYERS[:4])
def test_inside_hetero_graph_conv(layer, as_block):
    graph = typed_graph()
    if layer == "DotGatConv":  # DGL's confuses the two ends of a pair on a relation from a type to itself
        graph = graph.edge_type_subgraph(["likes", "liked by"])
    # Said here, since DGL's DotGatConv lacks the method by which HeteroGraphConv says it.
    layers = {e[1]: make(layer, (IN, IN), allow_zero_in_degree=True) for e in graph.canonical_etypes}
    model = dglnn.HeteroGraphConv(layers, aggregate="mean")
    if as_block:
        seeds = {"film": torch.tensor([2, 3, 7]), "user": torch.tensor([0, 5, 6])}
        graph = dgl.to_block(dgl.in_subgraph(graph, seeds), seeds)
    feat = {t: torch.randn(graph.num_src_nodes(t), IN, requires_grad=True) for t in graph.srctypes}
    edge = {e: torch.randn(graph.num_edges(e), EDGE, requires_grad=True) for e in graph.etypes}
    leaves = list(feat.values())
    options = {}
    if layer == "EdgeGATConv":
        leaves += [edge[e] for e in graph.etypes]
        options = {"mod_args": {e: (edge[e],) for e in graph.etypes}}
    before = run(model, graph, [feat], leaves, **options)
    report = hgat.accelerate(model)
    assert report.replaced == {f"mods.{e}": ours(layer) for e in model.mods}
    # HeteroGraphConv calls its layers through a dict of its own.
    assert {type(module) for module in model.mod_dict.values()} == {ours(layer)}
    same(run(model, graph, [feat], leaves, **options), before)


def test_dot_product_keeps_the_ends_apart_where_dgl_does_not():
    """The one result that changes, and the docstring says so: DGL takes the destinations for both ends here."""
    graph, model = build("homogeneous"), make("DotGatConv", (IN, IN))
    arguments, _ = inputs("DotGatConv", graph, pair=True)
    before = model(graph, *arguments)
    hgat.accelerate(model)
    after = model(graph, *arguments)
    assert not torch.allclose(after, before, atol=1e-3)
    src, dst = graph.edges(order="eid")
    bipartite = dgl.heterograph({("a", "to", "b"): (src, dst)}, num_nodes_dict={"a": 23, "b": 23})
    torch.testing.assert_close(after, make_like(model)(bipartite, *arguments), atol=1e-5, rtol=0)


def make_like(model):
    theirs = make("DotGatConv", (IN, IN))
    theirs.load_state_dict(model.state_dict())
    return theirs


def test_training_goes_on_with_the_same_optimiser():
    """Two steps, accelerated between them, against two steps without."""
    graph = build("homogeneous")
    model = Net()
    twin = copy.deepcopy(model)
    twin.beside = [twin.first, twin.edge]
    arguments, _ = net_inputs(graph)
    optimisers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (model, twin)]

    def step():
        for m, optimiser in zip((model, twin), optimisers, strict=True):
            optimiser.zero_grad()
            m(graph, *arguments).square().mean().backward()
            optimiser.step()

    step()
    hgat.accelerate(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        step()
    for (name, mine), (_, theirs) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        # Adam divides by the size of the gradient: where that is nothing but rounding, so is its direction.
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        assert not torch.equal(mine, start[name]), name
    assert len(optimisers[0].state) == len(list(model.parameters()))


@pytest.mark.parametrize("layer", LAYERS)
def test_state_dict_goes_both_ways(layer):
    graph, model = build("homogeneous"), make(layer)
    arguments, leaves = inputs(layer, graph)
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    before = run(model, graph, arguments, leaves)
    hgat.accelerate(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    theirs = make(layer)
    theirs.load_state_dict(model.state_dict())  # hgat's into DGL's
    same(run(theirs, graph, arguments, leaves), run(model, graph, arguments, leaves))
    saved.seek(0)
    model.load_state_dict(torch.load(saved, weights_only=True))  # DGL's into hgat's
    same(run(model, graph, arguments, leaves), before)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_mode_type_flags_and_random_numbers_stay(layer, training):
    model = make(layer).double().train(training).requires_grad_(False)
    model.mine = "kept"
    state = torch.get_rng_state()
    hgat.accelerate(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert {module.training for module in model.modules()} == {training}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in model.parameters()) and model.mine == "kept"
    graph = build("homogeneous")
    arguments, _ = inputs(layer, graph, dtype=torch.float64)
    assert model(graph, *arguments).dtype == torch.float64


def test_device_stays():
    model = make("GATConv", residual=True).to("meta")
    hgat.accelerate(model)
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("layer", LAYERS[:4])
def test_zero_in_degree_is_refused_or_allowed_as_before(layer):
    graph = build("zero_in_degree")
    for allowed in (False, True):
        model = make(layer, allow_zero_in_degree=allowed)
        hgat.accelerate(model)
        arguments, _ = inputs(layer, graph)
        if allowed:
            assert torch.isfinite(model(graph, *arguments)).all()
        else:
            with pytest.raises(dgl.DGLError, match="0-in-degree"):
                model(graph, *arguments)
            model.set_allow_zero_in_degree(True)
            model(graph, *arguments)


OPTIONS = {
    "GATConv": [{}, {"residual": True}, {"in_feats": (IN, 2)}, {"in_feats": OUT * HEADS, "residual": True}],
    "GATv2Conv": [{}, {"residual": True, "share_weights": True}, {"in_feats": (IN, 2), "negative_slope": 0.1}],
    "EdgeGATConv": [{}, {"residual": False, "bias": False}, {"in_feats": (IN, 2)}],
    "DotGatConv": [{}, {"in_feats": (IN, 2)}],
    "HGTConv": [{}, {"use_norm": True}, {"in_feats": OUT * HEADS}],
}


@pytest.mark.parametrize(("layer", "options"), [(k, o) for k, several in OPTIONS.items() for o in several], ids=str)
def test_nothing_that_hgats_constructor_sets_is_missing(layer, options):
    model = make(layer, **options)
    sizes = {
        "HGTConv": (OUT, HEADS, NTYPES, ETYPES),
        "EdgeGATConv": (EDGE, OUT, HEADS),
    }.get(layer, (OUT, HEADS))
    options = dict(options)
    built = ours(layer)(options.pop("in_feats", IN), *sizes, **options)
    hgat.accelerate(model)
    for name, value in vars(built).items():
        if name in ("_parameters", "_buffers", "_modules"):
            for part, tensor in value.items():
                assert hasattr(model, part), part
                assert (getattr(model, part) is None) == (tensor is None), part
        elif name != "_made_of" and not name.startswith("__"):  # what it was made of, for print, DGL's layer cannot say
            assert getattr(model, name) == value, name
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in built.named_parameters()}
    model.reset_parameters()


@pytest.mark.parametrize("layer", LAYERS)
def test_accelerated_layer_is_saved_and_copied(layer):
    graph, model = build("homogeneous"), make(layer)
    hgat.accelerate(model)
    arguments, _ = inputs(layer, graph)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is ours(layer)
        assert torch.equal(other(graph, *arguments), model(graph, *arguments))


def test_a_forward_bound_before_still_runs():
    graph, model = build("homogeneous"), make("GATConv")
    arguments, _ = inputs("GATConv", graph)
    bound = model.forward
    hgat.accelerate(model)
    torch.testing.assert_close(bound(graph, *arguments), model(graph, *arguments), atol=1e-5, rtol=0)


def test_parallel_wrapper_is_reached():
    model = nn.DataParallel(nn.ModuleList([make("GATConv")]))
    assert hgat.accelerate(model).replaced == {"module.0": hgatnn.GATConv}


class WithForward(dglnn.GATConv):
    def forward(self, graph, feat):
        return super().forward(graph, feat) * 2


class WithMethod(dglnn.GATConv):
    def freeze(self):
        self.requires_grad_(False)


class Mixin:
    temperature = 2.0


class WithMixin(dglnn.GATConv, Mixin):
    pass


class OnlyConstructor(dglnn.GATConv):
    """A class that only fixes arguments."""

    def __init__(self, in_feats, out_feats, num_heads):
        super().__init__(in_feats, out_feats, num_heads, residual=True, negative_slope=0.4)


class Adapter(nn.Linear):
    pass


def exchanged(layer, name, part):
    setattr(layer, name, part)
    return layer


def hooked(layer, register, part=None):
    getattr(getattr(layer, part) if part else layer, register)(lambda *_: None)
    return layer


def parametrised(layer, part, name):
    parametrizations.weight_norm(getattr(layer, part) if part else layer, name)
    return layer


def normed(layer, part):
    weight_norm(getattr(layer, part))
    return layer


def pruned(layer):
    prune.l1_unstructured(layer.fc_edge, "weight", amount=0.3)
    return layer


def compiled(layer):
    layer.compile(backend="eager")
    return layer


def own_forward(layer):
    forward = layer.forward
    layer.forward = lambda graph, feat: forward(graph, feat) * 2
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:Using a non-full backward hook")
@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda: hooked(make("GATConv"), "register_forward_hook"), "it has hooks, which may count on DGL's own forward"),
    (lambda: hooked(make("HGTConv"), "register_forward_pre_hook"), "it has hooks"),
    (lambda: hooked(make("DotGatConv"), "register_full_backward_hook"), "it has hooks"),
    (lambda: hooked(make("DotGatConv"), "register_full_backward_pre_hook"), "it has hooks"),
    (lambda: hooked(make("EdgeGATConv"), "register_forward_hook", "fc_edge"), "its fc_edge has hooks"),
    (lambda: hooked(make("GATConv"), "register_forward_hook", "attn_drop"), "its attn_drop has hooks"),
    (lambda: parametrised(make("GATConv"), "fc", "weight"), r"its fc is parametrised \(weight\)"),
    (lambda: parametrised(make("GATv2Conv"), None, "attn"), r"it is parametrised \(attn\)"),
    (lambda: normed(make("EdgeGATConv"), "fc_edge"), "its fc_edge has hooks"),
    (lambda: pruned(make("EdgeGATConv")), "its fc_edge has hooks"),
    (lambda: exchanged(make("GATConv"), "fc", Adapter(IN, OUT * HEADS)), "its fc is of type Adapter, which DGL's"),
    (lambda: exchanged(make("GATv2Conv"), "leaky_relu", nn.ELU()), "its leaky_relu is of type ELU"),
    (lambda: exchanged(make("GATConv"), "attn_drop", nn.AlphaDropout(0.5)), "its attn_drop is of type AlphaDropout"),
    (lambda: own_forward(make("GATConv")), "its forward was replaced on the object"),
    (lambda: compiled(make("GATConv")), "it is compiled already; call accelerate before compile"),
    (lambda: WithForward(IN, OUT, HEADS), "its class WithForward adds forward to DGL's GATConv"),
    (lambda: WithMethod(IN, OUT, HEADS), "its class WithMethod adds freeze to DGL's GATConv"),
    (lambda: WithMixin(IN, OUT, HEADS), "its class WithMixin adds temperature to DGL's GATConv"),
])  # fmt: skip
def test_kept_with_a_reason(spoil, reason):
    layer = spoil().eval()
    model = nn.ModuleDict({"spoilt": layer, "plain": make("GATConv")})
    graph = build("homogeneous")
    arguments, _ = inputs(next(base.__name__ for base in type(layer).__mro__ if base.__name__ in LAYERS), graph)
    expected = layer.forward(graph, *arguments)  # not by a call, which would compile the compiled one
    before, attributes = type(layer), set(vars(layer))
    report = hgat.accelerate(model)
    assert list(report.kept) == ["spoilt"] and report.replaced == {"plain": hgatnn.GATConv}
    assert re.match(reason, report.kept["spoilt"])
    assert type(layer) is before and set(vars(layer)) == attributes
    assert torch.equal(layer.forward(graph, *arguments), expected)


def test_hooks_on_the_activation_or_around_the_layer_do_not_matter():
    seen = []
    activation = nn.ELU()
    activation.register_forward_hook(lambda *_: seen.append("activation"))
    model = nn.Sequential(make("GATConv", activation=activation))
    model.register_forward_pre_hook(lambda *_: seen.append("model"))
    assert hgat.accelerate(model).replaced == {"0": hgatnn.GATConv}
    model[0](build("homogeneous"), torch.randn(23, IN))
    assert seen == ["activation"]


def test_subclass_with_a_constructor_of_its_own_is_replaced():
    graph, model = build("homogeneous"), OnlyConstructor(IN, OUT, HEADS)
    arguments, leaves = inputs("GATConv", graph)
    before = run(model, graph, arguments, leaves)
    assert hgat.accelerate(model).replaced == {"": hgatnn.GATConv}
    same(run(model, graph, arguments, leaves), before)


def test_report_reads_as_text():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = make("GATConv")
            self.output_layer = make("GATv2Conv")
            self.last = WithForward(IN, OUT, HEADS)

    assert str(hgat.accelerate(Two())) == (
        "replaced:\n"
        "  hidden        hgat.nn.GATConv\n"
        "  output_layer  hgat.nn.GATv2Conv\n"
        "kept as they are:\n"
        "  last  its class WithForward adds forward to DGL's GATConv"
    )
    assert str(hgat.accelerate(nn.Linear(2, 3))) == "no attention layer of DGL found"


def test_anything_but_a_module_is_refused():
    with pytest.raises(HgatError, match="model: expected a torch.nn.Module, got list"):
        hgat.accelerate([make("GATConv")])


OTHERS = {
    "BiasedMHA": lambda: dglnn.BiasedMHA(8, 2),
    "GraphormerLayer": lambda: dglnn.GraphormerLayer(8, 16, 2),
    "EGTLayer": lambda: dglnn.EGTLayer(8, 8, 2, 1),
    "GlobalAttentionPooling": lambda: dglnn.GlobalAttentionPooling(nn.Linear(4, 1)),
    "Set2Set": lambda: dglnn.Set2Set(4, 2, 1),
    "SetTransformerEncoder": lambda: dglnn.SetTransformerEncoder(4, 2, 2, 8),
    "SetTransformerDecoder": lambda: dglnn.SetTransformerDecoder(4, 2, 2, 8, 1, 2),
    "TWIRLSUnfoldingAndAttention": lambda: dglnn.TWIRLSUnfoldingAndAttention(4, 1.0, 1.0, 2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_attention_of_dgls_is_kept_by_name(name):
    model = nn.ModuleDict({"other": OTHERS[name](), "conv": make("GATConv")})
    before = {key: type(module) for key, module in model.named_modules()}
    report = hgat.accelerate(model)
    assert report.replaced == {"conv": hgatnn.GATConv}
    # The part itself, and none of those it is made of.
    assert list(report.kept) == ["other"]
    assert report.kept["other"].startswith(f"hgat has no layer for DGL's {name}: attention ")
    assert {key: type(module) for key, module in model.named_modules()} == before | {"conv": hgatnn.GATConv} | {
        "conv.value_drop": nn.Dropout
    }
    assert name in str(report)


class Pooling(dglnn.GlobalAttentionPooling):
    pass


class OwnEGAT(dglnn.EGATConv):
    def forward(self, *arguments):
        return super().forward(*arguments)


def test_subclasses_of_other_attention_are_named_too():
    model = nn.ModuleList([Pooling(nn.Linear(4, 1)), OwnEGAT(IN, EDGE, OUT, 4, HEADS)])
    report = hgat.accelerate(model)
    assert not report.replaced
    assert report.kept["0"] == (
        "hgat has no layer for DGL's GlobalAttentionPooling, from which Pooling derives: attention that pools the "
        "nodes of a graph"
    )
    assert report.kept["1"] == "its class OwnEGAT adds forward to DGL's EGATConv"
    assert str(hgat.accelerate(OTHERS["BiasedMHA"]())).startswith(
        "kept as they are:\n  (the model itself)  hgat has no"
    )


@pytest.mark.parametrize("change", ["inplace activation", "residual", "relu"])
def test_a_model_that_overwrites_what_its_layers_give_still_trains(change):
    graph, feat = build("homogeneous"), torch.randn(23, IN)

    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            activation = nn.ReLU(inplace=True) if change == "inplace activation" else None
            options = {"activation": activation}
            self.first = dglnn.GATv2Conv(IN, OUT, HEADS, **options)
            self.second = dglnn.GATConv(OUT * HEADS, OUT, HEADS, bias=False, **options)
            self.third = dglnn.DotGatConv(OUT * HEADS, OUT, HEADS)

        def forward(self, graph, h):
            for layer in (self.first, self.second, self.third):
                out = layer(graph, h).flatten(1)
                if change == "residual":
                    out += 1.0
                    out *= 0.5
                h = F.relu(out, inplace=True) if change == "relu" else out
            return h

    model = Overwriting()
    loss = model(graph, feat).square().sum()
    want = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert len(hgat.accelerate(model).replaced) == 3
    got = torch.autograd.grad(model(graph, feat).square().sum(), list(model.parameters()), allow_unused=True)
    for one, other in zip(got, want, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
