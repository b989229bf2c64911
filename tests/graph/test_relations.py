"""The joined graph against a list of (node, relation) pairs kept by hand, and the inverse relations."""

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError, ShapeError
from hgat.graph import relations
from zoo import build, typed_graph


def one_way():
    """Three node types: "tag" only sends, "shop" only receives, "item" does both."""
    generator = torch.Generator().manual_seed(9)

    def draw(num_src, num_dst, count):
        ends = (num_src, num_dst)
        return tuple(torch.randint(0, n, (count,), generator=generator) for n in ends)

    return dgl.heterograph(
        {
            ("item", "like", "item"): draw(7, 7, 29),
            ("item", "sold by", "shop"): draw(7, 3, 19),
            ("tag", "marks", "item"): draw(5, 7, 23),
            ("tag", "unused", "shop"): ([], []),
        },
        num_nodes_dict={"item": 7, "shop": 3, "tag": 5},
    )


def typed_block():
    seeds = {"film": torch.tensor([2, 3, 7]), "user": torch.tensor([0, 5, 6, 8, 12])}
    return dgl.to_block(dgl.in_subgraph(typed_graph(), seeds), seeds)


def no_edges():
    return dgl.heterograph({("a", "to", "b"): ([], []), ("b", "back", "a"): ([], [])}, num_nodes_dict={"a": 5, "b": 3})


def same_name_twice():
    """Two relations called "of": only the triple tells them apart."""
    return dgl.heterograph(
        {("a", "of", "b"): ([0, 1, 1], [2, 2, 0]), ("b", "of", "a"): ([2, 0], [1, 1])},
        num_nodes_dict={"a": 2, "b": 3},
    )


def one_relation():
    return build("multi_edges")


GRAPHS = {
    f.__name__: f
    for f in (typed_graph, one_way, typed_block, no_edges, same_name_twice, one_relation)
}  # fmt: skip


def _by_hand(graph):
    """[(source row, destination row, relation)] of every edge, relations end to end, types stacked."""
    first_src, first_dst, total = {}, {}, 0
    for ntype in graph.srctypes:
        first_src[ntype] = total
        total += graph.num_src_nodes(ntype)
    total = 0
    for ntype in graph.dsttypes:
        first_dst[ntype] = total
        total += graph.num_dst_nodes(ntype)
    found = []
    for r, etype in enumerate(graph.canonical_etypes):
        for edge in range(graph.num_edges(etype)):
            u, v = graph.find_edges(torch.tensor([edge], dtype=graph.idtype), etype=etype)
            found.append((first_src[etype[0]] + int(u), first_dst[etype[2]] + int(v), r))
    return found


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", GRAPHS)
def test_join_equals_a_list_of_pairs(name, idtype):
    graph = GRAPHS[name]()
    graph = graph.int() if idtype == torch.int32 else graph
    edges = _by_hand(graph)
    joined = hgraph.join_relations(graph)
    relation_count = len(graph.canonical_etypes)
    assert joined.etypes == tuple(graph.canonical_etypes)
    assert joined.num_edges == tuple(graph.num_edges(e) for e in graph.canonical_etypes)
    assert joined.num_src == {t: graph.num_src_nodes(t) for t in graph.srctypes}
    assert joined.num_dst == {t: graph.num_dst_nodes(t) for t in graph.dsttypes}
    assert joined.relation_of_edge().tolist() == [r for _, _, r in edges]
    assert joined.is_block == graph.is_block

    senders = sorted({(r, u) for u, _, r in edges})
    receivers = sorted({(r, v) for _, v, r in edges})
    for pairs, expected in ((joined.source, senders), (joined.target, receivers)):
        assert len(pairs) == len(expected)
        assert list(zip(pairs.relation.tolist(), pairs.node.tolist(), strict=True)) == expected
        assert pairs.count.tolist() == [sum(q == r for q, _ in expected) for r in range(relation_count)]
        assert pairs.count.device.type == "cpu"

    rows = sum(graph.num_dst_nodes(t) for t in graph.dsttypes)
    src, dst = (x.tolist() for x in joined.across.edges(order="eid"))
    assert src == [senders.index((r, u)) for u, _, r in edges]
    assert dst == [v for _, v, _ in edges]
    assert (joined.across.num_src_nodes(), joined.across.num_dst_nodes()) == (len(senders), rows)

    src, dst = (x.tolist() for x in joined.within.edges(order="eid"))
    assert src == [senders.index((r, u)) for u, _, r in edges]
    assert dst == [receivers.index((r, v)) for _, v, r in edges]
    assert (joined.within.num_src_nodes(), joined.within.num_dst_nodes()) == (len(senders), len(receivers))

    src, dst = (x.tolist() for x in joined.collect.edges(order="eid"))
    assert src == list(range(len(receivers)))
    assert dst == [v for _, v in receivers]
    assert (joined.collect.num_src_nodes(), joined.collect.num_dst_nodes()) == (len(receivers), rows)

    assert {joined.across.idtype, joined.within.idtype, joined.collect.idtype} == {idtype}
    source, target = joined.pairs_on(torch.device("cpu"))
    assert source.node.tolist() == [u for _, u in senders]
    assert target.node.tolist() == [v for _, v in receivers]
    assert joined.pairs_on(torch.device("cpu"))[0] is source


