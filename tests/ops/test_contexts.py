"""What a with-block of hgat.ops decides holds where activation checkpointing runs forward again, in backward."""

import threading

import dgl
import pytest
import torch
import torch.utils.checkpoint
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import hgat
from hgat import ops
from hgat.nn import DotGatConv, GATConv, GATv2Conv, HANConv, RGATConv
from hgat.ops import dispatch
from hgat.ops.alignment import is_uniform
from hgat.ops.reference import Reference

REENTRANT = pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    before = dict(vars(torch.utils.checkpoint))
    yield
    assert dict(vars(torch.utils.checkpoint)) == before


@pytest.fixture
def graph():
    return dgl.add_self_loop(dgl.graph((torch.randint(0, 20, (60,)), torch.randint(0, 20, (60,))), num_nodes=20))


def _gradient(out, x):
    return torch.autograd.grad(out.pow(2).sum(), x)[0]


@REENTRANT
@pytest.mark.parametrize("cls", [GATConv, GATv2Conv, DotGatConv])
def test_uniform_attention_is_uniform_in_the_recomputation(graph, cls, reentrant):
    x = torch.randn(20, 6, requires_grad=True)
    layer = cls(6, 4, 2)
    with ops.uniform_attention():
        want = _gradient(layer(graph, x), x)
    with ops.uniform_attention():
        out = checkpoint(layer, graph, x, use_reentrant=reentrant)
    out.pow(2).sum().backward()
    torch.testing.assert_close(x.grad, want)
    # And back to learned attention behind the block.
    x.grad = None
    learned = _gradient(layer(graph, x), x)
    checkpoint(layer, graph, x, use_reentrant=reentrant).pow(2).sum().backward()
    torch.testing.assert_close(x.grad, learned)


@REENTRANT
def test_layers_over_views_and_relations(graph, reentrant):
    typed = dgl.heterograph({("a", "r", "a"): graph.edges(), ("a", "s", "a"): graph.edges()[::-1]})
    x = torch.randn(20, 6, requires_grad=True)
    rgat = RGATConv(6, 4, 2, typed.canonical_etypes)
    han = HANConv(6, 4, 2, 2)
    for run in (lambda x: rgat(typed, {"a": x})["a"], lambda x: han(typed, x)):
        with ops.uniform_attention():
            want = _gradient(run(x), x)
            out = checkpoint(run, x, use_reentrant=reentrant)
        x.grad = None
        out.pow(2).sum().backward()
        torch.testing.assert_close(x.grad, want)


@REENTRANT
def test_a_backend_that_was_named_runs_the_recomputation(monkeypatch, graph, reentrant):
    layer, x = GATConv(6, 4, 2), torch.randn(20, 6, requires_grad=True)
    calls = []
    real = Reference.additive_attention
    monkeypatch.setattr(Reference, "additive_attention", lambda *a: calls.append(1) or real(*a))
    with ops.use_backend("dgl"):
        out = checkpoint(layer, graph, x, use_reentrant=reentrant)
    out.sum().backward()
    assert len(calls) == 2


@REENTRANT
def test_chunks_hold_in_the_recomputation(graph, reentrant):
    layer, x = GATv2Conv(6, 4, 2), torch.randn(20, 6, requires_grad=True)
    seen = []

    def run(x):
        seen.append(ops.chunks.limit())
        return layer(graph, x)

    with ops.use_backend("dgl"), ops.in_chunks(30):
        want = _gradient(layer(graph, x), x)
        out = checkpoint(run, x, use_reentrant=reentrant)
    out.pow(2).sum().backward()
    assert seen == [30, 30]
    torch.testing.assert_close(x.grad, want)


@REENTRANT
def test_dropped_edges_are_dropped_again(graph, reentrant):
    layer, x = GATConv(6, 4, 2, attn_drop=0.5), torch.randn(20, 6, requires_grad=True)
    torch.manual_seed(7)
    want = _gradient(layer(graph, x), x)
    torch.manual_seed(7)
    checkpoint(layer, graph, x, use_reentrant=reentrant).pow(2).sum().backward()
    torch.testing.assert_close(x.grad, want)


def test_blocks_inside_blocks_and_inside_checkpoints(graph):
    layer, x = GATConv(6, 4, 2), torch.randn(20, 6, requires_grad=True)
    seen = []

    def inner(x):
        seen.append((is_uniform(), dispatch._chosen.get()))
        return layer(graph, x)

    def outer(x):
        with ops.use_backend("dgl"):
            return checkpoint(inner, x, use_reentrant=False)

    with ops.uniform_attention():
        out = checkpoint(outer, x, use_reentrant=False)
        with ops.use_backend("native") if hgat.kernels.cpu.available() else ops.use_backend("dgl"):
            pass
    assert not is_uniform()
    out.sum().backward()
    assert len(seen) >= 2 and set(seen) == {(True, "dgl")}


def test_sequences_of_checkpoints(graph):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GATConv(6, 6, 1)

        def forward(self, x):
            return self.conv(graph, x).squeeze(1)

    stack, x = torch.nn.Sequential(Layer(), Layer(), Layer()), torch.randn(20, 6, requires_grad=True)
    with ops.uniform_attention():
        want = _gradient(stack(x), x)
        out = checkpoint_sequential(stack, 2, x, use_reentrant=False)
    torch.testing.assert_close(_gradient(out, x), want)


def test_backward_in_another_thread(graph):
    layer, x = GATConv(6, 4, 2), torch.randn(20, 6, requires_grad=True)
    with ops.uniform_attention():
        want = _gradient(layer(graph, x), x)
        out = checkpoint(layer, graph, x, use_reentrant=False)
    thread = threading.Thread(target=lambda: out.pow(2).sum().backward())
    thread.start()
    thread.join()
    torch.testing.assert_close(x.grad, want)


def test_another_thread_checkpoints_as_it_would_alone(graph):
    layer, x = GATConv(6, 4, 2), torch.randn(20, 6, requires_grad=True)
    want = _gradient(layer(graph, x), x)
    results = []

    def run():
        results.append(_gradient(checkpoint(layer, graph, x, use_reentrant=False), x))

    with ops.uniform_attention():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    torch.testing.assert_close(results[0], want)


def test_a_block_that_raises_leaves_nothing_behind(graph):
    with pytest.raises(KeyError), ops.uniform_attention(), ops.in_chunks(3):
        raise KeyError
    assert not is_uniform() and ops.chunks.limit() is None
