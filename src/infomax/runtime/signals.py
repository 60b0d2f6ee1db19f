"""Signals that end a run: Ctrl-C, SIGTERM and SLURM's warning. A handler notes them, and loops stop between steps."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from math import inf
from multiprocessing.process import parent_process
from types import FrameType
from typing import Any, Self

from infomax.runtime.failures import MachineError
from infomax.runtime.text import note

ORPHAN_POLL = 0.5  # seconds between two looks at whether the parent process lives
REPEAT_AFTER = 0.05  # seconds after which a lost interrupt is raised again
ORPHAN_GRACE = 7.0  # seconds that an orphan has to save itself
PARENT_VARIABLE = "INFOMAX_PARENT"  # number of the process that a command is to end with
ERROR_FILE_VARIABLE = "INFOMAX_ERROR_FILE"  # file into which a command writes the line about its failure, too
SAME_SECONDS = 0.5
"""Within which a second Ctrl-C is the first one, passed on by a parent."""
NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C"}  # what users call a signal, if not by its own name


def end_with_parent(parent: int, *, grace: float = ORPHAN_GRACE) -> None:
    """Starts a thread that ends this process when its parent has ended, however that ended.

    The process first gets SIGTERM, as from its parent, so that it can save itself, and is killed after some seconds.

    Args:
        parent: Number of the parent process. If another one is the parent now, it has ended already.
        grace: Seconds between SIGTERM and the end.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_POLL)
        if grace > 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def repeat_lost_interrupts() -> None:
    """Lets Ctrl-C count too if it comes while Python tidies an object up.

    Python then prints the ``KeyboardInterrupt``, goes on, and the user has to press again. From this call on, such an
    interrupt is raised once more, a moment later.
    """
    hook = sys.unraisablehook

    def repeat(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            with suppress(RuntimeError):  # no thread starts while the process ends
                threading.Timer(REPEAT_AFTER, _thread.interrupt_main).start()
        else:
            hook(unraisable)

    sys.unraisablehook = repeat


def is_first_process() -> bool:
    """Returns whether this process is the first rank, or the one that started all ranks of its machine."""
    is_first_rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
    return is_first_rank and parent_process() is None


def _say_received(number: int) -> None:
    """Prints a line at the moment that a signal comes, as the step that is being made may take long.

    Python calls a handler between two of its own instructions, so that this may be amid another line: then it is
    left out.
    """
    if is_first_process():
        again = "; Ctrl-C again ends at once, unsaved" if number == signal.SIGINT else ""
        with suppress(RuntimeError, ValueError):
            note(f"{NAMES.get(number, signal.Signals(number).name)}: ending after this step{again}")


class Interruption:
    """A context manager that notes the first signal to end, so that a loop can stop after the step it is in.

    It handles Ctrl-C (SIGINT), SIGTERM and, under SLURM, SIGUSR1, the warning before a job's time is up. A second
    Ctrl-C raises ``KeyboardInterrupt`` at once. The same signal may come twice, to the process itself and from its
    parent, as ``uv run`` passes it on: a Ctrl-C within half a second is the same one, and other signals are ignored
    after the first one.

    Args:
        at_once: Whether the first Ctrl-C raises ``KeyboardInterrupt`` too, for work of which nothing need be saved.

    Attributes:
        signal: Number of the first signal that came; 0 if none came yet.
        at_once: As the argument; set it to False when there is something to save.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.signal, self.at_once = 0, at_once
        self._received_at = -inf
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            warning = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
            self._previous_handlers = {
                number: signal.signal(number, self._note) for number in (signal.SIGTERM, *warning)
            }
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a rank leaves Ctrl-C to its parent process
                self._previous_handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_again = self.signal == signal.SIGINT and time.monotonic() - self._received_at > SAME_SECONDS
        if number == signal.SIGINT and (self.at_once or is_again):
            raise KeyboardInterrupt
        if not self.signal:
            self.signal, self._received_at = number, time.monotonic()
            _say_received(number)

    @staticmethod
    def end(number: int) -> None:
        """Ends the process as the signal asks; call it after the state is saved.

        After SLURM's warning, the first rank also asks SLURM to queue the job again.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: with code 0 after any other signal.
            MachineError: if SLURM refuses to queue the job again.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGUSR1 and is_first_process():
            command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise MachineError(f"{' '.join(command)} failed: {result.stderr.strip()}; the run is saved")
        raise SystemExit(0)
