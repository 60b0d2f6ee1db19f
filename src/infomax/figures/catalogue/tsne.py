"""CorInfoMax appendix J, Figure A.2: t-SNE of the features of test images, in three dimensions and in two."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import cos, pi
from typing import Any

import numpy as np

from infomax.figures.drawing import CLASS_COLOURS, group_rows
from infomax.figures.figure import Animation, Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import features_of, labels_of, open_images
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count, check_number

DIMENSIONS = (2, 3)
FRAMES, SECONDS = 40, 8.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    images: int = 10_000
    """Test images, at most, at equal distances."""
    perplexity: float = 50.0
    """Perplexity."""
    exaggeration: float = 12.0
    """Early exaggeration. The learning rate is the number of images over 4 times it, but at least 50: the paper's
    208.33 for 10,000 images."""
    iterations: int = 1000
    """Iterations."""

    def __post_init__(self) -> None:
        check_count("--set images", self.images, low=4)
        check_number("--set perplexity", self.perplexity, low=1)
        check_number("--set exaggeration", self.exaggeration, low=1)
        check_count("--set iterations", self.iterations, low=250)


def check(request: FigureRequest) -> None:
    """Raises ValueError if there is more than one run."""
    if len(request.runs) > 1:
        raise ValueError(f"tsne is of one run, but {len(request.runs)} are given")


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each number of dimensions."""
    (run,) = request.runs
    name, known = labels_of(request.runs)[run.path], cache(partial(_features, run, request))
    return [Part(f"{name}, {d} dimensions", partial(_lay_out, d, known, request)) for d in DIMENSIONS]


def _features(run: Run, request: FigureRequest) -> tuple[np.ndarray, list[str] | None]:
    """Returns the features of test images, and the names of their classes if they have any."""
    source = open_images(run, request)
    features, images, _ = features_of(run, source, request, request.settings.images)
    if images.labels is None or images.labels.ndim > 1:
        return features.numpy(), None
    names = [str(name) for name in images.classes]
    return features.numpy(), [names[label] for label in images.labels.tolist()]


def _lay_out(dimensions: int, known: Any, request: FigureRequest) -> list[Row]:
    """Returns the place of each image, and the divergence that is left."""
    from sklearn.manifold import TSNE

    features, labels = known()
    settings = request.settings
    if settings.perplexity >= len(features):
        raise ValueError(
            f"--set perplexity must be below the number of images, {len(features)}: {settings.perplexity:g}"
        )
    tsne = TSNE(
        n_components=dimensions,
        perplexity=settings.perplexity,
        early_exaggeration=settings.exaggeration,
        learning_rate="auto",
        max_iter=settings.iterations,
        init="random",
        random_state=request.options.seed,
    )
    places = tsne.fit_transform(features).astype(float)
    return [
        {
            "dimensions": dimensions,
            "index": index,
            "label": None if labels is None else labels[index],
            **dict(zip("xyz", place, strict=False)),
            "kl": float(tsne.kl_divergence_),
        }
        for index, place in enumerate(places.tolist())
    ]


def count(rows: Sequence[Row]) -> str:
    """Returns the number of images in words."""
    return f"{len({row['index'] for row in rows}):,} images"


def _scatter(axes: Any, rows: Sequence[Row]) -> None:
    """Draws the points of one layout, a colour a class."""
    size = max(1.0, min(14.0, 4000 / len(rows)))
    for i, ((label,), of_class) in enumerate(sorted(group_rows(rows, "label").items(), key=lambda item: str(item[0]))):
        columns = [[row[axis] for row in of_class] for axis in "xyz"[: rows[0]["dimensions"]]]
        axes.scatter(*columns, s=size, color=CLASS_COLOURS[i % len(CLASS_COLOURS)], linewidths=0, label=label)
    axes.set_title(f"KL divergence {rows[0]['kl']:.2f}", fontsize=9)
    for axis in "xyz"[: rows[0]["dimensions"]]:
        getattr(axes, f"set_{axis}ticks")([])


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws both layouts, with one legend."""
    flat, solid = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
    by_dimensions = group_rows(rows, "dimensions")
    _scatter(flat, by_dimensions[2,])
    _scatter(solid, by_dimensions[3,])
    names, labels = flat.get_legend_handles_labels()
    if 1 < len(labels) <= len(CLASS_COLOURS):
        figure.legend(names, labels, loc="outside right center", frameon=False, fontsize=8, markerscale=2)


def animate(figure: Any, rows: Sequence[Row]) -> Animation:
    """Turns the layout in three dimensions once around its axis."""
    axes = figure.add_subplot(projection="3d")
    _scatter(axes, group_rows(rows, "dimensions")[3,])

    def show(frame: int) -> None:
        turn = frame / FRAMES
        axes.view_init(elev=20 + 10 * cos(2 * pi * turn), azim=360 * turn)

    return Animation(FRAMES, show, SECONDS)


FIGURE = Figure(
    name="tsne",
    title="t-SNE of the features of test images, in two dimensions and in three, coloured by class",
    text=(
        "The encoder's features as they are, by scikit-learn's t-SNE with the paper's settings: perplexity 50, early "
        "exaggeration 12, 1,000 iterations, a random start. The paper shows three dimensions, and as a video the turn "
        "of a view; --out FILE.gif writes that. Distances between groups mean little: t-SNE keeps neighbourhoods."
    ),
    sources=("CorInfoMax Figure A.2",),
    needs=Needs(
        runs="a run of any method",
        commands=(
            "infomax pretrain --recipe corinfomax/cifar10 --out runs/corinfomax",
            "infomax pretrain --recipe corinfomax/digits --data digits --out runs/corinfomax",
        ),
    ),
    settings=Settings,
    columns={
        "dimensions": "dimensions of the layout, 2 or 3",
        "index": "number of the image among those that are shown, from 0",
        "label": "class of the image; empty without labels",
        "x": "place",
        "y": "place",
        "z": "place; empty in two dimensions",
        "kl": "Kullback-Leibler divergence that is left of the layout, in nats",
    },
    check=check,
    parts=parts,
    count=count,
    draw=draw,
    size=(8.5, 4.0),
    animate=animate,
    minutes=0.1,
)
