"""Makes the page of a comparison: the recommendation, the table, charts, what went wrong, and commands."""

from collections.abc import Iterator
from statistics import fmean

from infomax.experiments.compare import describe_plan
from infomax.experiments.compare_results import Comparison, MethodResult
from infomax.experiments.sweep_page import command_section, problem_sections, runs_table
from infomax.reporting.pages.blocks import Commands, Notice, Paragraph, TableBlock
from infomax.reporting.pages.charts import BarChart, Curve, LineChart
from infomax.reporting.pages.page import Block, Page, Section
from infomax.runs.run_folder import Run

FOOTER = "Made by infomax compare."
ACCURACY = "knn_top1"
"""The accuracy during the training, in a run's metrics."""
WHAT_IT_SHOWS = (
    "Each difference has a 95 % interval of its own. Among many methods, some differ by luck, and the best of them is "
    "the best partly by luck. With a larger budget, on other images or with another encoder, the order may be another."
)


def comparison_page(comparison: Comparison) -> Page:
    """Returns the page of a comparison, of which not all runs need be done.

    Args:
        comparison: What was measured so far.
    """
    recommendation = comparison.recommendation
    good = bool(recommendation.methods)
    blocks: list[Block] = [Notice("good" if good else "warning", recommendation.text)]
    if recommendation.command:
        blocks.append(Commands(recommendation.command, "To go on with it, for as long as its recipe says:"))
    names = ", ".join(result.method for result in comparison.methods)
    title = f"Comparison on {comparison.contest.options.data}"
    plan = tuple(map(Paragraph, describe_plan(comparison.contest, comparison.speeds)))
    sections = [
        Section("Which method?", "", tuple(blocks)),
        *problem_sections(comparison.swept),
        Section("Scores", WHAT_IT_SHOWS, (TableBlock(comparison.table()), *_bars(comparison))),
        Section("Training", "", (*_curves(comparison), TableBlock(runs_table(comparison.swept)))),
        Section("Budget", "", plan),
        command_section(comparison.swept),
    ]
    done, count = sum(run.trained for run in comparison.swept.runs), len(comparison.swept.runs)
    text = f"{names}; {done} of {count} runs are trained."
    return Page(title, (text,), tuple(sections), FOOTER)


def _bars(comparison: Comparison) -> Iterator[Block]:
    """Yields a chart of the scores by each evaluation."""
    for column in comparison.columns:
        cells = [cell for result in comparison.methods for cell in result.cells]
        cells = [cell for cell in (*cells, *comparison.baselines) if cell.column == column and cell.scores]
        if cells:
            yield BarChart(column, "", "%", tuple((cell.line, fmean(cell.scores)) for cell in cells))


def _curves(comparison: Comparison) -> Iterator[Block]:
    """Yields a chart of the first seed of each method over its training time, if its accuracy was measured."""
    curves = [curve for number, x in enumerate(comparison.methods) if (curve := _curve(x, number)) is not None]
    if curves:
        caption = "The first seed of each method."
        yield LineChart("k-NN accuracy during training", "minutes", "%", tuple(curves), caption=caption)


def _curve(result: MethodResult, style: int) -> Curve | None:
    """Returns the curve of a method's first run; None if nothing was measured while it trained."""
    run = next((run for run in result.runs if (run.folder / "config.json").is_file()), None)
    if run is None:
        return None
    seconds, points = 0.0, []
    for row in Run(run.folder).read_rows("metrics.jsonl"):
        seconds = row.get("seconds", seconds)
        if ACCURACY in row:
            points.append((seconds / 60, 100 * row[ACCURACY]))
    if len(points) < 2:
        return None
    return Curve(result.method, [x for x, _ in points], [y for _, y in points], style)