def test_graphs_here_hold_what_their_names_say():
    graph = one_way()
    assert "shop" not in {e[0] for e in graph.canonical_etypes if graph.num_edges(e)}
    assert "tag" not in {e[2] for e in graph.canonical_etypes}
    block = typed_block()
    assert block.is_block and block.num_edges("liked by") > 3
    assert block.num_src_nodes("film") > block.num_dst_nodes("film")  # users start elsewhere at the two ends
    assert 0 in hgraph.join_relations(one_way()).source.count


@pytest.mark.parametrize("sparse", ["csr", "csc", "coo"])
def test_graphs_held_in_one_sparse_format_are_served(sparse):
    """Samplers keep graphs as CSC only; DGL lists the edges of such a graph in another order."""
    graph = one_way()
    full, found = hgraph.join_relations(graph), hgraph.join_relations(graph.formats(sparse))
    for name in ("across", "within", "collect"):
        for got, expected in zip(getattr(found, name).edges(), getattr(full, name).edges(), strict=True):
            assert torch.equal(got, expected)
    inverted = hgraph.add_inverse(graph.formats(sparse))
    for etype in hgraph.add_inverse(graph).canonical_etypes:
        expected = hgraph.add_inverse(graph).edges(etype=etype)
        assert all(torch.equal(a, b) for a, b in zip(inverted.edges(etype=etype), expected, strict=True))


def test_join_is_kept_and_rebuilt_after_a_change():
    graph = typed_graph()
    first = hgraph.join_relations(graph)
    assert hgraph.join_relations(graph) is first
    assert hgraph.join_relations(first) is first
    with graph.local_scope():
        assert hgraph.join_relations(graph) is first
    graph.add_edges(torch.tensor([1]), torch.tensor([2]), etype="never")
    again = hgraph.join_relations(graph)
    assert again.num_edges == (17, 41, 41, 1) and first.num_edges == (17, 41, 41, 0)
    graph.remove_edges(torch.tensor([0, 1]), etype="follows")
    assert hgraph.join_relations(graph).num_edges == (15, 41, 41, 1)
    graph.add_nodes(3, ntype="user")
    assert hgraph.join_relations(graph).num_src["user"] == 16
    graph.add_nodes(1, ntype="film")
    assert hgraph.join_relations(graph).across.num_dst_nodes() == 12 + 16


