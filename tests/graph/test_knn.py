"""Graphs of similar rows against a full table of similarities, and what no table can say."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from hgat.errors import GraphError, HgatError, ShapeError
from hgat.graph import knn_graph

N, F, K = 29, 5, 3


def table(x, metric):
    x = x.double().numpy()
    if metric == "cosine":
        length = np.linalg.norm(x, axis=1)
        return x @ x.T / np.outer(length, length)
    return np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 2)


def restated(x, k, metric, symmetrize):
    """{(i, j): similarity} of the graph's edges, from the whole table."""
    s, found = table(x, metric), {}
    for i in range(len(x)):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -s[i, j])
        for j in others[:k]:
            if symmetrize == "union" or i < j:
                found[i, j] = found[j, i] = s[i, j]
    return found


def edges(graph):
    src, dst = graph.edges()
    return dict(zip(zip(src.tolist(), dst.tolist(), strict=True), graph.edata["similarity"].tolist(), strict=True))


@pytest.mark.parametrize("symmetrize", ["union", "official"])
@pytest.mark.parametrize("metric", ["cosine", "heat"])
@pytest.mark.parametrize("k", [1, K, N - 1])
def test_the_nearest_of_the_whole_table(k, metric, symmetrize):
    x = torch.randn(N, F, generator=torch.Generator().manual_seed(k)) * torch.linspace(0.1, 3, N)[:, None]
    graph = knn_graph(x, k, metric=metric, symmetrize=symmetrize)
    found, expected = edges(graph), restated(x, k, metric, symmetrize)
    assert graph.num_nodes() == N and graph.num_edges() == len(found)  # each edge once
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-5)


def test_cosine_knows_no_length_and_heat_does():
    x = torch.randn(N, F, generator=torch.Generator().manual_seed(0))
    longer = x * torch.linspace(0.1, 3, N)[:, None]
    assert edges(knn_graph(x, K)).keys() == edges(knn_graph(longer, K)).keys()
    assert edges(knn_graph(x, K, metric="heat")).keys() != edges(knn_graph(longer, K, metric="heat")).keys()
    wide = knn_graph(x, K, metric="heat", temperature=8.0).edata["similarity"]
    torch.testing.assert_close(wide**4, knn_graph(x, K, metric="heat").edata["similarity"], atol=1e-5, rtol=1e-4)


def test_official_loses_what_a_later_node_alone_lists():
    x = torch.tensor([[0.0], [0.1], [0.3], [0.7], [1.5]])  # each one's nearest is the one before it
    assert edges(knn_graph(x, 1, metric="heat")).keys() == {
        (i, j) for i in range(5) for j in range(5) if abs(i - j) == 1
    }
    assert edges(knn_graph(x, 1, metric="heat", symmetrize="official")).keys() == {(0, 1), (1, 0)}


def test_copies_of_a_row_are_neighbours_and_none_is_its_own():
    x = torch.randn(3, F).repeat(7, 1)
    found = edges(knn_graph(x, 2))
    assert all(i != j and i % 3 == j % 3 for i, j in found) and {i for i, _ in found} == set(range(21))
    assert list(found.values()) == pytest.approx([1.0] * len(found), abs=1e-4)


def test_rows_of_zeros_are_alone_under_cosine():
    x = torch.randn(N, F, generator=torch.Generator().manual_seed(0))
    x[[0, 7, N - 1]] = 0.0
    graph = knn_graph(x, K)
    assert graph.num_nodes() == N
    assert (graph.in_degrees() == 0).nonzero().flatten().tolist() == [0, 7, N - 1]
    kept = [i for i in range(N) if i not in (0, 7, N - 1)]
    among = {(kept[i], kept[j]) for i, j in restated(x[kept], K, "cosine", "union")}
    assert edges(graph).keys() == among
    assert (knn_graph(x, K, metric="heat").in_degrees() > 0).all()


def test_wrong_calls_are_one_sentence():
    x = torch.randn(N, F)
    broken = x.clone()
    broken[4, 2] = float("nan")
    zeros = x.clone()
    zeros[3:] = 0.0
    for call, sentence in (
        (lambda: knn_graph(x, N), f"k: expected fewer neighbours than the {N} rows, got {N}"),
        (lambda: knn_graph(zeros, 3), "k: expected fewer neighbours than the 3 rows that are not zero, got 3"),
        (lambda: knn_graph(x[:0], 1), "k: expected fewer neighbours than the 0 rows, got 1"),
        (lambda: knn_graph(broken, K), "x: expected finite features to compare, got others in row 4"),
        (lambda: knn_graph(torch.ones(N, F), K), f"x: expected rows of which some differ, got {N} alike"),
        (lambda: knn_graph(torch.ones(N, F), K, metric="heat"), f"got {N} alike, any {K} of them the nearest"),
    ):
        with pytest.raises(GraphError, match=sentence):
            call()
    for call, sentence in (
        (lambda: knn_graph(x, K, metric="dot"), "metric: expected one of"),
        (lambda: knn_graph(x, K, symmetrize="both"), "symmetrize: expected one of"),
        (lambda: knn_graph(x, K, temperature=0.0), "temperature: expected a number above 0"),
        (lambda: knn_graph(x.long(), K), "x: expected a floating-point tensor"),
        (lambda: knn_graph(x[0], K), "x: expected"),
    ):
        with pytest.raises(ShapeError, match=sentence):
            call()
    for wrong in (0, -1, 2.0, "3", True, None):
        with pytest.raises(HgatError, match="k: expected"):
            knn_graph(x, wrong)


@pytest.mark.slow
def test_the_memory_is_that_of_the_features_and_not_of_a_table():
    code = (
        "import resource, torch\n"
        "from hgat.graph import knn_graph\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "knn_graph(torch.randn(50, 4), 5); before = peak()\n"
        "graph = knn_graph(torch.randn(20_000, 4), 5)\n"  # a table of half precision would take 0.75 GiB
        "assert graph.num_edges() > 100_000\n"
        "assert peak() - before < 0.5, (before, peak())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
