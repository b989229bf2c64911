"""SiGAT as a whole model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat.errors import check_shape, check_whole
from hgat.graph.metapath import Views
from hgat.graph.motifs import signed_degrees, signed_motifs
from hgat.models._system import Ablation, Facts, System
from hgat.nn.sigat import SiGATConv

__all__ = ["SiGAT"]


class SiGAT(System):
    """SiGAT: learned rows of the nodes, attended to under every motif of signed edges, and a perceptron on all of it.

        z_u = W_2 tanh(W_1 [x_u || out_u^1 || ... || out_u^M] + b_1) + b_2

    num_nodes: N; x [N, hidden] are learned. num_channels: M. out^m: hgat.nn.SiGATConv, whose score `score` is.
    out_feats: columns of z. motifs: False leaves out all of out. degrees: the logarithms of a node's signed degrees
    stand beside x_u in W_1's input: what a logistic regression on them sees.
    Raises ShapeError for sizes that are not positive.
    Paper: Huang et al. 2019, arXiv:1906.10958. The equations are those of the authors' code; `degrees` is ours.
    """

    solves = ("signs",)
    ablations = {"no_motifs": Ablation("embeddings alone", {"motifs": False})}

    def __init__(
        self,
        num_nodes: int,
        num_channels: int = 38,
        *,
        hidden: int = 20,
        out_feats: int = 20,
        score: Literal["motif", "edge_type"] = "motif",
        motifs: bool = True,
        degrees: bool = False,
    ) -> None:
        super().__init__()
        check_whole(1, num_nodes=num_nodes, hidden=hidden, out_feats=out_feats)
        self.embedding = nn.Embedding(num_nodes, hidden)
        self.layer = SiGATConv(hidden, hidden, num_channels, score=score) if motifs else None
        self.degrees = degrees
        width = hidden * (1 + num_channels * motifs) + 4 * degrees
        self.fc_in, self.fc_out = nn.Linear(width, hidden), nn.Linear(hidden, out_feats)
        for layer in (self.fc_in, self.fc_out):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.constant_(layer.bias, 0.01)

    @staticmethod
    def prepare(shown: Facts, *, motifs: int = 38) -> tuple:
        """(views of the motifs, [N, 4] ln(1 + signed degrees)), of the edges that are shown: 38, 6, 2 motifs, or 1."""
        return signed_motifs(shown.graph, motifs), signed_degrees(shown.graph).log1p()

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "SiGAT":
        """A model for the nodes and the motifs that were prepared."""
        views, _ = inputs
        return cls(views.num_dst, views.num_views, **settings)

    def forward(self, views: Views, degrees: Tensor) -> Tensor:
        """z of every node.

        views: hgat.graph.signed_motifs; degrees [N, 4], logarithms, read where the model has them -> [N, out_feats].
        Raises GraphError for views of another number of motifs, ShapeError for another number of nodes.
        """
        check_shape("degrees", degrees, ("N", self.embedding.num_embeddings), ("4", 4))
        x = self.embedding.weight
        parts = [x] if self.layer is None else [x, self.layer(views, x).flatten(1)]
        every = torch.cat([*parts, degrees] if self.degrees else parts, 1)
        return self.fc_out(torch.tanh(self.fc_in(every)))

    def attention(self, views: Views, degrees: Tensor | None = None) -> Sequence[Tensor]:
        """alpha of the layer, a list of one [E, 1] in the order of views.graph, or none without motifs."""
        return [] if self.layer is None else [self.layer(views, self.embedding.weight, get_attention=True)[1]]
