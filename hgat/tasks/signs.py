"""Signs of edges: whether an edge that is asked for is positive or negative, and that there is one is known.

What is shown are the training edges and their signs. The answer, a row of every node, is read by a logistic regression
on the rows of both ends that is fitted to the training edges alone, as the code of SiGAT and of its peers does.
Paper: Huang et al. 2019 (SiGAT), arXiv:1906.10958, for the loss and the protocol.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import dgl
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
from torch import Tensor

from hgat.data import SignedData
from hgat.errors import RecipeError
from hgat.graph import signed_degrees
from hgat.models import Batch, Facts, System
from hgat.models._system import resting
from hgat.tasks._task import PARTS, Control, Task, without_columns

__all__ = ["Signs"]

# What a logistic regression reads of edges: (src, dst, their signs where they are training edges) -> [B, F].
Read = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class AlwaysPositive(Control):
    """Nothing of an edge: the answer is that of most edges."""

    title = "always positive"
    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return ()

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "AlwaysPositive":
        return cls()

    def forward(self) -> Read:
        """A column of zeros for every edge. Raises nothing."""
        return lambda src, dst, sign: torch.zeros(len(src), 1)


class SignedDegrees(Control):
    """What u says of others and what others say of v: eight numbers of signed degrees, without the edge itself.

    ln(1 + count) of the positive and of the negative edges that leave u and that enter v, and their shares.
    """

    title = "signed degrees"
    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return (signed_degrees(shown.graph),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "SignedDegrees":
        return cls()

    def forward(self, degrees: Tensor) -> Read:
        """degrees [N, 4]: hgat.graph.signed_degrees -> a function that gives [B, 8]. Raises nothing."""

        def read(src, dst, sign):
            leaving, entering = degrees[src][:, [0, 2]], degrees[dst][:, [1, 3]]
            if sign is not None:  # a training edge is among those that were counted, unless it is a loop
                own = (torch.stack([sign > 0, sign < 0], 1) & (src != dst).unsqueeze(1)).to(degrees.dtype)
                leaving, entering = leaving - own, entering - own
            shares = [counts / counts.sum(1, keepdim=True).clamp(min=1) for counts in (leaving, entering)]
            return torch.cat([leaving.log1p(), entering.log1p(), *shares], 1)

        return read


class Signs(Task):
    """The signs of edges: rows of the nodes, alike where an edge is positive, and a logistic regression on both ends.

        loss of a batch of nodes u = sum_u ( sum_{v in P(u)} -ln s(z_u . z_v) + C_u sum_{v in M(u)} -ln s(-z_u . z_v) )

    s: the sigmoid; P(u), M(u): the nodes that positive and negative training edges join with u, whatever their
    direction; C_u = max(1, |P(u)| // max(1, |M(u)|)). There are no other negatives.
    test_share: of all edges, drawn by the seed; None, the test edges of the data. val_share: of the other edges, drawn
    by the seed, too. batch: nodes in a step of the optimiser, None for all at once. Scores: macro-F1 of both signs, F1
    of the positive one, accuracy and AUC, in percent, of a logistic regression of scikit-learn that is fitted to the
    training edges. The loss that validation sees is that regression's.
    The answer of a system: [N, F], or, of a control, a function that gives [B, F] of edges.
    """

    kind = SignedData
    data: SignedData
    unit = "edges"
    metrics = ("macro_f1", "auc", "f1", "accuracy")
    controls: ClassVar[dict[str, type[Control]]] = {"always_positive": AlwaysPositive, "signed_degrees": SignedDegrees}

    def __init__(
        self, data: Any, *, val_share: float = 0.05, test_share: float | None = None, batch: int | None = 500
    ) -> None:
        super().__init__(data)
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            if share is not None and not 0 < share < 1:
                raise RecipeError(f"task.{name}: expected a share between 0 and 1, got {share}")
        if batch is not None and batch < 1:
            raise RecipeError(f"task.batch: expected 1 or more, got {batch}")
        if test_share is None and not len(data.test):
            raise RecipeError(f"task.test_share: expected a share, as {data.name} names no test edges, got none")
        self.val_share, self.test_share, self.batch = val_share, test_share, batch
        self._of_seed: dict[int, Signs] = {}  # so that the facts of a seed are the same object for every variant
        self._draw(0)

    def _draw(self, seed: int) -> None:
        """The parts of a seed, {part: ids of edges}."""
        random, edges = np.random.RandomState([seed, 0]), self.data.graph.num_edges()
        order = torch.from_numpy(random.permutation(edges))
        if self.test_share is None:
            test = self.data.test
            held = torch.zeros(edges, dtype=torch.bool)
            held[test] = True
            order = order[~held[order]]
        else:
            test, order = order[: round(self.test_share * edges)], order[round(self.test_share * edges) :]
        count = round(self.val_share * len(order))
        self.parts = {"train": order[count:].sort().values, "val": order[:count].sort().values, "test": test}
        for part, ids in self.parts.items():
            if len(self.data.sign[ids].unique()) < 2:
                raise RecipeError(
                    f"task: expected edges of both signs in every part, got {len(ids)} of at most one in {part} of "
                    f"{self.data.name}"
                )
        self._facts: Facts | None = None
        self._pairs: tuple[Tensor, Tensor, Tensor] | None = None
        self._refitted: Signs | None = None

    def for_seed(self, seed: int) -> "Signs":
        if seed not in self._of_seed:
            found = copy.copy(self)
            found.seed = seed
            found._draw(seed)
            self._of_seed[seed] = found
        return self._of_seed[seed]

    def refitted(self) -> "Signs":
        if self._refitted is None:
            found = copy.copy(self)
            found.parts = {**self.parts, "train": torch.cat([self.parts["train"], self.parts["val"]]).sort().values}
            found._facts = found._pairs = None
            self._refitted = found
        return self._refitted

    def shown(self) -> Facts:
        """The training edges, their signs in edata["sign"], among all nodes."""
        if self._facts is None:
            graph, ids = without_columns(self.data.graph), self.parts["train"]
            graph = dgl.edge_subgraph(graph, ids.to(graph.idtype), relabel_nodes=False, store_ids=False)
            graph.edata["sign"] = self.data.sign[ids]
            (ntype,) = graph.ntypes
            self._facts = Facts(graph, {ntype: None}, target=ntype, directed=True)
        return self._facts

    def sizes(self) -> dict[str, int]:
        return {part: len(self.parts[part]) for part in PARTS}

    def _edges(self, part: str) -> tuple[Tensor, Tensor, Tensor]:
        """(src, dst, sign) of a part."""
        src, dst = (end.long()[self.parts[part]] for end in self.data.graph.edges(order="eid"))
        return src, dst, self.data.sign[self.parts[part]]

    def _joined(self) -> tuple[Tensor, Tensor, Tensor]:
        """(u, v, weight): v in P(u) with weight 1, and v in M(u) with weight -C_u, each once."""
        if self._pairs is None:
            src, dst, sign = self._edges("train")
            nodes, found, counts = self.data.graph.num_nodes(), [], []
            for which in (1, -1):
                here = (sign == which) & (src != dst)
                ends = torch.cat([src[here], dst[here]]), torch.cat([dst[here], src[here]])
                key = torch.unique(ends[0] * nodes + ends[1])
                found.append((key // nodes, key % nodes))
                counts.append(torch.bincount(key // nodes, minlength=nodes))
            factor = (counts[0] // counts[1].clamp(min=1)).clamp(min=1).float()
            (u, v), (of_negative, other) = found
            weight = torch.cat([torch.ones(len(u)), -factor[of_negative]])
            self._pairs = torch.cat([u, of_negative]), torch.cat([v, other]), weight
        return self._pairs

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        nodes = self.data.graph.num_nodes()
        u, v, weight = self._joined()
        for part in torch.randperm(nodes).split(self.batch or nodes):
            chosen = torch.zeros(nodes, dtype=torch.bool)
            chosen[part] = True
            here = chosen[u]
            yield Batch(more={"u": u[here], "v": v[here], "weight": weight[here]})

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """The sum over the nodes of the batch."""
        u, v, weight = (batch.more[name].to(answer.device) for name in ("u", "v", "weight"))
        alike = (answer[u] * answer[v]).sum(1)
        return (weight.abs() * F.softplus(-weight.sign() * alike)).sum()

    def _scorer(self, model: System, inputs: tuple) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
        """part -> (signs, probabilities of a positive sign), by a regression on what the model answers."""
        answer = resting(model, lambda: model.whole(inputs))
        read: Read = answer
        if isinstance(answer, Tensor):
            rows = answer.detach().cpu()

            def read(src: Tensor, dst: Tensor, sign: Tensor | None) -> Tensor:
                return torch.cat([rows[src], rows[dst]], 1)

        src, dst, sign = self._edges("train")
        fitted = LogisticRegression(max_iter=1000).fit(read(src, dst, sign).double().numpy(), sign.numpy())

        def score(part):
            src, dst, sign = self._edges(part)
            known = sign if part == "train" else None
            return sign.numpy(), fitted.predict_proba(read(src, dst, known).double().numpy())[:, 1]

        return score

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, mean log loss) of the regression on a part's edges."""
        sign, positive = self._scorer(model, inputs)(part)
        return _measures(sign, positive)[metric], float(log_loss(sign, positive))

    def results(self, model: System, inputs: tuple, metric: str, **_: Any) -> tuple[dict, dict[str, Tensor]]:
        """{"test": the metric, "more": every one}."""
        more = _measures(*self._scorer(model, inputs)("test"))
        return {"test": more[metric], "more": more}, {}


def _measures(sign: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """Every metric in percent: sign [B], 1 and -1, positive [B], probabilities."""
    told = np.where(positive > 0.5, 1, -1)
    found = {
        "macro_f1": f1_score(sign, told, average="macro", zero_division=0),
        "auc": roc_auc_score(sign, positive),
        "f1": f1_score(sign, told, zero_division=0),
        "accuracy": accuracy_score(sign, told),
    }
    return {name: 100.0 * float(value) for name, value in found.items()}
