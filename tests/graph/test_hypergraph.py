"""Hypergraphs: forms of an incidence, cliques and the others of a pair by sets, odd hyperedges, wrong calls."""

import itertools

import dgl
import pytest
import torch

from hgat.errors import GraphError
from hgat.graph import clique_expansion, hypergraph
from hgat.graph.hypergraph import others
from zoo import typed_graph

SETS = [[0, 1, 2], [2, 3], [], [4], [3, 1, 0], [3, 2]]


def pairs(graph):
    return list(zip(*(end.tolist() for end in graph.edges(order="eid")), strict=True))


def test_an_incidence_has_three_forms():
    graph = hypergraph(SETS, 6)
    assert graph.canonical_etypes == [("node", "in", "hyperedge")]
    assert (graph.num_src_nodes(), graph.num_dst_nodes()) == (6, 6)
    assert pairs(graph) == [(v, e) for e, nodes in enumerate(SETS) for v in sorted(nodes)]
    nodes, hyperedges = graph.edges()
    order = torch.randperm(len(nodes))
    again = hypergraph((nodes[order].repeat(2), hyperedges[order].repeat(2).int()), 6, 6)  # every pair twice
    assert pairs(again) == pairs(graph)
    likes = typed_graph()["user", "likes", "film"]
    found = hypergraph(likes)
    assert set(pairs(found)) == set(pairs(likes)) and found.num_dst_nodes() == likes.num_dst_nodes()
    plain = hypergraph(dgl.graph(([0, 2, 2], [1, 1, 0]), num_nodes=4))
    assert pairs(plain) == [(2, 0), (0, 1), (2, 1)] and plain.num_dst_nodes() == 4
    assert hypergraph([]).num_edges() == 0 and hypergraph([[]], 2).num_dst_nodes() == 1


def test_cliques_are_all_pairs_of_a_set():
    wanted = {pair for nodes in SETS for pair in itertools.permutations(nodes, 2)}
    found = clique_expansion(hypergraph(SETS, 6))
    assert sorted(pairs(found)) == sorted(wanted) and found.num_nodes() == 6 and found.is_homogeneous


def test_others_are_the_rest_of_a_set_or_a_node_alone():
    graph = hypergraph(SETS, 6)
    found = others(graph)
    assert found is others(graph) and found.num_dst_nodes() == graph.num_edges()
    wanted = []
    for at, (node, hyperedge) in enumerate(pairs(graph)):
        rest = [v for v in SETS[hyperedge] if v != node] or [node]
        wanted += [(v, at) for v in rest]
    assert sorted(pairs(found)) == sorted(wanted)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[0, -1]],), "incidence: expected numbers from 0 on, got -1"),
        (([[0, 3]], 3), "num_nodes: expected a whole number, 4 or more, got 3"),
        (([[0]], None, 0), "num_hyperedges: expected a whole number, 1 or more, got 0"),
        (([[0]], 1.5), "num_nodes: expected a whole number, 1 or more, got 1.5"),
        (([[0.5]],), "incidence: expected whole numbers"),
        (
            ((torch.zeros(2).long(), torch.zeros(3).long()),),
            r"incidence: expected \[I\] and \[I\], got \[2\] and \[3\]",
        ),
        (((torch.zeros(2), torch.zeros(2)),), "incidence: expected whole numbers"),
        (("ab",), "incidence: expected a graph, a tuple of two tensors, or the nodes of each hyperedge, got 'ab'"),
        ((None,), "incidence: expected a graph"),
        (([3],), "incidence: expected a graph"),
        ((typed_graph(),), "graph: expected one relation, got 4"),
    ],
    ids=str,
)
def test_wrong_calls_are_one_sentence(arguments, sentence):
    with pytest.raises(GraphError, match=sentence):
        hypergraph(*arguments)


def test_what_is_no_hypergraph_has_no_cliques():
    for wrong, got in (
        (dgl.graph(([0], [1])), "one among '_N' nodes"),
        (dgl.to_block(dgl.graph(([0], [1]))), "a block"),
    ):
        with pytest.raises(GraphError, match=f"expected a bipartite one from nodes to hyperedges .*, got {got}"):
            clique_expansion(wrong)
