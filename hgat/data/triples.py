"""Triples of knowledge graphs: OpenKE's folders and tab-separated ones, WN18RR and UMLS, or a folder of one's own.

Formats:
- OpenKE's: `entity2id.txt` and `relation2id.txt` with lines `name number`, and `train2id.txt`, `valid2id.txt` and
  `test2id.txt` with lines `head tail relation` of numbers, the relation last. The first line of every file is how many
  lines follow.
- Tab-separated: `train.txt`, `valid.txt` and `test.txt` with lines `head relation tail` of names. Entities and
  relations are those of train.txt, numbered in the order of their names.
Empty lines are passed over. Files may be gzipped where a card says so.

Traps:
- A triple that a file has twice counts once, which the notes say; one that two files have is an error, as the message
  graph of the training triples would hold what is asked for.
- Entities of which no training triple is have nothing to be told by. The notes count the triples that ask for one:
  rankings over all entities have them, as in the papers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hgat.data import files
from hgat.data.card import Card
from hgat.data.sets import PARTS, TripleData
from hgat.data.tables import integer, lines, refuse
from hgat.errors import DataError

__all__ = ["load"]

NUMBERED = {"train": "train2id.txt", "val": "valid2id.txt", "test": "test2id.txt"}
VOCABULARIES = {"entities": "entity2id.txt", "relations": "relation2id.txt"}
NAMED = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}

Triple = tuple[int, int, int]  # (head, relation, tail)


def load(card: Card, folder: Path, *, verify: bool = True, path: str | None = None, unseen: bool = False) -> TripleData:
    """Load the triples of the card's files; `path` reads a folder of one's own, of either form.

    unseen: of tab-separated files, take entities that only the files for validation and test name, too, numbered behind
    the others; else they are refused, as relations are in any case. OpenKE's files number all entities.
    Raises DataError for a first line that is not the count, an entity or a relation that is unknown, a triple that two
    files have, and for files that are missing or damaged.
    """
    if path is None:
        found, name, notes = files.find_all(card, folder, verify), card.name, card.notes
    else:
        where = Path(path).expanduser()
        form = {**NUMBERED, **VOCABULARIES} if (where / NUMBERED["train"]).is_file() else NAMED
        found, name, notes = {role: where / file for role, file in form.items()}, f"triples of {where.name}", ()
        missing = [file.name for file in found.values() if not file.is_file()]
        if missing:
            raise DataError(
                f"data.path: expected a folder with {', '.join(form.values())}, got no {missing[0]} in {where}"
            )
    if "entities" in found:
        entities, relations = (_vocabulary(found[role]) for role in VOCABULARIES)
        read = {part: _numbered(found[part], len(entities), len(relations)) for part in PARTS}
    else:
        entities, relations, read = _named(found, unseen)
    triples, repeated = _once(found, read)
    return TripleData(name, triples, entities, relations, (*notes, *repeated, *_bare(triples, len(entities))))


def _bare(triples: Mapping[str, torch.Tensor], entities: int) -> list[str]:
    """A note on the triples of which an end has no training triple, if there are any."""
    known = torch.zeros(entities, dtype=torch.bool)
    known[triples["train"][:, [0, 2]]] = True
    count = {part: int((~known[triples[part][:, [0, 2]]]).any(1).sum()) for part in ("val", "test")}
    if not any(count.values()):
        return []
    got = f"{count['val']:,} validation and {count['test']:,} test triples"
    return [f"{got} have an entity without a training triple"]


def _counted(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, text) of the lines behind the first, which says how many there are."""
    found = [(number, text) for number, text in lines(path) if text.strip()]
    if not found:
        raise DataError(f"{path}: expected the number of {what} in the first line, got an empty file")
    first, *rest = found
    if not first[1].strip().isdecimal() or int(first[1]) != len(rest):
        refuse(path, first[0], f"the number of {what} that follow, {len(rest)}", repr(first[1]))
    return rest


