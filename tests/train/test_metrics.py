"""Every metric against a formula written out by hand; nothing here calls scikit-learn."""

import math

import numpy as np
import pytest
import torch

from hgat.errors import RecipeError
from hgat.tasks._metrics import knn_micro_f1, names, score

CLASSES = 4
# Class 3 does not occur, class 2 is never predicted.
LABEL = [0, 0, 0, 1, 1, 2, 0]


def multiclass():
    logits = torch.randn(len(LABEL), CLASSES, generator=torch.Generator().manual_seed(3))
    logits[:, 2] -= 9
    logits[1, 3] += 9
    return logits, torch.tensor(LABEL)


def multilabel():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(11, CLASSES, generator=generator)
    label = (torch.rand(11, CLASSES, generator=generator) < 0.4).float()
    label[:, 3] = 0
    label[2] = (logits[2] > 0).float() * torch.tensor([1.0, 1, 1, 0])
    logits[2, 3] = -1
    return logits, label


def f1(truth, guess):
    """F1 of two lists of booleans; 0 where it is undefined."""
    both = sum(t and g for t, g in zip(truth, guess, strict=True))
    return 2 * both / (sum(truth) + sum(guess)) if sum(truth) + sum(guess) else 0.0


def column(matrix, c):
    return [bool(row[c] > 0) for row in matrix.tolist()]


def softmax(row):
    power = [math.exp(x - max(row)) for x in row]
    return [p / sum(power) for p in power]


def area_roc(truth, rank):
    """The share of pairs of a positive and a negative in the right order, ties counted half."""
    pairs = [(a, b) for a, t in zip(rank, truth, strict=True) if t for b, u in zip(rank, truth, strict=True) if not u]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def area_precision(truth, rank):
    """Precision at each threshold, weighted by the recall that it adds."""
    total, area, seen = sum(truth), 0.0, 0.0
    for threshold in sorted(set(rank), reverse=True):
        above = [t for t, r in zip(truth, rank, strict=True) if r >= threshold]
        area += (sum(above) / total - seen) * sum(above) / len(above)
        seen = sum(above) / total
    return area


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_the_cases_are_what_they_are_meant_to_be():
    logits, label = multiclass()
    assert 3 in logits.argmax(1) and 2 not in logits.argmax(1) and 3 not in label
    logits, label = multilabel()
    assert 0 < score("accuracy", logits, label, True) < 100 and label[:, 3].sum() == 0 and (logits[:, 3] > 0).any()


def test_accuracy():
    logits, label = multiclass()
    right = [max(range(CLASSES), key=row.__getitem__) == c for row, c in zip(logits.tolist(), LABEL, strict=True)]
    assert score("accuracy", logits, label) == pytest.approx(100 * mean(right))
    logits, label = multilabel()
    right = [
        [x > 0 for x in row] == [y > 0 for y in true] for row, true in zip(logits.tolist(), label.tolist(), strict=True)
    ]
    assert score("accuracy", logits, label, True) == pytest.approx(100 * mean(right))


def test_micro_f1():
    logits, label = multiclass()
    assert score("micro_f1", logits, label) == pytest.approx(score("accuracy", logits, label))
    logits, label = multilabel()
    truth, guess = ([x > 0 for row in m.tolist() for x in row] for m in (label, logits))
    assert score("micro_f1", logits, label, True) == pytest.approx(100 * f1(truth, guess))


def test_macro_f1():
    """Class 3 counts because it is predicted; with sets of labels every class counts."""
    logits, label = multiclass()
    guess = logits.argmax(1).tolist()
    each = [f1([c == t for t in LABEL], [c == g for g in guess]) for c in range(CLASSES)]
    assert each[2] == each[3] == 0
    assert score("macro_f1", logits, label) == pytest.approx(100 * mean(each))
    logits[:, 3] = -99  # now class 3 neither occurs nor is predicted
    each = [f1([c == t for t in LABEL], [c == g for g in logits.argmax(1).tolist()]) for c in range(3)]
    assert score("macro_f1", logits, label) == pytest.approx(100 * mean(each))
    logits, label = multilabel()
    each = [f1(column(label, c), column(logits, c)) for c in range(CLASSES)]
    assert score("macro_f1", logits, label, True) == pytest.approx(100 * mean(each))


@pytest.mark.parametrize("metric, area", [("auc", area_roc), ("average_precision", area_precision)])
def test_areas(metric, area):
    """One class against the rest; a class that does not occur does not count."""
    logits, label = multiclass()
    probability = [softmax(row) for row in logits.tolist()]
    each = [area([c == t for t in LABEL], [p[c] for p in probability]) for c in range(3)]
    assert score(metric, logits, label) == pytest.approx(100 * mean(each))
    logits, label = multilabel()
    each = [area(column(label, c), [row[c] for row in logits.tolist()]) for c in range(3)]
    assert score(metric, logits, label, True) == pytest.approx(100 * mean(each))


