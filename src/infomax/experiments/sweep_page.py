"""Makes the page of a sweep: scores with intervals, paired differences, curves, verdicts on the runs, and commands."""

import shlex
from collections.abc import Iterator, Sequence
from statistics import mean

from infomax.analysis.verdicts import Verdict
from infomax.evaluation.intervals import Difference
from infomax.experiments.sweep import SweepRun
from infomax.experiments.sweep_differences import LineDifference
from infomax.experiments.sweep_results import SweepCell, SweepResult, training_seconds
from infomax.reporting.pages.blocks import Commands, Facts, Kind, Notice, TableBlock
from infomax.reporting.pages.charts import BarChart, Curve, LineChart
from infomax.reporting.pages.page import Block, Page, Section
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import Run
from infomax.runs.training_verdicts import standing_verdicts

MAX_NOTICES = 20
"""Verdicts that are shown as notices; the table of runs has all."""
WIDE = 8
"""Ratio of the largest to the smallest value from which on they are drawn by their logarithm."""
MAX_NAMES = 4
"""Recipes that the title names."""
MAX_DIFFERENCES = 8
"""Differences that a notice names; the tables have all."""
FOOTER = "Made by infomax sweep."
NOTICES: dict[str, Kind] = {"clearly worse": "failed", "not clearly better": "warning", "clearly better": "good"}
"""How a page says on which side of a baseline a recipe is, by the verdict on their difference."""


def sweep_page(result: SweepResult) -> Page:
    """Returns the page of a sweep, of which not all runs need be done.

    Args:
        result: What was measured so far.
    """
    done, count = sum(run.trained for run in result.runs), len(result.runs)
    text = [f"{done} of {count} runs are trained." if done < count else "1 run." if count == 1 else f"{count} runs."]
    if result.changes:
        text.append(f"All runs have {' '.join(result.changes)}.")
    sections = [
        *problem_sections(result),
        *_baseline_sections(result),
        Section("Scores", "", (TableBlock(scores_table(result)), *_charts(result))),
    ]
    if tables := result.difference_tables():
        words = "A line is compared with another on the same images or seeds; with 0 in its interval, it stays open."
        sections.append(Section("Differences", words, tuple(map(TableBlock, tables))))
    sections += [Section("Runs", "", (TableBlock(runs_table(result)),)), command_section(result)]
    return Page(result.title or _title(result), tuple(text), tuple(sections), FOOTER)


def _title(result: SweepResult) -> str:
    """Returns the title of a sweep that is of no published table: its first recipes."""
    names = list(dict.fromkeys(run.variant.experiment.name for run in result.runs))
    more = len(names) - MAX_NAMES
    return f"Sweep of {', '.join(names[:MAX_NAMES])}{f' and {more} more' if more > 0 else ''}" if names else "Sweep"


def _baseline_sections(result: SweepResult) -> list[Section]:
    """Returns the section that says which lines are better than what every encoder must beat; none without these."""
    notices: list[Block] = []
    for reference in dict.fromkeys(cell.line for cell in result.baselines):
        over = [x for x in result.compared() if x.reference == reference and isinstance(x.compared, Difference)]
        for verdict, kind in NOTICES.items():
            lines = [x for x in over if isinstance(x.compared, Difference) and x.compared.verdict == verdict]
            if lines:
                notices.append(Notice(kind, f"{verdict.capitalize()} than {reference}", _list_differences(lines)))
    return [Section("Better than nothing learned?", "", tuple(notices))] if notices else []


def _list_differences(differences: Sequence[LineDifference]) -> str:
    """Returns the first differences in words, as ``mira/digits +1.9 (-0.8 to +4.6) by knn, top-1``."""
    words = [f"{x.line} {x.compared.numbers} by {x.column}" for x in differences if isinstance(x.compared, Difference)]
    more = len(words) - MAX_DIFFERENCES
    return "; ".join(words[:MAX_DIFFERENCES]) + (f"; and {more} more, below" if more > 0 else "") + "; points"


def problem_sections(result: SweepResult) -> list[Section]:
    """Returns the section with what failed, and with what is wrong with trainings; none if nothing is."""
    failed = [Notice("failed", line) for line in result.failures]
    verdicts = list(_verdict_notices(result))
    notices: list[Block] = [*failed, *verdicts[:MAX_NOTICES]]
    if len(verdicts) > MAX_NOTICES:
        notices.append(Notice("info", f"{len(verdicts) - MAX_NOTICES} more verdicts are in the table of runs"))
    return [Section("What went wrong", "", tuple(notices))] if notices else []


def _verdict_notices(result: SweepResult) -> Iterator[Notice]:
    """Yields the verdicts that stand at the end of each run."""
    for run in result.runs:
        for verdict in _verdicts(run) or ():
            heading = f"{run.folder.name}: {verdict.name} since step {verdict.step}"
            yield Notice(
                "failed" if verdict.state == "failed" else "warning", heading, verdict.evidence, verdict.advice
            )


