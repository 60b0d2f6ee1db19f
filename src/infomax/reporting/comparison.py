"""Our results beside those that the papers print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from infomax.evaluation.result_row import Outcome, ResultRow, Score, row_fields
from infomax.evaluation.results import read_results
from infomax.papers import published
from infomax.papers.published import Column, Conditions
from infomax.reporting.results import rows_table
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import Run

BASELINES = ("untrained encoder", "raw pixels")
"""Representations that stand in no published table."""


@dataclass(frozen=True)
class Result:
    """A frozen dataclass that holds a row of results, which encoder it is of, and how that was trained."""

    name: str
    """The encoder's name in a table."""
    row: ResultRow
    conditions: Conditions | None
    """Conditions of the pretraining; None if they are not known."""

    def fits(self, column: Column, varied: Iterable[str] = ()) -> bool:
        """Returns whether a published column measures the same.

        Args:
            column: The column.
            varied: The conditions that tell the column from others of its table; they have to be the same, as far as
                they are known.
        """
        return self.row.fits(column) and not {name for name, _ in self.differences(column)} & {*varied}

    def differences(self, column: Column) -> list[tuple[str, Any]]:
        """Returns the conditions, known of both, in which this result differs from the column, with our values."""
        ours, wanted = vars(self.conditions or Conditions()), vars(column.conditions)
        return [(key, ours[key]) for key in ours if None not in (ours[key], wanted[key]) and ours[key] != wanted[key]]


@dataclass(frozen=True)
class Report:
    """A frozen dataclass that holds our results and the published tables that they stand beside.

    ``str(report)`` is the text that ``infomax report`` prints.
    """

    results: tuple[Table, ...]
    """Our results, one table for each protocol and data set."""
    origins: tuple[str, ...]
    """For each run the recipe that its encoder was trained by."""
    published: tuple[Table, ...]
    """Tables of the papers, with a line for each encoder of ours."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, ours first."""
        return (*self.results, *self.published)

    def __str__(self) -> str:
        origins = ["\n".join(self.origins)] if self.origins else []
        ours, papers = ([table.text() for table in tables] for tables in (self.results, self.published))
        return "\n\n".join([*ours, *origins, *papers])

    def markdown(self) -> str:
        """Returns all tables in Markdown."""
        return "\n\n".join(table.markdown() for table in self.tables)


def report(*results: str | PathLike[str], table: str | None = None) -> Report:
    """Sets results beside the papers' tables that have a column for one of them, as ``infomax report`` does.

    Args:
        results: Run folders, or files of results.
        table: Show this table of a paper alone, as mira-5. Default: all with a column for one of the results.

    Returns:
        The tables; ``print(infomax.report("runs/a"))`` shows them as the command does.

    Raises:
        ValueError: if there are no results, a row of them is damaged, or there is no such table.

    Example:
        >>> import infomax
        >>> report = infomax.report("runs/a", "runs/b")  # doctest: +SKIP
        >>> print(report.tables[0].markdown())  # doctest: +SKIP
    """
    if not results:
        raise ValueError("a run folder or a file of results is wanted; --table list names the published tables")
    tables = [published.table(table)] if table is not None else published.tables()
    read = [result for place in results for result in _read_results(Path(place))]
    if not read:
        raise ValueError(f"{results[0]} has no results yet; infomax evaluate adds them")
    beside = [
        _published_table(paper, read)
        for paper in tables
        if table or any(result.fits(c, varied_conditions(paper, c)) for result in read for c in paper.columns)
    ]
    origins = dict.fromkeys(f"{result.name}: {result.row.recipe}" for result in read if result.row.recipe)
    return Report(tuple(_our_tables(read)), tuple(origins), tuple(beside))


def list_published_tables() -> str:
    """Returns a line for each published table: its id, its paper and what it shows."""
    return "\n".join(f"{table.id:16} {table.paper}, {table.number}: {table.title}" for table in published.tables())


def varied_conditions(table: published.Table, column: Column) -> set[str]:
    """Returns the conditions by which columns of a table differ that else measure the same as this one."""
    names = ("protocol", "data", "metric", "subset")
    alike = [vars(c.conditions) for c in table.columns if all(getattr(c, n) == getattr(column, n) for n in names)]
    return {key for key in alike[0] if len({conditions[key] for conditions in alike}) > 1}


