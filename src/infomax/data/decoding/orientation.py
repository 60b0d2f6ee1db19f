"""Finds how an image is to be turned, in its EXIF or XMP data, and turns its pixels."""

import re
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRANSPOSED = (5, 6, 7, 8)  # orientations of images that are stored turned by a quarter


def turn(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Turns and mirrors pixels as an orientation of EXIF says."""
    if orientation not in TURNS:
        return pixels
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    vertical, horizontal = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::vertical, ::horizontal])


def exif_orientation(info: dict[Any, Any]) -> int:
    """Returns the orientation, from 1 to 8, that an image's EXIF or, if it has none there, its XMP data hold.

    Only this entry is read, so that errors in others do no harm. It is 1, upright, if there is none.

    Args:
        info: What Pillow keeps of the file beside the pixels.
    """
    exif = info.get("exif")
    if exif is None and isinstance(text := info.get("Raw profile type exif"), str):
        with suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    if isinstance(exif, bytes) and (orientation := _orientation_in(exif)) is not None:
        return orientation
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp")
    xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    match = re.search(rb'tiff:Orientation(="|>)([0-9])', xmp) if isinstance(xmp, bytes) else None
    return int(match[2]) if match else 1


def _orientation_in(exif: bytes) -> int | None:
    """Returns the orientation in EXIF data, or None if it cannot be found."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(entries):
            place = start + 2 + 12 * entry
            tag, kind, count = struct.unpack_from(order + "HHI", exif, place)
            if tag == ORIENTATION and count == 1 and kind in (1, 3, 4):  # numbers of 1, 2 and 4 bytes
                return struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], exif, place + 8)[0]
    except struct.error:
        pass  # the data end before the entry
    return None
