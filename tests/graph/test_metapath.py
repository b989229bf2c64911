"""Meta-path graphs against matrix products, and many graphs as one against shifted lists."""

import re
import subprocess
import sys
import tracemalloc

import dgl
import pytest
import torch

from hgat import graph as hgraph
from hgat.errors import GraphError
from hgat.graph import memory, metapath
from zoo import build, typed_graph

PATHS = {
    "one step": ["follows"],
    "there and back": ["liked by", "likes"],
    "long": ["follows", "liked by", "likes", "follows"],
    "from user": ["likes", "liked by"],
    "twice": ["likes", "liked by", "likes", "liked by"],
    "triples": [("film", "liked by", "user"), ["user", "likes", "film"]],
}


def random_graph(seed, idtype=torch.int64):
    """Films and users with random edges, some of them double."""
    generator = torch.Generator().manual_seed(seed)

    def draw(num_src, num_dst, count):
        return tuple(torch.randint(0, n, (count,), generator=generator) for n in (num_src, num_dst))

    return dgl.heterograph(
        {
            ("film", "follows", "film"): draw(11, 11, 17),
            ("film", "liked by", "user"): draw(11, 13, 23),
            ("user", "likes", "film"): draw(13, 11, 19),
        },
        num_nodes_dict={"user": 13, "film": 11},
        idtype=idtype,
    )


def _reached(graph, path):
    """Pairs joined by a walk: the non-zero entries of the product of 0/1 adjacency matrices."""
    product = None
    for etype in path:
        name = etype if isinstance(etype, str) else tuple(etype)
        src_type, _, dst_type = graph.to_canonical_etype(name)
        adjacency = torch.zeros(graph.num_nodes(src_type), graph.num_nodes(dst_type))
        src, dst = graph.edges(etype=name)
        adjacency[src.long(), dst.long()] = 1
        product = adjacency if product is None else ((product @ adjacency) > 0).float()
    return product > 0


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_equals_the_matrix_product(path, self_loops, idtype):
    for seed in range(5):
        graph = random_graph(seed, idtype)
        expected = _reached(graph, PATHS[path])
        if self_loops:
            expected.fill_diagonal_(True)
        found = hgraph.metapath_graph(graph, PATHS[path], self_loops)
        src, dst = found.edges(order="eid")
        pairs = list(zip(src.tolist(), dst.tolist(), strict=True))
        assert len(pairs) == len(set(pairs))  # each pair once, also where many walks join it
        assert set(pairs) == set(map(tuple, expected.nonzero().tolist()))
        start = "user" if path in ("from user", "twice") else "film"
        assert found.ntypes == [start] and found.num_nodes() == graph.num_nodes(start)
        assert found.idtype == idtype


def test_many_walks_between_two_nodes_are_one_pair():
    """A count of walks kept in 8 bits would wrap to zero here."""
    middle = torch.arange(256)
    graph = dgl.heterograph(
        {("p", "w", "a"): (middle * 0, middle), ("a", "v", "p"): (middle, middle * 0 + 1)},
        num_nodes_dict={"p": 2, "a": 256},
    )
    found = hgraph.metapath_graph(graph, ["w", "v"], self_loops=False)
    assert [x.tolist() for x in found.edges()] == [[0], [1]]


