"""Random attacks: edges that are added and removed, features that are flipped, decided by a seed."""

import dgl
import numpy as np
import torch
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_range, check_shape
from hgat.graph import csr
from hgat.graph.memory import within_memory

__all__ = ["attacked_edges", "flipped_features"]

ROUNDS = 100  # pairs that are edges already are drawn again so often; a graph that is nearly complete needs more


@within_memory
def attacked_edges(graph: dgl.DGLGraph, *, add: float = 0.0, remove: float = 0.0, seed: int = 0) -> dgl.DGLGraph:
    """A graph of the same nodes with random edges added to it and others taken from it.

    add, remove: shares of the edges that there are, from 0 on and from 0 to 1. Both ends of an edge that is added are
    drawn uniformly, and no edge runs between them yet, nor from one to itself. Where every edge has its opposite, the
    two are added and removed together. Copies of an edge are one, and go together. Self-loops stay. The order is that
    of what is left of the edges, and then what is added. NumPy's stream decides: the same seed, the same graph.
    Raises GraphError for anything but a graph of one node type and one relation, ShapeError for shares and seeds out of
    range, GraphError where there are not so many pairs without an edge.
    """
    csr.single_relation(graph)
    if graph.is_block or not graph.is_homogeneous:
        raise GraphError("graph: expected one node type to attack, got several, or a block")
    check_range(0, add=add)
    check_range(0, 1, remove=remove)
    draw = _generator(seed)
    count = graph.num_nodes()
    src, dst = (end.numpy() for end in csr.edges(graph, "cpu"))
    loops = src == dst
    key = src * count + dst
    known = np.unique(key[~loops])
    opposite = known % count * count + known // count
    both_ways = bool(np.isin(opposite, known).all())
    pairs = known[known // count < known % count] if both_ways else known
    gone = draw.permutation(pairs)[: round(remove * len(pairs))]
    more = _others(pairs, round(add * len(pairs)), count, both_ways, draw)
    if both_ways:
        gone, more = (np.concatenate([k, k % count * count + k // count]) for k in (gone, more))
    kept = ~np.isin(key, gone)
    found = dgl.graph(
        (
            torch.from_numpy(np.concatenate([src[kept], more // count])),
            torch.from_numpy(np.concatenate([dst[kept], more % count])),
        ),
        num_nodes=count,
    )
    return found.to(graph.device) if graph.idtype == torch.int64 else found.int().to(graph.device)


def _others(pairs, wanted, count, both_ways, draw):
    """`wanted` distinct keys of pairs that are not among `pairs`, of which the first is the lower where both_ways."""
    found = pairs[:0]
    for _ in range(ROUNDS):
        missing = wanted - len(found)
        if not missing:
            return found
        one, other = draw.randint(count, size=(2, missing)) if count else np.zeros((2, 0), dtype=np.int64)
        if both_ways:
            one, other = np.minimum(one, other), np.maximum(one, other)
        fresh = (one * count + other)[one != other]
        _, first = np.unique(fresh, return_index=True)
        fresh = fresh[np.sort(first)]
        found = np.concatenate([found, fresh[~np.isin(fresh, pairs) & ~np.isin(fresh, found)]])
    raise GraphError(f"add: expected {wanted} pairs without an edge in the graph, got {len(found)} in {ROUNDS} draws")


def flipped_features(x: Tensor, share: float, *, seed: int = 0) -> Tensor:
    """Rows in which a share of the entries that are not zero change places with entries of the same row that are.

    As if so many bits of a set of words were flipped in both directions: a row keeps its length and its sum. x [N, F]
    -> [N, F]. NumPy's stream decides.
    Raises ShapeError for shares out of range, for what is no such tensor, and for rows without enough zeros.
    """
    check_range(0, 1, share=share)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(f"x: expected a floating-point tensor [N, F], got {got}")
    check_shape("x", x, ("N", None), ("F", None))
    draw, found = _generator(seed), x.detach().cpu().clone()
    row, column = (place.numpy() for place in found.nonzero(as_tuple=True))
    chosen = np.sort(draw.permutation(len(row))[: round(share * len(row))])
    zero = (found == 0).numpy()
    for i in np.unique(row[chosen]):
        at = column[chosen[row[chosen] == i]]
        free = zero[i].nonzero()[0]
        if len(free) < len(at):
            raise ShapeError(f"x: expected {len(at)} zeros in row {i} to flip for as many others, got {len(free)}")
        to = draw.permutation(free)[: len(at)]
        values = found[i, at].clone()
        found[i, at] = 0.0
        found[i, to] = values
    return found.to(x.device)


def _generator(seed):
    """NumPy's generator whose stream never changes; ShapeError for a seed that it does not take."""
    csr.check_whole(0, ShapeError, seed=seed)
    if seed >= 2**32:
        raise ShapeError(f"seed: expected a number from 0 to 2**32 - 1, got {seed}")
    return np.random.RandomState(seed)
