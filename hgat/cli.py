"""The command `hgat`: train, eval, explain, list, partition, doctor. Arguments in, tables out; no arithmetic."""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager

import hgat
from hgat import doctor
from hgat.errors import HgatError, meant

__all__ = ["main"]

ROOT = "the folder of data sets (default: $HGAT_DATA, else ~/.cache/hgat)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives its exit status: 0, or 2 after one sentence that says what to mend."""
    arguments = _parser().parse_args(argv)
    try:
        with _old_names_in_one_line():
            status = arguments.run(arguments) or 0
        sys.stdout.flush()
        return status
    except HgatError as error:
        # One line, whatever a library's message inside it looks like.
        print("hgat:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; `--resume` continues the run" if arguments.run is _train else ""
        print(f"hgat: stopped{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever reads the output, `head` say, has enough; Python is not to complain of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


@contextmanager
def _old_names_in_one_line():
    """What is said of an old name, without the line of this file that led there."""
    show = warnings.showwarning

    def say(message, category, *where, **more):
        if category is FutureWarning:
            print(f"hgat: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    warnings.showwarning = say
    try:
        yield
    finally:
        warnings.showwarning = show


class _Parser(argparse.ArgumentParser):
    """A parser whose error says which command or option was meant; those of the commands are of this class, too."""

    given: Sequence[str] = ()
    commands = None

    def add_subparsers(self, **options):
        self.commands = super().add_subparsers(**options)
        return self.commands

    def parse_known_args(self, args=None, namespace=None):
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message):
        super().error(message + self._meant())

    def _meant(self):
        """What was meant by the first word that is neither a command nor an option, where one is near."""
        options = list(self._option_string_actions)
        if self.commands is not None:
            choices = self.commands.choices
            command = next((word for word in self.given if not word.startswith("-")), None)
            if command in choices:
                options += choices[command]._option_string_actions
            elif command is not None:
                return meant(command, choices)
        words = [word.split("=")[0] for word in self.given if word.startswith("--")]
        # What an option's name begins with stands for it.
        unknown = [word for word in words if not any(option.startswith(word) for option in options)]
        return meant(unknown[0], options) if unknown else ""


def _parser():
    parser = _Parser(prog="hgat", description="Attention on typed and changing graphs.")
    parser.add_argument("--version", action="version", version=f"hgat {hgat.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a recipe with its controls and print one table")
    train.add_argument("recipe", help="a recipe's name (see `hgat list`) or the path of a .toml file")
    _data_arguments(train)
    train.add_argument("--seeds", type=int, metavar="N", help="how many seeds, counted from 0 (default: the recipe's)")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the recipe, as in --set train.lr=0.01, or leave one out, --set KEY=; may be repeated",
    )
    train.add_argument("--out", metavar="DIR", help="where the results go (default: runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    train.add_argument(
        "--log", default="csv", metavar="NAME", help="csv, tensorboard or wandb, beside history.csv (default: csv)"
    )
    train.add_argument("--quiet", action="store_true", help="say nothing of the progress")
    train.set_defaults(run=_train)

    search = commands.add_parser("tune", help="choose settings on validation, among the ranges of a recipe's [tune]")
    search.add_argument("recipe", help="a recipe's name or the path of a .toml file, with a section [tune]")
    _data_arguments(search)
    search.add_argument("--trials", type=int, default=20, metavar="N", help="how many settings (default: 20)")
    search.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds of each (default: 1)")
    search.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as of train")
    search.add_argument("--out", metavar="DIR", help="where the results go (default: runs/RECIPE-tuned)")
    search.add_argument("--quiet", action="store_true", help="say nothing of single trials")
    search.set_defaults(run=_tune)

    evaluate = commands.add_parser("eval", help="score the checkpoint that `hgat train` left")
    evaluate.add_argument("folder", help="the folder of a run, as in runs/gat-cora")
    _data_arguments(evaluate)
    evaluate.set_defaults(run=_eval)

    explain = commands.add_parser("explain", help="show what the model that `hgat train` left attends to")
    explain.add_argument("folder", help="the folder of a run, as in runs/gat-cora")
    _data_arguments(explain)
    explain.add_argument("--node", metavar="N", help="which node: its number, its name in the data, or type:number")
    explain.add_argument("--out", metavar="DIR", help="where tables and pictures go (default: explain/ in the folder)")
    explain.add_argument("--svg", action="store_true", help="pictures as SVG instead of PNG")
    explain.add_argument("--html", metavar="FILE", help="a page, too, in which one picks a node and hovers its edges")
    explain.add_argument("--doubt", action="store_true", help="test whether its attention should be believed, instead")
    explain.add_argument("--nodes", type=int, metavar="N", help="of --doubt: how many (default: 1000)")
    explain.add_argument("--seed", type=int, default=0, help="of --doubt: draws nodes and orders (default: 0)")
    explain.add_argument("--tests", nargs="+", metavar="TEST", help="of --doubt: which of its tests (default: all)")
    explain.add_argument(
        "--retrain", action="store_true", help="of --doubt: train a second seed, and uniform attention"
    )
    explain.set_defaults(run=_explain)

    listing = commands.add_parser("list", help="systems, data sets, the paper's numbers, ours and the controls'")
    listing.set_defaults(run=_list)

    cut = commands.add_parser("partition", help="cut a data set's graph into parts for several machines (DistDGL)")
    cut.add_argument("name", help="a data set's name, OGB's too, as in cora or ogbn-mag")
    cut.add_argument("--parts", type=int, required=True, metavar="N", help="how many parts, one for each machine")
    cut.add_argument("--out", required=True, metavar="DIR", help="a new or an empty folder for the parts")
    cut.add_argument("--root", metavar="DIR", help=ROOT)
    cut.add_argument("--sample", action="store_true", help="cut a small stand-in for a data set of OGB's")
    cut.add_argument("--mapped", action="store_true", help="keep OGB's features in memory-mapped files")
    cut.add_argument("--method", default="metis", help="metis, few cut edges, or random (default: metis)")
    cut.add_argument(
        "--hops", type=int, default=1, metavar="N", help="how far a part knows its neighbours (default: 1)"
    )
    cut.add_argument("--inverse", action="store_true", help="with inverse relations and a self relation")
    cut.add_argument("--balance-train", action="store_true", help="spread the training nodes evenly, too")
    cut.add_argument("--balance-edges", action="store_true", help="spread the in-edges evenly, too")
    cut.set_defaults(run=_partition)

    health = commands.add_parser("doctor", help="explain the state of this machine; --fix mends a bare `import dgl`")
    doctor.add_arguments(health)
    health.set_defaults(run=doctor.run)
    return parser


def _data_arguments(parser):
    parser.add_argument("--root", metavar="DIR", help=ROOT)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def _train(arguments):
    from hgat import train
    from hgat.train.run import HISTORY, METRICS, MODEL, RECIPE

    result = train.train(
        arguments.recipe,
        arguments.root,
        seeds=arguments.seeds,
        out=arguments.out,
        device=arguments.device,
        resume=arguments.resume,
        overrides=arguments.overrides,
        progress=not arguments.quiet,
        log=arguments.log,
    )
    print(_table(result.recipe, result.metrics))
    print(f"\n{result.out}/: {', '.join([METRICS, MODEL, RECIPE, HISTORY, *_picture(result)])}")


def _tune(arguments):
    from hgat.train import tune
    from hgat.train.run import RECIPE
    from hgat.train.tuning import TRIALS

    def tell(number, value, settings):
        if not arguments.quiet:
            said = "no finite loss" if value is None else f"{value:.2f}"
            print(f"trial {number}: {said}  {_settings(settings)}", file=sys.stderr, flush=True)

    found = tune(
        arguments.recipe,
        arguments.root,
        trials=arguments.trials,
        seeds=arguments.seeds,
        out=arguments.out,
        device=arguments.device,
        overrides=arguments.overrides,
        tell=tell,
    )
    best = next(settings for value, settings in found.trials if value == found.value)
    print(f"{found.recipe.title}: the best of {len(found.trials)} trials")
    print(f"{found.recipe.train.metric.replace('_', ' ')} in percent on validation: {found.value:.1f}")
    print(f"  {_settings(best)}")
    print(f"\n{found.out}/: {RECIPE}, {TRIALS}; hgat train {found.out / RECIPE} tests it")


def _settings(settings):
    return ", ".join(
        f"{key} = {value:.4g}" if type(value) is float else f"{key} = {value}" for key, value in settings.items()
    )


def _picture(result):
    """Draw what the attention learned, where there is something to draw; gives the file's name in a list."""
    from hgat import explain
    from hgat.train.run import PICTURE

    places = getattr(result.task.data, "places", None)
    try:
        if places is not None and places.stars and hasattr(result.model, "attention"):
            path, among = result.out / PICTURE, result.task.data.test
            explain.draw_map(result.model, result.inputs, places, path, result.recipe.title, among=among)
            return [PICTURE]
        called = getattr(result.task.data, "ids", None)  # {node type: names}
        names = [name for of in called.values() for name in of] if isinstance(called, dict) else None
        drawn = explain.draw(result.model, result.inputs, result.out / PICTURE, result.recipe.title, names=names)
    except HgatError as error:
        print(f"hgat: no picture: {error}", file=sys.stderr)
        return []
    return [PICTURE] if drawn else []


def _table(recipe, metrics):
    unit, seeds = metrics["unit"], len(metrics["seeds"])
    sizes = metrics[unit]
    chosen = f"epoch chosen on {sizes['val']:,} validation {unit}"
    if recipe.train.stop == "last":
        chosen = f"the last of {recipe.train.epochs} epochs"
    lines = [
        f"{recipe.title}",
        f"{metrics['metric'].replace('_', ' ')} in percent on {sizes['test']:,} test {unit}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, {chosen}",
        "",
    ]
    rows = [] if recipe.paper is None else [("paper", _numbers(metrics["paper"], metrics["paper_note"]))]
    rows.append((f"hgat {metrics['system']}", _spread(metrics["test"])))
    if "knn" in metrics:
        share = f"{100 * recipe.train.knn_share:.0f} %"
        rows.append((f"hgat {metrics['system']}, 5-NN on {share} of the test nodes", _spread(metrics["knn"])))
    controls = metrics["controls"].items()
    rows += [(f"control: {recipe.title_of(name)}", _spread(c["test"]) + _paired(c["paired"])) for name, c in controls]
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}  {value}" for name, value in rows]
    if controls and seeds > 1:
        lines.append("  in brackets: hgat less the control, seed by seed")
    if "more" in metrics:
        lines += ["", *_more(recipe, metrics)]
    if metrics["notes"]:
        lines.append("")
    lines += [f"  note: {note}" for note in metrics["notes"]]
    return "\n".join(lines)


