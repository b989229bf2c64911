"""Sampled training taken apart, and one layer inside a limit of memory, on tiny graphs."""

import io

import pytest
import torch

from benchmarks import large, ogb, timing
from benchmarks.__main__ import main, parse
from benchmarks.peers import pyg
from benchmarks.report import Report

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # DGL's advice on CPU affinity
CASES = {"sampled_arxiv": 0.005, "sampled_mag": 0.001}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("ogb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_libraries_compute_the_same_on_the_same_batches(name, root):
    case = getattr(ogb, name)(root, CASES[name])
    assert case.check() < 1e-3
    first, again, other = (case.seeds(next(case.batches(number))[1]) for number in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    found = case.time(1, 1)
    assert found.keys() == {"hgat", "DGL"} | ({"PyG"} if pyg() else set())
    assert all(parts.keys() == set(ogb.PARTS) and min(parts.values()) > 0 for parts in found.values())
    for library in set(found) - {"hgat"}:
        weight = next(p for p in case.models[library].parameters() if p.dim() == 2)
        kept = weight.detach().clone()
        weight.data.mul_(1.1)
        with pytest.raises(timing.Unequal, match=f"of {library} differs by .*: not timed"):
            case.check()
        weight.data.copy_(kept)


def _options(*more):
    return parse(["large", "--nodes", "2000", "--edges", "40000", *more])


@pytest.mark.slow
def test_a_way_that_needs_more_than_the_limit_is_named(monkeypatch):
    monkeypatch.setattr(large, "WAYS", ("hgat", "DGL"))
    out = io.StringIO()
    report = Report(1, False, out=out)
    # DGL keeps several tensors of 60,000 x 16 x 64 numbers.
    large.run(report, _options("--edges", "60000", "--shape", "16x64", "--limit", "1.2"))
    rows = {result["way"]: result for result in report.results}
    assert "refused" in rows["DGL"] and "DGL               does not fit" in out.getvalue()
    assert rows["hgat"]["before"] < rows["hgat"]["peak"] < 1.2 * large.GIB
    assert report.finish() == 0


def test_ways_that_differ_are_refused(monkeypatch):
    def measure(way, options, limit):
        return {"seconds": 1.0, "before": 0, "peak": 0, "norms": {"output": 1.0 + 0.01 * (way == "DGL")}}, None

    monkeypatch.setattr(large, "_measure", measure)
    report = Report(1, False, out=io.StringIO())
    large.run(report, _options())
    assert report.finish() == 1 and "DGL: norm of output is 1.01, of hgat's 1" in report.unequal[0]


def test_the_command_prints_shares_that_add_up(root, capsys):
    assert main(["ogb", "--root", root, "--scale", "0.005", "--rounds", "1", "--no-memory", "--only", "GAT 3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if "hgat" in line[:9] or line[1:2] == ["DGL"]][-2:]
    assert len(rows) == 2 and all(98 <= sum(int(share) for share in row[-4:]) <= 102 for row in rows)
