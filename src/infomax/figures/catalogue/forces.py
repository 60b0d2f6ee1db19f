"""CorInfoMax Figures 1c and A.6: the forces of its loss on the embeddings, and how they move."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from infomax.data.splits import counted
from infomax.figures.drawing import COLOURS
from infomax.figures.figure import Animation, Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import check_methods
from infomax.runs.run_folder import Run
from infomax.runtime.checks import check_count, check_number

if TYPE_CHECKING:
    from torch import Tensor

EXPANSION, ATTRACTION = "expansion", "attraction"
SECONDS = 6.0
TURN = 60.0
"""Degrees by which the view turns during the animation."""
DRAWN = 1.0
"""Length of the longest arrow of a kind, as a share of the ellipsoid's mean half-axis."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure."""

    images: int = 40
    """Pairs of points of the toy picture; or images of a run's batch that are shown."""
    batch_size: int = 512
    """Images of a run's batch, of which its covariance takes a step."""
    frames: int = 48
    """Steps of the toy picture's points, which an animation shows one by one."""
    rate: float = 0.02
    """Learning rate of these steps."""
    attraction: float = 250 / 64 * 3
    """Weight of the distance of the two branches in the toy picture, alpha; the paper's over 64 outputs, for 3."""

    def __post_init__(self) -> None:
        check_count("--set images", self.images, low=4)
        check_count("--set batch_size", self.batch_size, low=self.images)
        check_count("--set frames", self.frames, low=1)
        check_number("--set rate", self.rate, low=0, open_low=True)
        check_number("--set attraction", self.attraction, low=0)


def check(request: FigureRequest) -> None:
    """Raises ValueError if there is more than one run, or it is of another method."""
    check_methods("forces", request.runs, ("corinfomax",))
    if len(request.runs) > 1:
        raise ValueError(f"forces is of one run or of none, but {len(request.runs)} are given")


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: the toy picture, or a run's batch."""
    if not request.runs:
        return [Part("toy", partial(_toy, request))]
    return [Part(request.runs[0].path.name, partial(_of_run, request.runs[0], request))]


def _toy(request: FigureRequest) -> list[Row]:
    """Returns the points of both branches on the unit sphere in each frame, as gradient descent moves them."""
    import torch

    from infomax.methods.corinfomax import CorInfoMaxLoss
    from infomax.nn.blocks import l2_normalize

    settings, generator = request.settings, torch.Generator().manual_seed(request.options.seed)
    axis = torch.tensor([1.0, 0.6, 0.3])
    images = torch.randn(settings.images, 3, generator=generator, dtype=torch.float64) * 0.25 + axis
    views = [images + 0.12 * torch.randn(settings.images, 3, generator=generator, dtype=torch.float64) for _ in "12"]
    branches = [l2_normalize(view).requires_grad_() for view in views]
    loss, rows = CorInfoMaxLoss(3, attraction=settings.attraction, forgetting=0.01), []
    for frame in range(settings.frames):
        with torch.no_grad():
            before = loss.mu1.clone()
        total = loss(*branches)
        gradients = torch.autograd.grad(total * settings.images, branches)  # of each image's own share
        state = (loss.R1, loss.mu1, before, loss.forgetting, loss.epsilon)
        first, second = (branch.detach() for branch in branches)
        rows += _rows(
            frame, first, second, expansion(first, *state), torch.eye(3, dtype=torch.float64), loss.R1, loss.mu1
        )
        with torch.no_grad():
            for branch, gradient in zip(branches, gradients, strict=True):
                branch.copy_(l2_normalize(branch - settings.rate * gradient))
    return rows


