"""OGB's data sets: read through OGB's own loaders, asked nothing, downloaded nothing; and the stand-ins for them."""

import contextlib
import io
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
import zipfile
from pathlib import Path

import dgl
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hostile import hostile

import hgat
import hgat.cli
import hgat.data.card
import hgat.data.partition
from hgat.data import ogb, ogb_samples
from hgat.errors import DataError, OutputError, ShapeError
from hgat.models.gat import GAT
from hgat.models.rgat import RGAT
from hgat.nn import EdgeGATConv
from hgat.ops import uniform_attention

NODE = {"ogbn-arxiv": 128, "ogbn-products": 100, "ogbn-proteins": None, "ogbn-mag": 128}
LINK = {"ogbl-collab": 128, "ogbl-ddi": None, "ogbl-biokg": None, "ogbl-wikikg2": None}
NODES = 360


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No question, no network."""

    def refuse(*args, **kwargs):
        raise AssertionError("asked, or went to the network")

    monkeypatch.setattr("builtins.input", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a sample of every kind; tests that change one copy it."""
    folder = tmp_path_factory.mktemp("ogb")
    for name in ogb_samples.SAMPLES:
        ogb_samples.write_sample(name, folder, nodes=NODES)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    def one(name):
        folder = name.replace("-", "_")
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("processed"))
        return tmp_path / folder

    return one


def master(name):
    """OGB's own row, read here without hgat."""
    folder = {"ogbn": "nodeproppred", "ogbl": "linkproppred", "ogbg": "graphproppred"}[name[:4]]
    path = os.path.join(os.path.dirname(ogb.PACKAGES[name[:4]].__file__), "master.csv")
    assert folder in path
    return pd.read_csv(path, index_col=0, keep_default_na=False)[name]


def one_sentence(error):
    message = str(error.value)
    assert "\n" not in message and not message.endswith(".") and re.search(r"expected .*, got|got:", message), message
    return message


def check_split(split, count):
    assert list(split) == ["train", "val", "test"]
    assert all(len(ids) and ids.dtype == torch.int64 for ids in split.values())
    assert torch.cat(list(split.values())).sort().values.equal(torch.arange(count))


# ---- every sample, read back ----


@pytest.mark.parametrize("name", NODE)
def test_node_samples_have_the_schema_of_the_real_one(root, name):
    facts, task = master(name), ogb.load(name, root)
    assert isinstance(task, ogb.OGBNodeData) and task.name == name
    target = "paper" if name == "ogbn-mag" else "_N"
    assert task.target == target and task.graph.num_nodes(target) == NODES
    check_split(task.split, NODES)
    assert task.metric == {"acc": "accuracy", "rocauc": "auc"}[facts["eval metric"]]
    assert task.multilabel == (task.metric == "auc") and len(task.class_names) == task.num_classes
    if task.metric == "accuracy":
        assert task.num_classes == int(facts["num classes"])
        assert task.label.shape == (NODES,) and task.label.dtype == torch.int64
        assert task.label.min() >= 0 and task.label.max() == task.num_classes - 1
        # No class is asked for that training does not show.
        assert set(task.label.tolist()) == set(task.label[task.split["train"]].tolist())
    else:
        assert task.num_classes == int(facts["num tasks"])
        assert task.label.shape == (NODES, task.num_classes) and set(task.label.unique().tolist()) == {0, 1}
        assert task.label.dtype == torch.float32
    for ntype, feat in task.feat.items():
        if ntype == target and NODE[name]:
            assert feat.shape == (NODES, NODE[name]) and feat.dtype == torch.float32
        else:
            assert feat is None
    assert not any("feat" in task.graph.nodes[ntype].data for ntype in task.graph.ntypes)
    if facts["has_edge_attr"] == "True":
        assert task.edge_feat.shape == (task.graph.num_edges(), 8)
    else:
        assert task.edge_feat is None
    for column in facts["additional node files"].split(","):
        assert column == "None" or task.graph.nodes[target].data[column.removeprefix("node_")].shape == (NODES, 1)
    if facts["add_inverse_edge"] == "True":
        source, target = task.graph.edges()
        assert source[::2].equal(target[1::2]) and source[1::2].equal(target[::2])
    assert len(task.notes) == 1 and "not OGB's data" in task.notes[0]


def test_mag_has_the_relations_of_the_real_one(root):
    graph = ogb.load("ogbn-mag", root).graph
    assert graph.ntypes == ["author", "field_of_study", "institution", "paper"]
    assert sorted(graph.canonical_etypes) == [
        ("author", "affiliated_with", "institution"),
        ("author", "writes", "paper"),
        ("paper", "cites", "paper"),
        ("paper", "has_topic", "field_of_study"),
    ]
    assert all(graph.edges[etype].data["reltype"].unique().numel() == 1 for etype in graph.canonical_etypes)