def test_graphs_that_share_an_index_under_other_names_are_joined_apart():
    """dgl.block_to_graph renames the node types of a block and keeps its index, and with it the cache."""
    block = typed_block()
    first = hgraph.join_relations(block)
    renamed = dgl.block_to_graph(block)
    again = hgraph.join_relations(renamed)
    assert again.etypes == tuple(renamed.canonical_etypes)
    assert set(again.num_src) == set(renamed.srctypes)
    assert first.is_block and not again.is_block
    assert hgraph.join_relations(block) is first


@pytest.mark.parametrize("function", [hgraph.join_relations, hgraph.add_inverse, relations.prepare])
def test_anything_but_a_graph_is_refused(function):
    with pytest.raises(GraphError, match="^graph: expected a DGLGraph.*, got str$"):
        function("graph")


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("self_relation", [False, True])
@pytest.mark.parametrize("name", ["typed_graph", "one_way", "no_edges", "same_name_twice"])
def test_add_inverse(name, self_relation, idtype):
    graph = GRAPHS[name]()
    graph = graph.int() if idtype == torch.int32 else graph
    found = hgraph.add_inverse(graph, self_relation)
    expected = {}
    for etype in graph.canonical_etypes:
        src, dst = [], []
        for edge in range(graph.num_edges(etype)):
            u, v = graph.find_edges(torch.tensor([edge], dtype=idtype), etype=etype)
            src, dst = [*src, int(u)], [*dst, int(v)]
        expected[etype] = (src, dst)
        expected[etype[2], etype[1] + "^-1", etype[0]] = (dst, src)
    if self_relation:
        for ntype in graph.ntypes:
            every = list(range(graph.num_nodes(ntype)))
            expected[ntype, "self", ntype] = (every, every)
    assert set(found.canonical_etypes) == set(expected)
    for etype, (src, dst) in expected.items():
        got = found.edges(etype=etype, order="eid")
        assert (got[0].tolist(), got[1].tolist()) == (src, dst), etype
    assert {t: found.num_nodes(t) for t in found.ntypes} == {t: graph.num_nodes(t) for t in graph.ntypes}
    assert found.idtype == idtype
    assert set(graph.canonical_etypes) == set(GRAPHS[name]().canonical_etypes)  # left as it was


def test_inverting_twice_is_refused():
    graph = hgraph.add_inverse(typed_graph())
    with pytest.raises(GraphError, match=r"has its inverse .*follows\^-1.* already"):
        hgraph.add_inverse(graph)
    with_self = hgraph.add_inverse(typed_graph(), self_relation=True)
    with pytest.raises(GraphError, match="already"):
        hgraph.add_inverse(with_self, self_relation=True)


def test_a_relation_called_self_is_not_overwritten():
    graph = dgl.heterograph({("film", "self", "film"): ([0, 1], [1, 2])}, num_nodes_dict={"film": 5})
    with pytest.raises(GraphError, match=r"relation \('film', 'self', 'film'\) is there already"):
        hgraph.add_inverse(graph, self_relation=True)
    assert hgraph.add_inverse(graph).num_edges(("film", "self", "film")) == 2
    other = dgl.heterograph({("film", "self", "user"): ([0], [1])}, num_nodes_dict={"film": 2, "user": 3})
    assert hgraph.add_inverse(other, self_relation=True).num_edges(("user", "self", "user")) == 3


def test_inverse_of_a_block_is_refused():
    """Source and destination rows of one node type are not the same nodes on a block."""
    with pytest.raises(GraphError, match="expected a graph whose relations can be inverted, got a block"):
        hgraph.add_inverse(typed_block())


