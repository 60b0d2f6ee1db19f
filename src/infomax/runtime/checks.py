"""Checks of what a user asked for, and the failure that is no one's mistake."""

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any


def choose(what: str, name: Any, choices: Iterable[str]) -> str:
    """``name``, if it is one of the choices.

    Raises:
        ValueError: naming ``what``, the choices and the nearest of them.
    """
    choices = list(choices)
    if name not in choices:
        near = get_close_matches(str(name), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{what} must be one of {', '.join(choices)}, but is {name!r}{hint}")
    return name


def check_number(
    name: str, value: Any, *, low: float, high: float = float("inf"), open_low: bool = False, open_high: bool = True
) -> None:
    """Refuse a number outside the interval from ``low`` to ``high``; NaN is outside every interval."""
    inside = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if inside:
        x = float(value)
        inside = (x > low if open_low else x >= low) and (x < high if open_high else x <= high)
    if not inside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name} must be a number in {interval}, but is {value!r}")


def check_count(name: str, value: Any, *, low: int) -> None:
    """Refuse what is not a whole number of at least ``low``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, but is {value!r}")


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes the GPU if there is one."""
    import torch

    choose("--device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use cpu or auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
