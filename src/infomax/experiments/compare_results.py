"""Results of a comparison: a line for each method, paired differences from the best, and what is recommended."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from infomax.data.splits import counted, listed
from infomax.evaluation.intervals import Difference
from infomax.evaluation.paired import compare_over_seeds
from infomax.experiments.compare import Contest, full_training
from infomax.experiments.sweep import SweepRun
from infomax.experiments.sweep_results import BASELINES, INITIAL, SweepCell, SweepResult, training_seconds
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import Run
from infomax.runs.training_verdicts import standing_verdicts
from infomax.runtime.options import to_argv

UNTRAINED = BASELINES[0]
GOES_ON = "the same command goes on"
MOST_NAMED = 5  # methods that a list in the recommendation names; the table has all
FAR_OFF = 0.1  # share of the budget by which a run's time may miss it before that is said


@dataclass(frozen=True)
class Recommendation:
    """A frozen dataclass that holds which methods are best, and how sure that is."""

    text: str
    """The recommendation with its uncertainty, in one line."""
    methods: tuple[str, ...] = ()
    """The best method, and those that cannot be distinguished from it; none if nothing is recommended."""
    command: str = ""
    """The command that trains the best method for as long as its recipe says; empty if none is recommended, or runs are
    still to be made."""


@dataclass(frozen=True)
class MethodResult:
    """A frozen dataclass that holds what a comparison measured of one method so far."""

    method: str
    runs: tuple[SweepRun, ...]
    cells: tuple[SweepCell, ...]
    """Scores by each evaluation, the one that ranks first."""
    measures: tuple[float, ...]
    """Measures without labels of the runs that are trained."""
    failures: tuple[str, ...]
    """What failed of the method or of its runs."""

    @property
    def score(self) -> float | None:
        """Returns the mean of what ranks the methods; None if there is nothing yet."""
        if self.cells:
            return fmean(self.cells[0].scores) if self.cells[0].scores else None
        return fmean(self.measures) if self.measures else None

    @property
    def trained(self) -> tuple[SweepRun, ...]:
        """Returns the runs that are trained to their end."""
        return tuple(run for run in self.runs if run.trained)

    @property
    def epochs(self) -> int | None:
        """Returns the epochs of each run; None if they are not known."""
        return self.runs[0].specification.recipe.epochs if self.runs else None

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """Returns the training time of each run that is trained."""
        return tuple(training_seconds(run.folder) for run in self.trained)

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """Returns the verdicts on the runs, as ``total collapse (failed)``, each with its number of runs."""
        names: Counter[str] = Counter()
        for run in self.runs:
            if not (run.folder / "config.json").is_file():
                continue
            verdicts = standing_verdicts(Run(run.folder)) or ()
            names.update({f"{verdict.name} ({verdict.state})": 1 for verdict in verdicts})
            if Run(run.folder).collapsed and not verdicts:
                names["collapse (failed)"] += 1
        return dict(names)

    @property
    def is_sound(self) -> bool:
        """Returns whether nothing failed, and no run has failed by its health."""
        return not self.failures and not any(name.endswith("(failed)") for name in self.verdicts)

    @property
    def words(self) -> str:
        """Returns what is to be said of the trainings, in a cell."""
        count = len(self.runs)
        words = [name if n == count else f"{name} in {n} of {count}" for name, n in self.verdicts.items()]
        words += [f"failed: {failure}" for failure in self.failures]
        if not words and len(self.trained) < count:
            return f"{len(self.trained)} of {count} trained"
        return "; ".join(words) or "no sign of trouble"


@dataclass(frozen=True)
class Comparison:
    """A frozen dataclass that holds what a comparison measured so far. ``str(comparison)`` is what is printed."""

    contest: Contest
    swept: SweepResult
    """The runs and their cells, as of a sweep."""
    speeds: Mapping[str, float]
    """Images a second of each method, as they were measured before the runs."""
    failures: Mapping[str, str]
    """What failed, by the name of the run folder or the method."""
    measures: Mapping[str, float]
    """Measures without labels, by the name of the run folder."""

    @cached_property
    def methods(self) -> tuple[MethodResult, ...]:
        """The methods, the best first and those without a score last; without labels in their usual order."""
        results = [self._method(entrant.method) for entrant in self.contest.entrants]
        if self.contest.why_no_labels:
            return tuple(results)
        return tuple(sorted(results, key=lambda x: (x.score is None, -(x.score or 0.0))))

    def _method(self, name: str) -> MethodResult:
        runs = tuple(run for run in self.swept.runs if run.variant.experiment.method == name)
        labels = {run.variant.label for run in runs}
        cells = tuple(replace(c, line=name, paper=None, deviation=None) for c in self.swept.cells if c.line in labels)
        measures = [self.measures[run.folder.name] for run in runs if run.folder.name in self.measures]
        failures = [self.failures[name]] if name in self.failures else []
        failures += [
            f"seed {run.seed}: {failure}" for run in runs if (failure := self.failures.get(run.folder.name)) is not None
        ]
        return MethodResult(name, runs, cells, tuple(measures), tuple(failures))

    @property
    def baselines(self) -> tuple[SweepCell, ...]:
        """The cells of the untrained encoder and of the raw pixels, and of the initial encoder of ``--init``."""
        return (*self.swept.baselines, *(cell for cell in self.swept.cells if cell.line == INITIAL))

    @cached_property
    def unfinished(self) -> str:
        """How far a comparison is that still has runs to make, as ``with 5 of 6 runs``; empty if none is left.

        Runs that are trained and not evaluated are told apart from those that are both. What failed is not left,
        although the same command tries it again.
        """
        left = [run for run in self.swept.runs if run.remaining]
        done, trained = len(self.swept.runs) - len(left), sum(run.trained for run in self.swept.runs)
        waiting = [run for run in left if run.folder.name not in self.failures]
        tried = {run.variant.experiment.method for run in self.swept.runs} | self.failures.keys()
        untried = [entrant for entrant in self.contest.entrants if entrant.method not in tried]
        total = len(self.swept.runs) + len(untried) * self.contest.options.seeds
        if not (waiting or untried):
            return ""
        if done == trained:
            return f"with {done} of {total} runs"
        return f"with {trained} of {total} runs trained and {done} evaluated"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the evaluations, the one that ranks first; none without labels."""
        cells = [cell for result in self.methods for cell in result.cells]
        return tuple(dict.fromkeys(cell.column for cell in cells))

    @property
    def best(self) -> MethodResult | None:
        """The method that others are compared with: the best whose runs are sound, or else the best; None if no run
        was measured."""
        scored = [result for result in self.methods if result.score is not None and result.cells]
        return next((result for result in scored if result.is_sound), scored[0] if scored else None)

    def difference(self, cell: SweepCell) -> Difference | str:
        """Returns how much better a line is than the best method, by the same evaluation.

        With several seeds, the interval is over seeds and test images; with one, over the images. Scores that are not
        of single images are compared over the seeds alone.

        Returns:
            The difference; or why there is none, empty if there is nothing to compare.
        """
        best = self.best
        against = next((x for x in best.cells if x.column == cell.column), None) if best is not None else None
        if against is None or cell.line == against.line:
            return ""
        if cell in self.baselines:  # which have no seeds, and are compared with each seed of the best
            compared = compare_cells(against, cell)
            return compared if isinstance(compared, str) else compared.reversed()
        return compare_cells(cell, against)

    @cached_property
    def recommendation(self) -> Recommendation:
        """The recommendation with its uncertainty."""
        return recommend(self)

    def table(self) -> Table:
        """Makes the table: a line for each method, the best first, and below them what all must beat."""
        columns = self.columns
        rows = [self._row(result) for result in self.methods]
        for line in dict.fromkeys(cell.line for cell in self.baselines):
            cells = {cell.column: cell for cell in self.baselines if cell.line == line}
            texts = [cells[c].ours if c in cells else EMPTY for c in columns]
            difference = _format_difference(self.difference(cells[columns[0]])) if columns[0] in cells else EMPTY
            rows.append([line, texts[0], difference, *texts[1:], EMPTY, EMPTY, EMPTY, EMPTY])
        if columns:
            names = ["in %", columns[0], "over the best", *columns[1:]]
        else:
            names = ["", "not by labels: " + self._measure_label]
        names += ["epochs", "minutes", "seeds", "trainings"]
        return make_table(names, rows, title=self._title, notes=list(self._notes()))

    def _row(self, result: MethodResult) -> list[Cell | str]:
        """Returns the cells of a method."""
        if self.columns:
            by_column = {cell.column: cell for cell in result.cells}
            scores = [by_column[c].ours if c in by_column else EMPTY for c in self.columns]
            first = by_column.get(self.columns[0])
            if result is self.best:
                difference = Cell("the best")
            else:
                difference = _format_difference(self.difference(first)) if first is not None else EMPTY
            shown: list[Cell | str] = [scores[0], difference, *scores[1:]]
        else:
            shown = [EMPTY if result.score is None else Cell(f"{result.score:.3g}", result.score)]
        minutes = fmean(result.seconds) / 60 if result.seconds else None
        done, planned = len(result.trained), self.contest.options.seeds
        return [
            result.method,
            *shown,
            EMPTY if result.epochs is None else Cell(f"{result.epochs:,}", result.epochs),
            EMPTY if minutes is None else Cell(f"{minutes:.1f}", minutes),
            Cell(str(done) if done == planned else f"{done} of {planned}", done),
            result.words,
        ]

    @property
    def _title(self) -> str:
        contest = self.contest
        return f"{contest.options.data}, {contest.images:,} images; each run has {contest.budget}"

    @property
    def _measure_label(self) -> str:
        from infomax.experiments.compare_measure import MEASURES, trusted_measure

        return MEASURES[trusted_measure().measure].label

    def _notes(self) -> Iterator[str]:
        """Yields the lines below the table."""
        if kinds := self._interval_kinds():
            yield f"over the best: {'; '.join(kinds)}"
        if self.swept.changes:
            yield f"all runs: with {' '.join(self.swept.changes)}"
        if self.contest.why_no_labels and self.measures:
            from infomax.experiments.compare_measure import trust_words

            yield trust_words()
        yield from self.time_notes()

    def _interval_kinds(self) -> list[str]:
        cells = [cell for result in self.methods for cell in result.cells[:1]]
        differences = [self.difference(cell) for cell in cells]
        return list(dict.fromkeys(x.kind for x in differences if isinstance(x, Difference)))

    def time_notes(self) -> Iterator[str]:
        """Yields a line for each method whose runs took another time than the budget."""
        budget = self.contest.budget.seconds
        for result in self.methods if budget else ():
            if result.seconds and budget and abs(off := fmean(result.seconds) / budget - 1) > FAR_OFF:
                side = "more" if off > 0 else "less"
                yield f"{result.method}: its trainings took {abs(off):.0%} {side} time than the budget"

    def record(self) -> dict[str, Any]:
        """Returns the results as plain values for a file; scores and differences are in per cent and shares."""
        return {
            "recommendation": asdict(self.recommendation),
            "methods": [self._method_record(result) for result in self.methods],
            "failures": dict(self.failures),
        }

    def _method_record(self, result: MethodResult) -> dict[str, Any]:
        values: dict[str, Any] = {"method": result.method, "epochs": result.epochs, "seconds": list(result.seconds)}
        values |= {"verdicts": result.verdicts, "failures": list(result.failures), "measures": list(result.measures)}
        values["scores"] = {cell.column: list(cell.scores) for cell in result.cells}
        differences = {cell.column: self.difference(cell) for cell in result.cells}
        values["over_best"] = {
            column: {**asdict(x), "verdict": x.verdict}
            for column, x in differences.items()
            if isinstance(x, Difference)
        }
        return values

    def __str__(self) -> str:
        lines = [self.table().text(), "", self.recommendation.text]
        if self.recommendation.command:
            lines.append(f"to go on with it, for as long as its recipe says: {self.recommendation.command}")
        return "\n".join(lines)


