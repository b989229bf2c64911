"""AGNN: attention by the cosine between neighbours."""

import dgl
import torch
import torch.nn.functional as F
from torch import nn

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn.common import Layer, check_floats, check_in_degrees, check_number

__all__ = ["AGNNConv"]


class AGNNConv(Layer):
    """Attention-based graph neural network layer, with the constructor, parameters and results of `dgl.nn.AGNNConv`.

        alpha = softmax over u of beta cos(h_u, h_v);  out_v = sum_u alpha_uv h_u

    h [N, *, F], each of the axes between with an attention of its own. learn_beta: beta, which starts at init_beta, is
    a parameter, and otherwise a buffer. Raises ShapeError for an init_beta that is no finite number.

    Paper: Thekumparampil et al. 2018, arXiv:1803.03735, eq. 6-7. Differs from DGL: on a homogeneous graph with a pair
    of inputs the sources keep their own rows; DGL 2.1 stores both ends under one name there.
    """

    def __init__(self, init_beta: float = 1.0, learn_beta: bool = True, allow_zero_in_degree: bool = False) -> None:
        super().__init__()
        check_number(init_beta=init_beta)
        self._allow_zero_in_degree = allow_zero_in_degree
        beta = torch.tensor([init_beta], dtype=torch.get_default_dtype())
        if learn_beta:
            self.beta = nn.Parameter(beta)
        else:
            self.register_buffer("beta", beta)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Accept nodes without in-edges, which get zeros, or refuse them."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: dgl.DGLGraph,
        feat: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        *,
        edge_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """New features of every destination, [N_dst, *, F].

        graph: of one relation (homogeneous, bipartite, block, slice of a heterograph). feat: [N, *, F], on a block with
        the destinations first, or a pair ([N_src, *, F], [N_dst, *, F]). edge_mask (not in DGL): [E] bool, False for an
        edge that has no part in the softmax.

        Raises DGLError for a node without in-edges unless allow_zero_in_degree, GraphError for anything but such a
        graph, and ShapeError for a tensor unlike the graph or the layer.
        """
        check_in_degrees(graph, self._allow_zero_in_degree)
        at_src, at_dst = self._ends(graph, feat)
        shape = at_src.shape[1:]
        heads = shape[:-1].numel()  # the axes between count as heads
        value = at_src.reshape(len(at_src), heads, shape[-1])
        key = F.normalize(value, p=2, dim=-1)
        if at_dst is at_src:
            query = key
        else:
            query = F.normalize(at_dst.reshape(len(at_dst), heads, shape[-1]), p=2, dim=-1)
        # beta is learned, so it rides on the queries; the operator's scale is a number.
        out = ops.dot_product_attention(graph, self.beta * query, key, value, scale=1.0, edge_mask=edge_mask)
        return out.reshape(graph.num_dst_nodes(), *shape)

    def _ends(self, graph, feat):
        """(features at the sources, features at the destinations), the same tensor where they are the same."""
        pair = feat if isinstance(feat, (tuple, list)) else (feat,)
        if len(pair) not in (1, 2):
            raise ShapeError(f"feat: expected a tensor or a pair (source, destination), got {len(pair)} of them")
        for tensor, count in zip(pair, (graph.num_src_nodes(), graph.num_dst_nodes()), strict=False):
            check_floats("feat", tensor, self.beta)
            if tensor.dim() < 2 or len(tensor) != count:
                raise ShapeError(f"feat: expected [N, *, F] with N = {count}, got {list(tensor.shape)}")
        if len(pair) == 2:
            if pair[0].shape[1:] != pair[1].shape[1:]:
                raise ShapeError(f"feat[1]: expected [N, *{list(pair[0].shape[1:])}], got {list(pair[1].shape)}")
            return pair
        if graph.is_block:
            return feat, feat[: graph.num_dst_nodes()]
        if graph.num_dst_nodes() != graph.num_src_nodes():
            raise ShapeError("feat: expected a pair (source, destination) on a bipartite graph, got one tensor")
        return feat, feat
