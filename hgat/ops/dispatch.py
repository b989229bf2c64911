"""Which backend runs an operator, and why not the others.

A backend is a module of functions with the operators' names and positional arguments, and a function
`why_not(operator, tensors)` that gives None if it serves the call and one sentence if it does not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hgat import transforms
from hgat.errors import BackendError
from hgat.ops import chunks, native, reference
from hgat.ops.contexts import Setting
from hgat.renamed import old_names

__all__ = ["backends", "pick", "use_backend"]

_chosen = Setting("hgat_backend", "auto")


class _Reference:
    """DGL's message passing: serves everything."""

    kernels = reference

    @staticmethod
    def why_not(operator: str | None, tensors: tuple[Tensor | None, ...]) -> str | None:
        return None


class _Native:
    """The compiled CPU core."""

    kernels = native.kernels
    why_not = staticmethod(native.why_not)


class _Unbuilt:
    """A backend whose kernels this build of hgat does not contain."""

    kernels = None

    def __init__(self, reason: Callable[[], str]) -> None:
        self._reason = reason

    def why_not(self, operator: str | None, tensors: tuple[Tensor | None, ...]) -> str | None:
        return self._reason()


# From the fastest to the one that always runs; "auto" takes the first that serves the call.
_BACKENDS: dict[str, Any] = {
    "triton": _Unbuilt(lambda: "this version of hgat contains no Triton kernels"),
    "native": _Native(),
    "dgl": _Reference(),
}


def backends() -> dict[str, str | None]:
    """Name -> None if the backend can run on this machine, else one sentence that says why it cannot."""
    return {name: backend.why_not(None, ()) for name, backend in _BACKENDS.items()}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators inside the block on one backend: "dgl", "native", "triton", or "auto" for the fastest.

    A named backend that cannot run a call raises BackendError there, with the reason; nothing falls back. What the
    block decides holds in backward, and where activation checkpointing runs forward again, too.
    """
    if name not in ("auto", *_BACKENDS):
        raise BackendError(f"backend: expected one of {['auto', *_BACKENDS]}, got {name!r}")
    with _chosen.to(name):
        yield


def pick(operator: str, *tensors: Tensor | None) -> Callable[..., Tensor]:
    """The function that runs `operator` on these tensors; BackendError if the named backend cannot."""
    chosen = _chosen.get()
    reasons = []
    for name, backend in _BACKENDS.items():
        if chosen not in ("auto", name):
            continue
        reason = backend.why_not(operator, tensors)
        if reason is None:
            run = getattr(backend.kernels, operator)
            in_parts = backend.kernels is reference and not transforms.active()
            edges = chunks.limit() if in_parts else None
            return run if edges is None else chunks.run(run, edges)
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"{operator}: no backend can run this call ({'; '.join(reasons)})")


__getattr__ = old_names(globals(), {"uniform_attention": "hgat.ops.alignment.uniform_attention"})
