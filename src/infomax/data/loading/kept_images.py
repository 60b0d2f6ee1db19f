"""Decoded images that are kept in memory from one epoch to the next, in one copy for all workers.

A JPEG is decoded at 1/1, 1/2, 1/4 or 1/8 of its size, as the crops that are drawn need it. So each image is kept at
each of these sizes that has been asked for: crops are cut from the same pixels as if the file had been decoded anew.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16

from infomax.data.decoding.fast_jpegs import DIVISORS
from infomax.data.loading.shared_memory import SharedMemory

UNKNOWN, REDUCIBLE, FIXED = 0, 1, 2  # whether an image can be decoded at a smaller size: JPEGs can
ALIGNMENT = 64  # bytes
SAID_FROM = 10**8  # bytes


@dataclass(frozen=True)
class Kept:
    """A frozen dataclass that says where the pixels of ``n`` images are, those that are kept among them."""

    is_kept: Bool[np.ndarray, " n"]
    """Whether the image is kept, at the size that was asked for."""
    offset: Int[np.ndarray, " n"]
    """First byte of the pixels in :attr:`KeptImages.pixels`."""
    height: Int[np.ndarray, " n"]
    """Height of the pixels."""
    width: Int[np.ndarray, " n"]
    """Width of the pixels."""


def table_size(count: int, writers: int) -> int:
    """Returns the bytes that the table of where the images are takes.

    Args:
        count: Number of images.
        writers: Number of processes that write at a time.
    """
    return 8 * (count * (3 * len(DIVISORS) + 3) + writers + 1) + ALIGNMENT


class KeptImages:
    """Decoded images in shared memory, and the table of where they are.

    Several processes may write at a time: each has a part of the memory for its own, so that none waits for another.
    Whatever one has written is seen by all.

    Args:
        count: Number of images of the data set.
        size: Bytes that may be taken; above :func:`table_size`.
        writers: Number of processes that write at a time.
    """

    def __init__(self, count: int, size: int, writers: int):
        self.count, self.size, self.writers = count, size - table_size(count, writers), writers
        self.memory = SharedMemory(size)
        self._map()

    def _map(self) -> None:
        """Lays the arrays out in the memory: the table first, then the pixels."""
        count, sizes = self.count, len(DIVISORS)
        start = 0

        def place(*shape: int) -> np.ndarray:
            nonlocal start
            array = self.memory.array(start, shape, np.int64)
            start += array.nbytes
            return array

        # For each image and each divisor, 1 + the first byte of the pixels, or 0; then their height and width.
        self.places, self.heights, self.widths = (place(count, sizes) for _ in range(3))
        self.full_sizes = place(count, 2)  # height and width of the image
        self.kinds = place(count)
        self.used = place(self.writers)  # bytes that are taken of each writer's part
        self._full = place(1)
        start = -(-start // ALIGNMENT) * ALIGNMENT
        self.pixels: UInt8[np.ndarray, " size"] = self.memory.bytes[start : start + self.size]

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("count", "size", "writers", "memory")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def is_full(self) -> bool:
        """Returns whether an image did not fit any more."""
        return bool(self._full[0])

    def number_of_images(self) -> int:
        """Returns how many images are kept, at one size at least."""
        return int(self.places.any(1).sum())

    def describe(self) -> str | None:
        """Returns one line on how many images are kept; None if all are, and take little memory."""
        kept, size = self.number_of_images(), int(self.used.sum())
        if self.is_full:
            room = _in_words(self.size)
            return f"keeps {kept:,} of {self.count:,} decoded images, as many as fit into {room} (--keep-decoded)"
        size_of_all = size * self.count / max(1, kept)  # some may have been left over in the first epoch
        if size_of_all < SAID_FROM:
            return None
        return f"keeps all {self.count:,} decoded images in memory, {_in_words(size_of_all)} (--keep-decoded)"

    def find(self, rows: Int[np.ndarray, " n"], divisors: Int[np.ndarray, " n"]) -> Kept:
        """Looks images up that are to be decoded at a part of their size.

        Args:
            rows: Indices of the images.
            divisors: What their sides are to be divided by: 1, 2, 4 or 8. It is ignored where the image is no JPEG.
        """
        slots = np.where(self.kinds[rows] == FIXED, 0, np.log2(divisors).astype(np.int64))
        places = self.places[rows, slots]
        return Kept(places > 0, places - 1, self.heights[rows, slots], self.widths[rows, slots])

    def has(self, row: int, divisor: int) -> bool:
        """Returns whether an image is kept at a part of its size."""
        return bool(self.places[row, DIVISORS.index(divisor)])

    def keep(
        self,
        row: int,
        pixels: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"],
        *,
        full_size: tuple[int, int],
        divisor: int | None,
        writer: int | None,
    ) -> None:
        """Keeps an image, if there is room left for it.

        Args:
            row: Index of the image.
            pixels: Its pixels; they are copied.
            full_size: Width and height of the image.
            divisor: What its sides were to be divided by; None if it is no JPEG.
            writer: Number of the writing process, from 0; None if no other process writes now: all parts are then used.
        """
        slot = 0 if divisor is None else DIVISORS.index(divisor)
        if self.places[row, slot]:
            return
        length = -(-pixels.nbytes // ALIGNMENT) * ALIGNMENT
        share = self.size // self.writers // ALIGNMENT * ALIGNMENT
        for part in range(self.writers) if writer is None else (writer % self.writers,):
            if self.used[part] + length <= share:
                break
        else:
            self._full[0] = 1
            return
        offset = part * share + int(self.used[part])
        self.used[part] += length
        self.pixels[offset : offset + pixels.nbytes] = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        self.heights[row, slot], self.widths[row, slot] = pixels.shape[:2]
        self.full_sizes[row] = full_size[::-1]
        self.kinds[row] = FIXED if divisor is None else REDUCIBLE
        self.places[row, slot] = 1 + offset  # last: from here on others read the rest


def _in_words(size: float) -> str:
    """Returns a number of bytes in GB, or in MB if it is small."""
    return f"{size / 1e9:.1f} GB" if size >= 0.95e9 else f"{size / 1e6:.0f} MB"
