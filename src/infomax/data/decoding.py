"""Decodes image files: which formats are read, how their numbers become RGB bytes, and what is refused."""

import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from infomax.data.damaged_files import has_begun_all_scans, keep_pixel_chunks, keep_pixel_segments
from infomax.data.fast_jpegs import MODES, ReusedMemory, decode_fast

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

MAX_MEGAPIXELS = 120.0  # the largest common camera has 108; an image of 120 takes about 2 GB while it is decoded
MAX_GUESSED_SHARE = 0.02  # of a JPEG's pixels may depend on bytes that are missing at its end
END_OF_JPEG = b"\xff\xd9"
BLOCK = 2**20  # pixels whose numbers are scaled at once
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
Decoded = TypeVar("Decoded", Image.Image, np.ndarray)
DivisorChooser = Callable[[int, int], int]
"""A function from an image's width and height to 1, 2, 4 or 8: both sides are divided by it when a JPEG is decoded."""


@dataclass(frozen=True)
class Decoding:
    """A frozen dataclass that holds what the user decides about how files become pixels."""

    value_range: tuple[float, float] | None = None
    """The numbers that become black and white in images of one channel with more than 8 bits. None takes those of the
    format: 0 and 65535 for 16 bits without a sign; other numbers have none, and such images are refused."""
    max_megapixels: float = MAX_MEGAPIXELS
    """The largest number of pixels, in millions, that an image may have."""

    @property
    def identity(self) -> bytes:
        """Returns bytes that differ if the same files become other pixels: features of them are then computed anew."""
        return f"pixels 2, {self.value_range}".encode()


@dataclass(frozen=True)
class ValueRange:
    """A frozen dataclass that holds the range of numbers that becomes black to white, or 0 to 1."""

    low: float
    high: float
    is_percentile: bool = False
    """Whether the two are percentiles of the data set's numbers, from 0 to 100."""

    def __str__(self) -> str:
        unit = "%" if self.is_percentile else ""
        return f"{self.low:g}{unit},{self.high:g}{unit}"


def parse_value_range(text: str) -> ValueRange:
    """Returns the range that ``LOW,HIGH`` says; or ``LOW%,HIGH%``, which are percentiles of the data set.

    Raises:
        ValueError: if there are not two finite numbers, the lower one first, or percentiles are not from 0 to 100.
    """
    parts = [part.strip() for part in text.split(",")]
    is_percentile = all(part.endswith("%") for part in parts)
    try:
        low, high = (float(part.removesuffix("%") if is_percentile else part) for part in parts)
    except ValueError:
        low, high = 0.0, 0.0
    is_possible = low < high and isfinite(low) and isfinite(high)
    if is_percentile and not 0 <= low < high <= 100:
        is_possible = False
    if not is_possible:
        raise ValueError(
            f"--value-range {text}: want LOW,HIGH, the numbers that become black and white, as 0,4095; or percentiles "
            "of the data set, as 0.1%,99.9%"
        )
    return ValueRange(low, high, is_percentile)


class RefusedImageError(ValueError):
    """An image that could be decoded and is not: its error says what is wrong, or which option allows it."""


class ChannelPagesError(RefusedImageError):
    """A TIFF file whose pages are channels of one image, which are not RGB."""


class _Jpeg(JpegImageFile):
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


class _Tiff(TiffImageFile):
    """A TIFF file of whose metadata nothing is interpreted but the orientation, by which Pillow turns it itself."""

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        self.info.pop("xmp", None)
        with suppress(Exception):  # a damaged entry raises errors of many kinds
            if (orientation := self.tag_v2.get(ORIENTATION)) in TURNS:
                exif[ORIENTATION] = orientation
        return exif


