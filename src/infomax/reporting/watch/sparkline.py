"""Draws the course of a measurement as one line of text."""

import math
from collections.abc import Sequence

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""Levels from low to high, where the terminal knows Unicode."""
LETTERS = "_.-~=+*#"
"""Levels from low to high, where it does not."""
NOT_FINITE = "!"
"""Stands for values of which one is NaN or infinite."""


def sparkline(points: Sequence[tuple[int, float]], *, columns: int, last_step: int, levels: str = BLOCKS) -> str:
    """Returns a line in which each column stands for as many steps, from 0 to the last one.

    A column shows the mean of its values between the smallest and the largest mean; one without values shows what the
    column before does, and nothing before the first value.

    Args:
        points: Steps, in rising order, and values.
        columns: Number of columns.
        last_step: The step at the right end.
        levels: Characters from low to high.

    Example:
        >>> sparkline([(0, 1.0), (1, 2.0), (3, 3.0)], columns=4, last_step=3, levels=LETTERS)
        '_==#'
    """
    bins: list[list[float]] = [[] for _ in range(columns)]
    for step, value in points:
        bins[min(columns - 1, step * columns // (last_step + 1))].append(value)
    means = [math.nan if not values else sum(values) / len(values) for values in bins]
    finite = [mean for mean in means if math.isfinite(mean)]
    line, shown = "", " "
    for values, mean in zip(bins, means, strict=True):
        if values:
            shown = _level(mean, finite, levels) if math.isfinite(mean) else NOT_FINITE
        line += shown
    return line


def _level(value: float, finite: Sequence[float], levels: str) -> str:
    """Returns the character of a value between the smallest and the largest; that of the middle if all are equal."""
    low, high = min(finite), max(finite)
    if low == high:
        return levels[(len(levels) - 1) // 2]
    share = (value - low) / (high - low) if math.isfinite(high - low) else (value > 0)
    return levels[round(share * (len(levels) - 1))]
