"""GAT with dot-product scores."""

from torch import nn

from hgat import ops
from hgat.nn.common import both_ends, check_in_degrees, feature_pair, linear_pair, projected_ends, projections

__all__ = ["DotGatConv"]


class DotGatConv(nn.Module):
    """Graph attention layer with dot-product scores, with the constructor, parameters and results of
    `dgl.nn.DotGatConv`.

        logit_uv = (W h_u) . (W h_v) / sqrt(D);  alpha = softmax over u;  out_v = sum_u alpha_uv W h_u

    in_feats: F, or (F_src, F_dst) with one projection for each end.

    forward: graph with one relation; feat [N, F] or a pair; edge_weight [E], a keyword, multiplies alpha (not in DGL)
    -> [N_dst, H, D], and with get_attention alpha [E, H, 1].
    Raises DGLError for a node without in-edges unless allow_zero_in_degree; ShapeError for feat unlike the graph.

    Differs from DGL: on a homogeneous graph with a pair of inputs the sources keep their own projection; DGL 2.1 stores
    both ends under one name there, so that the second overwrites the first.
    Paper: the dot-product form of Velickovic et al. 2018 that DGL offers; scaled as in Vaswani et al. 2017, eq. 1.
    """

    def __init__(self, in_feats, out_feats, num_heads, allow_zero_in_degree=False):
        super().__init__()
        self._in_feats = feature_pair(in_feats)
        self._out_feats = out_feats
        self._num_heads = num_heads
        self._allow_zero_in_degree = allow_zero_in_degree
        linear_pair(self, in_feats, num_heads * out_feats)

    def reset_parameters(self):
        """PyTorch's initialisation of linear layers, as in DGL."""
        for fc in {id(fc): fc for fc in projections(self)}.values():
            fc.reset_parameters()

    def set_allow_zero_in_degree(self, set_value):
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(self, graph, feat, get_attention=False, *, edge_weight=None):
        check_in_degrees(graph, self._allow_zero_in_degree)
        h_src, h_dst, one_input = both_ends(graph, feat, self._in_feats, nn.Identity())
        shape = (self._num_heads, self._out_feats)
        value, query = projected_ends(projections(self), h_src, h_dst, one_input, shape)
        out = ops.dot_product_attention(
            graph, query, value, value, edge_weight=None if edge_weight is None else edge_weight.flatten()
        )
        if not get_attention:
            return out
        alpha = ops.dot_product_weights(graph, query, value)
        if edge_weight is not None:
            alpha = alpha * edge_weight.view(-1, 1)
        return out, alpha.unsqueeze(-1)
