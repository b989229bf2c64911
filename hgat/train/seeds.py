"""Several seeds of a training script of one's own, with OGB's summary, and a state from which a killed run goes on."""

import argparse
import copy
import os
import random
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import dgl
import numpy as np
import torch
import torch.distributed as dist

from hgat import ops
from hgat.errors import RecipeError
from hgat.train import checkpoint, state

__all__ = ["Runs", "attention", "load_ogb", "options"]

PROGRESS, MODEL = "progress.safetensors", "model.safetensors"
CONTROLS = ("none", "uniform", "mlp")
COUNTS = ("runs", "epochs", "hidden", "heads", "layers", "batch", "negatives", "bases")
SAVE_EVERY = 2.0  # seconds of work that a run loses at most when it is killed


class _Options(argparse.ArgumentParser):
    """Options of which --sample changes the defaults, and from which the folder follows."""

    on_sample = {}
    out = "runs/ogb"

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        if found.sample:
            self.set_defaults(**self.on_sample)
            found = super().parse_args(args, namespace)
        if found.hidden % found.heads:
            self.error(f"argument --hidden: expected a multiple of --heads {found.heads}, got {found.hidden}")
        if not hasattr(found, "out"):
            # What trains another model must not write over this one's.
            chosen = {key: getattr(found, key, None) for key in ("conv", "control")}
            other = [value for key, value in chosen.items() if value != self.get_default(key)]
            found.out = "-".join([self.out, *other, *(["sample"] if found.sample else [])])
        return found


def _number(name, kind):
    """What argparse reads an option's value with: names that count start at 1, rates are rates."""

    def read(text):
        value = kind(text)
        if name == "fanout" and (value == 0 or value < -1):  # DGL's samplers read -1 as all
            raise argparse.ArgumentTypeError(f"expected 1 or more, or -1 for all neighbours, got {text}")
        if name in COUNTS and value < 1:
            raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
        if name == "lr" and not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        if name == "dropout" and not 0 <= value < 1:
            raise argparse.ArgumentTypeError(f"expected a rate from 0 up to, but not including, 1, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse names it where the text is no number at all
    return read


def _device(text):
    try:
        return str(torch.device(text))
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"expected cpu, cuda, cuda:1, ..., got {text!r}") from None


