"""Old public names, which stay for one release and say the new one."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["old_names", "warn"]


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is now called `new`."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release", FutureWarning, stacklevel)


def old_names(module: dict[str, Any], names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's __getattr__ that gives what {old name: new name} says, with a warning.

    module: its globals(). Raises AttributeError for every other name, as Python does.
    """

    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        warn(f"{module['__name__']}.{name}", f"{module['__name__']}.{names[name]}")
        return module[names[name]]

    return __getattr__
