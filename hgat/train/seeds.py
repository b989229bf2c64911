"""Several seeds of a training script of one's own, with OGB's summary, and a state from which a killed run goes on."""

import copy
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hgat.data.sets import PARTS
from hgat.errors import RecipeError
from hgat.renamed import OldKeys, warn
from hgat.train import checkpoint, state

__all__ = ["Seeds"]

PROGRESS, MODEL = "progress.safetensors", "model.safetensors"
SAVE_EVERY = 2.0  # seconds of work that a run loses at most when it is killed
TITLES = {"val": "Highest Valid", "train": "Final Train", "test": "Final Test"}  # OGB's


class Seeds:
    """The seeds 0 to count - 1, one after the other.

        seeds = Seeds("runs/mine", 10)
        for run in seeds:
            model, optimizer = ...
            for epoch in run.epochs(500, model, optimizer):
                loss = ...
                run.record(loss, train=..., val=..., test=...)  # in percent
        seeds.summary()

    The epoch with the highest `val` counts (better=min: the lowest), ties to the earlier one. With resume, finished
    seeds are left out and an unfinished one goes on behind its last saved epoch, as if it had not been stopped:
    PyTorch's, NumPy's, Python's and DGL's generators are set anew before every epoch. (A DGL DataLoader that is made
    anew in every epoch shuffles alike; its samplers draw in several threads, so that what they draw repeats on one
    thread alone.) settings: what a resumed run must share.

    In a process group (hgat.train.Processes) every process goes through the same loops and records the same scores.
    Each draws numbers of its own, process 0 alone writes and prints, and all resume from what it wrote.

    Raises OutputError for a folder that cannot be written to, RecipeError for the state of other settings or of another
    number of processes, and for several processes without a group.
    """

    def __init__(
        self,
        out: str | Path,
        count: int,
        *,
        resume: bool = False,
        settings: Mapping[str, object] | None = None,
        better: Callable[[float, float], float] = max,
    ) -> None:
        if count < 1:
            raise RecipeError(f"seeds: expected 1 or more, got {count}")
        if not _grouped() and os.environ.get("WORLD_SIZE", "1") != "1":
            got = f"{os.environ['WORLD_SIZE']} that do not know of one another"
            raise RecipeError(f"seeds: expected one process, or hgat.train.Processes around the script, got {got}")
        self.count, self.better = count, better
        self.rank = _rank()
        self.out = checkpoint.make_folder(out) if self.rank == 0 else Path(out)
        settings = {**(settings or {}), "processes": dist.get_world_size() if _grouped() else 1}
        self.about: dict[str, Any] = {"settings": settings, "done": [], "running": None}
        self.tensors: dict[str, Tensor] = {}
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

    def __iter__(self) -> Iterator["_Run"]:
        for seed in range(len(self.about["done"]), self.count):
            torch.manual_seed(seed)
            run = _Run(self, seed)
            yield run
            self._finish(run)

    def _finish(self, run):
        if not run.best:
            raise RecipeError("seeds: expected at least one recorded epoch of every seed, got none")
        self.about["done"].append(run.best)
        self.about["running"], self.tensors = None, {}
        if all(run.best["val"] == self.better(run.best["val"], other["val"]) for other in self.about["done"]):
            self._write(MODEL, run.kept, {"seed": run.seed, **run.best})
        self._write(PROGRESS, {}, self.about)

    def _write(self, name, tensors, about):
        if self.rank == 0:
            save = checkpoint.save_state if name == PROGRESS else checkpoint.save_tensors
            save(self.out / name, tensors, about)
        self.saved = time.monotonic()

    def summary(self) -> dict[str, tuple[float, float | None]]:
        """Print OGB's lines, and give {"train", "val", "test"}: (mean, std) in percent, at the best `val`.

        The standard deviation is the sample's, None of one run.
        """
        found = {}
        for part in PARTS:
            values = [run[part] for run in self.about["done"] if part in run]
            if values:
                found[part] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
        if self.rank == 0:
            print(f"All runs: {len(self.about['done'])}")
            for part, title in TITLES.items():
                if part in found:
                    mean, std = found[part]
                    print(f"{title:>13}: {mean:.2f}" + ("" if std is None else f" ± {std:.2f}"))
        return OldKeys(found, "summary", {"valid": "val"})


class _Run:
    """One seed."""

    def __init__(self, seeds, seed):
        self.seeds, self.seed = seeds, seed
        self.best, self.kept = {}, {}

    def epochs(self, count, model, optimizer):
        """Numbers of the epochs to train, from 1; the state is kept behind each."""
        self.model = model
        first = self._restore(optimizer, count)
        for epoch in range(first + 1, count + 1):
            _seed(self.seed, epoch, self.seeds.rank)
            self._began = time.monotonic()
            yield epoch
            last = epoch == count
            if last or time.monotonic() - self.seeds.saved >= SAVE_EVERY:
                self._save(optimizer, epoch)

    @property
    def seconds(self):
        """Since this epoch began."""
        return time.monotonic() - self._began

    def record(self, loss: float, *, val: float | None = None, **scores: float) -> None:
        """Scores of an epoch, in percent; those of the best `val` count. Raises RecipeError without `val`."""
        if "valid" in scores:
            warn("record(valid=...)", "record(val=...), in percent")
            val = scores.pop("valid")
        if val is None:
            raise RecipeError("record: expected a score val=..., got none")
        if not self.best or (val != self.best["val"] and self.seeds.better(val, self.best["val"]) == val):
            self.best = {"val": float(val), **{name: float(value) for name, value in scores.items()}}
            if self.seeds.rank == 0:
                self.kept = copy.deepcopy(_plain(self.model).state_dict())

    def _save(self, optimizer, epoch):
        if self.seeds.rank > 0:
            return
        moments, counts = checkpoint.pack_optimizer(optimizer)
        tensors = {f"model.{k}": v for k, v in _plain(self.model).state_dict().items()}
        tensors |= {f"kept.{k}": v for k, v in self.kept.items()} | {f"optimizer.{k}": v for k, v in moments.items()}
        numbers = {"seed": self.seed, "epoch": epoch, "best": self.best, "optimizer": counts}
        self.seeds._write(PROGRESS, tensors, {**self.seeds.about, "running": numbers})

    def _restore(self, optimizer, count):
        running = self.seeds.about["running"]
        if not running:
            return 0
        tensors = self.seeds.tensors
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
            path = self.seeds.out / PROGRESS
            raise state.unfit(path, "--resume: expected the state of this model", error) from None
        _plain(self.model).load_state_dict(state.part(tensors, "model."))
        checkpoint.unpack_optimizer(optimizer, moments, running["optimizer"])
        self.kept, self.best = kept, running["best"]
        self.seeds.about["running"], self.seeds.tensors = None, {}
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
    state.record(where, best, ("val",), tuple(best) if type(best) is dict else ())
    for name, value in best.items():
        state.number(f"{where}.{name}", value)


def _grouped():
    return dist.is_available() and dist.is_initialized()


def _rank():
    """This process's number in the process group, 0 without one."""
    return dist.get_rank() if _grouped() else 0


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
