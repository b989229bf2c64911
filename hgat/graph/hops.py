"""Hops of features on disk: a folder of memory-mapped files that is whole or not there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import DataError, OutputError
from hgat.files import reason
from hgat.graph import csr

__all__ = ["stored_hops"]

ABOUT = "about.json"
PART = 1 << 22  # numbers that are in memory at once while a checksum is taken


def stored_hops(
    folder: str | os.PathLike[str],
    graph: DGLGraph,
    feat: Tensor,
    edge_weight: Tensor | None,
    hops: int,
    step: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """[feat, X^1 .. X^hops], X^k = step(X^(k-1)), the latter in the folder's files, whose pages are read as needed.

    The folder appears whole, once all is computed and written, and is read again where it was made of the same edges
    in the same order, weights, features and number of hops, by SHA-256; see `hgat.ops.hop_features`, which calls this.
    Shapes: feat [N, F], edge_weight [E] or None -> hops + 1 of [N, F].
    Raises DataError for a folder of anything else, OutputError where it cannot be written.
    """
    folder = Path(folder)
    about = {
        "edges": _checksum(*csr.edges(graph, "cpu"), torch.tensor(graph.num_nodes())),
        "edge_weight": None if edge_weight is None else _checksum(edge_weight),
        "features": _checksum(feat),
        "hops": hops,
    }
    try:
        # An empty folder is one that somebody made to be filled.
        if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
            _write(folder, about, feat, step)
        return [feat, *_read(folder, about, feat)]
    except OSError as error:
        raise OutputError(f"hop_features: expected to keep hops in {folder}, got: {reason(error)}") from None


def _checksum(*tensors):
    """SHA-256 of the types, shapes and numbers of some tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        tensor = tensor.detach()
        found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        for part in tensor.flatten().split(PART):
            found.update(part.cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _write(folder, about, feat, step):
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        found = feat
        for k in range(1, about["hops"] + 1):
            # What was written is read from its file: memory holds one hop, whatever their number.
            with _flushed(_file(temporary, k)) as file:
                np.save(file, step(found).cpu().numpy())
            found = _open(_file(temporary, k))
        with _flushed(temporary / ABOUT) as file:
            file.write(json.dumps(about, indent=1).encode())
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / ABOUT).is_file():  # else another process was here first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _file(folder, k):
    return folder / f"hop{k}.npy"


@contextmanager
def _flushed(path):
    """A file to write, which is on the disk once the block is left."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _open(path):
    # "c": writable for PyTorch, which knows no other, yet private to the process.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _read(folder, about, feat):
    try:
        held = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        other = [key for key, value in about.items() if held[key] != value]
        found = [] if other else [_open(_file(folder, k)) for k in range(1, about["hops"] + 1)]
        if any(x.shape != feat.shape or x.dtype != feat.dtype for x in found):
            raise ValueError(f"files of another shape than {list(feat.shape)}")
    except (OSError, TypeError, ValueError, KeyError, EOFError) as error:
        got = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:120]
        raise DataError(
            f"hop_features: expected a new folder, or one that it made, got {folder}: {got}; take another, or remove it"
        ) from None
    if other:
        raise DataError(
            f"hop_features: expected a folder of hops of this graph and these features, got {folder} of other "
            f"{', '.join(other)}; take another folder, or remove it"
        )
    return found
