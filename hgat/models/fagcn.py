"""FAGCN as a whole model."""

from collections.abc import Sequence
from typing import Any, Literal

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.errors import check_shape
from hgat.graph import homogeneous, normalized
from hgat.models._batches import Features, one_type, per_layer, sample_blocks
from hgat.models._input import SparseLinear
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn import FAConv
from hgat.nn.common import check_graph, check_rates, check_sizes, glorot_

__all__ = ["FAGCN"]


class FAGCN(System):
    """Frequency-adaptive graph convolution: one hidden map, layers that only weigh and add, one map to the classes.

        h0 = ReLU(W_1 x);   h^l = eps h0 + sum_u alpha_uv / sqrt(d_u d_v) h^(l-1)_u;   logits = W_2 h^L

    in_feats: F. num_outputs: C. hidden: width. layers: L. eps, form, signed, gate_bias (bias there), attn_drop: see
    hgat.nn.FAConv; form = "two_channel" has two filters and a softmax between them. feat_drop: rate of dropout on x and
    on h0, whose dropped rows are those of the residual, too.
    Raises ShapeError for sizes and rates out of range.
    Paper: Bo et al. 2021, arXiv:2101.00797. Differs: gate_bias, and dropout on the weights, are of the authors' code,
    which has one rate of dropout for everything.
    """

    ablations = {"unsigned": Ablation("positive weights", {"signed": False})}

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 32,
        layers: int = 2,
        eps: float = 0.3,
        form: Literal["signed", "two_channel"] = "signed",
        signed: bool = True,
        gate_bias: bool = True,
        feat_drop: float = 0.5,
        attn_drop: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(in_feats=in_feats, num_outputs=num_outputs, hidden=hidden, layers=layers)
        check_rates(feat_drop=feat_drop)
        self.feat_drop = nn.Dropout(feat_drop)
        self.fc_in, self.fc_out = SparseLinear(in_feats, hidden, feat_drop), nn.Linear(hidden, num_outputs)
        glorot_(self.fc_in.weight, self.fc_out.weight)
        options = {"eps": eps, "form": form, "signed": signed, "bias": gate_bias, "attn_drop": attn_drop}
        self.layers = nn.ModuleList(FAConv(hidden, **options) for _ in range(layers))

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = False, undirected: bool = True) -> tuple:
        """(graph, features, 1 / sqrt(d_u d_v) of its edges); undirected: every edge in both directions, once."""
        graph = homogeneous.prepare(shown.graph, undirected=undirected)
        graph = graph if self_loops else dgl.remove_self_loop(graph)
        return graph, dict(shown.feat), normalized(graph)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "FAGCN":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(shown.feat, shown.target), shown.num_classes, **settings)

    def _run(self, graph, feat, edge_weight, get_attention=False):
        """(h^L, alpha of every layer if it is asked for)."""
        parts = per_layer(graph, len(self.layers))
        weights = edge_weight if isinstance(edge_weight, (list, tuple)) else [edge_weight] * len(parts)
        check_graph(parts[0])
        x, found = one_type(feat), []
        check_shape("feat", x, ("N", parts[0].num_src_nodes()), ("F", self.fc_in.in_features))
        h = initial = self.feat_drop(F.relu(self.fc_in(x)))
        for layer, part, weight in zip(self.layers, parts, weights, strict=True):
            initial = initial[: part.num_dst_nodes()] if part.is_block else initial
            h = layer(part, h, initial, weight, get_attention)
            if get_attention:
                h, alpha = h
                found.append(alpha)
        return h, found

    def forward(
        self,
        graph: dgl.DGLGraph | Sequence[dgl.DGLGraph],
        feat: Features,
        edge_weight: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Logits of every node.

        graph: DGLGraph, without self-loops in the paper; feat [N, F] or {node type: [N, F]}; edge_weight [E],
        1 / sqrt(d_u d_v) by default -> [N, C]. Or DGL's blocks, one for each layer, feat of the first one's sources,
        and of each block its edges' weights in the whole graph, which a block does not tell -> [N_dst, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for tensors that do not fit, RecipeError
        for another number of blocks than layers.
        """
        return self.fc_out(self._run(graph, feat, edge_weight)[0])

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None) -> tuple:
        """((blocks, features of their sources, weights of their edges), ()) whose answer has the rows of `ids`.

        Weights are those of the whole graph, and those of the drawn neighbours stand for the others: each is multiplied
        by the node's in-degree over the number drawn.
        """
        graph, feat, weight = inputs
        nodes, blocks = sample_blocks(graph, ids, fanout, len(self.layers))
        device = self.fc_out.weight.device
        degree, weights = graph.in_degrees(), []
        for block in blocks:
            dst = block.edges()[1].long()
            share = degree[block.dstdata[dgl.NID].long()][dst] / block.in_degrees()[dst]
            weights.append((weight.cpu()[block.edata[dgl.EID].long()] * share).to(device))
        x = one_type(feat)
        rows = x[nodes.to(x.device)].to(device)
        return ([block.to(device) for block in blocks], rows, weights), ()

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Logits of all nodes, whose rows are narrow between the layers: on the whole graph, in batches or not."""
        return self(*inputs)

    def attention(
        self,
        graph: dgl.DGLGraph | Sequence[dgl.DGLGraph],
        feat: Features,
        edge_weight: Tensor | Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """alpha of every layer without 1 / sqrt(d_u d_v): a list of [E, 1], signed, or of [E, 2], of both channels."""
        return self._run(graph, feat, edge_weight, get_attention=True)[1]

    def attended(self, graph: dgl.DGLGraph, feat: Features, edge_weight: Tensor | None = None) -> list[Shares]:
        """How much of the sum of |alpha| is positive and how much negative, of every layer."""
        found: list[Shares] = []
        what: dict[str, Any] = {"what": "share of the sum of |alpha|", "even": "uniform attention"}
        for depth, alpha in enumerate(self.attention(graph, feat, edge_weight), 1):
            alpha = alpha[:, 0] - alpha[:, 1] if alpha.shape[1] == 2 else alpha
            sizes = torch.stack([alpha.clamp(min=0).sum(), -alpha.clamp(max=0).sum()])
            if sizes.sum() > 0:
                shares = tuple((sizes / sizes.sum()).tolist())
                names = "positive", "negative"
                found.append(Shares(f"|alpha| by sign, layer {depth}", names, shares, (1.0, 0.0), **what))
        return found