def test_prepare():
    graph = typed_graph()
    both = relations.prepare(graph)
    assert len(both.etypes) == 2 * 4 + 2
    assert sum(both.num_edges) == 2 * graph.num_edges() + graph.num_nodes()
    assert len(relations.prepare(graph, self_relation=False).etypes) == 8
    plain = relations.prepare(graph, inverse=False, self_relation=False)
    assert plain is hgraph.join_relations(graph)
    with pytest.raises(GraphError, match="expected at least one edge, got none"):
        relations.prepare(no_edges())
    looped = relations.extended(graph, inverse=False)
    assert looped.num_edges() == graph.num_edges() + graph.num_nodes()
    assert [e for e in looped.canonical_etypes if e[1] != "self"] == graph.canonical_etypes
    with pytest.raises(GraphError, match="is there already"):
        relations.extended(looped, inverse=False)


def test_relations_that_are_left_out():
    graph = typed_graph()
    name = graph.etypes[0]
    left = relations.extended(graph, inverse=False, self_relation=False, without=[name])
    assert left.canonical_etypes == [e for e in graph.canonical_etypes if e[1] != name]
    assert left.ntypes == graph.ntypes and left.num_nodes() == graph.num_nodes()
    for etype in left.canonical_etypes:
        for ours, theirs in zip(left.edges(etype=etype), graph.edges(etype=etype), strict=True):
            assert torch.equal(ours, theirs)
    with pytest.raises(GraphError, match="graph.without: expected names of relations among .* got 'cites'"):
        relations.extended(graph, without=["cites"])
    with pytest.raises(GraphError, match="expected at least one edge, got none"):
        relations.extended(graph, without=graph.etypes)


@pytest.mark.parametrize("graph", [build("bipartite"), build("block")], ids=["bipartite", "block"])
def test_plain_graphs_need_one_node_type_for_self_loops(graph):
    for settings in ({}, {"self_loops": False, "undirected": True}):
        with pytest.raises(GraphError, match="expected one node type for self-loops or both directions"):
            hgraph.homogeneous.prepare(graph, **settings)
    assert hgraph.homogeneous.prepare(graph, self_loops=False) is graph
    for wrong, sentence in (("graph", "got str"), (typed_graph(), "one relation, got 4")):
        with pytest.raises(GraphError, match=sentence):
            hgraph.homogeneous.prepare(wrong)


def with_types(name, is_sorted=False, idtype=torch.int64):
    graph = build(name, idtype)
    ntype, etype = torch.randint(3, (graph.num_src_nodes(),)), torch.randint(4, (graph.num_edges(),))
    return graph, *((ntype.sort()[0], etype.sort()[0]) if is_sorted else (ntype, etype))


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "block", "zero_in_degree", "multi_edges", "empty", "no_nodes"])
def test_join_types_equals_a_list_of_pairs(name, is_sorted, idtype):
    graph, ntype, etype = with_types(name, is_sorted, idtype)
    joined = hgraph.join_types(graph, ntype, etype, 3, 4)
    src, dst = (end.tolist() for end in graph.edges(order="eid"))
    num_dst = graph.num_dst_nodes()
    # A pair as (edge type, node type, node), in that order.
    expected = sorted({(r, int(ntype[u]), u) for r, u in zip(etype.tolist(), src, strict=True)})
    combination = joined.pairs.relation
    found = zip(joined.edge_type[combination], joined.source_type[combination], joined.pairs.node, strict=True)
    assert [tuple(map(int, pair)) for pair in found] == expected
    assert len(joined.edge_type) == len({pair[:2] for pair in expected})
    assert joined.pairs.count.tolist() == torch.bincount(combination, minlength=len(joined.edge_type)).tolist()
    # Every edge runs from its pair to the row of its destination, in the graph's order.
    pair_of_edge, row_of_edge = joined.across.edges(order="eid")
    assert [expected[k] for k in pair_of_edge] == [(int(etype[e]), int(ntype[u]), u) for e, u in enumerate(src)]
    nodes = torch.arange(num_dst)
    assert joined.by_type(nodes)[row_of_edge.long()].tolist() == dst
    assert torch.equal(joined.by_node(joined.by_type(nodes)), nodes)
    target_type = ntype[:num_dst]
    assert torch.equal(joined.target_type, target_type)
    assert joined.by_type(target_type).tolist() == sorted(target_type.tolist())
    assert joined.target_count.tolist() == torch.bincount(target_type, minlength=3).tolist()
    if is_sorted:
        assert joined.target_order is None and joined.target_row is None
    assert joined.across.idtype == idtype and joined.across.num_dst_nodes() == num_dst


