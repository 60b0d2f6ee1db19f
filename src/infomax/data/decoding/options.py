"""What the user decides about how files become pixels: the range of numbers that is black to white, and the limit."""

from dataclasses import dataclass
from math import isfinite

MAX_MEGAPIXELS = 120.0  # the largest common camera has 108; an image of 120 takes about 2 GB while it is decoded


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
