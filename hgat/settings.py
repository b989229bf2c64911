"""Settings given as keys and values, checked against the keyword-only arguments of the function they go to.

Recipes, `--set` and loader options all end here, so that an unknown key or a wrong type reads the same everywhere.
"""

import inspect
import sys
import types
from typing import Literal, Union, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["check_settings", "fits", "tomllib"]


def fits(value, kind):
    """True if `value` is of the annotated type; an int serves for a float, True does not serve for an int."""
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind) and any(type(value) is type(choice) for choice in get_args(kind))
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in get_args(kind))
    if kind is type(None):
        return value is None
    if origin is list:
        return isinstance(value, (list, tuple)) and all(fits(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _readable(kind):
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind).replace("typing.", "")


def check_settings(where, function, settings, error):
    """Raise `error` unless every setting is a keyword-only argument of `function` with a value that fits.

    `function` may be a class: its __init__ is read. `where` begins the sentence, as in "model" or "cora".
    """
    target = function.__init__ if isinstance(function, type) else function
    known = [p.name for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hints = get_type_hints(target)
    for key, value in settings.items():
        if key not in known:
            raise error(f"{where}: expected only the keys {', '.join(known)}, got {key!r}")
        if not fits(value, hints[key]):
            raise error(f"{where}.{key}: expected {_readable(hints[key])}, got {value!r}")
