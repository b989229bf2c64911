"""PaGNN: what one node of a pair broadcasts is seen by the neighbourhood that the other one aggregates."""

from typing import Any

import torch
from torch import Tensor, nn

from hgat.errors import GraphError, check_shape
from hgat.graph import Routes
from hgat.nn.common import Layer, check_floats, check_rates, check_sizes
from hgat.nn.gat import GATConv

__all__ = ["PaGNNConv"]


class PaGNNConv(Layer):
    """One direction of PaGNN: a broadcast from one end of each pair, and an aggregation of it for the other end.

        broadcast, hop k = 1 .. K, for the nodes i that k edges lead to from the sending end s:
            t_i = tanh(GATConv_k(b)_i) over edges from nodes that k - 1 edges lead to, and i itself
            o_i = sigmoid(W_o t_i) * tanh(sigmoid(W_i t_i) * tanh(W_g t_i)),   b_i = o_i + x_i;   b_s = x_s, else 0
        aggregation, t^0 = W_y [x || b], t^k = tanh(GATConv'_k(t^(k-1))) over all edges, at the receiving end r:
            z^0 = t^0_r,  (z^k, state) = LSTM([t^k_r || z^(k-1)], state);   z^K

    feats: d. hops: K. feat_drop, attn_drop: dropout before both ends' rows are read, and on alpha of every GATConv.
    A node that more than K edges are between it and the sender, or none at all, has no broadcast: b_i = 0. Gradients
    reach every weight of the broadcast; in the code of the paper's company they are cut off there.

    x [N, d] of the whole graph, b [R, d] of what is around the receivers, z [B, d]; forward says the rest. Raises
    ShapeError for sizes and rates out of range.

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

    def broadcast(self, routes: Routes, feat: Tensor) -> Tensor:
        """b [R, d] of the nodes around the receivers. feat [N, d], of the whole graph. Raises as forward does."""
        self._check(routes, feat)
        last = feat.index_select(0, routes.senders)
        sent = [feat.new_zeros(1, self.feats), last]
        for block, nodes, conv, gate in zip(routes.sends, routes.reached, self.sends, self.gates, strict=True):
            # A node that is reached now has sent nothing itself.
            rows = torch.cat([last.new_zeros(len(nodes), self.feats), last])
            out, into, new = gate(torch.tanh(conv(block, rows).squeeze(1))).chunk(3, 1)
            last = torch.sigmoid(out) * torch.tanh(torch.sigmoid(into) * torch.tanh(new)) + feat.index_select(0, nodes)
            sent.append(last)
        return torch.cat(sent).index_select(0, routes.place)

    def forward(self, routes: Routes, feat: Tensor) -> Tensor:
        """Rows z [B, d] of the receivers of B pairs.

        routes: hgat.graph.routes of as many hops, of a graph with the self-loops that it is to have. feat: [N, d], of
        all nodes of the whole graph.
        Raises GraphError for anything but such routes, ShapeError for features unlike the layer.
        """
        sent = self.broadcast(routes, feat)
        step = self.fc(self.feat_drop(torch.cat([feat.index_select(0, routes.around), sent], 1)))
        pairs = len(routes.senders)
        out = step[:pairs]
        state = torch.zeros_like(out), torch.zeros_like(out)
        for block, conv in zip(routes.collects, self.collects, strict=True):
            step = torch.tanh(conv(block, step).squeeze(1))
            state = self.depth(torch.cat([step[:pairs], out], 1), state)
            out = state[0]
        return out

    def _check(self, routes, feat):
        if not isinstance(routes, Routes):
            raise GraphError(f"routes: expected hgat.graph.Routes, got {type(routes).__name__}")
        if len(routes.sends) != self.hops:
            raise GraphError(f"routes: expected {self.hops} hops, got {len(routes.sends)}")
        check_floats("feat", feat, self.fc.weight)
        check_shape("feat", feat, ("N", routes.num_nodes), ("d", self.feats))
