"""Joins the images of several data sets into one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.images.contract import Images
from infomax.data.numbers import NumberKind, Numbers


@dataclass(eq=False)
class JoinedImages(Images):
    """The images of several data sets, one data set after another."""

    parts: Sequence[Images]
    """The data sets."""
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def _ends(self) -> Int[np.ndarray, " parts"]:
        return np.cumsum([len(part) for part in self.parts])

    def _find(self, index: int) -> tuple[int, int]:
        """Returns the number of the part that an image is in, and the image's index in that part."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return self.parts[part].name(inner)

    def fingerprint(self) -> str:
        return self.hashes()[0]

    def hashes(self) -> tuple[str, str | None]:
        fingerprints, times = zip(*(part.hashes() for part in self.parts), strict=True)
        joined, joined_times = (
            hashlib.sha256(text.encode()).hexdigest()[:12] for text in (" ".join(fingerprints), f"{list(times)}")
        )
        return joined, joined_times if any(times) else None

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        part_of_image, digest = np.searchsorted(self._ends, index, side="right"), hashlib.sha256(b"joined")
        for part in np.unique(part_of_image):
            inner = index[part_of_image == part] - (self._ends[part - 1] if part else 0)
            positions = np.flatnonzero(part_of_image == part).tolist()
            digest.update(f"{positions} {self.parts[part].state(inner)}".encode())
        return digest.hexdigest()

    def decoded_by(self, decoding: Decoding) -> "JoinedImages":
        return replace(self, parts=[part.decoded_by(decoding) for part in self.parts])

    def kind(self, index: int) -> NumberKind:
        part, inner = self._find(index)
        return self.parts[part].kind(inner)

    def read(self, index: int) -> Numbers:
        part, inner = self._find(index)
        return self.parts[part].read(inner)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        part, inner = self._find(index)
        return self.parts[part].open(inner, choose_divisor)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        part, inner = self._find(index)
        return self.parts[part].open_pixels(inner, choose_divisor, buffer)
