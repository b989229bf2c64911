"""Small graphs and new graphs: where the cost of building structure and of calling shows.

- block: one block of a NeighborSampler with 1,024 seeds, new for every call, as in mini-batch training. The clock holds
  what a library builds from the block's list of edges (sorted edges, formats, the check for isolated nodes) and one
  forward and backward of GATConv; sampling, which is DGL's for all, is outside. PyG gets its edge_index, which needs
  no structure.
- Cora: one layer on the whole graph, whose structure is built already; 2,708 nodes, so what is left is mostly the call.
"""

import torch

from benchmarks import graphs
from benchmarks.layers import homogeneous
from benchmarks.memory import Spec
from benchmarks.peers import HOMOGENEOUS
from benchmarks.timing import Candidate, Case

__all__ = ["new_block", "specs", "whole_graph"]

NAMES = ("outer", "inner")


def new_block(which=0, seeds=1024, heads=4, width=32, in_feats=128, scale=1.0):
    """The case of GATConv on a block that no library has seen before."""
    sample = graphs.block(which, seeds, scale=scale)
    feat = torch.randn((sample.num_src, in_feats), generator=torch.Generator().manual_seed(1)).requires_grad_()

    candidates = [
        Candidate(
            name,
            lambda structure, apply=peer.apply: apply(structure, feat),
            {"feat": feat, **peer.leaves},
            fresh=lambda: graphs.block(which, seeds, scale=scale),
        )
        for name, peer in HOMOGENEOUS["GATConv"](in_feats, width, heads).items()
    ]
    edges = sample.graph.num_edges()
    return Case(f"GATConv {heads} x {width}, new {NAMES[which]} block, E = {edges:,}", candidates)


def whole_graph(root=None):
    """The case of GATConv 8 x 8 on Cora."""
    return homogeneous("GATConv", "cora", heads=8, width=8, root=root)


def specs(scale=1.0, root=None, seeds=1024):
    """Both blocks of a batch, and Cora."""
    for which in range(len(NAMES)):
        yield Spec("benchmarks.blocks:new_block", {"which": which, "seeds": seeds, "scale": scale})
    yield Spec("benchmarks.blocks:whole_graph", {"root": root})
