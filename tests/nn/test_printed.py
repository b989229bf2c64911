"""A layer is printed with what it was made of, and brings that along."""

import copy
import pickle

import pytest
import torch
from catalogue import IN, LAYERS
from torch import nn

import hgat.nn
from hgat.nn import FAConv, GATConv, RGATConv
from hgat.nn.common import Layer


def test_every_layer_can():
    own = [one for name in dir(hgat.nn) if isinstance(one := getattr(hgat.nn, name), type)]
    layers = [one for one in own if issubclass(one, nn.Module) and one.__module__.startswith("hgat.")]
    assert len(layers) > 40 and [one.__name__ for one in layers if not issubclass(one, Layer)] == []


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_sizes_are_seen_and_copied_and_pickled(name):
    layer = LAYERS[name].build()
    layer = next((child for child in layer.modules() if isinstance(child, Layer)), layer)
    said = layer.extra_repr()
    assert (said or name == "AGNNConv") and said in repr(layer) and "\n" not in said
    assert copy.deepcopy(layer).extra_repr() == said == pickle.loads(pickle.dumps(layer)).extra_repr()
    assert not any("made_of" in key for key in layer.state_dict())


def test_arguments_stand_as_they_were_given():
    assert FAConv(IN, eps=0.1, form="two_channel").extra_repr() == "7, eps=0.1, form='two_channel'"
    assert (
        GATConv((3, 4), 8, num_heads=2, activation=torch.tanh).extra_repr()
        == "(3, 4), 8, num_heads=2, activation=<tanh>"
    )
    etypes = [("a", str(k), "b") for k in range(7)]
    assert RGATConv(16, 8, 2, etypes=etypes).extra_repr() == "16, 8, 2, etypes=<7 of list>"
