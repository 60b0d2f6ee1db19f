"""Results of a sweep: means and deviations over seeds beside what the paper prints, as a table and as a figure."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from pathlib import Path
from statistics import mean, stdev
from textwrap import wrap
from typing import Any

from infomax.evaluation.intervals import SEEDED, compare_repeated
from infomax.evaluation.result_row import ResultRow, Score, row_fields
from infomax.evaluation.results import with_hits
from infomax.experiments.evaluations import Evaluation, why_not_measured
from infomax.experiments.sweep import Sweep, SweepRun, Variant
from infomax.experiments.sweep_differences import ANY_SEED, LineDifference, Measured, compare_lines, differences_table
from infomax.papers import published
from infomax.papers.published import Column, Row
from infomax.reporting.comparison import format_condition, format_published
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import Run
from infomax.runtime.figure_style import default_style
from infomax.runtime.files import MOST_KEPT, state_of
from infomax.runtime.options import option_names

INITIAL = "initial encoder"
"""Name of the line with the scores of the encoder that the runs of a sweep started from."""
BASELINES = ("untrained encoder", "raw pixels")
"""Names of the lines with what every encoder must beat, which are measured with the first run of each network."""


@dataclass(frozen=True)
class SweepCell:
    """A frozen dataclass that holds one cell of a sweep's table: our scores with each seed, and the paper's number."""

    line: str
    """Name of the line: a row of the published table, or a variant."""
    column: str
    """Name of the column: that of the published table, or an evaluation and its score."""
    scores: tuple[float, ...]
    """Scores of the runs that are done, in per cent; of one run that is evaluated with several seeds, those of each."""
    evaluations: int = 1
    """Number of evaluations that each score is the mean of."""
    paper: float | None = None
    """The paper's number, in per cent; None if it prints none."""
    deviation: float | None = None
    """The paper's standard deviation, in per cent; None if it prints none."""
    position: float | None = None
    """The value that the sweep varies, if it varies one number."""
    varied: str = ""
    """Name of the setting or condition that is varied."""
    curve: str = ""
    """Label of the curve that this point belongs to."""
    measured: Measured | None = None
    """The results that the scores are of, by which lines are compared; None of an average over data sets."""

    @property
    def ours(self) -> Cell:
        """Returns our mean over the seeds, with their standard deviation."""
        if not self.scores:
            return EMPTY
        average = mean(self.scores)
        spread = f" ± {stdev(self.scores):.2f}" if len(self.scores) > 1 else ""
        return Cell(f"{average:.2f}{spread}", average)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of our mean, in per cent: Student's over seeds, or that over the test images."""
        if len(self.scores) > 1:
            over_seeds = compare_repeated(self.scores, [0.0] * len(self.scores), SEEDED)
            return over_seeds.low, over_seeds.high
        if self.measured is None:
            return None
        rows = [row for _, of_seed in self.measured.by_seed for row in of_seed]
        if len(rows) != 1 or rows[0].interval is None or rows[0].metric != self.measured.metric:
            return None
        low, high = rows[0].interval
        return 100 * low, 100 * high

    @property
    def theirs(self) -> Cell:
        """Returns the paper's number."""
        return EMPTY if self.paper is None else Cell(format_published(self.paper, self.deviation), self.paper)


