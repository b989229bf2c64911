"""Signed motifs: one for each triangle made by hand, and the definition by sets on random graphs."""

from itertools import product

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError
from hgat.graph import motifs

PATTERNS = (("u->w", "w->v"), ("u->w", "v->w"), ("w->u", "v->w"), ("w->u", "w->v"))  # the table's order
SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def signed(edges, nodes):
    """A graph of {(u, v): sign} or [(u, v, sign)]."""
    rows = [(*pair, sign) for pair, sign in edges.items()] if isinstance(edges, dict) else edges
    src, dst, sign = zip(*rows, strict=True) if rows else ((), (), ())
    graph = dgl.graph((torch.tensor(src, dtype=torch.int64), torch.tensor(dst, dtype=torch.int64)), num_nodes=nodes)
    graph.edata["sign"] = torch.tensor(sign, dtype=torch.int64)
    return graph


def channels(views):
    """[{(u, v): u attends to v}] of every view, without the edges of nodes with themselves."""
    src, dst = views.graph.edges(order="eid")
    found = [set() for _ in views.names]
    for u, v in zip(dst.tolist(), src.tolist(), strict=True):
        view, mine = divmod(u, views.num_dst)
        assert view == v // views.num_dst
        if mine != v % views.num_dst:
            found[view].add((mine, v % views.num_dst))
    return found


def by_sets(graph):
    """The 38 channels from the words of the definition."""
    src, dst = (end.tolist() for end in graph.edges(order="eid"))
    edges = {(u, v, s) for u, v, s in zip(src, dst, graph.edata["sign"].tolist(), strict=True) if u != v}
    nodes = range(graph.num_nodes())
    found = []
    for sign in (1, -1):
        out = {(u, v) for u, v, s in edges if s == sign}
        back = {(v, u) for u, v in out}
        found += [out | back, out, back]
    for sign in (1, -1):
        for (first, second), (s1, s2) in product(PATTERNS, SIGNS):

            def there(arrow, u, v, w, s):
                ends = {"u": u, "v": v, "w": w}
                return (ends[arrow[0]], ends[arrow[3]], s) in edges

            found.append(
                {
                    (u, v)
                    for u, v, s in edges
                    if s == sign
                    and any(there(first, u, v, w, s1) and there(second, u, v, w, s2) for w in nodes if w not in (u, v))
                }
            )
    return found


@pytest.mark.parametrize("uv", [1, -1])
@pytest.mark.parametrize(("signs", "number"), [(s, k) for k, s in enumerate(SIGNS)])
@pytest.mark.parametrize("pattern", range(4))
def test_a_triangle_is_of_one_triad(pattern, signs, number, uv):
    u, v, w = 0, 1, 2
    names = {"u": u, "v": v, "w": w}
    edges = {(u, v): uv}
    for arrow, sign in zip(PATTERNS[pattern], signs, strict=True):
        edges[names[arrow[0]], names[arrow[3]]] = sign
    found = channels(hgraph.signed_motifs(signed(edges, 3)))
    lit = [k for k, pairs in enumerate(found) if k >= 6 and (u, v) in pairs]
    assert lit == [6 + 4 * pattern + number + (0 if uv == 1 else 16)]


def test_random_graphs_by_their_definition():
    generator = torch.Generator().manual_seed(3)
    for nodes, count in ((5, 14), (9, 30), (12, 90)):
        rows = [
            (*torch.randint(0, nodes, (2,), generator=generator).tolist(), sign)
            for sign in (1, -1)
            for _ in range(count // 2)
        ]  # self-loops, edges twice, and pairs with both signs among them
        graph = signed(rows, nodes)
        views = hgraph.signed_motifs(graph)
        assert channels(views) == by_sets(graph) and len(set(views.names)) == 38
        assert channels(hgraph.signed_motifs(graph, 6)) == by_sets(graph)[:6]
        assert channels(hgraph.signed_motifs(graph, 2)) == [by_sets(graph)[0], by_sets(graph)[3]]


def test_edges_in_pieces(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    rows = [(*torch.randint(0, 9, (2,), generator=generator).tolist(), 1 - 2 * (k % 3 == 0)) for k in range(40)]
    graph = signed(rows, 9)
    monkeypatch.setattr(motifs, "AT_ONCE", 3)
    assert channels(hgraph.signed_motifs(graph)) == by_sets(graph)


def test_every_node_attends_to_itself_once_under_every_motif():
    views = hgraph.signed_motifs(signed({(0, 1): 1, (1, 1): -1, (2, 0): -1}, 4))
    src, dst = views.graph.edges(order="eid")
    own = dst[src == dst]
    assert sorted(own.tolist()) == list(range(38 * 4))


def test_other_signs_swap_the_channels_of_pairs():
    edges = {(0, 1): 1, (1, 2): -1, (2, 0): 1, (3, 1): -1}
    one = channels(hgraph.signed_motifs(signed(edges, 4), 6))
    other = channels(hgraph.signed_motifs(signed({pair: -sign for pair, sign in edges.items()}, 4), 6))
    assert one[:3] == other[3:] and one[3:] == other[:3] and one[:3] != other[:3]


def test_one_channel_has_the_kinds_of_edges():
    views = hgraph.signed_motifs(signed([(0, 1, 1), (2, 0, -1), (0, 1, -1)], 3), 1)
    src, dst = views.graph.edges(order="eid")
    kinds = [motifs.KINDS[k] for k in views.graph.edata["kind"].tolist()]
    found = set(zip(dst.tolist(), src.tolist(), kinds, strict=True))
    pairs = {(0, 1, "+ out"), (1, 0, "+ in"), (2, 0, "- out"), (0, 2, "- in"), (0, 1, "- out"), (1, 0, "- in")}
    assert found == pairs | {(k, k, "itself") for k in range(3)} and len(kinds) == 9


def test_degrees_are_counted_by_sign_and_direction():
    found = hgraph.signed_degrees(signed([(0, 1, 1), (0, 2, 1), (1, 0, -1), (2, 2, 1)], 3))
    assert found.tolist() == [[2, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]]


def test_a_graph_without_edges():
    views = hgraph.signed_motifs(signed([], 3))
    assert views.num_views == 38 and views.graph.num_edges() == 38 * 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda g: g.edata.update(sign=torch.tensor([1, 0])), "1 and -1, got 0"),
        (lambda g: g.edata.update(sign=torch.tensor([1.0, float("nan")])), "1 and -1, got nan"),
        (lambda g: g.edata.update(sign=torch.ones(2, 1)), r"\[E\], 1 and -1, got \[2, 1\]"),
        (lambda g: g.edata.pop("sign"), "1 and -1, got none"),
    ],
)
def test_wrong_signs_are_one_sentence(change, match):
    graph = signed({(0, 1): 1, (1, 0): -1}, 2)
    change(graph)
    for call in (hgraph.signed_motifs, hgraph.signed_degrees):
        with pytest.raises(GraphError, match=match):
            call(graph)


@pytest.mark.parametrize("number", [18, 0, True, "38", None])
def test_other_numbers_of_motifs_are_refused(number):
    with pytest.raises(GraphError, match="motifs: expected one of"):
        hgraph.signed_motifs(signed({(0, 1): 1}, 2), number)


def test_blocks_and_bipartite_graphs_are_refused():
    pair = dgl.heterograph({("a", "r", "b"): ([0], [0])}, {"a": 1, "b": 2})
    pair.edata["sign"] = torch.ones(1)
    with pytest.raises(GraphError, match="destinations are its sources"):
        hgraph.signed_motifs(pair)
