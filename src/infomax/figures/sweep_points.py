"""Reads the scores of many runs along one setting, as those of a sweep. No torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infomax.data.splits import counted
from infomax.evaluation.result_row import ResultRow
from infomax.evaluation.results import read_results
from infomax.figures.drawing import COLOURS, MARKERS, group_rows, value_axis
from infomax.figures.figure import FigureRequest, Row
from infomax.papers import published
from infomax.recipes.schema import flat_settings
from infomax.runs.run_folder import Run
from infomax.runs.training_verdicts import standing_verdicts
from infomax.runtime.text import note

PROTOCOLS = ("linear", "online-linear", "knn")
"""Protocols whose accuracy is shown, the first that all runs have results of."""
OURS, PAPER = "ours", "paper"
COLLAPSES = ("total collapse", "dimensional collapse", "cluster collapse", "uniform assignment", "divergence")
"""Verdicts that a point is marked for."""
POINT_COLUMNS = {
    "origin": "ours, or paper for a number that the paper prints",
    "curve": "what the runs of a curve share: the method, and settings in which curves differ",
    "value": "value of the setting",
    "seed": "seed of the run; empty for the paper's number",
    "accuracy": "top-1 accuracy, in per cent",
    "measured": "how the accuracy was measured: the protocol, and its main options",
    "cosine": "mean cosine of the embeddings of two images, when the training last measured it",
    "collapse": "verdict of a collapse that stood at the end of the training; empty if none did",
}
"""Columns of a figure along one setting."""


@dataclass(frozen=True)
class Varied:
    """A frozen dataclass that says which setting varies, and what is left out of the curves' names."""

    keys: tuple[str, ...]
    """The settings, as ``method.prototypes``; the first is the x axis."""
    follows: tuple[str, ...] = ()
    """Settings that change with it, as the learning rate with the batch size, and make no curve of their own."""


def value_of(run: Run, key: str) -> Any:
    """Returns the value of a setting of a run; None if its method has no such setting."""
    return _settings(run).get(key)


def check_varied(figure: str, request: FigureRequest, key: str) -> None:
    """Checks that the runs have a setting, with two values of it or more.

    Raises:
        ValueError: if a run has none, or all have one value.
    """
    for run in request.runs:
        if key not in _settings(run):
            raise ValueError(f"{run.path} has no setting {key}, along which {figure} is drawn")
    values = {value_of(run, key) for run in request.runs}
    if len(values) < 2:
        raise ValueError(f"{figure} is drawn along {key}, but all runs have {key}={min(values, key=str)}")


