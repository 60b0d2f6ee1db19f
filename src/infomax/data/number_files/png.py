"""PNG files of 16 bits, gray or RGB. Pillow would cut the latter to 8 bits."""

from typing import IO, Any

import numpy as np

from infomax.data.decoding.image_files import identify
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import exif_orientation, turn
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.number_files.tiff import on_white
from infomax.data.numbers import NumberKind
from infomax.data.pixel_format import DEEP_MAX

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # types of colour
CHANNELS = {GRAY: 1, RGB: 3, GRAY_ALPHA: 1, RGBA: 3}


def open_png(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers | None:
    """Opens a PNG file; see :class:`~infomax.data.number_files.number_format.NumberFormat`.

    Transparent pixels become white, as those of 8 bits do.
    """
    header = stream.read(26)
    if len(header) < 26 or header[12:16] != b"IHDR" or header[24] != 16 or header[25] not in CHANNELS:
        return None
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    colour = header[25]

    def read() -> np.ndarray:
        stream.seek(0)
        image: Any = identify(stream)
        if colour == GRAY:
            values = np.asarray(image).astype(np.uint16)[..., None]
        else:
            stream.seek(0)
            values = _decode(stream.read())
            image.load()
        transparent = image.info.get("transparency")
        if values.shape[-1] in (2, 4):
            values = on_white(values, DEEP_MAX)
        elif transparent is not None:
            values = np.where((values == np.array(transparent)).all(-1, keepdims=True), DEEP_MAX, values)
        return turn(values.astype(np.uint16, copy=False), exif_orientation(image.info))

    return OpenedNumbers(NumberKind(CHANNELS[colour], np.dtype(np.uint16), 0, DEEP_MAX), width, height, read)


def _decode(encoded: bytes) -> np.ndarray:
    """Returns the numbers [h, w, channels] of a PNG file, alpha included."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    return decode_png(data, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()


PNG = NumberFormat("PNG", lambda start: start.startswith(SIGNATURE), open_png)
