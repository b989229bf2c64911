"""Random walks inside every snapshot, and the contexts and negatives that a skip-gram loss draws from them."""

from numbers import Integral

import dgl
import torch

from hgat.errors import GraphError, ShapeError
from hgat.graph.csr import check_whole, shown
from hgat.graph.memory import within_memory
from hgat.graph.snapshots import Snapshots

__all__ = ["Walks", "walks"]


class Walks:
    """Walks on the union of snapshots: who is met near whom, and who is met at all.

    Nodes are numbered as in Snapshots.walkable: t * N + v. `nodes`: [M] those that have links, sorted. `known`: [K]
    those that have appeared by their snapshot, with links in it or not, sorted. `contexts`, `negatives` and `strangers`
    draw from the generator that they are given, else from PyTorch's own.
    """

    def __init__(self, path: torch.Tensor, degree: torch.Tensor, snapshots: Snapshots, window: int) -> None:
        self.path, self.window = path, window  # [walks, length + 1], -1 behind the end of a walk
        self.num_nodes = snapshots.total_nodes
        self.known = snapshots.present.flatten().nonzero().flatten()
        met = path >= 0
        self.nodes = torch.unique(path[met])
        place = met.flatten().nonzero().flatten()
        node = path.flatten()[place]
        order = torch.argsort(node, stable=True)
        self._place = place[order]  # positions in path, sorted by the node that stands there
        self._often = torch.bincount(node, minlength=len(degree))
        self._first = torch.cumsum(self._often, 0) - self._often
        self._length = met.sum(1)
        # Unigram to the power 3/4, as word2vec has it.
        self._mass = torch.cumsum(degree.double() ** 0.75, 0)
        # How many known nodes there are up to each, among those that a type of nodes may be linked with.
        self._type, partners = _partners(snapshots)
        self._count = torch.cumsum((snapshots.present & partners.unsqueeze(1)).flatten(1), 1)

    def contexts(self, nodes: torch.Tensor, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """[B, count]: for every node, `count` nodes that stood within the window of it, drawn with replacement.

        An occurrence of the node is drawn first, then a place within the window around it. nodes: [B], each among
        `self.nodes`.
        """
        shape = (len(nodes), count)
        often = self._often[nodes].unsqueeze(1)
        which = (torch.rand(shape, generator=generator, dtype=torch.float64) * often).long().clamp_max(often - 1)
        place = self._place[self._first[nodes].unsqueeze(1) + which]
        columns = self.path.shape[1]
        walk, at = place // columns, place % columns
        low = (at - self.window).clamp_min(0)
        high = torch.minimum(at + self.window, self._length[walk] - 1)
        other = low + (torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low)).long()
        other = other.clamp_max(high - 1)
        return self.path[walk, other + (other >= at).long()]  # the node's own place is left out

    def negatives(self, nodes: torch.Tensor, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """[B, count]: for every node, `count` nodes of its snapshot, drawn by degree to the power 3/4."""
        first = (nodes // self.num_nodes) * self.num_nodes
        below = torch.where(first > 0, self._mass[(first - 1).clamp_min(0)], 0.0)
        above = self._mass[first + self.num_nodes - 1]
        share = torch.rand((len(nodes), count), generator=generator, dtype=torch.float64)
        drawn = torch.searchsorted(self._mass, below.unsqueeze(1) + share * (above - below).unsqueeze(1), right=True)
        # A draw that rounds up to the whole mass would fall into the next snapshot.
        return torch.minimum(drawn, (first + self.num_nodes - 1).unsqueeze(1))

    def strangers(self, nodes: torch.Tensor, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """[B, count]: for every node, `count` known nodes of its snapshot that it may be linked with, all alike.

        nodes: [B], each among `self.known`.
        """
        first, kind = (nodes // self.num_nodes) * self.num_nodes, self._type[nodes % self.num_nodes]
        below = torch.where(first > 0, self._count[kind, (first - 1).clamp_min(0)], 0).unsqueeze(1)
        above = self._count[kind, first + self.num_nodes - 1].unsqueeze(1)
        share = torch.rand((len(nodes), count), generator=generator, dtype=torch.float64)
        which = below + torch.minimum((share * (above - below)).long(), above - below - 1) + 1
        drawn = torch.empty_like(which)
        for k, counted in enumerate(self._count):
            drawn[kind == k] = torch.searchsorted(counted, which[kind == k])
        return drawn


def _partners(snapshots):
    """([N] the type of every stacked node, [types, N] bool: what nodes of that type may be linked with)."""
    names = snapshots.ntypes
    kind = torch.repeat_interleave(torch.arange(len(names)), torch.tensor(list(snapshots.num_nodes.values())))
    partners = torch.zeros(len(names), len(kind), dtype=torch.bool)
    for srctype, _, dsttype in snapshots.links:
        a, b = names.index(srctype), names.index(dsttype)
        partners[a] |= kind == b
        partners[b] |= kind == a
    return kind, partners


@within_memory
def walks(snapshots: Snapshots, *, num_walks: int = 10, length: int = 40, window: int = 10, seed: int = 0) -> Walks:
    """Random walks from every node with links, in every snapshot, by DGL; steps by the weight of links.

    num_walks: from each node. length: steps of a walk. window: how far apart two nodes of a walk are contexts.
    A node's events with itself are links of its own. Returns Walks. Raises GraphError where no snapshot has a link.
    """
    if not isinstance(snapshots, Snapshots):
        raise GraphError(f"snapshots: expected what hgat.graph.snapshots gives, got {type(snapshots).__name__}")
    check_whole(1, ShapeError, num_walks=num_walks, length=length, window=window)
    if not isinstance(seed, Integral):
        raise ShapeError(f"seed: expected a whole number, got {shown(seed)}")
    graph = snapshots.walkable
    degree = torch.zeros(graph.num_nodes()).index_add_(0, graph.edges()[0], graph.edata["weight"])
    start = degree.nonzero().flatten()
    if not len(start):
        raise GraphError("walks: expected at least one link, got none")
    # DGL's walks have a generator of their own, which is seeded with 32 bits.
    dgl.seed((seed + 2**31) % 2**32 - 2**31)
    path, _ = dgl.sampling.random_walk(graph, start.repeat_interleave(num_walks), length=length, prob="weight")
    return Walks(path.long(), degree, snapshots, window)
