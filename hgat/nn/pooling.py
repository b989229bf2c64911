"""Attention that makes graphs smaller: of every graph of a batch the nodes with the best scores, times their scores."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape, is_whole
from hgat.graph.batches import sub_batch
from hgat.nn.common import Layer, check_number, check_sizes
from hgat.nn.gat import GATConv
from hgat.nn.readout import checked_members

__all__ = ["SAGPooling", "TopKPooling"]


class _Pooling(Layer):
    """What both have: the best of every graph by a score, tanh of the score times their rows, the edges among them."""

    def __init__(self, in_feats: int, ratio: float | int) -> None:
        super().__init__()
        (self._in_feats,) = check_sizes(in_feats=in_feats)
        if not is_whole(ratio):
            check_number(ratio=ratio)
        if not (is_whole(ratio, 1) or 0 < ratio <= 1 and not is_whole(ratio)):
            raise ShapeError(f"ratio: expected a share above 0 up to 1.0, or a whole number, 1 or more, got {ratio}")
        self.ratio = ratio

    def scores(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """[N, 1], which a subclass gives."""
        raise NotImplementedError("scores")

    def forward(self, graph: DGLGraph, feat: Tensor, get_attention: bool = False) -> Any:
        """The batch with the kept nodes alone, and their rows.

        graph: what dgl.batch gives, or one graph, of one relation among nodes of one type; feat [N, F] -> (batch of as
        many graphs with K nodes together, rows [K, F]), and with get_attention tanh of the scores of all nodes [N, 1].
        ndata[dgl.NID] and edata[dgl.EID] of the smaller batch say which nodes and edges were kept, in the graph's
        order. The smaller batch depends on the scores, so it is made here.
        Raises GraphError for another graph, ShapeError for features that do not fit it or the layer.
        """
        star = checked_members(graph, feat, next(self.parameters()))
        check_shape("feat", feat, ("N", None), ("F", self._in_feats))
        score = self.scores(graph, feat)
        weight = ops.alignment(score, form="tanh")
        # tanh rounds great scores to 1, so the best are chosen before it.
        kept = _best(score.detach().squeeze(1).cpu(), star, self.ratio)
        at = kept.to(feat.device)
        found = sub_batch(graph, kept), feat[at] * weight[at]
        return (*found, weight.clone()) if get_attention else found


class TopKPooling(_Pooling):
    """The nodes whose rows lie farthest along a learned direction, the others and their edges left out.

        s_v = p . x_v / |p|;   the kept nodes of a graph are the k with the greatest s, k = ceil(ratio * its nodes)
        out_v = tanh(s_v) x_v of the kept nodes

    in_feats: F. ratio: a share above 0 up to 1.0, or a whole number, k itself. Of nodes with the same score those with
    lower numbers are kept. A graph without nodes stays one. Inside hgat.ops.uniform_attention() rows are not weighed,
    p chooses all the same and is not trained.
    Raises ShapeError for a size that is not positive and another ratio.
    Paper: Gao and Ji 2019 (Graph U-Nets), arXiv:1905.05178, eq. 2, with tanh, as Cangea et al. 2018, arXiv:1811.01287,
    and PyTorch Geometric's layer of this name, which lists the kept nodes by score.
    """

    def __init__(self, in_feats: int, ratio: float | int = 0.5) -> None:
        super().__init__(in_feats, ratio)
        self.weight = nn.Parameter(torch.empty(1, self._in_feats))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(F), as PyTorch Geometric's."""
        bound = self._in_feats**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def scores(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """s [N, 1] of rows [N, F], whose checks `forward` makes."""
        return feat @ (self.weight / self.weight.norm()).t()


class SAGPooling(_Pooling):
    """The nodes that a graph layer scores best, so that a node's neighbours have a say in whether it is kept.

        s = layer(graph, x);   the kept nodes and their rows as of TopKPooling

    in_feats: F. score_layer: a module (graph, [N, F]) -> [N, 1] or [N, 1, 1], by default hgat.nn.GATConv(F, 1, 1),
    which scores a node without in-edges 0 and its bias; any other layer of one relation serves.
    Raises ShapeError as TopKPooling does, and where the layer's scores have another shape.
    Paper: Lee et al. 2019 (SAGPool), arXiv:1904.08082, eq. 3-5; their layer is a GCN.
    """

    def __init__(self, in_feats: int, ratio: float | int = 0.5, score_layer: nn.Module | None = None) -> None:
        super().__init__(in_feats, ratio)
        if score_layer is None:
            score_layer = GATConv(self._in_feats, 1, 1, allow_zero_in_degree=True)
        self.score_layer = score_layer

    def scores(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """s [N, 1] of rows [N, F], whose checks `forward` and the layer make."""
        found = self.score_layer(graph, feat)
        if found.numel() != len(feat):
            raise ShapeError(f"score_layer: expected scores [N, 1] = [{len(feat)}, 1], got {list(found.shape)}")
        return found.reshape(-1, 1)


def _best(score: Tensor, star: DGLGraph, ratio: float | int) -> Tensor:
    """Numbers of the kept nodes in rising order: of every graph those with the greatest scores."""
    _, owner = (end.long().cpu() for end in star.edges(order="eid"))
    sizes = torch.bincount(owner, minlength=star.num_dst_nodes())
    # Less than a rounding error: 0.1 * 30 is more than 3.
    share = (ratio * sizes.double() - 1e-9).ceil().long()
    wanted = torch.full_like(sizes, ratio) if is_whole(ratio) else share
    order = score.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[owner]  # the owners themselves stand in order
    return order[rank < wanted[owner]].sort().values
