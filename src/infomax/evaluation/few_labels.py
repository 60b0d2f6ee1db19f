"""Accuracy with a few labels for each class, averaged over draws of which images have them."""

import torch

from infomax.evaluation.features import Features
from infomax.evaluation.knn import knn_scores
from infomax.evaluation.linear import linear_scores
from infomax.evaluation.scores import top_k


def few_label_accuracy(features: Features, per_class: int, *, draws: int, seed: int = 0) -> tuple[float, float]:
    """Top-1 accuracy of k-NN and of a linear classifier, the mean over ``draws`` random choices of labelled images.

    The choices depend on ``seed`` and the labels alone, so that representations are compared on the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    knn, linear = [], []
    for _ in range(draws):
        order = torch.randperm(len(features.train_labels), generator=generator)
        shuffled = features.train_labels[order]
        chosen = torch.cat([order[shuffled == label][:per_class] for label in range(features.classes)])
        bank, labels = features.train[chosen], features.train_labels[chosen]
        scores = knn_scores(bank, labels, features.test, classes=features.classes)
        knn.append(top_k(scores, features.test_labels))
        scores, _ = linear_scores(bank, labels, features.test, classes=features.classes)
        linear.append(top_k(scores, features.test_labels))
    return sum(knn) / draws, sum(linear) / draws
