"""StreamData: labelled events with entities in common, checked when it is made."""

import dataclasses
import re

import pytest
import torch

from hgat.data import StreamData
from hgat.errors import DataError, HgatError
from hgat.graph import from_events

ASKED = torch.tensor([0, 10, 20, 30, 40])
LABEL = torch.tensor([1, 0, -1, 1, 0])


def stream(asked=ASKED, late=(5, 5, 5, 5, 5), plane=(0, 0, 1, 1, 0), **changes):
    """Five flights; the last of them has no plane."""
    known = ASKED + torch.tensor(late)
    links = {
        ("flight", "of", "plane"): (range(4), plane[:4], known[:4]),
        ("flight", "from", "place"): (range(5), [0] * 5, known),
    }
    settings = {
        "name": "t",
        "graph": from_events(links, {"flight": 5, "plane": 2, "place": 1}),
        "feat": {"flight": torch.ones(5, 3), "plane": torch.ones(2, 2), "place": None},
        "target": "flight",
        "asked": asked,
        "label": LABEL,
        "val_time": 20,
        "test_time": 40,
        "after": torch.ones(5, 1),
    }
    return StreamData(**{**settings, **changes})


def test_counts_and_when_events_are_known():
    data = stream(late=(5, 0, 5, 7, 9))
    assert data.known().tolist() == [5, 10, 25, 37, 49]
    assert data.counts() == {"nodes": 8, "edges": 9, "relations": 2, "classes": 2, "features": 5, "labelled": 4}
    alone = stream()
    alone.graph.remove_edges([0, 1, 2, 3, 4], etype="from")
    assert alone.known().tolist() == [5, 15, 25, 35, 40]  # the last has no edge


def test_a_context_event_may_be_known_before_it_is_asked_for_and_a_labelled_one_not():
    assert stream(late=(5, 5, -9, 5, 5)).known()[2] == 20
    sentence = (
        "t: time of 'from': expected labelled events that are known when asked for or later, got 2 known before, "
        "the first 1, at 9 for 10"
    )
    with pytest.raises(DataError, match=re.escape(sentence)):
        stream(late=(5, -1, 5, -2, 5))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "plane"}, "graph: expected relations from 'plane' nodes alone, got from flight"),
        ({"feat": {"flight": None}}, "feat: expected the node types flight, place, plane, got flight"),
        ({"after": torch.ones(4, 1)}, "after: expected [N, F] float32 with N = 5, got torch.float32 [4, 1]"),
        (
            {"after": torch.tensor([[0.0], [NAN], [INF], [0.0], [0.0]])},
            "after: expected finite numbers, got others in 2 rows, the first 1",
        ),
        (
            {"feat": {"flight": None, "plane": torch.tensor([[1.0], [NAN]]), "place": None}},
            "features of plane: expected finite numbers, got others in 1 rows, the first 1",
        ),
        ({"label": LABEL.float()}, "label: expected [N] int64 with N = 5, got torch.float32 [5]"),
        ({"label": LABEL + 1}, "label: expected 1, 0, or -1 for an event without one, got 2"),
        ({"asked": ASKED.double()}, "asked: expected [N] torch.int64 with N = 5, as the times of"),
        ({"asked": ASKED[1:]}, "asked: expected [N] torch.int64 with N = 5, as the times of"),
        ({"val_time": 40}, "test_time: expected a time behind val_time = 40, got 40"),
        ({"val_time": NAN}, "test_time: expected a time behind val_time = nan, got 40"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes, sentence):
    with pytest.raises(DataError, match=re.escape(f"t: {sentence}")):
        stream(**changes)


def test_times_that_are_not_finite_and_second_entities_are_refused():
    floats = stream().graph
    for etype in floats.canonical_etypes:
        floats.edges[etype].data["time"] = floats.edges[etype].data["time"].double()
    with pytest.raises(DataError, match="asked: expected finite times, got nan at event 2"):
        stream(graph=floats, asked=torch.tensor([0.0, 10.0, NAN, 30.0, 40.0], dtype=torch.float64))
    floats.edges["of"].data["time"][1] = INF
    with pytest.raises(HgatError, match="expected finite numbers, got inf"):
        stream(graph=floats, asked=ASKED.double())
    with pytest.raises(HgatError, match="expected at most one 'plane' for every 'flight' under 'of', got 2 of number"):
        twice = stream().graph
        twice.add_edges([1], [1], {"time": torch.tensor([15])}, etype="of")
        stream(graph=twice)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        stream().name = "other"
