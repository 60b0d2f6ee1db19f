"""95 % intervals of scores and of paired differences: what another test set of this size, or other draws, would give.

Nothing here imports torch or scikit-learn: tables of results are made in less time than these take to import.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES = 1000
NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
MATCHED = "points on the same test images (95 % interval of matched pairs, Newcombe 1998)"
RESAMPLED = "points on the same test images (95 % interval by paired bootstrap)"
DRAWN = "points with the same draws of labels on the same test images (95 % interval over both)"
SEEDED = "points, mean over the seeds (Student's 95 % interval over the seeds)"

SEEDED_IMAGES = "points, mean over the seeds (95 % interval over seeds and test images)"


@dataclass(frozen=True)
class Difference:
    """A frozen dataclass that holds how much larger one score is than another one, with its 95 % interval.

    All three numbers are shares, from -1 to 1; the text has percentage points: ``+1.9 (-0.8 to +4.6): not clearly
    better``.
    """

    value: float
    low: float
    high: float
    kind: str
    """What the interval is: MATCHED, RESAMPLED, DRAWN, SEEDED or SEEDED_IMAGES."""

    @property
    def verdict(self) -> str:
        """Says on which side of 0 the interval lies: ``clearly better``, ``clearly worse``, or, if 0 is in it, ``not
        clearly better``."""
        if self.low > 0:
            return "clearly better"
        return "clearly worse" if self.high < 0 else "not clearly better"

    @property
    def numbers(self) -> str:
        """The difference and its interval in percentage points, as ``+1.9 (-0.8 to +4.6)``."""
        value, low, high = (f"{round(100 * x, 1) + 0.0:+.1f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"

    def reversed(self) -> "Difference":
        """Returns how much larger the other score is than the first one."""
        return Difference(-self.value, -self.high, -self.low, self.kind)

    def __str__(self) -> str:
        return f"{self.numbers}: {self.verdict}"


def mean_per_class(hit: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over classes of the share of their rows that hit; a class without rows does not count."""
    rows, hits_of_class = np.bincount(labels), np.bincount(labels, weights=hit)
    return float((hits_of_class[rows > 0] / rows[rows > 0]).mean())


