"""What a model's first linear layer reads: rows as they are, or, where most entries are zero, the others alone."""

from typing import Any, NamedTuple

import dgl
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import check_shape
from hgat.models._batches import one_type
from hgat.nn.common import check_floats, check_rates, check_sizes

__all__ = ["Perceptron", "SparseLinear", "SparseRows", "sparse_rows"]

MOST = 0.1  # of the entries, above which a matrix is multiplied as it is


class SparseRows(NamedTuple):
    """Rows [N, F] of which few entries are not zero: a graph with an edge from every such column to its row.

    value: [E], the entries, in the order of the edges.
    """

    graph: DGLGraph
    value: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return self.graph.num_dst_nodes(), self.graph.num_src_nodes()


def sparse_rows(x: Tensor | None) -> Any:
    """x [N, F] as SparseRows where at most a tenth of it is not zero, else as it is."""
    if x is None or x.dim() != 2 or not x.numel() or x.count_nonzero() > MOST * x.numel():
        return x
    row, column = x.nonzero(as_tuple=True)
    nodes = {"column": x.shape[1], "row": x.shape[0]}
    graph = dgl.heterograph({("column", "in", "row"): (column, row)}, num_nodes_dict=nodes)
    return SparseRows(graph, x[row, column])


class SparseLinear(nn.Linear):
    """drop(x) W + b, of rows [N, F] or SparseRows: a zero that is dropped is zero all the same, and is not read."""

    def __init__(self, in_feats: int, out_feats: int, drop: float = 0.0) -> None:
        super().__init__(in_feats, out_feats)
        self.drop = drop

    def forward(self, feat: Any) -> Tensor:
        """[N, F], SparseRows, or {node type: either} of one type -> [N, out_feats]. Raises ShapeError for others."""
        x = one_type(feat)
        if not isinstance(x, SparseRows):
            check_floats("feat", x, self.weight)
            check_shape("feat", x, ("N", None), ("F", self.in_features))
            return F.linear(F.dropout(x, self.drop, self.training), self.weight, self.bias)
        check_shape("feat", x, ("N", None), ("F", self.in_features))
        value = F.dropout(x.value, self.drop, self.training).unsqueeze(1)
        columns = self.weight.t().contiguous().unsqueeze(1)
        return ops.weighted_sum(x.graph, columns, value).squeeze(1) + self.bias


class Perceptron(nn.Module):
    """drop(ReLU(drop(x) W_1 + b_1)) W_2 + b_2: what the systems that spread logits spread."""

    def __init__(self, in_feats: int, hidden: int, num_outputs: int, feat_drop: float, hidden_drop: float) -> None:
        super().__init__()
        check_sizes(in_feats=in_feats, num_outputs=num_outputs, hidden=hidden)
        check_rates(feat_drop=feat_drop, hidden_drop=hidden_drop)
        self.fc_in, self.fc_out = SparseLinear(in_feats, hidden, feat_drop), nn.Linear(hidden, num_outputs)
        self.drop = nn.Dropout(hidden_drop)

    def forward(self, feat: Any) -> Tensor:
        """feat as SparseLinear takes it -> [N, num_outputs]. Raises ShapeError for others."""
        return self.fc_out(self.drop(torch.relu(self.fc_in(feat))))
