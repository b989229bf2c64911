"""`hgat doctor`: its report, and the start-up hook that --fix installs and --unfix removes."""

import argparse
import importlib
import os
import subprocess
import sys
import sysconfig
import venv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hgat import compat, doctor
from hgat.errors import OutputError

dgl = importlib.import_module("dgl")  # not before hgat, which lets it be imported
ROOT = os.path.dirname(os.path.dirname(compat.__file__))

needs_stub = pytest.mark.skipif(
    compat.unavailable("graphbolt") is None, reason="a bare `import dgl` works with this torch"
)


def call(*arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(arguments))


@pytest.fixture
def report(capsys, monkeypatch):
    """Gives a function that prints the report and returns its exit status and its lines by name.

    Unless `children` is None, that code runs in place of the child processes' own.
    """

    def make(children="pass"):
        if children is not None:
            start = doctor._start
            monkeypatch.setattr(doctor, "_start", lambda code: start(children))
        status = call()
        lines = capsys.readouterr().out.splitlines()
        column = max(line.index("  ") for line in lines) + 2
        for line in lines:
            assert line[column - 2 : column] == "  " and line[column] != " ", "texts begin in one column"
        return status, {line[:column].strip(): line[column:] for line in lines}

    return make


# ---- the report ----


@pytest.mark.slow
def test_report(report):
    status, lines = report(children=None)
    assert status == 0
    assert lines["torch"] == torch.__version__
    assert lines["tests ran with"].startswith("torch ")
    assert lines["numpy"] == np.__version__
    assert lines["dgl"] == dgl.__version__
    assert lines["ogb"] == importlib.import_module("ogb").__version__
    assert lines["python"].endswith(sys.executable)
    assert lines["dgl METIS"] == "yes"
    assert "`hgat.accelerate()`" in lines["dgl edge_softmax"]
    reason = compat.unavailable("graphbolt")
    assert lines["dgl.graphbolt"] == ("native" if reason is None else f"stub: {reason}")
    if reason is None:
        assert lines["import dgl"].startswith("works without hgat")
    elif lines["start-up hook"] == "not installed":
        assert lines["import dgl"].startswith("fails without hgat: ")
        assert "hgat doctor --fix" in lines["import dgl"]
    assert lines["GPU"].startswith("yes" if torch.cuda.is_available() else "no: ")
    backends = importlib.import_module("hgat.ops").backends()
    for name, why in backends.items():
        assert lines[f"backend {name}"] == ("yes" if why is None else f"no: {why}")
    core = importlib.import_module("hgat.kernels.cpu").info()
    assert lines["compiled core"].startswith("yes: " if core["available"] else f"no: {core['reason']}")