def compare_cells(cell: SweepCell, reference: SweepCell) -> Difference | str:
    """Returns how much better the results of one cell are than those of another, seed by seed.

    Args:
        cell: The cell that is compared.
        reference: The one that it is compared with, by the same evaluation.

    Returns:
        The difference; or why there is none, empty if there is nothing to compare.
    """
    if cell.measured is None or reference.measured is None or cell.measured.metric != reference.measured.metric:
        return ""
    groups = cell.measured.pairs(reference.measured)
    pairs = [group[0] for group in groups]
    return compare_over_seeds(pairs) if pairs else ""


def _format_difference(compared: Difference | str) -> Cell:
    """Returns the cell of a difference; the reason why there is none stands in it."""
    if isinstance(compared, str):
        return Cell(compared)
    return Cell(str(compared), 100 * compared.value)


def recommend(comparison: Comparison) -> Recommendation:
    """Returns which methods are best, and how sure that is.

    A method whose runs did not all succeed, or that has collapsed, is not recommended. Neither is any method if the
    best one is not clearly better than the untrained encoder or the one that all runs started from, or if there are no
    labels. Raw pixels that it does not beat are named.

    Args:
        comparison: What was measured.
    """
    contest = comparison.contest
    if contest.why_no_labels:
        return Recommendation(
            f"no method is recommended: without labels no measure is known to rank methods ({contest.why_no_labels}); "
            "with a few labelled images infomax evaluate few-shot does"
        )
    best, unfinished = comparison.best, comparison.unfinished
    so_far = f" so far, {unfinished}" if unfinished else ""
    if best is None and unfinished and not comparison.failures:
        return Recommendation(f"no method is recommended{so_far}: none is evaluated yet; {GOES_ON}")
    if best is None or not best.is_sound:
        after = f"; {GOES_ON}" if unfinished else ""
        return Recommendation(
            f"no method is recommended{so_far}: none was trained and evaluated without a failure{after}"
        )
    unbeaten = _not_beaten(comparison, best)
    if any(cell.line.startswith((UNTRAINED, INITIAL)) for cell, _ in unbeaten):
        longer = "a larger --budget trains" if contest.options.epochs is None else "more --epochs train"
        return Recommendation(
            f"no method is recommended{so_far}: {best.method}, the best, is {_beside(unbeaten)}; "
            f"{GOES_ON if unfinished else f'{longer} longer'}"
        )
    tied, others = [best], []
    for result in comparison.methods:
        if result is best or not result.cells or result.score is None or not result.is_sound:
            continue
        compared = comparison.difference(result.cells[0])
        is_worse = isinstance(compared, Difference) and compared.verdict == "clearly worse"
        (others if is_worse else tied).append(result)
    text = _words(comparison, tied, others)
    if unfinished:  # another method may turn out to be the best
        return Recommendation(text, tuple(result.method for result in tied))
    command = shlex.join(["infomax", "pretrain", *to_argv(full_training(contest, best.method))])
    return Recommendation(text, tuple(result.method for result in tied), command)


