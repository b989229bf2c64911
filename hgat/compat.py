"""DGL 2.x and OGB on PyTorch releases newer than the ones they were built for.

`install()` puts one finder at the head of `sys.meta_path`. The finder acts on a handful of modules, when they
are imported and not before:

- `dgl.graphbolt` becomes a stub where DGL has no GraphBolt library for the installed torch, or where a
  package that GraphBolt needs cannot be imported; otherwise DGL's own is left alone. `dgl.sparse` is left
  alone or refused with one sentence, by the same rule.
- `dgl.backend` takes PyTorch without a word and without writing a file where no backend was ever chosen.
- Places of DGL that NumPy, NetworkX or PyTorch have left behind are mended: `_MENDS` lists them.
- `ogb.version` is run without its thread that asks PyPI for a newer version.
- OGB's loaders read their files, which hold NumPy's arrays, with an unpickler of hgat's own (hgat.unpickle) and not
  with torch's, which refuses them. torch itself stays as it is, its list of safe types too.

This file imports only built-in modules at its top and nothing of hgat, because the start-up hook of
`hgat doctor --fix` loads it by path.
"""

import _thread
import sys

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is no built-in module
if TYPE_CHECKING:
    from types import ModuleType
else:
    ModuleType = type(sys)

__all__ = ["install", "unavailable", "backend_chosen", "OGB_LOADERS"]

# What `dgl.graphbolt` imports and DGL does not declare, or newer releases of a declared package dropped.
_GRAPHBOLT_NEEDS = ("torchdata.datapipes", "torchdata.dataloader2", "pydantic", "yaml", "pandas")

# DGL part -> (its name in sentences, folder of its libraries beside libdgl, packages it needs)
_PARTS = {
    "graphbolt": ("GraphBolt", "graphbolt", _GRAPHBOLT_NEEDS),
    "sparse": ("sparse-matrix", "dgl_sparse", ()),
}

# OGB's packages that hide a DGL which cannot be imported.
OGB_LOADERS = ("ogb.nodeproppred", "ogb.linkproppred", "ogb.graphproppred", "ogb.lsc")

# OGB's modules that read with `torch.load` what torch's safe loader refuses.
_OGB_READERS = (
    *(f"ogb.{task}proppred.dataset{kind}" for task in ("node", "link", "graph") for kind in ("", "_dgl", "_pyg")),
    *(f"ogb.lsc.pcqm4m{version}{kind}" for version in ("", "v2") for kind in ("", "_dgl", "_pyg")),
    *(f"ogb.lsc.{name}" for name in ("mag240m", "wikikg90m", "wikikg90mv2")),
)

# The key in a stub's namespace that holds its sentence; it also tells a stub from DGL's own module.
_REASON = "__hgat_reason__"

_lock = _thread.allocate_lock()


def install() -> None:
    """Make `import dgl` and `import ogb` work, also after they failed; a second call changes nothing."""
    with _lock:
        if any(type(finder) is _Finder for finder in sys.meta_path):
            return
        # The start-up hook has a finder of its own, or loaded another copy of this file.
        # In one assignment, because the import system may be walking through the list.
        others = [finder for finder in sys.meta_path if not hasattr(finder, "hgat_compat")]
        sys.meta_path[:] = [_Finder(), *others]
        _forget_ogb_without_dgl()
        # Modules that were imported before this call did not pass through the finder.
        for name, mend in _MENDS.items():
            if sys.modules.get(name) is not None:
                mend(sys.modules[name])
        for name in _OGB_READERS:
            if sys.modules.get(name) is not None:
                _read_safely(sys.modules[name])


def unavailable(part: str) -> str | None:
    """One sentence that says why DGL's own "graphbolt" or "sparse" cannot be used, or None if it can.

    Call it after `import dgl`.
    """
    stub = sys.modules.get(f"dgl.{part}")
    if stub is not None and _REASON in vars(stub):
        return vars(stub)[_REASON]
    title, folder, needs = _PARTS[part]
    return _why_no_library(title, folder) or _why_no_package(title, needs)


