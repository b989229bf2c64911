"""Finding a card's files: on disk, else at the card's address, else one sentence on how to get them."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from hgat.data.card import Card, File
from hgat.errors import DataError

__all__ = ["check", "find", "find_all", "sha256"]

TIMEOUT = 10  # seconds without an answer; a machine without a network should say so soon


def find_all(card: Card, folder: str | os.PathLike[str], verify: bool = True) -> dict[str, Path]:
    """A dict from role to path for every file of the card; see `find`."""
    return {file.role: find(card, file, folder, verify) for file in card.files}


def find(card: Card, file: File, folder: str | os.PathLike[str], verify: bool = True) -> Path:
    """The path of one file of a card, downloaded into `folder` if it is missing and has an address.

    Raises DataError when it is nowhere, or when `verify` and its checksum is not the card's.
    """
    path = Path(folder) / file.name
    if not path.is_file():
        reason = _download(file, path, verify) if file.url else "its card has no address to fetch it from"
        if reason:
            raise DataError(
                f"{card.name}: expected the file {file.name} in {path.parent}, got none there, "
                f"and {reason}; {file.how or card.how}"
            )
    if verify:
        check(file, path)
    return path


def check(file: File, path: str | os.PathLike[str]) -> None:
    """Raise DataError unless the file's SHA-256 is the card's; a card without one accepts anything."""
    if file.sha256 is None:
        return
    got = sha256(path)
    if got != file.sha256:
        raise DataError(
            f"{path}: expected the SHA-256 {file.sha256}, got {got}; verify=False accepts another version of the file"
        )


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download(file, path, verify):
    """Fetch file.url to `path`; None, or why it failed. `path` only ever appears whole and checked."""
    partial = None
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT) as answer:
            if answer.headers.get_content_type() == "text/html":
                return f"{file.url} answered with a web page"
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            announced = answer.headers.get("Content-Length")
            size = int(announced) if announced is not None else None
            how = {"total": size, "desc": path.name, "unit": "B", "unit_scale": True, "disable": None}  # on a terminal
            with os.fdopen(handle, "wb") as out, tqdm.wrapattr(answer, "read", leave=False, **how) as body:
                shutil.copyfileobj(body, out)
            # A connection that closes early is no error to urllib when it is read in blocks.
            received = os.path.getsize(partial)
            if size is not None and size != received:
                return f"{file.url} gave {received} of {announced} bytes"
        if verify and file.sha256 not in (None, sha256(partial)):
            return f"{file.url} gave another file, with the SHA-256 {sha256(partial)} and not {file.sha256}"
        os.chmod(partial, 0o644)  # mkstemp makes it private; a shared folder needs it readable
        os.replace(partial, path)
        partial = None
    except (OSError, HTTPException, ValueError) as error:
        return f"{file.url} could not be fetched ({error})"
    finally:
        if partial is not None:
            os.unlink(partial)
    return None
