"""Finds out which axes of an array of images are the channels, the height and the width."""

from collections.abc import Sequence

import numpy as np

from infomax.data.pixel_format import MAX_CHANNELS

LAYOUTS = ("NHWC", "NCHW")
"""The orders of the axes of images with channels: their number, height, width and channels."""
DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
WANTED = (
    f"numbers ({', '.join(DTYPES)}) [n, height, width], [n, height, width, channels] or [n, channels, height, width]"
)


def find_layout(title: str, shape: Sequence[int], dtype: np.dtype, layout: str | None = None) -> str:
    """Returns the order of the axes of an array of images.

    Of four axes the last ones are channels, height and width. One or three channels are known by their number if they
    stand last, or if they stand first and none can stand last. Any other number is known if it is at most half of the
    height and of the width.

    Args:
        title: What an error calls the array.
        shape: Its lengths.
        dtype: Its type.
        layout: The order that the user says, one of :data:`LAYOUTS`; None finds it.

    Returns:
        ``NHW``, ``NHWC`` or ``NCHW``.

    Raises:
        ValueError: if the array cannot be images, or nothing tells where its channels are; with what to do.

    Examples:
        >>> find_layout("the array", (10, 5, 32, 32), np.dtype("uint16"))
        'NCHW'
        >>> find_layout("the array", (10, 9, 9, 30), np.dtype("uint16"))
        Traceback (most recent call last):
        ...
        ValueError: the array is uint16 [10, 9, 9, 30], of which nothing tells whether its channels stand last (30) ...
    """
    found = f"is {'pickled objects' if dtype.hasobject else dtype} {list(shape)}"
    if dtype.name not in DTYPES or dtype.hasobject or not dtype.isnative or len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(f"{title} must be {WANTED}, but {found}{_hint(dtype, shape)}")
    if len(shape) == 3:
        if like_one_image(shape, dtype):
            raise ValueError(
                f"{title} {found}; it looks like one image in colour, which [None] makes an array of; if it is images "
                "of one channel, [..., None] says so"
            )
        return "NHW"
    chosen = layout or _layout_of(shape)
    if chosen is None:
        raise ValueError(
            f"{title} {found}, of which nothing tells whether its channels stand last ({shape[3]}) or before height "
            f"and width ({shape[1]}): say --layout NHWC or --layout NCHW"
        )
    channels = shape[3] if chosen == "NHWC" else shape[1]
    if channels > MAX_CHANNELS:
        raise ValueError(
            f"{title} {found}, so that an image would have {channels} channels; {MAX_CHANNELS} is the limit"
            + ("; is it the other --layout?" if layout else "")
        )
    return chosen


def _layout_of(shape: Sequence[int]) -> str | None:
    if shape[3] in (1, 3):
        return "NHWC"
    if shape[1] in (1, 3) or 2 * shape[1] <= min(shape[2:]):
        return "NCHW"
    return "NHWC" if 2 * shape[3] <= min(shape[1:3]) else None


def like_one_image(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Returns whether an array looks like one image with channels, [height, width, channels]."""
    if len(shape) != 3:
        return False
    few = 4 if dtype == np.uint8 else 8
    return shape[2] == 3 or (2 <= shape[2] <= few and shape[1] > 2 * few and shape[0] > 2 * few)


def _hint(dtype: np.dtype, shape: Sequence[int]) -> str:
    """Returns what makes an array one of images, as far as it is known."""
    if dtype.kind in "iu" and len(shape) in (3, 4):
        return "; .astype('int32') keeps numbers up to 2147483647"
    if dtype.kind == "b":
        return "; .astype('uint8') * 255 makes black and white of it"
    if dtype.kind == "f" and not dtype.isnative:
        return "; .astype('float32') puts its bytes in order"
    if len(shape) == 2:
        return "; it looks like one image in gray, which [None] makes an array of"
    return ""


def to_images(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns numbers [n, height, width, channels], of bytes of one channel three; nothing is copied.

    Args:
        array: The array.
        layout: What :func:`find_layout` returns.
    """
    if layout == "NHW":
        array = array[..., None]
    if layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    is_gray = array.dtype == np.uint8 and array.shape[3] == 1
    return np.broadcast_to(array, (*array.shape[:3], 3)) if is_gray else array


def layout_notes(title: str, shape: Sequence[int], layout: str) -> list[str]:
    """Returns a line on the order of the axes if the channels stand first; no line else."""
    if layout != "NCHW":
        return []
    return [
        f"{title} {list(shape)} is read as {shape[1]} channels of {shape[2]} x {shape[3]} pixels, the channels first"
    ]
