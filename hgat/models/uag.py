"""A reconstruction of UAG as a whole model: a Bayesian graph network says what is uncertain, and attention heeds it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, check_shape, check_whole
from hgat.graph import csr, homogeneous
from hgat.models._batches import Features, one_type
from hgat.models._stack import check_settings, feature_width
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn.common import check_floats, check_graph
from hgat.nn.uag import UAGConv

__all__ = ["UAG"]


class UAG(System):
    """A reconstruction of uncertainty-aware attention, of whose paper the abstract alone was public.

    What that promises is built from standard parts, and nothing here is the paper's equation. A first stage trains GAT
    as a Bayesian network. It answers `samples` times, each time with weights, or noise, drawn anew, P^1 .. P^T: each
    the class that it gives, one of C, or the probabilities. Then

        of a node: U_u = mean over classes of the variance over t of P^t_u
        of an edge: U_uv = 1 - mean over t of sum_y P^t_uy P^t_vy

    and the next stage trains afresh with attention that these weigh down, see hgat.nn.UAGConv: alpha_uv is that of GAT
    times exp(-alpha_tau U_u - beta_tau U_uv), normalised.

    The choices. Node: the variance of the answers is what the network does not know, the model's uncertainty; it is
    near zero where the answers agree, and at most 1 / 4, hence the large alpha_tau. Edge: the chance that its ends are
    of different classes, the data's uncertainty and the model's in one; where two ends are certain and differ, the
    edge itself is in doubt, as one that an attack has added is. It is 0 for a self-loop. Stages and no refreshing in
    between: what is heeded stays as it is while a model learns, which therefore cannot learn to look certain. A stage
    begins with fresh weights, since the ones before have already learned from the edges in doubt. All is estimated on
    the graph that the model is scored on, attacked as it is, and from training labels alone.

    Votes, not probabilities: those of a network that dropout and decay hold back are flat, and two ends of one class
    agree in them little more than two of different classes; how often a draw gives another class is not flattened.

    answers: "votes" or "probabilities". estimator: "dropout", Monte-Carlo dropout, all rates of the network active
    while it is asked; or "head", a head that predicts a variance for every logit, of which training and asking draw.
    samples: T. stages: 1, without uncertainty, is GAT; 2; or more, each of which asks the one before it. heads: one
    number per layer, side by side with ELU, in the last averaged. hidden: width of a head. alpha_tau, beta_tau,
    negative_slope and the rates of dropout: see UAGConv.

    in_feats: F. num_outputs: C. multilabel: each class has its own vote or probability, and an edge's uncertainty is
    the mean over the classes. Raises RecipeError for no heads and another estimator or answer, ShapeError for sizes,
    rates and weights out of range.
    Paper: Feng et al. 2021, arXiv:2009.10235, abstract; Gal and Ghahramani 2016, arXiv:1506.02142 (dropout); Kendall
    and Gal 2017, arXiv:1703.04977 (head).
    """

    ablations = {
        "gat": Ablation("GAT", {"stages": 1, "estimator": "dropout"}),
        "nodes_only": Ablation("uncertainty of nodes alone", {"beta_tau": 0.0}),
        "edges_only": Ablation("uncertainty of edges alone", {"alpha_tau": 0.0}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        multilabel: bool = False,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8, 1),
        estimator: Literal["dropout", "head"] = "dropout",
        answers: Literal["votes", "probabilities"] = "votes",
        samples: int = 20,
        stages: int = 2,
        alpha_tau: float = 15.0,
        beta_tau: float = 2.5,
        negative_slope: float = 0.2,
        feat_drop: float = 0.6,
        attn_drop: float = 0.6,
        value_drop: float = 0.6,
    ) -> None:
        # A later stage begins with another one of these.
        settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        check_settings(heads, hidden)
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs, stages=stages)
        check_whole(2, samples=samples)
        for name, value, known in (
            ("estimator", estimator, ("dropout", "head")),
            ("answers", answers, ("votes", "probabilities")),
        ):
            if value not in known:
                raise RecipeError(f"model.{name}: expected {' or '.join(map(repr, known))}, got {value!r}")
        self.fresh = partial(type(self), **settings)
        self.estimator, self.answers, self.multilabel = estimator, answers, multilabel
        self.samples, self.stages = samples, stages
        out = 2 * num_outputs if estimator == "head" else num_outputs
        widths = [in_feats, *(hidden * count for count in heads[:-1])]
        self.layers = nn.ModuleList(
            UAGConv(
                widths[k],
                out if k == len(heads) - 1 else hidden,
                heads[k],
                feat_drop,
                attn_drop,
                negative_slope,
                value_drop=value_drop,
                alpha_tau=alpha_tau,
                beta_tau=beta_tau,
            )
            for k in range(len(heads))
        )

    @staticmethod
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features, no uncertainty of nodes yet, none of edges): every node attends to itself once."""
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        return graph, dict(shown.feat), None, None

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "UAG":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, shown.multilabel, **settings)

    def forward(
        self, graph: DGLGraph, feat: Features, of_node: Tensor | None = None, of_edge: Tensor | None = None
    ) -> Tensor:
        """Logits of every node; with a head, in training mode, one draw of them.

        graph: DGLGraph with self-loops; feat [N, F] or {node type: [N, F]}; of_node [N], of_edge [E]: what the stage
        before is uncertain of, None for nothing -> [N, C].
        Raises GraphError for anything but a graph of one relation, ShapeError for tensors that do not fit.
        """
        return self._over_layers(graph, feat, of_node, of_edge)[0]

    def _over_layers(self, graph, feat, of_node, of_edge):
        """(logits, alpha of every layer)."""
        check_graph(graph)
        h, found = one_type(feat), []
        check_floats("feat", h, self.layers[0].fc.weight)
        check_shape("feat", h, ("N", graph.num_nodes()), ("F", self.layers[0].fc.in_features))
        for depth, layer in enumerate(self.layers):
            h, alpha = layer(graph, h, of_node, of_edge, get_attention=True)
            h = h.mean(1) if depth == len(self.layers) - 1 else F.elu(h.flatten(1))
            found.append(alpha)
        if self.estimator == "head":
            h, spread = h.chunk(2, 1)  # the logarithm of the variance
            if self.training:
                h = h + (spread / 2).exp() * torch.randn_like(h)
        return h, found

    @torch.no_grad()
    def uncertainty(
        self, graph: DGLGraph, feat: Features, of_node: Tensor | None = None, of_edge: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(U of every node [N], U of every edge [E]), from `samples` draws of PyTorch's generator; inputs as forward's.

        No more than one draw is held at a time.
        """
        modes = {module: module.training for module in self.modules()}
        src, dst = csr.edges(graph, next(self.parameters()).device)
        total: Any = 0.0
        square: Any = 0.0
        agree: Any = 0.0
        try:
            for module in modes:
                module.training = self.estimator == "dropout" or not isinstance(module, nn.Dropout)
            for _ in range(self.samples):
                p = self._answers(self(graph, feat, of_node, of_edge))
                total, square = total + p, square + p.square()
                both = (p[src] * p[dst]).sum(1)
                if self.multilabel:  # of a class that stands alone two ends agree where neither has it, too
                    both = (both + ((1 - p[src]) * (1 - p[dst])).sum(1)) / p.shape[1]
                agree = agree + both
        finally:
            for module, mode in modes.items():
                module.training = mode
        variance = (square / self.samples - (total / self.samples).square()).clamp_(min=0)
        doubt = (1 - agree / self.samples).clamp_(min=0)
        return variance.mean(1), doubt.masked_fill(src == dst, 0.0)

    def _answers(self, logits):
        """P of one draw, [N, C]: votes of 0 and 1, or probabilities."""
        if self.answers == "probabilities":
            return logits.sigmoid() if self.multilabel else logits.softmax(1)
        voted = logits > 0 if self.multilabel else F.one_hot(logits.argmax(1), logits.shape[1])
        return voted.to(logits.dtype)

    def again(self, shown: Facts, inputs: tuple, stage: int) -> "tuple[UAG, tuple] | None":
        """A model with fresh weights, and inputs that say what this one is uncertain of."""
        if stage >= self.stages:
            return None
        return self.fresh(), (*inputs[:2], *self.uncertainty(*inputs))

    def attention(self, *inputs: Any) -> list[Tensor]:
        """alpha of every layer, a list of [E, H, 1]; inputs as forward's."""
        return self._over_layers(*inputs, *[None] * (4 - len(inputs)))[1]

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of attention that goes over the half of the edges that are least in doubt, in every layer."""
        of_edge = inputs[3] if len(inputs) == 4 else None
        if of_edge is None:
            return []
        found, names = [], ("little doubt", "much doubt")
        graph = inputs[0]
        src, dst = csr.edges(graph, of_edge.device)
        others = src != dst
        if not bool(others.any()):
            return []
        clear = of_edge <= of_edge[others].median()
        degree = torch.bincount(dst, minlength=graph.num_nodes())
        nodes = (degree > 0).sum()
        for depth, alpha in enumerate(self.attention(*inputs), 1):
            weight = alpha.squeeze(-1).mean(1)
            share = [float(w[clear].sum() / nodes) for w in (weight, 1 / degree[dst].float())]
            title = f"attention by the edges' uncertainty, layer {depth}"
            found.append(Shares(title, names, (share[0], 1 - share[0]), (share[1], 1 - share[1])))
        return found
