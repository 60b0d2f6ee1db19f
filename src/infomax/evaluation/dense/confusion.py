"""Counts which pixels of a mask get which class, and computes IoU and accuracy from the counts, all exact."""

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8

from infomax.evaluation.intervals import interval

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
    return right / np.maximum(true + predicted - right, 1)


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

    It is the bootstrap of :func:`infomax.evaluation.intervals.interval`, which redraws whole images.
    """
    images, shape = len(by_image), by_image.shape[1:]
    if images < 2:
        return None
    flat = by_image.reshape(images, -1).astype(float)  # whole numbers below 2**53: their sums are exact
    return interval(lambda rows: mean_iou((np.bincount(rows, minlength=images) @ flat).reshape(shape)), images)
