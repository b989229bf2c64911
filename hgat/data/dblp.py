"""DBLP four-area: the research area of an author, HAN's task from the raw tables.

Format: tab-separated, Latin-1, no header. Read here: `author_label` (author, label, name), `paper` (paper,
title), `conf` (venue, name), `term` (term, word), and the links `paper_author`, `paper_conf`, `paper_term`
(two ids each). Only the labelled authors are kept, the papers that have one of them, the venues, and the
terms of those papers but for stop words (`layout.stop_words` of the card). With NLTK's English list of
that time these are the paper's 4,057 authors, 14,328 papers, 20 venues and 8,789 terms.

Features are HAN's too: an author has a 1 for each word of the titles of his papers, among the words that
occur more than 50 times in all titles and are no stop words. Those are the paper's 334; which
word is which column there is unknown, here they are sorted. Papers, venues and terms have none.

The paper's split is 800/400/2,857 and was not published; its code takes the same number of each class.
Here that many of each class (`layout.train_per_class`, `val_per_class`) are drawn by `split_seed`.

Traps:
- The labels were given with the venues in view: the path author-paper-venue-paper-author all but states
  them. It is the paper's own setting; the card's note says so under every result.
- Without the stop-word list, terms such as "for" link every author to every other.
- Relations come in both directions here, since meta-paths are walks: ap/pa, pv/vp, pt/tp.
"""

import re
from collections import Counter
from pathlib import Path

import dgl
import torch

from hgat.data import tables
from hgat.data.card import Card
from hgat.data.files import find_all
from hgat.data.sets import NodeData
from hgat.data.split import per_class
from hgat.errors import DataError

ENCODING = "latin-1"


def load(card: Card, folder: Path, *, verify: bool = True, split_seed: int = 0, min_count: int = 50) -> NodeData:
    """Load DBLP with the node types author, paper, venue and term.

    `min_count`: a word is a feature if it occurs more often than this in all titles.
    """
    path = find_all(card, folder, verify)
    stop = frozenset(card.layout["stop_words"].split())
    authors, label = _authors(path["author_label"])
    titles = _names(path["paper"])
    venues = _names(path["conf"])
    words = _names(path["term"])

    wrote = [(paper, author) for paper, author in _links(path["paper_author"], titles) if author in authors]
    papers = _positions(titles, {paper for paper, _ in wrote})
    shown = [link for link in _links(path["paper_conf"], titles, venues) if link[0] in papers]
    about = [link for link in _links(path["paper_term"], titles, words) if link[0] in papers]
    about = [(paper, term) for paper, term in about if words[term] not in stop]
    terms = _positions(words, {term for _, term in about})

    authors, venues = _positions(authors), _positions(venues)
    edges = {}
    for other, table, index, out, back in (
        ("author", wrote, authors, "pa", "ap"),
        ("venue", shown, venues, "pv", "vp"),
        ("term", about, terms, "pt", "tp"),
    ):
        paper = torch.tensor([papers[link[0]] for link in table], dtype=torch.int64)
        end = torch.tensor([index[link[1]] for link in table], dtype=torch.int64)
        edges["paper", out, other] = paper, end
        edges[other, back, "paper"] = end, paper
    counts = {"author": len(authors), "paper": len(papers), "venue": len(venues), "term": len(terms)}
    train_per_class, val_per_class = card.layout["train_per_class"], card.layout["val_per_class"]
    train, val, test = per_class(label, train_per_class, val_per_class, split_seed, "authors")
    return NodeData(
        name=card.name,
        graph=dgl.heterograph(edges, counts),
        feat={
            "author": _title_words(titles, wrote, authors, stop, min_count),
            "paper": None,
            "venue": None,
            "term": None,
        },
        target="author",
        label=label,
        train=train,
        val=val,
        test=test,
        num_classes=len(card.layout["classes"]),
        class_names=tuple(card.layout["classes"]),
        notes=card.notes,
    )


def _authors(path):
    """The labelled authors in the file's order: a dict from id to name, and their int64 labels."""
    names, label = {}, []
    for number, (author, area, name) in tables.rows(path, 3, ENCODING):
        if author in names:
            tables.refuse(path, number, "each author once", f"{author} again")
        names[author] = name
        label.append(tables.integer(area, path, number))
    if not names:
        raise DataError(f"{path}: expected labelled authors, got an empty file")
    return names, torch.tensor(label)


def _names(path):
    """A dict from id to name, in the file's order."""
    names = {}
    for number, (key, name) in tables.rows(path, 2, ENCODING):
        if key in names:
            tables.refuse(path, number, "each id once", f"{key} again")
        names[key] = name
    return names


def _links(path, left, right=None):
    """Yield the links of a table whose ids must be in `left` and, where given, in `right`."""
    for number, (first, second) in tables.rows(path, 2, ENCODING):
        for key, known in ((first, left), (second, right)):
            if known is not None and key not in known:
                tables.refuse(path, number, "an id of the other tables", key)
        yield first, second


def _positions(names, kept=None):
    """A dict from id to position among the ids that are kept, in the order of `names`."""
    return {key: place for place, key in enumerate(key for key in names if kept is None or key in kept)}


def _title_words(titles, wrote, authors, stop, min_count):
    """[authors, words] float32: 1 where an author's titles have a frequent word."""
    words = {paper: re.findall("[a-z0-9]+", title.lower()) for paper, title in titles.items()}
    count = Counter(word for title in words.values() for word in title if word not in stop)
    frequent = sorted(word for word, times in count.items() if times > min_count)
    if not frequent:
        raise DataError(f"min_count: expected less than {max(count.values(), default=0)}, got {min_count}")
    column = {word: place for place, word in enumerate(frequent)}
    feat = torch.zeros(len(authors), len(frequent))
    hits = {(authors[author], column[word]) for paper, author in wrote for word in words[paper] if word in column}
    row, col = torch.tensor(sorted(hits)).view(-1, 2).T
    feat[row, col] = 1.0
    return feat
