"""A reconstruction of GraphHAM as a whole model: groups from fine to coarse, and what keeps them so."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, check_range, check_whole
from hgat.graph import csr, homogeneous
from hgat.models._batches import Features, one_type
from hgat.models._stack import check_settings, feature_width
from hgat.models._system import Ablation, Batch, Facts, System
from hgat.nn.graphham import GraphHAMConv

__all__ = ["GraphHAM"]


class GraphHAM(System):
    """A reconstruction of GraphHAM from what its abstract says, not the paper's model: layers whose nodes belong to
    groups, finer in the first layer than in the next, with losses that make a group say what is near a node.

        layers: hgat.nn.GraphHAMConv, ELU in between; a linear map to the answer behind the last
        loss = task's loss + context_loss * sum_l L_ctx^l + inclusion_loss * sum_l L_inc^l
        L_ctx^l = the mean cross-entropy of sigmoid(h_i . h_u / sqrt(H * D)), h of layer l, where u is the l-th node of
                  a random walk from i, and where it is one of `negatives` nodes drawn at random
        L_inc^l = mean_i KL(pi_i^{l+1} || pi_i^l B_l),  B_l = softmax over rows of G^l G^{l+1}^T / sqrt(H * D)

    in_feats: F. num_outputs: C. hidden: width per head. heads: one number per layer, the same in all, since groups and
    nodes of all layers share one space. groups: K of each layer, none larger than the one before. variant, temperature
    and the rates: see hgat.nn.GraphHAMConv. The losses are terms of training mode alone, and nothing is drawn for one
    that weighs nothing. With groups = [1, 1] and no such loss it is hgat.models.GAT with a decoder.
    [N, F] -> [N, C]. Raises RecipeError for heads or groups that do not fit, ShapeError for what is out of range.
    Paper: Lin, Blaser and Wang 2022, arXiv:2111.00604, of which only the abstract was at hand. All equations are ours.
    """

    ablations = {
        "one_group": Ablation("one group", {"groups": [1, 1], "context_loss": 0.0, "inclusion_loss": 0.0}),
        "no_group_losses": Ablation("no context and inclusion loss", {"context_loss": 0.0, "inclusion_loss": 0.0}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8, 8),
        groups: Sequence[int] = (16, 4),
        variant: Literal["membership", "grains"] = "membership",
        temperature: float = 1.0,
        context_loss: float = 0.1,
        inclusion_loss: float = 0.1,
        negatives: int = 5,
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        value_drop: float = 0.0,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop, value_drop=value_drop)
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs, negatives=negatives)
        check_range(0, context_loss=context_loss, inclusion_loss=inclusion_loss)
        if len(set(heads)) > 1:
            raise RecipeError(f"model.heads: expected as many heads in every layer, got {list(heads)}")
        check_whole(1, **{f"groups[{depth}]": count for depth, count in enumerate(groups)})
        if len(groups) != len(heads) or list(groups) != sorted(groups, reverse=True):
            raise RecipeError(
                f"model.groups: expected {len(heads)} numbers, none above the one before, got {list(groups)}"
            )
        self.context_loss, self.inclusion_loss, self.negatives = context_loss, inclusion_loss, negatives
        self.layers = nn.ModuleList()
        width = in_feats
        for depth, (count, number) in enumerate(zip(heads, groups, strict=True)):
            self.layers.append(
                GraphHAMConv(
                    width,
                    hidden,
                    count,
                    number,
                    feat_drop,
                    attn_drop,
                    negative_slope,
                    None if depth == len(heads) - 1 else F.elu,
                    variant=variant,
                    temperature=temperature,
                    value_drop=value_drop,
                )
            )
            width = hidden * count
        self.decoder = nn.Linear(width, num_outputs, bias=False)

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features): every node attends to itself once; undirected: every edge in both directions, once."""
        return homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected), dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "GraphHAM":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, **settings)

    def forward(self, graph: DGLGraph, feat: Features) -> Tensor:
        """Logits of every node, [N, C]; feat: [N, F] or {node type: [N, F]}.

        Raises GraphError for another graph than one with all nodes of one type, ShapeError for features that do not
        fit, DGLError for a node without in-edges.
        """
        return self._states(graph, feat)[0]

    def memberships(self, graph: DGLGraph, feat: Features) -> list[Tensor]:
        """pi of every layer, a list of [N, K]."""
        return [log_pi.exp() for _, log_pi in self._states(graph, feat)[1]]

    def _states(self, graph, feat):
        """(logits [N, C], of every layer its rows [N, H * D] and log pi [N, K])."""
        h, states = one_type(feat), []
        for layer in self.layers:
            h, log_pi = layer(graph, h, get_memberships=True)
            h = h.flatten(1)
            states.append((h, log_pi))
        return self.decoder(h), states

    def objective(self, loss: Callable[[Any, Batch], Tensor], inputs: tuple, batch: Batch) -> Tensor:
        """The task's loss and, in training mode, the weighted losses of contexts and of inclusion, a scalar."""
        if not self.training or not (self.context_loss or self.inclusion_loss):
            return super().objective(loss, inputs, batch)
        graph, feat = inputs if batch.inputs is None else batch.inputs
        logits, states = self._states(graph, feat)
        found = loss(logits, batch)
        if self.context_loss:
            found = found + self.context_loss * self._contexts(graph, [h for h, _ in states])
        if self.inclusion_loss and len(states) > 1:
            found = found + self.inclusion_loss * self._inclusion([log_pi for _, log_pi in states])
        return found

    def _contexts(self, graph, rows):
        """sum of L_ctx over the layers; walks and negatives are drawn by PyTorch's generator."""
        at = torch.arange(graph.num_nodes(), device=rows[0].device)
        found = rows[0].new_zeros(())
        for h in rows:
            at = _walked(graph, at)
            other = torch.randint(len(h), (len(h), self.negatives), device=h.device)
            scale = h.shape[1] ** -0.5
            near = (h * h.index_select(0, at)).sum(1) * scale
            far = torch.einsum("nd,nkd->nk", h, h[other]) * scale
            found = found + (F.softplus(-near).sum() + F.softplus(far).sum()) / (near.numel() + far.numel())
        return found

    def _inclusion(self, memberships):
        """sum of L_inc over the pairs of layers."""
        found = memberships[0].new_zeros(())
        for depth, (fine, coarse) in enumerate(zip(memberships[:-1], memberships[1:], strict=True)):
            own, above = (self.layers[d].groups for d in (depth, depth + 1))
            inside = torch.log_softmax(own @ above.T * own.shape[1] ** -0.5, 1)
            expected = torch.logsumexp(fine.unsqueeze(2) + inside, 1)
            found = found + (coarse.exp() * (coarse - expected)).sum(1).mean()
        return found


def _walked(graph, at):
    """One step against the edges from each of the nodes `at`, drawn uniformly; who has no in-edge stays."""
    rows = csr.in_rows(graph, at.device)
    first = rows.indptr[at]
    degree = rows.indptr[at + 1] - first
    place = (torch.rand(len(at), device=at.device, dtype=torch.float64) * degree).long()
    step = torch.minimum(place, degree - 1).clamp_min(0) + first
    return torch.where(degree > 0, rows.other[step.clamp_max(len(rows.other) - 1)], at)
