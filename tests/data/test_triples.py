"""Triples: the real files, folders of one's own in both forms, and files that are wrong."""

import dataclasses

import pytest
import torch

from hgat import data
from hgat.data import TripleData
from hgat.errors import DataError

NAMED = {
    "train.txt": "b\tlikes\ta\na\tlikes\tc c\nb\thates\tc c\n",
    "valid.txt": "a\thates\tb\n",
    "test.txt": "c c\tlikes\ta\n",
}
NUMBERED = {
    "entity2id.txt": "3\nb b\t1\na\t0\nc\t2\n",
    "relation2id.txt": "2\nhates\t1\nlikes\t0\n",
    "train2id.txt": "2\n1 0 0\n0 2 1\n",
    "valid2id.txt": "1\n2 1 0\n",
    "test2id.txt": "1\n2 0 1\n",
}


def _load(folder, texts, changed=None, **options):
    for name, text in {**texts, **(changed or {})}.items():
        (folder / name).write_text(text)
    return data.load("triples", path=str(folder), **options)


def test_a_tab_separated_folder(tmp_path):
    found = _load(tmp_path, NAMED)
    assert found.entities == ("a", "b", "c c") and found.relations == ("hates", "likes")
    assert found.triples["train"].tolist() == [[1, 1, 0], [0, 1, 2], [1, 0, 2]]
    assert found.triples["val"].tolist() == [[0, 0, 1]] and found.triples["test"].tolist() == [[2, 1, 0]]
    assert found.notes == () and found.name == f"triples of {tmp_path.name}"


def test_a_folder_of_openke_has_the_relation_last(tmp_path):
    found = _load(tmp_path, NUMBERED)
    assert found.entities == ("a", "b b", "c") and found.relations == ("likes", "hates")
    assert found.triples["train"].tolist() == [[1, 0, 0], [0, 1, 2]]
    assert found.triples["val"].tolist() == [[2, 0, 1]] and found.triples["test"].tolist() == [[2, 1, 0]]


def test_entities_that_are_held_out_come_behind_where_asked_for(tmp_path):
    new = {"test.txt": "c c\tlikes\t0\n0\tlikes\t0\nb\thates\ta\n"}
    with pytest.raises(DataError, match=r"test.txt: line 1: expected an entity of train.txt, got '0'"):
        _load(tmp_path, NAMED, new)
    found = _load(tmp_path, NAMED, new, unseen=True)
    assert found.entities == ("a", "b", "c c", "0")
    assert found.triples["test"].tolist() == [[2, 1, 3], [3, 1, 3], [1, 0, 0]]
    assert found.notes == ("0 validation and 2 test triples have an entity without a training triple",)
    with pytest.raises(DataError, match=r"valid.txt: line 1: expected a relation of train.txt, got 'eats'"):
        _load(tmp_path, NAMED, {"valid.txt": "a\teats\tb\n"}, unseen=True)


def test_a_triple_that_is_there_again_counts_once(tmp_path):
    found = _load(tmp_path, NAMED, {"train.txt": NAMED["train.txt"] + 2 * "b\tlikes\ta\n"})
    assert len(found.triples["train"]) == 3
    assert found.notes == ("2 lines of train.txt repeat a triple, which counts once",)
    with pytest.raises(DataError, match=r"test.txt: line 2: expected a triple that is not in train.txt, got .*both"):
        _load(tmp_path, NAMED, {"test.txt": "c c\tlikes\ta\nb\tlikes\ta\n"})


