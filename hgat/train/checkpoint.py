"""Files that are whole or not there: results, weights, the state of a run that may be killed at any moment.

Weights and state are safetensors, whose reading runs no code.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from hgat.errors import DataError, OutputError
from hgat.files import reason, write_bytes
from hgat.train import state

__all__ = [
    "load_state",
    "load_tensors",
    "make_folder",
    "pack_optimizer",
    "read_bytes",
    "remove",
    "save_state",
    "save_tensors",
    "unpack_optimizer",
    "unpack_state",
    "unpack_tensors",
    "write_text",
]

SUM = "crc32"  # the key of the checksum in a file's metadata


def make_folder(folder: str | Path) -> Path:
    """Create `folder` and check that files can be written there; OutputError if not."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".hgat.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"--out: expected a folder that can be written to, got {folder}: {reason(error)}") from None
    return folder


def remove(path: Path) -> None:
    """Delete a file if it is there; OutputError if it cannot be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path.name}: expected a file that can be replaced, got {path}: {reason(error)}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file of text, in UTF-8, that is whole or not there."""
    write_bytes(path, text.encode("utf-8"))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write {name: tensor} with `about`, a dict that JSON can hold, as one safetensors file."""
    # The format refuses tensors that share memory, as tied weights do: every name gets its own copy.
    content = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    write_bytes(path, save(content, metadata={"hgat": json.dumps(about)}))


def save_state(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """`save_tensors` with a checksum of all that is in the file beside it: see `load_state`."""
    save_tensors(path, tensors, {**about, SUM: _sum(tensors, about)})


def _sum(tensors, about):
    # In the entry of metadata that is there anyway: the format writes several in any order, and equal runs must leave
    # equal files.
    found = zlib.crc32(json.dumps(about).encode("utf-8"))
    for name in sorted(tensors):
        found = zlib.crc32(name.encode("utf-8"), found)
        tensor = tensors[name].detach().cpu().contiguous()
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), found)
    return f"{found:08x}"


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """({name: tensor}, about) of a file that `save_tensors` wrote. Raises DataError for anything else."""
    return unpack_tensors(path, read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """A file's content, read at once: a library that maps it opens it twice, and a run may replace it in between."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"checkpoint: expected a file at {path}, got none") from None
    except OSError as error:
        raise DataError(f"checkpoint: expected a file that hgat wrote at {path}, got {error}") from None


def unpack_tensors(path: str | Path, content: bytes) -> tuple[dict[str, Tensor], dict]:
    """`load_tensors` of a file whose content was read before."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["hgat"])
        if not isinstance(about, dict):
            raise ValueError("metadata of another kind")
    except KeyError:
        raise DataError(f"checkpoint: expected a file that hgat wrote at {path}, got another program's") from None
    except Exception as error:  # safetensors and JSON promise no list, as where brackets are nested without end
        got = " ".join(str(error).split())[:120]
        raise DataError(f"checkpoint: expected a file that hgat wrote at {path}, got {got}") from None
    return tensors, about


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """`load_tensors` of a file that `save_state` wrote. Raises DataError where anything in it is not what was saved:
    a disk may give back other numbers than it was given, and files are edited."""
    return unpack_state(path, read_bytes(path))


def unpack_state(path: str | Path, content: bytes) -> tuple[dict[str, Tensor], dict]:
    """`load_state` of a file whose content was read before."""
    tensors, about = unpack_tensors(path, content)
    noted = about.pop(SUM, None)  # files of earlier releases have none
    if noted is not None and noted != _sum(tensors, about):
        got = "content that does not fit its checksum"
        raise DataError(f"checkpoint: expected a file that hgat wrote at {path}, got {got}; {state.ADVICE}")
    return tensors, about


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as ({name: tensor}, {name: number, or the type and shape of the tensor})."""
    tensors, numbers = {}, {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            name = f"{index}.{key}"
            if isinstance(value, torch.Tensor):
                tensors[name], value = value, [str(value.dtype), *value.shape]
            numbers[name] = value
    return tensors, numbers


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give an optimiser of the same kind the state that `pack_optimizer` took; state.Unfit if it may not have."""
    state.check_optimizer(optimizer, tensors, numbers)
    found: dict[int, dict[str, Any]] = {}
    for name, value in numbers.items():
        index, key = name.split(".", 1)
        found.setdefault(int(index), {})[key] = tensors.get(name, value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": found, "param_groups": groups})
