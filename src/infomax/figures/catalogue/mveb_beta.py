"""MVEB Figure 4: the accuracy along beta, the weight of the entropy."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.sweep_points import POINT_COLUMNS, Varied, check_varied, count, draw_points, points

KEY = "method.entropy_weight"


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: all is read from the runs."""
    return [Part("runs", lambda: points(request, Varied((KEY,))))]


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws accuracy and cosine along beta."""
    left, right = figure.subplots(1, 2)
    draw_points(left, rows, x="beta, the weight of the entropy")
    left.legend(frameon=False, fontsize=8)
    draw_points(right, rows, x="beta, the weight of the entropy", y="cosine")
    right.set_ylabel("mean cosine of two images' embeddings")


FIGURE = Figure(
    name="mveb-beta",
    title="MVEB's accuracy along beta, the weight of the entropy, with collapsed runs marked",
    text=(
        "Each point is a run of a sweep, each line the mean over seeds. A cross marks a run on whose training the "
        "verdict of a collapse stood at the end. The paper's own curve can be read at two values alone: collapse at "
        "0.001, the best accuracy at 0.01."
    ),
    sources=("MVEB Figure 4",),
    needs=Needs(
        runs="a sweep of MVEB along method.entropy_weight",
        commands=(
            "infomax sweep mveb/imagenet_batch_1024 --vary method.entropy_weight=0.001,0.003,0.01,0.03,0.1 "
            "--seeds 3 --out runs/beta",
            "infomax sweep mveb/digits --vary method.entropy_weight=0.001,0.003,0.01,0.03,0.1 --seeds 3 "
            "--evaluate linear --out runs/beta",
        ),
    ),
    columns={**POINT_COLUMNS, "value": "beta"},
    check=partial(check_varied, "mveb-beta", key=KEY),
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    size=(8.0, 3.8),
    minutes=0.1,
)
