"""The command ``infomax evaluate``, with a subcommand for each protocol, and ``infomax report``."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import subcommand

from infomax.cli.command import Command
from infomax.cli.command_class import command_class
from infomax.evaluation.options import BaselineOptions, ComputeOptions, EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import Protocol
from infomax.evaluation.protocols import PROTOCOLS
from infomax.evaluation.result_row import ResultRow
from infomax.reporting.options import ReportOptions
from infomax.runtime.options import Shown, pick
from infomax.runtime.ranks import is_first_rank
from infomax.runtime.text import note, show

if TYPE_CHECKING:
    from infomax.evaluation.run import EvaluationRequest


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """A frozen dataclass that says which encoder is evaluated, and where its results are kept."""

    encoder: Annotated[str | None, Shown(metavar="ENCODER", default="what --encoder says", positional=True)] = None
    """A run folder, or an encoder that was kept in it, as runs/a/epochs/50; timm:NAME, torchvision:NAME or hf:NAME; or
    a checkpoint file of others."""
    named: Annotated[str | None, Shown(name="encoder", metavar="ENCODER", default="the first word")] = None
    """The encoder, as an option instead of the first word."""
    out: Annotated[Path | None, Shown(metavar="FILE", default="the run's results.jsonl, or one in this folder")] = None
    """File that a line is added to for each result."""


def option_classes(protocol: Protocol) -> tuple[type, ...]:
    """Returns the classes with the options of ``infomax evaluate`` for a protocol."""
    baselines = (BaselineOptions,) if protocol.baselines else ()
    return (EncoderOptions, protocol.data, ComputeOptions, *baselines, protocol.options)


PROTOCOL_CLASSES = {
    command_class(protocol.options.__name__.removesuffix("Options"), *option_classes(protocol)): protocol
    for protocol in PROTOCOLS.values()
}
"""The protocols by the classes that the parser fills."""


def evaluate(protocol: Protocol, values: Mapping[str, Any]) -> None:
    """Carries out ``infomax evaluate``: keeps each result as soon as it is known, and prints them all at the end.

    Args:
        protocol: The protocol.
        values: The options of the command by name.

    Raises:
        ValueError: if an option is impossible.
        MachineError: if memory or a process was lost.
    """
    from infomax.evaluation.run import launched_ranks, prepare_evaluation
    from infomax.runs.run_folder import run_of

    words = pick(EncoderOptions, values)
    if (encoder := words.encoder or words.named) is None or (words.encoder and words.named):
        raise ValueError(
            "one encoder is wanted: a run folder, timm:NAME, torchvision:NAME, hf:NAME or a checkpoint file"
        )
    out = words.out
    if out is None and run_of(encoder) is None:
        out = Path("results.jsonl")
    options, location = pick(protocol.options, values), pick(EvaluationData, values)
    evaluation = pick(EvaluationOptions, {**values, "quiet": False})
    request = prepare_evaluation(protocol, options, encoder, location, evaluation, out=out)
    first, rows = is_first_rank(), []
    try:
        with launched_ranks(evaluation) as rank_options:
            opened, missing = request.open_data()
            if first:
                _print_missing(protocol, missing, [data.source.name for data in opened], options)
            command = shlex.join(["infomax", *sys.argv[1:]])
            for row in replace(request, evaluation=rank_options).rows(opened, command=command):
                rows.append(row)
    finally:  # the rows from before an interruption or a failure are shown
        if rows and first:
            _print_rows(request, rows)
            _print_training(request, rows)
            show(f"added to {request.out}")


def _print_missing(protocol: Protocol, missing: list[str], opened: list[str], options: Any) -> None:
    if missing:
        show(f"left out: {', '.join(sorted({*protocol.default_data(options)} - {*opened}))}")
        for reason in missing:
            note(reason)


def _print_rows(request: "EvaluationRequest", rows: list[ResultRow]) -> None:
    from infomax.reporting.results import LONGER_TRAINING, lists_table, results_table

    cure, run, data = LONGER_TRAINING, request.run, request.location.data
    if run is not None:
        cure = run.describe_longer_training()
        if data is not None and not images_overlap(data, run.location.data):
            command = f"infomax pretrain --data {shlex.quote(data)}"
            cure += f"; it was trained on {run.location.data}, and {command} trains one on these"
    show(results_table(request.protocol.title, rows, limits=list(request.limits.values()), cure=cure).text())
    for row in rows:
        if (table := lists_table(row)) is not None:
            show(f"\n{table.text()}")


def images_overlap(data: str, other: str) -> bool:
    """Returns whether two names of images are of the same folder, or of one within the other."""
    path, trained_path = Path(data).resolve(), Path(other).resolve()
    return path.is_relative_to(trained_path) or trained_path.is_relative_to(path)


def _print_training(request: "EvaluationRequest", rows: list[ResultRow]) -> None:
    """Prints how the encoder was trained, and the verdicts that were in force at the end, if there were any."""
    from infomax.reporting.results import describe_verdicts

    if request.run is None:
        return
    show(request.describe_training())
    if line := describe_verdicts(request.run.path.name, rows):
        show(line)


def report(options: ReportOptions) -> None:
    """Carries out ``infomax report``."""
    from infomax.reporting.comparison import list_published_tables
    from infomax.reporting.report import make_report, page_size

    if options.table == "list":
        show(list_published_tables())
        return
    tables, size = make_report(options)
    if options.out is None:
        show(tables)
    else:
        show(f"written to {options.out} ({page_size(size)})")


_SUBCOMMANDS: list[Any] = [
    Annotated[parsed_class, subcommand(protocol.name)] for parsed_class, protocol in PROTOCOL_CLASSES.items()
]
_ANY_PROTOCOL: Any = reduce(or_, _SUBCOMMANDS)
Evaluate: Any = Annotated[_ANY_PROTOCOL, subcommand("evaluate", description="Evaluate an encoder by a protocol.")]
"""The parser's type of ``infomax evaluate``."""
REPORT = Command(
    "report", ReportOptions, "Show results beside the published ones, or write a page that shows the runs.", report
)
