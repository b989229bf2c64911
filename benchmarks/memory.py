"""Peak working memory of one pass, measured in a process of its own.

What is counted: the process builds the case, runs the pass once to warm up (structures, caches and thread stacks then
exist), drops the result, and sets the kernel's high-water mark of resident memory back (5 into /proc/self/clear_refs).
Then it runs the pass once more. Working memory is

    VmHWM after it - VmRSS before it - bytes of what it returned

so inputs, parameters, graphs, cached structures and cotangents are not counted, for they were there before; nor are the
outputs and gradients, which every candidate must return and which are equally large for all. An epoch returns nothing
and keeps its gradients and the optimiser's state from the warm-up, so all that it uses beyond those is counted. Where
the peak comes before the last gradient exists, the difference understates it, for all candidates alike.

glibc is told (by environment variables of the new process) to return every freed block above 64 KiB at once, so that
memory which was freed and kept for later does not hide a peak. Resolution is about 1 MiB: ratios take no candidate for
smaller than that. Linux only; elsewhere the columns stay empty.
"""

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["LEAST", "Spec", "available", "load", "measure", "predict", "probe"]

MIB = 2**20
LEAST = MIB  # the resolution
EAGER = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spec:
    """A case as plain values, so that another process can build it: `load` calls module:function with the options.

    edge_bytes: size of the largest tensor with a row per edge that any candidate may make, times the layers that keep
    one. Where that is far below the free memory, nobody asks whether a candidate fits. memory: whether processes are
    started to measure the case's memory. title: the case's, where it is known before the case is built: one that is not
    asked for is not built then.
    """

    build: str
    options: dict = field(default_factory=dict)
    edge_bytes: int = 0
    memory: bool = True
    title: str | None = None

    def __str__(self):
        return f"{self.build}({', '.join(f'{k}={v}' for k, v in self.options.items())})"


def load(spec):
    """The case of a spec."""
    module, function = spec.build.split(":")
    return getattr(importlib.import_module(module), function)(**spec.options)


def _status(key):
    for line in STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS}: expected {key}, got none")


def _return_freed_memory():
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # not glibc


def _size(result):
    import torch

    if isinstance(result, torch.Tensor):
        return result.numel() * result.element_size()
    if isinstance(result, (list, tuple)):
        return sum(_size(part) for part in result)
    return 0


def measure(function, make_state=tuple):
    """(peak, returned) in bytes of one call after one to warm up: above what was there before it; of its result.

    make_state: gives the arguments, made before the mark is set. Raises OSError where the kernel keeps no mark.
    """
    state = make_state()
    result = function(*state)
    del result, state
    state = make_state()
    _return_freed_memory()
    CLEAR.write_text("5")
    before = _status("VmRSS")
    result = function(*state)
    peak = _status("VmHWM") - before
    return max(peak, 0), _size(result)


def probe(spec, name, passes, backend="auto"):
    """{pass: {"peak", "returned", "working"}} in bytes for one candidate, from a fresh process; {} if it cannot say."""
    request = {"build": spec.build, "options": spec.options, "candidate": name, "passes": list(passes)}
    request["backend"] = backend
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory"],
        input=json.dumps(request),
        env={**os.environ, **EAGER, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {}
    return json.loads(lines[-1])


def predict(spec, name, which, backend="auto", small=48 * MIB):
    """Bytes that a pass of one candidate would need, from the same case on a smaller graph; None if it cannot say.

    Every tensor of these cases grows with the graph, so the figure is scaled up. Only specs with a scale can be asked.
    """
    if "scale" not in spec.options or not spec.edge_bytes:
        return None
    part = min(1.0, small / spec.edge_bytes)
    options = {**spec.options, "scale": spec.options["scale"] * part}
    if "root" in options:  # data in files has the size that it has; the synthetic graph is like it
        options["root"] = None
    found = probe(replace(spec, options=options), name, [which], backend)
    return found[which]["peak"] / part if which in found else None


def available():
    """Bytes that this process may still use; None where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def _main():
    import hgat
    from benchmarks.timing import runner

    request = json.load(sys.stdin)
    with hgat.ops.use_backend(request["backend"]):
        print(json.dumps(_answer(request, runner)))


def _answer(request, runner):
    case = load(Spec(request["build"], request["options"]))
    candidate = next(c for c in case.candidates if c.name == request["candidate"])
    case.candidates = [candidate]  # the parameters of the others are freed
    found = {}
    for which in request["passes"]:
        state = tuple if candidate.fresh is None else lambda: (candidate.fresh(),)
        peak, returned = measure(runner(candidate, which), state)
        found[which] = {"peak": peak, "returned": returned, "working": max(peak - returned, 0)}
    return found


if __name__ == "__main__":
    _main()