@pytest.mark.parametrize("name", LINK)
def test_link_samples_have_the_schema_of_the_real_one(root, name):
    facts, task = master(name), ogb.load(name, root)
    assert isinstance(task, ogb.LinkData) and task.metric == facts["eval metric"]
    assert list(task.split) == ["train", "val", "test"]
    typed = name in ("ogbl-biokg", "ogbl-wikikg2")
    keys = {"head", "relation", "tail"} if typed else {"edge"}
    keys |= {"head_type", "tail_type"} if name == "ogbl-biokg" else set()
    keys |= {"weight", "year"} if name == "ogbl-collab" else set()
    negatives = {"head_neg", "tail_neg"} if typed else {"edge_neg"}
    for part, content in task.split.items():
        assert set(content) == keys | (set() if part == "train" else negatives)
        count = len(content["head" if typed else "edge"])
        assert count and all(len(content[key]) == count for key in keys)
    if typed:
        for part in ("val", "test"):
            count = len(task.split[part]["head"])
            assert task.split[part]["head_neg"].shape == task.split[part]["tail_neg"].shape == (count, 500)
    # The graph holds the training links and no other.
    size = task.graph.num_edges() / (2 if facts["add_inverse_edge"] == "True" else 1)
    assert size == len(task.split["train"]["head" if typed else "edge"])
    if LINK[name]:
        assert task.feat["_N"].shape == (NODES, LINK[name])
    else:
        assert all(feat is None for feat in task.feat.values())
    for column in facts["additional edge files"].split(","):
        for etype in task.graph.canonical_etypes:
            data = task.graph.edges[etype].data
            assert column == "None" or data[column.removeprefix("edge_")].shape == (task.graph.num_edges(etype), 1)


def test_biokg_and_wikikg2_have_the_relations_of_the_real_ones(root):
    graph = ogb.load("ogbl-biokg", root).graph
    assert graph.ntypes == ["disease", "drug", "function", "protein", "sideeffect"]
    assert len(graph.canonical_etypes) == 51
    assert sum(etype.startswith("drug-drug_") for etype in graph.etypes) == 38
    for number, (head, name, tail) in enumerate(sorted(graph.canonical_etypes)):
        assert name.startswith(f"{head}-{tail}")
        assert set(graph.edges[head, name, tail].data["reltype"].flatten().tolist()) == {number}
    relation = ogb.load("ogbl-wikikg2", root).split["train"]["relation"]
    assert relation.unique().tolist() == list(range(535))


def test_held_out_links_are_new_and_negatives_are_false(root):
    for name in ("ogbl-collab", "ogbl-ddi"):
        split = ogb.load(name, root).split
        pairs = {part: {tuple(sorted(pair)) for pair in split[part]["edge"].tolist()} for part in split}
        wrong = {tuple(sorted(pair)) for part in ("val", "test") for pair in split[part]["edge_neg"].tolist()}
        assert not pairs["val"] & pairs["test"] and not pairs["train"] & (pairs["val"] | pairs["test"])
        assert not wrong & (pairs["val"] | pairs["test"])
    for name in ("ogbl-biokg", "ogbl-wikikg2"):
        split = ogb.load(name, root).split
        for part in ("val", "test"):
            assert not (split[part]["tail_neg"] == split[part]["tail"][:, None]).any()
            assert not (split[part]["head_neg"] == split[part]["head"][:, None]).any()


def test_no_hub_is_asked_for_so_that_counting_links_does_not_tell(root):
    task = ogb.load("ogbl-ddi", root)
    found = {"ogbl-ddi": (task.graph.in_degrees(), [task.split["test"]["edge"], task.split["test"]["edge_neg"]])}
    for name in ("ogbl-biokg", "ogbl-wikikg2"):
        split = ogb.load(name, root).split
        drug = {
            part: np.array(split[part].get("head_type", ["drug"] * len(split[part]["head"]))) == "drug"
            for part in split
        }
        asked = [torch.as_tensor(split["test"][key])[drug["test"]] for key in ("head", "head_neg")]
        found[name] = torch.as_tensor(split["train"]["head"])[drug["train"]].bincount(), asked
    for name, (links, asked) in found.items():
        for ids in asked:
            assert links[ids].max() < links.max() / 2, name


