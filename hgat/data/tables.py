"""Reading text files line by line, plain or gzipped, with the file and line in every error."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from hgat.errors import DataError

__all__ = ["integer", "lines", "refuse", "rows"]

LONGEST = 1 << 26  # bytes of a line; a small gzip file may hold one without end


def refuse(path: str | os.PathLike[str], number: int, expected: str, got: str) -> NoReturn:
    """Raise DataError: `path: line number: expected ..., got ...`; a long `got` is cut."""
    got = got if len(got) <= 80 else got[:77] + "..."
    raise DataError(f"{path}: line {number}: expected {expected}, got {got}")


def lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without the line end); gzip is recognised by `.gz`.

    Lines end at a newline byte and nowhere else: names may hold other separators of Unicode.
    """
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as handle:
        while True:
            try:
                raw = handle.readline(LONGEST)
            except (EOFError, OSError, zlib.error) as error:
                refuse(path, number + 1, "readable data", str(error))
            if not raw:
                return
            number += 1
            if len(raw) == LONGEST:
                refuse(path, number, f"a line of less than {LONGEST:,} bytes", "a longer one")
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError as error:
                refuse(path, number, f"{encoding} text", f"the byte 0x{raw[error.start]:02x}")
            yield number, text.rstrip("\r\n")


def rows(path: Path, columns: int, encoding: str = "utf-8") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a tab-separated file in which every line has `columns` fields."""
    for number, text in lines(path, encoding):
        fields = text.split("\t")
        if len(fields) != columns:
            refuse(path, number, f"{columns} columns", f"{len(fields)} in {text!r}")
        yield number, fields


def integer(text: str, path: str | os.PathLike[str], number: int) -> int:
    """The non-negative integer below 2**63 that `text` writes in plain digits."""
    # int() alone would also take " 7 ", "7_000" and digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**63):
        refuse(path, number, "an integer", repr(text))
    return int(text)
