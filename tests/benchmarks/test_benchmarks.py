"""The harness that compares hgat with DGL and PyG: it refuses what differs, its clock and its memory probe are right.

The graphs are tiny, so no number here says anything about speed.
"""

import io
import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from benchmarks import (
    blocks,
    epochs,
    graphs,
    layers,
    memory,
    operators,
    peers,
    ppr,
    preparation,
    report,
    scaling,
    timing,
)
from benchmarks.__main__ import main
from benchmarks.timing import Candidate, Case
from hgat.graph import ppr_graph

TINY = 0.001
HAVE_PYG = peers.pyg() is not None


def pair(second, compared=True):
    """A case of x ** 2 and of `second`, a function of x."""
    x = torch.randn(5, 3, requires_grad=True)
    first = Candidate("hgat", lambda: x**2, {"x": x})
    return Case("squares", [first, Candidate("DGL", lambda: second(x), {"x": x}, compared=compared)])


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (lambda x: x**2 * 1.001, "output 0"),
        (lambda x: x.detach() ** 2 + 0 * x, "gradient of x"),
        (lambda x: x**2 * float("nan"), "output 0"),
        (lambda x: (x**2).flatten(), "shapes"),
    ],
    ids=["output", "gradient", "nan", "shape"],
)
def test_unequal_pairs_are_refused(second, what):
    with pytest.raises(timing.Unequal, match=f"{what}.*not timed"):
        timing.check(pair(second))


def test_a_difference_of_rounding_is_accepted():
    assert 0 < timing.check(pair(lambda x: x**2 * (1 + 1e-6))) < timing.TOLERANCE


def test_a_floor_is_not_compared():
    timing.check(pair(lambda x: 7 * x, compared=False))


def test_a_proof_is_checked_entry_by_entry():
    def almost(x):  # its gradients have nearly the right norm and one wrong entry
        return x**2 + (x - x.detach()) * 1e-3

    case = pair(almost)
    with pytest.raises(timing.Unequal, match="largest entry"):
        timing.check(case)
    case.proof = lambda: pair(lambda x: x**2)
    timing.check(case)
    case.proof = lambda: pair(almost)
    with pytest.raises(timing.Unequal, match="largest entry"):
        timing.check(case)


def test_rounds_are_interleaved_and_medians_right(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "LEAST_ROUND", 0.0)
    lasts = {"a": iter([50, 50, 3, 1, 2]), "b": iter([50, 50, 10, 30, 20])}

    def function(name):
        def run(state):
            assert state == "new"
            order.append(name)
            now[0] += next(lasts[name])

        return run

    def fresh():
        now[0] += 1000  # outside the clock
        return "new"

    seconds = timing.interleave({n: function(n) for n in "ab"}, 3, {n: fresh for n in "ab"})
    assert seconds == {"a": [3, 1, 2], "b": [10, 30, 20]}
    assert "".join(order[4:]) == "ababab"
    assert timing.medians(seconds) == {"a": 2, "b": 20}


