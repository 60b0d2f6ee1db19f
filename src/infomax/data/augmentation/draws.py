"""What chance decides about a view: numbers that are a function of the seed, the epoch, the image and the view alone.

So a view can be made again whatever the number of workers or ranks, the batch it falls into, or the point where a run
was resumed. On the host: nothing is read back from a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from infomax.data.augmentation.kernels import compiled
from infomax.data.augmentation.views import View

# Columns of the random numbers of one view: ten attempts at a crop as in torchvision, then one number a decision.
ATTEMPTS = 10
TOP, LEFT, FLIP, JITTER, GRAYSCALE, BLUR, SIGMA, SOLARIZE = range(2 * ATTEMPTS, 2 * ATTEMPTS + 8)
FACTORS = slice(SOLARIZE + 1, SOLARIZE + 5)
ORDER = slice(SOLARIZE + 5, SOLARIZE + 9)
COLUMNS = ORDER.stop
exactly_compiled = partial(compiled, fast=False)  # the same boxes on every machine


@exactly_compiled
def _mix(x):
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the result depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@exactly_compiled
def _draw(seed, epoch, index, view, out):
    golden = np.uint64(0x9E3779B97F4A7C15)
    for i in range(len(index)):
        key = _mix(_mix(_mix(_mix(golden + seed) + golden + epoch) + golden + view) + golden + index[i])
        for j in range(out.shape[1]):
            out[i, j] = (_mix(key + golden * np.uint64(j + 1)) >> np.uint64(11)) * 2.0**-53


def draw(seed: int, epoch: int, index: Int[np.ndarray, " b"], view: int) -> Float64[np.ndarray, "b columns"]:
    """The uniform random numbers in [0, 1) that decide this view of these images in this epoch."""
    out = np.empty((len(index), COLUMNS))
    _draw(np.uint64(seed), np.uint64(epoch), np.asarray(index).astype(np.uint64), np.uint64(view), out)
    return out


@exactly_compiled
def _crop_boxes(random, height, width, scale, ratio, out):
    for i in range(len(random)):
        h, w = height[i], width[i]
        low, high = np.log(ratio[i, 0]), np.log(ratio[i, 1])
        found = False
        for attempt in range(ATTEMPTS):
            share = scale[i, 0] + (scale[i, 1] - scale[i, 0]) * random[i, attempt]
            root = np.exp((low + (high - low) * random[i, ATTEMPTS + attempt]) / 2)
            side = np.sqrt(h * w * share)
            box_height, box_width = np.rint(side / root), np.rint(side * root)
            if 1 <= box_width <= w and 1 <= box_height <= h:
                out[i, 0] = int(random[i, TOP] * (h - box_height + 1))
                out[i, 1] = int(random[i, LEFT] * (w - box_width + 1))
                found = True
                break
        if not found:
            box_height, box_width = min(h, np.rint(w / ratio[i, 0])), min(w, np.rint(h * ratio[i, 1]))
            out[i, 0], out[i, 1] = (h - box_height) // 2, (w - box_width) // 2
        out[i, 2], out[i, 3] = box_height, box_width  # pyrefly: ignore[unbound-name]


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
    each = [view] * len(random) if isinstance(view, View) else view
    out = np.empty((len(random), 4), np.int64)
    sides = (np.broadcast_to(side, len(random)).astype(np.float64) for side in (height, width))
    _crop_boxes(random, *sides, np.array([v.scale for v in each]), np.array([v.ratio for v in each]), out)
    return out


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
