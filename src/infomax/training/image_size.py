"""Says if images are trained at far fewer pixels than they have, and what more pixels would cost."""

from collections.abc import Sequence
from statistics import median_low

import numpy as np

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.images.selection import first_readable
from infomax.recipes.schema import Recipe
from infomax.runtime.durations import duration

SAMPLE = 5  # images whose sizes are looked at
LARGEST_USUAL = 224  # pixels; photographs are rarely trained at more, and nothing is said of those that are at less
FEWER = 2  # times fewer pixels along a side are far fewer
PLAN_KNOWS = "infomax plan says how long that is"
ESTIMATED = "by one pass of the network alone"
"""Words for a time of :func:`~infomax.training.network_time.estimate_seconds`."""


def typical_side(images: Images) -> int:
    """Returns the shorter side of a typical image, in pixels: the median of some at equal distances in the data set.

    Raises:
        ValueError: if no image can be read.
    """
    if isinstance(images, ArrayImages):
        return min(images.size)
    sides: list[int] = []
    for index in dict.fromkeys(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int).tolist()):
        full_size: list[int] = []

        def note_size(width: int, height: int, full_size: list[int] = full_size) -> int:
            full_size += [width, height]
            return 8  # a JPEG need not be decoded in full for its size

        try:
            image = images.show(index, note_size)
        except ValueError:  # the training will name it
            continue
        sides.append(min(full_size or image.size))
    return median_low(sides) if sides else min(first_readable(images, 0)[1].size)


def larger_sizes(size: int, side: int) -> tuple[int, ...]:
    """Returns the sizes to propose, in pixels, twice and four times as large as those of the views.

    Args:
        size: Side of the global crops.
        side: Shorter side of a typical image.

    Returns:
        The sizes; none if the images have no more pixels, or the views as many as are usual.
    """
    useful = min(side, LARGEST_USUAL)
    return tuple(larger for larger in (FEWER * size, FEWER**2 * size) if larger <= useful)


def describe_larger_sizes(
    recipe: Recipe, side: int, *, seconds: float | None = None, measured: str = "", unknown: str = PLAN_KNOWS
) -> str | None:
    """Returns a line on images that have far more pixels than their views: the option that changes it, and its cost.

    Args:
        recipe: The recipe with all changes.
        side: Shorter side of a typical image, in pixels.
        seconds: Time of the run on this machine; None if it is not known.
        measured: Words for how the time was measured, as :data:`ESTIMATED`, unless whole steps were.
        unknown: Words at the end of the line if it is not known.

    Returns:
        The line; None if there is nothing to say.
    """
    size = recipe.views.global_crops[0].size
    costs = [_cost(larger, (larger / size) ** 2, seconds) for larger in larger_sizes(size, side)]
    if not costs:
        return None
    line = f"images of about {side} pixels are trained at {size}"
    if seconds is not None:
        here = ", ".join(filter(None, ("here", measured)))
        return f"{line} (about {_rough(seconds)} {here}), at which small details are lost; {_join(costs)}"
    first, *others = costs
    compared = _join([f"{first} as at {size}", *others])
    return f"{line}, at which small details are lost; {compared}" + (f"; {unknown}" if unknown else "")


def describe_smaller_size(recipe: Recipe, seconds: float) -> str:
    """Returns a line on how long a run takes on this machine, and on the option that makes it shorter.

    Args:
        recipe: The recipe with all changes.
        seconds: Time of the run on this machine, as :func:`~infomax.training.network_time.estimate_seconds` returns it.
    """
    size = recipe.views.global_crops[0].size
    smaller = max(32, size // FEWER // 32 * 32)  # most networks shrink their images 32 times, or take patches of 16
    line = f"{recipe.epochs} epochs at {size} pixels take about {duration(seconds, rough=True)} here, {ESTIMATED}"
    if smaller >= size:
        return f"{line}; --epochs N changes that"
    share = duration(seconds * (smaller / size) ** 2, rough=True)
    return f"{line}; --image-size {smaller} takes about {share}, and --epochs N fewer passes"


def _cost(size: int, ratio: float, seconds: float | None) -> str:
    """Returns the option for a size, and how long it takes: the networks' time grows with the pixels."""
    in_seconds = "" if seconds is None else f" ({_rough(ratio * seconds)})"
    return f"--image-size {size} takes about {ratio:g} times as long{in_seconds}"


def _rough(seconds: float) -> str:
    """Formats an estimated time; one of less than a second is not known so well."""
    return duration(max(seconds, 1.0), rough=True)


def _join(costs: Sequence[str]) -> str:
    first, *others = costs
    return ", ".join([first, *(cost.replace(" takes about", "").replace(" as long", "") for cost in others)])
