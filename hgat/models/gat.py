"""GAT as a whole model."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from hgat.errors import RecipeError, brief, check_range, check_whole, is_whole
from hgat.models._batches import one_type, over_layers
from hgat.nn import GATConv

__all__ = ["GAT"]


class GAT(nn.Module):
    """A stack of GAT layers: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads: one number per layer, the last for the output layer. hidden: width per head of
    the hidden layers. residual: a skip around every layer.
    forward: graph with self-loops, feat [N, F], or DGL's blocks, one per layer, feat [N_src, F] of the first
    -> logits [N, C] or [N_dst, C].
    Raises RecipeError for no heads and for another number of blocks than layers.
    Paper: Velickovic et al. 2018, arXiv:1710.10903, section 3.3. Differs: value_drop, dropout on the projected
    features, stands in the authors' code and not in the paper.
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
        value_drop: float = 0.6,
        negative_slope: float = 0.2,
        residual: bool = False,
    ):
        super().__init__()
        options = {
            "feat_drop": feat_drop,
            "attn_drop": attn_drop,
            "value_drop": value_drop,
            "negative_slope": negative_slope,
            "residual": residual,
        }
        self.layers = stack(GATConv, in_feats, hidden, num_outputs, heads, options)

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


def feature_width(feat, target):
    """F of the features of the node type `target`; RecipeError where it has none."""
    if not isinstance(feat, dict) or feat.get(target) is None:
        raise RecipeError(f"feat: expected features of {target!r} nodes, got none")
    return feat[target].shape[1]


def check_settings(heads, hidden, **rates):
    """Raise RecipeError or ShapeError unless widths are 1 or more and rates of dropout from 0 to 1."""
    check_heads("model.heads", heads)
    check_whole(1, hidden=hidden)
    check_range(0, 1, **rates)


def check_heads(name, heads):
    """Raise RecipeError unless `heads` is a list of numbers of heads."""
    given = isinstance(heads, Sequence) and not isinstance(heads, str)
    if not given or not heads or not all(is_whole(count, 1) for count in heads):
        got = list(heads) if given else brief(heads)
        raise RecipeError(f"{name}: expected a number of heads per layer, each 1 or more, got {got}")


def stack(conv, in_feats, hidden, num_outputs, heads, options):
    """Layers of `conv`: heads[k] heads each, `hidden` wide with ELU, the last `num_outputs` wide without."""
    check_settings(heads, hidden, **{name: rate for name, rate in options.items() if name.endswith("_drop")})
    layers = nn.ModuleList()
    for count in heads[:-1]:
        layers.append(conv(in_feats, hidden, count, activation=F.elu, **options))
        in_feats = hidden * count
    layers.append(conv(in_feats, num_outputs, heads[-1], **options))
    return layers


def run_layer(layers, depth, graph, h):
    """Layer `depth` of a stack: heads side by side, averaged at the end."""
    h = layers[depth](graph, h)
    return h.mean(1) if depth == len(layers) - 1 else h.flatten(1)