def decode(
    file: Path | BytesIO,
    name: str,
    choose_divisor: DivisorChooser | None = None,
    decoding: Decoding = Decoding(),
) -> Image.Image:
    """Decodes an image; see :meth:`infomax.data.images.Images.open`.

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
    decoding: Decoding = Decoding(),
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
                if (mended := _mend(stream, error, decoding)) is None:
                    raise
                return decode_stream(mended.stream, mended.continuation)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def is_image_file(path: str | Path) -> bool:
    """Returns whether a file begins as one of the formats that are read; its pixels are not decoded."""
    try:
        with open_regular(path) as stream, pillow_settings(Decoding()):
            identify(stream)
    except Exception:  # a damaged header makes Pillow raise errors of many kinds
        return False
    return True


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


@dataclass(frozen=True)
class _Mended:
    """A frozen dataclass that holds a damaged file in a form that can be decoded."""

    stream: IO[bytes]
    continuation: bytes = b""
    """Bytes that follow those of ``stream``."""


def _mend(stream: IO[bytes], error: Exception, decoding: Decoding) -> _Mended | None:
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
        return _Mended(BytesIO(keep_pixel_chunks(stream.read())))
    if start.startswith(b"\xff\xd8\xff") and "truncated" in str(error):
        stream.seek(0)
        if has_begun_all_scans(stream.read()) and _guessed_share(stream, decoding) <= MAX_GUESSED_SHARE:
            return _Mended(stream, END_OF_JPEG)
        raise ValueError(f"its end is missing: {error}")
    if start.startswith(b"\xff\xd8\xff"):
        stream.seek(0)
        return _Mended(BytesIO(keep_pixel_segments(stream.read())))
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
    first, *others = (np.asarray(_load(stream, None, decoding, more + END_OF_JPEG).image) for more in (b"", *others))
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


@dataclass(frozen=True)
class OpenedImage:
    """A frozen dataclass that holds a decoded image, in its own mode, and what its file says of its numbers."""

    image: Image.Image
    orientation: int
    """EXIF's orientation that the image is still to be turned by; 1 is upright."""
    black: float = 0
    """The number of a black pixel, in modes of more than 8 bits."""
    white: float | None = None
    """The number of a white pixel; None if the format does not define it."""
    scale: float = 1
    """What Pillow multiplied the file's numbers by."""


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
    return _upright(_load(stream, choose_divisor, decoding, continuation), decoding)


def _upright(loaded: OpenedImage, decoding: Decoding) -> Image.Image:
    """Returns an image in RGB, turned as its orientation says."""
    rgb = _to_rgb(loaded, decoding)
    return rgb.transpose(TURNS[loaded.orientation]) if loaded.orientation in TURNS else rgb


def _stream_pixels(
    stream: IO[bytes],
    choose_divisor: DivisorChooser | None,
    decoding: Decoding,
    continuation: bytes,
    buffer: ReusedMemory | None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to its pixels, upright; the arguments are those of :func:`_decode_stream`, and a buffer."""
    image = _open(stream, choose_divisor, decoding, continuation)
    if isinstance(image, _Jpeg) and image.mode in MODES and not continuation:
        orientation = exif_orientation(image.info)
        stream.seek(0)
        pixels = decode_fast(stream.read(), *image.size, buffer)
        if pixels is not None:
            return turn(pixels, orientation)
        image = _open(stream, choose_divisor, decoding, continuation)
    return np.asarray(_upright(_load_opened(image), decoding))


def turn(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Turns and mirrors pixels as an orientation of EXIF says."""
    if orientation not in TURNS:
        return pixels
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    vertical, horizontal = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::vertical, ::horizontal])


def _load(
    stream: IO[bytes], choose_divisor: DivisorChooser | None, decoding: Decoding, continuation: bytes = b""
) -> OpenedImage:
    """Decodes an image in its own mode; the arguments are those of :func:`_decode_stream`."""
    return _load_opened(_open(stream, choose_divisor, decoding, continuation))


def _open(
    stream: IO[bytes], choose_divisor: DivisorChooser | None, decoding: Decoding, continuation: bytes
) -> ImageFile:
    """Returns an image whose pixels have not been read; the arguments are those of :func:`_decode_stream`."""
    image = identify(stream)
    pixels = image.size[0] * image.size[1]
    if isinstance(image, TiffImageFile):  # a tile may be larger than the image
        pixels = max(pixels, _positive(image, 322) * _positive(image, 323))
    check_size(*image.size, decoding, pixels=pixels)
    if isinstance(image, _Tiff) and channel_pages(image) > 1:
        raise ChannelPagesError(f"its {channel_pages(image)} pages are the channels of one image")
    if isinstance(image, _Jpeg):
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


def _load_opened(image: ImageFile) -> OpenedImage:
    """Decodes an image that has been opened, in its own mode."""
    black, white, scale = _number_range(image)
    image.load()
    is_turned = isinstance(image, TiffImageFile)
    orientation = 1 if is_turned else exif_orientation(image.info)  # it comes with the pixels in PNG
    return OpenedImage(image, orientation, black, white, scale)


def load_opened(image: Image.Image, name: str) -> OpenedImage:
    """Loads the pixels of an image that the user opened or made by Pillow, and what is known of its numbers.

    An image that was not opened from a file has a black and a white if it has 8 bits, or 16 without a sign.

    Args:
        image: The image.
        name: Its name in an error.

    Raises:
        ValueError: naming the image, if its pixels cannot be loaded, as after its file was closed.
    """
    try:
        with pillow_settings(Decoding()):
            black, white, scale = 0.0, 65535.0 if image.mode.startswith("I;16") else None, 1.0
            if isinstance(image, ImageFile):
                black, white, scale = _number_range(image)
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        raise ValueError(f"{name} cannot be read: {error}") from error
    orientation = 1 if isinstance(image, TiffImageFile) else exif_orientation(image.info)
    return OpenedImage(image, orientation, black, white, scale)


