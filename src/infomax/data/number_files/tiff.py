"""TIFF files with any number of bands or pages, of any depth: of satellites, microscopes and depth cameras.

The bands of a page are channels. Pages are channels if the file says so, as ImageJ, OME and tifffile do, or says
nothing of them, and numbers have more than 8 bits. Slices and times are no channels. See docs/decisions.md.
"""

import html
import logging
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from math import prod
from typing import IO, Any

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from infomax.data.decoding.image_files import RefusedImageError, channel_pages, check_size, identify
from infomax.data.decoding.options import Decoding
from infomax.data.decoding.orientation import turn
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.numbers import NumberKind
from infomax.runtime.extras import how_to_install

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are of BigTIFF
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, LINEAR_RAW = 0, 1, 2, 34892
NUMERIC = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, LINEAR_RAW)
"""Photometric interpretations whose numbers are measurements; those of the others are colours of another space."""
ALPHA = (1, 2)
DEFLATE, ZSTD = (8, 32946), (34926, 50000)
GDAL_METADATA, GDAL_NO_DATA, ORIENTATION = 42112, 42113, 274
AXES = {
    "Z": "slices (Z)",
    "T": "times (T)",
    "R": "tiles (R)",
    "M": "tiles (M)",
    "A": "angles (A)",
    "P": "positions (P)",
}
MAX_RATIO, ALLOWED = 1032, 2**28  # by which Deflate shrinks at most, and bytes that are no harm
for _name in ("tifffile", "PIL.TiffImagePlugin"):  # else their warnings go to the standard error
    logging.getLogger(_name).addHandler(logging.NullHandler())


def open_tiff(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers | None:
    """Opens a TIFF file; see :class:`~infomax.data.number_files.number_format.NumberFormat`.

    Raises:
        ValueError: if it is damaged, or its numbers are no channels of one image.
    """
    first = _identified(stream)
    if first is not None and _is_ordinary(first):
        return None
    file, series = _open_series(stream)
    page = series.keyframe
    if page.photometric not in NUMERIC:
        if first is not None:
            return None
        raise RefusedImageError(f"its numbers are colours of the kind {_name_of(page.photometric)}, not channels")
    if series.dtype is None or series.dtype.name not in DTYPES:
        raise RefusedImageError(f"its numbers are {series.dtype}; want one of {', '.join(DTYPES)}")
    channels = _count_channels(series.axes, series.shape)
    check_size(page.imagewidth, page.imagelength, decoding, pixels=page.tilewidth * page.tilelength)
    _check_complete(series, file.filehandle.size)
    is_read_by_pillow = _check_codec(page, is_one=first is not None and channels == 1)
    kind = _kind(file, series, channels)

    def read() -> np.ndarray:
        if is_read_by_pillow:
            return _finish(_read_by_pillow(stream, page, series.dtype), page, kind, orientation=1)
        if page.compression in DEFLATE and not _has_imagecodecs():
            _check_expansion(stream, series)
        values = _channels_last(series.asarray(maxworkers=1), series.axes)
        return _finish(values, page, kind, orientation=_tag(page, ORIENTATION, 1))

    return OpenedNumbers(kind, page.imagewidth, page.imagelength, read)


def _open_series(stream: IO[bytes]) -> tuple[Any, Any]:
    """Returns a file as tifffile opens it, and its first series of pages, which belong together."""
    from tifffile import TiffFile

    stream.seek(0)
    try:
        file = TiffFile(stream, name="image", _multifile=False)  # no other files are opened
        return file, file.series[0]
    except (struct.error, IndexError) as error:
        raise ValueError(f"its end is missing, or it is damaged: {error}") from error


def _identified(stream: IO[bytes]) -> TiffImageFile | None:
    """Returns the first page as Pillow opens it, or None if it cannot."""
    stream.seek(0)
    try:
        image = identify(stream)
    except Exception:  # of many kinds; tifffile says what is wrong
        return None
    return image if isinstance(image, TiffImageFile) else None


def _is_ordinary(image: TiffImageFile) -> bool:
    """Returns whether a page has 8 bits of gray, of RGB, or of another space of colours, and perhaps alpha."""
    tags = image.tag_v2
    if tags.get(262) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, None):
        return True
    bits, formats, extra = (_numbers(tags.get(tag, default)) for tag, default in ((258, 1), (339, 1), (338, ())))
    is_byte = max(bits) <= 8 and {*formats} <= {1, 4}
    return is_byte and len(extra) <= 1 and {*extra} <= {*ALPHA} and channel_pages(image) <= 1


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _count_channels(axes: str, shape: Sequence[int]) -> int:
    """Returns how many channels an image has.

    Args:
        axes: Letters of its axes, as tifffile names them: ``YX`` of a page, ``S`` its bands, ``C`` channels that are
            pages, ``I`` and ``Q`` pages of which nothing is said.
        shape: Their lengths.

    Raises:
        RefusedImageError: if it has pages that are no channels.
    """
    if not {*"YX"} <= {*axes}:
        raise RefusedImageError(f"it has the axes {axes}, and no image of height and width is among them")
    pages = [
        (letter, length) for letter, length in zip(axes, shape, strict=True) if letter not in "YXSC" and length > 1
    ]
    is_unknown = [letter for letter, _ in pages] in (["I"], ["Q"]) and "C" not in axes and "S" not in axes
    if pages and not is_unknown:
        words = " and ".join(f"{length} {AXES.get(letter, f'pages ({letter})')}" for letter, length in pages)
        raise RefusedImageError(
            f"it is a stack of {words}, which are no channels; save each, or a projection, as a file"
        )
    return prod(length for letter, length in zip(axes, shape, strict=True) if letter not in "YX")


