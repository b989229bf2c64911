"""A card per data set: where the original is, its licence and citation, its files, its counts.

Cards are TOML files in `cards/`; the file name is the name of the data set, and `format` is the module of
`hgat.data` that reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hgat.errors import DataError, meant
from hgat.settings import tomllib

__all__ = ["FORMS", "Card", "File", "names", "read"]

CARDS = Path(__file__).parent / "cards"
# Formats of which any folder or file can be read by its path, without a card: what it is, in words.
FORMS = {
    "amgcn": "a folder or a zip of AM-GCN's form",
    "events": "a CSV file of events",
    "folder": "a folder of tables",
    "geom_gcn": "a folder of Geom-GCN's form",
    "saved": "a file of data that hgat saved",
    "signed": "a file of signed edges",
    "triples": "a folder of triples, OpenKE's or tab-separated",
}


@dataclass(frozen=True)
class File:
    """One file of a data set; `role` is the loader's name for it, `how` overrides the card's."""

    name: str
    role: str
    sha256: str | None = None
    url: str | None = None
    how: str | None = None


@dataclass(frozen=True)
class Card:
    """What is known of a data set before its files are read.

    `counts` are those of the default options: nodes, edges, relations, features (columns over all node
    types), classes, train, val, test; a count that the card leaves out is not checked. `layout` holds
    what the format leaves open, such as column names; its keys are described by the loader. Data that are
    generated have no files. `notes` belong under every table of results, `split_notes` under those on the
    splits of the files.
    """

    name: str
    format: str
    title: str
    source: str
    licence: str
    citation: str
    how: str
    files: tuple[File, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    split_notes: tuple[str, ...] = ()
    folder: str = ""

    def file(self, role: str) -> File:
        """The file with this role."""
        return next(file for file in self.files if file.role == role)

    def check(self, task: Any, options: Mapping[str, object]) -> None:
        """Raise DataError where `task` differs from the counts; options may change split and features."""
        found = task.counts()
        if options:
            found = {what: found[what] for what in ("nodes", "edges", "relations", "classes") if what in found}
        for what, got in found.items():
            expected = self.counts.get(what, got)
            if got != expected:
                raise DataError(
                    f"{self.name}: expected {expected} for {what} as the data set's card says, got {got}; "
                    "verify=False accepts another version of the files"
                )


def names() -> list[str]:
    """The names of all data sets that have a card, sorted."""
    return sorted(path.stem for path in CARDS.glob("*.toml"))


def read(name: str) -> Card:
    """The card of a data set, or one without files for the name of a form; DataError with the names that exist."""
    if name in FORMS:
        what = FORMS[name]
        return Card(name, name, title=what, source=what, licence=what, citation=what, how=what, files=())
    if name not in names():
        known = [*names(), *FORMS]
        raise DataError(f"data set: expected one of {', '.join(known)}, got {name!r}{meant(name, known)}")
    content = tomllib.loads((CARDS / f"{name}.toml").read_text(encoding="utf-8"))
    files = tuple(File(**file) for file in content.pop("file", ()))
    for table in ("counts", "layout"):
        content[table] = MappingProxyType(content.get(table, {}))
    for key in ("notes", "split_notes"):
        content[key] = tuple(content.get(key, ()))
    content.setdefault("folder", name)
    return Card(name=name, files=files, **content)
