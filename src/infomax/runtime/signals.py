"""Signals that end a run: Ctrl-C, SIGTERM and SLURM's warning. A handler notes them, and loops stop between steps."""

import os
import signal
import subprocess
import threading
from multiprocessing.process import parent_process
from types import FrameType
from typing import Any, Self

from infomax.runtime.failures import MachineError


class Interruption:
    """A context manager that notes the first signal to end, so that a loop can stop after the step it is in.

    It handles Ctrl-C (SIGINT), SIGTERM and, under SLURM, SIGUSR1, the warning before a job's time is up. A second
    Ctrl-C raises ``KeyboardInterrupt`` at once. Other signals are ignored after the first one, because the same signal
    may come twice: to the process itself and from its parent.

    Attributes:
        signal: Number of the first signal that came; 0 if none came yet.
    """

    def __init__(self) -> None:
        self.signal = 0
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
        if number == self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number

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
        is_first_rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        if number == signal.SIGUSR1 and is_first_rank and parent_process() is None:
            command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise MachineError(f"{' '.join(command)} failed: {result.stderr.strip()}; the run is saved")
        raise SystemExit(0)
