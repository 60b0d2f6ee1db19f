"""MIRA Figure 2: how fast MIRA's fixed point and Sinkhorn-Knopp converge, on logits of trained runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from infomax.figures.drawing import COLOURS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import check_methods, labels_of
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count, check_number

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("mira", "swav")
"""Methods whose logits are cosines with prototypes, as both iterations take them."""
MIRA, SINKHORN = "MIRA", "Sinkhorn-Knopp"
LEAST = 1e-32
"""Squared error below which the picture shows no difference: rounding in float64."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    batches: int = 50
    """Random batches of each run; the paper has 1000."""
    batch_size: int = 512
    """Images of a batch."""
    iterations: int = 30
    """Iterations that are shown."""
    truth: int = 1000
    """Iterations that count as the limit."""
    temperature: float = 0.225
    """Temperature of MIRA's teacher."""
    beta: float = 2 / 3
    """Weight of MIRA's mutual information."""
    epsilon: float = 0.05
    """Weight of the entropy in Sinkhorn-Knopp."""

    def __post_init__(self) -> None:
        for name in ("batches", "batch_size", "iterations", "truth"):
            check_count(f"--set {name}", getattr(self, name), low=1)
        check_number("--set temperature", self.temperature, low=0, open_low=True)
        check_number("--set beta", self.beta, low=0, high=1)
        check_number("--set epsilon", self.epsilon, low=0, open_low=True)


def check(request: FigureRequest) -> None:
    """Raises ValueError if a run is of another method."""
    check_methods("mira-convergence", request.runs, METHODS)


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each batch of each run."""
    labels = labels_of(request.runs)
    work = []
    for run in request.runs:
        logits = cache(partial(_open, run, request))
        for batch in range(request.settings.batches):
            compute = partial(_converge, labels[run.path], batch, logits, request.settings)
            work.append(Part(f"{labels[run.path]}, batch {batch + 1}", compute))
    return work


def _open(run: Run, request: FigureRequest) -> Callable[[int], "Tensor"]:
    """Returns a function that computes the logits of a batch of views of a run, as its targets are made of them."""
    from infomax.figures.training_views import open_training_method, open_views, teacher_logits

    batches = open_views(run, request, request.settings.batch_size)
    method = open_training_method(run, request)
    return lambda number: teacher_logits(method, batches(number)[0])


def _converge(model: str, batch: int, logits: Callable[[], Callable[[int], "Tensor"]], settings: Settings) -> list[Row]:
    """Returns the squared errors of both iterations on the logits of one batch."""
    from infomax.analysis.convergence import mira_convergence, sinkhorn_convergence

    of_batch = logits()(batch)
    steps = {"iterations": settings.iterations, "truth": settings.truth}
    errors = {
        MIRA: mira_convergence(of_batch, temperature=settings.temperature, beta=settings.beta, **steps),
        SINKHORN: sinkhorn_convergence(of_batch, epsilon=settings.epsilon, **steps),
    }
    return [
        {
            "model": model,
            "method": name,
            "batch": batch,
            "images": len(of_batch),
            "iteration": iteration,
            "sse": error,
        }
        for name, of_method in errors.items()
        for iteration, error in enumerate(of_method.tolist(), start=1)
    ]


def count(rows: Sequence[Row]) -> str:
    """Returns the number of batches of each run, and their images, in words."""
    return f"{len({row['batch'] for row in rows})} batches of {rows[0]['images']:,} images a run"


def curves(rows: Sequence[Row]) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yields model, method, iterations, and the 10, 50 and 90 % quantiles over batches of each iteration [3, n]."""
    for (model, method), of_curve in group_rows(rows, "model", "method").items():
        by_iteration = group_rows(of_curve, "iteration")
        errors = np.array([[row["sse"] for row in at] for at in by_iteration.values()])
        quantiles = np.quantile(np.maximum(errors, LEAST), [0.1, 0.5, 0.9], axis=1)
        yield model, method, np.array([iteration for (iteration,) in by_iteration]), quantiles


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws a panel for each run: the median over batches, and the band of 80 % of them."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    panels = dict(zip(models, figure.subplots(1, len(models), squeeze=False, sharey=True)[0], strict=True))
    for model, method, iterations, (low, middle, high) in curves(rows):
        colour = COLOURS[0 if method == MIRA else 1]
        panels[model].plot(iterations, middle, color=colour, label=method)
        panels[model].fill_between(iterations, low, high, color=colour, alpha=0.25, linewidth=0)
    for model, axes in panels.items():
        axes.set(yscale="log", title=f"logits of {model}", xlabel="iteration")
        axes.axvline(30, color="0.6", linewidth=0.8, linestyle=":")
    first = panels[models[0]]
    first.set_ylabel("squared error of the assignments")
    first.legend(frameon=False)


FIGURE = Figure(
    name="mira-convergence",
    title="How fast MIRA's fixed point and Sinkhorn-Knopp converge on the logits of trained runs",
    text=(
        "Both iterations run on the same logits, in float64: those that a training step makes its targets of, for "
        "random batches of the run's images. The error is the sum over images and prototypes of (W_t - W)^2, where W "
        "is what 1,000 iterations give. Median and band of 80 % of the batches; the dotted line is at 30 iterations, "
        "the paper's number. As published, MIRA has temperature 0.225 and beta 2/3, Sinkhorn-Knopp epsilon 0.05, "
        "whatever the run was trained with."
    ),
    sources=("MIRA Figure 2",),
    needs=Needs(
        runs="a run of MIRA, and one of SwAV beside it",
        commands=(
            "infomax pretrain --recipe mira/imagenet_100 --out runs/mira",
            "infomax pretrain --recipe mira/digits --data digits --out runs/mira",
            "infomax pretrain --recipe swav/digits --data digits --out runs/swav",
        ),
    ),
    settings=Settings,
    columns={
        "model": "run whose logits they are",
        "method": "MIRA or Sinkhorn-Knopp",
        "batch": "number of the batch, from 0",
        "images": "images of the batch",
        "iteration": "iterations that were made, from 1",
        "sse": "squared error of the assignments",
    },
    check=check,
    parts=parts,
    count=count,
    draw=draw,
    minutes=0.2,
)
