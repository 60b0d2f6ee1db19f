"""Checks of the values that a user gives; each error names the argument, the value and what would be right."""

from collections.abc import Iterable
from math import isfinite
from numbers import Integral, Real
from typing import Any

from infomax.runtime.json_values import shorten
from infomax.runtime.near_names import nearest


def choose(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Returns ``value`` if it is one of the choices.

    Args:
        argument: Name of the argument for the message, as ``--method`` or ``the recipe for mira``.
        value: What the user gave.
        choices: All values that are allowed.

    Raises:
        ValueError: if it is none of them; the message lists the choices and suggests the nearest one.
    """
    choices = list(choices)
    if value not in choices:
        near = nearest(value, choices)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, but is {shorten(value)}{hint}")
    return value


def check_number(
    argument: str, value: Any, *, low: float, high: float = float("inf"), open_low: bool = False, open_high: bool = True
) -> None:
    """Checks that a value is a number in the interval from ``low`` to ``high``; NaN and infinity never are.

    Args:
        argument: Name of the argument for the message.
        value: What the user gave.
        low: Lower end of the interval.
        high: Upper end of the interval.
        open_low: Whether ``low`` itself is outside.
        open_high: Whether ``high`` itself is outside.

    Raises:
        ValueError: if it is not; the message shows the interval.
    """
    inside = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if inside:
        x = float(value)
        inside = (x > low if open_low else x >= low) and (x < high if open_high else x <= high)
    if not inside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{argument} must be a number in {interval}, but is {value!r}")


def check_count(argument: str, value: Any, *, low: int) -> None:
    """Checks that a value is an integer of at least ``low``; True and False are not integers here.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{argument} must be a whole number of at least {low}, but is {value!r}")