def options(description, *, on_sample=None, **defaults):
    """An argument parser with OGB's usual options; `defaults` change theirs, and further names become options.

    root, mapped, sample, device, runs, epochs, lr, hidden, heads, layers, dropout, control, out, resume: as their help
    says. A default that is a tuple lists what may be chosen, the default first, as in conv=("GATConv", "GATv2Conv").
    out: by default runs/ogb/ and the data set that begins the description. Where --conv or --control are not the
    default, and with --sample, they are added to it, as in runs/ogb/ogbn-arxiv-GATConv, so that no run overwrites the
    checkpoint of another model; a folder given as --out is taken as it is.
    on_sample: the defaults that --sample changes, on top of one run of 50 epochs.
    """
    title = description.strip().split("\n")[0]
    parser = _Options(description=title, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.on_sample = {"runs": 1, "epochs": 50, **(on_sample or {})}
    name, colon, _ = title.partition(":")
    parser.out = defaults.pop("out", f"runs/ogb/{name}" if colon and " " not in name else "runs/ogb")
    known = {
        "device": ("cpu", "cpu, cuda, cuda:1, ..."),
        "runs": (10, "seeds, counted from 0"),
        "epochs": (500, "epochs of each run"),
        "lr": (0.01, "learning rate"),
        "hidden": (256, "width of the hidden layers, all heads together"),
        "heads": (4, "heads of the hidden layers"),
        "layers": (3, "layers"),
        "dropout": (0.5, "dropout between layers"),
    }
    for name, default in defaults.items():
        known[name] = (default, known[name][1] if name in known else name.replace("_", " "))
    for name, (default, text) in known.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, (tuple, list)):
            parser.add_argument(option, choices=default, default=default[0], help=text)
        else:
            kind = _device if name == "device" else _number(name, type(default))
            parser.add_argument(option, type=kind, default=default, help=text)
    text = f"folder of the checkpoint (default: {parser.out}, with what is not the default behind it)"
    parser.add_argument("--out", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--control", choices=CONTROLS, default="none", help="what attention is replaced by")
    parser.add_argument("--root", help="folder of OGB's data sets (default: HGAT_DATA, or ~/.cache/hgat)")
    parser.add_argument("--mapped", action="store_true", help="keep features in memory-mapped files")
    parser.add_argument("--sample", action="store_true", help="run on small data of the same form, written on the spot")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return parser


def load_ogb(name, arguments):
    """hgat.data.ogb.load(name), from --root, or, with --sample, of a small data set that is written first.

    In a process group process 0 reads first, since OGB's first reading of a data set writes a copy of its own.
    """
    from hgat.data import ogb  # needs the package ogb, which takes seconds to import

    if not arguments.sample:
        if _rank() > 0:
            _wait()
        data = ogb.load(name, arguments.root, mapped=arguments.mapped)
        if _rank() == 0:
            _wait()
        return data
    with tempfile.TemporaryDirectory() as folder:
        ogb.write_sample(name, folder)
        return ogb.load(name, folder)


def attention(arguments):
    """The context of --control: uniform attention, or nothing."""
    return ops.uniform_attention() if arguments.control == "uniform" else nullcontext()


class Runs:
    """The seeds 0 to count - 1, one after the other.

        runs = Runs("runs/mine", 10)
        for run in runs:
            model, optimizer = ...
            for epoch in run.epochs(500, model, optimizer):
                loss = ...
                run.record(loss, train=..., valid=..., test=...)
        runs.summary()

    The epoch with the highest `valid` counts, ties to the earlier one. With resume, finished seeds are left out and an
    unfinished one goes on behind its last saved epoch, as if it had not been stopped: PyTorch's, NumPy's, Python's and
    DGL's generators are set anew before every epoch. (A DGL DataLoader that is made anew in every epoch shuffles alike;
    its samplers draw in several threads, so that what they draw repeats on one thread alone.)
    settings: what a resumed run must share.

    In a process group (hgat.train.Processes) every process goes through the same loops and records the same scores.
    Each draws numbers of its own, process 0 alone writes and prints, and all resume from what it wrote.

    Raises OutputError for a folder that cannot be written to, RecipeError for the state of other settings or of another
    number of processes, and for several processes without a group.
    """

    def __init__(self, out, count, *, resume=False, settings=None, better=max):
        if count < 1:
            raise RecipeError(f"runs: expected 1 or more, got {count}")
        if not _grouped() and os.environ.get("WORLD_SIZE", "1") != "1":
            got = f"{os.environ['WORLD_SIZE']} that do not know of one another"
            raise RecipeError(f"runs: expected one process, or hgat.train.Processes around the script, got {got}")
        self.count, self.better = count, better
        self.rank = _rank()
        self.out = checkpoint.make_folder(out) if self.rank == 0 else Path(out)
        settings = {**(settings or {}), "processes": dist.get_world_size() if _grouped() else 1}
        self.about = {"settings": settings, "done": [], "running": None}
        self.tensors = {}
        self.saved = time.monotonic()
        path, content = self.out / PROGRESS, b""
        if resume and self.rank == 0 and path.exists():
            content = checkpoint.read_bytes(path)
        content = _from_first(content)
        if content:
            self.tensors, about = checkpoint.unpack_state(path, content)
            if about.get("settings") != self.about["settings"]:
                raise RecipeError(f"--resume: expected the settings of the run in {self.out}, got others")
            try:
                _check(about, self.tensors)
            except state.Unfit as error:
                raise state.unfit(path, "--resume: expected a state that hgat saved", error) from None
            self.about = about
        elif self.rank == 0:
            for name in (PROGRESS, MODEL):
                checkpoint.remove(self.out / name)

    def __iter__(self):
        for seed in range(len(self.about["done"]), self.count):
            torch.manual_seed(seed)
            run = _Run(self, seed)
            yield run
            self._finish(run)

    def _finish(self, run):
        if not run.best:
            raise RecipeError("runs: expected at least one recorded epoch in every run, got none")
        self.about["done"].append(run.best)
        self.about["running"], self.tensors = None, {}
        if all(run.best["valid"] == self.better(run.best["valid"], other["valid"]) for other in self.about["done"]):
            self._write(MODEL, run.kept, {"seed": run.seed, **run.best})
        self._write(PROGRESS, {}, self.about)

    def _write(self, name, tensors, about):
        if self.rank == 0:
            save = checkpoint.save_state if name == PROGRESS else checkpoint.save_tensors
            save(self.out / name, tensors, about)
        self.saved = time.monotonic()

    def summary(self):
        """Print OGB's lines, and give {"train", "valid", "test"}: (mean, std) in percent, at the best `valid`.

        The standard deviation is the sample's, None of one run.
        """
        found = {}
        for part in ("train", "valid", "test"):
            values = [100.0 * run[part] for run in self.about["done"] if part in run]
            if values:
                found[part] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
        if self.rank == 0:
            print(f"All runs: {len(self.about['done'])}")
            titles = {"valid": "Highest Valid", "train": "Final Train", "test": "Final Test"}
            for part, title in titles.items():
                if part in found:
                    mean, std = found[part]
                    print(f"{title:>13}: {mean:.2f}" + ("" if std is None else f" ± {std:.2f}"))
        return found


class _Run:
    """One seed."""

    def __init__(self, runs, seed):
        self.runs, self.seed = runs, seed
        self.best, self.kept = {}, {}

    def epochs(self, count, model, optimizer):
        """Numbers of the epochs to train, from 1; the state is kept behind each."""
        self.model = model
        first = self._restore(optimizer, count)
        for epoch in range(first + 1, count + 1):
            _seed(self.seed, epoch, self.runs.rank)
            self._began = time.monotonic()
            yield epoch
            last = epoch == count
            if last or time.monotonic() - self.runs.saved >= SAVE_EVERY:
                self._save(optimizer, epoch)

    @property
    def seconds(self):
        """Since this epoch began."""
        return time.monotonic() - self._began

    def record(self, loss, *, valid, **scores):
        """Scores of an epoch, from 0 to 1; those of the best `valid` count."""
        if not self.best or (valid != self.best["valid"] and self.runs.better(valid, self.best["valid"]) == valid):
            self.best = {"valid": float(valid), **{name: float(value) for name, value in scores.items()}}
            if self.runs.rank == 0:
                self.kept = copy.deepcopy(_plain(self.model).state_dict())

    def _save(self, optimizer, epoch):
        if self.runs.rank > 0:
            return
        moments, counts = checkpoint.pack_optimizer(optimizer)
        tensors = {f"model.{k}": v for k, v in _plain(self.model).state_dict().items()}
        tensors |= {f"kept.{k}": v for k, v in self.kept.items()} | {f"optimizer.{k}": v for k, v in moments.items()}
        numbers = {"seed": self.seed, "epoch": epoch, "best": self.best, "optimizer": counts}
        self.runs._write(PROGRESS, tensors, {**self.runs.about, "running": numbers})

    def _restore(self, optimizer, count):
        running = self.runs.about["running"]
        if not running:
            return 0
        tensors = self.runs.tensors
        kept, moments = state.part(tensors, "kept."), state.part(tensors, "optimizer.")
        try:
            state.whole("running.epoch", running["epoch"], 1, count)
            weights = _plain(self.model).state_dict()
            state.check_tensors("model.", state.part(tensors, "model."), weights)
            state.check_tensors("kept.", kept, weights if running["best"] else {})
            state.check_optimizer(optimizer, moments, running["optimizer"])
            for name in tensors:
                if not name.startswith(("model.", "kept.", "optimizer.")):
                    raise state.Unfit(name, "no such tensor", tensors[name])
        except state.Unfit as error:
            path = self.runs.out / PROGRESS
            raise state.unfit(path, "--resume: expected the state of this model", error) from None
        _plain(self.model).load_state_dict(state.part(tensors, "model."))
        checkpoint.unpack_optimizer(optimizer, moments, running["optimizer"])
        self.kept, self.best = kept, running["best"]
        self.runs.about["running"], self.runs.tensors = None, {}
        return running["epoch"]


def _check(about, tensors):
    """Raise state.Unfit for what no run can have saved; what depends on its model is checked with it."""
    state.record("state", about, ("settings", "done", "running"))
    if type(about["done"]) is not list:
        raise state.Unfit("done", "a list", about["done"])
    for place, best in enumerate(about["done"]):
        _check_scores(f"done[{place}]", best)
    running = about["running"]
    if running is None:
        state.check_tensors("", tensors, {})
        return
    state.record("running", running, ("seed", "epoch", "best", "optimizer"))
    state.whole("running.seed", running["seed"], len(about["done"]), len(about["done"]))
    state.whole("running.epoch", running["epoch"], 1)
    if running["best"] != {}:
        _check_scores("running.best", running["best"])


def _check_scores(where, best):
    state.record(where, best, ("valid",), tuple(best) if type(best) is dict else ())
    for name, value in best.items():
        state.number(f"{where}.{name}", value)


def _grouped():
    return dist.is_available() and dist.is_initialized()


def _rank():
    """This process's number in the process group, 0 without one."""
    return dist.get_rank() if _grouped() else 0


def _wait():
    """Wait for all processes of the group, if there is one."""
    if _grouped():
        dist.barrier()


def _from_first(content):
    """The bytes that process 0 has, on every process."""
    if not _grouped():
        return content
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    size = torch.tensor([len(content)], device=device)
    dist.broadcast(size, 0)
    if not size:
        return b""
    data = torch.empty(int(size), dtype=torch.uint8, device=device)
    if _rank() == 0:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(data, 0)
    return data.cpu().numpy().tobytes()


def _plain(model):
    """The model itself, without DistributedDataParallel around it."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def _seed(seed, epoch, rank):
    number = (seed * 100_003 + epoch) * 1_009 + rank
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
    dgl.seed(number % 2**31)
