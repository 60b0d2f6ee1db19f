"""Our results beside those that the papers print."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isclose
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from infomax.evaluation.paired import chosen_fields, shown_conditions
from infomax.evaluation.result_row import Outcome, ResultRow, Score, row_fields
from infomax.evaluation.results import read_results, with_hits
from infomax.papers import published
from infomax.papers.published import Column, Conditions
from infomax.recipes.conditions import condition_of, method_of, recipe_conditions, settings_of_paper
from infomax.recipes.registry import experiments
from infomax.reporting.departures import departures
from infomax.reporting.differences import BASELINES, differences_over_baselines, differences_over_run
from infomax.reporting.results import describe_verdicts, has_shares, rows_table
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import BESIDE_RUNS, Run
from infomax.runtime.near_names import missing_path
from infomax.runtime.text import note

MOST_CHANGES = 4
"""Changed settings that a line names; of more it says how many they are."""


@dataclass(frozen=True)
class Training:
    """A frozen dataclass that holds what is known of how a run's encoder was trained."""

    method: str
    """The method's name in the published tables."""
    recipe: str
    """Name of the recipe, as ``mira/small``."""
    changes: tuple[tuple[str, str | None], ...]
    """What was changed of the recipe, as ``epochs=3``, each with the condition that tells the same, if one does."""
    data: str
    """Name of the images, with the files that limit them."""
    progress: str
    """Steps of all steps, as ``50 of 100 steps``, if the encoder is one of before the end; else empty."""
    conditions: Conditions
    extended: bool = False
    """Whether the run went on after its end; no paper trains so."""


@dataclass(frozen=True)
class Result:
    """A frozen dataclass that holds a row of results, which encoder it is of, and how that was trained."""

    name: str
    """The encoder's name in a table."""
    row: ResultRow
    training: Training | None
    """None if nothing is known of it, as of an encoder from elsewhere."""
    place: str = ""
    """Name of the run folder or the file that has the row."""
    earlier_step: int | None = None
    """The step that the encoder was taken at, if its run was trained on since; None if it is the run's newest."""

    @property
    def conditions(self) -> dict[str, Any]:
        """The known conditions of the training by name, with ``method`` and ``data``."""
        if self.training is None:
            return {}
        values = {**vars(self.training.conditions), "method": self.training.method, "data": self.training.data}
        return {name: value for name, value in values.items() if value is not None}

    def fits(self, table: published.Table, column: Column) -> bool:
        """Returns whether a column of a published table measures the same, of an encoder that was trained for it.

        All conditions that tell the column apart have to be known of our training, and equal.
        """
        if not self.row.fits(column) or (self.training is not None and self.training.extended):
            return False
        telling = telling_conditions(table, column)
        if self.row.epoch is not None and "epochs" not in telling:
            return False  # only the encoder of a whole run stands for it
        return all(_equal(self.conditions.get(key), value) for key, value in telling.items())

    def differences(self, column: Column) -> dict[str, Any]:
        """Returns the conditions, known of both, in which this result differs from the column, with our values."""
        wanted = {**vars(column.conditions), "data": column.trained_on}
        ours = {key: value for key, value in self.conditions.items() if wanted.get(key) is not None}
        return {key: value for key, value in ours.items() if not _equal(value, wanted[key])}