def _verdicts(run: SweepRun) -> tuple[Verdict, ...] | None:
    """Returns the verdicts on a run; None if it has not begun, or its health was not measured."""
    return standing_verdicts(Run(run.folder)) if (run.folder / "config.json").is_file() else None


def scores_table(result: SweepResult) -> Table:
    """Makes the table of all scores, a line for each number, with its 95 % interval and the paper's number.

    Args:
        result: What was measured so far.
    """
    rows = []
    for cell in result.all_cells:
        if not cell.scores and cell.paper is None:
            continue
        count = len(cell.scores)
        rows.append(
            [
                cell.line,
                cell.column,
                cell.ours,
                _interval(cell),
                Cell(str(count), count) if count else EMPTY,
                cell.theirs,
            ]
        )
    columns = ["", "measured by", "ours, %", "95 % interval", "scores", "paper, %"]
    kinds = "over the seeds (Student's) where there are several scores, or else over the test images"
    notes = [f"ours: mean ± deviation; the interval is {kinds}"]
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] not in ("", EMPTY) for row in rows)]
    return make_table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], notes=notes)


def _interval(cell: SweepCell) -> Cell:
    if cell.interval is None:
        return EMPTY
    low, high = cell.interval
    return Cell(f"{low:.1f} to {high:.1f}", low)


def _charts(result: SweepResult) -> list[Block]:
    """Returns curves along the number that is varied, or else bars."""
    cells = [cell for cell in result.cells if cell.scores or cell.paper is not None]
    if cells and all(cell.position is not None for cell in cells):
        return [_curves(result, cells)]
    measured = [cell for cell in result.all_cells if cell.scores]
    return [
        BarChart(column, "", "%", tuple((cell.line, mean(cell.scores)) for cell in measured if cell.column == column))
        for column in dict.fromkeys(cell.column for cell in measured)
    ]


def _curves(result: SweepResult, cells: list[SweepCell]) -> LineChart:
    """Returns the chart of our scores, with their intervals, and of the paper's, along the number that is varied."""
    curves = []
    for name in dict.fromkeys(cell.curve for cell in cells):
        of_name = sorted((cell for cell in cells if cell.curve == name), key=lambda cell: cell.position or 0.0)
        if ours := [cell for cell in of_name if cell.scores]:
            edges = [cell.interval or (mean(cell.scores), mean(cell.scores)) for cell in ours]
            low, high = (tuple(edge[i] for edge in edges) for i in (0, 1))
            scores = tuple(mean(cell.scores) for cell in ours)
            curves.append(Curve(f"ours: {name}", _positions(ours), scores, len(curves), low, high))
        if theirs := [cell for cell in of_name if cell.paper is not None]:
            curves.append(Curve(f"paper: {name}", _positions(theirs), tuple(c.paper for c in theirs), len(curves)))
    positions = _positions(cells)
    for cell in result.baselines:
        ends, score = (min(positions), max(positions)), mean(cell.scores)
        curves.append(Curve(f"{cell.line}: {cell.column}", ends, (score, score), len(curves)))
    varied = cells[0].varied
    is_wide = min(positions) > 0 and max(positions) / min(positions) >= WIDE
    caption = "A band is the 95 % interval."
    return LineChart(f"Scores by {varied}", varied, "%", tuple(curves), caption=caption, log_x=is_wide)


def _positions(cells: list[SweepCell]) -> tuple[float, ...]:
    return tuple(cell.position or 0.0 for cell in cells)


def runs_table(result: SweepResult) -> Table:
    """Makes the table of all runs: how far each is, and what is said of its training."""
    rows = []
    for run in result.runs:
        verdicts, begun = _verdicts(run), (run.folder / "config.json").is_file()
        state = "not begun"
        if begun:
            state = Run(run.folder).progress(Run(run.folder).trained_steps) or "trained"
        left = sum(run.result(evaluation) is None for evaluation in run.evaluations)
        words = "" if verdicts is None else "; ".join(f"{v.name} ({v.state})" for v in verdicts) or "no sign of trouble"
        seconds = training_seconds(run.folder) if begun else 0.0
        minutes = Cell(f"{seconds / 60:,.1f}", seconds / 60) if seconds else EMPTY
        evaluated = f"{len(run.evaluations) - left} of {len(run.evaluations)}"
        rows.append([run.folder.name, Cell(str(run.seed), run.seed), state, evaluated, minutes, words])
    return make_table(["run", "seed", "training", "evaluations done", "minutes", "verdicts"], rows)


def command_section(result: SweepResult) -> Section:
    """Returns the section with the command that trains each run, and with those that are left."""
    trainings = "\n".join(shlex.join(["infomax", *run.training_argv]) for run in result.runs)
    evaluations = [evaluation.words for evaluation in result.evaluations]
    blocks: list[Block] = [
        Commands(trainings, "The training of each run:"),
        Facts((("evaluated by", ", ".join(evaluations)),), code=True),
    ]
    if result.commands:
        blocks.append(Commands("\n".join(result.commands), "What is left to do:"))
    return Section("Commands", "", tuple(blocks))
