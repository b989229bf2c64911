"""What holds for every whole model: shapes, permutations, gradients, state, dropout, wrong calls."""

import io
import re

import dgl
import pytest
import torch
from systems import CLASSES, IN, SYSTEMS, rates, stage

from hgat import models
from hgat.errors import HgatError, RecipeError, ShapeError
from zoo import build

# (system, features, settings)
FORMS = [(name, kind, form) for name, system in SYSTEMS.items() for kind in system.feats for form in system.forms]
# A row learned for each node stays with the node's number and not with the node: no permutation of those.
FEATURED = [x for x in FORMS if x[1] == "all"]
ONE_HOT = ("rgat", "none", {"one_hot": True})
OF_ONE_TYPE = ["gat", "gatv2", "han"]


def _model(name, graph, feat, **settings):
    return SYSTEMS[name].model.for_graph(graph, feat, CLASSES, SYSTEMS[name].target, **settings)


def _cases(*rows):
    return [(name, setting) for name, settings in rows for setting in settings]


@pytest.mark.parametrize("name", SYSTEMS)
def test_found_by_name_with_its_kind_of_graph(name):
    assert models.find(name) is SYSTEMS[name].model and SYSTEMS[name].model.graph_kind == SYSTEMS[name].graph_kind


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize(("name", "kind", "settings"), [*FORMS, ONE_HOT], ids=str)
def test_shape(name, kind, settings, idtype):
    graph = SYSTEMS[name].graph()
    prepared, feat = stage(name, kind, graph.int() if idtype == torch.int32 else graph)
    out = _model(name, prepared, feat, **settings).eval()(prepared, feat)
    assert out.shape == (graph.num_nodes(SYSTEMS[name].target), CLASSES)


@pytest.mark.parametrize("name", OF_ONE_TYPE)
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_features_as_a_dict_or_a_tensor(name, idtype):
    graph = SYSTEMS[name].graph()
    prepared, feat = stage(name, graph=graph.int() if idtype == torch.int32 else graph)
    for settings in SYSTEMS[name].forms:
        model = _model(name, prepared, feat, **settings).eval()
        assert torch.equal(model(prepared, feat[SYSTEMS[name].target]), model(prepared, feat))


@pytest.mark.parametrize(("name", "kind", "settings"), FEATURED, ids=str)
def test_permuted_nodes_give_permuted_rows(name, kind, settings):
    graph = SYSTEMS[name].graph()
    prepared, feat = stage(name, kind, graph)
    model = _model(name, prepared, feat, **settings).eval()
    order = {t: torch.randperm(graph.num_nodes(t)) for t in graph.ntypes}
    place = {t: torch.argsort(o) for t, o in order.items()}
    data = {}
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        edges = torch.randperm(len(src))
        data[etype] = (place[etype[0]][src][edges], place[etype[2]][dst][edges])
    moved = dgl.heterograph(data, num_nodes_dict={t: graph.num_nodes(t) for t in graph.ntypes})
    expected = model(prepared, feat)[order[SYSTEMS[name].target]]
    got = model(SYSTEMS[name].prepare(moved), {t: None if x is None else x[order[t]] for t, x in feat.items()})
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "kind", "settings"), [*FORMS, ONE_HOT], ids=str)
def test_every_parameter_gets_a_finite_gradient(name, kind, settings):
    prepared, feat = stage(name, kind)
    model = _model(name, prepared, feat, **dict.fromkeys(rates(name), 0.2), **settings).train()
    out = model(prepared, feat)
    out.backward(torch.randn_like(out))
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize(("name", "kind", "settings"), [*FORMS, ONE_HOT], ids=str)
def test_state_dict_round_trip(name, kind, settings):
    prepared, feat = stage(name, kind)
    model, other = (_model(name, prepared, feat, **settings).eval() for _ in range(2))
    assert not torch.equal(model(prepared, feat), other(prepared, feat))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(model(prepared, feat), other(prepared, feat))


@pytest.mark.parametrize(("name", "rate"), _cases(*((name, rates(name)) for name in SYSTEMS)))
def test_dropout_acts_in_training_only(name, rate):
    prepared, feat = stage(name)
    model = _model(name, prepared, feat, **{**dict.fromkeys(rates(name), 0.0), rate: 0.5})
    assert not torch.equal(model.train()(prepared, feat), model(prepared, feat))
    assert torch.equal(model.eval()(prepared, feat), model(prepared, feat))


@pytest.mark.parametrize("heads", [[], [0], [8, 0], [4, 0], [-1, 1]], ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_wrong_heads_are_one_sentence(name, heads):
    sentence = f"model.heads: expected a number of heads per layer, each 1 or more, got {heads}"
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        _model(name, *stage(name), heads=heads)


@pytest.mark.parametrize(
    ("name", "settings"),
    _cases(
        *((name, [{"hidden": 0}, {"hidden": -3}]) for name in SYSTEMS),
        *((name, [{rate: wrong} for rate in rates(name) for wrong in (-0.1, 1.5, 2.0)]) for name in SYSTEMS),
        ("han", [{"semantic_feats": 0}]),
        ("rgat", [{"embed": 0}, {"num_bases": 0}, {"num_bases": -1}, {"num_attn_bases": 0}, {"num_blocks": 0}]),
        ("rgat", [{"score": "multiplicative", "attn_feats": 0}]),
    ),
    ids=str,
)
def test_settings_out_of_range_are_one_sentence(name, settings):
    """They come straight from `--set`, whose user is owed a sentence."""
    with pytest.raises(HgatError, match="expected"):
        _model(name, *stage(name), **settings)


@pytest.mark.parametrize(
    ("name", "settings"), [*_cases(*((name, [{"unknown": 1}]) for name in SYSTEMS)), ("gatv2", {"value_drop": 0.5})]
)
def test_unknown_settings_are_refused(name, settings):
    with pytest.raises(TypeError, match=next(iter(settings))):
        _model(name, *stage(name), **settings)


@pytest.mark.parametrize("name", OF_ONE_TYPE)
def test_nodes_without_features_are_refused(name):
    prepared, feat = stage(name)
    with pytest.raises(HgatError, match="expected features"):
        _model(name, prepared, dict.fromkeys(feat))


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_wrong_calls_are_one_sentence(name):
    graph, feat = stage(name)
    model = _model(name, graph, feat)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, \*, F\] = \[23, \*, 7\], got \[23, 6\]"):
        model(graph, feat["_N"][:, 1:])
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        model(build("zero_in_degree"), torch.randn(29, IN))