@dataclass(frozen=True)
class Report:
    """A frozen dataclass that holds our results and the published tables that they stand beside.

    ``str(report)`` is the text that ``infomax report`` prints.
    """

    results: tuple[Table, ...]
    """Our results, one table for each protocol and data set; none if one published table is shown alone."""
    origins: tuple[str, ...]
    """For each run the recipe that its encoder was trained by, and the verdicts on its training; none if one published
    table is shown alone."""
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
    places = distinct_places(results)
    names, read = shortest_names(places), []
    for place, name in zip(places, names, strict=True):
        rows = _read_results(place, name)
        read += rows
        if not rows and len(places) > 1:
            note(_no_results(place))
    if not read:
        raise ValueError(_no_results(places[0]))
    beside = [
        _published_table(paper, read, with_reasons=table is not None)
        for paper in tables
        if table or any(result.fits(paper, column) for result in read for column in paper.columns)
    ]
    if table is not None:
        return Report((), (), tuple(beside))
    origins = dict.fromkeys(_origin(result) for result in read if result.row.recipe)
    origins |= dict.fromkeys(_verdict_lines(read))
    return Report(tuple(_our_tables(read)), tuple(origins), tuple(beside))


def distinct_places(results: Sequence[str | PathLike[str]]) -> list[Path]:
    """Returns run folders and files of results, each once.

    What a sweep or a comparison writes beside its runs is left out, so that ``infomax report runs/compare/*`` is of the
    runs, unless nothing else is named.
    """
    places = list({Path(place).resolve(): Path(place) for place in results}.values())
    return [place for place in places if place.name not in BESIDE_RUNS] or places


def _origin(result: Result) -> str:
    """Returns a line on how an encoder was trained."""
    progress = result.training.progress if result.training else ""
    name = result.name if result.earlier_step is None else _encoder_title(result)
    return f"{name}: {result.row.recipe}{f', unfinished: {progress}' if progress else ''}"


def _verdict_lines(results: Sequence[Result]) -> list[str]:
    """Returns a line for each run whose training ended with verdicts in force."""
    runs = dict.fromkeys(result.name for result in results if result.row.recipe)
    lines = [describe_verdicts(run, [result.row for result in results if result.name == run]) for run in runs]
    return [line for line in lines if line is not None]


def list_published_tables() -> str:
    """Returns a line for each published table: its id, its paper and what it shows."""
    return "\n".join(f"{table.id:16} {table.paper}, {table.number}: {table.title}" for table in published.tables())


def telling_conditions(table: published.Table, column: Column) -> dict[str, Any]:
    """Returns the conditions that tell a column from others, with their values: a result must have them to stand there.

    They are those by which columns differ that else measure the same; settings of the paper's own method that the
    column names; ``method``, if all rows are of the paper's own; and ``data``, the images that the encoder was trained
    on, if they differ between columns.
    """
    names = ("protocol", "data", "metric", "subset")
    alike = [vars(c.conditions) for c in table.columns if all(getattr(c, n) == getattr(column, n) for n in names)]
    stated, settings = vars(column.conditions), settings_of_paper(table.paper)
    telling = {
        key: value
        for key, value in stated.items()
        if len({conditions[key] for conditions in alike}) > 1 or (key in settings and value is not None)
    }
    telling = {key: value for key, value in telling.items() if key not in published.DESCRIPTIVE}
    if "epochs" in telling:
        telling["schedule_epochs"] = stated["schedule_epochs"] or stated["epochs"]
    if {row.method for row in table.rows} == {table.paper}:
        telling["method"] = table.paper
    if len({c.trained_on for c in table.columns}) > 1:
        telling["data"] = column.trained_on
    return telling


def _equal(ours: Any, wanted: Any) -> bool:
    """Returns whether a condition of ours is known and has the value of a column."""
    if isinstance(ours, float) and isinstance(wanted, float):
        return isclose(ours, wanted)  # a rate may be a product
    return ours is not None and ours == wanted


def shortest_names(places: Sequence[Path]) -> list[str]:
    """Returns a name for each place: the end of its path, of as many folders as tell it from the other places."""
    paths = [Path(os.path.abspath(place)).parts for place in places]
    names = []
    for path in paths:
        lengths = range(1, len(path))
        length = next((n for n in lengths if sum(other[-n:] == path[-n:] for other in paths) == 1), len(path))
        names.append(str(Path(*path[-length:])))
    return names


