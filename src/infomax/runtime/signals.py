"""Ctrl-C, SIGTERM and SLURM's warning, noted by a handler and heeded between two steps."""

import os
import signal
import subprocess
import threading
from multiprocessing.process import parent_process
from types import FrameType
from typing import Any, Self

from infomax.runtime.failures import MachineError


class Interruption:
    """Ctrl-C, SIGTERM and the warning that SLURM sends before the time is up, to be heeded between two steps.

    A second Ctrl-C interrupts at once. Other signals may come twice, to a process and through the one above it.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            warning = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, *warning)}
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a rank leaves Ctrl-C to the process above it
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    @staticmethod
    def end(number: int) -> None:
        """End the process as a signal wants, after what was computed is safe.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: with 0, after SIGTERM, or after SLURM was told to queue the job again.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        if number == signal.SIGUSR1 and first and parent_process() is None:
            command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            if told.returncode:
                raise MachineError(f"{' '.join(command)} failed: {told.stderr.strip()}; the run is saved")
        raise SystemExit(0)
