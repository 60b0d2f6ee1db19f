"""Measures the numbers of a data set whose images are not 8-bit RGB: their range, their means and their spread.

In: images, and what the user decided. Out: the pixel format, the normalisation, and a line for each decision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from infomax.data.decoding.options import ValueRange
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.numbers import NumberKind, is_missing
from infomax.data.pixel_format import MeasuredPixels, PixelFormat
from infomax.data.splits import counted
from infomax.runtime.stages import Stage

KINDS = 64  # images whose headers are looked at
MEASURED_FILES = 256  # images of files that are decoded to be measured
MEASURED_BYTES = 4 * 10**9  # an array of so many bytes is measured whole, a larger one in part
NUMBERS_OF_IMAGE = 2**18  # of one file's numbers at most so many are measured
USUAL_PERCENTILES = ValueRange(0.1, 99.9, is_percentile=True)
"""What becomes 0 and 1 of numbers whose format says no range: what is rarer is cut off."""
SMALL_SHARE = 1 / 8  # of the format's range; if all numbers lie in it, a line says so
BLOCK = 2**22  # numbers that are measured at once


@dataclass(frozen=True)
class PixelChoice:
    """A frozen dataclass that holds what the user decides about images of other channels or depths than 8-bit RGB."""

    channels: int | None = None
    """Number of channels; None finds it."""
    value_range: ValueRange | None = None
    """The range that becomes 0 to 1; None takes the format's or :data:`USUAL_PERCENTILES`."""
    no_data: float | None = None
    """The number that stands for no measurement; None takes what files say."""
    show: tuple[int, ...] = ()
    """The channels that are shown to people, counted from 1."""


def measure_pixels(images: Images, choice: PixelChoice) -> MeasuredPixels | None:
    """Finds the pixel format of a data set, and measures its normalisation.

    Args:
        images: The images that are trained on.
        choice: What the user decided.

    Returns:
        The format and the normalisation; None if the images are 8-bit RGB or gray, or are to be made that.

    Raises:
        ValueError: if the images are of different kinds, or not what the user says, naming one and what to say.
    """
    kind = _common_kind(images, choice)
    if kind is None or (kind.is_byte and kind.channels == 3 and choice.channels in (None, 3)):
        _check_byte_options(choice)
        return None
    if choice.channels == 3 and kind.channels == 1:  # gray becomes RGB of 8 bits, as --value-range says
        _check_byte_options(choice) if kind.is_byte else _check_made_rgb(choice)
        return None
    channels = choice.channels or kind.channels
    if channels != kind.channels and not (channels == 1 and kind.is_byte and kind.channels == 3):
        raise ValueError(f"--channels {channels}: {images.name(0)} has {kind}")
    no_data = kind.no_data if choice.no_data is None else choice.no_data
    notes: list[str] = []
    sampled: list[np.ndarray] = []
    if kind.is_byte:
        _check_byte_options(choice)
        pixel_format = PixelFormat(channels=channels, show=choice.show)
        if kind.channels != channels:
            notes.append("colours become gray, as --channels 1 asks")
    else:
        if _wants_percentiles(kind, choice.value_range):
            with Stage("measuring the range of the images", slow_only=True):  # of an array, percentiles need a part
                sampled = [values for values, _ in _numbers(images, no_data, most=MEASURED_FILES)]
        low, high, note = _range(images, kind, choice.value_range, sampled)
        pixel_format = PixelFormat(channels=channels, low=low, high=high, no_data=no_data, show=choice.show)
        notes.append(note)
    with Stage("measuring the numbers of the images", slow_only=True):
        statistics = _measure(images, pixel_format, sampled)
    names = f" ({', '.join(kind.bands)})" if len(kind.bands) == channels else ""
    numbers = f"{counted(channels, 'channel')}{names} of {kind.dtype}"
    notes = [f"{numbers}: {notes[0]}" if notes else numbers, *notes[1:], *statistics.notes(kind)]
    fill = tuple(_rounded(statistics.mean)) if statistics.missing.any() else ()
    std = np.where(statistics.std > 0, statistics.std, 1.0)
    return MeasuredPixels(
        replace(pixel_format, fill=fill), tuple(_rounded(statistics.mean)), tuple(_rounded(std)), tuple(notes)
    )


