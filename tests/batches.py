"""A batch of graphs of different sizes, two of them without a node, and the same with its nodes in another order."""

import dgl
import torch

__all__ = ["SIZES", "batch", "reordered"]

SIZES = (5, 0, 7, 1, 0, 11)


def batch(width, seed=0):
    """(a batch of graphs with SIZES nodes, features [N, width])."""
    torch.manual_seed(seed)
    graphs = [dgl.graph(torch.randint(max(n, 1), (2, 2 * n)).unbind(), num_nodes=n) for n in SIZES]
    return dgl.batch(graphs), torch.randn(sum(SIZES), width)


def reordered(graph):
    """(the batch with the nodes of every graph in another order, which node stands where)."""
    sizes = graph.batch_num_nodes()
    order = torch.cat([torch.randperm(int(n)) + end - n for n, end in zip(sizes, sizes.cumsum(0), strict=True)])
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    moved = dgl.graph((place[src], place[dst]), num_nodes=graph.num_nodes())
    moved.set_batch_num_nodes(sizes)
    moved.set_batch_num_edges(graph.batch_num_edges())
    return moved, order
