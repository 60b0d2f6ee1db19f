"""Fits the linear classifier: logistic regression whose penalty and temperature are chosen on held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.classifying.calibration import fit_temperature, smoothed_loss
from infomax.evaluation.linear import FEW_PENALTY, PENALTIES, RADIUS
from infomax.evaluation.logistic import logistic_path
from infomax.runtime.progress import ProgressBar

FOLDS = 5
MOST_IN_FOLDS = 20_000
"""Images up to which each is held out once; of more, a fifth is."""
Plane = tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]
"""Weights and biases for features as they are."""


@dataclass(frozen=True)
class HeldOut:
    """A frozen dataclass that holds what a classifier says of images that it was not fitted on."""

    rows: Int[np.ndarray, " h"]
    """Numbers of the images among all."""
    logits: Float[Tensor, "h c"]
    labels: Int[Tensor, " h"]


@dataclass(frozen=True)
class Solution:
    """A frozen dataclass that holds a linear classifier and how it was chosen."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    penalty: float
    temperature: float | None
    """None if no image could be held out."""
    folds: int
    """Number of classifiers that were fitted on a part of the images."""
    held_out: HeldOut | None


def assign_folds(labels: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Returns the fold in which each image is held out, from 0 to 4, each with a fifth of each class.

    The only image of a class is never held out: it gets -1.
    """
    folds, rng = np.full(len(labels), -1), np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            # Small classes do not all begin with the same fold, which would then have more images than the others.
            folds[rows] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
    return folds


def held_out_folds(labels: Int[np.ndarray, " n"], seed: int) -> list[Int[np.ndarray, " m"]]:
    """Returns the numbers of the images of each fold that is held out: of five folds, or of one if there are many."""
    folds = assign_folds(labels, seed)
    used = range(FOLDS if len(labels) <= MOST_IN_FOLDS else 1)
    return [rows for fold in used if len(rows := np.flatnonzero(folds == fold))]


def solve(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    classes: int,
    penalty: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    quiet: bool = True,
) -> Solution:
    """Fits a linear classifier to features.

    Five times a classifier is fitted on four fifths of the images, for each of five penalties, and gives the logits of
    the last fifth. So each image is held out once. The penalty whose logits have the least loss, each at its own
    temperature, is taken with that temperature, and the classifier is then fitted on all images.

    Args:
        features: Features of the images.
        labels: Their classes.
        classes: Number of classes, each of which has an image.
        penalty: Penalty on half the squared weights, beside the mean cross-entropy; None chooses one.
        seed: Seed by which images are held out.
        device: Where the classifiers are fitted; all else is on the CPU.
        quiet: Show no progress bar.
    """
    penalties = PENALTIES if penalty is None else (penalty,)
    folds = held_out_folds(labels.numpy(), seed)
    given, targets = features.to(device), labels.to(device)
    if not folds:
        chosen = FEW_PENALTY if penalty is None else penalty
        return Solution(*fit_planes(given, targets, classes, [chosen])[0], chosen, None, 0, None)
    parts: list[tuple[np.ndarray, list[Tensor]]] = []
    with ProgressBar("classifiers", len(folds) + 1, unit="fits", quiet=quiet) as bar:
        for rows in folds:
            rest = torch.ones(len(labels), dtype=torch.bool, device=device)
            rest[torch.from_numpy(rows)] = False
            planes = fit_planes(given[rest], targets[rest], classes, penalties)
            parts.append((rows, [features[rows] @ weight.T + bias for weight, bias in planes]))
            bar.update()
        rows = np.concatenate([rows for rows, _ in parts])
        held_labels = labels[rows]
        logits = [torch.cat([own[number] for _, own in parts]) for number in range(len(penalties))]
        temperatures = [fit_temperature(z, held_labels) for z in logits]
        losses = [smoothed_loss(z, held_labels, t) for z, t in zip(logits, temperatures, strict=True)]
        best = int(np.argmin(losses))
        plane = fit_planes(given, targets, classes, [penalties[best]])[0]
        bar.update()
    held_out = HeldOut(rows, logits[best], held_labels)
    return Solution(*plane, penalties[best], temperatures[best], len(folds), held_out)


def fit_planes(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, penalties: Sequence[float]
) -> list[Plane]:
    """Returns the exact solution of logistic regression for each penalty, in float32 on the CPU.

    The features are centred and scaled by one number, as :func:`infomax.evaluation.linear.linear_scores` does.
    """
    x = features.float()
    mean = x.mean(0)
    scale = RADIUS / (x - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    path = logistic_path((x - mean) * scale, labels, classes=classes, penalties=[p * len(x) for p in penalties])
    planes = []
    for fit in path:
        weight = fit.weight.double() * scale.double()
        bias: Any = fit.bias.double() - weight @ mean.double()
        planes.append((weight.float().cpu(), bias.float().cpu()))
    return planes
