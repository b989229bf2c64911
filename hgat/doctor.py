"""`hgat doctor`: what works on this machine, what does not, and why.

`--fix` installs a start-up hook, one .pth file in site-packages, with which a bare `import dgl` works in
every program of the environment; `--unfix` removes it.
"""

import argparse
import os
import platform
import subprocess
import sys
import warnings
from importlib import import_module, metadata
from typing import NamedTuple

from hgat import compat
from hgat.errors import OutputError

__all__ = ["add_arguments", "run"]

HOOK_NAME = "hgat_dgl.pth"

# What hgat cannot work without: distribution and the module whose import proves it. OGB's own package imports
# nothing; its loaders hide a DGL that fails.
_NEEDED = (("torch", "torch"), ("numpy", "numpy"), ("dgl", "dgl"), ("ogb", "ogb.nodeproppred"))

# The oldest and the newest PyTorch that tests ran with: those of GPUs, and those of operators; all ran with 2.13.
# The extra `tested` of the package asks for the same.
TESTED_TORCH = ((2, 11), (2, 14))

_TIMEOUT = 300  # seconds that an import in a child process may take, on a cold network disk

# Run in every Python process by the line of the .pth file, so it imports nothing and opens no file: compat.py
# is loaded when `dgl` or `ogb` is imported for the first time, and its install() replaces this finder.
_HOOK_CODE = """\
import sys
class Finder:
    hgat_compat = True
    def find_spec(self, name, path=None, target=None):
        if name in ("dgl", "ogb"):
            try:
                from importlib.machinery import SourceFileLoader
                module = type(sys)("_hgat_compat")
                module.__file__ = file
                SourceFileLoader(module.__name__, file).exec_module(module)
                module.install()
            except Exception:
                # hgat was moved, removed or damaged: go on as if this file were not there.
                pass
# Python reads the .pth files of some environments twice.
if not any(hasattr(finder, "hgat_compat") for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder())
"""

_METIS_CODE = """\
import dgl
dgl.metis_partition_assignment(dgl.graph(([0, 1, 2, 3], [1, 2, 3, 0])), 2)
"""


class Fact(NamedTuple):
    """One line of the report; `broken` if hgat does not work without it."""

    name: str
    text: str
    broken: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `hgat doctor` to an argparse parser."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--fix",
        action="store_true",
        help="install a start-up hook in this Python environment that makes a bare `import dgl` work",
    )
    group.add_argument("--unfix", action="store_true", help="remove the start-up hook again")


def run(args: argparse.Namespace) -> int:
    """Print the report, or install or remove the start-up hook; give the exit status."""
    if args.fix:
        return _fix()
    if args.unfix:
        return _unfix()
    found = facts()
    width = max(len(fact.name) for fact in found)
    for fact in found:
        print(f"{fact.name:<{width}}  {fact.text}", flush=True)
    return 1 if any(fact.broken for fact in found) else 0


def facts() -> list[Fact]:
    """Every line of the report, in order."""
    # The child processes import DGL while this one does.
    bare = _start("import dgl")
    metis = _start(_hook_code(compat.__file__) + _METIS_CODE)
    found = [
        Fact("python", f"{platform.python_version()}, {sys.executable}"),
        Fact("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"),
        Fact("hgat", f"{_version('hgat')}, {os.path.dirname(compat.__file__)}"),
    ]
    needed = {name: _import(name, module) for name, module in _NEEDED}
    found += needed.values()
    if not needed["torch"].broken:
        found.append(_tested())
    if not needed["dgl"].broken:
        found += _dgl_parts(metis)
    else:
        metis.kill()
    found.append(_bare_import(bare, fixable=not needed["dgl"].broken))
    found.append(_hook())
    found += _backends()
    found.append(_compiled_core())
    found.append(_triton())
    if not needed["torch"].broken:
        found.append(_gpu())
    return found


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "no version (not installed, run from its source)"


def _import(name, module):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(module)
        if name == "ogb" and not hasattr(sys.modules[module], "DglNodePropPredDataset"):
            return Fact(name, f"{_version(name)}, broken: its DGL loaders do not load", broken=True)
    except Exception as error:  # a damaged package may raise anything, and this report is to say what
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return Fact(name, "broken: not installed", broken=True)
        return Fact(name, f"broken: import {module} fails with {_sentence(error)}", broken=True)
    # A package says more of itself than its metadata: torch adds what it was built for.
    return Fact(name, str(getattr(sys.modules[name], "__version__", None) or _version(name)))