def test_fast_functions_are_called_several_times_a_round(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def run():
        calls.append(1)
        now[0] += timing.LEAST_ROUND / 4

    assert timing.interleave({"a": run}, 2) == {"a": pytest.approx([timing.LEAST_ROUND / 4] * 2)}
    assert len(calls) == 2 + 2 * 4


KNOWN = """
    import torch
    from benchmarks.timing import Candidate, Case

    MIB = 2**20 // 4

    def build(scale=1.0):
        x = torch.ones(96 * MIB, requires_grad=True)  # there before: not counted

        def call():
            held = torch.ones(64 * MIB)  # counted
            return x[: 16 * MIB] + held[: 16 * MIB]  # returned: not counted

        return Case("known", [Candidate("hgat", call, {"x": x})])
"""


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A spec whose forward pass needs 64 MiB beside the 16 that it returns."""
    try:
        memory.CLEAR.write_text("5")
    except OSError:
        pytest.skip("this kernel keeps no high-water mark")
    (tmp_path / "known_case.py").write_text(textwrap.dedent(KNOWN), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return memory.Spec("known_case:build")


@pytest.mark.slow
def test_the_memory_probe_sees_a_known_allocation(known):
    found = memory.probe(known, "hgat", ["forward"])["forward"]
    assert found["returned"] == 16 * memory.MIB
    assert found["working"] == pytest.approx(64 * memory.MIB, abs=2 * memory.MIB)
    assert found["peak"] == found["working"] + found["returned"]


@pytest.mark.slow
def test_the_memory_probe_gives_nothing_where_the_process_fails(known):
    assert memory.probe(replace(known, build="known_case:absent"), "hgat", ["forward"]) == {}


def test_a_candidate_without_room_is_left_out(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    needs = {"hgat": 1, "DGL": None, "PyG": 2**40, operators.FLOOR: 1}
    monkeypatch.setattr(memory, "predict", lambda spec, name, *_: needs[name])
    measured = report.Report(1, False, out=out)
    (spec,) = operators.specs(["gat"], [(2, 3)], TINY)
    measured.run([replace(spec, edge_bytes=2**30)])
    assert set(measured.results[0]["passes"]["forward"]) == {"hgat", "DGL", operators.FLOOR}
    assert ("PyG left out, it would take about 1024 GiB and 1 GiB are free" in out.getvalue()) == HAVE_PYG


def test_an_unequal_case_is_named_and_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(operators, "dgl_gat", lambda graph, value, *scores: value * scores[0].sum() * scores[1].sum())
    status = main(["operators", "--operators", "gat", "--shapes", "2x3", "--scale", str(TINY), "--no-memory"])
    shown = capsys.readouterr()
    assert status == 1
    assert "NOT EQUAL  GAT 2 x 3: output 0 of hgat and DGL differ" in shown.out
    assert "not timed" in shown.err
    assert "forward+backward" not in shown.out


def test_power_law_graph():
    nodes, edges = 500, 8001
    graph = graphs.power_law.__wrapped__(nodes, edges, 3).graph
    assert (graph.num_nodes(), graph.num_edges()) == (nodes, edges)
    assert graph.has_edges_between(range(nodes), range(nodes)).all()
    degree = graph.in_degrees()
    assert degree.min() >= 1 and degree.max() > 10 * degree.median()
    again = graphs.power_law.__wrapped__(nodes, edges, 3).graph
    assert torch.equal(torch.stack(graph.edges()), torch.stack(again.edges()))


def test_typed_graph_has_every_relation_both_ways():
    graph = graphs.typed(TINY)
    assert len(graph.canonical_etypes) == 2 * len(graphs.MAG_EDGES)
    for src, name, dst in graphs.MAG_EDGES:
        there, back = graph.edges(etype=(src, name, dst)), graph.edges(etype=(dst, f"rev_{name}", src))
        assert torch.equal(torch.stack(there), torch.stack(back[::-1]))


def test_every_block_is_new():
    one, two = (graphs.block(0, 8, scale=TINY) for _ in range(2))
    assert one.graph.formats()["created"] == ["coo"]
    one.graph.in_degrees()
    assert two.graph.formats()["created"] == ["coo"]
    assert torch.equal(torch.stack(one.graph.edges()), torch.stack(two.graph.edges()))
    assert one.edge_index.shape == (2, one.graph.num_edges())


SPECS = [
    *operators.specs(scale=TINY),
    *(s for s in layers.specs(TINY) if "root" not in s.options),
    *(s for s in epochs.specs(TINY) if "root" not in s.options),
    memory.Spec("benchmarks.epochs:han", {"where": "arxiv", "scale": TINY}),
    *(s for s in blocks.specs(TINY, seeds=16) if "root" not in s.options),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_candidates_are_equal(spec):
    case = memory.load(spec)
    assert len([c for c in case.candidates if c.compared]) > 1 or not HAVE_PYG
    assert timing.check(case) < timing.DEEP_TOLERANCE


def test_pagerank_ends_at_one_rule(monkeypatch):
    case = memory.load(next(iter(ppr.specs(TINY))))
    assert timing.check(case) == 0 and [c.name for c in case.candidates] == ["hgat", "SciPy"]
    walk = ppr._Walk

    def lazy(graph, alpha, *rest):
        return walk(graph, 2 * alpha, *rest)

    monkeypatch.setattr(ppr, "_Walk", lazy)
    with pytest.raises(timing.Unequal, match="PageRank: expected values"):
        ppr.push(TINY)


def test_preparation_asks_for_the_nearest_by_pagerank_of_every_node():
    (found,) = preparation._call("nearest", 0.0002, None)()
    assert torch.equal(found, ppr_graph(graphs.power_law(200, 2000).graph, 32).edata["ppr"]) and len(found) > 1000


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "DotGatConv"])
def test_cora(real_data, name):
    root = real_data("cora")
    timing.check(layers.homogeneous(name, "cora", 8, 8, root=str(root)))


@pytest.mark.slow
@pytest.mark.parametrize("build", [epochs.han, lambda root: layers.han("PyG", "acm", root=root)], ids=["DGL", "PyG"])
def test_acm(real_data, build):
    root = real_data("acm3025")
    timing.check(build(root=str(root)))


def run_quick(tmp_path, capsys, *more):
    path = tmp_path / "found.json"
    command = ["quick", "--scale", str(TINY), "--rounds", "1", "--root", str(tmp_path), "--json", str(path), *more]
    assert main(command) == 0
    return capsys.readouterr().out, json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "installed", [pytest.param(True, marks=pytest.mark.skipif(not HAVE_PYG, reason="no PyG")), False]
)
def test_quick_runs_to_the_end(tmp_path, capsys, monkeypatch, installed):
    if not installed:
        for module in (operators, peers, report):
            monkeypatch.setattr(module, "pyg", lambda: None)
    shown, found = run_quick(tmp_path, capsys, "--no-memory")
    assert "Machine: " in shown and "backend " in shown
    assert "cora left out" in shown
    assert ("PyTorch Geometric is not installed" in shown) != installed
    assert [r["case"].split(",")[0] for r in found["results"]] == [
        *("GAT 4 x 32", "GATv2 4 x 32", "dot-product 4 x 32", "GAT 8 x 8"),
        *["GATConv 4 x 32"] * 2,
    ]
    for result in found["results"]:
        assert set(result["passes"]) == {"forward", "forward+backward"}
        for candidates in result["passes"].values():
            assert {"hgat", "DGL"} <= set(candidates)
            assert ("PyG" in candidates) == installed
            assert all(len(c["seconds"]) == 1 and c["median_seconds"] > 0 for c in candidates.values())


def test_bare_times_are_not_printed(capsys):
    main(["operators", "--operators", "gat", "--shapes", "2x3", "--scale", str(TINY), "--rounds", "1", "--no-memory"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("GAT 2 x 3")]
    assert len(rows) == 2
    for row in rows:  # three ratios of times, six empty places for memory
        assert len([cell for cell in row[64:].split() if cell != "-"]) == 2 + HAVE_PYG


@pytest.mark.parametrize("missing", [False, True], ids=["all", "without-pyg"])
def test_figures(tmp_path, missing):
    pytest.importorskip("matplotlib")
    found = {name: 2.0 + place for place, name in enumerate(scaling.STYLE)}
    if missing:
        del found["PyG"]
    shapes = {"4 × 32": found, "3 × 250": {n: t for n, t in found.items() if n != "DGL"}}
    scaling.draw_shapes(shapes, tmp_path / "shapes.png")
    labels = [*scaling.panels(TINY), "threads (4 x 32)"]
    scaling.draw_panels({label: {1: found, 2: found} for label in labels}, tmp_path / "panels.png")
    for name in ("shapes.png", "panels.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_help_imports_nothing_heavy():
    """Threads are set before PyTorch and DGL are loaded, so the package must not load them by itself."""
    import subprocess

    code = "import sys, benchmarks, benchmarks.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=memory.Path(__file__).parents[2]).returncode == 0


def test_epochs_of_processes_are_read_and_compared(monkeypatch, tmp_path, capsys):
    """The launches are real in tests/train/test_processes.py; here each way prints seconds of its own."""
    started = []

    def run(command, env, **_):
        started.append((command[1:], env["OMP_NUM_THREADS"]))
        several, threads = "torch.distributed.run" in command, int(env["OMP_NUM_THREADS"])
        seconds = 8.0 / threads / (4 if several else 1)
        lines = "\n".join(f"run 0, epoch 1: loss 1.000, valid 50.00, {s:.2f} s" for s in (99, seconds, seconds))
        return subprocess.CompletedProcess(command, 0, f"{lines}\nAll runs: 1\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    path = tmp_path / "found.json"
    assert main(["processes", "--rounds", "2", "--scale", "0.01", "--json", str(path)]) == 0
    assert len(started) == 6 and [threads for _, threads in started] == ["1", "2", "1"] * 2
    rows = [row for row in capsys.readouterr().out.splitlines() if row.endswith(" x")]
    assert [row.split()[-2:] for row in rows] == [["1.00", "x"], ["2.00", "x"], ["4.00", "x"]]
    found = {result["case"]: result["seconds"] for result in json.loads(path.read_text())["results"]}
    assert found["2 processes, 1 thread each"] == [2.0] * 4
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "why"))
    with pytest.raises(RuntimeError, match="products.py: expected 3 epochs, got 0:\nwhy"):
        main(["processes", "--rounds", "1", "--scale", "0.01"])
