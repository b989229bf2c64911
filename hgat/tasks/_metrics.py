"""Scores of node classification, all in percent, by scikit-learn."""

from typing import Any

import numpy as np
import torch
from sklearn import metrics
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from hgat.errors import RecipeError

__all__ = ["knn_micro_f1", "names", "score"]

NEAREST = 5  # neighbours of an embedding


def _predicted(logits, multilabel):
    return (logits > 0).astype(int) if multilabel else logits.argmax(1)


def accuracy(logits, label, multilabel):
    """Share of nodes whose class, or whose whole set of labels, is right."""
    return metrics.accuracy_score(label, _predicted(logits, multilabel))


def macro_f1(logits, label, multilabel):
    """F1 averaged over classes: all of them where labels are sets, else those that occur or are predicted."""
    return metrics.f1_score(label, _predicted(logits, multilabel), average="macro", zero_division=0)


def micro_f1(logits, label, multilabel):
    """F1 over all decisions; the accuracy where each node has one class."""
    return metrics.f1_score(label, _predicted(logits, multilabel), average="micro", zero_division=0)


def average_precision(logits, label, multilabel):
    """Area under the precision-recall curve, one class against the rest, mean over the classes that occur."""
    truth, ranks = _one_against_rest(logits, label, multilabel)
    counted = truth.any(0)
    if not counted.any():
        raise RecipeError(f"train.metric: average_precision: expected a node with a label, got none of {len(truth)}")
    return np.mean([metrics.average_precision_score(truth[:, c], ranks[:, c]) for c in counted.nonzero()[0]])


def auc(logits, label, multilabel):
    """Area under the ROC curve, one class against the rest.

    Averaged over the classes that some nodes have and others do not.
    """
    truth, ranks = _one_against_rest(logits, label, multilabel)
    counted = truth.any(0) & ~truth.all(0)
    if not counted.any():
        raise RecipeError(
            "train.metric: auc: expected a class that some nodes have and others do not, "
            f"got none among {len(truth)} nodes"
        )
    return np.mean([metrics.roc_auc_score(truth[:, c], ranks[:, c]) for c in counted.nonzero()[0]])


def _one_against_rest(logits, label, multilabel):
    """(truth [N, C], what orders the nodes by how probable each class is, [N, C])."""
    if multilabel:
        return label, logits
    # Two nodes' logits do not compare, as adding a number to all of a node's changes nothing; log odds do.
    # Unlike probabilities they keep apart what would round to 1.
    logits = torch.from_numpy(logits).double()
    rest = [torch.cat([logits[:, :c], logits[:, c + 1 :]], 1).logsumexp(1) for c in range(logits.shape[1])]
    return np.eye(logits.shape[1], dtype=int)[label], (logits - torch.stack(rest, 1)).nan_to_num().numpy()


_METRICS = {f.__name__: f for f in (accuracy, macro_f1, micro_f1, average_precision, auc)}


def names() -> list[str]:
    """The metrics that a recipe may name."""
    return list(_METRICS)


def score(metric: str, logits: Any, label: Any, multilabel: bool = False) -> float:
    """The metric of `logits` [N, C] against `label` [N] or [N, C], in percent.

    Raises RecipeError for an unknown metric, and where these nodes leave it undefined.
    """
    if metric not in _METRICS:
        raise RecipeError(f"train.metric: expected one of {', '.join(names())}, got {metric!r}")
    logits, label = (
        torch.as_tensor(logits).detach().cpu().float().numpy(),
        torch.as_tensor(label).cpu().numpy(),
    )
    return 100.0 * float(_METRICS[metric](logits, label.astype(int), multilabel))


def knn_micro_f1(embedding: np.ndarray, label: np.ndarray, share: float, repeats: int = 10) -> float:
    """HAN's protocol: micro-F1 in percent of 5 nearest neighbours fitted on a share of frozen embeddings.

    embedding [N, F] and label [N] of the test nodes alone; `share` of them, drawn at random, fits the classifier and
    the rest is scored, `repeats` times. It reads test labels, so it compares embeddings and selects nothing.
    Raises RecipeError where the share is fewer than those.
    Paper: Wang et al. 2019, arXiv:1903.07293, section 5.3.
    """
    if not NEAREST <= int(share * len(label)) < len(label):
        got = f"{share} of {len(label)}"
        raise RecipeError(f"train.knn_share: expected a share of {NEAREST} test nodes or more, got {got}")
    found = []
    for seed in range(repeats):
        fit, rest, fit_label, rest_label = train_test_split(embedding, label, train_size=share, random_state=seed)
        model = KNeighborsClassifier(NEAREST).fit(fit, fit_label)
        if label.ndim == 2:  # whole sets would be compared
            found.append(metrics.f1_score(rest_label, model.predict(rest), average="micro", zero_division=0))
        else:
            found.append(model.score(rest, rest_label))
    return 100.0 * float(np.mean(found))
