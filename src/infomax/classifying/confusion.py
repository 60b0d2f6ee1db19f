"""Draws a confusion matrix as a PNG that is legible for 2 to 100 classes."""

import io
import warnings
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Int

from infomax.runtime.figure_style import default_style
from infomax.runtime.text import escape

NUMBERED = 55
"""Columns up to which each cell shows its number."""
LONGEST_NAME = 24
CELL = 0.34
"""Side of a cell in inches, if there are few; of many it is smaller."""
SMALLEST_CELL = 0.16
LETTERS_AN_INCH = 13
"""Letters of a line of the warning."""
MOST_CLASSES = 250
"""Classes above which there is no picture: its names could not be read."""


@default_style()
def draw_confusion(
    counts: Int[np.ndarray, "r c"], rows: Sequence[str], columns: Sequence[str], title: str, warning: str = ""
) -> bytes:
    """Draws the numbers of images of each class that got each label.

    A colour is the root of the share of a class's images, so that single mistakes show too.

    Args:
        counts: The numbers of images.
        rows: Names of the images' classes.
        columns: Names of the labels.
        title: Text above the matrix.
        warning: A line above the title that says why the numbers mislead; empty if they do not.

    Returns:
        A PNG.
    """
    from matplotlib.figure import Figure

    cell = min(max(CELL * (20 / max(len(columns), 20)) ** 0.5, SMALLEST_CELL), CELL)
    longest = max(len(_short(name)) for name in (*rows, *columns))
    margin = 0.9 + 0.075 * longest
    size = (margin + 0.6 + cell * max(len(columns), 6), margin + 0.6 + cell * max(len(rows), 4))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    shares = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    font = 8 if cell > 0.25 else 7
    _name_axes(axes, rows, columns, font)
    if len(columns) <= NUMBERED:
        _write_numbers(axes, counts, shares, font - 1)
    axes.set_title(escape(title), fontsize=9, loc="left", parse_math=False)
    if warning:
        lines = wrap(f"Warning: {escape(warning)}", max(int(LETTERS_AN_INCH * size[0]), 20))
        figure.suptitle("\n".join(lines), fontsize=9, color="#a00000", x=0.01, ha="left", parse_math=False)
    png = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a letter that the font does not have
        figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _name_axes(axes: Any, rows: Sequence[str], columns: Sequence[str], font: int) -> None:
    """Names rows and columns; a name is nothing but text, whatever it holds."""
    for axis, names, label in ((axes.yaxis, rows, "class of the image"), (axes.xaxis, columns, "label")):
        axis.set_ticks(range(len(names)), [_short(name) for name in names], fontsize=font, parse_math=False)
        axis.set_label_text(label, fontsize=font + 1)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("0.7")


def _write_numbers(axes: Any, counts: np.ndarray, shares: np.ndarray, font: int) -> None:
    """Writes the number of images into each cell that has some."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.55 else "0.15"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=font)


def _short(name: str) -> str:
    shown = escape(name) or "''"
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 3]}..."