@pytest.mark.slow
def test_molhiv_has_the_schema_of_the_real_one(root):
    facts, task = master("ogbg-molhiv"), ogb.load("ogbg-molhiv", root)
    assert facts["eval metric"] == "rocauc" and task.metric == "auc"
    assert isinstance(task, ogb.GraphsData) and task.num_classes == 1 and task.multilabel
    assert len(task.graphs) == NODES and task.label.shape == (NODES, 1) and task.label.dtype == torch.float32
    assert set(task.label.unique().tolist()) == {0, 1}
    check_split(task.split, NODES)
    batch = dgl.batch(task.graphs)
    for feat, dims in (
        (batch.ndata["feat"], [119, 5, 12, 12, 10, 6, 6, 2, 2]),
        (batch.edata["feat"], [5, 6, 2]),
    ):
        assert feat.dtype == torch.int64 and (feat >= 0).all() and (feat < torch.tensor(dims)).all()
    for graph, label in zip(task.graphs, task.label.flatten().tolist(), strict=True):
        element, bond = graph.ndata["feat"][:, 0], graph.edata["feat"][:, 0]
        ring = torch.nonzero(graph.ndata["feat"][:, 8]).flatten().tolist()
        assert sorted(element[ring].tolist()) == [6, 7, 14, 15]
        for atom in ring:
            near, _, edges = graph.in_edges(atom, form="all")
            inside = [(int(bond[e]), int(element[n])) for n, e in zip(near, edges, strict=True) if n in ring]
            assert sorted(kind for kind, _ in inside) == [0, 1]
            if element[atom] == 14:
                assert (1, 6 if label else 7) in inside


def test_no_mean_tells_molhivs_molecules_from_those_of_the_other_label(root):
    graph = dgl.batch(ogb.load("ogbg-molhiv", root).graphs)
    ring = graph.ndata["feat"][:, 8] == 1
    kind, (src, dst) = graph.edata["feat"][:, 0], graph.edges()
    other = torch.where(ring[src] & ring[dst], 1 - kind, kind)
    first, second = EdgeGATConv(119, 5, 8, 2), EdgeGATConv(16, 5, 8, 2)

    def embed(kind):
        bond = F.one_hot(kind, 5).float()
        x = F.relu(first(graph, F.one_hot(graph.ndata["feat"][:, 0], 119).float(), bond).flatten(1))
        return second(graph, x, bond)

    with torch.no_grad():
        assert (embed(kind) - embed(other))[ring].abs().amax((1, 2)).min() > 1e-3
        with uniform_attention():
            torch.testing.assert_close(embed(kind), embed(other))


@pytest.mark.slow
@pytest.mark.parametrize("name", ogb_samples.SAMPLES)
def test_a_seed_decides_every_byte(root, tmp_path, name):
    folder = name.replace("-", "_")
    again, other = (
        ogb_samples.write_sample(name, tmp_path / "a", NODES),
        ogb_samples.write_sample(name, tmp_path / "b", NODES, seed=1),
    )

    def content(path):
        files = sorted(p for p in path.rglob("*") if p.is_file() and "processed" not in p.parts)
        return {str(p.relative_to(path)): p.read_bytes() for p in files}

    first = content(root / folder)
    assert content(again) == first
    assert content(other).keys() == first.keys() and content(other) != first


@pytest.mark.parametrize("name", ogb_samples.SAMPLES)
def test_the_smallest_sample_is_read(tmp_path, name):
    ogb_samples.write_sample(name, tmp_path, nodes=121, seed=3)
    ogb.load(name, tmp_path)
    with pytest.raises(DataError) as error:
        ogb_samples.write_sample(name, tmp_path / "other", nodes=119)
    assert one_sentence(error) == "nodes: expected 120 or more, got 119"


# ---- scores ----


