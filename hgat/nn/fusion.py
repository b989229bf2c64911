"""Attention over views: meta-paths, snapshots, hops, channels. The second level of every two-level system."""

import torch
from torch import nn

from hgat.errors import ShapeError, check_shape
from hgat.nn.common import check_floats, check_sizes, weight_of
from hgat.ops.alignment import is_uniform

__all__ = ["SemanticAttention"]


class SemanticAttention(nn.Module):
    """Softmax attention over P views of the same nodes.

        w_p = mean_i q . tanh(W z_ip + b);  beta = softmax over p;  out_i = sum_p beta_p z_ip

    form: "global", one beta for the whole graph, or "per_node", without the mean over i, one beta for each node.
    Inside hgat.ops.uniform_attention() beta = 1 / P.

    Shapes: z [N, P, F] -> out [N, F], beta [P] or [N, P]. Without a node a global beta is 1 / P.
    Paper: Wang et al. 2019 (HAN), arXiv:1903.07293, eq. 7-9, the global form; their released code runs the other.
    """

    def __init__(self, in_feats, hidden_feats=128, form="global"):
        super().__init__()
        check_sizes(in_feats=in_feats, hidden_feats=hidden_feats)
        if form not in ("global", "per_node"):
            raise ShapeError(f"form: expected 'global' or 'per_node', got {form!r}")
        self.form = form
        self.project = nn.Sequential(
            nn.Linear(in_feats, hidden_feats), nn.Tanh(), nn.Linear(hidden_feats, 1, bias=False)
        )

    def weights(self, z):
        """beta of `z` [N, P, F]: [P], or [N, P] per node."""
        if is_uniform() or (self.form == "global" and not len(z)):  # the mean of no node is no number
            shape = z.shape[1:2] if self.form == "global" else z.shape[:2]
            return z.new_full(shape, 1.0 / z.shape[1])
        score = self.project(z).squeeze(-1)
        if self.form == "global":
            score = score.mean(0)
        return torch.softmax(score, -1)

    def forward(self, z):
        check_floats("z", z, weight_of(self.project[0]))
        check_shape("z", z, ("N", None), ("P", None), ("F", self.project[0].in_features))
        beta = self.weights(z)
        # A copy: who overwrites what the layer gave must not overwrite what backward reads.
        return (z * beta.unsqueeze(-1)).sum(1), beta.clone()