def _read_results(place: Path, name: str) -> Iterable[Result]:
    """Returns the results in a run folder or a file; of equal measurements the last.

    Args:
        place: The run folder or the file.
        name: Name of the encoder that the run trained.

    Raises:
        ValueError: if there is no such folder or file, or a row is damaged.
    """
    run, file, newest_step = None, place, 0
    if place.is_dir():
        run, file = Run(place), place / "results.jsonl"
        if run.config and not file.exists():  # the settings are read first: the folder may be of something else
            return ()
        newest_step = run.trained_steps
    elif not place.exists():
        raise ValueError(f"{place}: {missing_path(place)}")
    elif not place.is_file():
        raise ValueError(f"{place} is neither a run folder nor a file of results")
    results: dict[tuple, Result] = {}
    for row in with_hits(read_results(file), file):
        trained = row.representation == "trained encoder"
        key = _measurement(row)
        results.pop(key, None)
        training = _training(run, row) if run is not None and trained else None
        earlier_step = _earlier_step(row, newest_step)
        results[key] = Result(name if trained else row.representation, row, training, name, earlier_step)
    return results.values()


def _earlier_step(row: ResultRow, newest_step: int) -> int | None:
    """Returns the step that a row's encoder was taken at, if its run was trained on since; None if it was kept by its
    epoch, or is a baseline."""
    step = row.trained_steps
    return step if row.epoch is None and step is not None and step < newest_step else None


def _no_results(place: Path) -> str:
    """Returns a line on a run folder or file that holds no results."""
    file = f" to {place / 'results.jsonl'}" if place.is_dir() else ""
    return f"{place} has no results yet; infomax evaluate adds them{file}"


def _training(run: Run, row: ResultRow) -> Training | None:
    """Returns how the encoder of a row was trained; None if the folder does not tell it.

    The row tells after how many steps its encoder was taken, and by which recipe the run was trained then.
    """
    recipe, config = run.recipe, run.config
    if row.recipe != run.recipe_title:
        return None
    steps, conditions = recipe.steps(config["images"]), recipe_conditions(recipe)
    if row.trained_steps != steps:
        epochs, rest = divmod((row.trained_steps or 0) * recipe.epochs, max(1, steps))
        known = row.trained_steps is not None and rest == 0
        conditions = replace(conditions, epochs=epochs if known else None)
    limits = [f"{name} {config[name]}" for name in ("classes", "subset") if config.get(name)]
    return Training(
        method=method_of(recipe),
        recipe=f"{recipe.method.name}/{recipe.name}",
        changes=tuple((change, condition_of(recipe, change.partition("=")[0])) for change in config.get("changes", ())),
        data=", ".join([config["data"], *limits]),
        progress=run.progress(row.trained_steps) if row.epoch is None else "",
        conditions=conditions,
        extended=bool(config.get("extended")),
    )


def _measurement(row: ResultRow) -> tuple:
    """Returns what the row is a measurement of: rows of equal measurements replace each other."""
    names = [field.name for field in row_fields(type(row)) if not isinstance(field.mark, Score | Outcome)]
    return tuple((name, repr(getattr(row, name))) for name in names)


def _our_tables(results: Sequence[Result]) -> list[Table]:
    """Returns all results, one table for each protocol and data set.

    Of several runs, each line is compared with the run that was named first, and encoders from within a run with the
    one at its end; one run is compared with its baselines.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.row.protocol, result.row.data, result.row.subset), []).append(result)
    tables = []
    for (protocol, data, subset), unordered in groups.items():
        group = _aligned(unordered)
        rows, names = [result.row for result in group], [_name_in_table(result, group) for result in group]
        unit = ", in %" if has_shares(rows) else ""
        title = f"{protocol}, {data}{f', {subset} of the labels' if subset else ''}: ours{unit}"
        encoders = [_encoder_title(result) for result in group]
        runs = [result for result in group if not _is_baseline(result)]
        several = len({_encoder_title(result) for result in runs}) > 1
        reference = next((result for result in runs if _is_newest(result)), runs[0] if runs else None)
        title_of_reference = "" if reference is None else _encoder_title(reference)
        compare = differences_over_run if several else differences_over_baselines
        column = compare(rows, names, encoders, title_of_reference)
        tables.append(rows_table(rows, names, hidden={"data"}, title=title, notes=column.reasons, differences=column))
    return tables


def _encoder_title(result: Result) -> str:
    """Returns the encoder's name, with the epoch or step that it was taken after if its run has a newer one."""
    if result.earlier_step is not None:
        return f"{result.name}, step {result.earlier_step:,}"
    return result.name if result.row.epoch is None else f"{result.name}, epoch {result.row.epoch}"


