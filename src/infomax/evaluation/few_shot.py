"""Accuracy with a few labels for each class, averaged over draws of which images have them."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

import torch
from scipy.stats import t as student

from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.representations import Features
from infomax.evaluation.scores import top_k


def few_shot_scores(
    features: Features, per_class: int, *, draws: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[dict[str, Any]]:
    """A row for k-NN and one for a linear classifier: the mean top-1 accuracy over ``draws`` random choices of
    ``per_class`` labelled images of each class, all of a smaller one, and the mean's 95 % interval (Student's t).

    The choices depend on ``seed`` and the labels alone, so that representations are compared on the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {"knn": [], "linear": []}
    test = features.test.to(device).float()
    for _ in range(draws):
        order = torch.randperm(len(features.train_labels), generator=generator)
        sorted_labels, by_class = features.train_labels[order].sort(stable=True)
        first = torch.searchsorted(sorted_labels, sorted_labels)  # where its class begins
        chosen = order[by_class[torch.arange(len(order)) - first < per_class]]
        bank, labels = features.train[chosen].to(device).float(), features.train_labels[chosen].to(device)
        scores = knn_scores(bank, labels, test, classes=features.classes)
        found["knn"].append(top_k(scores.cpu(), features.test_labels))
        scores, _ = linear_scores(bank, labels, test, classes=features.classes)
        found["linear"].append(top_k(scores.cpu(), features.test_labels))
    for classifier, accuracies in found.items():
        values = torch.tensor(accuracies, dtype=torch.float64)
        mean, half = float(values.mean()), 0.0
        if draws > 1:
            half = float(values.std() / sqrt(draws) * student.ppf(0.975, draws - 1))
        yield {
            "classifier": classifier,
            "labels_per_class": per_class,
            "labelled_images": len(chosen),  # pyrefly: ignore[unbound-name]
            "metric": "top1",
            "top1": mean,
            "interval": (mean - half, mean + half),
        }
