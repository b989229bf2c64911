"""A reconstruction of UAG as a whole model: a Bayesian graph network says what is uncertain, and attention heeds it."""

from collections.abc import Callable, Sequence
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
from hgat.models._system import Ablation, Batch, Facts, Shares, System
from hgat.nn.common import check_floats, check_graph, check_rates
from hgat.nn.uag import UAGConv

__all__ = ["UAG"]


class UAG(System):
    """A reconstruction of uncertainty-aware attention, of whose paper the abstract alone was public.

    What that promises is built from standard parts, and nothing here is the paper's equation. A first stage trains GAT
    as a Bayesian network, and beside it a network that tells edges from other pairs by the features of their ends. Both
    answer `samples` times, t = 1 .. T, each time with weights, or noise, drawn anew: P^t_u is the class that a node is
    given, one of C, or its probabilities; p^t_uv the probability that an edge runs between two nodes. Then

        of a node: U_u = mean over classes of the variance over t of P^t_u
        of an edge: U_uv = 1 - mean over t of p^t_uv,   p_uv = sigmoid(a cos(z_u, z_v) + b),   z = perceptron(x)

    and the next stage trains afresh with attention that these weigh down, see hgat.nn.UAGConv: alpha_uv is that of GAT
    times exp(-alpha_tau U_u - beta_tau U_uv), normalised.

    The choices. Node: the variance of the answers is what the network does not know, the model's uncertainty; it is
    near zero where the answers agree, and at most 1 / 4, hence the large alpha_tau. Edge: whether it belongs there is
    asked of a network that sees the features of both ends and no neighbour, so that an edge cannot vouch for itself;
    what few edges between such ends speak for is in doubt. It learns from the edges of the attacked graph against as
    many pairs drawn anew in every step, by the cross-entropy, and adds that to the loss. An edge from a node to itself
    is not in doubt. Stages and no refreshing in between: what is heeded stays as it is while a model learns, which
    therefore cannot learn to look certain. A stage begins with fresh weights, since the ones before have already
    learned from the edges in doubt. All is estimated on the graph that the model is scored on, attacked as it is, and
    from training labels alone.

    edges: "pairs", U_uv as above; or "answers", the chance that the ends are of different classes, 1 - mean over t of
    sum_y P^t_uy P^t_vy, in which a network that has averaged over an edge finds its ends alike. answers: "votes" or
    "probabilities", which dropout and decay make flat. estimator: "dropout", Monte-Carlo dropout, all rates of the
    network active while it is asked; or "head", a head that predicts a variance for every logit, of which training and
    asking draw; the network of pairs has dropout in either. samples: T. stages: 1, without uncertainty, is GAT; 2; or
    more, each of which asks the one before it about nodes. heads: one number per layer, side by side with ELU, in the
    last averaged. hidden: width of a head; pair_hidden: of z, and of the layer before it. alpha_tau, beta_tau,
    negative_slope and the rates of dropout: see UAGConv; feat_drop is that of the network of pairs, too.

    in_feats: F. num_outputs: C. multilabel: each class has its own vote or probability, and an edge's uncertainty by
    answers is the mean over the classes. Raises RecipeError for no heads and another estimator, answer or kind of
    edges, ShapeError for sizes, rates and weights out of range.
    Paper: Feng et al. 2021, arXiv:2009.10235, abstract; Gal and Ghahramani 2016, arXiv:1506.02142 (dropout); Kendall
    and Gal 2017, arXiv:1703.04977 (head).
    """

    ablations = {
        "gat": Ablation("GAT", {"stages": 1, "estimator": "dropout", "edges": "answers"}),
        "by_answers": Ablation("uncertainty of edges by answers", {"edges": "answers"}),
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
        edges: Literal["pairs", "answers"] = "pairs",
        pair_hidden: int = 64,
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
        check_whole(1, pair_hidden=pair_hidden)
        check_rates(feat_drop=feat_drop)  # read before the layers, which check it too
        for name, value, known in (
            ("edges", edges, ("pairs", "answers")),
            ("estimator", estimator, ("dropout", "head")),
            ("answers", answers, ("votes", "probabilities")),
        ):
            if value not in known:
                raise RecipeError(f"model.{name}: expected {' or '.join(map(repr, known))}, got {value!r}")
        self.fresh = partial(type(self), **settings)
        self.edges, self.estimator, self.answers, self.multilabel = edges, estimator, answers, multilabel
        self.samples, self.stages = samples, stages
        self.pairs = _Pairs(in_feats, pair_hidden, feat_drop) if edges == "pairs" and stages > 1 else None
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

    def objective(self, loss: Callable, inputs: tuple, batch: Batch) -> Tensor:
        """The task's loss, and in the first stage the cross-entropy of edges and other pairs beside it, a scalar."""
        found = super().objective(loss, inputs, batch)
        graph, feat = (inputs if batch.inputs is None else batch.inputs)[:2]
        if self.pairs is None or not self.training:
            return found
        return found + self.pairs.loss(graph, one_type(feat))

    @torch.no_grad()
    def uncertainty(
        self, graph: DGLGraph, feat: Features, of_node: Tensor | None = None, of_edge: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(U of every node [N], U of every edge [E]), from `samples` draws of PyTorch's generator; inputs as forward's.

        No more than one draw is held at a time.
        """
        modes = {module: module.training for module in self.modules()}
        src, dst = csr.edges(graph, next(self.parameters()).device)
        known = of_edge if self.edges == "pairs" else None  # of pairs, of which a later stage learns nothing new
        total: Any = 0.0
        square: Any = 0.0
        agree: Any = 0.0
        try:
            for module in modes:
                module.training = self.estimator == "dropout" or not isinstance(module, nn.Dropout)
            if self.pairs is not None:
                self.pairs.train()
            for _ in range(self.samples):
                p = self._answers(self(graph, feat, of_node, of_edge))
                total, square = total + p, square + p.square()
                if known is None:
                    agree = agree + self._belongs(p, one_type(feat), src, dst)
        finally:
            for module, mode in modes.items():
                module.training = mode
        variance = (square / self.samples - (total / self.samples).square()).clamp_(min=0)
        doubt = (1 - agree / self.samples).clamp_(min=0).masked_fill(src == dst, 0.0) if known is None else known
        return variance.mean(1), doubt

    def _belongs(self, p, x, src, dst):
        """How far each edge belongs there by one draw, [E]."""
        if self.pairs is not None:
            return self.pairs(x, src, dst).sigmoid()
        both = (p[src] * p[dst]).sum(1)
        if self.multilabel:  # of a class that stands alone two ends agree where neither has it, too
            both = (both + ((1 - p[src]) * (1 - p[dst])).sum(1)) / p.shape[1]
        return both

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
        model = self.fresh()
        model.pairs = None  # of the edges all is said
        return model, (*inputs[:2], *self.uncertainty(*inputs))

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


class _Pairs(nn.Module):
    """How much the features of two nodes speak for an edge between them: a cos(z_u, z_v) + b, z = perceptron(x).

    Without biases in the perceptron, so that the scale of the features does not matter.
    """

    def __init__(self, in_feats, hidden, drop):
        super().__init__()
        self.net = nn.Sequential(
            nn.Dropout(drop),
            nn.Linear(in_feats, hidden, bias=False),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, hidden, bias=False),
        )
        self.scale, self.shift = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x, *pairs):
        """Logits of pairs (src [P], dst [P]), [P], of several with the same z in a row."""
        z = F.normalize(self.net(x), dim=1)
        cos = torch.cat([(z[src] * z[dst]).sum(1) for src, dst in zip(pairs[::2], pairs[1::2], strict=True)])
        return self.scale * cos + self.shift

    def loss(self, graph, x):
        """The cross-entropy of the edges between two nodes, and of as many pairs that PyTorch's generator draws."""
        src, dst = csr.cached(graph, ("between two", str(x.device)), lambda: _between_two(graph, x.device))
        if not len(src):
            return self.scale * 0
        drawn = torch.randint(graph.num_nodes(), (2, len(src)), device=x.device)
        logits = self(x, src, dst, *drawn)
        label = (torch.arange(len(logits), device=x.device) < len(src)).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, label)


def _between_two(graph, device):
    """(source, destination) of the edges between two nodes."""
    src, dst = csr.edges(graph, device)
    others = src != dst
    return src[others], dst[others]
