"""Holds the numbers of an image as its file or array has them, and makes pixels of them by a pixel format."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from infomax.data.pixel_format import DEEP_MAX, OtherKindError, PixelFormat

BLOCK = 2**20  # numbers that are scaled at once


@dataclass(frozen=True)
class NumberKind:
    """A frozen dataclass that says what the numbers of an image are, as its header tells it; no pixel is read."""

    channels: int
    dtype: np.dtype
    low: float | None = None
    """The number of black, or of nothing, that the format defines; None if it defines none."""
    high: float | None = None
    """The number of white, or of the most, that the format defines."""
    no_data: float | None = None
    """The number that the file says to stand for no measurement."""
    bands: tuple[str, ...] = ()
    """Names of the channels, if the file tells them."""

    @property
    def is_byte(self) -> bool:
        """Returns whether the numbers are bytes, which need no range."""
        return self.dtype == np.uint8

    def __str__(self) -> str:
        return f"{self.channels} channel{'s'[: self.channels != 1]} of {self.dtype}"


@dataclass(frozen=True)
class Numbers:
    """A frozen dataclass that holds the numbers of an image as its file has them, upright."""

    values: np.ndarray
    """The numbers [h, w, channels]: bytes, whole numbers of 16 or 32 bits with or without a sign, or floating-point
    numbers. They may be mapped from a file."""
    kind: NumberKind


RGB_KIND = NumberKind(3, np.dtype(np.uint8), 0, 255)


def kind_of_array(dtype: np.dtype, channels: int, no_data: float | None = None) -> NumberKind:
    """Returns what the numbers of an array are; those of 8 and 16 bits without a sign have a black and a white."""
    is_unsigned = dtype in (np.uint8, np.uint16)
    low, high = (0.0, float(np.iinfo(dtype).max)) if is_unsigned else (None, None)
    return NumberKind(channels, dtype, low, high, no_data)


def to_pixels(
    values: np.ndarray, pixel_format: PixelFormat
) -> UInt8[np.ndarray, "... c"] | UInt16[np.ndarray, "... c"]:
    """Makes pixels of numbers.

    Args:
        values: Numbers [..., channels]; of bytes, the format must be one of bytes.
        pixel_format: The format.

    Returns:
        Bytes as they are; else numbers from 0 to 65535. The rounding is to the nearest.

    Raises:
        OtherKindError: if the numbers have other channels than the format, or are bytes and the format is none of
            bytes, or the other way round.

    Examples:
        >>> heights = np.array([[[-10.0], [0.0], [np.nan], [990.0], [2000.0]]])
        >>> to_pixels(heights, PixelFormat(channels=1, low=(-10.0,), high=(990.0,), fill=(0.5,))).ravel().tolist()
        [0, 655, 32768, 65535, 65535]
    """
    channels = values.shape[-1]
    if channels != pixel_format.channels or (values.dtype == np.uint8) == pixel_format.is_deep:
        raise OtherKindError(f"it has {NumberKind(channels, values.dtype)}, and the encoder takes {pixel_format}")
    if not pixel_format.is_deep:
        return values
    low, high = np.array(pixel_format.low), np.array(pixel_format.high)
    if values.dtype == np.uint16 and pixel_format.no_data is None and not low.any() and (high == DEEP_MAX).all():
        return np.ascontiguousarray(values)
    dtype = np.float64 if values.dtype.itemsize > 2 and values.dtype != np.float32 else np.float32
    scale = (DEEP_MAX / (high - low)).astype(dtype)
    fill = np.array(pixel_format.fill or [0.0] * channels) * DEEP_MAX
    flat = values.reshape(-1, channels)
    out = np.empty(flat.shape, np.uint16)
    for start in range(0, len(flat), max(1, BLOCK // channels)):
        rows = slice(start, start + max(1, BLOCK // channels))
        missing = is_missing(flat[rows], pixel_format.no_data)
        block = flat[rows].astype(dtype)
        block = (block - low.astype(dtype)) * scale
        if missing is not None:
            block = np.where(missing, fill.astype(dtype), block)
        out[rows] = np.rint(np.clip(block, 0, DEEP_MAX, out=block), out=block)
    return out.reshape(values.shape)


def is_missing(values: np.ndarray, no_data: float | None) -> np.ndarray | None:
    """Returns which numbers are no measurement: NaN, infinite, or the one that stands for none; None if none can be."""
    missing: Any = None
    if values.dtype.kind == "f":
        missing = ~np.isfinite(values)
    if no_data is not None:
        is_equal = values == np.asarray(no_data).astype(values.dtype if values.dtype.kind == "f" else np.float64)
        missing = is_equal if missing is None else missing | is_equal
    return missing if missing is not None and missing.any() else None


def to_gray(values: UInt8[np.ndarray, "... 3"]) -> UInt8[np.ndarray, "... 1"]:
    """Returns the luma of bytes of RGB (ITU-R 601), rounded as Pillow rounds it."""
    red, green, blue = (values[..., channel].astype(np.uint32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).astype(np.uint8)[..., None]


def to_bytes(values: np.ndarray, value_range: tuple[float, float] | None = None) -> UInt8[np.ndarray, "... c"]:
    """Returns numbers of more than 8 bits as bytes.

    Args:
        values: The numbers.
        value_range: The numbers that become 0 and 255; what lies outside is cut off, and NaN becomes 0. None takes 0
            and 65535, for numbers of 16 bits without a sign.

    Examples:
        >>> to_bytes(np.array([0, 4095, 65535], np.uint16)).tolist()
        [0, 16, 255]
        >>> to_bytes(np.array([0, 4095, 65535], np.uint16), (0, 4095)).tolist()
        [0, 255, 255]
    """
    if value_range is None:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = value_range
    numbers = np.where(np.isfinite(values), values, low).astype(np.float64)
    return ((numbers.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)


def pixels_of(
    numbers: np.ndarray, pixel_format: PixelFormat, value_range: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "... c"] | UInt16[np.ndarray, "... c"]:
    """Makes pixels of numbers as :func:`to_pixels` does; bytes of RGB become gray, if asked.

    Args:
        numbers: Numbers [..., channels].
        pixel_format: The format. If it has one channel of bytes, bytes of RGB become gray. If it is RGB, numbers of
            more than 8 bits that have one channel or three become bytes.
        value_range: The numbers that become 0 and 255 then. None takes the range of 16 bits without a sign; other
            numbers have none.

    Raises:
        ValueError: if the numbers cannot be pixels of this format.
    """
    channels = numbers.shape[-1]
    if numbers.dtype == np.uint8 and channels == 3 and pixel_format.channels == 1 and not pixel_format.is_deep:
        return to_gray(numbers)
    is_deep = numbers.dtype != np.uint8 and (numbers.dtype == np.uint16 or value_range is not None)
    if pixel_format.is_rgb and is_deep and channels in (1, 3):
        return np.broadcast_to(to_bytes(numbers, value_range), (*numbers.shape[:-1], 3))
    return to_pixels(numbers, pixel_format)
