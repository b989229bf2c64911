"""Walks inside snapshots: who is met near whom and how often, against exact chances; who may be drawn at all."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, HgatError
from hgat.graph import from_events, snapshots, walks
from zoo import typed_graph

N = 13


def random_snapshots(events=97, **settings):
    """Five snapshots, the third one empty; nodes 11 and 12 have no event."""
    generator = torch.Generator().manual_seed(3)
    src, dst = torch.randint(0, N - 2, (2, events), generator=generator)
    step = torch.randint(0, 4, (events,), generator=generator)
    step[step > 1] += 1
    return snapshots(from_events((src, dst, step), num_nodes=N), boundaries=[0, 1, 2, 3, 4, 5], **settings)


def typed_snapshots(**settings):
    graph = typed_graph()
    for etype in graph.canonical_etypes:
        graph.edges[etype].data["time"] = torch.arange(graph.num_edges(etype)) % 3
    return snapshots(graph, width=1, **settings)


def reach(found, hops):
    """[T * N, T * N] bool: the second node is at most so many steps from the first, or the first from the second."""
    count = len(found) * found.total_nodes
    near = torch.zeros(count, count)
    near[found.walkable.edges()] = 1
    step, seen = near.clone(), near.clone()
    for _ in range(hops - 1):
        step = ((step @ near) > 0).float()
        seen += step
    seen = seen > 0
    return seen | seen.t()


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("make", [random_snapshots, typed_snapshots], ids=["plain", "typed"])
@pytest.mark.parametrize("settings", [{}, {"cumulative": True}, {"both_ways": False}], ids=str)
def test_contexts_are_near_and_of_the_same_snapshot(make, settings, window):
    found = make(**settings)
    pool = walks(found, num_walks=3, length=6, window=window)
    near = reach(found, window)
    got = pool.contexts(pool.nodes, 40)
    assert got.shape == (len(pool.nodes), 40)
    assert (got // found.total_nodes == pool.nodes.unsqueeze(1) // found.total_nodes).all()
    own = pool.nodes.unsqueeze(1).expand_as(got)
    assert near[own, got].all()
    for k in (1, window) if window < 5 else ():  # and some are as far away as they may be
        far = near & ~reach(found, k - 1) if k > 1 else near
        assert far[own, got].any()


@pytest.mark.parametrize("settings", [{}, {"cumulative": True}, {"both_ways": False}], ids=str)
@pytest.mark.parametrize("make", [random_snapshots, typed_snapshots], ids=["plain", "typed"])
def test_nodes_are_those_with_links(make, settings):
    found = make(**settings)
    pool = walks(found, num_walks=2, length=4, window=2)
    src, dst = found.walkable.edges()
    assert pool.nodes.tolist() == sorted(set(src.tolist()) | set(dst.tolist()))
    drawn = torch.cat([pool.contexts(pool.nodes, 30), pool.negatives(pool.nodes, 30)]).unique()
    assert set(drawn.tolist()) <= set(pool.nodes.tolist())
    if make is random_snapshots and "cumulative" not in settings:
        assert not (drawn // N == 2).any() and (drawn % N < 11).all()


def test_walks_follow_links_and_never_leave_their_snapshot():
    found = random_snapshots()
    pool = walks(found, num_walks=4, length=9, window=3)
    assert pool.path.shape == (4 * len(pool.nodes), 10)
    linked = torch.zeros(5 * N, 5 * N, dtype=torch.bool)
    linked[found.walkable.edges()] = True
    assert linked[pool.path[:, :-1], pool.path[:, 1:]].all()
    assert pool.path[:, 0].bincount(minlength=5 * N)[pool.nodes].tolist() == [4] * len(pool.nodes)


def chances(graph, length, window):
    """P(u is drawn for v), exactly: all walks from all nodes, weighted by their chance."""
    nodes = graph.num_nodes()
    step = torch.zeros(nodes, nodes, dtype=torch.float64)
    src, dst = graph.edges()
    step.index_put_((src, dst), graph.edata["weight"].double(), accumulate=True)
    step = step / step.sum(1, keepdim=True)
    power = [torch.linalg.matrix_power(step, k) for k in range(length + 1)]
    at = [p.mean(0) for p in power]  # a walk starts at every node alike
    drawn = torch.zeros_like(step)
    for i in range(length + 1):
        others = [j for j in range(max(0, i - window), min(length, i + window) + 1) if j != i]
        for j in others:
            both = at[i].unsqueeze(1) * power[j - i] if j > i else (at[j].unsqueeze(1) * power[i - j]).t()
            drawn += both / len(others)
    return drawn / sum(at).unsqueeze(1)


def test_contexts_have_the_chances_of_the_walks():
    """A triangle with a tail; links that had more events are taken more often."""
    graph = from_events(([0, 0, 0, 1, 2, 0, 4, 4], [1, 1, 1, 2, 0, 3, 3, 4], [0] * 8))
    found = snapshots(graph, windows=1, self_loops=False)
    expected = chances(found.walkable, 5, 2)
    pool = walks(found, num_walks=8000, length=5, window=2)
    draws = 40000
    got = torch.stack([x.bincount(minlength=5) for x in pool.contexts(torch.arange(5), draws)]) / draws
    torch.testing.assert_close(got.double(), expected, atol=0.012, rtol=0)
    # The test can tell: another window, and links without their weights, are further off.
    assert (chances(found.walkable, 5, 1) - expected).abs().max() > 0.05
    alike = dgl.graph(found.walkable.edges())
    alike.edata["weight"] = torch.ones(alike.num_edges())
    assert (chances(alike, 5, 2) - expected).abs().max() > 0.05


def test_negatives_stay_in_the_snapshot_and_follow_the_degree():
    found = random_snapshots()
    pool = walks(found, num_walks=1, length=2, window=1)
    draws = 40000
    first = {int(v) // N: v for v in pool.nodes.flip(0)}  # one node of every snapshot that has links
    assert sorted(first) == [0, 1, 3, 4]
    degree = torch.zeros(5 * N, dtype=torch.float64)
    for u, count in zip(found.walkable.edges()[0].tolist(), found.walkable.edata["weight"].tolist(), strict=True):
        degree[u] += count
    for step, node in first.items():
        drawn = pool.negatives(node.view(1), draws)[0]
        assert (drawn // N == step).all()
        here = degree[step * N : (step + 1) * N]
        expected = here**0.75 / (here**0.75).sum()
        got = (drawn % N).bincount(minlength=N).double() / draws
        torch.testing.assert_close(got, expected, atol=0.01, rtol=0)
        assert (here / here.sum() - expected).abs().max() > 0.012  # degree itself would be found out


def test_strangers_are_all_that_have_appeared_alike():
    """Silent nodes, too: node 12 never appears, node 10 not before step 3."""
    events = [(0, 0, 1), (0, 2, 3), (1, 4, 5), (1, 0, 5), (3, 6, 10), (3, 7, 8), (4, 9, 11), (4, 0, 1)]
    step, src, dst = (list(column) for column in zip(*events, strict=True))
    found = snapshots(from_events((src, dst, step), num_nodes=N), boundaries=[0, 1, 2, 3, 4, 5])
    pool = walks(found, num_walks=1, length=2, window=1)
    known = [range(4), range(6), range(6), [*range(9), 10], range(12)]
    assert pool.known.tolist() == [t * N + v for t, nodes in enumerate(known) for v in nodes]
    drawn = pool.strangers(pool.known, 2000)
    assert drawn.shape == (len(pool.known), 2000)
    for t, nodes in enumerate(known):
        here = drawn[pool.known // N == t]
        assert set(here.unique().tolist()) == {t * N + v for v in nodes}
        share = (here - t * N).flatten().bincount(minlength=N).double() / here.numel()
        expected = torch.zeros(N, dtype=torch.float64)
        expected[list(nodes)] = 1 / len(nodes)
        torch.testing.assert_close(share, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"cumulative": True}, {"both_ways": False}], ids=str)
def test_strangers_may_be_linked(settings):
    found = typed_snapshots(**settings)
    pool = walks(found, num_walks=1, length=2, window=1)
    kinds = [ntype for ntype, count in found.num_nodes.items() for _ in range(count)]
    may = {(a, b) for s, _, d in found.links for a, b in ((s, d), (d, s))}
    assert len(may) < len(set(kinds)) ** 2  # some may not
    drawn, total = pool.strangers(pool.known, 300), found.total_nodes
    for node, others in zip(pool.known.tolist(), drawn.tolist(), strict=True):
        present = found.present[node // total]
        allowed = [u for u in range(total) if present[u] and (kinds[node % total], kinds[u]) in may]
        assert sorted(set(others)) == [node // total * total + u for u in allowed]


@pytest.mark.parametrize("cut", [{}, {"cumulative": True}], ids=str)
def test_seeds_repeat_walks_and_generators_repeat_draws(cut):
    found = random_snapshots(**cut)
    one, two, other = (walks(found, num_walks=3, length=8, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one.path, two.path) and not torch.equal(one.path, other.path)
    for draw in (one.contexts, one.negatives, one.strangers):
        a, b, c = (draw(one.nodes, 20, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)
        torch.manual_seed(7)
        a = draw(one.nodes, 20)
        assert not torch.equal(a, draw(one.nodes, 20))
        torch.manual_seed(7)
        assert torch.equal(a, draw(one.nodes, 20))


def test_drawing_walks_leaves_pytorchs_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    walks(random_snapshots(), num_walks=2, length=3)
    assert torch.equal(torch.rand(3), expected)


def test_dead_ends_of_directed_links():
    """0 -> 1 -> 2 and 3 -> 2: walks end at 2, which has contexts all the same."""
    graph = from_events(([0, 1, 3], [1, 2, 2], [0, 0, 0]), num_nodes=5)
    pool = walks(snapshots(graph, windows=1, both_ways=False), num_walks=50, length=4, window=2)
    assert pool.nodes.tolist() == [0, 1, 2, 3]
    found = {tuple(row) for row in pool.path.tolist()}
    assert found == {(0, 1, 2, -1, -1), (1, 2, -1, -1, -1), (3, 2, -1, -1, -1)}
    got = pool.contexts(pool.nodes, 2000)
    assert [sorted(set(row)) for row in got.tolist()] == [[1, 2], [0, 2], [0, 1, 3], [2]]
    # 2 stands in all 150 walks alike; before it are 0 and 1 in a third, 1 alone and 3 alone in a third each.
    share = got[2].bincount(minlength=4) / 2000
    torch.testing.assert_close(share, torch.tensor([1 / 6, 1 / 2, 0, 1 / 3]), atol=0.05, rtol=0)
    assert set(pool.negatives(pool.nodes, 200).unique().tolist()) <= {0, 1, 2, 3}


def test_a_slice_walks_its_own_steps():
    found = random_snapshots()
    part, whole = walks(found[3:5], num_walks=2, length=3), walks(found, num_walks=2, length=3)
    assert part.nodes.tolist() == (whole.nodes[whole.nodes >= 3 * N] - 3 * N).tolist()
    assert part.num_nodes == N


def test_no_link_is_one_sentence():
    with pytest.raises(GraphError, match="^walks: expected at least one link, got none$"):
        walks(random_snapshots()[2])
    empty = from_events(([0, 1], [1, 2], [0, 9]))
    with pytest.raises(GraphError, match="walks: expected at least one link, got none"):
        walks(snapshots(empty, windows=3)[1])


@pytest.mark.parametrize("name", ["num_walks", "length", "window"])
def test_settings_out_of_range_are_one_sentence(name):
    for wrong in (0, -1):
        with pytest.raises(HgatError, match=f"^{name}: expected 1 or more, got {wrong}$"):
            walks(random_snapshots(), **{name: wrong})
