"""How much memory this process may still take, and one sentence where it was too little."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

import dgl
import psutil

from hgat.errors import GraphError, HgatError

resource: ModuleType | None
try:
    import resource
except ImportError:  # not on Windows
    resource = None

__all__ = ["available", "enough", "within_memory"]

P = ParamSpec("P")
T = TypeVar("T")

# Where Linux says what a container may take, what it has taken, and of that what it would give back.
GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def available() -> int:
    """Bytes that can be allocated now: the machine's, or less where the process or its container is limited."""
    free = [psutil.virtual_memory().available]
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free.append(limit - psutil.Process().memory_info().vms)
    free += [left for left in map(_left, GROUPS) if left is not None]
    return max(min(free), 0)


# PyTorch's, NumPy's and DGL's errors are of one kind whatever went wrong.
WORDS = ("alloc", "out of memory", "size calculation overflowed", "array is too big")


@contextmanager
def enough(sentence: str) -> Iterator[None]:
    """GraphError with this sentence where memory ends inside the block, whoever says so."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, dgl.DGLError) as error:
        other = not isinstance(error, MemoryError) and not any(word in str(error) for word in WORDS)
        if other or isinstance(error, HgatError):
            raise
        raise GraphError(sentence) from None


def within_memory(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, with GraphError where its result does not fit into memory."""
    sentence = f"{function.__name__.strip('_')}: expected a result that the free memory holds, got a larger one"

    @wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        with enough(sentence):
            return function(*arguments, **options)

    return run


def _left(group):
    limit, used, stat, cache = group
    try:
        with open(limit) as first, open(used) as second, open(stat) as third:
            most, taken = int(first.read()), int(second.read())  # "max" is no limit, and no number
            given = dict(line.split() for line in third)
        return most - taken + int(given.get(cache, 0))
    except (OSError, ValueError):
        return None
