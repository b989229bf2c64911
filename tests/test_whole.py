"""The house as a whole: no system without test and recipe, no public name without shapes and paper."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import hgat
from hgat import data, models, nn, ops, tasks
from hgat.data import card
from hgat.train import recipe

HOME = Path(hgat.__file__).parent
TESTS = Path(__file__).parent
# [N], [E, H], [N_dst, *, H, D], [R] and the like: letters of the notation, commas, dots, stars and operators.
SHAPE = re.compile(r"\[(?:\*|\.\.\.|\d+|[A-Z]\w*)(?: ?[,*+/] ?(?:\*|\.\.\.|\d+|[A-Z]\w*))*\]")
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|\b(?:19|20)\d\d\b")
# They take and give no tensor.
WITHOUT_TENSORS = {"backends", "in_chunks", "uniform_attention", "use_backend", "available", "find"}


def public(module):
    """(name, object) of every public class and function of a package."""
    return [(name, getattr(module, name)) for name in module.__all__]


OPERATORS = public(ops)
LAYERS = public(nn)
MODELS = [(system, models.find(system)) for system in models.available()]
TASKS = [(name, tasks.find(name)) for name in tasks.available()]


@pytest.mark.parametrize("system", models.available())
def test_every_system_has_a_test_and_a_recipe(system):
    assert (TESTS / "models" / f"test_{system}.py").is_file()
    assert [name for name in recipe.available() if recipe.read(name).system == system], "no recipe"


@pytest.mark.parametrize("name", recipe.available())
def test_recipes_name_what_exists(name):
    found = recipe.read(name)
    assert found.name == name
    assert found.system in models.available()
    assert found.data["name"] in data.available()
    about = card.read(found.data["name"])
    # What the system is called or made of, a variant of it, and what the data are called, and what is special of them.
    called = found.data["name"].split("-")[-1], about.folder
    first, *rest = name.split("-")
    assert found.system.endswith(first) and any("-".join(rest[at:]).startswith(called) for at in range(len(rest)))
    assert about.licence and about.citation and about.source and (about.files or "generated" in about.source)
    importlib.import_module(f"hgat.data.{about.format}").load  # noqa: B018  (the loader that the card names)
    assert found.task["name"] in models.find(found.system).solves and found.task["name"] in tasks.available()
    assert found.paper.title and found.paper.authors and found.paper.link.startswith("https://")
    assert found.title and found.train.controls, "a number without a control beside it"
    if found.expect.paper:
        assert found.paper.result, "a number of the paper without its table"


@pytest.mark.parametrize("name", recipe.available())
def test_recipes_survive_being_written_and_read(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text(recipe.to_toml(recipe.read(name)), encoding="utf-8")
    assert recipe.read(str(path)) == recipe.read(name)


@pytest.mark.parametrize(("system", "cls"), MODELS)
def test_models_follow_the_form(system, cls):
    module = inspect.getmodule(cls)
    assert module.__all__ == [cls.__name__] and module.__name__ == f"hgat.models.{system}"
    assert module.__doc__
    assert issubclass(cls, models.System)
    assert cls.solves and set(cls.solves) <= set(tasks.available())
    assert next(iter(inspect.signature(cls.prepare).parameters)) == "shown"
    settings = [p for p in inspect.signature(cls.prepare).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert all(p.annotation is not p.empty for p in settings)  # read by the check of a recipe's [graph]
    assert list(inspect.signature(cls.build).parameters)[:2] == ["shown", "inputs"]
    assert list(inspect.signature(cls.for_graph).parameters)[:4] == ["graph", "feat", "num_outputs", "target"]
    known = {p.name: p for p in inspect.signature(cls.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for parameter in known.values():  # a key of [model]: it has a type to check and a default
        assert parameter.annotation is not parameter.empty, parameter.name
        assert parameter.default is not parameter.empty, parameter.name
    for name, ablation in cls.ablations.items():  # a control that is a setting
        assert ablation.title and ablation.settings, name
        assert set(ablation.settings) <= set(known) and set(ablation.graph) <= {p.name for p in settings}, name
        for task in cls.solves:
            assert name not in tasks.find(task).controls and name != recipe.UNIFORM


@pytest.mark.parametrize(("name", "cls"), TASKS)
def test_tasks_follow_the_form(name, cls):
    module = inspect.getmodule(cls)
    assert module.__all__ == [cls.__name__] and module.__name__ == f"hgat.tasks.{name}"
    assert module.__doc__ and cls.__doc__ and cls.name() == name
    assert issubclass(cls, tasks.Task)
    assert {kind.__name__ for kind in (cls.kind if isinstance(cls.kind, tuple) else (cls.kind,))} <= set(data.__all__)
    assert cls.metrics and cls.unit and cls.bounds[0] < cls.bounds[1]
    for parameter in inspect.signature(cls.__init__).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:  # a key of [task]
            assert parameter.annotation is not parameter.empty, parameter.name
            assert parameter.default is not parameter.empty, parameter.name
    for control, of in cls.controls.items():
        assert of.title, control
        assert issubclass(of, models.System) and (of.solutions is None or of.solutions >= 0)
    assert [system for system, of in MODELS if name in of.solves], "nobody answers"


def lacks_shapes(text):
    return not text or not SHAPE.search(text)


def lacks_paper(text):
    return not text or not PAPER.search(text)


@pytest.mark.parametrize(("name", "thing"), [*OPERATORS, *LAYERS])
def test_docstrings_state_shapes(name, thing):
    text = inspect.getdoc(thing)
    assert text
    if name not in WITHOUT_TENSORS:
        assert not lacks_shapes(text), text


@pytest.mark.parametrize(("name", "cls"), MODELS)
def test_docstrings_of_forward_state_shapes(name, cls):
    """help() of a model's forward, which is what people open; the class says what the settings are."""
    assert inspect.getdoc(cls)
    text = inspect.getdoc(cls.forward)
    assert not lacks_shapes(text), text


@pytest.mark.parametrize(("name", "thing"), [*LAYERS, *MODELS])
def test_docstrings_of_layers_and_models_name_their_paper(name, thing):
    assert not lacks_paper(inspect.getdoc(thing)), inspect.getdoc(thing)
    assert "Paper:" in inspect.getdoc(thing)


@pytest.mark.parametrize("text", [None, "", "A layer.", "values[k] and [see below]", "gives [] for {E, H}"])
def test_a_docstring_without_shapes_is_found(text):
    assert lacks_shapes(text)
    assert lacks_paper(text)


@pytest.mark.parametrize("text", ["feat [N, F]", "[E]", "[N_dst, *, H, D]", "-> [N, H * D]", "[..., D]"])
def test_shapes_are_recognised(text):
    assert not lacks_shapes(text)


FILES = [
    (path.relative_to(HOME).as_posix(), path)
    for path in sorted(HOME.rglob("*"))
    if path.suffix in (".py", ".cpp", ".h", ".toml")
]


@pytest.mark.parametrize(("name", "path"), FILES)
def test_files_begin_with_what_they_are_for(name, path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse("\n".join(lines))), "a file begins with what it is for"
