import gzip

import pytest
import torch

import hgat.data
from hgat.data import rdf
from hgat.errors import DataError

REMOVED = "http://x.org/chem#isMutagenic"
TRIPLES = r"""# a comment, and a blank line

<http://x.org/d1> <http://x.org/chem#hasAtom> <http://x.org/a1> .
<http://x.org/d1> <http://x.org/chem#hasAtom> <http://x.org/a1> .
<http://x.org/d2><http://x.org/chem#hasAtom>_:b1.
<http://x.org/d3> <http://x.org/chem#charge> "0.1\u00e9"^^<http://www.w3.org/2001/XMLSchema#double> . # why
<http://x.org/d4> <http://x.org/chem#charge> "0.1é"^^<http://www.w3.org/2001/XMLSchema#double> .
<http://x.org/d4> <http://x.org/chem#charge> "0.1é" .
<http://x.org/d5> <http://x.org/chem#name> "say \"x\" .\n"@en-GB .
_:b1 <http://x.org/chem#name> "" .
<http://x.org/d1> <http://x.org/chem#isMutagenic> "true" .
<http://x.org/d6> <http://y.org/other#name> <http://x.org/d1> .
"""
TRAIN = "bond\tid\tlabel\n" + "".join(f"http://x.org/d{n}\t{n}.0\t{n % 2}.0\n" for n in range(1, 6))
TEST = "id\tlabel\tbond\n6.0\t0.0\thttp://x.org/d6\n"


@pytest.fixture
def load(small, tmp_path):
    def run(triples=TRIPLES, train=TRAIN, test=TEST, **options):
        (tmp_path / "mutag_stripped.nt.gz").write_bytes(gzip.compress(triples.encode()))
        (tmp_path / "trainingSet.tsv").write_text(train)
        (tmp_path / "testSet.tsv").write_text(test)
        return rdf.load(small("mutag", label="label", remove=[REMOVED]), tmp_path, **options)

    return run


def test_subjects_and_objects_are_nodes_and_predicates_relations(load):
    task = load()
    # d1 to d6, a1, a blank node, and four literals: two spellings of one are one, text and number are two.
    assert task.graph.ntypes == ["entity"] and task.graph.num_nodes() == 6 + 2 + 4
    assert {relation: task.graph.num_edges(relation) for relation in task.graph.etypes} == {
        "hasAtom": 2,
        "charge": 3,
        "chem#name": 2,
        "other#name": 1,
    }
    assert task.feat == {"entity": None}
    assert task.label[task.label >= 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert task.class_names == ("0.0", "1.0")


def test_nodes_do_not_depend_on_the_order_of_lines(load):
    lines = TRIPLES.splitlines(keepends=True)
    first, second = load(), load("".join(reversed(lines)))
    assert first.graph.canonical_etypes == second.graph.canonical_etypes
    for relation in first.graph.canonical_etypes:
        for ours, theirs in zip(first.graph.edges(etype=relation), second.graph.edges(etype=relation), strict=True):
            assert torch.equal(ours, theirs)


def test_validation_is_the_first_fifth_or_a_random_one(load):
    task = load()
    entities = [5 + n for n in range(6)]  # the names sort: four literals, a1, then d1 to d6, then the blank node
    assert (task.val.tolist(), task.train.tolist(), task.test.tolist()) == (
        entities[:1],
        entities[1:5],
        entities[5:],
    )
    drawn = {load(val="random", split_seed=seed).val.item() for seed in range(5)}
    assert len(drawn) > 1 and drawn <= set(entities[:5])
    assert load(val="random").val.tolist() == load(val="random", split_seed=0).val.tolist()


@pytest.mark.parametrize(
    "line",
    [
        "<http://x.org/a> <http://x.org/p> <http://x.org/b>",
        "<http://x.org/a> <http://x.org/p> .",
        "<http://x.org/a> _:p <http://x.org/b> .",
        '"text" <http://x.org/p> <http://x.org/b> .',
        '<http://x.org/a> <http://x.org/p> "open .',
        '<http://x.org/a> <http://x.org/p> "a" "b" .',
        "<http://x.org/a> <http://x.org/p> <http://x.org/b> . <c>",
        "<http://x.org/a b> <http://x.org/p> <http://x.org/b> .",
        '<http://x.org/a> <http://x.org/p> "a"^^xsd:string .',
        r'<http://x.org/a> <http://x.org/p> "a\q" .',
        r'<http://x.org/a> <http://x.org/p> "a\u12" .',
        r'<http://x.org/a> <http://x.org/p> "a\UFFFFFFFF" .',
    ],
)
def test_a_malformed_line_is_refused_with_its_number(load, line):
    with pytest.raises(DataError, match=r"mutag_stripped.nt.gz: line 2: expected "):
        load(TRIPLES.splitlines()[2] + "\n" + line + "\n")


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({"triples": "# nothing\n"}, "nt.gz: expected triples, got none"),
        (
            {"train": TRAIN.replace("bond", "atom")},
            "trainingSet.tsv: line 1: expected a column bond, got atom, id",
        ),
        ({"train": ""}, "trainingSet.tsv: line 1: expected a column bond"),
        ({"train": TRAIN + "http://x.org/d6\t7\n"}, "trainingSet.tsv: line 7: expected 3 columns, got 2"),
        (
            {"train": TRAIN + "http://x.org/d9\t9\t1.0\n"},
            "line 7: expected an entity of the graph, got <http://x.org/d9>",
        ),
        ({"train": TRAIN + "http://x.org/d1\t9\t1.0\n"}, "distinct ids|no id of"),
        ({"test": TEST.replace("d6", "d2")}, "test: expected no id of train"),
        ({"train": "bond\tid\tlabel\n"}, "train: expected a non-empty list"),
    ],
)
def test_a_broken_split_is_refused(load, files, sentence):
    with pytest.raises(DataError, match=sentence):
        load(**files)


def test_short_names_are_unique_and_as_short_as_can_be():
    iris = [
        "http://a/b#type",
        "http://a/c#type",
        "http://a/merge/type",
        "http://a/b#x",
        "http://a/b/",
        "plain",
    ]
    assert rdf.short_names(iris) == ["b#type", "c#type", "merge/type", "x", "b/", "plain"]
    assert rdf.short_names(["http://a/x", "https://a/x"]) == ["http://a/x", "https://a/x"]


def test_aifb_is_what_the_card_says(real):
    root = real("aifb")
    task = hgat.data.load("aifb", root)
    assert (task.graph.num_nodes(), task.graph.num_edges()) == (8285, 29043)
    assert len(task.graph.canonical_etypes) == 45
    assert (len(task.train), len(task.val), len(task.test)) == (112, 28, 36)
    assert sorted(torch.bincount(task.label[task.test]).tolist()) == [3, 6, 12, 15]
    assert not {"affiliation", "employs"} & set(task.graph.etypes)
    assert {"ontology#type", "22-rdf-syntax-ns#type", "merge/type"} <= set(task.graph.etypes)
    other = hgat.data.load("aifb", root, val="random", split_seed=3)
    assert torch.equal(other.test, task.test) and len(other.val) == 28
    assert sorted(torch.cat([other.train, other.val]).tolist()) == sorted(torch.cat([task.train, task.val]).tolist())
