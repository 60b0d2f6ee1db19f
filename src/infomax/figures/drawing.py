"""What figures share in how they are drawn: colours, groups of rows, axes."""

from collections.abc import Sequence
from typing import Any

from infomax.figures.figure import Row

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's, which people with any kind of colour vision tell apart."""
CLASS_COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
"""Ten, for as many classes; of more, each is taken several times."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def group_rows(rows: Sequence[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    """Returns rows by their values in some columns, in the order in which the values first come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def value_axis(axes: Any, values: Sequence[float]) -> None:
    """Marks the values of a setting on the x axis, by their logarithm if they span a factor of 8."""
    values = sorted(set(values))
    if values and values[0] > 0 and values[-1] / values[0] >= 8:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values], fontsize=8)
    axes.minorticks_off()
