"""Personalised PageRank against power sums that are written down again, its bounds, and graphs with nowhere to go."""

from types import SimpleNamespace

import dgl
import networkx
import numpy as np
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph import ppr, ppr_graph, ppr_values
from hgat.kernels import cpu

N, FORMS = 53, ("row", "sym", "col")
PLAIN = SimpleNamespace(available=lambda: False)  # in the compiled core's place


@pytest.fixture(params=[True, False], ids=["compiled", "scipy"])
def either(request, monkeypatch):
    """A test of both ways to push."""
    if not request.param:
        monkeypatch.setattr(ppr, "cpu", PLAIN)
    elif not cpu.available():
        pytest.skip("no compiled core")


def directed(seed=0, edges=171):
    generator = torch.Generator().manual_seed(seed)
    return dgl.graph(tuple(torch.randint(0, N, (2, edges), generator=generator)), num_nodes=N)


def undirected(seed=0):
    return dgl.remove_self_loop(dgl.to_bidirected(directed(seed)))


def restated(graph, alpha, form, weight=None):
    """Pi and D of the definition, the sum over all lengths of walks."""
    src, dst = graph.edges()
    table = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    table.index_put_((dst, src), torch.ones(len(src)).double() if weight is None else weight.double(), accumulate=True)
    axis = 0 if form == "col" else 1
    table += torch.diag((table.sum(axis) == 0).double())
    degree = table.sum(axis)
    step = table / degree if form == "col" else table / degree[:, None]
    term = alpha * torch.eye(len(table)).double()
    total = term.clone()
    for _ in range(400):
        term = (1 - alpha) * term @ step
        total += term
    if form == "sym":
        total = total * degree.sqrt()[:, None] / degree.sqrt()
    return total, degree


def table_of(graph):
    found = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    src, dst = graph.edges()
    assert len(torch.unique(src + dst * graph.num_nodes())) == graph.num_edges()  # each pair once
    found[dst, src] = graph.edata["ppr"].double()
    return found


@pytest.mark.parametrize("alpha", [0.1, 0.6])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", [directed, undirected])
def test_exact_is_the_sum_over_all_walks(graph, form, alpha):
    graph = graph()
    expected, _ = restated(graph, alpha, form)
    torch.testing.assert_close(
        table_of(ppr_graph(graph, None, alpha, form=form, method="exact")), expected, atol=1e-7, rtol=1e-6
    )
    src, dst = graph.edges()
    values = ppr_values(graph, alpha, form=form, method="exact")
    torch.testing.assert_close(values.double(), expected[dst, src], atol=1e-7, rtol=1e-6)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", [directed, undirected])
def test_push_is_below_by_no_more_than_its_bound(graph, form, epsilon):
    graph = graph(seed=3)
    expected, degree = restated(graph, 0.2, form)
    missing = expected - table_of(ppr_graph(graph, None, 0.2, form=form, epsilon=epsilon))
    assert missing.min() > -1e-7
    if form == "col":
        bound = torch.full_like(missing, epsilon)
    else:
        bound = epsilon * (degree.expand(N, N) if form == "row" else torch.outer(degree, degree).sqrt())
    if graph is undirected or form == "col":
        assert (missing <= bound + 1e-7).all()
        assert (missing > bound / 20).any()  # it is the bound that ends the pushes
    elif form == "row":
        assert (missing.sum(1) <= epsilon * degree.sum() + 1e-6).all()


@pytest.mark.usefixtures("either")
def test_a_smaller_epsilon_comes_closer_and_a_node_is_always_pushed():
    graph = undirected()
    expected, degree = restated(graph, 0.2, "row")
    gaps = [
        float((expected - table_of(ppr_graph(graph, None, 0.2, form="row", epsilon=e))).abs().max())
        for e in (0.5, 1e-2, 1e-3, 1e-4)
    ]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < gaps[1] / 20
    assert 0.5 * degree.max() > 1  # no walk of weight one is above this threshold
    own = torch.arange(N)
    assert (table_of(ppr_graph(graph, 1, 0.2, epsilon=0.5))[own, own] > 0.2 - 1e-6).all()


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("method", ["exact", "push"])
def test_networkx_finds_the_same(method):
    graph = undirected(seed=1)
    other = networkx.Graph(graph.to_networkx())
    values = table_of(ppr_graph(graph, None, 0.15, form="row", method=method, epsilon=1e-9))
    for node in (0, 7, 31):
        expected = networkx.pagerank(other, alpha=0.85, personalization={node: 1}, dangling={node: 1}, tol=1e-12)
        if graph.in_degrees(node) > 0:
            assert values[node].tolist() == pytest.approx([expected[u] for u in range(N)], abs=1e-6)


