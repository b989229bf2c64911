"""The compiled CPU core: loads it, says what it offers, and says once when it is missing."""

import importlib
import warnings

try:
    _core = importlib.import_module("hgat.kernels.cpu._core")
except ImportError as error:
    _core = None
    _why_missing = str(error)
    warnings.warn(
        "hgat runs without its compiled core, so attention dropout takes slower PyTorch code: "
        f"{error}. Reinstall hgat with a C++17 compiler to build it.",
        stacklevel=2,
    )

__all__ = ["available", "dropout_scale", "info", "why_missing"]


def available():
    """True if the compiled core was loaded."""
    return _core is not None


def why_missing():
    """One sentence that says why the compiled core was not loaded, or None."""
    return None if available() else f"the compiled core could not be loaded ({_why_missing})"


def info():
    """What the compiled core was built for, what this processor offers, and how many threads it may use."""
    if not available():
        return {
            "available": False,
            "reason": why_missing(),
            "instruction_sets": [],
            "processor": [],
            "threads": 1,
            "path": None,
        }
    return {
        "available": True,
        "reason": None,
        "instruction_sets": _core.built_for(),
        "processor": _core.cpu_instruction_sets(),
        "threads": _core.max_threads(),
        "path": _core.__file__,
    }


def dropout_scale(scale, seed, threshold, keep_scale, threads):
    """Fill `scale` [E, H] with 0 where (seed, edge, head) is dropped and `keep_scale` elsewhere."""
    _core.dropout_scale(scale.numpy(), seed, threshold, keep_scale, threads)
