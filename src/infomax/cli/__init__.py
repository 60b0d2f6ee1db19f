"""The command. The only files that know the argument parser; no torch before there is something to compute."""

import os
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from infomax.cli import commands
from infomax.cli.evaluate import PROTOCOLS, Evaluate, Report
from infomax.cli.train import Demo, Plan, Pretrain, Recipes, Replay, Sweep, Views
from infomax.evaluation import run as judging
from infomax.runtime.failures import MachineError

Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Pretrain, subcommand("pretrain")]
    | Annotated[Recipes, subcommand("recipes")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Plan, subcommand("plan")]
    | Annotated[Views, subcommand("views")]
    | Evaluate
    | Annotated[Report, subcommand("report")]
    | Annotated[Replay, subcommand("replay")]
)
NO_ACCUMULATION = (
    "these losses compare the images of a whole batch, so gradients added up over small batches would be those of "
    "another loss; --micro-batch-size N takes --batch-size images through the device N at a time, with the exact gradient"
)
ABOUT = "Train image encoders without labels by information maximisation, and see how good they are."


def main() -> None:
    """Run the command. Exit codes: 0 done, 1 something failed, 2 a user's mistake, 130 interrupted."""
    for word in sys.argv[1:]:
        if word.startswith("--") and "accum" in word:
            _fail(f"{word}: {NO_ACCUMULATION}", code=2)
    config = (OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    command: Any = tyro.cli(Command, prog="infomax", description=ABOUT, config=config)  # pyrefly: ignore
    actions = {
        Demo: commands.demo,
        Pretrain: commands.pretrain,
        Recipes: commands.recipes,
        Sweep: commands.sweep,
        Plan: commands.plan,
        Views: commands.views,
        **{kind: partial(judging.evaluate, kind.__name__.lower()) for kind in PROTOCOLS},
        Report: judging.report,
        Replay: commands.replay,
    }
    for words in command.evaluate if isinstance(command, Sweep) else ():
        with suppress(ValueError):  # which the sweep tells of
            tyro.cli(Command, prog="infomax", args=["evaluate", *shlex.split(words), "RUN"], config=config)  # pyrefly: ignore
    try:
        actions[type(command)](**asdict(command))
    except ValueError as error:
        _fail(str(error), code=2)
    except BrokenPipeError:  # the reader has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FloatingPointError, OSError, MachineError) as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as interruption:
        _fail(f"interrupted{interruption}", code=130)


def _fail(message: str, *, code: int) -> None:
    if message.startswith("Caught "):  # a worker's error carries its traceback; its last line says what
        message = message.strip().splitlines()[-1].removeprefix("ValueError: ")
    print(f"infomax: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