@dataclass(frozen=True)
class SweepResult:
    """A frozen dataclass that holds what a sweep measured so far."""

    runs: tuple[SweepRun, ...]
    """All runs; ``run.result(evaluation)`` is a row of results, None if there is none yet."""
    evaluations: tuple[Evaluation, ...]
    """All evaluations that any run has."""
    cells: tuple[SweepCell, ...]
    """The cells of the table, line by line."""
    title: str
    """Title of the published table; empty if the sweep is of recipes."""
    changes: tuple[str, ...]
    """Changes that all runs make to their recipes, as words of the command."""
    failures: tuple[str, ...]
    """A line for each run that failed."""
    commands: tuple[str, ...]
    """A line of the shell for each run that is not done."""
    baselines: tuple[SweepCell, ...] = ()
    """Cells of what every encoder must beat: the lines below the others."""

    @property
    def has_scores(self) -> bool:
        """Returns whether any run has been evaluated."""
        return any(cell.scores for cell in self.cells)

    def table(self) -> Table:
        """Makes the table, in per cent, with each line of ours below the paper's."""
        columns = list(dict.fromkeys(cell.column for cell in self.cells))
        lines = []
        for line in dict.fromkeys(cell.line for cell in self.all_cells):
            cells = {cell.column: cell for cell in self.all_cells if cell.line == line}
            if any(cell.paper is not None for cell in cells.values()):
                lines.append([f"{line}: paper", *(cells[c].theirs if c in cells else EMPTY for c in columns)])
            count = self._count_seeds([len(cell.scores) for cell in cells.values() if cell.scores])
            words = line if line in self._references else f"{line}: ours, {count}"
            lines.append([words, *(cells[c].ours if c in cells else EMPTY for c in columns)])
        notes = [f"ours: with {' '.join(self.changes)}"] if self.changes else []
        return make_table(["in %; mean ± deviation over seeds", *columns], lines, title=self.title, notes=notes)

    def differences(self) -> Table | None:
        """Makes the table of how much better each line is than the first one that has results, by paired differences.

        The initial encoder, if it was evaluated, is the first line.

        Returns:
            The table; None if there is one line, or nothing was measured twice on the same images.
        """
        lines = list(dict.fromkeys(cell.line for cell in self.cells if cell.scores))
        return differences_table(self._compare_with(lines[0])) if len(lines) > 1 else None

    def difference_tables(self) -> list[Table]:
        """Makes tables of paired differences over each line that others are compared with: the first, and baselines."""
        over_first = self.differences()
        over_baselines = [differences_table(self._compare_with(line)) for line in self._baseline_lines]
        return [table for table in (over_first, *over_baselines) if table is not None]

    def compared(self) -> list[LineDifference]:
        """Returns all paired differences, of which :meth:`difference_tables` makes tables."""
        lines = list(dict.fromkeys(cell.line for cell in self.cells if cell.scores))
        references = (*(lines[:1] if len(lines) > 1 else []), *self._baseline_lines)
        return [difference for reference in references for difference in self._compare_with(reference)]

    def _compare_with(self, reference: str) -> list[LineDifference]:
        """Returns how much better each line is than one of them; baselines are compared with no other line."""
        cells = [*self.cells, *(cell for cell in self.baselines if cell.line == reference)]
        measured = {(cell.line, cell.column): cell.measured for cell in cells if cell.scores}
        return compare_lines({place: x for place, x in measured.items() if x is not None}, reference)

    @property
    def all_cells(self) -> tuple[SweepCell, ...]:
        """The cells of all lines: the runs', and then those of what they must beat."""
        return *self.cells, *self.baselines

    @property
    def _baseline_lines(self) -> list[str]:
        return list(dict.fromkeys(cell.line for cell in self.baselines))

    @property
    def _references(self) -> tuple[str, ...]:
        """The lines that are of no run."""
        return INITIAL, *self._baseline_lines

    def _count_seeds(self, counts: Sequence[int]) -> str:
        """Returns words for the numbers of seeds of a line's cells; cells that have none are left out."""
        if not counts:
            return "no run yet"
        least, most = min(counts), max(counts)
        words = f"{most} seed{'s' if most > 1 else ''}" if least == most else f"{least} to {most} seeds"
        return words + self._of_what(most)

    def _of_what(self, seeds: int) -> str:
        """Returns words for what the seeds are of, if runs are evaluated with several."""
        evaluations = max((cell.evaluations for cell in self.cells), default=1)
        if evaluations > 1:
            return f" of {evaluations} evaluations"
        return " of the evaluation" if len({run.seed for run in self.runs}) == 1 and seeds > 1 else ""

    def figure(self) -> bytes:
        """Draws a PNG: scores along the varied number, or as bars, with the deviation over seeds, beside the
        paper's."""
        return draw_figure(self.cells, title=self.title, changes=self.changes, baselines=self.baselines)


