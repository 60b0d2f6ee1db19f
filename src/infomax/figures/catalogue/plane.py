"""MVEB Sec. 5, Eqs. 19 to 21: alignment, uniformity and the correlation of the embeddings, a line a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from infomax.figures.drawing import COLOURS, MARKERS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import labels_of
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count

TRAINING, AFTER = "during the training", "after it"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    batch_size: int = 512
    """Images of the batch that is measured after the training."""

    def __post_init__(self) -> None:
        check_count("--set batch_size", self.batch_size, low=2)


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each run."""
    labels = labels_of(request.runs)
    return [Part(labels[run.path], partial(_rows, run, labels[run.path], request)) for run in request.runs]


def _rows(run: Run, name: str, request: FigureRequest) -> list[Row]:
    """Returns a row for each measurement of the training's health, and one of a batch after it."""
    from infomax.analysis.measures import uniformity
    from infomax.figures.training_views import embed_views, open_training_method, open_views

    columns = ("embedding_alignment", "embedding_uniformity")
    health = [row for row in run.read_rows("metrics.jsonl") if all(column in row for column in columns)]
    common = {"run": name, "measured": TRAINING}
    rows = [
        {
            **common,
            "step": row["step"],
            "images": row["health_rows"],
            "alignment": 1 - row["embedding_alignment"] / 2,
            "uniformity": row["embedding_uniformity"],
        }
        for row in health
    ]
    crops = open_views(run, request, request.settings.batch_size)(0)
    first, second = embed_views(open_training_method(run, request), crops)[:2]
    correlation = first.T @ first / len(first)
    after = {
        "step": run.trained_steps,
        "measured": AFTER,
        "images": len(first),
        "alignment": float((first * second).sum(1).mean()),
        "uniformity": float(uniformity(first)),
        "correlation": float(correlation.square().sum()),
    }
    return [*rows, {**common, **after}]


def count(rows: Sequence[Row]) -> str:
    """Returns the number of images in words."""
    during, after = ({row["images"] for row in rows if row["measured"] == when} for when in (TRAINING, AFTER))
    words = f"{'/'.join(f'{n:,}' for n in sorted(after))} images after the training"
    return f"{words}, {'/'.join(f'{n:,}' for n in sorted(during))} at each step" if during else words


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws a line for each run from its first step to its last, and its end by the correlation too."""
    left, right = figure.subplots(1, 2, sharex=True)
    for i, ((run,), of_run) in enumerate(group_rows(rows, "run").items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        course = [(row["alignment"], row["uniformity"]) for row in of_run if row["measured"] == TRAINING]
        if course:
            left.plot(*zip(*course, strict=True), color=colour, linewidth=1, alpha=0.7)
            left.scatter(*course[0], color="white", edgecolors=colour, marker=marker, zorder=3)
        (end,) = (row for row in of_run if row["measured"] == AFTER)
        left.scatter(end["alignment"], end["uniformity"], color=colour, marker=marker, zorder=3, label=run)
        right.scatter(end["alignment"], end["correlation"], color=colour, marker=marker, label=run)
    for axes in (left, right):
        axes.set_xlabel("alignment: mean cosine of two views")
    left.set_ylabel("uniformity: lower is more even")
    right.set(ylabel="|F|² of Eq. 20: lower is more even", yscale="log")
    left.legend(frameon=False, fontsize=8)


FIGURE = Figure(
    name="plane",
    title="Alignment and uniformity of the embeddings, a line a run: what Eqs. 19 to 21 say that all methods balance",
    text=(
        "Alignment is the mean cosine of two views of an image, the first term of Eqs. 19 and 20. Uniformity is the "
        "logarithm of the mean of exp(-2 |z - z'|^2) over pairs of images (Wang and Isola), which Eq. 19's second term "
        "is at temperature 1/4. The correlation is the squared norm of F = Z'Z/n of Eq. 20, which by Eq. 21 is the "
        "mean squared cosine of two images, each with itself included. A line goes from the untrained network (white) "
        "to the end; points after the training are of one batch of views, with BatchNorm's statistics of that batch."
    ),
    sources=(),
    needs=Needs(
        runs="runs of any methods",
        commands=(
            "infomax demo --out runs/demo",
            "infomax pretrain --recipe mveb/digits --data digits --out runs/mveb",
            "infomax pretrain --recipe simclr/digits --data digits --out runs/simclr",
        ),
    ),
    settings=Settings,
    columns={
        "run": "run that was measured",
        "measured": "during the training, with its health; or after it, on one batch",
        "step": "steps that were done",
        "images": "images of the batch",
        "alignment": "mean cosine of two views of an image",
        "uniformity": "logarithm of the mean of exp(-2 |z - z'|^2) over pairs of images",
        "correlation": "squared norm of the embeddings' correlation matrix; empty during the training",
    },
    parts=parts,
    count=count,
    draw=draw,
    size=(8.0, 4.0),
    minutes=0.1,
)
