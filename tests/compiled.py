"""The launches of a call, compiled for a GPU that need not be there, and what they take of it."""

import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hgat.kernels.triton import _backward, _forward, _sums

__all__ = ["compiled", "launches", "resources", "source"]

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8", torch.int32: "*i32",
    torch.int64: "*i64",
}  # fmt: skip


class _Recorder:
    def __init__(self, kernel, found):
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.found.append((self.kernel, grid, arguments, constants))


def launches(monkeypatch, call):
    """(kernel, grid, arguments, constants) of every launch that `call()` makes; nothing runs."""
    found = []
    with monkeypatch.context() as patch:
        for module in (_forward, _backward, _sums):
            for name, kernel in list(vars(module).items()):
                if isinstance(kernel, triton.JITFunction):
                    patch.setattr(module, name, _Recorder(kernel, found))
        call()
    return found


def source(kernel, arguments, constants):
    """What Triton compiles for these arguments: as at a launch, with memory aligned to 16 bytes."""
    names = kernel.arg_names
    given = dict(zip(names, arguments, strict=False))
    options = {k: v for k, v in constants.items() if k not in names}
    given.update({k: v for k, v in constants.items() if k in names})
    signature, constexprs, attributes = {}, {}, {}
    for place, (name, parameter) in enumerate(zip(names, kernel.params, strict=True)):
        value = given[name]
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            if value.storage_offset() * value.element_size() % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        elif value is None or parameter.is_constexpr:
            signature[name] = "constexpr"
            constexprs[name] = value
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attributes), options


def compiled(launch, capability):
    """One launch's kernel for sm_`capability`."""
    kernel, _, arguments, constants = launch
    found, options = source(kernel, arguments, constants)
    return triton.compile(found, target=GPUTarget("cuda", capability, 32), options=options)


def resources(launch, capability):
    """{"registers", "spilled" (bytes of the stack and of local memory), "shared", "warps"} of one launch."""
    found = compiled(launch, capability)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    number = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "registers": number["REG"],
        "spilled": number["STACK"] + number["LOCAL"],
        "shared": found.metadata.shared,
        "warps": launch[3]["num_warps"],
    }
