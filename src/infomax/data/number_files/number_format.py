"""Says what a format of image files with other numbers than 8-bit RGB gives: what they are, and how to read them.

A format is one file of this package, and one line in its ``FORMATS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from infomax.data.decoding.options import Decoding
from infomax.data.numbers import NumberKind


@dataclass(frozen=True)
class OpenedNumbers:
    """A frozen dataclass that holds an image whose header has been read, and whose numbers have not."""

    kind: NumberKind
    width: int
    """The width of the stored image, which may still be to be turned."""
    height: int
    read: Callable[[], np.ndarray]
    """Returns the numbers [h, w, channels], upright; the file must still be open."""
    nbytes: int = 0
    """How many bytes are decoded, if they are more than those of the numbers."""


@dataclass(frozen=True)
class NumberFormat:
    """A frozen dataclass that holds a format of image files."""

    name: str
    """Its name in messages."""
    accepts: Callable[[bytes], bool]
    """Returns whether a file's first 144 bytes are those of this format."""
    open: Callable[[IO[bytes], Decoding], OpenedNumbers | None]
    """Opens a file of this format; returns None if Pillow decodes it to 8-bit RGB and loses nothing by that."""
