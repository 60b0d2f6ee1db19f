"""What a source of images is: a number of them, each opened by its index, perhaps with labels; and its splits."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from operator import eq
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

LARGE = 2**28  # bytes of an array from which on its fingerprint is that of some of its images
Shrink = Callable[[int, int], int]
"""Given the width and height of an image, by how much each side may be divided while it is decoded."""


class Images(ABC):
    """Images that are opened by their index, in any order and from any process."""

    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"] | None
    """Numbers from 0 that stand for ``classes``; or, where an image can be of several, 1 for each that it shows."""
    classes: list[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What the image is called, for people."""

    def key(self, index: int) -> int:
        """The number that decides the image's views."""
        return index

    @abstractmethod
    def fingerprint(self) -> str:
        """Of the images and their order: equal for equal data, and different for data that changed."""

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        """Of these images alone: changes with their pixels, or with the size or the time of change of their files."""
        return hashlib.sha256(f"{self.fingerprint()} {index.tolist()}".encode()).hexdigest()

    @abstractmethod
    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        """The image in RGB, turned as its EXIF orientation says, on white where it is transparent.

        Args:
            shrink: Allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, in less time.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """


@dataclass(eq=False)
class ArrayImages(Images):
    """Images of one size, in memory or in a file that is mapped into it."""

    pixels: UInt8[np.ndarray, "n h w 3"]
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        if self.pixels.nbytes < LARGE:
            return hashlib.sha256(self.pixels.tobytes()).hexdigest()[:12]
        some = self.pixels[np.linspace(0, len(self) - 1, 1000).astype(int)]
        return hashlib.sha256(f"{self.pixels.shape}".encode() + some.tobytes()).hexdigest()[:12]

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        return hashlib.sha256(f"{self.pixels.shape}".encode() + self.pixels[index].tobytes()).hexdigest()

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[index]))


class Names(Sequence[str]):
    """Many strings in one block of bytes, each ended by a NUL: no Python object for each, in no worker.

    Args:
        block: The bytes; where they are a file's that is mapped into memory, another process maps it again.
    """

    def __init__(self, block: UInt8[np.ndarray, " bytes"]):
        self.block = block
        self.ends = np.flatnonzero(block == 0)
        if len(block) < 2**32:
            self.ends = self.ends.astype(np.uint32)  # half the memory, in each worker that is not forked

    @classmethod
    def pack(cls, names: Iterable[str]) -> "Names":
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
        """Of the names and their order."""
        return hashlib.sha256(self.block.tobytes()[:-1].replace(b"\0", b"\n")).hexdigest()[:12]

    def __reduce__(self) -> tuple:
        if isinstance(self.block, np.memmap) and self.block.filename is not None:
            return _mapped, (self.block.filename, self.block.offset, len(self.block))
        return Names, (np.asarray(self.block),)


def _mapped(file: str, offset: int, length: int) -> Names:
    return Names(np.memmap(file, np.uint8, mode="r", offset=offset, shape=(length,)))


@dataclass(eq=False)
class FileImages(Images):
    """Image files, to be decoded each time."""

    root: Path
    files: Sequence[str]
    """Relative to ``root``."""
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def fingerprint(self) -> str:
        return (self.files if isinstance(self.files, Names) else Names.pack(self.files)).fingerprint()

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        known = hashlib.sha256()
        for i in index:
            name, size, changed = self.files[int(i)], 0, 0
            try:
                found = os.stat(os.path.join(self.root, name))
                size, changed = found.st_size, found.st_mtime_ns
            except OSError:
                pass  # reading it will say what is wrong
            known.update(f"{name}\0{size} {changed}\n".encode(errors="surrogateescape"))
        return known.hexdigest()

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        path = self.root / self.files[index]
        return decode(path, str(path), shrink)


@dataclass(eq=False)
class Subset(Images):
    """Some images of others."""

    base: Images
    index: Int[np.ndarray, " n"]
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.index)

    def name(self, index: int) -> str:
        return self.base.name(int(self.index[index]))

    def fingerprint(self) -> str:
        return hashlib.sha256(self.base.fingerprint().encode() + self.index.tobytes()).hexdigest()[:12]

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        return self.base.state(self.index[index])

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        return self.base.open(int(self.index[index]), shrink)


def take(images: Images, index: Int[np.ndarray, " n"], labels: np.ndarray | None, classes: list[str]) -> Images:
    """Some images; arrays are copied, files only named.

    Args:
        labels: Of all ``images``, by ``classes``.
    """
    own = None if labels is None else labels[index]
    if isinstance(images, ArrayImages):
        return ArrayImages(images.pixels[index], own, classes)
    return Subset(images, index, own, classes)


def decode(file: Path | BytesIO, name: str, shrink: Shrink | None = None) -> Image.Image:
    """An encoded image; see :meth:`Images.open`.

    Raises:
        ValueError: naming it as ``name``, if it cannot be decoded.
    """
    try:
        with Image.open(file) as image:
            if shrink is not None and image.format == "JPEG":
                turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # stored on its side
                width, height = image.size
                by = shrink(height, width) if turned else shrink(width, height)
                if by > 1:
                    image.draft(None, (width // by, height // by))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds: what a file from elsewhere may hold is not known
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # as convert() would copy it
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which convert() would cut off at 255
        values = np.asarray(image, dtype=np.float64)
        largest = 65535.0 if image.mode.startswith("I;16") else values.max(initial=0)
        top = 1.0 if image.mode == "F" and largest <= 1 else 255.0 if largest <= 255 else 65535.0
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def readable(images: Images, start: int) -> tuple[int, Image.Image]:
    """The first image from ``start`` on that can be read, and its index, in at most 20 tries.

    Raises:
        ValueError: naming the image at ``start``, if none can.
    """
    failure = None
    for index in range(start, start + 20):
        try:
            return index % len(images), images.open(index % len(images))
        except ValueError as error:
            failure = failure or error
    raise failure or ValueError("no images")
