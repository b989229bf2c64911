"""Which backend runs an operator, and why not the others.

A backend has `kernels`, an object whose methods have the operators' names and positional arguments, and a function
`why_not(operator, tensors)` that gives None if it serves the call and one sentence if it does not.

    triton    compiled kernels on GPUs
    native    compiled kernels on the CPU
    dgl       DGL's message passing and fused edge softmax; where DGL refuses a step, that of `torch`
    torch     plain PyTorch, on any device

Typed projections are PyTorch's own products under every backend.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from hgat import transforms
from hgat.errors import BackendError
from hgat.graph import csr
from hgat.ops import chunks, native, triton
from hgat.ops.contexts import chosen_backend as _chosen
from hgat.ops.hooks import Hooked, is_hooked
from hgat.ops.plain import Plain, gat_attention
from hgat.ops.reference import Reference
from hgat.renamed import old_names

__all__ = ["backends", "pick", "use_backend"]


class _Everywhere:
    """A backend that serves everything."""

    def __init__(self, kernels: Plain) -> None:
        self.kernels = kernels

    @staticmethod
    def why_not(operator: str | None, tensors: tuple[Tensor | None, ...]) -> str | None:
        return None


# From the fastest to the one that always runs; "auto" takes the first that serves the call.
_BACKENDS: dict[str, Any] = {
    "triton": triton,
    "native": native,
    "dgl": _Everywhere(Reference()),
    "torch": _Everywhere(Plain()),
}


def backends() -> dict[str, str | None]:
    """Name -> None if the backend can run on this machine, else one sentence that says why it cannot."""
    return {name: backend.why_not(None, ()) for name, backend in _BACKENDS.items()}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators inside the block on one backend: "triton", "native", "dgl", "torch", or "auto" for the fastest.

    A named backend that cannot run a call raises BackendError there, with the reason; nothing falls back. What the
    block decides holds in backward, and where activation checkpointing runs forward again, too.
    """
    if name not in ("auto", *_BACKENDS):
        raise BackendError(f"backend: expected one of {['auto', *_BACKENDS]}, got {name!r}")
    with _chosen.to(name):
        yield


def pick(operator: str, *tensors: Any) -> Callable[..., Tensor]:
    """The function that runs `operator` on these tensors; BackendError if the named backend cannot.

    tensors: of one device, the first of them a tensor, others perhaps None. Inside `attention_hook` the operators of
    attention run in steps between which the hook is called.
    """
    if is_hooked() and hasattr(_HOOKED, operator):
        return getattr(_HOOKED, operator)
    return _serve(operator, *tensors)


def _serve(operator: str, *tensors: Any) -> Callable[..., Tensor]:
    chosen = _chosen.get()
    device = tensors[0].device.type
    reasons = []
    for name, backend in _BACKENDS.items():
        if chosen != name and (chosen != "auto" or not _worth(name, device)):
            continue
        reason = backend.why_not(operator, tensors)
        if reason is None:
            run = getattr(backend.kernels, operator)
            in_parts = isinstance(backend.kernels, Plain) and not transforms.active()
            edges = chunks.limit() if in_parts else None
            if edges is not None and operator == "gat_attention":  # its scores first: a chunk's rows are not its ends'
                parts = SimpleNamespace(additive_attention=chunks.run(backend.kernels.additive_attention, edges))
                return partial(gat_attention, parts)
            return run if edges is None else chunks.run(run, edges)
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"{operator}: no backend can run this call ({'; '.join(reasons)})")


_HOOKED = Hooked(_serve)


def _worth(name: str, device: str) -> bool:
    """Whether "auto" asks a backend: not Triton's interpreter, and not `dgl` where `torch` does all of its steps."""
    if name == "triton":
        return device != "cpu"
    return name != "dgl" or (device in csr.devices_of_dgl() and not transforms.active())


__getattr__ = old_names(globals(), {"uniform_attention": "hgat.ops.alignment.uniform_attention"})
