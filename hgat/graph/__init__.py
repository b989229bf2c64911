"""Structure, built once before training and never inside forward."""

from hgat.graph import csr, homogeneous, metapath, relations
from hgat.graph.metapath import Views, metapath_graph, metapaths, union
from hgat.graph.relations import JoinedRelations, JoinedTypes, add_inverse, join, join_types

__all__ = [
    "JoinedRelations",
    "JoinedTypes",
    "Views",
    "add_inverse",
    "csr",
    "homogeneous",
    "join",
    "join_types",
    "metapath",
    "metapath_graph",
    "metapaths",
    "relations",
    "union",
]
