"""Selects images of a data set: by their indices, or the first one that can be decoded."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.images.arrays import ArrayImages, is_mapped
from infomax.data.images.contract import FormattedImages, Images
from infomax.data.numbers import NumberKind, Numbers

MAX_TRIES = 20  # images that are tried until one can be decoded


@dataclass(eq=False)
class Subset(Images):
    """Images of another data set that are selected by their indices; they are not copied."""

    base: Images
    """The data set that they are selected from."""
    index: Int[np.ndarray, " n"]
    """Index in ``base`` of each image."""
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.index)

    def name(self, index: int) -> str:
        return self.base.name(int(self.index[index]))

    def fingerprint(self) -> str:
        return self.hashes()[0]

    def hashes(self) -> tuple[str, str | None]:
        fingerprint, times = self.base.hashes()
        return hashlib.sha256(fingerprint.encode() + self.index.tobytes()).hexdigest()[:12], times

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        return self.base.state(self.index[index])

    def decoded_by(self, decoding: Decoding) -> "Subset":
        return replace(self, base=self.base.decoded_by(decoding))

    def kind(self, index: int) -> NumberKind:
        return self.base.kind(int(self.index[index]))

    def read(self, index: int) -> Numbers:
        return self.base.read(int(self.index[index]))

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return self.base.open(int(self.index[index]), choose_divisor)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        return self.base.open_pixels(int(self.index[index]), choose_divisor, buffer)


def select_images(
    images: Images, index: Int[np.ndarray, " n"], labels: np.ndarray | None, classes: list[str]
) -> Images:
    """Returns the images at the given indices, with other labels and classes if wanted.

    Args:
        images: The images to select from. Those of an array are copied; others are referred to.
        index: Indices of the images to select.
        labels: Labels of all ``images``, not of the selected ones alone, as indices into ``classes``; or None.
        classes: Names of the classes.
    """
    selected_labels = None if labels is None else labels[index]
    if isinstance(images, FormattedImages):
        return FormattedImages(select_images(images.base, index, labels, classes), images.pixel_format)
    if isinstance(images, ArrayImages):
        rows = index if images.rows is None else images.rows[index]
        if is_mapped(images.pixels):  # they stay on disk
            return replace(images, labels=selected_labels, classes=classes, rows=rows)
        return replace(images, pixels=images.pixels[rows], labels=selected_labels, classes=classes, rows=None)
    return Subset(images, index, selected_labels, classes)


def first_readable(
    images: Images, start: int, open_image: Callable[[int], Image.Image] | None = None
) -> tuple[int, Image.Image]:
    """Returns the index and a picture of the first image from ``start`` on that can be decoded.

    After the last image the search goes on with the first; at most :data:`MAX_TRIES` images are tried.

    Args:
        images: The images.
        start: Index of the first one to try.
        open_image: Returns the picture; None takes :meth:`Images.show`.

    Raises:
        ValueError: naming the image at ``start``, if none can be decoded; or if there are no images.
    """
    first_error = None
    for index in range(start, start + MAX_TRIES if len(images) else start):
        try:
            return index % len(images), (open_image or images.show)(index % len(images))
        except ValueError as error:
            first_error = first_error or error
    raise first_error or ValueError("there are no images in the data")
