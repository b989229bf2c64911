"""DictionaryLookup: what is asked has one answer among the neighbours, and test graphs ask for what was never seen."""

from itertools import permutations

import pytest
import torch

import hgat.data
from hgat.errors import DataError


def read(data, k):
    """[G, k]: the value under each key, read from the features of the entries."""
    feat = data.feat["_N"].view(-1, 2 * k, 2 * k + 1)
    assert torch.equal(feat[:, :k, :k], torch.eye(k).expand(len(feat), k, k))
    assert (feat[:, :k, 2 * k] == 1).all() and (feat.sum(-1) == 2).all()
    keys, values = feat[:, k:, :k].argmax(-1), feat[:, k:, k : 2 * k].argmax(-1)
    assert torch.equal(keys, torch.arange(k).expand(len(feat), k))
    return values


@pytest.mark.parametrize("k", [3, 4, 6, 10])
def test_a_query_is_asked_for_what_stands_under_its_key(tmp_path, k):
    data = hgat.data.load("dictionary", tmp_path, k=k, graphs=50)
    values = read(data, k)
    assert torch.equal(data.label.view(-1, 2 * k)[:, :k], values)
    assert (data.label.view(-1, 2 * k)[:, k:] == -1).all()
    assert torch.equal(values.sort(1).values, torch.arange(k).expand_as(values))
    src, dst = data.graph.edges()
    assert data.graph.num_edges() == k * k * len(values)
    assert torch.equal(src // (2 * k), dst // (2 * k)) and (src % (2 * k) >= k).all() and (dst % (2 * k) < k).all()
    assert len(torch.unique(src * len(data.label) + dst)) == len(src)


def test_as_many_as_there_are_or_as_many_as_are_asked_for(tmp_path):
    data = hgat.data.load("dictionary", tmp_path, k=4)
    assert sorted(map(tuple, read(data, 4).tolist())) == sorted(permutations(range(4)))
    drawn = read(hgat.data.load("dictionary", tmp_path, k=7, graphs=500), 7)
    assert 400 < len(drawn) <= 500 and len(torch.unique(drawn, dim=0)) == len(drawn)


@pytest.mark.parametrize("k", [4, 7, 10])
def test_every_test_graph_has_a_pair_that_no_other_part_has(tmp_path, k):
    data = hgat.data.load("dictionary", tmp_path, k=k)
    values = read(data, k)
    graphs = {part: torch.unique(ids // (2 * k)) for part, ids in data.split.items()}
    assert sorted(torch.cat(list(graphs.values())).tolist()) == list(range(len(values)))
    assert sum(map(len, data.split.values())) == k * len(values)
    seen = {part: torch.zeros(k, k, dtype=torch.bool) for part in graphs}
    for part, chosen in graphs.items():
        seen[part][torch.arange(k), values[chosen]] = True
    new = {"val": ~seen["train"], "test": ~(seen["train"] | seen["val"])}
    for part, pairs in new.items():
        assert pairs[torch.arange(k), values[graphs[part]]].any(1).all()
    assert (new["val"] & seen["val"]).sum() == 1
    assert 0.5 < (len(graphs["train"]) + len(graphs["val"])) / len(values) < 0.95
    assert 0.05 < len(graphs["val"]) / len(values) < 0.35


def test_the_same_seed_gives_the_same_and_another_another(tmp_path):
    one, two, other = (hgat.data.load("dictionary", tmp_path, k=8, graphs=60, split_seed=s) for s in (1, 1, 2))
    assert torch.equal(one.label, two.label) and torch.equal(one.test, two.test)
    assert not torch.equal(one.label, other.label)
    assert one.name == "dictionary with k = 8, graphs = 60"


def test_wrong_sizes_are_one_sentence(tmp_path):
    for options, sentence in (
        ({"k": 2}, "k: expected 3 or more, got 2"),
        ({"graphs": 0}, "graphs: expected 1 or more, got 0"),
        ({"graphs": 1}, "graphs: expected enough for all parts of the split, got none for"),
        ({"split_seed": -1}, "split_seed: expected a number from 0 to"),
    ):
        with pytest.raises(DataError, match=sentence):
            hgat.data.load("dictionary", tmp_path, **options)
