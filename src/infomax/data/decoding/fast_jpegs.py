"""Decodes JPEG files by the package simplejpeg, if it is installed: the bytes that Pillow gives, in less time.

Both packages run libjpeg-turbo. simplejpeg writes rows of RGB straight into memory that is given to it; Pillow decodes
into memory of its own, with a fourth byte for each pixel, from which the rows are copied twice. A file is left to
Pillow if simplejpeg has anything to say against it.
"""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

DIVISORS = (1, 2, 4, 8)  # a JPEG's sides can be divided by these while it is decoded
MODES = {"RGB", "L"}  # Pillow's names of the colours of a JPEG that become RGB in the same way in both packages


class ReusedMemory:
    """Memory that is used for one image after another; new memory has to be fetched from the system."""

    def __init__(self) -> None:
        self.content = np.empty(0, np.uint8)

    def take(self, length: int) -> UInt8[np.ndarray, " length"]:
        """Returns the first bytes of the memory, which grows if it has fewer."""
        if len(self.content) < length:
            self.content = np.empty(length + length // 4, np.uint8)
        return self.content[:length]


def decode_fast(
    content: bytes, width: int, height: int, buffer: ReusedMemory | None = None
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Returns the pixels of a JPEG file, not turned; None if it is to be left to Pillow.

    Args:
        content: The file.
        width: Width of the result in pixels: that of the file, divided by 1, 2, 4 or 8 and rounded up.
        height: Its height, likewise.
        buffer: Memory to decode into. The result is then valid until the next image is decoded.
    """
    decode = _faithful_decoder()
    if decode is None:
        return None
    memory = None if buffer is None else buffer.take(3 * height * width)
    return _decode(decode, content, width, height, memory)


def _decode(decode: Any, content: bytes, width: int, height: int, memory: np.ndarray | None) -> np.ndarray | None:
    try:
        pixels = decode(content, "RGB", min_height=height, min_width=width, buffer=memory)
    except ValueError:  # the file is damaged, or of a kind that libjpeg-turbo does not convert
        return None
    return pixels if pixels.shape == (height, width, 3) else None


@cache
def _faithful_decoder() -> Any:
    """Returns simplejpeg's function; None if it is not installed, or gives other bytes here than Pillow.

    Pillow may have been built with another libjpeg, whose rounding differs. So small images with each of the usual ways
    of storing colours are decoded by both at each size.
    """
    try:
        from simplejpeg import decode_jpeg  # pyrefly: ignore[missing-import]
    except ImportError:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(noise).resize((45, 35), Image.Resampling.BICUBIC)
    options: tuple[dict[str, Any], ...] = (
        *({"subsampling": subsampling} for subsampling in (0, 1, 2)),
        {"subsampling": 2, "progressive": True},
    )
    for option in options:
        file = BytesIO()
        image.save(file, "JPEG", quality=90, **option)
        for divisor in DIVISORS:
            with Image.open(file) as opened:
                opened.draft(None, (opened.width // divisor, opened.height // divisor))
                expected = np.asarray(opened)
            height, width = expected.shape[:2]
            pixels = _decode(decode_jpeg, file.getvalue(), width, height, None)
            if pixels is None or not np.array_equal(pixels, expected):
                return None
    return decode_jpeg