class _Finder:
    """The meta-path finder; it has no effect on any module but those that the module docstring lists."""

    hgat_compat = True

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith(("dgl", "ogb.")):
            return None
        if fullname == "dgl" and any(name.startswith("dgl.") for name in list(sys.modules)):
            return self._wrap(fullname, path, target, after=_bind_submodules)
        if fullname in ("dgl.graphbolt", "dgl.sparse"):
            reason = unavailable(fullname[4:])
            if reason is None:
                return None
            loader = _StubLoader(reason) if fullname == "dgl.graphbolt" else _RefusingLoader(reason)
            from importlib.machinery import ModuleSpec

            return ModuleSpec(fullname, loader, origin="stub by hgat.compat", is_package=True)
        if fullname.startswith("dgl.graphbolt."):
            # `from dgl.graphbolt import ItemSet` looks for a submodule of that name before it gives up.
            # Not ModuleNotFoundError: the import system would swallow that one and print its own sentence.
            reason = getattr(sys.modules.get("dgl.graphbolt"), _REASON, None)
            if reason is not None:
                raise ImportError(reason, name=fullname)
            return None
        if fullname == "dgl.backend":
            return self._wrap(fullname, path, target, run=_run_with_pytorch)
        if fullname in _MENDS:
            return self._wrap(fullname, path, target, after=_MENDS[fullname])
        if fullname == "ogb.version":
            return self._wrap(fullname, path, target, run=_run_without_version_check)
        if fullname in _OGB_READERS:
            return self._wrap(fullname, path, target, after=_read_safely)
        return None

    def _wrap(self, fullname, path, target, **actions):
        """The spec that the other finders give, its loader wrapped in `_WrappingLoader`."""
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _WrappingLoader(spec, **actions)
                return spec
        return None


class _WrappingLoader:
    """A loader that adds an action to another one and leaves no trace on the module."""

    def __init__(self, spec, run=None, after=None):
        self._spec, self._loader, self._run, self._after = spec, spec.loader, run, after

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._spec.loader = module.__loader__ = self._loader
        if self._run is not None:
            self._run(self._loader, module)
        else:
            self._loader.exec_module(module)
        if self._after is not None:
            self._after(module)


# ---- DGL ----


class _Stub(ModuleType):
    """A module without contents: any ordinary name raises AttributeError with the reason.

    Double-underscore names raise Python's usual message: inspect, pickle, doctest and warnings ask for them.
    """

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        raise AttributeError(vars(self)[_REASON])


class _StubLoader:
    """Makes the stub `dgl.graphbolt`."""

    def __init__(self, reason):
        self._reason = reason

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        # A failed import of DGL may have left submodules of the real GraphBolt.
        _forget("dgl.graphbolt.")
        namespace = vars(module)
        namespace[_REASON] = self._reason
        module.__doc__ = f"Stub: {self._reason}"
        # With a name that is not there, `from dgl.graphbolt import *` gives the sentence too.
        module.__all__ = ["ItemSet"]
        # DGL's partition server asks isinstance(graph, graphbolt.FusedCSCSamplingGraph) of every graph.
        module.FusedCSCSamplingGraph = _placeholder("FusedCSCSamplingGraph", self._reason)


def _placeholder(name, reason):
    """A class that has no instances: isinstance answers False, anything else raises with `reason`."""

    class Missing(type):
        def __call__(cls, *args, **kwargs):
            raise ImportError(reason)

        def __getattr__(cls, attribute):
            if attribute.startswith("__"):
                raise AttributeError(f"type object {name!r} has no attribute {attribute!r}")
            raise AttributeError(reason)

    return Missing(name, (), {"__module__": "dgl.graphbolt", "__doc__": reason})


class _RefusingLoader:
    """Fails the import of a module with one sentence."""

    def __init__(self, reason):
        self._reason = reason

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise ImportError(self._reason, name=module.__name__)


