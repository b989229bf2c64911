"""The error classes of hgat, and the checks of shapes and sizes that its operators and layers share.

Every error that a user can cause is an `HgatError`: its message is one sentence with what was expected
and what came. The command line prints that sentence and exits with status 2.
"""

import difflib
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

__all__ = [
    "HgatError",
    "ShapeError",
    "GraphError",
    "BackendError",
    "DataError",
    "RecipeError",
    "TrainingError",
    "OutputError",
    "brief",
    "check_range",
    "check_shape",
    "check_whole",
    "is_whole",
    "meant",
]


class HgatError(Exception):
    """Base of every error that hgat raises on purpose."""


class ShapeError(HgatError, ValueError):
    """A tensor whose shape, type or device does not fit the graph or the other tensors."""


class GraphError(HgatError, ValueError):
    """A graph that cannot be served: a missing relation or meta-path, no edges where some are needed."""


class BackendError(HgatError, RuntimeError):
    """A backend that was asked for by name and cannot run the call; the message holds every reason."""


class DataError(HgatError, ValueError):
    """A data file that is missing, damaged, unsafe to read, or at odds with itself."""


class RecipeError(HgatError, ValueError):
    """A recipe, or a `--set`, with an unknown key, a wrong type or a value out of range."""


class TrainingError(HgatError, RuntimeError):
    """Training that cannot go on: a loss or a gradient that is not finite, a process that failed."""


class OutputError(HgatError, OSError):
    """A result that cannot be written: no permission, no space, not a directory."""


def check_shape(name: str, tensor: object, *expected: tuple[str, int | None]) -> None:
    """Raise ShapeError unless `tensor` has the expected shape.

    `expected` is a sequence of (letter, size) pairs such as ("E", 12), ("H", 4); a size of None accepts
    anything. The message reads `value: expected [N_src, H, D] = [2708, 8, 8], got [2708, 64]`.
    """
    shape = getattr(tensor, "shape", None)
    if (
        shape is not None
        and len(shape) == len(expected)
        and all(size is None or size == got for (_, size), got in zip(expected, shape, strict=True))
    ):
        return
    letters = ", ".join(letter for letter, _ in expected)
    sizes = ", ".join("any" if size is None else str(size) for _, size in expected)
    got = type(tensor).__name__ if shape is None else list(shape)
    raise ShapeError(f"{name}: expected [{letters}] = [{sizes}], got {got}")


def brief(value: object) -> str:
    """`value` as it is written where that is short and on one line, else its type."""
    try:
        text = repr(value)
    except Exception:  # what cannot be written down is not worth an error of its own
        text = ""
    return text if text and len(text) <= 80 and "\n" not in text else f"a {type(value).__name__}"


def meant(got: object, known: Iterable[str]) -> str:
    """What the end of a sentence on an unknown name says: "; did you mean 'gat-cora'?" where one is near, else ""."""
    near = difflib.get_close_matches(str(got), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_range(least: float, most: float | None = None, **values: Any) -> None:
    """Raise ShapeError unless every given value is a number from `least` to `most`; None values are left out."""
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        # Written so that NaN, which compares with nothing, is out of range.
        if value is not None and not (number and value >= least and (most is None or value <= most)):
            bound = f"{least} or more" if most is None else f"a number from {least} to {most}"
            raise ShapeError(f"{name}: expected {bound}, got {brief(value)}")


def is_whole(value: Any, least: int | None = None) -> bool:
    """True for a whole number of `least` or more: an int, NumPy's, a tensor that holds one; not True or False."""
    if isinstance(value, bool) or getattr(value, "dtype", None) is not None and "bool" in str(value.dtype):
        return False
    try:
        value = operator.index(value)
    except (TypeError, RuntimeError):  # a tensor on another device than the CPU cannot be read everywhere
        return False
    return least is None or value >= least


def check_whole(least: int, **values: object) -> None:
    """Raise ShapeError unless every given value is a whole number, `least` or more; None values are left out."""
    for name, value in values.items():
        if value is not None and not is_whole(value, least):
            bound = f"{least} or more" if is_whole(value) else f"a whole number, {least} or more"
            raise ShapeError(f"{name}: expected {bound}, got {brief(value)}")
