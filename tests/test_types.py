"""Types and docstrings of the public interface: every argument and every result has a hint that can be read.

Public is what a module's `__all__` names, or, without one, what it defines under a name without an underscore; of a
class its constructor, its methods and its properties.
"""

import functools
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import hgat

HOME = Path(hgat.__file__).parent
SPECIAL = {"__call__", "__getitem__", "__init__", "__iter__", "__len__"}
SHAPE = re.compile(r"\[[A-Z]\w*(?:, ?[^\]]*)?\]")  # [N, F], [E], [N_dst, *, H, D]


def modules():
    """The name of every module of hgat."""
    names = (".".join(["hgat", *path.relative_to(HOME).with_suffix("").parts]) for path in HOME.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names)


def public(module):
    """(name, object) of every public function and class of a module that is no other package's."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__]
    for name in names:
        thing = getattr(module, name)
        home = getattr(thing, "__module__", None) or ""
        if (inspect.isclass(thing) or callable(thing)) and home.startswith("hgat"):
            yield name, thing


def functions(name, thing):
    """(name, function) of a public function, or of everything public that a class itself defines."""
    if not inspect.isclass(thing):
        yield name, thing
        return
    for key, value in vars(thing).items():
        if key.startswith("_") and key not in SPECIAL:
            continue
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.cached_property):
            value = value.func
        if inspect.isfunction(value):
            yield f"{name}.{key}", value


def without_hints(name, thing):
    """One sentence for every argument and result without a hint, and for hints that name what is not there."""
    for where, function in functions(name, thing):
        signature = inspect.signature(function)
        given = list(signature.parameters.values())
        if given and given[0].name in ("self", "cls"):
            given = given[1:]
        for parameter in given:
            if parameter.annotation is parameter.empty:
                yield f"{where}: expected a type of {parameter.name}, got none"
        if signature.return_annotation is signature.empty:
            yield f"{where}: expected a type of what it gives, got none"
        try:
            typing.get_type_hints(function)
        except Exception as error:  # whatever a hint that cannot be evaluated raises
            yield f"{where}: expected types that can be read, got {type(error).__name__}: {error}"


def without_text(name, thing):
    """One sentence for a class without a docstring of its own, and for a forward that does not say what goes in."""
    if not inspect.isclass(thing):
        return
    text = vars(thing).get("__doc__") or ""
    if not text or text.startswith(f"{thing.__name__}("):  # what a dataclass or a named tuple writes for itself
        yield f"{name}: expected a docstring of its own, got none"
    if "forward" in vars(thing) and issubclass(thing, torch.nn.Module):
        text = thing.forward.__doc__ or ""
        for what, there in (
            ("shapes in brackets", SHAPE.search(text)),
            ("the errors that it raises", "Raises" in text),
        ):
            if not there:
                yield f"{name}.forward: expected a docstring with {what}, got {text[:40]!r}"


@pytest.mark.parametrize("name", modules())
def test_the_public_interface_has_types_and_docstrings(name):
    if name.startswith("hgat.kernels.triton._"):
        pytest.importorskip("triton", reason="Triton is not installed")
    found = list(public(importlib.import_module(name)))
    assert [sentence for one in found for sentence in without_hints(*one)] == []
    assert [sentence for one in found for sentence in without_text(*one)] == []


def test_the_whole_house_is_checked():
    # The kernels' own modules cannot be read where Triton is not installed.
    names = [name for name in modules() if not name.startswith("hgat.kernels.triton._")]
    checked = {thing for name in names for _, thing in public(importlib.import_module(name))}
    assert {hgat.nn.GATConv, hgat.graph.snapshots, hgat.data.load, hgat.accelerate} <= checked
    assert {hgat.models.GAT, hgat.tasks.find("nodes"), hgat.train.train, hgat.explain.draw, hgat.cli.main} <= checked
    assert len(checked) > 300


# ---- the check itself ----


class Layer(torch.nn.Module):
    """A layer."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, feat: torch.Tensor, weight=None) -> torch.Tensor:
        return feat

    @property
    def width(self):
        return 1

    @classmethod
    def of(cls, other) -> "Layer":
        return cls(1)

    def _own(self, anything):
        return anything


class Whole(torch.nn.Module):
    """A layer."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, feat: torch.Tensor, *more: torch.Tensor, **options: int) -> torch.Tensor:
        """feat [N, F] -> [N, D]. Raises ShapeError."""
        return feat


@dataclass
class Bare:
    size: int


def unknown(size: int) -> int:
    return size


unknown.__annotations__["size"] = "Nowhere"


def test_what_lacks_a_hint_is_found():
    assert list(without_hints("Layer", Layer)) == [
        "Layer.__init__: expected a type of what it gives, got none",
        "Layer.forward: expected a type of weight, got none",
        "Layer.width: expected a type of what it gives, got none",
        "Layer.of: expected a type of other, got none",
    ]
    assert list(without_hints("Whole", Whole)) == list(without_hints("Bare", Bare)) == []
    (sentence,) = without_hints("unknown", unknown)
    assert sentence.startswith("unknown: expected types that can be read, got NameError")


def test_what_lacks_a_docstring_is_found():
    assert [sentence.split(", got")[0] for sentence in without_text("Layer", Layer)] == [
        "Layer.forward: expected a docstring with shapes in brackets",
        "Layer.forward: expected a docstring with the errors that it raises",
    ]
    assert list(without_text("Bare", Bare)) == ["Bare: expected a docstring of its own, got none"]
    assert list(without_text("Whole", Whole)) == []


def test_public_is_what_all_names_or_a_module_defines():
    def made(module):
        def function():
            pass

        function.__module__ = module
        return function

    given = {"mine": made("hgat.attic"), "theirs": made("torch.nn"), "number": 3}
    given["_own"] = given["mine"]
    bare = SimpleNamespace(__name__="hgat.attic", **given)
    assert [name for name, _ in public(bare)] == ["mine"]
    listed = SimpleNamespace(__name__="hgat.attic", __all__=["_own", "number", "theirs"], **given)
    assert [name for name, _ in public(listed)] == ["_own"]
