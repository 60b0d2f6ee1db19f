"""Makes pictures for people of numbers with any number of channels; no encoder is given them."""

import numpy as np
from PIL import Image

from infomax.data.pixel_format import PixelFormat

STRETCH = (1.0, 99.0)  # percentiles of a shown channel that become black and white
LARGEST_SAMPLE = 2**20  # numbers that the percentiles are found by

SOFTWARE = ("Software", "infomax views")
"""The text in a PNG file by which a picture of views is known, and its key."""


def shown_channels(channels: int, show: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Returns the channels that are shown, counted from 1: one in gray, two in red and green, or three.

    Args:
        channels: Number of channels.
        show: Those that the user chose; empty for the first ones.
    """
    return show or tuple(range(1, min(channels, 3) + 1))


def shown_image(
    values: np.ndarray, show: tuple[int, ...] = (), *, stretched_as: np.ndarray | None = None
) -> Image.Image:
    """Returns a picture in RGB of an image's numbers.

    Bytes of three channels or of one are shown as they are. Of any other image, :func:`shown_channels` are shown, each
    stretched for the eye: its percentiles 1 and 99 become black and white. Numbers that are NaN or infinite are black.

    Args:
        values: Numbers [h, w, channels].
        show: The channels to show, counted from 1; empty for the first ones.
        stretched_as: Numbers of another image of these channels, whose percentiles become black and white, so that
            both can be compared; None takes those of ``values``.

    Examples:
        >>> deep = np.array([[[100, 7], [200, 7]]], np.uint16)
        >>> np.asarray(shown_image(deep)).tolist()
        [[[0, 0, 0], [255, 0, 0]]]
    """
    channels = values.shape[2]
    if values.dtype == np.uint8 and channels in (1, 3) and not show:
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3))))
    out = np.zeros((*values.shape[:2], 3), np.uint8)
    shown = shown_channels(channels, show)
    for colour, channel in enumerate(shown):
        number = min(channel, channels) - 1
        reference = values if stretched_as is None else stretched_as
        out[..., colour] = _stretched(values[..., number], reference[..., number])
    if len(shown) == 1:
        out[..., 1:] = out[..., :1]
    return Image.fromarray(out)


def describe_composite(pixel_format: PixelFormat) -> str:
    """Returns a sentence on which channels pictures show, and how.

    Examples:
        >>> describe_composite(PixelFormat(channels=5, low=(0.0,) * 5, high=(1.0,) * 5, show=(3, 2, 1)))
        'Shown are the channels 3, 2, 1 of 5 as red, green, blue, stretched for the eye.'
    """
    channels = shown_channels(pixel_format.channels, pixel_format.show)
    if len(channels) == 1:
        return f"Shown is channel {channels[0]} of {pixel_format.channels} in gray, stretched for the eye."
    colours = ", ".join(("red", "green", "blue")[: len(channels)])
    listed = ", ".join(map(str, channels))
    return f"Shown are the channels {listed} of {pixel_format.channels} as {colours}, stretched for the eye."


def _stretched(channel: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns one channel as bytes; the percentiles of a reference are black and white."""
    numbers, of_reference = channel.astype(np.float32), reference.astype(np.float32).ravel()
    sample = of_reference[:: max(1, of_reference.size // LARGEST_SAMPLE)]
    known = sample[np.isfinite(sample)]
    low, high = np.percentile(known, STRETCH) if len(known) else (0.0, 0.0)
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    scaled = ((numbers - np.float32(low)) * np.float32(255 / (high - low))).clip(0, 255)
    return np.rint(np.nan_to_num(scaled, copy=False, nan=0.0)).astype(np.uint8)