def _tested():
    """How the installed torch stands to those that the tests ran with; others may do as well."""
    import re

    import torch

    here = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    oldest, newest = TESTED_TORCH
    stands = "older" if here < oldest else "newer" if here > newest else "one of them"
    first, last = (".".join(map(str, version)) for version in TESTED_TORCH)
    return Fact("tests ran with", f"torch {first} to {last}, and this is {stands}")


def _dgl_parts(metis):
    """What DGL was built with, and which of its parts serve the installed torch."""
    found = []
    for part in ("graphbolt", "sparse"):
        reason = compat.unavailable(part)
        missing = "stub: " if part == "graphbolt" else "missing: "
        found.append(Fact(f"dgl.{part}", "native" if reason is None else missing + reason))
    text = "DGL's own; `hgat.accelerate()` in a program that calls it gives it hgat's"
    found.append(Fact("dgl edge_softmax", text))
    found.append(_dgl_cuda())
    error = _failure(metis)
    found.append(Fact("dgl METIS", "yes" if error is None else f"no: {error}"))
    return found


def _dgl_cuda():
    """Whether DGL holds graphs on a GPU."""
    try:
        cuda = "cuda" in import_module("hgat.graph.csr").devices_of_dgl()
    except Exception as error:  # whatever keeps the graphs' part from loading belongs in the report
        return Fact("dgl CUDA", f"broken: {_sentence(error)}")
    stays = "no: this build of DGL keeps its graphs on the CPU, and hgat their structure on the GPU"
    return Fact("dgl CUDA", "yes" if cuda else stays)


def _bare_import(process, fixable):
    """Whether `import dgl` works in a program that does not import hgat."""
    error = _failure(process)
    if error is None:
        through = ", through the start-up hook" if _hooks() else ""
        return Fact("import dgl", f"works without hgat{through}")
    advice = "; `hgat doctor --fix` makes it work" if fixable else ""
    return Fact("import dgl", f"fails without hgat: {error}{advice}")


def _backends():
    """One fact per backend of the operators; the attention runs if one of them does."""
    try:
        reasons = import_module("hgat.ops").backends()
    except Exception as error:  # whatever keeps the operators from loading belongs in the report
        return [Fact("backends", f"broken: {_sentence(error)}", broken=True)]
    dead = all(reason is not None for reason in reasons.values())
    return [
        Fact(f"backend {name}", "yes" if reason is None else f"no: {reason}", broken=dead)
        for name, reason in reasons.items()
    ]


def _compiled_core():
    """The C++ core; hgat runs without it, slower."""
    try:
        with warnings.catch_warnings():
            # It warns when it is missing; the fact says so itself.
            warnings.simplefilter("ignore")
            core = import_module("hgat.kernels.cpu").info()
    except Exception as error:  # whatever keeps the core from loading belongs in the report
        return Fact("compiled core", f"broken: {_sentence(error)}", broken=True)
    if not core["available"]:
        return Fact("compiled core", f"no: {core['reason']}")
    sets = ", ".join(core["instruction_sets"])
    return Fact("compiled core", f"yes: {core['in_use']} in use of {sets}; {core['threads']} threads; {core['path']}")


def _triton():
    """Triton, which comes with PyTorch's CUDA builds."""
    try:
        found = import_module("hgat.kernels.triton").info()
    except Exception as error:  # whatever keeps the kernels from loading belongs in the report
        return Fact("Triton", f"broken: {_sentence(error)}")
    if not found["available"]:
        return Fact("Triton", f"no: {found['reason']}")
    interpreted = ", its interpreter on the CPU" if found["interpreted"] else ""
    return Fact("Triton", f"yes: {found['version']}{interpreted}")


def _gpu():
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        names = []
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            names.append(f"{device.name} ({device.total_memory / 2**30:.0f} GiB, sm_{device.major}{device.minor})")
        return Fact("GPU", f"yes: {', '.join(names)}{_driver()}")
    built_for = torch.version.cuda or torch.version.hip
    if built_for is None:
        return Fact("GPU", "no: this build of torch has no GPU support")
    reason = _sentence(caught[0].message) if caught else "it finds no GPU or no driver"
    return Fact("GPU", f"no: torch is built for {'CUDA' if torch.version.cuda else 'ROCm'} {built_for}, but {reason}")


def _driver():
    """What NVIDIA's driver serves, "" where it does not say."""
    import torch

    ask = getattr(torch._C, "_cuda_getDriverVersion", None)  # 12040 for CUDA 12.4
    version = ask() if ask is not None and torch.version.cuda else 0
    return f"; driver for CUDA up to {version // 1000}.{version % 1000 // 10}" if version else ""