def expansion(
    z: "Tensor", covariance: "Tensor", mean: "Tensor", mean_before: "Tensor", forgetting: float, epsilon: float
) -> "Tensor":
    """Computes the gradient of ``log det(R + epsilon I)`` at each embedding, exactly.

    It is ``2 (1-lambda)/N (R + epsilon I)^-1 [z_n - mu - lambda (1-lambda) (mean z - mu_before)]``: Eq. A.6 lacks the
    factor 2 and the last term, which is the path through the mean (docs/decisions.md, corinfomax-gradient).

    Args:
        z: The embeddings of one branch, [N, D].
        covariance: R after the step, [D, D].
        mean: mu after the step, [D].
        mean_before: mu before it, [D].
        forgetting: lambda.
        epsilon: The number that is added to the diagonal.

    Returns:
        The gradients, [N, D].
    """
    import torch

    path = forgetting * (1 - forgetting) * (z.mean(0) - mean_before)
    inverse = torch.linalg.inv(covariance + epsilon * torch.eye(len(covariance), dtype=covariance.dtype))
    return 2 * (1 - forgetting) / len(z) * (z - mean - path) @ inverse


def _of_run(run: Run, request: FigureRequest) -> list[Row]:
    """Returns a batch of a run in the three axes in which its covariance R1 is largest."""
    import torch

    from infomax.figures.training_views import embed_views, open_training_method, open_views

    method: Any = open_training_method(run, request)
    loss = method.criterion.cpu().train()
    first, second = embed_views(method, open_views(run, request, request.settings.batch_size)(0))[:2]
    before = loss.mu1.clone()
    with torch.enable_grad():  # in which the module takes the step of its covariances
        loss(first.requires_grad_(), second)
    first = first.detach()
    axes = torch.linalg.eigh(loss.R1)[1].flip(1)[:, :3]  # R1's inverse maps each to itself: arrows stay what they are
    state = (loss.R1, loss.mu1, before, loss.forgetting, loss.epsilon)
    force, shown = expansion(first, *state) @ axes, slice(request.settings.images)
    return _rows(0, (first @ axes)[shown], (second @ axes)[shown], force[shown], axes, loss.R1, loss.mu1)


def _rows(
    frame: int, first: "Tensor", second: "Tensor", force: "Tensor", axes: "Tensor", covariance: "Tensor", mean: "Tensor"
) -> list[Row]:
    """Returns a row for each arrow of a frame, and the ellipsoid's half-axes as rows of their own.

    Args:
        frame: Number of the frame.
        first: Embeddings of the first branch in three axes, [N, 3].
        second: Those of the second.
        force: The expansion of the first, [N, 3].
        axes: The three axes, [D, 3].
        covariance: R1, [D, D].
        mean: mu1, [D].
    """
    import torch

    values, directions = torch.linalg.eigh(axes.T @ covariance @ axes)
    centre = axes.T @ mean
    rows = []
    for arrow, ends in ((EXPANSION, force), (ATTRACTION, second - first)):
        for sample, (place, end) in enumerate(zip(first.tolist(), ends.tolist(), strict=True)):
            rows.append(_row(frame, sample, arrow, place, end))
    half_axes = directions * values.clamp_min(0).sqrt()
    return rows + [_row(frame, i, "half-axis", centre.tolist(), half_axes[:, i].tolist()) for i in range(3)]


def _row(frame: int, sample: int, arrow: str, place: list[float], end: list[float]) -> Row:
    named = zip(("x", "y", "z", "dx", "dy", "dz"), (*place, *end), strict=True)
    return {"frame": frame, "sample": sample, "arrow": arrow, **dict(named)}


def count(rows: Sequence[Row]) -> str:
    """Returns the numbers of images and frames in words."""
    samples, frames = ({row[column] for row in rows if row["arrow"] == EXPANSION} for column in ("sample", "frame"))
    return f"{len(samples)} images, {counted(len(frames), 'step')}"


