"""The pages of the site that are made of the code, and never committed.

The reference, a page for each system with its recipes, the gallery, and the examples.
"""

import importlib
import inspect
import re
from pathlib import Path

from hgat import models, nn, train
from hgat.train.recipe import FOLDER, Recipe
from prose import markdown

__all__ = ["examples", "gallery", "pages", "reference", "systems"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nn", "ops", "graph", "models", "data", "tasks", "train", "explain", "errors")


def pages() -> dict[str, str]:
    """{path: Markdown} of every page that is made."""
    return {**reference(), **systems(), **examples(), "gallery.md": gallery()}


def public(package: str) -> dict[str, str]:
    """{name: where it is defined} of the public classes and functions of hgat.<package>, of "" those of hgat itself."""
    module = importlib.import_module(f"hgat.{package}".rstrip("."))
    found = {name: getattr(module, name) for name in module.__all__}
    if package == "nn":
        found |= nn._layers()
    elif package in ("models", "tasks"):
        found |= {cls.__name__: cls for cls in map(module.find, module.available())}
    found = {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isfunction(thing)}
    return {name: f"{thing.__module__}.{thing.__qualname__}" for name, thing in sorted(found.items())}


def reference() -> dict[str, str]:
    """api/<package>.md of every package, api/hgat.md of what hgat itself has, and api/index.md, which lists them."""
    made, rows, where = {}, ["# Reference", "", "| package | what it has |", "|---|---|"], {}
    for package in (*PACKAGES, ""):
        module, page = importlib.import_module(f"hgat.{package}".rstrip(".")), f"{package or 'hgat'}.md"
        name, (first, _, rest) = module.__name__, inspect.getdoc(module).partition("\n")
        lines = [f"# {name}", "", markdown(f"{first}\n{rest}"), ""]
        for public_name, defined in public(package).items():
            if where.setdefault(defined, page) != page:  # one of another package's, offered here, too
                lines += [f"`{name}.{public_name}` is [`{defined}`]({where[defined]}#{defined}).", ""]
                continue
            lines += [f"::: {defined}", "    options:", f"      heading: {name}.{public_name}"]
            lines += [f"      toc_label: {public_name}", ""]
        made[f"api/{page}"] = "\n".join(lines)
        rows.append(f"| [{name}]({page}) | {markdown(first)} |")
    made["api/index.md"] = "\n".join([*rows, "", "Letters and shapes are those of [Notation](../notation.md).", ""])
    return made


def systems() -> dict[str, str]:
    """systems/<system>.md of every system, and systems/index.md, the table of all recipes."""
    recipes = [train.read(name) for name in train.available()]
    rows = [
        _row("recipe", "metric", "paper", "hgat", "uniform attention", "other controls"),
        "|---|---|---|---|---|---|",
    ]
    made = {}
    for system in models.available():
        own = [recipe for recipe in recipes if recipe.system == system]
        made[f"systems/{system}.md"] = _system(system, own)
        rows += [_summary(recipe) for recipe in own]
    made["systems/index.md"] = "\n".join(
        [
            "# Systems",
            "",
            "Means over seeds and their deviations, in percent, of each recipe: the paper's number, hgat's, and those "
            "of the controls, which lack what is said to matter. A control in bold does as well or better. – is a "
            "number that the paper does not report, or that was not run. `hgat list` prints the same.",
            "",
            *rows,
            "",
        ]
    )
    return made


def _system(system, recipes):
    cls = models.find(system)
    lines = [f"# {cls.__name__}", "", markdown(inspect.getdoc(cls)), ""]
    lines += [f"`hgat.models.{cls.__name__}` in the [reference](../api/models.md#{_anchor(cls)}).", ""]
    module = inspect.getmodule(cls)
    for name, layer in nn._layers().items():
        if vars(module).get(name) is layer:
            lines += [f"## Layer: {name}", "", markdown(inspect.getdoc(layer)), ""]
            lines += [f"`hgat.nn.{name}` in the [reference](../api/nn.md#{_anchor(layer)}).", ""]
    for recipe in recipes:
        lines += _recipe(recipe)
    return "\n".join(lines)


def _anchor(thing):
    return f"{thing.__module__}.{thing.__qualname__}"


def _recipe(recipe: Recipe) -> list[str]:
    paper, expect = recipe.paper, recipe.expect
    metric, task = recipe.train.metric.replace("_", " "), recipe.task["name"]
    lines = [f"## {recipe.name}", "", f"{_text(recipe.title)}. Task `{task}`, {metric} in percent.", ""]
    if paper is not None and paper.title:
        result = f" {_text(paper.result)}." if paper.result else ""
        code = f" [Code]({paper.code})." if paper.code.startswith("http") else ""
        lines += [f"{_text(paper.authors)} {paper.year}, [{_text(paper.title)}]({paper.link}).{result}{code}", ""]
        lines += [_text(paper.comment), ""] if paper.comment else []
    lines += [_row("", metric), "|---|---|"]
    note = f" ({_text(expect.paper_note)})" if expect.paper_note else ""
    lines += [_row("paper", numbers(expect.paper) + note), _row("hgat", numbers(expect.ours))]
    lines += [_row(_text(recipe.title_of(name)), numbers(found)) for name, found in expect.controls.items()]
    lines += ["", *([_text(expect.comment), ""] if expect.comment else [])]
    text = (FOLDER / f"{recipe.name}.toml").read_text(encoding="utf-8")
    return [*lines, "```bash", f"hgat train {recipe.name} --root DATA", "```", "", "```toml", text.rstrip(), "```", ""]


def _summary(recipe):
    expect, link = recipe.expect, f"[{recipe.name}]({recipe.system}.md#{recipe.name})"
    ours = expect.ours[0] if expect.ours else float("inf")
    cells = {
        name: f"**{numbers(of)}**" if of and of[0] >= ours else numbers(of) for name, of in expect.controls.items()
    }
    others = [f"{_text(recipe.title_of(name))} {cell}" for name, cell in cells.items() if name != "uniform"]
    metric = recipe.train.metric.replace("_", " ")
    paper = numbers(expect.paper) + (f" ({_text(expect.paper_note)})" if expect.paper_note else "")
    return _row(link, metric, paper, numbers(expect.ours), cells.get("uniform", "–"), ", ".join(others) or "–")


def numbers(spread: list[float]) -> str:
    """[mean, deviation] as tables print them; a dash for none."""
    return "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}".join(f"{value:.1f}" for value in spread[:2]) or "–"


def _row(*cells):
    return f"| {' | '.join(cells)} |"


def _text(text):
    """A sentence of a recipe, no character of which is markup."""
    return re.sub(r"([*_<\[\]|])", r"\\\1", " ".join(text.split()))


def gallery() -> str:
    """gallery.md: every picture of docs/, with the words that stand under it where a document shows it."""
    docs, shown = ROOT / "docs", {}
    for document in [*sorted(docs.glob("*.md")), ROOT / "README.md"]:
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            shown.setdefault((document.parent / target).resolve(), (" ".join(alt.split()), document))
    lines = ["# Gallery", "", "Every picture is drawn by the code: by `hgat train`, a script or a benchmark.", ""]
    for picture in sorted(docs.rglob("*.png")):
        title = picture.stem.replace("_", " ")
        alt, document = shown.get(picture, (title, ROOT))
        of = f" [More]({document.name})" if document.parent == docs else ""
        lines += [
            f"## {title}",
            "",
            f"![{alt}]({picture.relative_to(docs).as_posix()})",
            "",
            f"{alt[:1].upper()}{alt[1:]}.{of}",
            "",
        ]
    return "\n".join(lines)


def examples() -> dict[str, str]:
    """examples/<name>.md of every script in examples/, and examples/index.md."""
    made, rows = (
        {},
        [
            "# Examples",
            "",
            "Scripts of `examples/`, each of which a test runs.",
            "",
            "| script | what it does |",
            "|---|---|",
        ],
    )
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        about = inspect.cleandoc(compile(text, path.name, "exec").co_consts[0])
        first = " ".join(about.split("\n\n")[0].split())
        made[f"examples/{path.stem}.md"] = f"# {path.name}\n\n{markdown(first)}\n\n```python\n{text}```\n"
        rows.append(f"| [{path.name}]({path.stem}.md) | {markdown(first)} |")
    made["examples/index.md"] = "\n".join([*rows, ""])
    return made
