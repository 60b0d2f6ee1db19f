"""Says what an encoder that is there, or one of 8-bit RGB, is given of images with more than 8 bits.

What is measured is what the encoder gets, so the lines hold for all sources and options. The range that a training on
such images takes itself is found, and said, by :mod:`infomax.data.measured_pixels`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.measured_pixels import SMALL_SHARE, evenly, proposed_range
from infomax.data.numbers import NumberKind
from infomax.data.pixel_format import PixelFormat
from infomax.data.splits import Source, preview_images
from infomax.runtime.stages import Stage

MEASURED = 64  # images that are looked at
CUT_OFF_SHARE = 0.01  # of the pixels; so many black and white ones are more than an image's extremes


@dataclass(frozen=True)
class _Extent:
    """A frozen dataclass that holds the smallest and the largest number of an image, and those of its pixels."""

    kind: NumberKind
    numbers: tuple[float, float]
    pixels: tuple[int, int]
    cut_off: float
    """Share of the pixels that are as dark or as bright as a pixel can be."""


def note_range(source: Source, pixel_format: PixelFormat) -> Source:
    """Returns a source whose notes say what an encoder of a format is given of its images: :func:`range_notes`."""
    return replace(source, notes=(*source.notes, *range_notes(preview_images(source), pixel_format)))


def range_notes(images: Images, pixel_format: PixelFormat) -> list[str]:
    """Returns lines on what an encoder is given of images with more than 8 bits; none of images of bytes.

    The first says which bytes the numbers become, for an encoder of 8-bit RGB, and how many are cut off. A second one
    says so if they are almost black, and which ``--value-range`` would use the whole range, if the encoder does not
    keep its own.

    Args:
        images: The images, of which some are measured.
        pixel_format: The channels and the range that the encoder takes.
    """
    index = [i for i in evenly(len(images), MEASURED).tolist() if not _is_byte(images, i)]
    if not index:
        return []
    with Stage("measuring the numbers of the images", slow_only=True):
        extents = list(_extents(images, index, pixel_format))
    if not extents:
        return []
    lowest, highest = min(x.numbers[0] for x in extents), max(x.numbers[1] for x in extents)
    dark, bright = min(x.pixels[0] for x in extents), max(x.pixels[1] for x in extents)
    kind, lines = extents[0].kind, []
    if pixel_format.is_rgb:
        option = " (--value-range)" if kind.channels == 1 else ""  # which is for such images, where bytes are made
        bytes_of_rgb = f"{dark} to {bright} of the 0 to 255 of 8-bit RGB"
        share = fmean(x.cut_off for x in extents)
        cut_off = f"; {share:.0%} of the pixels become black or white" if share >= CUT_OFF_SHARE else ""
        lines.append(f"{kind}: {lowest:g} to {highest:g} becomes {bytes_of_rgb}{option}{cut_off}")
    largest = np.iinfo(np.uint16 if pixel_format.is_deep else np.uint8).max
    if bright < SMALL_SHARE * largest:
        lines.append(f"no number is above {highest:g}: {_cure(kind, pixel_format, lowest, highest)}")
    return lines


def _cure(kind: NumberKind, pixel_format: PixelFormat, lowest: float, highest: float) -> str:
    """Returns what would use the whole range, or what the encoder takes, if that is fixed."""
    if not pixel_format.is_rgb:
        taken = f"{pixel_format.low[0]:g} to {pixel_format.high[0]:g}"
        return f"these images are almost black to this encoder, which takes {taken}, as those that it was trained on"
    if kind.channels != 1:
        return "these images are almost black; save them as 8-bit RGB, with the range that is meant"
    low = 0.0 if kind.dtype.kind == "u" else lowest
    return f"--value-range {proposed_range(kind, low, highest)} would use the whole range"


def _is_byte(images: Images, index: int) -> bool:
    """Returns whether the numbers of an image are bytes; those of a file that cannot be read count as such."""
    try:
        return images.kind(index).is_byte
    except ValueError:  # which is said when the image is opened
        return True


def _extents(images: Images, index: Iterable[int], pixel_format: PixelFormat) -> Iterable[_Extent]:
    """Yields the smallest and largest numbers of the images at ``index`` that can be read."""
    formatted = images.in_format(pixel_format)
    for i in index:
        try:
            numbers, pixels = images.read(i), formatted.open_pixels(i)
        except ValueError:
            continue
        values = numbers.values[np.isfinite(numbers.values)] if numbers.values.dtype.kind == "f" else numbers.values
        if values.size:
            extent = (float(values.min()), float(values.max()))
            ends = np.isin(pixels, (0, np.iinfo(pixels.dtype).max))
            yield _Extent(numbers.kind, extent, (int(pixels.min()), int(pixels.max())), float(ends.mean()))
