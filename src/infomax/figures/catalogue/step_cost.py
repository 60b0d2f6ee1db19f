"""MIRA Table 8, CorInfoMax Table 8 and MVEB Sec. 7.5: measured time and memory of real steps, method by method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from infomax.data.splits import counted
from infomax.figures.catalogue.logdet_cost import recipe_of
from infomax.figures.drawing import COLOURS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Part, Row
from infomax.recipes.customise import customise
from infomax.runtime.checks import check_count
from infomax.runtime.text import note

if TYPE_CHECKING:
    from infomax.recipes.schema import Recipe

GIGABYTE = 1e9


@dataclass(frozen=True)
class Line:
    """A frozen dataclass that says of which recipe a line is measured, and what the paper prints of it."""

    table: str
    label: str
    method: str
    paper: str
    overrides: tuple[str, ...] = ()


NO_TEACHER = ("method.momentum=none",)
LINES = (
    Line("MIRA Table 8", "SwAV", "swav", "71 GB, 23 min an epoch"),
    Line("MIRA Table 8", "MIRA without EMA", "mira", "71 GB, 23 min an epoch", NO_TEACHER),
    Line("MIRA Table 8", "MIRA", "mira", "73 GB, 29 min an epoch"),
    Line("CorInfoMax Table 8", "VICReg", "vicreg", "87.77 s an epoch at D=64"),
    Line("CorInfoMax Table 8", "CorInfoMax", "corinfomax", "87.33 s an epoch at D=64"),
    Line("MVEB Sec. 7.5", "Barlow Twins", "barlow", "80 h for 1,000 epochs"),
    Line("MVEB Sec. 7.5", "MVEB", "mveb", "81 h for 1,000 epochs"),
    Line("MVEB Sec. 7.5", "BYOL", "byol", "89 h for 1,000 epochs"),
)
"""What is measured: the paper's numbers are of a ResNet-50 and 512 images on 8 TITAN V, a ResNet-18 on a T4, and a
ResNet-50 and 4,096 images on 32 V100."""
PROTOTYPES = {"mira", "swav"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass that holds the settings of the figure. All methods have one encoder and heads of one size."""

    recipe: str = "small"
    """Recipe of each method, whose encoder, views and optimiser are taken."""
    batch_size: int = 256
    """Images of a step."""
    hidden: int = 512
    """Width of the heads' hidden layers."""
    dimension: int = 128
    """Width of the projectors' output."""
    prototypes: int = 300
    """Prototypes of MIRA and SwAV."""
    rounds: int = 2
    """Times that all methods are measured in turn, so that other work on the machine does not slow one alone."""
    steps: int = 5
    """Steps that are measured in each round."""
    warm_up: int = 2
    """Steps before them."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "hidden", "dimension", "prototypes"):
            check_count(f"--set {name}", getattr(self, name), low=2)
        check_count("--set rounds", self.rounds, low=1)
        check_count("--set steps", self.steps, low=2)
        check_count("--set warm_up", self.warm_up, low=0)


def check(request: FigureRequest) -> None:
    """Raises ValueError if a method has no such recipe, or it cannot be changed so."""
    for line in LINES:
        recipe_for(line, request.settings)


def recipe_for(line: Line, settings: Settings) -> "Recipe":
    """Returns the recipe of a line, with the heads that all lines have."""
    heads = [f"method.{name}={getattr(settings, name)}" for name in ("hidden", "dimension")]
    if line.method in PROTOTYPES:
        heads.append(f"method.prototypes={settings.prototypes}")
    if line.method == "byol":
        heads.append(f"method.predictor_hidden={settings.hidden}")
    recipe = recipe_of(f"{line.method}/{settings.recipe}")
    momentum = () if line.method != "mveb" else ("method.momentum=0.996",)  # the runs of Sec. 7.5 had a teacher
    recipe = customise(recipe, batch_size=settings.batch_size, overrides=(*heads, *line.overrides, *momentum))
    return replace(recipe, micro_batch_size=None)


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each line in each round."""
    return [
        Part(f"{line.label} ({line.table}), round {number}", partial(_measure, request, line, number))
        for number in range(1, request.settings.rounds + 1)
        for line in LINES
    ]