def _is_newest(result: Result) -> bool:
    return result.row.epoch is None and result.earlier_step is None


def _is_baseline(result: Result) -> bool:
    return result.name in BASELINES


def _aligned(results: Sequence[Result]) -> list[Result]:
    """Returns results in the order of a table: those under one condition together, the runs as they were named and then
    the baselines.

    Baselines that are equal in several places, as the raw pixels, stand once.
    """
    kept: list[Result] = []
    for result in results:
        equal = next((i for i, other in enumerate(kept) if _are_equal_baselines(result, other)), None)
        if equal is None:
            kept.append(result)
        elif kept[equal].row.hits is None:
            kept[equal] = result
    conditions = list(dict.fromkeys(shown_conditions(result.row) for result in kept))
    encoders = [*dict.fromkeys(result.name for result in kept if not _is_baseline(result)), *BASELINES]

    def place(result: Result) -> tuple[int, int, float, float]:  # the encoder of a whole run stands behind earlier ones
        epoch = inf if result.row.epoch is None else result.row.epoch
        step = inf if result.earlier_step is None else result.earlier_step
        return conditions.index(shown_conditions(result.row)), encoders.index(result.name), epoch, step

    return sorted(kept, key=place)


def _are_equal_baselines(result: Result, other: Result) -> bool:
    """Returns whether two results are of one baseline, with equal scores on images that are not known to differ."""
    if not _is_baseline(result) or type(result.row) is not type(other.row):
        return False
    names = [field.name for field in row_fields(type(result.row)) if isinstance(field.mark, Score)]
    if _measurement(result.row) != _measurement(other.row):
        return False
    images = [(x.row.hits or {}).get("images") for x in (result, other)]
    same_images = None in images or images[0] == images[1]
    return same_images and all(getattr(result.row, name) == getattr(other.row, name) for name in names)


def _name_in_table(result: Result, group: Sequence[Result]) -> str:
    """Returns the encoder's name, with what tells its line from others.

    That is the epoch after which it was kept; the place of a baseline that is another one in several places; and the
    seed of the evaluation, if the table has several of them.
    """
    name, alike = _encoder_title(result), [other for other in group if other.name == result.name]
    if _is_baseline(result) and len({other.place for other in alike}) > 1:
        name = f"{name} of {result.place}"
    seeds = {getattr(other.row, "seed", None) for other in alike} - {None}
    seed = getattr(result.row, "seed", None)
    return name if seed is None or len(seeds) == 1 else f"{name}, seed {seed}"


def _published_table(paper: published.Table, results: Sequence[Result], *, with_reasons: bool) -> Table:
    """Returns a published table, and a line for each encoder with a result that it has a column for.

    The line stands below the row whose numbers the encoder's recipe is for, as SimCLR's, or else below all rows.

    Args:
        paper: The published table.
        results: All results.
        with_reasons: Whether notes say why an encoder has no line.
    """
    lines: list[list[Cell | str]] = []
    below: list[list[list[Cell | str]]] = [[] for _ in (*paper.rows, None)]
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
        results_of_encoder = [result for result in reversed(results) if result.name == name]
        if line := _our_line(paper, name, results_of_encoder):
            row = _row_of_recipe(paper, results_of_encoder)
            below[len(paper.rows) if row is None else paper.rows.index(row)].append(line)
        elif with_reasons:
            notes.append(f"no line of {name}: {_why_no_line(paper, results_of_encoder)}")
    title = f"{paper.paper}, {paper.number}: {paper.title}\n{paper.setting}"
    in_order = [line for i, row in enumerate(lines) for line in (row, *below[i])] + below[-1]
    return make_table(["", *(column.name for column in paper.columns)], in_order, title=title, notes=notes)