def _channels_last(values: np.ndarray, axes: str) -> np.ndarray:
    """Returns numbers [h, w, channels] of those with the given axes; bands of a page count within its channel."""
    others = [number for number, letter in enumerate(axes) if letter not in "YXS"]
    bands = [number for number, letter in enumerate(axes) if letter == "S"]
    order = [axes.index("Y"), axes.index("X"), *others, *bands]
    values = values.transpose(order)
    return values.reshape(*values.shape[:2], -1)


def _kind(file: Any, series: Any, channels: int) -> NumberKind:
    """Returns what the numbers of a file are."""
    page, dtype = series.keyframe, series.dtype.newbyteorder("=")
    low, high = None, None
    if dtype == np.int8:
        dtype = np.dtype(np.int16)
    elif dtype.name in ("uint8", "uint16"):
        low, high = 0.0, float(2 ** min(page.bitspersample, 8 * dtype.itemsize) - 1)
    if _has_alpha(page, dtype, channels):
        channels -= 1
    no_data = _no_data(page)
    if no_data is not None and high is not None and page.photometric == WHITE_IS_ZERO:
        no_data = high - no_data
    names = tuple(_band_names(file, page))
    return NumberKind(channels, dtype, low, high, no_data, names if len(names) == channels else ())


def _has_alpha(page: Any, dtype: np.dtype, channels: int) -> bool:
    """Returns whether the last band is the opacity of gray or RGB of 8 or 16 bits; any other one is a channel."""
    is_last = _numbers(page.extrasamples) in ((1,), (2,)) and channels == page.samplesperpixel
    return is_last and channels in (2, 4) and dtype.name in ("uint8", "uint16")


def _finish(values: np.ndarray, page: Any, kind: NumberKind, orientation: int) -> np.ndarray:
    """Returns numbers in the machine's byte order, upright, with 0 for black, and transparent pixels white."""
    has_alpha = values.shape[-1] > kind.channels
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if page.photometric == WHITE_IS_ZERO and kind.high is not None:
        values = (kind.high - values).astype(values.dtype)
    if has_alpha:
        values = on_white(values, kind.high or 1)
    return turn(values.astype(kind.dtype, copy=False), orientation)


def on_white(values: np.ndarray, white: float) -> np.ndarray:
    """Returns gray or RGB on white, as transparent images of 8 bits are put there.

    Args:
        values: Numbers [h, w, channels + 1], of which the last is the opacity.
        white: The number of white and of full opacity.
    """
    opacity = values[..., -1:].astype(np.float64) / white
    return np.rint(values[..., :-1] * opacity + white * (1 - opacity)).astype(values.dtype)


def _name_of(value: Any) -> str:
    """Returns the name of a number that the TIFF specification names; of others the number."""
    return str(getattr(value, "name", value))


def _tag(page: Any, code: int, default: Any = None) -> Any:
    tag = page.tags.get(code)
    return default if tag is None else tag.value


def _no_data(page: Any) -> float | None:
    with suppress(ValueError, TypeError):
        number = float(str(_tag(page, GDAL_NO_DATA, "")).strip(" \0").replace(",", "."))
        return number if np.isfinite(number) else None  # NaN stands for no measurement in any case
    return None