def collect_results(sweep: Sweep, failures: Sequence[str] = ()) -> SweepResult:
    """Reads the results of all runs of a sweep, which may not all be there yet.

    Args:
        sweep: The sweep.
        failures: A line for each run that failed.
    """
    table, cells = sweep.table, tuple(sweep_cells(sweep))
    return SweepResult(
        runs=sweep.runs,
        evaluations=sweep.evaluations,
        cells=cells,
        title=f"{table.paper}, {table.number}: {table.title}" if table else "",
        changes=sweep.changes,
        failures=tuple(failures),
        commands=tuple(sweep.commands()),
        baselines=tuple(baseline_cells(sweep)),
    )


def training_seconds(folder: Path) -> float:
    """Returns how long a run was trained, without what it took to start it."""
    file = folder / "metrics.jsonl"
    return _training_seconds(folder, state_of(file)) if file.exists() else 0.0


@lru_cache(maxsize=MOST_KEPT)
def _training_seconds(folder: Path, state: tuple[int, int, int]) -> float:
    """Returns the seconds of :func:`training_seconds`, read once for each state of the file."""
    rows = [row for row in Run(folder).read_rows("metrics.jsonl") if "seconds" in row]
    return round(rows[-1]["seconds"], 1) if rows else 0.0


def sweep_cells(sweep: Sweep) -> list[SweepCell]:
    """Returns the cells of the published table that the variants have, or of a table with a line for each variant."""
    return _cells_of_table(sweep, sweep.table) if sweep.table else _cells_of_variants(sweep)


def _cells_of_table(sweep: Sweep, table: published.Table) -> list[SweepCell]:
    """Returns a cell for each number of the table that a variant is to give, also if nobody can read the paper's."""
    places = [(*position, v) for v in sweep.variants for position in v.experiment.positions(table.id)]
    kept = {(v.label, e.epoch) for v in sweep.variants for run in sweep.runs_of(v) for e in run.evaluations}
    on_the_way = [(*p, v) for v in sweep.variants for p in v.experiment.positions_on_the_way(table.id)]
    places += [(row, column, v) for row, column, v in on_the_way if (v.label, column.kept_epoch) in kept]
    places = [place for place in places if not why_not_measured(place[1])]
    places.sort(key=lambda place: (table.rows.index(place[0]), table.columns.index(place[1])))
    cells = []
    for row, column, variant in places:
        line = [row.method, *(format_condition(k, v) for k, v in vars(row.conditions).items() if v is not None)]
        by_run = [_run_scores(run, column, table) for run in sweep.runs_of(variant)]
        position = table.columns.index(column)
        cells.append(
            SweepCell(
                ", ".join(line),
                column.name,
                *_means(by_run),
                paper=row.values[position],
                deviation=row.deviations[position],
                measured=_measured(sweep.runs_of(variant), column),
            )
        )
    return _with_varied_condition(cells, [(row, column) for row, column, _ in places])


def _means(by_run: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], int]:
    """Returns the scores that a mean and a deviation are taken of, and of how many evaluations each is the mean.

    With several runs, they are each run's mean over the seeds of its evaluation; with one run, its scores with each.

    Args:
        by_run: For each run its scores, one for each seed of the evaluation.
    """
    done = [scores for scores in by_run if scores]
    if len(by_run) == 1:
        return tuple(done[0] if done else ()), 1
    return tuple(mean(scores) for scores in done), max(map(len, done), default=1)


def _run_scores(run: SweepRun, column: Column, table: published.Table) -> list[float]:
    """Returns the scores of a run in a column of a table, one for each seed of the evaluation, in per cent.

    Where the column is the average of the others of its protocol, there is one if all of those are there.
    """
    if column.data != "average":
        evaluations = _evaluations_of(run, column)
        return [score for evaluation in evaluations for score in _score(run, evaluation, column.metric)]
    parts = [c for c in table.columns if c.protocol == column.protocol and c.data != "average"]
    scores = [_run_scores(run, part, table) for part in parts]
    return [mean(of_one_seed) for of_one_seed in zip(*scores, strict=False)]  # of the seeds that all have


