"""What a saved state may hold. It is checked as a whole, before any of it is used.

Whoever edits a file of a run, or puts another's in its place, gets one sentence; a state that half fits would be worse
than none.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hgat.errors import DataError

__all__ = ["Unfit", "check_generator", "check_optimizer", "check_tensors", "number", "part", "record", "unfit", "whole"]

ADVICE = "delete it, or run without --resume to start anew"
LARGEST = 2**53  # whole numbers up to here are the same in JSON, as floats and in every tensor


class Unfit(ValueError):
    """A state that does not fit, in one clause: where, what was expected and what came."""

    def __init__(self, where: str, expected: str, got: object) -> None:
        super().__init__(f"{where}: expected {expected}, got {_short(got)}")


def _short(value):
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = " ".join(f"{value}".split()) if isinstance(value, str) else " ".join(repr(value).split())
    return text[:80] or "nothing"


def whole(where: str, value: object, least: int = 0, most: int = LARGEST) -> None:
    """Raise Unfit unless the value is a whole number of the range, and no bool."""
    if type(value) is not int or not least <= value <= most:
        raise Unfit(where, f"a whole number from {least} to {most}", value)


def number(
    where: str, value: object, least: float = -math.inf, most: float = math.inf, also: Collection[str] = ()
) -> None:
    """Raise Unfit unless the value is a finite float of the range; also: texts of others, "inf", "-inf", "nan"."""
    if type(value) is float and str(value) in also:
        return
    if type(value) is not float or not abs(value) <= 1e300:
        raise Unfit(where, "a finite number with a point", value)
    if not least <= value <= most:
        raise Unfit(where, f"a number from {least} to {most}", value)


def record(where: str, value: object, needed: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise Unfit unless the value is a dict with the needed keys, perhaps the optional ones, and no other."""
    if type(value) is not dict:
        raise Unfit(where, "an object with keys", value)
    for key in needed:
        if key not in value:
            raise Unfit(where, f"the key {key!r}", f"only {', '.join(map(str, value)) or 'none'}")
    for key in value:
        if key not in needed and key not in optional:
            raise Unfit(where, f"only the keys {', '.join([*needed, *optional]) or 'of none'}", f"{key!r}")


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def check_tensors(where: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], finite: bool = True) -> None:
    """Raise Unfit unless the tensors have the expected ones' names, shapes and types, and are finite."""
    for name, tensor in expected.items():
        if name not in found:
            raise Unfit(f"{where}{name}", _short(tensor), "none")
        got = found[name]
        if got.shape != tensor.shape or got.dtype != tensor.dtype:
            raise Unfit(f"{where}{name}", _short(tensor), got)
        if finite:
            _check_finite(f"{where}{name}", got)
    for name in found:
        if name not in expected:
            raise Unfit(f"{where}{name}", "no such tensor", found[name])


def _check_finite(where, tensor):
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise Unfit(where, "finite numbers", f"{int((~torch.isfinite(tensor)).sum())} others")


def check_generator(where: str, tensor: Tensor, cuda: bool = False) -> None:
    """Raise Unfit unless the tensor is a state of PyTorch's generator."""
    device = "cuda" if cuda else "cpu"
    scratch = torch.Generator(device)
    expected = scratch.get_state()
    if tensor.dtype != expected.dtype or tensor.shape != expected.shape:
        raise Unfit(where, _short(expected), tensor)
    try:
        scratch.set_state(tensor)
    except RuntimeError as error:
        raise Unfit(where, "the state of a random generator", str(error).split("\n")[0]) from None


# Of the optimisers whose state is known: what each parameter has beside its step.
_MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.AdamW: ("exp_avg", "exp_avg_sq")}


def check_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Any) -> None:
    """Raise Unfit unless `checkpoint.pack_optimizer` may have given these of an optimiser like this one."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if type(numbers) is not dict:
        raise Unfit("optimizer", "an object with keys", numbers)
    states: dict[int, set[str]] = {}
    known_names = {str(index) for index in range(len(parameters))}
    for name, value in numbers.items():
        index, _, key = name.partition(".")
        if not key or index not in known_names:
            raise Unfit("optimizer", f"the state of {len(parameters)} parameters by their numbers", name)
        states.setdefault(int(index), set()).add(key)
        if type(value) is list:
            if name not in tensors:
                raise Unfit(f"optimizer.{name}", f"a tensor of {_short(value)}", "none")
            _check_moment(f"optimizer.{name}", tensors[name], value, parameters[int(index)], key)
        elif value is not None and type(value) not in (bool, int):
            number(f"optimizer.{name}", value)
    for name in tensors:
        if type(numbers.get(name)) is not list:
            raise Unfit(f"optimizer.{name}", "no such tensor", tensors[name])
    known = _MOMENTS.get(type(optimizer))
    for index, keys in states.items():
        expected = next(iter(states.values()))
        if known:
            group = next(g for g in optimizer.param_groups if any(p is parameters[index] for p in g["params"]))
            expected = {"step", *known} | ({"max_exp_avg_sq"} if group["amsgrad"] else set())
        if keys != expected:
            raise Unfit(f"optimizer.{index}", ", ".join(sorted(expected)), ", ".join(sorted(keys)))


def _check_moment(where, tensor, noted, parameter, key):
    if [str(tensor.dtype), *tensor.shape] != noted:
        raise Unfit(where, " ".join(map(_short, noted)), tensor)
    if key == "step":
        if tensor.numel() != 1 or not tensor.is_floating_point():
            raise Unfit(where, "a number of steps", tensor)
        if not 1 <= float(tensor) <= LARGEST or float(tensor) % 1:
            raise Unfit(where, "a number of steps", float(tensor))
    elif key.startswith(("exp_avg", "max_exp_avg", "momentum_buffer", "square_avg")):
        check_tensors(where.removesuffix(key), {key: tensor}, {key: parameter.detach()})
        if "sq" in key and (tensor < 0).any():
            raise Unfit(where, "numbers from 0", float(tensor.min()))
    else:
        _check_finite(where, tensor)


def unfit(path: Path, sentence: str, error: Unfit) -> DataError:
    """The DataError of a state in a file that does not fit; `sentence` ends before what came."""
    return DataError(f"{sentence}, got another in {path}: {error}; {ADVICE}")