def test_join_types_is_kept_for_the_same_types_and_built_for_others():
    graph, ntype, etype = with_types("homogeneous")

    def join(*types):
        return hgraph.join_types(graph, *types, 3, 4)

    first = join(ntype, etype)
    assert join(ntype, etype) is first and join(ntype.clone(), etype.clone()) is first
    other = join(ntype, etype.flip(0))
    assert other is not first and join(ntype, etype) is first  # both are kept
    etype[0] = (etype[0] + 1) % 4
    changed = join(ntype, etype)
    assert changed is not first and changed is not other and join(ntype, etype) is changed
    ntype.fill_(1)
    assert join(ntype, etype) is not changed
    last = join(ntype, etype)
    for k in range(1, 7):
        join(ntype, etype.roll(k))
    assert join(ntype, etype) is not last  # no more than a few are kept
    graph.add_edges(1, 2)
    with pytest.raises(ShapeError, match=r"etype: expected \[E\] = \[121\], got \[120\]"):
        join(ntype, etype)


def test_types_that_were_compared_once_are_known_from_then_on(monkeypatch):
    graph, ntype, etype = with_types("homogeneous")
    first = hgraph.join_types(graph, ntype, etype, 3, 4)
    same = ntype.clone(), etype.clone()
    assert hgraph.join_types(graph, *same, 3, 4) is first
    monkeypatch.setattr(torch, "equal", None)
    assert hgraph.join_types(graph, *same, 3, 4) is first


def test_join_types_made_in_inference_mode_serves_a_backward_pass():
    graph, ntype, etype = with_types("homogeneous")
    with torch.inference_mode():
        ntype, etype = ntype.clone(), etype.clone()
        joined = hgraph.join_types(graph, ntype, etype, 3, 4)
        etype[0] = (etype[0] + 1) % 4  # inference tensors count no versions
        assert hgraph.join_types(graph, ntype, etype, 3, 4) is not joined
    for tensor in (joined.pairs.node, joined.source_type, joined.edge_type, joined.target_type, joined.target_row):
        assert not tensor.is_inference()


@pytest.mark.parametrize(("change", "error", "sentence"), [
    (lambda g, n, e: (g, n[1:], e), ShapeError, r"ntype: expected \[N\] = \[23\], got \[22\]"),
    (lambda g, n, e: (g, n, e.view(-1, 1)), ShapeError, r"etype: expected \[E\] = \[120\], got \[120, 1\]"),
    (lambda g, n, e: (g, n.bool(), e), ShapeError, r"ntype: expected a tensor of whole numbers \[N\], got torch.bool"),
    (lambda g, n, e: (g, n, e.tolist()), ShapeError, r"etype: expected a tensor of whole numbers \[E\], got list"),
    (lambda g, n, e: (g, n + 1, e), GraphError, "ntype: expected numbers from 0 to 2, got 1 to 3"),
    (lambda g, n, e: (g, n, e - 1), GraphError, "etype: expected numbers from 0 to 3, got -1 to 2"),
    (lambda g, n, e: (build("bipartite"), n, e), GraphError, "expected a homogeneous graph or a block, got 19 sources"),
    (lambda g, n, e: (typed_graph(), n, e), GraphError, "expected one relation, got 4"),
    (lambda g, n, e: ("graph", n, e), GraphError, "expected a DGLGraph, got str"),
])  # fmt: skip
def test_join_types_refuses_types_unlike_the_graph(change, error, sentence):
    with pytest.raises(error, match=sentence):
        hgraph.join_types(*change(*with_types("homogeneous")), 3, 4)
