"""What a sweep found: means and deviations over seeds beside what the paper prints, as a table and as a figure."""

import io
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from infomax.published import Column, Number, Table
from infomax.sweep import Member, Sweep
from infomax.table import table

SCORES = {"top1": "top-1", "nmi": "NMI"}
"""What a protocol is summed up by where no table says it: the first of these that it has."""


@dataclass(frozen=True)
class Place:
    """One cell: what a member scored there with each seed, in per cent, and what the paper prints."""

    line: str
    column: str
    scores: tuple[float, ...]
    paper: float | None = None
    deviation: float | None = None
    position: float | None = None
    """The value that the sweep varies, where that is one number."""

    @property
    def ours(self) -> str:
        return _shown(mean(self.scores), stdev(self.scores) if len(self.scores) > 1 else None) if self.scores else ""

    @property
    def theirs(self) -> str:
        return "" if self.paper is None else _shown(self.paper, self.deviation)


def _shown(value: float, deviation: float | None) -> str:
    return f"{value:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")


def places(sweep: Sweep) -> list[Place]:
    """The cells of the sweep's table that its members have, or those of a table with a line for each member."""
    return _of_table(sweep, sweep.table) if sweep.table else _of_members(sweep)


def _of_table(sweep: Sweep, one: Table) -> list[Place]:
    pairs = [(number, m) for m in sweep.members for number in m.experiment.numbers() if number.table is one]
    pairs.sort(key=lambda pair: (one.rows.index(pair[0].row), one.columns.index(pair[0].column)))
    found = []
    for number, member in pairs:
        told = [number.row.method, *(f"{k} {v}" for k, v in vars(number.row.conditions).items() if v is not None)]
        line = ", ".join([*told, *(f"{key.split('.')[-1]}={value}" for key, value in member.values)])
        scores = _scores(sweep, member, number.column)
        found.append(Place(line, number.column.name, scores, number.value, number.deviation, _number(member)))
    if not any(member.values for member in sweep.members):
        return _placed(found, [number for number, _ in pairs])
    return found


def _placed(found: list[Place], numbers: list[Number]) -> list[Place]:
    """With positions, if the table's own numbers differ in one number alone."""
    conditions = [vars(number.conditions) for number in numbers]
    varied = [name for name in conditions[0] if len({str(c[name]) for c in conditions}) > 1]
    if len(varied) != 1 or not all(type(c[varied[0]]) in (int, float) for c in conditions):
        return found
    return [replace(place, position=c[varied[0]]) for place, c in zip(found, conditions, strict=True)]


def _of_members(sweep: Sweep) -> list[Place]:
    found = []
    for member in sweep.members:
        main = member.experiment.main
        for words in sweep.protocols:
            rows = [trial.row(words) for trial in sweep.of(member)]
            metric = next((m for m in SCORES if any(m in row for row in rows)), "top1")
            scores = tuple(100 * row[metric] for row in rows if metric in row)
            paper = main if main and words[0] == "linear" else None
            name = f"{' '.join(words)}, {SCORES[metric]}"
            printed = (paper.value, paper.deviation) if paper else (None, None)
            found.append(Place(member.label, name, scores, *printed, _number(member)))
    return found


def _number(member: Member) -> float | None:
    """The one value that the sweep gives to a member, if it is a number."""
    try:
        return float(member.values[0][1]) if len(member.values) == 1 else None
    except ValueError:
        return None


def _scores(sweep: Sweep, member: Member, column: Column) -> tuple[float, ...]:
    words = next((w for w in sweep.protocols if w[0] == column.protocol and _probe(w) in ("", column.probe)), None)
    if words is None or column.subset:
        return ()
    rows = [trial.row(words) for trial in sweep.of(member)]
    return tuple(100 * row[column.metric] for row in rows if column.metric in row)


def _probe(words: list[str]) -> str:
    return words[words.index("--probe") + 1] if "--probe" in words else ""


