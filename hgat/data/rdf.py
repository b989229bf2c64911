"""Entity classification on RDF graphs: AIFB, MUTAG, BGS, AM, as R-GCN and RGAT use them.

Format: the graph is an N-Triples file (gzipped or not): one `subject predicate object .` a line. The split
is two tab-separated files with a header, of which the columns `layout.entity` and `layout.label` of the
card are read. Every subject and object is a node of the one type `entity`, literals included; every
predicate is a relation, named by the shortest end of its IRI that no other predicate shares. Nodes and
relations are numbered in the order of their names. Nodes have no features. Inverse relations and the
identity are left to the graph preparation.

Traps:
- A predicate that states the label must not be in the graph: `layout.remove` of the card lists them,
  and they are dropped even where the published file has been stripped already.
- DGL's data sets of the same names are other graphs (AIFB: 7,262 nodes there, 8,285 here).
- Literals are equal when text, language and datatype are: "1994" and "1994"^^xsd:string are two nodes, as
  they were for the authors.
- The published split has no validation part: see `val`. On AIFB the first fifth has none of the smallest
  class.
"""

import re
from array import array
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import dgl
import numpy as np
import torch

from hgat.data import tables
from hgat.data.card import Card
from hgat.data.files import find_all
from hgat.data.sets import NodeData
from hgat.data.split import shuffled
from hgat.errors import DataError

_IRI = r'<[^<>"\s]*>'
_BLANK = r"_:\w(?:[\w.:-]*[\w:-])?"
_LITERAL = rf'"(?:[^"\\]|\\.)*"(?:@[A-Za-z]+(?:-[A-Za-z0-9]+)*|\^\^{_IRI})?'
TRIPLE = re.compile(rf"\s*({_IRI}|{_BLANK})\s*({_IRI})\s*({_IRI}|{_BLANK}|{_LITERAL})\s*\.\s*(?:#.*)?")
ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")
CHARACTER = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    val: Literal["first_fifth", "random"] = "first_fifth",
    split_seed: int = 0,
) -> NodeData:
    """Load an RDF graph with one node type `entity`.

    `val`: which fifth of the published training ids becomes the validation set: "first_fifth" as in the
    example of RGAT's authors, "random" drawn by `split_seed`.
    """
    path = find_all(card, folder, verify)
    nodes, relations, triples = _triples(path["graph"], frozenset(card.layout["remove"]))
    graph = _graph(len(nodes), relations, triples)
    place = {node: number for number, node in enumerate(nodes)}

    train, train_class = _split(path["train"], card.layout, place)
    test, test_class = _split(path["test"], card.layout, place)
    classes = sorted({*train_class, *test_class})
    label = torch.full((len(nodes),), -1)
    for ids, names in ((test, test_class), (train, train_class)):
        label[ids] = torch.tensor([classes.index(name) for name in names], dtype=torch.int64)
    fifth = len(train) // 5
    if val == "random":
        train = shuffled(train, split_seed)
    return NodeData(
        name=card.name,
        graph=graph,
        feat={"entity": None},
        target="entity",
        label=label,
        train=train[fifth:],
        val=train[:fifth],
        test=test,
        num_classes=len(classes),
        class_names=tuple(short_names(classes)),
        notes=card.notes,
    )


def _triples(path, remove):
    """The sorted names of nodes and of relations, and [3, E] numbers: relation, source, target.

    In the names an IRI is `<...>`, a blank node `_:...`, and a literal starts with a quote.
    """
    # Names are numbered as they come: millions of triples share far fewer names.
    nodes, relations, numbers = {}, {}, array("q")
    for number, text in tables.lines(path):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        match = TRIPLE.fullmatch(text)
        if match is None:
            tables.refuse(path, number, "`subject predicate object .`", text)
        first, relation, second = (_plain(term, path, number) for term in match.groups())
        relation = relation[1:-1]
        if relation not in remove:
            numbers.append(relations.setdefault(relation, len(relations)))
            numbers.append(nodes.setdefault(first, len(nodes)))
            numbers.append(nodes.setdefault(second, len(nodes)))
    if not numbers:
        raise DataError(f"{path}: expected triples, got none")
    triples = np.frombuffer(numbers, np.int64).reshape(-1, 3).T
    (nodes, of_node), (relations, of_relation) = _ranked(nodes), _ranked(relations)
    return nodes, relations, np.stack([of_relation[triples[0]], of_node[triples[1]], of_node[triples[2]]])


def _ranked(numbers):
    """The names of a dict from name to number, sorted, and the rank of each number among them."""
    names = sorted(numbers)
    rank = np.empty(len(names), np.int64)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    return names, rank


def _plain(term, path, number):
    """The term with its escapes decoded, so that two spellings of one name are one node."""
    if "\\" not in term:
        return term

    def character(match):
        code = match[1]
        if code[0] in "uU" and len(code) > 1 and int(code[1:], 16) <= 0x10FFFF:
            return chr(int(code[1:], 16))
        if code not in CHARACTER:
            tables.refuse(path, number, "an escape of N-Triples", match[0])
        return CHARACTER[code]

    return ESCAPE.sub(character, term)


def _graph(nodes, relations, triples):
    """The DGL graph with one relation a predicate, each triple once, edges sorted."""
    triples = triples[:, np.lexsort(triples[::-1])]
    # RDF is a set: a triple that is written twice is one edge.
    fresh = np.r_[True, (triples[:, 1:] != triples[:, :-1]).any(axis=0)]
    kind, source, end = triples[:, fresh]
    start = np.searchsorted(kind, np.arange(len(relations) + 1))
    edges = {}
    for index, name in enumerate(short_names(relations)):
        part = slice(start[index], start[index + 1])
        edges["entity", name, "entity"] = torch.from_numpy(source[part]), torch.from_numpy(end[part])
    return dgl.heterograph(edges, {"entity": nodes})


def _split(path, layout, place):
    """The ids and class names of one part of the split, in the file's order."""
    lines = tables.lines(path)
    header = next(lines, (1, ""))[1].split("\t")
    for column in (layout["entity"], layout["label"]):
        if column not in header:
            tables.refuse(path, 1, f"a column {column}", ", ".join(header))
    ids, classes = [], []
    for number, fields in tables.rows(path, len(header)):
        if number == 1:
            continue
        row = dict(zip(header, fields, strict=True))
        entity = f"<{row[layout['entity']]}>"
        if entity not in place:
            tables.refuse(path, number, "an entity of the graph", entity)
        ids.append(place[entity])
        classes.append(row[layout["label"]])
    return torch.tensor(ids, dtype=torch.int64), classes


def short_names(iris: Sequence[str]) -> list[str]:
    """For each IRI its last part, or as many parts from the end as tell it from the others.

    Parts end at `/` and `#`: `ontology#type` and `merge/type` where `type` alone is not unique.
    """
    parts = [[part for part in re.split("(?<=[/#])", iri) if part] for iri in iris]
    short = [""] * len(parts)
    depth, open_ = 1, range(len(parts))
    while open_:
        ends = sorted(("".join(parts[i][-depth:]), i) for i in open_)
        groups = [(end, [i for _, i in group]) for end, group in groupby(ends, key=lambda pair: pair[0])]
        for end, members in groups:
            if len(members) == 1:
                short[members[0]] = end
        open_ = [i for _, members in groups if len(members) > 1 for i in members]
        depth += 1
    return short
