"""Runs the cases of a command one by one, prints a row as each is done, and keeps what --json writes."""

import json
import os
import platform
import sys
from pathlib import Path

import torch

import hgat
import dgl
from benchmarks import memory, timing
from benchmarks.graphs import Missing
from benchmarks.operators import FLOOR
from benchmarks.peers import pyg

__all__ = ["Report", "machine"]

MIB = memory.MIB
MOST_AT_ONCE = 8  # tensors with a row per edge that a candidate was seen to hold, 6.2 at the most
ROOM = 0.8  # the part of the free memory that a candidate may be expected to take
HEAD = (
    f"{'':<46}{'':<18}{'time':^29}{'working memory, MiB':^36}{'memory':^18}\n"
    f"{'case':<46}{'pass':<18}{'DGL/hgat':>9}{'PyG/hgat':>9}{'hgat/sum':>10} "
    f"{'hgat':>9}{'DGL':>9}{'PyG':>9}{'sum':>8} {'DGL/hgat':>9}{'PyG/hgat':>9}"
)


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _backend():
    """The backend that hgat picks for float32 on the CPU: the first that runs a tiny graph."""
    graph = dgl.graph(([0, 1], [1, 0]))
    value, score = torch.zeros(2, 1, 8), torch.zeros(2, 1)
    for name in hgat.ops.backends():
        try:
            with hgat.ops.use_backend(name):
                hgat.ops.additive_attention(graph, value, score, score)
        except hgat.errors.BackendError:
            continue
        return name
    return "none"


def _instruction_set():
    """What the compiled core runs with: the best set that it was built for and the processor has."""
    core = hgat.kernels.cpu.info()
    if not core["available"]:
        return "no compiled core"
    both = [name for name in core["instruction_sets"] if name in core["processor"]]
    return both[-1] if both else "baseline"


