"""Says which numbers an encoder is given: how many channels, of which depth, and which range becomes 0 to 1.

An encoder keeps the format that it was trained with, as it keeps its normalisation; see
:class:`~infomax.data.augmentation.views.Preprocessing`. Nothing is imported here, so that settings are read at once.
"""

from dataclasses import dataclass
from math import isfinite

MAX_CHANNELS = 512  # of an image: hyperspectral cameras have some hundred bands
BYTE_MAX, DEEP_MAX = 255, 65535
"""The largest numbers of the pixels that views are made of: bytes, and the 16 bits of all deeper images."""


class OtherKindError(ValueError):
    """The error of an image whose numbers are of another kind than an encoder takes; the file is not damaged."""


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """A frozen dataclass that says how the numbers of image files and arrays become pixels.

    Bytes stay bytes. All other numbers become 16 bits without a sign: the range from ``low`` to ``high`` becomes 0 to
    65535, and what lies outside is cut off. The range is one for the whole data set, never that of one image.

    Raises:
        ValueError: naming the setting, if it is out of its range.
    """

    channels: int = 3
    """Number of channels."""
    low: tuple[float, ...] = ()
    """For each channel the number that becomes 0; empty for bytes, which stay as they are."""
    high: tuple[float, ...] = ()
    """For each channel the number that becomes 1; empty for bytes."""
    no_data: float | None = None
    """The number that stands for no measurement, as satellite images have it; NaN does in any case."""
    fill: tuple[float, ...] = ()
    """What pixels without a measurement become, in [0, 1], for each channel: the mean of the others, which is 0 after
    normalisation. Empty if there are none."""
    show: tuple[int, ...] = ()
    """The channels, counted from 1, that are red, green and blue when an image is shown to people; one channel is shown
    in gray. Empty for the first three, of two for those, and of one for that. No result depends on it."""

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"pixel_format.channels must be from 1 to {MAX_CHANNELS}, but is {self.channels}")
        for name in ("low", "high", "fill"):
            if len(getattr(self, name)) not in (0, self.channels):
                raise ValueError(
                    f"pixel_format.{name} must have a number for each of {self.channels} channels, but has "
                    f"{len(getattr(self, name))}"
                )
        if len(self.low) != len(self.high):
            raise ValueError("pixel_format.low and pixel_format.high must be given together")
        for low, high in zip(self.low, self.high, strict=True):
            if not (low < high and isfinite(low) and isfinite(high)):
                raise ValueError(f"pixel_format.low must be below pixel_format.high, but they are {low:g} and {high:g}")

        if self.show and (len(self.show) not in (1, 3) or not all(1 <= band <= self.channels for band in self.show)):
            raise ValueError(
                f"--show must be one or three of the channels 1 to {self.channels}, as 3,2,1, but is "
                f"{','.join(map(str, self.show))}"
            )

    @property
    def is_deep(self) -> bool:
        """Returns whether pixels have 16 bits, and not 8."""
        return bool(self.low)

    @property
    def is_rgb(self) -> bool:
        """Returns whether pixels are the bytes of red, green and blue that image files usually hold."""
        return self.channels == 3 and not self.is_deep

    def __str__(self) -> str:
        depth = "16-bit" if self.is_deep else "8-bit"
        return "8-bit RGB" if self.is_rgb else f"{self.channels} channel{'s'[: self.channels != 1]}, {depth}"


RGB = PixelFormat()


@dataclass(frozen=True)
class MeasuredPixels:
    """A frozen dataclass that holds the pixel format of a data set and its normalisation."""

    pixel_format: PixelFormat
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, for pixels in [0, 1]."""
    notes: tuple[str, ...] = ()
    """A line for each decision."""


def parse_shown_channels(text: str) -> tuple[int, ...]:
    """Returns the channels that ``--show`` names, counted from 1.

    Raises:
        ValueError: if they are not one or three whole numbers above 0.

    Examples:
        >>> parse_shown_channels("3,2,1")
        (3, 2, 1)
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--show {text}: want one or three channels, counted from 1, as 3,2,1")
    return tuple(map(int, parts))
