"""Which backend runs, what is said when none can, uniform attention, and life without the compiled core."""

import importlib
import os
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest
import torch

from hgat import ops
from hgat.errors import BackendError
from hgat.ops import dispatch
from hgat.ops.alignment import is_uniform
from zoo import build


@pytest.fixture
def graph():
    return build("homogeneous")


def _softmax(graph):
    return ops.edge_softmax(graph, torch.arange(graph.num_edges() * 2.0).view(-1, 2).sin())


class _Backend:
    """A backend that serves or refuses, and remembers what it was asked."""

    def __init__(self, reason=None):
        self.reason, self.asked, self.ran = reason, [], []
        self.kernels = self

    def why_not(self, operator, tensors):
        self.asked.append(operator)
        return self.reason

    def edge_softmax(self, graph, logits):
        self.ran.append("edge_softmax")
        return torch.zeros_like(logits)


def test_every_backend_is_named_with_its_state():
    found = ops.backends()
    assert list(found) == ["triton", "native", "dgl", "torch"]
    assert found["dgl"] is None and found["torch"] is None
    for reason in found.values():
        assert reason is None or (isinstance(reason, str) and reason and "\n" not in reason)


def test_auto_takes_the_first_that_serves(graph, monkeypatch):
    refuses, serves, never = _Backend("not today"), _Backend(), _Backend()
    monkeypatch.setattr(dispatch, "_BACKENDS", {"a": refuses, "b": serves, "c": never})
    _softmax(graph)
    assert refuses.asked == ["edge_softmax"] and not refuses.ran
    assert serves.ran == ["edge_softmax"]
    assert not never.asked
    assert ops.backends() == {"a": "not today", "b": None, "c": None}
    with ops.use_backend("c"):
        _softmax(graph)
    assert never.ran == ["edge_softmax"] and serves.ran == ["edge_softmax"]


def test_no_backend_names_every_reason(graph, monkeypatch):
    monkeypatch.setattr(dispatch, "_BACKENDS", {"a": _Backend("not today"), "b": _Backend("nor tomorrow")})
    with pytest.raises(BackendError, match=r"^edge_softmax: .*\(a: not today; b: nor tomorrow\)$"):
        _softmax(graph)
    with ops.use_backend("b"), pytest.raises(BackendError, match=r"\(b: nor tomorrow\)$"):
        _softmax(graph)


@pytest.mark.parametrize("name", ["triton", "native", "dgl", "torch"])
def test_named_backends_run_or_say_why_not(graph, name):
    """No silent fallback: what cannot run raises, with the reason that backends() gives."""
    reason = ops.backends()[name]
    with ops.use_backend("dgl"):
        expected = _softmax(graph)
    with ops.use_backend(name):
        if reason is None:
            torch.testing.assert_close(_softmax(graph), expected)
        else:
            with pytest.raises(BackendError) as caught:
                _softmax(graph)
            assert reason in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", ["cuda", "", None, ["dgl"], "DGL"])
def test_unknown_backends_are_one_sentence(name):
    with pytest.raises(
        BackendError, match=r"^backend: expected one of \['auto', 'triton', 'native', 'dgl', 'torch'\], got "
    ):
        with ops.use_backend(name):
            raise AssertionError("the block must not run")


def test_use_backend_nests_and_restores(graph, monkeypatch):
    mine, other = _Backend(), _Backend()
    monkeypatch.setattr(dispatch, "_BACKENDS", {"mine": mine, "other": other})
    with ops.use_backend("other"):
        with ops.use_backend("mine"):
            _softmax(graph)
            with ops.use_backend("auto"):
                _softmax(graph)
        assert (len(mine.ran), len(other.ran)) == (2, 0)
        _softmax(graph)
        assert (len(mine.ran), len(other.ran)) == (2, 1)
        with pytest.raises(RuntimeError, match="mine"), ops.use_backend("mine"):
            raise RuntimeError("mine")
        _softmax(graph)
        assert (len(mine.ran), len(other.ran)) == (2, 2)
        with pytest.raises(BackendError), ops.use_backend("none"):
            pass
        _softmax(graph)
        assert (len(mine.ran), len(other.ran)) == (2, 3)
    _softmax(graph)
    assert (len(mine.ran), len(other.ran)) == (3, 3)


def test_uniform_attention_restores(graph):
    plain = _softmax(graph)
    even = 1.0 / graph.in_degrees()[graph.edges(order="eid")[1]].float()[:, None].expand(-1, 2)
    assert not is_uniform()
    with ops.uniform_attention():
        torch.testing.assert_close(_softmax(graph), even)
        with ops.uniform_attention():
            torch.testing.assert_close(_softmax(graph), even)
        assert is_uniform()
        torch.testing.assert_close(_softmax(graph), even)
    assert torch.equal(_softmax(graph), plain)
    with pytest.raises(RuntimeError, match="mine"), ops.uniform_attention():
        raise RuntimeError("mine")
    assert not is_uniform() and torch.equal(_softmax(graph), plain)


def test_settings_of_one_thread_do_not_reach_another(graph):
    seen = []
    with ops.uniform_attention(), ops.use_backend("dgl"):
        thread = threading.Thread(target=lambda: seen.append((is_uniform(), dispatch._chosen.get())))
        thread.start()
        thread.join()
    assert seen == [(False, "auto")]


