"""What MkDocs runs: the pages that are made come beside those in docs/, and the navigation is found, not written."""

from pathlib import Path

import nbformat
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

from pages import ROOT, pages

__all__ = ["on_files"]

# In this order where they are there; what is not named here comes behind, by its name.
START = ["index.md", "first_steps.md", "own_data.md", "interchange.md", "gallery.md"]
GUIDES = [
    *("notebooks/own_graph.md", "notebooks/typed_graph.md", "notebooks/events.md"),
    *("typed.md", "attention.md", "explain.md", "doubt.md", "scale.md", "devices.md", "dgl_examples.md"),
    *("adding_a_system.md", "data.md", "notation.md"),
]


def on_files(files, config):
    for path, text in {**notebooks(), **pages()}.items():
        files.append(File.generated(config, path, content=text))
    there = {file.src_uri for file in files.documentation_pages()}
    api, systems, examples = (_inside(there, folder) for folder in ("api", "systems", "examples"))
    start = [page for page in START if page in there]
    guides = [page for page in GUIDES if page in there]
    guides += sorted(there - {*start, *guides, *api, *systems, *examples})
    sections = {"Start": start, "Guides": guides, "Systems": systems, "Reference": api, "Examples": examples}
    config.nav = [{title: of} for title, of in sections.items()]
    return files


def _inside(there, folder):
    found = (page for page in there if page.startswith(f"{folder}/"))
    return sorted(found, key=lambda page: (not page.endswith("/index.md"), page))


def notebooks():
    """{path: Markdown or bytes} of the notebooks, run from start to end, and of the pictures that they draw."""
    made = {}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(ROOT)}})
        for cell in notebook.cells:
            if cell.cell_type == "code":  # what libraries tell a terminal differs from machine to machine
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        names = {"unique_key": path.stem, "output_files_dir": path.stem}
        text, found = MarkdownExporter().from_notebook_node(notebook, names)
        made[f"notebooks/{path.stem}.md"] = text
        made |= {f"notebooks/{Path(name).as_posix()}": content for name, content in found["outputs"].items()}
    return made