@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_areas_count_ties_by_half_and_keep_sure_predictions_apart(metric):
    label = torch.tensor([1, 0, 1, 0])
    area = area_roc if metric == "auc" else area_precision
    rank = [1.0, 1.0, 2.0, 0.0]
    logits = torch.stack([torch.zeros(4), torch.tensor(rank)], 1)
    other = area([c == 0 for c in label], [-r for r in rank])
    expected = 100 * mean([area([c == 1 for c in label], rank), other])
    assert score(metric, logits, label) == pytest.approx(expected)
    # Probabilities that all round to 1, in the right order.
    logits = torch.stack([torch.zeros(4), torch.tensor([80.0, 60.0, 90.0, 70.0])], 1)
    label = torch.tensor([1, 0, 1, 0])
    assert score(metric, logits, label) == pytest.approx(100.0)


@pytest.mark.parametrize("metric", names())
def test_a_number_added_to_all_logits_of_a_node_changes_nothing(metric):
    """The predicted probabilities stay the same, so every score must."""
    logits, label = multiclass()
    shift = torch.linspace(-7, 7, len(LABEL))[:, None]
    assert score(metric, logits + shift, label) == pytest.approx(score(metric, logits, label))


@pytest.mark.parametrize("metric", names())
def test_a_perfect_and_a_permuted_prediction(metric):
    _, label = multiclass()
    perfect = 8 * torch.eye(CLASSES)[label]
    assert score(metric, perfect, label) == pytest.approx(100.0)
    order = torch.randperm(len(label))
    logits, label = multiclass()
    assert score(metric, logits[order], label[order]) == pytest.approx(score(metric, logits, label))
    logits, label = multilabel()
    assert score(metric, logits.double(), label.tolist(), True) == pytest.approx(score(metric, logits, label, True))


def test_areas_with_one_class_only():
    logits = torch.randn(5, 3)
    label = torch.ones(5, dtype=torch.int64)
    with pytest.raises(RecipeError, match="auc: expected a class that some nodes have and others do not, .* 5 nodes"):
        score("auc", logits, label)
    assert score("average_precision", logits, label) == pytest.approx(100.0)
    for label in (torch.ones(5, 3), torch.zeros(5, 3)):
        with pytest.raises(RecipeError, match="auc: expected a class that some nodes have and others do not"):
            score("auc", logits, label, True)
    assert score("average_precision", logits, torch.ones(5, 3), True) == pytest.approx(100.0)
    with pytest.raises(RecipeError, match="average_precision: expected a node with a label, got none of 5"):
        score("average_precision", logits, torch.zeros(5, 3), True)


def test_counts_without_any_label_are_zero():
    logits = -torch.ones(5, 3)
    assert score("micro_f1", logits, torch.zeros(5, 3), True) == 0.0
    assert score("macro_f1", logits, torch.zeros(5, 3), True) == 0.0
    assert score("accuracy", logits, torch.zeros(5, 3), True) == 100.0


def test_one_node():
    assert score("accuracy", torch.tensor([[0.0, 1.0]]), torch.tensor([1])) == 100.0
    assert score("macro_f1", torch.tensor([[0.0, 1.0]]), torch.tensor([0])) == 0.0


def test_an_unknown_metric():
    with pytest.raises(RecipeError, match="train.metric: expected one of accuracy, .*auc, got 'acc'"):
        score("acc", torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))


def test_low_precision_and_gradients_do_not_matter():
    logits, label = multiclass()
    for other in (logits.bfloat16(), logits.half(), logits.clone().requires_grad_()):
        assert score("accuracy", other, label) == score("accuracy", logits, label)


@pytest.mark.parametrize("share", [0.0001, 0.07, 2.0])
def test_a_share_that_leaves_too_few_to_fit_or_to_score(share):
    with pytest.raises(RecipeError, match=f"train.knn_share: expected a share of 5 .*, got {share} of 62"):
        knn_micro_f1(np.zeros((62, 2)), np.zeros(62, int), share)


def test_knn_protocol_against_a_hand_made_case():
    """Two far clusters whose labels are right: 100; labels drawn at random: about half."""
    torch.manual_seed(3)
    near = torch.cat([torch.randn(31, 2), torch.randn(31, 2) + 50]).numpy()
    label = np.repeat([0, 1], 31)
    assert knn_micro_f1(near, label, 0.2) == 100.0
    mixed = knn_micro_f1(near, np.random.default_rng(0).integers(0, 2, 62), 0.2)
    assert 30 < mixed < 70


def test_knn_of_sets_of_labels_counts_decisions_and_not_whole_sets():
    """Two labels a node, of which the neighbours tell one: half of the decisions of the other are a toss."""
    random = np.random.default_rng(0)
    told = np.arange(200) % 2
    label = np.stack([told, random.integers(0, 2, 200), np.zeros(200, int)], 1)
    near = told[:, None] + 0.01 * random.standard_normal((200, 1))
    whole = np.mean([label[:, 1].mean(), 1 - label[:, 1].mean()])  # what guessing whole sets would be worth
    found = knn_micro_f1(near, label, 0.3)
    assert 100 * whole + 10 < found < 100