def test_default_joins_every_node_to_itself_once():
    graph = dgl.heterograph({("film", "follows", "film"): ([0, 0, 1], [0, 0, 2])}, num_nodes_dict={"film": 5})
    found = hgraph.metapath_graph(graph, ["follows"])
    pairs = sorted(zip(*(x.tolist() for x in found.edges()), strict=True))
    assert pairs == [(0, 0), (1, 1), (1, 2), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize(("path", "sentence"), [
    (["hates"], r"expected relations of the graph, \['follows', 'liked by', 'likes', 'never'\], got 'hates'"),
    ([("film", "follows", "user")], r"expected relations of the graph, .* got \('film', 'follows', 'user'\)"),
    ([("film", "follows")], r"expected relations of the graph, .* got \('film', 'follows'\)"),
    ([None], "expected relations of the graph, .* got None"),
    ([3], "expected relations of the graph, .* got 3"),
    (["likes", "likes"], r"expected a relation that starts at 'film' after \('user', 'likes', 'film'\)"),
    (["likes"], "expected an end at its start 'user', got an end at 'film'"),
    (["never", "liked by"], "expected at least one pair along .*, got none"),
    ([], "expected at least one relation, got none"),
    ("follows", "expected a list of relations, got 'follows'"),
    (None, "expected a list of relations, got None"),
])  # fmt: skip
def test_wrong_paths_are_one_sentence(path, sentence):
    with pytest.raises(GraphError, match=f"^meta-path: {sentence}"):
        hgraph.metapath_graph(typed_graph(), path)


def test_a_name_of_two_relations_needs_the_triple():
    graph = dgl.heterograph(
        {("a", "of", "b"): ([0, 1], [2, 2]), ("b", "of", "a"): ([2], [1])}, num_nodes_dict={"a": 2, "b": 3}
    )
    with pytest.raises(GraphError, match="expected one of the relations .* got the name 'of'"):
        hgraph.metapath_graph(graph, ["of", "of"])
    found = hgraph.metapath_graph(graph, [("a", "of", "b"), ("b", "of", "a")], self_loops=False)
    assert sorted(zip(*(x.tolist() for x in found.edges()), strict=True)) == [(0, 1), (1, 1)]


def through(papers, venues, idtype=torch.int64):
    """Papers spread over venues: papers / venues squared pairs at every venue."""
    paper = torch.arange(papers)
    return dgl.heterograph(
        {("paper", "in", "venue"): (paper, paper % venues), ("venue", "has", "paper"): (paper % venues, paper)},
        idtype=idtype,
    )


@pytest.mark.parametrize("entries", [1, 7, 2**22])
@pytest.mark.parametrize("self_loops", [True, False])
def test_the_order_of_edges_is_dgls_whatever_is_multiplied_at_a_time(monkeypatch, self_loops, entries):
    monkeypatch.setattr(metapath, "ENTRIES", entries)
    for path in PATHS.values():
        for graph in (random_graph(3), random_graph(4, torch.int32)):
            steps = [tuple(e) if isinstance(e, list) else e for e in path]
            expected = dgl.metapath_reachable_graph(graph, steps)
            if self_loops:
                expected = dgl.add_self_loop(dgl.remove_self_loop(expected))
            found = hgraph.metapath_graph(graph, path, self_loops)
            assert found.canonical_etypes == expected.canonical_etypes
            for got, wanted in zip(found.edges(order="eid"), expected.edges(order="eid"), strict=True):
                assert torch.equal(got, wanted)


def test_node_features_come_along():
    graph = random_graph(0)
    graph.nodes["film"].data["x"] = torch.arange(11.0)
    assert torch.equal(hgraph.metapath_graph(graph, ["follows"]).ndata["x"], torch.arange(11.0))


# Of 40 papers at 4 venues, 400 pairs.
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_too_many_pairs_are_counted_before_they_are_built(monkeypatch, idtype):
    graph, size = through(40, 4, idtype), 4 if idtype == torch.int32 else 8
    monkeypatch.setattr(metapath, "available", lambda: 400 * metapath.IDS_OF_A_PAIR * size)
    assert hgraph.metapath_graph(graph, ["in", "has"], self_loops=False).num_edges() == 400
    monkeypatch.setattr(metapath, "available", lambda: 399 * metapath.IDS_OF_A_PAIR * size)
    for call in (
        lambda: hgraph.metapath_graph(graph, ["in", "has"], self_loops=False),
        lambda: hgraph.metapaths(graph, [["in", "has"]], self_loops=False),
        lambda: metapath.prepare(graph, paths={"shared": ["in", "has"]}, self_loops=False),
    ):
        with pytest.raises(GraphError) as error:
            call()
        assert re.fullmatch(
            r"meta-path: expected at most 399 pairs along \['in', 'has'\], which the free memory holds, got 400 from "
            r"the first 40 of 40 nodes and up to 400 in all; take a shorter path, or sample neighbours by walks along "
            r"it \(dgl.sampling.random_walk with metapath, dgl.sampling.PinSAGESampler\), or give max_pairs",
            str(error.value),
        )
    assert hgraph.metapath_graph(graph, ["in", "has"], max_pairs=400).num_edges() == 400


@pytest.mark.parametrize("entries", [1, 2**22])
def test_max_pairs_says_how_many(monkeypatch, entries):
    monkeypatch.setattr(metapath, "ENTRIES", entries)
    graph = through(40, 4)
    for call in (
        lambda n: hgraph.metapath_graph(graph, ["in", "has"], False, max_pairs=n),
        lambda n: hgraph.metapaths(graph, {"a": ["in", "has"]}, False, max_pairs=n),
        lambda n: metapath.prepare(graph, paths={"a": ["in", "has"]}, self_loops=False, max_pairs=n),
    ):
        call(400)
        for few in (399, 17, 0):
            with pytest.raises(GraphError, match=f"expected at most {few} pairs .*, which max_pairs allows, got"):
                call(few)


def test_many_walks_between_few_pairs_are_not_too_many():
    """A bound by walks alone would refuse what is easily held: 10,000 walks between 2 nodes."""
    middle = torch.arange(100)
    graph = dgl.heterograph({
        ("p", "to", "a"): (middle * 0, middle),
        ("a", "all", "b"): (middle, middle * 0),
        ("b", "back", "a"): (middle * 0, middle),
        ("a", "from", "p"): (middle, middle * 0 + 1),
    })  # fmt: skip
    path = ["to", "all", "back", "from"]
    assert hgraph.metapath_graph(graph, path, self_loops=False, max_pairs=1).num_edges() == 1
    graph = random_graph(0)
    for path in PATHS.values():
        exact = hgraph.metapath_graph(graph, path, self_loops=False).num_edges()
        assert hgraph.metapath_graph(graph, path, self_loops=False, max_pairs=exact).num_edges() == exact
        with pytest.raises(GraphError, match=f"expected at most {exact - 1} pairs"):
            hgraph.metapath_graph(graph, path, self_loops=False, max_pairs=exact - 1)


def test_products_on_the_way_are_not_held_as_a_whole():
    """All papers of one venue, 16 million pairs, of which a path goes on to one paper's author alone."""
    many = torch.arange(4000)
    graph = dgl.heterograph({
        ("paper", "in", "venue"): (many, many * 0),
        ("venue", "has", "paper"): (many * 0, many),
        ("paper", "by", "author"): ([7], [0]),
        ("author", "wrote", "paper"): ([0], [7]),
    })  # fmt: skip
    hgraph.metapath_graph(graph, ["by", "wrote"])
    tracemalloc.start()
    found = hgraph.metapath_graph(graph, ["in", "has", "by", "wrote"], self_loops=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.num_edges() == 4000 and peak < 60e6  # the product in the middle takes 80 MB in the least case


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), dgl.DGLError("std::bad_alloc")
])  # fmt: skip
def test_memory_that_ends_all_the_same_is_one_sentence(monkeypatch, error):
    def fail(*_, **__):
        raise error

    graph = through(40, 4)
    for name in ("heterograph", "disjoint_union"):
        with monkeypatch.context() as patch:
            patch.setattr(*((dgl, name) if name == "heterograph" else (metapath, name)), fail)
            with pytest.raises(
                GraphError, match="expected pairs along .* that the free memory holds.*, got more; take a"
            ):
                hgraph.metapaths(graph, {"a": ["in", "has"]})
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="another"):
        error = RuntimeError("another")
        patch.setattr(dgl, "heterograph", fail)
        hgraph.metapaths(graph, {"a": ["in", "has"]})


