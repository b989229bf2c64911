"""Where SuperGAT is ahead of GAT: over how many neighbours are of one's own class, and how many there are.

    python examples/random_partition.py --out runs/random_partition
    python examples/random_partition.py --homophily 0.1 0.3 0.5 0.7 0.9 --degree 1 2.5 5 10 25 --edge-loss 0.1 1 10

trains the recipes gat-random-partition and supergat-random-partition on a random partition graph for every homophily
and degree, prints the test accuracy of GAT and of SuperGAT with every score, and draws them into random_partition.png.
The weight of SuperGAT's edge loss is the one of --edge-loss that is best on validation, on average over the seeds.
"""

import argparse
from pathlib import Path

from hgat import train
from hgat.explain.plot import figure_class, save

SCORES = ("go", "sd", "mx")
# Of Okabe and Ito's palette, which is told apart with any kind of colour vision; markers and lines differ, too.
LOOKS = {"gat": ("#000000", "o", "-"), "go": ("#E69F00", "s", "--"), "sd": ("#0072B2", "^", "-")}
LOOKS |= {"mx": ("#D55E00", "D", "-."), "dp": ("#009E73", "v", ":")}


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homophily", type=float, nargs="+", default=[0.1, 0.9], help="%(default)s")
    parser.add_argument("--degree", type=float, nargs="+", default=[10.0], help="%(default)s")
    parser.add_argument("--scores", nargs="+", choices=sorted(set(LOOKS) - {"gat"}), default=SCORES, help="%(default)s")
    parser.add_argument("--edge-loss", type=float, nargs="+", default=[1.0], help="to choose from (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `hgat train` takes it")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run in --out was stopped")
    parser.add_argument("--device", default="cpu", help="%(default)s")
    parser.add_argument("--out", default="runs/random_partition", help="folder of runs and picture (%(default)s)")
    return parser.parse_args(argv)


def title(name):
    return "GAT" if name == "gat" else f"SuperGAT {name.upper()}"


def trained(name, homophily, degree, options):
    """(mean and deviation of the test accuracy, weight of the edge loss or None), which validation chose."""
    graph = [f"data.homophily={homophily}", f"data.degree={degree}", "train.controls=[]"]
    tries = [None] if name == "gat" else options.edge_loss
    found = []
    for weight in tries:
        recipe, model = "gat-random-partition", []
        if name != "gat":
            recipe, model = "supergat-random-partition", [f"model.score={name}", f"model.edge_loss={weight}"]
        out = Path(options.out) / "-".join(str(part) for part in (name, homophily, degree, weight) if part is not None)
        overrides = [*graph, *model, *options.set]
        how = {"seeds": options.seeds, "device": options.device, "resume": options.resume}
        run = train.train(recipe, out=out, overrides=overrides, **how)
        found.append((run.metrics["val"]["mean"], run.metrics["test"], weight))
    _, test, weight = max(found, key=lambda row: row[0])
    return test["mean"], test["std"], weight


def draw(options, names, found, path):
    """Accuracy above, and below it what SuperGAT has more than GAT, which the height of a panel would hide."""
    columns = len(options.homophily)
    figure = figure_class()(figsize=(2.2 + 2.4 * columns, 5.6), layout="constrained")
    axes = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    for (above, below), homophily in zip(axes.T, options.homophily, strict=True):
        gat = [found["gat", homophily, degree][0] for degree in options.degree]
        for name in names:
            color, marker, line = LOOKS[name]
            mean, deviation, _ = zip(*(found[name, homophily, degree] for degree in options.degree), strict=True)
            look = {"color": color, "marker": marker, "linestyle": line, "markersize": 5}
            bars = None if None in deviation else deviation
            above.errorbar(options.degree, mean, bars, capsize=2, label=title(name), **look)
            below.plot(options.degree, [one - other for one, other in zip(mean, gat, strict=True)], **look)
        above.axhline(10, color="#888888", linestyle=":", linewidth=1, label="chance")
        above.set(title=f"homophily {homophily:g}", ylim=(0, 102))
        below.set(xlabel="neighbours, on average", xscale="log")
        below.set_xticks(options.degree, [f"{degree:g}" for degree in options.degree])
        below.minorticks_off()
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[1, 0].set_ylabel("above GAT, points")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns + 1, 5), frameon=False)
    save(figure, path)


def main(argv=None):
    """{(gat or a score, homophily, degree): (mean, deviation or None, weight of the edge loss or None)} of the test."""
    options = parse(argv)
    names, found = ["gat", *options.scores], {}
    print(f"{'homophily':>9}{'degree':>8}" + "".join(f"{title(name):>22}" for name in names))
    for homophily in options.homophily:
        for degree in options.degree:
            cells = []
            for name in names:
                mean, deviation, weight = found[name, homophily, degree] = trained(name, homophily, degree, options)
                cell = f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")
                cells.append(cell + ("" if weight is None else f" ({weight:g})"))
            print(f"{homophily:>9g}{degree:>8g}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    path = Path(options.out) / "random_partition.png"
    draw(options, names, found, path)
    print(path)
    return found


if __name__ == "__main__":
    main()
