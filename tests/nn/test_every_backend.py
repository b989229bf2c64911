"""Every layer and system on every backend, on the tests' device, beside the same on DGL's operators on the CPU."""

import pytest
import torch
from backends import BACKENDS, DEVICE, INTERPRETED, there
from catalogue import LAYERS, tensors
from toys import CASES

from hgat import ops

QUICK = [name for name in BACKENDS if not (name == "triton" and INTERPRETED)]


def _found(call, module, backend, device):
    """[outputs, gradients of the parameters] of a call, on the CPU."""
    module = module.to(device)
    with ops.use_backend(backend):
        outs = [one for one in tensors(call(module)) if one.is_floating_point()]
    loss = 0.0
    for k, out in enumerate(outs):
        generator = torch.Generator().manual_seed(k)
        loss = loss + (out * torch.randn(out.shape, generator=generator).to(out)).sum()
    grads = []
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        options = {"allow_unused": True, "materialize_grads": True}
        grads = torch.autograd.grad(loss, list(module.parameters()), **options)
    return [one.detach().cpu() for one in (*outs, *grads)]


def _compare(call, build, backend):
    torch.manual_seed(5)
    wanted = _found(lambda module: call(module), build().eval(), "dgl", "cpu")
    torch.manual_seed(5)
    got = _found(lambda module: call(lambda *a, **o: module(*there(a), **there(o))), build().eval(), backend, DEVICE)
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        scale = max(1.0, float(theirs.abs().max()) if theirs.numel() else 1.0)
        torch.testing.assert_close(mine, theirs, atol=2e-5 * scale, rtol=0)


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, backend):
    _compare(LAYERS[name].call, LAYERS[name].build, backend)


STILL = [case for case in CASES if case.task in ("nodes", "snapshot_links")]


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("case", STILL, ids=str)
def test_systems(case, backend):
    _, inputs, _ = case.setting()
    _compare(lambda model: model(*inputs), lambda: case.setting()[2], backend)
