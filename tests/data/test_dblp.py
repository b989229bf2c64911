import pytest
import torch

import hgat.data
from hgat.data import dblp
from hgat.errors import DataError

# Authors 10 to 17 are labelled, 99 is not; paper 3 has only author 99; "the" is a stop word.
TABLES = {
    "author_label": "".join(f"{10 + n}\t{n % 2}\tName {n}\n" for n in range(8)),
    "paper": "1\tThe graph graph model\n2\tA graph query\n3\tquery of the Model\n4\tgraph, caf\u00e9!\n",
    "conf": "7\tKDD\n8\tVLDB\n",
    "term": "20\tthe\n21\tgraph\n22\tquery\n23\tunseen\n",
    "paper_author": "".join(f"{1 + n % 2}\t{10 + n}\n" for n in range(8)) + "3\t99\n4\t10\n4\t99\n",
    "paper_conf": "1\t7\n2\t8\n3\t8\n4\t7\n",
    "paper_term": "1\t20\n1\t21\n2\t21\n2\t22\n3\t23\n4\t21\n",
}


@pytest.fixture
def load(small, tmp_path):
    def run(changes=(), **options):
        for table, text in {**TABLES, **dict(changes)}.items():
            (tmp_path / f"{table}.txt").write_bytes(text.encode("latin-1"))
        card = small("dblp", classes=["a", "b"], train_per_class=2, val_per_class=1)
        return dblp.load(card, tmp_path, **{"min_count": 1, **options})

    return run


def test_papers_of_labelled_authors_and_their_terms_are_kept(load):
    graph = load().graph
    assert {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes} == {
        "author": 8,
        "paper": 3,
        "term": 2,
        "venue": 2,
    }

    def links(relation):
        source, target = graph.edges(etype=relation)
        return list(zip(source.tolist(), target.tolist(), strict=True))

    assert links("pv") == [(0, 0), (1, 1), (2, 0)]
    assert links("pt") == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert links("pa") == [(n % 2, n) for n in range(8)] + [(2, 0)]
    for out, back in (("pa", "ap"), ("pv", "vp"), ("pt", "tp")):
        assert links(back) == [(end, paper) for paper, end in links(out)]


def test_features_are_the_frequent_words_of_an_authors_titles(load):
    # Counted over all titles, those of papers that are not kept too: graph 4, model 2, query 2, caf 1.
    feat = load().feat
    assert feat["author"].tolist() == [[1.0, n % 2 == 0, n % 2] for n in range(8)]
    assert (feat["paper"], feat["venue"], feat["term"]) == (None, None, None)
    assert load(min_count=2).feat["author"].tolist() == [[1.0]] * 8


def test_the_split_is_balanced_seeded_and_covers_all(load):
    task = load()
    assert torch.bincount(task.label[task.train]).tolist() == [2, 2]
    assert torch.bincount(task.label[task.val]).tolist() == [1, 1]
    assert sorted(torch.cat([task.train, task.val, task.test]).tolist()) == list(range(8))
    assert torch.equal(task.train, load(split_seed=0).train)
    assert any(not torch.equal(task.train, load(split_seed=seed).train) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    "table, text, sentence",
    [
        ("paper", "1\tA\n1\tB\n", "paper.txt: line 2: expected each id once, got 1 again"),
        ("paper", "1\tA\n2 B\n", "paper.txt: line 2: expected 2 columns, got 1"),
        (
            "paper_author",
            "1\t10\n5\t11\n",
            "paper_author.txt: line 2: expected an id of the other tables, got 5",
        ),
        ("paper_conf", "1\t7\n2\t9\n", "paper_conf.txt: line 2: expected an id of the other tables, got 9"),
        ("paper_term", "1\t24\n", "paper_term.txt: line 1: expected an id of the other tables, got 24"),
        ("author_label", "10\t0\tA\n10\t1\tB\n", "author_label.txt: line 2: expected each author once"),
        ("author_label", "10\tx\tA\n", "author_label.txt: line 1: expected an integer, got 'x'"),
        ("author_label", "10\t0\n", "author_label.txt: line 1: expected 3 columns, got 2"),
        ("author_label", "", "author_label.txt: expected labelled authors, got an empty file"),
        ("author_label", "10\t0\tA\n11\t1\tB\n", "labels: expected more than 3 authors of class 0, got 1"),
        (
            "author_label",
            TABLES["author_label"].replace("\t1\t", "\t9\t"),
            "label: expected values from -1 to 1, got 9",
        ),
    ],
)
def test_broken_tables_are_refused(load, table, text, sentence):
    with pytest.raises(DataError, match=sentence):
        load({table: text})


def test_a_threshold_that_leaves_no_word_is_refused(load):
    with pytest.raises(DataError, match="min_count: expected less than 4, got 4"):
        load(min_count=4)


def test_dblp_is_what_the_card_and_the_paper_say(real):
    task = hgat.data.load("dblp", real("dblp"))
    graph = task.graph
    assert [graph.num_nodes(ntype) for ntype in ("author", "paper", "venue", "term")] == [
        4057,
        14328,
        20,
        8789,
    ]
    assert [graph.num_edges(relation) for relation in ("ap", "pv", "pt")] == [19645, 14328, 88420]
    assert task.feat["author"].shape == (4057, 334)
    assert torch.bincount(task.label).tolist() == [1197, 745, 1109, 1006]
    assert torch.bincount(task.label[task.train]).tolist() == [200] * 4
    assert torch.bincount(task.label[task.val]).tolist() == [100] * 4
    assert len(task.test) == 2857
    assert any("close to the label" in note for note in task.notes)
    # The note is true: the label that most authors share over a venue is the author's in most cases.
    author, paper = graph.edges(etype="ap")
    venue = graph.edges(etype="pv")[1][paper]
    votes = torch.zeros(20, 4).index_put_((venue, task.label[author]), torch.ones(len(author)), accumulate=True)
    score = torch.zeros(4057, 4).index_add_(0, author, votes[venue])
    assert (score.argmax(1) == task.label).float().mean() > 0.8
