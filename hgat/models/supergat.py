"""SuperGAT as a whole model: its attention is trained to tell edges from other pairs of nodes, too."""

from collections.abc import Callable
from typing import Any

import dgl
import torch
from torch import Tensor

from hgat.errors import check_range
from hgat.graph import csr
from hgat.models._batches import per_layer
from hgat.models._stack import Stack
from hgat.models._system import Ablation, Batch, Facts
from hgat.nn.supergat import SuperGATConv, edge_loss

__all__ = ["SuperGAT"]

# Pairs that turn out to be edges are drawn again so often; only a graph that is nearly complete needs more.
ROUNDS = 20


class SuperGAT(Stack):
    """A stack of SuperGAT layers, heads side by side with ELU in between and averaged at the end, with a loss of edges.

        loss = task's loss + edge_loss * sum over layers of the mean cross-entropy of phi over edges and non-edges

    in_feats: F. num_outputs: C. heads: one number per layer, the last for the output layer. hidden: width per head of
    the hidden layers. residual: a skip around every layer. edge_loss: lambda_E. edge_share: p_e, the share of the
    edges, self-loops among them, that one step looks at. non_edges: p_n, pairs without an edge for each of those. Both
    are drawn afresh for every layer of every training step, and nothing is drawn otherwise. The other settings are
    those of hgat.nn.SuperGATConv.
    Raises RecipeError for no heads, ShapeError for sizes, rates and weights out of range.
    Paper: Kim and Oh 2021, arXiv:2204.04879; what it does not say is as in the authors' code. Differs: a pair may be
    drawn twice in one step; a pair with an edge the other way is never a non-edge, where the code makes this an option;
    on sampled blocks pairs are drawn from a block's nodes, and edges that were not sampled are no non-edges either.
    """

    layer = SuperGATConv
    defaults = {"feat_drop": 0.6, "attn_drop": 0.6, "heads": (8, 8)}
    ablations = {"no_edge_loss": Ablation("no edge loss", {"edge_loss": 0.0})}

    def more(self, *, edge_loss: float = 1.0, edge_share: float = 0.8, non_edges: float = 0.5) -> None:
        """What the loss of edges counts for, and of how many pairs it is the mean."""
        check_range(0, edge_loss=edge_loss, non_edges=non_edges)
        check_range(0, 1, edge_share=edge_share)
        self.edge_loss, self.edge_share, self.non_edges = edge_loss, edge_share, non_edges

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features) as every stack has them; which pairs are edges is kept with the graph."""
        graph, feat = Stack.prepare(shown, self_loops=self_loops, undirected=undirected)
        _keys(graph, None)
        return graph, feat

    def objective(self, loss: Callable[[Any, Batch], Tensor], inputs: tuple, batch: Batch) -> Tensor:
        """The task's loss and, in training mode, the weighted edge losses of all layers, a scalar."""
        if not self.training or self.edge_loss == 0:
            return super().objective(loss, inputs, batch)
        graph, feat = inputs if batch.inputs is None else batch.inputs
        h, losses = self.start(feat), []
        for depth, part in enumerate(per_layer(graph, len(self.layers))):
            edges, pairs = self._drawn(part, inputs[0], h.device)
            z, (at_edges, at_pairs) = self.layers[depth](part, h, pairs=pairs)
            losses.append(edge_loss(at_edges[edges], at_pairs))
            h = self.merged(depth, z)
        return loss(h, batch) + self.edge_loss * sum(losses)

    def _drawn(self, part, whole, device):
        """(numbers of edges of `part`, a graph of non-edges), drawn by PyTorch's generator."""
        count = part.num_edges()
        edges = torch.randperm(count, device=device)[: int(self.edge_share * count)]
        return edges, _non_edges(part, whole, int(self.non_edges * self.edge_share * count), device)


def _keys(graph, device):
    """The number u * N + v of every pair with an edge u v or v u, sorted; kept with the graph."""
    src, dst = csr.edges(graph, device)

    def build():
        pairs = torch.cat([src * graph.num_nodes() + dst, dst * graph.num_nodes() + src])
        return torch.unique(pairs)

    return csr.cached(graph, ("keys of pairs", str(src.device)), build)


def _non_edges(part, whole, count, device):
    """A graph from the sources to the destinations of `part`, a block or all of `whole`, whose edges are none of
    `whole`: `count` of them, uniformly drawn, or fewer where hardly any exist."""
    keys = _keys(whole, device)
    sizes = part.num_src_nodes(), part.num_dst_nodes()
    found = [keys.new_zeros((2, 0))]
    for _ in range(ROUNDS):
        missing = count - sum(drawn.shape[1] for drawn in found)
        if not missing:
            break
        drawn = torch.stack([torch.randint(size, (missing,), device=device) for size in sizes])
        src, dst = drawn
        if part.is_block:
            src = part.srcdata[dgl.NID].to(device).long()[src]
            dst = part.dstdata[dgl.NID].to(device).long()[dst]
        wanted = src * whole.num_nodes() + dst
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        found.append(drawn[:, keys[place] != wanted])
    src, dst = torch.cat(found, 1).to(part.device)
    return dgl.heterograph(
        {("source", "to", "target"): (src, dst)},
        num_nodes_dict={"source": sizes[0], "target": sizes[1]},
        idtype=part.idtype,
    )
