"""Several processes on one machine: epochs of examples/ogb/products.py, each a training epoch and exact inference.

- a stand-in of ogbn-products with 50,000 nodes, the script's own settings, three epochs a round, of which the first,
  which builds structure, is not counted.
- one process with one thread, one process with two threads, two processes with one thread each; together the two have
  the batches that the one has, but half a batch has more than half of its neighbourhood: a process is left with six
  tenths of the nodes and edges.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hgat.data import ogb_samples

__all__ = ["run"]

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "ogb" / "products.py"
NODES, EPOCHS = 50_000, 3
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
WAYS = {  # name: (what starts the script, threads of each process)
    "1 process, 1 thread": ([], 1),
    "1 process, 2 threads": ([], 2),
    "2 processes, 1 thread each": ([*TORCHRUN, "2"], 1),
}


def run(report, scale=1.0, script=()):
    """Time every way in interleaved rounds and print the table. script: further options of products.py."""
    seconds = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        ogb_samples.write_sample("ogbn-products", folder, max(int(NODES * scale), 120))
        options = ["--root", folder, "--out", f"{folder}/out", "--runs", "1", "--epochs", str(EPOCHS), *script]
        for _ in range(report.rounds):
            for name, (starter, threads) in WAYS.items():
                seconds[name] += _epochs([*starter, str(SCRIPT), *options], threads)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    first = next(iter(medians.values()))
    report.say(f"{'products.py':<30}{'seconds per epoch':>20}{'of one process and thread':>28}")
    for name, middle in medians.items():
        report.say(f"{name:<30}{middle:>20.2f}{first / middle:>26.2f} x")
        report.results.append({"case": name, "median_seconds": middle, "seconds": seconds[name]})


def _epochs(command, threads):
    """Seconds of every epoch but the first, as the script prints them."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    found = [float(number) for number in re.findall(r"([\d.]+) s$", done.stdout, re.MULTILINE)]
    if done.returncode or len(found) != EPOCHS:
        raise RuntimeError(f"{SCRIPT.name}: expected {EPOCHS} epochs, got {len(found)}:\n{done.stderr}")
    return found[1:]
