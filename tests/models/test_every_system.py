"""What holds for every system on every task that it solves: systems are found by their files, see toys.py."""

import dataclasses
import inspect
import io
import re

import dgl
import pytest
import torch
from toys import CASES, forms, rates

from hgat import models, ops, tasks
from hgat.errors import HgatError, RecipeError
from hgat.models import Past, Shares, System
from hgat.models._system import resting

FORMS = [(case, form) for case in CASES for form in forms(case)]
NODES = [case for case in CASES if case.task == "nodes"]


def answer(case, model, task, inputs):
    """What the model says when it is at rest; for links, of the first batch."""
    torch.manual_seed(1)  # negatives are drawn, neighbours may be sampled
    batch = case.batch(task, model, inputs)
    return resting(model, lambda: model.answer(inputs, batch))


def settings_of(case):
    parameters = inspect.signature(case.cls.__init__).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def test_every_file_of_a_system_is_here_with_every_task():
    assert {case.system for case in CASES} == set(models.available())
    for case in CASES:
        assert issubclass(case.cls, System) and set(case.cls.solves) <= set(tasks.available())
        assert getattr(models, case.cls.__name__) is case.cls
        assert case.cls.__name__ in dir(models)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_planted_task_is_solved_and_not_without_the_graph(case):
    found = case.result()["test"]
    controls = tasks.find(case.task).controls
    without = case.result(controls[case.toy.control])["test"] if case.toy.control in controls else 50.0
    assert found > without + case.toy.beats, (found, without)


@pytest.mark.parametrize(("case", "form"), FORMS, ids=str)
def test_answers_of_every_form(case, form):
    task, inputs, model = case.setting(**form)
    out = answer(case, model, task, inputs)
    assert torch.isfinite(out).all()
    if case.task == "nodes":
        assert out.shape == (task.data.graph.num_nodes(task.data.target), task.data.num_classes)


