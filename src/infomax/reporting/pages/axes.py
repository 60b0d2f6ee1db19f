"""Axes of charts: where a value stands on them, and which round numbers are written beside them."""

import math
from dataclasses import dataclass

import numpy as np

LARGEST = 1e300
"""Values beyond it are drawn there: the length of an axis has to be a float too."""
MANY_DECADES = 7
"""Decades from which on not each of them is written beside a logarithmic axis."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A frozen dataclass that holds the ends of an axis, and its ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """Values between the ends, and their texts."""
    is_log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Returns where values stand, from 0 at the low end to 1 at the high one; NaN for what has no place.

        Args:
            values: Numbers of any shape.
        """
        values = np.clip(np.asarray(values, dtype=np.float64), -LARGEST, LARGEST)
        if self.is_log:
            logs = np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)
            return (logs - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (values - self.low) / (self.high - self.low)


def linear_axis(values: np.ndarray, *, pad: float = 0.0, count: int = 5, from_zero: bool = False) -> Axis:
    """Returns an axis on which all finite values have a place.

    Args:
        values: Numbers of any shape; NaN and infinity are left out.
        pad: What is added at both ends, as a share of the length.
        count: About how many ticks it has.
        from_zero: Whether the axis holds 0, without anything added there.
    """
    finite = np.clip(values[np.isfinite(values)], -LARGEST, LARGEST)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-280):
        half = max(abs(low), abs(high)) / 10
        half = half if half > 1e-290 else 1.0
        low, high = low - half, high + half
    else:
        added = pad * (high - low)
        low = low if from_zero and low == 0 else low - added
        high = high if from_zero and high == 0 else high + added
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = [number * step for number in range(first, last + 1)]
    return Axis(low, high, tuple((place, _tick_text(place, step, max(abs(low), abs(high)))) for place in places))


def log_axis(values: np.ndarray) -> Axis:
    """Returns a logarithmic axis on which all positive finite values have a place.

    Args:
        values: Numbers of any shape; those of 0 or less are left out too.
    """
    positive = np.clip(values[np.isfinite(values) & (values > 0)], 1 / LARGEST, LARGEST)
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.1, 1.0)
    low, high = low / 1.15, high * 1.15
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [number for number in range(first, last + 1) if low <= 10.0**number <= high]
    if len(decades) >= 3:
        every = math.ceil(len(decades) / MANY_DECADES)
        shown = [number for number in decades if number % every == 0]
        return Axis(low, high, tuple((10.0**number, _power_text(number)) for number in shown), is_log=True)
    if not decades:
        return Axis(low, high, linear_axis(np.array([low, high])).ticks, is_log=True)
    places = [factor * 10.0**number for number in range(first, last + 1) for factor in (1, 2, 5)]
    ticks = tuple((place, format_number(place, 1)) for place in places if low <= place <= high)
    return Axis(low, high, ticks, is_log=True)


def nice_step(length: float, count: int) -> float:
    """Returns the 1, 2 or 5 times a power of ten by which about ``count`` ticks fit on a length."""
    rough = length / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if rough <= factor * power * (1 + 1e-9))


def _tick_text(value: float, step: float, largest: float) -> str:
    """Returns a tick's text, with as many decimals as tell it from the next one."""
    if largest >= 1e7 or step < 1e-5:
        digits = max(1, 1 + math.floor(math.log10(largest) + 1e-9) - math.floor(math.log10(step) + 1e-9))
        return "0" if value == 0 else _scientific(value, min(digits, 8))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:,.{decimals}f}"


def _power_text(exponent: int) -> str:
    """Returns a power of ten: as a number near 1, with an exponent elsewhere."""
    if -3 <= exponent <= 4:
        return f"{10.0**exponent:,.{max(0, -exponent)}f}"
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def format_number(value: float, digits: int) -> str:
    """Returns a number with some significant digits, of which none before the point is dropped.

    ``assets/charts.js`` has the same function for the values at its crosshair.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 7:
        return _scientific(value, digits)
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