def _check_byte_options(choice: PixelChoice) -> None:
    """Raises ValueError if an option is given that images of 8 bits cannot have."""
    if choice.no_data is not None:
        raise ValueError(f"--no-data {choice.no_data:g}: these images have 8 bits, all of which are measurements")
    if choice.value_range is not None and choice.value_range.is_percentile:
        raise ValueError(f"--value-range {choice.value_range}: these images have 8 bits, whose range is 0 to 255")


def _check_made_rgb(choice: PixelChoice) -> None:
    """Raises ValueError if an option is given that does nothing to numbers that become 8-bit RGB."""
    without = "without --channels 3, one channel is trained on as it is"
    if choice.no_data is not None:
        raise ValueError(
            f"--no-data {choice.no_data:g} with --channels 3: 8-bit RGB has no number for no measurement; {without}"
        )
    if choice.value_range is not None and choice.value_range.is_percentile:
        raise ValueError(
            f"--value-range {choice.value_range} with --channels 3: 8-bit RGB is made by two numbers, as 0,4095; "
            f"{without}"
        )


def evenly(count: int, most: int) -> np.ndarray:
    """Returns the indices of at most ``most`` of ``count`` images, at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _common_kind(images: Images, choice: PixelChoice) -> NumberKind | None:
    """Returns the kind of the images' numbers, by the headers of some; None if none can be read.

    Bounds and values of no measurement that not all of them have are left out.

    Raises:
        ValueError: naming two images, if they are of different kinds.
    """
    kinds: dict[str, NumberKind] = {}
    for index in evenly(len(images), KINDS).tolist():
        try:
            kinds[images.name(index)] = images.kind(index)
        except ValueError:  # a damaged file, which the training says when it opens it
            continue
    if not kinds:
        return None
    (first_name, first), *others = kinds.items()
    for name, kind in others:
        if (kind.channels, kind.dtype) == (first.channels, first.dtype):
            continue
        if choice.channels == 3 and {kind.channels, first.channels} <= {1, 3}:
            return NumberKind(1, np.dtype(np.uint16))  # all become 8-bit RGB
        cure = "train on images of one kind"
        if {kind.channels, first.channels} <= {1, 3}:
            cure += ", or say --channels 3 to make 8-bit RGB of all"
        raise ValueError(f"{first_name} has {first}, and {name} has {kind}; {cure}")
    same: dict[str, Any] = {
        part: getattr(first, part) if len({getattr(kind, part) for kind in kinds.values()}) == 1 else default
        for part, default in (("low", None), ("high", None), ("no_data", None), ("bands", ()))
    }
    return replace(first, **same)


def _wants_percentiles(kind: NumberKind, value_range: ValueRange | None) -> bool:
    """Returns whether percentiles become 0 and 1: the user says so, or says nothing, as the format does."""
    return None in (kind.low, kind.high) if value_range is None else value_range.is_percentile


def _range(
    images: Images, kind: NumberKind, value_range: ValueRange | None, sampled: Sequence[np.ndarray]
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Returns for each channel the numbers that become 0 and 1, and a line on where they come from.

    Args:
        images: The images.
        kind: The kind of their numbers.
        value_range: What the user says.
        sampled: Numbers of some images, [m, channels] of each, if percentiles are wanted.
    """
    channels = kind.channels
    if value_range is None and kind.low is not None and kind.high is not None:
        is_of_type = kind.dtype.kind == "u" and kind.high == np.iinfo(kind.dtype).max
        origin = f"the range of {kind.dtype}" if is_of_type else "the range that the files say"
        words = f"{kind.low:g} to {kind.high:g}, {origin}, becomes 0 to 1 (--value-range)"
        return (kind.low,) * channels, (kind.high,) * channels, words
    if value_range is not None and not value_range.is_percentile:
        words = f"{value_range.low:g} to {value_range.high:g} becomes 0 to 1, as --value-range says"
        return (value_range.low,) * channels, (value_range.high,) * channels, words
    percentiles = value_range or USUAL_PERCENTILES
    low, high = [], []
    for channel in range(channels):
        numbers = np.concatenate([x[:, channel][np.isfinite(x[:, channel])] for x in sampled])
        if not len(numbers):
            raise ValueError(f"channel {channel + 1} has no measurement in any of {len(sampled)} images")
        bounds = np.percentile(numbers, [percentiles.low, percentiles.high]).tolist()
        low.append(bounds[0])
        high.append(bounds[1] if bounds[1] > bounds[0] else bounds[0] + 1.0)
    of_images = f"of {counted(len(sampled))}" if len(sampled) < len(images) else "of all images"
    ranges = ", ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low[:4], high[:4], strict=True))
    more = f" and {channels - 4} more channels" if channels > 4 else ""
    words = (
        f"{ranges}{more} becomes 0 to 1: the percentiles {percentiles.low:g} and {percentiles.high:g} {of_images}, "
        "what lies outside is cut off (--value-range)"
    )
    return tuple(map(float, low)), tuple(map(float, high)), words


