"""Where GATv2 answers and GAT cannot: looking up a value under a key, one head each, over the size of the dictionary.

    python examples/dictionary.py --k 4 5 6 7 8 9 10 --out runs/dictionary

trains the recipes gatv2-dictionary and gat-dictionary for every size, three seeds each, of which validation chooses
one, prints the shares of queries that get the right answer, in training and in test dictionaries, and draws them into
dictionary.png. Tried for 4 to 10 keys: GATv2 answers all queries of both, GAT less than half of those in training.
"""

import argparse
from pathlib import Path

from hgat import train
from hgat.explain.plot import figure_class, save

SYSTEMS = {"gatv2": "GATv2, one head", "gat": "GAT, one head"}
COLORS = {"gatv2": "#1f6f8b", "gat": "#c96f3b"}
PARTS = ("train", "test")


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[4, 5, 6, 7, 8, 9, 10], help="sizes of dictionaries")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS], help="which (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `hgat train` takes it")
    parser.add_argument("--device", default="cpu", help="%(default)s")
    parser.add_argument("--out", default="runs/dictionary", help="folder of the runs and of the picture (%(default)s)")
    return parser.parse_args(argv)


def accuracies(system, k, out, overrides, device):
    """{part: percent} of the state that validation chose."""
    changes = [f"data.k={k}", "train.controls=[]", *overrides]
    found = train.train(f"{system}-dictionary", out=out / f"{system}-{k}", device=device, overrides=changes)
    return {part: found.task.evaluate(found.model, found.inputs, part, "accuracy")[0] for part in PARTS}


def draw(sizes, systems, found, path):
    figure = figure_class()(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for system in systems:
        for part, style in zip(PARTS, ("--", "-"), strict=True):
            values = [found[system, k][part] for k in sizes]
            axis.plot(sizes, values, style, marker="o", color=COLORS[system], label=f"{SYSTEMS[system]}, {part}")
    axis.plot(sizes, [100 / k for k in sizes], ":", color="#888888", label="chance")
    axis.set(xlabel="keys of a dictionary", ylabel="right answers, %", ylim=(0, 104), xticks=sizes)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    save(figure, path)


def main(argv=None):
    """{(system, k): {part: percent}} of every training."""
    options = parse(argv)
    out, found = Path(options.out), {}
    columns = [f"{SYSTEMS[system]}, {part}" for system in options.systems for part in PARTS]
    print(f"{'k':>3}" + "".join(f"{column:>24}" for column in columns))
    for k in options.k:
        for system in options.systems:
            found[system, k] = accuracies(system, k, out, options.set, options.device)
        row = "".join(f"{found[system, k][part]:>24.1f}" for system in options.systems for part in PARTS)
        print(f"{k:>3}{row}", flush=True)
    draw(options.k, options.systems, found, out / "dictionary.png")
    print(out / "dictionary.png")
    return found


if __name__ == "__main__":
    main()
