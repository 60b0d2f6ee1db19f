"""CorInfoMax appendix L, Figures A.4 and A.5: the mutual information of both branches during a training."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from infomax.data.splits import counted
from infomax.figures.drawing import COLOURS, group_rows
from infomax.figures.figure import Figure, FigureRequest, Needs, Part, Row
from infomax.figures.opening import check_methods, labels_of
from infomax.runs.run_folder import Run

ACCURACIES = {"linear_top1": "online linear", "knn_top1": "online k-NN"}


def check(request: FigureRequest) -> None:
    """Raises ValueError if a run is of another method, or did not measure its mutual information."""
    check_methods("ldmi", request.runs, ("corinfomax",))
    for run in request.runs:
        if not any("ldmi" in row for row in run.read_rows("metrics.jsonl")):
            raise ValueError(f"{run.path} has no ldmi in its metrics: its health was not measured")


def parts(request: FigureRequest) -> list[Part]:
    """Returns a part for each run: all is read from its metrics."""
    labels = labels_of(request.runs)
    return [Part(labels[run.path], lambda run=run: _rows(run, labels[run.path])) for run in request.runs]


def _rows(run: Run, name: str) -> list[Row]:
    """Returns a row for each epoch in which the mutual information was measured."""
    dimension: int = getattr(run.recipe.method, "dimension")  # noqa: B009 (the class is known by its name alone)
    metrics = run.read_rows("metrics.jsonl")
    key = next((key for key in ACCURACIES if any(key in row for row in metrics)), "")
    rows = []
    for (epoch,), of_epoch in sorted(group_rows(metrics, "epoch").items()):
        values = [row["ldmi"] for row in of_epoch if "ldmi" in row]
        accuracies = [100 * row[key] for row in of_epoch if key in row]
        if values or accuracies:
            rows.append(
                {
                    "run": name,
                    "epoch": epoch + 1,
                    "ldmi": mean(values) if values else None,
                    "ldmi_official": 4 / dimension * mean(values) if values else None,
                    "measurements": len(values),
                    "accuracy": accuracies[-1] if accuracies else None,
                    "measured": ACCURACIES[key] if accuracies else None,
                }
            )
    return rows


def count(rows: Sequence[Row]) -> str:
    """Returns the number of measurements in words."""
    measurements, runs = sum(row["measurements"] for row in rows), len({row["run"] for row in rows})
    return f"{counted(measurements, 'measurement')} of {counted(runs, 'run')}"


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws the mutual information on the left axis, and the accuracy on the right one."""
    left = figure.subplots()
    right = left.twinx()
    for i, ((run,), of_run) in enumerate(group_rows(rows, "run").items()):
        for axes, column, style in ((left, "ldmi", "-"), (right, "accuracy", "--")):
            known = [(row["epoch"], row[column]) for row in of_run if row[column] is not None]
            if known:
                axes.plot(*zip(*known, strict=True), style, color=COLOURS[i % len(COLOURS)], marker=".")
        left.plot([], [], "-", color=COLOURS[i % len(COLOURS)], label=f"{run}: mutual information")
        left.plot([], [], "--", color=COLOURS[i % len(COLOURS)], label=f"{run}: accuracy")
    left.set(xlabel="epoch", ylabel="log-determinant mutual information, nats")
    right.set_ylabel(f"top-1 accuracy ({next((r['measured'] for r in rows if r['measured']), 'not measured')}), %")
    left.legend(frameon=False, fontsize=8)


FIGURE = Figure(
    name="ldmi",
    title="CorInfoMax's mutual information between its branches, and the accuracy, during a training",
    text=(
        "The mutual information is that of the running covariances R1, R2 and R12, as the run measured it with its "
        "health: the mean over the measurements of an epoch. The authors' plot shows 4/D of it, the column "
        "ldmi_official. In the paper both curves rise together; the first steps are of the covariances' start at I."
    ),
    sources=("CorInfoMax Figure A.4", "CorInfoMax Figure A.5"),
    needs=Needs(
        runs="runs of CorInfoMax",
        commands=(
            "infomax pretrain --recipe corinfomax/cifar10 --out runs/cifar10",
            "infomax pretrain --recipe corinfomax/cifar100 --out runs/cifar100",
            "infomax pretrain --recipe corinfomax/digits --data digits --out runs/corinfomax",
        ),
    ),
    columns={
        "run": "run that was measured",
        "epoch": "epoch, from 1",
        "ldmi": "mean mutual information of the epoch, in nats; empty if it was not measured in it",
        "ldmi_official": "4/D of it, as the authors plot it",
        "measurements": "measurements that the mean is of",
        "accuracy": "last top-1 accuracy that was measured in the epoch, in per cent",
        "measured": "how the accuracy was measured",
    },
    check=check,
    parts=parts,
    reads_only=True,
    count=count,
    draw=draw,
    minutes=0.1,
)
