"""Compares metrics and their intervals with independent computations."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from infomax.evaluation.scores import average_precision, interval, judge, mean_per_class, top_k


def test_mean_per_class_is_the_mean_of_recalls():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(5, size=200), rng.integers(5, size=200)
    labels[labels == 3] = predicted[predicted == 3] = 2  # a class without a row
    expected = balanced_accuracy_score(labels, predicted)
    assert mean_per_class(labels == predicted, labels) == pytest.approx(expected, abs=1e-12)


def eleven_points(scores, positive):
    """Computes VOC2007's average precision by its definition, threshold by threshold."""
    precision, recall = [], []
    for threshold in np.unique(scores):
        taken = scores >= threshold
        precision.append(positive[taken].mean())
        recall.append(positive[taken].sum() / positive.sum())
    precision, recall = np.array(precision), np.array(recall)
    best = [precision[recall >= t - 1e-12].max(initial=0) for t in np.linspace(0, 1, 11)]
    return np.mean(best)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_by_its_definition(seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.normal(size=60).round(1), rng.random(60) < 0.2  # rounded, so that many are equal
    assert average_precision(scores, positive) == pytest.approx(eleven_points(scores, positive), abs=1e-12)


def test_average_precision_of_a_perfect_a_reversed_and_an_absent_class():
    positive = np.array([1, 1, 0, 0, 0, 0], bool)
    assert average_precision(np.arange(6)[::-1].astype(float), positive) == 1.0
    assert average_precision(np.arange(6).astype(float), positive) == pytest.approx(2 / 6)  # 1/5 at half the recall
    assert average_precision(np.arange(6.0), np.zeros(6, bool)) == 0.0


def test_the_interval_is_that_of_a_binomial_share():
    """The share of hits in 400 rows with a probability of 30 % has a standard error of 2.29 %."""
    hit = np.arange(400) < 120
    low, high = interval(lambda rows: float(hit[rows].mean()), 400)
    assert low == pytest.approx(0.3 - 1.96 * 0.0229, abs=0.005)
    assert high == pytest.approx(0.3 + 1.96 * 0.0229, abs=0.005)
    assert interval(lambda rows: float(hit[rows].mean()), 400) == (low, high)


def test_judge_returns_the_fields_of_each_metric():
    scores = torch.tensor([[3.0, 1, 0], [0, 2, 1], [1, 2, 0], [0, 1, 2]])
    labels = torch.tensor([0, 1, 0, 2])
    row = judge(scores, labels)
    assert (row["metric"], row["top1"], row["top5"]) == ("top1", 0.75, 1.0)
    assert row["interval"][0] <= 0.75 <= row["interval"][1]
    row = judge(scores, labels, "mean_per_class")
    assert row["mean_per_class"] == pytest.approx((0.5 + 1 + 1) / 3)
    shown = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]])
    row = judge(scores, shown, "map11")
    by_definition = [eleven_points(scores[:, c].numpy(), shown[:, c].numpy().astype(bool)) for c in range(3)]
    assert row["map11"] == pytest.approx(np.mean(by_definition))
    assert row["map11"] > 0.5


def test_top_k_counts_and_breaks_ties_by_the_first_class():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.2], [0.0, 0.1, 0.9]])
    labels = torch.tensor([2, 0, 1])
    assert top_k(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k(scores, labels, 2) == 1.0
    assert top_k(scores, labels, 5) == 1.0
    assert top_k(scores, torch.tensor([2, 1, 1]), 1) == 0.0
