"""Holds images of one size as one array of numbers, in memory or mapped from a file."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.fingerprints import LARGE
from infomax.data.images.contract import Images
from infomax.data.numbers import NumberKind, Numbers, kind_of_array, pixels_of
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.shown_pixels import shown_image


@dataclass(eq=False)
class ArrayImages(Images):
    """Images of one size as one array, in memory or mapped from a file."""

    pixels: np.ndarray
    """The numbers [n, h, w, channels]: bytes of RGB, or others, of which :meth:`batch` makes pixels of the format."""
    labels: np.ndarray | None
    classes: list[str]
    pixel_format: PixelFormat = RGB
    """The format of the pixels that are made of the numbers."""
    rows: Int[np.ndarray, " n"] | None = None
    """Which of ``pixels`` are the images, for those of a mapped file that are not all used; None for all."""
    no_data: float | None = None
    """The number that stands for no measurement, if that is known."""
    decoding: Decoding = Decoding()
    """What the user decided about how numbers become bytes of RGB, if that is the format."""

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    @property
    def size(self) -> tuple[int, int]:
        """Returns the height and width of the images."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def nbytes(self) -> int:
        """Returns how many bytes the pixels of all images take."""
        return len(self) * int(np.prod(self.pixels.shape[1:])) * (2 if self.pixel_format.is_deep else 1)

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        if len(self) * self.pixels[:1].nbytes < LARGE:
            return hashlib.sha256(self.numbers(np.arange(len(self))).tobytes()).hexdigest()[:12]
        sample = self.numbers(np.linspace(0, len(self) - 1, 1000).astype(int))
        shape = (len(self), *self.pixels.shape[1:])
        return hashlib.sha256(f"{shape}".encode() + sample.tobytes()).hexdigest()[:12]

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        shape = (len(self), *self.pixels.shape[1:])
        value_range = self.decoding.value_range if self.pixel_format.is_rgb else None
        range_ = "" if value_range is None else f" {value_range}"
        return hashlib.sha256(f"{shape}{range_}".encode() + self.numbers(index).tobytes()).hexdigest()

    def numbers(self, index: Int[np.ndarray, " n"]) -> np.ndarray:
        """Returns the numbers of several images as the array holds them [n, h, w, channels]."""
        return self.pixels[index if self.rows is None else self.rows[index]]

    def batch(self, index: Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"] | UInt16[np.ndarray, "b h w c"]:
        """Returns the pixels of several images.

        Raises:
            ValueError: if their numbers cannot be pixels of this format.
        """
        return pixels_of(self.numbers(index), self.pixel_format, self.decoding.value_range)

    def join(self, other: "ArrayImages", labels: np.ndarray | None) -> "ArrayImages | None":
        """Returns these images and others as one array; None if the two are not of one size, type and format.

        Args:
            other: The others, which come after these.
            labels: The labels of all.
        """
        mine, theirs = ((x.pixels.shape[1:], x.pixels.dtype, x.pixel_format, x.no_data) for x in (self, other))
        if mine != theirs:
            return None
        both = np.concatenate([x.numbers(np.arange(len(x))) for x in (self, other)])
        return replace(self, pixels=both, labels=labels, rows=None)

    def kind(self, index: int) -> NumberKind:
        return kind_of_array(self.pixels.dtype, self.pixels.shape[3], self.no_data)

    def read(self, index: int) -> Numbers:
        return Numbers(self.numbers(np.array([index]))[0], self.kind(index))

    def decoded_by(self, decoding: Decoding) -> "ArrayImages":
        return replace(self, decoding=decoding)

    def in_format(self, pixel_format: PixelFormat) -> "ArrayImages":
        return replace(self, pixel_format=pixel_format)

    def show(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return shown_image(self.read(index).values, self.pixel_format.show)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return shown_image(self.open_pixels(index), self.pixel_format.show)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        try:
            return self.batch(np.array([index]))[0]
        except ValueError as error:
            raise type(error)(f"image {self.name(index)}: {error}") from error


def is_mapped(array: np.ndarray) -> bool:
    """Returns whether an array, or the one that it is a view of, is mapped from a file."""
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False
