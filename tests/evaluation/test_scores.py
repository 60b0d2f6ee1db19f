"""Compares metrics and their intervals with independent computations."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from infomax.evaluation.knn_vote import rank_voted, vote
from infomax.evaluation.scores import average_precision, hits, interval, judge, mean_per_class, top_k


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


def test_a_class_without_a_finite_score_is_never_among_the_highest():
    scores = torch.tensor([[1.0, -torch.inf, torch.nan]] * 3)
    labels = torch.tensor([0, 1, 2])
    for k in (1, 2, 3, 5):
        assert hits(scores, labels, k).tolist() == [True, False, False]
    assert not hits(torch.full((1, 3), torch.nan), torch.tensor([0])).any()  # a diverged classifier hits nothing


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (3, 0.07), (20, 0.07), (20, 1e-4)])
def test_only_classes_among_the_neighbours_count_in_top5(k, temperature):
    """Compares with a plain count: among the top five are the classes of the k nearest, the heaviest votes first."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (100, 50))
    labels, true_labels = (torch.randint(10, (n,), generator=generator) for n in (100, 50))
    similarity = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(bank).T
    expected = []
    for row, true in zip(similarity, true_labels.tolist(), strict=True):
        nearest = row.argsort(descending=True)[:k].tolist()
        votes: dict[int, float] = {}
        for i in nearest:
            votes.setdefault(int(labels[i]), 0.0)
            votes[int(labels[i])] += float(torch.exp((row[i] - row.max()) / temperature))
        expected.append(true in sorted(votes, key=lambda c: -votes[c])[:5])
    votes = vote(*similarity.topk(k), labels, classes=10, k=k, temperature=temperature)
    row = judge(rank_voted(votes), true_labels)
    assert row["top5"] == pytest.approx(np.mean(expected))
    if k == 1:
        assert row["top5"] == row["top1"]
