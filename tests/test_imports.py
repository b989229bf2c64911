"""Imports only go down: every file is parsed, for what it imports at its top, in a function or by name.

The house has layers, from the bottom up: errors, settings, files, unpickle, compat, transforms and renamed; kernels;
graph; ops; nn and _edge_softmax; models, data and _accelerate; tasks; train; explain; doctor and cli. A part may use
what stands beside its name below and nothing else.
"""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hgat

HOME = Path(hgat.__file__).parent
GROUND = {"errors", "settings", "files", "unpickle", "compat", "transforms", "renamed"}
MAY_USE = {
    "errors": set(),
    "settings": {"errors"},
    "files": {"errors"},
    "unpickle": set(),
    "compat": set(),
    "renamed": set(),
    "transforms": set(),
    "kernels": set(),  # not even the errors: kernels check nothing
    "graph": GROUND | {"kernels"},  # the compiled core sorts the edges
    "ops": GROUND | {"kernels", "graph"},
    "nn": GROUND | {"graph", "ops"},
    "models": GROUND | {"graph", "ops", "nn"},  # operators, for what is computed before training
    "tasks": GROUND | {"graph", "models", "data"},
    "data": GROUND | {"graph"},
    "_edge_softmax": GROUND | {"ops"},
    "_accelerate": GROUND | {"nn", "_edge_softmax"},
    "train": GROUND | {"kernels", "graph", "ops", "nn", "models", "data", "tasks", ""},
    "explain": GROUND | {"graph", "ops", "nn", "models", "data", "tasks", "train", ""},
    "doctor": GROUND | {"kernels", "graph", "ops", "nn", "models", "data", "tasks", "train", "explain", ""},
    "__main__": {"cli"},
    "cli": GROUND | {"kernels", "graph", "ops", "nn", "models", "data", "tasks", "train", "explain", "doctor", ""},
    # The package itself, `import hgat`: it stands on the library, and training and the programs stand on it.
    "": GROUND | {"kernels", "graph", "ops", "nn", "models", "data", "_accelerate", "_edge_softmax"},
}
# Package -> the places that may import it.
AT_HOME = {
    "triton": ("kernels/triton/",),
    "ogb": ("data/ogb.py", "data/ogb_samples.py"),
    "matplotlib": ("explain/",),
    "bokeh": ("explain/",),
}
NO_DGL = ("kernels/", "errors.py", "settings.py", "files.py", "unpickle.py")


