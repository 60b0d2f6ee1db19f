"""Calibrates probabilities by a temperature, and measures how well they are calibrated."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

BINS = 15
LOWEST, HIGHEST = 1e-3, 1e3
"""Limits of a temperature."""
HALVINGS = 60


def calibrated(logits: Float[Tensor, "n c"], temperature: float | None) -> Float[Tensor, "n c"]:
    """Returns the probabilities of the classes; without a temperature, those of the logits as they are."""
    return (logits.double() / (temperature or 1.0)).softmax(1)


def smoothed_loss(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], temperature: float) -> float:
    """Returns the mean cross-entropy at a temperature, if one image more had every class equally.

    That image's weight is spread over all images. Without it the best temperature would be 0 if no image is classified
    wrongly, and every probability 1.
    """
    log_p = F.log_softmax(logits.double() / temperature, dim=1)
    total = F.nll_loss(log_p, labels, reduction="sum") - log_p.mean()
    return float(total) / (len(logits) + 1)


def fit_temperature(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """Returns the temperature with the least :func:`smoothed_loss` (Guo et al. 2017).

    The loss is convex in the inverse of the temperature, and its derivative rises with it: the mean logit under the
    probabilities minus that of the label. The place where it is 0 is found by halving.

    Args:
        logits: Logits of images that the classifier was not fitted on.
        labels: Their classes.
    """
    z = logits.double()
    z = z - z.mean(1, keepdim=True)  # so that the mean logit of the image of every class is 0
    own = float(z.gather(1, labels[:, None]).sum())

    def slope(inverse: float) -> float:
        return (1 + 1 / len(z)) * float((z * (z * inverse).softmax(1)).sum()) - own

    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


@dataclass(frozen=True)
class CalibrationBin:
    """A frozen dataclass that holds the images of one bin of probabilities."""

    low: float
    high: float
    """The highest probability of an image of this bin is from ``low`` to below ``high``, or to 1."""
    images: int
    mean_probability: float
    accuracy: float
    """Share of the images that is right."""


def calibration_bins(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> list[CalibrationBin]:
    """Returns the bins of :func:`calibration_error` that have images, from the lowest probability to the highest.

    Args:
        probabilities: Probabilities of the classes for each image.
        labels: The class of each image.
    """
    confidence, chosen = probabilities.double().max(1)
    right = (chosen == labels).double().numpy()
    place = _bin_of(confidence.numpy())
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights=values, minlength=BINS) for values in (confidence.numpy(), right)]
    return [
        CalibrationBin(i / BINS, (i + 1) / BINS, int(count), float(sums[0][i] / count), float(sums[1][i] / count))
        for i, count in enumerate(counts)
        if count
    ]


def _bin_of(confidence: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns the number of each image's bin."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """Returns the expected calibration error: how far the highest probability is from the share that is right.

    Images are put into 15 bins of equal width by their highest probability; the bins' differences are averaged, each
    weighted by its images (Guo et al. 2017).
    """
    confidence, chosen = probabilities.double().max(1)
    right = (chosen == labels).double().numpy()
    place = _bin_of(confidence.numpy())
    sums = [np.bincount(place, weights=values, minlength=BINS) for values in (confidence.numpy(), right)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(right))