# ---- child processes ----


def _start(code):
    """Run Python code in a fresh process of this environment, away from the current directory's modules."""
    # Where no backend was ever chosen, DGL would write its choice into the home directory; a report writes nothing.
    chosen = {} if compat.backend_chosen() else {"DGLBACKEND": "pytorch"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=sys.prefix,
        env={**os.environ, **chosen},
    )


def _failure(process):
    """Wait for a child process: None if it succeeded, else the last line of what it said."""
    try:
        _, errors = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no answer within {_TIMEOUT} seconds"
    if process.returncode == 0:
        return None
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {process.returncode}"


def _sentence(error):
    """The type of an exception and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


# ---- the start-up hook ----


def _hook_code(path):
    return f"file = {path!a}\n{_HOOK_CODE}"


def _hook_text(path):
    """The contents of the .pth file: Python runs a line of it that begins with `import`.

    ASCII only, because Python reads the file in the encoding of the locale.
    """
    return (
        "# Makes `import dgl` work on newer PyTorch; written by `hgat doctor --fix`, removed by --unfix.\n"
        f"# {path!a}\n"
        f"import sys; exec({_hook_code(path)!a}, {{'__name__': 'hgat_dgl'}})\n"
    )


def _hook_target(file):
    """The path of compat.py that a hook loads, or None if the file is not one that hgat wrote."""
    import ast

    try:
        with open(file, encoding="ascii") as handle:
            return ast.literal_eval(handle.read().splitlines()[1].removeprefix("# "))
    except (OSError, ValueError, SyntaxError, IndexError):
        return None


def _site_directories():
    """The directories whose .pth files this Python reads at start-up."""
    import site
    import sysconfig

    directories = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        directories.append(site.getusersitepackages())
    return list(dict.fromkeys(os.path.realpath(directory) for directory in directories))


def _own_directory():
    """Where the hook goes: the environment's site-packages, or the user's if hgat is installed there."""
    import site

    directories = _site_directories()
    if sys.prefix == sys.base_prefix and site.ENABLE_USER_SITE:
        user = os.path.realpath(site.getusersitepackages())
        try:
            if os.path.realpath(metadata.distribution("hgat").locate_file("")) == user:
                return user
        except metadata.PackageNotFoundError:
            pass  # run from its source
    return directories[0]


def _hooks():
    """The start-up hooks that this environment has."""
    files = (os.path.join(directory, HOOK_NAME) for directory in _site_directories())
    return [file for file in files if os.path.lexists(file)]


def _hook():
    files = _hooks()
    if not files:
        return Fact("start-up hook", "not installed")
    target = _hook_target(files[0])
    if target is None or not os.path.isfile(target):
        return Fact("start-up hook", f"{files[0]} has no effect, its hgat is gone; run `hgat doctor --fix` again")
    return Fact("start-up hook", f"installed: {files[0]}")


def _fix():
    if not _hooks() and _failure(_start("import dgl")) is None:
        print("nothing to do: `import dgl` works in this environment without a start-up hook")
        return 0
    path = os.path.abspath(compat.__file__)
    file = os.path.join(_own_directory(), HOOK_NAME)
    print(f"writing   {file}")
    print(f"it loads  {path}")
    print("whenever Python starts, so that `import dgl` works without hgat", flush=True)
    _write(file, _hook_text(path))
    error = _failure(_start("import dgl"))
    if error is not None:
        print(f"the hook is installed, but `import dgl` still fails: {error}")
        return 1
    print("done: `import dgl` works; `hgat doctor --unfix` removes the hook")
    return 0


def _unfix():
    files = _hooks()
    for file in files:
        try:
            os.unlink(file)
        except OSError as error:
            raise OutputError(f"{file}: expected a file that can be removed, got: {error.strerror}") from error
        print(f"removed {file}")
    if not files:
        print(f"nothing to remove: no {HOOK_NAME} in {' or '.join(_site_directories())}")
    return 0


def _write(file, text):
    """Write a file under a temporary name, then rename it: Python may start at any moment in between."""
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        try:
            with open(temporary, "x", encoding="ascii") as handle:
                handle.write(text)
            os.replace(temporary, file)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    except OSError as error:
        folder = os.path.dirname(file)
        raise OutputError(
            f"{folder}: expected a site-packages directory that can be written, got: {error.strerror}"
        ) from error
