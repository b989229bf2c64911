"""Old public names: each gives the new thing, with a warning that says what it is called now."""

import importlib

import pytest

OLD = [
    ("hgat.graph", "join", "join_relations"),
    ("hgat.graph", "union", "disjoint_union"),
    ("hgat.data", "Task", "NodeData"),
    ("hgat.data", "EventTask", "EventData"),
    ("hgat.data.ogb", "Node", "OGBNodeData"),
    ("hgat.data.ogb", "Link", "LinkData"),
    ("hgat.data.ogb", "Graphs", "GraphsData"),
    ("hgat.train", "Runs", "Seeds"),
    ("hgat.train.machines", "join", "enter"),
]


@pytest.mark.parametrize(("home", "old", "new"), OLD)
def test_an_old_name_gives_the_new_thing_and_says_so(home, old, new):
    module = importlib.import_module(home)
    with pytest.warns(FutureWarning, match=f"{home}.{old} is now called {home}.{new}") as caught:
        found = getattr(module, old)
    assert found is getattr(module, new)
    assert caught[0].filename == __file__  # the user's own line
    assert old not in module.__all__


def test_any_other_name_is_missing_as_ever():
    with pytest.raises(AttributeError, match="module 'hgat.graph' has no attribute 'attic'"):
        getattr(importlib.import_module("hgat.graph"), "attic")  # noqa: B009
