"""Triples as graphs: by relation, as messages in both directions, grouped by relation."""

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError

TRIPLES = torch.tensor([[0, 1, 2], [3, 0, 0], [0, 1, 1], [2, 1, 2], [3, 0, 2]])
NAMES = ("likes", "hates", "empty")


def test_a_triple_is_an_edge_from_head_to_tail():
    graph = hgraph.triple_graph(TRIPLES, 5, NAMES)
    assert graph.ntypes == ["entity"] and graph.num_nodes() == 5
    found = {name: list(zip(*(end.tolist() for end in graph.edges(etype=name)), strict=True)) for name in NAMES}
    assert found == {"likes": [(3, 0), (3, 2)], "hates": [(0, 2), (0, 1), (2, 2)], "empty": []}


def test_messages_go_both_ways_in_relations_of_their_own():
    graph, etype, names = hgraph.message_graph(hgraph.triple_graph(TRIPLES, 5, NAMES))
    src, dst = graph.edges(order="eid")
    found = sorted((names[r], u, v) for r, u, v in zip(etype.tolist(), src.tolist(), dst.tolist(), strict=True))
    expected = [(NAMES[r], h, t) for h, r, t in TRIPLES.tolist()]
    expected += [(f"{NAMES[r]}^-1", t, h) for h, r, t in TRIPLES.tolist()]
    assert found == sorted(expected) and len(names) == 6 and graph.num_nodes() == 5
    one_way, etype, names = hgraph.message_graph(hgraph.triple_graph(TRIPLES, 5, NAMES), inverse=False)
    assert one_way.num_edges() == 5 and len(names) == 3 and etype.tolist() == sorted(etype.tolist())
    looped, etype, names = hgraph.message_graph(hgraph.triple_graph(TRIPLES, 5, NAMES), self_relation=True)
    assert looped.num_edges() == 15 and names[-1] == "self" and etype[-5:].tolist() == [6] * 5
    assert all(end[-5:].tolist() == [0, 1, 2, 3, 4] for end in looped.edges(order="eid"))


def test_groups_are_the_distinct_relations_of_each_node():
    graph, etype, names = hgraph.message_graph(hgraph.triple_graph(TRIPLES, 5, NAMES))
    groups = hgraph.relation_groups(graph, etype, names)
    pairs = list(zip(groups.group.relation.tolist(), groups.group.node.tolist(), strict=True))
    assert pairs == sorted(set(zip(etype.tolist(), graph.edges(order="eid")[1].tolist(), strict=True)))
    src, of = groups.within.edges(order="eid")
    assert torch.equal(src, graph.edges(order="eid")[0])
    assert [pairs[k][0] for k in of.tolist()] == etype.tolist()
    assert [pairs[k][1] for k in of.tolist()] == graph.edges(order="eid")[1].tolist()
    assert torch.equal(groups.collect.edges(order="eid")[1], groups.group.node) and groups.relations == names


@pytest.mark.parametrize("rows", [TRIPLES.float(), TRIPLES[:, :2], [[0, 0, 0]]], ids=["float", "two", "list"])
def test_what_is_no_triples_is_one_sentence(rows):
    with pytest.raises(GraphError, match=r"triples: expected whole numbers \[M, 3\], got"):
        hgraph.triple_graph(rows, 5, NAMES)


def test_numbers_and_names_that_do_not_fit_are_one_sentence():
    for wrong in ([0, 3, 0], [5, 0, 0], [0, 0, -1]):
        with pytest.raises(GraphError, match="expected numbers of 5 entities and 3 relations, got others"):
            hgraph.triple_graph(torch.tensor([wrong]), 5, NAMES)
    for names in ((), ("a", "a", "b"), "abc"):
        with pytest.raises(GraphError, match="relations: expected different names, at least one, got"):
            hgraph.triple_graph(TRIPLES, 5, names)
    two = dgl.heterograph({("a", "r", "b"): ([0], [0])})
    with pytest.raises(GraphError, match="graph: expected one node type, got 2"):
        hgraph.message_graph(two)
    with pytest.raises(GraphError, match="graph: expected at least one edge, got none"):
        hgraph.message_graph(hgraph.triple_graph(TRIPLES[:0], 5, NAMES))
    graph = dgl.graph(([0, 1], [1, 2]))
    with pytest.raises(GraphError, match=r"etype: expected whole numbers \[E\] with E = 2, got \[3\]"):
        hgraph.relation_groups(graph, torch.zeros(3).long(), NAMES)
    with pytest.raises(GraphError, match="etype: expected numbers from 0 to 2, got 0 to 3"):
        hgraph.relation_groups(graph, torch.tensor([0, 3]), NAMES)
    with pytest.raises(GraphError, match="expected one from nodes to the same nodes, got a block or two ends"):
        hgraph.relation_groups(dgl.to_block(graph), torch.tensor([0, 1]), NAMES)
