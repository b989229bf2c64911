"""What the documents say is so: their Python runs, their commands are understood, the site has what it names."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dgl
import pytest
import torch
import torch.nn.functional as F

import hgat
from hgat import cli, models, nn, ops, train

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "site"))
from pages import PACKAGES, numbers, pages, public  # noqa: E402
from prose import markdown  # noqa: E402

DOCUMENTS = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
# A block behind the comment `<!-- not run: why -->` needs files or devices that a reader has and a test has not.
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n+)?^```(\w*)\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"(?<!`)`(hgat [^`]+)`")


def blocks(document, *languages):
    """(line, text, whether it is run) of the fenced blocks of a document."""
    text = document.read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match[2] in languages]
    return [(text.count("\n", 0, match.start(3)), match[3], match[1] is None) for match in found]


def at_hand():
    """What a reader of a guide has: a graph, its features and labels, models, a layer, a sampler."""
    graph, feat, label = dgl.add_self_loop(dgl.rand_graph(2000, 4000)), torch.randn(2000, 8), torch.arange(2000) % 3
    return {
        **{"hgat": hgat, "dgl": dgl, "torch": torch, "F": F, "nn": torch.nn, "ops": ops},
        **{"graph": graph, "feat": feat, "label": label, "value": torch.randn(2000, 1, 4), "inputs": (graph, feat)},
        **{"train": torch.arange(20), "ids": torch.arange(60)},
        **{name: models.GAT(8, 3, heads=[2, 1]).eval() for name in ("model", "another_seed")},
        **{"layer": nn.GATConv(8, 4, 2), "sampler": dgl.dataloading.NeighborSampler([5, 5])},
        "accuracy": lambda model: 100 * float((model(graph, feat).argmax(1) == label).float().mean()),
    }


def test_no_document_imports_dgl_before_hgat():
    """Where DGL finds no GraphBolt of this PyTorch, it can be imported behind hgat alone."""
    for document in set(DOCUMENTS) - {DOCS / "adding_a_system.md"}:  # whose Python stands inside hgat
        text = "".join(text for _, text, _ in blocks(document, "python"))
        modules = re.findall(r"\b(?:dgl|hgat)\b", "\n".join(re.findall(r"^(?:import|from) .*", text, re.M)))
        assert "dgl" not in modules or modules[0] == "hgat", document.name


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.parent == DOCS], ids=lambda document: document.stem)
def test_python_of_a_document_runs(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = at_hand()
    for line, text, runs in blocks(document, "python"):
        for said, here in {'"cuda"': '"cpu"', "nodes=1000": "nodes=20"}.items():  # what a test has, and has time for
            text = text.replace(said, here)
        code = compile("\n" * line + text, document.name, "exec")
        if runs:
            exec(code, names)


def ran(document):
    """The names that the Python of a document leaves behind."""
    names = {}
    for _, text, _ in blocks(document, "python"):
        exec(compile(text.replace('"cuda"', '"cpu"'), document.name, "exec"), names)
    return names


@pytest.mark.parametrize("number", [0, 1])
def test_every_block_of_the_readme_runs_alone(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [text for _, text, _ in blocks(ROOT / "README.md", "python")]
    assert len(found) == 2
    names = {}
    exec(compile(found[number], "README.md", "exec"), names)
    if number == 0:
        assert (tmp_path / "runs" / "rgat-own" / "metrics.json").is_file()
    else:
        assert names["loss"].item() < 0.1 and names["alpha"]["user", "hates", "film"].shape == (2, 4)


def test_a_model_that_a_reader_has_is_taken_over():
    names = ran(DOCS / "dgl_models.md")
    graph = dgl.add_self_loop(dgl.rand_graph(7, 11))
    assert names["GAT"](5, 3, 2)(graph, torch.randn(7, 5)).shape == (7, 2)
    assert [type(layer) for layer in names["model"]] == [nn.GATConv, nn.GATConv]


def test_the_past_is_extended_and_asked_as_the_page_says():
    names = ran(DOCS / "changing.md")
    for column, step in enumerate(("first", "second")):
        torch.testing.assert_close(names[step], names["h"][:, column], atol=1e-5, rtol=1e-5)
    assert names["alpha"].shape == (200, 2, 2, 10)
    assert (names["when"] < names["moments"].unsqueeze(1))[names["mask"]].all() and names["mask"].any()


def test_the_recipe_of_a_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran(DOCS / "own_data.md")
    path = tmp_path / "films.toml"
    path.write_text("\n".join(text for _, text, _ in blocks(DOCS / "own_data.md", "toml")))
    train.train(path, overrides=["train.epochs=1"], progress=False)
    assert train.read(path).paper is None and train.read(path).tune


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_hold_no_outputs(path):
    names = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None  # the site's are of its own build
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)


def commands():
    """(where, words, whether in a sentence, which may leave arguments out) of every command `hgat ...`."""
    for document in DOCUMENTS:
        for line, text, _ in blocks(document, "", "bash", "sh"):
            for at, command in enumerate(text.replace("\\\n", " ").splitlines()):
                if command.startswith("hgat "):
                    yield f"{document.name}:{line + at + 1}", shlex.split(command, comments=True), False
        prose = BLOCK.sub("", document.read_text(encoding="utf-8")) if document.parent == DOCS else ""
        yield from ((document.name, shlex.split(command), True) for command in COMMAND.findall(prose))


def test_commands_of_the_documents_are_understood(capsys):
    found = list(commands())
    assert len(found) > 20
    for where, words, in_a_sentence in found:
        try:
            arguments = cli._parser().parse_args(words[1:])
        except SystemExit:
            said = capsys.readouterr().err
            if not (in_a_sentence and "arguments are required" in said):
                pytest.fail(f"{where}: {' '.join(words)}: {said}")
            continue
        recipe = getattr(arguments, "recipe", "RECIPE")
        if recipe not in ("RECIPE", "foo-cora") and not recipe.endswith(".toml"):  # the reader's own
            train.read(recipe, getattr(arguments, "overrides", ()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_shell_blocks_are_shell_and_name_what_exists(document):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for line, text, _ in blocks(document, "bash", "sh"):
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert checked.returncode == 0, f"{document.name}:{line}: {checked.stderr}"
        assert {name for name in re.findall(r"^make ([a-z-]+)", text, re.M)} <= set(targets)
        for script in re.findall(r"\b(?:examples|docs|tests)/[\w/]+\.py", text):
            assert (ROOT / script).is_file(), f"{document.name}:{line}: {script}"


@pytest.fixture(scope="module")
def made():
    return pages()


def test_every_system_has_a_page_with_equation_recipe_and_numbers(made):
    known = [train.read(name) for name in train.available()]
    for system in models.available():
        page, recipes = made[f"systems/{system}.md"], [recipe for recipe in known if recipe.system == system]
        assert recipes and markdown(inspect.getdoc(models.find(system))) in page
        for recipe in recipes:
            part = page.partition(f"\n## {recipe.name}\n")[2].partition("\n## ")[0]
            assert f'system = "{system}"' in part and f"hgat train {recipe.name} --root DATA" in part
            assert f"| paper | {numbers(recipe.expect.paper)}" in part
            assert f"| hgat | {numbers(recipe.expect.ours)} |" in part
            for name, found in recipe.expect.controls.items():
                assert f"| {recipe.title_of(name)} | {numbers(found)} |" in part
            assert f"[{recipe.name}]({system}.md#{recipe.name})" in made["systems/index.md"]
    layers = {layer for page in made.values() for layer in re.findall(r"^## Layer: (\w+)", page, re.M)}
    assert {"GATConv", "RGATConv", "HANConv", "TGATConv"} <= layers
    assert "    out_i = sum_r sum_j alpha_ij^r g_j^r  [+ bias]" in made["systems/rgat.md"].splitlines()


def test_the_table_of_systems_marks_controls_that_do_as_well(made):
    rows = {row.split("]")[0][3:]: row for row in made["systems/index.md"].splitlines() if row.startswith("| [")}
    assert sorted(rows) == train.available()
    for name, row in rows.items():
        expect = train.read(name).expect
        bold = {float(number) for number in re.findall(r"\*\*(-?[\d.]+)", row)}
        assert bold == {round(of[0], 1) for of in expect.controls.values() if expect.ours and of[0] >= expect.ours[0]}


def test_the_reference_has_every_public_name_once(made):
    described = re.findall(r"^::: (\S+)\n    options:\n      heading: (\S+)", "\n".join(made.values()), re.M)
    assert len({defined for defined, _ in described}) == len(described)
    offered = {f"hgat.{package}.{name}": at for package in PACKAGES for name, at in public(package).items()}
    for name, defined in offered.items():
        page = made[f"api/{name.split('.')[1]}.md"]
        assert (defined, name) in described or f"`{name}` is [`{defined}`](" in page
    assert {"hgat.nn.RGHATConv", "hgat.models.UAG", "hgat.errors.HgatError", "hgat.train.train"} <= set(offered)
    assert "`hgat.HgatError` is [`hgat.errors.HgatError`](errors.md#hgat.errors.HgatError)." in made["api/hgat.md"]


def test_the_gallery_has_every_picture(made):
    shown = re.findall(r"^!\[[^\]]+\]\((\S+)\)$", made["gallery.md"], re.M)
    assert shown == [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.png"))]


def test_links_between_pages_lead_somewhere(made):
    written = {document.name: document.read_text(encoding="utf-8") for document in DOCUMENTS if document.parent == DOCS}
    notebooks = {f"notebooks/{path.stem}.md": "" for path in (DOCS / "notebooks").glob("*.ipynb")}
    there = {**written, **notebooks, **made}
    for page, text in {**written, **made}.items():
        for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", re.sub(r"`[^`]*`", "", BLOCK.sub("", text))):
            path = (DOCS / page).parent.joinpath(target).resolve()
            assert path.relative_to(DOCS).as_posix() in there or path.is_file(), f"{page}: {target}"


def test_docstrings_keep_equations_and_mark_shapes():
    said = "h [N_src, H, D] -> [N, 2 * F], as `f[N]` and a_b[k] < c."
    assert markdown(f"Sums.\n\n    out_i = [a * b] <c>\n{said}\nPaper: arXiv:1904.05811, [1]").splitlines() == [
        *("Sums.", "", "    out_i = [a * b] <c>", ""),
        r"h `[N_src, H, D]` -> `[N, 2 * F]`, as `f[N]` and a\_b\[k\] \< c.",
        *("", "Paper: [arXiv:1904.05811](https://arxiv.org/abs/1904.05811), `[1]`"),
    ]
