"""RTGAT as a whole: against a plain reading of each event's past, relation by relation."""

import dataclasses
import re

import pytest
import torch
from toys import CASES

from hgat import models, ops
from hgat.errors import HgatError
from hgat.graph import from_events
from hgat.models import Facts
from hgat.models._streams import known_when_asked
from hgat.models._system import resting
from hgat.models.rtgat import RTGAT

(CASE,) = (case for case in CASES if case.system == "rtgat")
EVENTS, IN, AFTER = 53, 4, 2
SMALL = {"hidden": 6, "heads": 2, "time_feats": 3, "time_unit": 7.0}


def facts(after=True, names=("of", "from")):
    """Events of five planes, some of none, and of two places, whose rows have two columns of the events' own."""
    generator = torch.Generator().manual_seed(0)
    asked = torch.arange(EVENTS)
    known = asked + torch.randint(0, 9, (EVENTS,), generator=generator)
    entity = {
        "of": torch.randint(-1, 5, (EVENTS,), generator=generator),
        "from": torch.randint(0, 2, (EVENTS,), generator=generator),
    }
    types = {"of": "plane", "from": "place"}
    links = {}
    for name in names:
        here = (entity[name] >= 0).nonzero().squeeze(1)
        links["flight", name, types[name]] = here, entity[name][here], known[here]
    rows = torch.randn(EVENTS, IN - 2 + AFTER, generator=generator)
    graph = from_events(links, {"flight": EVENTS, "plane": 5, "place": 2})
    feat = {"flight": rows[:, AFTER:], "plane": None, "place": torch.eye(2)}
    shown = Facts(graph, feat, target="flight", asked=asked, after=rows[:, :AFTER] if after else None)
    return shown, asked, known, entity


def stage(after=True, neighbours=3, **settings):
    shown, *rest = facts(after)
    inputs = RTGAT.prepare(shown, neighbours=neighbours)
    torch.manual_seed(1)
    return RTGAT.build(shown, inputs, **{**SMALL, **settings}).eval(), inputs, *rest


def test_found_by_name_with_what_it_solves():
    assert models.find("rtgat") is RTGAT is models.RTGAT and RTGAT.solves == ("stream_labels",)


def test_what_is_known_when_asked_are_the_events_rows_and_their_entities():
    shown, _, _, entity = facts()
    own = known_when_asked(shown)
    assert torch.equal(own, torch.cat([shown.feat["flight"], torch.eye(2)[entity["from"]]], 1))
    planes = dataclasses.replace(shown, feat={"flight": None, "plane": torch.ones(5, 1), "place": None})
    assert known_when_asked(planes).squeeze(1).tolist() == (entity["of"] >= 0).float().tolist()
    nothing = dataclasses.replace(shown, feat=dict.fromkeys(shown.feat))
    with pytest.raises(HgatError, match="feat: expected features of 'flight' nodes or of their entities, got none"):
        RTGAT.prepare(nothing)


