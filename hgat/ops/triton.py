"""The `triton` backend: kernels that Triton compiles for the GPU of the tensors, registered with hgat.ops.

NVIDIA's from Volta on; AMD's and Intel's by the same kernels, under a PyTorch that is built for them. Under
TRITON_INTERPRET=1 Triton's interpreter runs them on the CPU, slowly, and only where the backend is named.
"""

from functools import cache

import torch
from torch import Tensor

from hgat import transforms
from hgat.kernels import triton
from hgat.ops import registry
from hgat.ops.compiled import Compiled

__all__ = ["kernels", "why_not"]

STORED = (torch.float32, torch.bfloat16, torch.float16)
MOST_HEADS = 16_384  # and columns of a head: a program holds a row, and a grid has 65,535 groups
OLDEST = (7, 0)  # compute capability of NVIDIA's Volta, the oldest that Triton compiles for

registry.implement(triton, several=True)
kernels = Compiled(triton)


def why_not(operator: str | None, tensors: tuple[Tensor | None, ...]) -> str | None:
    """None if the kernels serve these tensors, else one sentence that says why they do not."""
    given = [tensor for tensor in tensors if tensor is not None]
    reason = _why_not_on(given[0].device if given else _gpu())
    if reason is not None:
        return reason
    if transforms.active():
        return "the Triton kernels do not run inside torch.func's transforms and forward-mode differentiation"
    for tensor in given:
        if tensor.dtype not in STORED:
            return f"the Triton kernels are built for float32, bfloat16 and float16, not for {tensor.dtype}"
        if 0 in tensor.shape[1:]:
            return "the Triton kernels need at least one head and one column"
        if tensor.dim() > 1 and (tensor.shape[1] > MOST_HEADS or tensor.shape[-1] > MOST_HEADS):
            return f"the Triton kernels serve at most {MOST_HEADS:,} heads and columns, not {max(tensor.shape[1:]):,}"
    return None


def _gpu():
    """The current device of the first kind of GPU that PyTorch finds, or None."""
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind, None)  # torch.xpu came with PyTorch 2.3
        if module is not None and module.is_available():
            return torch.device(kind, module.current_device())
    return None


@cache  # asked at every call
def _why_not_on(device):
    """Why the kernels do not run on this device, None if they do."""
    reason = triton.why_missing()
    if reason is not None or triton.interpreted():
        return reason
    if device is None or device.type not in ("cuda", "xpu"):
        where = "PyTorch finds none" if _gpu() is None else f"the tensors are on {device}"
        return f"the Triton kernels run on a GPU, and {where}"
    if device.type == "cuda" and torch.version.hip is None:
        found = torch.cuda.get_device_capability(device)
        if found < OLDEST:
            name = torch.cuda.get_device_name(device)
            oldest, got = (".".join(map(str, x)) for x in (OLDEST, found))
            return f"the Triton kernels need a GPU of compute capability {oldest} or more, and {name} has {got}"
    return None