def _evaluations_of(run: SweepRun, column: Column) -> list[Evaluation]:
    """Returns the evaluations of a run that measure a column, or else the nearest one of its protocol on its labels."""
    exact = [evaluation for evaluation in run.evaluations if evaluation.measures(column)]
    others = [e for e in run.evaluations if e.protocol.name == column.protocol and not e.repetition]
    others = [e for e in others if (e.data.subset or "") == column.subset and e.epoch == column.kept_epoch]
    if exact or not others:
        return exact

    def unlike(evaluation: Evaluation) -> list[bool]:
        wanted, options = evaluation.protocol.options_for(column), evaluation.options
        return [getattr(options, name) != getattr(wanted, name, None) for name in option_names(type(options))]

    nearest = min(others, key=unlike)  # an option counts more than those after it: the probe comes first
    return nearest.repetitions(run.evaluations)


def _measured(runs: Sequence[SweepRun], column: Column) -> Measured | None:
    """Returns the results of runs in a column of a table; None of an average over data sets."""
    if column.data == "average":
        return None
    return Measured(column.metric, tuple(_rows_by_seed(run, _evaluations_of(run, column)) for run in runs))


def _rows_by_seed(run: SweepRun, evaluations: Sequence[Evaluation]) -> tuple[int, tuple[ResultRow, ...]]:
    """Returns the seed of a run, and its results by some evaluations, with their hits."""
    rows = [row for evaluation in evaluations if (row := run.result(evaluation)) is not None]
    return run.seed, tuple(_with_hits([run], rows))


