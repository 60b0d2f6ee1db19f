"""MVEB Table 6, as a figure: the accuracy along the batch size."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.sweep_points import POINT_COLUMNS, Varied, check_varied, count, draw_points, points

KEY = "batch_size"
METHODS = {"MVEB": "mveb", "SimCLR": "simclr", "SimSiam": "simsiam", "VICReg": "vicreg"}
VARIED = Varied((KEY,), follows=("optimizer.learning_rate", "optimizer.warmup_start", "micro_batch_size"))


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: all is read from the runs."""
    return [Part("runs", lambda: points(request, VARIED, paper="mveb-6", methods=METHODS))]


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws ours and the paper's side by side: they are of other images, so their heights do not compare."""
    panels = figure.subplots(1, 2)
    for axes, origin in zip(panels, ("ours", "paper"), strict=True):
        of_origin = [row for row in rows if row["origin"] == origin]
        draw_points(axes, of_origin, x="batch size")
        axes.legend(frameon=False, fontsize=8)


FIGURE = Figure(
    name="mveb-batch",
    title="MVEB's accuracy along the batch size, and that of other methods, beside the paper's",
    text=(
        "Each point is a run of a sweep, each line the mean over seeds; the learning rate may follow the batch size. "
        "The paper's numbers are of ImageNet, so what compares is how a curve falls or rises, not its height."
    ),
    sources=("MVEB Table 6",),
    needs=Needs(
        runs="a sweep of one method or several along batch_size",
        commands=(
            "infomax sweep mveb-6 --seeds 3 --out runs/batch",
            "infomax sweep mveb/digits simclr/digits --vary batch_size=32,64,128,256 --seeds 3 --evaluate linear "
            "--out runs/batch",
        ),
    ),
    columns={**POINT_COLUMNS, "value": "images of a batch"},
    check=partial(check_varied, "mveb-batch", key=KEY),
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    size=(8.0, 3.8),
    minutes=0.1,
)
