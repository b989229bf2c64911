"""PaGNN as a whole model: it answers pairs, from the neighbourhoods around both ends."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat.errors import RecipeError, check_range, check_whole
from hgat.graph import Routes, homogeneous, routes, to_device
from hgat.models._batches import Features, one_type
from hgat.models._stack import feature_width
from hgat.models._system import Facts, System
from hgat.nn.pagnn import PaGNNConv

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
    Raises ShapeError for sizes and rates out of range, RecipeError for another decoder.
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
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, hidden=hidden, hops=hops)
        check_range(0, 1, feat_drop=feat_drop, attn_drop=attn_drop)
        if decoder not in ("linear", "product"):
            raise RecipeError(f"model.decoder: expected 'linear' or 'product', got {decoder!r}")
        self.hops, self.decoder = hops, decoder
        self.feat_drop, self.fc = nn.Dropout(feat_drop), nn.Linear(in_feats, hidden)
        self.forwards = PaGNNConv(hidden, hops, feat_drop, attn_drop)
        self.backwards = self.forwards if share_weights else PaGNNConv(hidden, hops, feat_drop, attn_drop)
        self.score = nn.Linear(2 * hidden, 1)

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """(graph, features): every edge in both directions, once, and every node attends to itself once."""
        return homogeneous.prepare(shown.graph, self_loops=True, undirected=True), dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "PaGNN":
        """A model as wide as the features."""
        return cls(feature_width(inputs[1], shown.target), **settings)

    def paired(self, inputs: tuple, src: Tensor, dst: Tensor) -> tuple:
        """((features, routes from src to dst, routes back), ()) of the pairs src, dst [B]."""
        graph, feat = inputs
        return (feat, *to_device(routes(graph, src, dst, self.hops), self.fc.weight.device)), ()

    def forward(self, feat: Features, ahead: Routes, back: Routes) -> Tensor:
        """Logits of B pairs.

        feat: [N, F] or {node type: [N, F]} of the whole graph; ahead, back: hgat.graph.routes of the pairs -> [B].
        Raises ShapeError for features that do not fit, GraphError for routes of another number of hops.
        """
        rows = self.fc(self.feat_drop(one_type(feat)))
        z_dst, z_src = self.forwards(ahead, rows), self.backwards(back, rows)
        logit = self.score(torch.cat([z_src, z_dst], 1)).squeeze(1)
        return logit + (z_src * z_dst).sum(1) if self.decoder == "product" else logit