def _vocabulary(path: Path) -> tuple[str, ...]:
    """Names in the order of their numbers, of lines `name number`."""
    rows = _counted(path, "names")
    names: list[str | None] = [None] * len(rows)
    for number, text in rows:
        name, *place = text.rsplit(maxsplit=1)
        if not place:
            refuse(path, number, "a name and its number", repr(text))
        at = integer(place[0], path, number)
        if at >= len(names) or names[at] is not None:
            refuse(path, number, f"each number from 0 to {len(names) - 1} once", place[0])
        names[at] = name.strip()
    return tuple(map(str, names))


def _numbered(path: Path, entities: int, relations: int) -> list[tuple[int, Triple]]:
    """(line number, triple) of OpenKE's lines `head tail relation`."""
    found = []
    for number, text in _counted(path, "triples"):
        fields = text.split()
        if len(fields) != 3:
            refuse(path, number, "head, tail and relation", repr(text))
        head, tail, relation = (integer(field, path, number) for field in fields)
        for what, got, count in (("entity", max(head, tail), entities), ("relation", relation, relations)):
            if got >= count:
                refuse(path, number, f"{what} 0 to {count - 1}, as {what}2id.txt numbers them", str(got))
        found.append((number, (head, relation, tail)))
    return found


def _named(found: Mapping[str, Path], unseen: bool) -> tuple[tuple[str, ...], tuple[str, ...], dict]:
    """(entities, relations, {part: [(line number, triple)]}) of tab-separated lines `head relation tail`."""
    texts = {part: _fields(found[part]) for part in PARTS}

    def of(part: str) -> set[str]:
        return {end for _, (head, _, tail) in texts[part] for end in (head, tail)}

    entities, relations = sorted(of("train")), sorted({relation for _, (_, relation, _) in texts["train"]})
    if unseen:
        entities += sorted((of("val") | of("test")) - set(entities))
    places = [{name: place for place, name in enumerate(names)} for names in (entities, relations)]
    triples: dict[str, list[tuple[int, Triple]]] = {part: [] for part in PARTS}
    for part in PARTS:
        for number, (head, relation, tail) in texts[part]:
            for what, name, known in (
                ("an entity", head, places[0]),
                ("a relation", relation, places[1]),
                ("an entity", tail, places[0]),
            ):
                if name not in known:
                    refuse(found[part], number, f"{what} of {found['train'].name}", repr(name))
            triples[part].append((number, (places[0][head], places[1][relation], places[0][tail])))
    return tuple(entities), tuple(relations), triples


def _fields(path: Path) -> list[tuple[int, Sequence[str]]]:
    """(line number, [head, relation, tail]) of a tab-separated file."""
    found: list[tuple[int, Sequence[str]]] = []
    for number, text in lines(path):
        if not text.strip():
            continue
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) != 3 or not all(fields):
            refuse(path, number, "head, relation and tail between tabs", repr(text))
        found.append((number, fields))
    if not found:
        raise DataError(f"{path}: expected at least one triple, got none")
    return found


def _once(found: Mapping[str, Path], read: Mapping[str, list[tuple[int, Triple]]]) -> tuple[dict, list[str]]:
    """({part: [M, 3], each triple once}, notes on those that were there again)."""
    owner: dict[Triple, str] = {}
    triples, notes = {}, []
    for part in PARTS:
        kept = []
        for number, triple in read[part]:
            other = owner.setdefault(triple, part)
            if other != part:
                refuse(found[part], number, f"a triple that is not in {found[other].name}", f"{triple} of both")
            kept.append(triple)
        kept = list(dict.fromkeys(kept))
        again = len(read[part]) - len(kept)
        if again:
            notes.append(f"{again:,} lines of {found[part].name} repeat a triple, which counts once")
        triples[part] = torch.tensor(kept, dtype=torch.int64).view(-1, 3)
    return triples, notes
