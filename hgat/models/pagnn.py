"""PaGNN as a whole model: it answers pairs, from the neighbourhoods around both ends."""

from typing import Any, Literal

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import GraphError, RecipeError, check_range, check_whole
from hgat.graph import Routes, csr, homogeneous, ppr_values, routes, to_device
from hgat.graph.pairs import node_ids
from hgat.models._batches import Features, one_type
from hgat.models._stack import feature_width
from hgat.models._system import Facts, System
from hgat.nn.pagnn import PaGNNConv
from hgat.nn.pprgat import PPRGATConv

__all__ = ["PaGNN"]


class PaGNN(System):
    """PaGNN: whether two nodes are linked, from what each of them broadcasts into their common surroundings.

        x = W f;  z_v: PaGNNConv from u to v, z_u: another one from v to u
        logit = w . [z_u || z_v] + b,  or with decoder = "product" w . [z_u || z_v] + b + z_u . z_v

    in_feats: F. hidden: d. hops: K, of the neighbourhoods, of the broadcast and of the aggregation. feat_drop: dropout
    on f and on what is aggregated. attn_drop: on alpha. decoder: "linear" is the company's code; it cannot compare two
    ends neither of whose broadcasts reaches what the other one aggregates, "product" (ours) can. share_weights: one
    layer for both directions, ours too, for links without a direction: which end is which tells nothing.
    The routes of a batch's pairs, without the pairs' own edges, are found before forward, by `paired`: all of them,
    where the company's code samples 200 nodes a hop.
    form: "broadcast" is all this. "ppr" is what summaries call PaGNN and not the paper's: attention of the whole graph
    that knows personalised PageRank, Pi = alpha (I - (1 - alpha) A D^-1)^-1, and nothing of one end at the other,

        h^0 = x;  h^k = tanh(PPRGATConv_k(h^(k-1), Pi)), k = 1 .. K, the last without tanh;  z = h^K, of both ends

    with the same decoders; the graph needs graph.ppr. A pair's own edge stays in that graph, as with GAT.
    Raises ShapeError for sizes and rates out of range, RecipeError for another decoder or form, and for share_weights
    with "ppr", where there is no other direction.
    Paper: Yang et al. 2021 (ECML-PKDD), doi:10.1007/978-3-030-86520-7_24. Differs as hgat.nn.PaGNNConv does, and: one
    logit, where the company's code has two.
    """

    solves = ("links",)

    def __init__(
        self,
        in_feats: int,
        *,
        hidden: int = 32,
        hops: int = 2,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        decoder: Literal["linear", "product"] = "linear",
        share_weights: bool = False,
        form: Literal["broadcast", "ppr"] = "broadcast",
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, hidden=hidden, hops=hops)
        check_range(0, 1, feat_drop=feat_drop, attn_drop=attn_drop)
        if decoder not in ("linear", "product"):
            raise RecipeError(f"model.decoder: expected 'linear' or 'product', got {decoder!r}")
        if form not in ("broadcast", "ppr"):
            raise RecipeError(f"model.form: expected 'broadcast' or 'ppr', got {form!r}")
        if form == "ppr" and share_weights:
            raise RecipeError("model.share_weights: expected false with model.form = 'ppr', which has one direction")
        self.hops, self.decoder, self.form = hops, decoder, form
        self.feat_drop, self.fc = nn.Dropout(feat_drop), nn.Linear(in_feats, hidden)
        if form == "ppr":
            self.near = nn.ModuleList(PPRGATConv(hidden, hidden, 1, feat_drop, attn_drop) for _ in range(hops))
        else:
            self.forwards = PaGNNConv(hidden, hops, feat_drop, attn_drop)
            self.backwards = self.forwards if share_weights else PaGNNConv(hidden, hops, feat_drop, attn_drop)
        self.score = nn.Linear(2 * hidden, 1)

    @staticmethod
    def prepare(
        shown: Facts, *, ppr: Literal["none", "push", "exact"] = "none", alpha: float = 0.25, epsilon: float = 1e-4
    ) -> tuple:
        """(graph, features): every edge in both directions, once, and every node attends to itself once.

        ppr: how edata["ppr"] is computed, for form = "ppr"; alpha and epsilon are those of hgat.graph.ppr_values. The
        walk takes no self-loops.
        """
        graph = homogeneous.prepare(shown.graph, self_loops=True, undirected=True)
        if ppr != "none":
            src, dst = csr.edges(graph)
            options: dict[str, Any] = {"method": ppr, "epsilon": epsilon, "edge_weight": (src != dst).float()}
            graph.edata["ppr"] = ppr_values(graph, alpha, form="col", **options)
        return graph, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "PaGNN":
        """A model as wide as the features; RecipeError for form = "ppr" and a graph without PageRank."""
        model = cls(feature_width(inputs[1], shown.target), **settings)
        if model.form == "ppr" and "ppr" not in inputs[0].edata:
            raise RecipeError("graph.ppr: expected 'push' or 'exact' with model.form = 'ppr', got 'none'")
        return model

    def paired(self, inputs: tuple, src: Tensor, dst: Tensor) -> tuple:
        """((features, routes from src to dst, routes back), ()) of the pairs src, dst [B]; with form = "ppr"
        ((features, src, dst, graph), ())."""
        graph, feat = inputs
        if self.form == "ppr":
            ends = (node_ids(name, ids, graph.num_nodes()) for name, ids in (("src", src), ("dst", dst)))
            return (feat, *(end.to(self.fc.weight.device) for end in ends), graph), ()
        return (feat, *to_device(routes(graph, src, dst, self.hops), self.fc.weight.device)), ()

    def forward(
        self, feat: Features, ahead: Routes | Tensor, back: Routes | Tensor, graph: DGLGraph | None = None
    ) -> Tensor:
        """Logits of B pairs.

        feat: [N, F] or {node type: [N, F]} of the whole graph; ahead, back: hgat.graph.routes of the pairs -> [B].
        With form = "ppr" ahead and back are the ends [B] of the pairs, and graph has self-loops and edata["ppr"] [E].
        Raises ShapeError for features that do not fit, GraphError for routes of another number of hops and for a graph
        without PageRank.
        """
        rows = self.fc(self.feat_drop(one_type(feat)))
        if self.form == "ppr":
            rows = self._near(graph, rows)
            z_src, z_dst = rows[ahead], rows[back]
        else:
            z_dst, z_src = self.forwards(ahead, rows), self.backwards(back, rows)
        logit = self.score(torch.cat([z_src, z_dst], 1)).squeeze(1)
        return logit + (z_src * z_dst).sum(1) if self.decoder == "product" else logit

    def _near(self, graph, rows):
        """h^K [N, d] of the form "ppr"."""
        if graph is None or "ppr" not in graph.edata:
            raise GraphError("graph: expected PageRank in edata['ppr'], as hgat.graph.ppr_values gives it, got none")
        ppr = csr.beside(graph, "ppr", graph.edata["ppr"], rows.device).to(rows.dtype)
        for depth, conv in enumerate(self.near):
            rows = conv(graph, torch.tanh(rows) if depth else rows, ppr).squeeze(1)
        return rows