LIMITED = """
import resource, psutil, hgat, dgl, torch
from hgat.errors import GraphError
paper = torch.arange(30_000)
graph = dgl.heterograph({("p", "in", "v"): (paper, paper % 2), ("v", "has", "p"): (paper % 2, paper)})
most = psutil.Process().memory_info().vms + 2**30
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    hgat.graph.metapath_graph(graph, ["in", "has"])
except GraphError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_process_of_limited_memory_reads_a_sentence():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"meta-path: expected at most [\d,]+ pairs .* up to 450,000,000 in all; take .*\n", done.stdout)


def test_free_memory_of_a_container(monkeypatch, tmp_path):
    free = memory.available()
    files = [tmp_path / name for name in ("max", "current", "stat")]
    monkeypatch.setattr(memory, "GROUPS", [(*files, "inactive_file")])
    assert memory.available() > 0.5 * free  # no such files
    for limit, used, left in (("5000", "3000", 2250), ("max", "3000", None), ("2000", "3000", 0)):
        for file, text in zip(files, (limit, used, "anon 9\ninactive_file 250\n"), strict=True):
            file.write_text(text + "\n" * (file.name != "stat"))
        assert memory.available() == left if left is not None else memory.available() > 0.5 * free


def test_blocks_have_no_meta_paths():
    with pytest.raises(GraphError, match="^graph: expected a DGLGraph of all nodes, got a block$"):
        hgraph.metapath_graph(dgl.to_block(random_graph(0)), ["follows"])


def test_anything_but_a_graph_is_refused():
    with pytest.raises(GraphError, match="graph: expected a DGLGraph, got str"):
        hgraph.metapath_graph("graph", ["follows"])
    with pytest.raises(GraphError, match="graph: expected a DGLGraph, got str"):
        hgraph.disjoint_union(["graph"])


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_union_of_graphs(idtype):
    graphs = [dgl.rand_graph(7, count, idtype=idtype) for count in (11, 13, 5)]
    views = hgraph.disjoint_union(graphs, ["x", "y", "z"])
    assert views.names == ("x", "y", "z") and views.num_views == 3
    assert views.num_dst == 7 and views.num_src == 7
    assert views.source_start == (0, 7, 14, 21)
    assert views.shared_source
    assert views.graph.idtype == idtype
    assert (views.graph.num_src_nodes(), views.graph.num_dst_nodes()) == (21, 21)
    got = list(zip(*(x.tolist() for x in views.graph.edges(order="eid")), strict=True))
    expected = []
    for p, graph in enumerate(graphs):
        expected += [(u + 7 * p, v + 7 * p) for u, v in zip(*(x.tolist() for x in graph.edges()), strict=True)]
    assert got == expected
    assert hgraph.disjoint_union(graphs).names == ("0", "1", "2")
    restricted = hgraph.disjoint_union([g.formats("csc") for g in graphs]).graph
    assert list(zip(*(x.tolist() for x in restricted.edges(order="eid")), strict=True)) == expected


def test_union_of_blocks_with_sources_of_their_own():
    graph, seeds = build("homogeneous"), torch.tensor([3, 5, 7])
    blocks = [dgl.to_block(dgl.in_subgraph(g, seeds), seeds) for g in (graph, dgl.reverse(graph), graph)]
    views = hgraph.disjoint_union(blocks)
    sizes = [b.num_src_nodes() for b in blocks]
    assert len(set(sizes)) == 2
    assert views.num_dst == 3 and not views.shared_source
    assert views.source_start == (0, sizes[0], sizes[0] + sizes[1], sum(sizes))
    src, dst = views.graph.edges(order="eid")
    for p, block in enumerate(blocks):
        here = (dst >= 3 * p) & (dst < 3 * (p + 1))
        assert torch.equal(src[here] - views.source_start[p], block.edges(order="eid")[0])
        assert torch.equal(dst[here] - 3 * p, block.edges(order="eid")[1])
    # Blocks of equal size need not hold the same source nodes.
    assert not hgraph.disjoint_union([blocks[0], blocks[0]]).shared_source


def test_union_of_views_without_edges():
    views = hgraph.disjoint_union([build("empty"), dgl.rand_graph(7, 11)])
    assert views.graph.num_edges() == 11 and views.graph.in_degrees()[:7].sum() == 0


@pytest.mark.parametrize(("graphs", "names", "sentence"), [
    (lambda: [], None, "disjoint_union: expected at least one graph, got none"),
    (lambda: [dgl.rand_graph(7, 11)], ["a", "b"], "disjoint_union: expected 1 names, got 2"),
    (lambda: [dgl.rand_graph(7, 11), dgl.rand_graph(5, 11)], None,
     r"disjoint_union: expected the same destination nodes in every graph, got \[5, 7\]"),
    (lambda: [typed_graph()], None, "graph: expected one relation, got 4"),
    (lambda: [typed_graph(), dgl.rand_graph(7, 11)], None, "graph: expected one relation, got 4"),
])  # fmt: skip
def test_wrong_unions_are_one_sentence(graphs, names, sentence):
    with pytest.raises(GraphError, match=f"^{sentence}"):
        hgraph.disjoint_union(graphs(), names)


def test_a_union_that_int32_cannot_number_is_one_sentence():
    graphs = [dgl.graph(([0], [1]), num_nodes=2**30, idtype=torch.int32)] * 3
    with pytest.raises(
        GraphError, match="expected nodes that torch.int32 can number, got 3,221,225,472; use graph.long"
    ):
        hgraph.disjoint_union(graphs)
    found = hgraph.disjoint_union([g.long() for g in graphs])
    assert found.graph.edges()[1].tolist() == [1, 2**30 + 1, 2**31 + 1]


def test_metapaths_from_a_dict_and_from_a_list():
    graph = typed_graph()
    paths = {"own": ["follows"], "co-liked": ["liked by", ("user", "likes", "film")]}
    from_dict = hgraph.metapaths(graph, paths)
    from_list = hgraph.metapaths(graph, list(paths.values()))
    assert from_dict.names == ("own", "co-liked")
    assert from_list.names == ("follows", "liked by-likes")
    for views in (from_dict, from_list, metapath.prepare(graph, paths=paths)):
        single = [hgraph.metapath_graph(graph, path) for path in paths.values()]
        assert views.graph.num_edges() == sum(g.num_edges() for g in single)
        src, dst = views.graph.edges(order="eid")
        second = dst >= 11
        assert torch.equal(src[second] - 11, single[1].edges(order="eid")[0])
        assert torch.equal(dst[~second], single[0].edges(order="eid")[1])
        assert views.shared_source and views.num_dst == 11
    bare = metapath.prepare(graph, paths=paths, self_loops=False)
    assert bare.graph.num_edges() < from_dict.graph.num_edges()


def test_paths_of_one_name_are_not_lost():
    graph = typed_graph()
    with pytest.raises(GraphError, match=r"expected different names, got \['follows', 'follows'\]"):
        hgraph.metapaths(graph, [["follows"], ["follows"]])
    assert hgraph.metapaths(graph, {"a": ["follows"], "b": ["follows"]}).num_views == 2


def test_paths_of_different_node_types_are_refused():
    with pytest.raises(GraphError, match=r"meta-paths: expected all of one node type, got \['film', 'user'\]"):
        hgraph.metapaths(typed_graph(), [["follows"], ["likes", "liked by"]])
    with pytest.raises(GraphError, match="disjoint_union: expected at least one graph, got none"):
        hgraph.metapaths(typed_graph(), {})
    with pytest.raises(GraphError, match="expected a list of relations, got 'follows'"):
        hgraph.metapaths(typed_graph(), ["follows"])
