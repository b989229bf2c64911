"""Models on DGL's sampled blocks and layer by layer: the rows of the whole graph."""

import dgl
import pytest
import torch
from systems import CLASSES, IN, PATHS, SYSTEMS

from hgat import graph as hgraph
from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.models import Batch, System, layerwise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # DGL's advice on CPU affinity
FORMS = [(name, kind, form) for name, system in SYSTEMS.items() for kind in system.feats for form in system.forms]
DEEP = {"gat": [4, 2, 1], "gatv2": [4, 2, 1], "rgat": [2, 2], "han": [3, 2]}


def _relations(name):
    """A DGLGraph that a sampler takes: for HAN, one relation per meta-path."""
    graph = SYSTEMS[name].graph()
    if name != "han":
        return graph
    edges = {("film", p, "film"): hgraph.metapath_graph(graph, path).edges() for p, path in PATHS.items()}
    return dgl.heterograph(edges, {"film": graph.num_nodes("film")})


def _model(name, kind, settings):
    """(eval model, its graph for a sampler, features, target)"""
    system, graph = SYSTEMS[name], _relations(name)
    widths = system.feats[kind]
    feat = {t: None if widths[t] is None else torch.randn(graph.num_nodes(t), widths[t]) for t in graph.ntypes}
    whole = hgraph.views(graph) if name == "han" else hgraph.join_relations(graph) if name == "rgat" else graph
    settings = {"heads": DEEP[name], **settings}
    if name == "han":
        settings["semantic"] = "per_node"
    return system.model.for_graph(whole, feat, CLASSES, system.target, **settings).eval(), graph, feat, whole


def _blocks(graph, target, seeds, layers):
    sampler = dgl.dataloading.NeighborSampler([-1] * layers)
    typed = len(graph.ntypes) > 1 or len(graph.etypes) > 1
    loader = dgl.dataloading.DataLoader(graph, {target: seeds} if typed else seeds, sampler, batch_size=len(seeds))
    ((_, _, blocks),) = loader
    return blocks


@pytest.mark.parametrize(("name", "kind", "settings"), FORMS, ids=str)
def test_blocks_with_all_neighbours_give_the_rows_of_the_whole_graph(name, kind, settings):
    model, graph, feat, whole = _model(name, kind, settings)
    target = SYSTEMS[name].target
    seeds = torch.randperm(graph.num_nodes(target))[:5]
    blocks = _blocks(graph, target, seeds, len(model.layers))
    here = {t: None if x is None else x[blocks[0].srcnodes[t].data[dgl.NID]] for t, x in feat.items()}
    with torch.no_grad():
        expected = model(whole, feat)[seeds]
        torch.testing.assert_close(model(blocks, here), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "settings", "batch_size"),
    [*((*form, 1000) for form in FORMS), *((*form, 5) for form in FORMS if not form[2])],
    ids=str,
)
def test_layer_by_layer_gives_all_rows(name, kind, settings, batch_size):
    model, graph, feat, whole = _model(name, kind, settings)
    with torch.no_grad():
        expected = model(whole, feat)
    got = layerwise(model, graph, feat, batch_size=batch_size)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not got.requires_grad


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_learns_on_blocks(name):
    model, graph, feat, _ = _model(name, "all", {})
    target = SYSTEMS[name].target
    blocks = _blocks(graph, target, torch.arange(graph.num_nodes(target)), len(model.layers))
    here = {t: None if x is None else x[blocks[0].srcnodes[t].data[dgl.NID]] for t, x in feat.items()}
    out = model(blocks, here)
    out.backward(torch.randn_like(out))
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_samples_its_own_inputs(name):
    """The rows of the nodes that are asked for, in their order; with all neighbours those of the whole graph."""
    model, graph, feat, whole = _model(name, "all", {})
    ids = torch.randperm(graph.num_nodes(SYSTEMS[name].target))[:5]
    inputs, query = model.sampled((graph, feat), ids, [-1] * len(model.layers))
    batch = Batch(query=query, inputs=inputs, rows=None)
    with torch.no_grad():
        expected = model(whole, feat)
        torch.testing.assert_close(model.answer((graph, feat), batch), expected[ids], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.whole((graph, feat), 5), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(model.whole((whole, feat)), expected)
    (blocks, _), _ = model.sampled((graph, feat), ids, [2] * len(model.layers))
    degrees = [block.in_degrees(etype=etype) for block in blocks for etype in block.canonical_etypes]
    assert max(int(degree.max()) for degree in degrees if len(degree)) == 2
    with pytest.raises(RecipeError, match=f"task.fanout: expected {len(model.layers)} numbers, .* got 9"):
        model.sampled((graph, feat), ids, [2] * 9)
    if whole is not graph:
        kind = type(whole).__name__
        with pytest.raises(RecipeError, match=f"task.batch: expected a system on a DGLGraph, got one on {kind}"):
            model.sampled((whole, feat), ids, [2])
    with pytest.raises(RecipeError, match="task.batch: expected none for System, which trains on the whole graph"):
        System().sampled((graph, feat), ids, [2])


def test_blocks_that_no_sampler_made_need_no_ids_but_for_learned_rows():
    for name, kind in (("gat", "all"), ("rgat", "all"), ("rgat", "none")):
        model, graph, feat, _ = _model(name, kind, {})
        target = SYSTEMS[name].target
        blocks = _blocks(graph, target, torch.arange(5), len(model.layers))
        here = {t: None if x is None else x[blocks[0].srcnodes[t].data[dgl.NID]] for t, x in feat.items()}
        expected = model(blocks, here)
        for ntype in graph.ntypes:
            del blocks[0].srcnodes[ntype].data[dgl.NID]
        if kind == "all":
            assert torch.equal(model(blocks, here), expected)
            continue
        with pytest.raises(ShapeError, match=r"blocks: expected the ids of '.*' nodes in srcdata\[dgl.NID\], got none"):
            model(blocks, here)


def test_wrong_calls_are_one_sentence():
    model, graph, feat, _ = _model("gat", "all", {})
    blocks = _blocks(graph, "_N", torch.arange(3), 2)
    with pytest.raises(RecipeError, match="blocks: expected 3, one for each layer, got 2"):
        model(blocks, feat)
    with pytest.raises(ShapeError, match="feat: expected features of '_N' nodes, got none"):
        layerwise(model, graph, {"user": torch.zeros(3, IN)})
    han, relations, feat, views = _model("han", "all", {})
    han.layers[0].semantic.form = "global"
    with pytest.raises(RecipeError, match="expected 'per_node' in batches of nodes, got 'global'"):
        layerwise(han, relations, feat)
    rgat = SYSTEMS["rgat"]
    one_hot = rgat.model.for_graph(rgat.graph(), {}, CLASSES, "film", one_hot=True)
    with pytest.raises(RecipeError, match="model.one_hot: expected false on blocks, got true"):
        layerwise(one_hot, rgat.graph(), {"film": None, "user": None})
    with pytest.raises(RecipeError, match="layerwise: expected a model with steps, .*, got Linear"):
        layerwise(torch.nn.Linear(IN, 1), graph, feat)
    with pytest.raises(GraphError, match="views: expected what .* or relations between one pair of node types"):
        hgraph.views(rgat.graph())
    with pytest.raises(GraphError, match="views: expected what .*, got int"):
        hgraph.views(3)
