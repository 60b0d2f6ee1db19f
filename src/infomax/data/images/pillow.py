"""Holds images that the user opened or made by Pillow, with what their files say of their numbers."""

import hashlib
from collections.abc import Sequence
from copy import copy

import numpy as np
from jaxtyping import Int
from PIL import Image

from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.opened_images import OpenedImage, load_opened
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.rgb import convert
from infomax.data.images.contract import Images
from infomax.data.number_files.pillow import kind_of_opened, numbers_of_opened
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers


class PillowImages(Images):
    """PIL images in memory. Their names are their numbers.

    Args:
        images: The images; of those that were opened from a file, the pixels are loaded here.
        labels: As in :class:`Images`.
        classes: As there.
        decoding: What the user decided about how their numbers become pixels.

    Raises:
        ValueError: with the number of the first image that cannot be loaded.
    """

    def __init__(
        self,
        images: Sequence[Image.Image],
        labels: np.ndarray | None,
        classes: list[str],
        decoding: Decoding = Decoding(),  # noqa: B008
    ):
        self.labels, self.classes, self.decoding = labels, classes, decoding
        self._opened: list[OpenedImage] = [load_opened(image, f"image {i}") for i, image in enumerate(images)]

    def __len__(self) -> int:
        return len(self._opened)

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return self.state(np.arange(len(self)))[:12]

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        digest = hashlib.sha256(self.decoding.identity)
        for i in index:
            pixels = np.asarray(self.open(int(i)))
            digest.update(f"{pixels.shape}".encode() + hashlib.sha256(pixels.tobytes()).digest())
        return digest.hexdigest()

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return convert(self._opened[index], f"image {index}", self.decoding)

    def kind(self, index: int) -> NumberKind:
        return kind_of_opened(self._opened[index])

    def read(self, index: int) -> Numbers:
        opened, kind = self._opened[index], self.kind(index)
        return Numbers(self.open_pixels(index) if kind == RGB_KIND else numbers_of_opened(opened, kind), kind)

    def decoded_by(self, decoding: Decoding) -> "PillowImages":
        changed = copy(self)
        changed.decoding = decoding
        return changed