def test_rows_columns_and_symmetry():
    found = {form: table_of(ppr_graph(undirected(), None, form=form, method="exact")) for form in FORMS}
    ones = torch.ones(N, dtype=torch.float64)
    torch.testing.assert_close(found["row"].sum(1), ones, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["col"].sum(0), ones, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["sym"], found["sym"].T, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(found["col"], found["row"].T, atol=1e-7, rtol=1e-6)
    way = table_of(ppr_graph(dgl.graph(([0, 1], [1, 2])), None, form="row", method="exact"))
    assert way[2, 0] > 0 and way[0, 2] == 0  # a receiver's walk goes back to those it hears


@pytest.mark.usefixtures("either")
def test_the_k_nearest_are_the_largest_of_each_row():
    graph = undirected(seed=5)
    whole = table_of(ppr_graph(graph, None, form="sym", epsilon=1e-6))
    for k in (1, 4, N):
        few = table_of(ppr_graph(graph, k, form="sym", epsilon=1e-6))
        for row, all_of_it in zip(few, whole, strict=True):
            kept = row > 0
            assert int(kept.sum()) == min(k, int((all_of_it > 0).sum()))
            torch.testing.assert_close(row[kept], all_of_it[kept], atol=0, rtol=0)
            assert row[kept].min() >= all_of_it[~kept].max() if not kept.all() else True


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("form", FORMS)
def test_of_equal_values_the_lower_number_is_taken(form):
    star = dgl.to_bidirected(dgl.graph(([3] * 6, [0, 1, 2, 4, 5, 6])))
    src, dst = ppr_graph(star, 4, form=form).edges()
    assert sorted(src[dst == 3].tolist()) == [0, 1, 2, 3]
    assert sorted(src[dst == 5].tolist()) == [0, 1, 3, 5]


@pytest.mark.usefixtures("either")
def test_the_values_stand_in_the_order_of_the_edges():
    graph = dgl.add_self_loop(directed(seed=2))
    order = torch.randperm(graph.num_edges(), generator=torch.Generator().manual_seed(0))
    src, dst = graph.edges()
    shuffled = dgl.graph((src[order], dst[order]), num_nodes=N)
    for method in ("exact", "push"):
        values = ppr_values(graph, method=method)
        torch.testing.assert_close(ppr_values(shuffled, method=method), values[order], atol=1e-7, rtol=1e-5)
    loops = src == dst
    assert loops.sum() >= N and (values[loops] > 0.25 - 1e-6).all() and (values[~loops] < 0.7).all()


@pytest.mark.parametrize("core", [cpu, PLAIN], ids=["compiled", "scipy"])
def test_blocks_of_rows_are_the_rows_of_the_whole(monkeypatch, core):
    if core is cpu and not cpu.available():
        pytest.skip("no compiled core")
    graph = directed(seed=4)
    monkeypatch.setattr(ppr, "cpu", core)
    expected = ppr_values(graph), ppr_graph(graph, 3).edata["ppr"]
    monkeypatch.setattr(ppr._Walk, "blocks", lambda walk: [(0, 7), (7, 40), (40, N)])
    for found, value in zip((ppr_values(graph), ppr_graph(graph, 3).edata["ppr"]), expected, strict=True):
        torch.testing.assert_close(found, value, atol=0, rtol=0)


def test_blocks_are_all_rows_once(monkeypatch):
    walk = ppr._Walk(directed(), 0.25, "row", "push", 1e-2, None)
    for core in (True, False):
        walk.compiled = core
        monkeypatch.setattr(ppr, "ENTRIES", 7 * N)
        rows = [row for first, last in walk.blocks() for row in range(first, last)]
        assert rows == list(range(N))
    assert len(list(walk.blocks())) == -(-N // 7)


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graph", [directed, undirected])
def test_the_compiled_core_finds_what_scipy_defines(monkeypatch, graph, form):
    graph = graph(seed=7)
    weight = torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(1))

    def found():
        near = ppr_graph(graph, 5, form=form, epsilon=1e-3, edge_weight=weight)
        return *near.edges(), near.edata["ppr"], ppr_values(graph, form=form, epsilon=0.1, edge_weight=weight)

    expected = found()
    monkeypatch.setattr(ppr, "cpu", PLAIN)
    for one, other in zip(found(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6)
    assert len(expected[0]) > 3 * N and 0 < (expected[3] > 0).sum() < len(weight)  # some are too far for a push


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_threads_change_no_bit():
    graph = dgl.rand_graph(1000, 5000)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            near = ppr_graph(graph, 9)
            found.append((*near.edges(), near.edata["ppr"], ppr_values(graph)))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("either")
def test_numbers_at_the_ends_of_float32_end_and_are_finite():
    src, dst = (torch.randint(0, N, (90,), generator=torch.Generator().manual_seed(k)) for k in (8, 9))
    graph = dgl.graph((torch.cat([src, dst]), torch.cat([dst, src])), num_nodes=N)
    weight = 10.0 ** (torch.rand(90, generator=torch.Generator().manual_seed(0)).double() * 83 - 45).repeat(2)
    for form in FORMS:
        values = ppr_values(graph, form=form, edge_weight=weight)
        assert ((0 <= values) & (values <= 1 + 1e-6)).all()
    one_way = dgl.graph(([0, 1, 1], [1, 2, 0]))
    # Of so small a number three quarters are the number itself: a threshold of zero would let it go round for ever.
    values = ppr_values(one_way, 0.25, form="row", epsilon=5e-324, edge_weight=torch.full((3,), 1e-45))
    assert values.tolist() == pytest.approx([3 / 7] * 3)
    with pytest.raises(GraphError, match="^edge_weight: expected degrees whose roots' ratio float32 holds, got a"):
        ppr_values(one_way, edge_weight=torch.tensor([1e-45, 1e38, 1e38]), form="sym")
    with pytest.raises(GraphError, match="^edge_weight: expected numbers that float32 holds, got a larger one$"):
        ppr_values(graph, edge_weight=torch.full((graph.num_edges(),), 1e300, dtype=torch.float64))


@pytest.mark.skipif(not cpu.available(), reason="no compiled core")
def test_the_core_reads_no_memory_that_is_not_there():
    walk = ppr._Walk(directed(), 0.25, "row", "push", 1e-2, None)
    indptr, other, weight, threshold, root, alpha = walk._core
    for wrong in (
        (indptr[:-1], other, weight, threshold, root, alpha),
        (indptr[::-1].copy(), other, weight, threshold, root, alpha),
        (indptr + 1, other, weight, threshold, root, alpha),
        (indptr, other + N, weight, threshold, root, alpha),
        (indptr, other - 1, weight, threshold, root, alpha),
        (indptr, other, weight[:-1], threshold, root, alpha),
        (indptr, other, weight, threshold, threshold[1:], alpha),
    ):
        with pytest.raises(ValueError, match="expected"):
            cpu.nearest_by_ppr(wrong, 0, N, 3)
        with pytest.raises(ValueError, match="expected"):
            cpu.ppr_at(wrong, 0, np.zeros(N + 1, np.int64), np.zeros(0, np.int64))
    for first, last, k in ((-1, N, 3), (0, N + 1, 3), (5, 4, 3), (0, N, 0)):
        with pytest.raises(ValueError, match="first, last, k: expected"):
            cpu.nearest_by_ppr(walk._core, first, last, k)
    for first, asked, column in (
        (0, [0, 2], [1]),
        (N, [0, 1], [1]),
        (-1, [0, 1], [1]),
        (0, [0, 1], [N]),
        (0, [1, 1], [1]),
    ):
        with pytest.raises(ValueError, match="expected"):
            cpu.ppr_at(walk._core, first, np.array(asked), np.array(column))


@pytest.mark.usefixtures("either")
def test_weights_count_and_edges_that_stand_twice_count_twice():
    graph = undirected(seed=6)
    src, dst = graph.edges()
    weight = torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(0))
    expected, _ = restated(graph, 0.25, "sym", weight)
    values = ppr_values(graph, method="exact", edge_weight=weight)
    torch.testing.assert_close(values.double(), expected[dst, src], atol=1e-6, rtol=1e-5)
    twice = dgl.graph((torch.cat([src, src[:5]]), torch.cat([dst, dst[:5]])), num_nodes=N)
    two = torch.ones(len(src))
    two[:5] = 2
    values = ppr_values(twice)
    torch.testing.assert_close(values[: len(src)], ppr_values(graph, edge_weight=two), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(values[len(src) :], values[:5], atol=0, rtol=0)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("method", ["exact", "push"])
def test_where_a_walk_cannot_go_on_it_stays(method):
    # 0 -> 1 -> 2, a pair 3 - 4 of its own, 5 with a self-loop alone, 6 with nothing.
    graph = dgl.graph(([0, 1, 3, 4, 5], [1, 2, 4, 3, 5]), num_nodes=7)
    for form in FORMS:
        found = table_of(ppr_graph(graph, 7, 0.25, form=form, method=method, epsilon=1e-7))
        expected, _ = restated(graph, 0.25, form)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert found[5, 5] == pytest.approx(1, abs=1e-5) and found[6, 6] == pytest.approx(1, abs=1e-5)
        assert found[:3, 3:].abs().sum() == 0 and found[3:, :3].abs().sum() == 0 and found[3:5, 5:].sum() == 0
    rows = table_of(ppr_graph(graph, None, 0.25, form="row", method="exact"))
    torch.testing.assert_close(rows.sum(1), torch.ones(7).double(), atol=1e-6, rtol=0)
    assert rows[0].tolist() == pytest.approx([1, 0, 0, 0, 0, 0, 0])


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("nodes", [0, 4])
def test_a_graph_without_edges_is_all_self(nodes):
    graph = dgl.graph(([], []), num_nodes=nodes)
    assert ppr_values(graph).shape == (0,)
    found = ppr_graph(graph, None)
    assert found.num_nodes() == found.num_edges() == nodes
    assert found.edata["ppr"].tolist() == pytest.approx([1.0] * nodes, abs=1e-3)


@pytest.mark.usefixtures("either")
def test_the_graph_is_left_as_it_was_and_ids_stay_short():
    graph = directed().int()
    keys = set(graph.edata) | set(graph.ndata)
    found = ppr_graph(graph, 3)
    assert found.idtype == torch.int32 and found.edata["ppr"].dtype == ppr_values(graph).dtype == torch.float32
    assert set(graph.edata) | set(graph.ndata) == keys


def test_wrong_calls_are_one_sentence(monkeypatch):
    graph = directed()
    for wrong in (0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), "0.1", None, True):
        for name in ("alpha", "epsilon"):
            with pytest.raises(ShapeError, match=f"^{name}: expected a number above 0 and below 1, got "):
                ppr_values(graph, **{name: wrong})
            with pytest.raises(ShapeError, match=f"^{name}: expected a number above 0 and below 1, got "):
                ppr_graph(graph, 3, **{name: wrong})
    with pytest.raises(GraphError, match=f"^k: expected at most the {N} nodes of the graph, got {N + 1}$"):
        ppr_graph(graph, N + 1)
    for wrong in (0, -1, 2.0, "3", True):
        with pytest.raises(ShapeError, match="^k: expected"):
            ppr_graph(graph, wrong)
    with pytest.raises(ShapeError, match="form: expected one of"):
        ppr_values(graph, form="rows")
    with pytest.raises(ShapeError, match="method: expected one of"):
        ppr_values(graph, method="power")
    with pytest.raises(GraphError, match="edge_weight: expected finite numbers not below zero"):
        ppr_values(graph, edge_weight=-torch.ones(graph.num_edges()))
    pairs = dgl.heterograph({("a", "r", "b"): ([0], [1])})
    for other in (pairs, dgl.to_block(graph)):
        with pytest.raises(GraphError, match="graph: expected one node type to walk on, got"):
            ppr_graph(other, 1)
    monkeypatch.setattr(ppr, "LARGEST", N - 1)
    with pytest.raises(GraphError, match="method: expected 'push' for a graph of more than"):
        ppr_graph(graph, 3, method="exact")
    assert np.isfinite(ppr_values(graph).numpy()).all()