def _numbers(images: Images, no_data: float | None, *, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields some numbers of some images, [m, channels], with NaN for no measurement; and how many images they are of.

    Args:
        images: The images.
        no_data: The number that stands for no measurement.
        most: Number of images to read; those that cannot be read are left out.
    """
    for index in evenly(len(images), most).tolist():
        try:
            values = images.read(index).values
        except ValueError:
            continue
        yield _thinned(values, no_data), 1


def _thinned(values: np.ndarray, no_data: float | None) -> np.ndarray:
    """Returns at most :data:`NUMBERS_OF_IMAGE` numbers of an image as [m, channels], with NaN for no measurement."""
    flat = values.reshape(-1, values.shape[-1])
    step = max(1, -(-flat.size // NUMBERS_OF_IMAGE))
    return _with_nan(flat[::step], no_data)


def _with_nan(values: np.ndarray, no_data: float | None) -> np.ndarray:
    """Returns numbers in float64, with NaN for no measurement."""
    missing = is_missing(values, no_data)
    numbers = values.astype(np.float64)
    if missing is not None:
        numbers[missing] = np.nan
    return numbers


@dataclass(frozen=True)
class _Statistics:
    """A frozen dataclass that holds what was measured of each channel, for pixels in [0, 1]."""

    mean: np.ndarray
    std: np.ndarray
    missing: np.ndarray
    """Share of the numbers that are no measurement."""
    largest: np.ndarray
    """The largest pixel."""
    images: int
    """Number of images that were measured."""
    is_exact: bool
    """Whether all numbers of all images were."""
    pixel_format: PixelFormat

    def notes(self, kind: NumberKind) -> list[str]:
        """Returns a line for each thing that the user should know."""
        of_images = "all images" if self.is_exact else counted(self.images)
        mean, std = (", ".join(f"{x:.3g}" for x in values[:8]) for values in (self.mean, self.std))
        more = ", ..." if len(self.mean) > 8 else ""
        notes = [f"normalised by the mean {mean}{more} and the standard deviation {std}{more} of {of_images}"]
        if self.missing.any():
            notes.append(
                f"{self.missing.mean():.2%} of the numbers are no measurement (NaN"
                f"{'' if self.pixel_format.no_data is None else f' or {self.pixel_format.no_data:g}'}); they become "
                "the mean of their channel"
            )
        flat = [str(i + 1) for i in np.flatnonzero(self.std == 0)]
        if flat:
            notes.append(f"channel {', '.join(flat)}: all numbers are the same")
        high = self.pixel_format.high
        if high and kind.high == high[0] and self.largest.max() < SMALL_SHARE:
            reached = self.pixel_format.low[0] + self.largest.max() * (high[0] - self.pixel_format.low[0])
            proposed = proposed_range(kind, self.pixel_format.low[0], reached)
            notes.append(f"no number is above {reached:g}: --value-range {proposed} would use the whole range")
        return notes


def proposed_range(kind: NumberKind, low: float, reached: float) -> str:
    """Returns the range of a whole number of bits, as ``0,4095 (12 bits)`` if 4094 is reached, as users mean it.

    The images of a sensor of 12 bits need not have its largest number, and those that come later may. Numbers with a
    sign or a fraction have the range that is reached.

    Args:
        kind: The kind of the numbers.
        low: The number that becomes black.
        reached: The largest number that was measured.
    """
    if kind.dtype.kind != "u":
        return f"{low:g},{reached:g}"
    bits = max(1, round(reached).bit_length())
    return f"{low:g},{2**bits - 1} ({counted(bits, 'bit')})"


def _measure(images: Images, pixel_format: PixelFormat, sampled: Sequence[np.ndarray]) -> _Statistics:
    """Measures the channels of a data set: of an array all numbers, of files those of some images.

    Args:
        images: The images.
        pixel_format: What their numbers become.
        sampled: The numbers of some images if they were read already, which takes as long as all else.

    Raises:
        ValueError: if a channel has no measurement.
    """
    channels = pixel_format.channels
    count, total, squares, missing = (np.zeros(channels) for _ in range(4))
    largest, read = np.zeros(channels), 0
    is_exact = isinstance(images, ArrayImages) and images.nbytes <= MEASURED_BYTES
    if isinstance(images, ArrayImages):
        parts = _all_numbers(images, pixel_format)
    else:
        read_before = [(values, 1) for values in sampled]
        parts = read_before or _numbers(images, pixel_format.no_data, most=MEASURED_FILES)
    for numbers, images_read in parts:
        pixels = _unit_pixels(numbers, pixel_format)
        known = np.isfinite(pixels)
        filled = np.where(known, pixels, 0.0)
        count += known.sum(0)
        missing += (~known).sum(0)
        total += filled.sum(0)
        squares += np.square(filled).sum(0)
        largest = np.maximum(largest, filled.max(0, initial=0.0))
        read += images_read
    if not read:
        raise ValueError("no image can be read")
    if not count.all():
        raise ValueError(f"channel {int(np.flatnonzero(count == 0)[0]) + 1} has no measurement in any image")
    mean = total / count
    variance = (squares / count - np.square(mean)).clip(0)
    std = np.sqrt(np.where(variance < 1e-12, 0.0, variance))
    return _Statistics(mean, std, missing / (count + missing), largest, read, is_exact, pixel_format)


def _all_numbers(images: ArrayImages, pixel_format: PixelFormat) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the numbers of an array's images, [m, channels]; of a very large array, those of some images."""
    share = min(1.0, MEASURED_BYTES / max(1, images.nbytes))
    index = evenly(len(images), max(1, int(share * len(images))))
    step = max(1, BLOCK // max(1, int(np.prod(images.pixels.shape[1:]))))
    for start in range(0, len(index), step):
        rows = index[start : start + step]
        values = images.numbers(rows)
        yield _with_nan(values.reshape(-1, values.shape[-1]), pixel_format.no_data), len(rows)


def _unit_pixels(numbers: np.ndarray, pixel_format: PixelFormat) -> np.ndarray:
    """Returns numbers [m, channels] as pixels in [0, 1], as views have them before normalisation."""
    if pixel_format.channels == 1 and numbers.shape[1] == 3:
        numbers = numbers @ np.array([[0.299], [0.587], [0.114]])
    if not pixel_format.is_deep:
        return numbers / 255
    low, high = np.array(pixel_format.low), np.array(pixel_format.high)
    return ((numbers - low) / (high - low)).clip(0, 1)


def _rounded(values: np.ndarray) -> Sequence[float]:
    """Returns numbers with six digits: more would depend on the order of the sums."""
    return [float(f"{x:.6g}") for x in values.tolist()]
