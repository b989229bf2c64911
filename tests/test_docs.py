"""The Python of the guides runs as it stands, each page by itself, in an empty folder."""

import re
from pathlib import Path

import pytest

import hgat
from hgat.train import read

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize("page, blocks", [("own_data", 4), ("interchange", 1)])
def test_the_python_of_a_guide_runs(page, blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(found) == blocks
    names = {}
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), names)
    recipe = "\n".join(re.findall(r"```toml\n(.*?)```", text, re.S))  # the ranges are of the recipe before them
    if recipe:
        path = tmp_path / "films.toml"
        path.write_text(recipe)
        hgat.train.train(path, overrides=["train.epochs=1"], progress=False)
        assert read(path).paper is None and read(path).tune
