"""How the cost of GAT's operator grows with edges, heads, width and threads; and the README's plot of five shapes.

Each point is an operator case of `operators`, checked and timed as there. Threads are set by the environment of a
process of its own for each count, because DGL and PyTorch bring an OpenMP runtime each. Figures are ratios to the plain
neighbour sum at the panel's first point, so that no bare time stands in a plot.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import graphs
from benchmarks.memory import Spec
from benchmarks.operators import FLOOR, SHAPES

__all__ = ["draw_panels", "draw_shapes", "panels", "run"]

# Okabe and Ito's palette: told apart by readers with any colour vision, and by their markers in grey.
STYLE = {
    "hgat": ("#0072B2", "o", "hgat"),
    "DGL": ("#D55E00", "s", "DGL"),
    "PyG": ("#009E73", "^", "PyTorch Geometric"),
    FLOOR: ("#666666", "D", "neighbour sum (copy_u_sum)"),
}
BOTH = "forward+backward"


def _spec(heads, width, scale):
    options = {"operator": "gat", "heads": heads, "width": width, "scale": scale}
    return Spec("benchmarks.operators:build", options, int(graphs.ARXIV[1] * scale) * heads * width * 4)


def panels(scale=1.0):
    """{axis label: {x: spec}} of the three panels that one process can measure."""
    edges = {
        int(graphs.ARXIV[1] * scale * part): _spec(4, 32, scale * part) for part in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
    }
    heads = {count: _spec(count, 16, scale) for count in (1, 2, 4, 8, 16)}
    widths = {width: _spec(4, width, scale) for width in (8, 16, 32, 64, 128)}
    return {"edges (4 x 32)": edges, "heads (width 16)": heads, "width per head (4 heads)": widths}


def _median(result):
    """{candidate: median seconds of forward+backward} of one entry of a report."""
    return {name: entry["median_seconds"] for name, entry in result["passes"][BOTH].items()}


def _measure(report, points):
    found = {}
    for x, spec in points.items():
        before = len(report.results)
        report.run([spec])
        if len(report.results) > before:
            found[x] = _median(report.results[-1])
    return found


def _at_threads(count, scale, report):
    """The 4 x 32 case in a process with `count` threads; None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks", "operators", "--operators", "gat", "--shapes", "4x32"]
        command += ["--scale", str(scale), "--threads", str(count), "--rounds", str(report.rounds)]
        command += ["--backend", report.backend, "--no-memory", "--json", str(path)]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True)
        if done.returncode or not path.is_file():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        return _median(results[0]) if results else None


def run(report, out, scale=1.0, threads=(1, 2)):
    """Measure everything, and write scaling.png and benchmark.png into the folder `out`."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    shapes = _measure(report, {f"{heads} × {width}": _spec(heads, width, scale) for heads, width in SHAPES})
    curves = {label: _measure(report, points) for label, points in panels(scale).items()}
    by_threads = {}
    for count in threads:
        found = _at_threads(count, scale, report)
        if found is None:
            report.say(f"threads = {count}: left out, the process with so many threads gave no result")
        else:
            by_threads[count] = found
    curves["threads (4 x 32)"] = by_threads
    number = report.machine["threads"]
    where = f"{report.machine['processor']}, {number} thread{'s' if number != 1 else ''}"
    if scale != 1.0:
        where += f", {scale:g} of the size"
    draw_panels(curves, out / "scaling.png", where)
    draw_shapes(shapes, out / "benchmark.png", where)
    report.say(f"\nWritten: {out / 'scaling.png'}, {out / 'benchmark.png'}")
    return {"shapes": shapes, "curves": curves}


def _figure(*size):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise graphs.Missing('plots: expected matplotlib, got none; pip install "hgat[bench]"') from None
    return Figure(figsize=size, layout="constrained")


def draw_panels(curves, path, where=""):
    """A log-log panel per axis: {label: {x: {candidate: seconds}}} into a PNG. Missing candidates leave gaps."""
    figure = _figure(10, 7.6)
    axes = figure.subplots(2, 2).flatten()
    for axis, (label, points) in zip(axes, curves.items(), strict=True):
        xs = sorted(points)
        floor = points[xs[0]][FLOOR] if xs else 1.0
        for name, (colour, marker, legend) in STYLE.items():
            known = [x for x in xs if name in points[x]]
            times = [points[x][name] / floor for x in known]
            axis.plot(known, times, color=colour, marker=marker, markersize=5, linewidth=1.8, label=legend)
        axis.set_xscale("log", base=10 if "edges" in label else 2)
        axis.set_yscale("log")
        axis.set_xticks(xs, [f"{x / 1e6:.2g} M" if "edges" in label else str(x) for x in xs])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel(label.replace(" x ", " × "))
        axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supylabel("time relative to the neighbour sum at the left of each panel", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"GAT operator, forward + backward\n{where}", fontsize=11)
    figure.savefig(path, dpi=150)


def draw_shapes(shapes, path, where=""):
    """Bars of forward+backward over the neighbour sum's, {shape: {candidate: seconds}}, into a PNG."""
    figure = _figure(8, 4)
    axis = figure.subplots()
    names = [name for name in ("hgat", "DGL", "PyG") if any(name in found for found in shapes.values())]
    thick = 0.8 / max(len(names), 1)
    for number, name in enumerate(names):
        colour, _, legend = STYLE[name]
        for place, found in enumerate(shapes.values()):
            at = place + (number - (len(names) - 1) / 2) * thick
            if name not in found:
                axis.text(at, 0.3, "does not fit", rotation=90, ha="center", va="bottom", fontsize=8, color=colour)
                continue
            height = found[name] / found[FLOOR]
            axis.bar(at, height, thick * 0.92, color=colour, label=legend if place == 0 else None)
            axis.text(
                at, height, f"{height:.1f}" if height < 10 else f"{height:.0f}", ha="center", va="bottom", fontsize=8
            )
    axis.axhline(1, color=STYLE[FLOOR][0], linewidth=1.2, linestyle="--", label="plain neighbour sum")
    axis.set_xticks(range(len(shapes)), list(shapes))
    axis.set_xlabel("heads × width")
    axis.set_ylabel("time, neighbour sum = 1")
    axis.set_title(f"GAT, forward + backward, ogbn-arxiv's size\n{where}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
