"""Makes pictures for people of pixels with any number of channels; no encoder is given them."""

import numpy as np
from PIL import Image

from infomax.data.pixel_format import BYTE_MAX, PixelFormat

STRETCH = (1.0, 99.0)  # percentiles of a shown channel that become black and white


def shown_channels(pixel_format: PixelFormat) -> tuple[int, ...]:
    """Returns the channels that are shown, counted from 1: one in gray, two in red and green, or three."""
    return pixel_format.show or tuple(range(1, min(pixel_format.channels, 3) + 1))


def shown_image(values: np.ndarray, pixel_format: PixelFormat) -> Image.Image:
    """Returns a picture in RGB of an image's pixels.

    RGB and gray of 8 bits are shown as they are. Of any other image, :func:`shown_channels` are shown, each stretched
    for the eye: its percentiles 1 and 99 become black and white.

    Args:
        values: Pixels [h, w, channels].
        pixel_format: Their format.

    Examples:
        >>> deep = PixelFormat(channels=2, low=(0.0, 0.0), high=(1.0, 1.0))
        >>> np.asarray(shown_image(np.array([[[100, 7], [200, 7]]], np.uint16), deep)).tolist()
        [[[0, 0, 0], [255, 0, 0]]]
    """
    if pixel_format.is_rgb:
        return Image.fromarray(np.ascontiguousarray(values))
    if pixel_format.channels == 1 and not pixel_format.is_deep:
        return Image.fromarray(np.ascontiguousarray(values[..., 0])).convert("RGB")
    out = np.zeros((*values.shape[:2], 3), np.uint8)
    channels = shown_channels(pixel_format)
    for colour, channel in enumerate(channels):
        out[..., colour] = _stretched(values[..., channel - 1])
    if len(channels) == 1:
        out[..., 1:] = out[..., :1]
    return Image.fromarray(out)


def _stretched(channel: np.ndarray) -> np.ndarray:
    low, high = np.percentile(channel, STRETCH)
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    scaled = (channel.astype(np.float32) - low) * (BYTE_MAX / (high - low))
    return np.rint(scaled.clip(0, BYTE_MAX)).astype(np.uint8)
