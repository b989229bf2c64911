"""MAGNA as a whole: its equations, its controls, and what it cannot do on a part of a graph."""

import dgl
import pytest
import torch
from systems import CLASSES, IN
from toys import guilds

from hgat import tasks
from hgat.errors import GraphError, HgatError, RecipeError, ShapeError
from hgat.models import MAGNA, Facts
from zoo import build


def facts(graph=None, feat=None):
    feat = torch.randn(23, IN) if feat is None else feat
    return Facts(build("homogeneous") if graph is None else graph, {"_N": feat}, target="_N", num_classes=CLASSES)


def setting(shown=None, **settings):
    shown = facts() if shown is None else shown
    inputs = MAGNA.prepare(shown)
    return inputs, MAGNA.build(shown, inputs, **{"hidden": 12, "heads": 3, **settings}).eval()


def test_a_map_the_blocks_and_a_classifier():
    shown = facts()
    (graph, feat), model = setting(shown, layers=3)
    x = shown.feat["_N"]
    h = x @ model.fc_in.weight.t() + model.fc_in.bias
    alphas = []
    for layer in model.layers:
        h, alpha = layer(graph, h, get_attention=True)
        alphas.append(alpha)
    assert len(alphas) == 3
    torch.testing.assert_close(model(graph, feat), h @ model.fc_out.weight.t() + model.fc_out.bias)
    for got, due in zip(model.attention(graph, feat), alphas, strict=True):
        assert torch.equal(got, due)


def test_words_are_read_as_the_whole_rows_are():
    x = torch.zeros(23, 60)
    x[torch.arange(23), torch.arange(23) * 2] = torch.rand(23)
    (graph, feat), model = setting(facts(feat=x))
    assert feat["_N"].value.shape == (23,)
    torch.testing.assert_close(model(graph, feat), model(graph, x), atol=1e-6, rtol=1e-5)


def test_every_control_is_the_layers_setting():
    assert set(MAGNA.ablations) == {"no_diffusion", "no_norm", "no_feed_forward"}
    (graph, feat), model = setting(**MAGNA.ablations["no_diffusion"].settings)
    block = model.layers[0]
    h = block.norm(model.fc_in(feat))
    out, alpha = block.conv(graph, h, get_attention=True)
    src, dst = graph.edges()
    value = block.conv.fc(h).view(23, 3, 4)
    near = torch.zeros(23, 3, 4).index_add(0, dst, alpha * value[src])
    torch.testing.assert_close(out, near)
    model = setting(**MAGNA.ablations["no_norm"].settings)[1]
    assert not [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    model = setting(**MAGNA.ablations["no_feed_forward"].settings)[1]
    assert all(layer.feed_forward is None for layer in model.layers)


def test_hops_reach_as_far_as_they_say():
    """On a line the answer at one end depends on nodes up to layers x hops away, and on no others."""
    graph = dgl.graph((torch.arange(11), torch.arange(1, 12)))
    shown = facts(graph, torch.randn(12, IN))
    (graph, feat), model = setting(shown, layers=1, hops=4)
    changed = {"_N": shown.feat["_N"].clone()}
    for node, reaches in ((6, False), (7, True)):  # 11 - 5 and 11 - 4
        changed["_N"] = shown.feat["_N"].clone()
        changed["_N"][node] += 1
        assert torch.equal(model(graph, feat)[11], model(graph, changed)[11]) != reaches


WRONG = {
    "out_feats: expected a multiple of 3 heads, got 10": lambda: setting(hidden=10),
    "alpha: expected a number from 0 to 1, got -0.5": lambda: setting(alpha=-0.5),
    "hops: expected 1 or more, got -1": lambda: setting(hops=-1),
    "diffusion: expected 'ppr' or 'cheb'": lambda: setting(diffusion="no"),
    "task.batch: expected none for MAGNA": lambda: setting()[1].sampled((), torch.tensor([1]), [3]),
    "graph: expected one whose walks go on": lambda: setting()[1](build("block"), torch.randn(23, IN)),
    "feat: expected": lambda: setting()[1](build("homogeneous"), torch.randn(23, 3)),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence]()
    assert issubclass(GraphError, HgatError) and issubclass(RecipeError, HgatError)


def test_triples_have_learned_rows_and_relations_in_both_directions():
    shown = tasks.find("triples")(guilds(), out_feats=6).shown()
    inputs = MAGNA.prepare(shown)
    graph, feat, etype = inputs
    assert graph.num_edges() == 2 * 450 + 60 and feat == {"entity": None} and int(etype.max()) == 6
    torch.manual_seed(0)
    model = MAGNA.build(shown, inputs, hidden=8, heads=2, layers=1).eval()
    assert model.fc_in.weight.shape == (60, 8) and model.relation.weight.shape == (7, 8)
    block = model.layers[0](graph, model.fc_in.weight, etype=etype, rel_feat=model.relation.weight)
    torch.testing.assert_close(model(*inputs), model.fc_out(block))
    (alpha,) = model.attention(*inputs)
    assert alpha.shape == (960, 2, 1)
    with pytest.raises(GraphError, match="graph: expected 60 nodes, got 61"):
        model(dgl.add_nodes(graph, 1), feat, etype)
    with pytest.raises(ShapeError, match="etype: expected it of a layer that has rel_feats, got none"):
        model(graph, feat)
    bare = MAGNA.prepare(shown, self_loops=False)
    assert bare[0].num_edges() == 900 and int(bare[2].max()) == 5