def _not_beaten(comparison: Comparison, best: MethodResult) -> list[tuple[SweepCell, Difference]]:
    """Returns the baselines that the best method is not clearly better than, the best one first."""
    cells = [cell for cell in comparison.baselines if cell.column == best.cells[0].column]
    compared = [(cell, compare_cells(best.cells[0], cell)) for cell in cells]
    unbeaten = [(cell, x) for cell, x in compared if isinstance(x, Difference) and x.verdict != "clearly better"]
    return sorted(unbeaten, key=lambda pair: -fmean(pair[0].scores))


def _beside(unbeaten: Sequence[tuple[SweepCell, Difference]]) -> str:
    """Returns how a method compares with baselines that it does not beat, as ``not clearly better than the raw pixels
    (48.9 %)``."""
    words: dict[str, list[str]] = {}
    for cell, difference in unbeaten:
        words.setdefault(difference.verdict, []).append(f"the {cell.line} ({cell.ours.text} %)")
    return ", and ".join(f"{verdict} than {' and '.join(names)}" for verdict, names in words.items())


def _words(comparison: Comparison, tied: Sequence[MethodResult], others: Sequence[MethodResult]) -> str:
    """Returns the recommendation in one line."""
    best, column = tied[0], tied[0].cells[0].column
    scores = [f"{result.score or 0.0:.1f}" for result in tied]
    seeds = min(len(result.cells[0].scores) for result in tied)
    count = f"{seeds} seed{'s' if seeds != 1 else ''}"
    if len(tied) > 1:
        named = [result.method for result in tied]
        names, numbers = f"{', '.join(named[:-1])} or {named[-1]}", f"{', '.join(scores[:-1])} and {scores[-1]}"
        if len(tied) > MOST_NAMED:
            names = f"{', '.join(named[:MOST_NAMED])} or {counted(len(tied) - MOST_NAMED, 'other')}"
            numbers = f"{scores[0]} to {scores[-1]}"
        text = f"{names}: {numbers} % by {column}, not distinguishable with {count}"
    else:
        text = f"{best.method}: {scores[0]} % by {column}"
        if others:
            compared = comparison.difference(others[0].cells[0])
            assert isinstance(compared, Difference)
            text += f", clearly better than the others with {count}; {others[0].method} is next, {compared.numbers}"
    if seeds == 1 and not (comparison.unfinished and comparison.contest.options.seeds > 1):
        text += "; another seed may give another order, which --seeds 3 would show"
    if others and len(tied) > 1:
        text += f"; clearly worse: {listed([result.method for result in others], MOST_NAMED)}"
    text += _second_opinion(comparison, tied)
    if unbeaten := _not_beaten(comparison, best):
        text += f"; {best.method} is {_beside(unbeaten)}"
    left_out = [result.method for result in comparison.methods if not result.is_sound]
    text += f"; not considered, as trainings failed: {', '.join(left_out)}" if left_out else ""
    if unfinished := comparison.unfinished:
        waiting = [result.method for result in comparison.methods if result.score is None and result.is_sound]
        missing = f"; not evaluated yet: {', '.join(waiting)}" if waiting else ""
        return f"so far, {unfinished}, {text}{missing}; {GOES_ON}"
    return text


def _second_opinion(comparison: Comparison, tied: Sequence[MethodResult]) -> str:
    """Returns words for another evaluation by which another method is best; empty if there is none."""
    words = ""
    for column in comparison.columns[1:]:
        scores = {
            r.method: fmean(c.scores) for r in comparison.methods for c in r.cells if c.column == column and c.scores
        }
        first = max(scores, key=lambda name: scores[name], default=None)
        if first is not None and first not in [result.method for result in tied]:
            words += f"; by {column} {first} is best, with {scores[first]:.1f} %"
    return words
