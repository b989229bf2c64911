"""What systems that attend over hops, paths and by PageRank compute once, before training, most on ogbn-arxiv's shape.

- normalised: the weights of the normalised adjacency, what DAGNN needs on a graph.
- hops: five hops of 128 features, what GAMLP and DAGNN with graph.precompute train on, in memory and in a folder.
- shells: TDGNN's shells of three hops. All pairs of that size fit into no memory, which is told after the first block
  of nodes; the 32 strongest of each node are found on a fiftieth of the graph, as the time grows with N x E.
- paths: SPAGAN's cheapest paths of up to 1, 2 and 3 edges, the costs those of random attention. Every node searches as
  far as that many of the dearest edges, and each search begins with a row of N distances; on parts of the graph.
- nearest: PPRGAT's graph, of every node's 32 nearest by personalised PageRank, by push at the usual alpha and epsilon,
  on a power-law graph of a million nodes and ten million edges.

Each in a process of its own, with hgat alone: seconds are those of the fastest of the rounds and of this machine, and
memory is the peak above what was there before, with the result in it (see benchmarks.memory).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["CASES", "main", "run"]

WIDTH, HOPS, SMALL, KEEP = 128, 5, 0.02, 32
NODES, EDGES = 1_000_000, 10_000_000  # where PageRank is computed
PATHS = {"paths1": (1, 0.1), "paths2": (2, 0.1), "paths3": (3, SMALL)}  # edges of a path, part of the size
CASES = {
    "normalised": "weights of the normalised adjacency",
    "memory": f"{HOPS} hops of {WIDTH} features, in memory",
    "folder": f"{HOPS} hops of {WIDTH} features, in a folder",
    "shells": "shells of 3 hops, all pairs",
    "strongest": f"shells of 3 hops, {KEEP} a node, 1/{round(1 / SMALL)} of the size",
    **{
        name: f"cheapest paths of up to {length} edges, 1/{round(1 / part)} of the size"
        for name, (length, part) in PATHS.items()
    },
    "nearest": f"{KEEP} nearest by PageRank of a million nodes",
}


def run(report, rounds, scale, cases=None, module="preparation"):
    """Measure every case, by default those of this file, and print its row; module: the file whose `main` runs it."""
    report.say(f"{'case':<52}{'seconds':>9}{'peak MiB':>10}{'result MiB':>12}")
    for name, title in (CASES if cases is None else cases).items():
        if report.only is not None and not report.only.search(title):
            continue
        found = measured(name, rounds, scale, module)
        if "refused" in found:
            report.say(f"{title:<52}{found['seconds']:>9.2f}{found['peak'] / 2**20:>10.0f}  {found['refused']}")
        else:
            peak, size = (found[key] / 2**20 for key in ("peak", "result"))
            report.say(f"{title:<52}{found['seconds']:>9.2f}{peak:>10.0f}{size:>12.0f}")
        report.results.append({"case": title, **found})


def measured(name, rounds, scale, module="preparation"):
    """{"seconds", "peak", "result" bytes, or "refused"} of one case, from a fresh process."""
    from benchmarks.memory import EAGER

    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"benchmarks.{module}", name, str(rounds), str(scale)]
    done = subprocess.run(
        command, env={**os.environ, **EAGER, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _call(name, scale, place):
    """A function that prepares anew with every call; what it needs is made here, outside the clock."""
    import torch

    import hgat
    from benchmarks import graphs

    if name == "nearest":
        nodes = max(int(NODES * scale), KEEP)
        graph = graphs.power_law(nodes, max(int(EDGES * scale), 2 * nodes)).graph
        return lambda: [hgat.graph.ppr_graph(graph, KEEP).edata["ppr"]]
    length, part = PATHS.get(name, (0, SMALL if name == "strongest" else 1.0))
    graph = graphs.arxiv(scale * part).graph
    if name in PATHS:
        weight = hgat.ops.edge_softmax(graph, torch.randn(graph.num_edges()))
        cost = 1 - weight / weight.max()
        return lambda: [x for found in hgat.graph.cheapest_paths(graph, cost, length) for x in found.edata.values()]
    if name == "normalised":
        return lambda: [hgat.graph.normalized(graph)]
    if name in ("shells", "strongest"):
        keep = KEEP if name == "strongest" else None
        return lambda: [x for shell, w in hgat.graph.hop_shells(graph, 3, keep=keep) for x in (*shell.edges(), w)]
    weight, feat = hgat.graph.normalized(graph), torch.randn(graph.num_nodes(), WIDTH)
    hgat.ops.propagate(graph, feat, weight)  # the structure of the graph stays with it
    if name == "memory":
        return lambda: hgat.ops.hop_features(graph, feat, HOPS, weight)[1:]
    return lambda: hgat.ops.hop_features(graph, feat, HOPS, weight, folder=tempfile.mkdtemp(dir=place))[1:]


def main(make, name, rounds, scale):
    """Measure what `make(name, scale, place)` gives, in this process, and print it as JSON."""
    from benchmarks import memory
    from hgat.errors import GraphError

    found = {}

    def once():
        start = time.perf_counter()
        try:
            result = call()
        except GraphError as error:
            result, found["refused"] = [], str(error)
        taken = time.perf_counter() - start
        found["seconds"] = min(found.get("seconds", taken), taken)
        return result

    with tempfile.TemporaryDirectory() as place:
        call = make(name, float(scale), place)
        found["peak"], found["result"] = memory.measure(once)
        for _ in range(int(rounds) - 2):  # two are run for the memory
            once()
    print(json.dumps(found))


if __name__ == "__main__":
    main(_call, *sys.argv[1:])
