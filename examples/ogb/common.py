"""How the scripts beside this file read their command line; which options they have, each says itself."""

import argparse

import torch

CONTROLS = ("none", "uniform", "mlp")
COUNTS = ("runs", "epochs", "hidden", "heads", "layers", "batch", "negatives", "bases")
HELP = {
    "runs": "seeds, counted from 0",
    "epochs": "epochs of each run",
    "lr": "learning rate",
    "hidden": "width of the hidden layers, all heads together",
    "heads": "heads of the hidden layers",
    "dropout": "dropout between layers",
}


class Options(argparse.ArgumentParser):
    """A script's own options, and --root, --mapped, --sample, --device, --control, --out and --resume.

    description: the script's docstring. out: the folder of its results, to which --conv and --control are added where
    they are not the default, and "sample" with --sample, so that no run overwrites the checkpoint of another model.
    own: {option: default}; a tuple holds what may be chosen, the default first. sample: the defaults with --sample.
    """

    def __init__(self, description, out, own, sample):
        title = description.strip().partition("\n")[0]
        super().__init__(description=title, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        self.out, self.sample = out, sample
        for name, default in own.items():
            text = HELP.get(name, name)
            if isinstance(default, tuple):
                self.add_argument(f"--{name}", choices=default, default=default[0], help=text)
            else:
                self.add_argument(f"--{name}", type=_number(name, type(default)), default=default, help=text)
        add = self.add_argument
        add("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1, ...")
        add("--control", choices=CONTROLS, default="none", help="what attention is replaced by")
        add("--root", help="folder of OGB's data sets (default: HGAT_DATA, or ~/.cache/hgat)")
        add("--mapped", action="store_true", help="keep features in memory-mapped files")
        add("--sample", action="store_true", help="run on small data of the same form, written on the spot")
        add("--resume", action="store_true", help="go on with the run in --out")
        text = f"folder of the checkpoint (default: {out}, with what is not the default behind it)"
        add("--out", default=argparse.SUPPRESS, help=text)

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        if found.sample:
            self.set_defaults(**self.sample)
            found = super().parse_args(args, namespace)
        if found.hidden % found.heads:
            self.error(f"argument --hidden: expected a multiple of --heads {found.heads}, got {found.hidden}")
        if not hasattr(found, "out"):
            chosen = {key: getattr(found, key, None) for key in ("conv", "control")}
            other = [value for key, value in chosen.items() if value != self.get_default(key)]
            found.out = "-".join([self.out, *other, *(["sample"] if found.sample else [])])
        return found


def _number(name, kind):
    """What argparse reads a number with: names that count start at 1, rates are rates."""

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
