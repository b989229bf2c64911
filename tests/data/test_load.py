import importlib
import inspect
import re
from pathlib import Path

import pytest

import hgat.data
import hgat.data.card
from hgat.errors import DataError


def test_every_card_can_be_read_and_is_complete():
    assert {"acm3025", "aifb", "citeseer", "cora", "dblp", "movielens", "pubmed"} <= set(hgat.data.available())
    for name in hgat.data.available():
        card = hgat.data.card.read(name)
        assert (Path(hgat.data.__file__).parent / f"{card.format}.py").is_file()
        for text in (card.title, card.source, card.licence, card.citation, card.how):
            assert text.strip()
        assert card.files or "generated" in card.source
        # OGB's are read by the same names as their stand-ins, which have other numbers.
        assert card.format in ("ogb_nodes", "ogb_graphs", "ogb_links") or {"nodes", "edges"} <= set(card.counts)
        assert card.format in ("events", "ogb_links", "signed", "triples") or "classes" in card.counts
        assert len({file.role for file in card.files}) == len(card.files)
        for file in card.files:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_an_unknown_name_says_which_exist():
    with pytest.raises(DataError, match=r"expected one of acm3025, .*pubmed, .*got 'coraa'"):
        hgat.data.load("coraa")


@pytest.mark.parametrize("name", ["../cora", "cora.toml", ""])
def test_a_name_is_no_path(name):
    with pytest.raises(DataError, match="expected one of"):
        hgat.data.load(name)


@pytest.mark.parametrize(
    "name, options, sentence",
    [
        ("cora", {"normalise": "row"}, "cora: expected only the keys verify, normalize, split, draws, got 'normalise'"),
        ("cora", {"split": "half"}, "cora.split: expected 'planetoid' or 'gpr_gnn' or 'uag' | None, got 'half'"),
        (
            "texas",
            {"split": "half"},
            "texas.split: expected int | 'planetoid' or 'gpr_gnn' or 'uag' | None, got 'half'",
        ),
        ("cora", {"normalize": "l2"}, "cora.normalize: expected 'row' or 'none', got 'l2'"),
        ("cora", {"verify": 1}, "cora.verify: expected bool, got 1"),
        ("dblp", {"split_seed": "0"}, "dblp.split_seed: expected int, got '0'"),
        ("dblp", {"split_seed": True}, "dblp.split_seed: expected int, got True"),
        ("acm3025", {"split_seed": "0"}, "acm3025.split_seed: expected int | None, got '0'"),
        ("acm3025", {"card": 1}, "acm3025: expected only the keys verify, split_seed, got 'card'"),
        ("aifb", {"val": "last"}, "aifb.val: expected 'first_fifth' or 'random', got 'last'"),
    ],
)
def test_options_are_checked_before_any_file_is_read(name, options, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        hgat.data.load(name, tmp_path, **options)


def test_the_folder_is_the_argument_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HGAT_DATA", str(tmp_path / "environment"))
    for root, expected in ((tmp_path / "argument", "argument/cora"), (None, "environment/cora")):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / expected))):
            hgat.data.load("cora", root)
    monkeypatch.delenv("HGAT_DATA")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "home/.cache/hgat/cora"))):
        hgat.data.load("cora")


def test_counts_unlike_the_card_are_refused_unless_verify_is_off(real, monkeypatch):
    root = real("cora")
    original = hgat.data.card.read

    def changed(name):
        card = original(name)
        return hgat.data.card.Card(**{**vars(card), "counts": {**card.counts, "edges": 10555}})

    monkeypatch.setattr(hgat.data.card, "read", changed)
    with pytest.raises(DataError, match="cora: expected 10555 for edges as the data set's card says, got 10556"):
        hgat.data.load("cora", root)
    assert hgat.data.load("cora", root, verify=False).graph.num_edges() == 10556


def test_options_may_change_the_counts_of_the_split_but_not_of_the_graph(real):
    task = hgat.data.load("dblp", real("dblp"), min_count=200)
    assert task.feat["author"].shape[1] < 334


def test_every_format_that_reads_a_path_has_its_name_for_it(tmp_path):
    """By the name of its form a folder is read without a card, and nothing else is."""
    formats = {hgat.data.card.read(name).format for name in hgat.data.available()} | {
        "folder",
        "saved",
    }  # without cards
    loaders = {form: importlib.import_module(f"hgat.data.{form}").load for form in formats}
    assert {f for f, load in loaders.items() if "path" in inspect.signature(load).parameters} == set(hgat.data.forms())
    for form in hgat.data.forms():
        with pytest.raises(DataError, match=f"{form}.path: expected {hgat.data.card.FORMS[form]}, got no such key"):
            hgat.data.load(form, tmp_path)
        with pytest.raises(
            DataError,
            match=f"(data.path|{tmp_path}/none): expected a (folder|CSV file|file of signed edges|file of data)",
        ):
            hgat.data.load(form, path=str(tmp_path / "none"))
