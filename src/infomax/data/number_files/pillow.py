"""The numbers of images that Pillow has decoded, if they have one channel and more than 8 bits."""

import numpy as np

from infomax.data.decoding.opened_images import OpenedImage
from infomax.data.decoding.orientation import turn
from infomax.data.numbers import RGB_KIND, NumberKind

DTYPES = {"I": np.int32, "F": np.float32}  # by Pillow's mode; I;16 and its kin are without a sign


def kind_of_opened(opened: OpenedImage) -> NumberKind:
    """Returns what the numbers of an image are; those of modes of 8 bits are RGB."""
    mode = opened.image.mode
    if not (mode in DTYPES or mode.startswith("I;16")):
        return RGB_KIND
    if opened.white is None:
        return NumberKind(1, np.dtype(DTYPES.get(mode, np.uint16)))
    return NumberKind(1, np.dtype(np.uint16), 0, round(max(opened.black, opened.white) / opened.scale))


def numbers_of_opened(opened: OpenedImage, kind: NumberKind) -> np.ndarray:
    """Returns the numbers [h, w, 1] of an image of more than 8 bits, upright, with 0 for black.

    Args:
        opened: The image.
        kind: What :func:`kind_of_opened` returns.
    """
    values = np.asarray(opened.image)[..., None]
    if opened.scale != 1:  # Pillow made it brighter than the file has it
        values = np.rint(values / opened.scale)
    if opened.white is not None and opened.white < opened.black:
        values = opened.black - values
    transparent = opened.image.info.get("transparency")
    if isinstance(transparent, int) and kind.high is not None:
        values = np.where(values == transparent, kind.high, values)
    return turn(values.astype(kind.dtype), opened.orientation)
