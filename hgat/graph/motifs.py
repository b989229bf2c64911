"""Signed triangles and pairs: which nodes a node meets under each of the motifs of balance and status theory."""

from collections.abc import Iterator

import dgl
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from hgat.errors import GraphError
from hgat.graph.csr import single_relation
from hgat.graph.memory import within_memory
from hgat.graph.metapath import Views, disjoint_union

__all__ = ["KINDS", "SIGN", "signed_degrees", "signed_motifs"]

SIGN = "sign"
KINDS = ("+ out", "+ in", "- out", "- in", "itself")  # of an edge in the one channel of motifs = 1
MOTIFS = (38, 6, 2, 1)
AT_ONCE = 1 << 14  # edges whose third nodes are looked for together
DYADS = ("+", "+ out", "+ in", "-", "- out", "- in")
# Of the third node w, on u's side and on v's: w is met along an edge that leaves, or along one that enters.
PATTERNS = (("out", "in"), ("out", "out"), ("in", "out"), ("in", "in"))
ARROWS = {("u", "out"): "u->w", ("u", "in"): "u<-w", ("v", "in"): "w->v", ("v", "out"): "w<-v"}


@within_memory
def signed_motifs(graph: dgl.DGLGraph, motifs: int = 38) -> Views:
    """What each node attends to under every motif of signed edges, as one view a motif, self-loops included.

    Node u attends to v, along an edge from v to u, in channel
        0, 1, 2     where a positive edge joins them: in either direction, u -> v, v -> u;   3, 4, 5: a negative one
        6 to 21     where u -> v is positive and a third node w is joined to both: 6 + 4 p + 2 s + s'
        22 to 37    the same where u -> v is negative
    p counts u->w->v, u->w<-v, u<-w<-v, u<-w->v, and s and s' are 0 where the edges of u and w, and of w and v, are
    positive, 1 where they are negative. motifs: 38, all; 6, those of two nodes; 2, channels 0 and 3; or 1, the edges
    of all signs and directions together with views.graph.edata["kind"], a number of KINDS, an edge with itself last.

    graph: DGLGraph with one relation and edata["sign"], 1 and -1, [E]; self-loops in it say nothing and are passed
    over; of a pair with edges of both signs both count. Nothing is kept of size N x N: the third nodes of an edge are
    looked for among the neighbours of its ends. Raises GraphError for other signs, and for another number of motifs.
    Paper: Huang et al. 2019 (SiGAT), arXiv:1906.10958, table 1, in the order of the authors' code; a motif in words is
    its name.
    """
    if motifs not in MOTIFS or isinstance(motifs, bool):
        raise GraphError(f"motifs: expected one of {list(MOTIFS)}, got {motifs!r}")
    src, dst, sign = signed_edges(graph)
    nodes = graph.num_nodes()
    own = np.arange(nodes)
    if motifs == 1:
        return _one(src, dst, sign, nodes)
    found = list(_dyads(src, dst, sign))
    if motifs == 2:
        found = [found[0], found[3]]
    elif motifs == 38:
        found += _triads(src, dst, sign, nodes)
    graphs = []
    for _, u, v in found:
        key = np.unique(u * nodes + v)
        u, v = np.divmod(key, nodes)
        ends = torch.from_numpy(np.concatenate([v, own])), torch.from_numpy(np.concatenate([u, own]))
        graphs.append(dgl.graph(ends, num_nodes=nodes))
    return disjoint_union(graphs, [name for name, _, _ in found])


def signed_edges(graph: dgl.DGLGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, destination, sign) of the edges that join two nodes, int64 arrays; GraphError for other signs."""
    single_relation(graph)
    if graph.is_block or graph.num_src_nodes() != graph.num_dst_nodes():
        raise GraphError("graph: expected one whose destinations are its sources, got others")
    sign = graph.edata.get(SIGN)
    if sign is None or sign.dim() != 1:
        got = "none" if sign is None else list(sign.shape)
        raise GraphError(f'graph: expected edata["{SIGN}"] [E], 1 and -1, got {got}')
    odd = sign[(sign != 1) & (sign != -1)]
    if len(odd):
        raise GraphError(f'graph: expected edata["{SIGN}"] of 1 and -1, got {odd[0].item()}')
    src, dst = (end.long().cpu().numpy() for end in graph.edges(order="eid"))
    apart = src != dst
    return src[apart], dst[apart], sign.long().cpu().numpy()[apart]


def signed_degrees(graph: dgl.DGLGraph) -> Tensor:
    """How many edges leave and enter each node: [N, 4] float32, positive out, positive in, negative out, negative in.

    graph: as `signed_motifs` takes it, and the same errors.
    """
    src, dst, sign = signed_edges(graph)
    columns = [np.bincount(end[sign == which], minlength=graph.num_nodes()) for which in (1, -1) for end in (src, dst)]
    return torch.from_numpy(np.stack(columns, 1)).float()


def _one(src, dst, sign, nodes):
    """The view of all edges in both directions, with their kinds."""
    ends, kinds = [], []
    for number, which in ((0, 1), (2, -1)):
        u, v = src[sign == which], dst[sign == which]
        for kind, mine, other in ((number, u, v), (number + 1, v, u)):
            mine, other = np.divmod(np.unique(mine * nodes + other), nodes)
            ends.append((other, mine))
            kinds.append(np.full(len(mine), kind))
    ends.append((np.arange(nodes), np.arange(nodes)))
    kinds.append(np.full(nodes, len(KINDS) - 1))
    source, target = (torch.from_numpy(np.concatenate(end)) for end in zip(*ends, strict=True))
    found = disjoint_union([dgl.graph((source, target), num_nodes=nodes)], ["signed edges"])
    found.graph.edata["kind"] = torch.from_numpy(np.concatenate(kinds))
    return found


def _dyads(src: np.ndarray, dst: np.ndarray, sign: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, u, v) of the channels of two nodes."""
    for names, which in ((DYADS[:3], 1), (DYADS[3:], -1)):
        u, v = src[sign == which], dst[sign == which]
        yield names[0], np.concatenate([u, v]), np.concatenate([v, u])
        yield names[1], u, v
        yield names[2], v, u


def _triads(src, dst, sign, nodes):
    """[(name, u, v)] of the channels of three nodes."""
    met = {}
    for which in (1, -1):
        here = sign == which
        matrix = scipy.sparse.csr_matrix((np.ones(here.sum(), np.int32), (src[here], dst[here])), (nodes, nodes))
        matrix.data[:] = 1  # of an edge that is there several times
        met["out", which], met["in", which] = matrix, matrix.T.tocsr()
    found = []
    for uv in (1, -1):
        here = sign == uv
        u, v = src[here], dst[here]
        for at_u, at_v in PATTERNS:
            for first in (1, -1):
                for second in (1, -1):
                    has = _in_common(met[at_u, first], met[at_v, second], u, v)
                    arrows = ARROWS["u", at_u] + ARROWS["v", at_v][1:]
                    signs = "".join("+" if s == 1 else "-" for s in (uv, first, second))
                    found.append((f"{arrows} {signs}", u[has], v[has]))
    return found


def _in_common(of_u, of_v, u, v):
    """Whether row u of one matrix and row v of the other have a column in common, [len(u)]."""
    parts = [np.zeros(0, bool)]
    for first in range(0, len(u), AT_ONCE):
        here = slice(first, first + AT_ONCE)
        parts.append(np.asarray(of_u[u[here]].multiply(of_v[v[here]]).sum(1)).ravel() > 0)
    return np.concatenate(parts)
