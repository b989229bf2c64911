"""What is asked, and how an answer is scored: one file per task, found by file name.

A task file `<name>.py` exports one class in `__all__`, a Task: hgat.tasks._task says what it promises. Recipes name it
in [task]; the keyword-only arguments of its constructor are the keys there.
"""

import importlib
import pkgutil

from hgat.errors import RecipeError, meant
from hgat.tasks._task import Task

__all__ = ["Task", "available", "find"]


def available() -> list[str]:
    """Names of the tasks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> type[Task]:
    """The class of a task, by the name of its file. Raises RecipeError for an unknown one."""
    if name not in available():
        raise RecipeError(
            f"task.name: expected one of {', '.join(available())}, got {name!r}{meant(name, available())}"
        )
    module = importlib.import_module(f"hgat.tasks.{name}")
    (found,) = module.__all__
    return getattr(module, found)
