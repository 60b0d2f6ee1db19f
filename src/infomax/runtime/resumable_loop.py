"""A loop of steps that a signal may stop and a later process may resume; it saves its state from time to time."""

import signal
import time
from collections.abc import Callable
from math import inf
from typing import Self

import torch

from infomax.runtime.collectives import all_ranks_max, rank
from infomax.runtime.doors import is_command
from infomax.runtime.progress import ProgressBar
from infomax.runtime.signals import Interruption
from infomax.runtime.text import note

OWN_WISH = 1 << 16
"""Stands for a loop's own wish to end where others are numbers of signals, which are all smaller."""


class ResumableLoop:
    """A context manager around a loop of steps that can be stopped and resumed.

    The loop calls :meth:`step_done` after each step. If Ctrl-C, SIGTERM or SLURM's warning has come, the state is
    saved, a line says how to resume, and the process ends as the signal asks. After Ctrl-C in a command, this line is
    the message of the exception, which the command prints. On several ranks all stop after the same step. Otherwise the
    state is saved if the last time is long enough ago, but not after the last step. ::

        with ResumableLoop(steps=100, done=done, save=save, device=device, save_every=60) as loop:
            for batch in batches:
                train(batch)
                loop.step_done()

    Args:
        steps: Number of steps in all.
        done: Number of steps that an earlier process has made.
        save: Saves the state after :attr:`done` steps. It is called on every rank.
        device: The device on which ranks tell each other about signals.
        save_every: Seconds between two saves, at least.
        save_share: The share of the time that saving may take, above 0; saves become rarer if they take long. By
            default it has no limit.
        try_to_save: Is called instead of ``save`` when no signal has come, if a failure is then to be survived.
        bar: A progress bar, which is moved by each step and closed at the end; None shows none.
        name: The name of the loop at the start of the line.
        resume_hint: The words that say how to resume, as ``--resume goes on from there``. None says nothing, for a
            state that is not kept.
        say: Prints a line; None prints it to the standard error, above the bar. It is called on the first rank.
        interruption: Notes signals, if the caller has begun to note them before; None begins with the loop.
        make_error: Makes the error that ends the loop on each rank after :meth:`ask_to_end`, when the state is saved.

    Attributes:
        done: Number of steps that are made.
    """

    def __init__(
        self,
        *,
        steps: int,
        done: int = 0,
        save: Callable[[], object],
        device: torch.device,
        save_every: float,
        save_share: float = inf,
        try_to_save: Callable[[], object] | None = None,
        bar: ProgressBar | None = None,
        name: str = "",
        resume_hint: str | None = None,
        say: Callable[[str], object] | None = None,
        interruption: Interruption | None = None,
        make_error: Callable[[], Exception] = RuntimeError,
    ):
        self.steps, self.done, self.device = steps, done, device
        self._save, self._try_to_save = save, try_to_save or save
        self._save_every, self._save_share = save_every, save_share
        self._bar, self._name, self._resume_hint, self._say = bar, name, resume_hint, say or self._print
        self._interruption = interruption or Interruption()
        self._enters_interruption = interruption is None
        self._saved_at, self._save_seconds = time.perf_counter(), 0.0
        self._has_own_wish, self._make_error = False, make_error

    def __enter__(self) -> Self:
        if self._enters_interruption:
            self._interruption.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._enters_interruption:
            self._interruption.__exit__(*error)
        if self._bar is not None:
            self._bar.close()

    def ask_to_end(self) -> None:
        """Asks for the end of the loop after this step, as a signal would; one rank that asks is enough."""
        self._has_own_wish = True

    def step_done(self) -> None:
        """Counts a step, and stops or saves if it is time to.

        Raises:
            Exception: what ``make_error`` returns, after :meth:`ask_to_end`.
            KeyboardInterrupt: after Ctrl-C; in a command its message goes on from the word "interrupted".
            SystemExit: with code 0, after SIGTERM or SLURM's warning.
        """
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        wish = OWN_WISH if self._has_own_wish else self._interruption.signal
        if number := all_ranks_max(wish, self.device):  # a signal may have come to one rank alone
            self._save()
            if number == OWN_WISH:
                raise self._make_error()
            self._say_how_to_resume(number)
            self._interruption.end(number)
        seconds = time.perf_counter() - self._saved_at
        if self.done < self.steps and seconds > max(self._save_every, self._save_seconds / self._save_share):
            start = time.perf_counter()
            self._try_to_save()
            self._saved_at = time.perf_counter()
            self._save_seconds = self._saved_at - start

    def _say_how_to_resume(self, number: int) -> None:
        if self._resume_hint is None or rank() > 0:
            return
        position = f"at step {self.done} of {self.steps}"
        if number == signal.SIGINT and is_command():
            of_name = f" of {self._name}" if self._name else ""
            raise KeyboardInterrupt(f" {position}{of_name}; {self._resume_hint}")
        name = f"{self._name}: " if self._name else ""
        self._say(f"{name}stopped {position}; {self._resume_hint}")

    @staticmethod
    def _print(line: str) -> None:
        note(line)
