"""PaGNN: what one node of a pair broadcasts is seen by the neighbourhood that the other one aggregates."""

from typing import Any

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import check_shape
from hgat.graph import csr
from hgat.nn.common import check_floats, check_graph, check_rates, check_sizes
from hgat.nn.gat import GATConv

__all__ = ["PaGNNConv"]


class PaGNNConv(nn.Module):
    """One direction of PaGNN: a broadcast from one end of each pair, and an aggregation of it for the other end.

        broadcast, hop k = 1 .. K, for the nodes i that k edges lead to from the sending end s:
            t_i = tanh(GATConv_k(b)_i) over edges from nodes that k - 1 edges lead to, and i itself
            o_i = sigmoid(W_o t_i) * tanh(sigmoid(W_i t_i) * tanh(W_g t_i)),   b_i = o_i + x_i;   b_s = x_s, else 0
        aggregation, t^0 = W_y [x || b], t^k = tanh(GATConv'_k(t^(k-1))) over all edges, at the receiving end r:
            z^0 = t^0_r,  (z^k, state) = LSTM([t^k_r || z^(k-1)], state);   z^K

    feats: d. hops: K. feat_drop, attn_drop: dropout before both ends' rows are read, and on alpha of every GATConv.
    A node that more than K edges are between it and the sender, or none at all, has no broadcast: b_i = 0. Gradients
    reach every weight of the broadcast; in the code of the paper's company they are cut off there.

    x [M, d], b [M, d], z [B, d]; forward says the rest. Raises ShapeError for sizes and rates out of range.

    Paper: Yang et al. 2021 (ECML-PKDD), doi:10.1007/978-3-030-86520-7_24, whose own equations could not be read: these
    are those of its authors' company (TuGraph-AntGraphLearning). Differs from that code: every node is reached once, at
    its first hop, where a slip makes the code send from both ends of every edge; a node's LSTM starts at the hop that
    reaches it, where the code runs it from the first hop on, on nothing; one LSTM reads all depths, where the code has
    one for each.
    """

    def __init__(self, feats: int, hops: int = 2, feat_drop: float = 0.0, attn_drop: float = 0.0) -> None:
        super().__init__()
        feats, hops = check_sizes(feats=feats, hops=hops)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        self.feats, self.hops = feats, hops
        options: dict[str, Any] = {"attn_drop": attn_drop, "allow_zero_in_degree": True}
        self.feat_drop = nn.Dropout(feat_drop)
        # The row of a node that is not reached yet is zero, and so would its score be.
        self.sends = nn.ModuleList(GATConv(feats, feats, 1, use_attn_dst=False, **options) for _ in range(hops))
        self.gates = nn.ModuleList(nn.Linear(feats, 3 * feats, bias=False) for _ in range(hops))
        self.fc = nn.Linear(2 * feats, feats)
        self.collects = nn.ModuleList(GATConv(feats, feats, 1, **options) for _ in range(hops))
        self.depth = nn.LSTMCell(2 * feats, feats, bias=False)

    def broadcast(self, graph: DGLGraph, feat: Tensor, away: Tensor) -> Tensor:
        """b [M, d]: what reaches each node. feat [M, d], away [M]: edges from the sender to each node, -1 for none."""
        self._check(graph, feat, away)
        src, dst = csr.edges(graph, away.device)
        sent = torch.where((away == 0).unsqueeze(1), feat, 0.0)
        for hop, (conv, gate) in enumerate(zip(self.sends, self.gates, strict=True), 1):
            here = (away == hop).nonzero().flatten()
            mask = (away[src] == hop - 1) | (src == dst)  # rows of others than these are not read
            seen = torch.tanh(conv(graph, sent, edge_mask=mask).squeeze(1)[here])
            out, into, new = gate(seen).chunk(3, 1)
            cell = torch.sigmoid(into) * torch.tanh(new)
            sent = sent.index_put((here,), torch.sigmoid(out) * torch.tanh(cell) + feat[here])
        return sent

    def forward(self, graph: DGLGraph, feat: Tensor, away: Tensor, receivers: Tensor) -> Tensor:
        """Rows z [B, d] of the receiving ends.

        graph: the neighbourhoods of B pairs (hgat.graph.enclosing), M nodes, with the self-loops that it is to have.
        feat [M, d]. away [M], int64: how many edges lead from the sending end of its pair to each node, -1 for too
        many. receivers [B], int64: the rows of the receiving ends.
        Raises GraphError for anything but a graph of one node type, ShapeError for tensors unlike the graph.
        """
        sent = self.broadcast(graph, feat, away)
        step = self.fc(self.feat_drop(torch.cat([feat, sent], 1)))
        out = step[receivers]
        state = out.new_zeros(out.shape), out.new_zeros(out.shape)
        for conv in self.collects:
            step = torch.tanh(conv(graph, step).squeeze(1))
            state = self.depth(torch.cat([step[receivers], out], 1), state)
            out = state[0]
        return out

    def _check(self, graph, feat, away):
        check_graph(graph)
        check_floats("feat", feat, self.fc.weight)
        check_shape("feat", feat, ("M", graph.num_nodes()), ("d", self.feats))
        check_shape("away", away, ("M", graph.num_nodes()))
