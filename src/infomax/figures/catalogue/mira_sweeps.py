"""MIRA Tables 14 and 15, as a figure: accuracies along the number of prototypes, or of fixed-point iterations."""

from collections.abc import Sequence
from typing import Any

from infomax.figures.drawing import group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.sweep_points import OURS, Varied, check_varied, count, draw_points, points, value_of
from infomax.runtime.text import note

TABLES = {"method.prototypes": "mira-14", "method.iterations": "mira-15"}
"""The published table of each setting."""
SCORES = {"linear": ("linear", "online-linear"), "knn": ("knn",)}
"""Protocols of each column."""
WORDS = {"prototypes": "prototypes", "iterations": "fixed-point iterations after the first"}


def _key(request: FigureRequest) -> str:
    """Returns the setting that varies: the number of prototypes unless that is one number."""
    prototypes, iterations = TABLES
    return iterations if len({value_of(run, prototypes) for run in request.runs}) < 2 else prototypes


def check(request: FigureRequest) -> None:
    """Raises ValueError if the runs do not differ in either setting."""
    prototypes, iterations = TABLES
    if all(len({value_of(run, key) for run in request.runs}) < 2 for key in TABLES):
        raise ValueError(
            f"mira-sweeps is drawn along {prototypes} or {iterations}, but all runs have one value of each"
        )
    check_varied("mira-sweeps", request, _key(request))


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: all is read from the runs."""
    return [Part("runs", lambda: _rows(request))]


def _rows(request: FigureRequest) -> list[Row]:
    """Returns a row for each run, and for each number of the paper, with both accuracies."""
    key = _key(request)
    limitless = [run for run in request.runs if value_of(run, key) is None]
    for run in limitless:
        note(f"{run.path} is left out: it iterates to the limit, which is no number of iterations")
    runs = tuple(run for run in request.runs if run not in limitless)
    request = FigureRequest(request.options, runs, request.settings)
    merged: dict[tuple[Any, ...], Row] = {}
    for score, protocols in SCORES.items():
        for row in points(request, Varied((key,)), paper=TABLES[key], methods={"MIRA": "mira"}, protocols=protocols):
            place = tuple(row.get(column) for column in ("origin", "curve", "value", "seed"))
            line = merged.setdefault(place, {**row, "setting": key.rpartition(".")[2]})
            line |= {score: row["accuracy"], f"{score}_measured": row["measured"]}
    return list(merged.values())


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws ours above the paper's: they are of other images, so their heights do not compare."""
    by_origin = {origin: of for (origin,), of in group_rows(rows, "origin").items()}
    scores = [score for score in SCORES if any(row.get(score) is not None for row in by_origin[OURS])]
    grid = figure.subplots(len(by_origin), len(scores), squeeze=False)
    for line, of_origin in zip(grid, by_origin.values(), strict=True):
        for axes, score in zip(line, scores, strict=True):
            drawn = [row for row in of_origin if row.get(score) is not None]
            if drawn:
                draw_points(axes, drawn, x=WORDS[rows[0]["setting"]], y=score)
                axes.legend(frameon=False, fontsize=8)
                axes.set_ylabel(f"top-1 accuracy, %\n{drawn[0][f'{score}_measured']}", fontsize=9)


FIGURE = Figure(
    name="mira-sweeps",
    title="MIRA's accuracy along the number of prototypes, or of fixed-point iterations, beside the paper's",
    text=(
        "Each point is a run of a sweep, each line the mean over seeds. The paper's numbers are of ImageNet, so what "
        "compares is how a curve falls or rises, not its height: more than 3,000 prototypes bring it nothing, and one "
        "iteration is as good as 30 after 100 epochs."
    ),
    sources=("MIRA Table 14", "MIRA Table 15"),
    needs=Needs(
        runs="a sweep of MIRA along method.prototypes or method.iterations",
        commands=(
            "infomax sweep mira-14 --seeds 3 --out runs/prototypes",
            "infomax sweep mira-15 --seeds 3 --out runs/iterations",
            "infomax sweep mira/digits --vary method.prototypes=30,100,300 --seeds 3 --evaluate linear --evaluate knn "
            "--out runs/prototypes",
        ),
    ),
    columns={
        "origin": "ours, or paper for numbers that the paper prints",
        "curve": "what the runs of a curve share: the method, and settings in which curves differ",
        "setting": "prototypes or iterations",
        "value": "value of the setting",
        "seed": "seed of the run; empty for the paper's numbers",
        "linear": "linear top-1 accuracy, in per cent",
        "knn": "k-NN top-1 accuracy with all labels, in per cent",
        "linear_measured": "how the linear accuracy was measured",
        "knn_measured": "how the k-NN accuracy was measured",
        "collapse": "verdict of a collapse that stood at the end of the training; empty if none did",
    },
    check=check,
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    size=(8.0, 6.0),
    minutes=0.1,
)