@pytest.mark.parametrize(
    "version, stands", [("2.10.1", "older"), ("2.11.0+cpu", "one of them"), ("2.14.9", "one of them"), ("3.0", "newer")]
)
def test_the_torch_that_the_tests_ran_with(version, stands, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    assert doctor._tested().text == f"torch 2.11 to 2.14, and this is {stands}"


@pytest.mark.slow
def test_bare_import_reports_its_last_line(report):
    status, lines = report("import sys; print('noise', file=sys.stderr); raise ImportError('no library')")
    assert status == 0, "hgat itself works"
    assert lines["import dgl"].startswith("fails without hgat: ImportError: no library")
    assert lines["dgl METIS"] == "no: ImportError: no library"


@pytest.mark.slow
def test_a_report_writes_nothing_into_an_empty_home(tmp_path, monkeypatch):
    for name in ("DGLBACKEND", "DGLDEFAULTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    doctor._failure(doctor._start("import dgl"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_missing_and_damaged_packages_are_broken(report, monkeypatch, tmp_path):
    (tmp_path / "damaged_package.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(str(tmp_path))
    needed = (*doctor._NEEDED, ("absent", "absent"), ("damaged", "damaged_package"))
    monkeypatch.setattr(doctor, "_NEEDED", needed)
    status, lines = report()
    assert status == 1
    assert lines["absent"] == "broken: not installed"
    assert lines["damaged"] == "broken: import damaged_package fails with RuntimeError: two"


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["dgl", "torch"])
def test_the_command_runs_where_dgl_or_torch_is_not_there(missing):
    """In a process of its own: hgat imports DGL where the first of its parts is used, and not before."""
    code = f"import sys; sys.modules[{missing!r}] = None; from hgat.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr) == (1, "") and lines[missing].endswith("broken: not installed")
    assert f"Error: import of {missing} halted" in lines["backends"]


def test_ogb_without_its_dgl_loaders_is_broken(report, monkeypatch):
    monkeypatch.delattr("ogb.nodeproppred.DglNodePropPredDataset")
    status, lines = report()
    assert status == 1 and "broken" in lines["ogb"]


def test_backends_and_core(report, monkeypatch):
    reasons = {"fast": "no such device", "slow": None}
    core = {
        "available": True,
        "reason": None,
        "instruction_sets": ["one", "two"],
        "in_use": "two",
        "threads": 3,
        "path": "/p",
    }
    monkeypatch.setattr("hgat.ops.backends", lambda: reasons)
    monkeypatch.setattr("hgat.kernels.cpu.info", lambda: core)
    status, lines = report()
    assert status == 0
    assert lines["backend fast"] == "no: no such device" and lines["backend slow"] == "yes"
    assert lines["compiled core"] == "yes: two in use of one, two; 3 threads; /p"
    reasons["slow"] = "none at all"
    core.update(available=False, reason="not built")
    status, lines = report()
    assert status == 1, "no backend is left"
    assert lines["compiled core"] == "no: not built"


def test_gpu(report, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    assert report()[1]["GPU"] == "no: this build of torch has no GPU support"
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    assert report()[1]["GPU"] == "no: torch is built for CUDA 12.1, but it finds no GPU or no driver"
    card = SimpleNamespace(name="Card", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12080, raising=False)
    monkeypatch.setattr("hgat.ops.backends", lambda: {"slow": None})
    each = "Card (80 GiB, sm_90)"
    assert report()[1]["GPU"] == f"yes: {each}, {each}; driver for CUDA up to 12.8"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert report()[1]["GPU"] == f"yes: {each}, {each}"


def test_dgl_on_a_gpu_is_what_the_operators_take_it_for(report, monkeypatch):
    monkeypatch.setattr("hgat.graph.csr.devices_of_dgl", lambda: frozenset({"cpu", "cuda"}))
    assert report()[1]["dgl CUDA"] == "yes"
    monkeypatch.setattr("hgat.graph.csr.devices_of_dgl", lambda: frozenset({"cpu"}))
    assert report()[1]["dgl CUDA"].startswith("no: this build of DGL keeps its graphs on the CPU")
    monkeypatch.setattr("hgat.graph.csr.devices_of_dgl", lambda: 1 / 0)
    status, lines = report()
    assert status == 0 and lines["dgl CUDA"] == "broken: ZeroDivisionError: division by zero"


def test_triton(report, monkeypatch):
    found = {"available": False, "reason": "Triton could not be imported", "version": None, "interpreted": False}
    monkeypatch.setattr("hgat.kernels.triton.info", lambda: found)
    status, lines = report()
    assert status == 0 and lines["Triton"] == "no: Triton could not be imported"
    found.update(available=True, version="3.9.0")
    assert report()[1]["Triton"] == "yes: 3.9.0"
    found.update(interpreted=True)
    assert report()[1]["Triton"] == "yes: 3.9.0, its interpreter on the CPU"
    monkeypatch.setattr("hgat.kernels.triton.info", lambda: 1 / 0)
    status, lines = report()
    assert status == 0 and lines["Triton"] == "broken: ZeroDivisionError: division by zero"


# ---- the start-up hook ----


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment that sees the packages of this one, but not its .pth files; its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = str(folder / "bin" / "python")
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    with open(os.path.join(site_of(python), "parent.pth"), "w") as handle:
        handle.write("\n".join(packages))
    return python


def execute(python, code, *flags, path=None):
    """Run code with the environment's Python, away from hgat unless `path` leads to it."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        variables["PYTHONPATH"] = path
    return subprocess.run([python, *flags, "-c", code], capture_output=True, text=True, timeout=300, env=variables)


def site_of(python):
    """The site-packages directory of an environment."""
    done = execute(python, "import sysconfig; print(sysconfig.get_path('purelib'))")
    return done.stdout.strip()


@pytest.fixture
def site(environment, monkeypatch):
    """The environment's site-packages, in which the functions of this process install their hook too."""
    directory = site_of(environment)
    monkeypatch.setattr(doctor, "_site_directories", lambda: [directory])
    yield directory
    for name in set(os.listdir(directory)) - {"parent.pth"}:
        os.unlink(os.path.join(directory, name))


@pytest.mark.slow
@needs_stub
def test_fix_makes_a_bare_import_work(environment, site):
    code = """
import argparse, sys
from hgat import doctor
parser = argparse.ArgumentParser()
doctor.add_arguments(parser)
sys.exit(doctor.run(parser.parse_args(["--fix"])))
"""
    done = execute(environment, code, path=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    hook = os.path.join(site, doctor.HOOK_NAME)
    lines = done.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["writing", hook] and os.path.isfile(hook)
    assert lines[1].split(maxsplit=2)[2] == compat.__file__
    assert sorted(os.listdir(site)) == [doctor.HOOK_NAME, "parent.pth"]
    used = "import dgl; print(dgl.rand_graph(5, 7).num_edges()); dgl.graphbolt.ItemSet"
    done = execute(environment, used)
    assert done.stdout.strip() == "7"
    assert done.stderr.splitlines()[-1].endswith(compat.unavailable("graphbolt"))


def test_hook_costs_no_import_at_start_up(environment, site):
    loaded = "import sys; print(sorted(sys.modules), len(sys.meta_path))"
    before = execute(environment, loaded).stdout.rpartition(" ")
    doctor._write(os.path.join(site, doctor.HOOK_NAME), doctor._hook_text(compat.__file__))
    after = execute(environment, loaded).stdout.rpartition(" ")
    assert after[0] == before[0]
    assert int(after[2]) == int(before[2]) + 1


@pytest.mark.parametrize("damage", ["gone", "syntax", "raises"])
def test_hook_is_silent_when_hgat_is_gone(environment, site, tmp_path, damage):
    target = tmp_path / "hgät's dir" / "compat.py"
    if damage != "gone":
        target.parent.mkdir()
        target.write_text({"syntax": "def", "raises": "raise RuntimeError('damaged')"}[damage])
    doctor._write(os.path.join(site, doctor.HOOK_NAME), doctor._hook_text(str(target)))
    code = "from importlib.util import find_spec; print([bool(find_spec(n)) for n in ('dgl', 'ogb', 'absent')])"
    done = execute(environment, code, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[True, True, False]\n", "")


@pytest.mark.slow
def test_hook_loads_a_path_of_any_name(environment, site, tmp_path):
    target = tmp_path / 'hgät\'s "dir"' / "compat.py"
    target.parent.mkdir()
    target.write_text("def install(): print('loaded')")
    doctor._write(os.path.join(site, doctor.HOOK_NAME), doctor._hook_text(str(target)))
    done = execute(environment, "import json, importlib.util as u; print('start'); u.find_spec('dgl')")
    assert (done.stdout, done.stderr) == ("start\nloaded\n", "")
    assert doctor._hook().text == f"installed: {os.path.join(site, doctor.HOOK_NAME)}"
    target.unlink()
    assert "no effect" in doctor._hook().text


@pytest.mark.slow
def test_package_replaces_the_hooks_finder():
    """With the hook and hgat in one process there is one finder, the package's."""
    code = doctor._hook_code(compat.__file__) + (
        "from importlib.machinery import SourceFileLoader\n"
        "package = type(sys)('package')\n"
        f"SourceFileLoader('package', {compat.__file__!r}).exec_module(package)\n"
        "count = len(sys.meta_path)\n"
        "package.install()\n"
        "import importlib.util\n"
        "importlib.util.find_spec('dgl')\n"
        "print(type(sys.meta_path[0]) is package._Finder, len(sys.meta_path) - count)\n"
    )
    done = execute(sys.executable, code, "-S")
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_unfix_removes_the_hook(site, capsys):
    hook = os.path.join(site, doctor.HOOK_NAME)
    doctor._write(hook, doctor._hook_text(compat.__file__))
    assert call("--unfix") == 0
    assert capsys.readouterr().out == f"removed {hook}\n"
    assert not os.path.exists(hook)
    assert call("--unfix") == 0
    assert capsys.readouterr().out.startswith("nothing to remove")


@pytest.mark.slow
def test_fix_leaves_a_working_environment_alone(site, capsys, monkeypatch):
    start = doctor._start
    monkeypatch.setattr(doctor, "_start", lambda code: start("pass"))
    assert call("--fix") == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    assert os.listdir(site) == ["parent.pth"]


@pytest.mark.slow
def test_fix_says_when_it_did_not_help(site, capsys, monkeypatch):
    start = doctor._start
    monkeypatch.setattr(doctor, "_start", lambda code: start("raise ImportError('no packaging')"))
    assert call("--fix") == 1
    assert "still fails: ImportError: no packaging" in capsys.readouterr().out


def test_site_packages_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(doctor, "_site_directories", lambda: [str(tmp_path / "file")])
    start = doctor._start
    monkeypatch.setattr(doctor, "_start", lambda code: start("raise ImportError"))
    with pytest.raises(OutputError, match="expected a site-packages directory that can be written"):
        call("--fix")


def test_hook_is_written_whole_or_not_at_all(site, monkeypatch):
    hook = os.path.join(site, doctor.HOOK_NAME)
    doctor._write(hook, "before\n")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        doctor._write(hook, "after\n")
    with open(hook) as handle:
        assert handle.read() == "before\n"
    assert sorted(os.listdir(site)) == [doctor.HOOK_NAME, "parent.pth"]


def test_hook_goes_where_hgat_is_installed(monkeypatch, tmp_path):
    """The environment's site-packages, but the user's own where hgat is installed there."""
    directories = doctor._site_directories()
    assert os.path.realpath(sysconfig.get_path("purelib")) == directories[0]
    import site

    user = os.path.realpath(tmp_path)
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: user)
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert user in doctor._site_directories()

    class Installed:
        folder = user

        def locate_file(self, name):
            return self.folder

    monkeypatch.setattr(doctor.metadata, "distribution", lambda name: Installed())
    assert doctor._own_directory() == user
    monkeypatch.setattr(sys, "base_prefix", sys.prefix + "x")  # a virtual environment has its own
    assert doctor._own_directory() == directories[0]
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    Installed.folder = directories[0]
    assert doctor._own_directory() == directories[0]
