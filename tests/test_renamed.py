"""Old public names: each gives the new thing, with a warning that says what it is called now."""

import argparse
import importlib

import pytest
import torch.distributed as dist

from hgat import train
from hgat.ops.alignment import is_uniform

OLD = [
    ("hgat.graph", "join", "join_relations"),
    ("hgat.graph", "union", "disjoint_union"),
    ("hgat.graph.relations", "join", "join_relations"),
    ("hgat.graph.metapath", "union", "disjoint_union"),
    ("hgat.graph.snapshots", "prepare", "snapshots"),
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


def test_what_scripts_of_earlier_releases_used_works_and_says_what_to_use(tmp_path):
    from hgat.train import attention, load_ogb, options  # no warning yet: a script may only import them

    with pytest.warns(FutureWarning, match="hgat.train.options is now called argparse"):
        parser = options("ogbn-arxiv: a script", conv=("GATConv", "GATv2Conv"), hidden=8, on_sample={"heads": 2})
    args = parser.parse_args(["--sample", "--control", "uniform"])
    assert (args.conv, args.hidden, args.heads, args.runs, args.out) == (
        "GATConv", 8, 2, 1, "runs/ogb/ogbn-arxiv-uniform-sample"
    )  # fmt: skip
    with pytest.warns(FutureWarning, match="hgat.train.attention is now called hgat.ops.uniform_attention"):
        context = attention(args)
    with context:
        assert is_uniform()
    with pytest.warns(FutureWarning, match="hgat.train.load_ogb is now called hgat.data.ogb.load"):
        assert load_ogb("ogbn-arxiv", args).stands_in


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_reads_first_with_load_ogb(rank, monkeypatch):
    """OGB's first reading of a data set writes a copy, which another must not read while it is written."""
    from hgat.data import ogb

    seen = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "barrier", lambda: seen.append("waits"))
    monkeypatch.setattr(ogb, "load", lambda *_, **__: seen.append("reads"))
    with pytest.warns(FutureWarning, match="hgat.train.load_ogb is now called hgat.data.ogb.load"):
        train.load_ogb("ogbn-arxiv", argparse.Namespace(root=None, mapped=False, sample=False))
    assert seen == [["reads", "waits"], ["waits", "reads"]][rank]


@pytest.mark.parametrize("old", ["hgat.ops.dispatch.uniform_attention", "hgat.ops.segment.edge_softmax"])
def test_what_has_moved_to_another_file_is_found_there(old):
    home, _, name = old.rpartition(".")
    with pytest.warns(FutureWarning, match=f"{old} is now called hgat.ops.alignment.{name}"):
        found = getattr(importlib.import_module(home), name)
    assert found is getattr(importlib.import_module("hgat.ops"), name)
