"""Settings that a with-block makes, and that hold wherever PyTorch runs the block's forward again.

Activation checkpointing (torch.utils.checkpoint, and what is built on it) runs a function once more in backward, long
after the block has ended and perhaps in another thread. The settings of its first run are made again there: otherwise a
uniform control would be recomputed with learned attention, or another backend would save other tensors.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import wraps
from typing import Any

import torch.utils.checkpoint

__all__ = ["Setting", "chosen_backend"]

_lock = threading.Lock()
_open_blocks = 0
_originals: dict[str, Any] = {}


class Setting:
    """One value per thread and task, changed inside `with setting.to(value)`."""

    every: list["Setting"] = []

    def __init__(self, name: str, default: Any) -> None:
        self._variable = ContextVar(name, default=default)
        self.default = default
        Setting.every.append(self)

    def get(self) -> Any:
        return self._variable.get()

    @contextmanager
    def to(self, value: Any) -> Iterator[None]:
        token = self._variable.set(value)
        _remember()
        try:
            yield
        finally:
            _forget()
            self._variable.reset(token)


# The backend that hgat.ops.use_backend names: the choice is made in hgat.ops.dispatch, and for dropout beside its bits.
chosen_backend = Setting("hgat_backend", "auto")


def _held(function: Callable) -> Callable:
    """`function`, run under the settings of this moment; itself where all have their defaults.

    A value that changes while it holds, such as one that counts, is copied: every run starts from this moment's.
    """
    values = [(setting._variable, copy(setting.get())) for setting in Setting.every if setting.get() != setting.default]
    if not values:
        return function

    def again(*args, **kwargs):
        tokens = [(variable, variable.set(copy(value))) for variable, value in values]
        try:
            return function(*args, **kwargs)
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)

    return again


def _remember() -> None:
    """While a block is open, checkpointing takes functions with their settings; other threads see no difference."""
    global _open_blocks
    with _lock:
        _open_blocks += 1
        if _open_blocks > 1:
            return
        module = torch.utils.checkpoint
        for name, wrap in _WRAPPERS.items():
            if hasattr(module, name):  # names of PyTorch's own, which a release may drop
                _originals[name] = getattr(module, name)
                setattr(module, name, wrap(_originals[name]))


def _reentrant(original):
    class CheckpointFunction(original):
        @staticmethod
        def apply(function, *args):
            runs = iter([function])  # the first run is the forward itself, under the settings as they are

            held = _held(function)
            return original.apply(lambda *inputs: next(runs, held)(*inputs), *args)

    return CheckpointFunction


def _plain(original):
    @wraps(original)
    def without_reentrant(function, *args, **kwargs):
        return original(_held(function), *args, **kwargs)

    return without_reentrant


# How torch.utils.checkpoint hands on the function that it will run again, with and without reentrant autograd;
# PyTorch 2.14 goes by the last name, and keeps the one before for others.
_WRAPPERS = {
    "CheckpointFunction": _reentrant,
    "_checkpoint_without_reentrant_generator": _plain,
    "_checkpoint_without_reentrant_generator_impl": _plain,
}


def _forget() -> None:
    global _open_blocks
    with _lock:
        _open_blocks -= 1
        if _open_blocks == 0:
            for name, original in _originals.items():
                setattr(torch.utils.checkpoint, name, original)
            _originals.clear()