def _row_of_recipe(paper: published.Table, results: Sequence[Result]) -> published.Row | None:
    """Returns the row of a published table whose numbers the recipe of an encoder is for.

    Args:
        paper: The published table.
        results: The encoder's results, one of which fits a column.

    Returns:
        The row; None if the recipe is for none, or nothing is known of the training.
    """
    known = experiments()
    for result in results:
        experiment = known.get(result.training.recipe) if result.training is not None else None
        for row, column in experiment.positions(paper.id) if experiment is not None else ():
            if result.fits(paper, column):
                return row
    return None


def _why_no_line(paper: published.Table, results: Sequence[Result]) -> str:
    """Returns words for why an encoder has no line in a published table.

    Args:
        paper: The published table.
        results: The encoder's results, none of which fits a column.
    """
    pairs = [(result, column) for result in results for column in paper.columns if result.row.fits(column)]
    if not pairs:
        ours = _measured({(result.row.protocol, result.row.data): None for result in results})
        columns = [column for column in paper.columns if column.data != "average"]
        return f"its results are {ours}; the columns are {_measured({(x.protocol, x.data): None for x in columns})}"
    if all(result.training is not None and result.training.extended for result, _ in pairs):
        return "the run went on after its end, as no paper's did"

    def differing(pair: tuple[Result, Column]) -> dict[str, Any]:
        wanted = telling_conditions(paper, pair[1])
        return {key: value for key, value in wanted.items() if not _equal(pair[0].conditions.get(key), value)}

    nearest = min(pairs, key=lambda pair: len(differing(pair)))
    key, value = next(iter(differing(nearest).items()))
    known = nearest[0].conditions.get(key)
    ours = "nothing is known of that" if known is None else f"it has {format_condition(key, known)}"
    return f"the column {nearest[1].name} is of {format_condition(key, value)}; {ours}"


def _measured(evaluations: Iterable[tuple[str, str]]) -> str:
    """Returns words for evaluations, as ``linear of cifar10, imagenet``; of many data sets the first three."""
    by_protocol: dict[str, list[str]] = {}
    for protocol, data in evaluations:
        by_protocol.setdefault(protocol, []).append(data)
    return " and ".join(
        f"{protocol} of {', '.join(data[:3])}{', ...' if len(data) > 3 else ''}"
        for protocol, data in by_protocol.items()
    )


def _our_line(paper: published.Table, name: str, results: list[Result]) -> list[Cell | str]:
    """Returns the line of one encoder in a published table; an empty one if no result fits a column.

    Args:
        paper: The published table.
        name: The encoder's name.
        results: Its results, the newest first.
    """
    fitting: dict[str, Result | None] = {}
    scores: dict[str, list[float]] = {}
    for column in paper.columns:
        candidates = [result for result in results if result.fits(paper, column)]
        nearest = min(candidates, key=lambda r: _departure_rank(r, column, paper.paper), default=None)
        fitting[column.name] = nearest
        repeated = [] if nearest is None else [r for r in candidates if _repeats(r.row, nearest.row)]
        scores[column.name] = [getattr(result.row, column.metric) for result in repeated]
    pairs = [(column, result) for column in paper.columns if (result := fitting[column.name]) is not None]
    if not pairs:
        return []
    cells = []
    for column in paper.columns:
        average = _average(paper, scores) if column.data == "average" else None
        cells.append(_cell(scores[column.name] if average is None else [average]))
    remarks = _training_remarks(paper, pairs)
    counts = [len(column_scores) for column_scores in scores.values() if column_scores]
    if (most := max(counts)) > 1:
        seeds = most if min(counts) == most else f"{min(counts)} to {most}"
        remarks.append(f"mean of {seeds} seeds of the evaluation")
    remarks += [words for column, result in pairs for words in departures(result.row, column, paper.paper)]
    return [", ".join([f"ours: {name}", *dict.fromkeys(remarks)]), *cells]


