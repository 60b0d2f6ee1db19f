"""The command line: the only package that knows the argument parser.

In: the words of a command. Out: printed text and an exit code. One file a family of commands; what they do is in the
packages below. No torch is imported before there is something to compute.
"""

import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from importlib.metadata import version
from operator import or_
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from infomax.cli import classify, doctor, embeddings, evaluate, experiments, export, figures, train, watch
from infomax.cli.command import Command
from infomax.cli.options_file import FileOptions, insert_options_file
from infomax.cli.words import check_words, lengthen_options
from infomax.evaluation.protocols import PROTOCOLS
from infomax.runtime.checks import choose
from infomax.runtime.doors import command_door
from infomax.runtime.failures import CollapseError, MachineError
from infomax.runtime.options import OptionField, option_fields
from infomax.runtime.ranks import is_first_rank
from infomax.runtime.signals import ERROR_FILE_VARIABLE, PARENT_VARIABLE, end_with_parent, repeat_lost_interrupts
from infomax.runtime.stages import stages_shown
from infomax.runtime.text import end_begun_line, escape_lines, note, show
from infomax.runtime.threads import set_thread_variables

BEFORE_EVALUATE = (
    experiments.DEMO,
    train.PRETRAIN,
    watch.WATCH,
    experiments.RECIPES,
    experiments.SWEEP,
    experiments.COMPARE,
    train.PLAN,
    train.VIEWS,
)
AFTER_EVALUATE = (
    evaluate.REPORT,
    experiments.CHOOSE,
    figures.FIGURE,
    embeddings.EMBED,
    embeddings.SEARCH,
    embeddings.DUPLICATES,
    embeddings.CLUSTERS,
    *classify.COMMANDS,
    export.EXPORT,
    train.REPLAY,
    train.OPTIONS,
    doctor.DOCTOR,
)
COMMANDS = {command.name: command for command in (*BEFORE_EVALUATE, *AFTER_EVALUATE)}
"""All commands by name, in the order of ``--help``, but ``evaluate``, which has a command for each protocol. Those of a
group have names of two words, as ``classify fit``."""
_DEFAULT_FORMAT = warnings.formatwarning
COMPLETION, SHELLS = "--print-completion", ("bash", "zsh")
ABOUT = (
    "Train image encoders without labels by information maximisation, and see how good they are. infomax --version "
    "prints the version, and infomax --print-completion bash (or zsh) what completes commands and options in a shell."
)


def main() -> None:
    """Runs the command. Exit codes: 0 done, 1 something failed, 2 a user's mistake, 130 interrupted."""
    warnings.formatwarning = _format_warning
    os.environ["PYTHONSAFEPATH"] = "1"  # no process that this one starts imports a module from the working folder
    set_thread_variables()
    repeat_lost_interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that knows no Unicode still shows all else
        sys.stdout.reconfigure(errors="backslashreplace")
    if (parent := os.environ.pop(PARENT_VARIABLE, "")).isdecimal():
        end_with_parent(int(parent))
    try:
        try:
            _answer()
        finally:
            sys.stdout.flush()  # what was printed last, as help, may still be here
    except BrokenPipeError:
        _stop_printing()


def _answer() -> None:
    """Carries out what the words of the command line ask for; mistakes in them end the process."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        show(f"infomax {version('infomax')}")
        return
    words = sys.argv[1:]
    try:
        if words[:1] == [COMPLETION]:
            words = ["--tyro-print-completion", choose(COMPLETION, "".join(words[1:]), SHELLS)]
        else:
            options = command_options()
            words = insert_options_file(lengthen_options(words, options), options)
            check_words(words, options)
            sys.argv[1:] = words  # what is kept of the command has the options of the file, which may change
    except ValueError as error:
        _fail(str(error), code=2)
    parsed = parse_words(words)
    with command_door(), stages_shown(is_first_rank() and not getattr(parsed, "quiet", False)):
        _carry_out(parsed)


def parse_words(words: Sequence[str]) -> Any:
    """Returns the object with the options of a command; help, and what cannot be parsed, end the process."""
    config = (OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    before, after = (_parsers(group) for group in (BEFORE_EVALUATE, AFTER_EVALUATE))
    kinds: Any = reduce(or_, [*before, evaluate.Evaluate, *after])
    return tyro.cli(kinds, args=words, prog="infomax", description=ABOUT, config=config)


def _parsers(commands: Sequence[Command]) -> list[Any]:
    """Returns the parsers' types of commands; those of the group ``classify`` have one together."""
    first = classify.COMMANDS[0]
    alone = [command for command in commands if command not in classify.COMMANDS[1:]]
    return [classify.Classify if command is first else command.subcommand for command in alone]


def command_options() -> dict[str, tuple[OptionField, ...]]:
    """Returns the options of each command, and those of ``evaluate`` with each protocol, as ``evaluate knn``."""
    before, after = (
        {command.name: (command.options,) for command in group} for group in (BEFORE_EVALUATE, AFTER_EVALUATE)
    )
    protocols = {f"evaluate {name}": evaluate.option_classes(protocol) for name, protocol in PROTOCOLS.items()}
    classes: dict[str, tuple[type, ...]] = {**before, **protocols, **after}
    return {
        name: tuple({field.name: field for cls in (*options, FileOptions) for field in option_fields(cls)}.values())
        for name, options in classes.items()
    }


def _carry_out(parsed: Any) -> None:
    """Carries out the parsed command, and turns errors into one line and an exit code."""
    try:
        _run(parsed)
    except ValueError as error:
        _fail(str(error), code=2)
    except BrokenPipeError:
        _stop_printing()
    except (FloatingPointError, OSError, MachineError, CollapseError) as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as interruption:
        _fail(f"interrupted{interruption}", code=130)


def _stop_printing() -> None:
    """Lets what is still printed vanish: the reader has seen enough, as head has."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(parsed: Any) -> None:
    """Carries out the command whose options the parser has filled."""
    if (protocol := evaluate.PROTOCOL_CLASSES.get(type(parsed))) is not None:
        evaluate.evaluate(protocol, vars(parsed))
    else:
        next(command for command in COMMANDS.values() if command.parsed_class is type(parsed)).run(parsed)


def _format_warning(*details: Any, **options: Any) -> str:
    """Returns the text of a Python warning, which may hold a name that others gave to a file."""
    end_begun_line()
    return escape_lines(_DEFAULT_FORMAT(*details, **options))


def _fail(message: str, *, code: int) -> None:
    """Prints one line to standard error and ends the process."""
    if message.startswith("Caught "):  # a worker's error carries its traceback, whose last line is the message
        message = re.sub(r"^(ValueError|infomax\.[\w.]+): ", "", message.strip().splitlines()[-1])
    line = " ".join(message.split())
    note(line)
    if file := os.environ.get(ERROR_FILE_VARIABLE):  # of the process that has started this one
        with suppress(OSError):
            Path(file).write_text(line, errors="surrogateescape")
    sys.exit(code)
