"""The package itself: one version, stated once, and types that a user's checker finds."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hgat
from hgat.settings import tomllib

HOME = Path(hgat.__file__).parent
PROJECT = HOME.parent / "pyproject.toml"
# scikit-build-core's, for a version in a file of Python.
VERSION = re.compile(r"""(?i)^(__version__|VERSION)(?: ?\: ?str)? *= *([\'"])v?(?P<value>.+?)\2""", re.MULTILINE)


def test_the_version_is_stated_once():
    if not PROJECT.exists():
        pytest.skip("hgat is not run from its source")
    content = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    assert "version" not in content["project"] and content["project"]["dynamic"] == ["version"]
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
