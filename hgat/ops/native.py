"""The `native` backend: the compiled CPU core, its kernels registered with hgat.ops."""

import torch
from torch import Tensor

from hgat import transforms
from hgat.kernels import cpu
from hgat.ops import registry
from hgat.ops.compiled import Compiled

__all__ = ["kernels", "why_not"]

STORED = (torch.float32, torch.float64, torch.bfloat16)

registry.implement(cpu, several=False)
kernels = Compiled(cpu)


def why_not(operator: str | None, tensors: tuple[Tensor | None, ...]) -> str | None:
    """None if the kernels serve these tensors, else one sentence that says why they do not."""
    reason = cpu.why_missing()
    if reason is not None:
        return reason
    if transforms.active():
        return "the compiled core does not run inside torch.func's transforms and forward-mode differentiation"
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"the compiled core runs on the CPU, and the tensors are on {tensor.device}"
        if tensor.dtype not in STORED:
            return f"the compiled core is built for float32, float64 and bfloat16, not for {tensor.dtype}"
        if 0 in tensor.shape[1:]:
            return "the compiled core needs at least one head and one column"
    return None
