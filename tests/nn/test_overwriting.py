"""What a layer gives belongs to who called it: overwriting it changes no gradient and no other tensor."""

import inspect

import pytest
import torch
from backends import ON_CPU
from catalogue import LAYERS, tensors
from systems import SYSTEMS, stage

from hgat import ops

ATTENTIVE = [
    name for name, layer in LAYERS.items() if "get_attention" in inspect.signature(layer.build().forward).parameters
]
CALLS = [(name, {}) for name in LAYERS] + [(name, {"get_attention": True}) for name in ATTENTIVE]


def _gradients(layer, name, options, overwrite):
    torch.manual_seed(3)
    outs = tensors(LAYERS[name].call(layer, **options))
    torch.manual_seed(4)
    loss = sum((out * torch.randn_like(out)).sum() for out in outs)
    if overwrite:
        # On what was given, and with what is used already: each as a training program may write it.
        loss = 0.0
        torch.manual_seed(4)
        for out in outs:
            cotangent = torch.randn_like(out)
            flat = out.view(out.shape)
            flat += 1.0
            loss = loss + (flat * cotangent).sum()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, parameters, allow_unused=True)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("name", "options"), CALLS, ids=str)
def test_gradients_are_those_of_outputs_left_alone(name, options, training, backend):
    layer = LAYERS[name].build().train(training)
    with ops.use_backend(backend):
        expected = _gradients(layer, name, options, False)
        found = _gradients(layer, name, options, True)
    for got, want in zip(found, expected, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), CALLS, ids=str)
def test_no_tensor_shares_memory_with_another(name, options):
    layer = LAYERS[name].build().eval()
    with torch.no_grad():
        outs = tensors(LAYERS[name].call(layer, **options))
        kept = [out.clone() for out in outs]
        owned = [p.clone() for p in (*layer.parameters(), *layer.buffers())]
        for number, out in enumerate(outs):
            out.fill_(float(number + 100))
            for other, before in zip(outs[number + 1 :], kept[number + 1 :], strict=True):
                assert torch.equal(other, before)
        for now, before in zip((*layer.parameters(), *layer.buffers()), owned, strict=True):
            assert torch.equal(now, before)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(
    "name", ["GATConv", "GATConv, bare", "GATv2Conv", "EdgeGATConv", "RGATConv", "HANConv", "SnapshotGATConv"]
)
def test_an_activation_that_overwrites(name, backend):
    name, _, kind = name.partition(", ")
    options = {"bias": False} if kind else {}
    layer, other = (LAYERS[name].build(**options, activation=torch.nn.ReLU(inplace=value)) for value in (True, False))
    other.load_state_dict(layer.state_dict())
    with ops.use_backend(backend):
        for got, want in zip(*(_gradients(one, name, {}, False) for one in (layer, other)), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("name", "settings"), [(name, form) for name, system in SYSTEMS.items() for form in system.forms], ids=str
)
def test_outputs_of_models(name, settings):
    torch.manual_seed(0)
    graph, feat = stage(name)
    model = SYSTEMS[name].model.for_graph(graph, feat, 5, SYSTEMS[name].target, **settings).eval()
    cotangent = torch.randn(graph.num_nodes(SYSTEMS[name].target) if hasattr(graph, "num_nodes") else 11, 5)
    found = []
    for overwrite in (False, True):
        out = model(graph, feat)
        if overwrite:
            out += 1.0
        found.append(torch.autograd.grad((out * cotangent).sum(), list(model.parameters()), allow_unused=True))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