def told(sweep: Sweep, changes: list[str]) -> str:
    """The table in text, in per cent; each line of ours below the paper's.

    Args:
        changes: What all runs have that their recipes have not, as words of the command.
    """
    found = places(sweep)
    columns = list(dict.fromkeys(place.column for place in found))
    lines = []
    for line in dict.fromkeys(place.line for place in found):
        cells = {place.column: place for place in found if place.line == line}
        if any(place.paper is not None for place in cells.values()):
            lines.append([f"{line}: paper", *(cells[c].theirs if c in cells else "" for c in columns)])
        seeds = max(len(place.scores) for place in cells.values())
        count = "no run yet" if seeds == 0 else f"{seeds} seed{'s' if seeds > 1 else ''}"
        lines.append([f"{line}: ours, {count}", *(cells[c].ours if c in cells else "" for c in columns)])
    title = f"{sweep.table.paper}, {sweep.table.number}: {sweep.table.title}\n" if sweep.table else ""
    note = f"\nours: with {' '.join(changes)}" if changes else ""
    return f"{title}{table(['in %; mean ± deviation over seeds', *columns], lines)}{note}"


def figure(sweep: Sweep) -> bytes:
    """A PNG: scores along the varied number, or as bars, with the deviation over seeds; the paper's beside them."""
    from matplotlib.figure import Figure

    found = places(sweep)
    columns = list(dict.fromkeys(place.column for place in found))
    along = all(place.position is not None for place in found)
    drawn = Figure(figsize=(7, 4.2) if along else (7, 1.6 + 0.5 * len({p.line for p in found})), layout="constrained")
    axes = drawn.subplots()
    if along:
        _curves(axes, found, columns)
    else:
        _bars(axes, found, columns)
    title = f"{sweep.table.paper}, {sweep.table.number}: {sweep.table.title}" if sweep.table else "Sweep"
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    drawn.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _curves(axes: Any, found: list[Place], columns: list[str]) -> None:
    """One curve for ours and one for the paper's, of each line and column; of a table one point a column."""
    series = dict.fromkeys((place.line, place.column) for place in found)
    if len(series) == len(found):  # each cell has a position of its own: what differs is the position alone
        series = {("", ""): None}
    for i, pair in enumerate(series):
        own = [p for p in found if pair in (("", ""), (p.line, p.column))]
        name = pair[1] if len(columns) > 1 else ""
        for who, look in (("paper", "s--"), ("ours", "o-")):
            points = sorted(_points(own, who))
            if points:
                where, values, errors = zip(*points, strict=True)
                alpha = 1.0 if who == "ours" else 0.5
                axes.errorbar(
                    where, values, errors, fmt=look, color=f"C{i}", alpha=alpha, capsize=3, label=f"{who} {name}"
                )
    positions = [place.position or 0.0 for place in found]
    if min(positions) > 0 and max(positions) / min(positions) >= 8:
        axes.set_xscale("log")
    axes.set_ylabel("%")


def _points(found: list[Place], who: str) -> list[tuple[float, float, float]]:
    """Position, value and deviation of what there is of ours, or of the paper's."""
    if who == "paper":
        return [(p.position or 0.0, p.paper, p.deviation or 0.0) for p in found if p.paper is not None]
    spread = [(p, stdev(p.scores) if len(p.scores) > 1 else 0.0) for p in found if p.scores]
    return [(p.position or 0.0, mean(p.scores), deviation) for p, deviation in spread]


def _bars(axes: Any, found: list[Place], columns: list[str]) -> None:
    """A group of bars for each line."""
    lines = list(dict.fromkeys(place.line for place in found))
    height = 0.8 / (2 * len(columns))
    for i, column in enumerate(columns):
        for j, who in enumerate(("paper", "ours")):
            cells = [replace(p, position=float(lines.index(p.line))) for p in found if p.column == column]
            if points := _points(cells, who):
                where, values, errors = zip(*points, strict=True)
                look = {"color": f"C{i}", "alpha": 1.0 if j else 0.4, "capsize": 2, "label": f"{who} {column}"}
                axes.barh([x + height * (2 * i + j) for x in where], values, height, xerr=errors, **look)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(lines))], lines, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("%")
