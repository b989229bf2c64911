"""How much memory this process may still take, and one sentence where it was too little."""

from contextlib import contextmanager

import dgl
import psutil

from hgat.errors import GraphError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

__all__ = ["available", "enough"]

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


def available():
    """Bytes that can be allocated now: the machine's, or less where the process or its container is limited."""
    free = [psutil.virtual_memory().available]
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free.append(limit - psutil.Process().memory_info().vms)
    free += [left for left in map(_left, GROUPS) if left is not None]
    return max(min(free), 0)


@contextmanager
def enough(sentence):
    """GraphError with this sentence where memory ends inside the block, whoever says so."""
    try:
        yield
    except (MemoryError, RuntimeError, dgl.DGLError) as error:
        # PyTorch's and DGL's errors are of one kind whatever went wrong.
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in ("alloc", "out of memory")):
            raise
        raise GraphError(sentence) from None


def _left(group):
    limit, used, stat, cache = group
    try:
        with open(limit) as first, open(used) as second, open(stat) as third:
            most, taken = int(first.read()), int(second.read())  # "max" is no limit, and no number
            given = dict(line.split() for line in third)
        return most - taken + int(given.get(cache, 0))
    except (OSError, ValueError):
        return None
