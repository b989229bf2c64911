"""Batches of graphs: members, parts of a batch that are batches again, beside DGL's own batch and unbatch."""

import dgl
import pytest
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph.batches import members, padded, ranges, sub_batch, take_graphs

SIZES = ((5, 11), (0, 0), (3, 2), (1, 0), (7, 13))  # nodes and edges


def graphs(idtype=torch.int64):
    torch.manual_seed(0)
    ends = [torch.randint(max(n, 1), (2, e)).unbind() for n, e in SIZES]
    found = [dgl.graph(pair, num_nodes=n, idtype=idtype) for pair, (n, _) in zip(ends, SIZES, strict=True)]
    for k, graph in enumerate(found):
        graph.ndata["at"] = torch.arange(graph.num_nodes()) + 100 * k
    return found


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
def test_members_join_every_node_with_its_graph(idtype):
    star = members(dgl.batch(graphs(idtype)))
    src, dst = star.edges(order="eid")
    assert src.tolist() == list(range(16)) and star.idtype == idtype
    assert dst.tolist() == [0] * 5 + [2] * 3 + [3] + [4] * 7 and star.num_dst_nodes() == 5
    assert members(dgl.graph(([0], [1]))).num_dst_nodes() == 1  # one graph is a batch of one


def test_other_sizes_of_the_same_nodes_are_other_members():
    graph = dgl.batch(graphs())
    assert members(graph) is members(graph)
    with graph.local_scope():
        graph.set_batch_num_nodes(torch.tensor([6, 10]))
        assert members(graph).num_dst_nodes() == 2
    assert ranges(torch.tensor([3, 9, 0]), torch.tensor([2, 0, 3])).tolist() == [3, 4, 0, 1, 2]


@pytest.mark.parametrize("ids", [[4, 0, 1, 0], [2], [], [1], [0, 1, 2, 3, 4]], ids=str)
def test_taken_graphs_are_dgls_batch_of_them(ids):
    every = graphs()
    whole = dgl.batch(every)
    found, nodes, edges = take_graphs(whole, torch.tensor(ids, dtype=torch.int64))
    assert found.batch_size == len(ids)
    if not ids:
        assert found.num_nodes() == 0
        return
    wanted = dgl.batch([every[k] for k in ids])
    assert found.num_nodes() == wanted.num_nodes()
    for one, other in zip(found.edges(order="eid"), wanted.edges(order="eid"), strict=True):
        assert one.equal(other)
    assert found.batch_num_nodes().equal(wanted.batch_num_nodes())
    assert found.batch_num_edges().equal(wanted.batch_num_edges())
    assert whole.ndata["at"][nodes].equal(wanted.ndata["at"]) and len(edges) == wanted.num_edges()


def test_a_part_of_the_nodes_is_the_subgraph_of_every_graph():
    every = graphs()
    whole, kept = dgl.batch(every), torch.tensor([0, 2, 3, 6, 9, 10, 11, 15])
    found = sub_batch(whole, kept)
    assert found.batch_num_nodes().tolist() == [3, 0, 1, 0, 4]
    wanted = dgl.node_subgraph(whole, kept)
    edges = found.edata[dgl.EID]
    assert found.ndata[dgl.NID].equal(kept) and edges.equal(wanted.edata[dgl.EID].sort().values)
    for one, other in zip(found.edges(order="eid"), whole.edges(order="eid"), strict=True):
        assert kept[one].equal(other[edges])
    counts = [part.num_edges() for part in dgl.unbatch(found)]
    first = [dgl.node_subgraph(g, [v - n for v in kept.tolist() if n <= v < n + g.num_nodes()]).num_edges()
             for g, n in zip(every, (0, 5, 5, 8, 9), strict=True)]  # fmt: skip
    assert counts == first


def test_what_is_no_batch_is_one_sentence():
    graph = dgl.batch(graphs())
    with pytest.raises(GraphError, match="ids: expected numbers from 0 to 4 of graphs, got 5"):
        take_graphs(graph, torch.tensor([0, 5]))
    bare = dgl.add_self_loop(graph)  # DGL forgets which edges are whose
    with pytest.raises(GraphError, match="graph: expected (a batch|the edges of one graph)"):
        bare.set_batch_num_nodes(graph.batch_num_nodes())
        bare.set_batch_num_edges(graph.batch_num_edges() + graph.batch_num_nodes())
        take_graphs(bare, torch.tensor([0]))
    typed = dgl.heterograph({("a", "to", "b"): ([0], [0])})
    for wrong in (typed, None, torch.zeros(2), dgl.to_block(graph)):
        with pytest.raises(GraphError, match="graph: expected"):
            members(wrong)
    graph.set_batch_num_nodes(torch.tensor([3, 4]))
    with pytest.raises(GraphError, match="expected a batch whose graphs have 16 nodes together, got 7"):
        members(graph)


def test_padded_sets_hold_every_graphs_nodes():
    every = graphs()
    whole, feat = dgl.batch(every), torch.randn(16, 3, requires_grad=True)
    rows, mask = padded(whole, feat)
    assert rows.shape == (5, 7, 3) and rows[mask].equal(feat) and (rows[~mask] == 0).all()
    assert mask.sum(1).tolist() == [n for n, _ in SIZES]
    rows.square().sum().backward()
    torch.testing.assert_close(feat.grad, 2 * feat)
    mask.fill_(False)
    assert padded(whole, feat)[1].any()  # what was given is the caller's
    rows, mask = padded(dgl.batch([every[1], every[1]]), torch.zeros(0, 3))
    assert rows.shape == (2, 0, 3) and mask.shape == (2, 0)
    with pytest.raises(ShapeError, match=r"feat: expected \[N, F\] = \[16, any\], got \[15, 3\]"):
        padded(whole, feat[1:])
    with pytest.raises(GraphError, match="graph: expected nodes of one type"):
        padded(dgl.heterograph({("a", "to", "b"): ([0], [0])}), feat)