def test_accuracy_is_ogbs(root):
    task = ogb.load("ogbn-arxiv", root)
    ids = task.split["val"]
    right = F.one_hot(task.label[ids], 40).float()
    right[: len(ids) // 4] = right[: len(ids) // 4].roll(1, dims=1)
    assert task.evaluate("val", right) == 100 * (1 - (len(ids) // 4) / len(ids))
    assert task.evaluate("val", right.bfloat16()) == task.evaluate("val", right)
    mag = ogb.load("ogbn-mag", root)
    assert mag.evaluate("test", F.one_hot(mag.label[mag.split["test"]], 349)) == 100


@pytest.mark.slow
def test_area_under_the_curve_is_ogbs(root):
    for name in ("ogbn-proteins", "ogbg-molhiv"):
        task = ogb.load(name, root)
        truth = task.label[task.split["test"]].float()
        assert task.evaluate("test", truth) == 100 and task.evaluate("test", -truth) == 0
        assert task.evaluate("test", torch.zeros_like(truth)) == 50
    score = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    ahead = (score[truth == 1][:, None] > score[truth == 0]).double().mean().item()
    assert task.evaluate("test", score) == pytest.approx(100 * ahead, abs=1e-10)


def test_hits_and_mean_reciprocal_rank_are_ogbs(root):
    collab, biokg = ogb.load("ogbl-collab", root), ogb.load("ogbl-biokg", root)
    negative = torch.arange(100.0)
    assert collab.evaluate(torch.tensor([49.5, 50.5, 99.5, 10]), negative) == {"hits@50": 50}
    found = biokg.evaluate(np.array([5.0, 2.5, 0.5]), np.array([[1.0, 2, 3, 4]] * 3))
    assert found == pytest.approx({"mrr": 460 / 9, "hits@1": 100 / 3, "hits@3": 200 / 3, "hits@10": 100})
    assert biokg.evaluate(torch.zeros(1), torch.zeros(1, 4))["mrr"] == pytest.approx(100 / 3)  # ties: the middle rank


def test_wrong_predictions_are_refused(root):
    arxiv, collab, biokg = (ogb.load(name, root) for name in ("ogbn-arxiv", "ogbl-collab", "ogbl-biokg"))
    count = len(arxiv.split["val"])
    cases = [
        (lambda: arxiv.evaluate("dev", torch.zeros(1, 40)), "part: expected one of train, val, test, got 'dev'"),
        (lambda: arxiv.evaluate("val", torch.full((count, 40), torch.nan)), "prediction: expected numbers, got NaN"),
        (lambda: arxiv.evaluate("val", torch.zeros(count, 1)), r"expected \[n, C\] = "),
        # OGB itself gives 1 for both of these.
        (lambda: collab.evaluate(torch.zeros(3), torch.ones(49)), "expected 1 link or more and 50 negatives"),
        (lambda: biokg.evaluate(torch.full((3,), torch.nan), torch.ones(3, 5)), "positive: expected numbers, got NaN"),
        (lambda: biokg.evaluate(torch.zeros(3), torch.ones(5)), r"negative: expected \[B, negatives\]"),
        (lambda: collab.evaluate(torch.zeros(0), torch.ones(60)), "expected 1 link or more"),
    ]
    for call, sentence in cases:
        with pytest.raises((DataError, ShapeError), match=sentence) as error:
            call()
        one_sentence(error)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_what_has_a_unit_of_its_own_is_no_percent_and_words_are(monkeypatch):
    ids = {"train": torch.tensor([0]), "val": torch.tensor([1, 3]), "test": torch.tensor([2])}
    label = torch.tensor([[0.0], [1.0], [5.0], [2.0]])
    energy = ogb.GraphsData("ogbg-molesol", [], label, **ids, num_classes=1, metric="rmse")
    assert energy.evaluate("val", torch.tensor([[1.5], [3.5]])) == pytest.approx((2.5 / 2) ** 0.5)
    kinds = ogb.GraphsData("ogbg-ppa", [], torch.tensor([0, 1, 36, 2]), **ids, num_classes=37, metric="accuracy")
    assert kinds.evaluate("val", F.one_hot(torch.tensor([1, 3]), 37)) == 50
    words = ogb.GraphsData("ogbg-code2", [], [["a"], ["b", "c"], [], ["d"]], **ids, num_classes=1, metric="f1")
    assert words.evaluate("val", [["b", "c"], ["e"]]) == 50
    with pytest.raises(DataError, match="prediction: expected 2 lists of words, got 1"):
        words.evaluate("val", [["b"]])


def test_old_names_and_keys_warn_for_one_release(root):
    for old, new in (("Node", "OGBNodeData"), ("Link", "LinkData"), ("Graphs", "GraphsData")):
        with pytest.warns(FutureWarning, match=f"hgat.data.ogb.{old} is now called hgat.data.ogb.{new};") as caught:
            assert getattr(ogb, old) is getattr(ogb, new)
        assert caught[0].filename == __file__
    for name in ("SAMPLES", "main", "write_sample"):
        with pytest.warns(FutureWarning, match=f"ogb.{name} is now called hgat.data.ogb_samples.{name};") as caught:
            assert getattr(ogb, name) is getattr(ogb_samples, name)
        assert caught[0].filename == __file__
    for name in ("ogbn-arxiv", "ogbl-ddi", "ogbg-molhiv"):
        task = ogb.load(name, root)
        with pytest.warns(FutureWarning, match=r"split\['valid'\] is now called split\['val'\];") as caught:
            assert task.split["valid"] is task.split["val"]
        assert caught[0].filename == __file__
        with pytest.raises(KeyError, match="dev"):
            task.split["dev"]
        if name == "ogbl-ddi":
            continue
        with pytest.warns(FutureWarning, match="num_outputs is now called num_classes;") as caught:
            assert task.num_outputs == task.num_classes
        assert caught[0].filename == __file__
        scores = torch.rand(len(task.val), task.num_classes)
        with pytest.warns(FutureWarning, match=r'called evaluate\("val", ...\), and gives percent;') as caught:
            assert task.evaluate("valid", scores) == task.evaluate("val", scores)
        assert caught[0].filename == __file__


# ---- by the names of cards ----


@pytest.mark.parametrize("name", NODE)
def test_a_name_and_a_root_are_enough(root, name, monkeypatch):
    assert name in hgat.data.available()
    expected = ogb.load(name, root)
    task = hgat.data.load(name, root)
    assert isinstance(task, hgat.data.NodeData) and isinstance(task, ogb.OGBNodeData)
    assert task.notes == expected.notes and "not OGB's data" in task.notes[0]
    assert task.label.equal(expected.label) and task.graph.num_edges() == expected.graph.num_edges()
    assert all(task.split[part].equal(expected.split[part]) for part in expected.split)
    assert not (root / name.replace("-", "_") / "mapped").exists()
    card = hgat.data.card.read(name)
    facts = master(name)
    assert card.counts["classes"] == int(facts["num classes" if facts["eval metric"] == "acc" else "num tasks"])
    assert card.file("release").name == f"RELEASE_v{facts['version']}.txt" and facts["url"] in card.how
    changed = vars(card) | {"counts": {"classes": 3}}
    monkeypatch.setattr(hgat.data.card, "read", lambda name: hgat.data.card.Card(**changed))
    with pytest.raises(DataError, match=f"expected 3 for classes as the data set's card says, got {task.num_classes}"):
        hgat.data.load(name, root)
    assert hgat.data.load(name, root, verify=False).num_classes == task.num_classes


def test_features_of_a_name_may_stay_on_disk(copy):
    folder = copy("ogbn-arxiv")
    task = hgat.data.load("ogbn-arxiv", folder.parent, mapped=True)
    assert (folder / "mapped/_N.npy").is_file()
    assert task.feat["_N"].equal(hgat.data.load("ogbn-arxiv", folder.parent).feat["_N"])


def test_the_graph_of_a_name_is_cut_from_the_root(copy, tmp_path, capsys):
    folder = copy("ogbn-proteins")
    cut = ["partition", "ogbn-proteins", "--root", str(folder.parent), "--parts", "2", "--method", "random", "--mapped"]
    assert hgat.cli.main([*cut, "--out", str(tmp_path / "parts")]) == 0
    assert (folder / "mapped/edge.npy").is_file() and "not OGB's data" in capsys.readouterr().out
    about = hgat.data.partition.about(tmp_path / "parts/ogbn-proteins.json")
    assert (about["target"], about["outputs"]) == ("_N", 112)
    found = [dgl.distributed.load_partition_feats(str(tmp_path / "parts/ogbn-proteins.json"), k)[0] for k in (0, 1)]
    order = torch.cat([of_part["_N/orig_id"] for of_part in found]).argsort()
    task = ogb.load("ogbn-proteins", folder.parent)
    for column, expected in (("label", task.label), ("val_mask", torch.zeros(NODES, dtype=torch.bool))):
        expected = expected.clone()
        if column == "val_mask":
            expected[task.val] = True
        assert torch.cat([of_part[f"_N/{column}"] for of_part in found])[order].equal(expected)
    links = [
        "partition",
        "ogbl-ddi",
        "--root",
        str(copy("ogbl-ddi").parent),
        "--parts",
        "2",
        "--out",
        str(tmp_path / "x"),
    ]
    assert hgat.cli.main(links) == 2
    assert "ogbl-ddi: expected a data set of nodes with labels, got LinkData" in capsys.readouterr().err


def test_a_name_is_read_as_safely_as_by_ogbs_reader(copy, tmp_path):
    folder = copy("ogbn-arxiv")
    ogb.load("ogbn-arxiv", folder.parent)
    cut(folder / "processed/dgl_data_processed")
    with pytest.raises(DataError, match="remove its folder processed") as error:
        hgat.data.load("ogbn-arxiv", folder.parent)
    one_sentence(error)
    with pytest.raises(DataError, match="ogbn-papers100M: expected OGB's files in .*got no such folder") as error:
        hgat.data.load("ogbn-papers100M", tmp_path)
    one_sentence(error)


@pytest.mark.slow
def test_names_and_cards_do_not_wait_for_ogb():
    code = """
        import sys, hgat.data
        from hgat.data import card
        assert "ogbn-mag" in [card.read(name).name for name in hgat.data.available()]
        import hgat.data.ogb_nodes
        assert not {"ogb.nodeproppred", "hgat.data.ogb"} & set(sys.modules)
        try:
            hgat.data.load("ogbn-mag", "/none", mapped=1)
        except hgat.HgatError as error:
            assert "ogbn-mag.mapped: expected bool, got 1" in str(error)
        assert not {"ogb.nodeproppred", "hgat.data.ogb"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_stand_in_for_the_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    task = ogb.load("ogbn-arxiv", tmp_path / "none", mapped=True, sample=True)
    assert task.graph.num_nodes() == 2400 and "not OGB's data" in task.notes[0]
    assert list(tmp_path.iterdir()) == [] and str(tmp_path) not in Path("/proc/self/maps").read_text()


# ---- what is not there, or not whole ----


@pytest.mark.parametrize("name", ["ogbn-arxiv", "ogbn-papers100M", "ogbl-biokg", "ogbg-molhiv", "ogbl-vessel"])
def test_missing_data_say_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HGAT_DATA", str(tmp_path))
    with pytest.raises(DataError) as error:
        ogb.load(name)
    message = one_sentence(error)
    assert master(name)["url"] in message and str(tmp_path / name.replace("-", "_")) in message
    assert (f"python -m hgat.data.ogb sample {name} DIR" in message) == (name in ogb_samples.SAMPLES)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_answered_with_the_known(tmp_path):
    for call in (ogb.load, ogb_samples.write_sample):
        with pytest.raises(DataError) as error:
            call("ogbn-cora", tmp_path)
        assert "ogbn-arxiv" in one_sentence(error) and "got 'ogbn-cora'" in str(error.value)
    assert {"ogbn-papers100M", "ogbl-ppa", "ogbg-code2"} < set(ogb.names())


def test_a_folder_of_another_version_or_without_edges_is_refused(copy):
    folder = copy("ogbn-mag")
    (folder / "RELEASE_v2.txt").rename(folder / "RELEASE_v1.txt")
    with pytest.raises(DataError, match=r"got no RELEASE_v2.txt, so another version") as error:
        ogb.load("ogbn-mag", folder.parent)  # OGB asks a question here
    one_sentence(error)
    folder = copy("ogbn-arxiv")
    (folder / "raw/edge.csv.gz").unlink()
    for download in (False, True):
        with pytest.raises(DataError, match="got no raw/edge.csv.gz") as error:
            ogb.load("ogbn-arxiv", folder.parent, download=download)  # OGB downloads here
        one_sentence(error)
    assert folder.exists()


def test_the_folder_of_earlier_releases_is_found(copy):
    folder = copy("ogbn-arxiv")
    folder.rename(folder.with_name("ogbn_arxiv_dgl"))
    assert ogb.load("ogbn-arxiv", folder.parent).graph.num_nodes() == NODES
    with pytest.raises(OutputError):
        ogb_samples.write_sample("ogbn-arxiv", folder.parent)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGED = [
    ("ogbn-arxiv", "raw/node-feat.csv.gz", cut),
    ("ogbn-arxiv", "raw/edge.csv.gz", lambda path: path.write_bytes(b"no gzip")),
    (
        "ogbn-arxiv",
        "raw/node-label.csv.gz",
        lambda path: pd.DataFrame([[1]] * 7).to_csv(path, header=False, index=False),
    ),
    (
        "ogbn-arxiv",
        "raw/node-label.csv.gz",
        lambda path: pd.DataFrame([[40]] * NODES).to_csv(path, header=False, index=False),
    ),
    ("ogbn-arxiv", "split/time/valid.csv.gz", lambda path: path.unlink()),
    ("ogbn-arxiv", "split/time/valid.csv.gz", lambda path: shutil.copy(path.with_name("test.csv.gz"), path)),
    (
        "ogbn-arxiv",
        "split/time/test.csv.gz",
        lambda path: pd.DataFrame([[NODES]]).to_csv(path, header=False, index=False),
    ),
    ("ogbn-mag", "raw/relations/paper___cites___paper/edge.csv.gz", cut),
    ("ogbl-biokg", "split/random/valid.pt", cut),
    (
        "ogbg-molhiv",
        "raw/graph-label.csv.gz",
        lambda path: pd.DataFrame([[1]] * 7).to_csv(path, header=False, index=False),
    ),
]


@pytest.mark.parametrize(("name", "path", "damage"), DAMAGED)
def test_damaged_files_are_refused_with_one_sentence(copy, name, path, damage):
    folder = copy(name)
    damage(folder / path)
    with pytest.raises((DataError, ShapeError)) as error:
        ogb.load(name, folder.parent)
    assert name in one_sentence(error)


def test_half_a_cache_is_refused(copy):
    folder = copy("ogbn-arxiv")
    ogb.load("ogbn-arxiv", folder.parent)
    cut(folder / "processed/dgl_data_processed")
    with pytest.raises(DataError, match="remove its folder processed") as error:
        ogb.load("ogbn-arxiv", folder.parent)
    one_sentence(error)
    shutil.rmtree(folder / "processed")
    ogb.load("ogbn-arxiv", folder.parent)


@pytest.mark.parametrize("name", ["ogbn-arxiv", "ogbn-mag", "ogbl-biokg", "ogbg-molhiv"])
def test_a_cache_without_its_last_bytes_is_refused(copy, name):
    """DGL reads it without an error: relations without names, and features that memory held."""
    folder = copy(name)
    ogb.load(name, folder.parent)
    cache = folder / "processed/dgl_data_processed"
    whole = cache.read_bytes()
    for lacking in (1, 8, 16, 24, 48, 100, 1000):
        cache.write_bytes(whole[:-lacking])
        with pytest.raises(DataError, match="dgl_data_processed: expected a whole file .*, got .*; remove its folder"):
            ogb.load(name, folder.parent)
    cache.write_bytes(whole)
    assert ogb.load(name, folder.parent).name == name


@pytest.mark.parametrize("name", ["ogbn-arxiv", "ogbl-ddi"])
def test_a_first_read_that_is_stopped_leaves_no_cache(copy, name, monkeypatch):
    folder = copy(name)
    package = ogb.PACKAGES[name[:4]]
    save, before = package.dataset_dgl.save_graphs, sorted(os.listdir(folder))

    def killed(path, *args):
        save(path, *args)
        cut(Path(path))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(package.dataset_dgl, "save_graphs", killed)
        with pytest.raises(KeyboardInterrupt):
            ogb.load(name, folder.parent)
    assert sorted(os.listdir(folder)) == before
    ogb.load(name, folder.parent)
    assert os.listdir(folder / "processed") == ["dgl_data_processed"]
    assert sorted(os.listdir(folder)) == sorted([*before, "processed"])


def test_a_full_disk_leaves_no_cache(copy, monkeypatch):
    """DGL writes what there is room for, and says nothing."""
    folder = copy("ogbn-mag")
    save = ogb.nodeproppred.dataset_dgl.save_graphs

    def full(path, *args):
        save(path, *args)
        Path(path).write_bytes(Path(path).read_bytes()[:-60])

    monkeypatch.setattr(ogb.nodeproppred.dataset_dgl, "save_graphs", full)
    with pytest.raises(DataError, match="expected a whole file of DGL's graphs") as error:
        ogb.load("ogbn-mag", folder.parent)
    one_sentence(error)
    assert not (folder / "processed").exists()


def test_a_folder_of_a_process_that_was_killed_is_no_hindrance(copy):
    folder = copy("ogbn-arxiv")
    (folder / ".first-read.x/ogbn_arxiv/processed").mkdir(parents=True)
    (folder / ".first-read.x/ogbn_arxiv/processed/dgl_data_processed").write_bytes(b"half")
    (folder / ".first-read.y").mkdir()
    os.utime(folder / ".first-read.y", (0, 0))  # nobody is at work there any more
    assert ogb.load("ogbn-arxiv", folder.parent).graph.num_nodes() == NODES
    assert [path.name for path in folder.glob(".*")] == [".first-read.x"]


def test_without_links_ogb_reads_the_folder_itself(copy, monkeypatch):
    def none(*_):
        raise OSError("no links here")

    folder = copy("ogbn-arxiv")
    monkeypatch.setattr(os, "symlink", none)
    for _ in range(2):
        assert ogb.load("ogbn-arxiv", folder.parent).graph.num_nodes() == NODES
    assert os.listdir(folder / "processed") == ["dgl_data_processed"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_split_that_ends_the_process_elsewhere_is_refused(copy, protocol):
    folder = copy("ogbl-ddi")
    ogb.load("ogbl-ddi", folder.parent)
    for what, content in hostile(protocol).items():
        with zipfile.ZipFile(folder / "split/target/valid.pt", "w") as archive:
            archive.writestr("a/data.pkl", content)
        with pytest.raises(DataError, match="expected arrays and lists") as error:
            ogb.load("ogbl-ddi", folder.parent)
            pytest.fail(what)
        one_sentence(error)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("told_to_trust", [False, True])
def test_a_split_that_runs_code_is_refused(copy, tmp_path, monkeypatch, told_to_trust):
    folder = copy("ogbl-ddi")
    torch.save({"edge": Payload(tmp_path / "ran")}, folder / "split/target/train.pt")
    if told_to_trust:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = dict(os.environ)
    with pytest.raises(DataError, match="expected arrays and lists") as error:
        ogb.load("ogbl-ddi", folder.parent)
    one_sentence(error)
    assert isinstance(error.value.__cause__, pickle.UnpicklingError)
    assert not (tmp_path / "ran").exists() and dict(os.environ) == before


def test_an_existing_data_set_is_not_overwritten(copy, monkeypatch):
    folder = copy("ogbn-arxiv")
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputError) as error:
        ogb_samples.write_sample("ogbn-arxiv", folder.parent)
    assert "remove it or name another folder" in one_sentence(error)
    assert sorted(folder.rglob("*")) == before

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ogb_samples, "_write", full)
    with pytest.raises(OutputError, match="got: No space left") as error:
        ogb_samples.write_sample("ogbl-ddi", folder.parent)
    one_sentence(error)
    assert [path.name for path in folder.parent.iterdir()] == ["ogbn_arxiv"]


# ---- asked for by name ----


def test_a_download_that_was_asked_for(root, tmp_path, monkeypatch):
    archive = tmp_path / "collab.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in (root / "ogbl_collab").rglob("*.*"):
            out.write(path, f"collab/{path.relative_to(root / 'ogbl_collab')}")
    asked = []

    class Answer(io.BytesIO):
        def info(self):
            return {"Content-Length": str(2 << 30 if large else len(self.getvalue()))}

    def urlopen(url):
        asked.append(url)
        if url.endswith("ddi.zip"):
            raise urllib.error.URLError("no route")
        return Answer(archive.read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    for large in (False, True):  # OGB asks before it fetches more than 1 GB
        there = tmp_path / str(large)
        assert ogb.load("ogbl-collab", there, download=True).graph.num_nodes() == NODES
        assert [path.name for path in there.iterdir()] == ["ogbl_collab"]
    assert set(asked) == {master("ogbl-collab")["url"]}
    with pytest.raises(DataError, match="got: .*no route") as error:
        ogb.load("ogbl-ddi", there, download=True)
    one_sentence(error)
    archive.write_bytes(b"<html>")
    with pytest.raises(DataError, match="expected an archive from .*wikikg-v2.zip, got:") as error:
        ogb.load("ogbl-wikikg2", there, download=True)
    one_sentence(error)
    assert [path.name for path in there.iterdir()] == ["ogbl_collab"]


@pytest.mark.slow
def test_the_command_of_the_readme(tmp_path):
    command = [sys.executable, "-m", "hgat.data.ogb", "sample", "ogbl-ddi", tmp_path, "--nodes", "130"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'ogbl_ddi'}\n", "")


def test_the_command_line(tmp_path, capsys):
    arguments = ["sample", "ogbl-ddi", str(tmp_path), "--nodes", "130", "--seed", "4"]
    assert ogb_samples.main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ogbl_ddi'}\n"
    task = ogb.load("ogbl-ddi", tmp_path)
    assert capsys.readouterr().out == ""  # OGB talks on stderr
    assert task.graph.num_nodes() == 130 and "nodes 130, seed 4" in task.notes[0]
    assert ogb_samples.main(arguments) == 2
    assert capsys.readouterr().err.startswith("hgat: ogbl-ddi: expected no data set in")


# ---- the planted structure ----


def fit(task, model, call, epochs):
    """Test accuracy at the best epoch on validation, of every fifth."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train, best = task.split["train"], (-1, -1)
    for epoch in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(call()[train], task.label[train]).backward()
        optimizer.step()
        if epoch % 5 == 4:
            with torch.no_grad():
                out = call()
            best = max(best, tuple(task.evaluate(part, out[task.split[part]]) for part in ("val", "test")))
    return best[1]


def margins(task, make, call, epochs):
    """Test accuracy with attention, with uniform attention, and of a perceptron on the nodes' own features."""
    scores = []
    for control in (contextlib.nullcontext, uniform_attention):
        torch.manual_seed(0)
        model = make()
        with control():
            scores.append(fit(task, model, lambda model=model: call(model), epochs))
    x = task.feat[task.target]
    perceptron = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, task.num_classes)
    )
    return *scores, fit(task, perceptron, lambda: perceptron(x), epochs)


@pytest.mark.slow
def test_attention_finds_what_arxiv_hides(tmp_path):
    ogb_samples.write_sample("ogbn-arxiv", tmp_path)
    task = ogb.load("ogbn-arxiv", tmp_path)
    graph = hgat.graph.homogeneous.prepare(task.graph, undirected=True)
    x, none = task.feat["_N"], {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}
    attention, uniform, perceptron = margins(
        task, lambda: GAT(128, 40, hidden=16, heads=(4, 1), **none), lambda model: model(graph, x), 60
    )
    assert attention > 80 and attention > max(uniform, perceptron) + 40, (attention, uniform, perceptron)


@pytest.mark.slow
def test_attention_finds_what_mag_hides(tmp_path):
    ogb_samples.write_sample("ogbn-mag", tmp_path, nodes=1200)
    task = ogb.load("ogbn-mag", tmp_path)
    joined = hgat.graph.relations.prepare(task.graph)
    attention, uniform, perceptron = margins(
        task,
        lambda: RGAT.for_graph(joined, task.feat, 349, "paper", embed=32, heads=(2, 1), softmax="within"),
        lambda model: model(joined, task.feat),
        40,
    )
    assert attention > 70 and attention > max(uniform, perceptron) + 30, (attention, uniform, perceptron)


@pytest.mark.parametrize(("name", "share"), [("ogbn-arxiv", 0.002), ("ogbn-mag", 0.0005)])
def test_a_share_of_the_real_size_has_all_counts(name, share, tmp_path):
    ogb_samples.write_sample(name, tmp_path, share=share)
    graph = ogb.load(name, tmp_path).graph
    for ntype, count in ogb_samples.REAL[name]["nodes"].items():
        assert graph.num_nodes(ntype) == round(count * share)
    for etype, count in ogb_samples.REAL[name]["edges"].items():
        assert graph.num_edges(etype if name == "ogbn-mag" else None) == round(count * share)


def test_a_share_is_of_two_data_sets_and_instead_of_nodes(tmp_path):
    for name, nodes in (("ogbn-products", None), ("ogbn-arxiv", 500)):
        with pytest.raises(DataError, match="share: expected one of ogbn-arxiv, ogbn-mag and no number of nodes"):
            ogb_samples.write_sample(name, tmp_path, nodes, share=0.01)
    with pytest.raises(DataError, match="nodes: expected 120 or more, got 17"):
        ogb_samples.write_sample("ogbn-arxiv", tmp_path, share=0.0001)
