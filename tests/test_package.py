"""The package itself: one version, stated once, types that a user's checker finds, and what an index is told."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hgat
from hgat.doctor import TESTED_TORCH
from hgat.settings import tomllib

HOME = Path(hgat.__file__).parent
PROJECT = HOME.parent / "pyproject.toml"
# scikit-build-core's, for a version in a file of Python.
VERSION = re.compile(r"""(?i)^(__version__|VERSION)(?: ?\: ?str)? *= *([\'"])v?(?P<value>.+?)\2""", re.MULTILINE)


def test_the_version_is_stated_once():
    if not PROJECT.exists():
        pytest.skip("hgat is not run from its source")
    content = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    assert "version" not in content["project"] and "version" in content["project"]["dynamic"]
    place = content["tool"]["scikit-build"]["metadata"]["version"]
    assert place["provider"] == "scikit_build_core.metadata.regex"
    found = VERSION.findall((PROJECT.parent / place["input"]).read_text(encoding="utf-8"))
    assert [value for _, _, value in found] == [hgat.__version__]


def test_the_version_is_the_installed_packages():
    try:
        installed = metadata.version("hgat")
    except metadata.PackageNotFoundError:
        pytest.skip("hgat is not installed")
    assert installed == hgat.__version__


def test_the_version_needs_no_dgl():
    code = (
        "import sys; sys.modules.update(dgl=None, torch=None)\n"
        "import hgat; print(hgat.__version__)\n"
        "try: hgat.nn\n"
        "except ImportError: pass\n"
        "else: raise AssertionError\n"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, cwd=HOME.parent, capture_output=True, text=True)
    assert found.stdout == f"{hgat.__version__}\n"


def test_the_package_says_that_it_has_types():
    assert (HOME / "py.typed").is_file()


# ---- what an index and an installer are told ----


@pytest.fixture(scope="module")
def project():
    if not PROJECT.exists():
        pytest.skip("hgat is not run from its source")
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))


def fences(text):
    """The code blocks of a Markdown text, and the text without them."""
    block = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)
    return [found.group() for found in block.finditer(text)], block.sub("", text)


def targets(text):
    """Where the links and pictures of a Markdown text without its code lead."""
    forms = r"\]\(([^)\s]+)\)", r"^\[[^\]]+\]: *(\S+)", r"(?:src|href)=[\"']([^\"']+)"
    return [target for form in forms for target in re.findall(form, text, re.MULTILINE)]


def test_the_readme_of_an_index_has_no_link_to_a_file_beside_it(project):
    """By the substitutions that the build makes; a link of another form than they know is found here."""
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    [fragment] = hook["fragments"]
    before = (PROJECT.parent / fragment["path"]).read_text(encoding="utf-8")
    after = before
    for substitution in hook["substitutions"]:
        after = re.sub(substitution["pattern"], substitution["replacement"], after)
    code, text = fences(after)
    assert code == fences(before)[0], "no code is touched"
    assert [target for target in targets(text) if not target.startswith("https://")] == []
    there = [target for target in targets(fences(before)[1]) if target.startswith("https://")]
    assert targets(text) == there, "a link that leads somewhere stays"


def test_documents_link_to_files_that_are_there():
    if not PROJECT.exists():
        pytest.skip("hgat is not run from its source")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        files = [target.partition("#")[0] for target in targets(fences((PROJECT.parent / name).read_text())[1])]
        here = [file for file in files if file and "://" not in file]
        assert [file for file in here if not (PROJECT.parent / file).exists()] == [], name


def test_the_tested_range_is_the_doctors(project):
    (_, oldest), (_, newest) = TESTED_TORCH
    assert project["project"]["optional-dependencies"]["tested"] == [f"torch>=2.{oldest},<2.{newest + 1}"]
    pinned = re.search(r"^torch==(\d+)\.(\d+)", (PROJECT.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert TESTED_TORCH[0] <= (int(pinned[1]), int(pinned[2])) <= TESTED_TORCH[1]


def test_wheels_are_for_every_python_that_hgat_takes(project):
    said = project["project"]["requires-python"]
    first, end = (int(number) for number in re.fullmatch(r">=3\.(\d+),<3\.(\d+)", said).groups())
    minors = range(first, end)
    wheels = project["tool"]["cibuildwheel"]
    assert wheels["build"] == [f"cp3{minor}-manylinux_*" for minor in minors]
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in minors} == {
        line for line in project["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)
    }
    assert "--exclude libgomp.so.1" in wheels["repair-wheel-command"]
    [refusal] = [entry for entry in project["tool"]["scikit-build"]["overrides"] if entry.get("fail")]
    assert refusal["if"] == {"python-version": f">=3.{end}"} and "DGL" in refusal["messages"]["after-failure"]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="this system does not list what is loaded")
def test_the_core_takes_the_openmp_of_torch():
    """One libgomp in the process: with two, each would keep its own threads."""
    code = (
        "import hgat.kernels.cpu as cpu, torch, os\n"
        "print(cpu.available(), 'libgomp.so.1' in os.listdir(torch.__path__[0] + '/lib'))\n"
        "loaded = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}\n"
        "print(*{os.path.realpath(path) for path in loaded}, sep='\\n')\n"
        "print(os.path.realpath(torch.__path__[0]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=HOME.parent)
    first, *loaded, torch = found.stdout.splitlines()
    if first != "True True":
        pytest.skip("no compiled core, or a torch that brings no OpenMP")
    assert len(loaded) == 1 and loaded[0].startswith(torch)
