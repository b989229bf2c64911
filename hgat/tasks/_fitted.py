"""Controls that scikit-learn solves on a table with a row for each node: linear models and boosted trees.

A task with a table of its own makes a control of it by a `prepare` that gives it: `class Mine(Boosted)`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import Tensor

from hgat.models import Facts
from hgat.models._system import _extensible
from hgat.tasks._task import Control

__all__ = ["Boosted", "BoostedMeans", "Fitted", "Linear", "LinearMeans", "log_odds", "one_by_one"]

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ITERATIONS = 1000
TREES: tuple[Mapping[str, Any], ...] = (
    {"max_iter": 100, "max_leaf_nodes": 7},
    {"max_iter": 100, "max_leaf_nodes": 31},
    {"max_iter": 300, "max_leaf_nodes": 15, "learning_rate": 0.05},
    {"max_iter": 300, "max_leaf_nodes": 31, "learning_rate": 0.05},
)


class Fitted(Control):
    """A model of scikit-learn on a table, solved: no choice of steps can make it weak.

    Validation chooses among its settings. Where nodes have classes, each class is solved by itself against the rest,
    one of two classes alone; one that all training nodes have, or none, keeps its frequency. The weights of a state are
    the answers for all rows. Subclasses give `prepare`, `estimator` and `solutions`.
    """

    answers: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("answers", torch.zeros(rows, width))

    @staticmethod
    def estimator(number: int, numeric: bool) -> Any:
        """scikit-learn's estimator with setting `number`: a regressor where labels are numbers, else a classifier."""
        raise NotImplementedError("estimator")

    @staticmethod
    @_extensible
    def prepare(shown: Facts) -> tuple:
        """(table [N, F] float32,): the target's own features; a column of ones where it has none."""
        return (own(shown),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Fitted":
        """Without an answer as yet."""
        return cls(len(inputs[0]), shown.num_classes)

    def forward(self, table: Tensor) -> Tensor:
        """table [N, F] -> logits, or numbers where labels are numbers, [N, C]. Raises nothing: they are kept."""
        return self.answers

    def solve(self, shown: Facts, inputs: tuple, number: int) -> None:
        """Fit the estimator with setting `number` to the training rows, and answer for all rows."""
        # Columns that nearly depend on one another, as those of one-hot rows do, ask for float64.
        table, train = inputs[0].double().cpu().numpy(), shown.train.numpy()
        label, found = shown.label[shown.train].numpy(), np.zeros(self.answers.shape, dtype=np.float32)
        if shown.numeric:
            found[:, 0] = self.estimator(number, True).fit(table[train], label).predict(table)
        else:
            for k, has in one_by_one(label, shown.num_classes, shown.multilabel):
                if k == 0 and shown.num_classes == 2 and not shown.multilabel:
                    continue  # the other class's log odds are all that counts
                found[:, k] = log_odds(has)
                if 0 < has.sum() < len(has):
                    found[:, k] = self.estimator(number, False).fit(table[train], has).decision_function(table)
        self.answers.copy_(torch.from_numpy(found))


class Linear(Fitted):
    """Logistic or ridge regression on the target's own features, standardised; a value that is NaN counts as the mean.

    Validation chooses among the strengths C; that of a ridge is 1 / C.
    """

    title = "linear on own features"
    solutions: ClassVar[int | None] = len(STRENGTHS)

    @staticmethod
    def estimator(number: int, numeric: bool) -> Any:
        strength = STRENGTHS[number]
        model = Ridge(1 / strength) if numeric else LogisticRegression(C=strength, max_iter=ITERATIONS)
        return make_pipeline(StandardScaler(), FunctionTransformer(np.nan_to_num), model)


class Boosted(Fitted):
    """Boosted trees on the target's own features; NaN is a value of its own. Validation chooses among TREES."""

    title = "boosted trees on own features"
    solutions: ClassVar[int | None] = len(TREES)

    @staticmethod
    def estimator(number: int, numeric: bool) -> Any:
        kind = HistGradientBoostingRegressor if numeric else HistGradientBoostingClassifier
        return kind(early_stopping=False, random_state=0, **TREES[number])


class LinearMeans(Linear):
    """Linear on the target's own features and, for each relation, its neighbours' means and their number."""

    title = "linear with neighbours' means"

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return (torch.cat([own(shown), means(shown)], 1),)


class BoostedMeans(Boosted):
    """Boosted trees on the target's own features and, for each relation, its neighbours' means and their number."""

    title = "boosted trees with neighbours' means"

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return (torch.cat([own(shown), means(shown)], 1),)


def own(shown: Facts) -> Tensor:
    """[N, F] float32, the target's own features; [N, 1] ones where it has none."""
    feat = shown.feat[shown.target]
    return torch.ones(shown.graph.num_nodes(shown.target), 1) if feat is None else feat


def means(shown: Facts) -> Tensor:
    """[N, F'] float32: for each relation that ends at the target, the mean of the sources' features over the in-edges,
    zeros where there are none, and log(1 + in-edges)."""
    graph, columns = shown.graph, []
    for etype in graph.canonical_etypes:
        if etype[2] != shown.target:
            continue
        src, dst = (end.numpy() for end in graph.edges(etype=etype, order="eid"))
        shape = graph.num_nodes(shown.target), graph.num_nodes(etype[0])
        into = scipy.sparse.csr_matrix((np.ones(len(src), dtype=np.float32), (dst, src)), shape=shape)
        degree = np.asarray(into.sum(1), dtype=np.float32)
        feat = shown.feat[etype[0]]
        if feat is not None:
            columns.append(into @ feat.numpy() / np.maximum(degree, 1))
        columns.append(np.log1p(degree))
    nothing = np.zeros((graph.num_nodes(shown.target), 0), dtype=np.float32)
    return torch.from_numpy(np.concatenate([nothing, *columns], 1))


def one_by_one(label: np.ndarray, classes: int, multilabel: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(class, whether each node has it [N]), one class after the other; label: [N], or [N, C] where multilabel."""
    return enumerate(label.T if multilabel else [label == k for k in range(classes)])


def log_odds(has: np.ndarray) -> float:
    """Of the frequency of a class, as if half a node more had it and half a node more had not."""
    share = (has.sum() + 0.5) / (len(has) + 1.0)
    return float(np.log(share / (1.0 - share)))