def _settings(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {"method": recipe.method.name, **flat_settings(recipe)}


def curve_names(runs: Sequence[Run], varied: Varied) -> dict[Run, str]:
    """Returns the name of each run's curve: its method, and the settings but the varied one in which curves differ."""
    settings = {run: _settings(run) for run in runs}
    left_out = {"seed", "name", *varied.keys, *varied.follows}
    names = {}
    for run in runs:
        same_method = [settings[other] for other in runs if settings[other]["method"] == settings[run]["method"]]
        differing = [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in settings[run].items()
            if key not in left_out and len({str(other.get(key)) for other in same_method}) > 1
        ]
        names[run] = ", ".join([str(settings[run]["method"]), *differing])
    return names


def scores(runs: Sequence[Run], protocols: Sequence[str] = PROTOCOLS) -> dict[Run, ResultRow]:
    """Returns the result of each run by the first protocol, and the same evaluation, that the most runs have.

    A line names runs that are left out, because they have no such result.
    """
    by_run = {run: _results(run) for run in runs}
    counts: dict[tuple[str, str | None], int] = {}
    for rows in by_run.values():
        for key in {(row.protocol, row.evaluation) for row in rows}:
            counts[key] = counts.get(key, 0) + 1
    known = [key for key in counts if key[0] in protocols]
    if not known:
        return {}
    best = max(known, key=lambda key: (counts[key], -protocols.index(key[0])))
    chosen: dict[Run, ResultRow] = {}
    for run, rows in by_run.items():
        if matching := [row for row in rows if (row.protocol, row.evaluation) == best]:
            chosen[run] = matching[-1]
        else:
            note(f"{run.path} is left out: it has no result of evaluate {best[0]} as the others have")
    return chosen


def _results(run: Run) -> list[ResultRow]:
    """Returns the results of the trained encoder of a run, the newest last."""
    file = run.path / "results.jsonl"
    rows = read_results(file, protocols=PROTOCOLS) if file.is_file() else []
    own = [row for row in rows if row.representation == "trained encoder" and row.epoch is None]
    return [row for row in own if row.trained_steps in (None, run.trained_steps) and row.metric == "top1"]


def describe(row: ResultRow) -> str:
    """Returns words for how a result was measured."""
    return f"{row.protocol} on {row.data}" + (f", {row.variant}" if row.variant else "")


def last_cosine(run: Run) -> float | None:
    """Returns the mean cosine of the embeddings when the training last measured it; None if it did not."""
    rows = run.read_rows("metrics.jsonl")
    values = [row["embedding_mean_cosine"] for row in rows if "embedding_mean_cosine" in row]
    return values[-1] if values else None


def collapse_of(run: Run) -> str | None:
    """Returns the name of the collapse that stood at the end of a run; None if there was none."""
    names = [verdict.name for verdict in standing_verdicts(run) or () if verdict.name in COLLAPSES]
    if not names and run.collapsed:
        return "total collapse"
    return names[0] if names else None


def points(
    request: FigureRequest,
    varied: Varied,
    *,
    paper: str = "",
    methods: Mapping[str, str] | None = None,
    protocols: Sequence[str] = PROTOCOLS,
) -> list[Row]:
    """Returns a row for each run with a result, and for each number that the paper prints.

    Args:
        request: The runs.
        varied: The setting.
        paper: Id of the published table, as ``mveb-6``; empty if there is none.
        methods: Our names of the table's methods.
        protocols: Protocols whose accuracy is taken: of the first that the most runs have results of.
    """
    names, found = curve_names(request.runs, varied), scores(request.runs, protocols)
    rows = [
        {
            "origin": OURS,
            "curve": names[run],
            "value": value_of(run, varied.keys[0]),
            "seed": run.recipe.seed,
            "accuracy": 100 * getattr(row, row.metric),
            "measured": describe(row),
            "cosine": last_cosine(run),
            "collapse": collapse_of(run),
        }
        for run, row in found.items()
    ]
    rows.sort(key=lambda row: (row["curve"], row["value"], row["seed"]))
    return [*rows, *(_published(paper, varied.keys[0], methods or {}, protocols) if paper and rows else [])]


def _published(table: str, key: str, methods: Mapping[str, str], protocols: Sequence[str]) -> list[Row]:
    """Returns the numbers of a published table along a setting, as far as they are of all labels."""
    condition = key.rpartition(".")[2]
    numbers = [number for number in published.table(table).numbers() if number.row.method in methods]
    several = len({number.conditions.epochs for number in numbers if number.row.method in numbers[0].row.method}) > 1
    rows = []
    for number in numbers:
        value, column = getattr(number.conditions, condition), number.column
        if value is None or column.protocol not in protocols or column.metric != "top1" or column.subset:
            continue
        name = methods[number.row.method] + (f", {number.conditions.epochs} epochs" if several else "")
        measured = f"{column.protocol} on {column.data}"
        rows.append({"origin": PAPER, "curve": name, "value": value, "accuracy": number.value, "measured": measured})
    return rows


def count(rows: Sequence[Row]) -> str:
    """Returns the number of runs in words."""
    runs = [row for row in rows if row["origin"] == OURS]
    seeds = {row["seed"] for row in runs}
    return f"{counted(len(runs), 'run')}, {counted(len(seeds), 'seed')}"


def draw_points(axes: Any, rows: Sequence[Row], *, x: str, y: str = "accuracy") -> None:
    """Draws a line of means over seeds for each curve, its runs as points, and a cross over those that collapsed."""
    drawn = [row for row in rows if row.get(y) is not None]
    curves = list(dict.fromkeys(row["curve"] for row in drawn))
    for (origin, curve), of_curve in group_rows(drawn, "origin", "curve").items():
        colour = COLOURS[curves.index(curve) % len(COLOURS)]
        means = sorted(
            (value, sum(r[y] for r in of) / len(of)) for (value,), of in group_rows(of_curve, "value").items()
        )
        style = {"linestyle": "--", "alpha": 0.55} if origin == PAPER else {}
        axes.plot(*zip(*means, strict=True), color=colour, label=f"{origin}: {curve}", **style)
        marker = "s" if origin == PAPER else MARKERS[curves.index(curve) % len(MARKERS)]
        axes.scatter([r["value"] for r in of_curve], [r[y] for r in of_curve], color=colour, marker=marker, s=18)
    if lost := [row for row in drawn if row.get("collapse")]:
        axes.scatter(
            [r["value"] for r in lost],
            [r[y] for r in lost],
            marker="x",
            s=70,
            color="black",
            label="collapsed",
            zorder=3,
        )
    value_axis(axes, [row["value"] for row in drawn])
    axes.set_xlabel(x)
    if y == "accuracy" and drawn:
        axes.set_ylabel(f"top-1 accuracy, %\n{drawn[0]['measured']}", fontsize=9)
