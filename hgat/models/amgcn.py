"""AM-GCN as a whole model: convolutions on the graph and on one of similar features, and attention over both."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, RecipeError, check_range, check_shape, check_whole
from hgat.graph import homogeneous, knn_graph, normalized
from hgat.models._batches import Features, one_type
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Batch, Facts, Shares, System
from hgat.nn import Fusion
from hgat.nn.common import check_floats

__all__ = ["AMGCN"]


class View(NamedTuple):
    """What rows are spread over: a graph and its edges' weights [E], or rows r and l of which A = l r^T, never formed.

    left, right: [N, F] of a dense view, and then no graph.
    """

    graph: DGLGraph | None
    weight: Tensor | None
    left: Tensor | None = None
    right: Tensor | None = None

    def spread(self, h: Tensor) -> Tensor:
        """A h, [N, F]."""
        if self.graph is None:
            return cast(Tensor, self.left) @ (cast(Tensor, self.right).t() @ h)
        return ops.propagate(self.graph, h, cast(Tensor, self.weight).to(h.dtype))


class AMGCN(System):
    """Adaptive multi-channel GCN: what the graph says, what similar features say, and what is common to both.

        Z_T = GCN_T(X, A_T);   Z_F = GCN_F(X, A_F);   Z_CT = GCN_C(X, A_T);   Z_CF = GCN_C(X, A_F)
        Z_C = (Z_CT + Z_CF) / 2;   alpha_i = softmax_c(q . tanh(W z_ic + b));   logits = W_o sum_c alpha_c Z_c + b_o
        GCN(X, A) = A drop(ReLU(A X W_1 + b_1)) W_2 + b_2
        loss = task's loss + gamma consistency(Z_CT, Z_CF) + beta disparity(Z_T, Z_CT; Z_F, Z_CF)

    A_T is the graph, A_F one of similar features, see `prepare`. hidden, out: widths behind W_1 and W_2. attn_feats:
    of W. scorer: "shared", one W and q for all channels, as the code has it, or "per_channel". common: with False Z_T
    and Z_F alone are attended to, and the task's loss is all. loss_form: of the two further losses, see `consistency`
    and `disparity`; what gamma and beta weigh differs by orders of magnitude between them. hidden_drop: rate of
    dropout.

    in_feats: F. num_outputs: C. Raises ShapeError for sizes, rates and weights out of range.
    Paper: Wang et al. 2020, arXiv:2007.02265. The defaults are those of the authors' code. Their beta and theta are
    beta and gamma here, as in the paper.
    """

    ablations = {
        "no_common": Ablation("without the common channel", {"common": False}),
        "no_losses": Ablation("the task's loss alone", {"gamma": 0.0, "beta": 0.0}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        *,
        hidden: int = 512,
        out: int = 128,
        attn_feats: int = 16,
        scorer: Literal["shared", "per_channel"] = "shared",
        common: bool = True,
        gamma: float = 0.001,
        beta: float = 5e-10,
        loss_form: Literal["code", "paper"] = "code",
        hidden_drop: float = 0.5,
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs, hidden=hidden, out=out, attn_feats=attn_feats)
        check_range(0, gamma=gamma, beta=beta)
        check_range(0, 1, hidden_drop=hidden_drop)
        for name, value, known in (
            ("scorer", scorer, ("shared", "per_channel")),
            ("loss_form", loss_form, ("code", "paper")),
        ):
            if value not in known:
                raise RecipeError(f"model.{name}: expected {' or '.join(map(repr, known))}, got {value!r}")
        self.gamma, self.beta, self.loss_form = gamma, beta, loss_form
        self.of_graph = _GCN(in_feats, hidden, out, hidden_drop)
        self.of_features = _GCN(in_feats, hidden, out, hidden_drop)
        self.of_both = _GCN(in_feats, hidden, out, hidden_drop) if common else None
        shared = scorer == "shared"
        self.fuse = Fusion(out, 3 if common else 2, hidden_feats=attn_feats, shared=shared)
        self.classify = nn.Linear(out, num_outputs)

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        k: int = 5,
        feature_graph: Literal["knn", "dense"] = "knn",
        metric: Literal["cosine", "heat"] = "cosine",
        knn_symmetrize: Literal["union", "official"] = "union",
        norm: Literal["right", "both"] = "right",
        undirected: bool = True,
    ) -> tuple:
        """(A_T, A_F, features): both with a self-loop at every node, and normalised.

        feature_graph: "knn", see hgat.graph.knn_graph, of which k, metric and knn_symmetrize are settings; or "dense",
        all cosines of X, as two thin factors: then no feature may be below zero. norm: "right", the mean over the
        neighbours, as in the code, or "both", the symmetric one; see hgat.graph.normalized. A row of zeros has no
        similar one: in A_F it has itself alone, or of all cosines nothing.
        Raises GraphError for a graph without edges and for features that cannot be compared.
        """
        feature_width(shown.feat, shown.target)
        feat = cast(Tensor, shown.feat[shown.target])
        graph = homogeneous.prepare(shown.graph, undirected=undirected)
        topology = View(graph, normalized(graph, norm))
        if feature_graph == "dense":
            return topology, _dense(feat, norm), dict(shown.feat)
        alike = homogeneous.prepare(knn_graph(feat, k, metric=metric, symmetrize=knn_symmetrize))
        return topology, View(alike, normalized(alike, norm)), dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "AMGCN":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[2], shown.target), shown.num_classes, **settings)

    def channels(self, topology: View, alike: View, feat: Features) -> tuple[list[Tensor], list[Tensor]]:
        """([Z_T, Z_F, Z_C], [Z_CT, Z_CF]), tensors [N, out]; without a common channel two of them, and none."""
        x, weight = one_type(feat), self.of_graph.first.weight
        check_floats("feat", x, weight)
        nodes = alike.graph.num_nodes() if alike.graph is not None else len(cast(Tensor, alike.left))
        check_shape("feat", x, ("N", nodes), ("F", weight.shape[1]))
        found, common = [self.of_graph(x, topology)[0], self.of_features(x, alike)[0]], []
        if self.of_both is not None:
            common = self.of_both(x, topology, alike)
            found.append((common[0] + common[1]) / 2)
        return found, common

    def forward(self, topology: View, alike: View, feat: Features) -> Tensor:
        """Logits of every node.

        topology, alike: what `prepare` gives; feat [N, F] or {node type: [N, F]} -> [N, C].
        Raises ShapeError for features that do not fit.
        """
        return self.classify(self.fuse(self.channels(topology, alike, feat)[0])[0])

    def objective(self, loss: Callable[[Any, Batch], Tensor], inputs: tuple, batch: Batch) -> Tensor:
        """The task's loss, and what the channels are to have in common and not, a scalar."""
        found, common = self.channels(*inputs)
        total = loss(self.classify(self.fuse(found)[0]), batch)
        if common and self.gamma:
            total = total + self.gamma * consistency(common[0], common[1], self.loss_form)
        if common and self.beta:
            total = total + self.beta * disparity(list(zip(found, common, strict=False)), self.loss_form)
        return total

    def embed(self, topology: View, alike: View, feat: Features) -> Tensor:
        """Z, the rows before the classifier, [N, out]."""
        return self.fuse(self.channels(topology, alike, feat)[0])[0]

    def attention(self, topology: View, alike: View, feat: Features) -> Tensor:
        """alpha of every node over the topology's channel, the features' and the common one, [N, 3] or [N, 2]."""
        return self.fuse.weights(self.channels(topology, alike, feat)[0])

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of every channel, the mean over the nodes."""
        share = tuple(self.attention(*inputs).mean(0).tolist())
        names, even = ("topology", "features", "common")[: len(share)], (1 / len(share),) * len(share)
        return [Shares("attention over channels", names, share, even, even="if all channels counted alike")]


class _GCN(nn.Module):
    """Two graph convolutions, on one view or, with the same weights, on several: the first product is made once."""

    def __init__(self, in_feats, hidden, out, drop):
        super().__init__()
        self.first, self.second = nn.Linear(in_feats, hidden, bias=False), nn.Linear(hidden, out, bias=False)
        self.bias = nn.ParameterList([nn.Parameter(torch.empty(hidden)), nn.Parameter(torch.empty(out))])
        self.drop = nn.Dropout(drop)
        for layer, bias in zip((self.first, self.second), self.bias, strict=True):
            bound = layer.out_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x, *views):
        y, found = self.first(x), []
        for view in views:
            h = self.drop(F.relu(view.spread(y) + self.bias[0]))
            found.append(view.spread(self.second(h)) + self.bias[1])
        return found


def consistency(one: Tensor, other: Tensor, form: str = "code") -> Tensor:
    """How far the similarities of the nodes differ between two embeddings [N, F], a scalar in O(N F^2).

        paper: |S_1 - S_2|^2, S = Z Z^T with rows of length one;   code: its mean over N^2, of columns centred first

    |S_1 - S_2|^2 = |Z_1^T Z_1|^2 + |Z_2^T Z_2|^2 - 2 |Z_1^T Z_2|^2, so that nothing is N x N.
    Paper: Wang et al. 2020, arXiv:2007.02265, L_c.
    """
    rows = [one, other] if form == "paper" else [z - z.mean(0) for z in (one, other)]
    a, b = (F.normalize(z, dim=1) for z in rows)
    total = _squared(a, a) + _squared(b, b) - 2 * _squared(a, b)
    return total if form == "paper" else total / len(one) ** 2


def disparity(pairs: list[tuple[Tensor, Tensor]], form: str = "code") -> Tensor:
    """How much two embeddings [N, F] of each pair depend on one another: HSIC with inner products, in O(N F^2).

        paper: sum over pairs of tr(R K_1 R K_2) / (N - 1)^2;   code: mean over pairs of tr(R K_1 R K_2)

    K = Z Z^T and R = I - 1 / N, so that tr(R K_1 R K_2) = |Z_1^T R Z_2|^2, and nothing is N x N.
    Paper: Wang et al. 2020, arXiv:2007.02265, L_d.
    """
    found = torch.stack([_squared(one, other - other.mean(0)) for one, other in pairs])
    return found.sum() / (len(pairs[0][0]) - 1) ** 2 if form == "paper" else found.mean()


def _squared(one: Tensor, other: Tensor) -> Tensor:
    """|Z_1^T Z_2|^2."""
    return (one.t() @ other).square().sum()


def _dense(feat, norm):
    """The view of all cosines, S = Y Y^T with rows of length one, whose diagonal are the self-loops."""
    if not bool((feat.isfinite() & (feat >= 0)).all()):
        raise GraphError("graph.feature_graph: expected features not below zero for dense cosines, got others")
    rows = F.normalize(feat, dim=1)
    degree = (rows @ rows.sum(0)).unsqueeze(1)
    degree = degree.masked_fill(degree == 0, 1.0)
    if norm == "right":
        return View(None, None, rows / degree, rows)
    return View(None, None, rows / degree.sqrt(), rows / degree.sqrt())
