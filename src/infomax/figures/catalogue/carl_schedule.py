"""CARL Figure 2: what the schedule of the uniformity loss's weight does to the accuracy."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from infomax.data.splits import counted
from infomax.figures.drawing import COLOURS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import check_methods
from infomax.figures.sweep_points import collapse_of, describe, scores, value_of
from infomax.runs.run_folder import Run

ONLINE = {"linear_top1": "online linear", "knn_top1": "online k-NN"}
"""Accuracies that a run measures on the way, the first that there is."""


def check(request: FigureRequest) -> None:
    """Raises ValueError if a run is of another method, or all have one schedule."""
    check_methods("carl-schedule", request.runs, ("carl",))
    if len(names := {schedule_of(run) for run in request.runs}) < 2:
        raise ValueError(f"carl-schedule compares schedules of the KL weight, but all runs have {names.pop()}")


def schedule_of(run: Run) -> str:
    """Returns words for the schedule of a run, as ``2 to 1 in 100 epochs, linear``."""
    start, end, epochs = (value_of(run, f"method.kl_{name}") for name in ("start", "end", "epochs"))
    if start == end:
        return f"{start:g}"
    return f"{start:g} to {end:g} in {epochs} epochs, {value_of(run, 'method.kl_decay') or 'linear'}"


def parts(request: FigureRequest) -> list[Part]:
    """Returns the one part: all is read from the runs."""
    return [Part("runs", lambda: _rows(request))]


def _rows(request: FigureRequest) -> list[Row]:
    """Returns a row for each accuracy on the way, and for that of each evaluated run."""
    results, rows = scores(request.runs), []
    for run in sorted(request.runs, key=lambda run: (schedule_of(run), run.recipe.seed)):
        common = {"schedule": schedule_of(run), "seed": run.recipe.seed, "collapse": collapse_of(run)}
        metrics = run.read_rows("metrics.jsonl")
        key = next((key for key in ONLINE if any(key in row for row in metrics)), None)
        rows += [
            {**common, "epoch": row["epoch"] + 1, "accuracy": 100 * row[key], "measured": ONLINE[key]}
            for row in metrics
            if key in row and key is not None
        ]
        if (result := results.get(run)) is not None:
            rows.append({**common, "accuracy": 100 * result.score, "measured": describe(result)})
    return rows


def count(rows: Sequence[Row]) -> str:
    """Returns the numbers of runs and seeds in words."""
    runs, seeds = {(row["schedule"], row["seed"]) for row in rows}, {row["seed"] for row in rows}
    return f"{counted(len(runs), 'run')}, {counted(len(seeds), 'seed')}"


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the accuracy during the training, means over seeds, and at its end, a point for each run."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(schedules)}
    on_the_way = [row for row in rows if row.get("epoch") is not None]
    for (schedule,), of_schedule in group_rows(on_the_way, "schedule").items():
        course = sorted((epoch, mean(r["accuracy"] for r in of)) for (epoch,), of in _by_epoch(of_schedule))
        left.plot(*zip(*course, strict=True), color=colours[schedule], label=f"lambda {schedule}")
    measured = on_the_way[0]["measured"] if on_the_way else "nothing on the way"
    left.set(xlabel="epoch", ylabel="top-1 accuracy, %", title=measured)
    left.legend(frameon=False, fontsize=8)
    last = [row for row in rows if row.get("epoch") is None]
    for row in last:
        marker = "x" if row["collapse"] else "o"
        right.scatter(schedules.index(row["schedule"]), row["accuracy"], color=colours[row["schedule"]], marker=marker)
    right.set_xticks(range(len(schedules)), [name.replace(" in ", "\nin ") for name in schedules], fontsize=7)
    right.set(title=f"at the end:\n{last[0]['measured']}" if last else "not evaluated", ylabel="top-1 accuracy, %")
    right.margins(x=0.3)
    for axes in (left, right):
        axes.title.set_fontsize(8)


def _by_epoch(rows: Sequence[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    return list(group_rows(rows, "epoch").items())


FIGURE = Figure(
    name="carl-schedule",
    title="CARL's accuracy with constant and falling weights of the uniformity loss",
    text=(
        "Left, the accuracy that each run measured on the way, the mean over seeds; right, that of infomax evaluate at "
        "the end, a point for each run, a cross if the verdict of a collapse stood. The paper compares 2, 1, and 2 to "
        "1 in 100 epochs on STL-10: falling is best, and a small constant weight collapses."
    ),
    sources=("CARL Figure 2",),
    needs=Needs(
        runs="sweeps of CARL with different method.kl_start, kl_end or kl_decay",
        commands=(
            "infomax sweep carl/stl10 --vary method.kl_start=1,2 --vary method.kl_end=1,2 --seeds 3 "
            "--out runs/schedule",
            "infomax sweep carl/digits --vary method.kl_start=1,4 --vary method.kl_end=1,4 --seeds 3 --evaluate linear "
            "--out runs/schedule",
        ),
    ),
    columns={
        "schedule": "weight of the uniformity loss: constant, or from and to, in how many epochs, and along what",
        "seed": "seed of the run",
        "epoch": "epochs that were done; empty for the accuracy at the end",
        "accuracy": "top-1 accuracy, in per cent",
        "measured": "how the accuracy was measured",
        "collapse": "verdict of a collapse that stood at the end of the training; empty if none did",
    },
    check=check,
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    size=(8.0, 3.8),
    minutes=0.1,
)
