"""Class scores to the numbers that are reported, and how sure they are."""

from math import inf
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from infomax.evaluation.intervals import (
    at_least_of_a_share,
    interval,
    mean_per_class,
    mean_per_class_interval,
    share_interval,
)
from infomax.evaluation.paired import pack_hits


def hits(scores: Float[Tensor, "m classes"], labels: Int[Tensor, " m"], k: int = 1) -> Tensor:
    """Returns for each row whether its own class is among the ``k`` highest scores; of equal scores the first wins.

    A class whose score is minus infinity or NaN is never among them: it got no vote, or its classifier has diverged.
    """
    ranked = scores.nan_to_num(nan=-inf, posinf=inf, neginf=-inf)
    best = ranked.argsort(dim=1, descending=True, stable=True)[:, :k]
    has_vote = ranked.gather(1, best) > -inf
    return ((best == labels.unsqueeze(1)) & has_vote).any(1)


def top_k(scores: Float[Tensor, "m classes"], labels: Int[Tensor, " m"], k: int = 1) -> float:
    """Returns the share of rows whose own class is among the ``k`` highest scores; see :func:`hits`."""
    return float(hits(scores, labels, k).double().mean())


def average_precision(scores: Float[np.ndarray, " m"], positive: np.ndarray) -> float:
    """Computes VOC2007's average precision: the mean, over the recalls 0, 0.1, ..., 1, of the best precision at that
    recall or a higher one.

    Rows of equal score count together: the order in which they happen to stand does not.
    """
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(positive[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of its equals
    true_positives, taken = true_positives[last], np.flatnonzero(last) + 1
    if not len(true_positives) or true_positives[-1] == 0:
        return 0.0
    precision, recall = true_positives / taken, true_positives / true_positives[-1]
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-12)
    return float(best_from[at].mean())


def mean_average_precision(scores: np.ndarray, labels: Int[np.ndarray, "m classes"]) -> float:
    """Returns the mean of :func:`average_precision` over the classes that any row shows."""
    shown = np.flatnonzero(labels.any(0))
    return float(np.mean([average_precision(scores[:, c], labels[:, c]) for c in shown])) if len(shown) else 0.0


METRICS = ("top1", "mean_per_class", "map11")


def judge(scores: Tensor, labels: Tensor, metric: str = "top1", *, images: str = "") -> dict[str, Any]:
    """Returns the fields of a result row that follow from class scores: the metric, its 95 % interval, with top-1 also
    top-5, and which images were right, by which another row is compared with it; not of a mean average precision.

    Args:
        scores: [m, classes].
        labels: [m] classes, or [m, classes] with 1 for each that an image shows.
        metric: One of METRICS: top-1 accuracy, its mean over classes, or VOC2007's 11-point mean average precision.
        images: Hash of the images, of :func:`infomax.evaluation.paired.hash_images`; without it, the row is compared
            with no other.
    """
    true = labels.cpu().numpy()
    if metric == "map11":
        values = scores.double().cpu().numpy()
        mean = mean_average_precision(values, true)
        low, high = interval(lambda rows: mean_average_precision(values[rows], true[rows]), len(values))
        return {"metric": metric, metric: mean, "interval": at_least_of_a_share(low, high, mean, len(values))}
    hit = hits(scores, labels).cpu().numpy()
    if metric == "mean_per_class":
        return {
            "metric": metric,
            metric: mean_per_class(hit, true),
            "interval": mean_per_class_interval(hit, true),
            "top1": float(hit.mean()),
            "hits": pack_hits(hit, labels=true, images=images),
        }
    return {
        "metric": metric,
        metric: float(hit.mean()),
        "interval": share_interval(hit),
        "top5": top_k(scores, labels, 5),
        "hits": pack_hits(hit, images=images),
    }
