import dataclasses
import urllib.request
from pathlib import Path

import pytest

import hgat.data.card

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def real():
    """The folder of real data sets, once every file of the named one is there."""

    def root(name):
        card = hgat.data.card.read(name)
        for file in card.files:
            if not (REAL / card.folder / file.name).is_file():
                pytest.skip(f"the real file {REAL / card.folder / file.name} is not here")
        return REAL

    return root


@pytest.fixture
def small():
    """A card like the named one for small files of the same format: no checksums, addresses or counts."""

    def card(name, **layout):
        full = hgat.data.card.read(name)
        files = tuple(dataclasses.replace(file, sha256=None, url=None) for file in full.files)
        return dataclasses.replace(full, files=files, counts={}, layout={**full.layout, **layout})

    return card


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only this machine is reached, whatever the cards say."""
    real_open = urllib.request.urlopen

    def urlopen(url, *args, **kwargs):
        if not url.startswith(("http://127.0.0.1:", "file://")):
            raise urllib.error.URLError("no network in tests")
        return real_open(url, *args, **kwargs)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