def imported(tree, package):
    """(line, dotted name) of everything that a parsed file imports; it lies in `package`, a list of names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                name = node.args[0]
                if isinstance(name, ast.JoinedStr):  # f"hgat.models.{system}": what stands before the brace
                    name = name.values[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield node.lineno, name.value


def climbing(home):
    """One sentence for every import under `home` that climbs, or brings a package into a room not its own."""
    found = []
    for path in sorted(home.rglob("*.py")):
        place = path.relative_to(home).as_posix()
        part = "" if place == "__init__.py" else place.split("/")[0].removesuffix(".py")
        if part not in MAY_USE:
            found.append(f"{place}: expected a part of the house, {sorted(MAY_USE)}")
            continue
        package = ["hgat", *path.relative_to(home).parts[:-1]]
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8")), package):
            top, *below = name.split(".")
            if top in AT_HOME and not place.startswith(AT_HOME[top]):
                found.append(f"{place}:{line}: {top} is imported only in {', '.join(AT_HOME[top])}")
            if top == "dgl" and place.startswith(NO_DGL):
                found.append(f"{place}:{line}: {place} works without DGL")
            if top != "hgat":
                continue
            # `import hgat`, or a name that is no part: the package itself, which stands on all of its parts.
            target = below[0] if below and below[0] in MAY_USE else ""
            if target != part and target not in MAY_USE[part]:
                found.append(f"{place}:{line}: {part or 'hgat'} must not import {name}")
    return found


def test_imports_only_go_down():
    assert climbing(HOME) == []


def test_the_table_has_no_circles():
    for part, below in MAY_USE.items():
        for other in below:
            assert part not in MAY_USE[other], (part, other)


def test_every_part_is_in_the_table():
    parts = {
        p.stem if p.is_file() else p.name for p in HOME.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert parts - {"__init__"} <= set(MAY_USE)


PLANTED = [
    ("errors.py", "from hgat import graph"),
    ("settings.py", "import hgat.data"),
    ("compat.py", "import hgat.errors"),
    ("kernels/cpu/__init__.py", "from hgat.errors import HgatError"),
    ("kernels/cpu/__init__.py", "import dgl"),
    ("graph/csr.py", "from hgat.ops import dispatch"),
    ("graph/csr.py", "from hgat import ops"),
    ("graph/csr.py", "from .. import ops"),
    ("graph/csr.py", "from ..ops.checks import check_call"),
    ("graph/csr.py", "import hgat"),
    ("graph/csr.py", "from hgat import HgatError"),
    ("graph/csr.py", "from hgat import *"),
    ("graph/csr.py", "def late():\n    import hgat.nn.gat"),
    ("graph/csr.py", "import importlib\nlate = importlib.import_module('hgat.models.gat')"),
    ("graph/csr.py", "late = lambda kind: __import__(f'hgat.ops.{kind}')"),
    ("ops/dispatch.py", "if False:\n    from hgat.nn import GATConv"),
    ("nn/gat.py", "from hgat.models import find"),
    ("nn/gat.py", "from hgat._accelerate import accelerate"),
    ("_accelerate.py", "from hgat import ops"),
    ("models/gat.py", "from hgat.data import load"),
    ("models/gat.py", "from hgat.tasks import nodes"),
    ("tasks/nodes.py", "from hgat.train import fit"),
    ("tasks/nodes.py", "from hgat import ops"),
    ("data/sets.py", "from hgat import models"),
    ("data/sets.py", "import ogb.nodeproppred"),
    ("train/fit.py", "from hgat import explain"),
    ("train/fit.py", "from hgat.cli import main"),
    ("explain/attention.py", "from hgat.cli import main"),
    ("explain/attention.py", "from hgat import doctor"),
    ("doctor.py", "from hgat.cli import main"),
    ("__init__.py", "from hgat import train"),
    ("nn/gat.py", "import triton.language as tl"),
    ("train/run.py", "from matplotlib.figure import Figure"),
    ("attic.py", "import dgl"),
]


@pytest.mark.parametrize(("place", "line"), PLANTED, ids=lambda x: x.replace("\n", " "))
def test_a_planted_import_is_found(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (HOME / place).read_text(encoding="utf-8") if (HOME / place).exists() else ""
    path.write_text(text, encoding="utf-8")
    before = climbing(tmp_path) if text else []
    path.write_text(f"{text}\n\n{line}\n", encoding="utf-8")
    new = [sentence for sentence in climbing(tmp_path) if sentence not in before]
    assert len(new) == 1 and new[0].startswith(place), new


def test_a_planted_import_is_found_in_the_whole_house(tmp_path):
    home = tmp_path / "hgat"
    shutil.copytree(HOME, home, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.toml"))
    before = climbing(home)
    with open(home / "graph" / "csr.py", "a", encoding="utf-8") as file:
        file.write("\n\ndef late():\n    from hgat.nn import GATConv\n")
    assert [s.split(": ")[1] for s in climbing(home) if s not in before] == ["graph must not import hgat.nn.GATConv"]


def test_imports_that_go_down_are_accepted(tmp_path):
    home = tmp_path / "hgat"
    for place, lines in {
        "graph/a.py": "import dgl\nfrom hgat import errors\nfrom hgat.graph import csr\nfrom . import b",
        "ops/a.py": "from hgat.kernels import cpu\nfrom hgat.graph import csr\nfrom ..graph.csr import edges",
        "kernels/triton/a.py": "import triton\nfrom hgat.kernels import cpu",
        "data/ogb.py": "import ogb\nfrom hgat.graph import csr",
        "explain/a.py": "from matplotlib import figure\nfrom hgat import nn, ops",
        "train/a.py": "import importlib\nimportlib.import_module(f'hgat.graph.{0}')\nfrom hgat import ops",
        "cli.py": "from hgat import doctor, explain, train",
        "__init__.py": "from hgat import compat, data\nfrom hgat.errors import HgatError",
    }.items():
        path = home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    assert climbing(home) == []


MODULES = sorted(
    ".".join(["hgat", *p.relative_to(HOME).with_suffix("").parts]).removesuffix(".__init__") for p in HOME.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in AT_HOME:
            raise
        pytest.skip(f"without {error.name}")
    public = getattr(module, "__all__", [])
    assert [n for n in public if not hasattr(module, n)] == []
    assert len(set(public)) == len(public)
    assert not [n for n in public if n.startswith("_") and n != "__version__"]


def test_the_parts_come_with_their_first_use():
    """Every public name is there, as an attribute and by import, and none of them loads DGL before it is asked for."""
    code = (
        "import sys, hgat\n"
        "assert not {'dgl', 'torch'} & set(sys.modules), 'loaded too early'\n"
        "assert set(hgat.__all__) <= set(dir(hgat))\n"
        "from hgat import *\n"
        "parts = [data, explain, graph, models, nn, ops, tasks, train]\n"
        "assert [one.__name__ for one in parts] == "
        "['hgat.' + name for name in 'data explain graph models nn ops tasks train'.split()]\n"
        "assert callable(accelerate) and hgat.accelerate is accelerate and hgat.nn is nn\n"
        "assert callable(fit) and fit.__module__ == 'hgat.train.own'\n"
        "try: hgat.attention\n"
        "except AttributeError as error: assert str(error) == \"module 'hgat' has no attribute 'attention'\"\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOME.parent)