@pytest.mark.parametrize("settings", [{}, {"softmax": "within"}, {"latest": True}, {"after": False}], ids=str)
def test_equals_a_plain_reading_of_the_past(settings):
    model, (recent, own, after), asked, known, entity = stage(**settings)
    count = 1 if settings.get("latest") else 3
    expected = []
    for i in range(EVENTS):
        seen, given, elapsed, mask = torch.zeros(2, count, 6), torch.zeros(2, count, AFTER), torch.zeros(2, count), []
        for place, (_, name, _) in enumerate(recent.etypes):
            before = [j for j in range(EVENTS) if entity[name][j] == entity[name][i] >= 0 and known[j] < asked[i]]
            # The order of those that became known at one time is the graph's.
            order = recent.event[i, place].tolist()
            before = sorted(before, key=lambda j: (known[j], order.index(j) if j in order else -1))[-count:]
            mask.append([False] * (count - len(before)) + [True] * len(before))
            for slot, j in enumerate(before, count - len(before)):
                seen[place, slot] = model.embed(own[j])
                elapsed[place, slot] = (asked[i] - known[j]) / 7.0
                if after.shape[1]:
                    given[place, slot] = after[j]
        rest = elapsed[None], torch.tensor(mask)[None], given[None] if after.shape[1] else None
        z = model.conv(model.embed(own[i])[None], seen[None], *rest)
        expected.append(model.classify[1](torch.relu(z)).item())
    out = resting(model, lambda: model(recent, own, after, torch.arange(EVENTS)))
    torch.testing.assert_close(out, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    rows = torch.tensor([9, 2, 9])
    torch.testing.assert_close(resting(model, lambda: model(recent, own, after, rows)), out[rows])


def test_relations_in_another_order_are_the_same():
    model, inputs, *_ = stage()
    recent, own, after = inputs
    moved = dataclasses.replace(
        recent, event=recent.event.flip(1), elapsed=recent.elapsed.flip(1), etypes=recent.etypes[::-1]
    )
    events = torch.arange(EVENTS)
    torch.testing.assert_close(model(moved, own, after, events), model(recent, own, after, events))
    with pytest.raises(HgatError, match=re.escape("recent: expected the relations [")):
        model(RTGAT.prepare(facts(names=("of",))[0])[0], own, after, events)
    with pytest.raises(HgatError, match="recent: expected what hgat.graph.recent_events gives, got Tensor"):
        model(own, own, after, events)


def test_settings_reach_the_layer_and_wrong_ones_are_one_sentence():
    model, *_ = stage(softmax="within", norm=False, time_encoding="sincos", time_feats=4, attn_drop=0.3)
    assert (model.conv.softmax, model.conv.norm, model.conv.time.form) == ("within", None, "sincos")
    assert model.conv.attn_drop.p == 0.3 and stage(neighbours=5)[1][0].event.shape[2] == 5
    for wrong, sentence in [
        ({"time_unit": 0.0}, "model.time_unit: expected a number above 0, got 0.0"),
        ({"softmax": "both"}, "softmax: expected 'across' or 'within', got 'both'"),
        ({"neighbours": 0}, "count: expected 1 or more, got 0"),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            stage(**wrong)


def test_no_time_is_no_time():
    model, (recent, own, after), *_ = stage(**RTGAT.ablations["no_time"].settings)
    events = torch.arange(EVENTS)
    longer = dataclasses.replace(recent, elapsed=recent.elapsed * 3)
    assert torch.equal(model(recent, own, after, events), model(longer, own, after, events))
    model, *_ = stage()
    assert not torch.allclose(model(recent, own, after, events), model(longer, own, after, events))


def test_attention_is_told_by_relation_and_by_age():
    """A layer made to look at the second relation, and there at what is young."""
    model, inputs, *_ = stage(neighbours=7)
    alpha, event, elapsed, mask = model.attention(*inputs, torch.arange(EVENTS))
    assert alpha.shape == (EVENTS, 2, 2, 7) and event.shape == elapsed.shape == mask.shape == (EVENTS, 2, 7)
    with ops.uniform_attention():
        for found in model.attended(*inputs):
            assert found.attention == pytest.approx(found.uniform, abs=1e-6)
    with torch.no_grad():
        model.conv.weight_k.zero_()
        model.conv.fc_q.weight.zero_()
        at_now = model.conv.fc_q.weight.shape[1] - 3  # where Phi begins: Phi(0) = 1, for every event
        model.conv.fc_q.weight[:, at_now] = 1.0
        model.conv.weight_k[1, :, at_now + 2] = 2.0  # the slowest part of the clock, which is 1
        model.conv.weight_k[:, :, at_now] = 0.3  # cos(age in units)
    relations, *ages = resting(model, lambda: model.attended(*inputs))
    assert relations.names == tuple(name for _, name, _ in inputs[0].etypes)
    assert relations.attention[1] > 0.8 > relations.uniform[1]
    assert [found.title for found in ages] == [
        f"under {name!r}, by age; 1 is 7 of the data's units of time" for name in relations.names
    ]
    for found in ages:
        assert found.attention[0] > found.uniform[0]
        assert float(found.names[0].split(" to ")[0]) == pytest.approx(1 / 7, abs=1e-3)  # strictly before


def test_ages_of_one_value_have_one_bar():
    links = {("e", "of", "x"): (range(4), [0] * 4, [0, 10, 20, 30])}
    graph = from_events(links, {"e": 4, "x": 1})
    shown = Facts(graph, {"e": torch.ones(4, 1), "x": None}, target="e", asked=torch.tensor([0, 1, 11, 21]))
    inputs = RTGAT.prepare(shown, neighbours=1)
    assert inputs[0].elapsed.flatten().tolist() == [0, 1, 1, 1]
    model = RTGAT.build(shown, inputs, **{**SMALL, "time_unit": 1.0})
    _, found = resting(model, lambda: model.attended(*inputs))
    with_no_past = (dataclasses.replace(inputs[0], event=torch.full_like(inputs[0].event, -1)), *inputs[1:])
    assert model.attended(*with_no_past) == []
    assert found.names == ("1",) and found.attention == found.uniform == (1.0,) and found.title == "under 'of', by age"
