"""What a sweep found: means and deviations over seeds beside what the paper prints, as a table and as a figure."""

import io
from dataclasses import dataclass, replace
from math import nan
from statistics import mean, stdev
from textwrap import wrap
from typing import Any

from infomax.experiments.sweep import Member, Sweep
from infomax.papers import published
from infomax.papers.published import Column, Number
from infomax.reporting.comparison import format_condition, format_published
from infomax.reporting.tables import EMPTY, Cell, Table, make_table

SCORES = {"top1": "top-1", "nmi": "NMI"}
"""What a protocol is summed up by where no table says it: the first of these that it has."""


@dataclass(frozen=True)
class RankInfo:
    """One cell: what a member scored there with each seed, in per cent, and what the paper prints."""

    line: str
    column: str
    scores: tuple[float, ...]
    paper: float | None = None
    deviation: float | None = None
    position: float | None = None
    """The value that the sweep varies, where that is one number."""
    along: str = ""
    """What that is the value of."""
    curve: str = ""
    """What those that differ in nothing but the position have in common."""

    @property
    def ours(self) -> Cell:
        """Our mean over the seeds, with their standard deviation."""
        if not self.scores:
            return EMPTY
        return _shown(mean(self.scores), stdev(self.scores) if len(self.scores) > 1 else None)

    @property
    def theirs(self) -> Cell:
        """The paper's number."""
        return EMPTY if self.paper is None else Cell(format_published(self.paper, self.deviation), self.paper)


