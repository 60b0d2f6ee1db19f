"""Ranks runs, and encoders that they kept on the way, without labels, and says how far to trust the order.

Only runs of one method are compared. How well each measure's order agreed with that by labels was found by
``benchmarks/choosing.py``, which writes ``choosing.json`` beside this file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from infomax.data.images.contract import Images
from infomax.data.splits import counted, preview_images
from infomax.evaluation.options import ComputeOptions
from infomax.experiments.kept_encoders import KeptEncoder, open_encoders
from infomax.experiments.label_free import MEASURES, collapse_of, measure_features, measure_metrics, sample_images
from infomax.experiments.options import ChooseOptions
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.run_folder import Run, trained_steps_of
from infomax.runtime.csv_text import csv_text
from infomax.runtime.files import write_atomic
from infomax.runtime.json_values import parse_json
from infomax.runtime.options import option_names, pick
from infomax.runtime.threads import threads_within_quota

STUDY = "choosing.json"
LEAST_RUNS = 8  # of fewer, a bootstrap's interval is too narrow
TAKE = "* the one to take; labels, as few as there are, say more: infomax evaluate few-shot"


@dataclass(frozen=True)
class Agreement:
    """A frozen dataclass that holds how the order by one measure agreed with that of k-NN, on one data set."""

    data: str
    """Name of the data set of the study."""
    spearman: float
    """Spearman correlation with held-out k-NN, in the direction that the measure's authors call the better one."""
    interval: tuple[float, float]
    """Its 95 % interval, by bootstrap over runs."""
    runs: int
    beats_last: bool
    """Whether the encoder that the measure chooses within a run loses less to the best one than the last one does."""

    def words(self) -> str:
        """Returns the correlation with its interval, and of how many runs it is."""
        low, high = self.interval
        return f"{self.spearman:.2f} ({low:.2f} to {high:.2f}) over {self.runs} runs on {self.data}"


@dataclass(frozen=True)
class Trust:
    """A frozen dataclass that holds what the study found of the order by one measure, of runs of one method."""

    measure: str
    """Name of the measure."""
    agreements: tuple[Agreement, ...]
    """How it agreed with k-NN on each data set of the study. It is trusted as far as on the worst of them."""

    @property
    def low(self) -> float:
        """The lowest end of the intervals."""
        return min(agreement.interval[0] for agreement in self.agreements)

    @property
    def has_runs_enough(self) -> bool:
        """Whether each interval is of runs enough."""
        return all(agreement.runs >= LEAST_RUNS for agreement in self.agreements)

    @property
    def helps(self) -> bool:
        """Whether all intervals leave out 0, and are of runs enough."""
        return self.low > 0 and self.has_runs_enough

    @property
    def is_reversed(self) -> bool:
        """Whether an interval lies below 0: the order was the reverse of that of k-NN."""
        return any(agreement.interval[1] < 0 for agreement in self.agreements)

    @property
    def takes_earlier_ones(self) -> bool:
        """Whether an encoder from within a run may be chosen in place of its last one."""
        return self.helps and all(agreement.beats_last for agreement in self.agreements)

    def correlations(self) -> str:
        """Returns the correlations in words."""
        return f"a Spearman correlation of {' and '.join(agreement.words() for agreement in self.agreements)}"

    def words(self) -> str:
        """Returns words on how far to trust the order."""
        verdict = "a hint, no proof" if self.helps else "do not trust this order"
        if not self.has_runs_enough:
            verdict = f"too few runs for an interval, {verdict}"
        return f"in the study its order agreed with that of k-NN by {self.correlations()}: {verdict}"


