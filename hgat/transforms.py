"""PyTorch's function transforms (torch.func.vmap, grad, jacrev, ...) and forward-mode differentiation.

Compiled kernels read memory, and a transform hands out tensors that have none of their own: while one is active, the
operators run as plain PyTorch, which every transform follows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["active", "has_batch", "one_by_one", "outside"]


def active() -> bool:
    """True inside a transform of torch.func, and where forward-mode derivatives are taken."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


@contextmanager
def outside() -> Iterator[None]:
    """Leave all transforms inside the block: what is built there and kept must not belong to one of them."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    if torch._C._functorch.peek_interpreter_stack() is None:
        yield
        return
    with temporarily_clear_interpreter_stack():
        yield


def has_batch(*arguments: object) -> bool:
    """True if PyTorch's older vmap has made a batch of one of the arguments."""
    is_batch = getattr(torch._C._functorch, "is_legacy_batchedtensor", None)  # gone with that vmap, if it goes
    return is_batch is not None and any(isinstance(a, torch.Tensor) and is_batch(a) for a in arguments)


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """How a batch of gradients goes back through `function`, of tensors to a tensor or a list: once per entry.

    torch.autograd.functional.jacobian(vectorize=True) and torch.autograd.grad(is_grads_batched=True) make batches after
    forward has run, by PyTorch's older vmap. (torch.func's transforms are active in forward, and see plain PyTorch.)
    """

    def run(*arguments):
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        batched = [has_batch(a) for a in arguments]
        physical = [
            torch._remove_batch_dim(a, level, 0, 0) if here else a for a, here in zip(arguments, batched, strict=True)
        ]
        size = next(len(a) for a, here in zip(physical, batched, strict=True) if here)
        results = [
            function(*(a[k] if here else a for a, here in zip(physical, batched, strict=True))) for k in range(size)
        ]
        if isinstance(results[0], torch.Tensor):
            return torch._add_batch_dim(torch.stack(results), 0, level)
        return [
            None if parts[0] is None else torch._add_batch_dim(torch.stack(parts), 0, level)
            for parts in zip(*results, strict=True)
        ]

    return run
