"""Leaves points of long curves out, so that what is drawn looks the same."""

import numpy as np

STRETCHES = 400
"""Stretches of a curve, of each of which the smallest and the largest value are drawn."""


def kept_points(x: np.ndarray, *values: np.ndarray, stretches: int = STRETCHES) -> np.ndarray:
    """Returns the indices of the points of a curve that are drawn.

    A curve of at most twice as many points as stretches is kept whole. Of a longer one the first and the last point
    are kept, and of each stretch of equal length the smallest and the largest value of each array, and one point
    without a value, if there is one, so that gaps stay.

    Args:
        x: Where the points are, in ascending order, ``[n]``.
        values: The heights of the curve, and perhaps of its band, each ``[n]``; NaN if there is none.
        stretches: Number of stretches.
    """
    count = len(x)
    if count <= 2 * stretches:
        return np.arange(count)
    edges = np.searchsorted(x, np.linspace(x[0], x[-1], stretches + 1)[1:-1])
    kept = {0, count - 1}
    for start, stop in zip((0, *edges), (*edges, count), strict=True):
        for array in values if stop > start else ():
            part = array[start:stop]
            missing = np.isnan(part)
            if missing.any():
                kept.add(int(start) + int(missing.argmax()))
            if not missing.all():
                kept |= {int(start) + int(np.nanargmin(part)), int(start) + int(np.nanargmax(part))}
    return np.array(sorted(kept))
