"""On a GPU no layer waits for the device, forward or backward: shown on PyTorch's meta device, whose tensors have no
values that could be read, with the graph on the CPU and features and parameters there.

A first call builds the structure and moves it; from the second on nothing is read, nothing is moved, and no result has
a size that depends on values. Drawing (TGAT's neighbours, SuperGAT's pairs that are no edges) is not looked at.
"""

from contextlib import nullcontext

import dgl
import pytest
import torch
from catalogue import LAYERS, one_relation, tensors
from torch.utils._python_dispatch import TorchDispatchMode
from toys import CASES

from hgat import nn as hnn
from hgat import ops
from hgat.graph import csr
from hgat.kernels import triton
from zoo import build

# Results of a size, or a number for Python, that only values tell.
WAITS = (
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
)


class NoWaiting(TorchDispatchMode):
    """Fails where the host would read from the device, or, without `copies`, move something to it or from it."""

    def __init__(self, copies=False):
        super().__init__()
        self.copies = copies

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [t for t in torch.utils._pytree.tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        there = [t for t in given if t.device.type == "meta"]
        if name in WAITS and there:
            raise AssertionError(f"{func} waits for the device")
        if name in ("index", "index_put", "index_put_") and there:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} by a mask waits for the device"
        if name == "repeat_interleave" and there and (kwargs or {}).get("output_size") is None:
            raise AssertionError(f"{func} without output_size waits for the device")
        if name in ("_to_copy", "copy_") and not self.copies:
            ends = {t.device.type for t in (*given, out) if t.numel()}
            assert len(ends) < 2, f"{func} of {[list(t.shape) for t in given]} between the CPU and the device"
        return out


def moved(value):
    """Floats and masks of what a layer takes, on the device; graphs and whole numbers stay."""
    if isinstance(value, torch.Tensor):
        return value.to("meta") if value.is_floating_point() or value.dtype == torch.bool else value
    if isinstance(value, dict):
        return {key: moved(one) for key, one in value.items()}
    if hasattr(value, "_make"):  # a namedtuple
        return value._make(map(moved, value))
    return type(value)(map(moved, value)) if type(value) in (list, tuple) else value


def watched(layer):
    """A call of `layer` on the device: once to build the structure, then with nothing to wait for."""

    def call(*arguments, **options):
        arguments, options = moved(arguments), moved(options)
        layer(*arguments, **options)
        with NoWaiting():
            out = layer(*arguments, **options)
            loss = sum((one * torch.rand_like(one)).sum() for one in tensors(out) if one.is_floating_point())
            if loss.requires_grad:
                loss.backward()
        assert all(one.device.type == "meta" for one in tensors(out))
        return out

    return call


@pytest.mark.parametrize("uniform", [False, True], ids=["learned", "uniform"])
@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_waits(name, uniform):
    layer = LAYERS[name]
    made = layer.build(**dict.fromkeys(layer.rates, 0.3)).to("meta")
    with ops.uniform_attention() if uniform else nullcontext():
        layer.call(watched(made))


def test_layers_with_inputs_of_their_own_do_not_wait():
    graph = build("homogeneous")
    feat, pairs = torch.randn(graph.num_nodes(), 7), dgl.graph(([1, 2], [3, 4]), num_nodes=graph.num_nodes())
    watched(hnn.FAConv(7, attn_drop=0.3).to("meta"))(graph, feat, feat)
    watched(hnn.SuperGATConv(7, 5, 3, score="mx").to("meta"))(graph, feat, get_attention=True, pairs=pairs)
    temporal = hnn.TemporalAttention(6, 3, 4).to("meta")
    watched(temporal)(torch.randn(5, 4, 6), torch.rand(4, 5) < 0.5)
    watched(temporal.extend)(torch.randn(5, 6), present=torch.rand(5) < 0.5)


@pytest.mark.parametrize("hub", [0, 70_000])
def test_a_structure_of_edges_on_the_cpu_is_built_without_waiting(hub):
    """As a block of a batch is on its way to a GPU: copied there, and sorted there."""
    dst = torch.cat([torch.zeros(hub, dtype=torch.int64), torch.arange(500)])
    block = dgl.create_block((torch.arange(len(dst)) % 600, dst), num_src_nodes=600, num_dst_nodes=500)
    with NoWaiting(copies=True):
        found = csr.structure(block, "meta", triton)
    assert all(one.device.type == "meta" for one in found) and (len(found[3]) > 0) == (hub > 0)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "DotGatConv", "EdgeGATConv"])
def test_weights_masks_and_attention_do_not_wait(name):
    graph = build("homogeneous")
    layer = LAYERS[name].build().to("meta")
    _, call = one_relation(name)
    options = {"edge_weight": torch.rand(graph.num_edges()), "edge_mask": torch.rand(graph.num_edges()) < 0.7}
    call(watched(layer), get_attention=True, **options)


def test_halves_do_not_wait():
    graph = build("homogeneous")
    count, listed = graph.num_edges(), torch.tensor([5, 3, 5, 11]).to("meta")
    calls = {
        "listed": lambda x: ops.edge_softmax(graph, x[:4], listed),
        "by source": lambda x: ops.edge_softmax(graph, x, norm_by="src"),
        "masked": lambda x: ops.edge_softmax(graph, x, edge_mask=torch.ones(count, dtype=torch.bool, device="meta")),
        "dropout": lambda x: ops.attention_dropout(x, 0.3),
        "gate": lambda x: ops.alignment(x, graph=graph, form="sigmoid"),
        "axis": lambda x: ops.alignment(x, dim=0),
        "spread": lambda x: ops.propagate(graph, torch.ones(graph.num_nodes(), 3, 2, device="meta"), x, 2),
    }
    for call in calls.values():
        watched(call)(torch.randn(count, 3, device="meta", requires_grad=True))


FORMS = {"dysat": [{}, {"structural": "none"}, {"combine": "concat"}]}
STILL = [case for case in CASES if case.task in ("nodes", "snapshot_links")]


@pytest.mark.parametrize(
    ("case", "form"), [(case, form) for case in STILL for form in FORMS.get(case.system, [{}])], ids=str
)
def test_no_system_waits(case, form):
    _, inputs, model = case.setting(**form)
    watched(model.to("meta"))(*inputs)


def test_the_watch_sees_what_it_looks_for():
    x = torch.randn(5, 3, device="meta")
    bad = {
        "item": lambda x: x.sum().item(),
        "if": lambda x: x if (x > 0).any() else -x,
        "mask": lambda x: x[x > 0],
        "assigned by a mask": lambda x: x.clone().__setitem__(x > 0, 1.0),
        "nonzero": lambda x: x.nonzero(),
        "list": lambda x: x.tolist(),
        "to the device": lambda x: x + torch.ones(5, 3).to("meta"),
        "from the device": lambda x: x.cpu(),
        "counts": lambda x: torch.repeat_interleave(x, (x[:, 0] > 0).long(), 0),
    }
    for name, call in bad.items():
        with NoWaiting(), pytest.raises((AssertionError, NotImplementedError, RuntimeError)):
            call(x)
            raise ValueError(name)
    with NoWaiting():
        (x.index_select(0, torch.zeros(2, dtype=torch.int64, device="meta")) * 2.0).softmax(0).masked_fill(x[:2] > 0, 0)
