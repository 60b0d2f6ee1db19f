"""CorInfoMax Table 9, and Table 8's comparison: what the log-determinants cost in a step, beside VICReg's loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from infomax.data.splits import counted
from infomax.figures.drawing import COLOURS, MARKERS, group_rows, value_axis
from infomax.figures.figure import Figure, FigureRequest, Part, Row
from infomax.recipes.registry import get_experiment
from infomax.runtime.checks import check_count

if TYPE_CHECKING:
    import torch

    from infomax.recipes.schema import Recipe

METHODS = ("corinfomax", "vicreg")
VIEWS = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    recipe: str = "corinfomax/small"
    """Recipe whose encoder, views and optimiser all steps have; the paper's are corinfomax/cifar10 for Table 8 and
    corinfomax/imagenet for Table 9."""
    dimensions: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Widths of the projector's output, D."""
    batches: tuple[int, ...] = (256, 512)
    """Images of a step."""
    steps: int = 5
    """Steps that are measured; the paper has 20."""
    warm_up: int = 2
    """Steps before them; the paper's number is not stated."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "batches"):
            for number in getattr(self, name):
                check_count(f"--set {name}", number, low=2)
        check_count("--set steps", self.steps, low=1)
        check_count("--set warm_up", self.warm_up, low=0)


def check(request: FigureRequest) -> None:
    """Raises ValueError if there is no such recipe."""
    recipe_of(request.settings.recipe)


def recipe_of(name: str) -> "Recipe":
    """Returns a recipe by its whole name, as ``mira/small``, for one epoch if it leaves the number open.

    Raises:
        ValueError: if there is none.
    """
    method, slash, bare = name.partition("/")
    if not slash:
        raise ValueError(f"--set recipe={name} must be METHOD/NAME, as corinfomax/small")
    experiment = get_experiment(bare, method)
    return experiment.recipe() if experiment.images_seen is None else experiment.recipe(epochs=1)


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each width, batch and method."""
    settings = request.settings
    return [
        Part(f"D={d}, batch {batch}, {method}", partial(_measure, request, method, d, batch))
        for batch in settings.batches
        for d in settings.dimensions
        for method in METHODS
    ]


def _measure(request: FigureRequest, method: str, dimension: int, batch: int) -> list[Row]:
    """Returns the times of a step, of its loss, and of the log-determinants, of one setting."""
    import torch

    from infomax.planning.step_time import step_maker

    settings, device = request.settings, request.device
    recipe = recipe_of(settings.recipe)
    recipe = replace(recipe, method=_settings(recipe, method, dimension), batch_size=batch, micro_batch_size=None)
    step, seconds_of = step_maker(recipe, device)
    times = _repeat(step, seconds_of, settings)
    loss = _repeat(_loss(recipe, batch, device), seconds_of, settings)
    log_det = _repeat(_log_det(dimension, device), seconds_of, settings) if method == "corinfomax" else None
    return [
        {
            "d": dimension,
            "batch": batch,
            "loss": method,
            "seconds": log_det,
            "loss_seconds": loss,
            "step_seconds": times,
            "share": None if log_det is None else 100 * log_det / times,
            "loss_share": 100 * loss / times,
            "steps": settings.steps,
            "threads": torch.get_num_threads(),
        }
    ]


def _settings(recipe: "Recipe", method: str, dimension: int) -> Any:
    """Returns the settings of a method with the projector of the recipe's widths."""
    from infomax.recipes.vicreg import VicRegSettings

    if method == "vicreg":
        return VicRegSettings(hidden=getattr(recipe.method, "hidden", 2048), dimension=dimension)
    return replace(recipe.method, dimension=dimension)  # pyrefly: ignore[unexpected-keyword]


def _repeat(call: Callable[[], object], seconds_of: Any, settings: Settings) -> float:
    """Returns the median time of a call, in seconds."""
    for _ in range(settings.warm_up):
        call()
    return median(seconds_of(call) for _ in range(settings.steps))


