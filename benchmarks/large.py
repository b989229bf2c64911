"""One layer, forward and backward, on a graph whose edges x heads x width do not fit: who stays inside a limit.

Each way runs in a process of its own that the kernel refuses memory beyond the limit (RLIMIT_DATA: heap, mapped
memory, stacks of threads), and reports the most that it held at once (VmHWM: everything, libraries included). A way
that is refused is named. What the others give, output and gradients against one random cotangent, is compared.

- hgat: the fastest backend. hgat in chunks: DGL's operators inside hgat.ops.in_chunks. DGL: dgl.nn's layer.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["WAYS", "run"]

GIB = 2**30
WAYS = ("hgat", "hgat in chunks", "DGL")
TOLERANCE = 1e-3  # of the norm: float32 sums of tens of millions of terms in another order


def _child(way, layer, nodes, edges, heads, width, in_feats, chunk, seed=0):
    """Build the graph, run the layer forward and backward, print what it took and what it gave."""
    import torch

    import hgat
    import dgl
    from benchmarks.graphs import power_law
    from benchmarks.memory import _status

    graph = power_law(nodes, edges).graph.int()
    power_law.cache_clear()
    torch.manual_seed(seed)
    ours = getattr(hgat.nn, layer)(in_feats, width, heads)
    conv = ours
    if way == "DGL":
        conv = getattr(dgl.nn, layer)(in_feats, width, heads)
        conv.load_state_dict(ours.state_dict())
    feat = torch.randn(nodes, in_feats).requires_grad_()
    along = torch.randn(heads * width)
    before = _status("VmRSS")
    start = time.perf_counter()
    with hgat.ops.use_backend("dgl" if way == "hgat in chunks" else "auto"), hgat.ops.in_chunks(chunk):
        out = conv(graph, feat)
        # A cotangent that takes no memory of its own: the same row for every node.
        out.backward(along.view(1, heads, width).expand_as(out))
    seconds = time.perf_counter() - start
    found = {"output": out.detach().double().square().sum().sqrt(), "feat": feat.grad.double().norm()}
    found |= {name: p.grad.double().norm() for name, p in conv.named_parameters()}
    found = {name: float(value) for name, value in found.items()}
    print(json.dumps({"seconds": seconds, "before": before, "peak": _status("VmHWM"), "norms": found}))


def _measure(way, options, limit):
    """What the child printed, or the last line of its complaint."""

    def restrict():
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large"],
        input=json.dumps({"way": way, **options}),
        env={**os.environ, "PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": "65536"},
        preexec_fn=restrict,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return None, lines[-1].strip()[:110] if lines else f"exit status {done.returncode}"


def run(report, options):
    """Print a row for each way."""
    limit = int(options.limit * GIB)
    nodes, edges = int(options.nodes * options.scale), int(options.edges * options.scale)
    heads, width = options.shape
    sizes = {"nodes": nodes, "edges": edges, "heads": heads, "width": width, "in_feats": 128}
    whole = edges * heads * width * 4 / GIB
    report.say(
        f"{options.layer} {heads} x {width}, {nodes:,} nodes, {edges:,} edges, forward+backward; one tensor of edges x "
        f"heads x width: {whole:.1f} GiB; limit {options.limit:g} GiB\n"
    )
    report.say(f"{'way':<18}{'peak, GiB':>10}{'before it':>11}{'time/hgat':>11}")
    first = None
    for way in WAYS:
        found, refused = _measure(way, {"layer": options.layer, "chunk": options.chunk, **sizes}, limit)
        if found is None:
            report.say(f"{way:<18}does not fit: {refused}")
            report.results.append({"way": way, "refused": refused})
            continue
        first = first or found
        for name, norm in first["norms"].items():
            if not abs(found["norms"][name] - norm) <= TOLERANCE * norm:
                report.unequal.append(f"{way}: norm of {name} is {found['norms'][name]:.6g}, of hgat's {norm:.6g}")
        share = found["seconds"] / first["seconds"]
        report.say(f"{way:<18}{found['peak'] / GIB:>10.2f}{found['before'] / GIB:>11.2f}{share:>11.2f}")
        report.results.append({"way": way, **found})


if __name__ == "__main__":
    _child(**json.load(sys.stdin))
