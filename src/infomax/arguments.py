"""Checks of what a user asked for."""

from collections.abc import Iterable
from difflib import get_close_matches
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


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes the GPU if there is one."""
    import torch

    choose("--device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use cpu or auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