def _read_results(place: Path) -> Iterable[Result]:
    """Returns the results in a run folder or a file; of equal measurements the last.

    Raises:
        ValueError: if there is no such folder or file, or a row is damaged.
    """
    conditions, file = None, place
    if place.is_dir():
        conditions, file = _pretraining_conditions(Run(place)), place / "results.jsonl"
    elif not place.is_file():
        raise ValueError(f"{place} is neither a run folder nor a file of results")
    title = place.name or place.resolve().name
    results: dict[tuple, Result] = {}
    for row in read_results(file):
        trained = row.representation == "trained encoder"
        key = _measurement(row)
        results.pop(key, None)
        results[key] = Result(title if trained else row.representation, row, conditions if trained else None)
    return results.values()


def _pretraining_conditions(run: Run) -> Conditions:
    recipe = run.recipe
    method = vars(recipe.method)
    return Conditions(
        backbone=recipe.encoder.backbone,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        multi_crop=bool(recipe.views.local_crops),
        prototypes=method.get("prototypes"),
        iterations=method.get("iterations"),
    )


def _measurement(row: ResultRow) -> tuple:
    """Returns what the row is a measurement of: rows of equal measurements replace each other."""
    names = [field.name for field in row_fields(type(row)) if not isinstance(field.mark, Score | Outcome)]
    return tuple((name, repr(getattr(row, name))) for name in names)


def _our_tables(results: Sequence[Result]) -> list[Table]:
    """Returns all results, one table for each protocol and data set."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.row.protocol, result.row.data, result.row.subset), []).append(result)
    tables = []
    for (protocol, data, subset), group in groups.items():
        title = f"{protocol}, {data}{f', {subset} of the labels' if subset else ''}: ours, in %"
        names = [result.name for result in group]
        tables.append(rows_table([result.row for result in group], names, hidden={"data"}, title=title))
    return tables


def _published_table(paper: published.Table, results: Sequence[Result]) -> Table:
    """Returns a published table, and a line for each encoder with a result that it has a column for."""
    lines: list[list[Cell | str]] = []
    notes = []
    for row in paper.rows:
        mark = ""
        if row.uncertain:
            notes.append(f"[{len(notes) + 1}] {row.uncertain}")
            mark = f" [{len(notes)}]"
        conditions = [format_condition(key, value) for key, value in vars(row.conditions).items() if value is not None]
        numbers = zip(row.values, row.deviations, strict=True)
        cells = [Cell(format_published(value, deviation), value) for value, deviation in numbers]
        lines.append([", ".join([row.method, *conditions]) + mark, *cells])
    for name in dict.fromkeys(result.name for result in results if result.name not in BASELINES):
        if line := _our_line(paper, name, [result for result in reversed(results) if result.name == name]):
            lines.append(line)
    title = f"{paper.paper}, {paper.number}: {paper.title}\n{paper.setting}"
    return make_table(["", *(column.name for column in paper.columns)], lines, title=title, notes=notes)


def _our_line(paper: published.Table, name: str, results: list[Result]) -> list[Cell | str]:
    """Returns the line of one encoder in a published table; an empty one if no result fits a column.

    Args:
        paper: The published table.
        name: The encoder's name.
        results: Its results, the newest first.
    """
    prefix = paper.paper.lower()
    ordered = sorted(
        results,
        key=lambda result: (result.row.variant.startswith(prefix), result.row.variant != "logistic regression"),
        reverse=True,
    )
    fitting = [
        (column, next((result for result in ordered if result.fits(column, varied_conditions(paper, column))), None))
        for column in paper.columns
    ]
    pairs = [(column, result) for column, result in fitting if result is not None]
    if not pairs:
        return []
    remarks = [format_condition(key, value) for column, result in pairs for key, value in result.differences(column)]
    variants = [result.row.variant for _, result in pairs]
    remarks += [variant for variant in variants if variant and not variant.startswith(prefix)]
    cells = [EMPTY if r is None else Cell.per_cent(getattr(r.row, column.metric)) for column, r in fitting]
    return [", ".join([f"ours: {name}", *dict.fromkeys(remarks)]), *cells]


def format_condition(name: str, value: Any) -> str:
    """Returns a condition of a published number in words, as ``100 epochs``.

    Args:
        name: A field of :class:`infomax.papers.published.Conditions`.
        value: Its value, not None.
    """
    words = name.replace("multi_crop", "multi-crop").replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if name in ("epochs", "runs", "prototypes", "iterations"):
        return f"{value} {words}"
    return str(value) if name in ("backbone", "crops", "hardware") else f"{words} {value}"


def format_published(value: float | None, deviation: float | None) -> str:
    """Returns a published number as the paper prints it, ``-`` if there is none."""
    if value is None:
        return "-"
    return f"{value:g}" + (f" ± {deviation:g}" if deviation is not None else "")
