"""Opens images that are files: each is decoded when it is opened."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from infomax.data.decoding.decoder import decode, decode_pixels
from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.fingerprints import hash_files
from infomax.data.images.contract import Images
from infomax.data.images.packed_names import PackedNames
from infomax.data.number_files import file_kind, read_numbers, read_rgb
from infomax.data.numbers import NumberKind, Numbers


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