def _arrays(rows: Sequence[Row], frame: int, arrow: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places and the ends of the arrows of one kind in a frame, each [n, 3]."""
    chosen = [row for row in rows if row["frame"] == frame and row["arrow"] == arrow]
    places, ends = (
        np.array([[row[column] for column in columns] for row in chosen])
        for columns in (("x", "y", "z"), ("dx", "dy", "dz"))
    )
    return places, ends


def _draw_frame(axes: Any, rows: Sequence[Row], frame: int) -> None:
    """Draws the points, the ellipsoid through the one that is nearest to the mean level, and the arrows."""
    axes.clear()
    (centre, *_), half_axes = _arrays(rows, frame, "half-axis")
    places, force = _arrays(rows, frame, EXPANSION)
    _, towards = _arrays(rows, frame, ATTRACTION)
    lengths = np.linalg.norm(half_axes, axis=1).clip(1e-9)
    level = np.sqrt((((places - centre) @ (half_axes / lengths[:, None]).T / lengths) ** 2).sum(1))
    shown = int(np.argsort(level)[len(level) // 2])  # the ellipsoid of the level through this point
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    sphere = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], axis=-1)
    surface = centre + level[shown] * sphere @ half_axes
    axes.plot_wireframe(*np.moveaxis(surface, -1, 0), color="0.75", linewidth=0.4)
    axes.scatter(*places.T, color=COLOURS[0], s=14, label="embeddings of the first view")
    axes.scatter(*(places + towards).T, color=COLOURS[1], s=8, label="of the second")
    scale = DRAWN * lengths.mean() / max(np.linalg.norm(force, axis=1).max(), 1e-12)
    axes.quiver(*places.T, *(scale * force).T, color="black", linewidth=0.8, label="expansion (direction)")
    axes.quiver(*places.T, *towards.T, color=COLOURS[3], linewidth=0.8, label="attraction")
    axes.plot(*np.stack([places[shown], centre]).T, color=COLOURS[6], linestyle="--", label="to the mean")
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6)


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the first frame and the last one, or the one that there is."""
    frames = sorted({row["frame"] for row in rows})
    shown = [frames[0], frames[-1]] if len(frames) > 1 else frames
    for i, frame in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), i, projection="3d")
        _draw_frame(axes, rows, frame)
        if len(shown) > 1:
            axes.set_title(f"after {frame} steps", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)


def animate(figure: Any, rows: Sequence[Row]) -> Animation:
    """Shows the steps one by one, while the view turns; of a run, which has one step, the view turns around."""
    axes = figure.add_subplot(projection="3d")
    frames = sorted({row["frame"] for row in rows})
    moves = len(frames) > 1
    count_of_frames = len(frames) if moves else 40
    points = np.array([[row["x"], row["y"], row["z"]] for row in rows])
    low, high = points.min(), points.max()

    def show(number: int) -> None:
        if moves or number == 0:
            _draw_frame(axes, rows, frames[number] if moves else frames[0])
            axes.set(
                xlim=(low, high), ylim=(low, high), zlim=(low, high), title=f"after {number} steps" if moves else ""
            )
        axes.view_init(elev=20, azim=-60 + (TURN if moves else 360) * number / count_of_frames)

    show(0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return Animation(count_of_frames, show, SECONDS)


FIGURE = Figure(
    name="forces",
    title="The two forces of CorInfoMax's loss on the embeddings, and how they move under them",
    text=(
        "Black arrows are the exact gradient of log det(R1 + epsilon I), which points away from the mean and is drawn "
        "to one scale a picture; red ones go to the other view of the image. The ellipsoid is the level set of "
        "(z - mu)' (R1 + epsilon I)^-1 (z - mu) through one embedding. Without a run, pairs of points on the sphere "
        "are moved by gradient descent on the loss in three dimensions, as in the paper's toy picture: the first step "
        "and the last, and all of them with --out FILE.gif. With a run, a batch of its embeddings is shown in the "
        "three axes in which R1 is largest."
    ),
    sources=("CorInfoMax Figure 1", "CorInfoMax Figure A.6"),
    needs=Needs(
        runs="a run of CorInfoMax",
        commands=("infomax pretrain --recipe corinfomax/digits --data digits --out runs/corinfomax",),
        required=False,
    ),
    settings=Settings,
    columns={
        "frame": "steps of gradient descent that were made",
        "sample": "number of the image, from 0; or of the half-axis",
        "arrow": "expansion or attraction, of the first view; or a half-axis of the covariance's ellipsoid",
        "x": "where the arrow begins",
        "y": "where the arrow begins",
        "z": "where the arrow begins",
        "dx": "the arrow",
        "dy": "the arrow",
        "dz": "the arrow",
    },
    check=check,
    parts=parts,
    count=count,
    draw=draw,
    size=(8.5, 4.6),
    animate=animate,
    minutes=0.1,
)
