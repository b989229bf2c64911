"""Files that are whole or not there: results, weights and the state of a run that can be killed at any moment.

Weights and state are safetensors, whose reading runs no code.
"""

import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hgat.errors import DataError, OutputError

__all__ = ["load_tensors", "make_folder", "pack_optimizer", "save_tensors", "unpack_optimizer", "write_text"]


def make_folder(folder):
    """Create `folder` and check that files can be written there; OutputError if not."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hgat-"):
            pass
    except OSError as error:
        raise OutputError(f"--out: expected a folder that can be written to, got {folder}: {error.strerror}") from None
    return folder


def write_bytes(path, content):
    """Write under a temporary name, flush to disk, rename: a reader sees the old file or the new one."""
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise OutputError(
            f"{path.name}: expected to write {len(content):,} bytes to {path.parent}, got: {error.strerror}"
        ) from None


def write_text(path, text):
    write_bytes(path, text.encode("utf-8"))


def save_tensors(path, tensors, about):
    """Write {name: tensor} with `about`, anything JSON can hold, as one safetensors file."""
    content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_bytes(path, save(content, metadata={"hgat": json.dumps(about)}))


def load_tensors(path):
    """({name: tensor}, about) of a file that `save_tensors` wrote. Raises DataError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["hgat"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118  (not a dict)
    except FileNotFoundError:
        raise DataError(f"checkpoint: expected a file at {path}, got none") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"checkpoint: expected a safetensors file that hgat wrote at {path}, got {error}") from None


def pack_optimizer(optimizer):
    """An optimiser's state as ({name: tensor}, {name: number})."""
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{index}.{key}"] = value
    return tensors, numbers


def unpack_optimizer(optimizer, tensors, numbers):
    """Give an optimiser of the same kind the state that `pack_optimizer` took."""
    state = {}
    for name, value in [*tensors.items(), *numbers.items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
