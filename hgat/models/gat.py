"""GAT as a whole model."""

from hgat.models._stack import Stack
from hgat.nn import GATConv

__all__ = ["GAT"]


class GAT(Stack):
    """A stack of GAT layers: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads: one number per layer, the last for the output layer. hidden: width per head of
    the hidden layers. residual: a skip around every layer. The other settings are those of hgat.nn.GATConv.
    Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Velickovic et al. 2018, arXiv:1710.10903, section 3.3. Differs: value_drop, dropout on the projected
    features, stands in the authors' code and not in the paper.
    """

    solves = ("nodes", "links")
    layer = GATConv
    defaults = {"feat_drop": 0.6, "attn_drop": 0.6, "value_drop": 0.6}
