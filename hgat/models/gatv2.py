"""GATv2 as a whole model."""

from torch import nn

from hgat.models._batches import one_type, over_layers
from hgat.models.gat import feature_width, run_layer, stack
from hgat.nn import GATv2Conv

__all__ = ["GATv2"]


class GATv2(nn.Module):
    """A stack of GATv2 layers: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads, hidden, residual: as in GAT. share_weights: one projection for both ends of an
    edge, as in the paper's experiments.
    forward: graph with self-loops, feat [N, F], or DGL's blocks, one per layer, feat [N_src, F] of the first
    -> logits [N, C] or [N_dst, C].
    Paper: Brody et al. 2022, arXiv:2105.14491, eq. 7, in GAT's architecture.
    """

    graph_kind = "homogeneous"

    def __init__(
        self,
        in_feats,
        num_outputs,
        *,
        hidden: int = 8,
        heads: list[int] = (8, 1),
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        negative_slope: float = 0.2,
        residual: bool = False,
        share_weights: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        options = {
            "feat_drop": feat_drop,
            "attn_drop": attn_drop,
            "negative_slope": negative_slope,
            "residual": residual,
            "share_weights": share_weights,
            "bias": bias,
        }
        self.layers = stack(GATv2Conv, in_feats, hidden, num_outputs, heads, options)

    @classmethod
    def for_graph(cls, graph, feat, num_outputs, target, **settings):
        """The model for a prepared graph and the features of its nodes."""
        return cls(feature_width(feat, target), num_outputs, **settings)

    def start(self, feat, nodes=None):
        """What the first layer receives."""
        return one_type(feat)

    def step(self, depth, graph, h):
        """Layer `depth`, counted from 0, on a graph or block: [N_src, width] -> [N_dst, width], of the last logits."""
        return run_layer(self.layers, depth, graph, h)

    def forward(self, graph, feat):
        return over_layers(self, graph, feat)
