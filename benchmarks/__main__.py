"""`python -m benchmarks COMMAND`: see `python -m benchmarks --help`."""

import argparse
import os
import re
import sys
from dataclasses import replace
from importlib import import_module

COMMANDS = {
    "quick": "a small version of operators and blocks, under two minutes",
    "operators": "attention operators on projected tensors, without layers around them",
    "layers": "whole layers with shared parameters",
    "epochs": "whole training epochs",
    "blocks": "new sampled blocks and small graphs, with the building of structure",
    "gpu": "operators, layers, epochs and sampled training on a GPU, right first, then fast",
    "large": "one layer on 20 million edges inside a limit of memory",
    "ogb": "epochs on data of OGB's real shapes in OGB's format: whole graphs, and sampled training taken apart",
    "diffusion": "attention spread over K hops beside one layer of GAT, with memory as K grows",
    "ppr": "personalised PageRank by push beside a power iteration that ends at the same rule",
    "temporal": "graphs that change: an epoch of DySAT, the sampler of recent neighbours",
    "preparation": "what DAGNN, GAMLP, TDGNN, SPAGAN and PPRGAT compute once before training: seconds, and peak memory",
    "triples": "knowledge graphs: filtered ranks of WN18RR's test triples, an epoch at FB15k-237's size",
    "processes": "epochs of sampled training on one process and on two",
    "scaling": "growth with edges, heads, width and threads, as plots",
}


def _operators(text):
    names = text.split(",")
    if not set(names) <= {"gat", "gatv2", "dot"}:
        raise argparse.ArgumentTypeError(f"expected some of gat,gatv2,dot, got {text!r}")
    return names


def _shapes(text):
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected heads x width such as 4x32,8x8, got {text!r}")
    return [tuple(int(number) for number in shape.split("x")) for shape in text.split(",")]


def parse(argv):
    parser = argparse.ArgumentParser("python -m benchmarks", description="hgat beside DGL and PyTorch Geometric")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        few = name == "quick"
        command.add_argument("--rounds", type=int, default=3 if few else 5, help="timed rounds (%(default)s)")
        command.add_argument("--threads", type=int, help="OpenMP threads of every library (OMP_NUM_THREADS, or all)")
        command.add_argument(
            "--scale",
            type=float,
            default=0.05 if few else 1.0,
            help="part of the nodes and edges of every synthetic graph (%(default)s)",
        )
        command.add_argument("--only", type=re.compile, metavar="REGEX", help="only cases whose title matches")
        command.add_argument("--no-memory", action="store_true", help="start no processes that measure memory")
        command.add_argument("--backend", default="auto", help="hgat's backend (%(default)s: the fastest)")
        command.add_argument("--json", metavar="FILE", help="write everything, bare times too")
        if name == "ogb":
            command.add_argument("--root", required=True, help="folder of OGB's data; stand-ins are written there")
        if name in ("layers", "epochs", "blocks", "quick"):
            command.add_argument("--root", help="folder of the real data sets (HGAT_DATA, or ~/.cache/hgat)")
        if name == "operators":
            shapes = "4x32,8x8,1x64,4x64,3x250"
            command.add_argument("--operators", type=_operators, default="gat,gatv2,dot", help="which (%(default)s)")
            command.add_argument("--shapes", type=_shapes, default=shapes, help="heads x width (%(default)s)")
        if name == "gpu":
            command.add_argument("--device", default="cuda", help="the device that is timed (%(default)s)")
            sections = "right,operators,hub,layers,epochs,sampled"
            command.add_argument(
                "--sections", type=lambda text: text.split(","), default=sections, help="which (%(default)s)"
            )
            command.add_argument("--root", help="folder of the real data sets (HGAT_DATA, or ~/.cache/hgat)")
        if name == "large":
            command.add_argument("--layer", choices=("GATv2Conv", "GATConv"), default="GATv2Conv")
            command.add_argument("--nodes", type=int, default=1_000_000)
            command.add_argument("--edges", type=int, default=20_000_000)
            command.add_argument("--shape", type=lambda text: _shapes(text)[0], default="4x64", help="heads x width")
            command.add_argument("--limit", type=float, default=8.0, help="GiB that a process may hold (%(default)s)")
            command.add_argument("--chunk", type=int, default=250_000, help="edges of a chunk (%(default)s)")
        if name == "scaling":
            command.add_argument("--out", required=True, metavar="DIR", help="folder of scaling.png and benchmark.png")
    return parser.parse_args(argv)


def set_threads(count):
    """One number of threads for PyTorch's, DGL's and hgat's OpenMP; read when they are loaded, so before any import."""
    if "torch" in sys.modules:
        return
    if count is None and "OMP_NUM_THREADS" not in os.environ:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)


def main(argv=None):
    """Run one command; gives the exit status: 1 if any pair was unequal, so that its times were refused."""
    options = parse(argv)
    set_threads(options.threads)
    from benchmarks.report import Report

    rounds = (
        0 if options.command in ("large", "preparation", "triples") else options.rounds
    )  # no rounds of several ways
    report = Report(rounds, not options.no_memory, options.only, options.backend)
    above = {"above": "it is faster than one process with one thread"} if options.command == "processes" else {}
    report.start(f"benchmarks {options.command}: {COMMANDS[options.command]}.", options.scale, **above)
    if options.command == "large":
        from benchmarks import large

        large.run(report, options)
    elif options.command == "gpu":
        from benchmarks import gpu

        gpu.run(report, options)
    elif options.command == "scaling":
        from benchmarks import scaling

        report.with_memory = False
        scaling.run(report, options.out, options.scale)
    elif options.command == "preparation":
        from benchmarks import preparation

        preparation.run(report, options.rounds, options.scale)
    elif options.command == "triples":
        from benchmarks import triples

        triples.run(report, options.rounds, options.scale)
    elif options.command == "processes":
        from benchmarks import processes

        processes.run(report, options.scale)
    else:
        report.run(_specs(options))
        if options.command == "ogb":
            from benchmarks import ogb

            ogb.run(report, options.root, options.scale)
    return report.finish(options.json)


def _specs(options):
    scale, root = options.scale, getattr(options, "root", None)
    if options.command == "operators":
        from benchmarks import operators

        return operators.specs(options.operators, options.shapes, scale)
    if options.command == "quick":
        from benchmarks import blocks, operators

        first, *others = operators.specs(shapes=[(4, 32)], scale=scale)
        others += [*operators.specs(["gat"], [(8, 8)], scale), *blocks.specs(scale, root)]
        return [first, *(replace(spec, memory=False) for spec in others)]  # a process for each would take minutes
    return import_module(f"benchmarks.{options.command}").specs(scale, root)


if __name__ == "__main__":
    sys.exit(main())
