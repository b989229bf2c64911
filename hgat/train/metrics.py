"""Scores of node classification, all in percent, by scikit-learn."""

import numpy as np
import torch
from sklearn import metrics

from hgat.errors import RecipeError

__all__ = ["names", "score"]


def _predicted(logits, multilabel):
    return (logits > 0).astype(int) if multilabel else logits.argmax(1)


def accuracy(logits, label, multilabel):
    """Share of nodes whose class, or whose whole set of labels, is right."""
    return metrics.accuracy_score(label, _predicted(logits, multilabel))


def macro_f1(logits, label, multilabel):
    """F1 averaged over classes."""
    return metrics.f1_score(label, _predicted(logits, multilabel), average="macro", zero_division=0)


def micro_f1(logits, label, multilabel):
    """F1 over all decisions; the accuracy where each node has one class."""
    return metrics.f1_score(label, _predicted(logits, multilabel), average="micro", zero_division=0)


def _one_hot(label, multilabel, classes):
    return label if multilabel else np.eye(classes, dtype=int)[label]


def average_precision(logits, label, multilabel):
    """Area under the precision-recall curve, averaged over the classes that occur."""
    truth = _one_hot(label, multilabel, logits.shape[1])
    present = truth.any(0)
    return metrics.average_precision_score(truth[:, present], logits[:, present], average="macro")


def auc(logits, label, multilabel):
    """Area under the ROC curve, averaged over the classes that occur and do not cover all nodes."""
    truth = _one_hot(label, multilabel, logits.shape[1])
    present = truth.any(0) & ~truth.all(0)
    return metrics.roc_auc_score(truth[:, present], logits[:, present], average="macro")


_METRICS = {f.__name__: f for f in (accuracy, macro_f1, micro_f1, average_precision, auc)}


def names():
    """The metrics that a recipe may name."""
    return list(_METRICS)


def score(metric, logits, label, multilabel=False):
    """The metric of `logits` [N, C] against `label` [N] or [N, C], in percent. Raises RecipeError for an unknown one."""
    if metric not in _METRICS:
        raise RecipeError(f"metric: expected one of {names()}, got {metric!r}")
    logits, label = torch.as_tensor(logits).detach().cpu().float().numpy(), torch.as_tensor(label).cpu().numpy()
    return 100.0 * float(_METRICS[metric](logits, label.astype(int), multilabel))
