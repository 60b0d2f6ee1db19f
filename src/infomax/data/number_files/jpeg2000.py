"""JPEG 2000 files of more than 8 bits, as satellites' bands are kept; by Pillow in gray, else by imagecodecs."""

import struct
from importlib.util import find_spec
from typing import IO

import numpy as np

from infomax.data.decoding.image_files import RefusedImageError, identify
from infomax.data.decoding.options import Decoding
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.numbers import NumberKind
from infomax.runtime.extras import how_to_install

STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
SIZE = b"\xff\x4f\xff\x51"  # beginning of the code stream, and of the segment that says sizes
MAX_HEADER = 2**20  # bytes of boxes before it
SIGNED = 0x80


def open_jpeg2000(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers | None:
    """Opens a JPEG 2000 file; see :class:`~infomax.data.number_files.number_format.NumberFormat`.

    Raises:
        ValueError: if it has more than 16 bits, or a package is missing that decodes it.
    """
    header = stream.read(MAX_HEADER)
    start = header.find(SIZE) + len(SIZE)
    if start < len(SIZE) or len(header) < start + 39:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", header, start + 4)
    (channels,) = struct.unpack_from(">H", header, start + 36)
    sizes = header[start + 38 : start + 38 + 3 * channels]
    depths = {*sizes[::3]}
    bits = max((depth & ~SIGNED) + 1 for depth in depths)
    if depths <= {*range(8)}:
        return None
    if len(depths) > 1 or bits > 16 or {*sizes[1::3], *sizes[2::3]} != {1}:
        raise RefusedImageError(f"its {channels} channels have other depths or sizes than one of at most 16 bits")
    is_signed = bool(depths.pop() & SIGNED)
    kind = NumberKind(channels, np.dtype(np.int16)) if is_signed else None
    kind = kind or NumberKind(channels, np.dtype(np.uint16), 0, 2**bits - 1)
    is_gray = channels == 1 and not is_signed
    if not is_gray and find_spec("imagecodecs") is None:
        raise RefusedImageError(f"it has {kind}, which needs the package imagecodecs: {how_to_install('tiff')}")

    def read() -> np.ndarray:
        stream.seek(0)
        if is_gray:
            values = np.asarray(identify(stream)) >> (16 - bits)  # Pillow makes 16 bits of all depths
        else:
            from imagecodecs import jpeg2k_decode

            values = jpeg2k_decode(stream.read())
        return values.astype(kind.dtype).reshape(bottom - top, right - left, channels)

    return OpenedNumbers(kind, right - left, bottom - top, read)


JPEG2000 = NumberFormat("JPEG 2000", lambda start: start.startswith(STARTS), open_jpeg2000)
