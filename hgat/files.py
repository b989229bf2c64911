"""Writing a file that is whole or not there."""

import os
from contextlib import suppress
from pathlib import Path

from hgat.errors import OutputError

__all__ = ["reason", "write_bytes"]


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write under a temporary name, flush to disk, rename: a reader sees the old file or the new one."""
    path = Path(path)
    # One fixed name: what a killed process leaves behind is overwritten by the next write.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path.name}: expected to write {len(content):,} bytes to {path.parent}, got: {reason(error)}"
        ) from None
    finally:
        # Gone after the rename; left by a write that failed or was interrupted.
        with suppress(OSError):
            temporary.unlink()


def reason(error: OSError) -> str:
    """What the system says of an error, in its own words."""
    return error.strerror or str(error)