def interval(statistic: Callable[[np.ndarray], float], rows: int) -> tuple[float, float]:
    """Computes the 95 % interval of a statistic by the bootstrap: its 2.5 and 97.5 percentiles over 1,000 redrawn test
    sets.

    It says how far another test set of this size would move the number, not another run of the training. It is empty if
    all rows are alike, as when all are right: shares have :func:`share_interval`, others :func:`at_least_of_a_share`.

    Args:
        statistic: Of the rows whose numbers it is given, some more than once.
        rows: How many there are.
    """
    draw = np.random.default_rng(0)
    values = [statistic(draw.integers(rows, size=rows)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def weighted_sums(numbers: Int[np.ndarray, "n ..."]) -> Float[np.ndarray, "draws ..."]:
    """Returns 1,000 sums over the rows, each with other random weights, for the bootstrap of what follows from sums.

    The weights are exponential (the Bayesian bootstrap). In a redrawn test set of :func:`interval` a row counts 0, 1 or
    more times; here none is left out, so that what a single row shows, as a rare class, is in each sum.

    D. B. Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981), 130-134.

    Args:
        numbers: The numbers of each row.
    """
    weights = np.random.default_rng(0).exponential(size=(RESAMPLES, len(numbers)))
    return (weights @ numbers.reshape(len(numbers), -1)).reshape(RESAMPLES, *numbers.shape[1:])


def weighted_interval(values: Float[np.ndarray, " draws"], rows: int) -> tuple[float, float]:
    """Returns the 95 % interval of a statistic from its values with the weights of :func:`weighted_sums`.

    Random weights vary less than other test sets of few images would, and so the percentiles are further out than 2.5
    and 97.5: as far as Student's interval of a mean of so many rows is wider than that of its weighted means.

    T. C. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015), 371-386.

    Args:
        values: The statistic with each draw.
        rows: Number of rows, at least two.
    """
    from scipy.special import ndtr, stdtrit  # what scipy.stats calls, which takes seconds to import

    outside = float(ndtr(-sqrt((rows + 1) / (rows - 1)) * stdtrit(rows - 1, 0.975)))
    low, high = np.percentile(values, [100 * outside, 100 * (1 - outside)])
    return float(low), float(high)


def share_interval(hit: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """Computes Wilson's 95 % interval of an accuracy.

    It is never empty, also if no image is right or all are, and both its limits rise with each image that is right
    (docs/decisions.md, score-intervals).

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22 (1927), 209-212.

    Args:
        hit: Whether each image is right.

    Example:
        >>> import numpy as np
        >>> for right in (0, 23, 24):
        ...     low, high = share_interval(np.arange(24) < right)
        ...     print(f"{right} of 24: {low:.3f} to {high:.3f}")
        0 of 24: 0.000 to 0.138
        23 of 24: 0.798 to 0.993
        24 of 24: 0.862 to 1.000
    """
    right, images = int(hit.sum()), len(hit)
    below, above = wilson_distances(right, images)
    return right / images - below, right / images + above


def mean_per_class_interval(hit: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Computes the 95 % interval of the mean accuracy over classes: Wilson's, with the effective number of images.

    That is the number of images that give an accuracy the variance that the mean over classes has, if all classes are
    as hard: K^2 / sum of 1 / n_k, for n_k images of each of K classes. It is that of all images if the classes are
    equally large, and near that of the smallest ones if these are few (docs/decisions.md, score-intervals).

    L. Kish, Survey Sampling (1965), for the effective number; E. L. Korn and B. I. Graubard, Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data, Survey Methodology 24 (1998),
    193-201, for its use in intervals of shares.

    Args:
        hit: Whether each image is right.
        labels: Class of each image; a class without images does not count.

    Example:
        >>> import numpy as np
        >>> low, high = mean_per_class_interval(np.ones(24, bool), np.arange(24) % 2)
        >>> round(low, 3), round(high, 3)
        (0.862, 1.0)
    """
    images = np.bincount(labels)
    images = images[images > 0]
    mean, effective = mean_per_class(hit, labels), len(images) ** 2 / float((1 / images).sum())
    below, above = wilson_distances(mean * effective, effective)
    return mean - below, mean + above


def at_least_of_a_share(low: float, high: float, value: float, images: int) -> tuple[float, float]:
    """Widens an interval to that of an accuracy of the same value over as many images, if it is narrower (Wilson's).

    For scores from 0 to 1 that have no interval in closed form: by the spread of the images alone a perfect score is
    certain. No lower score has a higher lower limit than it.

    Args:
        low: Lower limit.
        high: Upper limit.
        value: The score.
        images: Number of test images.

    Example:
        >>> low, high = at_least_of_a_share(1.0, 1.0, value=1.0, images=24)
        >>> round(low, 3), high
        (0.862, 1.0)
    """
    below, above = wilson_distances(value * images, images)
    return max(0.0, min(low, value - below)), min(1.0, max(high, value + above))


def compare_shares(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> Difference:
    """Compares two accuracies on the same images, with the interval of Newcombe (1998, method 10).

    It adds the squared distances of Wilson's limits of both accuracies from these, less what the images that both get
    right, or both wrong, have in common. It needs no correction for few images, and is not empty if no image is right
    by one alone.

    R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17 (1998), 2635-2650.

    Args:
        first: Whether each image is right by the result that is compared.
        second: Whether it is by the one that it is compared with.

    Raises:
        ValueError: if there are no images, or two numbers of them.

    Example:
        >>> import numpy as np
        >>> numbers = np.arange(50)
        >>> str(compare_shares(numbers < 40, numbers < 30))
        '+20.0 (+8.1 to +31.5): clearly better'
        >>> compare_shares(numbers < 40, numbers < 40).numbers
        '+0.0 (-5.7 to +5.7)'
    """
    if len(first) != len(second) or not len(first):
        lengths = f"{len(first)} and {len(second)}"
        raise ValueError(f"images that are compared must be the same, at least one, but are {lengths}")
    both, only_first, only_second = (int(x.sum()) for x in (first & second, first & ~second, second & ~first))
    images = len(first)
    value = (only_first - only_second) / images
    (low1, high1), (low2, high2) = (wilson_distances(both + only, images) for only in (only_first, only_second))
    correlation = _correlation(both, only_first, only_second, images - both - only_first - only_second)
    below = sqrt(max(low1**2 - 2 * correlation * low1 * high2 + high2**2, 0.0))
    above = sqrt(max(high1**2 - 2 * correlation * high1 * low2 + low2**2, 0.0))
    return Difference(value, value - below, value + above, MATCHED)


def wilson_distances(right: float, images: float) -> tuple[float, float]:
    """Returns how far Wilson's 95 % limits lie below and above a share of images that are right."""
    share, z = right / images, NORMAL_QUANTILE
    centre, half = share + z**2 / (2 * images), z * sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    low, high = ((centre + side * half) / (1 + z**2 / images) for side in (-1, 1))
    return max(share - low, 0.0), max(high - share, 0.0)  # of none and of all, rounding alone would lie beyond


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Returns the correlation of two results over images, with Newcombe's correction of a positive one; 0 if one of the
    results is the same for all images."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_first * only_second
    images = both + only_first + only_second + neither
    return (max(product - images / 2, 0.0) if product > 0 else product) / sqrt(margins)


def compare_means_per_class(
    first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> Difference:
    """Compares two mean accuracies over classes on the same images by the bootstrap of :func:`interval`.

    Both take the same redrawn images. If both get the same images right, nothing varies and the interval is 0 to 0.

    Args:
        first: Whether each image is right by the result that is compared.
        second: Whether it is by the one that it is compared with.
        labels: Class of each image.
    """
    gain: Float[np.ndarray, " n"] = first.astype(float) - second
    low, high = interval(lambda rows: mean_per_class(gain[rows], labels[rows]), len(gain))
    return Difference(mean_per_class(gain, labels), low, high, RESAMPLED)


def half_interval(first: Float[np.ndarray, " m"], second: Float[np.ndarray, " n"]) -> float:
    """Computes half the 95 % interval of a mean over a table, whose rows and columns both would be others next time.

    Rows are draws of the labelled images, or seeds of the training; columns are test images. Both vary independently,
    so the half is the root of the sum of the squares of Student's halves over both (MOVER). What varies with row and
    column together is in both, so that the interval is rather too wide (docs/decisions.md, few-shot-interval).

    G. Y. Zou and A. Donner, Construction of confidence limits about effect measures: a general approach, Statistics in
    Medicine 27 (2008), 1693-1702.

    Args:
        first: The means of the rows; of one alone nothing is known.
        second: The means of the columns, likewise.
    """
    from scipy.special import stdtrit  # what scipy.stats calls, which takes seconds to import

    squares = 0.0
    for means in (first, second):
        if len(means) > 1:
            squares += float(stdtrit(len(means) - 1, 0.975)) ** 2 * float(means.var(ddof=1)) / len(means)
    return sqrt(squares)


def compare_drawn(
    first: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " n"]],
    second: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " n"]],
) -> Difference:
    """Compares the mean accuracies of two results with the same draws of labels on the same test images.

    Args:
        first: The accuracy with each draw, and the share of the draws in which each image is right, of the result that
            is compared.
        second: Those of the one that it is compared with.

    Raises:
        ValueError: if the results have other numbers of draws or of images, or fewer than two draws.
    """
    if any(len(a) != len(b) for a, b in zip(first, second, strict=True)) or len(first[0]) < 2:
        raise ValueError("results over draws are compared if they have the same draws, at least two, and images")
    draws, images = (a - b for a, b in zip(first, second, strict=True))
    value, half = float(draws.mean()), half_interval(draws, images)
    return Difference(value, value - half, value + half, DRAWN)


def compare_repeated(first: Sequence[float], second: Sequence[float], kind: str) -> Difference:
    """Compares the means of scores that belong together two by two, as those with one seed.

    The interval is Student's, of the mean difference.

    Args:
        first: The scores that are compared, at least two.
        second: Those that they are compared with.
        kind: SEEDED.

    Raises:
        ValueError: if there are fewer than two pairs.
    """
    from scipy.special import stdtrit  # what scipy.stats calls, which takes seconds to import

    gains = [a - b for a, b in zip(first, second, strict=True)]
    if len(gains) < 2:
        raise ValueError(f"an interval over repetitions takes at least 2 of them, not {len(gains)}")
    half = float(stdtrit(len(gains) - 1, 0.975)) * stdev(gains) / sqrt(len(gains))
    return Difference(fmean(gains), fmean(gains) - half, fmean(gains) + half, kind)


def compare_seeds_and_images(gains: Float[np.ndarray, "seeds n"]) -> Difference:
    """Averages paired differences, with an interval that covers other seeds and other test images.

    The interval is that of :func:`half_interval`, over the seeds and the test images.

    Args:
        gains: For each seed and test image how much better the first result is: 1, 0 or -1 for an accuracy, or that
            times a weight whose mean is 1.

    Raises:
        ValueError: if there are fewer than two seeds or two images.

    Example:
        >>> import numpy as np
        >>> gains = np.zeros((3, 100))
        >>> gains[:, :10], gains[0, 10:12] = 1, 1
        >>> str(compare_seeds_and_images(gains))
        '+10.7 (+4.0 to +17.3): clearly better'
    """
    if min(gains.shape) < 2:
        raise ValueError(f"an interval over seeds and images takes at least 2 of both, not {gains.shape}")
    value, half = float(gains.mean()), half_interval(gains.mean(axis=1), gains.mean(axis=0))
    return Difference(value, value - half, value + half, SEEDED_IMAGES)
