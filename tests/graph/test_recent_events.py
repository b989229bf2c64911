"""The last events of an event's entities before it is asked for, against a plain search."""

import re

import dgl
import pytest
import torch

from hgat.errors import HgatError
from hgat.graph import from_events, recent_events

EVENTS, PLANES, PLACES, COUNT = 61, 5, 3, 4


def stream(dtype=torch.int64):
    """(graph, asked, {relation: (entity or -1, known)} by event): several at one time, some without a plane."""
    asked = torch.randint(0, 40, (EVENTS,)).to(dtype)
    known = asked + torch.randint(0, 9, (EVENTS,)).to(dtype)
    plane, place = torch.randint(-1, PLANES, (EVENTS,)), torch.randint(0, PLACES, (EVENTS,))
    links = {}
    for name, ntype, entity in (("of", "plane", plane), ("from", "place", place)):
        here = torch.randperm(EVENTS)
        here = here[entity[here] >= 0]
        links["flight", name, ntype] = here, entity[here], known[here]
    graph = from_events(links, {"flight": EVENTS, "plane": PLANES, "place": PLACES})
    return graph, asked, known, {"of": plane, "from": place}


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_equals_a_plain_search(dtype):
    graph, asked, known, entity = stream(dtype)
    recent = recent_events(graph, asked, COUNT)
    assert recent.etypes == tuple(graph.canonical_etypes) and recent.event.shape == (EVENTS, 2, COUNT)
    event, elapsed, mask = recent.of(torch.arange(EVENTS))
    for place, (_, name, _) in enumerate(recent.etypes):
        for i in range(EVENTS):
            before = [j for j in range(EVENTS) if entity[name][i] == entity[name][j] >= 0 and known[j] < asked[i]]
            ages = sorted((asked[i] - known[before]).tolist())[:COUNT]
            found = event[i, place][mask[i, place]].tolist()
            assert set(found) <= set(before) and len(found) == len(ages) == int(mask[i, place].sum())
            assert elapsed[i, place][mask[i, place]].tolist() == ages[::-1]  # the latest last
            assert (asked[i] - known[found]).tolist() == ages[::-1]
    assert not elapsed[~mask].any() and not event[~mask].any() and (recent.event < 0).any()
    assert mask.flatten(1).any(1).sum() > EVENTS // 2


def test_some_rows_are_those_of_all():
    graph, asked, _, _ = stream()
    recent, rows = recent_events(graph, asked, COUNT), torch.tensor([7, 3, 7])
    for some, every in zip(recent.of(rows), recent.of(torch.arange(EVENTS)), strict=True):
        assert torch.equal(some, every[rows])
    assert recent.to("cpu").etypes == recent.etypes


def test_times_are_subtracted_in_their_own_type():
    """Unix times in float32 are minutes apart."""
    base = 1_400_000_000
    links = {("e", "of", "x"): ([0, 1, 2], [0, 0, 0], [base + 1, base + 70, base + 90])}
    graph = from_events(links, {"e": 3, "x": 1})
    _, elapsed, mask = recent_events(graph, torch.tensor([base, base + 2, base + 71]), 2).of(torch.arange(3))
    assert elapsed.squeeze(1).tolist() == [[0, 0], [0, 1], [70, 1]] and mask.squeeze(1).sum().item() == 3


def test_wrong_calls_are_one_sentence():
    graph, asked, known, entity = stream()
    twice = dgl.heterograph({("flight", "of", "plane"): ([0, 1, 1], [0, 0, 1])})
    twice.edata["time"] = torch.arange(3)
    other = dgl.heterograph({("a", "of", "b"): ([0], [0]), ("b", "by", "a"): ([0], [0])})
    for call, sentence in [
        (lambda: recent_events(graph, asked, 0), "count: expected 1 or more, got 0"),
        (lambda: recent_events(graph, asked.double(), 2), "times: expected torch.int64 as in the graph"),
        (lambda: recent_events(graph, asked[1:], 2), f"asked: expected [N] = [{EVENTS}], got [{EVENTS - 1}]"),
        (lambda: recent_events(other, asked, 2), "graph: expected relations from one node type, that of the events"),
        (
            lambda: recent_events(twice, torch.zeros(2, dtype=torch.int64), 2),
            "graph: expected at most one 'plane' for every 'flight' under 'of', got 2 of number 1",
        ),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            call()