WITHOUT_CORE = """
    import sys, warnings
    sys.modules["hgat.kernels.cpu._core"] = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import hgat
        hgat.nn, hgat.ops
    ours = [w for w in caught if "compiled core" in str(w.message)]
    assert len(ours) == 1, [str(w.message) for w in caught]
    assert issubclass(ours[0].category, UserWarning)
    warnings.simplefilter("error")
    import torch
    from hgat import ops
    from hgat.kernels import cpu
    from zoo import build

    assert not cpu.available() and "could not be loaded" in cpu.why_missing()
    info = cpu.info()
    assert info["available"] is False and info["reason"] == cpu.why_missing()
    assert "compiled core could not be loaded" in ops.backends()["native"]
    try:
        with ops.use_backend("native"):
            ops.edge_softmax(build("hub"), torch.zeros(build("hub").num_edges(), 2))
    except hgat.HgatError as error:
        assert "compiled core could not be loaded" in str(error), error
    else:
        raise AssertionError("the native backend ran without its core")

    torch.manual_seed(5)
    graph = build("hub")
    value, scores = torch.randn(37, 3, 5), torch.randn(37, 3)
    out = ops.additive_attention(graph, value, scores, scores, dropout=0.4, seed=11)
    kept = ops.attention_dropout(torch.ones(211, 3), 0.4, 11)
    torch.save((out, kept), sys.argv[1])
"""


@pytest.mark.slow
def test_without_the_compiled_core_one_warning_and_the_same_results(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.path.dirname(os.path.dirname(__file__)),
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_CORE), str(tmp_path / "out.pt")],
        capture_output=True, text=True, env=environment, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out, kept = torch.load(tmp_path / "out.pt")
    torch.manual_seed(5)
    graph = build("hub")
    value, scores = torch.randn(37, 3, 5), torch.randn(37, 3)
    torch.testing.assert_close(out, ops.additive_attention(graph, value, scores, scores, dropout=0.4, seed=11))
    assert torch.equal(kept, ops.attention_dropout(torch.ones(211, 3), 0.4, 11))


@pytest.fixture
def of_triton():
    """hgat.ops.triton with nothing remembered, before and after."""
    module = importlib.import_module("hgat.ops.triton")
    remembered = module._why_not_on
    remembered.cache_clear()
    yield module
    remembered.cache_clear()


def _says(reason):
    assert reason and "\n" not in reason and not reason.endswith("."), reason
    return reason


def test_without_triton_one_sentence(graph, monkeypatch, of_triton):
    monkeypatch.setattr(of_triton.triton, "why_missing", lambda: "Triton could not be imported (No module named 'x')")
    assert ops.backends()["triton"].startswith("Triton could not be imported")
    with ops.use_backend("triton"), pytest.raises(BackendError, match=r"^edge_softmax: .*triton: Triton could not be"):
        _softmax(graph)
    torch.testing.assert_close(_softmax(graph).sum(), torch.tensor(2.0 * graph.num_nodes()))


def test_triton_refuses_old_gpus_and_what_has_no_kernel(monkeypatch, of_triton):
    for name, value in (("why_missing", lambda: None), ("interpreted", lambda: False)):
        monkeypatch.setattr(of_triton.triton, name, value)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 0))
    gpu = torch.device("cuda", 0)
    said = _says(of_triton._why_not_on(gpu))
    assert said == "the Triton kernels need a GPU of compute capability 7.0 or more, and Tesla P100 has 6.0"
    assert of_triton._why_not_on(torch.device("xpu", 0)) is None
    assert "run on a GPU" in _says(of_triton._why_not_on(torch.device("meta")))
    of_triton._why_not_on.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert of_triton._why_not_on(gpu) is None
    monkeypatch.setattr(of_triton, "_why_not_on", lambda device: None)
    rows = torch.zeros(5, 3, 2)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert of_triton.why_not("weighted_sum", (rows.to(dtype), None)) is None
    assert "not for torch.float64" in _says(of_triton.why_not("weighted_sum", (rows, rows.double())))
    assert "at least one head and one column" in _says(of_triton.why_not("weighted_sum", (rows[..., :0],)))
    with pytest.raises(BackendError, match="torch.func"):
        torch.func.vmap(lambda x: _raise(of_triton.why_not("weighted_sum", (x,))))(rows)


def test_a_pytorch_that_knows_no_xpu_has_no_gpu(monkeypatch, of_triton):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch, "xpu")
    assert of_triton._gpu() is None


def _raise(reason):
    raise BackendError(reason)


def test_auto_names_what_runs(graph, monkeypatch):
    """On a device where DGL has no code, and inside transforms, it is `torch`, and not `dgl` in its place."""
    asked = []
    for name, backend in dispatch._BACKENDS.items():
        kernels = backend.kernels
        monkeypatch.setitem(dispatch._BACKENDS, name, SimpleNamespace(kernels=kernels, why_not=_noting(asked, name)))
    there = torch.zeros(graph.num_edges(), 2, device="meta")
    assert ops.edge_softmax(graph, there).device.type == "meta" and asked == ["triton", "native", "torch"]
    asked.clear()
    torch.func.vmap(lambda x: ops.edge_softmax(graph, x))(torch.zeros(3, graph.num_edges(), 2))
    assert asked == ["native", "torch"]
    asked.clear()
    ops.edge_softmax(graph, torch.zeros(graph.num_edges(), 2).half())
    assert asked == ["native", "dgl"]


def _noting(asked, name):
    def why_not(operator, tensors):
        asked.append(name)
        return None if name in ("dgl", "torch") else "not today"

    return why_not