def _why_no_library(title, folder):
    """None if DGL ships this library for the running torch, else a sentence with the versions it has."""
    import os
    import re

    import torch

    libinfo = sys.modules.get("dgl._ffi.libinfo")
    if libinfo is not None:
        # DGL loads its parts from beside libdgl, wherever DGL_LIBRARY_PATH or a source build put it.
        root = os.path.dirname(libinfo.find_lib_path()[0])
    else:
        root = sys.modules["dgl"].__path__[0]
    try:
        files = os.listdir(os.path.join(root, folder))
    except OSError:
        files = []
    pattern = re.compile(rf"(?:lib)?{folder}_pytorch_(.+)\.(?:so|dylib|dll)")
    versions = [match[1] for match in map(pattern.fullmatch, files) if match]
    if torch.__version__.partition("+")[0] in versions:
        return None
    dgl = f"DGL {getattr(libinfo, '__version__', '')}".strip()
    if not versions:
        return f"{dgl} ships no {title} library, so none fits torch {torch.__version__}."
    versions.sort(key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    listed = " and ".join(filter(None, [", ".join(versions[:-1]), versions[-1]]))
    return f"{dgl} ships its {title} library for torch {listed} only, and this is torch {torch.__version__}."


def _why_no_package(title, needs):
    """None if every package in `needs` can be imported, else a sentence with the first that cannot."""
    from importlib import import_module

    for name in needs:
        package = name.partition(".")[0]
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name == package:
                package = "PyYAML" if package == "yaml" else package
                return f"{title} needs the package {package}, which is not installed."
            if error.name == name:
                return f"{title} needs {name}, which {_release(package)} lacks and 0.9 and earlier have."
            return f"{title} needs {name}, which {_release(package)} cannot import: {error}."
        except Exception as error:
            # Whatever stops this import would stop GraphBolt, and all of DGL with it.
            return f"{title} needs {name}, which {_release(package)} cannot import: {error}."
    return None


def _release(package):
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"the {package} found here"


def _bind_submodules(module):
    """Complete DGL when its first import failed and a later one succeeded.

    Python forgets only the modules that failed. The others stay in sys.modules, and because a submodule is
    bound to its parent when it loads, the new parent would lack `dgl.backend`, `dgl.ndarray` and others.
    Loading them again instead would end the process: libdgl takes its link to torch once only.
    """
    for name in list(sys.modules):
        parent, _, child = name.rpartition(".")
        if name.startswith("dgl.") and parent in sys.modules and child not in vars(sys.modules[parent]):
            setattr(sys.modules[parent], child, sys.modules[name])


def _forget(prefix):
    for name in list(sys.modules):
        if name.startswith(prefix):
            sys.modules.pop(name, None)


def backend_chosen() -> bool:
    """True if DGL's backend was chosen in the environment or in DGL's file of settings."""
    import os

    folder = os.environ.get("DGLDEFAULTDIR", os.path.join(os.path.expanduser("~"), ".dgl"))
    return "DGLBACKEND" in os.environ or os.path.exists(os.path.join(folder, "config.json"))


def _run_with_pytorch(loader, module):
    """Run `dgl/backend` with PyTorch chosen where nothing was: DGL would say so and write it to a file.

    A choice that DGL does not know stays DGL's to report.
    """
    import os

    if backend_chosen():
        loader.exec_module(module)
    else:
        os.environ["DGLBACKEND"] = "pytorch"
        try:
            loader.exec_module(module)
        finally:
            os.environ.pop("DGLBACKEND", None)
    ask = module.get_preferred_backend  # which DGL does again and again

    def get_preferred_backend():
        return ask() if backend_chosen() else "pytorch"

    module.get_preferred_backend = get_preferred_backend


def _name_links(module):
    """NetworkX 3.6 takes a JSON graph's edges from "edges", and 3.4 warns of it; PPI's files have them in "links"."""
    import inspect
    from types import ModuleType, SimpleNamespace

    json_graph = module.json_graph
    if not isinstance(json_graph, ModuleType):
        return
    if "edges" not in inspect.signature(json_graph.node_link_graph).parameters:
        return

    def node_link_graph(data):
        return json_graph.node_link_graph(data, edges="links" if "links" in data else "edges")

    module.json_graph = SimpleNamespace(**{**vars(json_graph), "node_link_graph": node_link_graph})


def _scalar(value):
    """An array of one number as that number: NumPy 2.4 turns arrays with dimensions into scalars no more."""
    return value.item() if getattr(value, "size", None) == 1 else value


def _int_of_arrays(module):
    """SubgraphX asks for int(array of one)."""

    def of(value):
        return int(_scalar(value))

    vars(module).setdefault("int", of)


def _max_of_columns(module):
    """TUDataset asks for int(max(column) + 1), and the rows of a column are arrays of one."""

    def of(values):
        return _scalar(max(values))

    vars(module).setdefault("max", of)


def _quiet_affinity(module):
    """A DataLoader without workers advises in every epoch to call what it then refuses: its enable_cpu_affinity."""
    advise = module.DataLoader.__iter__
    if hasattr(advise, "hgat_compat"):
        return

    def __iter__(self):
        if self.num_workers > 0 or self.cpu_affinity_enabled:
            return advise(self)
        self.cpu_affinity_enabled = True
        try:
            return advise(self)
        finally:
            self.cpu_affinity_enabled = False

    __iter__.hgat_compat = True
    module.DataLoader.__iter__ = __iter__


# DGL's module -> what mends it; once is enough, and a second time changes nothing.
_MENDS = {
    "dgl.data.ppi": _name_links,
    "dgl.data.tu": _max_of_columns,
    "dgl.dataloading.dataloader": _quiet_affinity,
    "dgl.nn.pytorch.explain.subgraphx": _int_of_arrays,
}


# ---- OGB ----


def _forget_ogb_without_dgl():
    """Drop OGB's packages that were imported while DGL failed: OGB hides that, and lacks its DGL loaders."""
    for name in OGB_LOADERS:
        if name in sys.modules and not any(key.startswith("Dgl") for key in vars(sys.modules[name])):
            _forget(f"{name}.")
            sys.modules.pop(name, None)


def _run_without_version_check(loader, module):
    """Run `ogb/version.py` as if the package `outdated` were not installed: OGB then starts no thread.

    Importing `outdated` asks PyPI about itself, so it must not be imported either. Only this one module sees
    the refusing `__import__`; other packages use `outdated` as before.
    """
    import builtins
    import os

    def without_outdated(name, *args, **kwargs):
        if name.partition(".")[0] == "outdated":
            raise ImportError("hgat.compat keeps OGB from asking PyPI for a newer version")
        return builtins.__import__(name, *args, **kwargs)

    # OGB silences `outdated` for the whole process through this variable, needlessly now.
    before = os.environ.get("OUTDATED_IGNORE")
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": without_outdated}
    exec(loader.get_code(module.__name__), vars(module))
    if before is None:
        os.environ.pop("OUTDATED_IGNORE", None)


def _read_safely(module):
    """Give an OGB module a `torch` whose `load` reads OGB's files; nobody else's `torch` is touched."""
    if not isinstance(getattr(module, "torch", None), _TorchForOgb):
        module.torch = _TorchForOgb(module.torch, foreign=module.__name__.endswith("_pyg"))


class _TorchForOgb:
    """`torch` with a `load` that reads what OGB writes: arrays of NumPy's and tensors, of every pickle protocol.

    torch's own safe loader knows no array and no protocol but 2, and its list of safe types is the whole process's.
    foreign: files of PyG's classes are left to torch's own `load`, as are all that a caller asks to trust.
    """

    def __init__(self, torch, foreign):
        self._torch, self._foreign = torch, foreign

    def __getattr__(self, name):
        return getattr(self._torch, name)

    def load(self, file, *args, **kwargs):
        from pickle import UnpicklingError

        start = file.tell() if hasattr(file, "tell") else None
        try:
            return _unpickle().load_archive(file)
        except UnpicklingError as error:
            trusted = kwargs.get("weights_only") is False
            if not trusted and not (self._foreign and hasattr(error, "foreign")):
                raise
        if start is not None:
            file.seek(start)
        return self._torch.load(file, *args, **kwargs)


def _unpickle():
    """hgat's safe unpickler, by path: the start-up hook must not import hgat, which would install this once more."""
    name = "hgat.unpickle"
    if name not in sys.modules:
        import os
        from importlib.machinery import SourceFileLoader

        name = "_hgat_unpickle"
        if name not in sys.modules:
            path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "unpickle.py")
            module = type(sys)(name)
            module.__file__ = path
            SourceFileLoader(name, path).exec_module(module)
            sys.modules[name] = module
    return sys.modules[name]
