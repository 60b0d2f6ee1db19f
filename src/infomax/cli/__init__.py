"""The command line: the only package that knows the argument parser.

In: the words of a command. Out: printed text and an exit code. One file a family of commands; what they do is in the
packages below. No torch is imported before there is something to compute.
"""

import io
import os
import sys
import warnings
from functools import reduce
from operator import or_
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from infomax.cli import evaluate, experiments, train
from infomax.runtime.doors import command_door
from infomax.runtime.failures import MachineError
from infomax.runtime.ranks import is_first_rank
from infomax.runtime.signals import PARENT_VARIABLE, end_with_parent
from infomax.runtime.stages import stages_shown
from infomax.runtime.text import escape_lines, note
from infomax.runtime.threads import set_thread_variables

BEFORE_EVALUATE = (experiments.DEMO, train.PRETRAIN, experiments.RECIPES, experiments.SWEEP, train.PLAN, train.VIEWS)
AFTER_EVALUATE = (evaluate.REPORT, train.REPLAY)
COMMANDS = {command.name: command for command in (*BEFORE_EVALUATE, *AFTER_EVALUATE)}
"""All commands by name, in the order of ``--help``, but ``evaluate``, which has a command for each protocol."""
NO_ACCUMULATION = (
    "these losses compare the images of a whole batch, so gradients added up over small batches would be those of "
    "another loss; --micro-batch-size N takes --batch-size images through the device N at a time, with the exact "
    "gradient"
)
_DEFAULT_FORMAT = warnings.formatwarning
ABOUT = "Train image encoders without labels by information maximisation, and see how good they are."


def main() -> None:
    """Runs the command. Exit codes: 0 done, 1 something failed, 2 a user's mistake, 130 interrupted."""
    warnings.formatwarning = _format_warning
    os.environ["PYTHONSAFEPATH"] = "1"  # no process that this one starts imports a module from the working folder
    set_thread_variables()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that knows no Unicode still shows all else
        sys.stdout.reconfigure(errors="backslashreplace")
    if (parent := os.environ.pop(PARENT_VARIABLE, "")).isdecimal():
        end_with_parent(int(parent))
    for word in sys.argv[1:]:
        if word.startswith("--") and "accum" in word:
            _fail(f"{word}: {NO_ACCUMULATION}", code=2)
    config = (OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    before, after = ([command.subcommand for command in group] for group in (BEFORE_EVALUATE, AFTER_EVALUATE))
    kinds = [*before, evaluate.Evaluate, *after]
    parsed: Any = tyro.cli(reduce(or_, kinds), prog="infomax", description=ABOUT, config=config)
    with command_door(), stages_shown(is_first_rank() and not getattr(parsed, "quiet", False)):
        _carry_out(parsed)


def _carry_out(parsed: Any) -> None:
    """Carries out the parsed command, and turns errors into one line and an exit code."""
    try:
        _run(parsed)
    except ValueError as error:
        _fail(str(error), code=2)
    except BrokenPipeError:  # the reader has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FloatingPointError, OSError, MachineError) as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as interruption:
        _fail(f"interrupted{interruption}", code=130)


def _run(parsed: Any) -> None:
    """Carries out the command whose options the parser has filled."""
    if (protocol := evaluate.PROTOCOL_CLASSES.get(type(parsed))) is not None:
        evaluate.evaluate(protocol, vars(parsed))
    else:
        next(command for command in COMMANDS.values() if command.parsed_class is type(parsed)).run(parsed)


def _format_warning(*details: Any, **options: Any) -> str:
    """Returns the text of a Python warning, which may hold a name that others gave to a file."""
    return escape_lines(_DEFAULT_FORMAT(*details, **options))


def _fail(message: str, *, code: int) -> None:
    """Prints one line to standard error and ends the process."""
    if message.startswith("Caught "):  # a worker's error carries its traceback, whose last line is the message
        message = message.strip().splitlines()[-1].removeprefix("ValueError: ")
    note(" ".join(message.split()))
    sys.exit(code)
