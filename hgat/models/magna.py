"""MAGNA as a whole model."""

from typing import Any, Literal

from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import check_whole
from hgat.graph import homogeneous
from hgat.models._batches import Features
from hgat.models._input import SparseLinear, sparse_rows
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, System
from hgat.nn.common import check_graph, check_rates
from hgat.nn.magna import MAGNABlock

__all__ = ["MAGNA"]


class MAGNA(System):
    """A linear map, blocks of multi-hop attention, and a linear classifier.

        h^0 = W_0 drop(x) + b_0;   h^l = block_l(h^{l-1});   logits = W h^L + b

    in_feats: F. num_outputs: C. hidden: width of the blocks, a multiple of heads. layers: L. hops, alpha, diffusion:
    see hgat.nn.MAGNAConv. norm, feed_forward, feat_drop, attn_drop, ff_drop: see hgat.nn.MAGNABlock. in_drop: rate of
    dropout on x. What is reported elsewhere as a Chebyshev filter is diffusion = "cheb" with norm and feed_forward off.
    Raises ShapeError for sizes, rates and names out of range.
    Paper: Wang et al. 2021, arXiv:2009.14332, which has six blocks, 512 wide, on Planetoid's graphs. Differs: see the
    layers; the map in front of the blocks, which reads the features' entries that are not zero, is the authors' code's
    for Citeseer, whose other graphs have the first block read x; it trains on the whole graph, since walks do not end
    with a block.
    """

    ablations = {
        "no_diffusion": Ablation("one hop", {"hops": 1, "alpha": 0.0}),
        "no_norm": Ablation("no layer norm", {"norm": False}),
        "no_feed_forward": Ablation("no feed-forward", {"feed_forward": False}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 8,
        hops: int = 6,
        alpha: float = 0.1,
        diffusion: Literal["ppr", "cheb"] = "ppr",
        norm: bool = True,
        feed_forward: bool = True,
        in_drop: float = 0.5,
        feat_drop: float = 0.2,
        attn_drop: float = 0.2,
        ff_drop: float = 0.1,
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs, layers=layers, hidden=hidden, heads=heads)
        options: dict[str, Any] = {"hops": hops, "alpha": alpha, "diffusion": diffusion}
        options |= {"norm": norm, "feed_forward": feed_forward}
        options |= {"feat_drop": feat_drop, "attn_drop": attn_drop, "ff_drop": ff_drop}
        check_rates(in_drop=in_drop)
        self.fc_in = SparseLinear(in_feats, hidden, in_drop)
        self.layers = nn.ModuleList(MAGNABlock(hidden, hidden, heads, **options) for _ in range(layers))
        self.fc_out = nn.Linear(hidden, num_outputs)
        for map_ in (self.fc_in, self.fc_out):
            nn.init.xavier_normal_(map_.weight)
        # A normalisation follows: of rows as small as those of normalised words a bias would be all that is left.
        nn.init.zeros_(self.fc_in.bias)

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features): every node attends to itself once; undirected: every edge in both directions, once."""
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        return graph, {ntype: sparse_rows(x) for ntype, x in shown.feat.items()}

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "MAGNA":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(shown.feat, shown.target), shown.num_classes, **settings)

    def forward(self, graph: DGLGraph, feat: Features) -> Tensor:
        """Logits of every node.

        graph: DGLGraph with self-loops; feat [N, F] or {node type: [N, F]} -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for features that do not fit.
        """
        check_graph(graph)
        h = self.fc_in(feat)
        for layer in self.layers:
            h = layer(graph, h)
        return self.fc_out(h)

    def attention(self, graph: DGLGraph, feat: Features) -> list[Tensor]:
        """A of every block, the attention of one hop: a list of [E, H, 1]."""
        h, found = self.fc_in(feat), []
        for layer in self.layers:
            h, alpha = layer(graph, h, get_attention=True)
            found.append(alpha)
        return found
