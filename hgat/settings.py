"""Settings given as keys and values, checked against the keyword-only arguments of the function they go to.

Recipes, `--set` and loader options all end here, so that an unknown key or a wrong type reads the same
everywhere.
"""

import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from hgat.errors import meant

__all__ = ["check_settings", "fits", "tomllib"]


def fits(value: Any, kind: Any) -> bool:
    """True if `value` is of the annotated type.

    An int serves for a float and True does not serve for an int. Infinity and NaN serve for nothing: no
    setting means them, and a recipe that holds them could not be written down as JSON.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin in (list, Sequence):
        return isinstance(value, (list, tuple)) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return type(value) is dict and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if kind is type(None):
        return value is None
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind


def _readable(kind):
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):  # Python 3.10 writes int | None as Optional[int]
        return " | ".join("None" if choice is type(None) else _readable(choice) for choice in get_args(kind))
    text = kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)
    text = text.replace("typing.", "").replace("collections.abc.Sequence", "list")
    return text.replace("float", "finite float")


def check_settings(
    where: str, function: Callable[..., Any], settings: Mapping[str, object], error: type[Exception]
) -> None:
    """Raise `error` unless the settings are keyword-only arguments of `function`, fit, and none is missing.

    `function` may be a class: its __init__ is read. `where` begins the sentence, as in "model" or "cora".
    """
    target: Any = function
    if isinstance(function, type):
        target = target.__init__
    known = [p for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    names = [p.name for p in known]
    hints = get_type_hints(target)
    for key, value in settings.items():
        if key not in names:
            raise error(f"{where}: expected only the keys {', '.join(names)}, got {key!r}{meant(key, names)}")
        if not fits(value, hints[key]):
            raise error(f"{where}.{key}: expected {_readable(hints[key])}, got {value!r}")
    for parameter in known:
        if parameter.default is parameter.empty and parameter.name not in settings:
            raise error(f"{where}.{parameter.name}: expected {_readable(hints[parameter.name])}, got no such key")
