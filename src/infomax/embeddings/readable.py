"""Leaves out the images that cannot be read, so that the features of the others can be computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.loading.unreadable import UnreadableImageError, describe_unreadable, find_unreadable
from infomax.data.pixel_format import PixelFormat


@dataclass(frozen=True)
class ReadableImages:
    """A frozen dataclass that holds the images whose features are computed, and those that are left out."""

    splits: Mapping[str, Images]
    """The images of each split, by the split's name."""
    names: list[str]
    """A name for each of them, in the same order."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why each image that is left out cannot be read, by its name."""


def leave_out_unreadable(images: ReadableImages, pixel_format: PixelFormat, share: float) -> ReadableImages:
    """Returns those images that can be read; each of them is decoded.

    Args:
        images: All images.
        pixel_format: The channels and the range of numbers that the encoder takes.
        share: Share of the images that may be left out.

    Raises:
        UnreadableImageError: naming the images, if more cannot be read, or none can.
    """
    splits: dict[str, Images] = {}
    names: list[str] = []
    left_out: dict[str, str] = {}
    start = 0
    for split, of_split in images.splits.items():
        problems = find_unreadable(of_split, pixel_format)
        rows = np.array([i for i in range(len(of_split)) if i not in problems], np.int64)
        left_out |= {images.names[start + i]: reason for i, reason in problems.items()}
        names += [images.names[start + int(i)] for i in rows]
        if len(rows):
            is_whole = not problems
            splits[split] = of_split if is_whole else _select(of_split, rows)
        start += len(of_split)
    if left_out and (len(left_out) > share * start + 1e-9 or not names):
        cure = "mend the files, or move them elsewhere"
        if names:  # some can be read
            enough = _enough(left_out, start)
            cure = f"mend the files, move them elsewhere, or leave them out by --skip-unreadable {enough}"
        raise UnreadableImageError(f"{describe_unreadable(left_out, start)}; {cure}")
    return ReadableImages(splits, names, left_out)


def keep_rest(splits: Mapping[str, Images], names: list[str], left_out: Mapping[str, str]) -> ReadableImages:
    """Returns the images without those that were left out before, by their names."""
    kept: dict[str, Images] = {}
    start = 0
    for split, images in splits.items():
        rows = np.array([i for i in range(len(images)) if names[start + i] not in left_out], np.int64)
        if len(rows):
            kept[split] = images if len(rows) == len(images) else _select(images, rows)
        start += len(images)
    return ReadableImages(kept, [name for name in names if name not in left_out], dict(left_out))


def _select(images: Images, rows: np.ndarray) -> Images:
    return select_images(images, rows, images.labels, images.classes)


def _enough(left_out: Mapping[str, str], count: int) -> str:
    """Returns the smallest share of two digits that lets so many images be left out."""
    return f"{min(0.99, np.ceil(100 * len(left_out) / count) / 100):g}"