def _band_names(file: Any, page: Any) -> Iterator[str]:
    """Yields the names of the channels, as GDAL, ImageJ or OME write them; nothing is parsed but by patterns."""
    if isinstance(metadata := _tag(page, GDAL_METADATA), str):
        pattern = r'<Item name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)</Item>'
        yield from (
            html.unescape(name) for _, name in sorted(re.findall(pattern, metadata), key=lambda x: int(x[0][:9]))
        )
    elif file.is_imagej:
        labels = (file.imagej_metadata or {}).get("Labels", ())
        yield from (str(label).strip() for label in ([labels] if isinstance(labels, str) else labels))
    elif file.is_ome:
        image = re.search(r"<Image\b.*?</Image>", file.ome_metadata or "", re.DOTALL)
        tags = re.findall(r"<Channel\b[^>]*>", image[0]) if image else []
        names = [re.search(r'\bName="([^"]*)"', tag) for tag in tags]
        yield from (html.unescape(name[1]) for name in names if name)


def _segments(series: Any) -> Iterator[tuple[int, int]]:
    """Yields the place and the number of bytes of each strip or tile."""
    for page in series.pages:
        if page is None:
            raise RefusedImageError("channels of it lie in other files; save all channels as one file")
        yield from zip(page.dataoffsets, page.databytecounts, strict=False)


def _check_complete(series: Any, size: int) -> None:
    """Raises ValueError if strips or tiles lie behind the end of the file, which has ``size`` bytes."""
    if series.dataoffset is not None and len(series.pages) == 1:  # ImageJ names the first page alone
        end = series.dataoffset + prod(series.shape) * series.dtype.itemsize
        ends = [end]
    else:
        ends = [offset + count for offset, count in _segments(series)]
    if not ends:
        raise ValueError("it has no pixels")
    if max(ends) > size:
        raise ValueError(f"its end is missing: {size:,} of at least {max(ends):,} bytes are there")


def _has_imagecodecs() -> bool:
    return find_spec("imagecodecs") is not None


def _check_codec(page: Any, *, is_one: bool) -> bool:
    """Returns whether Pillow must decode a page because a package is missing that decodes its compression.

    Args:
        page: The page.
        is_one: Whether it has one channel, and Pillow can open it.

    Raises:
        RefusedImageError: if neither can.
    """
    from tifffile import TIFF

    try:
        TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            TIFF.UNPREDICTORS[page.predictor]
        if _has_imagecodecs():
            return False
        lacks_zstd = page.compression in ZSTD and find_spec("compression") is None  # Python 3.14 has it
        if page.bitspersample in (8, 16, 32, 64) and not lacks_zstd:
            return False
    except KeyError:
        pass
    if is_one:
        return True
    raise RefusedImageError(_missing_codec(page))


def _missing_codec(page: Any) -> str:
    return (
        f"it is stored by {_name_of(page.compression)} with {page.bitspersample} bits, which needs the package "
        f"imagecodecs: {how_to_install('tiff')}"
    )


def _read_by_pillow(stream: IO[bytes], page: Any, dtype: np.dtype) -> np.ndarray:
    """Returns the numbers [h, w, 1] of a page of one channel, turned as its orientation says."""
    stream.seek(0)
    try:
        return np.asarray(identify(stream), dtype=dtype)[..., None]
    except OSError as error:  # it lacks the codec too, or the file is damaged
        raise RefusedImageError(f"{error}; {_missing_codec(page)}") from error


def _check_expansion(stream: IO[bytes], series: Any) -> None:
    """Raises RefusedImageError if a strip or tile holds more than its pixels, as in a file made to fill the memory."""
    page = series.keyframe
    expected = page.tilewidth * page.tilelength * page.samplesperpixel * series.dtype.itemsize
    if not page.is_tiled:
        expected = page.imagewidth * page.imagelength * page.samplesperpixel * series.dtype.itemsize
    for offset, count in _segments(series):
        if count * MAX_RATIO <= expected + ALLOWED:
            continue
        stream.seek(offset)
        if len(zlib.decompressobj().decompress(stream.read(count), expected + 1)) > expected:
            raise RefusedImageError(
                "a part of it unpacks to more than its pixels; it is damaged or made to fill memory"
            )


TIFF = NumberFormat("TIFF", lambda start: start.startswith(STARTS), open_tiff)
