"""Neighbours sampled by their importance, for mini-batches: DGL's NeighborSampler with odds of one's own."""

from collections.abc import Sequence
from typing import Any

import dgl
import torch
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_shape, is_whole
from hgat.graph.csr import in_order, single_relation

__all__ = ["ImportanceSampler"]


class ImportanceSampler(dgl.dataloading.BlockSampler):
    """Blocks whose in-edges are drawn by their odds, such as a model's attention, each with the weight that makes up.

        p_uv = odds_uv / sum over the in-edges w of v of odds_wv;   k = fanout
        k in-edges of v are drawn, each by p, the same one perhaps again;   weight of a drawn edge = 1 / (k p_uv)
        sum over the drawn edges of weight * y_uv has the mean sum over all in-edges of y_uv, whatever y is

    The sum is thus unbiased for one layer: block.edata["weight"] times alpha, of the model whose sum it is, as weights
    of hgat.ops.weighted_sum. Where the odds are alpha itself every weight times alpha is 1 / k. What is not linear in
    such sums is biased, as with any sampler: the layers behind, and a softmax that is taken over the drawn edges alone,
    with the weights or without.
    A node with k in-edges or fewer, and every node where k is -1, keeps all of them, each once with the weight 1. An
    edge of odds 0 is never drawn: the sum is that of the others.

    fanouts: k of every layer, from the first one on. odds: [E] numbers of 0 or more, of all layers, or a list of such,
    one for each; of several heads their mean, say. Use it as DGL's samplers, with dgl.dataloading.DataLoader or by
    `sample(graph, ids)`, whose blocks have edata[dgl.EID], too. What is drawn is of DGL's generator, dgl.seed.
    Raises ShapeError for fanouts and odds out of form, and where those of a graph are of another number.
    Paper: the estimator is Hansen and Hurwitz's, 1943; of graphs: Chen et al. 2018 (FastGCN), arXiv:1801.10247, whose
    odds are those of nodes.
    """

    def __init__(self, fanouts: Sequence[int], odds: Tensor | Sequence[Tensor]) -> None:
        super().__init__()
        if not fanouts or not all(is_whole(k, 1) or k == -1 for k in fanouts):
            raise ShapeError(f"fanouts: expected numbers from 1 on, or -1 for all, one for each layer, got {fanouts}")
        every = [odds] * len(fanouts) if isinstance(odds, Tensor) else list(odds)
        if len(every) != len(fanouts):
            raise ShapeError(f"odds: expected one tensor, or one for each of {len(fanouts)} layers, got {len(every)}")
        for one in every:
            if not isinstance(one, Tensor) or one.dim() != 1 or not one.is_floating_point():
                got = f"{one.dtype} {list(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
                raise ShapeError(f"odds: expected floats [E], got {got}")
            if not (torch.isfinite(one) & (one >= 0)).all():
                raise ShapeError("odds: expected numbers of 0 or more, got others")
        self.fanouts = [int(k) for k in fanouts]
        self.odds = [one.detach().double().cpu() for one in every]
        self._totals: tuple[Any, list[Tensor]] = (None, [])

    def sample_blocks(
        self, g: dgl.DGLGraph, seed_nodes: Tensor, exclude_eids: Any = None
    ) -> tuple[Tensor, Tensor, list]:
        """(ids of the sources of the first block, seed_nodes, blocks), as DGL's samplers give them.

        Raises GraphError for a graph of several relations and for edges to leave out, ShapeError for other odds.
        """
        single_relation(g)
        if len(g.ntypes) != 1 or exclude_eids is not None:
            got = "edges to leave out" if exclude_eids is not None else f"nodes of {len(g.ntypes)} types"
            raise GraphError(f"graph: expected nodes of one type and no edges to leave out, got {got}")
        ends, nodes = in_order(g), seed_nodes
        blocks: list[dgl.DGLGraph] = []
        for k, odds, totals in reversed(list(zip(self.fanouts, self.odds, self._sums(g, ends[1]), strict=True))):
            edges, weight = _drawn(g, ends, nodes, k, odds, totals)
            frontier = dgl.graph(tuple(end[edges] for end in ends), num_nodes=g.num_nodes(), idtype=g.idtype)
            block = dgl.to_block(frontier, nodes)
            block.edata[dgl.EID], block.edata["weight"] = edges, weight
            nodes = block.srcdata[dgl.NID]
            blocks.insert(0, block)
        return nodes, seed_nodes, blocks

    def _sums(self, graph, dst):
        """[N] of every layer's odds: their sums over the in-edges; kept for the next batch of the same graph."""
        if self._totals[0] is not graph:
            for odds in self.odds:
                check_shape("odds", odds, ("E", graph.num_edges()))
            zeros = torch.zeros(graph.num_nodes(), dtype=torch.float64)
            self._totals = graph, [zeros.index_add(0, dst.long(), odds) for odds in self.odds]
        return self._totals[1]


def _drawn(graph, ends, nodes, k, odds, totals):
    """(ids of edges, their weights float32) of the in-edges that the nodes keep."""
    nodes = nodes.to(graph.idtype)
    few = graph.in_degrees(nodes) <= k if k != -1 else torch.ones(len(nodes), dtype=torch.bool)
    kept = graph.in_edges(nodes[few], form="eid").long()
    many = nodes[~few]
    many = many[totals[many.long()] > 0]
    if not len(many):
        return kept, torch.ones(len(kept))
    with graph.local_scope():
        graph.edata["_odds"] = odds
        found = dgl.sampling.sample_neighbors(graph, many, k, prob="_odds", replace=True).edata[dgl.EID].long()
    weight = totals[ends[1][found].long()] / (k * odds[found])
    return torch.cat([kept, found]), torch.cat([torch.ones(len(kept)), weight.float()])
