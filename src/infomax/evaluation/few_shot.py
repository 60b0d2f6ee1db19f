"""Few-shot classification: accuracy with a few labels of each class, averaged over draws of the labelled images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from infomax.evaluation.intervals import at_least_of_a_share, half_interval, share_interval
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.paired import pack_draws
from infomax.evaluation.representations import Features
from infomax.evaluation.scores import hits
from infomax.runtime.stages import Stage


def few_shot_scores(
    features: Features, per_class: int, *, draws: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[dict[str, Any]]:
    """Yields the accuracy of k-NN, then that of a linear classifier, with a few labelled images of each class.

    The accuracy is the mean top-1 accuracy over random choices of the labelled images, with the 95 % interval of
    :func:`drawn_interval` over these choices and the test images. The choices depend on
    ``seed`` and the labels alone, so that representations are compared on the same ones.

    Args:
        features: Features and labels.
        per_class: Labelled images of each class; all of a smaller class.
        draws: Number of random choices.
        seed: Seed of the choices.
        device: Device to compute on.
    """
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, list[np.ndarray]] = {"knn": [], "linear": []}
    test = features.test.to(device).float()
    task = f"few-shot, {features.name}: {draws} draws of {per_class} label{'s' * (per_class != 1)} a class"
    with Stage(task, slow_only=True):
        for _ in range(draws):
            order = torch.randperm(len(features.train_labels), generator=generator)
            sorted_labels, by_class = features.train_labels[order].sort(stable=True)
            first = torch.searchsorted(sorted_labels, sorted_labels)  # where its class begins
            chosen = order[by_class[torch.arange(len(order)) - first < per_class]]
            bank, labels = features.train[chosen].to(device).float(), features.train_labels[chosen].to(device)
            scores = knn_scores(bank, labels, test, classes=features.classes)
            right["knn"].append(hits(scores.cpu(), features.test_labels).numpy())
            scores, _ = linear_scores(bank, labels, test, classes=features.classes)
            right["linear"].append(hits(scores.cpu(), features.test_labels).numpy())
    for classifier, drawn in right.items():
        of_draws = np.stack(drawn).astype(bool)
        mean = float(of_draws.mean())
        yield {
            "classifier": classifier,
            "labels_per_class": per_class,
            "labelled_images": len(chosen),  # pyrefly: ignore[unbound-name]
            "metric": "top1",
            "top1": mean,
            "interval": drawn_interval(of_draws),
            "hits": pack_draws(of_draws),
        }


def drawn_interval(right: Bool[np.ndarray, "draws n"]) -> tuple[float, float]:
    """Computes the 95 % interval of the mean accuracy over draws of the labelled images on one test set.

    It is that of :func:`infomax.evaluation.intervals.half_interval`, but no narrower than that of an accuracy of the
    same value over as many test images; with one draw it is the latter.

    Args:
        right: Whether each test image is right with each draw.
    """
    if len(right) == 1:
        return share_interval(right[0])
    mean, half = float(right.mean()), half_interval(right.mean(1), right.mean(0))
    return at_least_of_a_share(mean - half, mean + half, mean, right.shape[1])