def _departure_rank(result: Result, column: Column, paper: str) -> tuple[bool, bool, int]:
    """Returns a rank that is lower for an evaluation that is nearer to the paper's own."""
    words, variant = departures(result.row, column, paper), result.row.variant
    return variant in words, variant == "logistic regression", len(words)


def _repeats(row: ResultRow, other: ResultRow) -> bool:
    """Returns whether two rows are of one evaluation, but for its seed and what was chosen with it."""
    names = {"seed", *chosen_fields(other)}
    first, second = ([(name, value) for name, value in _measurement(r) if name not in names] for r in (row, other))
    return first == second


def _cell(scores: Sequence[float]) -> Cell:
    """Returns the cell of a score, or of the mean of several with their standard deviation; empty if there is none."""
    if len(scores) < 2:
        return Cell.per_cent(scores[0]) if scores else EMPTY
    mean = Cell.per_cent(fmean(scores))
    return replace(mean, text=f"{mean.text} ± {100 * stdev(scores):.2f}")


def _average(paper: published.Table, scores: Mapping[str, Sequence[float]]) -> float | None:
    """Returns the mean over all columns of a table but its averages; None if one has no result."""
    parts = [scores[column.name] for column in paper.columns if column.data != "average"]
    return fmean(fmean(part) for part in parts) if all(parts) else None


def _training_remarks(paper: published.Table, pairs: Sequence[tuple[Column, Result]]) -> list[str]:
    """Returns words for how our encoder was trained, as far as the table or our recipe says that it matters.

    They are the recipe, what is different from the columns, the conditions by which the table's rows differ, and the
    changed settings that none of these tells.
    """
    # Of a row from before its run was changed, the row alone says by which recipe its encoder was trained.
    recipes = [result.training.recipe if result.training else result.row.recipe for _, result in pairs]
    remarks = [recipe for recipe in recipes if recipe is not None]
    by_rows = {key for row in paper.rows for key, value in vars(row.conditions).items() if value is not None}
    for column, result in pairs:
        if (training := result.training) is None:
            continue
        named = result.differences(column)
        named |= {key: result.conditions[key] for key in vars(Conditions()) if key in by_rows & {*result.conditions}}
        words = {key: format_condition(key, value) for key, value in named.items() if key != "schedule_epochs"}
        if training.progress:
            words["epochs"] = training.progress
        elif "epochs" in words and result.row.epoch is not None:
            words["epochs"] = f"epoch {result.row.epoch} of a run of {result.conditions['schedule_epochs']}"
        stated = {key for key, value in vars(column.conditions).items() if value is not None} | by_rows
        rest = [change for change, condition in training.changes if condition not in stated]
        rest = [change for change in rest if not change.startswith("seed=")]  # a paper's number is of any seed
        remarks += words.values()
        remarks += rest if len(rest) <= MOST_CHANGES else [f"{len(rest)} other settings"]
    return remarks


def format_condition(name: str, value: Any) -> str:
    """Returns a condition of a published number in words, as ``100 epochs``.

    Args:
        name: A field of :class:`infomax.papers.published.Conditions`, or ``data``.
        value: Its value, not None.
    """
    if name == "data":
        return f"trained on {value}"
    if name == "schedule_epochs":
        return f"a run of {value} epochs"
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