@pytest.mark.parametrize(("case", "form"), FORMS, ids=str)
def test_every_parameter_gets_a_finite_gradient(case, form):
    task, inputs, model = case.setting(**{**dict.fromkeys(rates(case), 0.1), **form})
    model.train()
    model.objective(task.loss, inputs, case.batch(task, model, inputs)).backward()
    trained = {id(p) for group in model.groups() for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in trained:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_groups_have_every_parameter_once(case):
    _, _, model = case.setting()
    grouped = [id(p) for group in model.groups() for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    torch.optim.Adam(model.groups(), lr=0.01).step()  # PyTorch takes them


@pytest.mark.parametrize(("case", "form"), FORMS, ids=str)
def test_state_dict_round_trip(case, form):
    task, inputs, model = case.setting(**form)
    torch.manual_seed(5)
    other = task.completed(case.build(task.shown(), inputs, **form))
    before = answer(case, other, task, inputs)
    assert not torch.equal(answer(case, model, task, inputs), before)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(answer(case, model, task, inputs), answer(case, other, task, inputs))


@pytest.mark.parametrize(("case", "rate"), [(case, rate) for case in CASES for rate in rates(case)], ids=str)
def test_dropout_acts_in_training_only(case, rate):
    task, inputs, model = case.setting(**{**dict.fromkeys(rates(case), 0.0), rate: 0.5})
    batch = case.batch(task, model, inputs)
    model.train()
    assert not torch.equal(model.answer(inputs, batch), model.answer(inputs, batch))
    assert torch.equal(answer(case, model, task, inputs), answer(case, model, task, inputs))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_preparing_again_gives_the_same(case):
    """Runs that go on prepare again: nothing in it may be left to chance."""
    task = case.ask()
    model = case.setting()[2]
    first, second = case.inputs(task.shown()), case.inputs(task.shown())
    assert torch.equal(answer(case, model, task, first), answer(case, model, task, second))


@pytest.mark.parametrize("case", NODES, ids=str)
def test_permuted_nodes_give_permuted_rows(case):
    task, inputs, model = case.setting()
    data = task.data
    generator = torch.Generator().manual_seed(2)
    order = {t: torch.randperm(data.graph.num_nodes(t), generator=generator) for t in data.graph.ntypes}
    place = {t: torch.argsort(o) for t, o in order.items()}
    edges = {}
    for etype in data.graph.canonical_etypes:
        src, dst = data.graph.edges(etype=etype, order="eid")
        mixed = torch.randperm(len(src), generator=generator)
        edges[etype] = place[etype[0]][src][mixed], place[etype[2]][dst][mixed]
    moved = dataclasses.replace(
        data,
        graph=dgl.heterograph(edges, num_nodes_dict={t: data.graph.num_nodes(t) for t in data.graph.ntypes}),
        feat={t: None if x is None else x[order[t]] for t, x in data.feat.items()},
        label=data.label[order[data.target]],
        **{part: place[data.target][ids] for part, ids in data.split.items()},
    )
    again = tasks.find("nodes")(moved, **case.toy.task)
    expected = answer(case, model, task, inputs)[order[data.target]]
    got = answer(case, model, again, case.inputs(again.shown()))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_attended_to_adds_up(case):
    _, inputs, model = case.setting()
    for found in resting(model, lambda: model.attended(*inputs)):
        assert isinstance(found, (Shares, Past)) and found.title
        if isinstance(found, Shares):
            assert len(found.names) == len(found.attention) == len(found.uniform)
            assert sum(found.attention) == pytest.approx(1, abs=1e-4)
            assert sum(found.uniform) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_uniform_attention_trains_too(case):
    """What scores edges or views gets no gradient there: a softmax of a layer's own would give it one."""

    def trained():
        torch.manual_seed(3)
        task, inputs, model = case.setting(**dict.fromkeys(rates(case), 0.0))
        batch = case.batch(task, model, inputs)
        loss = task.loss(model.train().answer(inputs, batch), batch)
        loss.backward()
        assert torch.isfinite(loss)
        return {name for name, p in model.named_parameters() if p.grad is not None and (p.grad != 0).any()}

    learned = trained()
    with ops.uniform_attention():
        uniform = trained()
    assert uniform < learned and uniform


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ablations_are_settings_that_build(case):
    for name, ablation in case.cls.ablations.items():
        task, inputs, model = case.setting(**ablation.settings)
        assert torch.isfinite(answer(case, model, task, inputs)).all(), name
        assert ablation.title


@pytest.mark.parametrize("case", CASES, ids=str)
def test_unknown_settings_are_refused(case):
    with pytest.raises(TypeError, match="unknown"):
        case.setting(unknown=1)


def _annotation(case, name):
    return inspect.signature(case.cls.__init__).parameters[name].annotation


WRONG = [
    (case, {name: wrong})
    for case in CASES
    for name in settings_of(case)
    for wrong in (
        (-0.1, 1.5, 2.0)
        if name.endswith("_drop")
        else (0, -3)
        if name in ("hidden", "embed", "num_bases", "num_attn_bases", "num_blocks", "semantic_feats", "layers")
        else ([], [0], [8, 0], [-1, 1])
        if name == "heads" and case.task == "nodes" and _annotation(case, "heads") is not int
        else (0, -3)
        if name == "heads" and case.task == "nodes"
        else ()
    )
]


@pytest.mark.parametrize(("case", "wrong"), WRONG, ids=str)
def test_settings_out_of_range_are_one_sentence(case, wrong):
    """They come straight from `--set`, whose user is owed a sentence."""
    ((name, value),) = wrong.items()
    if isinstance(value, list):
        sentence = f"model.heads: expected a number of heads per layer, each 1 or more, got {value}"
        with pytest.raises(RecipeError, match=re.escape(sentence)):
            case.setting(**wrong)
    else:
        with pytest.raises(HgatError, match="expected"):
            case.setting(**wrong)


@pytest.mark.parametrize("case", [c for c in NODES if hasattr(c.cls, "step")], ids=str)
def test_nodes_without_features_are_refused_or_learned(case):
    task = case.ask()
    bare = dataclasses.replace(task.shown(), feat=dict.fromkeys(task.shown().feat))
    try:
        inputs = case.inputs(bare)
        model = case.build(bare, inputs)
    except HgatError as error:
        assert "expected features" in str(error)
    else:
        assert torch.isfinite(resting(model, lambda: model(*inputs))).all()