def _more(recipe, metrics):
    """Every measure in a row, with a column for the paper, hgat and every control."""
    paper = metrics.get("paper_more", {})
    columns = {"paper": paper, f"hgat {metrics['system']}": metrics["more"]}
    columns |= {recipe.title_of(name): control.get("more", {}) for name, control in metrics["controls"].items()}
    table = [["", *columns]]
    for name in metrics["more"]:
        cells = [_numbers(paper[name]) if name in paper else "–"]
        cells += [_spread(column[name]) if name in column else "–" for column in list(columns.values())[1:]]
        table.append([name.replace("_", " "), *(cell.strip() for cell in cells)])
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    return [
        "  "
        + "  ".join(
            f"{cell:>{width}}" if k else f"{cell:<{width}}"
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def _spread(spread):
    return f"{spread['mean']:5.1f}" + ("" if spread["std"] is None else f" ± {spread['std']:.1f}")


def _paired(spread):
    return "" if spread["std"] is None else f"  ({spread['mean']:+.1f} ± {spread['std']:.1f})"


def _numbers(values, note=""):
    if not values:
        return f"    – {f'({note})' if note else ''}".rstrip()
    text = f"{values[0]:5.1f}" + (f" ± {values[1]:.1f}" if len(values) > 1 else "")
    return text + (f" ({note})" if note else "")


def _eval(arguments):
    from hgat import train

    recipe, experiment, scores, about = train.evaluate_folder(arguments.folder, arguments.root, device=arguments.device)
    print(f"{recipe.title}, seed {about['seed']}: {experiment.task.scored(recipe.train.metric)} in percent")
    learned = ("train", "val") if recipe.train.refit else ("train",)
    for split, (value, count) in scores.items():
        seen = ", which it was trained on" if split in learned else ""
        print(f"  {split:<5}  {value:5.1f}  on {count:,} {experiment.task.unit}{seen}")


def _explain(arguments):
    from hgat.explain import command
    from hgat.explain.doubt import command as doubt

    doubt.check(arguments)
    (doubt if arguments.doubt else command).run(arguments)


def _list(arguments):
    from hgat import train

    head = ("recipe", "system", "data", "metric", "paper", "ours", "controls")
    rows = [head]
    for name in train.available():
        recipe = train.read(name)
        expect = recipe.expect
        found = ", ".join(f"{recipe.title_of(c)} {_numbers(v).strip()}" for c, v in expect.controls.items())
        rows.append(
            (
                name,
                recipe.system,
                recipe.data["name"],
                recipe.train.metric,
                _numbers(expect.paper).strip(),
                _numbers(expect.ours).strip(),
                found or "–",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _partition(arguments):
    import psutil  # DGL needs it, too

    from hgat import data
    from hgat.data.partition import check, partition

    check(arguments.parts, arguments.out, arguments.method, arguments.hops)  # before minutes of reading
    if arguments.sample or arguments.name.startswith("ogb"):
        from hgat.data import ogb  # the package ogb takes seconds to import

        task = ogb.load(arguments.name, arguments.root, mapped=arguments.mapped, sample=arguments.sample)
    else:
        task = data.load(arguments.name, arguments.root)
    held, start = psutil.Process().memory_info().rss / 2**30, time.monotonic()
    settings = ("method", "hops", "inverse", "balance_train", "balance_edges")
    cut = partition(task, arguments.parts, arguments.out, **{name: getattr(arguments, name) for name in settings})
    seconds, edges = time.monotonic() - start, sum(cut.edges)
    print(f"{task.name}: {edges:,} edges, of which {100 * cut.cut / max(edges, 1):.1f} % join two parts")
    for number, inside in enumerate(cut.edges):
        nodes = ", ".join(f"{counts[number]:,} {ntype}" for ntype, counts in cut.nodes.items())
        print(f"  part {number}: {inside:,} edges; nodes: {nodes}")
    print(f"  took {seconds:.1f} s; memory {_peak():.2f} GiB at its peak, {held:.2f} GiB of it held before")
    for note in task.notes:
        print(f"  note: {note}")
    print(f"\n{cut.config}")


def _peak():
    """The most memory that this process held so far, in GiB."""
    import resource  # not everywhere

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
