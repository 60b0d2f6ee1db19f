"""Evaluations of a sweep's runs: those that the user names, and those that measure the columns of a published table."""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infomax.data.sources.location import DataLocation
from infomax.evaluation.options import BaselineOptions, ComputeOptions, EvaluationData
from infomax.evaluation.protocol import Protocol, ProtocolOptions
from infomax.evaluation.protocols import PROTOCOLS
from infomax.evaluation.run import evaluation_hash, split_data
from infomax.experiments.options import SweepOptions
from infomax.papers.published import Column
from infomax.recipes.experiment import Experiment
from infomax.runs.run_folder import Run
from infomax.runtime.checks import choose
from infomax.runtime.options import from_argv, to_argv

NOT_MEASURED = {
    "speed": "it is the time of the authors' machine, which infomax plan estimates",
    "other": "it is memory of the authors' machine, which infomax plan estimates",
}
"""Why no protocol measures a column, by the column's protocol."""


@dataclass(frozen=True)
class Evaluation:
    """A frozen dataclass that holds how all runs of a sweep are evaluated."""

    protocol: Protocol
    options: ProtocolOptions
    data: EvaluationData
    compute: ComputeOptions
    """Device, workers, cache and precision; of these the precision of the features alone decides a result."""
    words: str = field(compare=False)
    """The evaluation as the user names it, as ``linear --probe mira``."""
    repetition: int = field(default=0, compare=False)
    """0, or 1 and so on if it repeats another evaluation with another seed."""
    epoch: int | None = None
    """Epoch, from 1, after which the encoder was kept that is evaluated; None for the one of the whole run."""
    baselines: bool = field(default=True, compare=False)
    """Whether baselines may be evaluated too, where the protocol has them."""

    def measures(self, column: Column) -> bool:
        """Returns whether this is the evaluation of a published column, by the paper's own classifier, with any
        seed."""
        measuring = self.protocol.options_for(column)
        if self.epoch != column.kept_epoch:
            return False
        if measuring is None or (self.data.subset or "") != column.subset or self.data.classes is not None:
            return False
        if self.data.data != (column.data if self.protocol.default_data(measuring) else None):
            return False
        return _with_seed(self.options, 0) == measuring

    def repeated(self, repetition: int) -> "Evaluation":
        """Returns the evaluation with a seed that is larger by ``repetition``; itself if nothing in it is random."""
        options = _with_seed(self.options, getattr(self.options, "seed", 0) + repetition)
        if options == self.options:
            return self
        repeated = replace(self, options=options, words=_words(options, self), repetition=repetition, epoch=None)
        return repeated if self.epoch is None else repeated.at_epoch(self.epoch)

    def at_epoch(self, epoch: int) -> "Evaluation":
        """Returns the same evaluation of the encoder that is kept after an epoch of the run."""
        return replace(self, epoch=epoch, words=f"{self.words}, epoch {epoch}")

    def repetitions(self, evaluations: Iterable["Evaluation"]) -> list["Evaluation"]:
        """Returns those of some evaluations that are this one or repeat it with other seeds."""
        return [e for e in evaluations if e == self or (e.repetition and e == self.repeated(e.repetition))]

    def hashes(self, run: Run) -> set[str]:
        """Returns the hashes of this evaluation of a run; one for each data set."""
        parts, names = self.data.given_location(), self.protocol.default_data(self.options)
        if "data" in parts:
            data = split_data(parts["data"], several=bool(names))
        elif names:
            data = list(names)
        else:
            parts = {**vars(run.location), **parts}
            data = [parts["data"]]
        precision = self.compute.feature_precision
        parts = {"value_range": run.location.value_range, **parts}  # as an evaluation of the run takes it
        places: list[dict[str, Any]] = [{**parts, "data": name} for name in data]
        return {evaluation_hash(self.options, DataLocation(**place), precision) for place in places}

    def argv(self, run_folder: Path, *, with_baselines: bool = False) -> list[str]:
        """Returns the words of the command that evaluates a run, and its baselines too if they are wanted."""
        without = self.protocol.baselines and not with_baselines
        baselines = to_argv(BaselineOptions(no_baselines=True)) if without else []
        parts = (self.compute, self.data, self.options)
        encoder = run_folder if self.epoch is None else Run(run_folder).kept_encoder(self.epoch)
        return [
            "evaluate",
            self.protocol.name,
            str(encoder),
            *baselines,
            *(w for part in parts for w in to_argv(part)),
        ]