def _measure(request: FigureRequest, line: Line, number: int) -> list[Row]:
    """Returns what steps of one line took; no row if they do not fit the memory, as a note says."""
    import torch

    from infomax.planning.measured_step import measure_in_process

    settings, recipe = request.settings, recipe_for(line, request.settings)
    try:
        measured = measure_in_process(recipe, request.device, warm_up=settings.warm_up, steps=settings.steps)
    except MemoryError as error:
        note(f"{line.label} is left out: {error}")
        return []
    low, *_, high = quantiles(measured.seconds, n=4, method="inclusive")
    return [
        {
            "table": line.table,
            "method": line.label,
            "recipe": f"{line.method}/{settings.recipe}",
            "batch": settings.batch_size,
            "round": number,
            "seconds": median(measured.seconds),
            "seconds_low": low,
            "seconds_high": high,
            "peak_gb": None if measured.peak_bytes is None else measured.peak_bytes / GIGABYTE,
            "planned_gb": measured.planned_bytes / GIGABYTE,
            "steps": settings.steps,
            "threads": torch.get_num_threads(),
            "paper": line.paper,
        }
    ]


def count(rows: Sequence[Row]) -> str:
    """Returns the number of steps, images and threads in words."""
    first, rounds = rows[0], max(row["round"] for row in rows)
    steps, threads = f"{first['steps']} steps of {first['batch']} images", counted(first["threads"], "thread")
    return f"{counted(rounds, 'round')} of {steps}, {threads}"


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the median time of a step and its memory as bars, a colour a table, with a point for each round."""
    left, right = figure.subplots(1, 2, sharey=True)
    tables = list(dict.fromkeys(row["table"] for row in rows))
    lines = group_rows(rows, "method", "table")
    for place, of_line in enumerate(lines.values()):
        first, colour = of_line[0], COLOURS[tables.index(of_line[0]["table"]) % len(COLOURS)]
        left.barh(place, median(row["seconds"] for row in of_line), color=colour)
        left.plot([row["seconds"] for row in of_line], [place] * len(of_line), "k.")
        left.text(0, place, f"  paper: {first['paper']}", fontsize=6, color="white", va="center")
        if (peaks := [row["peak_gb"] for row in of_line if row["peak_gb"] is not None]) != []:
            right.barh(place, median(peaks), color=colour)
        right.plot(first["planned_gb"], place, "k|", markersize=12)
    left.set_yticks(range(len(lines)), [f"{method}\n({table})" for method, table in lines], fontsize=7)
    left.invert_yaxis()
    left.set_xlabel("seconds a step; a point is a round")
    right.set_xlabel("GB; the line is what infomax plan counts of tensors", fontsize=9)


FIGURE = Figure(
    name="step-cost",
    title="Measured time and memory of a training step of each method in the papers' tables of cost",
    text=(
        "Steps are real ones on random images: views, networks, loss, update. All methods have one encoder, one "
        "batch size and heads of one size, so that what differs is the method; the defaults fit a CPU. Memory is what "
        "the process took more than before the networks were built, on a CPU with the libraries' workspaces, on a GPU "
        "that of tensors. The papers' numbers, in a column as text, are of other encoders on other machines: what "
        "compares is the order of the methods and their ratios. For one GPU: --set recipe=cifar10 --set "
        "batch_size=512 --set hidden=2048 --set dimension=256 --set prototypes=3000."
    ),
    sources=("MIRA Table 8", "CorInfoMax Table 8", "MVEB Sec. 7.5"),
    settings=Settings,
    columns={
        "table": "published table that has the line",
        "method": "method of the line",
        "recipe": "recipe whose encoder, views and optimiser were taken",
        "batch": "images of a step",
        "round": "round of the measurement, from 1",
        "seconds": "time of a step, median of the round",
        "seconds_low": "first quartile of the times",
        "seconds_high": "third quartile",
        "peak_gb": "largest memory during the steps, in GB of 10^9 bytes; empty if the system does not say",
        "planned_gb": "largest memory of tensors, as infomax plan counts it, in GB",
        "steps": "steps that were measured",
        "threads": "threads that torch computed with",
        "paper": "what the paper prints of the line",
    },
    check=check,
    parts=parts,
    count=count,
    draw=draw,
    size=(8.5, 5.0),
    minutes=1.4,
)
