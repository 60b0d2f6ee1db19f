"""Opens image files without decoding their pixels: which formats are read, and which files are refused."""

import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import ORIENTATION, TRANSPOSED, TURNS, exif_orientation

# Pillow's names of the formats that are read: raster images, decoded in this process. What Pillow opens besides is
# left out: formats that start another program (EPS), icons, fonts, game textures, films, and tables of science.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF",
    "JPEG2000", "MPO", "PSD", "PCX", "QOI", "SGI", "SUN", "TGA",
)  # fmt: skip
PLUGINS = (
    "Jpeg", "Png", "WebP", "Gif", "Tiff", "Bmp", "Ppm", "Avif",
    "Jpeg2K", "Mpo", "Psd", "Pcx", "Qoi", "Sgi", "Sun", "Tga",
)  # fmt: skip
for _name in PLUGINS:
    with suppress(ImportError):  # an older Pillow has no AVIF
        import_module(f"PIL.{_name}ImagePlugin")

DivisorChooser = Callable[[int, int], int]
"""A function from an image's width and height to 1, 2, 4 or 8: both sides are divided by it when a JPEG is decoded."""


class RefusedImageError(ValueError):
    """An image that could be decoded and is not: its error says what is wrong, or which option allows it."""


class ChannelPagesError(RefusedImageError):
    """A TIFF file whose pages are channels of one image, which are not RGB."""


class JpegFile(JpegImageFile):
    """A JPEG file whose EXIF is not interpreted by Pillow, and whose missing last bytes can be made up.

    Of a file with several images (MPO) it is the first.
    """

    continuation = b""
    """Bytes that follow the last one of the file."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()

    def load_read(self, read_bytes: int) -> bytes:
        assert self.fp is not None
        if data := self.fp.read(read_bytes):
            return data
        data, self.continuation = self.continuation[:read_bytes], self.continuation[read_bytes:]
        return data


class TiffFile(TiffImageFile):
    """A TIFF file of whose metadata nothing is interpreted but the orientation, by which Pillow turns it itself."""

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        self.info.pop("xmp", None)
        with suppress(Exception):  # a damaged entry raises errors of many kinds
            if (orientation := self.tag_v2.get(ORIENTATION)) in TURNS:
                exif[ORIENTATION] = orientation
        return exif


def open_regular(path: str | Path) -> IO[bytes]:
    """Opens a file to be read; a pipe, a device or a socket is not opened, as reading could wait for ever.

    Raises:
        RefusedImageError: if the path is not that of a regular file.
        OSError: if the file cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise RefusedImageError("it is not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    stream = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):  # it has been replaced in between
        stream.close()
        raise RefusedImageError("it is not a regular file")
    return stream


@contextmanager
def pillow_settings(decoding: Decoding) -> Iterator[None]:
    """Silences Pillow's warnings, as of metadata that it cannot read, and raises its limit if the user's is higher.

    Both belong to the whole process. The filters of warnings are therefore set by the main thread alone, in which
    workers decode.
    """
    limit, before = int(decoding.max_megapixels * 1e6), Image.MAX_IMAGE_PIXELS
    if before is not None and limit > 2 * before:  # from there on some of Pillow's formats raise an error
        Image.MAX_IMAGE_PIXELS = limit
    try:
        if threading.current_thread() is threading.main_thread():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        else:
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def is_image_file(path: str | Path) -> bool:
    """Returns whether a file begins as one of the formats that are read; its pixels are not decoded."""
    try:
        with open_regular(path) as stream, pillow_settings(Decoding()):
            identify(stream)
    except Exception:  # a damaged header makes Pillow raise errors of many kinds
        return False
    return True


def identify(stream: IO[bytes]) -> ImageFile:
    """Returns an image whose header has been read, and whose pixels have not.

    It does what ``Image.open`` does, without its warning and error for large images, whose limits are one for the whole
    process; the limit here is the user's.
    """
    stream.seek(0)
    start, first_error = stream.read(16), None
    for format_name in FORMATS:
        if format_name not in Image.OPEN or format_name == "MPO":
            continue
        open_format, accepts = Image.OPEN[format_name]
        if accepts is not None and accepts(start) is not True:
            continue
        open_format = {"JPEG": JpegFile, "TIFF": TiffFile}.get(format_name, open_format)
        stream.seek(0)
        try:
            return open_format(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # those of a header of another format
            first_error = first_error or (f"{format_name}: {error}" if accepts is not None else None)
    formats = ", ".join(FORMATS)
    raise ValueError(first_error or f"cannot identify image file; it is none of {formats}")


def open_image(
    stream: IO[bytes], choose_divisor: DivisorChooser | None, decoding: Decoding, continuation: bytes
) -> ImageFile:
    """Returns an image whose pixels have not been read.

    Args:
        stream: The encoded image.
        choose_divisor: Chooses by how much the sides of a JPEG are divided.
        decoding: What the user decided.
        continuation: Bytes to put in place of those that are missing at a JPEG's end.

    Raises:
        RefusedImageError: if it has more pixels than the user allows, or is a TIFF file whose pages are channels.
        ValueError: if it has none of the formats that are read, or a damaged header.
    """
    image = identify(stream)
    pixels = image.size[0] * image.size[1]
    if isinstance(image, TiffImageFile):  # a tile may be larger than the image
        pixels = max(pixels, _positive(image, 322) * _positive(image, 323))
    check_size(*image.size, decoding, pixels=pixels)
    if isinstance(image, TiffFile) and channel_pages(image) > 1:
        raise ChannelPagesError(f"its {channel_pages(image)} pages are the channels of one image")
    if isinstance(image, JpegFile):
        image.continuation = continuation
        if choose_divisor is not None:
            width, height = image.size
            is_on_its_side = exif_orientation(image.info) in TRANSPOSED
            divisor = choose_divisor(height, width) if is_on_its_side else choose_divisor(width, height)
            if divisor > 1:
                image.draft(None, (width // divisor, height // divisor))
    return image


def check_size(width: int, height: int, decoding: Decoding, *, pixels: int = 0) -> None:
    """Raises RefusedImageError if an image has more pixels than the user allows.

    Args:
        width, height: Its size.
        decoding: What the user decided.
        pixels: How many pixels are decoded, if they are more.
    """
    pixels = max(pixels, width * height)
    if pixels > decoding.max_megapixels * 1e6:
        raise RefusedImageError(
            f"it has {width} x {height} pixels, {pixels / 1e6:.4g} megapixels; --max-megapixels "
            f"{decoding.max_megapixels:g} is the limit"
        )


def channel_pages(image: TiffImageFile) -> int:
    """Returns how many pages of a TIFF file are channels of one image, as the file says; 0 if it says nothing.

    ImageJ, OME and tifffile write it into the description of the first page.

    Args:
        image: The first page, whose pixels have not been read.
    """
    description = image.tag_v2.get(270)
    if not isinstance(description, str) or image.tag_v2.get(277, 1) != 1:
        return 0
    patterns = (r"ImageJ=.*?\bchannels=(\d+)", r".*?<OME\b.*?\bSizeC=\"(\d+)\"", r'\{"shape": \[(\d+), \d+, \d+\]')
    counts = (match for pattern in patterns if (match := re.match(pattern, description, re.DOTALL)))
    return next((int(match[1][:9]) for match in counts), 0)


def _positive(image: TiffImageFile, tag: int) -> int:
    """Returns the number that a tag of a TIFF file holds; 0 if it holds none."""
    value = image.tag_v2.get(tag, 0)
    return value if isinstance(value, int) and value > 0 else 0
