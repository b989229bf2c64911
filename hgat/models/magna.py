"""MAGNA as a whole model."""

from typing import Any, Literal

import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import GraphError, check_whole
from hgat.graph import homogeneous, message_graph
from hgat.models._batches import Features
from hgat.models._input import SparseLinear, sparse_rows
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, System
from hgat.nn.common import check_graph, check_rates, check_sizes
from hgat.nn.magna import MAGNABlock

__all__ = ["MAGNA"]


class MAGNA(System):
    """A linear map, blocks of multi-hop attention, and a linear classifier.

        h^0 = W_0 drop(x) + b_0;   h^l = block_l(h^{l-1});   logits = W h^L + b

    in_feats: F; None, h^0 are learned rows of num_nodes nodes. num_relations: edges are of so many relations, each with
    a learned row of `hidden` columns; None, of one, which has none. num_outputs: C. hidden: width of the blocks, a
    multiple of heads. layers: L. hops, alpha, diffusion: see hgat.nn.MAGNAConv. norm, feed_forward, feat_drop,
    attn_drop, ff_drop: see hgat.nn.MAGNABlock. in_drop: rate of dropout on x. What is reported elsewhere as a Chebyshev
    filter is diffusion = "cheb" with norm and feed_forward off.
    Raises ShapeError for sizes, rates and names out of range.
    Paper: Wang et al. 2021, arXiv:2009.14332, which has six blocks, 512 wide, on Planetoid's graphs. Differs: see the
    layers; the map in front of the blocks, which reads the features' entries that are not zero, is the authors' code's
    for Citeseer, whose other graphs have the first block read x; it trains on the whole graph, since walks do not end
    with a block.
    """

    solves = ("nodes", "triples")
    ablations = {
        "no_diffusion": Ablation("one hop", {"hops": 1, "alpha": 0.0}),
        "no_norm": Ablation("no layer norm", {"norm": False}),
        "no_feed_forward": Ablation("no feed-forward", {"feed_forward": False}),
    }

    def __init__(
        self,
        in_feats: int | None,
        num_outputs: int,
        num_nodes: int | None = None,
        num_relations: int | None = None,
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
        check_whole(1, num_outputs=num_outputs, layers=layers, hidden=hidden, heads=heads)
        check_whole(1, in_feats=in_feats, num_relations=num_relations)
        options: dict[str, Any] = {"hops": hops, "alpha": alpha, "diffusion": diffusion}
        options |= {"norm": norm, "feed_forward": feed_forward}
        options |= {"feat_drop": feat_drop, "attn_drop": attn_drop, "ff_drop": ff_drop}
        options["rel_feats"] = None if num_relations is None else hidden
        check_rates(in_drop=in_drop)
        self.in_drop = in_drop
        self.fc_in: SparseLinear | nn.Embedding
        if in_feats is None:
            (rows,) = check_sizes(num_nodes=num_nodes)
            self.fc_in = nn.Embedding(rows, hidden)
        else:
            self.fc_in = SparseLinear(in_feats, hidden, in_drop)
        self.relation = None if num_relations is None else nn.Embedding(num_relations, hidden)
        self.layers = nn.ModuleList(MAGNABlock(hidden, hidden, heads, **options) for _ in range(layers))
        self.fc_out = nn.Linear(hidden, num_outputs)
        for map_ in (self.fc_in, self.fc_out):
            if isinstance(map_, nn.Linear):
                nn.init.xavier_normal_(map_.weight)
        if self.relation is not None:
            nn.init.xavier_normal_(self.relation.weight)
        if isinstance(self.fc_in, SparseLinear):
            # A normalisation follows: of rows as small as those of normalised words a bias would be all that is left.
            nn.init.zeros_(self.fc_in.bias)

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features): every node attends to itself once; undirected: every edge in both directions, once.

        Of triples (graph, no features, etype): always both directions, as relations of their own, as self-loops are.
        """
        if shown.triples:
            graph, etype, _ = message_graph(shown.graph, self_relation=self_loops)
            return graph, dict(shown.feat), etype
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        return graph, {ntype: sparse_rows(x) for ntype, x in shown.feat.items()}

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "MAGNA":
        """A model as wide as the features of the target type, and its classes; of triples, with learned rows."""
        if shown.triples:
            graph, _, etype = inputs
            return cls(None, shown.num_classes, graph.num_nodes(), int(etype.max()) + 1, **settings)
        return cls(feature_width(shown.feat, shown.target), shown.num_classes, **settings)

    def forward(self, graph: DGLGraph, feat: Features, etype: Tensor | None = None) -> Tensor:
        """Logits of every node.

        graph: DGLGraph with self-loops; feat [N, F] or {node type: [N, F]}, which is not read where rows are learned;
        etype [E], the relation of every edge, of a model with num_relations -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for features and types that do not fit.
        """
        return self._blocks(graph, feat, etype)[0]

    def _blocks(self, graph, feat, etype, get_attention=False):
        """(logits, A of every block where it is asked for)."""
        check_graph(graph)
        if isinstance(self.fc_in, SparseLinear):
            h = self.fc_in(feat)
        else:
            if graph.num_nodes() != len(self.fc_in.weight):
                raise GraphError(f"graph: expected {len(self.fc_in.weight)} nodes, got {graph.num_nodes()}")
            h = F.dropout(self.fc_in.weight, self.in_drop, self.training)
        beside = {} if self.relation is None else {"etype": etype, "rel_feat": self.relation.weight}
        found = []
        for layer in self.layers:
            h = layer(graph, h, get_attention, **beside)
            if get_attention:
                h, alpha = h
                found.append(alpha)
        return self.fc_out(h), found

    def attention(self, graph: DGLGraph, feat: Features, etype: Tensor | None = None) -> list[Tensor]:
        """A of every block, the attention of one hop: a list of [E, H, 1]."""
        return self._blocks(graph, feat, etype, get_attention=True)[1]
