"""Counts which pixels of a mask get which class, and computes IoU and accuracy from the counts, all exact."""

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8

from infomax.evaluation.intervals import RESAMPLED, Difference, weighted_interval, weighted_sums

RIGHT, TRUE, PREDICTED = 0, 1, 2
"""What the rows of an image's counts are: pixels of a class that are right, that have the class, that are given it."""


def confusion_matrix(
    true: UInt8[np.ndarray, "h w"], predicted: UInt8[np.ndarray, "h w"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Counts the pixels of each true class, by rows, and predicted class, by columns.

    Args:
        true: Position of each pixel's class; pixels whose number is ``classes`` or more are not counted.
        predicted: Position of the class that each pixel is given.
        classes: Number of classes.

    Example:
        >>> import numpy as np
        >>> from infomax.evaluation.dense.confusion import confusion_matrix
        >>> true, predicted = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
        >>> confusion_matrix(true, predicted, 2).tolist()
        [[1, 1], [0, 1]]
    """
    counted = true < classes
    pairs = true[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_counts(matrix: Int[np.ndarray, "classes classes"]) -> Int[np.ndarray, "3 classes"]:
    """Returns what IoU needs of a confusion matrix; the counts of several images may be added."""
    return np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])


def iou(counts: Int[np.ndarray, "3 classes"] | Float[np.ndarray, "3 classes"]) -> Float[np.ndarray, " classes"]:
    """Returns the IoU of each class: right / (true + predicted - right); 0 for one that no pixel has or is given."""
    right, true, predicted = np.asarray(counts, float)
    union = true + predicted - right
    return right / np.where(union > 0, union, 1)


def occurring(counts: Int[np.ndarray, "3 classes"] | Float[np.ndarray, "3 classes"]) -> Bool[np.ndarray, " classes"]:
    """Returns whether each class has any pixel in the masks."""
    return np.asarray(counts[TRUE]) > 0


def mean_iou(counts: Int[np.ndarray, "3 classes"] | Float[np.ndarray, "3 classes"]) -> float:
    """Returns the mean IoU over the classes that occur in the masks; 0 if none does."""
    shown = occurring(counts)
    return float(iou(counts)[shown].mean()) if shown.any() else 0.0


def pixel_accuracy(counts: Int[np.ndarray, "3 classes"] | Float[np.ndarray, "3 classes"]) -> float:
    """Returns the share of the counted pixels that are right."""
    return float(counts[RIGHT].sum() / max(counts[TRUE].sum(), 1))


def mean_iou_interval(by_image: Int[np.ndarray, "n 3 classes"]) -> tuple[float, float] | None:
    """Returns the 95 % interval of the mean IoU over other images; None for a single one.

    Whole images get random weights, as :func:`infomax.evaluation.intervals.weighted_sums` says: of redrawn ones some
    would lack the rare classes, whose low IoU would be missing in the mean.
    """
    if len(by_image) < 2:
        return None
    return weighted_interval(_reweighted(by_image), len(by_image))


def compare_mean_ious(first: Int[np.ndarray, "n 3 classes"], second: Int[np.ndarray, "n 3 classes"]) -> Difference:
    """Compares two mean IoUs on the same images by the bootstrap of :func:`mean_iou_interval`.

    Both take the same weights of images. If both give each pixel the same class, nothing varies, and the interval is 0
    to 0.

    Args:
        first: The counts of each image by the result that is compared.
        second: Those by the one that it is compared with.

    Raises:
        ValueError: if there are fewer than two images, or two numbers of them.

    Example:
        >>> import numpy as np
        >>> from infomax.evaluation.dense.confusion import compare_mean_ious
        >>> better = np.tile([[6, 2], [8, 4], [9, 3]], (20, 1, 1))
        >>> worse = np.tile([[4, 2], [8, 4], [6, 6]], (20, 1, 1))
        >>> compare_mean_ious(better, worse).numbers
        '+14.8 (+14.8 to +14.8)'
    """
    if len(first) != len(second) or len(first) < 2:
        lengths = f"{len(first)} and {len(second)}"
        raise ValueError(f"images that are compared must be the same, at least two, but are {lengths}")
    low, high = weighted_interval(_reweighted(first) - _reweighted(second), len(first))
    return Difference(mean_iou(first.sum(0)) - mean_iou(second.sum(0)), low, high, RESAMPLED)


def image_values(by_image: Int[np.ndarray, "n 3 classes"]) -> Float[np.ndarray, " n"]:
    """Returns a value for each image, the mean of which is the mean IoU: how much the image moves it.

    A mean IoU is no mean over images. To first order it moves with the weight of an image as such a mean does, whose
    values are these: the mean IoU, plus the image's right pixels less IoU times its union, over the union of all images
    and averaged over the classes, times the number of images.

    Args:
        by_image: The counts of each image.
    """
    counts = by_image.sum(0).astype(float)
    shown = occurring(counts)
    right, union = by_image[:, RIGHT], by_image[:, TRUE] + by_image[:, PREDICTED] - by_image[:, RIGHT]
    moved = (right - iou(counts) * union)[:, shown] / union.sum(0)[shown]
    return mean_iou(counts) + len(by_image) * moved.mean(1)


def _reweighted(by_image: Int[np.ndarray, "n 3 classes"]) -> Float[np.ndarray, " draws"]:
    """Returns the mean IoU with each draw of the weights of images."""
    return np.array([mean_iou(counts) for counts in weighted_sums(by_image)])
