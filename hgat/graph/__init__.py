"""Structure, built once before training and never inside forward."""

from hgat.graph import csr, homogeneous, metapath, relations
from hgat.graph.metapath import Views, metapath_graph, metapaths, union
from hgat.graph.relations import JoinedRelations, add_inverse, join

__all__ = [
    "JoinedRelations",
    "Views",
    "add_inverse",
    "csr",
    "homogeneous",
    "join",
    "metapath",
    "metapath_graph",
    "metapaths",
    "relations",
    "union",
]