def _shown(value: float, deviation: float | None) -> Cell:
    return Cell(f"{value:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else ""), value)


def places(sweep: Sweep) -> list[RankInfo]:
    """The cells of the sweep's table that its members have, or those of a table with a line for each member."""
    return _of_table(sweep, sweep.table) if sweep.table else _of_members(sweep)


def _of_table(sweep: Sweep, one: published.Table) -> list[RankInfo]:
    pairs = [(number, m) for m in sweep.members for number in m.experiment.numbers() if number.table is one]
    pairs.sort(key=lambda pair: (one.rows.index(pair[0].row), one.columns.index(pair[0].column)))
    found = []
    for number, member in pairs:
        row = [
            number.row.method,
            *(format_condition(k, v) for k, v in vars(number.row.conditions).items() if v is not None),
        ]
        scores = _scores(sweep, member, number.column)
        found.append(RankInfo(", ".join(row), number.column.name, scores, number.value, number.deviation))
    return _placed_by_table(found, [number for number, _ in pairs])


def _placed_by_table(found: list[RankInfo], numbers: list[Number]) -> list[RankInfo]:
    """With positions, if the table's own numbers differ in one number alone, beside what is measured."""
    conditions = [vars(number.conditions) for number in numbers]
    varied = [name for name in conditions[0] if len({str(c[name]) for c in conditions}) > 1]
    if len(varied) != 1 or not all(type(c[varied[0]]) in (int, float) for c in conditions):
        return found
    by_row = any(getattr(number.row.conditions, varied[0]) is not None for number in numbers)
    return [
        replace(place, position=c[varied[0]], along=varied[0], curve=place.column if by_row else number.row.method)
        for place, c, number in zip(found, conditions, numbers, strict=True)
    ]


def _of_members(sweep: Sweep) -> list[RankInfo]:
    found = []
    for member in sweep.members:
        main = None if member.values else member.experiment.main  # other values have no number in the paper
        for protocol in sweep.protocols:
            rows = [trial.row(protocol) for trial in sweep.of(member)]
            metric = next((m for m in SCORES if any(m in row for row in rows)), "top1")
            scores = tuple(100 * row[metric] for row in rows if metric in row)
            same = main is not None and protocol == f"linear --probe {main.column.probe}"
            number = (main.value, main.deviation) if main is not None and same else (None, None)
            place = RankInfo(member.label, f"{protocol}, {SCORES[metric]}", scores, *number)
            found.append(_placed(place, member, f"{member.experiment.name}, {place.column}"))
    return found


def _placed(place: RankInfo, member: Member, curve: str) -> RankInfo:
    """With a position, if the sweep gives one value to each member and it is a number."""
    try:
        ((key, value),) = member.values
        return replace(place, position=float(value), along=key, curve=curve)
    except ValueError:
        return place


def _scores(sweep: Sweep, member: Member, column: Column) -> tuple[float, ...]:
    """Of the protocol by which the column was measured, or else of another one of its kind."""
    kind = [name for trial in sweep.of(member) for name in trial.judging if name.split()[0] == column.protocol]
    kind.sort(key=lambda name: f"--probe {column.probe}" not in name)
    if not kind or column.subset:
        return ()
    rows = [trial.row(kind[0]) for trial in sweep.of(member)]
    return tuple(100 * row[column.metric] for row in rows if column.metric in row)


def sweep_table(sweep: Sweep, changes: list[str]) -> Table:
    """Makes the table of a sweep, in per cent, with each line of ours below the paper's.

    Args:
        sweep: The sweep, whose runs may not all be there yet.
        changes: What all runs have that their recipes have not, as words of the command.
    """
    found = places(sweep)
    columns = list(dict.fromkeys(place.column for place in found))
    lines = []
    for line in dict.fromkeys(place.line for place in found):
        cells = {place.column: place for place in found if place.line == line}
        if any(place.paper is not None for place in cells.values()):
            lines.append([f"{line}: paper", *(cells[c].theirs if c in cells else EMPTY for c in columns)])
        seeds = max(len(place.scores) for place in cells.values())
        count = "no run yet" if seeds == 0 else f"{seeds} seed{'s' if seeds > 1 else ''}"
        lines.append([f"{line}: ours, {count}", *(cells[c].ours if c in cells else EMPTY for c in columns)])
    title = f"{sweep.table.paper}, {sweep.table.number}: {sweep.table.title}" if sweep.table else ""
    notes = [f"ours: with {' '.join(changes)}"] if changes else []
    return make_table(["in %; mean ± deviation over seeds", *columns], lines, title=title, notes=notes)


def figure(sweep: Sweep, changes: list[str]) -> bytes:
    """A PNG: scores along the varied number, or as bars, with the deviation over seeds; the paper's beside them.

    Args:
        changes: As for :func:`sweep_table`.
    """
    from matplotlib.figure import Figure

    found = places(sweep)
    along = all(place.position is not None for place in found)
    drawn = Figure(figsize=(8, 4.2) if along else (8, 1.2 + 0.45 * len(found)), layout="constrained")
    axes = drawn.subplots()
    (_curves if along else _bars)(axes, found)
    drawn.suptitle(
        f"{sweep.table.paper}, {sweep.table.number}: {sweep.table.title}" if sweep.table else "", fontsize=10
    )
    if changes:
        drawn.supxlabel("\n".join(wrap(f"ours: with {' '.join(changes)}", 110)), fontsize=8, x=0.01, ha="left")
    drawn.legend(fontsize=8, frameon=False, loc="outside right upper")
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    drawn.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _curves(axes: Any, found: list[RankInfo]) -> None:
    """One curve for ours and one for the paper's."""
    for i, name in enumerate(dict.fromkeys(place.curve for place in found)):
        for who, look in (("paper", "s--"), ("ours", "o-")):
            points = sorted(_points([place for place in found if place.curve == name], who))
            if points:
                where, values, errors = zip(*points, strict=True)
                kind = {"color": f"C{i}", "alpha": 1.0 if who == "ours" else 0.5, "capsize": 3}
                axes.errorbar(where, values, errors, fmt=look, label=f"{who}: {name}", **kind)
    positions = sorted({place.position or 0.0 for place in found})
    if positions[0] > 0 and positions[-1] / positions[0] >= 8:
        axes.set_xscale("log")
    axes.set_xticks(positions, [f"{x:g}" for x in positions])
    axes.minorticks_off()
    axes.set_xlabel(found[0].along)
    axes.set_ylabel("%")


def _bars(axes: Any, found: list[RankInfo]) -> None:
    """Two bars for each cell."""
    for who, offset, color in (("paper", -0.2, "0.75"), ("ours", 0.2, "C0")):
        if points := _points([replace(place, position=float(i)) for i, place in enumerate(found)], who):
            where, values, errors = zip(*points, strict=True)
            look = {"color": color, "label": who, "capsize": 2}
            axes.barh([x + offset for x in where], values, 0.4, xerr=errors, **look)
    axes.set_yticks(range(len(found)), [f"{place.line}, {place.column}" for place in found], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("%")


def _points(found: list[RankInfo], who: str) -> list[tuple[float, float, float]]:
    """Position, value and deviation, NaN where there is none, of what there is of ours, or of the paper's."""
    if who == "paper":
        return [(p.position or 0.0, p.paper, p.deviation or nan) for p in found if p.paper is not None]
    spread = [(p, stdev(p.scores) if len(p.scores) > 1 else nan) for p in found if p.scores]
    return [(p.position or 0.0, mean(p.scores), deviation) for p, deviation in spread]
