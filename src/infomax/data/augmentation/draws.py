"""Random numbers of a view: a function of the seed, the epoch, the image's key and the view's number alone.

A view can therefore be made again whatever the number of workers or ranks, the batch that its image is in, or the step
at which a run was resumed. The numbers are drawn on the CPU, so nothing has to be read back from a GPU.

Numba, which compiles the loops, is imported when numbers are first drawn, as no evaluation needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from infomax.data.augmentation.draw_columns import (
    BLUR,
    CHANNELS,
    COLUMNS,
    COLUMNS_OF_A_CHANNEL,
    COLUMNS_OF_AN_OPERATION,
    FACTORS,
    FLIP,
    GRAYSCALE,
    JITTER,
    NOISE,
    NOISE_KEY,
    NOISE_STD,
    ORDER,
    RANDAUGMENT,
    ROTATE,
    SIGMA,
    SOLARIZE,
    TURNS,
)
from infomax.data.augmentation.views import View

__all__ = ["FLIP", "ColourChoices", "choose_colours", "crop_boxes", "draw_uniform"]


def draw_uniform(
    seed: int, epoch: int, index: Int[np.ndarray, " b"], view: int, columns: int = COLUMNS
) -> Float64[np.ndarray, "b columns"]:
    """Draws the uniform random numbers in [0, 1) that decide one view of each image.

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        index: Key of each image; see :meth:`infomax.data.images.contract.Images.key`.
        view: Number of the view, from 0; global crops come before local ones.
        columns: How many numbers are drawn for each image; see :func:`needed_columns`. The first ones are the same,
            however many are drawn.
    """
    from infomax.data.augmentation.draw_kernels import fill_uniform

    out = np.empty((len(index), columns))
    fill_uniform(np.uint64(seed), np.uint64(epoch), np.asarray(index).astype(np.uint64), np.uint64(view), out)
    return out


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
    from infomax.data.augmentation.draw_kernels import fill_crop_boxes

    views, repeats = ([view], len(random)) if isinstance(view, View) else (view, 1)
    out = np.empty((len(random), 4), np.int64)
    heights, widths = (np.broadcast_to(side, len(random)).astype(np.float64) for side in (height, width))
    scales, ratios = np.array([v.scale for v in views]), np.array([v.ratio for v in views])
    scales, ratios = np.tile(scales, (repeats, 1)), np.tile(ratios, (repeats, 1))
    fill_crop_boxes(random, heights, widths, scales, ratios, out)
    return out


def needed_columns(channels: int, views: Sequence[View] = ()) -> int:
    """Returns how many random numbers decide each of some views of an image.

    Args:
        channels: Number of channels of the images.
        views: The settings of the views.
    """
    if has_randaugment(views, channels):
        return RANDAUGMENT + COLUMNS_OF_AN_OPERATION * max(view.randaugment for view in views)
    if channels != 3 or any(view.drop_channels > 0 for view in views):
        return CHANNELS + COLUMNS_OF_A_CHANNEL * channels
    return CHANNELS if any(view.rotate90 > 0 or view.noise > 0 for view in views) else COLUMNS


def has_randaugment(views: Sequence[View], channels: int) -> bool:
    """Returns whether any of some views has operations of RandAugment, which need red, green and blue.

    Args:
        views: The settings of the views.
        channels: Number of channels of the images.
    """
    return channels == 3 and any(view.randaugment > 0 for view in views)


@dataclass(frozen=True)
class ColourChoices:
    """A frozen dataclass that says what is done to the colours of each of ``b`` crops."""

    jitter: Bool[np.ndarray, "b parts parts"]
    """True at [image, turn, part] if at this turn this part of the colour jitter is done. The parts are brightness,
    contrast, saturation and hue; the first two alone if the channels are not red, green and blue."""
    factors: Float64[np.ndarray, "b 4"] | Float64[np.ndarray, "b 2 c"]
    """Strength of each part of the colour jitter: a factor for brightness, contrast and saturation, 1 for no change; a
    shift in turns for hue, 0 for no change. If the channels are not red, green and blue, a factor of each channel."""
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


def choose_colours(
    random: Sequence[Float64[np.ndarray, "b columns"]], views: Sequence[View], channels: int = 3
) -> ColourChoices:
    """Decides what each view does to the colours of each image.

    Args:
        random: For each view the random numbers of :func:`draw_uniform`, a row for each image.
        views: The settings of the views.
        channels: Number of channels of the images. Three are red, green and blue; of others, nothing mixes channels.

    Returns:
        The choices, first for all images of the first view, then of the second, and so on.
    """
    by_view = [_choose_colours(x, view, channels) for x, view in zip(random, views, strict=True)]
    joined: list[Any] = [np.concatenate(arrays) for arrays in zip(*by_view, strict=True)]
    return ColourChoices(*joined, reach=max(ceil(4 * view.blur_sigma[1]) for view in views))


def _choose_colours(random: Float64[np.ndarray, "b columns"], view: View, channels: int) -> tuple:
    """Returns the fields of :class:`ColourChoices`, without ``reach``, for one view."""
    is_rgb = channels == 3
    parts = 4 if is_rgb else 2
    strength = np.array([view.brightness, view.contrast, view.saturation, view.hue])[:parts]
    neutral = np.array([1.0, 1.0, 1.0, 0.0])[:parts]
    low = -np.minimum(strength, 1)  # factors stay positive
    order = random[:, ORDER][:, :parts].argsort(1)
    jitter = (random[:, JITTER] < view.jitter)[:, None, None] & (order[:, :, None] == np.arange(parts)) & (strength > 0)
    if is_rgb:
        factors = neutral + low + (strength - low) * random[:, FACTORS]
    else:
        uniform = _of_channels(random, channels)[:, :, :parts].transpose(0, 2, 1)
        factors = np.ascontiguousarray((neutral + low)[:, None] + (strength - low)[:, None] * uniform)
    low_sigma, high_sigma = view.blur_sigma
    return (
        jitter,
        factors,
        (random[:, GRAYSCALE] < view.grayscale) & is_rgb,
        random[:, BLUR] < view.blur,
        low_sigma + (high_sigma - low_sigma) * random[:, SIGMA],
        random[:, SOLARIZE] < view.solarize,
    )


def _of_channels(random: Float64[np.ndarray, "b columns"], channels: int) -> Float64[np.ndarray, "b c 3"]:
    """Returns the random numbers of each channel."""
    return random[:, CHANNELS : CHANNELS + COLUMNS_OF_A_CHANNEL * channels].reshape(len(random), channels, -1)


@dataclass(frozen=True)
class LastChoices:
    """A frozen dataclass that says what is done last to each of ``b`` normalised views."""

    noise_std: Float64[np.ndarray, " b"]
    """Standard deviation of the noise, for images in [0, 1]; 0 for none."""
    noise_key: Int[np.ndarray, "b 2"]
    """The upper and the lower 16 bits of the key from which the noise of each pixel is computed."""
    dropped: Bool[np.ndarray, "b c"]
    """True for each channel that is set to 0."""
    turns: Int[np.ndarray, " b"]
    """Number of quarter turns against the clock, from 0 to 3."""


def choose_last(
    random: Sequence[Float64[np.ndarray, "b columns"]], views: Sequence[View], channels: int
) -> LastChoices | None:
    """Decides which noise each view of each image gets, which channels it loses, and how it is turned.

    Args:
        random: For each view the random numbers of :func:`draw_uniform`, a row for each image.
        views: The settings of the views.
        channels: Number of channels of the images.

    Returns:
        The choices, in the order of those of :func:`choose_colours`; None if none of the views does any of this.
    """
    if not any(view.rotate90 > 0 or view.noise > 0 or view.drop_channels > 0 for view in views):
        return None
    by_view = [_choose_last(x, view, channels) for x, view in zip(random, views, strict=True)]
    return LastChoices(*(np.concatenate(arrays) for arrays in zip(*by_view, strict=True)))


def _choose_last(random: Float64[np.ndarray, "b columns"], view: View, channels: int) -> tuple:
    """Returns the fields of :class:`LastChoices` for one view."""
    low, high = view.noise_std
    noise_std = np.where(random[:, NOISE] < view.noise, low + (high - low) * random[:, NOISE_STD], 0.0)
    dropped = np.zeros((len(random), channels), bool)
    if view.drop_channels > 0:
        uniform = _of_channels(random, channels)[:, :, 2]
        # The channel that is the last to be dropped as the probability rises is never dropped.
        dropped = (uniform < view.drop_channels) & (np.arange(channels) != uniform.argmax(1)[:, None])
    turns = np.where(random[:, ROTATE] < view.rotate90, (4 * random[:, TURNS]).astype(np.int64), 0)
    return noise_std, (2**16 * random[:, NOISE_KEY]).astype(np.int64), dropped, turns
