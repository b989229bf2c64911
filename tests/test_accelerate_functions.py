"""hgat.accelerate() without a model: programs that call DGL's edge_softmax run hgat's, and give it back."""

import importlib
import sys
import types

import pytest
import torch

import hgat
from hgat import _edge_softmax, ops
from hgat.errors import HgatError
from hgat.ops import reference

dgl = importlib.import_module("dgl")


@pytest.fixture
def program(monkeypatch):
    """A module of the user's that took DGL's function under names of its own before."""
    module = types.ModuleType("a_program")
    exec("from dgl.nn.functional import edge_softmax\nsoft = edge_softmax\nfrom dgl import ops", vars(module))
    monkeypatch.setitem(sys.modules, "a_program", module)
    return module


@pytest.fixture
def replaced(program):
    report = hgat.accelerate()
    yield report
    report.undo()


def test_everywhere_and_back(program):
    report = hgat.accelerate()
    try:
        assert report.kept == {}
        for place in (
            "dgl.ops.edge_softmax",
            "dgl.ops.edge_softmax.edge_softmax",  # the module, which the function of the same name hides
            "dgl.nn.functional.edge_softmax",
            "dgl.nn.pytorch.softmax.edge_softmax",
            "dgl.nn.pytorch.conv.agnnconv.edge_softmax",
            "a_program.edge_softmax",
            "a_program.soft",
        ):
            assert report.replaced[place] is program.soft, place
            assert place in str(report)
        assert not any(place.startswith("hgat.") for place in report.replaced)
        assert program.ops.edge_softmax is dgl.nn.functional.edge_softmax is program.soft is not _edge_softmax.DGLS
        assert hgat.accelerate().replaced == {} and "left to replace" in str(hgat.accelerate())
        later = types.ModuleType("a_later_program")
        exec("from dgl.ops import edge_softmax", vars(later))
        sys.modules["a_later_program"] = later
        assert later.edge_softmax is program.soft
    finally:
        back = report.undo()
        sys.modules.pop("a_later_program", None)
    assert set(back) == {*report.replaced, "a_later_program.edge_softmax"}
    assert (
        program.soft
        is program.ops.edge_softmax
        is dgl.nn.functional.edge_softmax
        is later.edge_softmax
        is _edge_softmax.DGLS
    )
    assert report.undo() == []


def test_modules_that_load_their_parts_late_are_left_asleep(monkeypatch):
    class Late(types.ModuleType):
        def __getattr__(self, name):
            raise AssertionError(f"asked for {name}")

    monkeypatch.setitem(sys.modules, "late_module", Late("late_module"))
    monkeypatch.setitem(sys.modules, "no_module", None)
    hgat.accelerate().undo()


def test_no_model_by_mistake_is_still_refused():
    with pytest.raises(HgatError, match="model: expected a torch.nn.Module, got NoneType"):
        hgat.accelerate(None)
    assert dgl.ops.edge_softmax is _edge_softmax.DGLS


def calls():
    """Name -> (arguments and options of a call of edge_softmax, the logits in it)."""
    torch.manual_seed(0)
    graph = dgl.graph(([0, 1, 2, 3, 0, 4, 4], [1, 1, 1, 2, 2, 0, 4]), num_nodes=6)
    typed = dgl.heterograph({("a", "x", "b"): ([0, 1, 1], [0, 0, 2]), ("b", "y", "b"): ([0, 2], [0, 1])})
    logits = {shape: torch.randn(7, *shape, requires_grad=True) for shape in [(3,), (3, 1), (), (2, 3, 1)]}
    found = {f"{['E', *shape]}": ((graph, value), {}) for shape, value in logits.items()}
    found["by source"] = (graph, logits[3, 1]), {"norm_by": "src"}
    found["eids"] = (graph, torch.randn(4, 2, 1, requires_grad=True)), {"eids": torch.tensor([0, 2, 6, 1])}
    relations = {etype: torch.randn(typed.num_edges(etype), 2, 1, requires_grad=True) for etype in ("x", "y")}
    found["relations"] = (typed, relations), {}
    found["relations by source"] = (typed, relations), {"norm_by": "src"}
    return found


@pytest.mark.parametrize("backend", ["auto", *(name for name, why in ops.backends().items() if why is None)])
@pytest.mark.parametrize("name", calls())
def test_programs_compute_what_they_did(name, backend, replaced, program):
    arguments, options = calls()[name]
    logits = list(arguments[1].values()) if isinstance(arguments[1], dict) else [arguments[1]]

    def run(function):
        out = function(*arguments, **options)
        keys, out = (list(out), list(out.values())) if isinstance(out, dict) else (None, [out])
        loss = sum((value * torch.arange(value.numel()).view_as(value).cos()).sum() for value in out)
        return keys, [*out, *torch.autograd.grad(loss, logits)]

    keys, expected = run(_edge_softmax.DGLS)
    with ops.use_backend(backend):
        keys_now, found = run(program.soft)
    assert keys == keys_now
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_hgats_reference_still_calls_dgls_function(replaced, monkeypatch):
    """And not the one that calls hgat's, which would call it again."""
    asked = []
    monkeypatch.setattr(
        reference, "_dgl_edge_softmax", lambda *given: asked.append(given) or _edge_softmax.DGLS(*given)
    )
    graph = dgl.graph(([0, 1], [1, 1]))
    with ops.use_backend("dgl"):
        dgl.ops.edge_softmax(graph, torch.zeros(2, 3))
        ops.edge_softmax(graph, torch.zeros(2, 3))
    assert len(asked) == 2


@pytest.mark.parametrize("make", [
    lambda: dgl.nn.AGNNConv(),
    lambda: dgl.nn.GATConv(5, 3, 2),
    lambda: dgl.nn.GATv2Conv(5, 3, 2),
    lambda: dgl.nn.DotGatConv(5, 3, 2),
])  # fmt: skip
def test_dgls_own_layers_run_on_it(make, program):
    torch.manual_seed(1)
    graph, feat, layer = dgl.add_self_loop(dgl.rand_graph(7, 17)), torch.randn(7, 5), make()
    expected = layer(graph, feat)
    report = hgat.accelerate()
    try:
        torch.testing.assert_close(layer(graph, feat), expected)
    finally:
        report.undo()
