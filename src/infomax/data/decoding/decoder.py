"""Decodes image files to 8-bit RGB, as images or as pixels, damaged ones too if that cannot be seen."""

from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from infomax.data.decoding.fast_jpegs import MODES, ReusedMemory, decode_fast
from infomax.data.decoding.image_files import (
    DivisorChooser,
    JpegFile,
    RefusedImageError,
    open_image,
    open_regular,
    pillow_settings,
)
from infomax.data.decoding.mending import mend
from infomax.data.decoding.opened_images import load_image
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import exif_orientation, turn
from infomax.data.decoding.rgb import upright_rgb

Decoded = TypeVar("Decoded", Image.Image, np.ndarray)


def decode(
    file: Path | BytesIO,
    name: str,
    choose_divisor: DivisorChooser | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008
) -> Image.Image:
    """Decodes an image; see :meth:`infomax.data.images.contract.Images.open`.

    Metadata that cannot be read is left aside. Of several pages or frames, the first is taken.

    Args:
        file: Path of the encoded image, or its bytes.
        name: The image's name in an error.
        choose_divisor: Chooses by how much the sides of a JPEG are divided.
        decoding: What the user decided.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """

    def image_of(stream: IO[bytes], continuation: bytes) -> Image.Image:
        return _decode_stream(stream, choose_divisor, decoding, continuation)

    return _decode_or_mend(file, name, decoding, image_of)


def decode_pixels(
    file: Path | BytesIO,
    name: str,
    choose_divisor: DivisorChooser | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008
    buffer: ReusedMemory | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to the pixels of the image that :func:`decode` returns; most JPEGs in less time.

    Args:
        file, name, choose_divisor, decoding: As :func:`decode` takes them.
        buffer: Memory that may be decoded into. The result is then valid until the next image is decoded into it.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """

    def pixels_of(stream: IO[bytes], continuation: bytes) -> np.ndarray:
        return _stream_pixels(stream, choose_divisor, decoding, continuation, buffer)

    return _decode_or_mend(file, name, decoding, pixels_of)


def _decode_or_mend(
    file: Path | BytesIO, name: str, decoding: Decoding, decode_stream: Callable[[IO[bytes], bytes], Decoded]
) -> Decoded:
    """Returns what ``decode_stream`` makes of a file, or of the file without what is damaged in it.

    Args:
        file: Path of the encoded image, or its bytes.
        name: The image's name in an error.
        decoding: What the user decided.
        decode_stream: Decodes an open file, given the bytes to put in place of those that are missing at its end.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """
    try:
        with (
            open_regular(file) if not isinstance(file, BytesIO) else nullcontext(file) as stream,
            pillow_settings(decoding),
        ):
            try:
                return decode_stream(stream, b"")
            except (MemoryError, RefusedImageError):
                raise
            except Exception as error:
                if (mended := mend(stream, error, decoding)) is None:
                    raise
                return decode_stream(mended.stream, mended.continuation)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def _decode_stream(
    stream: IO[bytes], choose_divisor: DivisorChooser | None, decoding: Decoding, continuation: bytes = b""
) -> Image.Image:
    """Decodes an image; returns it in RGB and upright.

    Args:
        stream: The encoded image.
        choose_divisor: Chooses by how much the sides of a JPEG are divided.
        decoding: What the user decided.
        continuation: Bytes to put in place of those that are missing at a JPEG's end.
    """
    return upright_rgb(load_image(open_image(stream, choose_divisor, decoding, continuation)), decoding)


def _stream_pixels(
    stream: IO[bytes],
    choose_divisor: DivisorChooser | None,
    decoding: Decoding,
    continuation: bytes,
    buffer: ReusedMemory | None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to its pixels, upright; the arguments are those of :func:`_decode_stream`, and a buffer."""
    image = open_image(stream, choose_divisor, decoding, continuation)
    if isinstance(image, JpegFile) and image.mode in MODES and not continuation:
        orientation = exif_orientation(image.info)
        stream.seek(0)
        pixels = decode_fast(stream.read(), *image.size, buffer)
        if pixels is not None:
            return turn(pixels, orientation)
        image = open_image(stream, choose_divisor, decoding, continuation)
    return np.asarray(upright_rgb(load_image(image), decoding))