def machine(backend="auto"):
    """What the numbers depend on besides the code."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dgl": dgl.__version__,
        "pyg": getattr(pyg(), "__version__", None),
        "hgat": hgat.__version__,
        "backend": _backend() if backend == "auto" else backend,
        "instruction_set": _instruction_set(),
    }


def line(about):
    """`machine()` as one line."""
    threads = f"{about['threads']} thread{'s' if about['threads'] != 1 else ''}"
    return (
        f"{about['processor']}, {threads}, torch {about['torch']}, DGL {about['dgl']}, "
        f"PyG {about['pyg'] or 'not installed'}, hgat {about['hgat']} on backend {about['backend']} "
        f"({about['instruction_set']})"
    )


def ratio(above, below):
    """above / below, or None if either was not measured."""
    return above / below if above is not None and below else None


def _number(value, width, digits=None):
    if value is None:
        return f"{'-':>{width}}"
    if digits is None:
        digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:>{width},.{digits}f}"


class Report:
    """Measures specs and prints them. rounds: timed rounds; with_memory: whether processes for memory are started."""

    def __init__(self, rounds=5, with_memory=True, only=None, backend="auto", out=None):
        self.rounds, self.with_memory, self.only, self.backend = rounds, with_memory, only, backend
        self.out = out or sys.stdout
        self.machine = machine(backend)
        self.results = []
        self.unequal = []
        self._headed = False

    def say(self, text):
        print(text, file=self.out, flush=True)

    def start(self, what, scale=1.0, above="hgat is faster or smaller"):
        """The sentence on what is compared, and the machine."""
        self.say(what)
        if scale != 1.0:
            self.say(f"Synthetic graphs have {scale:g} of the size that their names say.")
        self.say(f"Machine: {line(self.machine)}.")
        if self.rounds:
            self.say(f"Ratios of medians over {self.rounds} interleaved rounds; above 1, {above}.\n")

    def run(self, specs):
        """Measure every spec; a case whose data or memory is missing is named and left out."""
        for spec in specs:
            try:
                with hgat.ops.use_backend(self.backend):
                    self._case(spec)
            except Missing as missing:
                self.say(str(missing))

    def _case(self, spec):
        if self.only is not None and spec.title is not None and not self.only.search(spec.title):
            return
        case = memory.load(spec)
        if spec.title not in (None, case.title):
            raise ValueError(f"{spec}: expected a case with the title {spec.title!r}, got {case.title!r}")
        if self.only is not None and not self.only.search(case.title):
            return
        # The check takes gradients, so a candidate that has no room for those is not timed forward either.
        case.candidates = self._that_fit(spec, case)
        if not case.candidates:
            raise Missing(f"{case.title}: no candidate fits into memory")
        try:
            worst = timing.check(case)
        except timing.Unequal as unequal:
            self.unequal.append(str(unequal))
            self.say(f"NOT EQUAL  {unequal}")
            return
        result = {"case": case.title, "spec": str(spec), "largest_difference": worst, "passes": {}}
        for which in case.passes:
            seconds = timing.interleave(
                {c.name: timing.runner(c, which) for c in case.candidates},
                self.rounds,
                {c.name: c.fresh for c in case.candidates},
            )
            result["passes"][which] = {
                name: {"median_seconds": middle, "seconds": seconds[name]}
                for name, middle in timing.medians(seconds).items()
            }
        names = [c.name for c in case.candidates]
        del case  # its tensors are freed before other processes build theirs
        if self.with_memory and spec.memory:
            for name in names:
                for which, found in memory.probe(spec, name, result["passes"], self.backend).items():
                    result["passes"][which][name]["bytes"] = found
        self._rows(result)
        self.results.append(result)

    def _that_fit(self, spec, case):
        """The candidates whose heaviest pass the free memory holds; those that it does not are named aloud."""
        free = memory.available()
        if free is None or spec.edge_bytes * MOST_AT_ONCE < free * ROOM:
            return case.candidates
        fitting = []
        for candidate in case.candidates:
            needed = memory.predict(spec, candidate.name, case.passes[-1], self.backend)
            if needed is None or needed < free * ROOM:
                fitting.append(candidate)
                continue
            gib = 2**30
            self.say(
                f"{case.title}: {candidate.name} left out, it would take about {needed / gib:.0f} GiB and "
                f"{free / gib:.0f} GiB are free"
            )
        return fitting

    def _rows(self, result):
        if not self._headed:
            self.say(HEAD)
            self._headed = True
        for which, found in result["passes"].items():
            time = {name: entry["median_seconds"] for name, entry in found.items()}
            taken = {n: e["bytes"]["working"] for n, e in found.items() if "bytes" in e}
            least = {name: max(value, memory.LEAST) for name, value in taken.items()}
            cells = [f"{result['case']:<46}{which:<18}"]
            cells += [_number(ratio(time.get(name), time.get("hgat")), 9) for name in ("DGL", "PyG")]
            cells += [_number(ratio(time.get("hgat"), time.get(FLOOR)), 10), " "]
            for name, width in (("hgat", 9), ("DGL", 9), ("PyG", 9), (FLOOR, 8)):
                cells.append(_number(taken[name] / MIB if name in taken else None, width, 0))
            cells.append(" ")
            cells += [_number(ratio(least.get(name), least.get("hgat")), 9) for name in ("DGL", "PyG")]
            self.say("".join(cells))
            for name in sorted(time.keys() - {"hgat", "DGL", "PyG", FLOOR}):
                self.say(f"{'':<46}{name}/hgat: time {_number(ratio(time[name], time.get('hgat')), 0)}")

    def finish(self, path=None):
        """Write the JSON file if one is asked for, with bare times; gives the exit status: 1 if a pair was unequal."""
        if pyg() is None:
            self.say("PyTorch Geometric is not installed: its columns are empty.")
        if path is not None:
            content = {"machine": self.machine, "rounds": self.rounds, "results": self.results, "unequal": self.unequal}
            Path(path).write_text(json.dumps(content, indent=1) + os.linesep, encoding="utf-8")
        for sentence in self.unequal:
            print(sentence, file=sys.stderr)
        return 1 if self.unequal else 0
