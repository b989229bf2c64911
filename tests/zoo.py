"""One labelled zoo of graphs, shared by all tests. Sizes are distinct primes, so that a swapped axis cannot pass."""

import dgl
import torch

__all__ = ["ZOO", "build", "typed_graph"]


def _edges(num_src, num_dst, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, num_src, (count,), generator=generator),
        torch.randint(0, num_dst, (count,), generator=generator),
    )


def _bipartite(src, dst, num_src, num_dst):
    return dgl.heterograph({("a", "to", "b"): (src, dst)}, num_nodes_dict={"a": num_src, "b": num_dst})


def homogeneous():
    src, dst = _edges(23, 23, 97, 1)
    return dgl.add_self_loop(dgl.graph((src, dst), num_nodes=23))


def bipartite():
    src, dst = _edges(19, 13, 71, 2)
    every = torch.arange(13)
    return _bipartite(torch.cat([src, every]), torch.cat([dst, every]), 19, 13)


def block():
    graph = homogeneous()
    return dgl.to_block(dgl.in_subgraph(graph, [3, 5, 7, 11, 17]), [3, 5, 7, 11, 17])


def zero_in_degree():
    src, dst = _edges(29, 17, 61, 3)
    return dgl.graph((src, dst), num_nodes=29)


def empty():
    return dgl.graph(([], []), num_nodes=7)


def no_nodes():
    return dgl.graph(([], []), num_nodes=0)


def multi_edges():
    src, dst = _edges(11, 11, 31, 4)
    return dgl.add_self_loop(dgl.graph((src.repeat(3), dst.repeat(3)), num_nodes=11))


def self_loops():
    every = torch.arange(13)
    return dgl.graph((every, every), num_nodes=13)


def hub():
    """One node holds most edges; the rest is a ring."""
    ring = torch.arange(37)
    src = torch.cat([ring, ring, torch.randint(0, 37, (211,), generator=torch.Generator().manual_seed(5))])
    dst = torch.cat([(ring + 1) % 37, torch.zeros(37, dtype=torch.int64), torch.zeros(211, dtype=torch.int64)])
    return dgl.graph((src, dst), num_nodes=37)


def relation_slice():
    return typed_graph()["user", "likes", "film"]


ZOO = {
    f.__name__: f
    for f in (
        homogeneous, bipartite, block, zero_in_degree, empty, no_nodes, multi_edges, self_loops, hub, relation_slice,
    )
}  # fmt: skip


def build(name, idtype=torch.int64):
    graph = ZOO[name]()
    return graph.int() if idtype == torch.int32 else graph


def typed_graph():
    """Two node types, four relations, one of them from a type to itself and one without edges."""
    likes = _edges(13, 11, 41, 6)
    return dgl.heterograph(
        {
            ("film", "follows", "film"): _edges(11, 11, 17, 8),
            ("film", "liked by", "user"): (likes[1], likes[0]),
            ("user", "likes", "film"): likes,
            ("user", "never", "film"): ([], []),
        },
        num_nodes_dict={"user": 13, "film": 11},
    )
