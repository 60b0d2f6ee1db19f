"""Formats times with no more digits than are known."""

UNITS = (
    ("years", 2 * 365 * 86400, 365 * 86400),
    ("days", 2 * 86400, 86400),
    ("h", 3600, 3600),
    ("min", 60, 60),
    ("s", 1, 1),
    ("ms", 0, 0.001),
)
"""Units of time: the name, the shortest time that is given in it, in seconds, and its own length in seconds."""


def duration(seconds: float, *, rough: bool = False) -> str:
    """Formats a time with two digits, in the largest unit that it fills.

    Args:
        seconds: The time.
        rough: Whether a number below ten has one digit.
    """
    unit, size = _unit(seconds)
    return f"{_digits(seconds / size, 1 if rough and seconds < 10 * size else 2)} {unit}"


def duration_range(low: float, high: float) -> str:
    """Formats a range of estimated times, in seconds, as "2 to 5 h": with one digit below ten, and two above."""
    unit, size = _unit(high)
    if low < size:
        low_unit, low_size = _unit(low)
        return f"{_digits(low / low_size, 1)} {low_unit} to {_digits(high / size, 1 if high < 10 * size else 2)} {unit}"
    low_text, high_text = (_digits(x, 1 if x < 10 else 2) for x in (low / size, high / size))
    return f"{low_text} to {high_text} {unit}" if low_text != high_text else f"{high_text} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    """Returns the largest unit that a time fills, and its length in seconds."""
    return next((unit, size) for unit, shortest, size in UNITS if seconds >= shortest)


def _digits(x: float, count: int) -> str:
    """Formats a number with so many significant digits, without an exponent."""
    return f"{float(f'{x:.{count - 1}e}'):,.10g}"
