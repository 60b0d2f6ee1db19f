"""Random numbers of a view: a function of the seed, the epoch, the image's key and the view's number alone.

A view can therefore be made again whatever the number of workers or ranks, the batch that its image is in, or the step
at which a run was resumed. The numbers are drawn on the CPU, so nothing has to be read back from a GPU.
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

# Columns of the random numbers of one view, all uniform in [0, 1):
#   0 to 9    the crop's share of the area, for each of ten attempts at a crop (torchvision makes as many)
#   10 to 19  the logarithm of the crop's ratio of width to height, for each attempt
#   TOP, LEFT position of the crop
#   FLIP, JITTER, GRAYSCALE, BLUR, SOLARIZE
#             the operation is done if the number is below its probability
#   SIGMA     standard deviation of the blur
#   FACTORS   strength of brightness, contrast, saturation and hue
#   ORDER     the four parts of the colour jitter are done in the order that sorts these numbers
ATTEMPTS = 10
TOP, LEFT, FLIP, JITTER, GRAYSCALE, BLUR, SIGMA, SOLARIZE = range(2 * ATTEMPTS, 2 * ATTEMPTS + 8)
FACTORS = slice(SOLARIZE + 1, SOLARIZE + 5)
ORDER = slice(SOLARIZE + 5, SOLARIZE + 9)
COLUMNS = ORDER.stop
compiled_exactly = partial(compiled, fast=False)  # without fast mathematics: the same boxes on every machine


@compiled_exactly
def _mix(x):
    """Returns 64 mixed bits, each of which depends on every bit of ``x``.

    This is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled_exactly
def _fill_uniform(seed, epoch, index, view, out):
    golden = np.uint64(0x9E3779B97F4A7C15)
    for i in range(len(index)):
        key = _mix(_mix(_mix(_mix(golden + seed) + golden + epoch) + golden + view) + golden + index[i])
        for j in range(out.shape[1]):
            out[i, j] = (_mix(key + golden * np.uint64(j + 1)) >> np.uint64(11)) * 2.0**-53


def draw_uniform(seed: int, epoch: int, index: Int[np.ndarray, " b"], view: int) -> Float64[np.ndarray, "b columns"]:
    """Draws the uniform random numbers in [0, 1) that decide one view of each image.

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        index: Key of each image; see :meth:`infomax.data.images.Images.key`.
        view: Number of the view, from 0; global crops come before local ones.
    """
    out = np.empty((len(index), COLUMNS))
    _fill_uniform(np.uint64(seed), np.uint64(epoch), np.asarray(index).astype(np.uint64), np.uint64(view), out)
    return out


@compiled_exactly
def _fill_crop_boxes(random, height, width, scale, ratio, out):
    for i in range(len(random)):
        h, w = height[i], width[i]
        low, high = np.log(ratio[i, 0]), np.log(ratio[i, 1])
        fits = False
        for attempt in range(ATTEMPTS):
            share = scale[i, 0] + (scale[i, 1] - scale[i, 0]) * random[i, attempt]
            root = np.exp((low + (high - low) * random[i, ATTEMPTS + attempt]) / 2)
            side = np.sqrt(h * w * share)
            box_height, box_width = np.rint(side / root), np.rint(side * root)
            if 1 <= box_width <= w and 1 <= box_height <= h:
                out[i, 0] = int(random[i, TOP] * (h - box_height + 1))
                out[i, 1] = int(random[i, LEFT] * (w - box_width + 1))
                fits = True
                break
        if not fits:
            box_height, box_width = min(h, np.rint(w / ratio[i, 0])), min(w, np.rint(h * ratio[i, 1]))
            out[i, 0], out[i, 1] = (h - box_height) // 2, (w - box_width) // 2
        out[i, 2], out[i, 3] = box_height, box_width  # pyrefly: ignore[unbound-name]


def crop_boxes(
    random: Float64[np.ndarray, "b columns"],
    height: np.ndarray | int,
    width: np.ndarray | int,
    view: View | Sequence[View],
) -> Int[np.ndarray, "b 4"]:
    """Returns top, left, height and width of each random resized crop, in pixels.

    They are distributed as torchvision's: the share of the area and the logarithm of the ratio are uniform, and the
    first of ten attempts that fits into the image is taken. If none fits, the crop is the largest centred one whose
    ratio is allowed.

    Args:
        random: The random numbers of :func:`draw_uniform`, a row for each crop.
        height: Height of the image in pixels, the same for all rows or one for each.
        width: Width of the image in pixels, likewise.
        view: The settings of the crop, the same for all rows or one for each.
    """
    views = [view] * len(random) if isinstance(view, View) else view
    out = np.empty((len(random), 4), np.int64)
    heights, widths = (np.broadcast_to(side, len(random)).astype(np.float64) for side in (height, width))
    scales, ratios = np.array([v.scale for v in views]), np.array([v.ratio for v in views])
    _fill_crop_boxes(random, heights, widths, scales, ratios, out)
    return out


@dataclass(frozen=True)
class ColourChoices:
    """A frozen dataclass that says what is done to the colours of each of ``b`` crops."""

    jitter: Bool[np.ndarray, "b 4 4"]
    """True at [image, turn, part] if at this turn, from 0 to 3, this part of the colour jitter is done. The parts are
    brightness, contrast, saturation and hue."""
    factors: Float64[np.ndarray, "b 4"]
    """Strength of each part of the colour jitter: a factor for brightness, contrast and saturation, 1 for no change; a
    shift in turns for hue, 0 for no change."""
    grayscale: Bool[np.ndarray, " b"]
    """True if the crop becomes gray."""
    blur: Bool[np.ndarray, " b"]
    """True if the crop is blurred."""
    sigma: Float64[np.ndarray, " b"]
    """Standard deviation of the blur, in pixels."""
    solarize: Bool[np.ndarray, " b"]
    """True if the crop is solarised."""
    reach: int
    """Pixels to each side over which a blur extends: four times the largest standard deviation of these views."""


def choose_colours(random: Sequence[Float64[np.ndarray, "b columns"]], views: Sequence[View]) -> ColourChoices:
    """Decides what each view does to the colours of each image.

    Args:
        random: For each view the random numbers of :func:`draw_uniform`, a row for each image.
        views: The settings of the views.

    Returns:
        The choices, first for all images of the first view, then of the second, and so on.
    """
    by_view = [_choose_colours(x, view) for x, view in zip(random, views, strict=True)]
    joined: list[Any] = [np.concatenate(arrays) for arrays in zip(*by_view, strict=True)]
    return ColourChoices(*joined, reach=max(ceil(4 * view.blur_sigma[1]) for view in views))


def _choose_colours(random: Float64[np.ndarray, "b columns"], view: View) -> tuple:
    """Returns the fields of :class:`ColourChoices`, without ``reach``, for one view."""
    strength = np.array([view.brightness, view.contrast, view.saturation, view.hue])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    low = -np.minimum(strength, 1)  # factors stay positive
    order = random[:, ORDER].argsort(1)
    jitter = (random[:, JITTER] < view.jitter)[:, None, None] & (order[:, :, None] == np.arange(4)) & (strength > 0)
    low_sigma, high_sigma = view.blur_sigma
    return (
        jitter,
        neutral + low + (strength - low) * random[:, FACTORS],
        random[:, GRAYSCALE] < view.grayscale,
        random[:, BLUR] < view.blur,
        low_sigma + (high_sigma - low_sigma) * random[:, SIGMA],
        random[:, SOLARIZE] < view.solarize,
    )