def convert(opened: OpenedImage, name: str, decoding: Decoding) -> Image.Image:
    """Returns an image in RGB and upright; transparent pixels are white.

    Args:
        opened: The image.
        name: Its name in an error.
        decoding: What the user decided.

    Raises:
        ValueError: naming the image, if nobody says which of its numbers are black and white.
    """
    try:
        return _upright(opened, decoding)
    except RefusedImageError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


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
        open_format = {"JPEG": _Jpeg, "TIFF": _Tiff}.get(format_name, open_format)
        stream.seek(0)
        try:
            return open_format(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # those of a header of another format
            first_error = first_error or (f"{format_name}: {error}" if accepts is not None else None)
    formats = ", ".join(FORMATS)
    raise ValueError(first_error or f"cannot identify image file; it is none of {formats}")


def _positive(image: TiffImageFile, tag: int) -> int:
    """Returns the number that a tag of a TIFF file holds; 0 if it holds none."""
    value = image.tag_v2.get(tag, 0)
    return value if isinstance(value, int) and value > 0 else 0


def _number_range(image: ImageFile) -> tuple[float, float | None, float]:
    """Returns the numbers of black and white that the format defines, or None, and what Pillow scales numbers by.

    Only 16-bit numbers without a sign have a black and a white. Numbers with a sign and floating-point numbers are
    quantities: heights, Hounsfield units, reflectances.

    Args:
        image: An image whose pixels have not been read.
    """
    arguments: Any = image.tile[0][3] if image.tile else ()
    if image.format == "PPM" and image.mode == "I":  # Pillow scales the largest number in the header to 65535
        is_scaled = isinstance(arguments, tuple) and len(arguments) > 1 and image.tile[0][0] != "raw"
        return 0, 65535, 65535 / arguments[1] if is_scaled else 1
    if image.format == "PNG":
        _scale_transparency(image, arguments if isinstance(arguments, str) else arguments[0] if arguments else "")
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(258, (1,))
        largest = 4095 if tuple(bits) == (12,) else 65535
        is_inverted = image.tag_v2.get(262) == 0  # WhiteIsZero
        black, white = (largest, 0) if is_inverted else (0, largest)
        return black, white if image.mode.startswith("I;16") else None, 1
    return 0, 65535 if image.mode.startswith("I;16") or image.format == "PNG" else None, 1


def _scale_transparency(image: ImageFile, raw_mode: str) -> None:
    """Scales the number of the transparent pixels of a PNG as its pixels are scaled.

    Args:
        image: The image.
        raw_mode: Pillow's name for how its pixels are stored.
    """
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _to_rgb(loaded: OpenedImage, decoding: Decoding) -> Image.Image:
    """Converts an image of any mode to RGB, on white if it is transparent."""
    image = loaded.image
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # convert() would copy it
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits, which convert() would cut off at 255
        return _scale_numbers(loaded, decoding.value_range)
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _scale_numbers(loaded: OpenedImage, value_range: tuple[float, float] | None) -> Image.Image:
    """Returns an image of one channel of numbers in RGB; numbers that are NaN or infinite become the lower end.

    Args:
        loaded: The image.
        value_range: The range that the user gave.

    Raises:
        RefusedImageError: if nobody says which numbers are black and white.
    """
    is_inverted = loaded.white is not None and loaded.white < loaded.black
    if value_range is not None:
        low, high = (value * loaded.scale for value in value_range)
    elif loaded.white is not None:
        low, high = sorted((loaded.black, loaded.white))
    else:
        raise RefusedImageError(
            f"its numbers ({loaded.image.format}, mode {loaded.image.mode}) have no black and white of their own; give "
            "those with --value-range LOW,HIGH"
        )
    numbers, transparent = np.asarray(loaded.image), loaded.image.info.get("transparency")
    pixels = np.empty(numbers.shape, np.uint8)
    rows = max(1, BLOCK // max(1, numbers.shape[1]))
    for start in range(0, len(numbers), rows):
        values = numbers[start : start + rows].astype(np.float64)
        values[~np.isfinite(values)] = low
        scaled = ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
        pixels[start : start + rows] = 255 - scaled if is_inverted else scaled
    if isinstance(transparent, int):
        pixels[numbers == transparent] = 255
    return Image.fromarray(pixels).convert("RGB")


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
