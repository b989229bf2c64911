"""The backends that a run of the tests looks at, and the device that it puts tensors on; graphs stay on the CPU.

HGAT_TEST_DEVICE=cuda (`make test DEVICE=cuda`) takes the backends of that device. HGAT_TEST_TRITON=1 adds Triton's
kernels under its interpreter to those of the CPU: slow, so not of every test, and not of every run.
"""

import os

import torch

from hgat import ops
from hgat.kernels import cpu

__all__ = ["BACKENDS", "DEVICE", "INTERPRETED", "ON_CPU", "there"]

DEVICE = torch.device(os.environ.get("HGAT_TEST_DEVICE") or "cpu")
INTERPRETED = DEVICE.type == "cpu" and os.environ.get("HGAT_TEST_TRITON", "") not in ("", "0")
ON_CPU = ["dgl", "torch", *(["native"] if cpu.available() else [])]
BACKENDS = ON_CPU + ["triton"] * INTERPRETED if DEVICE.type == "cpu" else ["torch", "triton", "auto"]
if "triton" in BACKENDS and ops.backends()["triton"] is not None:
    raise RuntimeError(f"the tests were to run Triton's kernels: {ops.backends()['triton']}")


def there(value):
    """Floats and masks of what an operator or a layer takes, on the tests' device, leaves as leaves."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point() and value.dtype != torch.bool:
            return value
        return value.detach().to(DEVICE).requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: there(one) for key, one in value.items()}
    if hasattr(value, "_make"):  # a namedtuple
        return value._make(map(there, value))
    return type(value)(map(there, value)) if type(value) in (list, tuple) else value
