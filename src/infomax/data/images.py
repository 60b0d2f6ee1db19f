"""Images that are opened by their index, perhaps with labels: the contract, arrays, image files, and selections."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from infomax.data.decoding.decoder import decode, decode_pixels
from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.opened_images import OpenedImage, load_opened
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.rgb import convert
from infomax.data.fingerprints import LARGE, hash_files
from infomax.data.number_files import file_kind, read_numbers, read_rgb
from infomax.data.number_files.pillow import kind_of_opened, numbers_of_opened
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers, to_bytes, to_gray, to_pixels
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.shown_pixels import shown_image

MAX_TRIES = 20  # images that are tried until one can be decoded


class Images(ABC):
    """A data set whose images are opened by their index, from 0, in any order and from any process."""

    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"] | None
    """For each image the index of its class in ``classes``; or a row with 1 for each class that it shows and 0 for the
    others, if it can show several. None if there are no labels."""
    classes: list[str]
    """Names of the classes; empty without labels."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns the image's name, which messages use: its path, or its number."""

    def key(self, index: int) -> int:
        """Returns the number that stands for the image when the random numbers of its views are drawn.

        The key is the index, except for images of a stream: there it is a hash of the encoded image, which does not
        depend on its place in the stream.
        """
        return index

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a short hash that tells data sets apart: a run is resumed only if its data set still has the same.

        It covers the images and their order, as far as this takes little time, and not where they are: the pixels of an
        array, or of 1,000 of its images if they take 256 MB or more; of files, what
        :func:`infomax.data.fingerprints.hash_files` reads.
        """

    def hashes(self) -> tuple[str, str | None]:
        """Returns the fingerprint, and a short hash of when the files were changed last; both in one pass over them.

        The second changes if the files are copied too, so it says no more than that some may have been changed. It is
        None if there are no files, or :meth:`fingerprint` reads all their bytes.
        """
        return self.fingerprint(), None

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        """Returns a hash of the current content of some images: cached features are valid while it stays the same.

        It changes if their pixels do; for image files, if their size or their time of modification does.

        Args:
            index: Indices of the images; their order counts.
        """
        return hashlib.sha256(f"{self.fingerprint()} {index.tolist()}".encode()).hexdigest()

    def decoded_by(self, decoding: Decoding) -> "Images":
        """Returns the same images, decoded as the user decided; images that are not decoded stay as they are."""
        return self

    def kind(self, index: int) -> NumberKind:
        """Returns what the numbers of an image are; of a file, the header alone is read.

        Raises:
            ValueError: naming the image, if its header cannot be read.
        """
        return RGB_KIND

    def read(self, index: int) -> Numbers:
        """Returns the numbers of an image as its file or array holds them; those of 8-bit files are RGB.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        return Numbers(self.open_pixels(index), RGB_KIND)

    def in_format(self, pixel_format: PixelFormat) -> "Images":
        """Returns the same images, whose pixels are those of a format; images are 8-bit RGB unless this is called."""
        return self if pixel_format.is_rgb else FormattedImages(self, pixel_format)

    def show(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        """Returns a picture of an image for people, whatever its channels and depth are.

        Images in 8-bit RGB are those that :meth:`open` returns, and so are all images in a format that was said by
        :meth:`in_format`. Of others the first channels are stretched for the eye.

        Args:
            index: Index of the image.
            choose_divisor: As :meth:`open` takes it.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        kind = self.kind(index)
        if kind.is_byte and kind.channels == 3:
            return self.open(index, choose_divisor)
        return shown_image(self.read(index).values)

    @abstractmethod
    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        """Decodes an image: in RGB, turned as its EXIF orientation says, transparent pixels on white.

        Args:
            index: Index of the image.
            choose_divisor: Called with the width and height of a JPEG before it is decoded. If it returns 2, 4 or 8, it
                is decoded at 1/2, 1/4 or 1/8 of its size, which takes less time. None decodes it in full.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        """Decodes an image to the pixels that an encoder is given; most JPEGs in less time than :meth:`open` takes.

        Without :meth:`in_format`, they are those of the image that :meth:`open` returns.

        Args:
            index: Index of the image.
            choose_divisor: As :meth:`open` takes it.
            buffer: Memory that may be decoded into. The result is then valid until the next image is decoded into it.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        return np.asarray(self.open(index, choose_divisor))


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


def kind_of_array(dtype: np.dtype, channels: int, no_data: float | None = None) -> NumberKind:
    """Returns what the numbers of an array are; those of 8 and 16 bits without a sign have a black and a white."""
    is_unsigned = dtype in (np.uint8, np.uint16)
    low, high = (0.0, float(np.iinfo(dtype).max)) if is_unsigned else (None, None)
    return NumberKind(channels, dtype, low, high, no_data)


def pixels_of(
    numbers: np.ndarray, pixel_format: PixelFormat, value_range: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "... c"] | UInt16[np.ndarray, "... c"]:
    """Makes pixels of numbers as :func:`infomax.data.numbers.to_pixels` does; bytes of RGB become gray, if asked.

    Args:
        numbers: Numbers [..., channels].
        pixel_format: The format. If it has one channel of bytes, bytes of RGB become gray. If it is RGB, numbers of
            more than 8 bits that have one channel or three become bytes.
        value_range: The numbers that become 0 and 255 then. None takes the range of 16 bits without a sign; other
            numbers have none.

    Raises:
        ValueError: if the numbers cannot be pixels of this format.
    """
    channels = numbers.shape[-1]
    if numbers.dtype == np.uint8 and channels == 3 and pixel_format.channels == 1 and not pixel_format.is_deep:
        return to_gray(numbers)
    is_deep = numbers.dtype != np.uint8 and (numbers.dtype == np.uint16 or value_range is not None)
    if pixel_format.is_rgb and is_deep and channels in (1, 3):
        return np.broadcast_to(to_bytes(numbers, value_range), (*numbers.shape[:-1], 3))
    return to_pixels(numbers, pixel_format)


class PackedNames(Sequence[str]):
    """A sequence of many strings, such as file names, that is kept as one block of bytes.

    A list would hold a Python object for each string, in each worker.

    Args:
        block: The strings in UTF-8, each followed by a NUL. If it is mapped from a file, a process that receives these
            names maps the file too, instead of receiving the bytes.
    """

    def __init__(self, block: UInt8[np.ndarray, " bytes"]):
        self.block = block
        self.ends = np.flatnonzero(block == 0)
        if len(block) < 2**32:
            self.ends = self.ends.astype(np.uint32)  # half the memory, in each worker that is not forked

    @classmethod
    def pack(cls, names: Iterable[str]) -> "PackedNames":
        """Packs strings, which must not contain a NUL."""
        joined = b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)
        return cls(np.frombuffer(joined, np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = 0 if index == 0 else int(self.ends[index - 1]) + 1
        return self.block[start : int(self.ends[index])].tobytes().decode(errors="surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # pyrefly: ignore[bad-override]

    def fingerprint(self) -> str:
        """Returns a short hash of the names and their order."""
        return hashlib.sha256(self.block.tobytes()[:-1].replace(b"\0", b"\n")).hexdigest()[:12]

    def __reduce__(self) -> tuple:
        if isinstance(self.block, np.memmap) and self.block.filename is not None:
            return _map_names, (self.block.filename, self.block.offset, len(self.block))
        return PackedNames, (np.asarray(self.block),)


def _map_names(file: str, offset: int, length: int) -> PackedNames:
    """Returns the names whose block is ``length`` bytes of a file, from ``offset`` on."""
    return PackedNames(np.memmap(file, np.uint8, mode="r", offset=offset, shape=(length,)))


@dataclass(eq=False)
class FileImages(Images):
    """Image files, which are decoded each time that they are opened."""

    root: Path
    """Folder that the paths start from."""
    files: Sequence[str]
    """Paths of the images, relative to ``root``."""
    labels: np.ndarray | None
    classes: list[str]
    decoding: Decoding = Decoding()

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def fingerprint(self) -> str:
        return self.hashes()[0]

    def hashes(self) -> tuple[str, str | None]:
        names = self.files if isinstance(self.files, PackedNames) else PackedNames.pack(self.files)
        return hash_files(self.root, names, names.fingerprint())

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        digest = hashlib.sha256(self.decoding.identity)
        for i in index:
            name, size, modified = self.files[int(i)], 0, 0
            try:
                status = os.stat(os.path.join(self.root, name))
                size, modified = status.st_size, status.st_mtime_ns
            except OSError:
                pass  # the error is raised when the image is opened
            digest.update(f"{name}\0{size} {modified}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        path = self.root / self.files[index]
        try:
            return decode(path, str(path), choose_divisor, self.decoding)
        except ValueError as error:
            return Image.fromarray(self._pixels_without_pillow(path, error))

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        path = self.root / self.files[index]
        try:
            return decode_pixels(path, str(path), choose_divisor, self.decoding, buffer)
        except ValueError as error:
            return self._pixels_without_pillow(path, error)

    def _pixels_without_pillow(self, path: Path, error: ValueError) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels of an image that Pillow could not decode; raises its error if no other format is met."""
        pixels = read_rgb(path, str(path), self.decoding)
        if pixels is None:
            raise error
        return pixels

    def kind(self, index: int) -> NumberKind:
        path = self.root / self.files[index]
        return file_kind(path, str(path), self.decoding)

    def read(self, index: int) -> Numbers:
        path = self.root / self.files[index]
        return read_numbers(path, str(path), self.decoding)

    def decoded_by(self, decoding: Decoding) -> "FileImages":
        return replace(self, decoding=decoding)


@dataclass(eq=False)
class GivenFiles(FileImages):
    """Image files whose names are the paths by which they were given one by one.

    Their hashes cover the paths from ``root``, which stay the same if the files are given by others.
    """

    given: Sequence[str] = ()
    """Path of each image as it was given."""

    def name(self, index: int) -> str:
        return self.given[index]


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


class FormattedImages(Images):
    """Images of any source whose pixels are those of a format.

    Args:
        base: The images.
        pixel_format: The format.
    """

    def __init__(self, base: Images, pixel_format: PixelFormat):
        self.base, self.pixel_format = base, pixel_format
        self.labels, self.classes = base.labels, base.classes

    def __len__(self) -> int:
        return len(self.base)

    def name(self, index: int) -> str:
        return self.base.name(index)

    def key(self, index: int) -> int:
        return self.base.key(index)

    def fingerprint(self) -> str:
        return self.base.fingerprint()

    def hashes(self) -> tuple[str, str | None]:
        return self.base.hashes()

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        return self.base.state(index)

    def decoded_by(self, decoding: Decoding) -> "FormattedImages":
        return FormattedImages(self.base.decoded_by(decoding), self.pixel_format)

    def kind(self, index: int) -> NumberKind:
        return self.base.kind(index)

    def read(self, index: int) -> Numbers:
        return self.base.read(index)

    def in_format(self, pixel_format: PixelFormat) -> Images:
        return self.base.in_format(pixel_format)

    def show(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return self.open(index, choose_divisor)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return shown_image(self.open_pixels(index), self.pixel_format.show)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        if (
            self.pixel_format.channels == 1 and not self.pixel_format.is_deep
        ):  # RGB is decoded in less time, and then made gray
            return to_gray(self.base.open_pixels(index, choose_divisor, buffer))
        try:
            return pixels_of(self.base.read(index).values, self.pixel_format)
        except ValueError as error:
            message = str(error)
            name = self.name(index)
            raise type(error)(message if name in message else f"{name}: {message}") from error


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
