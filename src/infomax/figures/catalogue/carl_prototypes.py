"""CARL Figure 3: the accuracy along the number of prototypes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.sweep_points import POINT_COLUMNS, Varied, check_varied, count, draw_points, points

KEY = "method.prototypes"


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: all is read from the runs."""
    return [Part("runs", lambda: points(request, Varied((KEY,))))]


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the accuracy along the number of prototypes."""
    axes = figure.subplots()
    draw_points(axes, rows, x="prototypes")
    axes.legend(frameon=False, fontsize=8)


FIGURE = Figure(
    name="carl-prototypes",
    title="CARL's accuracy along the number of prototypes",
    text=(
        "Each point is a run of a sweep, each line the mean over seeds. The paper says that its best numbers lie about "
        "one order of magnitude above the number of classes; no number of its figure can be read, nor how many "
        "prototypes were tried."
    ),
    sources=("CARL Figure 3",),
    needs=Needs(
        runs="a sweep of CARL along method.prototypes",
        commands=(
            "infomax sweep carl/cifar10_150 carl/cifar100_150 --vary method.prototypes=10,30,100,300,1000 --seeds 3 "
            "--out runs/prototypes",
            "infomax sweep carl/digits --vary method.prototypes=10,30,100,300 --seeds 3 --evaluate linear "
            "--out runs/prototypes",
        ),
    ),
    columns={**POINT_COLUMNS, "value": "number of prototypes"},
    check=partial(check_varied, "carl-prototypes", key=KEY),
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    minutes=0.1,
)
