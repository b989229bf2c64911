"""Every layer is hgat.nn's by the file that it stands in: nobody lists it."""

import importlib
import pkgutil

import dgl
import pytest
from torch import nn

import hgat.nn

APART = ("common", "functional", "names")
FILES = [m.name for m in pkgutil.iter_modules(hgat.nn.__path__) if m.name not in APART]


@pytest.mark.parametrize("file", FILES)
def test_every_layer_of_a_file_is_public(file):
    module = importlib.import_module(f"hgat.nn.{file}")
    layers = [n for n in module.__all__ if isinstance(getattr(module, n), type)]
    assert layers
    for name in layers:
        assert getattr(hgat.nn, name) is getattr(module, name) and name in dir(hgat.nn)
        assert issubclass(getattr(module, name), nn.Module)


def test_the_rest_is_dgls_and_nothing_else():
    assert hgat.nn.GraphConv is dgl.nn.GraphConv
    for name in ("check_floats", "NamedState", "no_such_layer"):
        with pytest.raises(AttributeError, match=f"module 'hgat.nn' has no attribute '{name}'"):
            getattr(hgat.nn, name)
