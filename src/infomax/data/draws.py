"""What chance decides about a view: numbers that are a function of the seed, the epoch, the image and the view alone.

So a view can be made again whatever the number of workers or ranks, the batch it falls into, or the point where a run
was resumed. NumPy, on the host: nothing is read back from a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from infomax.data.views import View

# Columns of the random numbers of one view: ten attempts at a crop as in torchvision, then one number a decision.
ATTEMPTS = 10
TOP, LEFT, FLIP, JITTER, GRAYSCALE, BLUR, SIGMA, SOLARIZE = range(2 * ATTEMPTS, 2 * ATTEMPTS + 8)
FACTORS = slice(SOLARIZE + 1, SOLARIZE + 5)
ORDER = slice(SOLARIZE + 5, SOLARIZE + 9)
COLUMNS = ORDER.stop


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the result depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed: int, epoch: int, index: Int[np.ndarray, " b"], view: int) -> Float64[np.ndarray, "b columns"]:
    """The uniform random numbers in [0, 1) that decide this view of these images in this epoch."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = np.zeros(len(index), np.uint64)
        for part in (seed, epoch, view, index):
            key = _mix(key + golden + np.asarray(part).astype(np.uint64))
        numbers = _mix(key[:, None] + golden * np.arange(1, COLUMNS + 1, dtype=np.uint64))
    return (numbers >> np.uint64(11)) * 2.0**-53


def crop_boxes(
    random: Float64[np.ndarray, "b columns"],
    height: np.ndarray | int,
    width: np.ndarray | int,
    view: View | Sequence[View],
) -> Int[np.ndarray, "b 4"]:
    """Top, left, height and width of each random resized crop, in pixels, distributed as torchvision's.

    The area's share and the logarithm of the ratio are uniform; the first of ten attempts that fits is taken, otherwise
    the largest centred crop within the range of ratios.

    Args:
        view: One for all rows, or one for each.
    """
    each = [view] if isinstance(view, View) else view
    scale, ratios = np.array([v.scale for v in each]), np.array([v.ratio for v in each])
    b = len(random)
    height, width = np.broadcast_to(height, b), np.broadcast_to(width, b)
    share = scale[:, :1] + (scale[:, 1:] - scale[:, :1]) * random[:, :ATTEMPTS]
    low, high = np.log(ratios[:, :1]), np.log(ratios[:, 1:])
    root = np.exp((low + (high - low) * random[:, ATTEMPTS : 2 * ATTEMPTS]) / 2)
    side = np.sqrt((height * width)[:, None] * share)
    widths, heights = np.rint(side * root), np.rint(side / root)
    fits = (widths >= 1) & (widths <= width[:, None]) & (heights >= 1) & (heights <= height[:, None])
    chosen = np.arange(b), fits.argmax(1)
    found = fits.any(1)
    crop_width = np.where(found, widths[chosen], np.minimum(width, np.rint(height * ratios[:, 1])))
    crop_height = np.where(found, heights[chosen], np.minimum(height, np.rint(width / ratios[:, 0])))
    top_share, left_share = random[:, TOP], random[:, LEFT]
    top = np.where(found, np.floor(top_share * (height - crop_height + 1)), (height - crop_height) // 2)
    left = np.where(found, np.floor(left_share * (width - crop_width + 1)), (width - crop_width) // 2)
    return np.stack([top, left, crop_height, crop_width], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Choices:
    """What is done to the colours of each crop."""

    jitter: Bool[np.ndarray, "b 4 4"]
    """Whether at this turn this part of the jitter is due: brightness, contrast, saturation, hue."""
    factors: Float64[np.ndarray, "b 4"]
    """1 leaves brightness, contrast and saturation as they are; hue is turned by as many turns."""
    grayscale: Bool[np.ndarray, " b"]
    blur: Bool[np.ndarray, " b"]
    sigma: Float64[np.ndarray, " b"]
    """Of the blur, in pixels."""
    solarize: Bool[np.ndarray, " b"]

    reach: int
    """Of the blur to each side, in pixels: four of the largest standard deviations that the views allow."""

    def __getitem__(self, rows: slice) -> "Choices":
        chosen = {name: x[rows] for name, x in vars(self).items() if name != "reach"}
        return Choices(**chosen, reach=self.reach)


def choose_colours(random: Sequence[Float64[np.ndarray, "b columns"]], views: Sequence[View]) -> Choices:
    """What each view does to each image; those of the first view first."""
    made = [_choose(x, view) for x, view in zip(random, views, strict=True)]
    joined: list[Any] = [np.concatenate(parts) for parts in zip(*made, strict=True)]
    return Choices(*joined, reach=max(ceil(4 * view.blur_sigma[1]) for view in views))


def _choose(random: Float64[np.ndarray, "b columns"], view: View) -> tuple:
    strength = np.array([view.brightness, view.contrast, view.saturation, view.hue])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    low = -np.minimum(strength, 1)  # factors stay positive
    order = random[:, ORDER].argsort(1)
    due = (random[:, JITTER] < view.jitter)[:, None, None] & (order[:, :, None] == np.arange(4)) & (strength > 0)
    least, most = view.blur_sigma
    return (
        due,
        neutral + low + (strength - low) * random[:, FACTORS],
        random[:, GRAYSCALE] < view.grayscale,
        random[:, BLUR] < view.blur,
        least + (most - least) * random[:, SIGMA],
        random[:, SOLARIZE] < view.solarize,
    )
