"""What only a GPU can show: `make test DEVICE=cuda`. Graphs stay on the CPU, as PyPI's DGL has them."""

import os

import dgl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CASES, rates

import hgat
from hgat.nn import GATConv, GATv2Conv, RGATConv
from hgat.train.run import Experiment
from zoo import build, typed_graph

DEVICE = os.environ.get("HGAT_TEST_DEVICE") or "cpu"
pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU: HGAT_TEST_DEVICE names none")
IN, OUT, HEADS = 7, 8, 4
DRAWING = ("supergat", "tgat", "uag")  # pairs or neighbours are drawn on the device, which has numbers of its own


def moved(inputs):
    experiment = object.__new__(Experiment)
    experiment.device = torch.device(DEVICE)
    return experiment._moved(inputs)


def power_law(nodes=600, edges=9000):
    generator = torch.Generator().manual_seed(3)
    dst = (nodes * torch.rand(edges, generator=generator) ** 3).long()
    return dgl.add_self_loop(dgl.graph((torch.randint(0, nodes, (edges,), generator=generator), dst), num_nodes=nodes))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_system_learns_the_same_on_both_devices(case):
    """Three epochs without dropout: the same losses, within what sums in another order make of them."""
    found = {}
    for device in ("cpu", DEVICE):
        task, inputs, model = case.setting(**dict.fromkeys(rates(case), 0.0))
        inputs = inputs if device == "cpu" else moved(inputs)
        model.to(device)
        optimizer = torch.optim.Adam(model.groups(), lr=0.01)
        losses = []
        for _ in range(3):
            torch.manual_seed(5)
            for batch in task.batches(model, inputs):
                optimizer.zero_grad()
                loss = model.objective(task.loss, inputs, batch)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach().cpu())
        found[device] = torch.stack(losses)
    if case.system in DRAWING:
        torch.testing.assert_close(found[DEVICE].mean(), found["cpu"].mean(), rtol=0.2, atol=0.1)
    else:
        torch.testing.assert_close(found[DEVICE], found["cpu"], rtol=2e-3, atol=2e-3)


def test_a_checkpoint_moves_between_devices():
    case = next(case for case in CASES if case.system == "gat")
    _, inputs, model = case.setting()
    model.to(DEVICE)
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    _, _, again = case.setting()
    again.load_state_dict(state)
    with torch.no_grad():
        here, there = again.eval()(*inputs), model.eval()(*moved(inputs))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)


class Net(nn.Module):
    def __init__(self, conv=GATConv):
        super().__init__()
        self.one, self.two = conv(IN, OUT, HEADS), conv(OUT * HEADS, 3, 1)

    def forward(self, graph, x):
        return self.two(graph, F.elu(self.one(graph, x).flatten(1))).mean(1)


@pytest.mark.parametrize("conv", [GATConv, GATv2Conv])
def test_training_waits_for_nothing(conv):
    """PyTorch raises where a step has to wait for the device; structure is built before."""
    graph, net = power_law(), Net(conv).to(DEVICE)
    x, label = torch.randn(600, IN, device=DEVICE), torch.randint(0, 3, (600,), device=DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(graph, x), label).backward()
        optimizer.step()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rgat_waits_for_nothing():
    graph = hgat.graph.add_inverse(typed_graph(), self_relation=True)
    layer = RGATConv(IN, OUT, HEADS, graph.canonical_etypes).to(DEVICE)
    feat = {t: torch.randn(graph.num_nodes(t), IN, device=DEVICE) for t in graph.ntypes}
    sum(z.square().sum() for z in layer(graph, feat).values()).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sum(z.square().sum() for z in layer(graph, feat).values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_autocast_and_a_scaler_train():
    graph, net = power_law(), Net().to(DEVICE)
    x, label = torch.randn(600, IN, device=DEVICE), torch.randint(0, 3, (600,), device=DEVICE)
    optimizer, scaler = torch.optim.Adam(net.parameters(), lr=0.02), torch.amp.GradScaler(DEVICE)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.float16):
            loss = F.cross_entropy(net(graph, x), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_a_compiled_layer_gives_the_same_results():
    graph, layer = build("homogeneous"), GATConv(IN, OUT, HEADS, allow_zero_in_degree=True).to(DEVICE)
    x = torch.randn(23, IN, device=DEVICE, requires_grad=True)
    expected = layer(graph, x)  # structure is built before
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    got = torch.compile(layer)(graph, x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), x)[0], wanted, rtol=1e-3, atol=1e-4)


def test_a_step_of_training_as_a_cuda_graph():
    graph, net = power_law(), Net().to(DEVICE)
    x, label = torch.randn(600, IN, device=DEVICE), torch.randint(0, 3, (600,), device=DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, capturable=True)
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(graph, x), label).backward()
            optimizer.step()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(captured):
        loss = F.cross_entropy(net(graph, x), label)
        loss.backward()
        optimizer.step()
    first = None
    for _ in range(20):
        captured.replay()
        first = float(loss) if first is None else first
    assert float(loss) < first


def test_accelerate_takes_over_on_the_device():
    graph = build("homogeneous")
    model = nn.ModuleList([dgl.nn.GATConv(IN, OUT, HEADS)]).to(DEVICE)
    hgat.accelerate(model)
    assert model[0](graph, torch.randn(23, IN, device=DEVICE)).device.type == DEVICE


def test_blocks_of_a_sampler_on_the_cpu():
    graph, net = power_law(), Net().to(DEVICE)
    x = torch.randn(600, IN)
    sampler = dgl.dataloading.NeighborSampler([5, 5])
    for inputs, _, blocks in dgl.dataloading.DataLoader(graph, torch.arange(600), sampler, batch_size=128):
        blocks = hgat.graph.to_device(blocks, DEVICE)
        h = F.elu(net.one(blocks[0], x[inputs].to(DEVICE)).flatten(1))
        with hgat.ops.use_backend("torch"):
            expected = net.two(blocks[1], h)
        torch.testing.assert_close(net.two(blocks[1], h), expected, rtol=1e-4, atol=1e-5)


def test_tensors_on_two_devices_are_refused():
    graph = build("homogeneous")
    with pytest.raises(hgat.errors.ShapeError, match="device"):
        hgat.ops.additive_attention(
            graph, torch.randn(23, 2, 3, device=DEVICE), torch.randn(23, 2), torch.randn(23, 2, device=DEVICE)
        )


def test_types_without_kernels_are_served_in_plain_pytorch():
    graph, value = build("homogeneous"), torch.randn(23, 2, 3, device=DEVICE, dtype=torch.float64)
    score = torch.randn(23, 2, device=DEVICE, dtype=torch.float64)
    assert hgat.ops.additive_attention(graph, value, score, score).dtype == torch.float64
    with pytest.raises(hgat.errors.BackendError, match="float64"), hgat.ops.use_backend("triton"):
        hgat.ops.additive_attention(graph, value, score, score)
