"""Mends damaged image files, if nothing that is wrong with them can be seen in the picture."""

import os
from dataclasses import dataclass
from io import BytesIO
from typing import IO

import numpy as np

from infomax.data.decoding.damaged_files import has_begun_all_scans, keep_pixel_chunks, keep_pixel_segments
from infomax.data.decoding.image_files import open_image
from infomax.data.decoding.opened_images import load_image
from infomax.data.decoding.options import Decoding

MAX_GUESSED_SHARE = 0.02  # of a JPEG's pixels may depend on bytes that are missing at its end
END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class Mended:
    """A frozen dataclass that holds a damaged file in a form that can be decoded."""

    stream: IO[bytes]
    continuation: bytes = b""
    """Bytes that follow those of ``stream``."""


def mend(stream: IO[bytes], error: Exception, decoding: Decoding) -> Mended | None:
    """Returns what can be decoded of a damaged file, if all that is wrong cannot be seen; else None.

    Args:
        stream: The file.
        error: The error that decoding it raised.
        decoding: What the user decided.
    """
    stream.seek(0)
    start = stream.read(16)
    if start.startswith(b"\x89PNG"):
        stream.seek(0)
        return Mended(BytesIO(keep_pixel_chunks(stream.read())))
    if start.startswith(b"\xff\xd8\xff") and "truncated" in str(error):
        stream.seek(0)
        if has_begun_all_scans(stream.read()) and _guessed_share(stream, decoding) <= MAX_GUESSED_SHARE:
            return Mended(stream, END_OF_JPEG)
        raise ValueError(f"its end is missing: {error}")
    if start.startswith(b"\xff\xd8\xff"):
        stream.seek(0)
        return Mended(BytesIO(keep_pixel_segments(stream.read())))
    return None


def _guessed_share(stream: IO[bytes], decoding: Decoding) -> float:
    """Returns the share of a JPEG's pixels that depend on the bytes that are missing at its end.

    It is decoded with several continuations. What they have in common depends on no missing byte.

    Args:
        stream: The file.
        decoding: What the user decided.
    """
    size = stream.seek(0, os.SEEK_END)
    others = (_noise(64, size // 64 + 64, restarts=False), _noise(64, size // 64 + 64), _noise(size // 16 + 64, 64))
    opened = (open_image(stream, None, decoding, more + END_OF_JPEG) for more in (b"", *others))
    first, *others = (np.asarray(load_image(image).image) for image in opened)
    depends = np.zeros(first.shape[:2], bool)
    for other in others:
        difference = first != other
        depends |= difference.any(-1) if difference.ndim == 3 else difference
    return float(depends.mean())


def _noise(length: int, count: int, *, restarts: bool = True) -> bytes:
    """Returns random bytes that can continue the coded pixels of a JPEG.

    Args:
        length: Number of bytes up to a restart marker.
        count: How often such bytes follow each other.
        restarts: Whether there are restart markers, as in files whose parts can be decoded on their own.
    """
    noise = np.random.default_rng(0).integers(0, 255, (count, length), np.uint8)
    noise[0, 0] = 0  # after a last byte of 255, it makes that one of the picture and not the beginning of a marker
    if not restarts:
        return noise.tobytes()
    markers = np.stack([np.full(count, 0xFF), 0xD0 + np.arange(count) % 8], 1).astype(np.uint8)
    return np.concatenate([noise, markers], 1).tobytes()
