"""Classifiers of the cells of feature maps: logistic regression, and the vote of the nearest cells."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from infomax.evaluation.dense.confusion import class_counts, confusion_matrix, mean_iou
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import FEW_PENALTY, PENALTIES, RADIUS
from infomax.evaluation.logistic import logistic_path

HELD_OUT = 5
"""Every such training image is held out while the penalty is chosen."""


@dataclass(frozen=True)
class CellBank:
    """A frozen dataclass that holds the features of cells of training images, which are classified by."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    """Position of each cell's class."""
    images: Int[Tensor, " n"]
    """Index of the image that each cell belongs to."""


@dataclass(frozen=True)
class LinearCells:
    """A frozen dataclass that holds a linear classifier of cells: a layer of 1 x 1 cells on the feature map."""

    weight: Float[Tensor, "known d"]
    bias: Float[Tensor, " known"]
    classes: Int[Tensor, " known"]
    """Positions of the classes that were trained on."""

    def scores(self, cells: Float[Tensor, "m d"], classes: int) -> Float[Tensor, "m classes"]:
        """Returns the logits; those of classes that were not trained on are lower than all others."""
        logits = cells @ self.weight.T + self.bias
        full = logits.min().expand(len(cells), classes) - 1
        return full.index_copy(1, self.classes, logits)


@dataclass(frozen=True)
class KnnCells:
    """A frozen dataclass that holds a bank of cells, whose nearest vote by :func:`infomax.evaluation.knn_vote.vote`."""

    bank: CellBank
    k: int
    temperature: float

    def scores(self, cells: Float[Tensor, "m d"], classes: int) -> Float[Tensor, "m classes"]:
        """Returns each class's share of the vote."""
        votes = knn_scores(
            self.bank.features, self.bank.labels, cells, classes=classes, k=self.k, temperature=self.temperature
        )
        return votes / votes.sum(1, keepdim=True)


def fit_linear(bank: CellBank, classes: int) -> tuple[LinearCells, float]:
    """Fits logistic regression to a bank.

    The penalty is the one with the best mean IoU at the cells of every fifth image, and 0.01 if there are fewer than
    five images. Features are centred and scaled as by :func:`infomax.evaluation.linear.linear_scores`.

    Args:
        bank: The cells.
        classes: Number of classes, some of which the bank may lack.

    Returns:
        The classifier of features as they are, and the penalty.
    """
    mean = bank.features.mean(0)
    scale = RADIUS / (bank.features - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    x = (bank.features - mean) * scale
    penalty = _choose_penalty(x, bank, classes)
    (fitted,) = _fit(x, bank.labels, [penalty])
    weight = fitted.weight * scale
    return LinearCells(weight, fitted.bias - weight @ mean, fitted.classes), penalty


def _choose_penalty(x: Tensor, bank: CellBank, classes: int) -> float:
    """Returns the penalty that does best on every fifth image."""
    _, order = bank.images.unique(return_inverse=True)
    held_out = order % HELD_OUT == HELD_OUT - 1
    if not held_out.any():  # nothing to choose by
        return FEW_PENALTY
    true = bank.labels[held_out].cpu().numpy().astype(np.uint8)[None]
    scores = []
    for fitted in _fit(x[~held_out], bank.labels[~held_out], PENALTIES):
        predicted = fitted.scores(x[held_out], classes).argmax(1).cpu().numpy().astype(np.uint8)[None]
        scores.append(mean_iou(class_counts(confusion_matrix(true, predicted, classes))))
    return PENALTIES[scores.index(max(scores))]


def _fit(x: Tensor, labels: Tensor, penalties: list[float] | tuple[float, ...]) -> list[LinearCells]:
    """Fits logistic regression for each penalty to the classes that are there."""
    known, of_known = labels.unique(return_inverse=True)
    if len(known) == 1:  # nothing to tell apart
        return [LinearCells(x.new_zeros(1, x.shape[1]), x.new_zeros(1), known) for _ in penalties]
    path = logistic_path(x, of_known, classes=len(known), penalties=[p * len(x) for p in penalties])
    return [LinearCells(fit.weight.to(x), fit.bias.to(x), known) for fit in path]
