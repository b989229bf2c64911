"""Old public names, which stay for one release and say the new one."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["OldKeys", "old_names", "warn"]


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is now called `new`."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release", FutureWarning, stacklevel)


def old_names(module: dict[str, Any], names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's __getattr__ that gives what {old name: new name} says, with a warning.

    module: its globals(). A new name with dots is another module's, which is imported when it is asked for.
    Raises AttributeError for every other name, as Python does.
    """

    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        home, _, new = names[name].rpartition(".")
        warn(f"{module['__name__']}.{name}", f"{home or module['__name__']}.{new}")
        return getattr(importlib.import_module(home), new) if home else module[new]

    return __getattr__


class OldKeys(dict):
    """A dict that gives what {old key: new key} says, with a warning; it does not count its old keys.

    what: what the dict is called, in the warning.
    """

    def __init__(self, content: Mapping[str, Any], what: str, keys: Mapping[str, str]) -> None:
        super().__init__(content)
        self._what, self._keys = what, keys

    def __missing__(self, key):
        if key not in self._keys:
            raise KeyError(key)
        warn(f"{self._what}[{key!r}]", f"{self._what}[{self._keys[key]!r}]")
        return self[self._keys[key]]
