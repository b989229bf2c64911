"""One training script on one process or on several: what torchrun started, and what the processes share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hgat.errors import RecipeError, TrainingError

__all__ = ["Processes"]

TIMEOUT = timedelta(hours=2)  # the others wait while process 0 reads a data set for the first time


class Processes:
    """The processes that torchrun started on this machine, or, without torchrun, the one process that there is.

        with Processes("cpu") as processes:
            model = processes.wrap(Net().to(processes.device))
            for epoch in range(epochs):
                order = processes.shares(train, 1024)  # each process takes 1024 / size seeds a step
                for inputs, seeds, blocks in dgl.dataloading.DataLoader(
                    graph, order, sampler, batch_size=1024 // processes.size, use_ddp=processes.size > 1
                ):
                    loss = ...  # the mean over the seeds of this process
                    loss.backward()
                processes.print(processes.mean(loss.detach()))

    rank, size: this process's number and how many there are. device: "cpu", or the process's own GPU for "cuda".
    Gloo carries tensors on the CPU, NCCL those on GPUs. Nothing else is done than a script could do by itself with
    torch.distributed; a process group that is there already is used, and left as it is.
    A process that fails inside the context raises TrainingError, one sentence with its number and the cause, which
    torchrun repeats at the end; torchrun stops the others. A launch has one context: put the whole script into it.
    Raises RecipeError for environment variables that torchrun did not set, and for CUDA where there is too little.
    """

    _over = False

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._launched, self._own = False, False
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size, self._launched = dist.get_rank(), dist.get_world_size(), True
            place = int(os.environ.get("LOCAL_RANK", self.rank))
        else:
            self.rank, self.size, place = self._read()
        if self.device.type == "cuda":
            self._pick_gpu(place)

    def _read(self):
        """(rank, size, number on this machine) as torchrun sets them, 0, 1 and 0 where nobody set any."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        found = {name: os.environ.get(name) for name in names}
        if found["RANK"] is None and found["WORLD_SIZE"] is None:
            return 0, 1, 0
        try:
            rank, size, place = (int(found[name]) for name in names)
            if not 0 <= place <= rank < size:
                raise ValueError
        except (TypeError, ValueError):
            got = ", ".join(f"{name}={value}" for name, value in found.items())
            raise RecipeError(f"processes: expected RANK below WORLD_SIZE, as torchrun sets them, got {got}") from None
        self._launched = self._own = True
        return rank, size, place

    def _pick_gpu(self, place):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.size > 1 and self.device.index is not None:
            raise RecipeError(f"device: expected cuda without a number for {self.size} processes, got {self.device}")
        if self.device.index is None:
            self.device = torch.device("cuda", place)
        if self.device.index >= count:
            got = f"{count} GPUs that PyTorch can use"
            raise RecipeError(f"device: expected {self.device} for process {self.rank}, got {got}")
        torch.cuda.set_device(self.device)

    def __enter__(self):
        if self._own:
            if Processes._over:  # a second group would meet the addresses of the first in torchrun's store, and hang
                raise RecipeError("processes: expected one context in a launch, got a second")
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            try:
                dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
            except (RuntimeError, ValueError) as error:
                self._fail(error)
        return self

    def __exit__(self, kind, error, traceback):
        if not self._own:
            return
        if error is None:
            try:
                self.wait()
            except RuntimeError as lost:
                error = lost
        if error is None:
            Processes._over = True
            dist.destroy_process_group()
        elif isinstance(error, Exception) and self.size > 1:
            self._fail(error)  # without leaving the group: others may never do

    def _fail(self, error):
        from torch.distributed.elastic.multiprocessing.errors import record

        @record  # writes down what torchrun shows at the end
        def fail():
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise TrainingError(f"process {self.rank} of {self.size} failed: {cause}") from error

        fail()

    @contextmanager
    def first(self) -> Iterator[None]:
        """What process 0 does before the others, as the first reading of a data set that leaves a cache behind."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()

    def wrap(self, model: nn.Module, **options: Any) -> nn.Module:
        """The model in DistributedDataParallel, or where there is one process without torchrun the model itself.

        options: DistributedDataParallel's, such as find_unused_parameters=True for a model that leaves parameters out.
        """
        return torch.nn.parallel.DistributedDataParallel(model, **options) if self._launched else model

    def shares(self, ids: Tensor, batch: int) -> Tensor:
        """`ids` in a new random order, for DGL's DataLoader with use_ddp and batches of batch / size.

        DGL gives every process one piece of what it gets. The pieces are laid so that at every step the processes
        together have the `batch` seeds that one process would have, which draws as DGL's shuffle=True does, and each as
        many as the other: the mean over processes is the mean over seeds. Where the processes do not divide the ids,
        the last few of the order are left out. Called by all processes.
        Raises RecipeError for a batch that the processes do not divide, and for fewer ids than processes.
        """
        if batch < 1 or batch % self.size:
            raise RecipeError(f"batch: expected a multiple of the {self.size} processes, got {batch}")
        if len(ids) < self.size:
            raise RecipeError(f"ids: expected one or more for each of {self.size} processes, got {len(ids)}")
        order = torch.from_numpy(np.random.permutation(len(ids)))
        if self.size > 1:
            dist.broadcast(order, 0)
        order = ids[order[: len(ids) // self.size * self.size]]
        pieces = [step.chunk(self.size) for step in order.split(batch)]
        return torch.cat([piece[rank] for rank in range(self.size) for piece in pieces])

    def part(self, ids: Tensor, batch: int) -> Tensor:
        """This process's part of `ids`, whole batches in turn, for what needs no gradient; may be empty."""
        return torch.cat([ids[:0], *ids.split(batch)[self.rank :: self.size]])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place. Called by all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, in place. Called by all processes."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self._launched:
            dist.barrier()

    def print(self, *values: object) -> None:
        """Print on process 0."""
        if self.rank == 0:
            print(*values, flush=True)
