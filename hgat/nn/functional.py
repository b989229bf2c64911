"""dgl.nn.functional, with hgat's edge_softmax in the place of DGL's."""

import dgl.nn.functional

from hgat.ops import edge_softmax

__all__ = ["edge_softmax"]


def __getattr__(name):
    return getattr(dgl.nn.functional, name)
