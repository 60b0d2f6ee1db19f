"""Reads the numbers of image files, which may have any number of channels and more than 8 bits.

In: a file. Out: :class:`~infomax.data.numbers.NumberKind` of its header, or its :class:`~infomax.data.numbers.Numbers`.
It must not know where files come from, nor how numbers become pixels. Ordinary files of 8 bits are left to
:mod:`infomax.data.decoding`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from jaxtyping import UInt8

from infomax.data.decoding.decoder import decode_pixels
from infomax.data.decoding.image_files import check_size, identify, is_image_file, open_regular, pillow_settings
from infomax.data.decoding.options import Decoding
from infomax.data.number_files.dicom import DICOM
from infomax.data.number_files.jpeg2000 import JPEG2000
from infomax.data.number_files.netpbm import NETPBM
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.number_files.png import PNG
from infomax.data.number_files.tiff import TIFF
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers
from infomax.data.pixel_format import MAX_CHANNELS
from infomax.runtime.memory import machine_memory

FORMATS: tuple[NumberFormat, ...] = (DICOM, TIFF, PNG, NETPBM, JPEG2000)
"""The formats that may hold other numbers than those of 8-bit RGB. A DICOM file may begin as a TIFF does."""
START = 144  # bytes by which a format is known
NO_HARM = 2**28  # bytes that any machine has, which needs no look at its memory
JPEG = b"\xff\xd8\xff"
Result = TypeVar("Result")


def file_kind(file: Path | BytesIO, name: str, decoding: Decoding) -> NumberKind:
    """Returns what the numbers of an image file are, as its header says.

    Args:
        file: Path of the encoded image, or its bytes.
        name: The image's name in an error.
        decoding: What the user decided.

    Raises:
        ValueError: naming the image, if its header cannot be read.
    """

    def kind_of(stream: IO[bytes]) -> NumberKind:
        start = stream.read(len(JPEG))
        opened = _open(stream, decoding)
        if opened is None and start != JPEG:  # a JPEG with a damaged header may still be decoded
            identify(stream)
        return RGB_KIND if opened is None or _is_rgb(opened.kind) else opened.kind

    return _with_stream(file, name, decoding, kind_of)


def read_numbers(file: Path | BytesIO, name: str, decoding: Decoding) -> Numbers:
    """Returns the numbers of an image file, upright; those of files of 8 bits are RGB.

    The arguments are those of :func:`file_kind`.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """

    def numbers_of(stream: IO[bytes]) -> Numbers | None:
        opened = _open(stream, decoding)
        if opened is None:
            return None
        if _is_rgb(opened.kind):
            return Numbers(_rgb(opened.read()), RGB_KIND)
        return Numbers(opened.read(), opened.kind)

    numbers = _with_stream(file, name, decoding, numbers_of)
    return Numbers(decode_pixels(file, name, None, decoding), RGB_KIND) if numbers is None else numbers


def read_rgb(file: Path | BytesIO, name: str, decoding: Decoding) -> UInt8[np.ndarray, "h w 3"] | None:
    """Returns the pixels of an image of 8-bit RGB or gray that Pillow cannot decode, as a DICOM file has them.

    The arguments are those of :func:`file_kind`.

    Returns:
        The pixels; None if the file is left to Pillow, whose error then stands.

    Raises:
        ValueError: naming the image, if it is not 8-bit RGB or gray, or cannot be decoded.
    """

    def pixels_of(stream: IO[bytes]) -> np.ndarray | None:
        opened = _open(stream, decoding)
        if opened is not None and not _is_rgb(opened.kind):
            if opened.kind.channels == 1 and _is_of_pillow(stream):
                return None  # which makes 8-bit RGB of it, unless it is damaged
            raise ValueError(f"it has {opened.kind}, and the encoder takes 8-bit RGB")
        return None if opened is None else _rgb(opened.read())

    return _with_stream(file, name, decoding, pixels_of)


def _is_of_pillow(stream: IO[bytes]) -> bool:
    """Returns whether Pillow reads the format of a file that is open."""
    try:
        identify(stream)
    except ValueError:
        return False
    return True


def begins_as_image(path: str | Path) -> bool:
    """Returns whether a file begins as one of the formats that are read; its pixels are not decoded."""
    try:
        with open_regular(path) as stream:
            start = stream.read(START)
    except (OSError, ValueError):
        return False
    return any(number_format.accepts(start) for number_format in FORMATS) or is_image_file(path)


def _with_stream(
    file: Path | BytesIO, name: str, decoding: Decoding, function: Callable[[IO[bytes]], Result]
) -> Result:
    """Returns what a function makes of an open file; its errors become one that names the image."""
    try:
        with (
            open_regular(file) if not isinstance(file, BytesIO) else nullcontext(file) as stream,
            pillow_settings(decoding),
        ):
            stream.seek(0)
            return function(stream)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes its reader raise errors of many kinds
        message = " ".join(str(error).partition("\nTraceback")[0].split())  # pydicom's have several lines
        raise ValueError(f"{name} cannot be read as an image: {message}") from error


def _open(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers | None:
    """Returns an image whose header has been read; None if it is left to Pillow.

    Raises:
        ValueError: if it is larger than the user or the memory allows, or has too many channels.
    """
    stream.seek(0)
    start = stream.read(START)
    for number_format in FORMATS:
        if not number_format.accepts(start):
            continue
        stream.seek(0)
        opened = number_format.open(stream, decoding)
        if opened is not None:
            _check(opened, decoding)
        return opened
    return None


def _check(opened: OpenedNumbers, decoding: Decoding) -> None:
    check_size(opened.width, opened.height, decoding)
    kind = opened.kind
    if kind.channels > MAX_CHANNELS:
        raise ValueError(f"it has {kind}, more than the {MAX_CHANNELS} channels that an image may have")
    wanted = max(opened.nbytes, opened.width * opened.height * kind.channels * kind.dtype.itemsize)
    if wanted > NO_HARM and wanted > machine_memory() / 2:
        raise ValueError(
            f"{opened.width} x {opened.height} pixels with {kind} take {wanted / 1e9:.1f} GB, too much for the "
            f"{machine_memory() / 1e9:.1f} GB of this machine"
        )


def _is_rgb(kind: NumberKind) -> bool:
    """Returns whether numbers are bytes of RGB, or of gray, which becomes RGB."""
    return kind.is_byte and kind.channels in (1, 3)


def _rgb(values: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
