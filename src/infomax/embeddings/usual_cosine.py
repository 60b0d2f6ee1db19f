"""Says which cosine the features of any two images have, by which a high one can be judged.

A cosine alone says little: two images of an encoder whose features all point the same way have one of 0.9.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from infomax.embeddings.feature_file import FeatureTable

PAIRS = 5000
"""Pairs of images that are looked at, at most."""
SEED = 0
CHUNK = 1000
"""Pairs whose features are in memory at a time."""


@dataclass(frozen=True)
class UsualCosine:
    """A frozen dataclass that says which cosines the features of two images have that were drawn at random."""

    median: float
    high: float
    """The cosine that 99 of 100 pairs do not reach."""
    pairs: int
    """Number of pairs that were looked at."""
    is_sample: bool
    """Whether the pairs are a sample of all."""

    def describe(self) -> str:
        """Returns the numbers in words, as ``two images of this file: a cosine of 0.52 (median)``."""
        which = f"{self.pairs:,} random pairs, seed {SEED}" if self.is_sample else f"all {self.pairs:,} pairs"
        return (
            f"two images of this file have a cosine of {self.median:.3f} (median), 1 of 100 pairs one above "
            f"{self.high:.3f} ({which})"
        )


def usual_cosine(table: FeatureTable) -> UsualCosine | None:
    """Measures the cosines of pairs of different images of a table: of all pairs, or of a seeded sample of them.

    Args:
        table: The features. An image whose features are 0, infinite or NaN is in no pair.

    Returns:
        The cosines; None if there is no pair.
    """
    cosines = _cosines(table.features, _pairs(len(table.features)))
    if not len(cosines):
        return None
    median, high = np.percentile(cosines, [50, 99])
    count = len(table.features)
    return UsualCosine(float(median), float(high), len(cosines), count * (count - 1) // 2 > PAIRS)


def _pairs(count: int) -> Int[np.ndarray, "p 2"]:
    """Returns pairs of different rows: all, if there are no more than :data:`PAIRS`, or else a sample."""
    if count * (count - 1) // 2 <= PAIRS:
        return np.stack(np.triu_indices(count, 1), 1)
    draw = np.random.default_rng(SEED)
    first = draw.integers(count, size=PAIRS)
    return np.stack([first, (first + draw.integers(1, count, size=PAIRS)) % count], 1)


def _cosines(features: Float[np.ndarray, "n d"], pairs: Int[np.ndarray, "p 2"]) -> Float[np.ndarray, " p"]:
    """Returns the cosines of pairs of rows, without those that have none."""
    parts = [np.empty(0)]
    for start in range(0, len(pairs), CHUNK):
        first, second = (np.asarray(features[rows], np.float64) for rows in pairs[start : start + CHUNK].T)
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            cosines = (first * second).sum(1) / lengths
        parts.append(cosines[np.isfinite(cosines)])
    return np.concatenate(parts).clip(-1, 1)