def _with_hits(runs: Sequence[SweepRun], rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Returns results of some runs with what they got right, as far as it was kept in the folders of the runs."""
    kept = [row for row in rows if isinstance(row, ResultRow)]
    for run in runs if any(row.hits_hash for row in kept) else ():
        completed = with_hits(kept, run.folder / "results.jsonl")
        kept = [row if row.hits else with_its_hits for row, with_its_hits in zip(kept, completed, strict=True)]
    return kept


def _with_varied_condition(cells: list[SweepCell], places: list[tuple[Row, Column]]) -> list[SweepCell]:
    """Adds positions to the cells if the table's own numbers differ in one numeric condition alone."""
    conditions = [vars(column.conditions | row.conditions) for row, column in places]
    varied = [name for name in conditions[0] if len({str(c[name]) for c in conditions}) > 1] if conditions else []
    if len(varied) != 1 or not all(type(c[varied[0]]) in (int, float) for c in conditions):
        return cells
    by_row = any(getattr(row.conditions, varied[0]) is not None for row, _ in places)
    several = len({column.data for _, column in places}) > 1
    curves = [
        cell.column if by_row else f"{row.method}, {column.data}" if several else row.method
        for cell, (row, column) in zip(cells, places, strict=True)
    ]
    return [
        replace(cell, position=c[varied[0]], varied=varied[0], curve=curve)
        for cell, c, curve in zip(cells, conditions, curves, strict=True)
    ]


def _cells_of_variants(sweep: Sweep) -> list[SweepCell]:
    """Returns a cell for each variant and evaluation."""
    cells = []
    for variant in sweep.variants:
        main = None if variant.values else variant.experiment.main_number  # the paper has no number of other values
        for evaluation in (e for e in sweep.evaluations if not e.repetition):
            seeded = evaluation.repetitions(sweep.evaluations)
            by_run = [[run.result(e) for e in seeded] for run in sweep.runs_of(variant)]
            metric, label = _main_score([row for rows in by_run for row in rows if row is not None])
            scores = _means([_per_cent([row for row in rows if row is not None], metric) for rows in by_run])
            number = (main.value, main.deviation) if main and _measures(evaluation, main.column) else (None, None)
            measured = Measured(metric, tuple(_rows_by_seed(run, seeded) for run in sweep.runs_of(variant)))
            cell = SweepCell(variant.label, f"{evaluation.words}, {label}", *scores, *number, measured=measured)
            cells.append(_with_varied_value(cell, variant))
    return [*_cells_of_initial_encoder(sweep, cells), *cells]


def _cells_of_initial_encoder(sweep: Sweep, cells: Sequence[SweepCell]) -> list[SweepCell]:
    """Returns a cell for each evaluation of the encoder that all runs started from; none if its runs had none.

    Curves along a varied number have none, for it has no such number.
    """
    if any(cell.position is not None for cell in cells):
        return []
    evaluations = [e for e in sweep.evaluations if not e.repetition and e.epoch is None]
    initial = []
    for evaluation in evaluations:
        rows = [row for run in sweep.runs if (row := run.baseline_result(evaluation, INITIAL)) is not None][:1]
        metric, label = _main_score(rows)
        if rows:
            measured = Measured(metric, ((ANY_SEED, tuple(_with_hits(sweep.runs, rows))),))
            initial.append(
                SweepCell(INITIAL, f"{evaluation.words}, {label}", _per_cent(rows, metric), measured=measured)
            )
    return initial


def baseline_cells(sweep: Sweep) -> list[SweepCell]:
    """Returns the cells of the untrained encoder and of the raw pixels, in the columns that they were evaluated for.

    If networks or preprocessings differ among the runs, a line says of which recipe its baseline is.
    """
    cells = []
    for name in BASELINES:
        of_name = []
        for run in (run for run in sweep.runs if run.measures_baselines):
            for evaluation in (e for e in run.evaluations if not e.repetition and e.epoch is None):
                row = run.baseline_result(evaluation, name)
                columns = [] if row is None else _columns_of(sweep, run, evaluation, row)
                of_name += [(run, _baseline_cell(name, row, *column)) for column in columns if row is not None]
        of_name = [(run, cell) for run, cell in of_name if cell.scores]
        columns = [cell.column for _, cell in of_name]
        if len(set(columns)) < len(columns):
            of_name = [(run, replace(cell, line=f"{name} of {run.variant.label}")) for run, cell in of_name]
        cells += [cell for _, cell in of_name]
    return [_with_its_hits(sweep, cell) for cell in cells]


def _baseline_cell(name: str, row: ResultRow, column: str, metric: str) -> SweepCell:
    return SweepCell(name, column, _per_cent([row], metric), measured=Measured(metric, ((ANY_SEED, (row,)),)))


def _columns_of(sweep: Sweep, run: SweepRun, evaluation: Evaluation, row: ResultRow) -> list[tuple[str, str]]:
    """Returns the columns of a sweep's table that an evaluation of a run measures, each with the name of its score."""
    if sweep.table is None:
        metric, label = _main_score([row])
        return [(f"{evaluation.words}, {label}", metric)]
    columns = [column for _, column in run.variant.experiment.positions(sweep.table.id) if column.data != "average"]
    of_evaluation = [column for column in columns if evaluation in _evaluations_of(run, column)]
    return list(dict.fromkeys((column.name, column.metric) for column in of_evaluation))


def _with_its_hits(sweep: Sweep, cell: SweepCell) -> SweepCell:
    """Returns the cell of a baseline with what it got right, by which others are compared with it."""
    assert cell.measured is not None
    rows = [row for _, of_seed in cell.measured.by_seed for row in of_seed]
    return replace(cell, measured=Measured(cell.measured.metric, ((ANY_SEED, tuple(_with_hits(sweep.runs, rows))),)))


def _main_score(rows: Sequence[ResultRow]) -> tuple[str, str]:
    """Returns the name and the label of the score that sums up an evaluation: top-1 if it has that."""
    if not rows or hasattr(rows[0], "top1"):
        return "top1", "top-1"
    metric = rows[0].metric
    marks = {field.name: field.mark for field in row_fields(type(rows[0]))}
    mark = marks[metric]
    return metric, mark.label if isinstance(mark, Score) else metric


def _measures(evaluation: Evaluation, column: Column) -> bool:
    """Returns whether an evaluation is that of a published column, by the paper's own classifier."""
    unlimited = evaluation.data == evaluation.protocol.data()
    return bool(column.probe or column.protocol == "online-linear") and unlimited and evaluation.measures(column)


def _with_varied_value(cell: SweepCell, variant: Variant) -> SweepCell:
    """Adds a position to the cell if the sweep gives one value to each variant and it is a number."""
    try:
        ((key, value),) = variant.values
        return replace(cell, position=float(value), varied=key, curve=f"{variant.experiment.name}, {cell.column}")
    except ValueError:
        return cell


def _score(run: SweepRun, evaluation: Evaluation, metric: str) -> tuple[float, ...]:
    """Returns the score of a run by an evaluation, in per cent; empty if there is none yet."""
    row = run.result(evaluation)
    return () if row is None else _per_cent([row], metric)


def _per_cent(rows: Sequence[ResultRow], metric: str) -> tuple[float, ...]:
    """Returns the scores of the rows that have them."""
    scores = [getattr(row, metric, None) for row in rows]
    return tuple(100 * score for score in scores if score is not None)


@default_style()
def draw_figure(
    cells: Sequence[SweepCell], *, title: str, changes: Sequence[str], baselines: Sequence[SweepCell] = ()
) -> bytes:
    """Draws a PNG: scores along the varied number, or as bars, with the deviation over seeds, beside the paper's.

    Args:
        cells: The cells of the table.
        title: Title of the figure.
        changes: What all runs have that their recipes have not, as words of the command.
        baselines: The cells of what the runs must beat: further bars, or lines across the curves.
    """
    from matplotlib.figure import Figure

    curves = all(cell.position is not None for cell in cells)
    bars = [] if curves else [*cells, *baselines]
    figure = Figure(figsize=(8, 4.2) if curves else (8, 1.2 + 0.45 * len(bars)), layout="constrained")
    axes = figure.subplots()
    if curves:
        _draw_curves(axes, cells)
        _draw_baselines(axes, baselines)
    else:
        _draw_bars(axes, bars)
    figure.suptitle(title, fontsize=10, parse_math=False)
    if changes:
        figure.supxlabel(
            "\n".join(wrap(f"ours: with {' '.join(changes)}", 110)), fontsize=8, x=0.01, ha="left", parse_math=False
        )
    figure.legend(fontsize=8, frameon=False, loc="outside right upper")
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _draw_curves(axes: Any, cells: Sequence[SweepCell]) -> None:
    """Draws one curve for ours and one for the paper's."""
    for i, name in enumerate(dict.fromkeys(cell.curve for cell in cells)):
        for origin, marker in (("paper", "s--"), ("ours", "o-")):
            points = sorted(_points([cell for cell in cells if cell.curve == name], origin))
            if points:
                positions, values, errors = zip(*points, strict=True)
                style = {"color": f"C{i}", "alpha": 1.0 if origin == "ours" else 0.5, "capsize": 3}
                axes.errorbar(positions, values, errors, fmt=marker, label=f"{origin}: {name}", **style)
    positions = sorted({cell.position or 0.0 for cell in cells})
    if positions[0] > 0 and positions[-1] / positions[0] >= 8:
        axes.set_xscale("log")
    axes.set_xticks(positions, [f"{x:g}" for x in positions])
    axes.minorticks_off()
    axes.set_xlabel(cells[0].varied)
    axes.set_ylabel("%")


def _draw_baselines(axes: Any, baselines: Sequence[SweepCell]) -> None:
    """Draws a line across the curves for each baseline."""
    styles = [":", "-.", (0, (1, 3)), (0, (5, 1))]
    for i, cell in enumerate(baselines):
        label = f"{cell.line}, {cell.column}"
        axes.axhline(cell.ours.value, color="0.4", linestyle=styles[i % len(styles)], linewidth=1, label=label)


def _draw_bars(axes: Any, cells: Sequence[SweepCell]) -> None:
    """Draws two bars for each cell."""
    for origin, offset, color in (("paper", -0.2, "0.75"), ("ours", 0.2, "C0")):
        if points := _points([replace(cell, position=float(i)) for i, cell in enumerate(cells)], origin):
            positions, values, errors = zip(*points, strict=True)
            style = {"color": color, "label": origin, "capsize": 2}
            axes.barh([x + offset for x in positions], values, 0.4, xerr=errors, **style)
    axes.set_yticks(range(len(cells)), [f"{cell.line}, {cell.column}" for cell in cells], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("%")


def _points(cells: Sequence[SweepCell], origin: str) -> list[tuple[float, float, float]]:
    """Returns position, value and deviation of each cell that has a number.

    Args:
        cells: Cells with positions.
        origin: ``paper`` or ``ours``. A deviation that is not known is NaN.
    """
    if origin == "paper":
        return [(c.position or 0.0, c.paper, c.deviation or nan) for c in cells if c.paper is not None]
    return [
        (c.position or 0.0, mean(c.scores), stdev(c.scores) if len(c.scores) > 1 else nan) for c in cells if c.scores
    ]