@pytest.mark.parametrize(
    ("texts", "file", "text", "match"),
    [
        (NUMBERED, "train2id.txt", "3\n1 0 0\n0 2 1\n", "line 1: expected the number of triples .*, 2, got .3."),
        (NUMBERED, "train2id.txt", "1 0 0\n0 2 1\n", "line 1: expected the number of triples .*, 1, got .1 0 0."),
        (NUMBERED, "entity2id.txt", "b\t1\na\t0\nc\t2\n", "line 1: expected the number of names that follow, 2, got"),
        (NUMBERED, "test2id.txt", "", "expected the number of triples in the first line, got an empty file"),
        (NUMBERED, "test2id.txt", "1\n2 3 1\n", "line 2: expected entity 0 to 2, as entity2id.txt numbers them, got 3"),
        (NUMBERED, "test2id.txt", "1\n2 0 2\n", "line 2: expected relation 0 to 1, as relation2id.txt .*, got 2"),
        (NUMBERED, "test2id.txt", "1\n2 0\n", "line 2: expected head, tail and relation, got '2 0'"),
        (NUMBERED, "test2id.txt", "1\n2 0 -1\n", "line 2: expected an integer, got '-1'"),
        (NUMBERED, "test2id.txt", "0\n", "triples of test: expected .*M 1 or more, got torch.int64 .0, 3."),
        (NUMBERED, "entity2id.txt", "3\nb\t1\na\t0\nc\t1\n", "line 4: expected each number from 0 to 2 once, got 1"),
        (NUMBERED, "entity2id.txt", "3\nb\t1\na\t0\n7\n", "line 4: expected a name and its number, got '7'"),
        (NUMBERED, "relation2id.txt", "2\nx\t1\nx\t0\n", "relations: expected names, each once, got 2 of 1 different"),
        (NAMED, "train.txt", "a likes b\n", "line 1: expected head, relation and tail between tabs, got 'a likes b'"),
        (NAMED, "train.txt", "a\t\tb\n", "line 1: expected head, relation and tail between tabs"),
        (NAMED, "train.txt", "\n", "train.txt: expected at least one triple, got none"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_sentence(tmp_path, texts, file, text, match):
    with pytest.raises(DataError, match=match):
        _load(tmp_path, texts, {file: text})


def test_missing_files_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match="expected a folder with train.txt, valid.txt, test.txt, got no train.txt in"):
        data.load("triples", path=str(tmp_path))
    (tmp_path / "train2id.txt").write_text("1\n0 0 0\n")
    with pytest.raises(DataError, match="expected a folder with train2id.txt, .*got no valid2id.txt in"):
        data.load("triples", path=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"triples": {}}, "triples: expected the parts train, val, test, got none"),
        ({"train": torch.zeros(1, 3)}, "triples of train: expected .M, 3. int64.*, got torch.float32 .1, 3."),
        ({"val": torch.tensor([[0, 1, 0]])}, r"triples of val: expected numbers of 2 entities .*, got \(0, 1, 0\)"),
        ({"test": torch.tensor([[1, 0, 0]])}, "expected each triple once and in one part, got 1 that are there again"),
        ({"entities": ("a", "a")}, "entities: expected names, each once, got 2 of 1 different ones"),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    triples = {part: torch.tensor([row]) for part, row in (("train", [1, 0, 0]), ("val", [0, 0, 1]), ("test", [0] * 3))}
    good = TripleData("t", triples, ("a", "b"), ("r",))
    assert good.counts() == {"nodes": 2, "edges": 1, "relations": 1, "train": 1, "val": 1, "test": 1}
    parts = {part: change.pop(part) for part in list(change) if part in triples}
    with pytest.raises(DataError, match=match):
        dataclasses.replace(good, **{"triples": {**triples, **parts}, **change})


@pytest.mark.parametrize(("name", "bare"), [("umls", 0), ("wn18rr", 210)])
def test_the_real_files(real_data, name, bare):
    found = data.load(name, real_data(name))
    assert [note for note in found.notes if "without a training triple" in note] == (
        [f"{bare} validation and {bare} test triples have an entity without a training triple"] if bare else []
    )
    head, relation, tail = found.triples["test"][0].tolist()
    first = {"umls": ("steroid", "interacts_with", "eicosanoid"), "wn18rr": (1678, "_member_of_domain_usage", 9202)}
    ends = (found.entities[head], found.entities[tail]) if name == "umls" else (head, tail)
    assert (ends[0], found.relations[relation], ends[1]) == first[name]