def parse_evaluation(words: str, options: SweepOptions) -> Evaluation:
    """Returns the evaluation that words of ``infomax evaluate`` stand for, without the encoder.

    Args:
        words: As ``linear --probe mira``.
        options: The sweep's, whose device and workers are taken if the words name none.

    Raises:
        ValueError: if there is no such protocol or option.
    """
    try:
        name, *argv = shlex.split(words) or [""]
    except ValueError as error:
        raise ValueError(f"--evaluate {words}: {error}") from None
    single = [key for key, protocol in PROTOCOLS.items() if not protocol.default_data(protocol.options())]
    protocol = PROTOCOLS[choose("--evaluate", name, single)]
    kinds = (protocol.options, protocol.data, ComputeOptions, *([BaselineOptions] if protocol.baselines else []))
    try:
        protocol_options, data, compute, *others = from_argv(argv, *kinds)
    except ValueError as error:
        raise ValueError(f"--evaluate {words}: {error}") from None
    baselines = not any(isinstance(x, BaselineOptions) and x.no_baselines for x in others)
    return _complete(Evaluation(protocol, protocol_options, data, compute, words, baselines=baselines), options)


def _complete(evaluation: Evaluation, options: SweepOptions) -> Evaluation:
    """Returns the evaluation on the sweep's device and with its workers, if it names none itself."""
    compute = evaluation.compute
    if compute.device == "auto":
        compute = replace(compute, device=options.device)
    if compute.workers is None:
        compute = replace(compute, workers=options.workers)
    return replace(evaluation, compute=compute)


def _with_seed(options: ProtocolOptions, seed: int) -> ProtocolOptions:
    """Returns the options with another seed; as they are if they have none, or refuse one."""
    if hasattr(options, "seed"):
        with suppress(ValueError):  # as those of logistic regression, which has no seed
            return type(options)(**{**vars(options), "seed": seed})
    return options


def _words(options: ProtocolOptions, evaluation: Evaluation) -> str:
    """Returns an evaluation's words with other options, and without the place of its data."""
    data = replace(evaluation.data, data_dir=None, download=False)
    return " ".join([evaluation.protocol.name, *to_argv(data), *to_argv(options)])


def with_seeds(evaluations: Iterable[Evaluation], seeds: int) -> tuple[Evaluation, ...]:
    """Returns each evaluation with the seeds from its own up; once, if nothing in it is random."""
    return tuple(dict.fromkeys(e.repeated(i) for e in evaluations for i in range(seeds)))


def column_evaluations(column: Column, options: SweepOptions) -> tuple[Evaluation, ...]:
    """Returns the evaluations that measure a published column, one for each seed; none if no protocol does.

    Args:
        column: The column.
        options: The sweep's, whose device, workers and data folder are taken, and whose number of seeds, if it has one.
    """
    for protocol in PROTOCOLS.values():
        measuring = protocol.options_for(column)
        if measuring is None:
            continue
        data = protocol.data(subset=column.subset or None)
        if protocol.default_data(measuring):
            data = replace(data, data=column.data, data_dir=options.data_dir, download=options.download)
        evaluation = _complete(Evaluation(protocol, measuring, data, ComputeOptions(), ""), options)
        evaluation = replace(evaluation, words=_words(measuring, evaluation))
        return with_seeds([evaluation], options.evaluation_seeds or column.evaluation_seeds)
    return ()


def paper_evaluations(experiment: Experiment, options: SweepOptions) -> tuple[Evaluation, ...]:
    """Returns how a recipe's paper measures its runs: as its main number, else as other runs on the same data.

    A recipe of ours, or one on other images than the paper's, has none.
    """
    column = experiment.main_column
    if column is None or options.data not in (None, experiment.data):
        return ()
    return column_evaluations(column, options)


def why_not_measured(column: Column) -> str:
    """Returns why no protocol measures a column; empty if one does, or if it is the mean of columns that one does."""
    if any(protocol.options_for(column) is not None for protocol in PROTOCOLS.values()):
        return ""
    if column.data == "average" and column.protocol in ("transfer", "transfer-finetune"):
        return ""
    return NOT_MEASURED.get(column.protocol, "no protocol has the paper's settings")