def _loss(recipe: "Recipe", batch: int, device: "torch.device") -> Callable[[], None]:
    """Returns a function that computes the loss of random embeddings, and its gradient."""
    import torch

    from infomax.methods.base import Progress
    from infomax.nn.blocks import l2_normalize
    from infomax.recipes.building import build_method

    method = build_method(recipe, images=batch).to(device)
    dimension = recipe.method.dimension  # pyrefly: ignore[missing-attribute]
    views = [l2_normalize(torch.randn(batch, dimension, device=device)).requires_grad_() for _ in range(VIEWS)]

    def compute() -> None:
        method.loss(views, [], Progress(0, 10, 0)).total.backward()

    return compute


def _log_det(dimension: int, device: "torch.device") -> Callable[[], None]:
    """Returns a function that computes both log-determinants of the loss, and their gradients."""
    import torch

    from infomax.functional import log_det_or_nan

    covariances = torch.eye(dimension, dtype=torch.float64, device=device).repeat(VIEWS, 1, 1) / dimension
    covariances.requires_grad_()

    def compute() -> None:
        log_det_or_nan(covariances, 1e-8).sum().backward()

    return compute


def count(rows: Sequence[Row]) -> str:
    """Returns the number of steps and threads in words."""
    return f"median of {rows[0]['steps']} steps, {counted(rows[0]['threads'], 'thread')}"


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the log-determinants' share beside the paper's, and the time of a step with each loss."""
    left, right = figure.subplots(1, 2)
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    for (batch, loss), of_curve in group_rows(rows, "batch", "loss").items():
        colour, widths = COLOURS[batches.index(batch) % len(COLOURS)], [row["d"] for row in of_curve]
        style = {"color": colour, "marker": MARKERS[METHODS.index(loss)]}
        if loss == "corinfomax":
            left.plot(widths, [row["share"] for row in of_curve], label=f"ours, batch {batch}", **style)
        line = "-" if loss == "corinfomax" else "--"
        right.plot(widths, [row["step_seconds"] for row in of_curve], line, label=f"{loss}, batch {batch}", **style)
    for i, (batch, shares) in enumerate(_published().items()):
        left.plot(*zip(*shares, strict=True), ":", color=f"{0.3 + 0.3 * i}", label=f"paper, batch {batch}, V100")
    for axes in (left, right):
        axes.set_xscale("log")
        value_axis(axes, [row["d"] for row in rows])
        axes.set_xlabel("width of the projector's output, D")
        axes.legend(frameon=False, fontsize=7)
    left.set(ylabel="log-determinants, % of a step", yscale="log")
    right.set(ylabel="seconds a step", ylim=(0, None))


def _published() -> dict[int, list[tuple[int, float]]]:
    """Returns widths and shares of the paper's Table 9 by the batch size."""
    from infomax.papers import published

    by_batch: dict[int, list[tuple[int, float]]] = {}
    for number in published.table("corinfomax-9").numbers():
        conditions = number.conditions
        assert conditions.batch_size is not None
        assert conditions.dimension is not None
        by_batch.setdefault(conditions.batch_size, []).append((conditions.dimension, number.value))
    return by_batch


FIGURE = Figure(
    name="logdet-cost",
    title="The time of CorInfoMax's log-determinants in a training step, beside VICReg's loss",
    text=(
        "Steps are real ones, on random images, with the views, the encoder and the optimiser of one recipe and a "
        "projector of each width; VICReg's projector has BatchNorm, as its own. The log-determinants are timed alone, "
        "both and with their gradients, and so is the whole loss. In the paper they take 5.5 % of a step at most."
    ),
    sources=("CorInfoMax Table 8", "CorInfoMax Table 9"),
    settings=Settings,
    columns={
        "d": "width of the projector's output",
        "batch": "images of a step",
        "loss": "corinfomax or vicreg",
        "seconds": "both log-determinants with their gradients, median, in seconds; empty for VICReg",
        "loss_seconds": "the whole loss with its gradient, median, in seconds",
        "step_seconds": "a whole step, median, in seconds",
        "share": "log-determinants in per cent of a step; empty for VICReg",
        "loss_share": "loss in per cent of a step",
        "steps": "measurements that each median is of",
        "threads": "threads that torch computed with",
    },
    check=check,
    parts=parts,
    count=count,
    draw=draw,
    size=(8.5, 4.0),
    minutes=0.7,
)
