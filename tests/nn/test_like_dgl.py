"""What a program that was written for dgl.nn finds in hgat.nn: attributes of layers, and the names of the rest."""

import importlib
import inspect

import dgl.nn
import dgl.nn.functional
import numpy as np
import pytest
import torch
from catalogue import EDGE, HEADS, IN, OUT

import hgat
import hgat.nn as hnn
from zoo import build

RESIDUALS = ({}, {"residual": True}, {"residual": True, "bias": False})
WIDTHS = ((IN, OUT, HEADS), ((IN, 4), OUT, HEADS), (IN, IN, 1))
CONSTRUCTED = [
    *((name, args, options) for name in ("GATConv", "GATv2Conv") for args in WIDTHS for options in RESIDUALS),
    *(("EdgeGATConv", (width, EDGE, OUT, HEADS), {}) for width in (IN, (IN, 4))),
    ("EdgeGATConv", (IN, EDGE, OUT, HEADS), {"residual": False, "bias": False}),
    *(("DotGatConv", (width, OUT, HEADS), {}) for width in (IN, (IN, 4))),
    *(("HGTConv", (IN, OUT, HEADS, 2, 3), {"use_norm": norm}) for norm in (False, True)),
    ("HGTConv", (OUT * HEADS, OUT, HEADS, 2, 3), {}),
    *(("EGATConv", (width, EDGE, OUT, 4, HEADS), {}) for width in (IN, (IN, 4))),
    ("AGNNConv", (), {}),
    ("AGNNConv", (), {"learn_beta": False}),
]


@pytest.mark.parametrize(("name", "args", "options"), CONSTRUCTED, ids=str)
def test_what_dgls_constructor_sets_is_there(name, args, options):
    theirs, ours = getattr(dgl.nn, name)(*args, **options), getattr(hnn, name)(*args, **options)
    for key, value in vars(theirs).items():
        if key.startswith("__") or key in ("_parameters", "_buffers", "_modules"):
            continue
        assert getattr(ours, key) == value, key
    for key in (*theirs._modules, *theirs._parameters, *theirs._buffers):
        assert (getattr(ours, key) is None) == (getattr(theirs, key) is None), key
    assert list(ours.state_dict()) == list(theirs.state_dict()) or set(ours.state_dict()) == set(theirs.state_dict())


class Own(hnn.GATConv):
    """A subclass whose forward is written from DGL's, as DGL's examples do."""

    def forward(self, graph, feat):
        h = self.feat_drop(feat)
        value = self.fc(h).view(-1, self._num_heads, self._out_feats)
        logits = self.leaky_relu(
            (value * self.attn_l).sum(-1)[graph.edges()[0]] + (value * self.attn_r).sum(-1)[graph.edges()[1]]
        )
        alpha = self.attn_drop(dgl.nn.functional.edge_softmax(graph, logits.unsqueeze(-1)))
        out = dgl.ops.u_mul_e_sum(graph, value, alpha)
        if self.res_fc is not None:
            out = out + self.res_fc(h).view(h.shape[0], -1, self._out_feats)
        if self.has_explicit_bias:
            out = out + self.bias.view(self._num_heads, self._out_feats)
        return self.activation(out) if self.activation else out


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"bias": False}, {"negative_slope": 0.7}], ids=str)
def test_a_subclass_written_from_dgls_forward(options):
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    own = Own(IN, OUT, HEADS, **options)
    plain = hnn.GATConv(IN, OUT, HEADS, **options)
    plain.load_state_dict(own.state_dict())
    torch.testing.assert_close(own(graph, feat), plain(graph, feat), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "EdgeGATConv"])
def test_a_slope_that_is_changed_after_construction_counts(name):
    graph = build("homogeneous")
    options = {"edge_feats": EDGE} if name == "EdgeGATConv" else {}
    arguments = (torch.randn(23, IN), torch.randn(graph.num_edges(), EDGE))[: 1 + len(options)]

    def build_layer(library, slope):
        return getattr(library, name)(IN, out_feats=OUT, num_heads=HEADS, negative_slope=slope, **options)

    theirs, ours = build_layer(dgl.nn, 0.2), build_layer(hnn, 0.2)
    ours.load_state_dict(theirs.state_dict())
    for change in (torch.nn.LeakyReLU(0.8), torch.nn.ReLU(), torch.nn.Identity(), 0.05):
        for layer in (theirs, ours):
            if isinstance(change, float):
                layer.leaky_relu = torch.nn.LeakyReLU()
                layer.leaky_relu.negative_slope = change
            else:
                layer.leaky_relu = change
        torch.testing.assert_close(ours(graph, *arguments), theirs(graph, *arguments), atol=1e-5, rtol=1e-5)
        # And through accelerate, where that takes the layer.
    accelerated = build_layer(dgl.nn, 0.2)
    accelerated.load_state_dict(theirs.state_dict())
    accelerated.leaky_relu = torch.nn.LeakyReLU(0.8)
    want = accelerated(graph, *arguments)
    assert hgat.accelerate(accelerated).replaced
    torch.testing.assert_close(accelerated(graph, *arguments), want, atol=1e-5, rtol=1e-5)
    accelerated.leaky_relu.negative_slope = 0.2
    assert not torch.allclose(accelerated(graph, *arguments), want)


def test_the_rest_of_dgl_nn_is_there():
    assert hnn.HeteroGraphConv is dgl.nn.HeteroGraphConv
    from hgat.nn.functional import edge_softmax

    assert hnn.functional.edge_softmax is hnn.edge_softmax is edge_softmax is hgat.ops.edge_softmax
    from hgat.nn import GraphConv, HeteroGraphConv, Sequential  # noqa: F401

    packages = [dgl.nn.pytorch.conv, dgl.nn.pytorch]
    names = {name for package in packages for name, value in vars(package).items() if inspect.isclass(value)}
    names -= {"nn"}
    for name in {*names, *dgl.nn.pytorch.conv.__all__}:
        assert name in dir(hnn), name
        assert getattr(hnn, name) is (vars(hnn)[name] if name in hnn.__all__ else getattr(dgl.nn, name)), name


@pytest.mark.parametrize("name", ["os", "sys", "importlib", "nn", "_load_backend", "NoSuchLayer", "__wrapped__"])
def test_names_that_are_no_part_of_dgl_nn(name):
    with pytest.raises(AttributeError, match=f"module 'hgat.nn' has no attribute '{name}'"):
        getattr(hnn, name)
    assert name not in dir(hnn)
    with pytest.raises(ImportError):
        exec(f"from hgat.nn import {name}")


def test_our_names_stay_ours():
    module = importlib.reload(importlib.import_module("hgat.nn"))
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith("hgat.")
    scope = {}
    exec("from hgat.nn import *", scope)
    assert scope["GATConv"] is module.GATConv and module.edge_softmax is hgat.ops.edge_softmax


@pytest.mark.parametrize("whole", [np.int64, np.int32, torch.tensor], ids=["int64", "int32", "tensor"])
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "DotGatConv"])
def test_sizes_as_counting_gives_them(name, whole):
    """labels.max() + 1 is a number of classes, too, and serves in DGL's layers."""
    graph = build("homogeneous")
    for width in (whole(IN), (whole(IN), whole(IN))):
        layer = getattr(hnn, name)(width, whole(OUT), whole(HEADS))
        feat = torch.randn(23, IN)
        out = layer(graph, (feat, feat) if isinstance(width, tuple) else feat)
        assert out.shape == (23, HEADS, OUT) and type(layer._out_feats) is int
