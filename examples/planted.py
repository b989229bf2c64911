"""Does attention find what decides? Planted truth, of which the answer is known, over ten seeds.

    python examples/planted.py                # about five minutes of one core
    python examples/planted.py --seeds 2

trains the recipes on planted truth, and their controls with uniform attention, and prints the accuracy on the test
nodes and attention's correctness, the share of their attention that is on the gold edges. Below, whether an edge is
gold is shown of 1 % of the edges and learned from (task.gold); what is measured is the attention of the test nodes, of
whose edges none is shown.
"""

import argparse
import statistics

import torch

from hgat.explain.edges import observe
from hgat.explain.gold import correctness, gold_pairs
from hgat.train.recipe import UNIFORM, read
from hgat.train.run import Experiment

RECIPES = (
    "gatv2-planted-feature",
    "gat-planted-feature",
    "rgat-planted-relation",
    "hgt-planted-recency",
    "han-planted-path",
    "gatv2-planted-own",
    "gatv2-planted-mean",
)
FEW = ["data.groups=60"]  # 300 nodes in the place of 1,200


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="%(default)s")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=RECIPES, metavar="RECIPE", help="all of them")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `hgat train` takes it")
    return parser.parse_args(argv)


def over_paths(fit, experiment):
    """Correctness of attention over the pairs of meta-paths in percent: the weight of a path times that of its pair."""
    data, paths = fit.task.data, experiment.recipe.graph["paths"]
    seen = observe(fit.model, fit.inputs["test"])
    (pairs,), (semantic,) = seen.edges, seen.axes
    gold = torch.zeros(len(pairs.src), dtype=torch.bool)
    for number, (_, name, _) in enumerate(pairs.relations):
        here = pairs.relation == number
        gold[here] = gold_pairs(data.graph, data.gold, paths[name], pairs.src[here], pairs.dst[here])
    weight = pairs.weight * semantic.weight.flatten()[pairs.relation].unsqueeze(1)
    return 100 * correctness(weight, gold, pairs.dst, data.test)


def measured(experiment, variant, seeds):
    """(accuracy, correctness) of every seed in percent; correctness is None where no neighbour is gold."""
    found = []
    for seed in range(seeds):
        fit = experiment.training(variant, seed)
        with experiment.context(variant):
            while fit.step():
                pass
            numbers = fit.finish()
            right = numbers.get("more", {}).get("correctness")
            if right is None and experiment.data.gold is not None:
                right = over_paths(fit, experiment)
        found.append((numbers["test"], right))
    return found


def said(values):
    values = list(values)
    if None in values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}, least {min(values):.1f}, most {max(values):.1f}"


def row(name, found):
    print(
        f"{name:<46}{statistics.fmean(test for test, _ in found):>7.1f}   {said(right for _, right in found)}",
        flush=True,
    )


def main(argv=None):
    """{row: [(accuracy, correctness) of every seed]}."""
    options, found = parse(argv), {}
    print(f"{'':<46}{'test':>7}   correctness")
    for name in options.recipes:
        experiment = Experiment(read(name, options.set))
        for variant, title in (("ours", name), (UNIFORM, f"  {name}, uniform")):
            found[title] = measured(experiment, variant, options.seeds)
            row(title, found[title])
        if name == "gat-planted-feature":
            size = experiment.recipe.data.get("size", 5)
            most = 100 * sum(1 / rank for rank in range(1, size + 1)) / size
            print(f"  no ranking that all destinations share is above {most:.1f}")
    if "gatv2-planted-feature" not in options.recipes:
        return found
    print(f"\n{'gatv2-planted-feature, gold of edges shown':<46}{'test':>7}   correctness")
    for size, changes in (("1,200 nodes", []), ("300 nodes", FEW)):
        for share in ("0.0", "0.01"):
            title = f"{size}, {float(share):.0%} of edges"
            if not changes and share == "0.0":  # trained above
                found[title] = found["gatv2-planted-feature"]
            else:
                overrides = [*changes, f"task.gold={share}", *options.set]
                found[title] = measured(Experiment(read("gatv2-planted-feature", overrides)), "ours", options.seeds)
            row(title, found[title])
    return found


if __name__ == "__main__":
    main()
