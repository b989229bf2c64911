"""What training scripts of earlier releases imported from hgat.train; it goes with the next release."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist

from hgat import ops
from hgat.renamed import warn

__all__ = ["attention", "load_ogb", "options"]

CONTROLS = ("none", "uniform", "mlp")
COUNTS = ("runs", "epochs", "hidden", "heads", "layers", "batch", "negatives", "bases")


class _Options(argparse.ArgumentParser):
    """Options of which --sample changes the defaults, and from which the folder follows."""

    on_sample: dict = {}
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


def options(description: str, *, on_sample: dict | None = None, **defaults: Any) -> argparse.ArgumentParser:
    """An argument parser with OGB's usual options; `defaults` change theirs, and further names become options.

    root, mapped, sample, device, runs, epochs, lr, hidden, heads, layers, dropout, control, out, resume: as their help
    says. A default that is a tuple lists what may be chosen, the default first, as in conv=("GATConv", "GATv2Conv").
    out: by default runs/ogb/ and the data set that begins the description. Where --conv or --control are not the
    default, and with --sample, they are added to it, as in runs/ogb/ogbn-arxiv-GATConv, so that no run overwrites the
    checkpoint of another model; a folder given as --out is taken as it is.
    on_sample: the defaults that --sample changes, on top of one run of 50 epochs.
    """
    warn("hgat.train.options", "argparse, as the scripts of examples/ogb use it")
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


def load_ogb(name: str, arguments: argparse.Namespace) -> Any:
    """hgat.data.ogb.load of the options --root, --mapped and --sample, on process 0 of a group first."""
    from hgat.data import ogb  # needs the package ogb, which takes seconds to import

    warn("hgat.train.load_ogb", "hgat.data.ogb.load")
    grouped = dist.is_available() and dist.is_initialized()
    rank = dist.get_rank() if grouped else 0
    if rank > 0:
        dist.barrier()  # OGB's first reading of a data set writes a copy of its own
    data = ogb.load(name, arguments.root, mapped=arguments.mapped, sample=arguments.sample)
    if grouped and rank == 0:
        dist.barrier()
    return data


def attention(arguments: argparse.Namespace) -> AbstractContextManager:
    """The context of --control: uniform attention, or nothing."""
    warn("hgat.train.attention", "hgat.ops.uniform_attention")
    return ops.uniform_attention() if arguments.control == "uniform" else nullcontext()
