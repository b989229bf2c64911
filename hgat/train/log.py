"""Loggers beside history.csv: TensorBoard and Weights & Biases, each imported where it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hgat.errors import RecipeError, meant

__all__ = ["LOGGERS", "check_logger", "logger"]

LOGGERS = ("csv", "tensorboard", "wandb")
MEASURES = ("loss", "val", "val_loss")


def check_logger(name: str) -> None:
    """Raise RecipeError for a logger that hgat does not know."""
    if name not in LOGGERS:
        raise RecipeError(f"--log: expected one of {', '.join(LOGGERS)}, got {name!r}{meant(name, LOGGERS)}")


@contextmanager
def logger(name: str, out: Path, title: str) -> Iterator[Callable[[dict[str, Any]], object]]:
    """A function that takes every row of history.csv. csv: nothing more, the file is there anyway. tensorboard: into
    the folder `tensorboard` of the run. wandb: a run of the project hgat, whose files are in the run's folder.

    Raises RecipeError for an unknown one, and where its package is missing.
    """
    check_logger(name)
    if name == "csv":
        yield lambda row: None
        return
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter
        else:
            import wandb
    except ImportError:
        raise RecipeError(f'--log: expected the package {name}, got none; pip install "hgat[log]"') from None
    if name == "tensorboard":
        with SummaryWriter(str(out / name)) as writer:

            def write(row):
                for key, value in _named(row).items():
                    writer.add_scalar(key, value, row["epoch"])

            yield write
    else:
        with wandb.init(project="hgat", name=title, dir=str(out)) as run:
            yield lambda row: run.log({**_named(row), "epoch": row["epoch"]})


def _named(row: Mapping[str, Any]) -> dict[str, float]:
    """{"ours/seed 0/loss": value, ...}."""
    place = f"{row['variant']}/seed {row['seed']}" + ("/refit" if row["stage"] == "refit" else "")
    return {f"{place}/{key}": row[key] for key in MEASURES}