@dataclass(frozen=True)
class Candidate:
    """A frozen dataclass that holds one encoder that may be chosen."""

    encoder: str
    """Its folder, as a run's or as ``runs/a/epochs/50``."""
    method: str
    epoch: int | None
    """Epoch, from 1, after which it was kept; None for the encoder of a whole run."""
    steps: int
    """Steps that it was trained for."""
    measures: Mapping[str, float]
    """The measures by name; none if it is left out."""
    rank: int | None
    """Its place among the encoders of its method, from 1; None if it is left out."""
    chosen: bool
    """Whether it is the one to take of its method."""
    progress: str
    """Steps of all steps, as ``50 of 100 steps``, if its run is not finished; else empty."""
    left_out: str
    """Why it is no candidate, as the verdict on its collapse; empty if it is one."""


@dataclass(frozen=True)
class Choice:
    """A frozen dataclass that holds ranked encoders. ``str(choice)`` is the text that ``infomax choose`` prints."""

    candidates: tuple[Candidate, ...]
    """All encoders, method by method, the best first; those that are left out come last."""
    ranked_by: Mapping[str, str]
    """Names of the measures that rank, by method."""
    trust: Mapping[str, Trust | None]
    """What the study found of these, by method; None of a method that it did not cover."""
    images: int
    """Number of images that were measured."""
    data: str

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The encoder to take of each method."""
        return tuple(candidate for candidate in self.candidates if candidate.chosen)

    def records(self) -> list[dict[str, Any]]:
        """Returns a flat dictionary of plain values for each encoder, as for a file."""
        return [
            {**{key: value for key, value in asdict(c).items() if key != "measures"}, **c.measures}
            for c in self.candidates
        ]

    def write(self, file: Path) -> None:
        """Writes :meth:`records` to a file, as lines of JSON, or as a table with commas if it ends in ``.csv``."""
        records = self.records()
        if file.suffix == ".csv":
            columns = list(dict.fromkeys(key for record in records for key in record))
            text = csv_text([columns, *([record.get(key, "") for key in columns] for record in records)])
        else:
            text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomic(file, text.encode(errors="surrogateescape"))

    def table(self) -> Table:
        """Makes the table: a line for each encoder that is ranked, and notes on the order and on the others."""
        ranked = [candidate for candidate in self.candidates if candidate.rank is not None]
        shown = [name for name in MEASURES if any(name in candidate.measures for candidate in ranked)]
        rows = [
            [
                c.encoder,
                c.method,
                f"{c.steps:,}",
                f"{c.rank}{' *' if c.chosen else ''}",
                *(Cell(f"{c.measures[name]:.3g}", c.measures[name]) if name in c.measures else EMPTY for name in shown),
            ]
            for c in ranked
        ]
        columns = ["", "method", "steps", "rank", *(MEASURES[name].label for name in shown)]
        title = f"{counted(len(ranked), 'encoder')}, without labels, by {counted(self.images)} of {self.data}"
        return make_table(columns, rows, title=title, notes=list(self._notes()))

    def __str__(self) -> str:
        return self.table().text()

    def _notes(self) -> Iterator[str]:
        """Yields a line on the order of each method, and on each encoder that is left out."""
        for candidate in self.candidates:
            if candidate.left_out:
                yield f"left out: {candidate.encoder}: {candidate.left_out}"
        for candidate in self.candidates:
            if candidate.progress and not candidate.left_out:
                yield f"not finished: {candidate.encoder}: {candidate.progress}; measures change while a run trains"
        for method, measure in self.ranked_by.items():
            yield from self._words_on(method, measure)
        if len(self.ranked_by) > 1:
            yield "ranks are within a method: across methods no measure means the same"
        if self.chosen:
            yield TAKE

    def _words_on(self, method: str, measure: str) -> Iterator[str]:
        ranked = [c for c in self.candidates if c.method == method and c.rank is not None]
        if len(ranked) < 2:
            yield f"{method}: {ranked[0].encoder} is the only one of this method; there is nothing to rank"
            return
        trust, order = self.trust[method], f"{method}: by {MEASURES[measure].label}, {MEASURES[measure].direction}"
        yield (
            f"{order}; {trust.words()}"
            if trust
            else f"{order}; the study says nothing of that: do not trust this order"
        )
        if words := self.epochs_words(method):
            yield f"{method}: {words}"

    def epochs_words(self, method: str) -> str:
        """Returns which encoder of one run is taken, in words; empty if none from within a run was ranked."""
        if all(c.epoch is None for c in self.candidates if c.method == method and c.rank is not None):
            return ""
        trust = self.trust[method]
        if trust is not None and trust.takes_earlier_ones:
            return "within a run the measure's choice lost less than the last encoder did, in the study"
        return "within a run the last encoder is taken: in the study the measure chose no better one"


def choose(
    *runs: str | PathLike[str],
    epochs: bool = False,
    by: str | None = None,
    images: int = 1000,
    device: str = "auto",
    workers: int | None = None,
    feature_precision: str = "32",
    no_cache: bool = False,
    quiet: bool = True,
) -> Choice:
    """Ranks runs without labels, as ``infomax choose`` does.

    Args:
        runs: Run folders, which were trained on the same images.
        epochs: Rank the encoders that the runs kept on the way too.
        by: Measure that ranks, as rankme. Default: for each method the one that the study found best.
        images: Images to measure on, of those that the runs were trained on, at equal distances.
        device: Kind of device; auto takes a CUDA GPU if there is one.
        workers: Processes that decode image files. Default: one a core, at most 8.
        feature_precision: Bits of each value of a feature; 16 takes half the memory and disk.
        no_cache: Neither keep features on disk nor use those that are there.
        quiet: Show no progress bars.

    Returns:
        The encoders with their measures and ranks; ``print(infomax.choose("runs/a", "runs/b"))`` shows the table.

    Raises:
        ValueError: if there is nothing to choose from, the runs were trained on different images, or an encoder's
            features are NaN or infinite.

    Example:
        >>> choice = infomax.choose("runs/a", "runs/b", "runs/c")  # doctest: +SKIP
        >>> [(candidate.encoder, candidate.rank) for candidate in choice.candidates]  # doctest: +SKIP
    """
    options = pick(ChooseOptions, {**locals(), "runs": tuple(map(Path, runs))})
    return rank_runs(options, quiet=quiet)


@threads_within_quota()
def rank_runs(options: ChooseOptions, *, quiet: bool) -> Choice:
    """Ranks runs; see :func:`choose` for what it returns and raises.

    Args:
        options: The options.
        quiet: Whether to show no progress bars.
    """
    encoders = open_encoders(options)
    runs = list(dict.fromkeys(encoder.run for encoder in encoders))
    images = _open_images(runs, options.images)
    compute = ComputeOptions(**{name: getattr(options, name) for name in option_names(ComputeOptions)})
    measured = [_measure(encoder, images, compute, quiet) for encoder in encoders]
    return _rank(measured, options.by, images=len(images), data=runs[0].location.data)


def _open_images(runs: Sequence[Run], count: int) -> Images:
    """Opens the images that the runs were trained on: where the first run finds them that does.

    Raises:
        ValueError: if none finds them, or they have changed.
    """
    failure = ""
    for run in runs:
        try:
            source = run.location.open()
        except (ValueError, OSError) as error:
            failure = failure or str(error)
            continue
        if source.pretraining.fingerprint() != run.config["fingerprint"]:
            failure = failure or f"the images of {source.name} are not those that {run.path} was trained on"
            continue
        return sample_images(preview_images(source), count)
    raise ValueError(f"the images that the runs were trained on cannot be opened: {failure}")


def _measure(kept: KeptEncoder, images: Images, options: ComputeOptions, quiet: bool) -> Candidate:
    """Returns an encoder with its measures and no rank yet; one that has collapsed is not measured."""
    run, encoder, epoch = kept.run, kept.folder, kept.epoch
    steps, left_out = trained_steps_of(encoder), collapse_of(run, encoder)
    values: dict[str, float] = {}
    if not left_out:
        values = measure_features(encoder, run, images, options, quiet=quiet) | measure_metrics(run, steps)
    progress = run.progress(steps) if epoch is None else ""
    return Candidate(str(encoder), run.recipe.method.name, epoch, steps, values, None, False, progress, left_out)


def _rank(measured: Sequence[Candidate], by: str | None, *, images: int, data: str) -> Choice:
    """Returns the encoders in their order, method by method."""
    candidates: list[Candidate] = []
    ranked_by: dict[str, str] = {}
    trust: dict[str, Trust | None] = {}
    for method in dict.fromkeys(candidate.method for candidate in measured):
        group = [c for c in measured if c.method == method and not c.left_out]
        if group:
            ranked_by[method], trust[method] = _choose_measure(method, group, by)
            candidates += _in_order(group, ranked_by[method], trust[method])
    candidates += [candidate for candidate in measured if candidate.left_out]
    return Choice(tuple(candidates), ranked_by, trust, images, data)


def _in_order(group: Sequence[Candidate], name: str, trust: Trust | None) -> list[Candidate]:
    """Returns the encoders of one method in the order of a measure; the chosen one is the best of the last ones.

    One that was kept on the way is chosen only if the study says that the measure's choice beats the last one.
    """
    score, lowest = MEASURES[name].score, float("-inf")
    order = sorted(group, key=lambda c: -score(c.measures[name]) if name in c.measures else -lowest)
    takes_any = trust is not None and trust.takes_earlier_ones
    best = next((c for c in order if takes_any or c.epoch is None), order[0])
    return [replace(candidate, rank=rank, chosen=candidate is best) for rank, candidate in enumerate(order, start=1)]


def _choose_measure(method: str, group: Sequence[Candidate], by: str | None) -> tuple[str, Trust | None]:
    """Returns the measure that ranks runs of a method, and what the study found of it.

    It is the one that all of them have whose correlation in the study has the highest lower end of its interval, on the
    data set where that is lowest. Of a method that the study did not cover, it is the first measure. Decisions:
    choose-order.

    Raises:
        ValueError: if an encoder lacks the measure that the user named.
    """
    common = [name for name in MEASURES if all(name in candidate.measures for candidate in group)]
    trusts = study_of(method)
    if by is not None:
        if by not in common:
            lacking = next(c.encoder for c in group if by not in c.measures)
            raise ValueError(f"--by {by}: {lacking} has no such measure; all of {method} have {', '.join(common)}")
        return by, trusts.get(by)
    known = [trusts[name] for name in common if name in trusts]
    if not known:
        return common[0], None
    best = max(known, key=lambda trust: trust.low)
    return best.measure, best


@cache
def read_study() -> Mapping[str, Any]:
    """Returns the content of the file that the study has written: its groups of runs, and what it found of each."""
    content = files("infomax.experiments").joinpath(STUDY).read_bytes()
    return parse_json(content, STUDY)


def study_of(method: str) -> dict[str, Trust]:
    """Returns what the study found of each measure for runs of a method that had not collapsed; empty if it has none.

    A measure is left out if it is not known on one of the method's data sets.
    """
    groups = [g for g in read_study()["groups"] if g["method"] == method and not g["with_collapsed"]]
    trusts = {}
    for name in MEASURES:
        of_groups = [group["measures"].get(name) for group in groups]
        if of_groups and all(values is not None and values["spearman"] is not None for values in of_groups):
            agreements = [
                Agreement(
                    data=group["data"],
                    spearman=values["spearman"],
                    interval=(values["spearman_interval"][0], values["spearman_interval"][1]),
                    runs=group["runs"],
                    beats_last=values["beats_last"],
                )
                for group, values in zip(groups, of_groups, strict=True)
            ]
            trusts[name] = Trust(name, tuple(agreements))
    return trusts
