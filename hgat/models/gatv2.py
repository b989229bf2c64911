"""GATv2 as a whole model."""

from hgat.models._stack import Stack
from hgat.nn import GATv2Conv

__all__ = ["GATv2"]


class GATv2(Stack):
    """A stack of GATv2 layers: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads, hidden, residual: as in GAT. share_weights: one projection for both ends of an
    edge, as in the paper's experiments. The other settings are those of hgat.nn.GATv2Conv.
    Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Brody et al. 2022, arXiv:2105.14491, eq. 7, in GAT's architecture.
    """

    solves = ("nodes", "links")
    layer = GATv2Conv
    defaults = {"feat_drop": 0.6, "attn_drop": 0.6, "share_weights": True}
